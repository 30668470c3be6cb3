"""What all steps of one run of `prepare` share."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ibis

from tfmtr.datasets import holdout
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.funnel import Funnel
from tfmtr.datasets.ids import differences
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.report import counted


@dataclasses.dataclass(frozen=True)
class Work:
    """One run of `prepare`: where it works, what it is told, and the two books that every step writes into.

    Args:
        engine: An `Engine`.
        logs: A `Logs`.
        out: Folder to make.
        folder: Folder for work files, removed by the caller.
        options: The options of `prepare`.
        advance: Function `advance(text, total=None)` that shows progress.
        like: The `Dataset` that these data continue, or `None`.

    Attributes:
        warnings: List of text.
        funnel: What became of the rows of the events, a `Funnel`.
    """

    engine: Engine
    logs: Logs
    out: Path
    folder: Path
    options: Mapping[str, Any]
    advance: Callable[..., None]
    like: Dataset | None = None
    warnings: list[str] = dataclasses.field(default_factory=list, init=False)
    funnel: Funnel = dataclasses.field(default_factory=Funnel, init=False)

    @property
    def is_drawn(self) -> bool:
        """Whether windows are no spans of time."""
        return holdout.is_drawn(self.logs)

    @property
    def is_given(self) -> bool:
        """Whether the log says which rows are for what."""
        return self.logs.split_column is not None

    @property
    def fractions(self) -> dict[str, Any]:
        """The arguments of `assign_users` that say which users are for what."""
        fractions = {name: self.options[name] for name in self.options if name.endswith("_fraction")}
        if self.is_given:
            return {**fractions, "test_fraction": 0.0, "validation_fraction": 0.0}
        return {**fractions, "fold": self.options["fold"] and tuple(map(int, self.options["fold"].split("/")))}

    def warn(self, count: int, text: str) -> None:
        """Keeps the warning `counted(count, text)` if there is anything to warn of."""
        if count:
            self.warnings.append(counted(count, text))

    def hint(self, strangers: ibis.Table, table: ibis.Table, key: str) -> str:
        """What ids that match nowhere differ in, if some would match: the end of a warning."""
        changes = differences(self.engine, strangers, table, key)
        return f"; some would match but for {changes}" if changes else ""
