"""Logs without times, and logs whose split is given."""

import datetime
import hashlib

import numpy as np
import pandas as pd
import pytest
from helpers.base_log import COLUMNS, base, prepared, read_examples
from rich.console import Console

from tfmtr.datasets.engines.duckdb import DuckDB
from tfmtr.datasets.funnel import FATES
from tfmtr.datasets.logs import Calendar
from tfmtr.evaluation.tables import funnel_table, statistics_table

NO_TIME = {name: column for name, column in COLUMNS.items() if name != "time"}
WITHOUT = {"columns": NO_TIME, "calendar": Calendar(), "has_times": False}


def share(purpose, *keys):
    """Where a hash lies, from 0 to 1."""
    return int(hashlib.md5("|".join(("0", purpose, *keys)).encode()).hexdigest()[:8], 16) / 16**8


def pairs(table):
    return set(zip(table.user, table.title, strict=True))


def check_history(data, had):
    """The user vector of every example is the mean of what the user had, `had(user, window)`; its own pair is not."""
    titles = pd.read_parquet(data.path / "titles.parquet").title
    row_of = dict(zip(titles, range(len(titles)), strict=True))
    users, vectors = data.vectors("user").vectors, data.vectors("title").vectors
    for row in read_examples(data).itertuples():
        before = had(row.user, row.window)
        assert row.click == 0 or row.title not in before
        expected = vectors[[row_of[title] for title in sorted(before)]].mean(axis=0) if before else 0.0
        np.testing.assert_allclose(users[row.user_row], np.broadcast_to(expected, users.shape[1]), atol=1e-5)


@pytest.fixture(scope="module")
def without(tmp_path_factory):
    """The base log without its times: the events' clicks, and the `Dataset` folder."""
    events, users, titles = base()
    data = prepared(tmp_path_factory.mktemp("without"), events.drop(columns="time"), users, titles, **WITHOUT)
    return events[events.click == 1], data


def test_users_are_held_out_and_their_pairs_drawn(without):
    clicks, data = without
    kept = pd.read_parquet(data.path / "events.parquet")
    assert pairs(kept) == pairs(clicks)
    assert not kept.duplicated(["user", "title"]).any()
    assert kept.time.isna().all()
    assert kept.is_history.all()
    for row in kept.itertuples():
        of_user = share("split", row.user)
        assert row.split == ("test" if of_user < 0.3 else "validation" if of_user < 0.4 else "train")
        is_history = share("history", row.user, row.title) < (0.8 if row.split == "test" else 0.5)
        assert row.window == (-1 if is_history else 1 if row.split == "test" else 0)
    sizes = kept.groupby(["split", "window"]).size()
    assert sizes["test", 1] / sizes["test"].sum() == pytest.approx(0.2, abs=0.05)
    assert sizes["train", 0] / sizes["train"].sum() == pytest.approx(0.5, abs=0.05)
    found = read_examples(data)
    positives = found[found.click == 1]
    active = set(kept.user[kept.window == -1])
    expected = kept[(kept.window >= 0) & kept.user.isin(set(found.user))]
    pool = set(found.user[found.sampling == "active"])
    assert pool <= active
    assert pairs(positives) == pairs(expected)
    assert set(zip(positives.split, positives.window, strict=True)) == {("train", 0), ("validation", 0), ("test", 1)}


def test_no_example_knows_its_own_pair(without):
    _, data = without
    kept = pd.read_parquet(data.path / "events.parquet")
    had = {key: set(titles) for key, titles in kept.groupby(["user", "window"]).title}
    check_history(data, lambda user, window: set().union(*(had.get((user, w), set()) for w in range(-1, window))))


def test_titles_are_available_everywhere_and_from_the_start(without):
    _, data = without
    available = pd.read_parquet(data.path / "availability.parquet")
    assert available.groupby(["territory", "window"]).size().to_dict() == {
        (place, window): 40 for place in ("BR", "DE", "JP", "US") for window in (0, 1, 2)
    }
    assert not sum(row["unavailable"] for row in data.report["funnel"])


def test_members_are_not_multiplied_by_all_titles_of_their_territory(tmp_path, monkeypatch):
    """What users had is joined to the catalogue by a left join, which stays after the one to members."""
    plans, store = [], DuckDB.store

    def explain(self, table, path):
        stored = store(self, table, path)  # registers the tables that are in memory
        if path.name == "refused.parquet":
            plans.append(self.con.raw_sql("EXPLAIN " + self.con.compile(table)).fetchall()[0][1])
        return stored

    monkeypatch.setattr(DuckDB, "store", explain)
    events, users, titles = base()
    prepared(tmp_path, events.drop(columns="time"), users, titles, **WITHOUT)
    (plan,) = plans
    assert "LEFT" in plan or "RIGHT" in plan, plan


def test_every_table_says_that_there_are_no_times(without):
    _, data = without
    report = data.report
    assert report["times"] is False
    assert report["windows"] == [{"window": window, "start": None, "end": None} for window in (0, 1)]
    assert report["calendar"]["text"].startswith("no times: of training and validation users half of the pairs are")
    assert report["days"] == {}
    assert any(text.startswith("the log has no times: nothing is known of the order") for text in report["warnings"])
    console = Console(record=True, width=100, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(funnel_table(report))
    console.print(statistics_table(report))
    assert console.export_text().count("No times: the order of events is not known") == 2
    rows = report["funnel"]
    assert all(sum(row[name] for name in FATES) == row["rows"] for row in rows)
    assert sum(row["rows"] for row in rows) == 3600


def test_a_pair_that_is_repeated_counts_once_with_its_greatest_labels(tmp_path):
    events, users, titles = base()
    tasks = {"click": "click", "buy": "buy", "watch": "seconds:regression"}
    data = prepared(tmp_path, events.drop(columns="time"), users, titles, **WITHOUT, tasks=tasks)
    found = read_examples(data)
    found = found[found.click == 1].set_index(["user", "title"])
    assert found.index.is_unique
    clicks = events[events.click == 1].sort_values(["buy", "seconds"]).groupby(["user", "title"])
    expected = clicks[["buy", "seconds"]].last().loc[found.index]
    assert (clicks.buy.nunique() > 1).any()
    np.testing.assert_allclose(found.buy, expected.buy)
    np.testing.assert_allclose(found.watch, expected.seconds)


def test_the_seed_draws_and_the_order_of_the_rows_does_not(without, tmp_path):
    events, users, titles = base()
    events = events.drop(columns="time")
    again = prepared(tmp_path / "again", events.sample(frac=1, random_state=1), users, titles, **WITHOUT)
    assert again.report["fingerprint"] == without[1].report["fingerprint"]
    other = prepared(tmp_path / "other", events, users, titles, **WITHOUT, options={"seed": 1})
    assert other.report["fingerprint"] != without[1].report["fingerprint"]


def test_times_of_an_availability_table_are_not_used(tmp_path):
    events, users, titles = base()
    table = pd.DataFrame({"title": titles.title[:30], "territory": "DE", "start": pd.Timestamp("2031-01-01")})
    table.loc[3:, "start"] = pd.NaT
    table.to_parquet(tmp_path / "offered.parquet")
    data = prepared(
        tmp_path, events.drop(columns="time"), users, titles, **WITHOUT, availability=tmp_path / "offered.parquet"
    )
    message = "3 rows of availability have a start or end, which is not used: windows have no times"
    assert message in data.report["warnings"]
    available = pd.read_parquet(data.path / "availability.parquet")
    assert available.groupby(["territory", "window"]).size().to_dict() == {("DE", window): 30 for window in (0, 1, 2)}


WORDS = ["train", "valid", "test"]


def split_log(seed=0):
    """The base log with a given split, whose pairs overlap here and there."""
    events, users, titles = base()
    return events.assign(part=np.random.default_rng(seed).choice(WORDS, len(events), p=[0.6, 0.2, 0.2])), users, titles


@pytest.fixture(scope="module", params=["no times", "times"])
def given(request, tmp_path_factory):
    """A log of a given split: its clicks, whether it has times, and the `Dataset` folder."""
    events, users, titles = split_log()
    has_times, changes = request.param == "times", {"split_column": "part", "calendar": Calendar()}
    if not has_times:
        changes |= WITHOUT
    data = prepared(tmp_path_factory.mktemp("given"), events, users, titles, **changes)
    return events[events.click == 1], has_times, data


def test_rows_are_for_what_their_split_says(given):
    clicks, has_times, data = given
    parts = {word: pairs(clicks[clicks.part == word]) for word in WORDS}
    training = parts["train"] - parts["valid"]
    kept = pd.read_parquet(data.path / "events.parquet")
    assert kept.time.notna().all() == has_times
    for split, expected in (("train", training), ("validation", parts["valid"]), ("test", parts["test"])):
        assert pairs(kept[kept.split == split]) == expected
    windows = {"train": {-2, -1}, "validation": {0}, "test": {1}}
    assert all(set(kept.window[kept.split == split]) == expected for split, expected in windows.items())
    assert kept.is_history.all()  # baselines are fitted on all training rows before the tests
    half = pairs(kept[kept.window == -2])
    if has_times:
        log = split_log()[0]
        middle = log.time[log.part == "train"].median()
        assert kept.time[kept.window == -2].max() <= middle < kept.time[kept.window == -1].min()
    else:
        assert half == {pair for pair in training if share("history", *pair) < 0.5}
    found = read_examples(data)
    found = found[found.click == 1]
    assert pairs(found[found.split == "validation"]) == parts["valid"]
    assert pairs(found[found.split == "test"]) == parts["test"] - training - parts["valid"]
    members = set(found.user[found.split == "train"])
    assert pairs(found[found.split == "train"]) == {pair for pair in training - half if pair[0] in members}
    assert set(zip(found.split, found.window, strict=True)) == {("train", -1), ("validation", 0), ("test", 1)}
    assert members & set(found.user[found.split == "validation"]) & set(found.user[found.split == "test"])


def test_overlaps_are_counted_and_said(given):
    clicks, _, data = given
    parts = {word: pairs(clicks[clicks.part == word]) for word in WORDS}
    both = {
        "valid": len(parts["valid"] & parts["train"]),
        "test": len(parts["test"] & (parts["train"] | parts["valid"])),
    }
    funnel = sum(row["other_split"] for row in data.report["funnel"])
    rows = clicks[clicks.part == "train"]
    assert funnel == sum(pair in parts["valid"] for pair in zip(rows.user, rows.title, strict=True))
    assert min(both.values()) > 10
    text = " | ".join(data.report["warnings"])
    assert f"{both['valid']} validation pairs are training pairs, too, and were left out of training" in text
    assert (
        f"{both['test']} test pairs are training or validation pairs, too; users had them, so they are not tested"
        in text
    )
    rows = data.report["funnel"]
    assert all(sum(row[name] for name in FATES) == row["rows"] for row in rows)
    assert all(row[name] >= 0 for row in rows for name in FATES)
    assert sum(row["rows"] for row in rows) == 3600
    assert data.report["stages"][-1]["rows"] == sum(row["positives"] for row in data.report["examples"])


def test_history_is_what_the_parts_before_hold(given):
    _, _, data = given
    kept = pd.read_parquet(data.path / "events.parquet")
    had = {key: set(titles) for key, titles in kept.groupby(["user", "window"]).title}
    check_history(data, lambda user, window: set().union(*(had.get((user, w), set()) for w in range(-2, window))))


def test_negatives_are_of_users_of_their_split(tmp_path):
    events, users, titles = split_log()
    events = events[events.click == 1]
    events.loc[events.user < "u0100", "part"] = "train"
    data = prepared(
        tmp_path, events, users, titles, **WITHOUT, split_column="part", options={"alpha": 2.0, "negatives": "both"}
    )
    found = read_examples(data)
    negatives = found[found.click == 0]
    for split, word in (("train", "train"), ("validation", "valid"), ("test", "test")):
        own = negatives[negatives.split == split]
        assert len(own) > 100
        assert set(own.user) <= set(events.user[events.part == word])
    positives = found[found.click == 1]
    assert not pairs(negatives[negatives.window == 1]) & pairs(positives[positives.window == 1])
    counts = found.groupby(["split", "sampling", "window"]).click.agg(["sum", "size"])
    assert (counts["size"] == 3 * counts["sum"]).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["train", "holdout"],
            r"`split_column` must have the words train, validation.*'part' with 'holdout' in \d+ rows,",
        ),
        (["train", None, "test"], r"nothing in \d+ rows"),
        (["train", "val"], r"must have the words.*'validation' in \d+ rows"),
        ([0, 1], r"must have the words.*'0' in \d+ rows"),
    ],
)
def test_other_words_of_a_split(tmp_path, words, message):
    events, users, titles = base()
    events["part"] = [words[number % len(words)] for number in range(len(events))]
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, events, users, titles, split_column="part", calendar=Calendar())


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"has_times": False, "calendar": Calendar()}, {}, r"`columns` must name no time where there are no times"),
        (
            {**WITHOUT, "calendar": Calendar(datetime.timedelta(days=7), 2)},
            {},
            "`calendar` must be left out where there",
        ),
        (
            {**WITHOUT, "time_zones": {"DE": "Europe/Berlin"}},
            {},
            "`time_zones` must be left out where there are no times",
        ),
        ({**WITHOUT, "time_format": "%d/%m/%Y"}, {}, "`time_format` must be left out where there are no times"),
        ({"split_column": "part"}, {}, "`calendar` must be left out where `split_column` says"),
        (
            {"split_column": "part", "calendar": Calendar()},
            {"fold": "1/5"},
            "`fold` must be left out where `split_column`",
        ),
        ({"split_column": "part", "calendar": Calendar()}, {"test_fraction": 0.3}, "`test_fraction` must be left out"),
        (
            {"split_column": "part", "calendar": Calendar()},
            {"validation_fraction": 0.3},
            "`validation_fraction` must be left out where `split_column` says",
        ),
        ({"split_column": "prat", "calendar": Calendar()}, {}, "`events` must have the column 'prat'.* mean 'part'"),
    ],
)
def test_what_makes_no_sense_together(tmp_path, changes, options, message):
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, *split_log(), **changes, options=options)


def test_a_missing_time_names_the_option(tmp_path):
    events, users, titles = base()
    message = r"`events` must have the column 'time'; name another one in .*; or say `has_times=False` \(`--no-times`\)"
    with pytest.raises(ValueError, match=message):
        prepared(tmp_path, events.drop(columns="time"), users, titles)


def test_folds_without_times(tmp_path):
    events, users, titles = base()
    data = prepared(tmp_path, events.drop(columns="time"), users, titles, **WITHOUT, options={"fold": "2/3"})
    kept = pd.read_parquet(data.path / "events.parquet")
    assert set(kept.user[kept.split == "test"]) == {user for user in kept.user if 1 / 3 <= share("split", user) < 2 / 3}
    assert set(kept.user[kept.window == 1]) <= set(kept.user[kept.split == "test"])


@pytest.mark.parametrize("seen", ["events", "impressions"])
def test_a_training_row_that_a_validation_pair_left_hides_no_title(tmp_path, seen):
    events, users, titles = split_log()
    data = prepared(tmp_path, events, users, titles, **WITHOUT, split_column="part", options={"seen": seen})
    kept = pd.read_parquet(data.path / "events.parquet")
    shown = kept[~kept.is_event]
    assert (len(shown) > 0) == (seen == "impressions")
    assert pairs(shown[shown.split == "train"]) <= pairs(events[(events.click == 0) & (events.part == "train")])
    clicks = events[events.click == 1]
    training = pairs(clicks[clicks.part == "train"]) - pairs(clicks[clicks.part == "valid"])
    assert pairs(kept[kept.is_event & (kept.split == "train")]) == training


def prepared_split(log, tmp_path, **changes):
    _, users, titles = base()
    given = {"calendar": Calendar(), "split_column": "part", **changes}
    return prepared(tmp_path, log, users, titles, **given)


def test_a_split_without_validation_rows_gets_a_tenth_of_the_training_pairs(tmp_path):
    log, *_ = split_log()
    log = log[log.part != "valid"]
    data = prepared_split(log, tmp_path)
    training = log[log.part == "train"]
    is_drawn = [share("validation", *pair) < 0.1 for pair in zip(training.user, training.title, strict=True)]
    assert 0.05 < np.mean(is_drawn) < 0.2
    (text,) = [text for text in data.report["warnings"] if "drawn for validation" in text]
    assert text.startswith(f"{sum(is_drawn)} training rows were drawn for validation")
    found = read_examples(data)
    found = found[(found.split == "validation") & (found.click == 1)]
    assert len(found)
    assert pairs(found) <= pairs(training[is_drawn])


def test_test_rows_from_before_training_rows_are_said_and_change_nothing_of_training(tmp_path):
    log, *_ = split_log()
    log["time"] = pd.to_datetime(log.time)
    data = prepared_split(log, tmp_path / "a")
    early = (log.time[log.part == "test"] < log.time[log.part == "train"].max()).sum()
    (text,) = [text for text in data.report["warnings"] if "before the last training row" in text]
    assert text.startswith(f"{early} test rows are from before the last training row")
    moved = log.assign(time=log.time.where(log.part != "test", log.time + pd.Timedelta(days=3650)))
    other = prepared_split(moved, tmp_path / "b")
    assert not [text for text in other.report["warnings"] if "before the last training row" in text]
    for split in ("train", "validation"):
        files = [sorted(one.path.glob(f"examples/split={split}/*/*/*.parquet")) for one in (data, other)]
        assert [file.read_bytes() for file in files[0]] == [file.read_bytes() for file in files[1]]


def test_rows_of_one_date_are_drawn_and_not_all_history(tmp_path):
    log, *_ = split_log()
    log = log.assign(time=pd.Timestamp(2024, 3, 1))
    kept = pd.read_parquet(prepared_split(log, tmp_path).path / "events.parquet")
    sizes = kept[kept.split == "train"].window.value_counts()
    assert sizes[-2] / sizes.sum() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("split_column", [None, "part"])
def test_nothing_that_a_user_ever_had_is_a_drawn_negative(tmp_path, split_column):
    log, *_ = split_log()
    changes = {"has_times": False, "columns": NO_TIME, "split_column": split_column}
    data = prepared_split(log.drop(columns="time"), tmp_path, options={"negatives": "sampled"}, **changes)
    kept = pd.read_parquet(data.path / "events.parquet")
    examples = read_examples(data)
    negatives = examples[examples.click == 0].merge(
        kept[kept.is_history][["user", "title", "window"]], on=["user", "title"]
    )
    assert not (negatives.window_y <= negatives.window_x).any()
