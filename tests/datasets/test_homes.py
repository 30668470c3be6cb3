"""Logs without a users table, a titles table, or a territory, against pandas and against the tables written out."""

import datetime
import json

import numpy as np
import pandas as pd
import pytest

from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare

TEST = pd.Timestamp(2024, 1, 10)  # the first test window of `make_logs`
OPTIONS = {"alpha": 3.0, "progress": False}


@pytest.fixture
def make(make_logs):
    """`Logs` of the small log whose tables may be missing."""

    def logs(tables, **changes):
        events, users, titles = tables
        full = make_logs(*(table if table is not None else events[:1] for table in tables), **changes)
        columns = dict(full.columns)
        if titles is None:
            columns.pop("name")
        known = [table.columns for table in (events, users) if table is not None]
        if not any("market" in names for names in known):
            columns.pop("territory")
        paths = {name: None for name, table in (("users", users), ("titles", titles)) if table is None}
        return Logs(**{**vars(full), "columns": columns, **paths, **changes})

    return logs


def homes_of(data):
    return pd.read_parquet(data.path / "users.parquet").set_index("user").territory.to_dict()


def with_markets(events, users, seed=0):
    """The events with a market each: that of the user, or another one, or none."""
    rng = np.random.default_rng(seed)
    market = events.uid.map(dict(zip(users.uid, users.market, strict=True)))
    market = market.where(rng.random(len(events)) < 0.5, rng.choice(["DE", "FR", "US"], len(events)))
    return events.assign(market=market.where(rng.random(len(events)) < 0.9, None))


def expected_homes(events, users):
    """One user after the other, by the words of `Logs`."""
    found, moved = {}, 0
    for user in users:
        own = events[(events.uid == user) & events.market.notna()]
        moved += own.market.nunique() > 1
        before = own[own.ts < TEST].market.value_counts()
        if len(before):
            found[user] = min(before[before == before.max()].index)
        else:
            found[user] = own.sort_values(["ts", "market"]).market.iloc[0] if len(own) else "unknown"
    return found, moved


@pytest.mark.parametrize("has_users", [True, False])
def test_a_users_territory_is_that_of_most_events_before_the_tests(make, tables, tmp_path, has_users):
    events, users, titles = tables
    events = with_markets(events, users)
    events.loc[(events.uid < "u08") & (events.ts < TEST), "uid"] = "u20"  # users whose first rows are in the tests
    early = events[events.ts < TEST]
    assert set(users.uid[:8]).isdisjoint(early.uid)
    people = users.drop(columns="market") if has_users else None
    data = prepare(make((events, people, titles)), tmp_path / "out", **OPTIONS)
    wanted, moved = expected_homes(events, sorted(set(users.uid if has_users else events.uid)))
    assert homes_of(data) == wanted
    assert (
        f"{moved} users have events in several territories; theirs is the one of most before the first test window"
        in data.report["warnings"]
    )
    features = [feature.name for feature in data.schema.by_role("user")]
    assert features == (["territory", "device", "age", "user_vector"] if has_users else ["territory", "user_vector"])
    # What comes in the tests moves nobody who was known before.
    later = events.assign(market=events.market.where(events.ts < TEST, "DE"))
    again = homes_of(prepare(make((later, people, titles)), tmp_path / "again", **OPTIONS))
    assert all(again[user] == wanted[user] for user in early[early.market.notna()].uid.unique())
    assert any(again[user] != home for user, home in wanted.items())


def test_tables_that_are_left_out_are_those_of_the_events(make, tables, tmp_path):
    events, _, _ = tables
    bare = prepare(make((events, None, None)), tmp_path / "bare", **OPTIONS)
    users = pd.DataFrame({"uid": sorted(events.uid.unique()), "market": "all"})
    titles = pd.DataFrame({"asin": sorted(events.asin.unique()), "title name": sorted(events.asin.unique())})
    full = prepare(make((events, users, titles)), tmp_path / "full", **OPTIONS)
    assert bare.report["fingerprint"] == full.report["fingerprint"]
    line = "no table says where users live: all are of one territory, 'all'"
    assert set(bare.report["warnings"]) - set(full.report["warnings"]) == {line}
    assert set(bare.report["statistics"]["territories"]) == {"all"}
    assert bare.schema.scenario.groups == {("all",): "group-1"}
    assert bare.report["logs"]["users"] is None
    assert json.dumps(bare.report)


def test_a_territory_column_of_the_events_needs_no_mapping(make, tables, tmp_path):
    events, users, titles = tables
    events = with_markets(events, users).rename(columns={"market": "territory"})
    data = prepare(make((events, users.drop(columns="market"), titles)), tmp_path / "out", **OPTIONS)
    assert set(data.report["statistics"]["territories"]) == {"DE", "FR", "US"}
    data = prepare(make((events.rename(columns={"territory": "market"}), users, titles)), tmp_path / "two", **OPTIONS)
    assert homes_of(data) == dict(zip(users.uid, users.market, strict=True))  # the users table says it first


def test_clocks_of_the_territories_of_events(make, tables, tmp_path):
    events, users, _ = tables
    events = with_markets(events, users).fillna({"market": "DE"})
    events["market"] = events.market.where(events.market == "US", "DE")
    zones = {"US": "America/New_York"}
    end = datetime.datetime(2024, 1, 10)
    calendar = Calendar(datetime.timedelta(days=1), num_train=4, num_test=2, end=end)
    data = prepare(make((events, None, None), time_zones=zones, calendar=calendar), tmp_path / "out", **OPTIONS)
    kept = pd.read_parquet(data.path / "events.parquet")
    clock = events.ts - pd.to_timedelta(np.where(events.market == "US", 5, 0), unit="h")
    wanted = events.assign(ts=clock)[["uid", "ts", "asin"]].drop_duplicates().sort_values(["uid", "ts", "asin"])
    assert (kept[["user", "time", "title"]].to_numpy() == wanted.to_numpy()).all()


def test_availability_of_a_log_without_territories(make, tables, tmp_path):
    events, _, _ = tables
    offered = pd.DataFrame({"title": sorted(events.asin.unique())[5:]})
    offered.to_parquet(tmp_path / "offered.parquet")
    logs = make((events, None, None), availability=tmp_path / "offered.parquet")
    data = prepare(logs, tmp_path / "out", **OPTIONS)
    available = pd.read_parquet(data.path / "availability.parquet")
    assert set(available.title) == set(offered.title)
    assert set(available.territory) == {"all"}
    offered.assign(territory="DE").to_parquet(tmp_path / "offered.parquet")
    with pytest.raises(ValueError, match=r"`availability` must have territories of the users table.*\['all'\]"):
        prepare(logs, tmp_path / "two", **OPTIONS)


def test_columns_that_are_nowhere(make, tables, tmp_path):
    events, users, titles = tables

    def refused(logs, message):
        with pytest.raises(ValueError, match=message) as caught:
            prepare(logs, tmp_path / "out", **OPTIONS)
        assert "\n" not in str(caught.value)

    columns = {"user": "uid", "title": "asin", "time": "ts"}
    named = {**columns, "territory": "marked"}
    refused(make((events, users, titles), columns=named), r"`users` must have the column 'marked'.*mean 'market'\?")
    refused(make((events, None, titles), columns=named), "`events` must have the column 'marked'")
    named = {**columns, "name": "text"}
    refused(make((events, users, None), columns=named), "`titles` must be given where `columns` names .*name='text'")
    named = {**columns, "territory": "place"}
    logs = make((events.assign(place="DE"), users.assign(territory="x"), titles), columns=named)
    refused(logs, "Column 'place' of `events` is the territory, so no column of `users` may be called 'territory'")
    nobody = events.assign(uid=pd.Series([None] * len(events), dtype="str"))
    refused(make((nobody, None, None)), "`events` must give positives in the training windows")
