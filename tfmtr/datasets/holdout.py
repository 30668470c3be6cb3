"""Windows of logs whose order is not known, or whose split is given.

Windows are then no spans of time; a hash of the pair draws what is history and what is positive, so that no row's
features contain its own pair. Without times, users are held out as ever:

    training and validation users    half of their pairs are history, the others the positives of window 0
    test users                       four fifths are history, one fifth the positives of window 1

With a split in a column of the events the rows say what they are for, and a user may have rows of all three:

    train         half of the pairs (with times: the earlier half) are history, the others the positives of window -1
    validation    the positives of window 0, whose history is the training rows
    test          the positives of window 1, whose history is the training and the validation rows

A pair counts once. Titles are available everywhere and from the start, or as the availability table says, without its
times. Internally every window is a day of a clock that nobody sees.
"""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import datetime
import math
from collections.abc import Mapping
from typing import Any

import ibis
import ibis.expr.types as ir

from tfmtr.datasets import discovery
from tfmtr.datasets.engines._engine import Engine
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.sampling import digest, draw, is_below

EPOCH, DAY = datetime.datetime(2000, 1, 1), datetime.timedelta(days=1)
SECONDS = 86_400
LOOKBACK = datetime.timedelta(days=30)  # of discoveries: longer than all windows of the clock
TRAINING_HISTORY, TEST_HISTORY, VALIDATION = 0.5, 0.8, 0.1
SPLITS = ("train", "validation", "test")
SYNONYMS = {"valid": "validation", "val": "validation", "dev": "validation"}
TEXTS = {
    "drawn": "no times: of training and validation users half of the pairs are history and half are for training, of "
    "test users four fifths are history and one fifth is for the tests",
    "given": "the split is given: half of the training pairs are history for the other half, and all of them for "
    "validation and tests",
    "rows": "the rows are given with their split: those of training and validation are window 0, those of the test "
    "window 1",
}


def is_drawn(logs: Logs) -> bool:
    """Whether the windows of a `Logs` are no spans of time."""
    return not logs.has_times or logs.split_column is not None


def windows(is_given: bool) -> list[discovery.Window]:
    """The `Window`s, on the clock that nobody sees: `-1 .. 1` where the split is given, else 0 and 1."""
    numbers = range(-1 if is_given else 0, 2)
    return [discovery.Window(number, EPOCH + number * DAY, EPOCH + (number + 1) * DAY) for number in numbers]


def split_word(column: ir.Value) -> ir.Value:
    """What a row is for, from the text of its split column: one of `SPLITS`, or the text itself."""
    word = column.cast("string").strip().lower()
    return word.cases(*SYNONYMS.items(), else_=word)


def check_splits(engine: Engine, events: ibis.Table, column: str) -> dict[str, int]:
    """Raises a `ValueError` unless every row's `row_split` is one of `SPLITS`, with rows of train and test.

    Returns:
        `{split: rows}`.
    """
    counts = events.group_by("row_split").aggregate(rows=events.count()).order_by(ibis.desc("rows"), "row_split")
    counts = {row["row_split"]: row["rows"] for row in engine.rows(counts.limit(20))}
    if set(counts) - set(SPLITS) or not {"train", "test"} <= set(counts):
        found = ", ".join(
            f"{'nothing' if word is None else repr(word)} in {rows} rows" for word, rows in counts.items()
        )
        raise ValueError(
            f"`split_column` must have the words train, validation (there may be none) and test in every row of "
            f"`events`. Received: {column!r} with {found}"
        )
    return counts


def draw_validation(events: ibis.Table, seed: int) -> ibis.Table:
    """Events of a split without validation rows: a tenth of the training pairs, drawn by a hash, become them."""
    is_drawn = is_below(digest(seed, "validation", events.user, events.title), VALIDATION)
    drawn = (events.row_split == "train") & is_drawn
    return events.mutate(row_split=drawn.ifelse("validation", events.row_split))


def count_early_tests(engine: Engine, events: ibis.Table) -> int:
    """Number of test rows from before the last training row, whose time is `told`."""
    last = engine.execute(events.filter(events.row_split == "train").told.max())
    if last is None:
        return 0
    return engine.execute(((events.row_split == "test") & (events.told < ibis.literal(last, "timestamp"))).sum()) or 0


def with_clock(
    engine: Engine, events: ibis.Table, *, seed: int, fractions: Mapping[str, Any], is_given: bool, has_times: bool
) -> ibis.Table:
    """Events with `time` on the clock that nobody sees, and what was their time as `told`.

    Args:
        engine: An `Engine`.
        events: Table `user`, `title`, `time` and, where the split is given, `row_split`.
        seed: Integer.
        fractions: The arguments of `assign_users` that say which users are for what.
        is_given: Whether the split is given.
        has_times: Whether `time` is known.

    Returns:
        The table; a row without a time, where there are times, has none on the clock either.
    """
    events = events.mutate(told=events.time)
    half = is_below(digest(seed, "history", events.user, events.title), TRAINING_HISTORY)
    second = draw(digest(seed, "order", events.user, events.title), SECONDS)
    if is_given and has_times:
        seconds = events.told.epoch_seconds()
        training = events.filter(events.row_split == "train")
        middle = engine.execute(training.told.epoch_seconds().median().cast("float64"))
        if middle is not None and not math.isnan(middle):  # there are training rows with a time
            half = (seconds < middle) | ((seconds == middle) & half)  # ties, such as rows of one date, are drawn
    if is_given:
        training = half.ifelse(-2, -1)
        number = events.row_split.cases(("train", training), ("validation", 0), else_=1)
        if has_times:  # a user's rows of one part in their order, which rows of other parts have no say in
            events = events.mutate(part=number)
            place = ibis.row_number().over(group_by=("user", "part"), order_by=("told", "title"))
            events = events.mutate(place=place)
            number, second = events.part, ibis.least(events.place, SECONDS - 1)
    else:
        users = discovery.assign_users(events, seed=seed, **fractions)
        few = is_below(digest(seed, "history", events.user, events.title), TEST_HISTORY)
        events = users.drop("sampling")
        number = (events.split == "test").ifelse(few.ifelse(-1, 1), half.ifelse(-1, 0))
    time = ibis.timestamp(str(EPOCH)) + (number.cast("int64") * SECONDS + second).as_interval("s")
    if has_times:
        time = events.told.isnull().ifelse(ibis.null("timestamp"), time)
    events = events.mutate(time=time)
    return events.drop(*({"part", "place"} & set(events.columns))) if is_given else events.drop("split")


def count_overlaps(engine: Engine, events: ibis.Table) -> dict[str, int]:
    """How many pairs are in two parts of a given split.

    Returns:
        `{"validation": pairs that are in train, too, "test": pairs that are in train or validation, too}`.

    Args:
        engine: An `Engine`.
        events: Table `user`, `title`, `row_split`, events only.
    """
    pairs = events.group_by("user", "title").aggregate(
        **{split: (events.row_split == split).any() for split in SPLITS},
    )
    both = pairs.aggregate(
        validation=(pairs.train & pairs.validation).sum().fill_null(0),
        test=((pairs.train | pairs.validation) & pairs.test).sum().fill_null(0),
    )
    return engine.rows(both)[0]


def splits_of_users(users: ibis.Table, events: ibis.Table) -> ibis.Table:
    """Users with the split of their rows: that of training if they have any, of whom features are learnt.

    Args:
        users: Table `user`, `split`, `sampling`.
        events: Table `user`, `row_split`.

    Returns:
        The table; users without rows are training users.
    """
    rows = events.group_by("user").aggregate(
        is_train=(events.row_split == "train").any(), is_validation=(events.row_split == "validation").any()
    )
    users = users.drop("split").left_join(rows, "user").drop("user_right")
    split = ibis.cases(
        (users.is_train.isnull() | users.is_train, "train"), (users.is_validation, "validation"), else_="test"
    )
    users = users.mutate(split=split)
    users = users.mutate(sampling=(users.split == "train").ifelse(users.sampling, "random"))
    return users.drop("is_train", "is_validation")


def users_by_split(users: ibis.Table, events: ibis.Table) -> ibis.Table:
    """One row for each split that a user has rows of, instead of one a user; all but training users are random ones.

    Args:
        users: Table `user`, `split`, `sampling` and more.
        events: Table `user`, `row_split`.
    """
    parts = events.select("user", "row_split").distinct()
    users = users.drop("split").inner_join(parts, "user").rename(split="row_split")
    return users.mutate(sampling=(users.split == "train").ifelse(users.sampling, "random"))
