import datetime
import json

import pandas as pd
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.public.online_retail import COLUMNS, NEIGHBOURS, online_retail

DAY = pd.Timestamp("2011-03-01 10:15")
LINES = pd.DataFrame(
    [
        ("536365", "85123A", " WHITE HEART ", 6, DAY, 2.55, 17850, "United Kingdom"),
        ("536365", "71053", "LANTERN", 2, DAY, 3.39, 17850, "United Kingdom"),
        ("536366", "71053 ", "LANTERN", 1, DAY, 3.39, 12583, "Germany"),
        ("536366", "71053", "A LANTERN", 1, DAY + pd.Timedelta("1min"), 3.39, 12583, "France"),
        ("536367", "71053", "A LANTERN", 1, DAY, 3.39, None, "France"),
        ("536368", "22423", None, 1, DAY, 12.75, 12583, "Germany"),
        ("536369", "84077", None, 1, DAY, 0.29, 12584, "Spain"),
        ("536369", "84077", "DOLLS", 1, DAY, 0.29, 12584, "Norway"),
        ("C536370", "71053", "LANTERN", -1, DAY, 3.39, 12583, "Germany"),
        ("A536371", "71053", "LANTERN", 1, DAY, 3.39, 12583, "Germany"),
        ("536372", "71053", "LANTERN", -1, DAY, 3.39, 12583, "Germany"),
        ("536372", "71053", "LANTERN", 1, DAY, 0.0, 12583, "Germany"),
        ("536373", "POST", "POSTAGE", 1, DAY, 18.0, 12583, "Germany"),
        ("536373", "C2", "CARRIAGE", 1, DAY, 50.0, 12583, "Germany"),
        ("536373", "gift_0001_10", "VOUCHER", 1, DAY, 10.0, 12583, "Germany"),
    ],
    columns=list(COLUMNS),
)


def make_source(path, frame=LINES):
    (frame.to_parquet if path.suffix == ".parquet" else frame.to_excel)(path, index=False)
    return path


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx"])
def test_tables_of_a_few_lines(tmp_path, suffix):
    logs = online_retail(make_source(tmp_path / f"lines{suffix}"), tmp_path / "out")
    events = [tuple(row.values()) for row in pq.read_table(logs.events).to_pylist()]
    at, later = DAY.to_pydatetime(), DAY.to_pydatetime() + datetime.timedelta(minutes=1)
    assert events == [
        ("12583", "22423", at, 1),
        ("12583", "71053", at, 1),
        ("12584", "84077", at, 1),
        ("12584", "84077", at, 1),
        ("17850", "71053", at, 2),
        ("17850", "85123A", at, 6),
        ("12583", "71053", later, 1),
    ]
    # 12584 has one line in Norway and one in Spain: the first in alphabetical order.
    assert pq.read_table(logs.users).to_pylist() == [
        {"user": "12583", "territory": "Germany"},
        {"user": "12584", "territory": "Norway"},
        {"user": "17850", "territory": "United Kingdom"},
    ]
    assert pq.read_table(logs.titles).to_pylist() == [
        {"title": "22423", "name": None},
        {"title": "71053", "name": "LANTERN"},
        {"title": "84077", "name": "DOLLS"},
        {"title": "85123A", "name": "WHITE HEART"},
    ]
    assert json.loads((tmp_path / "out" / "counts.json").read_text()) == {
        "lines": 15,
        "cancelled_or_adjusted": 2,
        "events": 7,
        "not_a_product": 3,
        "without_customer": 1,
        "without_positive_quantity_and_price": 2,
    }


def test_cells_that_hold_numbers_are_codes(tmp_path):
    source = make_source(tmp_path / "lines.xlsx", LINES.head(3).assign(StockCode=71053, InvoiceNo=536365))
    assert pq.read_table(online_retail(source, tmp_path / "out").events)["title"].to_pylist() == ["71053"] * 3


def test_the_published_counts(tmp_path, shared_data):
    source = shared_data("online-retail/online_retail.parquet")
    logs = online_retail(source, tmp_path)
    lines = pd.read_parquet(source)
    known = lines[lines.CustomerID.notna()]
    kept = known[
        ~known.InvoiceNo.str[0].isin(["C", "A"])
        & (known.Quantity > 0)
        & (known.UnitPrice > 0)
        & known.StockCode.str[:5].str.isdigit()
    ]
    events = pd.read_parquet(logs.events)
    users = pd.read_parquet(logs.users)
    titles = pd.read_parquet(logs.titles)
    counts = json.loads((tmp_path / "counts.json").read_text())
    assert counts["lines"] == sum(counts.values()) - counts["lines"] == 541_909
    assert counts["without_customer"] == 135_080
    assert counts["events"] == len(events) == len(kept)
    assert events.quantity.sum() == kept.Quantity.sum()
    assert len(users) == users.user.nunique() == 4_372
    # The 38th country of the log, Hong Kong, has no line with a customer.
    assert users.territory.nunique() == 37
    assert (users.territory == "United Kingdom").sum() == 3_950
    assert set(users.territory) - set(NEIGHBOURS) == {"European Community", "Unspecified"}
    assert set(titles.title) == set(events.title) == set(kept.StockCode)
    assert titles.name.notna().all()
    assert titles.set_index("title").name["85123A"] == "WHITE HANGING HEART T-LIGHT HOLDER"
    calendar = logs.calendar
    windows = (calendar.num_train + calendar.num_test) * calendar.length
    assert events.time.max() - windows > events.time.min()


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx"])
def test_missing_column(tmp_path, suffix):
    source = make_source(tmp_path / f"lines{suffix}", LINES.rename(columns={"CustomerID": "Customer ID"}))
    expected = r"must have the columns \['InvoiceNo', .*; it lacks \['CustomerID'\]. Did you mean 'Customer ID'"
    with pytest.raises(ValueError, match=expected + r".* Received: \['InvoiceNo', .*'Customer ID'"):
        online_retail(source, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx"])
@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("InvoiceDate", "yesterday", "Column InvoiceDate must be a timestamp. Received: (large_)?string in"),
        ("Quantity", "six", "Column Quantity must be a number. Received: (large_)?string in"),
        ("UnitPrice", True, "Column UnitPrice must be a number. Received: bool in"),
    ],
)
def test_wrong_dtype(tmp_path, suffix, column, values, message):
    source = make_source(tmp_path / f"lines{suffix}", LINES.assign(**{column: values}))
    with pytest.raises(ValueError, match=message):
        online_retail(source, tmp_path / "out")


def test_codes_that_are_numbers(tmp_path):
    source = make_source(tmp_path / "lines.parquet", LINES.assign(StockCode=range(len(LINES))))
    with pytest.raises(ValueError, match=r"Column StockCode must be text. Received: int64 in"):
        online_retail(source, tmp_path / "out")


def test_one_text_among_numbers(tmp_path):
    quantity = LINES.Quantity.astype("object")
    quantity[3] = "six"
    source = make_source(tmp_path / "lines.xlsx", LINES.assign(Quantity=quantity))
    with pytest.raises(ValueError, match=r"Column Quantity must be a number. Received: (large_)?string in"):
        online_retail(source, tmp_path / "out")


@pytest.mark.parametrize("suffix", [".parquet", ".xlsx"])
def test_no_rows(tmp_path, suffix):
    source = make_source(tmp_path / f"lines{suffix}", LINES.head(0))
    with pytest.raises(ValueError, match=r"`source` must have at least one line. Received: no rows in"):
        online_retail(source, tmp_path / "out")


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.99])
@pytest.mark.parametrize(("suffix", "kind"), [(".parquet", "Parquet"), (".xlsx", r"\.xlsx")])
def test_truncated_file(tmp_path, suffix, kind, kept):
    source = make_source(tmp_path / f"lines{suffix}")
    data = source.read_bytes()
    source.write_bytes(data[: int(kept * len(data))])
    expected = f"`source` must be a complete {kind} file; copy or download it again. Received: .*lines{suffix}"
    with pytest.raises(ValueError, match=expected):
        online_retail(source, tmp_path / "out")


def test_missing_source(tmp_path):
    with pytest.raises(ValueError, match=r"no such file. Received: source=.*lines.parquet"):
        online_retail(tmp_path / "lines.parquet", tmp_path / "out")


def test_another_format(tmp_path):
    (tmp_path / "lines.csv").write_text("InvoiceNo\n")
    with pytest.raises(ValueError, match=r"must be the official .xlsx or a .parquet. Received: source=.*lines.csv"):
        online_retail(tmp_path / "lines.csv", tmp_path / "out")
