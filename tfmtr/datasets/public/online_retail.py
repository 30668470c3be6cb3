"""Online Retail as three tables: a year of sales of a gift shop to 37 countries with known customers.

Most customers (nine in ten) are in the United Kingdom: real territories, and a real imbalance.

Reference: Chen, Sain and Guo, Data mining for the online retail industry, Journal of Database Marketing
2012, https://doi.org/10.1057/dbm.2012.17; https://archive.ics.uci.edu/dataset/352/online+retail.
"""

import datetime
import json
import os
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tfmtr.checks import near_ones
from tfmtr.datasets.logs import Calendar, Logs

# Longitude and latitude in degrees. "European Community" and "Unspecified" are no place.
NEIGHBOURS = {
    "Australia": (134.0, -25.0),
    "Austria": (14.1, 47.6),
    "Bahrain": (50.5, 26.0),
    "Belgium": (4.6, 50.6),
    "Brazil": (-53.1, -10.8),
    "Canada": (-98.3, 56.9),
    "Channel Islands": (-2.3, 49.4),
    "Cyprus": (33.2, 35.0),
    "Czech Republic": (15.3, 49.7),
    "Denmark": (10.0, 56.0),
    "EIRE": (-8.2, 53.2),
    "Finland": (26.3, 64.5),
    "France": (2.5, 46.6),
    "Germany": (10.4, 51.1),
    "Greece": (22.9, 39.1),
    "Hong Kong": (114.1, 22.4),
    "Iceland": (-18.6, 65.0),
    "Israel": (35.0, 31.5),
    "Italy": (12.1, 42.8),
    "Japan": (138.0, 37.6),
    "Lebanon": (35.9, 33.9),
    "Lithuania": (23.9, 55.3),
    "Malta": (14.4, 35.9),
    "Netherlands": (5.3, 52.1),
    "Norway": (14.1, 64.5),
    "Poland": (19.4, 52.1),
    "Portugal": (-8.0, 39.7),
    "RSA": (25.1, -29.0),
    "Saudi Arabia": (44.5, 24.1),
    "Singapore": (103.8, 1.4),
    "Spain": (-3.6, 40.2),
    "Sweden": (16.7, 62.8),
    "Switzerland": (8.2, 46.8),
    "USA": (-98.5, 39.8),
    "United Arab Emirates": (54.3, 23.9),
    "United Kingdom": (-2.9, 54.1),
}


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


# Column -> what its values must be, and whether an Arrow type is that.
COLUMNS = {
    "InvoiceNo": ("text", _is_text),
    "StockCode": ("text", _is_text),
    "Description": ("text", _is_text),
    "Quantity": ("a number", _is_number),
    "InvoiceDate": ("a timestamp", pa.types.is_timestamp),
    "UnitPrice": ("a number", _is_number),
    "CustomerID": ("a number or text", lambda kind: _is_number(kind) or _is_text(kind)),
    "Country": ("text", _is_text),
}

# `verdict` is the first reason to drop a line, or 'events'. A product's code starts with five digits; what does
# not is postage, fees, discounts, samples, vouchers and manual entries.
LINES = r"""
CREATE TABLE lines AS
SELECT
    nullif(regexp_replace(trim(CAST(CustomerID AS VARCHAR)), '\.0$', ''), '') AS "user",
    trim(StockCode) AS title,
    CAST(InvoiceDate AS TIMESTAMP) AS "time",
    CAST(Quantity AS BIGINT) AS quantity,
    nullif(trim(Description), '') AS name,
    trim(Country) AS territory,
    CASE
        WHEN "user" IS NULL THEN 'without_customer'
        WHEN regexp_matches(InvoiceNo, '^[CA]') THEN 'cancelled_or_adjusted'
        WHEN NOT coalesce(quantity > 0 AND UnitPrice > 0, false) THEN 'without_positive_quantity_and_price'
        WHEN NOT coalesce(regexp_matches(title, '^[0-9]{5}'), false) THEN 'not_a_product'
        WHEN "time" IS NULL THEN 'without_time'
        ELSE 'events'
    END AS verdict
FROM source
"""

EVENTS = """
SELECT "user", title, "time", quantity FROM lines WHERE verdict = 'events' ORDER BY "time", "user", title, quantity
"""

MOST_FREQUENT = """
SELECT "{key}", "{value}" FROM lines WHERE {condition} GROUP BY "{key}", "{value}"
QUALIFY row_number() OVER (PARTITION BY "{key}" ORDER BY count("{value}") DESC, "{value}") = 1 ORDER BY "{key}"
"""


def online_retail(source: str | os.PathLike, out: str | os.PathLike) -> Logs:
    """Writes the three tables of Online Retail and describes them.

    An event is a line with a customer, a positive quantity and price and a product code (five digits and
    perhaps letters), on an invoice that is no cancellation (`C...`) and no adjustment (`A...`). A user's
    territory is the country of most of the customer's lines, a title's name the description of most of
    its events, ties in alphabetical order. The shop's local time is taken as UTC. Events have `quantity`.

    Args:
        source: The official .xlsx, or a .parquet with the same columns.
        out: Folder for `events.parquet`, `users.parquet`, `titles.parquet` and `counts.json` (the number of
            lines that became events, and that were dropped for each reason); made if missing.

    Returns:
        The `Logs`: windows of four weeks, 9 for training and 3 for testing at the end of the log.

    Raises:
        ValueError: If `source` is missing, damaged, empty, of another format, or if a column is missing
            or of another type.
    """
    lines = _read(Path(source))
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    users = MOST_FREQUENT.format(key="user", value="territory", condition="verdict <> 'without_customer'")
    titles = MOST_FREQUENT.format(key="title", value="name", condition="verdict = 'events'")
    with duckdb.connect() as connection:
        connection.register("source", lines)
        connection.execute(LINES)
        for name, query in {"events": EVENTS, "users": users, "titles": titles}.items():
            connection.sql(query).write_parquet(str(out / f"{name}.parquet"))
        counts = dict(connection.execute("SELECT verdict, count(*) FROM lines GROUP BY ALL ORDER BY ALL").fetchall())
    (out / "counts.json").write_text(json.dumps({"lines": len(lines), **counts}, indent=1) + "\n", encoding="utf-8")
    return Logs(
        events=out / "events.parquet",
        users=out / "users.parquet",
        titles=out / "titles.parquet",
        columns={"user": "user", "title": "title", "territory": "territory", "time": "time", "name": "name"},
        calendar=Calendar(length=datetime.timedelta(weeks=4), num_train=9, num_test=3),
        availability="anywhere",
        neighbours=NEIGHBOURS,
    )


def _read(source: Path) -> pa.Table:
    """The lines as an Arrow table of the expected columns and types."""
    if not source.is_file():
        raise ValueError(f"`source` must be the official .xlsx or a .parquet; no such file. Received: source={source}")
    if source.suffix == ".parquet":
        table = _read_parquet(source)
    elif source.suffix == ".xlsx":
        table = _read_excel(source)
    else:
        raise ValueError(f"`source` must be the official .xlsx or a .parquet. Received: source={source}")
    if missing := [column for column in COLUMNS if column not in table.column_names]:
        near = [f"{name!r} for {column}" for column in missing for name in near_ones(column, table.column_names)]
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ValueError(
            f"`source` must have the columns {list(COLUMNS)}; it lacks {missing}.{hint} "
            f"Received: {table.column_names} in {source}"
        )
    if table.num_rows == 0:
        raise ValueError(f"`source` must have at least one line. Received: no rows in {source}")
    for column, (expected, is_expected) in COLUMNS.items():
        kind = table.schema.field(column).type
        if not is_expected(kind):
            raise ValueError(f"Column {column} must be {expected}. Received: {kind} in {source}")
    return table


def _read_parquet(source: Path) -> pa.Table:
    try:
        return pq.read_table(source)
    except (pa.ArrowInvalid, OSError) as error:
        raise ValueError(
            f"`source` must be a complete Parquet file; copy or download it again. Received: {error} in {source}"
        ) from error


def _read_excel(source: Path) -> pa.Table:
    # Imported here, because only this format needs them.
    import pandas as pd
    from python_calamine import CalamineError

    # Codes are text even where a cell holds a number: 85123 beside 85123A.
    codes: dict[Hashable, Any] = dict.fromkeys(
        ["InvoiceNo", "StockCode", "Description", "CustomerID", "Country"], "str"
    )
    try:
        frame = pd.read_excel(source, engine="calamine", dtype=codes)
    except CalamineError as error:
        raise ValueError(
            f"`source` must be a complete .xlsx file; copy or download it again. Received: {error} in {source}"
        ) from error
    mixed = frame.select_dtypes("object").columns
    return pa.Table.from_pandas(frame.astype(dict.fromkeys(mixed, "str")), preserve_index=False)
