import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import vector_database
from helpers.untraced import untraced

from tfmtr import inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.retrieval.embeddings import check_same_model, write_embeddings
from tfmtr.retrieval.index import matrix
from tfmtr.run import Run
from tfmtr.schema import Schema, Task


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("embeddings")
    data = shutil.copytree(tiny, folder / "data")
    tasks = [Task("click", "event", weight=2.0, mean=0.2), Task("like", weight=0.5, mean=0.1)]
    Schema.load(data).replace(tasks=tasks).save(data)
    recipe = training.Recipe(
        share="mmoe", units=(16, 8), epochs=1, batch_size=1500, deterministic=False, listwise=False
    )
    with untraced():
        training.train(data, folder / "run", recipe, verbose=0)
    return folder


@pytest.fixture(scope="module")
def vectors(run):
    write_embeddings(run / "run", run / "vectors", data=run / "data")
    return run / "vectors"


def test_dot_products_are_the_model_s_logits(run, vectors):
    data, model = Dataset(run / "data"), Run(run / "run").load()
    manifest = json.loads((vectors / "manifest.json").read_text())
    titles = pq.read_table(vectors / "titles.parquet").to_pandas().set_index("title")
    users = pq.read_table(vectors / "users").to_pandas().set_index("user")
    assert (len(titles), len(users)) == (manifest["titles"], manifest["users"])
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=40))
    p = model.predict(inputs.model_inputs(table, data.schema, inputs.open_stores(data)), verbose=0)
    v = np.stack(titles.vector[table["title"].to_pylist()])
    for task in ("click", "like"):
        u = np.stack(users[f"vector_{task}"][table["user"].to_pylist()])
        expected = 1 / (1 + np.exp(-np.sum(u * v, axis=1) - manifest["biases"][task]))
        np.testing.assert_allclose(p[task][:, 0], expected, atol=1e-2)  # the row's features may be of an earlier window
    both = 2.0 * np.stack(users.vector_click) + 0.5 * np.stack(users.vector_like)
    np.testing.assert_allclose(np.stack(users.vector), both, rtol=1e-5)
    assert manifest["run_id"] == Run(run / "run").run_id


def test_users_are_streamed_in_parts(run, vectors, tmp_path, monkeypatch):
    monkeypatch.setattr("tfmtr.retrieval.embeddings.BATCH", 50)
    (tmp_path / "tmp-parts-scratch-abcdefgh" / "vectors").mkdir(parents=True)  # of a run that was killed
    (tmp_path / "tmp-parts-scratch-abcdefgh" / ".lock").touch()
    write_embeddings(run / "run", tmp_path / "parts", data=run / "data")
    assert [path.name for path in tmp_path.iterdir()] == ["parts"]
    assert len(list((tmp_path / "parts" / "users").iterdir())) > 1
    whole, parts = (pq.read_table(path / "users").sort_by("user") for path in (vectors, tmp_path / "parts"))
    assert whole["user"].equals(parts["user"])
    np.testing.assert_allclose(matrix(parts["vector"]), matrix(whole["vector"]), atol=1e-6)


def test_a_vector_database_finds_what_numpy_computes(vectors):
    users = pq.read_table(vectors / "users").to_pandas()
    titles = pq.read_table(vectors / "titles.parquet").to_pandas()
    scores = np.stack(titles.vector) @ users.vector[3]
    best = np.argsort(-scores)[:5]
    found = vector_database.search(vectors, users.user[3], 5)
    assert [title for title, _ in found] == titles.title[best].tolist()
    np.testing.assert_allclose([score for _, score in found], scores[best], rtol=1e-4)
    with pytest.raises(ValueError, match="`user_id` must be one of the users with a vector"):
        vector_database.search(vectors, "nobody")


def test_vectors_of_another_run_are_refused(run, vectors, tmp_path):
    (tmp_path / "1" / "assets.extra").mkdir(parents=True)
    facts = tmp_path / "1" / "assets.extra" / "tfmtr.json"
    facts.write_text(json.dumps({"run_id": Run(run / "run").run_id}))
    check_same_model(vectors, tmp_path / "1")
    facts.write_text('{"run_id": "other"}')
    with pytest.raises(ValueError, match=r"vectors and served model must be of one run.* of run other"):
        check_same_model(vectors, tmp_path / "1")
    with pytest.raises(ValueError, match="`out` must be a new directory"):
        write_embeddings(run / "run", vectors, data=run / "data")
