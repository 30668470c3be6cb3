"""What services' logs have wrong, all the way through `prepare`: the right rows, a warning, or one error that helps."""

import dataclasses
import datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers import base_log
from helpers.base_log import base, examples, prepared

from tfmtr.datasets.prepare import prepare


def warned(data, text):
    return [warning for warning in data.report["warnings"] if text in warning]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The `Dataset` folder of the base log as it is."""
    return prepared(tmp_path_factory.mktemp("plain"), *base())


def test_the_base_log(plain):
    found = examples(plain)
    assert (len(found), int(found.click.sum())) == (2058, 1000)


def test_two_types_in_a_folder_of_events_keep_their_values(tmp_path):
    events, users, titles = base()
    a, b = base_log.halves(events)
    a = a.assign(seconds=a.seconds.astype("int64"), pos=1)
    b = b.assign(seconds=0.4, pos=0.5)
    tasks, training = {"click": "click", "watch": "seconds:regression"}, {"pos": "pos"}
    data = prepared(tmp_path, [a, b, a[:0].astype(str)], users, titles, tasks=tasks, training=training)
    found = examples(data)
    assert len(found) == 2058
    assert (found.watch == np.float32(0.4)).sum() == (found.pos == 0.5).sum() > 1000


def test_a_csv_of_late_floats_is_not_rounded(tmp_path):
    events, users, titles = base(users=2500)
    seconds = events.seconds.astype("int64").astype(str)
    seconds[25_000:] = "0.4"
    events.assign(seconds=seconds).to_csv(tmp_path / "events.csv", index=False)
    users.assign(score=["1"] * 2000 + ["0.25"] * 500).to_csv(tmp_path / "users.csv", index=False)
    tasks = {"click": "click", "watch": "seconds:regression"}
    found = examples(prepared(tmp_path, tmp_path / "events.csv", tmp_path / "users.csv", titles, tasks=tasks))
    assert (found.watch == np.float32(0.4)).sum() > 1000
    assert set(found.score) == {1.0, 0.25}


def test_uncommitted_files_are_not_read(tmp_path):
    events, users, titles = base()
    folder = base_log.write(tmp_path, "log", [events])
    for name in ("_temporary/0/part-1.parquet", ".part-9.parquet"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        events[:500].assign(click=1).to_parquet(folder / name)
    data = prepared(tmp_path, folder, users, titles)
    assert len(examples(data)) == 2058
    assert data.report["statistics"]["events"] == 1794


NUMBERS = {f"u{i:04d}": 10**9 + i for i in range(300)}


def numbered(events, users):
    """The log with numbers as ids, and one event without a user."""
    events, users = (table.assign(user=table.user.map(NUMBERS)) for table in (events, users))
    return events.assign(user=events.user.astype("float64").where(events.index != 5)), users


def test_ids_that_a_null_made_floats_are_matched(tmp_path):
    events, users, titles = base()
    data = prepared(tmp_path, *numbered(events, users), titles)
    assert warned(data, "without user") == ["1 event without user, title or time was dropped"]
    assert set(examples(data).user) <= {str(10**9 + i) for i in range(300)}


def shift(column, text):
    return lambda table: table.assign(**{column: table[column].map(text)})


def composed(ids):
    return "ü" + ids[1:]


def decomposed(ids):
    return "u\u0308" + ids[1:]


MISMATCHES = {
    "numbers and names": ("user", shift("user", NUMBERS.get), lambda u: u, r"\['1000000000'.*\(int64\)"),
    "decomposed in events": ("user", shift("user", decomposed), shift("user", composed), "NFC"),
    "decomposed in users": ("user", shift("user", composed), shift("user", decomposed), "NFD"),
    "blanks": ("user", shift("user", lambda v: v + " "), lambda u: u, "blanks around them"),
    "capitals": ("user", lambda e: e, shift("user", str.upper), "upper"),
    "zeros": ("user", shift("user", lambda v: v[1:]), shift("user", lambda v: str(int(v[1:]))), "leading zeros"),
    "titles": ("title", shift("title", str.upper), None, "upper and lower case"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MISMATCHES)
def test_ids_that_match_nowhere_are_shown_with_what_they_differ_in(tmp_path, kind):
    key, of_events, of_users, hint = MISMATCHES[kind]
    events, users, titles = base()
    message = rf"`events` must have {key}s of the {key}s table.*{hint}.*|Received: none that match.*{hint}"
    with pytest.raises(ValueError, match=message) as caught:
        prepared(tmp_path, of_events(events), users if of_users is None else of_users(users), titles)
    received = str(caught.value).partition("Received: ")[2]
    assert f"{key}s [" in received
    assert received.count("', '") == 4  # three ids of each table


def with_time(events, when, rows=1):
    return events.assign(time=events.time.where(events.index < len(events) - rows, pd.Timestamp(when)))


@pytest.mark.parametrize(("when", "end"), [("2031-01-01", None), ("2024-05-01", None)])
def test_a_few_events_far_in_the_future_are_refused(tmp_path, when, end):
    events, users, titles = base()
    with pytest.raises(ValueError, match=rf"3 events lie \d+ days.* after all others.* at {when}") as caught:
        prepared(tmp_path, with_time(events, when, rows=3), users, titles)
    assert "(`--end`)" in str(caught.value)


def test_events_somewhat_after_or_long_before_the_others_are_said(plain, tmp_path):
    events, users, titles = base()
    data = prepared(tmp_path / "a", with_time(events, "2024-04-09"), users, titles)
    assert warned(data, "1 event lies 11 days")[0].endswith("and the last window ends with them")
    data = prepared(tmp_path / "b", with_time(events, "1970-01-01"), users, titles)
    assert "1970-01-01 00:00:00" in warned(data, "1 event lies 19783 days, 0:06:05 before all others")[0]
    assert not warned(plain, "events lie")
    end = base_log.START + datetime.timedelta(days=21)
    calendar = type(base_log.CALENDAR)(datetime.timedelta(days=7), 2, 1, end=end.to_pydatetime())
    data = prepared(tmp_path / "d", with_time(events, "2031-01-01"), users, titles, calendar=calendar)
    assert warned(data, "1 event lies 2469 days")
    assert warned(data, "1 event after the last window")


def test_an_infinite_label_of_a_regression_is_said_as_such(tmp_path):
    events, users, titles = base()
    tasks = {"click": "click", "watch": "seconds:regression"}
    with pytest.raises(ValueError, match=r"'watch' must be finite or null.*; mend the rows.*1 others.*inf") as caught:
        prepared(tmp_path, events.assign(seconds=np.where(events.index == 3, np.inf, 1)), users, titles, tasks=tasks)
    assert ":regression" not in str(caught.value)


def test_the_folder_that_is_made_may_be_called_anything(plain, tmp_path):
    odd = tmp_path / "my day=01 50%20 [1] *?"
    data = prepared(odd, *base())
    assert data.report["fingerprint"] == plain.report["fingerprint"]
    assert sorted(path.name for path in odd.iterdir()) == sorted(path.name for path in plain.path.parent.iterdir())


def test_numbers_that_examples_cannot_have_are_counted(tmp_path):
    events, users, titles = base()
    values = {"infinite": np.inf, "large": -1e300}
    scores = {f"{name} score": np.where(users.index % 7 == 0, value, 3.0) for name, value in values.items()}
    scores = {name.replace(" ", "_"): column for name, column in scores.items()}
    users = users.assign(**scores, code=10**18 + users.index)
    data = prepared(tmp_path, events.assign(**values), users, titles, training={name: name for name in values})
    text = "are infinite or too large and count as missing"
    for name in scores:
        assert warned(data, f"values of {name!r}") == [f"43 values of {name!r} {text}"]
        cells = examples(data)[name]
        assert set(cells.dropna()) == {3.0}
        assert cells.isna().any()
    for name in values:
        assert warned(data, f"values of {name!r}") == [f"3600 values of {name!r} {text}"]
    assert warned(data, "'code'") == ["300 values of 'code' were rounded to float32"]


def test_labels_that_float32_rounds_or_cannot_hold(tmp_path):
    events, users, titles = base()
    tasks = {"click": "click", "watch": "x:regression"}
    data = prepared(tmp_path / "a", events.assign(x=2**24 + 1), users, titles, tasks=tasks)
    assert warned(data, "'watch'") == ["3600 values of 'watch' were rounded to float32"]
    with pytest.raises(ValueError, match=r"'watch' must be finite or null, also as a float32.*3600 others"):
        prepared(tmp_path / "b", events.assign(x=1e39), users, titles, tasks=tasks)


def test_a_category_of_the_events_is_as_the_csv_has_it(tmp_path):
    events, users, titles = base()
    events = events.assign(x=[f"{place}e1" for place in events.pos], flag=events.pos > 5)
    events.to_csv(tmp_path / "events.csv", index=False)
    training = {"x": "x:id", "flag": "flag:id"}
    found = examples(prepared(tmp_path, tmp_path / "events.csv", users, titles, training=training))
    assert set(found.x) == {f"{place}e1" for place in range(1, 20)}
    assert set(found.flag) == {"True", "False"}


@pytest.mark.parametrize("argument", ["events", "users", "user_vectors"])
def test_a_parquet_file_that_is_damaged_in_the_middle_is_named(tmp_path, argument):
    events, users, titles = base()
    np.save(tmp_path / "vectors.npy", np.ones((len(users), 2), "float32"))
    base_log.write(tmp_path, "ids", users[["user"]])
    for name, table in {"events": events, "users": users}.items():
        base_log.write(tmp_path, name, table)
    file = tmp_path / ("ids.parquet" if argument == "user_vectors" else f"{argument}.parquet")
    column, data = pq.ParquetFile(file).metadata.row_group(0).column(0), bytearray(file.read_bytes())
    begin = column.dictionary_page_offset
    end = begin + column.total_compressed_size
    data[begin:end] = bytes(byte ^ 0x5A for byte in data[begin:end])
    file.write_bytes(data)
    message = f"`{argument}` must be complete Parquet files; copy or write the file again. Received: {file}"
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, tmp_path / "events.parquet", tmp_path / "users.parquet", titles, user_vectors=tmp_path)


def test_labels_that_are_text_are_shown_with_their_rows(tmp_path):
    events, users, titles = base()
    events = events.assign(click=events.click.astype(str).where(events.index != 1234, "yes"))
    events.to_csv(tmp_path / "events.csv", index=False)
    row = {"user": events.user[1234], "title": events.title[1234], "click": "yes"}
    with pytest.raises(ValueError, match=r"Label column 'click' of `events` .*1 and 0.*Received: string") as caught:
        prepared(tmp_path, tmp_path / "events.csv", users, titles)
    assert f"such as [{row}, " in str(caught.value)
    with pytest.raises(ValueError, match=r"Label column 'time' of `events`.*Received: timestamp.*'time': datetime"):
        prepared(tmp_path, events, users, titles, tasks={"click": "time"})


def offered(folder, titles, territories=("US", "DE", "JP", "BR"), **columns):
    """The path of an availability table of all pairs."""
    pairs = pd.MultiIndex.from_product([titles, territories], names=["title", "territory"])
    return base_log.write(folder, "offered", pairs.to_frame(index=False).assign(**columns))


CASE = "; some would match but for upper and lower case"


def test_what_of_an_availability_table_is_not_understood_is_said_and_counted(tmp_path):
    events, users, titles = base()
    territories = ["US", "DE", "JP", "BR", "br", None]
    path = offered(tmp_path, [*titles.title, "T001", None, "x"], territories, Start=base_log.START)
    data = prepared(tmp_path, events, users, titles, availability=path)
    assert warned(data, "availability") == [
        "1 column of availability is not used: ['Start']; its bounds are `start` and `end`",
        f"18 rows of availability of titles that are not in the titles table were left out{CASE}",
        f"86 rows of availability of territories without users were left out{CASE}",
    ]


@pytest.mark.parametrize(
    ("key", "owner", "keys"), [("title", "titles", "titles"), ("territory", "users", "territories")]
)
def test_an_availability_table_that_matches_nowhere_is_refused(tmp_path, key, owner, keys):
    events, users, titles = base()
    path = offered(tmp_path, *((titles.title.str.upper(),) if key == "title" else (titles.title, ["us", "de", "jp"])))
    ids = r"\['.*', '.*', '.*'\] \(string\)"
    message = (
        rf"`availability` must have {keys} of the {owner} table.*upper and lower case.*availability {ids}, {owner}"
    )
    with pytest.raises(ValueError, match=f"{message} {ids}"):
        prepared(tmp_path, events, users, titles, availability=path)


def test_ids_that_match_in_part_are_counted_with_what_they_differ_in(tmp_path):
    events, users, titles = base()
    users = users.assign(user=users.user.str[1:])
    short = [user[1:].lstrip("0") if place % 3 == 0 else user[1:] for place, user in enumerate(events.user)]
    title = events.title.where(events.index % 4 != 0, events.title.str.upper())
    data = prepared(tmp_path, events.assign(user=short, title=title), users, titles)
    assert warned(data, "titles table") == [f"900 events of titles that are not in the titles table were dropped{CASE}"]
    assert warned(data, "users table")[0].endswith("were dropped; some would match but for leading zeros")


def test_options_of_territories_that_the_log_does_not_have_are_said(tmp_path):
    groups = {"US": "a", "DE": "a", "JP": "b", "BR": "b", "us": "b"}
    options = {"groups": groups, "neighbours": {"XX": (1.0, 2.0)}, "time_zones": {"FR": "Europe/Paris"}}
    data = prepared(tmp_path, *base(), **options)
    assert warned(data, "has no users") == [
        f"1 territory of {name!r} has no users and is not used: ['{territory}']"
        for name, territory in (("groups", "us"), ("neighbours", "XX"), ("time_zones", "FR"))
    ]


SAMPLED = {"negatives": "both", "alpha": 2.0}


def refused(folder, *tables, **changes):
    """The one line that a log is refused with."""
    with pytest.raises(ValueError, match=r"Received: ") as caught:
        prepared(folder, *tables, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_catalogue_of_one_title(tmp_path):
    """Users who did not have it are negatives; where all had it there are none."""
    events, users, titles = base()
    events = events.assign(title="t000")
    data = prepared(tmp_path / "a", events, users, titles[:1], options=SAMPLED)
    assert warned(data, "ranked") == ["1 title is all that there is: nothing can be ranked"]
    assert {0.0, 1.0} == set(examples(data).click)
    everybody = pd.DataFrame({"user": users.user, "title": "t000", "click": 1})
    days = [everybody.assign(time=base_log.START + pd.Timedelta(days=day)) for day in (1, 9, 16, 23)]
    line = refused(
        tmp_path / "b",
        pd.concat(days),
        users,
        titles[:1],
        options={**SAMPLED, "discovery_lookback": datetime.timedelta(days=5)},
    )
    assert "say in `availability` (`--availability`) which more titles" in line
    assert line.endswith("positives, of 1 titles")


def test_negatives_that_cannot_be_drawn_at_all(tmp_path):
    """Every user has every title in every window."""
    _, users, titles = base(users=20, titles=5)
    pairs = pd.MultiIndex.from_product([users.user, titles.title], names=["user", "title"]).to_frame(index=False)
    days = [pairs.assign(time=base_log.START + pd.Timedelta(days=day), click=1) for day in (1, 9, 16, 23)]
    options = {**SAMPLED, "discovery_lookback": datetime.timedelta(days=5)}
    line = refused(tmp_path / "a", pd.concat(days), users, titles, options=options)
    assert line.startswith("`events` must leave titles that users did not have")
    options |= {"negatives": "logged"}
    line = refused(tmp_path / "b", pd.concat([*days[:3], days[3][:50]]), users, titles, options=options)
    assert 'pass `negatives="both"` (`--negatives both`)' in line
    one = pd.concat([days[0], days[1], days[2][:-1], days[3]])  # a single pair that is free
    data = prepared(tmp_path / "c", one, users, titles, options={**SAMPLED, "random_fraction": 1.0, **options,
                    "negatives": "both", "test_fraction": 0.0, "validation_fraction": 0.0})  # fmt: skip
    assert (examples(data).click == 0).sum() == 1


def test_users_without_any_past(tmp_path):
    """Every user comes on one day and never again."""
    events, users, titles = base()
    day = events.user.str[1:].astype(int) % 28
    events = events.assign(time=base_log.START + pd.to_timedelta(day, unit="D") + pd.Timedelta(hours=12))
    data = prepared(tmp_path, events, users, titles, options=SAMPLED)
    count = int((examples(data).click == 1).sum())
    assert warned(data, "past") == [f"{count} positives are all of users without a past: their user vectors are zero"]
    rows = examples(data).query("click == 1").user_row
    assert not data.vectors("user").vectors[rows].any()
    assert not warned(prepared(tmp_path / "b", *base(), options=SAMPLED), "past")


def test_a_territory_without_positives(tmp_path):
    events, users, titles = base()
    quiet = set(users.user[users.territory.isin(["BR", "JP"])])
    events = events.assign(click=events.click.where(~events.user.isin(quiet), 0))
    data = prepared(tmp_path, events, users, titles)
    assert warned(data, "no positives") == ["2 territories have no positives: ['BR', 'JP']"]
    assert data.report["statistics"]["territories"]["BR"]["positives"] == 0
    assert ("BR",) in data.schema.scenario.groups


@pytest.mark.parametrize("has_table", [True, False])
def test_titles_without_any_text(tmp_path, has_table):
    """Ids alone: each title has a vector of its own, the same whatever table it comes from."""
    events, users, titles = base()
    columns = {name: name for name in base_log.COLUMNS if name != "name"}
    logs = base_log.make_logs(tmp_path, events, users, titles[["title"]], columns=columns)
    logs = dataclasses.replace(logs, titles=logs.titles if has_table else None)
    data = prepare(logs, tmp_path / "out", progress=False)
    assert warned(data, "text") == ["40 titles have no text and no vectors; each got a random vector of its own"]
    vectors = data.vectors("title").vectors
    assert np.linalg.matrix_rank(vectors) == 40
    found = examples(data)
    assert found.groupby("title").title_row.nunique().eq(1).all()


def test_a_threshold_that_no_row_reaches(tmp_path):
    events, users, titles = base()
    events["stars"] = np.arange(len(events)) % 5 + 1
    line = refused(tmp_path, events, users, titles, tasks={"liked": "stars>=6"})
    assert line.startswith(
        "The first task must have rows that reach its threshold. Received: 'stars>=6', which none of "
    )


def test_more_negatives_than_there_are_pairs_are_soon_said(tmp_path):
    data = prepared(tmp_path, *base(), options={**SAMPLED, "alpha": 1e5})
    assert [text for text in data.report["warnings"] if "negatives could not be found" in text]


def test_titles_without_a_name_among_titles_with_one_are_told_apart(tmp_path):
    """Also where they have a genre, which would give all of a genre one vector."""
    events, users, titles = base()
    titles["name"] = [f"story {i}" if i % 2 else None if i % 4 else "  " for i in range(len(titles))]
    data = prepared(tmp_path, events, users, titles, columns={**base_log.COLUMNS, "name": "name"}, options=SAMPLED)
    (text,) = warned(data, "no name")
    assert text.startswith(f"{(len(titles) + 1) // 2} titles have no name")
    vectors = data.vectors("title").vectors
    assert len(np.unique(vectors, axis=0)) == len(titles)
