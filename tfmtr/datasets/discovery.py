"""First-time content discovery as functions of tables: positives, users, catalogue, negatives.

Sections 3.2 and 4.1 of Gampa et al., "Multi-Task Learning For Reduced Popularity Bias In Multi-Territory
Video Recommendations", 2023, written once as Ibis expressions: DuckDB runs them here, Spark elsewhere,
with the same rows. Whatever describes a window w is known before its start: who is active, what is
available. Only labels and positives come from inside it.

Tables are processed in buckets of users. Everything here is per user or per bucket, so that one pass over
all buckets and one pass a bucket give the same rows.
"""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
import datetime
from collections.abc import Collection, Iterable, Mapping, Sequence

import ibis
import ibis.expr.types as ir
from ibis import Deferred

from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.sampling import DRAW_DIGITS, digest, draw, is_below

STRATUM = ("bucket", "split", "sampling", "window")
SPARE_DRAWS = 64


@dataclasses.dataclass(frozen=True)
class Window:
    """One window `[start, end)` of the calendar, in UTC without a time zone.

    Args:
        number: 0 and before are training windows, 1 and after test windows.
        start, end: Datetimes.
    """

    number: int
    start: datetime.datetime
    end: datetime.datetime


class EmptyWindowError(ValueError):
    """The log has no event in the last window, though the calendar says when it ends."""


def plan_windows(calendar: Calendar, earliest: datetime.datetime, latest: datetime.datetime) -> list[Window]:
    """Places the calendar's windows on a log.

    Without `calendar.end` the last test window ends with the log: at the midnight (UTC) after its last
    event if windows are whole days long, otherwise one second after it.

    Args:
        calendar: A `Calendar`.
        earliest: Datetime of the first event.
        latest: Datetime of the last event.

    Returns:
        List of `Window`, oldest first.

    Raises:
        ValueError: If the calendar asks for no window, or for more windows than the log covers.
        EmptyWindowError: If it has an end of its own, and the log ends before its last window.

    Example:
    >>> from tfmtr.datasets.logs import Calendar
    >>> calendar = Calendar(datetime.timedelta(days=1), num_train=2, num_test=1)
    >>> windows = plan_windows(calendar, datetime.datetime(2024, 1, 1, 8), datetime.datetime(2024, 1, 3, 20))
    >>> [(window.number, window.start.day) for window in windows]
    [(-1, 1), (0, 2), (1, 3)]
    """
    length, day = calendar.length, datetime.timedelta(days=1)
    if length <= datetime.timedelta(0) or calendar.num_train < 1 or calendar.num_test < 0:
        raise ValueError(
            "`calendar` must have a positive length, at least one training window and no negative number of test "
            f"windows. Received: {calendar}"
        )
    unit = day if length % day == datetime.timedelta(0) else datetime.timedelta(seconds=1)
    first = as_utc(calendar.start) if calendar.start else earliest
    if first <= earliest:
        first = earliest - (earliest - datetime.datetime.min) % unit
    last = latest - (latest - datetime.datetime.min) % unit + unit
    end = as_utc(calendar.end) if calendar.end else last - calendar.num_test * length
    windows = [
        Window(number, end + (number - 1) * length, end + number * length)
        for number in range(1 - calendar.num_train, calendar.num_test + 1)
    ]
    if calendar.end and windows[-1].start > latest:
        raise EmptyWindowError(
            f"`calendar` must end in the log. Received: {windows[-1].start} to {windows[-1].end} as the last window; "
            f"the last event is of {latest}"
        )
    if windows[0].start < first or windows[-1].start > latest:
        raise ValueError(
            f"`calendar` must fit into the log: {len(windows)} windows of {length} from {windows[0].start} to "
            f"{windows[-1].end}. Ask for fewer or shorter windows. Received: events from {first} to {last}, where "
            f"{max(0, (last - first) // length)} windows fit"
        )
    return windows


def as_utc(time: datetime.datetime) -> datetime.datetime:
    """A datetime in UTC without its time zone; a naive one is UTC already."""
    return time if time.tzinfo is None else time.astimezone(datetime.UTC).replace(tzinfo=None)


def windows_table(windows: Sequence[Window], **columns: Sequence[datetime.datetime]) -> ibis.Table:
    """A table of the windows' numbers, `window`, and further columns of datetimes."""
    numbers = [window.number for window in windows]
    schema = {"window": "int64", **dict.fromkeys(columns, "timestamp(6)")}
    return ibis.memtable({"window": numbers, **columns}, schema=schema)


def number_window(time: ir.Value, windows: Sequence[Window]) -> ir.IntegerValue:
    """Number of the window that a time falls into.

    Args:
        time: Ibis timestamp value.
        windows: List of `Window`.

    Returns:
        Ibis integer value; one less than the first number before all windows, one more than the last
        number after them.
    """
    bounds = [(time < windows[0].start, windows[0].number - 1)]
    bounds += [(time < window.end, window.number) for window in windows]
    return ibis.cases(*bounds, else_=windows[-1].number + 1).cast("int64")


def assign_users(
    users: ibis.Table,
    *,
    seed: int,
    test_fraction: float,
    validation_fraction: float,
    random_fraction: float,
    active_fraction: float,
    fold: tuple[int, int] | None = None,
) -> ibis.Table:
    """Gives every user one split and one pool, for good.

    Test and validation users are all random users. Of the others a part is random too; the rest is the
    pool of which the active ones are added to training (upsampling), see `cohorts`. The two never meet.

    Args:
        users: Table with `user`.
        seed: Integer.
        test_fraction: Of all users; unused with a fold.
        validation_fraction: Of all users.
        random_fraction: Of the training users.
        active_fraction: Of the training users that are not random.
        fold: `(i, n)`: test users are the i-th n-th of all, in the order of the hash that decides, and validation users
            are of the others; `None` for the first `test_fraction`.

    Returns:
        The table with `split` (`"train"`, `"validation"`, `"test"`) and `sampling` (`"random"`,
        `"active"`, or `"none"` for users of no example).
    """

    def part(purpose: str, fraction: float) -> ir.BooleanValue:
        return is_below(digest(seed, purpose, users.user), fraction)

    held_out = digest(seed, "split", users.user)
    if fold is None:
        is_test = is_below(held_out, test_fraction)
        is_validation = is_below(held_out, test_fraction + validation_fraction)
    else:
        number, count = fold
        is_test = is_below(held_out, number / count) & ~is_below(held_out, (number - 1) / count)
        is_validation = part("validation", validation_fraction * count / (count - 1))
    split = ibis.cases((is_test, "test"), (is_validation, "validation"), else_="train")
    sampling = ibis.cases(
        ((split != "train") | part("random", random_fraction), "random"),
        (part("active", active_fraction), "active"),
        else_="none",
    )
    return users.mutate(split=split, sampling=sampling)


def cohorts(
    users: ibis.Table, events: ibis.Table, windows: Sequence[Window], lookback: datetime.timedelta
) -> ibis.Table:
    """The users of which examples are made.

    A random user belongs to the cohort `"all"`, which serves every window. A user of the active pool
    belongs to the cohort of each window before whose start (at most `lookback` before) there is an event.

    Args:
        users: Table `user`, `territory`, `bucket`, `split`, `sampling`.
        events: Table `user`, `time`, `window`.
        windows: List of `Window`.
        lookback: Timedelta.

    Returns:
        Table `user`, `territory`, `bucket`, `split`, `sampling`, `cohort` (text) and `user_position`
        (0, 1, ... in the cohort of the bucket).
    """
    columns = ("user", "territory", "bucket", "split", "sampling")
    pool = users.filter(users.sampling == "active").select(*columns)
    latest = events.semi_join(pool, "user").group_by("user", "window").aggregate(latest=lambda t: t.time.max())
    spans = windows_table(windows, since=[window.start - lookback for window in windows])
    active = latest.rename(seen_in="window").cross_join(spans)
    active = active.filter(active.seen_in < active.window, active.latest >= active.since)
    active = active.select("user", cohort=active.window.cast("string")).distinct()
    random = users.filter(users.sampling == "random").select(*columns).mutate(cohort=ibis.literal("all"))
    members = random.union(pool.inner_join(active, "user").select(*columns, "cohort"))
    position = ibis.row_number().over(group_by=("bucket", "split", "sampling", "cohort"), order_by="user")
    return members.mutate(user_position=position)


def catalogue(
    first_events: ibis.Table,
    territories: ibis.Table,
    windows: Sequence[Window],
    *,
    table: ibis.Table | None = None,
    is_anywhere: bool = False,
) -> ibis.Table:
    """The titles that each territory can be offered in each window.

    A title is available in a window if it is at the window's start: `start <= window.start < end` of the
    availability table, or, without a table, if an event of it came before `window.start` (in the
    territory, or in any territory). The events of the window itself say nothing.

    Args:
        first_events: Table `title`, `territory`, `time` of first events.
        territories: Table `territory`.
        windows: List of `Window`.
        table: Availability table `title`, `territory`, `start`, `end`, or `None`.
        is_anywhere: Whether an event makes a title available in all territories.

    Returns:
        Table `window`, `territory`, `title` and `title_position` (0, 1, ... in the window and territory).
    """
    if table is not None:
        spans = table
    elif is_anywhere:
        first = first_events.group_by("title").aggregate(start=lambda t: t.time.min())
        spans = first.cross_join(territories).mutate(end=ibis.null("timestamp"))
    else:
        first = first_events.group_by("title", "territory").aggregate(start=lambda t: t.time.min())
        spans = first.mutate(end=ibis.null("timestamp"))
    spans = spans.cross_join(windows_table(windows, opening=[window.start for window in windows]))
    is_started = spans.start < spans.opening  # an event at the very start belongs to the window
    if table is not None:
        is_started = spans.start.isnull() | (spans.start <= spans.opening)
    available = spans.filter(is_started, spans.end.isnull() | (spans.end > spans.opening))
    available = available.select("window", "territory", "title").distinct()
    position = ibis.row_number().over(group_by=("window", "territory"), order_by="title")
    return available.mutate(title_position=position)


def discoveries(
    events: ibis.Table, labels: Iterable[str], lookback: datetime.timedelta, *, is_greatest: bool = False
) -> ibis.Table:
    """First-time content discoveries: events without one of the same user and title shortly before.

    Args:
        events: Table `user`, `title`, `time`, `window` and the label columns, events only.
        labels: Names of the label columns.
        lookback: Timedelta.
        is_greatest: Whether of several events at the same time the one with the greatest labels counts, not the least.

    Returns:
        Rows of the table, one for each user, title and window: the first discovery in the window.
    """
    order = ("time", *(ibis.desc(label, nulls_first=False) if is_greatest else label for label in labels))
    earlier = events.mutate(earlier=events.time.lag().over(group_by=("user", "title"), order_by=order))
    fresh = earlier.filter(earlier.earlier.isnull() | (earlier.earlier < earlier.time - ibis.interval(lookback)))
    return first_in_window(fresh, order[1:]).drop("earlier")


def first_in_window(events: ibis.Table, labels: Iterable[str | Deferred]) -> ibis.Table:
    """The first row of each user, title and window."""
    order = ibis.row_number().over(group_by=("user", "title", "window"), order_by=("time", *labels))
    return events.mutate(order=order).filter(lambda t: t.order == 0).drop("order")


def place(rows: ibis.Table, members: ibis.Table, titles_available: ibis.Table) -> ibis.Table:
    """Adds cohort and availability to rows of users and titles.

    Args:
        rows: Table `user`, `title`, `window` and more; with `split` where a user may have rows of several.
        members: See `cohorts`.
        titles_available: See `catalogue`.

    Returns:
        The rows of users that have a cohort in the row's window, with `bucket`, `split`, `sampling`,
        `cohort`, `territory` and the boolean `is_available`. Test users have rows in test windows only.
    """
    columns = members.drop("user_position")
    joined = rows.inner_join(columns, ("user", "split") if "split" in rows.columns else "user")
    joined = joined.filter(
        (joined.cohort == "all") | (joined.cohort == joined.window.cast("string")),
        (joined.split != "test") | (joined.window > 0),
    )
    keys = ("window", "territory", "title")
    offered = titles_available.select(*keys).mutate(is_available=True)
    joined = joined.left_join(offered, keys)
    return joined.mutate(is_available=joined.is_available.fill_null(False)).drop(*(f"{key}_right" for key in keys))


def from_then_on(rows: ibis.Table, windows: Sequence[Window]) -> ibis.Table:
    """The pairs of some rows in the window of the first one and in all later ones.

    Args:
        rows: Table `user`, `title`, `window`.
        windows: List of `Window`.

    Returns:
        Table `user`, `title`, `window`, each once.
    """
    pairs = rows.group_by("user", "title").aggregate(first=rows.window.min())
    pairs = pairs.cross_join(windows_table(windows))
    return pairs.filter(pairs["first"] <= pairs.window).select("user", "title", "window")


def wanted_negatives(positives: ibis.Table, alpha: float) -> ibis.Table:
    """Number of negatives, `round(alpha * positives)`, for each stratum: table `STRATUM`, `cohort`, `wanted`."""
    strata = positives.group_by(*STRATUM, "cohort").aggregate(positives=positives.count())
    return strata.mutate(wanted=(strata.positives * alpha + 0.5).floor().cast("int64"))


def sampled_negatives(
    positives: ibis.Table,
    members: ibis.Table,
    titles_available: ibis.Table,
    *,
    seed: int,
    alpha: float,
    logged: ibis.Table | None = None,
    refused: ibis.Table | None = None,
) -> ibis.Table:
    """Draws negatives: a user of the cohort, then a title available to that user, both uniformly.

    Pairs that are positive in the window and repeated pairs are dropped. More pairs are drawn than wanted
    and the first ones kept, in the order of the draws; where users and titles are so few that even eight
    times as many draws do not give enough different pairs, fewer are returned.

    Args:
        positives: Table from `place`.
        members: See `cohorts`.
        titles_available: See `catalogue`.
        seed: Integer.
        alpha: Negatives for each positive.
        logged: Table from `logged_negatives`, to be filled up to `alpha`; or `None`.
        refused: Table from `place`: pairs that are no negatives in the window; or `None`.

    Returns:
        Table `user`, `title`, `territory`, `bucket`, `split`, `sampling`, `window`.
    """
    pairs = [table.select("user", "title", *STRATUM) for table in (positives, logged, refused) if table is not None]
    taken = ibis.union(*pairs, distinct=True) if len(pairs) > 1 else pairs[0]
    cohort = ("bucket", "split", "sampling", "cohort")
    sizes = titles_available.group_by("window", "territory").aggregate(num_titles=titles_available.count())
    homes = members.group_by(*cohort, "territory").aggregate(users=members.count())
    users = members.group_by(*cohort).aggregate(num_users=members.count())
    strata = wanted_negatives(positives, alpha)
    strata = strata.inner_join(taken.group_by(*STRATUM).aggregate(taken=lambda t: t.count()), STRATUM)
    if logged is not None:
        found = logged.group_by(*STRATUM).aggregate(found=logged.count())
        strata = strata.left_join(found, STRATUM)
        strata = strata.mutate(wanted=strata.wanted - strata.found.fill_null(0)).filter(lambda t: t.wanted > 0)
        strata = strata.drop("found", *(f"{name}_right" for name in STRATUM))
    reach = strata.inner_join(homes, cohort).inner_join(sizes, ("window", "territory"))
    reach = reach.group_by(*STRATUM, "cohort", "taken", "wanted").aggregate(
        pairs=(reach.users * reach.num_titles).sum() - reach.taken.max(), reachable=reach.users.sum()
    )
    strata = reach.inner_join(users, cohort)
    draws = ibis.cases(
        (strata.wanted * 8 <= strata.pairs, strata.wanted * 5 // 4),
        (strata.wanted * 2 <= strata.pairs, strata.wanted * 2),
        else_=ibis.least(strata.wanted, (strata.pairs + strata.taken).cast("int64")) * 8,
    )
    strata = strata.mutate(draws=((draws + SPARE_DRAWS) * strata.num_users // strata.reachable).cast("int64"))
    strata = strata.select(*STRATUM, "cohort", "wanted", "num_users", draw=ibis.range(strata.draws).unnest())
    drawn = strata.mutate(key=digest(seed, "negative", *(strata[name] for name in STRATUM), strata.draw))
    drawn = drawn.mutate(user_position=draw(drawn.key, drawn.num_users))
    drawn = drawn.inner_join(members, (*cohort, "user_position"))
    # A left join: as an inner one DuckDB moves it forward and multiplies all members by all windows.
    drawn = drawn.left_join(sizes, ("window", "territory")).drop("window_right", "territory_right")
    drawn = drawn.mutate(title_position=draw(drawn.key, drawn.num_titles, skip=DRAW_DIGITS))
    drawn = drawn.inner_join(titles_available, ("window", "territory", "title_position"))
    pairs = drawn.group_by("user", "title", "territory", *STRATUM, "wanted").aggregate(draw=drawn.draw.min())
    return first_wanted(pairs.anti_join(taken, ("user", "title", "window")), "draw")


def logged_negatives(
    impressions: ibis.Table, positives: ibis.Table, labels: Iterable[str], *, seed: int, alpha: float
) -> ibis.Table:
    """Logged impressions of pairs that are not positive in the window, at most `alpha` a positive.

    Args:
        impressions: Table from `place`, with the label columns.
        positives: Table from `place`.
        labels: Names of the label columns.
        seed: Integer.
        alpha: Negatives for each positive.

    Returns:
        Rows of `impressions`.
    """
    pairs = first_in_window(impressions.anti_join(positives, ("user", "title", "window")), labels)
    pairs = pairs.inner_join(wanted_negatives(positives, alpha).drop("positives"), (*STRATUM, "cohort"))
    return first_wanted(pairs.mutate(draw=digest(seed, "impression", pairs.user, pairs.title, pairs.window)), "draw")


def with_context(negatives: ibis.Table, positives: ibis.Table, names: Sequence[str], *, seed: int) -> ibis.Table:
    """Sampled negatives with the context of positives of their window, split and sampling, each as often as others.

    Args:
        negatives: Table from `sampled_negatives`.
        positives: Table from `place`, with the columns `names`.
        names: Columns of the context.
        seed: Integer.

    Returns:
        `negatives` with the columns `names`.
    """

    def placed(table: ibis.Table) -> ibis.Table:
        keyed = table.mutate(key=digest(seed, "context", table.user, table.title, table.window))
        return keyed.mutate(place=ibis.row_number().over(group_by=STRATUM, order_by="key")).drop("key")

    sizes = positives.group_by(*STRATUM).aggregate(size=positives.count())
    own = placed(positives.select("user", "title", *STRATUM, *names)).drop("user", "title")
    asked = placed(negatives).inner_join(sizes, STRATUM)
    asked = asked.mutate(place=(asked.place % asked.size).cast("int64")).select(*negatives.columns, "place")
    found = asked.inner_join(own.mutate(place=own.place.cast("int64")), (*STRATUM, "place"))
    return found.select(*negatives.columns, *names)


def first_wanted(pairs: ibis.Table, order: str) -> ibis.Table:
    """The first `wanted` rows of each stratum."""
    rank = ibis.row_number().over(group_by=STRATUM, order_by=order)
    return pairs.mutate(rank=rank).filter(lambda t: t.rank < t.wanted).drop("rank", "wanted", order)


def label_examples(
    positives: ibis.Table, negatives: Iterable[ibis.Table], tasks: Mapping[str, str], training: Collection[str] = ()
) -> ibis.Table:
    """Positives and negatives in one table.

    A sampled negative has the label 0 for a binary task and null for a regression, where nothing was
    observed; a logged one keeps its own labels. The same goes for `training` columns.

    Args:
        positives: Table from `place`, with one column a task.
        negatives: Tables from `logged_negatives` and `sampled_negatives`, a list.
        tasks: `{task: kind}`.
        training: Names of columns that are known in training only.

    Returns:
        Table `bucket`, `split`, `sampling`, `window`, `user`, `title`, `territory`, `is_positive`, one float column a
        task and the `training` columns.
    """
    keys = (*STRATUM, "user", "title", "territory")

    def missing(kind: str) -> ir.Value:
        return ibis.literal(0).cast("float64") if kind == "binary" else ibis.null("float64")

    def complete(table: ibis.Table) -> ibis.Table:
        empty = {task: missing(kind) for task, kind in tasks.items() if task not in table.columns}
        empty |= {name: ibis.null(positives[name].type()) for name in training if name not in table.columns}
        return table.mutate(**empty, is_positive=False).select(*columns)

    columns = (*keys, *tasks, *training, "is_positive")
    return ibis.union(positives.mutate(is_positive=True).select(*columns), *map(complete, negatives))


def is_event(events: ibis.Table, task: str) -> ir.BooleanValue:
    """Whether a row is an event: the first task's label is neither 0 (a logged impression) nor null."""
    return events[task].notnull() & (events[task] != 0.0)
