"""A debiased model from training to the served list."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from helpers.untraced import untraced

import tfmtr
from tfmtr import inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.layers.title_popularity import TitlePopularity
from tfmtr.retrieval.embeddings import title_vectors
from tfmtr.run import Run

tf = pytest.importorskip("tensorflow")


def test_exported_and_offline_scores_and_lists_are_those_of_one_dot_product(tiny, tmp_path):
    recipe = training.Recipe(
        debias="macr", share="none", units=(16, 8), epochs=1, batch_size=1500, learning_rate=0.01, deterministic=False
    )
    with untraced():
        training.train(tiny, tmp_path / "run", recipe, verbose=0)
    run, data = Run(tmp_path / "run"), Dataset(tiny)
    assert run.document["listwise"]["reason"].startswith("`debias` is to make lists less popular")
    model = run.load()
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=6))
    offline = model.predict(inputs.model_inputs(table, data.schema, inputs.open_stores(data)), verbose=0)["event"]
    raw = {
        "territory": tf.constant(table["territory"].to_pylist()),
        "age": tf.constant(table["age"].to_pylist(), tf.float32),
    }
    raw["user_vector"] = tf.constant(inputs.take_vectors(data.vectors("user").vectors, table["user_row"]))
    loaded = tf.saved_model.load(tfmtr.export(tmp_path / "run", tmp_path / "models", titles=tiny))
    query = loaded.signatures["user_embedding"](**raw)["event"].numpy()
    ids, vectors, *_ = title_vectors(model, data, data.schema)
    logits = (query * vectors[table["title_row"].to_numpy()]).sum(axis=1) + model.biases["event"]
    np.testing.assert_allclose(offline[:, 0], 1 / (1 + np.exp(-logits)), atol=1e-5)
    answer = loaded.signatures["recommend"](
        **raw, request_territory=tf.constant(["PL"] * 6), seen=tf.constant([[""]] * 6), k=tf.constant([10] * 6),
        allow=tf.constant([[""]]), where=tf.constant([[""]]), diversity=tf.constant([0.0]), rank_by=tf.constant([""]),
        weight_event=tf.constant([1.0]),
    )  # fmt: skip
    available = pq.read_table(data.path / "availability.parquet").to_pylist()
    catalogue = {row["title"] for row in available if row["territory"] == "PL" and row["window"] == 4}
    scores = np.where([title in catalogue for title in ids], query @ vectors.T, -np.inf)
    order = np.argsort(-scores, axis=1)[:, :10]
    np.testing.assert_array_equal(answer["titles"].numpy().astype(str), np.asarray(ids)[order])
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(scores, order, axis=1), rtol=1e-5)


def test_popularity_is_that_of_the_rows_of_the_stage(tiny, tmp_path):
    recipe = training.Recipe(
        debias="ips", share="none", units=(4,), epochs=1, batch_size=1500, deterministic=False, upsample=False
    )
    with untraced():
        training.train(tiny, tmp_path / "run", recipe, verbose=0)
    data, run = Dataset(tiny), Run(tmp_path / "run")
    for window in (data.test_windows[0], data.test_windows[-1]):
        windows = None if window == data.test_windows[0] else [window - 1]
        files = data.rows_for("two_tower", "train", windows=windows, sampling=("random",))
        rows = inputs.read_tables(files, rows=10**6)
        positives = [
            title
            for table in rows
            for title, event in zip(table["title"].to_pylist(), table["event"].to_pylist(), strict=True)
            if event
        ]
        most = np.unique(positives, return_counts=True)[1].max()
        model = run.load(window=window)
        (layer,) = (layer for layer in model.layers if isinstance(layer, TitlePopularity))
        assert int(layer.largest) == most
