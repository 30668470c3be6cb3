"""Positives and negatives of some buckets, and what became of their discoveries."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import collections
import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path

import ibis

from tfmtr.datasets import discovery, holdout
from tfmtr.datasets.names import REQUEST_COLUMN, inside
from tfmtr.datasets.preparing.buckets import Buckets
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.work import Work

ACTIVITY = datetime.timedelta(days=90)


@dataclasses.dataclass(frozen=True)
class DrawnExamples:
    """The examples of a pass, without their features.

    Args:
        rows: Table, see `tfmtr.datasets.discovery.label_examples`.
        impressions: The same columns and `time` of every labelled row of the log, or `None` unless that is asked for.
        positives: `{territory: positives}`.
        newcomers: Number of positives of users who had no event before the window.
    """

    rows: ibis.Table
    impressions: ibis.Table | None
    positives: Mapping[str, int]
    newcomers: int


@dataclasses.dataclass(frozen=True)
class PassTables:
    """What the examples of a pass are made of.

    Args:
        folder: Folder for work files.
        windows: List of `Window`.
        catalogue: See `tfmtr.datasets.discovery.catalogue`.
        owners: Users of the pass, where the split is given once for every split that they have rows of.
        members: See `tfmtr.datasets.discovery.cohorts`.
        events: What users had, and when.
        rows: All usable rows of the log, impressions and low ratings too.
    """

    folder: Path
    windows: Sequence[discovery.Window]
    catalogue: ibis.Table
    owners: ibis.Table
    members: ibis.Table
    events: ibis.Table
    rows: ibis.Table

    def since_first(self, table: ibis.Table) -> ibis.Table:
        """Rows of a table that are not from before the first window."""
        return table.filter(table.window >= self.windows[0].number)


def draw_examples(work: Work, log: CheckedLog, buckets: Buckets, catalogue: ibis.Table, number: int) -> DrawnExamples:
    """Positives and negatives of a pass."""
    kinds = {inside(task): kind for task, kind in log.tasks.items()}
    training = [inside(name) for name in log.tables.training]
    context = [inside(name) for name in log.tables.context]
    carried = [*kinds, *training, *context]
    columns = ["user", "title", "time", "window", *carried, *(["split"] if work.is_given else [])]
    tables = open_pass(work, buckets, catalogue, number)
    discoveries, placed = find_discoveries(work, tables, tables.events.select(*columns), carried)
    by_territory, newcomers = count_positives(work, tables, discoveries, placed)
    positives = placed.filter(placed.is_available)
    options, logged, low = work.options, None, None
    if log.has_zeros:
        zeros = tables.rows.filter(lambda t: t[log.label] == 0.0)
        if log.tables.has_ratings and options["low_ratings"] == "hide":
            low = zeros
        elif options["negatives"] != "sampled":
            shown = tables.since_first(zeros).select(*columns)
            logged = draw_logged(work, tables, shown, positives, carried)
    refused = refuse_pairs(work, tables, low)
    negatives = [] if logged is None else [logged]
    if options["negatives"] != "logged":
        amount = {"seed": options["seed"], "alpha": options["alpha"]}
        few = {"logged": logged, "refused": refused}
        sampled = discovery.sampled_negatives(positives, tables.members, catalogue, **amount, **few)
        if context:
            sampled = work.engine.store(sampled, tables.folder / "sampled.parquet")
            sampled = discovery.with_context(sampled, positives, context, seed=options["seed"])
        negatives.append(sampled)
    rows = discovery.label_examples(positives, negatives, kinds, [*training, *context])
    rows = work.engine.store(rows, tables.folder / "examples.parquet")
    impressions = None
    if work.options["examples"] == "impressions":
        impressions = place_impressions(work, log, tables, columns)
    return DrawnExamples(rows, impressions, by_territory, newcomers)


def place_impressions(work: Work, log: CheckedLog, tables: PassTables, columns: Sequence[str]) -> ibis.Table:
    """Every row of the log that any task knows a label of, of the users and windows that have examples.

    What was shown was on offer, so the catalogue has no say; nor has what users had before.
    """
    rows = tables.since_first(tables.rows)
    request = [REQUEST_COLUMN] if REQUEST_COLUMN in rows.columns else []
    rows = rows.filter(ibis.or_(*(rows[inside(task)].notnull() for task in log.tasks))).select(*columns, *request)
    placed = discovery.place(rows, tables.members, tables.catalogue)
    placed = placed.mutate(is_positive=discovery.is_event(placed, log.label))
    return work.engine.store(placed.drop("is_available", "cohort"), tables.folder / "impressions.parquet")


def open_pass(work: Work, buckets: Buckets, catalogue: ibis.Table, number: int) -> PassTables:
    """The users and events of a pass, and who of the users has examples when."""
    some, folder, windows = buckets.passes[number], work.folder / f"pass-{number}", buckets.windows
    users = buckets.part("users", some)
    events = work.engine.store(buckets.history_events(some), folder / "history.parquet")
    rows = buckets.usable_events(some)
    owners = holdout.users_by_split(users, rows) if work.is_given else users
    lookback = work.options["activity_lookback"] or max(ACTIVITY, windows[0].end - windows[0].start)
    members = discovery.cohorts(owners, events, windows, lookback)
    members = work.engine.store(members, folder / "cohorts.parquet")
    if work.is_given:
        events, rows = (table.rename(split="row_split") for table in (events, rows))
    return PassTables(folder, windows, catalogue, owners, members, events, rows)


def find_discoveries(
    work: Work, tables: PassTables, events: ibis.Table, labels: Sequence[str]
) -> tuple[ibis.Table, ibis.Table]:
    """The discoveries of a pass, and those of users who have examples with whether the title was available."""
    lookback = holdout.LOOKBACK if work.is_drawn else work.options["discovery_lookback"]
    discoveries = discovery.discoveries(events, labels, lookback, is_greatest=work.is_drawn)
    discoveries = work.engine.store(tables.since_first(discoveries), tables.folder / "discoveries.parquet")
    placed = discovery.place(discoveries, tables.members, tables.catalogue)
    return discoveries, work.engine.store(placed, tables.folder / "positives.parquet")


def count_positives(
    work: Work, tables: PassTables, discoveries: ibis.Table, placed: ibis.Table
) -> tuple[dict[str, int], int]:
    """Counts what became of the discoveries of a pass, by window, split and sampling.

    Returns:
        `({territory: positives}, positives of newcomers)`, see `DrawnExamples`.
    """
    keys = ("window", "split", "sampling")
    owned = discoveries.inner_join(
        tables.owners.select("user", "split", "sampling"), ("user", "split") if work.is_given else "user"
    )
    of_users, by_territory, newcomers = collections.defaultdict(collections.Counter), collections.Counter(), 0
    for row in work.engine.rows(owned.group_by(*keys).aggregate(discoveries=owned.count())):
        of_users[tuple(row[key] for key in keys)].update(discoveries=row["discoveries"])
    firsts = tables.events.group_by("user").aggregate(first=tables.events.window.min())
    placed = placed.left_join(firsts, "user")
    counts = placed.group_by(*keys, "territory").aggregate(
        placed=placed.count(),
        positives=placed.is_available.sum(),
        newcomers=(placed.is_available & (placed.first == placed.window)).sum(),
    )
    for row in work.engine.rows(counts):
        positives = int(row["positives"])
        of_users[tuple(row[key] for key in keys)].update(placed=row["placed"], positives=positives)
        by_territory[row["territory"]] += positives
        newcomers += int(row["newcomers"])
    for key, counts in of_users.items():
        work.funnel.add_of_users(*key, **{name: counts[name] for name in ("discoveries", "placed", "positives")})
    return dict(by_territory), newcomers


def had_pairs(tables: PassTables) -> ibis.Table:
    """The pairs that users had in a window, also those that are no discovery, because they were had before."""
    return tables.since_first(tables.events).select("user", "title", "window").distinct()


def draw_logged(
    work: Work, tables: PassTables, shown: ibis.Table, positives: ibis.Table, labels: Sequence[str]
) -> ibis.Table:
    """Negatives that the log has: rows of 0, unless the user had the title in the window."""
    shown = discovery.place(shown, tables.members, tables.catalogue).filter(lambda t: t.is_available)
    shown = shown.anti_join(had_pairs(tables), ("user", "title", "window"))
    amount = {"seed": work.options["seed"], "alpha": work.options["alpha"]}
    logged = discovery.logged_negatives(shown, positives, labels, **amount)
    return work.engine.store(logged, tables.folder / "logged.parquet")


def refuse_pairs(work: Work, tables: PassTables, low: ibis.Table | None) -> ibis.Table:
    """The pairs that are no negatives, whatever is drawn.

    What the user had in the window is none. Where order is drawn, nothing that the user ever had is one; and no rating
    is one that is hidden.

    Args:
        work: A `Work`.
        tables: The `PassTables`.
        low: Low ratings that are hidden, or `None`.
    """
    refused = discovery.from_then_on(tables.events, tables.windows) if work.is_drawn else had_pairs(tables)
    if low is not None:
        refused = refused.union(discovery.from_then_on(low, tables.windows), distinct=True)
    # Filtered in one query with the join, DuckDB may begin with all members times all titles of their territory.
    refused = discovery.place(refused, tables.members, tables.catalogue)
    refused = refused.select("user", "title", *discovery.STRATUM, "is_available").distinct()
    return work.engine.store(refused, tables.folder / "refused.parquet").filter(lambda t: t.is_available)
