import io
import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from tfmtr import inputs, models, training
from tfmtr.datasets.prepared import Prepared
from tfmtr.evaluation.evaluate import evaluate, print_results
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.retrieval.index import title_vectors

RECIPE = training.Recipe(units=(16, 8), epochs=2, batch_size=500, learning_rate=0.01, deterministic=False)


@pytest.fixture(scope="module")
def evaluated(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluate") / "run"
    training.train(tiny, run, RECIPE, verbose=0)
    return run, evaluate(run, tiny, k=5, local_share=0.7)


def test_each_window_is_scored_by_the_model_trained_up_to_it(tiny, evaluated):
    run, result = evaluated
    data = Prepared(tiny)
    for window in (1, 3):
        table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read()
        x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
        scores = training.load(run, window=window).predict(x, verbose=0)["event"][:, 0]
        cells = result["tasks"]["event"]["territory"][str(window)]
        labels, territory = table["event"].to_numpy(), table["territory"].to_numpy()
        assert cells["overall"]["pr_auc"] == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
        rows = territory == "PL"
        assert cells["PL"]["rows"] == rows.sum()
        if cells["PL"]["pr_auc"] is not None:
            assert cells["PL"]["pr_auc"] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-6)


def test_recall_is_of_the_positives_among_the_available_titles(tiny, evaluated):
    run, result = evaluated
    data, window = Prepared(tiny), 2
    model = training.load(run, window=window)
    ids, vectors, *_ = title_vectors(model, data, data.schema)
    table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read()
    x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    query = model.user_tower.predict({n: x[n] for n in model.user_tower.input}, verbose=0)["event"]
    catalogue = pq.read_table(data.path / "availability.parquet").to_pandas().query("window == 2")
    recalls = []
    frame = table.to_pandas()
    for _, rows in frame[frame.event > 0].groupby("user"):
        allowed = np.isin(ids, catalogue.title[catalogue.territory == rows.territory.iloc[0]])
        scores = np.where(allowed, vectors @ query[rows.index[0]], -np.inf)
        top = {ids[i] for i in np.argsort(-scores)[:5]}
        recalls.append(len(top & set(rows.title)) / rows.title.nunique())
    assert result["recall"]["2"] == pytest.approx(np.mean(recalls), abs=1e-6)


def test_scores_are_kept_in_the_order_of_the_test_rows(tiny, evaluated):
    run, _ = evaluated
    data, scores = Prepared(tiny), pq.read_table(run / "scores.parquet").to_pandas()
    assert list(scores.columns) == ["window", "event"]
    for window in data.test_windows:
        table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read()
        x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
        expected = training.load(run, window=window).predict(x, verbose=0)["event"][:, 0]
        np.testing.assert_allclose(scores.event[scores.window == window], expected, atol=1e-6)


def test_gauc_and_title_classes_are_of_the_rows_that_they_name(tiny, evaluated):
    run, result = evaluated
    data, scores = Prepared(tiny), pq.read_table(run / "scores.parquet").to_pandas()
    rows = pq.ParquetFile(data.examples("test", windows=[2])[0]).read().to_pandas()
    rows["score"] = scores.event[scores.window == 2].to_numpy()
    both = [of for _, of in rows.groupby("user") if of.event.nunique() == 2]
    aucs, counts = [roc_auc_score(of.event, of.score) for of in both], [len(of) for of in both]
    cell = result["gauc"]["event"]["territory"]["2"]["overall"]
    assert cell["gauc"] == pytest.approx(np.average(aucs, weights=counts), abs=1e-9)
    facts = title_facts(data, local_share=0.7)
    assert 0 < facts.local.sum() < 50
    assert result["titles"] == {"local": facts.local.sum(), "global": (~facts.local).sum()}
    for name, kind in (("local", True), ("global", False)):
        own = rows[facts.local[rows.title_row] == kind]
        cell = result["title_classes"]["event"]["2"][name]
        assert (cell["rows"], cell["positives"]) == (len(own), own.event.sum())
        assert cell["pr_auc"] == pytest.approx(average_precision_score(own.event, own.score), abs=1e-9)


def test_lists_have_their_metrics_in_every_window_and_territory(tiny, evaluated):
    _, result = evaluated
    metrics = {
        "equal_opportunity", "exposure", "exposure_curve", "hit_rate_by_popularity", "local_share", "popularity_lift",
        "ranking",
    }  # fmt: skip
    assert set(result["lists"]) == metrics
    for metric in metrics:
        assert set(result["lists"][metric]) == {"1", "2", "3"}
        assert set(result["lists"][metric]["2"]) == {"DE", "FR", "PL", "CZ", "XX", "overall"}
    for window, recall in result["recall"].items():
        assert result["lists"]["ranking"][window]["overall"]["recall"] == pytest.approx(recall)
    assert result["lists"]["exposure"]["1"]["overall"]["titles"] == 50
    assert result["lists"]["local_share"]["1"]["overall"]["gap"] is not None


def test_a_model_without_an_index_has_no_lists(tiny, evaluated, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(evaluated[0], run)
    ranking = models.ranking(Prepared(tiny).schema)
    monkeypatch.setattr(training, "load", lambda *_, **__: ranking)
    monkeypatch.setattr(training, "restore", lambda *_: None)
    result = evaluate(run, tiny)
    assert result["lists"] == {}
    assert result["recall"] == {"1": None, "2": None, "3": None}
    assert result["gauc"]["event"]["territory"]["1"]["overall"]["rows"] > 0
    out = io.StringIO()
    print_results({"a": result}, Console(file=out, width=100))
    assert "recall@10 of the exact index, a: n/a" in out.getvalue()


def test_the_document_is_json_and_printable(evaluated):
    run, result = evaluated
    assert json.loads((run / "evaluation.json").read_text()) == result
    out = io.StringIO()
    print_results({"a": result, "b": result}, Console(file=out, width=100))
    assert "event per territory" in out.getvalue()
    assert "PR-AUC b" in out.getvalue()
    assert "+0.0%" in out.getvalue()
    assert f"recall@5 of the exact index, b: {np.mean(list(result['recall'].values())):.4f}" in out.getvalue()


def test_other_data_than_the_runs_is_refused(tiny, evaluated, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(tiny, other)
    report = json.loads((other / "prepare.json").read_text())
    (other / "prepare.json").write_text(json.dumps({**report, "fingerprint": "cd" * 32}))
    with pytest.raises(ValueError, match="`data` must be what the run was trained on"):
        evaluate(evaluated[0], other)
