"""Users of a simulated service, and what they are shown and stream."""

import numpy as np

from tfmtr.datasets.world import AGE_BANDS, LATENT, World, attraction, personal_tastes, relevance

BLOCK = 1_024  # users whose appeals are computed at once
EVENING, EVENING_HOURS = 20.5, 3.0

USER = np.dtype(
    [
        ("territory", np.int16),
        ("age", np.int8),
        ("joined", np.int16),  # first day
        ("left", np.int16),  # first day after the last
        ("rate", np.float32),  # titles streamed a day by a user of average taste
        ("taste", np.float32, LATENT),
    ]
)


class Audience:
    """Draws users and their events, chunk by chunk.

    Args:
        world: The `World`.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.days = world.exposure.shape[1]
        self.totals = world.exposure.sum(axis=1)
        self.calendars = _cumulate(np.moveaxis(world.exposure, 1, 2).reshape(-1, self.days))

    def draw_users(self, rng: np.random.Generator, size: int) -> np.ndarray:
        """Draws users: most are there all the time, a quarter joins later, a fifth leaves.

        Args:
            rng: NumPy generator.
            size: Number of users.

        Returns:
            Array of `USER`, shape `(size,)`.
        """
        world, users = self.world, np.empty(size, USER)
        territory = users["territory"] = rng.choice(len(world.shares), size, p=world.shares)
        age = users["age"] = rng.integers(len(AGE_BANDS), size=size)
        taste = world.emphases[territory] * personal_tastes(rng, world, age) + world.local_tastes[territory]
        users["taste"] = taste
        users["rate"] = _rates(rng, size)
        joined = users["joined"] = np.where(rng.random(size) < 0.25, rng.integers(1, self.days, size), 0)
        users["left"] = np.where(rng.random(size) < 0.2, rng.integers(joined + 1, self.days + 1), self.days)
        return users

    def draw_events(
        self, rng: np.random.Generator, users: np.ndarray, *, streamed: bool = True
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draws what users stream, or what they are shown and do not stream.

        A Poisson number of showings of which each is streamed by chance are two independent Poisson numbers, so the
        two are drawn apart. The titles of all days come first, then the day of each, by the weights of its title.

        Args:
            rng: NumPy generator.
            users: Array of `USER`.
            streamed: Whether the showings that became streams are wanted, or the others.

        Returns:
            `(user, title, seconds)`: integers of shape `(events,)`, sorted by user and time: row of `users`, row of the
            title, seconds since the start of day 0 (UTC).
        """
        drawn = [self._draw_titles(rng, users[i : i + BLOCK], streamed) for i in range(0, len(users), BLOCK)]
        user = np.concatenate([row + BLOCK * i for i, (row, _) in enumerate(drawn)])
        title = np.concatenate([title for _, title in drawn])
        territory = users["territory"][user].astype(np.int64)
        day = _draw(rng, self.calendars, self.days, territory * self.totals.shape[1] + title)
        # Evenings are busy, at the local time of the territory; the date stays UTC.
        longitude = self.world.positions[territory, 0]
        hour = (rng.normal(EVENING, EVENING_HOURS, len(user)) - longitude / 15.0) % 24
        seconds = day * 86_400 + np.minimum(hour * 3_600, 86_399).astype(np.int64)
        there = (users["joined"][user] <= day) & (day < users["left"][user])
        user, title, seconds = user[there], title[there], seconds[there]
        order = np.lexsort((seconds, user))
        return user[order], title[order], seconds[order]

    def _draw_titles(
        self, rng: np.random.Generator, users: np.ndarray, streamed: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Row of the user and of the title of all events of a block, as if its users were always there."""
        affinity = users["taste"] @ self.world.latents
        likely = relevance(affinity, self.world.qualities)
        means = self.totals[users["territory"]] * attraction(affinity) * (likely if streamed else 1 - likely)
        counts = rng.poisson(users["rate"] * means.sum(axis=1))
        user = np.repeat(np.arange(len(users)), counts)
        return user, _draw(rng, _cumulate(means), means.shape[1], user)


def _rates(rng: np.random.Generator, size: int) -> np.ndarray:
    """Titles that users of average taste stream a day: heavy-tailed, and three users in ten hardly come at all."""
    is_dormant = rng.random(size) < 0.3
    return np.minimum(rng.lognormal(-2.3, 1.1, size), 6.0) * np.where(is_dormant, 0.03, 1.0)


def _cumulate(weights: np.ndarray) -> np.ndarray:
    """Cumulative shares of the weights of row `i`, rising from `i` to `i + 1`; one array for all rows."""
    cumulative = weights.cumsum(axis=1, dtype=np.float64)
    cumulative /= np.where(cumulative[:, -1:] > 0, cumulative[:, -1:], 1.0)  # a row of zeros is never drawn from
    cumulative += np.arange(len(weights))[:, None]
    return cumulative.ravel()


def _draw(rng: np.random.Generator, cumulative: np.ndarray, num_columns: int, row: np.ndarray) -> np.ndarray:
    """A column for each given row, drawn by its weight, never one without weight.

    Draws are multiples of 2 ** -24, which stay exact when a row number is added.
    """
    place = np.searchsorted(cumulative, row + rng.random(len(row), np.float32), side="right")
    return place - row * num_columns
