"""Ratings as tasks, where negatives come from, and what hides a title, against pandas."""

import contextlib
import datetime
import hashlib
import itertools

import ibis
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.labels import OPERATORS, parse_label
from tfmtr.datasets.log_tables import read_tables
from tfmtr.datasets.names import inside
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.preparing import buckets

FIRST = datetime.datetime(2024, 1, 6)  # the first window of `make_logs`, -3
STRATUM = ["split", "sampling", "window"]


def run(logs, out, **changes):
    lookback = datetime.timedelta(seconds=1)  # every event is a discovery
    options = {"alpha": 3.0, "random_fraction": 1.0, "discovery_lookback": lookback, "progress": False}
    return prepare(logs, out, **{**options, **changes})


def read_examples(data):
    frame = pd.concat(
        pd.read_parquet(file, partitioning=None).assign(split=file.parts[-4][6:], window=int(file.parts[-2][7:]))
        for file in sorted(data.path.glob("examples/*/*/*/*.parquet"))
    )
    return frame.reset_index(drop=True)


def pairs(frame):
    return set(frame[["user", "title", "window"]].itertuples(index=False, name=None))


@pytest.fixture
def rated(tables):
    """The small log with ratings in halves from 0.5 to 5, some of them missing, and three empty days before."""
    events, users, titles = tables
    rng = np.random.default_rng(4)
    events["rating"] = rng.integers(1, 11, len(events)) / 2
    events.loc[rng.random(len(events)) < 0.05, "rating"] = np.nan
    events["window"] = (events.ts - pd.Timestamp(FIRST)).dt.days - 3
    return events.rename(columns={"uid": "user", "asin": "title"}), users.rename(columns={"uid": "user"}), titles


@pytest.fixture
def make(make_logs):
    """`Logs` of the rated log."""

    def logs(tables, **changes):
        events, users, titles = tables
        columns = {"user": "user", "title": "title", "territory": "market", "time": "ts", "name": "title name"}
        options = {"tasks": {"liked": "rating>=4"}, "columns": columns, **changes}
        return make_logs(events.drop(columns="window"), users, titles.rename(columns={"asin": "title"}), **options)

    return logs


def offered(events, users, window):
    """`(territory, title)` that had a row before a window."""
    before = events[events.ts < FIRST + datetime.timedelta(days=window + 3)]
    return set(zip(before.user.map(dict(zip(users.user, users.market, strict=True))), before.title, strict=True))


def test_a_threshold_gives_labels(rated, make, tmp_path):
    """Of tasks beside the first one, which are null where the rating is."""
    events, limits = rated[0].assign(seen=1), list(itertools.product(OPERATORS, ["4", "3.5"]))
    tasks = {f"liked_{place}": f"rating {comparison} {limit}" for place, (comparison, limit) in enumerate(limits)}
    examples = read_examples(run(make((events, *rated[1:]), tasks={"event": "seen", **tasks}), tmp_path / "out"))
    positives = examples[examples.event == 1]
    first = events.sort_values(["ts", "rating"]).drop_duplicates(["user", "title", "window"])
    joined = positives.merge(first, on=["user", "title", "window"])
    assert len(joined) == len(positives) > 50
    assert joined.rating.isna().any()
    for place, (comparison, limit) in enumerate(limits):
        expected = OPERATORS[comparison](joined.rating, float(limit)).astype(float).where(joined.rating.notna())
        labels = joined[f"liked_{place}"]
        np.testing.assert_array_equal(labels, expected, err_msg=tasks[f"liked_{place}"])
        assert {0.0, 1.0} <= set(labels) if comparison != "==" else True


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_decimal_threshold_is_reached_by_the_same_decimal(rated, make, tmp_path, dtype):
    events = rated[0].assign(rating=rated[0].rating.round() + 0.3)
    events["rating"] = events.rating.astype(dtype)
    logs = make((events, *rated[1:]), tasks={"liked": "rating>=3.3"})
    with contextlib.closing(DuckDB(tmp_path / "spill", 10**9)) as engine:
        labels = read_tables(engine, logs).events[inside("liked")]
        assert engine.execute((labels == 0.0).sum()) == (events.rating < np.dtype(dtype).type(3.3)).sum()
        assert engine.execute(labels.count()) == events.rating.notna().sum()
    assert (events.rating == np.dtype(dtype).type(3.3)).sum() > 50


def test_low_ratings_are_no_events_no_positives_and_no_negatives(rated, make, tmp_path):
    events, _, _ = rated
    data = run(make(rated), tmp_path / "out", alpha=8.0)
    found = read_examples(data)
    high, low = events[events.rating >= 4], events[events.rating < 4]
    positives, negatives = found[found.liked == 1], found[found.liked == 0]
    assert len(positives) + len(negatives) == len(found)
    assert pairs(positives) <= pairs(high)
    assert not pairs(negatives) & (pairs(low) | pairs(high))
    assert data.report["statistics"]["events"] == len(high)
    rows = data.report["funnel"]
    assert sum(row["low_rated"] for row in rows) == len(low)
    assert sum(row["impressions"] for row in rows) == 0
    assert sum(row["unlabelled"] for row in rows) == events.rating.isna().sum()
    # What users had, as vectors are made of it, are the events alone.
    titles = pd.read_parquet(data.path / "titles.parquet").title.tolist()
    newest = pd.read_parquet(data.path / "users.parquet").set_index("user").user_row
    vectors, title_vectors = data.vectors("user").vectors, data.vectors("title").vectors
    for user, row in newest.items():
        own = [titles.index(title) for title in high[high.user == user].title.unique()]
        np.testing.assert_allclose(vectors[row], title_vectors[own].mean(axis=0) if own else 0.0, atol=1e-5)


def test_low_ratings_are_negatives_where_asked(rated, make, tmp_path):
    events, users, _ = rated
    data = run(make(rated), tmp_path / "out", low_ratings="negatives", negatives="logged", alpha=100.0)
    found = read_examples(data)
    low = pairs(events[events.rating < 4]) - pairs(events[events.rating >= 4])
    strata = set(found[found.liked == 1][["split", "window"]].itertuples(index=False, name=None))
    splits = found.drop_duplicates("user").set_index("user").split
    market = dict(zip(users.user, users.market, strict=True))
    wanted = {
        (user, title, window)
        for user, title, window in low
        if window >= -3
        and (splits.get(user), window) in strata
        and (market[user], title) in offered(events, users, window)
    }
    assert pairs(found[found.liked == 0]) == wanted
    assert len(wanted) > 100
    (warning,) = [text for text in data.report["warnings"] if "could not be found" in text]
    assert warning.endswith("; `--negatives both` fills them up with sampled ones")


@pytest.mark.parametrize("seen", ["events", "rated", "impressions"])
def test_what_hides_a_title(rated, make, tmp_path, seen):
    """Also of rows after the last window and of users who are in no table."""
    events = pd.concat([rated[0], rated[0][:30].assign(user="nobody")])
    data = run(make((events, *rated[1:])), tmp_path / "out", seen=seen)
    kept = pd.read_parquet(data.path / "events.parquet")
    is_kept = {"events": events.rating >= 4, "rated": events.rating.notna(), "impressions": events.rating > -np.inf}
    wanted = events if seen == "impressions" else events[is_kept[seen]]
    rows = wanted.assign(is_event=wanted.rating >= 4)[["user", "ts", "title", "is_event"]].drop_duplicates()
    found = kept[["user", "time", "title", "is_event"]].set_axis(rows.columns, axis=1)
    order = rows.columns.tolist()
    pd.testing.assert_frame_equal(
        found.sort_values(order, ignore_index=True),
        rows.sort_values(order, ignore_index=True),
        check_dtype=False,
    )
    assert (kept.is_history == (kept.is_event & (kept.user != "nobody"))).all()
    assert data.report["options"]["seen"] == seen


def test_what_was_only_shown_hides_nothing_unless_asked(rated, make, tmp_path):
    events = rated[0].assign(click=(rated[0].rating >= 4).astype(float))
    logs = make((events, *rated[1:]), tasks={"click": "click"})
    for seen, number in (("events", events.click.sum()), ("rated", events.click.sum()), ("impressions", len(events))):
        kept = pd.read_parquet(run(logs, tmp_path / seen, seen=seen).path / "events.parquet")
        assert (
            len(kept)
            == number
            - events[events.click >= (seen != "impressions")].duplicated(["user", "title", "ts", "click"]).sum()
        )


def draws(user, title, window):
    return hashlib.md5(f"0|impression|{user}|{title}|{window}".encode()).hexdigest()


@pytest.mark.parametrize("threshold", [0.75, 0.3])
@pytest.mark.parametrize("negatives", ["logged", "sampled", "both"])
def test_where_negatives_come_from(rated, make, tmp_path, negatives, threshold, monkeypatch):
    """Logged ones first, by their draw; then sampled ones that are neither positive nor logged in the window."""
    monkeypatch.setattr(buckets, "BUCKET_EVENTS", 10_000)
    events, users, titles = rated
    click = (np.random.default_rng(1).random(len(events)) < threshold).astype(float)
    events = events.assign(click=click, watch=np.arange(len(events)) % 7)
    tasks = {"click": "click", "watch": "watch:regression", "buy": "click:after=click"}
    data = run(make((events, users, titles), tasks=tasks), tmp_path / "out", negatives=negatives, alpha=2.0)
    found = read_examples(data)
    market = dict(zip(users.user, users.market, strict=True))
    splits = found.drop_duplicates("user").set_index("user").split
    shown = events[events.click == 0].sort_values(["ts", "click", "watch"])
    shown = shown.drop_duplicates(["user", "title", "window"]).set_index(["user", "title", "window"])
    clicked, short = pairs(events[events.click == 1]), 0
    for (split, window), part in found.groupby(["split", "window"]):
        positives, others = part[part.click == 1], part[part.click == 0]
        catalogue = offered(events, users, window)
        logged = [
            key
            for key in shown.index
            if key[2] == window
            and splits.get(key[0]) == split
            and (market[key[0]], key[1]) in catalogue
            and key not in pairs(positives)
        ]
        logged = sorted(logged, key=lambda key: draws(*key))[: 2 * len(positives)] if negatives != "sampled" else []
        sampled = pairs(others) - set(logged)
        if negatives != "sampled":
            assert pairs(others) >= set(logged)
        assert len(others) == (len(logged) if negatives == "logged" else 2 * len(positives))
        assert not sampled & clicked
        assert {(market[user], title) for user, title, _ in sampled} <= catalogue
        if negatives == "both":
            assert not sampled & set(shown.index)
        others = others.set_index(["user", "title", "window"])
        for key, row in others.iterrows():
            assert row.watch == shown.watch[key] if key in logged else np.isnan(row.watch)
            assert row.buy == 0
        short += 2 * len(positives) - len(others)
    warnings = [text for text in data.report["warnings"] if "negatives could not be found" in text]
    assert [text.split(" of ")[0] for text in warnings] == ([str(short)] if short else [])
    assert bool(short) == (negatives == "logged")


def test_filled_up_negatives_do_not_depend_on_the_order_of_the_log(rated, make, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_EVENTS", 500)  # two buckets
    events, users, titles = rated
    options = {"low_ratings": "negatives", "alpha": 5.0}
    one = run(make(rated), tmp_path / "one", **options)
    two = run(make((events.sample(frac=1, random_state=0), users[::-1], titles)), tmp_path / "two", **options)
    assert one.report["fingerprint"] == two.report["fingerprint"]
    hidden = run(make(rated), tmp_path / "hidden", alpha=5.0)
    assert one.report["fingerprint"] != hidden.report["fingerprint"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ratings>=4", r"`events` must have the column 'ratings'.* Did you mean 'rating'\?"),
        ("rating>=four", "Task 'liked' must have a number behind '>=', such as 4 or 3.5. Received: 'rating>=four'"),
        ("rating >= ", "Task 'liked' must have a number behind '>='"),
        ("rating>=4,5", "Task 'liked' must have a number behind '>='.*'rating>=4,5'"),
        ("rating>=nan", "Task 'liked' must have a number behind '>='"),
        ("rating>=1e999", "Task 'liked' must have a number behind '>='"),
        ("rating=4", "Task 'liked' must have a column and one of >=, >, <=, <, == before its threshold.*'rating=4'"),
        ("rating=>4", "must have a column and one of"),
        ("rating!=4", "must have a column and one of"),
        (">=4", "must have a column and one of"),
        ("rating>=4:regression", "Task 'liked' is 0 or 1 by its threshold; leave out ':regression'"),
        ("rating>=4:after=click", "`after` of task 'liked' must be left out"),
        ("title>=4", "Label column 'title' of `events` must be a number to be compared.*Received: string, such as"),
        ("rating", "Labels of the binary task 'liked' must be 0, 1 or null; for ratings say 'column>=4', for other"),
    ],
)
def test_bad_thresholds(rated, make, tmp_path, text, message):
    with pytest.raises(ValueError, match=message) as caught:
        run(make(rated, tasks={"liked": text}), tmp_path / "out")
    assert "\n" not in str(caught.value)


def test_a_column_may_have_a_comparison_in_its_name(rated, make, tmp_path):
    events = rated[0].assign(**{"a>b": 1})
    data = run(make((events, *rated[1:]), tasks={"x": "a>b"}), tmp_path / "out")
    assert data.report["statistics"]["events"] == len(events)
    assert parse_label("x", "a>b>=1", columns=["a>b"]).column == "a>b"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"negatives": "log"}, "`negatives` must be one of .* Did you mean 'logged'"),
        ({"low_ratings": "negative"}, "`low_ratings` must be one of .* Did you mean 'negatives'"),
        ({"seen": "rating"}, "`seen` must be one of .* Did you mean 'rated'"),
        ({"low_ratings": "negatives", "negatives": "sampled"}, '`negatives` must be "logged" or "both" with'),
    ],
)
def test_bad_options(rated, make, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(make(rated), tmp_path / "out", **options)


def test_low_ratings_without_a_threshold_are_refused(rated, make, tmp_path):
    logs = make((rated[0].assign(click=1), *rated[1:]), tasks={"click": "click", "liked": "rating>=4"})
    with pytest.raises(ValueError, match='`low_ratings="negatives"` must be left out unless the first task has a'):
        run(logs, tmp_path / "out", low_ratings="negatives")


def test_nan_is_no_rating():
    """Engines say that NaN is greater than all numbers."""
    table = pa.table({"row": [0, 1, 2, 3], "rating": [5.0, float("nan"), None, 1.0]})
    con = ibis.duckdb.connect()
    rows = ibis.memtable(table)
    assert con.execute(rows.rating.isnan().sum()) == 1
    labels = rows.select("row", label=parse_label("liked", "rating>=4").of(rows.rating)).order_by("row")
    assert con.to_pyarrow(labels)["label"].to_pylist() == [1.0, None, None, 0.0]
