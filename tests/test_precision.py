import json
import shutil

import keras
import numpy as np
import pytest

from tfmtr import components, inputs, precision, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.exporting import export
from tfmtr.models import two_tower
from tfmtr.run import Run
from tfmtr.schema import Feature, Scenario, Schema, Task

tf = pytest.importorskip("tensorflow")

RECIPE = training.Recipe(share="mmoe", units=(16, 8), epochs=1, batch_size=1500, deterministic=False)
HALF = "mixed_bfloat16"


@pytest.fixture(autouse=True)
def policy():
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture(scope="module")
def run(tiny_two, tmp_path_factory):
    path = tmp_path_factory.mktemp("precision") / "run"
    with precision.use(HALF):
        training.train(tiny_two, path, RECIPE, verbose=0)
    return path


def test_a_run_is_loaded_under_its_own_policy(run):
    assert Run(run).document["dtype_policy"] == HALF
    assert Run(run).load().get_layer("user_dense_0").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"  # as before


def test_older_runs_are_of_float32(run, tmp_path):
    old = shutil.copytree(run, tmp_path / "run")
    document = json.loads((old / "run.json").read_text())
    del document["dtype_policy"]
    (old / "run.json").write_text(json.dumps(document))
    keras.config.set_dtype_policy(HALF)
    assert Run(old).load().get_layer("user_dense_0").compute_dtype == "float32"


def test_a_served_answer_is_that_of_the_model(run, tiny_two, tmp_path):
    keras.config.set_dtype_policy(HALF)  # in which the index and the look-ups must not be
    loaded = tf.saved_model.load(export(run, tmp_path / "out", titles=tiny_two))
    data = Dataset(tiny_two)
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=20))
    raw = {name: tf.constant(table[name].to_pylist()) for name in ("territory", "language")}
    raw["age"] = tf.constant(table["age"].to_pylist(), tf.float32)
    raw["genres"] = tf.constant([[*row, "", ""][:2] for row in table["genres"].to_pylist()])
    for role in ("user", "title"):
        raw[f"{role}_vector"] = tf.constant(inputs.take_vectors(data.vectors(role).vectors, table[f"{role}_row"]))
    served = loaded.signatures["serving_default"](**raw)
    model = Run(run).load()
    offline = model.predict(inputs.model_inputs(table, data.schema, inputs.open_stores(data)), verbose=0)
    for task, values in offline.items():
        np.testing.assert_allclose(served[task], values, atol=5e-3)
    users = {name: raw[name] for name in ("territory", "age", "user_vector")}
    queries = loaded.signatures["user_embedding"](**users)
    titles = loaded.signatures["title_embedding"](**{k: raw[k] for k in ("title_vector", "genres", "language")})
    logits = np.sum(queries["event"] * titles["title_embedding"], axis=1) + model.biases["event"]
    np.testing.assert_allclose(1 / (1 + np.exp(-logits)), served["event"][:, 0], atol=1e-5)
    defaults = {"allow": [[""]], "where": [[""]], "rank_by": [""]}
    asked = {name: tf.constant(value) for name, value in defaults.items()}
    asked |= {name: tf.constant([1.0]) for name in ("weight_event", "weight_like")}
    asked |= {"history": tf.constant([[""]] * 20), "history_ages": tf.constant([[0.0]] * 20)}
    answer = loaded.signatures["recommend"](
        **users, **asked, request_territory=raw["territory"], diversity=tf.constant([0.0]),
        seen=tf.constant([[""]] * 20), k=tf.constant([3] * 20, tf.int32),
    )  # fmt: skip
    assert np.isfinite(answer["scores"]).all()


def test_a_run_goes_on_under_its_policy_only(run, tiny_two, tmp_path):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "weights" / "window-3.npz").unlink()
    with pytest.raises(
        ValueError, match=r'`keras.config.set_dtype_policy\("mixed_bfloat16"\)`.* Received: \'float32\''
    ):
        training.train(tiny_two, copy, RECIPE, verbose=0)
    files = Dataset(tiny_two).examples("train", windows=[2])
    training.go_on(run, tiny_two, files, tmp_path / "day", verbose=0)
    assert Run(tmp_path / "day").document["dtype_policy"] == HALF


@pytest.mark.parametrize("name", ["mixed_float16", "float16", "float64"])
def test_a_policy_that_cannot_be_trained_under_is_refused_by_name(tiny_two, tmp_path, name):
    keras.config.set_dtype_policy(name)
    with pytest.raises(ValueError, match=f"The dtype policy must be one of .* Received: '{name}'"):
        training.train(tiny_two, tmp_path / "run", RECIPE, verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", components.names("sharing"))
def test_every_system_s_vectors_are_float32(name):
    features = [Feature("device", "user", "id", ["tv"]), Feature("vector", "title", "vector", width=3)]
    schema = Schema(features, [Task("a"), Task("b")], Scenario(["territory"], {("DE",): "west", ("PL",): "east"}))
    with precision.use(HALF):
        model = two_tower(schema, share=name, units=(8, 4))
    assert {vector.dtype for vector in (*model.user_tower.output.values(), model.title_tower.output)} == {"float32"}
    assert model.get_layer("user_dense_0").compute_dtype == "bfloat16"
