"""A user's titles from a vector database, with the vectors that `tfmtr embeddings` writes.

    tfmtr embeddings runs/branches --data runs/data --out runs/vectors
    python pipelines/vector_database.py --vectors runs/vectors --user-id u00000042

Loads the titles' vectors into USearch, which runs inside the process, and searches with the user's vector. Any database
with an inner-product index takes the same two Parquet tables; `--version` checks that they are of the served model.

Expected: the ids and scores that the signature `recommend` gives without filters.
"""

import argparse
from pathlib import Path

import numpy as np
import pyarrow.dataset
import pyarrow.parquet as pq

from tfmtr.retrieval.embeddings import check_same_model
from tfmtr.retrieval.index import matrix


def search(vectors, user_id, k=10):
    """`[(title, score)]`, best first.

    Raises:
        ValueError: If the user has no vector.
    """
    from usearch.index import Index

    titles = pq.read_table(Path(vectors) / "titles.parquet")
    items = matrix(titles["vector"])
    index = Index(ndim=items.shape[1], metric="ip", dtype="f32")
    index.add(np.arange(len(items)), items)
    users = pyarrow.dataset.dataset(Path(vectors) / "users")
    row = users.to_table(filter=pyarrow.dataset.field("user") == user_id)
    if not len(row):
        raise ValueError(f"`user_id` must be one of the users with a vector. Received: user_id={user_id!r}")
    found = index.search(matrix(row["vector"])[0], k)
    ids = titles["title"].take(found.keys).to_pylist()
    return [(title, 1 - float(distance)) for title, distance in zip(ids, found.distances, strict=True)]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=Path, required=True, help="directory made by `tfmtr embeddings`")
    parser.add_argument("--user-id", required=True)
    parser.add_argument("--version", type=Path, default=None, help="exported version that is served")
    parser.add_argument("-k", type=int, default=10)
    arguments = parser.parse_args()
    if arguments.version:
        check_same_model(arguments.vectors, arguments.version)
    for title, score in search(arguments.vectors, arguments.user_id, arguments.k):
        print(f"{score:9.4f}  {title}")
