"""A run with a list model, all the way: trained, evaluated, exported, asked and kept on later days."""

import dataclasses
import json
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from helpers.chain_log import TITLES, chain_data

from tfmtr import training
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.index_lists import ListCase, best_titles, ranking_of
from tfmtr.evaluation.past import Past
from tfmtr.exporting import export
from tfmtr.listwise import fit as module
from tfmtr.listwise.model import windows_before
from tfmtr.listwise.parts import find_parts
from tfmtr.listwise.texts import unit
from tfmtr.retrieval.embeddings import write_embeddings
from tfmtr.retrieval.index import build_index
from tfmtr.run import Run
from tfmtr.serving.local import serve
from tfmtr.serving.recommendations import recommend

RECIPE = training.Recipe(units=(8, 4), epochs=1, batch_size=500, deterministic=False, listwise=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("served")
    data = chain_data(folder / "log")
    training.train(data, folder / "run", RECIPE, verbose=0)
    export(folder / "run", folder / "saved")
    return folder


@pytest.fixture(scope="module")
def run(folder):
    return Run(folder / "run")


@pytest.fixture(scope="module")
def server(folder):
    with serve(folder / "saved/1") as server:
        yield server


def test_a_run_says_what_its_list_model_was_chosen_by(run):
    found = run.document["listwise"]
    assert found["reason"] is None
    assert np.shape(found["factors"]["shares"]) == (2, 5)
    rows = {window: len(module.list_rows(Past(run.data), int(window), 4.0)) for window in found["rows"]}
    assert found["rows"] == rows
    assert 0 < found["learnt_from"] <= sum(rows.values())
    tries = {row["setting"]: row["ndcg"] for row in found["judges"]["tries"]}
    if found["judges"]["lists"] < module.LEAST_JUDGES:
        assert (tries, found["setting"]) == ({}, module.MIDDLE)
    else:
        assert list(tries) == list(module.SETTINGS)
        assert found["setting"] == max(tries, key=tries.get)
    assert found["model_weight"] == module.SETTINGS[found["setting"]].model_weight
    assert run.recipe.listwise


def test_judges_order_titles_as_lists_are_served(run, monkeypatch):
    """The parts and the towers' score are those of a `Scorer`, whose product is exact where there are few titles."""
    past, order = Past(run.data), run.list_model
    order = dataclasses.replace(order, factors=dataclasses.replace(order.factors, activity=np.full(5, -0.2)))
    judges = module.Judges(run.load(), run.data, run.schema, past)
    rows = {window: module.list_rows(past, window, order.half_life) for window in past.starts}
    vectors, parts, expected = unit(run.data.vectors("title").vectors), {}, []
    for (window, case), queries in zip(judges.cases, judges.queries, strict=True):
        before = [rows[number] for number in windows_before(past, window)]
        parts[window] = find_parts(past, window, order.days, before, vectors)
        scorer = order.as_of(run.data, past, window)
        towers = order.model_weight * queries @ judges.titles.T
        scores = towers + scorer.queries_of(past, past.numbers(case.users), window) @ scorer.outputs.T
        best = best_titles(scores, case.allowed(0, len(scores)), 10)
        expected.append(module.ndcg_of_users(case.ranked(best)))
    monkeypatch.setattr(module, "CHUNK", 7 * past.num_titles)  # seven users at a time
    active = dataclasses.replace(order, factors=dataclasses.replace(order.factors, activity=np.full(5, 5.0)))
    found, other = judges([order, active], parts)
    assert found == pytest.approx(np.concatenate(expected).mean(), abs=1e-6)
    assert other != pytest.approx(found, abs=1e-3)
    assert judges([active], parts) == [other]


def test_fewer_lists_judge_where_there_are_more_titles(run, monkeypatch):
    """So that what a judgement takes is bound; three windows still have 200 lists, where there are as many."""
    past = Past(run.data)
    number = [len(case.users) for _, case in module.Judges(run.load(), run.data, run.schema, past).cases]
    monkeypatch.setattr(module, "MOST_JUDGED", 0)
    monkeypatch.setattr(module, "LEAST_JUDGES", 9)
    assert min(number) > 3
    assert {len(case.users) for _, case in module.Judges(run.load(), run.data, run.schema, past).cases} == {3}


def test_lists_are_better_than_the_towers_alone(run, folder):
    mine = evaluate(run, baselines=["recent"]).document["means"]["new"]["model"]["ndcg"]
    shutil.copytree(run.path, folder / "towers")
    (folder / "towers/listwise.npz").unlink()
    towers = evaluate(folder / "towers", baselines=["recent"]).document["means"]["new"]
    assert mine > 1.3 * towers["model"]["ndcg"]
    assert mine > 1.3 * towers["recent"]["ndcg"]


def test_a_served_list_is_the_offline_one(run, folder, server):
    data, past = run.data, Past(run.data)
    window, model = data.next_window, run.model
    scorer = run.list_model.as_of(data, past, window)
    index = build_index(model, data, data.schema, scorer=scorer)
    users = pq.read_table(data.path / "users.parquet")
    rows = users.slice(0, 40).append_column("title_row", pa.array(np.zeros(40, int)))
    case = ListCase(rows, index.catalogue, most=100)
    case.had = past.had(past.numbers(case.users), window)
    rank = ranking_of(model, index, data.schema, data, k=5, scorer=scorer, past=past, window=window)
    ranked = case.lists(rank).ranked_titles
    for user, titles in zip(case.users, ranked, strict=True):
        answer = recommend(f"127.0.0.1:{server.port}", server.name, data.path, user, k=5)
        assert [row["title"] for row in answer["titles"]] == [past.titles[title] for title in titles if title >= 0]


def test_a_request_may_have_a_history_or_not(server):
    known = server.recommend({"territory": "DE"}, k=3, history={"t03": 9.0, "t04": 0.5}, seen=["t03", "t04"])
    assert known.titles[0] == "t05"
    assert known.fallback == ()
    seen = server.recommend({"territory": "DE"}, k=3, seen=["t03", "t04"])
    assert "t05" in seen.titles
    assert seen.fallback == ("no_history",)
    cold = server.recommend({"territory": "DE"}, k=3)
    assert cold.fallback == ("cold_user",)
    assert known.titles != cold.titles
    old = server.recommend({"territory": "DE"}, k=3, history={"t10": 90.0, "t04": 0.5})
    assert old.titles[0] == "t05"  # what was had long ago counts little
    unknown = server.recommend({"territory": "DE"}, k=3, history={"a film that nobody has": 1.0})
    assert (unknown.titles, unknown.fallback) == (cold.titles, ("cold_user",))


def test_a_model_without_a_list_model_takes_no_history(folder, run):
    shutil.copytree(run.path, folder / "plain")
    (folder / "plain/listwise.npz").unlink()
    version = export(folder / "plain", folder / "saved_plain")
    signature = tf.saved_model.load(str(version)).signatures["recommend"]
    assert not {"history", "history_ages"} & set(signature.structured_input_signature[1])
    with serve(version) as server, pytest.raises(ValueError, match="`history` must be left out"):
        server.recommend({"territory": "DE"}, history={"t01": 1.0})


def test_probabilities_are_the_towers_own(folder, run):
    loaded = tf.saved_model.load(str(folder / "saved/1"))
    assert {"history", "history_ages"} <= set(loaded.signatures["recommend"].structured_input_signature[1])
    facts = json.loads((folder / "saved/1/assets.extra/tfmtr.json").read_text())
    assert facts["is_ordered"]
    width = loaded.signatures["recommend_by_vector"].structured_input_signature[1]["query"].shape[1]
    assert width > run.model.title_tower.output_shape[-1]


def test_written_vectors_order_titles_as_lists_are(folder, run):
    write_embeddings(run, folder / "vectors")
    data, past = run.data, Past(run.data)
    scorer = run.list_model.as_of(data, past, data.next_window)
    titles = np.stack(pq.read_table(folder / "vectors/titles.parquet")["vector"].to_pylist())
    users = pq.read_table(sorted((folder / "vectors/users").glob("*.parquet")))
    vectors = np.stack(users["vector"].to_pylist())
    own = scorer.queries_of(past, past.numbers(users["user"]), data.next_window)
    width = own.shape[1]
    np.testing.assert_allclose(vectors[:, -width:], own, rtol=1e-5, atol=1e-6)
    of_task = np.stack(users["vector_event"].to_pylist())
    assert not of_task[:, -width:].any()
    weight = run.list_model.model_weight
    np.testing.assert_allclose(vectors[:, :-width], weight * of_task[:, :-width], rtol=1e-5, atol=1e-6)
    assert titles.shape == (TITLES, vectors.shape[1])


def test_a_run_that_goes_on_keeps_its_list_model(folder, run, tmp_path):
    training.go_on(run, run.data, run.data.examples("train", windows=[0]), tmp_path / "next", verbose=0)
    assert (tmp_path / "next/listwise.npz").read_bytes() == (run.path / "listwise.npz").read_bytes()


def test_a_run_without_events_says_why_it_has_no_list_model(folder, tmp_path):
    shutil.copytree(folder / "log/data", tmp_path / "data")
    (tmp_path / "data/events.parquet").unlink()
    run = training.train(tmp_path / "data", tmp_path / "run", RECIPE, verbose=0)
    assert run.list_model is None
    assert "the data have no events.parquet" in run.document["listwise"]["reason"]
