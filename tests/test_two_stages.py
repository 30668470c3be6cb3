"""An index and a ranking model as one SavedModel: what is served is what the two models say themselves.

Tests `tfmtr.retrieval.second_stage`, `tfmtr.export_sources`, `tfmtr.evaluation.two_stage_lists` and `signatures.rank`.
"""

import json
import os
import shutil
import subprocess
import sys
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.untraced import untraced
from typer.testing import CliRunner

import tfmtr
from tfmtr import cli, inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation import two_stage_lists
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.two_stage_lists import FirstStage, after_both, choose_first_weight, second_scores
from tfmtr.export_sources import Ranker, Source
from tfmtr.exporting import export
from tfmtr.retrieval.index import title_vectors
from tfmtr.run import Run
from tfmtr.schema import Feature
from tfmtr.serving import deploy_kit as kit_module
from tfmtr.serving.deploy_kit import batch_size, deploy_kit
from tfmtr.serving.errors import ServerError
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.session import SavedModelSession
from tfmtr.version import Version

tf = pytest.importorskip("tensorflow")
USER = ("territory", "age", "user_vector")
CANDIDATES, K = 12, 5
LEAST = 1e-7


@pytest.fixture(scope="module")
def runs(tiny_two, tmp_path_factory):
    """Runs of a two-tower and of a ranking model with the same two tasks."""
    folder, common = tmp_path_factory.mktemp("stages"), {"epochs": 1, "batch_size": 1500, "learning_rate": 0.01}
    first = training.Recipe(units=(16, 8), deterministic=False, listwise=False, **common)
    second = training.Recipe(form="ranking", share="mmoe", deterministic=False, **common)
    with untraced():
        training.train(tiny_two, folder / "first", first, verbose=0)
        training.train(tiny_two, folder / "second", second, verbose=0)
    return folder / "first", folder / "second"


@pytest.fixture(scope="module")
def version(runs, tiny_two, tmp_path_factory):
    first, second = runs
    out = tmp_path_factory.mktemp("models") / "home"
    return export(first, out, ranking=second, candidates=CANDIDATES, first_weight=0.0)


@pytest.fixture(scope="module")
def session(version):
    return SavedModelSession(version)


def users(data, number=6):
    """`(rows of examples of different users, their raw values)`."""
    table = next(inputs.read_tables(data.examples("test", windows=[3]), rows=400))
    _, first = np.unique(table["user"].to_numpy(), return_index=True)
    table = table.take(np.sort(first)[:number])
    raw = {"territory": np.asarray(table["territory"].to_pylist(), object)}
    raw["age"] = np.asarray(table["age"].to_pylist(), "float32")
    raw["user_vector"] = inputs.take_vectors(data.vectors("user").vectors, table["user_row"])
    return table, raw


def probabilities(run, data, table):
    """What a ranking model says of all titles for each user: `{task: array of shape (users, titles)}`."""
    titles = pq.read_table(data.path / "titles.parquet")
    users, places = np.divmod(np.arange(len(table) * len(titles)), len(titles))
    of_users = table.drop_columns(["title", "genres", "language", "title_row"]).take(users)
    rows = of_users.append_column("title_row", pa.array(places))
    for name in ("title", "genres", "language"):
        rows = rows.append_column(name, titles[name].take(places))
    found = (
        Run(run)
        .load()
        .predictor.predict(
            {
                name: value
                for name, value in inputs.model_inputs(rows, data.schema, inputs.open_stores(data)).items()
                if name in {*USER, "title_vector", "genres", "language", "scenario"}
            },
            verbose=0,
            batch_size=4096,
        )
    )
    return {name: value.reshape(len(table), len(titles)) for name, value in found.items()}


def candidates(run, data, table, allowed):
    """Places of the titles that the first stage finds, of shape `(users, CANDIDATES)`, and their scores."""
    model = Run(run).load()
    features = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    queries = model.user_tower.predict_on_batch({name: features[name] for name in model.user_tower.input})
    scores = sum(queries.values()) @ title_vectors(model, data, data.schema).vectors.T
    places = np.argsort(-np.where(allowed, scores, -np.inf), axis=1, kind="stable")[:, :CANDIDATES]
    return places, np.take_along_axis(scores, places, axis=1)


def log_odds(p):
    p = np.clip(p, LEAST, 1 - LEAST)
    return np.log(p) - np.log1p(-p)


def request(raw, k=K, **more):
    batch = len(raw["age"])
    asked = {
        "request_territory": np.asarray(["PL"] * batch, object),
        "seen": np.asarray([["t3", "t7"]] * batch, object),
        "k": np.full(batch, k, "int32"),
    }
    return {**raw, **asked, **more}


def ask(session, signature, given):
    """An answer as the server gives it: with the defaults of what is left out."""
    served = session.signatures[signature]
    defaults = {name: tf.make_ndarray(value) for name, value in served.defaults.items()}
    found = predict(session, served, {**defaults, **given}, choose_outputs(served))
    return {name: value.astype(str) if value.dtype == object else value for name, value in found.items()}


@pytest.mark.parametrize(
    ("weights", "combine", "where", "first_weight"),
    [
        ({}, "", "", 0.0),
        ({"event": 0.3, "like": 2.0}, "sum", "genres=comedy", 0.5),
        ({"event": 1.0, "like": 0.5}, "product", "", 1.5),
        ({"event": 0.0, "like": -1.0}, "", "language!=de", 0.0),
    ],
)
def test_the_list_is_the_best_of_the_first_stage_s_candidates_by_the_second(
    session, runs, tiny_two, weights, combine, where, first_weight
):
    data = Dataset(tiny_two)
    table, raw = users(data)
    titles = pq.read_table(data.path / "titles.parquet")
    ids, genres, language = (titles[name].to_pylist() for name in ("title", "genres", "language"))
    offered = {
        row["title"]
        for row in pq.read_table(data.path / "availability.parquet").to_pylist()
        if row["territory"] == "PL" and row["window"] == 4
    }
    fits = {
        "": [True] * len(ids),
        "genres=comedy": ["comedy" in row for row in genres],
        "language!=de": [one != "de" for one in language],
    }
    allowed = [
        title in offered and title not in ("t3", "t7") and fit for title, fit in zip(ids, fits[where], strict=True)
    ]
    places, first = candidates(runs[0], data, table, np.asarray(allowed))
    p = {name: np.take_along_axis(value, places, axis=1) for name, value in probabilities(runs[1], data, table).items()}
    w = {"event": 1.0, "like": 1.0} | weights
    turned = np.log if combine == "product" else log_odds
    expected = sum(w[name] * turned(np.maximum(p[name], LEAST)) for name in w) + first_weight * first
    expected[~np.asarray(allowed)[places]] = -np.inf
    order = np.argsort(-expected, axis=1, kind="stable")[:, :K]
    given = request(raw, **{f"weight_{name}": np.asarray([value], "float32") for name, value in weights.items()})
    given["first_stage_weight"] = np.asarray([first_weight], "float32")
    given |= {"where": np.asarray([[where]], object), "combine_tasks": np.asarray([combine], object)}
    for rows in (slice(None), slice(0, 1)):  # many and one
        some = {name: value[rows] if len(value) > 1 else value for name, value in given.items()}
        found = ask(session, "recommend", some)
        np.testing.assert_allclose(
            found["scores"], np.take_along_axis(expected, order, axis=1)[rows], rtol=1e-5, atol=1e-5
        )
        best = np.asarray(ids)[np.take_along_axis(places, order, axis=1)]
        is_there = np.isfinite(found["scores"])
        np.testing.assert_array_equal(found["titles"], np.where(is_there, best[rows], ""))
        np.testing.assert_array_equal(found["count"], is_there.sum(axis=1))
        assert not found["is_exact"].any() or sum(allowed) <= CANDIDATES
        for task in w:
            own = np.take_along_axis(p[task], order, axis=1)[rows]
            np.testing.assert_allclose(found[f"scores_{task}"][is_there], own[is_there], rtol=1e-5, atol=1e-6)
            assert np.isneginf(found[f"scores_{task}"][~is_there]).all()


def test_rank_says_of_given_titles_what_the_ranking_model_says(session, runs, tiny_two):
    data = Dataset(tiny_two)
    table, raw = users(data, 3)
    p, ids = probabilities(runs[1], data, table), pq.read_table(data.path / "titles.parquet")["title"].to_pylist()
    asked = [["t3", "t17", ""], ["no such title", "t0", "t49"], ["t5", "t5", "t6"]]
    found = ask(session, "rank", {**raw, "rank_titles": np.asarray(asked, object)})
    known = np.asarray([[title in ids for title in row] for row in asked])
    np.testing.assert_array_equal(found["is_known"], known)
    places = np.asarray([[ids.index(title) if title in ids else 0 for title in row] for row in asked])
    own = {name: np.take_along_axis(value, places, axis=1) for name, value in p.items()}
    said = {"scores": sum(map(log_odds, own.values()))} | {f"scores_{task}": value for task, value in own.items()}
    for name, expected in said.items():
        np.testing.assert_allclose(found[name], np.where(known, expected, -np.inf), rtol=1e-5, atol=1e-5)


def test_rows_are_scored_by_the_ranking_model(session, runs, tiny_two):
    data = Dataset(tiny_two)
    table, raw = users(data, 4)
    raw |= {name: np.asarray(table[name].to_pylist(), object) for name in ("language",)}
    raw["genres"] = np.asarray([[*row, "", ""][:2] for row in table["genres"].to_pylist()], object)
    raw["title_vector"] = inputs.take_vectors(data.vectors("title").vectors, table["title_row"])
    found = ask(session, "serving_default", raw)
    features = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    model = Run(runs[1]).load()
    expected = model.predictor.predict_on_batch({name: features[name] for name in model.predictor.input})
    for task, value in expected.items():
        np.testing.assert_allclose(found[task], value, rtol=1e-5, atol=1e-6)


def test_a_list_by_one_output_and_a_mixed_one(session, runs, tiny_two):
    _, raw = users(Dataset(tiny_two), 3)
    plain = ask(session, "recommend", request(raw, k=K))
    by_like = ask(session, "recommend", request(raw, k=K, rank_by=np.asarray(["like"], object)))
    np.testing.assert_array_equal(by_like["scores"], by_like["scores_like"])
    assert (np.diff(by_like["scores_like"], axis=1) <= 0).all()
    mixed = ask(session, "recommend", request(raw, k=K, diversity=np.asarray([0.7], "float32")))
    assert (mixed["titles"][:, 0] == plain["titles"][:, 0]).all()
    assert (mixed["titles"] != plain["titles"]).any()
    at_once = ask(session, "recommend_batch", request(raw, k=np.asarray([5, 2, 4])))
    np.testing.assert_array_equal(at_once["titles"][0], plain["titles"][0])
    assert at_once["count"].tolist() == [5, 2, 4]


def test_few_titles_are_ranked_all_and_the_answer_says_so(session, tiny_two):
    _, raw = users(Dataset(tiny_two), 2)
    allow = np.asarray([["t1", "t2", "t4", "t5", "t10", "t11"]], object)
    found = ask(session, "recommend", request(raw, k=3, allow=allow))
    assert found["is_exact"].all()
    assert not ask(session, "recommend", request(raw, k=3))["is_exact"].any()


def test_a_user_of_whom_nothing_is_known_is_ranked_by_the_model_and_counted(session):
    raw = {
        "territory": np.asarray(["nowhere"], object),
        "age": np.zeros(1, "float32"),
        "user_vector": np.zeros((1, 8), "float32"),
    }
    found = ask(session, "recommend", request(raw))
    assert found["fallback"].tolist() == ["cold_user,default_branch"]
    again = ask(session, "rank", {**raw, "rank_titles": found["titles"].astype(object)})
    np.testing.assert_allclose(found["scores"], again["scores"], rtol=1e-6)
    assert (np.diff(found["scores"], axis=1) <= 0).all()


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"weight_event": np.zeros(1, "float32"), "weight_like": np.zeros(1, "float32")}, "must not be 0"),
        ({"weight_like": np.full(1, np.nan, "float32")}, "all must be finite"),
        ({"first_stage_weight": np.full(1, np.nan, "float32")}, "`first_stage_weight` must be finite"),
        ({"combine_tasks": np.asarray(["best"], object)}, "`combine_tasks` must be empty or one of"),
        ({"rank_by": np.asarray(["buy"], object)}, "`rank_by` must be empty or one of"),
    ],
)
def test_a_request_that_cannot_be_is_refused(session, tiny_two, more, text):
    _, raw = users(Dataset(tiny_two), 2)
    with pytest.raises(ServerError) as caught:
        ask(session, "recommend", request(raw, **more))
    assert text in str(caught.value)


LOAD = """
import sys
import numpy as np
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
given = {name: tf.constant(value) for name, value in np.load(sys.argv[2]).items()}
found = loaded.signatures["rank"](**given)
assert not [name for name in sys.modules if name.startswith("tfmtr")]
np.save(sys.argv[3], found["scores"].numpy())
"""


def test_a_process_without_the_package_runs_it_with_stock_operations(version, session, tiny_two, tmp_path):
    _, raw = users(Dataset(tiny_two), 2)
    given = {**raw, "rank_titles": np.asarray([["t1", "t2"]] * 2, object)}
    given |= {"weight_event": np.ones(1, "float32"), "weight_like": np.ones(1, "float32")}
    given["combine_tasks"] = np.asarray([""], object)
    np.savez(tmp_path / "given.npz", **{k: v.astype(str) if v.dtype == object else v for k, v in given.items()})
    command = [sys.executable, "-c", LOAD, version, tmp_path / "given.npz", tmp_path / "found.npy"]
    environment = {**os.environ, "PYTHONPATH": ""}
    ended = subprocess.run(list(map(str, command)), check=False, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0, ended.stderr
    np.testing.assert_allclose(np.load(tmp_path / "found.npy"), ask(session, "rank", given)["scores"], rtol=1e-6)
    assert version.needs == ""


def test_the_version_says_what_it_is_of(version, runs):
    facts = json.loads((version / "assets.extra/tfmtr.json").read_text())
    assert facts["run_id"] == Run(runs[0]).run_id
    assert facts["ranking"]["run_id"] == Run(runs[1]).run_id
    assert facts["ranking"]["candidates"] == CANDIDATES


def test_models_that_do_not_go_together_are_refused(runs, tiny_two, tmp_path):
    first, second = runs
    with pytest.raises(ValueError, match="must be of form=ranking for this step"):
        export(first, tmp_path / "out", ranking=first)
    with pytest.raises(ValueError, match="must be of form=two_tower for this step"):
        export(second, tmp_path / "out", ranking=second)
    with pytest.raises(ValueError, match="`candidates` must be an integer, 1 or more"):
        export(first, tmp_path / "out", ranking=second, candidates=0)
    other = shutil.copytree(second, tmp_path / "other")
    schema = Run(other).schema
    features = [f if f.name != "age" else Feature("age", "user", "id", ("1",)) for f in schema.features]
    schema.replace(features=features).save(other)
    with pytest.raises(ValueError, match=r"must read the users' columns as the first model does.*'age'"):
        export(first, tmp_path / "out", ranking=other)
    for role, what in (("user", "users"), ("title", "titles")):
        schema.replace(features=[f for f in schema.features if f.role != role]).save(other)
        with pytest.raises(ValueError, match=f"`ranking` must read a feature of {what} to tell them apart"):
            export(first, tmp_path / "out", ranking=other)
    schema.save(other)
    (other / "calibration.json").write_text('{"by": "language", "maps": {}, "window": 4}')
    with pytest.raises(ValueError, match=r"must be calibrated by what a request has.*by 'language', of titles"):
        export(first, tmp_path / "out", ranking=other)
    assert not (tmp_path / "out").exists()


def test_lists_after_both_stages_are_those_that_are_served(runs, tiny_two, session):
    """The last test window's catalogue is not the served one, so the second stage alone is held against NumPy."""
    first, second = runs
    found = evaluate(second, retrieval=first, k=K, candidates=CANDIDATES, baselines=["popularity"])
    assert set(found.lists) == {"model", "first stage", "popularity"}
    assert found.document["first_stage"]["candidates"] == CANDIDATES
    assert found.document["first_stage"]["compared"]["ours"] == pytest.approx(found.ndcg)
    alone = evaluate(first, k=K, baselines=[])
    assert found.lists["first stage"]["ndcg"] == pytest.approx(alone.ndcg)
    data = Dataset(tiny_two)
    table, _ = users(data)
    places = np.tile(np.arange(50), (len(table), 1))
    scores = second_scores(Run(second).load(), data.schema, data)(table, places, {})
    np.testing.assert_allclose(scores, sum(map(log_odds, probabilities(second, data, table).values())), atol=1e-4)
    own = np.linspace(1, 0, 50)[None].repeat(len(table), axis=0)
    rank = after_both(lambda rows, allowed: (places, own), lambda *_: {}, lambda *_: scores, k=3, first_weight=2.0)
    expected = np.argsort(-scores - 2 * own, axis=1)[:, :3]
    np.testing.assert_array_equal(rank(table, np.ones((len(table), 50), bool)), expected)
    # Too few validation users to choose a weight by.
    assert found.document["first_stage"]["weight"] == {"weight": 1.0, "lists": 20, "tries": []}
    assert (
        Ranker.of(second, Source.of(first, None)).choose_first_weight(Source.of(first, None), CANDIDATES)
        == (found.document["first_stage"]["weight"])
    )
    with pytest.raises(ValueError, match="must be of form=ranking for this step"):
        evaluate(first, retrieval=first)
    with pytest.raises(ValueError, match="must be of form=two_tower for this step"):
        evaluate(second, retrieval=second)
    with pytest.raises(ValueError, match="`candidates` must be an integer, 10 or more"):
        evaluate(second, retrieval=first, candidates=9)


def test_a_server_of_it_takes_weights_and_the_kit_asks_it(version, tiny_two, tmp_path, monkeypatch):
    folder = shutil.copytree(version.path.parent, tmp_path / "home")
    with tfmtr.serve(version) as server:
        plain, liked = (
            server.recommend({"territory": "PL", "age": 30.0}, k=5, territory="PL", weights=weights)
            for weights in ({}, {"like": 9.0, "event": -1.0})
        )
        with pytest.raises(ValueError, match=r"`weights` must be one of \['event', 'like'\]. Did you mean 'like'"):
            server.recommend({"territory": "PL"}, weights={"likes": 1.0})
        with pytest.raises(ValueError, match="`weights of 'like'` must be a finite number"):
            server.recommend({"territory": "PL"}, weights={"like": float("nan")})
        command = ["recommend", "--model", server.name, "--data", str(tiny_two), "--server", f"127.0.0.1:{server.port}"]
        told = CliRunner().invoke(cli.app, [*command, "--user-id", "u190", "--weight", "like=2", "-k", "3"])
        assert told.exit_code == 0, told.output
        for words, text in (
            (["--weight", "like"], "`--weight` must be name=value"),
            (["--weight", "like=much"], "`--weight` must be name=number"),
            (["--context", "tab=3"], "`context` must be one of"),
        ):
            refused = CliRunner().invoke(cli.app, [*command, "--user-id", "u190", *words])
            assert text in str(refused.exception)
    assert len(plain.titles) == len(liked.titles) == 5
    assert plain.titles != liked.titles
    monkeypatch.setattr(kit_module, "PAIRS", 16 * CANDIDATES)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # every signature answers its warm-up request
        deploy_kit(folder, tmp_path / "kit")
    assert "allowed_batch_sizes: 16\n" in (tmp_path / "kit/config/batching.config").read_text() + "\n"


def test_memory_for_the_pairs_of_a_batch_bounds_its_rows():
    assert [batch_size(1000, candidates) for candidates in (1, 64, 500, 10_000)] == [1024, 1024, 128, 16]


def test_the_commands(runs, tiny_two, tmp_path, capsys):
    first, second = map(str, runs)
    shutil.copytree(second, tmp_path / "second")
    told = CliRunner().invoke(
        cli.app,
        ["export", "--retrieval", first, "--ranking", second, "--candidates", "9", "--out", str(tmp_path / "m")],
    )
    assert told.exit_code == 0, told.output
    assert Version(tmp_path / "m/1").facts["ranking"]["candidates"] == 9
    assert "its score counts 1 (nothing was chosen: " in told.stderr
    for words in ([], [first, "--retrieval", first]):
        refused = CliRunner().invoke(cli.app, ["export", *words, "--out", str(tmp_path / "m")])
        assert "`export` must be given one two-tower run" in str(refused.exception)
    words = ["evaluate", str(tmp_path / "second"), "--retrieval", first, "--baselines", "none", "--candidates", "12"]
    with untraced():
        told = CliRunner().invoke(cli.app, words)
    assert told.exit_code == 0, told.output
    assert "first stage" in Run(tmp_path / "second").evaluation.lists
    refused = CliRunner().invoke(cli.app, ["evaluate", first, "--retrieval", first])
    assert "`--retrieval` is for ranking models" in str(refused.exception)


def test_the_first_stage_s_weight_is_the_one_that_validation_users_lists_are_best_with(runs, tiny_two, monkeypatch):
    first, _ = runs
    data, past = Dataset(tiny_two), Past(Dataset(tiny_two))
    monkeypatch.setattr(two_stage_lists, "FEW", 10)
    held_out = next(inputs.read_tables(data.examples("validation"), rows=8192))
    held_out = held_out.filter(pa.compute.greater(held_out["event"], 0))
    good = set(zip(held_out["user"].to_pylist(), held_out["title_row"].to_pylist(), strict=True))

    def knows(rows, index, evidence):
        """The second stage that knows what users take, and the one that knows what they do not."""
        return np.asarray([[1.0 * ((user, place) in good) for place in row] for user, row in zip(
            rows["user"].to_pylist(), index, strict=True
        )])  # fmt: skip

    stage = FirstStage(Run(first), data, 40)
    asked = []

    def at(window, scores_of=knows):
        asked.append(window)
        return scores_of

    found = choose_first_weight(stage, at, past, data.test_windows)
    assert set(asked) == {1}  # these data have no validation rows after training
    assert found["lists"] > 10
    assert [one["weight"] for one in found["tries"]] == list(two_stage_lists.WEIGHTS)
    best = max(one["ndcg"] for one in found["tries"])
    assert found["weight"] < 16
    assert best == max(one["ndcg"] for one in found["tries"] if one["weight"] == found["weight"])
    assert best > found["tries"][-1]["ndcg"] + 0.1
    assert choose_first_weight(stage, lambda window: lambda *given: -knows(*given), past, [1])["weight"] == 16.0
