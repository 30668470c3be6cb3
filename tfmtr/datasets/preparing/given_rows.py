"""The steps of `prepare_rows`: labelled rows that are given with their split, each of which becomes one example."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import ibis
import numpy as np

from tfmtr.datasets import discovery, holdout
from tfmtr.datasets.features import as_feature
from tfmtr.datasets.ids import refuse_mismatch
from tfmtr.datasets.log_tables import check_unique
from tfmtr.datasets.names import REQUEST_COLUMN, inside
from tfmtr.datasets.preparing.buckets import BUCKET_EVENTS, named_users
from tfmtr.datasets.preparing.checked_log import CheckedLog, check_tasks, number_titles, open_log
from tfmtr.datasets.preparing.given_vectors import write_vectors
from tfmtr.datasets.preparing.offered_titles import offer_titles
from tfmtr.datasets.preparing.placed_windows import PlacedWindows
from tfmtr.datasets.preparing.planned_features import FeaturePlan, FeatureRows, find_plan
from tfmtr.datasets.preparing.survey import Survey, group_territories
from tfmtr.datasets.preparing.work import Work
from tfmtr.datasets.preparing.written_examples import WrittenExamples
from tfmtr.datasets.preparing.written_report import Outcome, finish, report_of, without_spans
from tfmtr.datasets.preparing.written_titles import WrittenTitles
from tfmtr.datasets.report import PARTITIONS


@dataclasses.dataclass(frozen=True)
class GivenRows:
    """Rows with all that is known of their users and titles.

    Args:
        log: A `CheckedLog`, whose `joined` are the rows that are kept: their `place` in the files, `user`, `title`,
            `split`, `window`, `is_event`, `territory`, `user_row`, `title_row`, and the columns that the tables bring.
        users: Table `user`, `territory`, `user_row` and more, one row a user.
        dropped: `{why: rows}`.
    """

    log: CheckedLog
    users: ibis.Table
    dropped: Mapping[str, int]


def run_row_steps(work: Work) -> None:
    """All steps of one run of `prepare_rows`, which write into `work.out`."""
    work.out.mkdir()
    work.advance("Reading rows", total=4)
    given, windows = read_rows(work), holdout.windows(is_given=False)
    survey = survey_rows(work, given)
    offer_titles(work, given.log, windows, survey)
    work.advance("Surveying features")
    plan = plan_row_features(work, given)
    work.advance("Writing users and titles")
    user_width, titles = write_owners(work, given, plan)
    work.advance("Writing examples")
    examples = write_rows(work, given, plan, user_width)
    write_events(work, given)
    placed = PlacedWindows(windows, None, holdout.TEXTS["rows"], {})
    write_row_report(work, Outcome(given.log, placed, survey, plan, titles, examples, False), given.dropped)


def read_rows(work: Work) -> GivenRows:
    """Opens the tables, drops rows that can be no examples, and joins what is known of users and titles."""
    engine = work.engine
    log = number_titles(work, open_log(work, work.logs))
    if log.tables.id_types["territory"]["users"] is None:
        kinds = {name: kind for name, kind in log.kinds["users"].items() if name != "territory"}
        log = dataclasses.replace(log, kinds={**log.kinds, "users": kinds})
    check_tasks(work, log.tables)
    check_split_rows(work, log.tables.events)
    users = settle_owners(work, log)
    log = dataclasses.replace(log, tables=dataclasses.replace(log.tables, users=users))
    engine.save(log.tables.events.drop("time").rename(split="row_split"), work.folder / "rows.parquet")
    rows = engine.read_numbered(work.folder / "rows.parquet").rename(place="file_row_number")
    rows = rows.drop(*({"territory"} & set(rows.columns)))  # the user's own, now in the users table
    for table, key, argument in ((users, "user", "users"), (log.titles, "title", "titles")):
        names = ["territory"] if argument == "users" else []
        names += [n for n, kind in log.kinds[argument].items() if kind not in (None, "vector") and n not in names]
        rows = rows.left_join(table.select(key, f"{key}_row", *map(inside, names)), key).drop(f"{key}_right")
    rows = engine.store(rows, work.folder / "joined.parquet")
    dropped = count_dropped(work, log, rows)
    kept = rows.filter(rows.title_row.notnull(), rows.user_row.notnull())
    window = (kept.split == "test").ifelse(1, 0).cast("int64")
    kept = engine.view(kept.mutate(window=window, is_event=discovery.is_event(kept, log.label)))
    return GivenRows(dataclasses.replace(log, joined=kept), users, dropped)


def check_split_rows(work: Work, rows: ibis.Table) -> None:
    """Raises a `ValueError` unless every row is for training, validation or the test, and some are for each."""
    counts = holdout.check_splits(work.engine, rows, work.logs.split_column)
    if "validation" not in counts:
        raise ValueError(
            "`split_column` must name rows for validation, too: of given rows none are drawn for it. Received: "
            f"{work.logs.split_column!r} with {', '.join(f'{word!r} in {number}' for word, number in counts.items())}"
        )


def settle_owners(work: Work, log: CheckedLog) -> ibis.Table:
    """The users, one row each, with the territory that the rows name, where these do, and the number of each.

    Raises:
        ValueError: If rows of one user name several territories, or a user has several rows in the users table.
    """
    engine, rows, users = work.engine, log.tables.events, log.tables.users
    if "territory" in rows.columns:
        homes = rows.filter(rows.user.notnull(), rows.territory.notnull()).group_by("user")
        homes = homes.aggregate(territory=lambda t: t.territory.min(), number=lambda t: t.territory.nunique())
        several = homes.filter(homes.number > 1)
        if count := engine.execute(several.count()):
            first = [row["user"] for row in engine.rows(several.order_by("user").limit(3))]
            raise ValueError(
                "`events` must name one territory for each user; what changes from row to row is `context`. Received: "
                f"{count} users with several, first {first}"
            )
        users = users.left_join(homes.drop("number"), "user").drop("user_right")
    users = named_users(work, users)
    check_unique(engine, users, "user", "users")
    users = users.mutate(user_row=ibis.row_number().over(order_by="user"))
    return engine.store(users, work.folder / "users.parquet")


def count_dropped(work: Work, log: CheckedLog, rows: ibis.Table) -> dict[str, int]:
    """Counts the rows that can be no examples and warns of them, `{why: rows}`.

    Raises:
        ValueError: If no row has a title, or a user, of the tables that are given.
    """
    is_whole = rows.user.notnull() & rows.title.notnull()
    counts = work.engine.rows(
        rows.aggregate(
            rows=rows.count(),
            incomplete=(~is_whole).sum(),
            unknown_title=(is_whole & rows.title_row.isnull()).sum(),
            unknown_user=(is_whole & rows.title_row.notnull() & rows.user_row.isnull()).sum(),
        )
    )[0]
    number = counts.pop("rows")
    work.warn(counts["incomplete"], "rows without user or title were dropped")
    left = number - counts["incomplete"]
    for key, owner, table in (("title", "titles", log.titles), ("user", "users", log.tables.users)):
        if not (unknown := counts[f"unknown_{key}"]):
            continue
        strangers = log.tables.events.anti_join(table, key)
        if unknown == left:
            refuse_mismatch(work.engine, {"events": strangers, owner: table}, key, log.tables.id_types[key])
        left -= unknown
        hint = work.hint(strangers, table, key)
        work.warn(unknown, f"rows of {key}s that are not in the {owner} table were dropped{hint}")
    if not left:
        raise ValueError(f"`events` must have rows with a user and a title. Received: {number} rows without")
    return counts


def survey_rows(work: Work, given: GivenRows) -> Survey:
    """What is known of territories: users, events and groups."""
    rows, users = given.log.joined, given.users
    events = rows.group_by("territory").aggregate(
        events=rows.is_event.sum(),
        volume=(rows.is_event & (rows.split == "train")).sum(),
        last=(rows.is_event & (rows.split == "test")).sum(),
    )
    found = work.engine.rows(users.group_by("territory").aggregate(users=users.count()))
    territories, groups = group_territories(work, events, {row["territory"]: row["users"] for row in found})
    return Survey(np.zeros(0, "int64"), (), events, territories, groups)


def plan_row_features(work: Work, given: GivenRows) -> FeaturePlan:
    """Looks at the extra columns; vocabularies, means and deviations are those of the training rows."""
    rows = given.log.joined
    training = rows.filter(rows.split == "train")
    everything = {"user": given.users, "title": given.log.titles, "event": rows}
    return find_plan(work, given.log, FeatureRows(dict.fromkeys(everything, training), everything, training))


def write_owners(work: Work, given: GivenRows, plan: FeaturePlan) -> tuple[int, WrittenTitles]:
    """Writes users.parquet, titles.parquet and the stores; returns the width of a user's vector, and the titles."""
    users, titles = given.users, given.log.titles
    widths = {
        role: write_vectors(work, table, role, plan.vector_columns[role])
        for role, table in (("user", users), ("title", titles))
    }
    row = users.user_row if widths["user"] else ibis.literal(-1, "int64")
    columns = {column.get_name(): column for column in plan.columns(users, "user")}
    columns = {"territory": users.territory, **columns, "user_row": row.cast("int64")}
    work.engine.write(users.order_by("user").select("user", **columns), work.out / "users.parquet")
    columns = plan.columns(titles, "title")
    work.engine.write(titles.order_by("title_row").select("title", "name", *columns), work.out / "titles.parquet")
    matrix = np.zeros((work.engine.execute(titles.count()), 0), "float32")
    return widths["user"], WrittenTitles(matrix, widths["title"], None)


def write_rows(work: Work, given: GivenRows, plan: FeaturePlan, user_width: int) -> WrittenExamples:
    """Writes the examples, the rows of each split in the order of the files, those of one request side by side."""
    log, rows = given.log, given.log.joined
    counts = count_examples(work, log, rows)
    if not any(row["split"] == "train" for row in counts):
        raise ValueError("`events` must have training rows that are not dropped. Received: none; the warnings say why")
    labels = {task: rows[inside(task)].cast("float32") for task in log.tasks}
    features = {f.name: as_feature(rows, f) for role in ("user", "title") for f in plan.features[role]}
    features |= {f.name: as_feature(rows, f) for role in ("training", "context") for f in plan.features[role]}
    order = [rows.split.cases(*((split, place) for place, split in enumerate(holdout.SPLITS)), else_=None), rows.place]
    requests = {}
    if REQUEST_COLUMN in rows.columns:
        requests = {REQUEST_COLUMN: rows[REQUEST_COLUMN]}
        first = rows.place.min().over(group_by=("split", REQUEST_COLUMN))
        order.insert(1, rows[REQUEST_COLUMN].isnull().ifelse(rows.place, first))
    columns = {"territory": rows.territory, **features, **labels, **requests}
    columns["user_row"] = (rows.user_row if user_width else ibis.literal(-1)).cast("int64")
    columns["title_row"] = rows.title_row.cast("int64")
    sizes, paths = [], []
    for split in holdout.SPLITS:
        (row,) = [row for row in counts if row["split"] == split] or [None]
        for part, begin in enumerate(range(0, row["rows"] if row else 0, BUCKET_EVENTS)):
            folder = work.out / "examples" / "/".join(f"{key}={row[key]}" for key in PARTITIONS)
            sizes.append(min(BUCKET_EVENTS, row["rows"] - begin))
            paths.append(folder / f"part-{part:05d}.parquet")
    work.engine.write_parts(rows.order_by(*order).select("user", "title", **columns), sizes, paths)
    positives = rows.filter(rows.is_event).group_by("territory").aggregate(positives=lambda t: t.count())
    by_territory = {row["territory"]: row["positives"] for row in work.engine.rows(positives)}
    return WrittenExamples(counts, (), by_territory, 0, user_width)


def count_examples(work: Work, log: CheckedLog, rows: ibis.Table) -> Sequence[Mapping[str, Any]]:
    """Counts the examples of each split, as `tfmtr.datasets.report.sum_counts` has them."""
    counts = rows.group_by("split", "window").aggregate(
        rows=rows.count(),
        positives=rows.is_event.sum(),
        users=rows.user.nunique(),
        **{f"sum_{task}": rows[inside(task)].sum().fill_null(0) for task in log.tasks},
        **{f"known_{task}": rows[inside(task)].notnull().sum() for task in log.tasks},
    )
    counts = [{**row, "sampling": "random"} for row in work.engine.rows(counts.order_by("split"))]
    for task in log.tasks:
        unknown = [row["split"] for row in counts if not row[f"known_{task}"]]
        work.warn(len(unknown), f"splits have no label of the task {task!r}: {', '.join(unknown)}")
    is_unlabelled = ibis.and_(*(rows[inside(task)].isnull() for task in log.tasks))
    work.warn(work.engine.execute(is_unlabelled.sum()), "rows have no label at all, of which nothing is learnt")
    return counts


def write_events(work: Work, given: GivenRows) -> None:
    """Writes `events.parquet`: the pairs of users and titles whose first label is no 0."""
    rows = given.log.joined
    events = rows.filter(rows.is_event).select(
        "user",
        "title",
        time=ibis.null("timestamp(6)"),
        window=rows.window,
        split=rows.split,
        is_event=ibis.literal(True),
        is_history=ibis.literal(True),
    )
    work.engine.sort_early()
    work.engine.write(events.distinct().order_by("user", "title", "window", "split"), work.out / "events.parquet")


def write_row_report(work: Work, outcome: Outcome, dropped: Mapping[str, int]) -> None:
    """Writes schema.json and prepare.json."""
    report = report_of(work, outcome)
    kept = sum(row["rows"] for row in outcome.examples.counts)
    report["rows"] = {"given": kept + sum(dropped.values()), "kept": kept, "dropped": dict(dropped)}
    report["windows"] = without_spans(outcome.placed.windows)
    finish(work, report)
