"""What becomes of the rows of the events table: in each window every row has one fate."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

FATES = {
    "incomplete": "without user, title or time",
    "unknown_title": "of a title that is not in the titles table",
    "unknown_user": "of a user who is not in the users table",
    "unlabelled": "without a label of the first task",
    "impressions": "impressions: shown, and not chosen",
    "low_rated": "rated below the threshold of the first task",
    "too_early": "before the calendar's start",
    "history": "before the first window: what users had, no examples",
    "later": "after the last window",
    "other_split": "of training, with a pair that is for validation",
    "repeats": "of a title that the user had had shortly before",
    "no_examples": "of users of whom this window has no examples",
    "unavailable": "of a title that was not available",
    "positives": "positives",
}
# What is left after each stage, and the fates that it takes away.
STAGES = {
    "matched": ("of users and titles that are known", ("incomplete", "unknown_title", "unknown_user")),
    "events": ("events", ("unlabelled", "impressions", "low_rated")),
    "in_windows": ("in windows", ("too_early", "history", "later")),
    "discoveries": ("discoveries", ("other_split", "repeats")),
    "positives": ("positives", ("no_examples", "unavailable")),
}
NO_EXAMPLES = {
    "before_tests": "of test users, before the test windows",
    "not_active": "of users of the active pool who were not active before the window",
    "not_drawn": "of users who were drawn for no examples",
}
NO_TIMES = "No times: the order of events is not known, and what is history is drawn."
DROPPED = ("incomplete", "unknown_title", "unknown_user", "unlabelled", "unavailable")


def stages(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """What is left of the log after each stage.

    Args:
        rows: List of dictionaries of `rows` and fates, such as `Funnel.document` gives.

    Returns:
        `[{"stage", "rows", "lost": {fate: rows}}]`; the first stage, `"log"`, has lost nothing.

    Example:
    >>> window = {"rows": 5, **dict.fromkeys(FATES, 0), "unknown_user": 1, "repeats": 1, "positives": 3}
    >>> [(stage["stage"], stage["rows"]) for stage in stages([window])]
    [('log', 5), ('matched', 4), ('events', 4), ('in_windows', 4), ('discoveries', 3), ('positives', 3)]
    """
    left = sum(row["rows"] for row in rows)
    found = [{"stage": "log", "rows": left, "lost": {}}]
    for name, (_, fates) in STAGES.items():
        lost = {fate: sum(row.get(fate, 0) for row in rows) for fate in fates}
        left -= sum(lost.values())
        found.append({"stage": name, "rows": left, "lost": lost})
    return found


class Funnel:
    """Counts of rows by window and fate.

    Example:
    >>> funnel = Funnel()
    >>> funnel.add(0, rows=3, positives=2)
    >>> funnel.add(0, incomplete=1)
    >>> funnel.of(0)["positives"], funnel.total("rows")
    (2, 3)
    """

    def __init__(self) -> None:
        self.windows = collections.defaultdict(collections.Counter)
        self.splits = collections.Counter()

    def add(self, window: int | None, **counts: int | None) -> None:
        """Adds counts to those of a window; `None` is for rows without a time."""
        self.windows[window].update({name: int(count or 0) for name, count in counts.items()})

    def add_of_users(
        self, window: int, split: str, sampling: str, *, discoveries: int, placed: int, positives: int
    ) -> None:
        """Counts what became of discoveries of one kind of users in a window.

        Args:
            window: Number of the window.
            split: `"train"`, `"validation"` or `"test"`.
            sampling: `"random"`, `"active"` or `"none"`.
            discoveries: Number of them.
            placed: Number of those that are of a user of whom this window has examples.
            positives: Number of those whose title was available.
        """
        self.add(
            window,
            repeats=-discoveries,
            no_examples=discoveries - placed,
            unavailable=placed - positives,
            positives=positives,
        )
        key = (split, sampling, "training" if window <= 0 else "tests")
        reason = {"active": "not_active", "none": "not_drawn"}.get(sampling, "before_tests")
        self.splits[*key, "positives"] += positives
        self.splits[*key, "unavailable"] += placed - positives
        self.splits[*key, reason] += discoveries - placed

    def by_split(self) -> list[dict[str, Any]]:
        """`[{"split", "sampling", "windows", "positives", "unavailable", <reason why there are no examples>}]`.

        `windows` is `"training"` for those up to 0 and `"tests"` for those after. Together they are the discoveries.
        """
        keys = sorted({key[:3] for key in self.splits})
        fates = ("positives", "unavailable", *NO_EXAMPLES)
        found = [
            {
                **dict(zip(("split", "sampling", "windows"), key, strict=True)),
                **{fate: self.splits[*key, fate] for fate in fates},
            }
            for key in keys
        ]
        return [row for row in found if any(row[fate] for fate in fates)]

    def of(self, window: int | None) -> collections.Counter[str]:
        """Counts of a window, 0 for what it has none of."""
        return self.windows[window]

    def total(self, name: str) -> int:
        """Sum over all windows."""
        return sum(counts[name] for counts in self.windows.values())

    def document(self) -> list[dict[str, Any]]:
        """`[{"window", "rows", <fate>, ..., "doubles"}]`, by window; the fates add up to the rows.

        `doubles` are rows that others repeat, of the last window of data that continue others.
        """
        numbers = sorted(self.windows, key=lambda number: (number is not None, number or 0))
        return [
            {"window": number, **{name: self.windows[number][name] for name in ("rows", *FATES, "doubles")}}
            for number in numbers
            if self.windows[number]["rows"]
        ]
