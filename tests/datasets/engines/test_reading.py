"""Files to tables: one type a column over all files on DuckDB and Spark; CSV by all lines; nothing guessed."""

import datetime
import decimal
import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers import base_log

from tfmtr.datasets.column_types import TIME
from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.log_tables import read_tables
from tfmtr.datasets.reading import read_table


@pytest.fixture(scope="module")
def engine(request):
    """An engine by its name."""
    return DuckDB() if request.param == "duckdb" else request.getfixturevalue("spark")


both = pytest.mark.parametrize("engine", ["duckdb", "spark"], indirect=True)
duckdb = pytest.mark.parametrize("engine", ["duckdb"], indirect=True)


def values(engine, folder, *parts, name="x", **options):
    """The values of a column of a folder of files, each given as an Arrow array; nulls last."""
    base_log.write(folder, "t", [pa.table({"n": np.arange(len(part)), "x": part}) for part in parts])
    table, _ = read_table(engine, folder / "t", "events", **options)
    found = engine.to_pyarrow(table)[name].to_pylist()
    return sorted(found, key=lambda value: (value is None, value if not isinstance(value, list) else str(value)))


def array(dtype, *items):
    return pa.array(items, dtype)


D = decimal.Decimal
DAY, MOMENT = datetime.date(2024, 3, 1), datetime.datetime(2024, 3, 2, 10, 30)
MIDNIGHT = datetime.datetime(2024, 3, 1)
COMMON = {
    "whole and float": ([array(pa.int64(), 1, None), array(pa.float64(), 0.4)], [0.4, 1.0, None]),
    "float and whole": ([array(pa.float32(), 0.5), array(pa.int32(), 2**30 + 1)], [0.5, 2.0**30 + 1]),
    "half and whole": ([array(pa.float16(), np.float16(0.5)), array(pa.int8(), 3)], [0.5, 3.0]),
    "bytes and thousands": ([array(pa.int8(), 7), array(pa.int32(), 3000, -129)], [-129, 7, 3000]),
    "a label of a byte and 256": ([array(pa.int8(), 1), array(pa.int16(), 256)], [1, 256]),
    "without and with a sign": ([array(pa.uint32(), 2**32 - 1), array(pa.int8(), -1)], [-1, 2**32 - 1]),
    "unsigned of 64 bits": ([array(pa.uint64(), 2**64 - 1), array(pa.int64(), -1)], [D(-1), D(2**64 - 1)]),
    "truth and whole": ([array(pa.bool_(), True), array(pa.int8(), 0)], [0, 1]),
    "decimals": ([array(pa.decimal128(1, 0), D(5)), array(pa.decimal128(4, 2), D("0.25"))], [D("0.25"), D("5.00")]),
    "decimal and whole": ([array(pa.decimal128(4, 2), D("0.25")), array(pa.int16(), 300)], [D("0.25"), D("300.00")]),
    "decimal and float": ([array(pa.decimal128(4, 2), D("0.25")), array(pa.float64(), 0.1)], [0.1, 0.25]),
    "date and time": ([array(pa.date32(), DAY), array(pa.timestamp("us"), MOMENT)], [MIDNIGHT, MOMENT]),
    "nano and micro": ([array(pa.timestamp("ns"), MOMENT), array(pa.timestamp("us"), MIDNIGHT)], [MIDNIGHT, MOMENT]),
    "micro and nano": ([array(pa.timestamp("ms"), MIDNIGHT), array(pa.timestamp("ns"), MOMENT)], [MIDNIGHT, MOMENT]),
    "nulls and text": ([array(pa.null(), None), array(pa.string(), "en")], ["en", None]),
    "text and nulls": ([array(pa.large_string(), "en"), array(pa.null(), None)], ["en", None]),
    "an empty file of another type": ([array(pa.string()), array(pa.int64(), 5)], [5]),
    "categories and text": ([array(pa.string(), "a").dictionary_encode(), array(pa.string(), "b")], ["a", "b"]),
    "lists": ([array(pa.list_(pa.float32()), [0.5]), array(pa.list_(pa.float64()), [0.25])], [[0.25], [0.5]]),
}
NONE = {
    "number and text": [array(pa.int64(), 1), array(pa.string(), "unknown")],
    "epoch and time": [array(pa.int64(), 1_709_251_200), array(pa.timestamp("us"), MOMENT)],
    "truth and text": [array(pa.bool_(), True), array(pa.string(), "True")],
    "long decimal and float": [array(pa.decimal128(20, 2), D("0.25")), array(pa.float64(), 0.1)],
    "decimals that are too long": [array(pa.decimal128(38, 0), D(1)), array(pa.decimal128(4, 2), D("0.25"))],
    "whole above 2**53 and float": [array(pa.int64(), 2**53 + 1), array(pa.float64(), 0.1)],
    "list and text": [array(pa.list_(pa.string()), ["a"]), array(pa.string(), "a")],
}


@both
@pytest.mark.parametrize("kind", COMMON)
def test_a_column_has_the_common_type_of_its_files(engine, tmp_path, kind):
    parts, expected = COMMON[kind]
    assert values(engine, tmp_path, *parts) == expected


@both
@pytest.mark.parametrize("kind", NONE)
def test_types_without_a_common_one_are_refused_by_file_and_column(engine, tmp_path, kind):
    message = r"`events` must have one type.*column 'x' is \w+.* in .*part-\d.parquet.* and \w+"
    with pytest.raises(ValueError, match=message):
        values(engine, tmp_path, *NONE[kind])


@both
def test_ids_may_be_numbers_in_one_file_and_text_in_another(engine, tmp_path):
    parts = [array(pa.int64(), 7), array(pa.string(), "007")]
    assert values(engine, tmp_path, *parts, ids=["x"]) == ["007", "7"]


@both
def test_a_column_of_nulls_is_said(engine, tmp_path):
    base_log.write(tmp_path, "t", pa.table({"n": [1], "x": array(pa.null(), None)}))
    table, warnings = read_table(engine, tmp_path / "t.parquet", "users")
    assert warnings == ["the column 'x' of users holds nothing but nulls: a feature that is always missing"]
    _, warnings = read_table(engine, tmp_path / "t.parquet", "events")
    assert warnings == ["the column 'x' of events holds nothing but nulls"]
    assert engine.rows(table) == [{"n": 1, "x": None}]


NAMES = ("E[1]", "E1", "a*b", "what?", "two words", "day=01", "50%20", "b{r}ace", "it's", "com,ma", "é")


@both
def test_names_of_files_and_folders_are_no_patterns(engine, tmp_path):
    places = {
        tmp_path / folder / f"{file}.parquet": 100 * i + j
        for i, folder in enumerate(NAMES)
        for j, file in enumerate(NAMES)
    }
    for path, number in places.items():
        path.parent.mkdir(exist_ok=True)
        pq.write_table(pa.table({"n": [number]}), path)
    table, _ = read_table(engine, next(iter(places)), "events")
    assert engine.rows(table) == [{"n": 0}]
    for i, name in enumerate(NAMES):
        table, _ = read_table(engine, tmp_path / name, "events")
        assert sorted(engine.to_pyarrow(table)["n"].to_pylist()) == [100 * i + j for j in range(len(NAMES))], name


@both
def test_only_committed_files_are_read_and_what_is_left_out_is_said(engine, tmp_path):
    for number, name in enumerate(("a.parquet", "_temporary/0/b.parquet", ".c.parquet", "_d.parquet", ".e/f.parquet")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"n": [number]}), tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "notes.txt").write_text("hello")
    table, warnings = read_table(engine, tmp_path, "events")
    assert engine.rows(table) == [{"n": 0}]
    assert warnings == [f"1 file in {tmp_path} is not of a table and was left out, such as notes.txt"]


@both
def test_folders_with_values_are_columns(engine, tmp_path):
    for number, (one, two) in enumerate((("01", "2024-03-01"), ("__HIVE_DEFAULT_PARTITION__", "2024-03-02"))):
        folder = tmp_path / f"_hour={one}" / f"day={two}" / "a%3Db=x%20y"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"n": [number]}), folder / "part.parquet")
    table, _ = read_table(engine, tmp_path, "events")
    rows = sorted(engine.rows(table), key=lambda row: row["n"])
    days = [datetime.date(2024, 3, day) for day in (1, 2)]
    assert rows == [
        {"n": 0, "_hour": "01", "day": days[0], "a=b": "x y"}, {"n": 1, "_hour": None, "day": days[1], "a=b": "x y"}
    ]  # fmt: skip


@duckdb
@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("a.parquet", "b.csv"), r"`events` must be of one format.*a.parquet and .*b.csv"),
        (("day=1/a.parquet", "b.parquet"), r"folders of the same names.*b.parquet with \[\].*\['day'\]"),
        (("day=1/a.parquet", "hour=1/b.parquet"), r"folders of the same names"),
        (("N=1/a.parquet",), r"names differ in more than case.*'n' and 'N'"),
        (("_a.parquet",), r"a dot or an underscore do not count.*which has none"),
    ],
)
def test_folders_that_are_no_table(engine, tmp_path, names, message):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith(".csv"):
            (tmp_path / name).write_text("n\n1\n")
        else:
            pq.write_table(pa.table({"n": [1]}), tmp_path / name)
    with pytest.raises(ValueError, match=message):
        read_table(engine, tmp_path, "events")


@both
@pytest.mark.parametrize("argument", ["events", "users", "titles"])
def test_columns_that_differ_in_case_only_are_refused(engine, tmp_path, argument):
    tables = dict(zip(("events", "users", "titles"), base_log.base(), strict=True))
    tables[argument] = tables[argument].assign(**{tables[argument].columns[-1].upper(): 1})
    with pytest.raises(ValueError, match=f"`{argument}` must have columns whose names differ in more than case"):
        read_tables(engine, base_log.make_logs(tmp_path, **tables))


# CSV -----------------------------------------------------------------------------------------------------------------


def column(engine, path, name="x", **options):
    """Values and type of a column of a CSV file, and the warnings."""
    table, warnings = read_table(engine, path, "users", **options)
    return engine.to_pyarrow(table)[name].to_pylist(), str(table[name].type()), warnings


LATE = 30_000  # lines before the one that decides
LINES = {  # what the last line has after so many of another kind, and the values and the type that the column gets
    "whole, then a float": ("1", "0.4", 0.4, "float64"),
    "whole, then a word": ("30", "unknown", "unknown", "string"),
    "whole, then a leading zero": ("30", "007", "007", "string"),
    "whole, then a large one": ("30", str(2**63), str(2**63), "string"),
    "truth, then a number": ("true", "2", "2", "string"),
    "a day, then a moment": ("2024-03-01", "2024-03-02T10:30:00", MOMENT, "timestamp(6)"),
    "a moment, then one with an offset": ("2024-03-01 00:00:00", "2024-03-02T12:30:00+02:00", MOMENT, "timestamp(6)"),
    "a day, then a word": ("2024-03-01", "soon", "soon", "string"),
    "nothing, then a number": ("", "5", 5, "int64"),
    "a day in another order": ("01/02/2024", "03/04/2024", "03/04/2024", "string"),
    "digits with a blank": ("5", " 6", 6, "int64"),
    "digits with an underscore": ("5", "1_0", "1_0", "string"),
}


@duckdb
@pytest.mark.parametrize("kind", LINES)
def test_all_lines_decide_the_type_of_a_csv_column(engine, tmp_path, kind):
    first, last, expected, dtype = LINES[kind]
    (tmp_path / "a.csv").write_text("n,x\n" + f"1,{first}\n" * LATE + f"2,{last}\n")
    found, kind_found, _ = column(engine, tmp_path / "a.csv")
    assert (found[-1], kind_found) == (expected, dtype)
    assert len(found) == LATE + 1


@duckdb
def test_a_csv_column_that_is_text_for_a_few_words_is_said_with_the_line(engine, tmp_path):
    (tmp_path / "a.csv").write_text("n,x,word\n" + "1,30,a\n" * LATE + "2,unknown,b\n1,2,c\n")
    *_, warnings = column(engine, tmp_path / "a.csv")
    place = f"'unknown' in line {LATE + 2} of {tmp_path / 'a.csv'}"
    assert warnings == [f"1 of {LATE + 2} values of the column 'x' of users are no numbers, so it is text: {place}"]


@both
def test_csv_columns_are_matched_by_name_over_files_of_any_form(engine, tmp_path):
    (tmp_path / "a.csv").write_text("x,word,n\n1,é,1\n")
    (tmp_path / "b.csv").write_bytes('﻿n;x;word\r\n2;0.5;"semi;colon ""q"""\r\n'.encode())
    with gzip.open(tmp_path / "c.csv.gz", "wt") as file:
        file.write('word\tn\tx\n"two\nlines"\t3\t\n')
    found, dtype, _ = column(engine, tmp_path)
    assert (sorted(found, key=str), dtype) == ([0.5, 1.0, None], "float64")
    assert sorted(column(engine, tmp_path, "word")[0]) == ['semi;colon "q"', "two\nlines", "é"]


@duckdb
@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"n,x\n" + b"1,2\n" * 499 + b"1,2,3\n1,2\n", r"line 501 of .*a.csv: Expected Number of Columns: 2 Found: 3"),
        (b"n,x\n" + b"1,2\n" * 40_000 + b"1\n", r"line 40002 of .*a.csv: Expected Number of Columns: 2 Found: 1"),
        (b"n,x\n1,\xfc\n", "must be UTF-8.*a.csv"),
        (b"n,x\n" + b"1,2\n" * 600_000 + b"1,\xfc\n", r"in UTF-8.*line 600002 of .*a.csv"),
        ("n,x\n1,2\n".encode("utf-16"), "must be UTF-8.*a.csv"),
        (b"n,x,X\n1,2,3\n", "differ in more than case.*'x' and 'X'"),
        (b"n,x,x\n1,2,3\n", "differ in more than case.*'x' and 'x'"),
        (b"n,x\n", "must have at least one row"),
    ],
)  # fmt: skip
def test_a_csv_that_is_no_table_is_refused_by_file_and_line(engine, tmp_path, text, message):
    (tmp_path / "a.csv").write_bytes(text)
    with pytest.raises(ValueError, match=message):
        column(engine, tmp_path / "a.csv")


@duckdb
def test_a_csv_column_without_a_name_is_left_out_and_said(engine, tmp_path):
    pd.DataFrame({"x": [1, 2]}).to_csv(tmp_path / "a.csv")
    table, warnings = read_table(engine, tmp_path / "a.csv", "users")
    assert table.columns == ("x",)
    assert warnings == ["1 column without a name was left out"]


@duckdb
def test_csv_files_with_other_columns_are_refused(engine, tmp_path):
    (tmp_path / "a.csv").write_text("n,x\n1,2\n")
    (tmp_path / "b.csv").write_text("n,y\n1,2\n")
    with pytest.raises(ValueError, match=r"the same columns in every file.*b.csv differs from .*a.csv in \['x', 'y'\]"):
        read_table(engine, tmp_path, "users")


@duckdb
@pytest.mark.parametrize("headless", ["a.csv", "b.csv"])
def test_a_csv_without_its_header_line_is_named(engine, tmp_path, headless):
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text(("" if name == headless else "n,x,y\n") + "u1,0,0\n")
    message = rf"the same columns in every file.*b.csv differs from .*; the header line of .*/{headless} seems"
    with pytest.raises(ValueError, match=message):
        read_table(engine, tmp_path, "users")
    (tmp_path / "a.csv").write_text("n,x,y,Y\n1,2,3,4\n")
    (tmp_path / "b.csv").unlink()
    with pytest.raises(ValueError, match=r"differ in more than case.*'y' and 'Y' in .*a.csv"):
        read_table(engine, tmp_path, "users")


# Ids and times -------------------------------------------------------------------------------------------------------


def read(engine, folder, *, events=None, users=None, **changes):
    """The tables of the base log with other events or users."""
    e, u, t = base_log.base()
    return read_tables(
        engine,
        base_log.make_logs(folder, e if events is None else events(e), u if users is None else users(u), t, **changes),
    )


def ids(engine, table):
    return {row["user"] for row in engine.rows(table.select("user").distinct())}


NUMBERS = {
    "int": lambda n: n.astype("int64"),
    "float": lambda n: n.astype("float64"),
    "decimal": lambda n: n.map(lambda value: D(f"{value}.00")),
    "text": lambda n: n.astype("int64").astype(str),
}


@both
@pytest.mark.parametrize("dtype", NUMBERS)
def test_whole_numbers_are_the_same_ids_in_any_type(engine, tmp_path, dtype):
    numbers = {f"u{i:04d}": 10**9 + i for i in range(300)}

    def change(events):
        user = NUMBERS[dtype](events.user.map(numbers)).astype(object)
        user[5] = None
        return events.assign(user=pd.Series(user.tolist(), dtype="float64") if dtype == "float" else user)

    tables = read(engine, tmp_path, events=change, users=lambda users: users.assign(user=users.user.map(numbers)))
    assert ids(engine, tables.events) - {None} <= ids(engine, tables.users)
    assert None in ids(engine, tables.events)


@duckdb
def test_ids_that_pandas_wrote_as_floats_into_a_csv(engine, tmp_path):
    events = base_log.base()[0]
    events["user"] = events.user.str[1:].astype(float)
    events.loc[5, "user"] = None
    events.to_csv(tmp_path / "events.csv", index=False)
    _, users, titles = base_log.base()
    users = users.assign(user=np.arange(300))
    logs = base_log.make_logs(tmp_path, tmp_path / "events.csv", users, titles)
    tables = read_tables(engine, logs)
    assert ids(engine, tables.events) - {None} == ids(engine, tables.users)


@both
@pytest.mark.parametrize("bad", [2.0**53, 0.5])
def test_float_ids_that_are_not_exact_are_refused(engine, tmp_path, bad):
    with pytest.raises(ValueError, match=r"'user' of `events` must be ids.*below 2\*\*53.*3600 others.*float64"):
        read(engine, tmp_path, events=lambda events: events.assign(user=bad))


@both
def test_empty_text_is_no_id(engine, tmp_path):
    tables = read(engine, tmp_path, events=lambda events: events.assign(user=""))
    assert ids(engine, tables.events) == {None}


DAY_FIRST, MONTH_FIRST = "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S"
WRITTEN = {
    "iso": ("%Y-%m-%d %H:%M:%S", None),
    "iso with an offset": ("%Y-%m-%dT%H:%M:%S+00:00", None),
    "days tell": (DAY_FIRST, None),
    "days tell the other order": (MONTH_FIRST, None),
    "given": (DAY_FIRST, DAY_FIRST),
    "noon": ("%m-%d-%y %I.%M.%S %p", "%m-%d-%y %I.%M.%S %p"),
    "short months": ("%d-%b-%y %H:%M:%S", "%d-%b-%y %H:%M:%S"),
    "long months": ("%B %d, %Y %H:%M:%S", "%B %d, %Y %H:%M:%S"),
    "a fraction": ("%d.%m.%Y, %H:%M:%S.%f", "%d.%m.%Y, %H:%M:%S.%f"),
}


@both
@pytest.mark.parametrize("kind", WRITTEN)
def test_text_is_read_as_times(engine, tmp_path, kind):
    pattern, given = WRITTEN[kind]
    events = base_log.base()[0]
    tables = read(engine, tmp_path, events=lambda e: e.assign(time=e.time.dt.strftime(pattern)), time_format=given)
    found = [row["time"] for row in engine.rows(tables.events.select("time").order_by("time"))]
    assert found == events.time.tolist()


def no_days(events):
    """Events of the first twelve days of the month, so that no number can tell days from months."""
    return events[events.time < "2024-03-13"]


@both
@pytest.mark.parametrize(
    ("change", "given", "message"),
    [
        (lambda e: no_days(e).assign(time=no_days(e).time.dt.strftime(DAY_FIRST)), None, "which number is the month"),
        (
            lambda e: e.assign(time=e.time.dt.strftime(DAY_FIRST)),
            MONTH_FIRST,
            r"a time in every row.*\d+ others, first",
        ),
        (lambda e: e.assign(time=e.time.astype(str).where(e.index != 7, "soon")), None, r"1 others, first \['soon'\]"),
        (lambda e: e.assign(time="31.02.2024"), None, r"3600 others, first \['31.02.2024'\]"),
        (lambda e: e.assign(time=(e.time - pd.Timestamp(0)).dt.days), None, "these look like days"),
        (lambda e: e.assign(time=(e.time - pd.Timestamp(0)).dt.total_seconds() / 1000), None, "thousands of seconds"),
        (lambda e: e.assign(time=(e.time - pd.Timestamp(0)).dt.total_seconds() * 1000), None, "like milliseconds"),
        (lambda e: e.assign(time=(e.time - pd.Timestamp(0)).dt.total_seconds() * 1e9), None, "like nanoseconds"),
        (lambda e: e.assign(time=e.time.dt.strftime("%Y%m%d").astype(int)), None, "like year, month and day"),
        (lambda e: e.assign(time=np.where(e.index == 3, 10**12, 1_709_251_200)), None, "mend or drop what is not"),
        (lambda e: e.assign(time=pd.to_datetime((e.time - pd.Timestamp(0)).dt.total_seconds())), None, "wrong unit"),
        (lambda e: e, "%d/%m", "`time_format` must have a day, a month and a year.*'%d/%m'"),
        (lambda e: e, "%d/%m/%Y %q", "`time_format` must have a day"),
        (lambda e: e, "%d/%m/%Y %b", "`time_format` must have a day, a month and a year, each once"),
        (lambda e: e.assign(time="01 Mrz 2024"), "%d %b %Y", r"3600 others, first \['01 Mrz 2024'\]"),
    ],
)
def test_times_that_would_have_to_be_guessed_are_refused(engine, tmp_path, change, given, message):
    with pytest.raises(ValueError, match=message):
        read(engine, tmp_path, events=change, time_format=given)


@duckdb
def test_the_bounds_of_an_availability_table_are_times_too(engine, tmp_path):
    offered = pd.DataFrame({"title": ["t001", "t002"], "territory": "US", "start": ["01/03/2024", "02/04/2024"]})
    offered.to_csv(tmp_path / "offered.csv", index=False)
    with pytest.raises(ValueError, match=r"Column 'start' of `availability` must say which number is the month"):
        read(engine, tmp_path, availability=tmp_path / "offered.csv")
    tables = read(engine, tmp_path, availability=tmp_path / "offered.csv", time_format="%m/%d/%Y")
    starts = {row["title"]: row["start"] for row in engine.rows(tables.availability)}
    assert starts == {"t001": datetime.datetime(2024, 1, 3), "t002": datetime.datetime(2024, 2, 4)}


@duckdb
def test_linked_folders_are_read_and_each_file_once(engine, tmp_path):
    folder, other = tmp_path / "log", tmp_path / "other"
    for path, number in ((folder / "a.parquet", 1), (other / "b.parquet", 2)):
        path.parent.mkdir()
        pq.write_table(pa.table({"n": [number]}), path)
    (folder / "more").symlink_to(other)
    table, _ = read_table(engine, folder, "events")
    assert sorted(row["n"] for row in engine.rows(table)) == [1, 2]
    for target, message in ((tmp_path / "nowhere", "leads nowhere"), (folder / "a.parquet", "once"), (folder, "once")):
        link = folder / "z.parquet"
        link.symlink_to(target)
        with pytest.raises(ValueError, match=rf"`events` must hold .*{message}.*z.parquet"):
            read_table(engine, folder, "events")
        link.unlink()


@duckdb
def test_a_partition_that_comes_twice_is_refused(engine, tmp_path):
    (tmp_path / "d=1" / "d=2").mkdir(parents=True)
    pq.write_table(pa.table({"n": [1]}), tmp_path / "d=1" / "d=2" / "a.parquet")
    with pytest.raises(ValueError, match=r"folders of different names above a file.*d twice"):
        read_table(engine, tmp_path, "events")


@duckdb
def test_a_span_of_time_is_no_number_and_only_pandas_s_index_is_left_out(engine, tmp_path):
    columns = {"n": [1], "span": array(pa.duration("s"), 5), "__index_level_x": [2], "__index_level_0__": [3]}
    base_log.write(tmp_path, "t", pa.table(columns))
    table, warnings = read_table(engine, tmp_path / "t.parquet", "users")
    assert table.columns == ("n", "__index_level_x")
    assert warnings == ["the column 'span' of users is a duration[s] and was left out; write it as a number"]


@both
def test_nanoseconds_of_a_zone(engine, tmp_path):
    zoned = array(pa.timestamp("ns", "Europe/Berlin"), MOMENT.replace(tzinfo=datetime.UTC))
    tables = [values(engine, tmp_path / "a", zoned), values(engine, tmp_path / "b", zoned, array(TIME, MIDNIGHT))]
    found = [[value.replace(tzinfo=None) for value in table] for table in tables]
    assert found == [[MOMENT], [MIDNIGHT, MOMENT]]


@duckdb
@pytest.mark.parametrize("bad", [np.inf, -np.inf])
def test_infinite_times_are_refused(engine, tmp_path, bad):
    def change(events):
        seconds = (events.time - pd.Timestamp(0)).dt.total_seconds()
        return events.assign(time=seconds.where(events.index != 5, bad))

    with pytest.raises(ValueError, match=r"'time' of `events` must be seconds since 1970.*1 infinite ones"):
        read(engine, tmp_path, events=change)


@both
def test_times_that_python_does_not_know_are_refused(engine, tmp_path):
    events = pa.Table.from_pandas(base_log.base()[0], preserve_index=False)
    times = events["time"].cast(TIME).cast("int64").to_pylist()
    events = events.set_column(events.column_names.index("time"), "time", pa.array([2**62, *times[1:]], TIME))
    with pytest.raises(ValueError, match=r"'time' of `events` must be times of the years 1 to 9999.*1 others"):
        read(engine, tmp_path, events=lambda _: events)


@both
def test_ids_of_few_bits_are_exact_only_so_far(engine, tmp_path):
    with pytest.raises(ValueError, match=r"'user' of `events` must be ids.*float32 2\*\*24.*3600 others"):
        read(engine, tmp_path, events=lambda events: events.assign(user=np.float32(2**24)))


@duckdb
@pytest.mark.parametrize(
    ("data", "name", "message"),
    [
        (
            gzip.compress(b"n,x\n" + b"1,2\n" * 99_999)[:-99],
            "a.csv.gz",
            "must be readable; write the file again.*a.csv.gz",
        ),
        (b"n,x\r1,2\r", "a.csv", "lines that end in a line feed.*a.csv"),
        (b"\n\nn,x\n1,2\n", "a.csv", "names of its columns in the first line.*a.csv"),
    ],
)
def test_a_csv_that_is_damaged(engine, tmp_path, data, name, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=message):
        read_table(engine, tmp_path / name, "users")


@duckdb
def test_a_parquet_column_without_a_name_is_refused(engine, tmp_path):
    pq.write_table(pa.table({"n": [1], "": [2]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"`users` must have names for all columns.*a.parquet"):
        read_table(engine, tmp_path / "a.parquet", "users")


@duckdb
def test_decimals_that_engines_cannot_hold_are_refused(engine, tmp_path):
    assert values(engine, tmp_path / "a", array(pa.decimal256(20, 0), D(7))) == [D(7)]
    message = r"`events` must have no decimals of more than 38 digits.*column 'x' is decimal256\(50, 0\) in .*parquet"
    with pytest.raises(ValueError, match=message):
        values(engine, tmp_path / "b", array(pa.decimal256(50, 0), D(7)))


@pytest.mark.parametrize("dtype", [pa.time64("us"), pa.time32("ms"), pa.list_(pa.float16()), pa.uuid()])
def test_what_spark_cannot_read_is_refused_by_file_and_column(spark, tmp_path, dtype):
    with pytest.raises(ValueError, match=r"Spark reads no times of day.*; write .*column 'x' is .* in .*parquet"):
        values(spark, tmp_path, pa.array([None], dtype))


@duckdb
def test_an_epoch_that_is_text_is_refused(engine, tmp_path):
    with pytest.raises(
        ValueError, match=r"'time' of `events` must .*seconds since 1970 as a number.*first \['1709251200'\]"
    ):
        read(engine, tmp_path, events=lambda events: events.assign(time="1709251200"))


@both
@pytest.mark.parametrize("name", ["row_index", "_metadata", "user"])
def test_rows_are_numbered_whatever_their_column_is_called(engine, tmp_path, name):
    pq.write_table(pa.table({name: ["a", "b"]}), tmp_path / "ids.parquet")
    table = engine.read_numbered(tmp_path / "ids.parquet")
    assert engine.rows(table.order_by("file_row_number")) == [
        {name: "a", "file_row_number": 0}, {name: "b", "file_row_number": 1}
    ]  # fmt: skip
