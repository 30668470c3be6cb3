"""What becomes of the rows of the events table: in each window every row has one fate."""

import collections

FATES = {
    "incomplete": "without user, title or time",
    "unknown_title": "of a title that is not in the titles table",
    "unknown_user": "of a user who is not in the users table",
    "unlabelled": "without a label of the first task",
    "impressions": "impressions, of which negatives are made",
    "low_rated": "rated below the threshold of the first task",
    "too_early": "before the calendar's start",
    "history": "before the first window: what users had, no examples",
    "later": "after the last window",
    "repeats": "of a title that the user had had shortly before",
    "no_examples": "of users of whom this window has no examples",
    "unavailable": "of a title that was not available",
    "positives": "positives",
}
DROPPED = ("incomplete", "unknown_title", "unknown_user", "unlabelled", "unavailable")


class Funnel:
    """Counts of rows by window and fate.

    Example:
    >>> funnel = Funnel()
    >>> funnel.add(0, rows=3, positives=2)
    >>> funnel.add(0, incomplete=1)
    >>> funnel.of(0)["positives"], funnel.total("rows")
    (2, 3)
    """

    def __init__(self):
        self.windows = collections.defaultdict(collections.Counter)

    def add(self, window, **counts):
        """Adds counts to those of a window; `None` is for rows without a time."""
        self.windows[window].update({name: int(count or 0) for name, count in counts.items()})

    def of(self, window):
        """Counts of a window, 0 for what it has none of."""
        return self.windows[window]

    def total(self, name):
        """Sum over all windows."""
        return sum(counts[name] for counts in self.windows.values())

    def document(self):
        """`[{"window", "rows", <fate>, ..., "doubles"}]`, by window; the fates add up to the rows.

        `doubles` are rows that others repeat, of the last window of data that continue others.
        """
        numbers = sorted(self.windows, key=lambda number: (number is not None, number or 0))
        return [
            {"window": number, **{name: self.windows[number][name] for name in ("rows", *FATES, "doubles")}}
            for number in numbers
            if self.windows[number]["rows"]
        ]
