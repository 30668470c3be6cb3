"""Public data sets as logs: found by name, with their counts, their given splits and their traps."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from tfmtr.cli import app
from tfmtr.datasets import public
from tfmtr.datasets.prepare import prepare

NO_PROGRESS = {"progress": False}


def read(path):
    return pq.read_table(path).to_pandas()


def test_every_file_is_a_command_with_its_own_options():
    names = public.names()
    assert {"movielens", "online-retail", "xmarket", "kuairand", "taobao", "megcf", "youshu"} <= set(names)
    listed = CliRunner().invoke(app, ["prepare", "--help"]).output
    for name in names:
        assert public.find(name).__name__ == name.replace("-", "_")
        assert f"  {name} " in listed
        shown = CliRunner().invoke(app, ["prepare", name, "--help"])
        assert shown.exit_code == 0
        assert "--source" in shown.output
        assert "--fold" in shown.output
    assert "--part" in CliRunner().invoke(app, ["prepare", "megcf", "--help"]).output
    with pytest.raises(ValueError, match=r"`data set` must be one of .* Did you mean 'xmarket'\?"):
        public.find("xmarkt")


def test_xmarket_has_a_user_for_each_market_of_a_customer(shared_data, tmp_path):
    source = shared_data("xmarket-electronics/ratings_5core.parquet")
    logs = public.find("xmarket")(source, tmp_path)
    events, users = read(logs.events), read(logs.users)
    assert len(events) == 134_845
    # 14,311 customers, two of them of two markets
    assert users.market.value_counts().to_dict() == {
        "ca": 4668, "uk": 3352, "mx": 1878, "de": 1851, "fr": 1838, "jp": 487, "in": 239,
    }  # fmt: skip
    assert users.user.is_unique
    assert (events.user.map(users.set_index("user").market) == pq.read_table(source)["market"].to_pandas()).all()
    assert logs.tasks == {"liked": "rate>=4"}
    assert logs.calendar.length is None


def test_kuairand_reads_no_outcome_and_no_statistics(shared_data, tmp_path):
    folder = shared_data("kuairand-pure/video_features_basic_pure.parquet").parent
    logs = public.find("kuairand")(folder, tmp_path)
    events, users, titles = (read(getattr(logs, name)) for name in ("events", "users", "titles"))
    assert (len(events), len(users), len(titles)) == (228_329, 27_285, 7_583)
    assert set(events.columns) == {"user_id", "video_id", "time", "long_view", "is_click", "is_like", "is_follow"}
    assert list(logs.tasks) == ["long_view", "click", "like", "follow"]
    assert events.time.dt.date.astype(str).agg(["min", "max"]).tolist() == ["2022-04-24", "2022-05-08"]  # UTC
    outcomes = ("play", "long_view", "is_", "stay", "cnt", "show")
    assert not [name for name in (*users.columns, *titles.columns) if any(word in name for word in outcomes)]
    assert titles.tag.map(type).eq(np.ndarray).all()


def test_taobao_takes_the_validation_pairs_out_of_training(shared_data, tmp_path):
    folder = shared_data("taobao-behaviours/valid.parquet").parent
    events = read(public.find("taobao")(folder, tmp_path).events)
    assert events.split.value_counts().to_dict() == {"train": 76_731, "validation": 15_449, "test": 15_449}
    assert (events.groupby(["user", "split"]).size().unstack()[["validation", "test"]] == 1).all(axis=None)
    assert not events.duplicated(["user", "item"]).any()
    held = read(folder / "valid.parquet")
    ours = events[events.split == "validation"]
    assert set(zip(ours.user, ours.item, strict=True)) == set(zip(held.user, held.item, strict=True))


@pytest.mark.parametrize(
    ("part", "counts"),
    [
        ("beauty", {"train": 123_742, "validation": 15_576, "test": 15_576}),
        ("taobao", {"train": 71_109, "validation": 12_539, "test": 12_539}),
    ],
)
def test_megcf_has_a_set_of_entities_for_each_source(shared_data, tmp_path, part, counts):
    folder = shared_data("megcf-entities/beauty_interactions.parquet").parent
    logs = public.find("megcf")(folder, tmp_path, part=part)
    events, titles = read(logs.events), read(logs.titles)
    assert events.split.value_counts().to_dict() == counts
    entities = read(folder / f"{part}_item_entities.parquet")
    sources = sorted(entities.source.unique())
    assert list(titles.columns) == ["item", *(f"{source}_entities" for source in sources)]
    expected = entities.groupby(["source", "item"]).entity.agg(lambda found: sorted(map(str, found)))
    for source in sources:
        found = titles.set_index("item")[f"{source}_entities"].map(sorted)
        own = expected[source]
        assert (found[own.index] == own).all()
        assert (found.drop(own.index).map(len) == 0).all()
    if "review" in sources:
        without = read(public.find("megcf")(folder, tmp_path / "without", part=part, reviews=False).titles)
        assert "review_entities" not in without.columns
    with pytest.raises(ValueError, match=r"`part` must be one of .*beauty.* Received: part='books'"):
        public.find("megcf")(folder, tmp_path, part="books")


def test_youshu_s_lists_and_users_have_their_books(shared_data, tmp_path):
    folder = shared_data("youshu-bundles/user_bundle.parquet").parent
    logs = public.find("youshu")(folder, tmp_path)
    events, users, titles = (read(getattr(logs, name)) for name in ("events", "users", "titles"))
    assert events.split.value_counts().to_dict() == {"train": 34_416, "test": 9_746, "validation": 5_189}
    assert titles.books_of_bundle.map(len).sum() == 176_667
    assert users.books_of_user.map(len).sum() == 138_515
    assert set(events.user) <= set(users.user)
    assert set(events.bundle) <= set(titles.bundle)
    # The rule that the data's description names, by hand: popularity of the list, what the user has left out.
    train, test = events[events.split != "test"], events[events.split == "test"]
    popular = train[train.split == "train"].bundle.value_counts()
    had, recalls = train[train.split == "train"].groupby("user").bundle.agg(set), []
    for user, wanted in test.groupby("user").bundle:
        best = [bundle for bundle in popular.index[:200] if bundle not in had.get(user, ())][:20]
        recalls.append(len(set(best) & set(wanted)) / len(wanted))
    assert np.mean(recalls) == pytest.approx(0.203, abs=0.003)


def test_a_given_split_is_prepared_as_it_is(shared_data, tmp_path):
    folder = shared_data("youshu-bundles/user_bundle.parquet").parent
    data = prepare(public.find("youshu")(folder, tmp_path / "tables"), tmp_path / "data", alpha=1.0, **NO_PROGRESS)
    assert data.report["times"] is False
    kept = read(data.path / "events.parquet")
    assert kept.split.value_counts().to_dict() == {"train": 34_416, "test": 9_746, "validation": 5_189}
    assert kept[kept.split == "train"].window.max() < kept[kept.split == "validation"].window.min() == 0
    assert (kept[kept.split == "test"].window == 1).all()
    assert data.test_windows == [1]
    positives = {row["split"]: row["positives"] for row in data.report["examples"] if row["sampling"] == "random"}
    assert positives["test"] == 9_746


@pytest.mark.parametrize("name", ["xmarket", "kuairand", "taobao", "megcf", "youshu"])
def test_what_is_not_there_is_named(name, tmp_path):
    with pytest.raises(
        ValueError, match=r"`source` must be .*parquet, or a folder with it\. Received: .*; there is \[\]"
    ):
        public.find(name)(tmp_path, tmp_path / "out")
    with pytest.raises(ValueError, match="no such folder"):
        public.find(name)(tmp_path / "nothing" / "deeper", tmp_path / "out")


def test_damaged_empty_and_other_tables_are_refused(tmp_path):
    file = tmp_path / "ratings_5core.parquet"
    file.write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"must be a Parquet file; fetch it again\. Received: .*ratings_5core.parquet"):
        public.find("xmarket")(file, tmp_path / "out")
    columns = {"market": ["de"], "userId": ["a"], "itemId": ["b"], "rates": [5.0], "date": ["2020-01-01"]}
    pq.write_table(pa.table(columns), file)
    with pytest.raises(ValueError, match=r"must have the column 'rate'\. Did you mean 'rates'\? Received: \['market'"):
        public.find("xmarket")(file, tmp_path / "out")
    table = pa.Table.from_pandas(pd.DataFrame(columns).rename(columns={"rates": "rate"}))
    pq.write_table(table.slice(0, 0), file)
    with pytest.raises(ValueError, match=r"ratings_5core\.parquet must have rows"):
        public.find("xmarket")(tmp_path, tmp_path / "out")
