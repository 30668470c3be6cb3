import numpy as np
import pytest

from tfmtr.datasets.world import LATENT, NUM_CULTURES, WEEK, WEEKDAY, make_world, relevance, territory_sizes


def draw_world(seed=0, **changes):
    options = {"num_titles": 300, "num_territories": 24, "days": 60, "heterogeneity": 0.7, "feedback": 0.4}
    return make_world(np.random.default_rng(seed), **{**options, **changes})


@pytest.fixture(scope="module")
def world():
    return draw_world()


def title_streams(world, territories=slice(None)):
    """Streams that titles are expected to have on each day by 2,000 users of each territory.

    Returns:
        Array of shape `(num_territories, days, num_titles)`.
    """
    personal = np.random.default_rng(1).normal(0, 0.22, (2_000, LATENT)) + world.age_tastes.mean(axis=0)
    means = []
    for emphasis, local in zip(world.emphases[territories], world.local_tastes[territories], strict=True):
        affinity = ((emphasis * personal + local) @ world.latents).astype("float32")
        means.append((np.exp(0.3 * affinity) * relevance(affinity, world.qualities)).mean(axis=0))
    return world.exposure[territories] * np.array(means)[:, None]


def gini(sizes):
    sizes = np.sort(sizes)
    return 2 * (np.arange(1, len(sizes) + 1) @ sizes) / (len(sizes) * sizes.sum()) - (len(sizes) + 1) / len(sizes)


def test_major_territories_have_the_orders_of_table_1():
    sizes = territory_sizes(220)
    assert (np.diff(sizes) < 0).all()
    assert list(np.floor(np.log10(sizes[:16]))) == [6] * 6 + [5] * 7 + [4] * 3
    assert 100 < sizes[0] / sizes[15] < 150
    assert sizes[:16].sum() > 0.9 * sizes.sum()
    assert sizes[15] / sizes[199] == pytest.approx(100)
    # Few territories keep the ratio; more of them change no other's size.
    assert territory_sizes(4)[0] / territory_sizes(4)[3] == pytest.approx(sizes[0] / sizes[15])
    np.testing.assert_allclose(territory_sizes(24), sizes[:24])


def test_cultures_overlap_with_continents_but_are_not_the_same():
    world = draw_world(num_territories=220, num_titles=10, days=18)
    table = np.zeros((4, NUM_CULTURES))
    np.add.at(table, (world.continents, world.cultures), 1)
    assert (table.argmax(axis=1) == np.arange(4)).all()
    assert 0.6 < table.max(axis=1).sum() / 220 < 0.8
    assert (table > 0).all()
    # Neighbours: a continent's territories are nearer to its middle than to any other's.
    middles = np.stack([world.positions[world.continents == c].mean(axis=0) for c in range(4)])
    distances = np.linalg.norm(world.positions[:, None] - middles, axis=-1)
    assert (distances.argmin(axis=1) == world.continents).mean() > 0.9


def test_territories_of_a_culture_have_tastes_in_common(world):
    def distance(pairs):
        return np.mean([np.linalg.norm(world.local_tastes[i] - world.local_tastes[j]) for i, j in pairs])

    pairs = [(i, j) for i in range(24) for j in range(i)]
    own = [(i, j) for i, j in pairs if world.cultures[i] == world.cultures[j]]
    assert distance(own) < 0.8 * distance(set(pairs) - set(own))
    for i, j in own:
        np.testing.assert_array_equal(world.emphases[i], world.emphases[j])


def test_without_heterogeneity_there_is_one_taste_and_local_titles_lean_nowhere():
    world = draw_world(heterogeneity=0.0)
    assert (world.local_tastes == 0).all()
    assert (world.emphases == 1).all()
    culture_tastes = draw_world(heterogeneity=1.0).local_tastes
    local = world.homes >= 0
    owners = [np.flatnonzero(world.cultures == home)[0] for home in world.homes[local]]
    lean = np.einsum("tl,lt->t", culture_tastes[owners], world.latents[:, local])
    assert abs(lean.mean()) < 3 * lean.std() / np.sqrt(local.sum())
    # With heterogeneity the same titles lean towards their culture.
    lean = np.einsum("tl,lt->t", culture_tastes[owners], draw_world(heterogeneity=1.0).latents[:, local])
    assert lean.mean() > 6 * lean.std() / np.sqrt(local.sum())


def test_titles_are_global_or_local(world):
    offered = world.is_offered.sum(axis=0)
    is_global = world.homes < 0
    assert 0.5 < is_global.mean() < 0.7
    assert 18 < offered[is_global].mean() < 22
    assert (offered[~is_global] == 1).mean() > 0.4
    assert offered[~is_global].max() > 3
    for title in np.flatnonzero(~is_global):
        assert set(world.cultures[world.is_offered[:, title]]) == {world.homes[title]}


def test_titles_come_and_go_every_day(world):
    starts, ends = world.starts[world.is_offered], world.ends[world.is_offered]
    came, went = (np.bincount(days[days < 60], minlength=60) for days in (starts, ends))
    assert (came[8:] > 0).all()
    assert (went[30:] > 0).all()
    promoted = np.all(world.ends < 365, axis=0)
    assert 0.7 < promoted.mean() < 0.8
    # A promotion begins within a week or so in all its territories, not on one day.
    global_ones = promoted & (world.homes < 0) & (world.starts.min(axis=0) > 0)
    spread = np.ptp(world.starts[:, global_ones], axis=0)
    assert 4 < spread.mean() < 8


@pytest.mark.parametrize("seed", range(5))
def test_no_territory_is_ever_without_a_title(seed):
    world = draw_world(seed, num_titles=10, num_territories=60)
    assert (world.exposure.sum(axis=2) > 0).all()
    assert np.isfinite(world.exposure).all()
    assert world.homes[0] == -1


def test_relevance_is_a_sigmoid_of_affinity_and_quality():
    affinity, quality = np.array([-1.0, 0.0, 2.0]), np.array([0.5, 0.0, 1.0])
    np.testing.assert_allclose(relevance(affinity, quality), 1 / (1 + np.exp([4.5, 4.0, 1.0])))


def test_exposure_is_for_offered_titles_only(world):
    day = np.arange(60)[:, None]
    offers = (world.starts[:, None] <= day) & (day < world.ends[:, None])
    np.testing.assert_array_equal(world.exposure > 0, offers)
    assert offers.any(axis=2).all()


def test_a_rate_of_one_is_one_stream_on_an_average_day(world):
    assert np.mean(WEEK) == pytest.approx(1.0)
    streams = title_streams(world).sum(axis=2)
    weekday = (WEEKDAY + np.arange(60)) % 7
    assert weekday[3] == 5  # 4 January 2025 is a Saturday
    np.testing.assert_allclose(streams, np.broadcast_to(np.array(WEEK)[weekday], streams.shape), rtol=0.25)
    # The week does not depend on who looks at it.
    ratios = np.array(WEEK)[weekday[1:7]] / WEEK[WEEKDAY]
    np.testing.assert_allclose(streams[:, 1:7] / streams[:, :1], np.tile(ratios, (24, 1)), rtol=0.05)


def test_feedback_concentrates_streams_week_by_week():
    worlds = [draw_world(feedback=feedback) for feedback in (0.0, 0.4, 0.8)]
    streams = [title_streams(world, slice(1))[0] for world in worlds]
    by_feedback = [gini(days[49:].sum(axis=0)) for days in streams]
    assert by_feedback[0] + 0.02 < by_feedback[1] < by_feedback[2] - 0.02
    by_week = [gini(streams[2][7 * week : 7 * week + 7].sum(axis=0)) for week in range(8)]
    assert by_week[0] < by_week[1] < by_week[4]
    # Without feedback all offered titles of a day have one weight; with it a week's weights follow the week before.
    weights = worlds[0].exposure[0, 50]
    assert np.ptp(weights[weights > 0]) == pytest.approx(0, abs=1e-7)
    weights = worlds[2].exposure[0]
    kept = (weights[41] > 0) & (weights[42] > 0)
    before = streams[2][35:42].sum(axis=0)[kept]
    assert np.corrcoef(np.log(before), np.log(weights[42][kept]))[0, 1] > 0.8


def test_popularity_elsewhere_is_worth_half():
    """A title that is new in a territory is shown more if the world streams it."""
    world = draw_world(num_territories=24, feedback=1.0, heterogeneity=0.0)
    streams = title_streams(world)
    found = 0
    for territory in range(24):
        for week in range(1, 8):
            new = (world.exposure[territory, 7 * week - 7 : 7 * week] == 0).all(axis=0)
            new &= world.exposure[territory, 7 * week] > 0
            if new.sum() < 4:
                continue
            before = world.shares @ streams[:, 7 * week - 7 : 7 * week].sum(axis=1)
            relative = np.where(before > 0, before / before[before > 0].mean(), 1.0)[new]
            weights = world.exposure[territory, 7 * week][new]
            np.testing.assert_allclose(weights / weights[0], (1 + relative) / (1 + relative[0]), rtol=0.25)
            found += 1
    assert found > 10
