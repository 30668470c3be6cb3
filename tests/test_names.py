"""No name of a feature or a task meets what models and signatures name: it works, or `prepare` refuses it."""

import datetime
import itertools

import keras
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.untraced import untraced

from studies.combinations import study as combinations
from tfmtr import components, inputs, models, training
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.names import why_reserved
from tfmtr.datasets.prepare import prepare
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.exporting import export
from tfmtr.growth import warm_start
from tfmtr.retrieval.recommender import OPTIONS, RANK_BY
from tfmtr.run import Run
from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.recommendations import user_inputs
from tfmtr.serving.session import SavedModelSession

pytest.importorskip("tensorflow")
TASKS = {"click": "click", "scores": "buy:after=click", "class": "buy", "2.watch-Time": "seconds:regression"}
TASKS |= {"k": "buy", "titles": "click"}
USERS = (
    "1st",
    "a.b-c_d",
    "UPPER",
    "Positive",
    "select",
    "count",
    "schema",
    "model",
    "query",
    "rank",
    "score",
    "bias",
    "tf",
    "fallback",
    "is_exact",
    "title_tower",
    "x" * 300,
)
TITLES = (
    "order",
    "group",
    "seen",
    "Score_",
    "bias_add",
    "count_",
    "tf.constant",
    "title_embedding",
    "predictor",
    "string_lookup",
    "user_dense_0",
)
TRAINING = ("draw", "index", "columns", "self", "1")
SCHEMA = Schema(
    [
        Feature("lang", "user", "id", ("a", "b")),
        Feature("mail", "user", "string", width=3),
        Feature("tags", "user", "set", ("a",), width=2),
        Feature("age", "user", "number"),
        Feature("user_vector", "user", "vector", width=3),
        Feature("genre", "title", "id", ("a", "b")),
        Feature("words", "title", "set", ("a",), width=2),
        Feature("year", "title", "number"),
        Feature("title_vector", "title", "vector", width=4),
        Feature("position", "training", "id", ("1", "2")),
        Feature("elapsed", "training", "number"),
    ],
    [Task("click")],
    Scenario(["territory"], {("DE",): "west", ("US",): "east"}),
)


def layer_names(model):
    return {layer.name for layer in model.layers if not isinstance(layer, keras.layers.InputLayer)}


def build(head, share, form, schema):
    options = {"units": (8, 6)} if form == "two_tower" else {"has_first_order": True, "encode": "cross"}
    return getattr(models, form)(schema, head=head, share=combinations.small(share), embedding_dim=3, **options)


@pytest.mark.parametrize(("head", "share", "form"), combinations.covering())
def test_a_feature_or_task_may_be_called_like_any_layer(head, share, form):
    """All names of a model's layers are brought to the same model, as numbers, as ids with tables and as tasks."""
    tasks = combinations.tasks_of(head)
    schema = SCHEMA.replace(tasks=tasks)
    names = layer_names(build(head, share, form, schema)) | {"predictor", "user_tower", "title_tower"}
    assert len(names) > 10
    tables = {name.removesuffix("_embedding") for name in names if name.endswith("_embedding")}
    features = {f.name: f for f in schema.features}
    for role, kind, brought in (("user", "id", tables), ("title", "number", names)):
        for name in sorted(brought):
            if why_reserved(name, f"{role}s", [task.name for task in tasks]) is None:
                features.setdefault(name, Feature(name, role, kind, ("a",) if kind == "id" else ()))
    more = [] if head == "cross_distil" else sorted(name for name in names if name.startswith("click_"))
    more = [name for name in more if name not in features or features.pop(name)]
    more = [Task(name) for name in more if why_reserved(name, "tasks", [task.name for task in tasks]) is None]
    model = build(head, share, form, schema.replace(features=features.values(), tasks=[*tasks, *more]))
    assert {*model.input} == {*features, "scenario", *({"title"} if head == "in_batch_softmax" else ())}
    if form == "two_tower":
        assert set(model.biases) >= {task.name for task in tasks}


def test_biases_are_those_of_the_scores_where_another_layer_has_their_name():
    """`m2m` has a layer `click_attention_score`, which is that of the score of a task `click_attention`."""
    schema = SCHEMA.replace(tasks=[Task("click", mean=0.2), Task("click_attention", mean=0.1)])
    biases = build("parallel", "m2m", "two_tower", schema).biases
    assert biases == {
        name: pytest.approx(np.log(p / (1 - p))) for name, p in (("click", 0.2), ("click_attention", 0.1))
    }


@pytest.mark.parametrize("head", components.names("heads"))
def test_what_a_head_makes_of_a_task_s_name_is_no_other_task(head):
    """Towers, losses and outputs; and the inputs that a model has beside features."""
    tasks = combinations.tasks_of(head)
    model = combinations.build(head, "shared_bottom", "two_tower")
    x = {name: value for name, value in combinations.rows().items() if name in model.input}
    y_pred = model(x)
    made = {*model.losses_by_name(x, combinations.labels(tasks), y_pred), *y_pred["outputs"], *y_pred["logits"]}
    own = {task.name for task in tasks}
    for name in made - own:
        assert why_reserved(name, "tasks", own), name
    for name in set(model.input) - {f.name for f in model.schema.features}:
        for role in ("tasks", "training", "users", "titles"):
            assert why_reserved(name, role, own), name


def test_a_table_grows_by_its_own_feature_s_rule(tmp_path):
    """`ang_embedding`, of a set, is within the name of the table of `lang`, an id, and that within `click_lang`'s."""
    old = SCHEMA.replace(
        features=[
            Feature("ang", "user", "set", ("a",), width=2),
            Feature("lang", "user", "id", ("a",)),
            Feature("click_lang", "user", "set", ("a",), width=2),
            SCHEMA.features[8],
        ]
    )
    new = old.replace(
        features=[Feature(f.name, f.role, f.kind, f.vocabulary and ("a", "b"), f.width) for f in old.features]
    )
    before, after = (models.two_tower(schema, units=(8, 6)) for schema in (old, new))
    for model in (before, after):
        model.compile("adam")
        model.optimizer.build(model.trainable_variables)
    training.save(before, tmp_path / "old.npz")
    warm_start(after, new, old, tmp_path / "old.npz")
    for name, unknown in (("ang", 1), ("lang", 0), ("click_lang", 1)):
        table = np.asarray(after.get_layer(f"{name}_embedding").embeddings)
        np.testing.assert_array_equal(table[-1], table[unknown], err_msg=name)


@pytest.fixture(scope="module")
def difficult(tmp_path_factory):
    """A log with difficult names, prepared, trained and exported: `(data, run, version)`."""
    folder, rng = tmp_path_factory.mktemp("difficult"), np.random.default_rng(0)
    users = pd.DataFrame({"user": [f"u{i}" for i in range(60)], "territory": rng.choice(["US", "DE"], 60)})
    titles = pd.DataFrame({"title": [f"t{i}" for i in range(20)], "name": [f"Film {i}" for i in range(20)]})
    for number, name in enumerate(USERS):
        users[name] = rng.normal(size=60) if number % 2 else rng.choice(["a", "b"], 60)
    for number, name in enumerate(TITLES):
        titles[name] = rng.normal(size=20) if number % 2 else rng.choice(["a", "b"], 20)
    seconds = pd.to_timedelta(rng.integers(0, 28 * 86400, 1500), unit="s")
    events = pd.DataFrame({"user": rng.choice(users.user, 1500), "title": rng.choice(titles.title, 1500)})
    events = events.assign(time=pd.Timestamp("2024-03-01") + seconds, click=rng.integers(0, 2, 1500))
    events["buy"], events["seconds"] = events.click * rng.integers(0, 2, 1500), events.click * rng.random(1500)
    paths = {}
    for name, table in (("events", events), ("users", users), ("titles", titles)):
        paths[name] = folder / f"{name}.csv"
        table.to_csv(paths[name], index=False)
    training_columns = {name: "seconds" for name in TRAINING}
    calendar = Calendar(datetime.timedelta(days=7), num_train=2, num_test=1)
    logs = Logs(**paths, columns={}, calendar=calendar, tasks=TASKS, training=training_columns)
    data = prepare(logs, folder / "data", progress=False)
    recipe = training.Recipe(head="esmm", units=(8, 4), epochs=1, batch_size=500, deterministic=False, listwise=False)
    with untraced():  # one epoch of two steps
        training.train(data.path, folder / "run", recipe, verbose=0)
    return data, folder / "run", export(folder / "run", folder / "models", titles=data.path)


def test_difficult_names_are_trained_evaluated_and_served(difficult, eager):
    data, run, version = difficult
    schema = data.schema
    assert {f.name for f in schema.by_role("user")} == {"territory", "user_vector", *USERS}
    assert {f.name for f in schema.by_role("title")} == {"title_vector", *TITLES}
    assert {f.name for f in schema.by_role("training")} == set(TRAINING)
    table = next(inputs.read_tables(data.examples("test", windows=[1]), rows=20))
    x = inputs.model_inputs(table, schema, inputs.open_stores(data))
    offline = Run(run).load().predict(x, verbose=0)
    titles = pq.read_table(data.path / "titles.parquet").to_pylist()
    vectors = np.asarray(data.vectors("title").vectors, "float32")
    session, answers = SavedModelSession(version), []

    def ask(name, request):
        signature = session.signatures[name]
        return predict(session, signature, request, choose_outputs(signature))

    for row in table.to_pylist():
        user = user_inputs(data, row)
        title = {f.name: np.asarray([titles[row["title_row"]].get(f.name)]) for f in schema.by_role("title")}
        title = {n: v.astype("float32") if v.dtype.kind == "f" else v.astype(object) for n, v in title.items()}
        title["title_vector"] = vectors[row["title_row"]][None]
        answers.append(ask("serving_default", {**user, **title}))
    for task in offline:
        np.testing.assert_allclose(np.concatenate([a[task] for a in answers]), offline[task], atol=1e-5, err_msg=task)
    request = {name: np.asarray(value) for name, (_, value) in {**OPTIONS, **RANK_BY}.items()}
    request |= {"request_territory": np.asarray(["US"]), "seen": np.asarray([[""]]), "k": np.asarray([3], "int32")}
    request |= {f"weight_{task}": np.ones(1) for task in TASKS}
    kinds = {"U": object, "f": "float32", "i": "int32", "O": object}
    request = {name: value.astype(kinds[value.dtype.kind]) for name, value in {**user, **request}.items()}
    assert ask("recommend", request)["count"].tolist() == [3]
    assert {*ask("user_embedding", user)} == {*TASKS, "model"}
    assert evaluate(run, data.path, baselines=()).document["tasks"]["2.watch-Time"]["territory"]["1"]
    own = set(pq.ParquetFile(run / "scores.parquet").schema_arrow.names) - {*TASKS}
    assert own
    assert all(why_reserved(name, "tasks", TASKS) for name in own)


def test_signatures_have_no_name_that_is_unguarded(difficult):
    """What a signature has beside features and tasks is refused for those that it takes or returns."""
    data, _, version = difficult
    roles = {"users": "user", "titles": "title"}
    brought = {role: {f.name for f in data.schema.by_role(of)} for role, of in roles.items()} | {"tasks": {*TASKS}}
    found = set()
    for name, signature in SavedModelSession(version).signatures.items():
        for names in (set(signature.inputs), set(signature.outputs)):
            there = [role for role in brought if brought[role] <= names]
            for own in names.difference(*(brought[role] for role in there)) if there else ():
                found.add(own)
                for role, spelled in itertools.product(there, (own, own.upper())):
                    assert why_reserved(spelled, role, TASKS), (name, role, spelled)
    assert {"request_territory", "seen", "k", "allow", "where", "diversity", "rank_by", "model"} < found
    assert {f"weight_{task}" for task in TASKS} < found
