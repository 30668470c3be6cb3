import collections
import contextlib
import functools
import json
import re
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from helpers.few_signatures import keep_signatures
from helpers.untraced import untraced
from tensorflow_serving.apis.model_pb2 import ModelSpec

from tfmtr import components, inputs, models, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.exporting import export, export_index
from tfmtr.retrieval.index import FOLDER, TitleVectors, title_vectors
from tfmtr.retrieval.recommender import Recommender
from tfmtr.run import Run
from tfmtr.schema import Schema, Task
from tfmtr.serving import rest_server
from tfmtr.serving.batching import BatchingOptions, BatchingSession, BatchScheduler
from tfmtr.serving.deploy_kit import deploy_kit
from tfmtr.serving.errors import ServerError
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.session import SavedModelSession
from tfmtr.version import Version

tf = pytest.importorskip("tensorflow")


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    path = tmp_path_factory.mktemp("export") / "run"
    recipe = training.Recipe(
        units=(16, 8), epochs=2, batch_size=1500, learning_rate=0.01, deterministic=False, listwise=False
    )
    with untraced():
        training.train(tiny, path, recipe, verbose=0)
    return path


@pytest.fixture(scope="module")
def exports(run, tiny, tmp_path_factory):
    """A version and the index alone, made in a folder that was there; with how often parts of them were called."""
    folder, calls = tmp_path_factory.mktemp("models"), collections.Counter()
    functional = type(Run(run).model.title_tower)
    for name in ("7", "notes"):
        (folder / name).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for kind in (Recommender, functional):

            def count(self, *arguments, kind=kind, call=kind.call, **options):
                calls[kind] += 1
                return call(self, *arguments, **options)

            patch.setattr(kind, "call", functools.wraps(kind.call)(count))
        made = [make(run, folder, titles=tiny) for make in (export, export_index)]
    names = sorted(path.name for path in folder.iterdir())
    return types.SimpleNamespace(made=made, names=names, recommenders=calls[Recommender], models=calls[functional])


@pytest.fixture(scope="module")
def version(exports):
    return exports.made[0]


@pytest.fixture(scope="module")
def signatures(version):
    loaded = tf.saved_model.load(version)
    return loaded.signatures, loaded  # the module must outlive its functions


def raw_rows(data, rows=20):
    """Raw values of some test rows, as a client would send them."""
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=rows))
    raw = {name: tf.constant(table[name].to_pylist()) for name in ("territory", "language")}
    raw["age"] = tf.constant(table["age"].to_pylist(), tf.float32)
    raw["genres"] = tf.constant([[*row, "", ""][:2] for row in table["genres"].to_pylist()])
    for role in ("user", "title"):
        raw[f"{role}_vector"] = tf.constant(inputs.take_vectors(data.vectors(role).vectors, table[f"{role}_row"]))
    return table, raw


USER = ("territory", "age", "user_vector")
OPTIONAL = {
    "allow": tf.constant([[""]]), "where": tf.constant([[""]]), "diversity": tf.constant([0.0]),
}  # fmt: skip


def by_user(**weights):
    """What a request by a user's features may have, at its default: TensorFlow's loader does not fill them in."""
    return {**OPTIONAL, "rank_by": tf.constant([""]), **{f"weight_{k}": tf.constant([v]) for k, v in weights.items()}}


TITLE = ("title_vector", "genres", "language")


def test_served_scores_equal_offline_scores(run, tiny, signatures):
    data = Dataset(tiny)
    table, raw = raw_rows(data)
    offline = Run(run).load().predict(inputs.model_inputs(table, data.schema, inputs.open_stores(data)), verbose=0)
    served = signatures[0]["serving_default"](**raw)
    assert list(served) == ["event"]
    np.testing.assert_allclose(served["event"], offline["event"], atol=1e-6)


def test_no_variable_is_written_twice(version, signatures):
    """Keras's archive keeps variables of its own beside those that its functions use, and would write both."""
    used = {id(v): v for function in signatures[0].values() for v in function.variables}
    expected = sum(np.asarray(v).nbytes for v in used.values())
    (file,) = (version.path / "variables").glob("variables.data-*")
    assert expected < file.stat().st_size < expected + 15_000  # and what is where


def test_probability_follows_from_the_exported_vectors(version, tiny, signatures):
    _, raw = raw_rows(Dataset(tiny))
    query = signatures[0]["user_embedding"](**{name: raw[name] for name in USER})["event"].numpy()
    title = signatures[0]["title_embedding"](**{name: raw[name] for name in TITLE})["title_embedding"].numpy()
    bias = json.loads((version / "assets.extra/tfmtr.json").read_text())["biases"]["event"]
    expected = 1 / (1 + np.exp(-np.sum(query * title, axis=1) - bias))
    np.testing.assert_allclose(signatures[0]["serving_default"](**raw)["event"][:, 0], expected, atol=1e-6)


def test_recommends_what_numpy_computes_from_the_vectors(run, tiny, signatures):
    data = Dataset(tiny)
    _, raw = raw_rows(data, rows=6)
    user = {name: raw[name] for name in USER}
    query = signatures[0]["user_embedding"](**user)["event"].numpy()
    ids, vectors, *_ = title_vectors(Run(run).load(), data, data.schema)
    table = pq.read_table(data.path / "availability.parquet").to_pylist()
    catalogue = {row["title"] for row in table if row["territory"] == "PL" and row["window"] == 4}
    seen = ["t3", "t7"]
    answer = signatures[0]["recommend"](
        **user,
        request_territory=tf.constant(["PL"] * 6),
        seen=tf.constant([seen] * 6),
        k=tf.constant([10] * 6),
        **by_user(event=1.0),
    )
    allowed = np.asarray([title in catalogue and title not in seen for title in ids])
    scores = np.where(allowed, query @ vectors.T, -np.inf)
    order = np.argsort(-scores, axis=1)[:, :10]
    np.testing.assert_array_equal(answer["titles"].numpy().astype(str), np.asarray(ids)[order])
    np.testing.assert_allclose(answer["scores"], np.take_along_axis(scores, order, axis=1), rtol=1e-5)
    by_vector = signatures[0]["recommend_by_vector"](
        query=tf.constant(query),
        request_territory=tf.constant(["PL"] * 6),
        seen=tf.constant([seen] * 6),
        k=tf.constant([10] * 6),
        **OPTIONAL,
        model=tf.constant([""]),
    )
    np.testing.assert_array_equal(by_vector["titles"], answer["titles"])


def test_a_cascade_s_probabilities_and_the_tasks_weights_are_served(tiny, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "data")
    schema = Schema.load(data)
    tasks = [Task("click", "event", weight=2.0, mean=0.2), Task("buy", "event", weight=0.5, mean=0.1, after="click")]
    schema.replace(tasks=tasks).save(data)
    recipe = training.Recipe(
        share="shared_bottom", head="esmm", units=(8, 4), epochs=1, batch_size=1500, deterministic=False, listwise=False
    )
    with untraced():
        training.train(data, tmp_path / "run", recipe, verbose=0)
    version = export(tmp_path / "run", tmp_path / "models", titles=data)
    assert version.facts["recipe"] == recipe.document()
    loaded = tf.saved_model.load(version)
    _, raw = raw_rows(Dataset(data), rows=5)
    served = {name: value.numpy() for name, value in loaded.signatures["serving_default"](**raw).items()}
    assert sorted(served) == ["buy", "buy|click", "click"]
    np.testing.assert_allclose(served["buy"], served["click"] * served["buy|click"], rtol=1e-5)
    user = {name: raw[name] for name in USER}
    queries = loaded.signatures["user_embedding"](**user)
    request = {
        "request_territory": raw["territory"], "seen": tf.constant([[""]] * 5), "k": tf.constant([3] * 5),
    }  # fmt: skip
    answer = loaded.signatures["recommend"](**user, **request, **by_user(click=2.0, buy=0.5))
    query = 2.0 * queries["click"] + 0.5 * queries["buy"]  # the weights that the losses have
    by_vector = loaded.signatures["recommend_by_vector"](query=query, **request, **OPTIONAL, model=queries["model"])
    np.testing.assert_array_equal(answer["titles"], by_vector["titles"])
    np.testing.assert_allclose(answer["scores"], by_vector["scores"], rtol=1e-5)


def test_an_unknown_territory_is_served_by_the_default_branch(run, tiny, signatures):
    data = Dataset(tiny)
    table, raw = raw_rows(data, rows=4)
    raw["territory"] = tf.constant(["no such place"] * 4)
    x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    x["scenario"][:] = 0
    x["territory"][:] = 0
    expected = Run(run).load().predict(x, verbose=0)["event"]
    np.testing.assert_allclose(signatures[0]["serving_default"](**raw)["event"], expected, atol=1e-6)


def test_cold_users_get_what_is_popular_in_their_territory_and_it_is_named(tiny, signatures):
    data = Dataset(tiny)
    _, raw = raw_rows(data, rows=4)
    user = {name: raw[name] for name in USER}
    vectors = user["user_vector"].numpy()
    vectors[[0, 2]] = 0.0
    user["user_vector"], user["territory"] = tf.constant(vectors), tf.constant(["PL", "PL", "XX", "XX"])
    request = {"request_territory": tf.constant(["PL"] * 4), "seen": tf.constant([[""]] * 4), "k": tf.constant([5] * 4)}
    answer = signatures[0]["recommend"](**user, **request, **by_user(event=1.0))
    assert list(answer["fallback"].numpy().astype(str)) == [
        "cold_user",
        "",
        "cold_user,default_branch",
        "default_branch",
    ]
    homes = {row["user"]: row["territory"] for row in pq.read_table(data.path / "users.parquet").to_pylist()}
    pairs = {(row["user"], row["title"]) for row in pq.read_table(data.path / "events.parquet").to_pylist()}
    counts = collections.Counter(title for user, title in pairs if homes[user] == "PL")
    table = pq.read_table(data.path / "availability.parquet").to_pylist()
    catalogue = [row["title"] for row in table if row["territory"] == "PL" and row["window"] == 4]
    best = sorted((counts[title] for title in catalogue), reverse=True)[:5]
    for row in (0, 2):
        found = answer["titles"][row].numpy().astype(str)
        assert [counts[title] for title in found] == best
        np.testing.assert_allclose(answer["scores"][row], np.log1p(best), rtol=1e-3)


def test_a_version_says_where_it_comes_from(run, tiny, version):
    facts = json.loads((version / "assets.extra/tfmtr.json").read_text())
    assert facts["run_id"] == Run(run).run_id
    assert facts["fingerprint"] == Dataset(tiny).report["fingerprint"]
    assert facts["titles"] == 50
    assert Schema.load(version / "assets.extra") == Dataset(tiny).schema


def test_versions_count_up_and_nothing_half_written_is_left(exports):
    """And nothing is traced twice, which takes as long as all the rest."""
    assert [version.name for version in exports.made] == ["8", "9"]
    assert exports.names == ["7", "8", "9", "notes"]
    assert exports.recommenders == 4  # in two signatures of each version
    assert exports.models < 20


@pytest.fixture(scope="module")
def indexes(run, tiny, exports, tmp_path_factory):
    """Versions of the index alone, of every kind, moved to where they were not made; `tree` is ScaNN's with a tree."""
    folder = tmp_path_factory.mktemp("indexes")
    with pytest.MonkeyPatch.context() as patch:
        for kind in (*sorted({*components.names(FOLDER)} - {"exact"}), "tree"):
            if kind == "tree":
                patch.setattr("tfmtr.retrieval.indexes.scann.SMALLEST_TREE", 0)
                patch.setattr("tfmtr.retrieval.indexes.scann.COST", 1)
            made = export_index(run, folder / f"{kind}-made", titles=tiny, index="scann" if kind == "tree" else kind)
            assert [path.name for path in made.parent.iterdir()] == ["1"]
            shutil.move(folder / f"{kind}-made", folder / kind)
    (folder / "exact").mkdir()
    shutil.move(exports.made[1], folder / "exact" / "1")
    return folder


@functools.cache
def session_of(version):
    """The session that the server runs; several tests ask it."""
    return SavedModelSession(version)


def ask(version, data, where="", diversity=0.0):
    """Answer of a version's `recommend` to five requests."""
    session = session_of(version)
    signature = session.signatures["recommend"]
    _, raw = raw_rows(data, rows=5)
    request = {name: raw[name].numpy() for name in USER} | {
        "request_territory": np.asarray(["PL"] * 5, object), "seen": np.asarray([["t3"]] * 5, object),
        "k": np.asarray([10, 3, 40, 1, 5], "int32"), "allow": np.asarray([[""]], object),
        "where": np.asarray([[where]], object), "diversity": np.full(1, diversity, "float32"),
        "rank_by": np.asarray([""], object), "weight_event": np.ones(1, "float32"),
    }  # fmt: skip
    return predict(session, signature, request, choose_outputs(signature))


def test_without_options_any_number_of_rows_fits_in_a_batch(indexes, tiny):
    """The batching session has TensorFlow Serving's rule: inputs of equally many rows."""
    session, expected = session_of(indexes / "exact" / "1"), ask(indexes / "exact" / "1", Dataset(tiny))
    signature = session.signatures["recommend_batch"]
    assert not signature.defaults
    assert set(signature.inputs) == set(session.signatures["recommend"].inputs) - {*OPTIONAL, "rank_by", "weight_event"}
    _, raw = raw_rows(Dataset(tiny), rows=5)
    request = {name: raw[name].numpy() for name in USER} | {
        "request_territory": np.asarray(["PL"] * 5, object), "seen": np.asarray([["t3"]] * 5, object),
        "k": np.asarray([10, 3, 40, 1, 5], "int32"),
    }  # fmt: skip
    scheduler = BatchScheduler(BatchingOptions(), 1)
    batched = BatchingSession(session, scheduler)
    found = predict(batched, signature, request, choose_outputs(signature))
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value)
    with pytest.raises(ServerError, match="equal 0th-dimension size"):
        ask_with(batched, {**request, **{name: value.numpy() for name, value in OPTIONAL.items()}})
    scheduler.close()


def test_rest_wants_every_input_of_recommend_and_the_features_of_the_batch(indexes, tiny):
    session, expected = session_of(indexes / "exact" / "1"), ask(indexes / "exact" / "1", Dataset(tiny))
    version = types.SimpleNamespace(session=session, number=1)
    server = types.SimpleNamespace(lease=lambda spec: contextlib.nullcontext(version), count_fallbacks=lambda *_: None)
    _, raw = raw_rows(Dataset(tiny), rows=5)
    columns = {name: raw[name].numpy() for name in USER}
    columns = {name: (v.astype(str) if v.dtype == object else v).tolist() for name, v in columns.items()}
    columns |= {"request_territory": ["PL"] * 5, "seen": [["t3"]] * 5, "k": [10, 3, 40, 1, 5]}

    def post(name):
        body = json.dumps({"signature_name": name, "inputs": columns}).encode()
        return json.loads(rest_server.answer_predict(server, ModelSpec(name="any"), body, None))["outputs"]

    assert post("recommend_batch")["count"] == expected["count"].tolist()
    with pytest.raises(ServerError, match="Missing named input: allow in 'inputs' object"):
        post("recommend")


def ask_with(session, request):
    signature = session.signatures["recommend"]
    request |= {"rank_by": np.asarray([""], object), "weight_event": np.ones(1, "float32")}
    return predict(session, signature, request, choose_outputs(signature))


@pytest.mark.parametrize("kind", ["streaming", "scann", "tree"])
@pytest.mark.parametrize("where", ["", "genres=comedy", "genres!=drama", "language=xx"])
def test_every_index_answers_as_the_exact_one(indexes, tiny, kind, where):
    expected, found = (ask(indexes / name / "1", Dataset(tiny), where) for name in ("exact", kind))
    np.testing.assert_array_equal(found["count"], expected["count"])
    assert found["is_exact"].tolist() == ([True] * 5 if kind != "tree" else found["is_exact"].tolist())
    for row in np.flatnonzero(found["is_exact"]):
        assert found["titles"][row].tolist() == expected["titles"][row].tolist()
        np.testing.assert_allclose(found["scores"][row], expected["scores"][row], rtol=1e-4)
    if kind == "tree" and not where:  # ScaNN was asked
        assert not np.all(found["is_exact"])


def test_a_diversified_list_is_the_same_from_a_file(indexes, tiny):
    expected, found = (ask(indexes / kind / "1", Dataset(tiny), diversity=0.5) for kind in ("exact", "streaming"))
    np.testing.assert_array_equal(found["titles"], expected["titles"])


def test_an_index_alone_has_the_retrieval_signatures_and_says_what_it_needs(indexes, version):
    names = {"user_embedding", "title_embedding", "recommend", "recommend_by_vector"}
    names |= {"recommend_batch", "recommend_by_vector_batch"}
    for kind in components.names(FOLDER):
        signatures = session_of(indexes / kind / "1").signatures
        assert set(signatures) - {"__saved_model_init_op"} == names
        facts = json.loads((indexes / kind / "1" / "assets.extra/tfmtr.json").read_text())
        assert (facts["index"], facts["titles"]) == (kind, 50)
    assert [Version(path).needs for path in (version, indexes / "exact" / "1", indexes / "streaming" / "1")] == [""] * 3
    operations = r"ScaNN's operations \(Scann>ScannSearchBatched, Scann>TensorsToScann\)"
    assert re.fullmatch(f"an image of TensorFlow Serving with {operations}", Version(indexes / "scann" / "1").needs)


def test_the_deployment_kit_refuses_what_the_stock_image_cannot_serve(indexes, tmp_path):
    assert "docker-compose.yml" in deploy_kit(indexes / "streaming", tmp_path / "deploy")
    with pytest.raises(ValueError, match=r"lacks operations of this graph.*Scann>ScannSearchBatched"):
        deploy_kit(indexes / "scann", tmp_path / "deploy")


FRESH = """
import sys
from tfmtr.serving.session import SavedModelSession

assert "scann.scann_ops.py" not in sys.modules
sys.modules["scann"] = None
try:
    SavedModelSession(sys.argv[1])
except Exception as error:
    print(error)
del sys.modules["scann"]
assert "scann.scann_ops.py" not in sys.modules
SavedModelSession(sys.argv[1])
print("loaded")
"""


def test_a_fresh_process_loads_scann_s_operations_when_a_model_needs_them(indexes):
    """First as where ScaNN is not installed, then as where it is."""
    found = subprocess.run([sys.executable, "-c", FRESH, indexes / "tree" / "1"], capture_output=True, text=True)
    refused, _, loaded = found.stdout.strip().rpartition("\n")
    assert "install it with: pip install 'tfmtr[scann]'" in refused, found.stderr
    assert loaded == "loaded", found.stderr


def test_an_index_or_a_signature_that_does_not_exist_is_refused(run, tiny, tmp_path):
    with pytest.raises(ValueError, match=r"`index` must be one of.*Did you mean 'scann'\? Received: index='scan'"):
        export(run, tmp_path / "out", titles=tiny, index="scan")
    with pytest.raises(ValueError, match=r"`signatures` must be one of .*Did you mean 'recommend'\?"):
        export(run, tmp_path / "out", titles=tiny, signatures=["recomend"])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("index", ["exact", "streaming"])
def test_the_graph_has_only_ops_of_stock_tensorflow(version, indexes, index):
    from tensorflow.core.protobuf import saved_model_pb2

    version = version if index == "exact" else indexes / index / "1"
    saved = saved_model_pb2.SavedModel.FromString((version / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    ops = {node.op for node in graph.node} | {node.op for f in graph.library.function for node in f.node_def}
    functions = {f.signature.name for f in graph.library.function}
    custom = [op for op in ops - functions if tf.raw_ops.__dict__.get(op) is None and not op.startswith("_")]
    assert custom == []
    assert "PyFunc" not in ops
    assert "EagerPyFunc" not in ops


def test_titles_of_another_schema_are_refused(run, tiny, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(tiny, other)
    schema = Schema.load(other)
    schema.replace(features=[f for f in schema.features if f.name != "language"]).save(other)
    with pytest.raises(
        ValueError, match=r"`titles` must have the features.* Received: no 'language', which is of the kind id"
    ):
        export(run, tmp_path / "out", titles=other)
    assert not (tmp_path / "out").exists()


def test_the_index_holds_titles_beyond_one_batch_in_order(run, tiny, monkeypatch):
    data, model = Dataset(tiny), Run(run).load()
    whole = title_vectors(model, data, data.schema)
    monkeypatch.setattr("tfmtr.retrieval.index.BATCH", 7)
    parts = title_vectors(model, data, data.schema)
    assert parts.ids == whole.ids == [f"t{i}" for i in range(50)]
    np.testing.assert_allclose(parts.vectors, whole.vectors, atol=1e-6)


def test_new_titles_get_into_the_index_without_the_others_being_computed_again(run, tiny, tmp_path, monkeypatch):
    keep_signatures(monkeypatch, "title_embedding")
    few = shutil.copytree(tiny, tmp_path / "few")
    table = pq.read_table(few / "titles.parquet")
    pq.write_table(table.slice(0, 45), few / "titles.parquet")
    catalogue = pq.read_table(few / "availability.parquet")
    old = pc.is_in(catalogue["title"], pa.array([f"t{i}" for i in range(45)]))
    pq.write_table(catalogue.filter(old), few / "availability.parquet")
    first = export(run, tmp_path / "models", titles=few)
    facts = json.loads((first / "assets.extra/tfmtr.json").read_text())
    assert (facts["titles"], facts["new_titles"]) == (45, 45)

    changed = shutil.copytree(tiny, tmp_path / "changed")
    languages = table["language"].to_pylist()
    languages[3] = next(language for language in languages if language != languages[3])
    place = table.column_names.index("language")
    pq.write_table(table.set_column(place, "language", pa.array(languages)), changed / "titles.parquet")
    second = export(run, tmp_path / "models", titles=changed)
    facts = json.loads((second / "assets.extra/tfmtr.json").read_text())
    assert (second.name, facts["titles"], facts["new_titles"]) == ("2", 50, 6)  # five new ones, one that changed
    found = TitleVectors.load(second / "assets.extra" / "titles.parquet")
    whole = title_vectors(Run(run).load(), Dataset(changed), Dataset(changed).schema)
    assert found.ids == whole.ids
    np.testing.assert_allclose(found.vectors, whole.vectors, atol=1e-6)
    assert not np.allclose(found.vectors[3], TitleVectors.load(first / "assets.extra" / "titles.parquet").vectors[3])


def test_a_vector_of_another_model_is_refused(run, tiny, signatures):
    _, raw = raw_rows(Dataset(tiny), rows=2)
    user = signatures[0]["user_embedding"](**{name: raw[name] for name in USER})
    assert user["model"].numpy().tolist() == [Run(run).run_id.encode()] * 2
    request = {"request_territory": raw["territory"], "seen": tf.constant([[""]] * 2), "k": tf.constant([3] * 2)}
    ask = functools.partial(signatures[0]["recommend_by_vector"], query=user["event"], **request, **OPTIONAL)
    assert ask(model=user["model"])["count"].numpy().tolist() == [3, 3]
    with pytest.raises(tf.errors.InvalidArgumentError, match="a vector of another model means nothing to these titles"):
        ask(model=tf.constant(["another"] * 2))


def test_a_model_that_was_trained_by_hand_is_exported(tiny, tmp_path, monkeypatch):
    data = Dataset(tiny)
    model = models.two_tower(data.schema, share="territory_branches", units=(8, 4))
    model.compile(keras.optimizers.SGD(0.01), run_eagerly=True)
    model.fit(inputs.batches(data, data.examples("train"), batch_size=500).take(2), epochs=1, verbose=0)
    with pytest.raises(ValueError, match="`titles` must name a prepared directory where the model is of no run"):
        export(model, tmp_path / "out")
    with pytest.raises(ValueError, match=r"`model\.export` exports what any joint model serves.*class JointModel"):
        export(models.ranking(data.schema), tmp_path / "out", titles=data)
    version = export(model, tmp_path / "out", titles=data)
    assert version.facts["recipe"] is None
    keep_signatures(monkeypatch, "serving_default")
    assert export(model, tmp_path / "out", titles=data).facts["new_titles"] == 0  # the same weights: the same model
    loaded = tf.saved_model.load(version)
    table, raw = raw_rows(data, rows=6)
    x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    served = loaded.signatures["serving_default"](**raw)["event"]
    np.testing.assert_allclose(served, model.predict(x, verbose=0)["event"], atol=1e-6)
