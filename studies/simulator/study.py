"""How the simulator's log compares with the paper's figures and with two real logs, in one table.

    python studies/simulator/study.py --online-retail ../shared/data/online-retail/online_retail.parquet \
        --xmarket ../shared/data/xmarket-electronics/ratings_5core.parquet

Writes the table as this folder's `README.md`, or the `--page`; without a path its column is left out. The simulator has
220 territories, everything else as by default. A positive of XMarket is a rating of 4 or 5. The paper is Gampa et al.,
2023, Table 1. What was matched and what was not known: `docs/simulator.md`. Under a minute on 2 cores.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parents[1]))

import duckdb

from studies.cells import table
from tfmtr.datasets.public.online_retail import online_retail
from tfmtr.datasets.simulator import simulator

LOG = """
CREATE TABLE log AS SELECT "user", title, territory, CAST("time" AS TIMESTAMP) AS "time"
FROM '{events}' JOIN (SELECT "user", territory FROM '{users}') USING ("user")
"""
XMARKET = """
CREATE TABLE log AS SELECT userId AS "user", itemId AS title, market AS territory, CAST("date" AS TIMESTAMP) AS "time"
FROM '{ratings}' WHERE rate >= 4
"""

# Events of each title, user or territory, the largest first.
SIZES = """
WITH sizes AS (
    SELECT count(*) AS events, row_number() OVER (ORDER BY count(*) DESC) AS place, count(*) OVER () AS num,
    FROM log GROUP BY "{column}"
)
SELECT {value} FROM sizes
"""
TOP = "sum(events) FILTER (place <= ceil({share} * num)) / sum(events)"
GINI = "sum((num + 1 - 2 * place) * events) / (any_value(num) * sum(events))"
LARGEST_TO_16TH = "max(events) / max(events) FILTER (place = 16)"
LOCAL = """
SELECT avg(CAST(largest >= 0.8 * events AS INT)) FROM (
    SELECT max(events) AS largest, sum(events) AS events
    FROM (SELECT title, count(*) AS events FROM log GROUP BY title, territory) GROUP BY title
) WHERE events >= 20
"""
SHARED = """
SELECT avg(CAST(num > 1 AS INT)) FROM (SELECT count(DISTINCT territory) AS num FROM log GROUP BY title)
"""
ACTIVE = """
SELECT count(DISTINCT "user") FILTER ("time" >= (SELECT max("time") FROM log) - INTERVAL 28 DAY)
    / count(DISTINCT "user") FROM log
"""
DISCOVERIES = """
SELECT avg(CAST(coalesce("time" - earlier > INTERVAL 30 DAY, true) AS INT)) FROM (
    SELECT "time", lag("time") OVER (PARTITION BY "user", title ORDER BY "time") AS earlier FROM log
)
"""
WEEKDAY = """
SELECT 7 * max(events) / sum(events) FROM (SELECT count(*) AS events FROM log GROUP BY dayofweek("time"))
"""


def sizes(column, value, **parameters):
    """Query of a figure of the numbers of events."""
    return SIZES.format(column=column, value=value.format(**parameters))


PAGE = """# How the simulator's log compares with the paper's figures and with two real logs

`python studies/simulator/study.py` writes this page: {users:,} simulated users, seed 0, {date}. What was matched, and
what is not known: [the simulator](../../docs/simulator.md).

{table}
"""

# Statistic -> query, format, figure of the paper.
STATISTICS = {
    "positives": ("SELECT count(*) FROM log", ",.0f", "order of 10 M"),
    "users with a positive": ('SELECT count(DISTINCT "user") FROM log', ",.0f", ""),
    "titles with a positive": ("SELECT count(DISTINCT title) FROM log", ",.0f", "several hundred"),
    "territories": ("SELECT count(DISTINCT territory) FROM log", ",.0f", "more than 200"),
    "positives, largest to 16th territory": (sizes("territory", LARGEST_TO_16TH), ".0f", "order of 100"),
    "positives of the largest territory": (sizes("territory", "max(events) / sum(events)"), ".2f", ""),
    "positives of the top 1 % of titles": (sizes("title", TOP, share=0.01), ".2f", ""),
    "positives of the top 5 % of titles": (sizes("title", TOP, share=0.05), ".2f", ""),
    "Gini of positives over titles": (sizes("title", GINI), ".2f", ""),
    "positives of the top 1 % of users": (sizes("user", TOP, share=0.01), ".2f", ""),
    "positives of the top 10 % of users": (sizes("user", TOP, share=0.1), ".2f", ""),
    "active in the last 4 weeks, of users with a positive": (ACTIVE, ".2f", ""),
    "local titles (80 % in one territory), of those with 20": (LOCAL, ".2f", ""),
    "titles in two territories or more": (SHARED, ".2f", ""),
    "positives that are discoveries (30 days)": (DISCOVERIES, ".2f", ""),
    "busiest weekday to the average one": (WEEKDAY, ".2f", ""),
}


def main(paths, *, num_users=200_000, num_territories=220):
    """Returns the Markdown table.

    Args:
        paths: `{"Online Retail": path, "XMarket": path}`, may lack either.
        num_users: Of the simulator.
        num_territories: Of the simulator.
    """
    columns = {"paper": [figure for _, _, figure in STATISTICS.values()]}
    with tempfile.TemporaryDirectory() as folder:
        if "Online Retail" in paths:
            columns["Online Retail"] = statistics(
                of_logs(online_retail(paths["Online Retail"], Path(folder, "retail")))
            )
        if "XMarket" in paths:
            columns["XMarket"] = statistics(XMARKET.format(ratings=paths["XMarket"]))
        logs = simulator(Path(folder, "simulator"), num_users=num_users, num_territories=num_territories)
        columns["simulator"] = statistics(of_logs(logs))
    return table(["", *columns], zip(STATISTICS, *columns.values(), strict=True))


def of_logs(logs):
    """Query that makes the table `log` of a `Logs`."""
    return LOG.format(events=logs.events, users=logs.users)


def statistics(log):
    """Figures of a log as text, `n/a` where there is none."""
    with duckdb.connect() as connection:
        connection.execute(log)
        values = [connection.execute(query).fetchone()[0] for query, _, _ in STATISTICS.values()]
    formats = [form for _, form, _ in STATISTICS.values()]
    return ["n/a" if value is None else f"{value:{form}}" for value, form in zip(values, formats, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--online-retail", type=Path, help="the official .xlsx, or a .parquet of the same columns")
    parser.add_argument("--xmarket", type=Path, help="ratings as .parquet")
    parser.add_argument("--users", type=int, default=200_000, help="of the simulator")
    parser.add_argument("--page", type=Path, default=HERE / "README.md", help="where the table is written")
    arguments = parser.parse_args()
    given = {"Online Retail": arguments.online_retail, "XMarket": arguments.xmarket}
    made = main({name: path for name, path in given.items() if path}, num_users=arguments.users)
    date = time.strftime("%Y-%m-%d", time.gmtime())
    arguments.page.write_text(PAGE.format(users=arguments.users, date=date, table=made), encoding="utf-8")
    print(made)
