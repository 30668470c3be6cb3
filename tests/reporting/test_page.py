import json
import re
import shutil

import numpy as np
import pytest
from helpers import report_runs
from helpers.html_page import Page

from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation.title_facts import title_facts
from tfmtr.reporting import figures
from tfmtr.reporting.curves import calibration_lines
from tfmtr.reporting.overview import METRICS
from tfmtr.reporting.pairs import read_pairs
from tfmtr.reporting.runs import read_models


@pytest.fixture(scope="module")
def page(file):
    return Page(file.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def compared(runs, write):
    return Page(write(runs[2:], compare=True).read_text(encoding="utf-8"))


def mean_over_windows(windows, key, name="overall"):
    return np.mean([cells[name][key] for cells in windows.values() if cells[name][key] is not None])


def test_the_table_of_metrics_has_the_numbers_of_the_documents(page, evaluations):
    assert page.tables["metrics-overall"]["headers"] == ["metric", "baseline", "upsampled", "multi-task"]
    places = {
        "PR-AUC": ("pr_auc", ("tasks", "event", "territory")),
        "GAUC": ("gauc", ("gauc", "event", "territory")),
        "recall@3": ("recall", ("lists", "ranking")),
        "Gini of exposure": ("gini", ("lists", "exposure")),
        "average recommendation popularity": ("average_popularity", ("lists", "exposure")),
        "popularity lift": ("popularity_lift", ("lists", "popularity_lift")),
        "local titles, share of what users liked": ("truth", ("lists", "local_share")),
    }
    for model in ("baseline", "upsampled"):
        column = page.column("metrics-overall", model)
        assert len(column) == len(METRICS)
        for text, (key, path) in places.items():
            windows = evaluations[model]
            for step in path:
                windows = windows[step]
            assert column[text] == pytest.approx(mean_over_windows(windows, key), rel=1e-12)


def test_seeds_are_one_row_with_mean_and_deviation(page, evaluations):
    values = [
        mean_over_windows(evaluations[f"multi-task-seed-{seed}"]["tasks"]["event"]["territory"], "pr_auc")
        for seed in (0, 1)
    ]
    row = next(row for row in page.tables["metrics-overall"]["rows"] if row[0][0] == "PR-AUC")
    assert row[3][1] == pytest.approx(np.mean(values))
    assert row[3][0] == f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
    assert "±" not in row[1][0]
    deviations = [float(a["data-deviation"]) for a in page.all("span") if "data-deviation" in a]
    assert any(value == pytest.approx(np.std(values, ddof=1)) for value in deviations)


def test_territories_have_their_own_metrics(page, evaluations):
    hit_rate = page.column("metrics-by-territory", "hit rate@3")
    expected = [
        mean_over_windows(evaluations[f"multi-task-seed-{seed}"]["lists"]["ranking"], "hit_rate", "eu-01")
        for seed in (0, 1)
    ]
    assert hit_rate["eu-01"] == pytest.approx(np.mean(expected))
    assert list(hit_rate) == ["am-00", "eu-01", "af-02", "as-03", "overall"]  # "tiny" has no metric at all


def test_table_2_has_gains_by_window_sorted_with_intervals(page, evaluations):
    table = page.tables["table-2-2"]
    assert table["headers"] == [
        "territory", "kind", "training positives", "test positives", "test 1", "test 2", "test 3", "average",
        "95 % from", "to", "PR-AUC upsampled", "PR-AUC multi-task",
    ]  # fmt: skip
    cells = {name: of["tasks"]["event"]["territory"] for name, of in evaluations.items()}
    ours = np.mean([cells[f"multi-task-seed-{seed}"]["2"]["af-02"]["pr_auc"] for seed in (0, 1)])
    expected = 100 * (ours / cells["upsampled"]["2"]["af-02"]["pr_auc"] - 1)
    assert page.column("table-2-2", "test 2")["af-02"] == pytest.approx(expected)
    averages = page.column("table-2-2", "average")
    known = [value for name, value in averages.items() if name != "overall"]
    assert known == sorted(known, reverse=True)
    assert "Without enough data in any window: 1 tiny (" in " ".join(page.text.split())
    low, high = page.column("table-2-2", "95 % from"), page.column("table-2-2", "to")
    assert all(low[name] < averages[name] < high[name] for name in averages)
    kinds = {row[0][0]: row[1][0] for row in table["rows"]}
    assert kinds == {
        "am-00": "major",
        "eu-01": "major",
        "af-02": "minor",
        "as-03": "minor",
        "overall": "pooled",
    }


def test_the_headline_says_what_the_tables_say(page):
    averages = page.column("table-2-1", "average")
    major = [averages[name] for name in ("am-00", "eu-01")]
    text = " ".join(page.text.split())
    assert f"multi-task over baseline: PR-AUC is higher in {sum(v > 0 for v in major)} of 2 major territories." in text
    assert f"Mean gain over major territories: {np.mean(major):+.1f} % (95 % interval" in text
    assert f"all rows pooled: {averages['overall']:+.1f} %" in text
    assert "Major territories are the 2 with most positives among all users, half of all, as there are" in text


def test_a_last_run_that_is_worse_is_said_to_be(runs, write):
    page = Page(write([runs[2], runs[0]], has_charts=False).read_text(encoding="utf-8"))
    text = " ".join(page.text.split())
    assert "baseline over multi-task: PR-AUC is higher in 0 of 2 major territories." in text
    assert "higher in 0 of 2; all rows pooled: -" in text
    assert "with one seed a model it does not contain what other seeds would have given" in text


def test_every_table_can_be_sorted_from_the_keyboard(page):
    assert len(page.tables) == 14
    for table in page.tables.values():
        assert table["attributes"]["class"] == "sortable"
        assert table["buttons"] == len(table["headers"]) == len(table["sorts"])
        assert set(table["sorts"]) == {"none"}
        assert {len(row) for row in table["rows"]} == {len(table["headers"])}
    regions = [a for a in page.all("div") if a.get("role") == "region"]
    assert len(regions) == len(page.tables)  # each scrolls inside its own box, reached by the keyboard
    assert all(a["tabindex"] == "0" for a in regions)


def test_every_chart_has_a_text_and_its_image_beside_the_page(page, file):
    charts = page.all("svg")
    links = [a["href"] for a in page.all("a") if not a["href"].startswith("#")]
    assert len(charts) == len(links) == len(set(links)) == 16
    for attributes in charts:
        assert attributes["role"] == "img"
        assert len(attributes["aria-label"]) > 20
    assert len({attributes["aria-label"] for attributes in charts}) == len(charts)
    for link in links:
        assert link.startswith("r_files/")
        assert (file.parent / link).read_bytes().startswith(b"\x89PNG")
    assert len(list((file.parent / "r_files").iterdir())) == len(links)


def test_the_page_needs_nothing_but_itself(page, file):
    text = file.read_text(encoding="utf-8")
    assert not re.search(r"https?:|//\w", text)
    for _, attributes in page.elements:
        assert "src" not in attributes
        assert attributes.get("xlink:href", "#").startswith("#")
    assert not [tag for tag, _ in page.elements if tag in ("link", "img", "iframe", "object", "embed")]
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = {a["href"][1:] for a in page.all("a") if a["href"].startswith("#")}
    targets |= {a["xlink:href"][1:] for _, a in page.elements if "xlink:href" in a}
    targets |= set(re.findall(r"url\(#([^)]+)\)", text))
    assert targets <= set(ids)


def test_charts_take_their_colours_from_the_page(file):
    text = file.read_text(encoding="utf-8")
    bodies = re.findall(r"<svg role.*?</svg>", text, re.DOTALL)
    assert not any(re.search(r"#[0-9a-fA-F]{6}\b", body) for body in bodies)
    used = set(re.findall(r"var\((--[\w-]+)\)", text))
    for rule in re.findall(r":root \{(.*?)\}", text, re.DOTALL):  # light, and dark
        assert used <= set(re.findall(r"(--[\w-]+):", rule))
    assert len(re.findall(r":root \{", text)) == 2
    assert "prefers-color-scheme: dark" in text
    assert "@media print" in text


def test_hostile_names_are_text(page, prepared):
    assert len(page.scripts) == 1
    assert "alert" not in page.scripts[0]
    names = [row[0][0] for row in page.tables["table-3"]["rows"]]
    assert names[0] == report_runs.HOSTILE
    labels = [a["aria-label"] for a in page.all("svg")]
    assert any(report_runs.HOSTILE in label for label in labels)
    assert not page.all("b")
    assert Dataset(prepared).report["warnings"][0] in page.text


def test_table_3_has_local_and_global_titles(page):
    rows = page.tables["table-3"]["rows"]
    assert [row[1][0] for row in rows] == ["local"] * 5 + ["global"] * 5
    ours, theirs, gain = (
        page.column("table-3", name) for name in ("PR-AUC multi-task", "PR-AUC baseline", "gain over baseline")
    )
    known = [name for name, value in gain.items() if value is not None]
    assert known
    for name in known:
        assert gain[name] == pytest.approx(100 * (ours[name] / theirs[name] - 1))


def test_calibration_is_of_the_class_that_the_chart_names(runs, prepared, monkeypatch):
    models, data, drawn = read_models(runs), Dataset(prepared), {}
    pairs, facts = read_pairs(data, models, "event"), title_facts(data)
    monkeypatch.setattr(figures, "lines_chart", lambda name, lines, **_: drawn.update({name: lines}))
    figures.draw(models, pairs, facts, [], [], [], data)
    is_local = facts.local[pairs.titles]
    for name, rows in (("local", is_local), ("global", ~is_local), ("all", is_local | True)):
        expected = calibration_lines(models, pairs, rows)
        for line, same in zip(drawn[f"calibration-{name}"], expected, strict=True):
            np.testing.assert_array_equal(line.y, same.y)


def test_figure_2_names_the_shift_of_each_title(page):
    assert "local; shift from baseline" in " ".join(page.text.split())
    assert page.column("class-shifts", "titles") == {
        "baseline": 16.0,
        "upsampled": 16.0,
    }  # the last row of each: global


def test_all_that_is_needed_to_reproduce_is_there(page, runs, prepared):
    text = page.text
    assert "ab" * 32 in text
    options = "--share none --no-upsample --units 8,4 --seed 0 --no-listwise"
    assert f"tfmtr train --data {prepared} {options} --out {runs[0]}" in text
    assert f"tfmtr evaluate {runs[0]} {runs[1]}" in text
    assert f"--data {prepared} --k 3 --local-share 0.3" in text
    assert f"tfmtr report {' '.join(map(str, runs))} --out" in text
    assert "logs/events.parquet" in text
    assert "duckdb 2.0.0, numpy 2.4.6, python 3.11.7." in text
    assert page.column("runs", "seed") == {"baseline": 0.0, "upsampled": 0.0, "multi-task": 1.0}
    assert page.column("runs", "epochs")["multi-task"] == 3.0
    assert "2025-01-02 03:04" in text
    for run in runs:
        assert json.loads((run / "run.json").read_text())["run_id"] in text


def test_data_are_described(page):
    assert page.column("data-territories", "users")["eu-01"] == 180.0
    assert sum(page.column("data-territories", "share of training positives").values()) == pytest.approx(1)
    kinds = [row[1][0] for row in page.tables["data-territories"]["rows"]]
    assert kinds == ["major", "major", "minor", "minor", "minor"]
    assert [row[2][0] for row in page.tables["data-examples"]["rows"]] == [
        "training", "test 1", "test 2", "test 3", "training",
    ]  # fmt: skip
    assert page.tables["data-examples"]["rows"][-1][0][0] == "validation"


def test_one_model_alone_has_no_gains(runs, write):
    page = Page(write(runs[2:], has_charts=False).read_text(encoding="utf-8"))
    assert "gains" not in [a.get("id") for a in page.all("section")]
    assert not any(a["href"] == "#gains" for a in page.all("a"))
    assert page.tables["metrics-overall"]["headers"] == ["metric", "multi-task"]
    assert "gain over" not in page.text


def test_two_runs_side_by_side(compared, evaluations, runs):
    names = ["multi-task-seed-0", "multi-task-seed-1"]
    assert compared.tables["metrics-overall"]["headers"] == ["metric", *names, "difference", "percent"]
    values = [mean_over_windows(evaluations[name]["tasks"]["event"]["territory"], "log_loss") for name in names]
    for header, expected in (
        *zip(names, values, strict=True),
        ("difference", values[1] - values[0]),
        ("percent", 100 * (values[1] / values[0] - 1)),
    ):
        assert compared.column("metrics-overall", header)["log loss"] == pytest.approx(expected)
    assert [[text for text, _ in row] for row in compared.tables["recipes"]["rows"]] == [["seed", "0", "1"]]
    territories = compared.column("metrics-by-territory", f"PR-AUC, {names[1]}")
    assert territories["am-00"] == pytest.approx(
        mean_over_windows(evaluations[names[1]]["tasks"]["event"]["territory"], "pr_auc", "am-00")
    )
    assert f"tfmtr report --compare {runs[2]} {runs[3]} --out" in compared.text
    assert "±" not in compared.text


def test_wrong_input_is_refused_with_what_to_do(runs, prepared, write, tmp_path):
    with pytest.raises(ValueError, match=r"`compare` shows two runs side by side\. Received: 3 runs"):
        write(runs[:3], compare=True)
    with pytest.raises(ValueError, match="`runs` must name at least one run"):
        write([])
    with pytest.raises(ValueError, match=r"`task` must be one of .* Received: task='like'"):
        write(runs, task="like")
    with pytest.raises(ValueError, match=r"say where it is with --data\. Received: .*gone, which has no prepare\.json"):
        write(runs, data=tmp_path / "gone")
    other = tmp_path / "data"
    shutil.copytree(prepared, other)
    document = json.loads((other / "prepare.json").read_text())
    (other / "prepare.json").write_text(json.dumps({**document, "forgotten": 1}))
    with pytest.raises(ValueError, match=r"or evaluate them again\. Received: .*data with forgotten 1, not 0"):
        write(runs, data=other)
    (other / "prepare.json").write_text(json.dumps({**document, "fingerprint": "cd" * 32}))
    with pytest.raises(ValueError, match=r"`data` must be what the runs were evaluated on.* with fingerprint cdcd"):
        write(runs, data=other)


def test_data_may_have_moved(runs, prepared, write, tmp_path):
    shutil.copytree(prepared, tmp_path / "moved")
    assert write(runs[:1], data=tmp_path / "moved", has_charts=False).is_file()


@pytest.mark.parametrize("package", ["jinja2", "matplotlib"])
def test_what_is_missing_names_the_extra(runs, write, monkeypatch, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=r"pip install 'tfmtr\[plots\]'"):
        write(runs[:1])
