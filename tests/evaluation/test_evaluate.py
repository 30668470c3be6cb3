import io
import json
import shutil
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from sklearn.metrics import average_precision_score, roc_auc_score

from tfmtr import components, inputs, models, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.baselines.table import BASELINES
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.evaluation import Evaluation, print_tables
from tfmtr.evaluation.index_lists import ranking_of
from tfmtr.evaluation.list_scores import read_list_scores
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.shortcomings import shortcomings
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting.page import open_data
from tfmtr.retrieval.index import build_index, title_vectors
from tfmtr.run import Run

RECIPE = training.Recipe(
    units=(16, 8), epochs=2, batch_size=500, learning_rate=0.01, deterministic=False, listwise=False
)


@pytest.fixture(scope="module")
def evaluated(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("evaluate") / "run"
    training.train(tiny, run, RECIPE, verbose=0)
    return run, evaluate(run, tiny, k=5, local_share=0.7).document


def test_each_window_is_scored_by_the_model_trained_up_to_it(tiny, evaluated):
    run, result = evaluated
    data = Dataset(tiny)
    for window in (1, 3):
        table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read()
        x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
        scores = Run(run).load(window=window).predict(x, verbose=0)["event"][:, 0]
        cells = result["tasks"]["event"]["territory"][str(window)]
        labels, territory = table["event"].to_numpy(), table["territory"].to_numpy()
        assert cells["overall"]["pr_auc"] == pytest.approx(average_precision_score(labels, scores), abs=1e-6)
        rows = territory == "PL"
        assert cells["PL"]["rows"] == rows.sum()
        if cells["PL"]["pr_auc"] is not None:
            assert cells["PL"]["pr_auc"] == pytest.approx(average_precision_score(labels[rows], scores[rows]), abs=1e-6)


def test_recall_is_of_the_new_positives_among_the_new_titles(tiny, evaluated):
    run, result = evaluated
    data, window = Dataset(tiny), 2
    model = Run(run).load(window=window)
    ids, vectors, *_ = title_vectors(model, data, data.schema)
    table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read()
    x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    query = model.user_tower.predict({n: x[n] for n in model.user_tower.input}, verbose=0)["event"]
    catalogue = pq.read_table(data.path / "availability.parquet").to_pandas().query("window == 2")
    recalls, repeats, left = [], [], []
    frame = table.to_pandas()
    events = pq.read_table(data.path / "events.parquet").to_pandas().query("window < 2").groupby("user").title.agg(set)
    for user, rows in frame[frame.event > 0].groupby("user"):
        of_home = np.isin(ids, catalogue.title[catalogue.territory == rows.territory.iloc[0]])
        had = events.get(user, set())
        for found, hidden in ((recalls, had), (repeats, set())):
            wanted = set(rows.title) - hidden
            if not wanted:
                left.append(user)
                continue
            scores = np.where(of_home & ~np.isin(ids, list(hidden)), vectors @ query[rows.index[0]], -np.inf)
            found.append(len({ids[i] for i in np.argsort(-scores)[:5]} & wanted) / len(wanted))
    assert result["recall"]["2"] == pytest.approx(np.mean(recalls), abs=1e-6)
    assert result["repeats"]["2"]["overall"]["recall"] == pytest.approx(np.mean(repeats), abs=1e-6)
    assert result["left_out"]["2"]["users"] == len(left)
    assert len(recalls) + len(left) == len(repeats)
    assert result["recall"]["2"] != result["repeats"]["2"]["overall"]["recall"]


def test_scores_are_kept_in_the_order_of_the_test_rows(tiny, evaluated):
    run, _ = evaluated
    data, scores = Dataset(tiny), pq.read_table(run / "scores.parquet").to_pandas()
    assert list(scores.columns) == ["window", "event"]
    for window in data.test_windows:
        table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read()
        x = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
        expected = Run(run).load(window=window).predict(x, verbose=0)["event"][:, 0]
        np.testing.assert_allclose(scores.event[scores.window == window], expected, atol=1e-6)


def test_gauc_and_title_classes_are_of_the_rows_that_they_name(tiny, evaluated):
    run, result = evaluated
    data, scores = Dataset(tiny), pq.read_table(run / "scores.parquet").to_pandas()
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


def test_baselines_stand_beside_the_model_in_the_same_lists(tiny, evaluated):
    run, result = evaluated
    baselines, scores = result["baselines"], read_list_scores(run)
    assert set(baselines["tuned"]) == set(BASELINES)
    there = {name for name, row in baselines["tuned"].items() if row["reason"] is None}
    assert there == set(BASELINES)
    assert baselines["validation"]["windows"] == [0]
    for name in there:
        row = baselines["tuned"][name]
        assert 1 < len(row["tries"]) <= 12
        figures = [one["figure"] for one in row["tries"]]
        assert row["options"] == row["tries"][int(np.argmax(figures))]["options"]
        own = scores[(scores.contender == name) & (scores.list == "new") & (scores.window == 2)]
        assert baselines["ranking"][name]["2"]["overall"]["ndcg"] == pytest.approx(own.ndcg.mean())
        assert baselines["compared"][name]["theirs"] == pytest.approx(
            scores[(scores.contender == name) & (scores.list == "new")].ndcg.mean()
        )
    best = {name: max(one["figure"] for one in baselines["tuned"][name]["tries"]) for name in there}
    assert best[baselines["best"]] == max(best.values())
    for kind in ("new", "repeats"):  # all contenders have the same users, and never the two kinds mixed
        rows = scores[scores.list == kind]
        users = {name: set(zip(of.user, of.window, strict=True)) for name, of in rows.groupby("contender")}
        assert set(users) == {"model", *there}
        assert all(of == users["model"] for of in users.values())
        positives = rows.groupby(["user", "window"]).positives.nunique()
        assert (positives == 1).all()
    assert set(result["segments"]) == {"model", *there}


def test_a_cold_user_s_list_is_what_is_popular_as_it_is_served(tiny, evaluated):
    data, window = Dataset(tiny), 2
    model, past = Run(evaluated[0]).load(window=window), Past(data)
    table = pq.ParquetFile(data.examples("test", windows=[window])[0]).read().slice(0, 6)
    rows = np.where(np.arange(6) % 2, -1, table["user_row"].to_numpy())  # every second one without a vector
    table = table.set_column(table.column_names.index("user_row"), "user_row", pa.array(rows))
    index = build_index(model, data, data.schema, window=window)
    allowed = np.asarray(index.catalogue(np.asarray(table["territory"].to_pylist()), np.full((6, 1), "")))
    popularity = past.popularity(window)
    found, ranked = (
        ranking_of(model, index, data.schema, data, k=5, popularity=of)(table, allowed) for of in (popularity, None)
    )
    events = pq.read_table(data.path / "events.parquet").to_pandas().query("window < 2")
    homes = pq.read_table(data.path / "users.parquet").to_pandas().set_index("user").territory
    titles = pq.read_table(data.path / "titles.parquet")["title"].to_pylist()
    for row, territory in enumerate(table["territory"].to_pylist()):
        own = events[events.user.map(homes) == territory].groupby("title").user.nunique()
        counts = np.asarray([own.get(title, 0) for title in titles])
        np.testing.assert_array_equal(popularity[territory], counts)
        best = sorted(np.flatnonzero(allowed[row]), key=lambda title: (-counts[title], title))[:5]
        assert found[row].tolist() == (best if row % 2 else ranked[row].tolist())
    assert (found[1::2] != ranked[1::2]).any()


def test_popularity_s_lists_are_what_counting_gives(tiny, evaluated):
    run, result = evaluated
    data, window, scores = Dataset(tiny), 3, read_list_scores(run)
    options = result["baselines"]["tuned"]["popularity"]["options"]
    events = pq.read_table(data.path / "events.parquet").to_pandas().query("window < 3")
    homes = pq.read_table(data.path / "users.parquet").to_pandas().set_index("user").territory
    fitted = events[events.split == "train"]
    everywhere = fitted.title.value_counts()
    catalogue = pq.read_table(data.path / "availability.parquet").to_pandas().query("window == 3")
    rows = pq.ParquetFile(data.examples("test", windows=[window])[0]).read().to_pandas().query("event > 0")
    found = scores[(scores.contender == "popularity") & (scores.list == "new") & (scores.window == window)]
    hits = found.set_index("user").hits
    titles = pq.read_table(data.path / "titles.parquet")["title"].to_pylist()
    place = {title: -number for number, title in enumerate(titles)}
    for user, of in rows.groupby("user"):
        had = set(events.title[events.user == user])
        own = fitted[fitted.user.map(homes) == homes[user]].title.value_counts()
        first = own if options["by_territory"] else everywhere
        offered = [t for t in catalogue.title[catalogue.territory == homes[user]] if t not in had]
        offered.sort(key=lambda t: (first.get(t, 0), everywhere.get(t, 0), place[t]), reverse=True)
        if wanted := set(of.title) - had:
            assert hits[user] == len(wanted & set(offered[:5])), user


def test_baselines_are_chosen_by_name_or_left_out(tiny, evaluated, tmp_path, monkeypatch):
    run, names, looks = tmp_path / "run", components.names, []
    shutil.copytree(evaluated[0], run)
    monkeypatch.setattr(components, "names", lambda folder: looks.append(folder) or names(folder))
    result = evaluate(run, tiny, k=5, baselines=["ease", "popularity"], among=10).document
    assert looks.count("evaluation.list_metrics") == 1 + len(names("evaluation.list_metrics"))  # not once a list
    for cells in (result["among"], result["baselines"]["among"]["ease"]):
        assert cells["2"]["overall"]["hit_rate"] > result["lists"]["ranking"]["2"]["overall"]["recall"]
    out = io.StringIO()
    print_tables({"a": Evaluation(result, run)}, Console(file=out, width=200))
    assert " among 10" in out.getvalue()
    assert set(result["baselines"]["ranking"]) == {"ease", "popularity"}
    few = evaluate(run, tiny, k=5, baselines=[], among=10_000).document
    assert few["baselines"] is None
    positives = sum(cells["overall"]["users"] for cells in few["among"].values())
    assert few["warnings"] == [f"{positives} positives were ranked among fewer than 10000 titles: no more could be had"]
    with pytest.raises(ValueError, match=r"`baselines` must be one of .* Did you mean 'ease'\?"):
        evaluate(run, tiny, k=5, baselines=["eaes"])
    (run / "scores.parquet").unlink()
    with pytest.raises(ValueError, match=r"`metrics` must be one of .* Did you mean 'ndcg'\?"):
        evaluate(run, tiny, k=5, baselines=[], metrics=["ndgc"])
    assert not (run / "scores.parquet").exists()


def test_a_model_below_the_best_baseline_is_warned_of_with_causes(tiny, evaluated, tmp_path):
    result = json.loads(json.dumps(evaluated[1]))
    document, data = Run(evaluated[0]).document, Dataset(tiny)
    best = result["baselines"]["best"]
    cell = {"ours": 0.1, "theirs": 0.2, "ratio": 0.5, "low": 0.4, "high": 0.6, "users": 40}
    result["baselines"]["compared"][best] = cell
    data.report["titles_without_text"], data.report["statistics"] = 40, {"titles": 50}
    data.report["examples"] = [{"split": "train", "sampling": "random", "window": 0, "rows": 3000, "positives": 1000}]
    result["segments"]["model"]["new users"]["user_windows"] = 10_000
    (text,) = shortcomings(result, document, data)
    assert text.startswith(
        f"the model's lists are below those of {best}, the best baseline: NDCG 0.1000, {best} 0.2000"
    )
    for cause in (
        "the ratio is 0.50 (0.40 to 0.60)", "80% of the titles have no text", "of the test users had nothing before",
        "the model had 12 updates only", "2.0 negatives for each positive",
    ):  # fmt: skip
        assert cause in text
    cell["users"] = 19
    assert shortcomings(result, document, data) == []  # too few to say anything
    cell["users"], cell["ours"] = 40, 0.3
    assert shortcomings(result, document, data) == []


def test_a_model_without_an_index_has_no_lists(tiny, evaluated, tmp_path, monkeypatch):
    run = tmp_path / "run"
    shutil.copytree(evaluated[0], run)
    ranking = models.ranking(Dataset(tiny).schema)
    monkeypatch.setattr(Run, "load", lambda *_, **__: ranking)
    monkeypatch.setattr(sys.modules[evaluate.__module__], "restore", lambda *_: None)
    result = evaluate(run, tiny).document
    assert result["lists"] == {}
    assert result["recall"] == {"1": None, "2": None, "3": None}
    assert result["gauc"]["event"]["territory"]["1"]["overall"]["rows"] > 0
    out = io.StringIO()
    print_tables({"a": Evaluation(result, run)}, Console(file=out, width=100))
    assert "There are no lists: no test users, a model without an index" in out.getvalue()
    assert result["baselines"] is None


def test_the_document_is_json_and_printable(evaluated):
    run, result = evaluated
    assert json.loads((run / "evaluation.json").read_text()) == result
    out = io.StringIO()
    found = Evaluation(result, run)
    print_tables({"a": found, "b": found}, Console(file=out, width=100))
    assert "event per territory" in out.getvalue()
    assert "PR-AUC b" in out.getvalue()
    assert "+0.0%" in out.getvalue()
    assert "Lists of 5 titles that the user did not have before the window" in out.getvalue()
    of_model = read_list_scores(run).query("contender == 'model' and list == 'new'")
    assert f" {of_model.ndcg.mean():.4f} " in out.getvalue()
    assert "The best baseline by " in out.getvalue()


def test_where_the_data_are_is_known_from_any_folder(tiny, evaluated, tmp_path, monkeypatch):
    run = shutil.copytree(evaluated[0], tmp_path / "run")
    monkeypatch.chdir(tiny.parent)
    result = evaluate(run, tiny.name, baselines=[]).document
    monkeypatch.chdir(tmp_path)
    assert open_data(None, result).path == tiny


def test_other_data_than_the_runs_is_refused(tiny, evaluated, tmp_path):
    other = tmp_path / "data"
    shutil.copytree(tiny, other)
    report = json.loads((other / "prepare.json").read_text())
    (other / "prepare.json").write_text(json.dumps({**report, "fingerprint": "cd" * 32}))
    with pytest.raises(ValueError, match="`data` must be what the run was trained on"):
        evaluate(evaluated[0], other)
