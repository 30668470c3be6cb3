"""What users of a prepared day are served: by which fallbacks, and what a version answers them."""

from pathlib import Path

import ibis
import numpy as np

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.datasets.seen import had_pairs
from tfmtr.serving.errors import ServerError
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server
from tfmtr.version import Version


def count_fallbacks(data: Dataset) -> dict[str, int]:
    """How many users and titles of a prepared day are served by a fallback.

    Args:
        data: A `Dataset`.

    Returns:
        `{"users_of_the_default_branch", "cold_users", "cold_titles"}`: users of territories without a group; users
        without an event or a vector, who get what is popular in their territory; titles of the next catalogue that
        nobody has had yet, whose vectors come from their features alone.
    """
    con = ibis.duckdb.connect()
    users = read_files(con, [data.path / "users.parquet"])
    had = had_pairs(con, data)
    titles = read_files(con, [data.path / "availability.parquet"])
    titles = titles.filter(titles.window == data.next_window).select("title").distinct()
    grouped = [territory for (territory,) in data.schema.scenario.groups]
    cold = users.anti_join(had, "user")
    if data.vectors("user") is not None:
        cold = cold.filter(cold.user_row < 0)  # pyright: ignore[reportOperatorIssue]
    outside = users.filter(~users.territory.isin(grouped))  # pyright: ignore[reportArgumentType]
    return {
        "users_of_the_default_branch": int(con.execute(outside.count())),
        "cold_users": int(con.execute(cold.count())),
        "cold_titles": int(con.execute(titles.anti_join(had, "title").count())),
    }


def try_version(version: Path | Version, data: Dataset, *, num_users: int = 20) -> None:
    """Serves a version on a port of its own and asks for the titles of some users.

    Args:
        version: Directory of the version.
        data: The `Dataset` directory that the users are from.
        num_users: How many are asked for, the first of the table.

    Raises:
        ValueError: If it does not load, or no answer holds a title (of a user who has had all there may be none), or a
            score is not finite.
    """
    users = read_files(ibis.duckdb.connect(), [data.path / "users.parquet"]).limit(num_users).to_pyarrow()["user"]
    try:
        with Server(version.parent, model_name="trial", port=0) as server:
            address = f"127.0.0.1:{server.port}"
            best = [recommend(address, "trial", data.path, user, k=1)["titles"] for user in users.to_pylist()]
        scores = [titles[0]["score"] for titles in best if titles]
        if not scores or not np.isfinite(scores).all():
            raise ValueError(f"`{version}` must have titles for users. Received: {len(best)} answers with {scores}")
    except ServerError as error:
        raise ValueError(f"`{version}` must load and answer. Received: {error}") from error
