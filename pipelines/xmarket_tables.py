"""Turns XMarket's ratings into the three tables that `tfmtr prepare events` reads: one's own logs, as an example.

    python pipelines/xmarket_tables.py ../shared/data/xmarket-electronics/ratings_5core.parquet runs/xmarket
    tfmtr prepare events --events runs/xmarket/events.parquet --users runs/xmarket/users.parquet \
        --titles runs/xmarket/titles.parquet --map user=uid,title=asin,territory=market,time=date \
        --task liked=liked --window-days 28 --train-windows 12 --end 2019-10-01 --out runs/xmarket/data

A user's market is the one they rated most in, of several the first by name; a title's only property is how often it
was rated before 2018, long before the first window. Mexican dates are all the 24th of a month.
"""

import sys
from pathlib import Path

import duckdb

TABLES = {
    "events": "select userId as uid, itemId as asin, date, 1 as liked from ratings where rate >= 4",
    "users": """select userId as uid, market from ratings group by userId, market
        qualify row_number() over (partition by userId order by count(*) desc, market) = 1""",
    "titles": """select itemId as asin, itemId as name, log10(1 + count(*) filter (date < date '2018-01-01'))
        as earlier_ratings from ratings group by asin""",
}


def write_tables(source, out):
    """Writes the tables to a folder; returns `{table: its file}`."""
    out.mkdir(parents=True, exist_ok=True)
    ratings = duckdb.read_parquet(str(source))  # noqa: F841 (the queries name it)
    files = {name: out / f"{name}.parquet" for name in TABLES}
    for name, query in TABLES.items():
        duckdb.sql(f"{query} order by all").write_parquet(str(files[name]))
    return files


if __name__ == "__main__":
    for file in write_tables(sys.argv[1], Path(sys.argv[2])).values():
        print(f"{file}: {len(duckdb.read_parquet(str(file))):,} rows")
