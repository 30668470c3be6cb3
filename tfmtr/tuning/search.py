"""`tune`: tries a recipe's values by validation users, and keeps the best."""

import dataclasses
import gc
import os
import shutil
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tfmtr import inputs
from tfmtr.checks import check_boolean, check_choice, check_integer, check_number, check_path
from tfmtr.datasets.dataset import Dataset
from tfmtr.diagnosis import warn
from tfmtr.documents import read_json, replacing, write_json
from tfmtr.folders import FORMATS, check_out
from tfmtr.recipe import Recipe, with_former_defaults
from tfmtr.scratch import remove, scratch
from tfmtr.tuning.importance import importances
from tfmtr.tuning.objective import DIRECTIONS, Objective
from tfmtr.tuning.space import Space
from tfmtr.tuning.trial import run_trial
from tfmtr.tuning.tries import WORKER, Tries, import_optuna, locked, quiet, without_password
from tfmtr.tuning.tuning import RECIPE, SEARCH, Tuning, write_report
from tfmtr.tuning.view import training_view

TRIALS = 20  # where neither their number nor a time is given
MOST_ERROR = 500  # characters of an error in the ledger


@dataclasses.dataclass(frozen=True)
class Search:
    """What is searched: all that must be the same for tries to be compared, and so for a search to go on.

    Attributes:
        space: The space as `Space.document` has it.
        recipe: The base recipe as `Recipe.document` has it.
        fingerprint: Of the data.
        forgotten: How many users the data have forgotten.
        objective: Its name.
        updates: Of each try.
        seed: Of what is drawn.
        prune: Whether tries are given up early.
        storage: URL, without its password, or path; `None` for a file in the folder.
    """

    space: dict[str, Any]
    recipe: dict[str, Any]
    fingerprint: str
    forgotten: int
    objective: str
    updates: int
    seed: int
    prune: bool
    storage: str | None


def tune(
    data: str | os.PathLike | None,
    out: str | os.PathLike,
    space: str | os.PathLike | Mapping[str, Any] | None = None,
    recipe: Recipe | None = None,
    *,
    objective: str | None = None,
    updates: int | None = None,
    trials: int | None = None,
    seconds: float | None = None,
    seed: int | None = None,
    prune: bool | None = None,
    storage: str | None = None,
    keep: bool = False,
) -> Tuning:
    """Tries values of a recipe, judged by validation users in training windows, and keeps the best.

    Values are drawn by a tree-structured Parzen estimator (Bergstra et al., Algorithms for Hyper-Parameter
    Optimization, NeurIPS 2011). Each try is trained as `train` trains for the first test window, with as many updates
    as all others. On a ninth and on a third of them it is judged, and given up unless it is among the best third of
    those that came so far (asynchronous successive halving; Li et al., A System for Massively Parallel Hyperparameter
    Tuning, MLSys 2020). Tries read a folder that has no test window, see `tfmtr.tuning.view`.

    The folder is a search: the same call goes on with it, in one process after the other or in several at a time, and
    what is left out is as the search has it. A try whose process was ended is listed as failed, and its values are
    tried again. With one worker the ledger is the same each time but for seconds.

    Args:
        data: Directory made by `tfmtr prepare`.
        out: Folder of the search; made if it does not exist.
        space: What may be chosen: a TOML file or its dictionary, see `tfmtr.tuning.space`.
        recipe: What is not searched; the default recipe if it is left out. Its epochs and patience make place for the
            budget.
        objective: `"ndcg"` (by default) of lists of ten, `"pr_auc"` or `"loss"`; see `tfmtr.tuning.objective`.
        updates: Updates of each try; those of `recipe` by default.
        trials: Number of tries, with those that were made before and that other workers make; 20 if there is no
            time limit.
        seconds: After how long no further try begins.
        seed: Of what is drawn, 0 by default; the recipe has its own for weights and order.
        prune: Whether tries are given up early, by default they are.
        storage: Where Optuna keeps the tries: URL of a database, or a file; by default one in `out`.
        keep: Whether the runs of the tries stay, in `out/trials/<number>`: `train` goes on with one for the test
            windows.

    Returns:
        The `Tuning`.

    Raises:
        ValueError: If the space is none, or has what the recipe or the data refuse: then nothing is written. If `out`
            holds another search; if the data have no rows, or nothing to judge by; if no try was completed.
        ImportError: If the extra `tune` is not installed.
    """
    import_optuna()
    out = check_path("out", out)
    before = read_json(out / SEARCH)
    check_out(out, "search")
    before = None if before is None else Tuning(out).document
    data, known = _data(data, before), _search_of(before)
    search = _search(data, known, space, recipe, objective, updates, seed, prune, storage)
    trials, seconds = _limits(trials, seconds, before)
    check_boolean("keep", keep)
    if known is not None and search != known:
        different = [f.name for f in dataclasses.fields(Search) if getattr(search, f.name) != getattr(known, f.name)]
        words = [{"fingerprint": "data", "forgotten": "data"}.get(name, name) for name in different]
        raise ValueError(
            "`out` must be new, or hold the same search to go on with; choose another folder. Received: "
            f"{out}, whose {' and '.join(sorted(set(words)))} differ"
        )
    found, base = Space.of(search.space), Recipe.from_document(search.recipe)
    found.check(base, data.schema, updates=search.updates, form="two_tower" if search.objective == "ndcg" else None)
    _check_rows(data)
    with quiet(), scratch(out, WORKER) as workplace:
        view = training_view(data, workplace / "data")
        judge = Objective(search.objective, view)
        for text in judge.warnings:
            warn(text)
        name = _open(out, search, data, trials, seconds, before)
        tries = Tries(
            out,
            name,
            storage or search.storage,
            found,
            objective=search.objective,
            updates=search.updates,
            seed=search.seed,
            recipe_seed=base.seed,
        )
        end = None if seconds is None else time.monotonic() + seconds
        try:
            while end is None or time.monotonic() < end:
                trial = tries.next(workplace.name, trials)
                if trial is None:
                    break
                _try(trial, tries, search, found, base, view, judge, workplace / "run", data, keep=keep)
                _write_best(out, tries, search)
        finally:
            _write_report(out, tries, search, data, judge)
    tuning = Tuning(out)
    if tuning.value is None and (errors := [row["error"] for row in tuning.trials if row["error"]]):
        raise ValueError(
            f"`space` must have values with which a model can be trained; {out} has the ledger of all tries. Received: "
            f"{len(errors)} that failed, the first one: {errors[0]}"
        )
    return tuning


def _data(data: str | os.PathLike | None, before: Mapping[str, Any] | None) -> Dataset:
    """The data that are named, or that the search was begun on."""
    if data is None and before is None:
        raise ValueError("`data` must be a directory made by `tfmtr prepare`. Received: none, and `out` is new")
    return Dataset(data if data is not None else before["data"])  # pyright: ignore[reportOptionalSubscript]


def _search_of(before: Mapping[str, Any] | None) -> Search | None:
    """What a folder's document says is searched.

    Raises:
        ValueError: If it is of an older format and chooses among parts, some of which had other defaults then.
    """
    if before is None:
        return None
    search = Search(**{f.name: before[f.name] for f in dataclasses.fields(Search)})
    if before.get("format", 1) > 1:
        return search
    for key, choices in search.space.items():
        parts = [{key: choice} for choice in choices] if isinstance(choices, list) else []
        if [with_former_defaults(part) for part in parts] != parts:
            raise ValueError(
                f"`out` must hold a search of format 2 to go on with a choice of `{key}`: parts had other defaults "
                "before; choose another folder. Received: format 1"
            )
    return dataclasses.replace(search, recipe=with_former_defaults(search.recipe))


def _search(
    data: Dataset,
    known: Search | None,
    space: str | os.PathLike | Mapping[str, Any] | None,
    recipe: Recipe | None,
    objective: str | None,
    updates: int | None,
    seed: int | None,
    prune: bool | None,
    storage: str | None,
) -> Search:
    """What is to be searched: what is given, what is known of it, and defaults."""
    if not isinstance(recipe, Recipe | None):
        raise ValueError(f"`recipe` must be a `Recipe`; `Recipe.load(file)` reads a file. Received: recipe={recipe!r}")
    if space is None and known is None:
        raise ValueError("`space` must say what may be chosen, in a TOML file. Received: none, and `out` is new")
    if space is not None:
        space = Space.of(space).document() if isinstance(space, Mapping) else Space.load(Path(space)).document()
    base = recipe.document() if recipe is not None else known.recipe if known else Recipe().document()
    if updates is None:
        updates = recipe.updates if recipe is not None and recipe.updates is not None else known and known.updates
    if updates is None:
        raise ValueError(
            "`updates` must say how many updates each try has, or the recipe must have them. Received: neither"
        )
    given = {"objective": objective, "seed": seed, "prune": prune, "storage": storage}
    defaults = {"objective": "ndcg", "seed": 0, "prune": True, "storage": None}
    for name, value in given.items():
        if value is None:
            given[name] = getattr(known, name) if known else defaults[name]
    check_choice("objective", given["objective"], tuple(DIRECTIONS))
    check_boolean("prune", given["prune"])
    if not isinstance(given["storage"], str | None):
        raise ValueError(f"`storage` must be a URL or a path, as text. Received: storage={given['storage']!r}")
    return Search(
        space=space if space is not None else known.space,  # pyright: ignore[reportArgumentType, reportOptionalMemberAccess]
        recipe=base,
        fingerprint=data.report["fingerprint"],
        forgotten=data.report.get("forgotten", 0),
        objective=str(given["objective"]),
        updates=check_integer("updates", updates, least=1, most=2**31 - 1),
        seed=check_integer("seed", given["seed"], least=0, most=2**32 - 1),
        prune=bool(given["prune"]),
        storage=None if given["storage"] is None else without_password(given["storage"]),
    )


def _limits(
    trials: int | None, seconds: float | None, before: Mapping[str, Any] | None
) -> tuple[int | None, float | None]:
    """How many tries there may be, and after how long none begins."""
    if trials is not None:
        trials = check_integer("trials", trials, least=1)
    if seconds is not None:
        seconds = check_number("seconds", seconds, above=0)
    if trials is None and seconds is None:
        return (before["trials"], before["seconds"]) if before else (TRIALS, None)
    return trials, seconds


def _check_rows(data: Dataset) -> None:
    """Raises a `ValueError` unless there are rows to train on and to judge by, and a window to train for."""
    if not data.test_windows:
        raise ValueError(
            "`data` must have a test window, which a model is trained for; prepare with --test-windows 1 or more. "
            f"Received: {data.path} without one"
        )
    inputs.check_rows(data, data.examples("train"), "training")
    inputs.check_rows(data, data.examples("validation"), "validation")


def _open(
    out: Path,
    search: Search,
    data: Dataset,
    trials: int | None,
    seconds: float | None,
    before: Mapping[str, Any] | None,
) -> str:
    """Writes what is searched where nobody has yet; returns the study's name.

    Raises:
        ValueError: If another worker has begun another search there in the meantime.
    """
    with locked(out / ".lock"):
        there = read_json(out / SEARCH)
        if there is not None and _search_of(there) != search:
            raise ValueError(
                f"`out` must be new, or hold the same search to go on with. Received: {out}, of another one"
            )
        if there is None or before is not None:
            document = {
                "format": FORMATS["search"],
                "study": there["study"] if there else f"tfmtr-{uuid.uuid4().hex}",
                "data": str(data.path.absolute()),
                "trials": trials,
                "seconds": seconds,
                **dataclasses.asdict(search),
            }
            write_json(out / SEARCH, document)
            return document["study"]
        return there["study"]


def _try(
    trial: Any,
    tries: Tries,
    search: Search,
    space: Space,
    base: Recipe,
    view: Dataset,
    objective: Objective,
    folder: Path,
    data: Dataset,
    *,
    keep: bool,
) -> None:
    """Trains and judges one try, and says how it ended."""
    optuna, started, made = import_optuna(), time.perf_counter(), [0]

    def report(value: float, updates: int) -> None:
        made[0] = updates
        trial.report(value, updates)
        if trial.should_prune():
            raise optuna.TrialPruned

    def about(**more: Any) -> dict[str, Any]:
        return {"updates": made[0], "seconds": round(time.perf_counter() - started, 2), **more}

    try:
        recipe = space.recipe(base, space.values(trial.params), updates=search.updates)
        if recipe.deterministic and (same := tries.same(trial)) is not None:  # it would end as that one did
            slices = same.user_attrs.get("slices", {})
            tries.tell(trial, "COMPLETE", same.value, slices=slices, **about(same_as=same.number))
            return
        tried = run_trial(recipe, view, folder, objective, report, of=data, is_judged_early=search.prune)
        made[0] = tried.updates
        tries.tell(trial, "COMPLETE", tried.judged.value, slices=tried.judged.slices, **about())
    except optuna.TrialPruned:
        tries.tell(trial, "PRUNED", **about())
    except Exception as error:
        tries.tell(trial, "FAIL", **about(error=_text(error, view, data)))
    except BaseException:
        tries.lose(trial)
        raise
    finally:
        if keep and folder.exists():
            (tries.out / "trials").mkdir(exist_ok=True)
            remove(kept := tries.out / "trials" / str(trial.number))
            shutil.move(folder, kept)
        remove(folder)
        gc.collect()  # the model, before the next one


def _text(error: Exception, view: Dataset, data: Dataset) -> str:
    """An error as the ledger has it, in one line, without the path of a folder that is gone."""
    text = " ".join(str(error).replace(str(view.path), str(data.path)).split())[:MOST_ERROR]
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _write_best(out: Path, tries: Tries, search: Search) -> None:
    """Writes the best recipe so far."""
    with tries.lock():
        if (best := tries.best) is not None:
            values = tries.space.values(best.params)
            recipe = tries.space.recipe(Recipe.from_document(search.recipe), values, updates=search.updates)
            with replacing(out / RECIPE) as temporary:
                temporary.write_text(recipe.to_toml(), encoding="utf-8")


def _write_report(out: Path, tries: Tries, search: Search, data: Dataset, objective: Objective) -> None:
    """Writes what is known so far."""
    with tries.lock():
        best, rows = tries.best, list(map(tries.row, tries.all))
        summary = {
            "best": None if best is None else tries.row(best),
            "slices": {} if best is None else best.user_attrs.get("slices", {}),
            "importances": importances(tries.study, tries.space, search.seed),
            "num_lists": objective.num_lists,
            "warnings": objective.warnings,
        }
        write_report(out, {**dataclasses.asdict(search), "data": str(data.path)}, rows, summary)
