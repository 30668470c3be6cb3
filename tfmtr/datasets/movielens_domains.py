"""MovieLens-1M as three age domains and two tasks, as multi-domain multi-task papers use it.

The domains are users up to 24, from 25 to 34, and from 35 years. Click is a rating above 3, like one above 4.

No feature uses time: neither the time of a rating nor the order of the rows, nor any count of a user's or a
movie's earlier ratings. In copies of the archive whose times up to `TRUSTED_AFTER` were restored, the presence of such
a time depends on the rating, and 80 % of the ratings lie before it; the split by time has its first
boundary at that very moment, and is exact.

Reference: Zhang et al., M3oE: Multi-Domain Multi-Task Mixture-of-Experts Recommendation Framework, SIGIR 2024,
https://doi.org/10.1145/3626772.3657686, Table 1; input columns as in its published code.
"""

# Arrow makes its functions when it is imported:
# pyright: reportAttributeAccessIssue=false

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tfmtr.datasets.domains import Protocol, look_up, split_rows, write_rows
from tfmtr.datasets.logs import Logs
from tfmtr.datasets.public.movielens import find_folder, parse

DOMAINS = {"1": "1", "18": "1", "25": "2", "35": "3", "45": "3", "50": "3", "56": "3"}


def movielens_domains(
    source: str | os.PathLike, out: str | os.PathLike, *, protocol: Protocol = "time", seed: int = 0
) -> Logs:
    """Writes MovieLens-1M as labelled rows of three domains.

    Args:
        source: The official `ml-1m.zip`, or the folder that it unpacks to.
        out: Folder for `rows.parquet` (in file order: `user`, `title`, `domain`, the labels `click` and `like`, and
            `split`), `users.parquet` (`user`, `gender`, `age`, `occupation`, `zip`) and `titles.parquet` (`title` and
            `genre`, the first one); made if missing.
        protocol: Order in which rows are split 8:1:1; as for `split_rows`.
        seed: Of the random split.

    Returns:
        The `Logs`, for `tfmtr.prepare_rows`.

    Raises:
        ValueError: If `source` is missing, no complete archive, lacks a file or has a malformed line; if a rating's
            user is not listed or has an unknown age; or if `protocol` is unknown.
    """
    folder = find_folder(Path(source))
    ratings, users, titles = (pa.table(parse(folder, name)) for name in ("ratings.dat", "users.dat", "movies.dat"))
    lines = (folder / "users.dat").read_bytes().decode("latin-1").splitlines()
    users = users.append_column("zip", pa.array([line.rpartition("::")[2] for line in lines if line.strip()]))

    age = look_up(users, "user", ratings["user"])["age"]
    domain = pc.index_in(age, value_set=pa.array(DOMAINS))
    if domain.null_count:
        row = pc.index(pc.is_null(domain), True).as_py()
        raise ValueError(
            f"Every rating's user must be listed in users.dat with an age of {sorted(DOMAINS, key=int)}. "
            f"Received: user {ratings['user'][row]} with age {age[row]}"
        )
    rating, rated = ratings["rating"].cast(pa.int8()), pc.unique(ratings["title"])
    genres = pc.fill_null(look_up(titles, "title", rated)["genres"], "")
    rows = pa.table(
        {
            "user": ratings["user"],
            "title": ratings["title"],
            "domain": pa.array(DOMAINS.values()).take(domain),
            "click": pc.greater(rating, 3).cast(pa.int8()),
            "like": pc.greater(rating, 4).cast(pa.int8()),
            "split": split_rows(len(ratings), protocol=protocol, time=np.asarray(ratings["time"], "int64"), seed=seed),
        }
    )
    users = users.set_column(users.column_names.index("age"), "age", users["age"].cast(pa.float32()))
    return write_rows(
        out,
        rows,
        users.select(["user", "gender", "age", "occupation", "zip"]),
        pa.table({"title": rated, "genre": pc.list_element(pc.split_pattern(genres, "|"), 0)}),
        {"click": "click", "like": "like"},
    )
