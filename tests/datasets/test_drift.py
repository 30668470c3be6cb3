import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets import drift
from tfmtr.datasets.dataset import Dataset
from tfmtr.schema import Feature, Scenario, Schema, Task


def folder(path, titles, vectors, users=(), user_vectors=None, **columns):
    """A prepared directory as far as these functions read it."""
    for role, ids, matrix in (("title", titles, vectors), ("user", [u for u, _ in users], user_vectors)):
        if matrix is not None:
            (path / "vectors" / role).mkdir(parents=True)
            np.save(path / "vectors" / role / "vectors.npy", np.asarray(matrix, "float32"))
            pq.write_table(pa.table({role: ids}), path / "vectors" / role / "ids.parquet")
    pq.write_table(pa.table({"title": titles, "name": titles, **columns}), path / "titles.parquet")
    homes = {"user": [u for u, _ in users], "territory": [t for _, t in users], "user_row": list(range(len(users)))}
    pq.write_table(pa.table(homes), path / "users.parquet")
    (path / "prepare.json").write_text('{"fingerprint": "", "windows": []}')
    return Dataset(path)


@pytest.fixture
def two(tmp_path):
    """Today's directory and that of before: `b` has another genre, `c` is new; `d` is gone."""
    then = folder(tmp_path / "then", ["a", "b", "d"], [[1, 0], [0, 1], [1, 1]], genre=[["x"], ["x"], ["y"]])
    now = folder(tmp_path / "now", ["a", "b", "c"], [[1, 0], [3, 3], [5, 5]], genre=[["x"], ["z"], ["y"]])
    return now, then


def test_only_titles_that_did_not_change_are_compared(two):
    assert drift.changed_vectors(*two) == (1, 0)
    assert drift.changed_vectors(two[1], two[1]) == (3, 0)


def test_another_vector_of_the_same_title_is_seen(two, tmp_path):
    other = folder(tmp_path / "other", ["a", "b", "d"], [[0, 1], [0, 1], [1, 1]], genre=[["x"], ["x"], ["y"]])
    assert drift.changed_vectors(other, two[1]) == (3, 1)
    wider = folder(tmp_path / "wider", ["a"], [[1, 0, 0]], genre=[["x"]])
    assert drift.changed_vectors(wider, two[1]) == (1, 1)


def test_the_median_of_users_cosines(tmp_path):
    users = [("u1", "DE"), ("u2", "DE"), ("u3", "PL")]
    then = folder(tmp_path / "then", ["a"], [[1]], users, [[1, 0], [0, 1], [1, 1]])
    now = folder(tmp_path / "now", ["a"], [[1]], users, [[2, 0], [1, 0], [1, 0]])
    assert drift.similarity_of_users(now, then) == pytest.approx(2**-0.5)
    none = folder(tmp_path / "none", ["a"], [[1]], users)
    assert drift.similarity_of_users(none, then) is None


def test_what_is_missing_of_titles(tmp_path):
    data = folder(
        tmp_path / "data", ["a", "b", "c", "d"], [[1, 0], [0, 0], [0, 2], [0, 0]], length=[1.0, None, 3.0, 9.0]
    )
    assert drift.share_without_vector(data) == 0.5
    schema = Schema([Feature("length", "title", "number")], [Task("x")], Scenario(["territory"], {}))
    assert drift.medians_of_numbers(data, schema) == {("title", "length"): 3.0}
    pq.write_table(pa.table({"window": [1, 2, 2]}), data.path / "availability.parquet")
    (data.path / "prepare.json").write_text('{"fingerprint": "", "windows": [{"window": 1}]}')
    assert drift.titles_on_offer(Dataset(data.path)) == 2


def test_users_who_moved(tmp_path):
    then = folder(tmp_path / "then", ["a"], [[1]], [("u1", "DE"), ("u2", "DE"), ("u3", "PL"), ("u4", "PL")])
    now = folder(tmp_path / "now", ["a"], [[1]], [("u1", "PL"), ("u2", "PL"), ("u3", "DE"), ("u5", "DE")])
    assert drift.moved_users(now, then) == {("DE", "PL"): 2, ("PL", "DE"): 1}
    assert drift.users_of_both(now, then) == 3


def test_shares_of_values_that_are_missing_or_unknown(tmp_path):
    data = folder(
        tmp_path / "data", ["a", "b", "c", "d"], [[1]] * 4, genre=[["x", "y"], ["z"], [], None], age=[1, 2, 3, None]
    )
    features = [
        Feature("genre", "title", "set", ["x", "y"], width=2),
        Feature("age", "title", "number"),
        Feature("territory", "user", "id", ["DE"]),
    ]
    schema = Schema(features, [Task("click")], Scenario(["territory"], {("DE",): "one"}))
    assert drift.shares_of_values(data, schema) == {
        ("user", "territory", "missing"): 0.0,
        ("user", "territory", "unknown"): 0.0,
        ("title", "genre", "missing"): 0.5,
        ("title", "genre", "unknown"): pytest.approx(1 / 3),
        ("title", "age", "missing"): 0.25,
    }
