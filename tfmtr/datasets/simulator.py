"""A multi-territory video service in three tables and two feature stores, with a known truth.

Territories lie on four continents, their sizes fall over two orders of magnitude, and their audiences belong
to cultures that overlap with the continents without being the same. A user streams a Poisson number of titles
a day, each drawn from what the user's territory offers that day with probability

    softmax(<taste, latent> + quality)    with    taste = shared + h (culture + territory) + age + own,

where h is `heterogeneity`, the heavy-tailed quality belongs to the title, and local titles lean towards the
taste of their culture. Users are made in chunks, each with its own generator: memory is flat in their number.
"""

import contextlib
import dataclasses
import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.logs import Calendar, Logs

START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
NUM_TRAIN, NUM_TEST = 14, 3
CHUNK, BLOCK = 8_192, 8_192  # users made, and events drawn, at once
LATENT, USER_WIDTH, TITLE_WIDTH = 16, 64, 96
SIZE_RATIO = 200.0  # largest to smallest territory

# Continent: longitude and latitude of its middle.
CONTINENTS = {"am": (-80.0, 15.0), "eu": (12.0, 49.0), "af": (22.0, 0.0), "as": (105.0, 25.0)}
LANGUAGES = ("English", "Spanish", "French", "Hindi", "Japanese")  # one a culture
DEVICES = ("tv", "phone", "tablet", "computer")
AGE_BANDS = ("18-24", "25-34", "35-44", "45-54", "55+")
GENRES = (
    "action", "adventure", "animation", "comedy", "crime", "documentary",
    "drama", "fantasy", "horror", "romance", "science fiction", "thriller",
)  # fmt: skip
ADJECTIVES = (
    "Silent", "Golden", "Broken", "Hidden", "Crimson", "Distant", "Electric", "Forgotten", "Frozen", "Gentle",
    "Hollow", "Last", "Little", "Lonely", "Lost", "Midnight", "Paper", "Restless", "Salt", "Second",
    "Stolen", "Velvet", "Wild", "Winter",
)  # fmt: skip
NOUNS = (
    "Archive", "Bridge", "Carnival", "City", "Coast", "Daughter", "Detective", "Empire", "Engine", "Forest",
    "Garden", "Harbor", "Highway", "Horizon", "Hour", "House", "Island", "Kingdom", "Letter", "Lighthouse",
    "Market", "Mirror", "Mountain", "Orchard", "Passenger", "Promise", "River", "Road", "Signal", "Station",
    "Summer", "Voyage",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _World:
    """The truth about territories, first axis `num_territories`, and titles, last axis `num_titles`.

    Args:
        continents, cultures: Integers, shape `(num_territories,)`.
        positions: Longitude and latitude, shape `(num_territories, 2)`.
        shares: Of the users, shape `(num_territories,)`.
        tastes: Shape `(num_territories, LATENT)`.
        homes: Culture of a local title, -1 for a global one, shape `(num_titles,)`.
        latents: Shape `(LATENT, num_titles)`.
        qualities: Shape `(num_titles,)`.
        starts, ends: First day that a territory offers a title, and first day that it does not any more,
            shape `(num_territories, num_titles)`; equal where the territory never offers it.
        age_tastes: Shape `(len(AGE_BANDS), LATENT)`.
        user_view: How the upstream store sees (taste, activity), shape `(LATENT + 1, USER_WIDTH)`.
    """

    continents: np.ndarray
    cultures: np.ndarray
    positions: np.ndarray
    shares: np.ndarray
    tastes: np.ndarray
    homes: np.ndarray
    latents: np.ndarray
    qualities: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    age_tastes: np.ndarray
    user_view: np.ndarray

    @property
    def territories(self):
        """Territory codes such as `"eu-05"`."""
        return [f"{list(CONTINENTS)[continent]}-{i:02}" for i, continent in enumerate(self.continents)]

    @property
    def titles(self):
        """Title ids."""
        return _ids("t", 0, len(self.qualities))


def simulator(out, *, num_users=20_000, num_titles=400, num_territories=24, days=60, heterogeneity=0.7, seed=0):
    """Simulates a multi-territory video service and describes its tables.

    Beside the tables the folder `truth/` holds what no model may see: tastes of the territories, latent
    factors and qualities of the titles. Equal arguments give equal bytes, and the territories and titles do
    not depend on `num_users`.

    Args:
        out: Folder for `events.parquet`, `users.parquet`, `titles.parquet`, `availability.parquet`,
            `user_vectors/`, `title_vectors/` and `truth/`; made if missing.
        num_users: Number of users.
        num_titles: Number of titles, at least 10.
        num_territories: Number of territories, at least 4 (one a continent).
        days: Length of the log, at least 18; the last 17 days are 14 training and 3 test windows.
        heterogeneity: From 0 (all territories share one taste) to 1.
        seed: Non-negative integer.

    Returns:
        The `Logs`: a day a window, availability from a table, vectors from stores, no groups.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> import tempfile
    >>> logs = simulator(tempfile.mkdtemp(), num_users=100, num_titles=20, num_territories=4, days=20)
    >>> sorted(logs.neighbours)
    ['af-02', 'am-00', 'as-03', 'eu-01']
    """
    _check_at_least(num_users=(num_users, 1), num_titles=(num_titles, 10), num_territories=(num_territories, 4))
    _check_at_least(days=(days, NUM_TRAIN + NUM_TEST + 1), seed=(seed, 0))
    if not 0.0 <= heterogeneity <= 1.0:
        raise ValueError(f"`heterogeneity` must be from 0 to 1. Received: heterogeneity={heterogeneity!r}")
    out = Path(out)
    for folder in ("user_vectors", "title_vectors", "truth"):
        (out / folder).mkdir(parents=True, exist_ok=True)
    # NumPy pads a seed with zeros, so [seed] and [seed, 0] are the same generator: chunks start at 1.
    rng = np.random.default_rng([seed, 0])
    world = _make_world(rng, num_titles, num_territories, days, heterogeneity)
    _write_titles(out, world, rng)
    _write_users(out, world, num_users, days, seed)
    return Logs(
        events=out / "events.parquet",
        users=out / "users.parquet",
        titles=out / "titles.parquet",
        columns={"user": "user", "title": "title", "territory": "territory", "time": "time", "name": "name"},
        availability=out / "availability.parquet",
        user_vectors=out / "user_vectors",
        title_vectors=out / "title_vectors",
        calendar=Calendar(
            length=datetime.timedelta(days=1),
            num_train=NUM_TRAIN,
            num_test=NUM_TEST,
            end=START + datetime.timedelta(days=days - NUM_TEST),
        ),
        neighbours={
            name: tuple(position) for name, position in zip(world.territories, world.positions.tolist(), strict=True)
        },
        user_history=False,
    )


def _check_at_least(**arguments):
    for name, (value, least) in arguments.items():
        if value < least:
            raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}")


def _make_world(rng, num_titles, num_territories, days, heterogeneity):
    rank = np.arange(num_territories)
    continents = rank % len(CONTINENTS)  # so that every continent has large and small territories
    middles = np.array(list(CONTINENTS.values()))[continents]
    sizes = SIZE_RATIO ** (-rank / (num_territories - 1))
    num_cultures = len(LANGUAGES)
    strays = rng.integers(num_cultures, size=num_territories)
    cultures = np.where(rng.random(num_territories) < 0.6, continents, strays)
    culture_tastes = rng.normal(0, 0.25, (num_cultures, LATENT))
    local_tastes = culture_tastes[cultures] + rng.normal(0, 0.15, (num_territories, LATENT))

    kinds = rng.choice(3, size=num_titles, p=(0.6, 0.2, 0.2))  # global, of one culture, of one territory
    owners = rng.integers(num_territories, size=num_titles)
    homes = np.where(kinds == 0, -1, cultures[owners])
    latents = rng.normal(0, 1, (num_titles, LATENT))
    latents += heterogeneity * 2.0 * np.where(kinds[:, None] > 0, culture_tastes[homes], 0.0)
    offered = np.select(
        [kinds == 0, kinds == 1],
        [rng.random((num_territories, num_titles)) < 0.85, cultures[:, None] == homes],
        rank[:, None] == owners,
    )
    # A quarter of the titles stays for good; the others are promoted for weeks, staggered over territories.
    stays = rng.random(num_titles) < 0.25
    stays[0], offered[:, 0] = True, True  # no territory is ever without a title
    delays = rng.integers(0, 8, (num_territories, num_titles))
    starts = np.where(stays, 0, rng.integers(-30, days, num_titles) + delays)
    ends = np.where(stays, days + 365, starts + rng.integers(21, 61, num_titles))
    starts = np.maximum(starts, 0)
    return _World(
        continents=continents,
        cultures=cultures,
        positions=middles + rng.normal(0, (14.0, 8.0), (num_territories, 2)),
        shares=sizes / sizes.sum(),
        tastes=rng.normal(0, 0.15, LATENT) + heterogeneity * local_tastes,
        homes=homes,
        latents=latents.T,
        qualities=rng.exponential(0.8, num_titles),
        starts=starts,
        ends=np.where(offered, np.maximum(ends, starts), starts),
        age_tastes=rng.normal(0, 0.1, (len(AGE_BANDS), LATENT)),
        user_view=rng.normal(0, 0.25, (LATENT + 1, USER_WIDTH)),
    )


def _write_titles(out, world, rng):
    num_titles = len(world.qualities)
    names = np.array([f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS])
    sequel, row = np.divmod(np.arange(num_titles), len(names))
    order = rng.permutation(len(names))
    scores = world.latents.T @ rng.normal(0, 1, (LATENT, len(GENRES)))
    genres = np.sort(np.argsort(-scores, axis=1)[:, :2], axis=1)
    spoken = np.where(world.homes < 0, rng.choice(len(LANGUAGES), num_titles, p=(0.6, 0.1, 0.1, 0.1, 0.1)), world.homes)
    titles = {
        "title": world.titles,
        "name": [names[order[i]] + (f" {k + 1}" if k else "") for i, k in zip(row, sequel, strict=True)],
        "genres": [[GENRES[i] for i in pair] for pair in genres],
        "language": [LANGUAGES[i] for i in spoken],
    }
    pq.write_table(pa.table(titles), out / "titles.parquet")

    territory, title = np.nonzero(world.ends > world.starts)
    availability = {
        "title": world.titles.take(title),
        "territory": pa.array(world.territories).take(territory),
        "start": _times(world.starts[territory, title] * 86_400),
        "end": _times(world.ends[territory, title] * 86_400),
    }
    pq.write_table(pa.table(availability), out / "availability.parquet")

    # The smaller the audience that a title can have, the less an upstream model knows about it.
    audiences = world.shares @ (world.ends > world.starts)
    vectors = world.latents.T @ rng.normal(0, 0.25, (LATENT, TITLE_WIDTH))
    vectors += rng.normal(0, 1, vectors.shape) * 0.4 * np.maximum(audiences, 1e-4)[:, None] ** -0.15
    np.save(out / "title_vectors" / "vectors.npy", vectors.astype(np.float32))
    pq.write_table(pa.table({"title": world.titles}), out / "title_vectors" / "ids.parquet")

    truth = {"title": world.titles, "culture": world.homes, "quality": world.qualities, "latent": list(world.latents.T)}
    pq.write_table(pa.table(truth), out / "truth" / "titles.parquet")
    truth = {
        "territory": world.territories,
        "culture": world.cultures,
        "share": world.shares,
        "longitude": world.positions[:, 0],
        "latitude": world.positions[:, 1],
        "taste": list(world.tastes),
    }
    pq.write_table(pa.table(truth), out / "truth" / "territories.parquet")


def _write_users(out, world, num_users, days, seed):
    """Writes all that grows with the users, chunk by chunk."""
    text = pa.string()
    columns = {"user": text, "territory": text, "device": text, "age_band": text, "tenure_days": pa.int32()}
    store = out / "user_vectors"
    shape = (num_users, USER_WIDTH)
    vectors = np.lib.format.open_memmap(store / "vectors.npy", mode="w+", dtype=np.float32, shape=shape)
    day = np.arange(days)[:, None]
    # (num_territories, days, num_titles)
    offers = (world.starts[:, None] <= day) & (day < world.ends[:, None])
    with contextlib.ExitStack() as stack:

        def writer(path, columns):
            return stack.enter_context(pq.ParquetWriter(path, pa.schema(columns)))

        users = writer(out / "users.parquet", columns)
        ids = writer(store / "ids.parquet", {"user": text})
        events = writer(out / "events.parquet", {"user": text, "title": text, "time": pa.timestamp("us")})
        for first in range(0, num_users, CHUNK):
            rng = np.random.default_rng([seed, 1 + first // CHUNK])
            size = min(CHUNK, num_users - first)
            territory = rng.choice(len(world.shares), size, p=world.shares)
            age = rng.integers(len(AGE_BANDS), size=size)
            taste = world.tastes[territory] + world.age_tastes[age] + rng.normal(0, 0.25, (size, LATENT))
            rates = _activity(rng, size)
            chunk = {
                "user": _ids("u", first, size),
                "territory": pa.array(world.territories).take(territory),
                "device": pa.array(DEVICES).take(rng.choice(len(DEVICES), size, p=(0.45, 0.3, 0.1, 0.15))),
                "age_band": pa.array(AGE_BANDS).take(age),
                "tenure_days": pa.array(rng.exponential(600, size).astype(np.int32)),
            }
            users.write_table(pa.table(chunk))
            ids.write_table(pa.table({"user": chunk["user"]}))
            noise = 0.4 * (world.shares.max() / world.shares[territory, None]) ** 0.15
            truth = np.column_stack([taste, 0.25 * np.log(rates)])
            vectors[first : first + size] = truth @ world.user_view + noise * rng.normal(0, 1, (size, USER_WIDTH))
            user, title, seconds = _draw_events(rng, world, offers, territory, taste, rates)
            log = {"user": chunk["user"].take(user), "title": world.titles.take(title), "time": _times(seconds)}
            events.write_table(pa.table(log))
    vectors.flush()


def _activity(rng, size):
    """Mean number of events a day for each user: heavy-tailed, and three users in ten hardly come at all."""
    is_dormant = rng.random(size) < 0.3
    return np.minimum(rng.lognormal(-2.75, 1.3, size), 6.0) * np.where(is_dormant, 0.03, 1.0)


def _draw_events(rng, world, offers, territory, taste, rates):
    """User row, title row and seconds since `START` of every event of a chunk, by user and time."""
    days = offers.shape[1]
    counts = rng.poisson(rates[:, None], (len(rates), days))
    user, day = np.divmod(np.repeat(np.arange(counts.size), counts.ravel()), days)
    # Evenings are busy, at the local time of the territory; the date stays UTC.
    hour = (rng.normal(20.5, 3.0, len(user)) - world.positions[territory[user], 0] / 15.0) % 24
    seconds = day * 86_400 + np.minimum(hour * 3_600, 86_399).astype(np.int64)
    appeal = np.exp(taste @ world.latents + world.qualities).astype(np.float32)
    title = np.empty(len(user), np.int64)
    for block in range(0, len(user), BLOCK):
        rows = slice(block, block + BLOCK)
        cumulative = (appeal[user[rows]] * offers[territory[user[rows]], day[rows]]).cumsum(axis=1)
        # The first title whose cumulative weight exceeds the draw: never one of weight zero.
        draws = rng.random((len(cumulative), 1)) * cumulative[:, -1:]
        title[rows] = (cumulative <= draws).sum(axis=1)
    order = np.lexsort((seconds, user))
    return user[order], title[order], seconds[order]


def _ids(prefix, first, size):
    digits = pc.utf8_lpad(pa.array(np.arange(first, first + size)).cast(pa.string()), width=8, padding="0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _times(seconds):
    return pa.array((int(START.timestamp()) + seconds) * 1_000_000).cast(pa.timestamp("us"))
