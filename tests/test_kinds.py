"""A new kind of feature is one entry of a table: it trains, grows, is exported and asked."""

import dataclasses
import re
import shutil
from pathlib import Path

import keras
import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

import tfmtr
from tfmtr import inputs, training
from tfmtr.checkpoints import save
from tfmtr.datasets.dataset import Dataset
from tfmtr.encoders.raw import lookup
from tfmtr.growth import grow_schema, warm_start
from tfmtr.kinds import KINDS, Kind, by_value, index
from tfmtr.schema import Feature, Schema
from tfmtr.serving.recommendations import user_inputs

tf = pytest.importorskip("tensorflow")

RECIPE = training.Recipe(
    units=(8, 4), epochs=1, batch_size=1500, learning_rate=0.01, deterministic=False, listwise=False
)
HOME = Path(tfmtr.__file__).parent
# What leads from a schema to a model, its export and its answers.
WAY = ("schema.py", "inputs", "models", "growth.py", "exporting.py", "encoders", "signatures", "serving")


class Folded(keras.layers.Layer):
    def call(self, text):
        return tf.strings.lower(text)

    def compute_output_spec(self, text):
        return keras.KerasTensor(text.shape, dtype="string")


# Text of a vocabulary, in whatever case a client writes it.
FOLDED = dataclasses.replace(
    KINDS["id"],
    name="folded",
    encode=lambda column, feature, vocabulary: by_value(column, lambda v: index(pc.utf8_lower(v), vocabulary)) + 1,
    look_up=lambda value, feature: lookup(feature.vocabulary)(Folded()(value)),
)
# A number of which the logarithm counts.
LOGGED = dataclasses.replace(
    KINDS["number"],
    name="logged",
    encode=lambda column, feature, _: np.log1p(pc.fill_null(column, feature.mean)).astype("float32"),
    look_up=lambda value, feature: keras.ops.log1p(value),
)


@pytest.fixture
def data(tiny, tmp_path, monkeypatch):
    for kind in (FOLDED, LOGGED):
        monkeypatch.setitem(KINDS, kind.name, kind)
    path, schema = shutil.copytree(tiny, tmp_path / "data"), Schema.load(tiny)
    new = {"age": "logged", "language": "folded"}
    schema.replace(features=[dataclasses.replace(f, kind=new.get(f.name, f.kind)) for f in schema.features]).save(path)
    return Dataset(path)


def test_a_kind_that_is_added_to_the_table_trains_grows_is_exported_and_asked(data, tmp_path):
    run = training.train(data, tmp_path / "run", RECIPE, verbose=0)
    version = tfmtr.export(run, tmp_path / "models")
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=20))
    x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    np.testing.assert_allclose(x["age"], np.log1p(table["age"].to_numpy()), rtol=1e-5)
    assert set(x["language"]) == {1, 2}
    raw = {
        "territory": tf.constant(table["territory"].to_pylist()),
        "age": tf.constant(table["age"].to_numpy(), "float32"),
    }
    raw["language"] = tf.constant([text.upper() for text in table["language"].to_pylist()])
    raw["genres"] = tf.constant([[*row, "", ""][:2] for row in table["genres"].to_pylist()])
    for role in ("user", "title"):
        raw[f"{role}_vector"] = tf.constant(x[f"{role}_vector"])
    loaded = tf.saved_model.load(str(version))
    served = loaded.signatures["serving_default"](**raw)["event"]
    np.testing.assert_allclose(served, run.model.predict(x, verbose=0)["event"], atol=1e-6)
    with tfmtr.serve(version) as server:
        assert len(server.recommend({"territory": "PL", "age": 30}, k=3).titles) == 3
        request = user_inputs(version, {"territory": "PL"}) | {"k": np.asarray([3], "int32")}
        texts = {"request_territory": ["PL"], "seen": [[""]], "where": [["language=de"]]}
        request |= {name: np.asarray(value, object) for name, value in texts.items()}
        with server.client() as client:
            found = client.predict(request, signature_name="recommend")["titles"][0].astype(str)
    assert len(found) == 3  # the kind says that titles are chosen by it
    titles = pq.read_table(data.path / "titles.parquet").to_pandas().set_index("title")
    assert set(titles.language[found]) == {"de"}

    longer = [
        dataclasses.replace(f, vocabulary=(*f.vocabulary, "cs")) if f.name == "language" else f
        for f in data.schema.features
    ]
    grown = grow_schema(data.schema, data.schema.replace(features=longer))
    model = RECIPE.build(grown)
    save(run.model, tmp_path / "old.npz")
    assert any("language_embedding" in path for path in warm_start(model, grown, data.schema, tmp_path / "old.npz"))
    rows = np.asarray(model.get_layer("language_embedding").embeddings)
    np.testing.assert_array_equal(rows[3], rows[KINDS["folded"].unknown])
    assert not np.array_equal(rows[3], rows[1])


def test_a_table_of_no_unknown_value_and_a_taste_of_one_value_are_refused():
    with pytest.raises(ValueError, match=r"`unknown` of the kind 'a' must be the place .* Received: unknown=None"):
        dataclasses.replace(KINDS["id"], name="a", unknown=None)
    with pytest.raises(ValueError, match=r"`tells_taste` of the kind 'a' must be False unless `width=\"values\"`"):
        dataclasses.replace(KINDS["number"], name="a", tells_taste=True)
    assert isinstance(KINDS["set"], Kind)


def test_an_unknown_kind_lists_those_of_the_table():
    with pytest.raises(ValueError, match=r"`kind` must be one of \['id', .*Did you mean 'vector'\?"):
        Feature("a", "user", "vectr")
    with pytest.raises(ValueError, match=r"`kind` must be one of \['id', 'number', 'string'\]"):
        Feature("a", "training", "vector")


def test_from_the_schema_to_the_answer_no_other_place_asks_for_a_kind_by_its_name():
    quoted = "|".join(f'"{name}"' for name in KINDS)
    compared = re.compile(rf"\.kind\b\]? (?:==|!=|in|not in) \(?(?:{quoted})")
    assert compared.search('if feature.kind not in ("set", "sequence")')
    for place in WAY:
        for file in [HOME / place] if place.endswith(".py") else sorted((HOME / place).rglob("*.py")):
            assert compared.findall(file.read_text(encoding="utf-8")) == [], file
