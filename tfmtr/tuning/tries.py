"""The tries of a search: where they are stored, who runs which, and the ledger.

Optuna keeps them, in a journal file or a database, which several workers share. A worker is a process with a folder in
`out` whose lock it holds while it lives (`tfmtr.scratch`). So a try whose worker is gone is known at once, whatever
ended it: it counts as lost, which is a failure that the ledger keeps, and its values are tried again, once.
"""

import contextlib
import fcntl
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfmtr.documents import replacing
from tfmtr.scratch import sweep
from tfmtr.tuning.objective import DIRECTIONS
from tfmtr.tuning.space import Space
from tfmtr.tuning.trial import REDUCTION, rungs_of

if TYPE_CHECKING:
    import optuna

LEDGER = "trials.jsonl"
JOURNAL = "journal.log"  # where no storage is named
WORKER = ".worker-"  # what the names of workers' folders begin with
LOST = "lost: the worker that ran it was ended"
STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "waiting"}


def import_optuna() -> Any:
    """The package `optuna`.

    Raises:
        ImportError: If it is not installed; the message names the extra.
    """
    try:
        import optuna
    except ImportError as error:
        raise ImportError("`tfmtr tune` needs Optuna: pip install 'tfmtr[tune]'") from error
    return optuna


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps Optuna from telling of each try, while it lasts; the setting is the process's."""
    optuna = import_optuna()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def locked(file: Path) -> Iterator[None]:
    """Holds a file's lock; it goes with the process, however that ends."""
    with file.open("a") as opened:
        fcntl.flock(opened, fcntl.LOCK_EX)
        yield


def open_storage(storage: str | None, out: Path) -> Any:
    """Optuna's storage.

    Args:
        storage: URL of a database as SQLAlchemy has it, path of a journal file, or `None` for one in `out`.
        out: Folder of the search.

    Raises:
        ValueError: If there is no such database.
    """
    optuna = import_optuna()
    if storage is not None and "://" in storage:
        try:
            return optuna.storages.RDBStorage(storage)
        except Exception as error:  # SQLAlchemy's, of many kinds
            text = " ".join(str(error).split())
            shown = without_password(storage)
            raise ValueError(f"`storage` must be a database that can be opened. Received: {shown!r} ({text})") from None
    from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

    file = out / JOURNAL if storage is None else Path(storage)

    class Lock(JournalFileOpenLock):
        """Optuna's own locks outlive the process that held one."""

        def acquire(self) -> bool:
            self.held = contextlib.ExitStack()
            self.held.enter_context(locked(file.with_name(f"{file.name}.lock")))
            return True

        def release(self) -> None:
            self.held.close()

    file.parent.mkdir(parents=True, exist_ok=True)
    lock = Lock(str(file))
    lock.acquire()
    try:
        _cut_torn_line(file)
    finally:
        lock.release()
    return optuna.storages.JournalStorage(JournalFileBackend(str(file), lock_obj=lock))


def without_password(storage: str) -> str:
    """A storage's URL as it may be written down.

    >>> without_password("postgresql://me:secret@host/tries")
    'postgresql://me@host/tries'
    """
    return re.sub(r"://([^/@:]*):[^/@]*@", r"://\1@", storage)


def _cut_torn_line(file: Path) -> None:
    """Removes what a write that was cut short left: one more line after it would make the file unreadable."""
    if file.exists() and (text := file.read_bytes()) and not text.endswith(b"\n"):
        os.truncate(file, text.rfind(b"\n") + 1)


class Tries:
    """The tries of one search.

    Args:
        out: Folder of the search.
        name: Name of the study in the storage.
        storage: As for `open_storage`.
        space: The `Space`.
        objective: Its name.
        updates: Budget of a try.
        seed: Of what is drawn.
        recipe_seed: Seed of the tries' recipes, for the ledger.
    """

    def __init__(
        self,
        out: Path,
        name: str,
        storage: str | None,
        space: Space,
        *,
        objective: str,
        updates: int,
        seed: int,
        recipe_seed: int,
    ) -> None:
        optuna = import_optuna()
        self.out, self.space, self.seed, self.recipe_seed = out, space, seed, recipe_seed
        self.direction = DIRECTIONS[objective]
        least = (rungs_of(updates) or [1])[0]
        pruner = optuna.pruners.SuccessiveHalvingPruner(min_resource=least, reduction_factor=REDUCTION)
        with self.lock():
            self.study = optuna.create_study(
                storage=open_storage(storage, out),
                study_name=name,
                direction=self.direction,
                pruner=pruner,
                load_if_exists=True,
            )

    def lock(self) -> Any:
        """What one worker does at a time: asking for a try, and writing what all share."""
        return locked(self.out / ".lock")

    @property
    def all(self) -> "list[optuna.trial.FrozenTrial]":
        """All tries, in their order."""
        return self.study.get_trials(deepcopy=False)

    def next(self, worker: str, limit: int | None) -> "optuna.Trial | None":
        """The next try, with its values drawn; `None` where there are `limit` tries.

        Those of workers that are gone are lost: they do not count, unless their values were lost before.

        Args:
            worker: Name of the worker's folder in `out`.
            limit: Number of tries, of all workers together and of earlier ones; `None` for no limit.
        """
        optuna = import_optuna()
        with self.lock():
            self._find_lost()
            tries = self.all
            if limit is not None and sum(map(self._counts, tries)) >= limit:
                return None
            # What is drawn depends on the try's number, not on who draws it or what was drawn before in the process.
            self.study.sampler = optuna.samplers.TPESampler(seed=seed_of(self.seed, len(tries)), constant_liar=True)
            trial = self.study.ask(self.space.distributions)
            trial.set_user_attr("worker", worker)
            self._write()
        return trial

    def tell(self, trial: "optuna.Trial", state: str, value: float | None = None, **about: Any) -> None:
        """Says how a try ended.

        Args:
            trial: The try.
            state: `"COMPLETE"`, `"PRUNED"` or `"FAIL"`.
            value: The figure of a complete one.
            **about: `updates`, `seconds`, `error`, `slices` and `same_as`, as far as they are known.
        """
        optuna = import_optuna()
        for name, known in about.items():
            trial.set_user_attr(name, known)
        with self.lock():
            self.study.tell(trial, value, state=optuna.trial.TrialState[state])
            self._write()

    def same(self, trial: "optuna.Trial") -> "optuna.trial.FrozenTrial | None":
        """An earlier complete try with the same values; `None` where there is none."""
        complete = (other for other in self.all if other.state.name == "COMPLETE")
        return next((other for other in complete if other.params == trial.params), None)

    def lose(self, trial: "optuna.Trial | optuna.trial.FrozenTrial") -> None:
        """Ends a try that nobody will finish, and has its values tried again, unless that was such a second try."""
        with self.lock():
            self._lose(trial)
            self._write()

    def _lose(self, trial: "optuna.Trial | optuna.trial.FrozenTrial") -> None:
        optuna = import_optuna()
        self.study.tell(trial.number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
        if "again_of" not in trial.user_attrs and set(trial.params) == set(self.space.dimensions):
            self.study.enqueue_trial(dict(trial.params), user_attrs={"again_of": trial.number})

    def _find_lost(self) -> None:
        sweep(self.out, WORKER)  # folders of processes that are gone
        for trial in self.all:
            if trial.state.name == "RUNNING":
                worker = trial.user_attrs.get("worker")  # none: ended within `next`
                if worker is None or not (self.out / worker).exists():
                    self._lose(trial)

    def _counts(self, trial: "optuna.trial.FrozenTrial") -> bool:
        return trial.state.name != "WAITING" and (not is_lost(trial) or "again_of" in trial.user_attrs)

    @property
    def best(self) -> "optuna.trial.FrozenTrial | None":
        """The complete try with the best figure, of equal ones the first."""
        sign = -1 if self.direction == "maximize" else 1
        complete = [trial for trial in self.all if trial.state.name == "COMPLETE"]
        return min(complete, key=lambda trial: (sign * (trial.value or 0.0), trial.number), default=None)

    def row(self, trial: "optuna.trial.FrozenTrial") -> dict[str, Any]:
        """A try's line of the ledger."""
        about = trial.user_attrs
        drawn = trial.params or trial.system_attrs.get("fixed_params", {})  # of one that waits to be tried again
        is_complete = trial.state.name == "COMPLETE"
        return {
            "number": trial.number,
            "state": STATES[trial.state.name],
            "values": self.space.values(drawn),
            "value": trial.value if is_complete else None,
            "on_the_way": {str(step): value for step, value in sorted(trial.intermediate_values.items())},
            "updates": about.get("updates"),
            "seconds": about.get("seconds"),
            "seed": self.recipe_seed,
            "again_of": about.get("again_of"),
            "same_as": about.get("same_as"),
            "error": LOST if is_lost(trial) else about.get("error"),
        }

    def _write(self) -> None:
        """Writes the ledger: all tries, whatever became of them."""
        lines = [json.dumps(self.row(trial)) + "\n" for trial in self.all]
        with replacing(self.out / LEDGER) as temporary:
            temporary.write_text("".join(lines), encoding="utf-8")


def is_lost(trial: "optuna.trial.FrozenTrial") -> bool:
    """Whether nobody said how a try failed."""
    return trial.state.name == "FAIL" and "error" not in trial.user_attrs


def read_ledger(out: Path) -> list[dict[str, Any]]:
    """The lines of a search's ledger, none before the first try."""
    file = out / LEDGER
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def seed_of(seed: int, number: int) -> int:
    """Seed of what a try draws.

    >>> seed_of(0, 1) == seed_of(0, 1), seed_of(0, 1) == seed_of(1, 0)
    (True, False)
    """
    import numpy as np

    return int(np.random.SeedSequence([seed, number]).generate_state(1)[0])


def counted(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """`{state: how many tries}`.

    >>> counted([{"state": "pruned"}, {"state": "complete"}, {"state": "pruned"}])
    {'complete': 1, 'pruned': 2}
    """
    counts = {state: sum(row["state"] == state for row in rows) for state in STATES.values()}
    return {state: number for state, number in counts.items() if number}
