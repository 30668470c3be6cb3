"""The truth of a simulated video service: territories on a map, titles, and what users are shown.

A title that a user is shown is streamed with probability

    relevance = sigmoid(<taste, latent> + quality + BIAS)    taste = emphasis * personal + h (culture + territory)

where `h` is `heterogeneity` and `emphasis = exp(h e)` says how much each latent factor counts in a culture. A user is
shown a title a Poisson number of times a day, by a previous recommender that knows tastes in part and prefers what was
popular:

    exposure = rate * weight * exp(0.3 <taste, latent>)    weight ~ popularity ** feedback * weekday, of offered titles

Streams are then Poisson with the mean `exposure * relevance`. A title's popularity are the streams that the week before
is expected to have, half in the territory and half in the world, so that no week waits for the events of another.

Territories lie on four continents, and those of a continent mostly, not always, belong to the same of four cultures.
"""

import dataclasses

import numpy as np

LATENT = 16
PANEL = 256  # users that stand for all where popularity is expected
BIAS = -4.0
STRAYS = 0.4  # share of the territories whose culture is not decided by the continent
WEEK = (0.86, 0.84, 0.86, 0.9, 1.1, 1.26, 1.18)  # Monday to Sunday, mean 1
WEEKDAY = 2  # of day 0, a Wednesday
STAYING = 0.25  # share of the titles that are no promotion and stay
NUM_MAJORS = 16
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")

# Continent: longitude and latitude of its middle.
CONTINENTS = {"am": (-80.0, 15.0), "eu": (12.0, 49.0), "af": (22.0, 0.0), "as": (105.0, 25.0)}
NUM_CULTURES = len(CONTINENTS)


@dataclasses.dataclass(frozen=True)
class World:
    """Territories, titles and exposure; arrays are float64 unless said otherwise.

    Args:
        continents, cultures: Integers, shape `(num_territories,)`.
        positions: Longitude and latitude in degrees, shape `(num_territories, 2)`.
        shares: Of the users, shape `(num_territories,)`.
        local_tastes: `h (culture + territory)`, shape `(num_territories, LATENT)`.
        emphases: Shape `(num_territories, LATENT)`, 1 without heterogeneity.
        age_tastes: What users of an age band have in common everywhere, shape `(len(AGE_BANDS), LATENT)`.
        homes: Culture of a local title, -1 for a global one, shape `(num_titles,)`.
        latents: Float32, shape `(LATENT, num_titles)`.
        qualities: Float32, shape `(num_titles,)`.
        starts, ends: First day that a territory offers a title, and first day that it does not any more,
            shape `(num_territories, num_titles)`; equal where the territory never offers it.
        exposure: The weights, float32 of shape `(num_territories, days, num_titles)`; 0 where a title is not offered.
            On a day of average traffic the average user of a territory streams `rate` titles.
    """

    continents: np.ndarray
    cultures: np.ndarray
    positions: np.ndarray
    shares: np.ndarray
    local_tastes: np.ndarray
    emphases: np.ndarray
    age_tastes: np.ndarray
    homes: np.ndarray
    latents: np.ndarray
    qualities: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    exposure: np.ndarray

    @property
    def is_offered(self) -> np.ndarray:
        """Whether a territory ever offers a title, shape `(num_territories, num_titles)`."""
        return self.ends > self.starts


def make_world(
    rng: np.random.Generator, *, num_titles: int, num_territories: int, days: int, heterogeneity: float, feedback: float
) -> World:
    """Draws a `World`.

    Args:
        rng: NumPy generator.
        num_titles: Number of titles.
        num_territories: Number of territories, at least 4.
        days: Days of `exposure`.
        heterogeneity: From 0 (all territories share one taste) to 1.
        feedback: From 0 (all titles that are offered get equal weights) to 1 (weights proportional to popularity).

    Returns:
        A `World`.
    """
    rank = np.arange(num_territories)
    continents = rank % len(CONTINENTS)  # so that every continent has large and small territories
    sizes = territory_sizes(num_territories)
    strays = rng.integers(NUM_CULTURES, size=num_territories)
    cultures = np.where(rng.random(num_territories) < STRAYS, strays, continents)
    culture_tastes = rng.normal(0, 0.25, (NUM_CULTURES, LATENT))
    local_tastes = culture_tastes[cultures] + rng.normal(0, 0.15, (num_territories, LATENT))
    emphases = np.exp(heterogeneity * rng.normal(0, 0.5, (NUM_CULTURES, LATENT)))[cultures]

    kinds = rng.choice(3, size=num_titles, p=(0.6, 0.2, 0.2))  # global, of one culture, of one territory
    kinds[0] = 0  # of which there is always one, see `_availability`
    owners = rng.choice(num_territories, size=num_titles, p=np.sqrt(sizes) / np.sqrt(sizes).sum())
    homes = np.where(kinds == 0, -1, cultures[owners])
    leanings = np.where(kinds[:, None] == 1, culture_tastes[homes], local_tastes[owners])
    latents = rng.normal(0, 1, (num_titles, LATENT)) + heterogeneity * (kinds[:, None] > 0) * leanings
    offered = np.select(
        [kinds == 0, kinds == 1],
        [rng.random((num_territories, num_titles)) < 0.85, cultures[:, None] == homes],
        rank[:, None] == owners,
    )
    starts, ends = _availability(rng, offered, days)
    world = World(
        continents=continents,
        cultures=cultures,
        positions=np.array(list(CONTINENTS.values()))[continents] + rng.normal(0, (14.0, 8.0), (num_territories, 2)),
        shares=sizes / sizes.sum(),
        local_tastes=heterogeneity * local_tastes,
        emphases=emphases,
        age_tastes=rng.normal(0, 0.15, LATENT) + rng.normal(0, 0.1, (len(AGE_BANDS), LATENT)),
        homes=homes,
        latents=latents.T.astype(np.float32),
        qualities=rng.exponential(0.4, num_titles).astype(np.float32),
        starts=starts,
        ends=ends,
        exposure=np.empty((num_territories, days, num_titles), np.float32),
    )
    _fill_exposure(rng, world, feedback)
    return world


def territory_sizes(num_territories: int) -> np.ndarray:
    """Relative sizes of territories, falling.

    The 16 largest have the orders of Table 1 of Gampa et al., "Multi-Task Learning For Reduced Popularity Bias In
    Multi-Territory Video Recommendations", 2023: six of 1M, seven of 100k, three of 10k, a hundredfold in all. Of the
    others the paper says only that there are more than 200 territories; that each has 2.5 % less than the one before,
    the 200th a hundredth of the 16th, is an assumption. Fewer than 16 territories spread over the same hundredfold.

    Args:
        num_territories: At least 2.

    Returns:
        Array of shape `(num_territories,)`.

    Example:
    >>> territory_sizes(200)[[0, 5, 6, 12, 13, 15, 199]].astype(int).tolist()
    [3981071, 1328780, 978278, 111228, 73945, 31622, 316]
    """
    last = NUM_MAJORS - 1
    rank = np.arange(num_territories) * max(1.0, last / (num_territories - 1))
    majors, others = 6.6 - 2.1 * (rank / last) ** 1.35, 4.5 - 2.0 * (rank - last) / (199 - last)
    return 10 ** np.where(rank <= last, majors, others)


def personal_tastes(rng: np.random.Generator, world: World, age: np.ndarray) -> np.ndarray:
    """Tastes of users but for their territory's part, float64 of shape `(users, LATENT)`.

    Args:
        rng: NumPy generator.
        world: The `World`.
        age: Index of the age band, shape `(users,)`.
    """
    return world.age_tastes[age] + rng.normal(0, 0.22, (len(age), LATENT))


def attraction(affinity: np.ndarray) -> np.ndarray:
    """How many times more often than indifferent ones the previous recommender shows titles of an affinity."""
    return np.exp(0.3 * affinity)


def relevance(affinity: np.ndarray, qualities: np.ndarray) -> np.ndarray:
    """Probability that a title is streamed when it is shown."""
    return 1 / (1 + np.exp(-BIAS - affinity - qualities))


def _availability(rng: np.random.Generator, offered: np.ndarray, days: int) -> tuple[np.ndarray, np.ndarray]:
    """Start and end of each title in each territory: promotions last for weeks, staggered over territories."""
    num_titles = offered.shape[1]
    stays = rng.random(num_titles) < STAYING
    stays[0], offered[:, 0] = True, True  # no territory is ever without a title
    delays = rng.integers(0, 8, offered.shape)
    starts = np.where(stays, 0, rng.integers(-30, days, num_titles) + delays)
    ends = np.where(stays, days + 365, starts + rng.integers(21, 61, num_titles))
    starts = np.maximum(starts, 0)
    return starts, np.where(offered, np.maximum(ends, starts), starts)


def _fill_exposure(rng: np.random.Generator, world: World, feedback: float) -> None:
    """Weights of one week after the other; in the first one all titles are equally popular."""
    streams = _panel(rng, world)
    popularity, days = np.ones(streams.shape), world.exposure.shape[1]
    for first in range(0, days, 7):
        day = np.arange(first, min(first + 7, days))
        offers = (world.starts[:, None] <= day[:, None]) & (day[:, None] < world.ends[:, None])
        weights = offers * popularity[:, None] ** feedback
        weights *= np.array(WEEK)[(WEEKDAY + day) % 7, None] / (weights * streams[:, None]).sum(axis=2, keepdims=True)
        world.exposure[:, day] = weights
        popularity = _popularity(weights.sum(axis=1) * streams, world.shares)


def _panel(rng: np.random.Generator, world: World) -> np.ndarray:
    """Mean `attraction * relevance` over users, shape `(num_territories, num_titles)`."""
    personal = personal_tastes(rng, world, rng.integers(len(AGE_BANDS), size=PANEL))
    streams = []
    for emphasis, local in zip(world.emphases, world.local_tastes, strict=True):
        affinity = (emphasis * personal + local).astype(np.float32) @ world.latents
        streams.append((attraction(affinity) * relevance(affinity, world.qualities)).mean(axis=0))
    return np.array(streams)


def _popularity(streams: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Half local, half global streams in units of the average streamed title; 1 for titles without any."""

    def relative(streams: np.ndarray) -> np.ndarray:
        mean = streams.sum(axis=-1, keepdims=True) / (streams > 0).sum(axis=-1, keepdims=True)
        return np.where(streams > 0, streams / mean, 1.0)

    return (relative(streams) + relative(shares @ streams)) / 2
