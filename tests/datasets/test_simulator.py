import datetime

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets import simulator as module
from tfmtr.datasets.audience import USER, Audience
from tfmtr.datasets.prepare import prepare
from tfmtr.datasets.simulator import simulator
from tfmtr.datasets.truth import Truth
from tfmtr.datasets.vector_store import VectorStore
from tfmtr.datasets.world import LATENT, make_world


def contents(folder):
    return {file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*.*"))}


def title_shares(logs):
    """Each large territory's distribution of events over titles, shape `(territories, titles)`."""
    log = pd.read_parquet(logs.events).merge(pd.read_parquet(logs.users))
    counts = log.pivot_table(index="territory", columns="title", aggfunc="size", fill_value=0)
    counts = counts[counts.sum(axis=1) > 500]
    return counts.div(counts.sum(axis=1), axis=0).to_numpy()


def mean_distance(shares):
    """Mean total variation distance over all pairs of rows."""
    distances = np.abs(shares[:, None] - shares[None]).sum(axis=-1) / 2
    return distances[np.triu_indices(len(shares), k=1)].mean()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("simulator")


@pytest.fixture(scope="module")
def logs(folder):
    return simulator(folder)


@pytest.fixture(scope="module")
def log(logs):
    return pd.read_parquet(logs.events).merge(pd.read_parquet(logs.users))


def test_the_seed_decides_every_byte(tmp_path):
    small = {"num_users": 300, "num_titles": 30, "num_territories": 5, "days": 20}
    for name, seed in {"a": 0, "b": 0, "c": 1}.items():
        simulator(tmp_path / name, seed=seed, **small)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    other = contents(tmp_path / "c")
    ids = {file for file in other if file.name == "ids.parquet"}
    assert all(other[file] != data for file, data in contents(tmp_path / "a").items() if file not in ids)


def test_more_users_change_neither_the_world_nor_the_full_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 500)
    small = {"num_titles": 30, "num_territories": 5, "days": 20}
    few, more = (simulator(tmp_path / str(users), num_users=users, **small) for users in (500, 700))
    for table in ("titles.parquet", "availability.parquet", "title_vectors/vectors.npy"):
        assert (tmp_path / "500" / table).read_bytes() == (tmp_path / "700" / table).read_bytes()
    for table in ("titles.parquet", "territories.parquet", "exposure.npy"):
        assert (tmp_path / "500/truth" / table).read_bytes() == (tmp_path / "700/truth" / table).read_bytes()
    events, longer = pd.read_parquet(few.events), pd.read_parquet(more.events)
    pd.testing.assert_frame_equal(events, longer.head(len(events)))
    vectors, longer = VectorStore(few.user_vectors).vectors, VectorStore(more.user_vectors).vectors
    np.testing.assert_array_equal(vectors, longer[:500])
    np.testing.assert_array_equal(Truth(tmp_path / "500").users, Truth(tmp_path / "700").users[:500])
    # Another chunk is made by another generator.
    territory = pd.read_parquet(more.users).territory
    assert list(territory[:200]) != list(territory[500:])


def test_users_are_written_chunk_by_chunk(tmp_path, monkeypatch):
    """No chunk is held back: when a chunk is made, those before it are in the files."""
    sizes, draw = [], Audience.draw_users
    monkeypatch.setattr(module, "CHUNK", 200)

    def draw_users(self, rng, size):
        sizes.append((size, (tmp_path / "events.parquet").stat().st_size))
        return draw(self, rng, size)

    monkeypatch.setattr(Audience, "draw_users", draw_users)
    logs = simulator(tmp_path, num_users=900, num_titles=30, num_territories=5, days=20)
    assert [size for size, _ in sizes] == [200, 200, 200, 200, 100]
    written = [size for _, size in sizes]
    assert written == sorted(set(written))
    assert pq.ParquetFile(logs.events).num_row_groups == 5
    assert len(pd.read_parquet(logs.users)) == 900


def test_widths_and_impressions_change_no_event(tmp_path):
    small = {"num_users": 400, "num_titles": 30, "num_territories": 5, "days": 20}
    plain = simulator(tmp_path / "plain", **small)
    wide = simulator(tmp_path / "wide", **small, widths=(512, 768), impressions=True)
    assert [VectorStore(path).width for path in (wide.user_vectors, wide.title_vectors)] == [512, 768]
    log = pd.read_parquet(wide.events)
    assert set(log.streamed) == {0, 1}
    streams = log[log.streamed == 1].drop(columns="streamed").reset_index(drop=True)
    pd.testing.assert_frame_equal(streams, pd.read_parquet(plain.events))
    assert log.equals(log.sort_values(["user", "time"], kind="stable"))
    for table in ("users", "titles", "availability"):
        assert getattr(plain, table).read_bytes() == getattr(wide, table).read_bytes()


def test_no_generator_is_used_twice(tmp_path, monkeypatch):
    seeds, make = [], np.random.default_rng
    monkeypatch.setattr(module, "CHUNK", 100)
    monkeypatch.setattr(np.random, "default_rng", lambda seed: seeds.append(tuple(seed)) or make(seed))
    simulator(tmp_path, num_users=300, num_titles=10, num_territories=4, days=18, impressions=True, seed=5)
    assert sorted(seeds) == [(5, 0), (5, 1), (5, 1, 1), (5, 2), (5, 2, 1), (5, 3), (5, 3, 1)]


def test_impressions_become_logged_negatives(tmp_path):
    logs = simulator(tmp_path / "t", num_users=600, num_titles=30, num_territories=5, days=20, impressions=True)
    data = prepare(logs, tmp_path / "d", alpha=2.0, progress=False)
    assert [task.name for task in data.schema.tasks] == ["stream"]
    log = pd.read_parquet(logs.events)
    shown = set(zip(log.user, log.title, strict=True))
    examples = pd.concat([pd.read_parquet(file) for file in (data.path / "examples").rglob("*.parquet")])
    assert (examples.stream == 0).sum() > 100
    assert set(zip(examples.user, examples.title, strict=True)) <= shown


def test_tables_hold_no_truth(logs):
    assert list(pd.read_parquet(logs.events)) == ["user", "title", "time"]
    assert list(pd.read_parquet(logs.users)) == ["user", "territory", "device", "age_band", "tenure_days"]
    assert list(pd.read_parquet(logs.titles)) == ["title", "name", "genres", "language"]
    assert list(pd.read_parquet(logs.availability)) == ["title", "territory", "start", "end"]


def test_every_event_is_of_an_available_title(logs):
    with duckdb.connect() as con:
        for table in ("events", "users", "availability"):
            con.execute(f"CREATE VIEW {table} AS FROM '{getattr(logs, table)}'")
        joined = "events JOIN users USING (user) JOIN availability a USING (title, territory)"
        query = f"SELECT count(*) FROM {joined} WHERE a.start <= time AND time < a.end"
        assert con.execute(query).fetchall() == con.execute("SELECT count(*) FROM events").fetchall()
        # The check has teeth: titles come and go, and not everywhere.
        (rows, titles), *_ = con.execute("SELECT count(*), count(DISTINCT title) FROM availability").fetchall()
        assert titles * 24 * 0.3 < rows < titles * 24 * 0.8
        ends = con.execute("SELECT count(*) FROM availability WHERE \"end\" <= '2025-03-02'").fetchall()
        assert ends[0][0] > rows / 4


def test_territories_are_uneven_on_every_continent(logs, log):
    events = log.groupby("territory").size()
    assert len(events) == 24
    assert events.max() > 50 * events.min()
    of_continent = events.groupby(events.index.str[:2])
    assert of_continent.ngroups == 4
    assert (of_continent.max() > 10 * of_continent.min()).all()
    assert set(logs.neighbours) == set(events.index)


def test_positives_of_the_major_territories_fall_as_in_table_1(tmp_path):
    logs = simulator(tmp_path, num_users=60_000, num_titles=40, num_territories=220, days=18)
    log = pd.read_parquet(logs.events).merge(pd.read_parquet(logs.users))
    events = log.groupby("territory").size().sort_values(ascending=False)
    assert 60 < events.iloc[0] / events.iloc[15] < 180
    assert 0.85 < events.iloc[:16].sum() / len(log) < 0.97
    assert len(logs.neighbours) == 220


def test_activity_matches_the_demo(logs, log):
    num_users = len(pd.read_parquet(logs.users))
    log = log.sort_values(["user", "title", "time"])
    gap = log.groupby(["user", "title"]).time.diff()
    found = log[~(gap < pd.Timedelta(days=30))]
    calendar = logs.calendar
    end = calendar.end.replace(tzinfo=None)
    days = found[(found.time >= end - calendar.num_train * calendar.length) & (found.time < end)]
    streamers = days.groupby(days.time.dt.date).user.nunique() / num_users
    assert len(streamers) == 14
    assert 0.04 < streamers.mean() < 0.10
    active = log[log.time < end - calendar.num_train * calendar.length].user.nunique() / num_users
    assert 0.4 < active < 0.75
    by_user = log.groupby("user").size().sort_values(ascending=False)
    assert by_user.head(num_users // 100).sum() > 0.08 * len(log)
    by_title = log.groupby("title").size().sort_values(ascending=False)
    assert by_title.head(len(by_title) // 20).sum() > 0.25 * len(log)


def test_weekends_are_busy_in_every_large_territory(log):
    whole = log[log.time < "2025-02-26"]  # eight weeks
    share = whole.groupby(["territory", whole.time.dt.dayofweek]).size().unstack()
    share = share[share.sum(axis=1) > 5_000].pipe(lambda t: t.div(t.sum(axis=1), axis=0))
    assert len(share) > 5
    assert (share[[4, 5, 6]].min(axis=1) > 1.1 * share[[0, 1, 2, 3]].max(axis=1)).all()


def test_users_and_titles_come_and_go_every_day(logs, log, folder):
    users = Truth(folder).users
    days = (log.time - pd.Timestamp("2025-01-01")).dt.days
    first, last = (days.groupby(log.user).agg(which) for which in ("min", "max"))
    row = first.index.str[1:].astype(int)
    assert (first >= users["joined"][row]).all()
    assert (last < users["left"][row]).all()
    assert (np.bincount(users["joined"], minlength=60)[1:] > 20).all()
    # Nobody who joins later has a tenure on day 0, and who has left looks like everybody else.
    table = pd.read_parquet(logs.users)
    assert (table.tenure_days[users["joined"] > 0] == 0).all()
    left = users["left"] < 60
    assert abs(table.tenure_days[left].mean() / table.tenure_days[~left].mean() - 1) < 0.1
    assert days.groupby(log.title).min().nunique() > 30


def test_feedback_concentrates_the_log_on_few_titles(tmp_path):
    small = {"num_users": 2_000, "num_titles": 200, "num_territories": 8}
    shares = []
    for feedback in (0.0, 0.4, 0.8):
        events = pd.read_parquet(simulator(tmp_path / str(feedback), feedback=feedback, **small).events)
        counts = events[events.time >= "2025-02-01"].groupby("title").size().sort_values(ascending=False)
        shares.append(counts.head(10).sum() / counts.sum())
    assert shares[0] + 0.05 < shares[1] < shares[2] - 0.05


def test_windows_end_with_the_log(logs, log):
    first = datetime.datetime(2025, 1, 1)
    assert log.time.dt.date.nunique() == 60
    assert log.time.min() >= first
    assert log.time.max() < first + datetime.timedelta(days=60)
    assert logs.calendar.end.replace(tzinfo=None) == first + datetime.timedelta(days=57)


@pytest.mark.parametrize(("role", "width"), [("user", 64), ("title", 96)])
def test_vectors_are_finite_and_belong_to_the_rows(logs, role, width):
    store = VectorStore(getattr(logs, f"{role}_vectors"))
    store.check(f"{role}_vectors")
    assert store.vectors.dtype == np.float16
    assert store.width == width
    assert list(pd.read_parquet(store.ids)[role]) == list(pd.read_parquet(getattr(logs, f"{role}s"))[role])


def unexplained(vectors, truth):
    """Variance of the truth's columns that no linear function of the vectors explains, for each row."""
    weights, *_ = np.linalg.lstsq(vectors, truth, rcond=None)
    return ((truth - vectors @ weights) ** 2).mean(axis=1)


def test_user_vectors_tell_more_in_large_territories(logs, folder):
    truth, vectors = Truth(folder), VectorStore(logs.user_vectors).vectors.astype("float64")
    users = pd.read_parquet(logs.users)
    error = pd.Series(unexplained(vectors, truth.users["taste"]), users.index).groupby(users.territory).mean()
    sizes = users.groupby("territory").size()
    assert np.corrcoef(np.log(sizes), error)[0, 1] < -0.7
    largest, smallest = sizes.nlargest(4).index, sizes.nsmallest(8).index
    assert error[smallest].mean() > 1.3 * error[largest].mean()
    assert 0.1 < error[largest].mean() / truth.users["taste"].var(axis=0).mean() < 0.8
    # The activity is in them, too.
    rate = np.log(truth.users["rate"][:, None])
    known = 1 - unexplained(np.column_stack([vectors, np.ones(len(vectors))]), rate).mean() / rate.var()
    assert 0.5 < known < 0.9


def test_upstream_knows_tastes_without_the_emphasis_of_the_culture():
    world = make_world(
        np.random.default_rng(0), num_titles=10, num_territories=5, days=18, heterogeneity=1.0, feedback=0.4
    )
    personal, users = np.random.default_rng(1).normal(size=(5, LATENT)), np.zeros(5, USER)
    users["territory"], users["rate"] = np.arange(5), 1.0
    users["taste"] = world.emphases * personal + world.local_tastes

    class Noiseless:
        def normal(self, mean, deviation, shape):
            return np.zeros(shape)

    known = module._upstream(Noiseless(), world, users)
    np.testing.assert_allclose(known[:, :-1], personal + world.local_tastes, atol=1e-5)
    assert (known[:, -1] == 0).all()


def test_title_vectors_tell_more_of_titles_with_large_audiences(logs, folder):
    truth, vectors = Truth(folder), VectorStore(logs.title_vectors).vectors.astype("float64")
    latents = np.stack(truth.titles["latent"].to_numpy())
    error = unexplained(vectors, latents)
    assert 0.02 < error.mean() / latents.var() < 0.3
    share = dict(zip(truth.territories["territory"].to_pylist(), truth.territories["share"].to_pylist(), strict=True))
    table = pd.read_parquet(logs.availability)
    audience = table.territory.map(share).groupby(table.title).sum().to_numpy()
    assert error[audience < 0.1].mean() > 1.5 * error[audience > 0.5].mean()


def test_heterogeneity_sets_territories_apart(tmp_path):
    def distance(heterogeneity):
        return mean_distance(title_shares(simulator(tmp_path, num_users=8_000, heterogeneity=heterogeneity)))

    assert distance(1.0) > 1.2 * distance(0.0)


def test_names_differ_and_run_out_into_sequels(tmp_path):
    logs = simulator(tmp_path, num_users=10, num_titles=2_000, num_territories=4, days=18)
    names = pd.read_parquet(logs.titles).name
    assert names.nunique() == 2_000
    assert names.str.endswith(" 3").sum() == 2_000 - 2 * 24 * 32


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ({"num_users": 0}, "`num_users` must be an integer of at least 1. Received: num_users=0"),
        ({"num_titles": 9}, "`num_titles` must be an integer of at least 10. Received: num_titles=9"),
        ({"num_territories": 3}, "`num_territories` must be an integer of at least 4. Received: num_territories=3"),
        ({"days": 17}, "`days` must be an integer of at least 18. Received: days=17"),
        ({"seed": -1}, "`seed` must be an integer of at least 0. Received: seed=-1"),
        ({"heterogeneity": 1.5}, "`heterogeneity` must be from 0 to 1. Received: heterogeneity=1.5"),
        ({"feedback": -0.1}, "`feedback` must be from 0 to 1. Received: feedback=-0.1"),
        ({"widths": (0, 8)}, r"`widths` must be two positive integers, .* Received: widths=.0, 8."),
        ({"widths": (8,)}, r"`widths` must be two positive integers, .* Received: widths=.8,."),
    ],
)
def test_arguments_out_of_range(tmp_path, argument, message):
    with pytest.raises(ValueError, match=message):
        simulator(tmp_path / "out", **argument)
    assert not (tmp_path / "out").exists()
