"""What `tfmtr prepare` leaves on disk, and what training, evaluation and serving read.

    DIR/
      schema.json            the Schema
      prepare.json           options, windows, counts, statistics, warnings, fingerprint, versions
      examples/split=<train|validation|test>/sampling=<random|active>/window=<w>/*.parquet
                             columns: user, title (text), the schema's features that are no vectors, its slices,
                             one float label a task (null = not observed), user_row, title_row (rows of the stores)
      impressions/split=.../  with `examples="impressions"`: every labelled row of the log, in folders of the same names
      users.parquet          user, features, slices, user_row (newest vector): one row a user
      titles.parquet         title, name, features: row i is row i of the title store
      availability.parquet   territory, title, window: the catalogues of the last three training windows, of every test
                             window, and of the one after the last
      events.parquet         user, title, time, window, split, is_event, is_history: what hides a title, sorted by user
                             and time. Titles of a user's rows before a window are in no list of that window; which rows
                             of the log there are is the option `seen`. `is_event`: no low rating and no impression.
                             `is_history`: models and baselines may use the event in windows after its own; `split` is
                             null for users who are not in the users table, and that of the row where the split is
                             given. Time is null before the calendar's start, and in logs without times
      counters/<columns>.parquet   title, what a request says, window, counters (`tfmtr.datasets.counters`); a row
                             without a title is of all that had no row. Windows of the log, and the one after the last
      text.npz               the TextVectors that titles' vectors were made with, where there is no store
      vectors/user/, vectors/title/   VectorStore folders, where the schema has such a feature

A user has one split, so test users are in no training row, unless a column of the events gives the split. Windows 0
and before are the training window, 1 and after (3 by default) the test windows; `split=train, window=1` is the slice
for incremental training after test window 1. `sampling=active` is the disjoint set of active users (upsampling).
Where `tfmtr prepare candidates` made it, `examples` are lists of a first stage (see `tfmtr.candidates`), prepare.json
has "candidates", and what the log's own examples were is in `discoveries`, in folders of the same names.
Where there are `impressions`, ranking models learn from them, two towers and lists know the examples, and test rows are
the impressions for both; prepare.json counts them under "impressions".

Where `tfmtr prepare rows` made it, every row that was given is one example, in the order of the files: window 0 has
those of training and validation, window 1 those of the test. prepare.json has "rows": how many were given, kept and
dropped. Vectors are those that were given, too; the examples have the column `request` where rows are those of lists.

Without times, or with a given split, windows are no spans of time (`tfmtr.datasets.holdout`): prepare.json has no start
and end of them, and "times": false where there are none. It has "calendar" (the windows in one line), "funnel" (rows by
window and fate), "stages" (what is left of the log, step by step) and "splits" (discoveries by split and what became of
them).
"""

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tfmtr.datasets.vector_store import VectorStore
from tfmtr.documents import read_json
from tfmtr.folders import Folder, as_path, check_format
from tfmtr.schema import Schema
from tfmtr.scratch import sweep

EXAMPLES, DISCOVERIES, IMPRESSIONS = "examples", "discoveries", "impressions"


def workplace(out: str | os.PathLike) -> tuple[Path, str, Callable[[Path], None]]:
    """Where `tfmtr prepare` works on a directory: the arguments of `tfmtr.scratch.scratch`.

    With `--overwrite` the old directory is moved into that folder before the new one takes its place. Whoever removes
    the folder moves it back if nothing took its place.
    """
    out = Path(out)

    def rescue(folder: Path) -> None:
        replaced = folder / "replaced"
        if replaced.exists() and not out.exists():
            replaced.rename(out)

    return out.parent, f".{out.name}.", rescue


class Dataset(Folder):
    """A directory made by `tfmtr prepare`.

    Args:
        path: The directory, or another `Dataset`.

    Raises:
        ValueError: If there is no `prepare.json`, or a newer version of this package wrote it.

    Attributes:
        path: The directory.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = as_path("data", path)
        if not self.path.exists():
            sweep(*workplace(self.path))  # `prepare --overwrite` may have been ended where there was neither
        if not (self.path / "prepare.json").is_file():
            raise ValueError(
                f"`{self.path}` must be a directory made by `tfmtr prepare`: it has no prepare.json. "
                "Run `tfmtr prepare --help`."
            )
        check_format("data", self.report, self.path)

    @functools.cached_property
    def schema(self) -> Schema:
        """The `Schema` of the examples."""
        return Schema.load(self.path)

    @functools.cached_property
    def report(self) -> dict[str, Any]:
        """The document `prepare.json`."""
        return read_json(self.path / "prepare.json") or {}

    @property
    def test_windows(self) -> list[int]:
        """Numbers of the test windows, `[1, 2, 3]` by default."""
        return [window["window"] for window in self.report["windows"] if window["window"] > 0]

    @property
    def next_window(self) -> int:
        """Number of the window after the last, whose catalogue is served."""
        return self.report["windows"][-1]["window"] + 1

    @property
    def has_candidates(self) -> bool:
        """Whether the examples are lists of a first stage."""
        return "candidates" in self.report

    @property
    def has_given_rows(self) -> bool:
        """Whether the examples are rows that were given with their split, and nothing is known of what was before."""
        return "rows" in self.report

    @property
    def log_fingerprint(self) -> str:
        """The fingerprint of the data that the log was made into, whether or not the examples are candidates."""
        return self.report.get("candidates", self.report)["fingerprint"]

    def discoveries(self, split: str, *, windows: Sequence[int] | None = None) -> list[Path]:
        """As `examples`, with all that users took: what lists are judged by."""
        return self._files(DISCOVERIES if self.has_candidates else EXAMPLES, split, windows, ("random",))

    def examples(
        self, split: str, *, windows: Sequence[int] | None = None, sampling: Sequence[str] = ("random",)
    ) -> list[Path]:
        """Sorted Parquet files of one split; `windows=None` means all training windows (0 and before)."""
        return self._files(EXAMPLES, split, windows, sampling)

    @property
    def has_impressions(self) -> bool:
        """Whether every labelled row of the log is there, too."""
        return IMPRESSIONS in self.report

    def rows_for(
        self, form: str, split: str, *, windows: Sequence[int] | None = None, sampling: Sequence[str] = ("random",)
    ) -> list[Path]:
        """As `examples`, of what a model of a form learns from: a ranking model from impressions, where there are."""
        kind = IMPRESSIONS if self.has_impressions and form == "ranking" else EXAMPLES
        return self._files(kind, split, windows, sampling)

    def judged_rows(self, split: str, *, windows: Sequence[int] | None = None) -> list[Path]:
        """As `examples`, of what all models are judged by: impressions, where there are."""
        return self.rows_for("ranking", split, windows=windows)

    def _files(self, kind: str, split: str, windows: Sequence[int] | None, sampling: Sequence[str]) -> list[Path]:
        files = []
        for folder in self.path.glob(f"{kind}/split={split}/sampling=*/window=*"):
            parts = dict(part.split("=") for part in folder.parts[-2:])
            window = int(parts["window"])
            if parts["sampling"] in sampling and (window <= 0 if windows is None else window in windows):
                files += folder.glob("*.parquet")
        return sorted(files)

    def vectors(self, role: str) -> VectorStore | None:
        """The `VectorStore` of `"user"` or `"title"`, or `None`."""
        folder = self.path / "vectors" / role
        return VectorStore(folder) if folder.is_dir() else None
