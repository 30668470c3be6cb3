import datetime

import duckdb
import numpy as np
import pandas as pd
import pytest

from tfmtr.datasets import simulator as module
from tfmtr.datasets.simulator import CHUNK, simulator
from tfmtr.datasets.vectors import VectorStore


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


def test_more_users_change_neither_the_world_nor_the_full_chunks(tmp_path):
    small = {"num_titles": 30, "num_territories": 5, "days": 20}
    few = simulator(tmp_path / "few", num_users=CHUNK, **small)
    more = simulator(tmp_path / "more", num_users=CHUNK + 200, **small)
    for table in ("titles", "availability"):
        assert getattr(few, table).read_bytes() == getattr(more, table).read_bytes()
    events, longer = pd.read_parquet(few.events), pd.read_parquet(more.events)
    pd.testing.assert_frame_equal(events, longer.head(len(events)))
    vectors, longer = VectorStore(few.user_vectors).vectors, VectorStore(more.user_vectors).vectors
    np.testing.assert_array_equal(vectors, longer[:CHUNK])
    # Another chunk is made by another generator.
    territory = pd.read_parquet(more.users).territory
    assert list(territory[:200]) != list(territory[CHUNK:])


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


def test_cultures_overlap_with_continents_but_are_not_the_same(folder):
    truth = pd.read_parquet(folder / "truth" / "territories.parquet")
    table = pd.crosstab(truth.territory.str[:2], truth.culture).to_numpy()
    main = table.max(axis=1).sum() / table.sum()
    assert 0.4 < main < 0.9


def test_titles_are_global_or_local_and_of_heavy_tailed_quality(logs, folder):
    truth = pd.read_parquet(folder / "truth" / "titles.parquet").set_index("title")
    offered = pd.read_parquet(logs.availability).groupby("title").territory.nunique().reindex(truth.index)
    is_global = truth.culture < 0
    assert 0.5 < is_global.mean() < 0.7
    assert 18 < offered[is_global].mean() < 22
    assert (offered[~is_global] == 1).mean() > 0.3
    assert offered[~is_global].max() > 3
    popularity = np.exp(truth.quality)
    assert popularity.nlargest(len(truth) // 20).sum() > 0.2 * popularity.sum()


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
    assert 0.05 < streamers.mean() < 0.10
    active = log[log.time < end - calendar.num_train * calendar.length].user.nunique() / num_users
    assert 0.4 < active < 0.75
    by_user = log.groupby("user").size().sort_values(ascending=False)
    assert by_user.head(num_users // 100).sum() > 0.08 * len(log)
    by_title = log.groupby("title").size().sort_values(ascending=False)
    assert by_title.head(len(by_title) // 20).sum() > 0.25 * len(log)


def test_windows_end_with_the_log(logs, log):
    first = datetime.datetime(2025, 1, 1)
    assert log.time.dt.date.nunique() == 60
    assert log.time.min() >= first
    assert log.time.max() < first + datetime.timedelta(days=60)
    assert logs.calendar.end.replace(tzinfo=None) == first + datetime.timedelta(days=57)


def test_evenings_are_local(logs, log):
    hours = np.exp(2j * np.pi * (log.time.dt.hour + 0.5) / 24).groupby(log.territory).mean()
    peak = pd.Series(np.angle(hours), hours.index) * 24 / (2 * np.pi)
    shift = pd.Series({name: longitude / 15 for name, (longitude, _) in logs.neighbours.items()})
    large = log.groupby("territory").size() > 500
    difference = (peak + shift - 20.5)[large] % 24
    assert np.minimum(difference, 24 - difference).max() < 1


@pytest.mark.parametrize(("role", "width"), [("user", 64), ("title", 96)])
def test_vectors_are_finite_and_belong_to_the_rows(logs, role, width):
    store = VectorStore(getattr(logs, f"{role}_vectors"))
    store.check(f"{role}_vectors")
    assert store.vectors.dtype == np.float32
    assert store.width == width
    assert list(pd.read_parquet(store.ids)[role]) == list(pd.read_parquet(getattr(logs, f"{role}s"))[role])


def test_user_vectors_are_noisier_in_small_territories(logs):
    users = pd.read_parquet(logs.users)
    vectors = VectorStore(logs.user_vectors).vectors
    # The truth has 17 dimensions; across them is only noise.
    across = np.linalg.svd(vectors, full_matrices=False)[2][-40:]
    noise = pd.Series((vectors @ across.T).std(axis=1), users.index).groupby(users.territory).mean()
    sizes = users.groupby("territory").size()
    assert np.corrcoef(np.log(sizes), noise)[0, 1] < -0.9
    assert noise.max() > 2 * noise.min()


def test_title_vectors_are_a_noisy_linear_view(logs, folder):
    latents = np.stack(pd.read_parquet(folder / "truth" / "titles.parquet").latent)
    vectors = VectorStore(logs.title_vectors).vectors
    weights, *_ = np.linalg.lstsq(latents, vectors, rcond=None)
    explained = 1 - ((vectors - latents @ weights) ** 2).sum() / (vectors**2).sum()
    assert 0.5 < explained < 0.95


def test_heterogeneity_sets_territories_apart(tmp_path):
    far, near = (
        mean_distance(title_shares(simulator(tmp_path / str(h), num_users=10_000, heterogeneity=h))) for h in (1.0, 0.0)
    )
    assert far > 1.3 * near
    truth = pd.read_parquet(tmp_path / "0.0" / "truth" / "territories.parquet")
    assert np.ptp(np.stack(truth.taste), axis=0).max() == 0
    assert np.ptp(np.stack(pd.read_parquet(tmp_path / "1.0/truth/territories.parquet").taste), axis=0).min() > 0


def test_draws_follow_the_softmax():
    rng = np.random.default_rng(0)
    world = module._make_world(rng, num_titles=12, num_territories=4, days=20, heterogeneity=1.0)
    taste, territory = rng.normal(0, 0.5, (2, module.LATENT)), np.array([0, 3])
    offers = np.zeros((4, 2, 12), bool)
    offers[0, 0, [0, 2, 5]] = offers[0, 1, [5, 7]] = offers[3, :, 1:] = True
    user, title, seconds = module._draw_events(rng, world, offers, territory, taste, np.array([20_000.0, 20_000.0]))
    for row in range(2):
        for day in range(2):
            drawn = title[(user == row) & (seconds // 86_400 == day)]
            weights = np.exp(taste[row] @ world.latents + world.qualities) * offers[territory[row], day]
            expected = weights / weights.sum()
            frequencies = np.bincount(drawn, minlength=12) / len(drawn)
            np.testing.assert_allclose(frequencies, expected, atol=0.015)
            assert not frequencies[~offers[territory[row], day]].any()
    assert (np.diff(user * 1e9 + seconds) >= 0).all()


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
    ],
)
def test_arguments_out_of_range(tmp_path, argument, message):
    with pytest.raises(ValueError, match=message):
        simulator(tmp_path / "out", **argument)
    assert not (tmp_path / "out").exists()
