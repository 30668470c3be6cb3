"""Which titles each territory can be offered in each window, and in the one after the last."""

# Ibis says less of its columns than they can do, and of its functions than they take:
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOperatorIssue=false

from collections.abc import Sequence

import ibis

from tfmtr.datasets import discovery
from tfmtr.datasets.ids import refuse_mismatch
from tfmtr.datasets.preparing.checked_log import CheckedLog
from tfmtr.datasets.preparing.survey import Survey
from tfmtr.datasets.preparing.work import Work

JUDGED_WINDOWS = 3  # training windows whose catalogues are kept: baselines are tuned on validation users' lists there


def offer_titles(work: Work, log: CheckedLog, windows: Sequence[discovery.Window], survey: Survey) -> ibis.Table:
    """The catalogue, see `tfmtr.datasets.discovery.catalogue`; writes availability.parquet."""
    last = windows[-1]
    windows = [*windows, discovery.Window(last.number + 1, last.end, last.end + (last.end - last.start))]
    territories = ibis.memtable({"territory": sorted(survey.territories)})
    table = log.tables.availability
    if table is not None:
        table = matching_rows(work, log, table, territories)
    if work.is_drawn:
        none = ibis.null("timestamp")
        if table is None:
            table = log.titles.select("title").cross_join(territories)
        else:
            bounds = work.engine.execute((table.start.notnull() | table.end.notnull()).sum().fill_null(0))
            work.warn(bounds, "rows of availability have a start or end, which is not used: windows have no times")
        table = table.select("title", "territory").distinct().mutate(start=none, end=none)
    is_anywhere = work.logs.availability == "anywhere"
    titles = discovery.catalogue(survey.first_events, territories, windows, table=table, is_anywhere=is_anywhere)
    titles = work.engine.store(titles, work.folder / "catalogue.parquet")
    columns = ("territory", "title", "window")
    shown = titles.filter(titles.window > -JUDGED_WINDOWS).select(*columns).order_by(*columns)
    work.engine.write(shown, work.out / "availability.parquet")
    return titles


def matching_rows(work: Work, log: CheckedLog, table: ibis.Table, territories: ibis.Table) -> ibis.Table:
    """Rows of the availability table whose titles are known; warns of those that match nowhere.

    Raises:
        ValueError: If no row matches.
    """
    rows = work.engine.execute(table.count())
    for key, owner, named in (("title", "titles", log.titles), ("territory", "users", territories)):
        strangers = table.anti_join(named, key)
        count = work.engine.execute(strangers.count())
        if count == rows:
            tables = {"availability": table, owner: named}
            refuse_mismatch(work.engine, tables, key, log.tables.id_types[key])
        hint = work.hint(strangers, named, key) if count else ""
        what = "of titles that are not in the titles table" if key == "title" else "of territories without users"
        work.warn(count, f"rows of availability {what} were left out{hint}")
    return table.semi_join(log.titles, "title")
