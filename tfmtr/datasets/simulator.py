"""A multi-territory video service in three tables and two feature stores, with a known truth.

`tfmtr.datasets.world` has the territories, the titles and what is shown, `tfmtr.datasets.audience` the users and what
they stream, `tfmtr.datasets.truth` reads the true propensities. Users are made in chunks, each with a generator of its
own, and written as they come: memory is flat in their number.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import contextlib
import datetime
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tfmtr.datasets.audience import USER, Audience
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.stores import MatrixWriter, StoreWriter
from tfmtr.datasets.world import AGE_BANDS, CONTINENTS, LATENT, World, make_world

START = datetime.datetime(2025, 1, 1, tzinfo=datetime.UTC)
NUM_TRAIN, NUM_TEST = 14, 3
CHUNK = 16_384  # users made at once

LANGUAGES = ("English", "Spanish", "French", "Hindi")  # one a culture
DEVICES = ("tv", "phone", "tablet", "computer")
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


def simulator(
    out: str | os.PathLike,
    *,
    num_users: int = 20_000,
    num_titles: int = 400,
    num_territories: int = 24,
    days: int = 60,
    heterogeneity: float = 0.7,
    feedback: float = 0.4,
    impressions: bool = False,
    widths: tuple[int, int] = (64, 96),
    seed: int = 0,
) -> Logs:
    """Simulates a multi-territory video service and describes its tables.

    Beside the tables the folder `truth/` holds what no model may see; `tfmtr.datasets.truth.Truth` reads it. Equal
    arguments give equal bytes; the territories and titles do not depend on `num_users`, nor the events on `widths` and
    `impressions`.

    Args:
        out: Folder for `events.parquet`, `users.parquet`, `titles.parquet`, `availability.parquet`,
            `user_vectors/`, `title_vectors/` and `truth/`; made if missing.
        num_users: Number of users.
        num_titles: Number of titles, at least 10.
        num_territories: Number of territories, at least 4 (one a continent).
        days: Length of the log, at least 18; the last 17 days are 14 training and 3 test windows.
        heterogeneity: From 0 (all territories share one taste, local titles lean nowhere) to 1.
        feedback: How much the recommender that the users had prefers what was popular the week before: from 0 (shows
            all titles alike, but for taste) to 1 (in proportion).
        impressions: Whether the log also has the titles that were shown and not streamed, with 0 in the column
            `streamed`: some five for each that was.
        widths: Of the user and of the title vectors; the paper has 512 and 768. They are of type float16.
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
    for name, value in {"heterogeneity": heterogeneity, "feedback": feedback}.items():
        if not 0.0 <= value <= 1.0:
            raise ValueError(f"`{name}` must be from 0 to 1. Received: {name}={value!r}")
    if len(widths) != 2 or min(widths) < 1:
        raise ValueError(
            f"`widths` must be two positive integers, of the user and of the title vectors. Received: widths={widths!r}"
        )
    out = Path(out)
    (out / "truth").mkdir(parents=True, exist_ok=True)
    # NumPy pads a seed with zeros, so [seed] and [seed, 0] are the same generator: chunks start at 1.
    rng = np.random.default_rng([seed, 0])
    world = make_world(
        rng,
        num_titles=num_titles,
        num_territories=num_territories,
        days=days,
        heterogeneity=heterogeneity,
        feedback=feedback,
    )
    territories = [f"{list(CONTINENTS)[continent]}-{i:02}" for i, continent in enumerate(world.continents)]
    _write_truth(out / "truth", world, territories)
    _write_titles(out, world, territories, widths[1], rng)
    view = rng.normal(0, 0.25, (LATENT + 1, widths[0])).astype(np.float32)
    _write_users(out, world, territories, num_users, view, seed, impressions)
    return Logs(
        events=out / "events.parquet",
        users=out / "users.parquet",
        titles=out / "titles.parquet",
        columns={"user": "user", "title": "title", "territory": "territory", "time": "time", "name": "name"},
        tasks={"stream": "streamed"} if impressions else {},
        availability=out / "availability.parquet",
        user_vectors=out / "user_vectors",
        title_vectors=out / "title_vectors",
        calendar=Calendar(
            length=datetime.timedelta(days=1),
            num_train=NUM_TRAIN,
            num_test=NUM_TEST,
            end=START + datetime.timedelta(days=days - NUM_TEST),
        ),
        neighbours={name: tuple(place) for name, place in zip(territories, world.positions.tolist(), strict=True)},
        user_history=False,
    )


def _check_at_least(**arguments: tuple[int, int]) -> None:
    for name, (value, least) in arguments.items():
        if value < least:
            raise ValueError(f"`{name}` must be an integer of at least {least}. Received: {name}={value!r}")


def _write_truth(folder: Path, world: World, territories: list[str]) -> None:
    """Writes all of the world that does not grow with the users."""
    titles = {"culture": world.homes, "quality": world.qualities, "latent": list(world.latents.T)}
    pq.write_table(pa.table({"title": _ids("t", 0, len(world.homes)), **titles}), folder / "titles.parquet")
    columns = {
        "territory": territories,
        "continent": np.array(list(CONTINENTS))[world.continents],
        "culture": world.cultures,
        "share": world.shares,
        "longitude": world.positions[:, 0],
        "latitude": world.positions[:, 1],
        "taste": list(world.local_tastes),
        "emphasis": list(world.emphases),
    }
    pq.write_table(pa.table(columns), folder / "territories.parquet")
    np.save(folder / "exposure.npy", world.exposure)


def _write_titles(out: Path, world: World, territories: list[str], width: int, rng: np.random.Generator) -> None:
    """Writes the titles, their availability and their vectors."""
    num_titles = len(world.qualities)
    ids = _ids("t", 0, num_titles)
    names = np.array([f"The {adjective} {noun}" for adjective in ADJECTIVES for noun in NOUNS])
    sequel, row = np.divmod(np.arange(num_titles), len(names))
    order = rng.permutation(len(names))
    scores = world.latents.T @ rng.normal(0, 1, (LATENT, len(GENRES)))
    genres = np.sort(np.argsort(-scores, axis=1)[:, :2], axis=1)
    spoken = np.where(world.homes < 0, rng.choice(len(LANGUAGES), num_titles, p=(0.6, 0.15, 0.1, 0.15)), world.homes)
    titles = {
        "title": ids,
        "name": [names[order[i]] + (f" {k + 1}" if k else "") for i, k in zip(row, sequel, strict=True)],
        "genres": [[GENRES[i] for i in pair] for pair in genres],
        "language": [LANGUAGES[i] for i in spoken],
    }
    pq.write_table(pa.table(titles), out / "titles.parquet")

    territory, title = np.nonzero(world.is_offered)
    availability = {
        "title": ids.take(title),
        "territory": pa.array(territories).take(territory),
        "start": _times(world.starts[territory, title] * 86_400),
        "end": _times(world.ends[territory, title] * 86_400),
    }
    pq.write_table(pa.table(availability), out / "availability.parquet")

    # The smaller the audience that a title can have, the less an upstream model knows about it.
    noise = 0.16 * np.maximum(world.shares @ world.is_offered, 1e-4)[:, None] ** -0.15
    seen = world.latents.T + noise * rng.normal(0, 1, (num_titles, LATENT))
    ids = pa.table({"title": ids})
    with contextlib.closing(StoreWriter(out / "title_vectors", num_titles, width, ids.schema, "float16")) as store:
        store.append([seen @ rng.normal(0, 0.25, (LATENT, width))])
        store.append_ids(ids)


def _write_users(
    out: Path, world: World, territories: list[str], num_users: int, view: np.ndarray, seed: int, impressions: bool
) -> None:
    """Writes all that grows with the users, chunk by chunk."""
    text, territories = pa.string(), pa.array(territories)
    columns = {"user": text, "territory": text, "device": text, "age_band": text, "tenure_days": pa.int32()}
    log = {"user": text, "title": text, "time": pa.timestamp("us"), **({"streamed": pa.int8()} if impressions else {})}
    audience, titles = Audience(world), _ids("t", 0, len(world.qualities))
    truth = MatrixWriter(out / "truth" / "users.npy", (num_users,), USER)
    ids = pa.schema({"user": text})
    with (
        pq.ParquetWriter(out / "users.parquet", pa.schema(columns)) as users_file,
        pq.ParquetWriter(out / "events.parquet", pa.schema(log)) as events_file,
        contextlib.closing(StoreWriter(out / "user_vectors", num_users, view.shape[1], ids, "float16")) as store,
    ):
        for first in range(0, num_users, CHUNK):
            number = 1 + first // CHUNK
            rng = np.random.default_rng([seed, number])
            users = audience.draw_users(rng, min(CHUNK, num_users - first))
            events = audience.draw_events(rng, users)
            if impressions:
                others = audience.draw_events(np.random.default_rng([seed, number, 1]), users, streamed=False)
                events = _merge(events, others)
            user, title, seconds, *streamed = events
            names = _ids("u", first, len(users))
            events = [names.take(user), titles.take(title), _times(seconds), *streamed]
            events_file.write_table(pa.table(events, events_file.schema))
            users_file.write_table(_describe(rng, users, names, territories))
            store.append([_upstream(rng, world, users) @ view])
            store.append_ids(pa.table({"user": names}))
            truth.append(users)


def _describe(rng: np.random.Generator, users: np.ndarray, names: pa.Array, territories: pa.Array) -> pa.Table:
    """The users table of a chunk, with the tenure on day 0."""
    tenure = np.where(users["joined"] > 0, 0, rng.exponential(600, len(users)))
    return pa.table(
        {
            "user": names,
            "territory": territories.take(users["territory"]),
            "device": pa.array(DEVICES).take(rng.choice(len(DEVICES), len(users), p=(0.45, 0.3, 0.1, 0.15))),
            "age_band": pa.array(AGE_BANDS).take(users["age"]),
            "tenure_days": pa.array(tenure.astype(np.int32)),
        }
    )


def _upstream(rng: np.random.Generator, world: World, users: np.ndarray) -> np.ndarray:
    """What an upstream model knows of users: tastes without their culture's emphasis and, last, activity.

    The smaller the territory, the less it knows.

    Returns:
        Float32 array of shape `(users, LATENT + 1)`.
    """
    territory = users["territory"]
    local = world.local_tastes[territory]
    taste = (users["taste"] - local) / world.emphases[territory] + local
    known = np.column_stack([taste, 0.25 * np.log(users["rate"])])
    noise = 0.2 * (world.shares.max() / world.shares[territory, None]) ** 0.15
    return (known + noise * rng.normal(0, 1, known.shape)).astype(np.float32)


def _merge(streams: Sequence[np.ndarray], others: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Streams and other showings in one, by user and time, with 1 and 0 as a fourth column."""
    flags = [np.full(len(events[0]), flag, np.int8) for flag, events in ((1, streams), (0, others))]
    columns = [np.concatenate(pair) for pair in zip((*streams, flags[0]), (*others, flags[1]), strict=True)]
    order = np.lexsort((columns[2], columns[0]))
    return [column[order] for column in columns]


def _ids(prefix: str, first: int, size: int) -> pa.Array:
    digits = pc.utf8_lpad(pa.array(np.arange(first, first + size)).cast(pa.string()), width=8, padding="0")
    return pc.binary_join_element_wise(prefix, digits, "")


def _times(seconds: np.ndarray) -> pa.Array:
    return pa.array((int(START.timestamp()) + seconds) * 1_000_000).cast(pa.timestamp("us"))
