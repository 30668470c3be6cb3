import numpy as np
import pytest

from tfmtr.datasets import audience as module
from tfmtr.datasets.audience import BLOCK, USER, Audience
from tfmtr.datasets.world import make_world, relevance


@pytest.fixture(scope="module")
def world():
    options = {"num_titles": 12, "num_territories": 4, "days": 20, "heterogeneity": 1.0, "feedback": 0.4}
    return make_world(np.random.default_rng(0), **options)


@pytest.fixture(scope="module")
def audience(world):
    return Audience(world)


def two_users(rate):
    """A user of territory 0 who is always there, and one of territory 3 from day 5 to day 11."""
    users = np.zeros(2, USER)
    users["territory"], users["rate"] = [0, 3], rate
    users["joined"], users["left"] = [0, 5], [20, 12]
    users["taste"] = np.random.default_rng(1).normal(0, 0.5, users["taste"].shape)
    return users


def count(users, events):
    """Events by user, day and title."""
    user, title, seconds = events
    counts = np.zeros((len(users), 20, 12), int)
    np.add.at(counts, (user, seconds // 86_400, title), 1)
    return counts


@pytest.mark.parametrize("streamed", [True, False])
def test_numbers_of_events_are_poisson_with_the_mean_of_the_model(world, audience, streamed):
    users = two_users(2_000.0)
    counts = count(users, audience.draw_events(np.random.default_rng(2), users, streamed=streamed))
    expected = np.zeros(counts.shape)
    for row, user in enumerate(users):
        affinity = user["taste"] @ world.latents
        likely = relevance(affinity, world.qualities)
        shown = user["rate"] * world.exposure[user["territory"]] * np.exp(0.3 * affinity)
        expected[row] = shown * (likely if streamed else 1 - likely)
        expected[row, : user["joined"]] = expected[row, user["left"] :] = 0
    assert not counts[expected == 0].any()
    cells = expected > 5
    assert cells.sum() > 100
    chi_square = ((counts[cells] - expected[cells]) ** 2 / expected[cells]).sum()
    assert abs(chi_square - cells.sum()) < 4 * np.sqrt(2 * cells.sum())


def test_events_are_sorted_by_user_and_time(audience):
    rng = np.random.default_rng(3)
    users = audience.draw_users(rng, 2 * BLOCK + 100)
    user, title, seconds = audience.draw_events(rng, users)
    assert (np.diff(user * 1e9 + seconds) >= 0).all()
    assert 2 * BLOCK < user.max() < len(users)
    assert title.min() >= 0
    assert title.max() < 12


def test_users_of_all_blocks_stream_what_they_are_offered(audience, world):
    rng = np.random.default_rng(4)
    users = audience.draw_users(rng, 3 * BLOCK)
    user, title, seconds = audience.draw_events(rng, users)
    who, day = users[user], seconds // 86_400
    assert (world.exposure[who["territory"], day, title] > 0).all()
    assert ((who["joined"] <= day) & (day < who["left"])).all()


def test_users_join_and_leave(audience):
    users = audience.draw_users(np.random.default_rng(5), 20_000)
    assert 0.7 < (users["joined"] == 0).mean() < 0.8
    assert 0.75 < (users["left"] == 20).mean() < 0.85
    assert (users["joined"] < users["left"]).all()
    assert (np.bincount(users["joined"])[1:] > 100).all()
    assert (np.bincount(users["left"])[1:] > 20).all()
    assert np.bincount(users["left"])[0] == 0


def test_most_users_are_hardly_active_and_a_few_very(audience):
    rates = np.sort(audience.draw_users(np.random.default_rng(6), 50_000)["rate"])[::-1]
    assert rates.max() == 6
    assert 0.2 < (rates < 0.02).mean() < 0.4
    assert 0.08 < rates[:500].sum() / rates.sum() < 0.15
    assert 0.1 < rates.mean() < 0.15


def test_tastes_have_the_emphasis_of_the_culture_around_the_taste_of_the_territory(audience, world):
    users = audience.draw_users(np.random.default_rng(9), 40_000)
    for territory in range(4):
        tastes = users["taste"][users["territory"] == territory]
        np.testing.assert_allclose(
            tastes.mean(axis=0),
            world.emphases[territory] * world.age_tastes.mean(axis=0) + world.local_tastes[territory],
            atol=0.1,
        )
        spread = np.sqrt(0.22**2 + world.age_tastes.var(axis=0))
        np.testing.assert_allclose(tastes.std(axis=0), world.emphases[territory] * spread, rtol=0.1)


def test_evenings_are_local(audience, world):
    rng = np.random.default_rng(7)
    users = two_users(5_000.0)
    user, _, seconds = audience.draw_events(rng, users)
    for row in range(2):
        hour = seconds[user == row] % 86_400 / 3_600 + world.positions[users["territory"][row], 0] / 15
        peak = np.angle(np.exp(2j * np.pi * hour / 24).mean()) * 24 / (2 * np.pi) % 24
        assert abs(peak - module.EVENING) < 0.3


def test_a_draw_has_a_weight():
    weights = np.array([[0, 0, 3, 0, 1, 0], [0, 0, 0, 0, 0, 0], [5, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 2]], float)
    row = np.repeat([0, 2, 3], 4_000)
    column = module._draw(np.random.default_rng(8), module._cumulate(weights), 6, row)
    assert (weights[row, column] > 0).all()
    assert abs((column[row == 0] == 2).mean() - 0.75) < 0.03


@pytest.mark.parametrize("value", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_have_a_weight_too(value):
    class Constant:
        def random(self, size, dtype):
            return np.full(size, value, dtype)

    weights = np.tile([0.0, 1.0, 0.0, 3.0, 0.0], (BLOCK, 1))
    column = module._draw(Constant(), module._cumulate(weights), 5, np.arange(BLOCK))
    assert (column == (1 if value == 0 else 3)).all()
