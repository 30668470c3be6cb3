import json
import shutil

import numpy as np
import pandas as pd
import pytest
from helpers import report_runs
from helpers.html_page import Page

from tfmtr.datasets.funnel import NO_TIMES
from tfmtr.evaluation.evidence import compare_lists
from tfmtr.reporting.lists_section import describe_lists
from tfmtr.reporting.runs import read_models

HOSTILE = "<b onclick=alert(1)>x & 'y'"


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def scores(runs):
    """`{run: list_scores.parquet}` of lists without repeats, by contender, user and window."""
    frames = {run.name: pd.read_parquet(run / "list_scores.parquet") for run in runs}
    return {name: of[of.list == "new"].set_index(["contender", "user", "window"]) for name, of in frames.items()}


def copy_of(run, folder, *, without=(), **changes):
    """A copy of a run with changes in its evaluation."""
    shutil.copytree(run, folder)
    document = {**json.loads((folder / "evaluation.json").read_text()), **changes}
    document = {name: value for name, value in document.items() if name not in without}
    (folder / "evaluation.json").write_text(json.dumps(document))
    return folder


def text_of(page):
    return " ".join(page.text.split())


def test_lists_stand_before_everything_else(page, runs, write):
    compared = Page(write(runs[2:], compare=True, has_charts=False).read_text(encoding="utf-8"))
    for one in (page, compared):
        assert one.all("section")[0]["id"] == "lists"
        assert one.all("a")[0]["href"] == "#lists"
    names = {row[0][0] for row in compared.tables["lists-table"]["rows"]}
    assert {"multi-task-seed-0", "multi-task-seed-1", "popularity (best baseline)", "recent"} <= names


def over_lists(windows, key):
    """Mean over all lists, those of a window counted as often as there are users."""
    cells = [cells["overall"] for cells in windows.values()]
    return np.average([cell[key] for cell in cells], weights=[cell["users"] for cell in cells])


def test_figures_are_those_of_the_documents(page, evaluations):
    best = evaluations["baseline"]["baselines"]["best"]
    columns = {
        "NDCG@3": "ndcg",
        "recall@3": "recall",
        "recall over min(n, 3)": "capped_recall",
        "hit rate@3": "hit_rate",
    }
    for header, key in columns.items():
        found = page.column("lists-table", header)
        for name, windows in evaluations["baseline"]["baselines"]["ranking"].items():
            shown = f"{name} (best baseline)" if name == best else name
            assert found[shown] == pytest.approx(over_lists(windows, key))
        seeds = [
            over_lists(evaluations[name]["lists"]["ranking"], key)
            for name in ("multi-task-seed-0", "multi-task-seed-1")
        ]
        assert found["multi-task"] == pytest.approx(np.mean(seeds))
        text = next(row for row in page.tables["lists-table"]["rows"] if row[0][0] == "multi-task")
        assert f"± {np.std(seeds, ddof=1):.4f}" in text[page.tables["lists-table"]["headers"].index(header)][0]
    ndcg = list(page.column("lists-table", "NDCG@3").values())
    assert ndcg == sorted(ndcg, reverse=True)
    again = page.column("lists-table", "NDCG, repeats allowed")
    assert again["upsampled"] == pytest.approx(over_lists(evaluations["upsampled"]["repeats"], "ndcg"))
    assert again["upsampled"] != page.column("lists-table", "NDCG@3")["upsampled"]


def test_ratios_are_of_mean_ndcg_over_lists_and_seeds(page, scores):
    ours = np.mean([scores[f"multi-task-seed-{seed}"].ndcg["model"].mean() for seed in (0, 1)])
    ratios, low, high = (page.column("lists-table", name) for name in ("multi-task / this", "95 % from", "to"))
    assert ratios["recent"] == pytest.approx(ours / scores["multi-task-seed-1"].ndcg["recent"].mean())
    assert ratios["baseline"] == pytest.approx(ours / scores["baseline"].ndcg["model"].mean())
    assert ratios["multi-task"] is None
    assert all(low[name] < value < high[name] for name, value in ratios.items() if value is not None)


def test_seeds_are_drawn_and_one_seed_has_the_interval_of_its_document(runs, scores, evaluations):
    found = {row.name: row.ratio for row in describe_lists(read_models(runs), num_samples=200).rows}
    seeds = [scores[f"multi-task-seed-{seed}"].ndcg["model"].rename("value").reset_index() for seed in (0, 1)]
    ours = pd.concat([frame.assign(seed=seed) for seed, frame in enumerate(seeds)])
    theirs = scores["multi-task-seed-0"].ndcg["cosine"].rename("value").reset_index()
    assert found["cosine"] == compare_lists(ours, theirs, num_samples=200)
    single = {row.name: row.ratio for row in describe_lists(read_models(runs[:1]), num_samples=1000).rows}
    for name, cell in evaluations["baseline"]["baselines"]["compared"].items():
        assert single[name] == {key: value for key, value in cell.items() if key != "holm"}


def test_what_is_left_out_is_counted_and_said(page, evaluations):
    text, evaluation = text_of(page), evaluations["multi-task-seed-1"]
    cells = [of["overall"] for of in evaluation["lists"]["ranking"].values()]
    assert f"There are {sum(cell['users'] for cell in cells):,} lists in 3 test windows." in text
    left = evaluation["left_out"].values()
    assert sum(of["positives"] for of in left) > 100
    assert f"{sum(of['positives'] for of in left)} positives are left out, as the user had the title before" in text
    assert f"{sum(of['users'] for of in left)} users of a window had nothing else" in text
    assert f"Baselines that are not here: {report_runs.MISSING}." in text
    assert not page.all("i")
    number = evaluation["baselines"]["validation"]["user_windows"]
    assert f"were decided by {number} lists of validation users" in text


def test_new_and_known_users_and_titles(page, scores):
    for name, run, contender in (("upsampled", "upsampled", "model"), ("recent", "multi-task-seed-1", "recent")):
        rows = scores[run].loc[contender]
        new, known = rows[rows.is_new_user], rows[~rows.is_new_user]
        assert page.column("lists-segments", "new users")[name] == pytest.approx(new.ndcg.mean())
        assert page.column("lists-segments", "lists of known users")[name] == len(known)
        hits, positives = ((rows[of] - rows[f"new_title_{of}"]).sum() for of in ("hits", "positives"))
        assert page.column("lists-segments", "known titles")[name] == pytest.approx(hits / positives)
        assert page.column("lists-segments", "positives of known titles")[name] == positives
        assert page.column("lists-segments", "positives of new titles")[name] == rows.new_title_positives.sum()


def test_a_model_below_the_best_baseline_is_said_to_be_with_its_causes(runs, evaluations, write, tmp_path):
    baselines = {**evaluations["baseline"]["baselines"], "best": HOSTILE}
    for kind in ("ranking", "repeats"):
        baselines[kind] = {HOSTILE if name == "recent" else name: of for name, of in baselines[kind].items()}
    warning = "the model's lists are below <i>those</i> of recent. It may be that there are few updates"
    run = copy_of(runs[0], tmp_path / HOSTILE, baselines=baselines, warnings=[warning])
    frame = pd.read_parquet(run / "list_scores.parquet")
    frame.loc[frame.contender == "recent", ["contender", "ndcg"]] = [HOSTILE, 0.9]
    frame.to_parquet(run / "list_scores.parquet")
    file = write([run])
    page = Page(file.read_text(encoding="utf-8"))
    text = text_of(page)
    assert f"{HOSTILE} is below {HOSTILE}, the best baseline: NDCG 0." in text
    assert f"Warning: {HOSTILE}, seed 0: {warning}." in text
    assert [a["class"] for a in page.all("div") if "verdict" in a.get("class", "")] == ["verdict warning"] * 2
    assert f"{HOSTILE} (best baseline)" in [row[0][0] for row in page.tables["lists-table"]["rows"]]
    assert not [tag for tag, _ in page.elements if tag in ("b", "i")]


def test_a_model_above_it_has_no_warning(page):
    assert "multi-task is above popularity, the best baseline: NDCG 0." in text_of(page)
    verdicts = [a["class"] for a in page.all("div") if "verdict" in a.get("class", "")]
    assert set(verdicts) == {"verdict"}
    assert "Warning: " not in page.text


@pytest.mark.parametrize("kind", ["earlier version", "without baselines"])
def test_runs_without_baselines_say_what_to_do(runs, evaluations, write, tmp_path, kind):
    changes = {"baselines": None}
    if kind == "earlier version":
        lists = json.loads(json.dumps(evaluations["baseline"]["lists"]))
        for cells in lists["ranking"].values():
            for cell in cells.values():
                del cell["capped_recall"]
        without = ("baselines", "segments", "warnings", "repeats", "left_out")
        changes = {"lists": lists, "without": without}
    run = copy_of(runs[0], tmp_path / "run", **changes)
    if kind == "earlier version":
        (run / "list_scores.parquet").unlink()
    page = Page(write([run], has_charts=False).read_text(encoding="utf-8"))
    text = text_of(page)
    assert f"run was evaluated {'by an ' if 'earlier' in kind else ''}{kind}" in text
    assert f"run `tfmtr evaluate {run} --data " in text
    assert [row[0][0] for row in page.tables["lists-table"]["rows"]] == ["run"]
    assert "best baseline" not in page.text


def test_a_model_without_an_index_has_no_lists(runs, write, tmp_path):
    run = copy_of(runs[0], tmp_path / "run", lists={}, baselines=None, segments={}, warnings=[])
    (run / "list_scores.parquet").unlink()
    page = Page(write([run], has_charts=False).read_text(encoding="utf-8"))
    assert "There are no lists: the model has no index" in page.text
    assert "lists-table" not in page.tables


def test_figures_among_random_titles_stand_where_they_are_of_the_same_number(
    runs, prepared, evaluations, write, tmp_path
):
    def cells(value):
        return {window: {"overall": {"hit_rate": value, "ndcg": value / 2, "users": 9}} for window in ("1", "2", "3")}

    found = evaluations["baseline"]
    baselines = {**found["baselines"], "among": {"recent": cells(0.75)}}
    last = copy_of(runs[0], tmp_path / "last", ranked_among=100, among=cells(0.5), baselines=baselines)
    other = copy_of(runs[1], tmp_path / "other", ranked_among=50, among=cells(0.25))
    data = tmp_path / "data"
    shutil.copytree(prepared, data)
    document = json.loads((data / "prepare.json").read_text())
    (data / "prepare.json").write_text(json.dumps({**document, "times": False}))
    page = Page(write([other, last], data=data, has_charts=False).read_text(encoding="utf-8"))
    hit_rate, ndcg = (page.column("lists-table", f"{name} among 100") for name in ("hit rate", "NDCG"))
    assert (hit_rate["last"], hit_rate["recent"], hit_rate["cosine"], hit_rate["other"]) == (0.5, 0.75, None, None)
    assert ndcg["recent"] == 0.375
    assert NO_TIMES in text_of(page)


def test_without_ranks_among_random_titles_there_is_no_such_column(page):
    assert not [name for name in page.tables["lists-table"]["headers"] if "among" in name]
    assert NO_TIMES not in text_of(page)


def test_lists_of_other_users_have_no_ratio(runs, tmp_path):
    run = copy_of(runs[1], tmp_path / "run")
    frame = pd.read_parquet(run / "list_scores.parquet")
    frame[frame.user != "u7"].to_parquet(run / "list_scores.parquet")
    found = describe_lists(read_models([run, runs[0]]), num_samples=10)
    ratios = {row.name: row.ratio for row in found.rows}
    assert ratios["run"] is None
    assert ratios["recent"]["ratio"] > 0
    second = copy_of(runs[3], tmp_path / "multi-task-seed-1")
    frame = pd.read_parquet(second / "list_scores.parquet")
    frame[(frame.user != "u7") | (frame.contender != "model")].to_parquet(second / "list_scores.parquet")
    found = describe_lists(read_models([runs[0], runs[2], second]), num_samples=10)
    assert [row.ratio for row in found.rows] == [None] * len(found.rows)
    assert "their lists are not of the same users, or not kept" in found.verdict
