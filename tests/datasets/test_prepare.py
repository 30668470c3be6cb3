import collections
import dataclasses
import datetime
import hashlib
import json
import sys

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.base_log import COLUMNS, base, prepared, read_examples

from tfmtr.datasets.logs import Calendar
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.preparing import buckets
from tfmtr.datasets.report import fingerprint

ALPHA = 3.0
LOOKBACK, ACTIVITY = datetime.timedelta(days=5), datetime.timedelta(days=4)
OPTIONS = {"alpha": ALPHA, "discovery_lookback": LOOKBACK, "activity_lookback": ACTIVITY, "progress": False}
KEYS = ["split", "sampling", "window"]


def run(logs, out, **changes):
    return prepare(logs, out, **{**OPTIONS, **changes})


@pytest.fixture(scope="module")
def case(make_logs, module_tables, tmp_path_factory):
    """The small log, prepared: `(events, users, titles, logs, prepared, examples)`."""
    events, users, titles = module_tables
    logs = make_logs(events, users, titles)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "BUCKET_EVENTS", 400)  # three buckets
        prepared = run(logs, tmp_path_factory.mktemp("case") / "out")
    return events, users, titles, logs, prepared, read_examples(prepared)


def brute_force(events, users, windows, examples):
    """Positives of every window by the words of the paper, one event after the other."""
    market = dict(zip(users.uid, users.market, strict=True))
    found = {}
    for window in windows:
        start, end = (datetime.datetime.fromisoformat(window[key]) for key in ("start", "end"))
        before = events[events.ts < start]
        offered = set(zip(before.asin, before.uid.map(market), strict=True))
        for row in events[(events.ts >= start) & (events.ts < end)].itertuples():
            same = events[(events.uid == row.uid) & (events.asin == row.asin) & (events.ts < row.ts)]
            if (row.ts - same.ts <= LOOKBACK).any() or (row.asin, market[row.uid]) not in offered:
                continue
            found.setdefault((row.uid, row.asin, window["window"]), row)
    return found


def test_positives_are_the_first_discoveries(case):
    events, users, _, _, prepared, examples = case
    expected = brute_force(events, users, prepared.report["windows"], examples)
    classes = examples.drop_duplicates("user").set_index("user")[["split", "sampling"]]
    wanted = set()
    for user, title, window in expected:
        if user not in classes.index:
            continue
        split, sampling = classes.loc[user]
        start = datetime.datetime.fromisoformat(prepared.report["windows"][window + 3]["start"])
        recent = events[(events.uid == user) & (events.ts < start) & (events.ts >= start - ACTIVITY)]
        if (split != "test" or window > 0) and (sampling == "random" or len(recent)):
            wanted.add((user, title, window))
    positives = examples[examples.event == 1]
    assert set(zip(positives.user, positives.title, positives.window, strict=True)) == wanted
    assert len(positives) == len(wanted) > 100


def test_negatives_are_available_new_and_as_many_as_asked(case):
    events, users, _, _, prepared, examples = case
    market = dict(zip(users.uid, users.market, strict=True))
    starts = {w["window"]: datetime.datetime.fromisoformat(w["start"]) for w in prepared.report["windows"]}
    first = events.groupby([events.asin, events.uid.map(market)]).ts.min()
    for row in examples.itertuples():
        assert first[row.title, market[row.user]] < starts[row.window]
    assert not examples.duplicated(["user", "title", "window"]).any()
    counts = examples.groupby(KEYS).event.agg(["sum", "size"])
    assert (counts["size"] - counts["sum"] == ALPHA * counts["sum"]).all()
    assert not any("negatives" in warning for warning in prepared.report["warnings"])


def test_negatives_are_uniform_over_users_and_titles(make_logs, tables, tmp_path):
    events, users, titles = tables
    early = pd.DataFrame({"uid": "u00", "asin": titles.asin, "ts": datetime.datetime(2023, 12, 31)})
    logs = make_logs(pd.concat([early, events]), users, titles, availability="anywhere")
    prepared = run(logs, tmp_path / "out", alpha=8.0, random_fraction=1.0)
    examples = read_examples(prepared)
    negatives = examples[(examples.split == "train") & (examples.event == 0)]
    for column, count in (("user", negatives.user.nunique()), ("title", 25)):
        shares = negatives[column].value_counts()
        assert len(shares) == count
        expected = len(negatives) / count
        assert ((shares - expected) ** 2 / expected).sum() < 3 * count  # chi-squared


def test_splits_and_samplings_are_disjoint(case):
    examples = case[-1]
    classes = examples.groupby("user")[["split", "sampling"]].nunique()
    assert (classes == 1).all(axis=None)
    assert set(examples.split) == {"train", "validation", "test"}
    assert set(examples[examples.split == "train"].sampling) == {"random", "active"}
    assert set(examples[examples.split != "train"].sampling) == {"random"}
    assert (examples[examples.split == "test"].window > 0).all()
    assert set(examples[examples.split == "train"].window) == set(range(-3, 4))


def test_what_a_user_had_in_the_window_is_no_negative(case):
    """Also where it is no discovery, because the user had had it shortly before."""
    events, _, _, _, prepared, examples = case
    first = datetime.datetime.fromisoformat(prepared.report["windows"][0]["start"])
    windows = (events.ts - first).dt.days + prepared.report["windows"][0]["window"]
    had = set(zip(events.uid, events.asin, windows, strict=True))
    negatives = examples[examples.event == 0]
    assert not set(zip(negatives.user, negatives.title, negatives.window, strict=True)) & had
    positives = examples[examples.event == 1]
    repeats = had - set(zip(positives.user, positives.title, positives.window, strict=True))
    assert len(repeats) > 100  # which could have been drawn


def test_active_users_had_an_event_before_the_window(case):
    events, _, _, _, prepared, examples = case
    starts = {w["window"]: datetime.datetime.fromisoformat(w["start"]) for w in prepared.report["windows"]}
    for user, window in set(zip(*examples[examples.sampling == "active"][["user", "window"]].values.T, strict=True)):
        times = events[events.uid == user].ts
        assert ((times < starts[window]) & (times >= starts[window] - ACTIVITY)).any()


def test_history_vectors_hold_what_came_before_the_window(case):
    events, _, _, _, prepared, examples = case
    starts = {w["window"]: datetime.datetime.fromisoformat(w["start"]) for w in prepared.report["windows"]}
    titles = pd.read_parquet(prepared.path / "titles.parquet").title
    row_of = dict(zip(titles, range(len(titles)), strict=True))
    vectors, title_vectors = prepared.vectors("user").vectors, prepared.vectors("title").vectors
    newest = pd.read_parquet(prepared.path / "users.parquet").set_index("user").user_row
    last = datetime.datetime.fromisoformat(prepared.report["windows"][-1]["end"])
    rows = {(row.user, starts[row.window]): row.user_row for row in examples.itertuples()}
    rows |= {(user, last): row for user, row in newest.items()}
    for (user, start), row in rows.items():
        before = events[(events.uid == user) & (events.ts < start)].asin.unique()
        expected = title_vectors[[row_of[title] for title in before]].mean(axis=0) if len(before) else 0.0
        np.testing.assert_allclose(vectors[row], np.broadcast_to(expected, vectors[row].shape), atol=1e-6)
    ids = pq.read_table(prepared.vectors("user").ids).to_pandas()
    assert ids.columns.tolist() == ["user", "window"]
    assert (ids.user.iloc[list(rows.values())] == [user for user, _ in rows]).all()


def test_rows_point_to_their_titles_and_features(case):
    _, users, titles, _, prepared, examples = case
    table = pd.read_parquet(prepared.path / "titles.parquet")
    assert (table.title.iloc[examples.title_row].to_numpy() == examples.title).all()
    assert table.columns.tolist() == ["title", "name", "genres"]
    assert pq.read_table(prepared.vectors("title").ids).column(0).to_pylist() == table.title.tolist()
    joined = examples.merge(users, left_on="user", right_on="uid", suffixes=("", "_log"))
    assert (joined.territory == joined.market).all()
    assert (joined.device == joined.device_log).all()
    assert (joined.age == joined.age_log).all()
    genres = dict(zip(titles.asin, map(list, titles.genres), strict=True))
    assert all(list(row.genres) == genres[row.title] for row in examples.itertuples())


def test_files_are_sorted_by_user_and_title(case):
    for file in case[-2].path.glob("examples/*/*/*/*.parquet"):
        rows = pq.ParquetFile(file).read(["user", "title"]).to_pandas()
        pd.testing.assert_frame_equal(rows, rows.sort_values(["user", "title"], ignore_index=True))


def test_schema_follows_the_training_users(case):
    _, users, _, _, prepared, examples = case
    schema = prepared.schema
    features = {feature.name: feature for feature in schema.features}
    kinds = {name: (feature.role, feature.kind) for name, feature in features.items()}
    assert kinds == {
        "territory": ("user", "id"),
        "device": ("user", "id"),
        "age": ("user", "number"),
        "genres": ("title", "set"),
        "user_vector": ("user", "vector"),
        "title_vector": ("title", "vector"),
    }
    share = users.uid.map(lambda uid: int(hashlib.md5(f"0|split|{uid}".encode()).hexdigest()[:8], 16) / 16**8)
    assert set(examples[examples.split == "test"].user) <= set(users.uid[share < 0.3])
    assert features["age"].mean == pytest.approx(users[share >= 0.4].age.mean(), abs=1e-6)
    assert features["age"].std == pytest.approx(users[share >= 0.4].age.std(ddof=0), abs=1e-6)
    assert features["genres"].vocabulary == ("drama", "crime")
    assert features["genres"].width == 2
    assert schema.scenario.columns == schema.slices == ("territory",)
    assert {key[0] for key in schema.scenario.groups} == {"DE", "FR", "US"}
    part = examples[(examples.split == "train") & (examples.sampling == "random") & (examples.window <= 0)]
    assert schema.tasks[0].mean == pytest.approx(part.event.mean(), abs=1e-6)


def test_other_tables_and_report(case):
    events, users, _, _, prepared, examples = case
    kept = pd.read_parquet(prepared.path / "events.parquet")
    assert list(kept.columns) == ["user", "title", "time", "window", "split", "is_event", "is_history"]
    rows = events[["uid", "ts", "asin"]].drop_duplicates().sort_values(["uid", "ts", "asin"], ignore_index=True)
    assert (kept[["user", "time", "title"]].to_numpy() == rows.to_numpy()).all()
    windows = {row["window"]: pd.Timestamp(row["start"]) for row in prepared.report["windows"]}
    assert all((kept.time >= start).eq(kept.window >= window).all() for window, start in windows.items())
    assert kept.is_history.all()
    splits = examples.groupby("user").split.first()
    assert (kept.user.map(splits).dropna() == kept.split[kept.user.isin(splits.index)]).all()
    available = pd.read_parquet(prepared.path / "availability.parquet")
    assert set(available.window) == set(range(-2, 5))
    market = events.uid.map(dict(zip(users.uid, users.market, strict=True)))
    after = available[available.window == 4]
    assert set(zip(after.territory, after.title, strict=True)) == set(zip(market, events.asin, strict=True))
    report = prepared.report
    assert [w["window"] for w in report["windows"]] == list(range(-3, 4))
    assert prepared.test_windows == [1, 2, 3]
    counts = examples.groupby(KEYS).agg(rows=("event", "size"), positives=("event", "sum"), users=("user", "nunique"))
    table = pd.DataFrame(report["examples"]).set_index(KEYS)
    pd.testing.assert_frame_equal(table.sort_index(), counts.astype(int).sort_index(), check_dtype=False)
    statistics = report["statistics"]
    assert (statistics["users"], statistics["titles"], statistics["events"]) == (60, 25, 900)
    for territory, row in statistics["territories"].items():
        assert row["users"] == (users.market == territory).sum()
        assert row["events"] == (market == territory).sum()
        assert row["positives"] == ((examples.territory == territory) & (examples.event == 1)).sum()
        assert row["group"] == prepared.schema.scenario.groups[(territory,)]
    assert report["fingerprint"] == fingerprint(prepared.path)
    assert {"options", "seed", "versions", "warnings"} <= report.keys()


def test_same_seed_same_bytes_whatever_the_order_of_the_log(case, make_logs, tmp_path, monkeypatch):
    events, users, titles, _, prepared, _ = case
    monkeypatch.setattr(buckets, "BUCKET_EVENTS", 400)
    logs = make_logs(events.sample(frac=1, random_state=1), users[::-1], titles[::-1])
    again = run(logs, tmp_path / "again")
    assert again.report["fingerprint"] == prepared.report["fingerprint"]
    other = run(logs, tmp_path / "other", seed=1)
    assert other.report["fingerprint"] != prepared.report["fingerprint"]


def test_nothing_before_the_start_is_used_but_availability(make_logs, tables, tmp_path):
    events, users, titles = tables
    start = datetime.datetime(2024, 1, 6, tzinfo=datetime.UTC)
    calendar = Calendar(datetime.timedelta(days=1), num_train=4, num_test=3, start=start)
    prepared = run(make_logs(events, users, titles, calendar=calendar, availability="anywhere"), tmp_path / "out")
    examples = read_examples(prepared)
    late = events[events.ts >= start.replace(tzinfo=None)]
    ids = pq.read_table(prepared.vectors("user").ids).to_pandas()
    # In the first window nobody has a history, a repeated title is a discovery, and nobody is active.
    first = examples[examples.window == -3]
    assert not prepared.vectors("user").vectors[ids.index[ids.window == -3]].any()
    assert set(first.sampling) == {"random"}
    day = late[late.ts < start.replace(tzinfo=None) + datetime.timedelta(days=1)]
    pairs = set(zip(day.uid, day.asin, strict=True))
    positives = first[first.event == 1]
    assert set(zip(positives.user, positives.title, strict=True)) == {
        (user, title) for user, title in pairs if user in set(first.user)
    }


def test_events_after_the_last_window_are_only_seen(make_logs, tables, tmp_path):
    events, users, titles = tables
    end = datetime.datetime(2024, 1, 7)
    calendar = Calendar(datetime.timedelta(days=1), num_train=4, num_test=2, end=end)
    prepared = run(make_logs(events, users, titles, calendar=calendar), tmp_path / "out")
    cut = run(make_logs(events[events.ts < datetime.datetime(2024, 1, 9)], users, titles), tmp_path / "cut")
    late = (events.ts >= datetime.datetime(2024, 1, 9)).sum()
    assert set(read_examples(prepared).window) == set(range(-3, 3))
    assert (
        f"{late} events after the last window are used for nothing but the seen titles" in prepared.report["warnings"]
    )
    assert prepared.report["statistics"]["events"] == len(events) - late
    kept = pd.read_parquet(prepared.path / "events.parquet")
    assert len(kept) == len(events[["uid", "asin", "ts"]].drop_duplicates())
    assert (kept.is_history == (kept.time < pd.Timestamp(2024, 1, 9))).all()  # later ones hide titles only
    # What serving starts from is the same as if the log had ended there.
    vectors = [
        data.vectors("user").vectors[pd.read_parquet(data.path / "users.parquet").user_row] for data in (prepared, cut)
    ]
    np.testing.assert_allclose(*vectors, atol=1e-6)
    tables = [pd.read_parquet(data.path / "availability.parquet") for data in (prepared, cut)]
    shown = [table[table.window == table.window.max()][["territory", "title"]].to_numpy() for table in tables]
    np.testing.assert_array_equal(*shown)


def test_availability_table(make_logs, tables, tmp_path):
    events, users, titles = tables
    table = pd.DataFrame({"title": titles.asin[:20], "territory": "DE"})
    table["start"], table["end"] = pd.NaT, pd.NaT
    table.loc[0, "end"] = pd.Timestamp(2024, 1, 9)  # the start of window 0: no longer available
    table.loc[1, "start"] = pd.Timestamp(2024, 1, 9)
    table.to_parquet(tmp_path / "availability.parquet")
    prepared = run(make_logs(events, users, titles, availability=tmp_path / "availability.parquet"), tmp_path / "out")
    examples = read_examples(prepared)
    assert set(examples.territory) == {"DE"}
    assert set(examples.title) <= set(titles.asin[:20])
    assert examples[examples.title == "t00"].window.max() < 0
    assert examples[examples.title == "t01"].window.min() == 0
    assert any("positives of titles that were not available" in warning for warning in prepared.report["warnings"])


def test_logged_impressions_are_the_negatives(make_logs, tables, tmp_path):
    events, users, titles = tables
    rng = np.random.default_rng(0)
    events["click"] = (rng.random(len(events)) < 0.3).astype(float)
    events["seconds"] = np.where(events.click == 1, rng.random(len(events)) * 100, np.nan)
    offered = pd.DataFrame({"title": titles.asin[5:], "key": 0}).merge(
        pd.DataFrame({"territory": ["DE", "FR", "US"], "key": 0})
    )
    offered.to_parquet(tmp_path / "offered.parquet")
    tasks = {"click": "click", "watch": "seconds:regression"}
    logs = make_logs(events, users, titles, tasks=tasks, availability=tmp_path / "offered.parquet")
    prepared = run(logs, tmp_path / "out", alpha=1.0)
    examples = read_examples(prepared)
    assert set(examples.title) == set(titles.asin[5:])
    days = (events.ts - pd.Timestamp(2024, 1, 9)).dt.days
    shown = {(u, t, w) for u, t, w, c in zip(events.uid, events.asin, days, events.click, strict=True) if c == 0}
    clicked = {(u, t, w) for u, t, w, c in zip(events.uid, events.asin, days, events.click, strict=True) if c == 1}
    negatives = examples[examples.click == 0]
    pairs = set(zip(negatives.user, negatives.title, negatives.window, strict=True))
    assert pairs <= shown - clicked
    assert negatives.watch.isna().all()
    assert examples[examples.click == 1].watch.notna().all()
    counts = examples.groupby(KEYS).click.agg(["sum", "size"])
    assert (counts["size"] <= 2 * counts["sum"]).all()
    assert {task.name: task.kind for task in prepared.schema.tasks} == {"click": "binary", "watch": "regression"}
    train = examples[(examples.split == "train") & (examples.sampling == "random") & (examples.window <= 0)]
    assert prepared.schema.tasks[1].mean == pytest.approx(train.watch.mean(), rel=1e-5)
    clicks = events[events.click == 1][["uid", "asin", "ts"]].drop_duplicates()
    assert len(pd.read_parquet(prepared.path / "events.parquet")) == len(clicks)


def test_sampled_negatives_have_no_label_for_a_regression(make_logs, tables, tmp_path):
    events, users, titles = tables
    events["click"], events["seconds"] = True, 5.0
    tasks = {"click": "click", "watch": "seconds:regression"}
    examples = read_examples(run(make_logs(events, users, titles, tasks=tasks), tmp_path / "out"))
    assert examples.groupby("click").watch.apply(lambda watch: watch.isna().mean()).to_dict() == {0.0: 1.0, 1.0: 0.0}


@pytest.mark.parametrize("has_impressions", [False, True])
def test_columns_that_are_known_in_training_only(make_logs, tables, tmp_path, has_impressions):
    events, users, titles = tables
    events["place"], events["device"] = np.arange(len(events)) % 7, np.where(events.index % 2, "tv", "phone")
    is_late = events.ts > events.ts.max() - datetime.timedelta(days=1)  # a test window says nothing about training
    events.loc[is_late, "place"], events.loc[is_late, "device"] = 10_000, "watch"
    events["shown"] = np.where(has_impressions & (events.index % 3 == 0), 0, 1)
    logs = make_logs(
        events, users.drop(columns="device"), titles, tasks={"click": "shown"},
        training={"position": "place", "where": "device:id"},
    )  # fmt: skip
    prepared = run(logs, tmp_path / "out")
    position, where = prepared.schema.by_role("training")
    assert (position.name, position.kind, where.name, where.kind) == ("position", "number", "where", "id")
    assert set(where.vocabulary) == {"tv", "phone"}
    assert 2.5 < position.mean < 3.5
    rows = read_examples(prepared)
    known = rows[rows.click == 1].merge(events, left_on=["user", "title"], right_on=["uid", "asin"])
    agree = (known.position == known.place) & (known["where"] == known.device) & (known.shown == 1)
    assert agree.groupby([known.user, known.title, known.window]).any().all()
    negatives = rows[rows.click == 0]
    assert len(negatives)
    if has_impressions:
        assert {"tv", "phone"} <= set(negatives["where"])
    else:  # sampled: shown nowhere
        assert set(negatives["where"]) == {""}
        assert negatives.position.isna().all()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"position": "plaice"}, r"must have the column 'plaice'.* Did you mean 'place'\?"),
        ({"position": "uid"}, r"Column 'uid' of `events` must be a number; for a category say 'uid:id'"),
        ({"position": "place:number:x"}, r"`kind` of training column 'position' must be one of"),
        ({"age": "place"}, r"column 'age' of `users` must have another name: it is that of training column 'age'"),
        ({"title": "place"}, r"training column 'title' must have another name: the prepared tables have"),
    ],
)
def test_bad_training_columns(make_logs, tables, tmp_path, training, message):
    events, users, titles = tables
    events["place"] = 1
    with pytest.raises(ValueError, match=message):
        run(make_logs(events, users, titles, training=training), tmp_path / "out")


def test_a_label_without_the_one_it_is_after_is_refused_or_counted(make_logs, tables, tmp_path):
    events, users, titles = tables
    rng = np.random.default_rng(0)
    events["click"] = (rng.random(len(events)) < 0.5).astype(float)
    events["buy"] = events.click * (rng.random(len(events)) < 0.5)
    tasks = {"click": "click", "purchase": "buy:after=click"}
    prepared = run(make_logs(events, users, titles, tasks=tasks), tmp_path / "whole")
    click, purchase = prepared.schema.tasks
    assert (click.after, purchase.after, purchase.kind) == (None, "click", "binary")
    assert not any("have no" in warning for warning in prepared.report["warnings"])

    wrong = events.index[events.click == 0][:7]
    events.loc[wrong, "buy"] = 1.0
    logs = make_logs(events, users, titles, tasks=tasks)
    first = events.loc[wrong, ["uid", "asin"]].sort_values(["uid", "asin"]).iloc[0]
    message = f"task 'purchase', which is after 'click', must have .* 7 without, first .*'{first.uid}'.*'{first.asin}'"
    with pytest.raises(ValueError, match=message):
        run(logs, tmp_path / "refused")
    kept = run(logs, tmp_path / "kept", contradictions="keep")
    assert "7 events of 'purchase' have no 'click'; heads for cascades train them as 0" in kept.report["warnings"]


def test_shortfall_is_reported(make_logs, tables, tmp_path):
    prepared = run(make_logs(*tables), tmp_path / "out", alpha=500.0)
    counts = collections.Counter()
    for row in prepared.report["examples"]:
        counts["negatives"] += row["rows"] - row["positives"]
        counts["wanted"] += 500 * row["positives"]
    assert counts["negatives"] < counts["wanted"]
    (warning,) = (text for text in prepared.report["warnings"] if "negatives could not be found" in text)
    lacking = counts["wanted"] - counts["negatives"]
    assert warning.startswith(f"{lacking} of {counts['wanted']} negatives could not be found (worst: train/")
    assert warning.endswith("; ask for fewer with `--alpha`")
    assert not read_examples(prepared).duplicated(["user", "title", "window"]).any()


def write_store(folder, key, names, width, seed=0, dtype="float32"):
    folder.mkdir()
    vectors = np.random.default_rng(seed).normal(size=(len(names), width)).astype(dtype)
    np.save(folder / "vectors.npy", vectors)
    pd.DataFrame({key: names}).to_parquet(folder / "ids.parquet")
    return folder, dict(zip(names, vectors, strict=True))


def test_upstream_vectors_follow_their_ids(make_logs, tables, tmp_path, monkeypatch):
    monkeypatch.setattr(buckets, "BUCKET_EVENTS", 500)  # two buckets
    events, users, titles = tables
    titles["embedding"] = [[float(i), 1.0] for i in range(len(titles))]
    users_path, user_vectors = write_store(tmp_path / "u", "id", users.uid[::-1].tolist(), 5, dtype="float64")
    titles_path, title_vectors = write_store(tmp_path / "t", "id", [*titles.asin[::-1], "other"], 3)
    logs = make_logs(events, users, titles, user_vectors=users_path, title_vectors=titles_path)
    prepared = run(logs, tmp_path / "out")
    examples = read_examples(prepared)
    widths = {f.name: f.width for f in prepared.schema.features if f.kind == "vector"}
    assert widths == {"user_vector": 5, "title_vector": 5}
    np.testing.assert_allclose(
        prepared.vectors("user").vectors[examples.user_row],
        np.stack([user_vectors[user] for user in examples.user]),
        rtol=1e-6,
    )
    titles_found = prepared.vectors("title").vectors[examples.title_row]
    np.testing.assert_array_equal(titles_found[:, :3], np.stack([title_vectors[t] for t in examples.title]))
    np.testing.assert_array_equal(titles_found[:, 3], [int(title[1:]) for title in examples.title])
    ids = pq.read_table(prepared.vectors("user").ids).column(0).to_pylist()
    newest = pd.read_parquet(prepared.path / "users.parquet")
    assert [ids[row] for row in newest.user_row] == newest.user.tolist()


def test_missing_vectors(make_logs, tables, tmp_path):
    events, users, titles = tables
    users_path, _ = write_store(tmp_path / "u", "id", users.uid[4:].tolist(), 5)
    titles_path, _ = write_store(tmp_path / "t", "id", titles.asin[2:].tolist(), 3)
    logs = make_logs(events, users, titles, title_vectors=titles_path)
    with pytest.raises(ValueError, match=r'missing_vectors="zero".*2 titles without one, first \[\'t00\', \'t01\'\]'):
        run(logs, tmp_path / "out")
    logs = make_logs(events, users, titles, user_vectors=users_path)
    with pytest.raises(ValueError, match=r"4 users without one, first \['u00', 'u01', 'u02'\]"):
        run(logs, tmp_path / "out")
    prepared = run(logs, tmp_path / "out", missing_vectors="zero")
    newest = pd.read_parquet(prepared.path / "users.parquet").set_index("user").user_row
    norms = np.linalg.norm(prepared.vectors("user").vectors[newest[["u00", "u03", "u04"]]], axis=1)
    assert (norms > 0).tolist() == [False, False, True]
    assert "4 users have no vector and got the zero vector" in prepared.report["warnings"]


def test_without_any_user_vector(make_logs, tables, tmp_path):
    prepared = run(make_logs(*tables, user_history=False), tmp_path / "out")
    assert prepared.vectors("user") is None
    assert "user_vector" not in {feature.name for feature in prepared.schema.features}
    assert (read_examples(prepared).user_row == -1).all()


def test_unknown_users_titles_and_territories_are_counted(make_logs, tables, tmp_path):
    events, users, titles = tables
    users.loc[0, "market"], users.loc[1, "market"] = None, ""
    strangers = events.iloc[:7].assign(uid="nobody")
    unlisted = events.iloc[7:12].assign(asin="nothing")
    logs = make_logs(pd.concat([events, strangers, unlisted]), users, titles, groups={"DE": "west", "FR": "west"})
    prepared = run(logs, tmp_path / "out")
    warnings = " | ".join(prepared.report["warnings"])
    us = (users.market == "US").sum()
    assert "7 events of users that are not in the users table were dropped" in warnings
    assert "5 events of titles that are not in the titles table were dropped" in warnings
    assert "2 users have no territory; theirs is 'unknown'" in warnings
    assert f"{us} users live in territories of no group, served by the default branch: ['US']" in warnings
    assert prepared.report["statistics"]["territories"]["unknown"]["users"] == 2
    assert prepared.schema.scenario.groups == {("DE",): "west", ("FR",): "west"}
    assert set(read_examples(prepared).user) <= set(users.uid)


def test_vector_and_time_columns(make_logs, tables, tmp_path):
    events, users, titles = tables
    users["taste"] = [[float(i)] for i in range(len(users))]
    users["joined"] = datetime.date(2020, 1, 1)
    users.loc[0, "age"] = np.nan
    users.loc[1, "device"] = None
    prepared = run(make_logs(events, users, titles), tmp_path / "out")
    newest = pd.read_parquet(prepared.path / "users.parquet").set_index("user")
    assert prepared.vectors("user").vectors[newest.user_row["u07"]][-1] == 7.0
    assert any("left out because of the type: ['joined (date)']" in text for text in prepared.report["warnings"])
    assert any(f"the mean: of {len(users)} users, 'age' in 1" in text for text in prepared.report["warnings"])
    age = next(feature for feature in prepared.schema.features if feature.name == "age")
    assert np.isnan(newest.age["u00"])
    assert age.mean > 0
    assert newest.device["u01"] == ""


def test_csv_keeps_the_zeros_of_ids(tables, tmp_path, make_logs):
    events, users, titles = tables
    users["uid"], events["uid"] = users.uid.str.replace("u", "00"), events.uid.str.replace("u", "00")
    logs = make_logs(events, users, titles)
    paths = {}
    for name, table in (("events", events), ("users", users), ("titles", titles.drop(columns="genres"))):
        (tmp_path / name).mkdir()
        paths[name] = tmp_path / name
        half = len(table) // 2
        table[:half].to_csv(paths[name] / "a.csv", index=False)
        table[half:].to_csv(paths[name] / "b.csv", index=False)
    prepared = run(dataclasses.replace(logs, **paths), tmp_path / "out")
    assert pd.read_parquet(prepared.path / "users.parquet").user.str.len().eq(4).all()
    assert len(read_examples(prepared)) > 100


def test_output_is_never_half_written_or_overwritten_by_accident(make_logs, tables, tmp_path):
    logs, out = make_logs(*tables), tmp_path / "out"
    run(logs, out)
    before = json.loads((out / "prepare.json").read_text())
    with pytest.raises(ValueError, match="`out` must be a new folder, or pass `overwrite=True`"):
        run(logs, out, seed=1)
    with pytest.raises(ValueError, match="`validation_fraction` must be in"):
        run(logs, out, overwrite=True, validation_fraction=2.0)
    (tmp_path / "users.parquet").write_bytes(b"PAR1 cut off")
    with pytest.raises(ValueError, match="complete Parquet"):
        run(dataclasses.replace(logs, users=tmp_path / "users.parquet"), out, overwrite=True)
    assert json.loads((out / "prepare.json").read_text()) == before
    after = run(logs, out, seed=1, overwrite=True).report
    assert after["seed"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "users.parquet"]
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match="which holds other files"):
        run(logs, other, overwrite=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 0.0}, "`alpha` must be positive. Received: alpha=0.0"),
        ({"seed": -1}, r"`seed` must be a whole number in \[0, 2\*\*32\). Received: seed=-1"),
        ({"test_fraction": 0.9, "validation_fraction": 0.1}, "must leave users for training"),
        ({"discovery_lookback": datetime.timedelta(0)}, "`discovery_lookback` must be a positive time"),
        ({"missing_vectors": "zeros"}, "`missing_vectors` must be one of .* Did you mean 'zero'"),
        ({"memory_limit": "lots"}, '`memory_limit` must be a number with MB or GB, such as "4GB"'),
        *[({"memory_limit": size}, "`memory_limit` must be at least 100MB") for size in ("0GB", "1MB", "0.01 GiB")],
        ({"num_groups": 0}, "`num_groups` must be positive"),
        ({"engine": "sparks"}, "`engine` must be one of .* Did you mean 'spark'"),
        ({"spark_master": "local[2]"}, '`spark_master` must be left out unless `engine="spark"`'),
    ],
)
def test_bad_options(make_logs, tables, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        run(make_logs(*tables), tmp_path / "out", **options)
    assert not list(tmp_path.iterdir())


def test_spark_names_the_extra_that_it_needs(make_logs, tables, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "tfmtr.datasets.engines.spark", raising=False)
    monkeypatch.setitem(sys.modules, "pyspark.errors", None)
    with pytest.raises(ImportError, match=r"Spark needs pyspark and Java 17: pip install 'tfmtr\[spark\]'"):
        run(make_logs(*tables), tmp_path / "out", engine="spark")
    assert not list(tmp_path.iterdir())


def test_data_that_continue_others_have_the_same_columns(case, make_logs, tables, tmp_path):
    events, users, titles = tables
    assert case[4].report["columns"] == {
        "users": {"territory": "id", "device": "id", "age": "number"}, "titles": {"genres": "set"},
    }  # fmt: skip
    users["joined"] = datetime.date(2020, 1, 1)  # no feature: may come and go
    run(make_logs(events, users, titles), tmp_path / "same", like=case[4])
    changed = users.drop(columns="age").assign(device=1.0, plan="free")
    message = (
        "`users` must have the columns, of the same kinds, of the data that these continue; bring back .* Received: "
        "lost {'age': 'number'}, added {'plan': 'id'}, changed {'device': 'id to number'}"
    )
    with pytest.raises(ValueError, match=message):
        run(make_logs(events, changed, titles), tmp_path / "out", like=case[4])
    with pytest.raises(ValueError, match=r"`titles` must have the columns.* Received: lost {'genres': 'set'}$"):
        run(make_logs(events, users, titles.drop(columns="genres")), tmp_path / "out", like=case[4])
    assert not (tmp_path / "out").exists()


def test_data_that_continue_others_have_the_same_tasks_and_times(tmp_path):
    events, users, titles = base()
    liked = {"click": "click", "long": "seconds>=100"}
    first = prepared(tmp_path / "first", events, users, titles, tasks=liked)
    like, renamed = {"options": {"like": first}}, events.rename(columns={"seconds": "watched"})
    prepared(tmp_path / "renamed", renamed, users, titles, tasks={**liked, "long": "watched>=100"}, **like)
    message = r"`tasks` must be those of the data that these continue, .*'seconds>=60'}, not {.*'seconds>=100'}"
    for number, tasks in enumerate(
        ({**liked, "long": "seconds>=60"}, dict(reversed(liked.items())), {"click": "click"})
    ):
        with pytest.raises(ValueError, match=message if number == 0 else "`tasks` must be those of the data"):
            prepared(tmp_path / str(number), events, users, titles, tasks=tasks, **like)
    without = {
        "has_times": False,
        "calendar": Calendar(),
        "columns": {name: name for name in COLUMNS if name != "time"},
    }
    with pytest.raises(
        ValueError, match=r"`like` must be data with times .* have times, these have none \(`--no-times"
    ):
        prepared(tmp_path / "no", events.drop(columns="time"), users, titles, tasks=liked, **without, **like)


def test_data_that_continue_others_have_vectors_of_the_same_width(make_logs, tables, tmp_path):
    events, users, titles = tables
    users["taste"] = [[1.0, 2.0]] * len(users)
    first = run(make_logs(events, users, titles, user_history=False), tmp_path / "first")
    users["taste"] = [[1.0, 2.0, 3.0]] * len(users)
    with pytest.raises(ValueError, match=r"`user_vector` must be as wide as .* continue: 2; .* Received: 3\b"):
        run(make_logs(events, users, titles, user_history=False), tmp_path / "out", like=first)


def test_log_without_training_positives(make_logs, tables, tmp_path):
    events, users, titles = tables
    table = tmp_path / "availability.parquet"
    pd.DataFrame({"title": titles.asin, "territory": "DE", "start": pd.Timestamp("2030-01-01")}).to_parquet(table)
    with pytest.raises(ValueError, match=r"`events` must give positives in the training windows") as caught:
        run(make_logs(events, users, titles, availability=table), tmp_path / "out")
    assert any("positives of titles that were not available were dropped" in note for note in caught.value.__notes__)


def test_xmarket(shared_data, tmp_path):
    from tfmtr.datasets.logs import Logs

    ratings = pd.read_parquet(shared_data("xmarket-electronics/ratings_5core.parquet"))
    ratings["userId"] = ratings.market + "-" + ratings.userId
    ratings.to_parquet(tmp_path / "events.parquet")
    ratings.drop_duplicates("userId")[["userId", "market"]].to_parquet(tmp_path / "users.parquet")
    ratings.drop_duplicates("itemId")[["itemId"]].to_parquet(tmp_path / "titles.parquet")
    logs = Logs(
        *(tmp_path / f"{name}.parquet" for name in ("events", "users", "titles")),
        columns={"user": "userId", "title": "itemId", "territory": "market", "time": "date"},
        calendar=Calendar(datetime.timedelta(days=28), num_train=6),
    )
    report = prepare(logs, tmp_path / "out", progress=False).report
    territories = report["statistics"]["territories"]
    assert {name: row["users"] for name, row in territories.items()} == {
        "ca": 4668, "uk": 3352, "fr": 1838, "de": 1851, "mx": 1878, "jp": 487, "in": 239,
    }  # fmt: skip
    assert report["statistics"]["events"] == 134_845
    assert any("random vector of its own" in warning for warning in report["warnings"])
