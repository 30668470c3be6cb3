import datetime

import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.base_log import base, prepared

from tfmtr.datasets.funnel import FATES, NO_EXAMPLES, STAGES, Funnel
from tfmtr.datasets.logs import Calendar
from tfmtr.evaluation.tables import funnel_table

END = datetime.datetime(2024, 3, 22)


@pytest.fixture(scope="module")
def funnel(tmp_path_factory):
    """A log with rows of every fate: the data frame, and the `Dataset` folder."""
    events, users, titles = base()
    events.loc[events.index % 50 == 1, "user"] = None
    events.loc[(events.title == "t039") & (events.time < pd.Timestamp(END)), "title"] = "t038"  # new in the test window
    events.loc[events.index % 50 == 2, "title"] = "nowhere"
    events.loc[events.index % 50 == 3, "user"] = "nobody"
    events["click"] = events.click.astype("Int64")
    events.loc[events.index % 50 == 4, "click"] = None
    events.loc[events.index % 50 == 5, "time"] = pd.NaT
    calendar = Calendar(datetime.timedelta(days=4), 2, 1, end=END, start=datetime.datetime(2024, 3, 5))
    data = prepared(tmp_path_factory.mktemp("funnel"), events, users, titles, calendar=calendar)
    return events, data


def test_every_row_has_one_fate(funnel):
    events, data = funnel
    rows = data.report["funnel"]
    assert all(sum(row[name] for name in FATES) == row["rows"] for row in rows)
    assert all(row[name] >= 0 for row in rows for name in FATES)
    assert sum(row["rows"] for row in rows) == len(events)
    assert all(sum(row[name] for row in rows) for name in FATES if name not in ("low_rated", "other_split"))


def test_fates_are_what_pandas_counts(funnel):
    events, data = funnel
    rows = {row["window"]: row for row in data.report["funnel"]}
    known = events[events.user.notna() & events.title.notna() & events.time.notna()]
    window = (known.time - pd.Timestamp(END)).dt.days // 4 + 1
    window = window.clip(-2, 2)
    is_user, is_title = known.user != "nobody", known.title != "nowhere"
    is_good = is_user & is_title
    assert rows[None]["incomplete"] == events.time.isna().sum()
    assert sum(row["incomplete"] for row in rows.values()) == len(events) - len(known)
    for number, row in rows.items():
        if number is None:
            continue
        own = window == number
        assert row["unknown_title"] == (own & ~is_title).sum()
        assert row["unknown_user"] == (own & is_title & ~is_user).sum()
        assert row["unlabelled"] == (own & is_good & known.click.isna()).sum()
        assert row["impressions"] == (own & is_good & (known.click == 0)).sum()
        events_of = own & is_good & (known.click == 1).fillna(False)
        is_early = known.time < "2024-03-05"
        assert row["too_early"] == (events_of & is_early).sum()
        assert row["history"] == ((events_of & ~is_early).sum() if number == -2 else 0)
        assert row["later"] == (events_of.sum() if number == 2 else 0)


def test_positives_are_those_of_the_examples(funnel):
    _, data = funnel
    for row in data.report["funnel"]:
        files = data.path.glob(f"examples/*/*/window={row['window']}/*.parquet")
        tables = [pq.ParquetFile(file).read(["click"])["click"].to_numpy() for file in files]
        assert row["positives"] == sum((labels == 1).sum() for labels in tables)


def test_stages_are_the_rows_that_are_left(funnel):
    events, data = funnel
    stages = {stage["stage"]: stage for stage in data.report["stages"]}
    assert list(stages) == ["log", *STAGES]
    known = events.dropna(subset=["user", "title", "time"])
    known = known[(known.user != "nobody") & (known.title != "nowhere")]
    clicks = known[(known.click == 1).fillna(False)]
    # The calendar's start, 5 March, comes before the first window.
    inside = clicks[(clicks.time >= "2024-03-14") & (clicks.time < "2024-03-26")]
    repeats = sum(row["repeats"] for row in data.report["funnel"])
    left = [len(events), len(known), len(clicks), len(inside), len(inside) - repeats]
    assert [stage["rows"] for stage in stages.values()][:5] == left
    assert stages["positives"]["rows"] == sum(row["positives"] for row in data.report["examples"])
    lost = {fate: count for stage in stages.values() for fate, count in stage["lost"].items()}
    assert lost == {fate: sum(row[fate] for row in data.report["funnel"]) for fate in FATES if fate != "positives"}


def test_positives_and_losses_by_split(funnel):
    _, data = funnel
    splits = {(row["split"], row["sampling"], row["windows"]): row for row in data.report["splits"]}
    for key, row in splits.items():
        expected = [
            cell["positives"]
            for cell in data.report["examples"]
            if (cell["split"], cell["sampling"], "training" if cell["window"] <= 0 else "tests") == key
        ]
        assert row["positives"] == sum(expected)
    assert ("test", "random", "training") in splits  # their discoveries, which are no positives
    assert sum(splits["test", "random", "training"][name] for name in ("positives", "unavailable")) == 0
    total = sum(row[fate] for row in splits.values() for fate in ("positives", "unavailable", *NO_EXAMPLES))
    assert total == data.report["stages"][-2]["rows"]
    # Test users' discoveries in the training windows: the first of each pair in a window.
    tested = splits["test", "random", "training"]["before_tests"]
    kept = pd.read_parquet(data.path / "events.parquet")
    own = kept[(kept.split == "test") & kept.window.isin([-1, 0]) & kept.is_history].sort_values("time")
    before = own.groupby(["user", "title"]).time.shift()
    early = kept[(kept.split == "test") & (kept.window < -1) & kept.is_history]
    had = set(zip(early.user, early.title, strict=True))
    is_new = [pair not in had for pair in zip(own.user, own.title, strict=True)]
    fresh = own[before.isna() & pd.Series(is_new, index=own.index)]
    assert tested == len(fresh) > 20
    assert splits["train", "active", "tests"]["not_active"] + splits["train", "active", "training"]["not_active"] > 0


def test_the_table_says_what_is_lost_where(funnel):
    _, data = funnel
    table = funnel_table(data.report)
    texts = [cell.plain for cell in table.columns[0].cells]
    counts = dict(zip(texts, (cell.plain for cell in table.columns[1].cells), strict=True))
    assert texts[0] == "all"
    assert [text for text in texts if text in {name for name, _ in STAGES.values()}] == [n for n, _ in STAGES.values()]
    assert f"- {NO_EXAMPLES['before_tests']}" in texts
    positives = [int(counts[text].replace(",", "")) for text in texts if text.startswith("  ")]
    assert sum(positives) == int(counts["positives"].replace(",", ""))
    assert {"  train, random users", "  train, active users", "  validation", "  test"} <= set(texts)


def test_rows_of_the_log_by_day(funnel):
    events, data = funnel
    days = events.time.dropna().dt.date.astype(str).value_counts().to_dict()
    assert {day: counts["rows"] for day, counts in data.report["days"].items()} == days


def test_windows_without_rows_are_left_out():
    funnel = Funnel()
    funnel.of(3)
    funnel.add(None, rows=2, incomplete=2)
    funnel.add(1, rows=1, positives=1)
    assert [row["window"] for row in funnel.document()] == [None, 1]
