import json

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


def test_days_on_which_territories_had_no_event(tmp_path):
    """`PL` has a third of the log and is closed on the second day; `AT` has two events, which is no closed market."""
    users = [(f"{home}{i}", home) for home, number in (("DE", 3), ("PL", 2), ("AT", 1)) for i in range(number)]
    data = folder(tmp_path / "data", ["a"], [[1]], users)
    windows = [{"window": w, "start": f"2025-01-1{w + 3}", "end": f"2025-01-1{w + 4}"} for w in (-1, 0, 1)]
    (data.path / "prepare.json").write_text(json.dumps({"fingerprint": "", "windows": windows}))
    assert drift.silent_shares(data, most=7, sure=10) == {}  # it has no events.parquet
    rows = [("DE0", w) for w in (-1, 0, 1) for _ in range(20)] + [("PL0", w) for w in (-1, 1) for _ in range(14)]
    rows += [("AT0", -1)] * 2
    table = pa.table({"user": [user for user, _ in rows], "window": [window for _, window in rows]})
    pq.write_table(table, data.path / "events.parquet")
    data = Dataset(data.path)
    found = drift.silent_shares(data, most=2, sure=6)
    assert found == {"2025-01-13": pytest.approx(28 / 90), "2025-01-14": 0.0}
    assert drift.silent_shares(data, most=2, sure=7)["2025-01-13"] == 0.0  # 20 events of the day, a third is 6.2
    weeks = [{**window, "end": f"2025-01-2{window['window'] + 3}"} for window in windows]
    (data.path / "prepare.json").write_text(json.dumps({"fingerprint": "", "windows": weeks}))
    assert drift.silent_shares(Dataset(data.path), most=7, sure=6) == {}


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
