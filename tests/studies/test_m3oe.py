import dataclasses
import importlib
import json
import re

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from studies.cells import RESULTS, read_cells
from tfmtr.datasets.domains import split_rows
from tfmtr.schema import Feature, Scenario, Schema, Task

TASKS = ("click", "like")


@pytest.fixture(scope="module")
def study():
    return importlib.import_module("studies.m3oe.study")


@pytest.fixture(scope="module")
def tables():
    return importlib.import_module("studies.m3oe.tables")


@pytest.fixture(scope="module")
def published():
    return importlib.import_module("studies.m3oe.published")


def small(path=None, *, protocol="row", rows=12_000, seed=0):
    """Users, titles and three domains with something to learn; the reader of a data set in the study."""
    rng = np.random.default_rng(seed)
    user, title = rng.integers(0, 300, rows), rng.integers(0, 20, rows)
    user[rows * 8 // 10 :] += rng.integers(0, 2, rows - rows * 8 // 10) * 300  # half of the later users are new
    logit = np.where(title % 2, 1.5, -1.5) * np.where(user % 3 == 1, -1, 1)  # the domains' tastes differ
    table = pa.table(
        {
            "user": user.astype(str),
            "title": title.astype(str),
            "domain": (1 + user % 3).astype(str),
            **{name: (rng.random(rows) < 1 / (1 + np.exp(i - logit))).astype("int8") for i, name in enumerate(TASKS)},
            "split": split_rows(rows, protocol=protocol, time=np.arange(rows)),
        }
    )
    train = table.filter(pc.equal(table["split"], "train"))
    roles = {"user": "user", "title": "title", "domain": "context"}
    features = [Feature(name, role, "id", sorted(set(train[name].to_pylist()))) for name, role in roles.items()]
    tasks = [Task(name, mean=pc.mean(train[name]).as_py()) for name in TASKS]
    return table, Schema(features, tasks, Scenario(["domain"], {d: d for d in "123"}), slices=["domain"])


@pytest.fixture
def tiny(study, monkeypatch):
    """The study with a small data set and a small shared bottom, which stands for all systems."""
    share = {"units": (16,), "tower_units": (8,), "normalize": False}
    monkeypatch.setitem(study.DATASETS, "movielens", (small, 1e-2, dict.fromkeys(("mlp", "shared_bottom"), share)))
    return study


def test_a_budget_is_of_updates_and_a_second_call_computes_nothing(eager, tiny, tmp_path, monkeypatch, capsys):
    rows = [row for row in tiny.TABLE_2 if row.name in ("ShBot-MTL", "ShBot-MDMT")]
    options = {"rows": rows, "folder": tmp_path, "max_updates": 8, "batch_size": 1000}
    cells = tiny.main("movielens", None, **options)
    names = [f"movielens/shared_bottom-{setting}-time-seed-0-8-updates" for setting in ("MDMT", "MTL")]
    assert list(read_cells(tmp_path / RESULTS)) == names
    assert "[2/2] ShBot-MDMT (MDMT) seed 0: overall AUC" in capsys.readouterr().out
    apart, joint = cells
    assert (apart["epochs"], joint["epochs"]) == ([2] * 3, [1])  # of 4 and of 10 updates
    assert list(apart["history"]) == [f"d{domain} click+like" for domain in (1, 2, 3)]
    assert list(joint["history"]) == ["d1+2+3 click+like"]
    assert apart["test"]["all"]["click"]["overall"]["rows"] == 1200
    counts = [[cell["test"][users]["like"]["2"]["rows"] for users in ("all", "warm", "cold")] for cell in cells]
    assert counts[0] == counts[1]
    assert counts[0][0] == counts[0][1] + counts[0][2] > 2 * min(counts[0][1:]) > 0

    monkeypatch.setattr(tiny, "fit", None)  # a cell that is there needs no training
    assert tiny.main("movielens", None, **options) == cells
    assert "was there" in capsys.readouterr().out
    with pytest.raises(TypeError):  # another recipe is another result
        tiny.main("movielens", None, **{**options, "max_updates": 20})

    tiny.write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "## movielens, split by time" in page
    assert "| ShBot-MDMT | MDMT |  | 76.26 |" in page  # 8 updates are not the recipe
    assert f"{joint['test']['all']['click']['1']['roc_auc'] * 100:.2f} (75.94 " in page
    assert page in capsys.readouterr().out
    asked = re.findall(r"^    python studies/m3oe/study.py .*--models (\S+)(?: --setting (\S+))?", page, re.MULTILINE)
    assert len(asked) > 3
    assert all(tiny.chosen_rows(models.split(","), [setting or "all"]) for models, setting in asked)


def test_fusion_weights_trained_in_turns_are_cells_and_rows_of_their_own(eager, tiny, tmp_path, monkeypatch):
    sizes = {"units": (8, 8), "expert_units": 4, "tower_units": (4,)}
    monkeypatch.setitem(tiny.DATASETS, "movielens", (small, 1e-2, {"m3oe": sizes}))
    rows = [row for row in tiny.TABLE_2 if row.name == "M3oE"]
    options = {"rows": rows, "folder": tmp_path, "max_updates": 4, "batch_size": 4800}
    found = {mode: tiny.main("movielens", None, mode=mode, **options)[0] for mode in (None, *tiny.MODES)}
    assert len(read_cells(tmp_path / RESULTS)) == 4
    moved = {mode: np.abs(np.concatenate(list(cell["fusion_weights"].values())) - 0.5) for mode, cell in found.items()}
    # 2 steps an epoch at a rate of .01: one turn in two epochs moves a logit by .01, a probability by a quarter of it
    np.testing.assert_allclose(moved["paper"], 0.0025, rtol=0.02)
    assert all(moved[mode].max() > 0.0075 for mode in (None, "per_step", "validation"))
    assert "mode" not in found[None]["recipe"]
    page = tiny.report(list(found.values()))
    assert [row in page for row in ("| with all others |", "| paper |", "| per_step |", "| validation |")] == [True] * 4
    assert "| 0.5" in page or "0.502" in page
    with pytest.raises(ValueError, match="`mode` must be one of"):
        tiny.main("movielens", None, mode="alone", **options)


def test_a_joint_model_learns_and_keeps_its_best_epoch(tiny):
    data = tiny.encode(*small())
    recipe = tiny.Recipe("shared_bottom", "MDMT", "time", 0, 0.03, tiny.DATASETS["movielens"][2]["mlp"], batch_size=500)
    _, predict, history = tiny.fit(data, recipe, (1, 2, 3), data.schema.tasks)
    assert max(history["val_auc"]) > 0.7
    assert history["loss"][-1] < history["loss"][0]
    validation = tiny.validation_rows(data, data.split["validation"], data.schema.tasks)
    assert data.is_warm[validation].all()
    scores, aucs = predict(validation), []
    for task in TASKS:
        for domain in (1, 2, 3):
            mine = data.domain[validation] == domain
            aucs.append(pairwise_auc(data.y[task][validation][mine], scores[task][mine]))
    assert np.mean(aucs) == pytest.approx(max(history["val_auc"]), abs=1e-6)


def test_patience_is_of_updates_and_rounded_up_to_epochs(eager, tiny):
    """A rate of nearly zero never betters the first epoch's AUC; an epoch has two updates."""
    data, options = tiny.encode(*small()), tiny.DATASETS["movielens"][2]["mlp"]
    recipe = tiny.Recipe("shared_bottom", "MDMT", "time", 0, 1e-20, options, batch_size=5000, patience=3)
    assert len(tiny.fit(data, recipe, (1, 2, 3), data.schema.tasks).history["loss"]) == 1 + 2


def pairwise_auc(labels, scores):
    """Share of pairs of a positive and a negative row that are in the right order; ties count half."""
    difference = scores[labels == 1][:, None] - scores[labels == 0]
    return np.mean((difference > 0) + 0.5 * (difference == 0))


def test_a_model_of_one_domain_and_task_sees_no_other_rows(eager, tiny):
    """Other domains' and the other task's labels change nothing."""
    data = tiny.encode(*small())
    recipe = tiny.Recipe("mlp", "single", "time", 0, 0.03, {"units": (8,)}, batch_size=1000, max_updates=1)
    click, _ = data.schema.tasks
    rows = data.split["test"] & (data.domain == 2)
    expected = tiny.fit(data, recipe, (2,), (click,)).predict(rows)["click"]
    y = {"click": np.where(data.domain == 2, data.y["click"], 1 - data.y["click"]), "like": 1 - data.y["like"]}
    np.testing.assert_array_equal(tiny.fit(data._replace(y=y), recipe, (2,), (click,)).predict(rows)["click"], expected)


def test_validation_on_all_rows_where_seen_users_have_too_few(tiny):
    data = tiny.encode(*small())
    few = data._replace(is_warm=data.is_warm & (np.arange(12_000) % 60 == 0))
    validation = data.split["validation"]
    np.testing.assert_array_equal(tiny.validation_rows(few, validation, data.schema.tasks), validation)


def test_encoded_rows(tiny):
    table, schema = small()
    data = tiny.encode(table, schema)
    known = set(table.filter(pc.equal(table["split"], "train"))["user"].to_pylist())
    assert data.is_warm.tolist() == [user in known for user in table["user"].to_pylist()]
    assert data.domain.astype(str).tolist() == table["domain"].to_pylist()
    assert sum(mask.astype(int) for mask in data.split.values()).tolist() == [1] * 12_000
    flipped = data._replace(y={**data.y, "like": 1 - data.y["like"]})
    assert data.fingerprint != flipped.fingerprint


def test_what_each_setting_trains_together(study):
    tasks = [Task("click"), Task("like")]
    click, like = tasks
    assert study.parts("MDMT", 2, tasks) == [((1, 2), (click, like))]
    assert study.parts("MDL", 2, tasks) == [((1, 2), (click,)), ((1, 2), (like,))]
    assert study.parts("MTL", 2, tasks) == [((1,), (click, like)), ((2,), (click, like))]
    assert study.parts("single", 2, tasks) == [((d,), (t,)) for d in (1, 2) for t in tasks]


def test_systems_that_know_no_domains_get_a_tower_for_each_pair_in_joint_settings_only(study):
    def wrapped(system):
        return [study.Recipe(system, setting, "time", 0, 1e-2).trained(1).per_pair for setting in study.SETTINGS]

    assert wrapped("shared_bottom") == [False, False, True, True]
    assert wrapped("star") == [False] * 4
    for row in study.TABLE_2:
        _, _, options = study.DATASETS["movielens"]
        recipe = study.Recipe(row.system, row.setting, "time", 0, 1e-2, options.get(row.system, {})).trained(20)
        assert (recipe.epochs, recipe.patience_of(20), recipe.normalizer) == (13, 3, "groups")


def test_the_fifteen_rows_and_which_published_means_add_up(tables, published):
    assert len(published.TABLE_2) == len({(row.system, row.setting) for row in published.TABLE_2}) == 15
    ours = published.TABLE_2[-1]
    assert (ours.movielens[-2], round(np.mean(ours.movielens[:6]), 2)) == (77.02, 77.02)
    assert [row.name for row in published.TABLE_2 if not tables.adds_up(row.movielens)] == ["PLE-MDMT"]


def test_relative_improvement(tables, published):
    assert tables.relative_improvement(60.0, 58.0) == pytest.approx(25.0)
    best = [max(row.movielens[i] for row in published.TABLE_2[:-1]) for i in (*range(6), 6)]
    own = published.TABLE_2[-1].movielens[:7]
    gains = [tables.relative_improvement(a, b) for a, b in zip(own, best, strict=True)]
    assert [round(gain, 2) for gain in gains] == [2.07, 3.15, 2.38, 2.09, 2.09, 2.68, 2.54]


def cell(system, setting, seed, aucs):
    """A cell with given AUCs by (domain, task); pooled 0.9, log loss half the AUC."""

    def by_domain(task, shift=0.0):
        values = {str(d): aucs[d, task] + shift for d in (1, 2, 3)} | {"overall": 0.9 + shift}
        return {name: {"roc_auc": auc, "log_loss": auc / 2, "rows": 10} for name, auc in values.items()}

    cold = {task: by_domain(task) for task in TASKS}
    cold["click"]["3"] = {"roc_auc": None, "log_loss": None, "rows": 2}
    return {
        "dataset": "movielens",
        "fingerprint": "f" * 64,
        "recipe": {"system": system, "setting": setting, "protocol": "time", "seed": seed, "max_updates": 250},
        "versions": {"keras": "3"},
        "epochs": [5],
        "seconds": 1200.0,
        "best_epochs": [3],
        "test": {
            "all": {task: by_domain(task) for task in TASKS},
            "warm": {task: by_domain(task, 0.01) for task in TASKS},
            "cold": cold,
        },
    }


def aucs(click, like):
    return {(d, task): value + d / 100 for task, value in (("click", click), ("like", like)) for d in (1, 2, 3)}


def test_the_figures_of_a_cell(tables):
    figures = tables.figures(cell("m3oe", "MDMT", 0, aucs(0.7, 0.6)))
    assert figures == pytest.approx(
        {
            **{f"d{d} {task}": base + d for d in (1, 2, 3) for task, base in (("click", 70), ("like", 60))},
            "overall": 67,
            "pooled": 90,
            "log loss": 33.5,
            "pooled log loss": 45,
            "warm": 68,
            "cold": None,
        }
    )


def test_the_report(tables):
    cells = [cell("m3oe", "MDMT", seed, aucs(0.70 + seed / 100, 0.6)) for seed in (0, 1)]
    cells += [cell("star", "MDL", seed, aucs(0.66 + seed / 100, 0.62)) for seed in (0, 1)]
    cells += [cell("mmoe", "MDMT", seed, aucs(0.61, 0.59)) for seed in (0, 1)]  # not the best baseline
    page = tables.report(json.loads(json.dumps(cells)))
    (star,) = [line for line in page.splitlines() if line.startswith("| STAR")]
    assert star.startswith("| STAR | MDL | 67.50 (75.89 -8.39) | 63.00 (76.85 -13.85) |")
    assert star.endswith("| n/a | 0.35 | 3 3 | 2 |")
    (ours,) = [line for line in page.splitlines() if line.startswith("| M3oE | MDMT")]
    assert "| 67.25 (77.02 -9.77) | 90.00 | 33.62 (50.71 -17.09) | 45.00 | 68.25 | n/a | 0.35 | 3 3 | 2 |" in ours
    (gain,) = [line for line in page.splitlines() if line.startswith("| RelaImpr")]
    # 71.5 over 67.5, 61 over 63; in brackets what was published
    assert gain.startswith("| RelaImpr |  | +22.86 (+2.07) | -15.38 (+3.15) | ")
    assert "; 6 cells, 2.0 hours.\n" in page
    assert "| p (Welch, Holm) |" not in page  # in the columns of like neither model varies: not defined
    assert "best baseline |  | STAR |" in page


def test_the_table_in_short(tables):
    here = [cell("ple", "MDMT", seed, aucs(0.75 + seed / 50, 0.77)) for seed in (0, 1)]
    here += [cell("ple", "MDL", 0, aucs(0.72, 0.6)), cell("ours", "MDMT", 0, aucs(0.8, 0.7))]
    lines = tables.in_short(here, [cell("m2m", "MDMT", 0, aucs(0.7, 0.6))]).splitlines()
    assert len(lines) == 2 + 15 + 2
    assert "| PLE-MDMT | MDMT | 78.50 (0.71) | 75.68 | +2.82 | 2 |  |" in lines
    assert "| M2M | MDMT |  | 74.59 |  |  | 67.00 |" in lines
    assert "| m3oe_code | MDMT |  | 77.02 |  |  |  |" in lines
    assert lines[-1] == "| ours | MDMT | 77.00 |  |  | 1 |  |"
    assert tables.of_systems(here) == {"ple": pytest.approx(78.5), "ours": pytest.approx(77)}  # joint before MDL


def test_rows_that_the_paper_does_not_have(study, tables):
    assert [row.system for row in study.chosen_rows(["others"], ["all"])] == study.OTHERS
    assert "pepnet" in study.OTHERS
    assert not {"mmoe", "adatt", "m3oe"} & {*study.OTHERS}
    cells = [cell("m3oe", "MDMT", 0, aucs(0.70, 0.6)), cell("pepnet", "MDMT", 0, aucs(0.72, 0.6))]
    cells += [cell("pepnet", "MDMT", 1, aucs(0.74, 0.6))]
    page = tables.report(cells)
    assert "| pepnet | 68.50 0.71 | 90.00 0.00 | 69.50 0.71 | n/a n/a | 2 |" in page
    assert "| M3oE over pepnet | 67.00 n/a | 68.50 0.71 | -1.50 |" in page


def test_readings_of_the_published_code_stand_beside_the_published_figures(study, tables):
    assert [row.system for row in study.chosen_rows(["readings"], ["MDMT"])] == [*study.READINGS]
    cells = [cell("m3oe", "MDMT", 0, aucs(0.70, 0.6))]
    cells += [cell("m3oe_code", "MDMT", seed, aucs(0.72 + seed / 50, 0.6)) for seed in (0, 1)]
    for i, of_seed in enumerate(cells):
        of_seed["fusion_weights"] = {"alpha_d": [0.5 + i / 10], "beta_d": [0.3 - i / 10]}
    page = tables.report(cells)
    assert "| M3oE | 71.00 (76.61 -5.61) | 61.00 (78.13 -17.13) |" in page
    (code,) = [line for line in page.splitlines() if line.startswith("| m3oe_code |")]
    assert code.startswith("| m3oe_code | 74.00 (76.61 -2.61) |")
    assert code.endswith("| 68.50 (77.02 -8.52) | 0.71 | 0.15 to 0.65 | 2 |")
    assert "Systems that the paper's tables do not have" not in page
    assert "### M3oE as the paper" not in tables.report(cells[:1])


def test_l2_reaches_the_optimizer_and_makes_a_table_of_its_own(eager, tiny, tables, monkeypatch, tmp_path):
    rows = [row for row in tiny.TABLE_2 if row.name == "ShBot-MDMT"]
    options = {"rows": rows, "folder": tmp_path, "max_updates": 1, "batch_size": 1000}
    fitted, fit = [], tiny.fit
    monkeypatch.setattr(tiny, "fit", lambda *args: fitted.append(fit(*args)) or fitted[-1])
    cells = [tiny.main("movielens", None, l2=l2, **options)[0] for l2 in (0.0, 1e-5)]
    assert [found.model.optimizer.l2 for found in fitted] == [0.0, 1e-5]
    stem = "movielens/shared_bottom-MDMT-time-seed-0-1-updates"
    assert list(read_cells(tmp_path / RESULTS)) == [stem, f"{stem}-l2-1e-05"]
    assert ["l2" in of_l2["recipe"] for of_l2 in cells] == [False, True]
    page = tables.report(cells)
    assert page.index("at most 1 updates a model\n") < page.index("at most 1 updates a model, L2 of 1e-05\n")
    recipes = [tiny.Recipe("m3oe", "MDMT", "time", 0, 0.1, max_updates=1, l2=l2) for l2 in (0, 1e-5)]
    assert [tiny.is_same_study(cells[1], recipe) for recipe in recipes] == [False, True]


def test_the_dagger_marks_the_mean_that_does_not_follow(tables):
    page = tables.report([cell("ple", "MDMT", 0, aucs(0.7, 0.6)), cell("mmoe", "MDMT", 0, aucs(0.7, 0.6))])
    assert "67.00 (75.68† -8.68)" in page
    assert page.count("†") == 1
    assert "RelaImpr |" not in page


def test_table_3_takes_parts_away_from_m3oe(study, tables, published):
    assert [row.system for row in study.chosen_rows(["ablations"], ["all"])] == [
        r.system for r in published.TABLE_3[:-1]
    ]
    for row in published.TABLE_3:
        recipe = study.Recipe(row.system, "MDMT", "time", 0, 1e-2, study.DATASETS["kuairand"][2][row.system])
        assert recipe.trained(1).share == ("m3oe", {"num_experts": 4, **row.options})
    cells = [cell(system, "MDMT", 0, aucs(like, 0.6)) for system, like in (("m3oe", 0.70), ("m3oe_concat", 0.68))]
    page = tables.report(cells)
    assert "### Components of M3oE on movielens, split by time, at most 250 updates a model (Table 3)" in page
    assert "| Concat modules | 66.00 (76.89 -10.89) | n/a | -1.00 (-0.13) | n/a | 1 |" in page
    assert "| M3oE | 67.00 (77.02 -10.02) | n/a |  |  | 1 |" in page
    assert "w/o AutoML" not in page
    more = [cell(system, "MDMT", 1, aucs(like, 0.6)) for system, like in (("m3oe", 0.72), ("m3oe_concat", 0.66))]
    # 67.5 and 65.5, both with a deviation of .71: t = 2 / sqrt(.25 + .25) with 2 degrees of freedom
    assert "| Concat modules | 65.50 (76.89 -11.39) | 0.71 | -2.00 (-0.13) | 0.106 | 2 |" in tables.report(cells + more)
    assert "Table 3)" not in tables.report(cells[:1])


def test_budgets_are_tables_apart(tables):
    cells = [cell("mlp", "single", 0, aucs(auc, 0.6)) for auc in (0.70, 0.74)]
    cells[1]["recipe"]["max_updates"] = 500
    page = tables.report(cells)
    places = ["at most 250 updates", "| 67.00 (75.62 -8.62)", "at most 500 updates", "| 69.00 (75.62 -6.62)"]
    assert sorted(places, key=page.index) == places


def test_claims_are_counted_in_the_published_table_and_in_the_cells(tables):
    claims = importlib.import_module("studies.m3oe.claims").claims
    overall = {
        "M3oE": [77.0, 77.2, 77.1],
        "w/o AutoML": [76.0, 76.2, 76.1],  # below, beyond chance
        "Concat modules": [78.0, 78.2, 78.1],  # above
        "STAR": [76.0],  # one seed: no test
        "MLP": [76.5],
    }
    lines = claims("movielens", overall)
    rows = {line.split(" | ")[1]: line for line in lines.splitlines() if line.startswith("| 3.")}
    assert rows["fusion weights optimised by AutoML improve performance"].endswith("| 1 of 1 | 1 of 1 | 1 | 0 | 1 |")
    assert rows["concatenating the modules is inferior to adding them"].endswith("| 1 of 1 | 0 of 1 | 0 | 1 | 1 |")
    assert rows["multi-domain methods generally outperform MLP"].endswith("| 4 of 4 | 0 of 1 | 0 | 0 | 0 |")
    assert rows["M3oE surpasses all baselines"].endswith("| 14 of 14 | 2 of 2 | 0 | 0 | 0 |")
    assert "STAR is superior to the other multi-domain methods" not in rows  # none of them is there
    (pair,) = [line for line in lines.splitlines() if line.startswith("| M3oE over w/o AutoML")]
    # t = 1 / sqrt(2 * .01 / 3) = 12.25 with 4 degrees of freedom; twice that for the two pairs tested
    assert pair == "| M3oE over w/o AutoML | +0.65 | +1.00 | < 0.001 | < 0.001 | 3 and 3 |"
    assert claims("movielens", {"MLP": [75.0]}) == ""


def test_what_the_published_table_says_of_the_claims(tables):
    claims = importlib.import_module("studies.m3oe.claims")
    overall = claims.published("movielens")
    supported = {
        claim.sentence: sum(overall[one] > overall[other] for one, other in claim.pairs) for claim in claims.CLAIMS
    }
    assert supported["multi-task methods generally outperform MLP"] == 1  # of 5: MMoE alone
    assert supported["STAR is superior to the other multi-domain methods"] == 2  # of 3: level with MMoE
    assert supported["M3oE surpasses all baselines"] == 14


def test_differences_have_an_interval_over_test_users(tables):
    cells = [cell("m3oe", "MDMT", seed, aucs(0.70 + seed / 100, 0.6)) for seed in (0, 1)]
    cells += [cell("star", "MDL", seed, aucs(0.66 + seed / 100, 0.6)) for seed in (0, 1)]
    assert "| n/a to n/a |" in tables.report(cells)
    for c, gain in zip(cells, (0.02, 0.04, 0.0, 0.0), strict=True):
        c["bootstrap"] = [0.6 + gain + shift for shift in (0.0, 0.01, 0.02)] + [None]
    page = tables.report(cells)
    # 67.25 and 65.25 in the mean of two seeds; bootstrap samples are paired, so what they share is not in the interval
    assert "| M3oE over STAR | 67.25 0.35 | 65.25 0.35 | +2.00 | +3.00 to +3.00 | 0.030 | 2 and 2 |" in page


def test_the_bootstrap_draws_users_and_the_same_in_every_cell(tiny, monkeypatch):
    monkeypatch.setattr(tiny, "NUM_SAMPLES", 20)
    data = tiny.encode(*small())
    test = data.split["test"]
    rng = np.random.default_rng(0)
    scores = {task: data.y[task] + rng.normal(size=len(test)) for task in TASKS}
    samples = tiny.bootstrap(data, scores, test)
    assert samples == tiny.bootstrap(data, scores, test)
    whole = np.mean(
        [
            pairwise_auc(data.y[task][test & (data.domain == d)], scores[task][test & (data.domain == d)])
            for task in TASKS
            for d in (1, 2, 3)
        ]
    )
    assert len(samples) == 20
    assert np.mean(samples) == pytest.approx(whole, abs=3 * np.std(samples) / 20**0.5 + 1e-3)
    assert np.std(samples) > 1e-3
    assert set(tiny.bootstrap(data, {task: data.y[task] for task in TASKS}, test)) == {1.0}


def test_the_search_sees_no_test_row_and_keeps_what_it_found(eager, tiny, tmp_path, monkeypatch):
    search = importlib.import_module("studies.m3oe.search")
    candidate = importlib.import_module("studies.m3oe.candidates").Candidate
    small_bottom = {"units": (16,), "tower_units": (8,), "normalize": False}
    candidates = {"bottom": candidate("shared_bottom", small_bottom)}
    candidates["bottom, fm"] = candidate("shared_bottom", small_bottom, {"encode": "fm", "has_first_order": True})
    candidates["bottom, mean"] = candidate("shared_bottom", small_bottom, {}, {"use_ema": True, "ema_momentum": 0.9})
    options = {"candidates": candidates, "folder": tmp_path, "max_updates": 4, "batch_size": 5000}
    seen, fit = [], tiny.fit

    def watched(data, *args):
        fitted = fit(data, *args)
        return fitted._replace(predict=lambda rows: seen.append(rows))

    monkeypatch.setattr(tiny, "fit", watched)
    found = search.main(None, **options)
    assert not seen
    names = [f"movielens/bottom-{what}4-updates" for what in ("", "fm-", "mean-")]
    assert list(read_cells(tmp_path / tiny.SEARCH)) == names
    first, *_, last = found.values()
    assert first["val_auc"] >= last["val_auc"]
    assert found["bottom, fm"]["recipe"]["beside"] == {"encode": "fm", "has_first_order": True}
    assert "test" not in first
    monkeypatch.setattr(tiny, "fit", None)
    assert search.main(None, **options) == found


def test_an_epoch_is_judged_and_kept_with_the_mean_of_its_weights(eager, tiny, monkeypatch):
    judged, predict = [], tiny.keras.Model.predict

    def watched(model, *args, **kwargs):
        judged.append([np.asarray(v) for v in model.trainable_variables])
        return predict(model, *args, **kwargs)

    data = tiny.encode(*tiny.DATASETS["movielens"][0](None, protocol="time"))
    adam = {"use_ema": True, "ema_momentum": 0.9}
    options = {"units": (8,), "tower_units": (4,), "normalize": False}
    recipe = tiny.Recipe(
        "shared_bottom", "MDMT", "time", 0, 0.03, options, adam=adam, batch_size=2000, max_updates=1, patience=1
    )
    monkeypatch.setattr(tiny.keras.Model, "predict", watched)
    model = tiny.fit(data, recipe, (1, 2, 3), data.schema.tasks).model
    plain = tiny.fit(data, dataclasses.replace(recipe, adam={}), (1, 2, 3), data.schema.tasks).model
    for mean, kept in zip(judged[0], model.trainable_variables, strict=True):
        np.testing.assert_allclose(kept, mean, atol=1e-6)
    assert max(np.abs(v - mean).max() for v, mean in zip(plain.get_weights(), judged[0], strict=False)) > 0.01


def test_the_row_of_the_package_s_own_choice(eager, tiny, tables, monkeypatch, tmp_path):
    study, candidates = tiny, importlib.import_module("studies.m3oe.candidates")
    (row,) = study.chosen_rows(["ours"], ["all"])
    assert row.system == tables.OURS
    small_bottom = {"units": (16,), "tower_units": (8,), "normalize": False}
    own = candidates.Candidate("shared_bottom", small_bottom, {"encode": "fm"}, {"weight_decay": 0.3})
    monkeypatch.setitem(study.COMBINED, tables.OURS, own)
    monkeypatch.setitem(study.FILES, tables.OURS, own.share)
    fitted, fit = [], study.fit
    monkeypatch.setattr(study, "fit", lambda *args: fitted.append(fit(*args)) or fitted[0])
    (cell,) = study.main("movielens", None, rows=[row], folder=tmp_path, max_updates=1, batch_size=1000)
    parts = {name: cell["recipe"][name] for name in ("options", "beside", "adam")}
    assert parts == json.loads(json.dumps(own.parts))
    (model,) = (found.model for found in fitted)
    assert model.optimizer.weight_decay == 0.3
    assert study.chosen_rows(["all"], ["MDMT"])[-1].name == "M3oE"  # it is asked for by name only


def test_every_candidate_was_tried_and_both_choices_are_the_best_of_their_time(study):
    candidates = importlib.import_module("studies.m3oe.candidates")
    documents = list(read_cells(study.HERE / study.SEARCH).values())
    assert sorted(document["candidate"] for document in documents) == sorted(candidates.CANDIDATES)
    for document in documents:  # as the files have them now
        parts = {name: document["recipe"].get(name, {}) for name in ("options", "beside", "adam")}
        assert parts == json.loads(json.dumps(candidates.CANDIDATES[document["candidate"]].parts))
    best = sorted(documents, key=lambda document: document["val_auc"])
    assert best[-1]["candidate"] == candidates.CHOSEN
    before = [document["candidate"] for document in best if "l2" not in document["recipe"].get("adam", {})]
    assert before[-1] == candidates.CHOSEN_BEFORE


def test_every_row_of_the_recipe_has_a_cell(study):
    there = study.of_study(study.all_cells(), "movielens")
    named = {(cell["recipe"]["system"], cell["recipe"]["setting"]) for cell in there}
    wanted = study.chosen_rows(["all", "ablations", "readings", "others", "ours"], ["all"])
    assert {(row.system, row.setting) for row in wanted} <= named


def test_figure_1_waits_for_its_four_methods_and_ranks_them(monkeypatch, tmp_path):
    drawn = []
    figures = importlib.import_module("studies.m3oe.figures")
    monkeypatch.setattr(figures, "save", lambda figure, file: drawn.append(figure) or file)
    cells = [cell("mlp", "single", 0, aucs(0.70, 0.6)), cell("mmoe", "MTL", 0, aucs(0.68, 0.7))]
    cells += [cell("star", "MDL", 0, aucs(0.72, 0.5)), cell("m3oe", "MDMT", 0, aucs(0.74, 0.8))]
    assert figures.figure_1(cells[:3], tmp_path / "a.png") is None
    assert figures.figure_1(cells, tmp_path / "a.png") == tmp_path / "a.png"
    (axes,) = drawn[0].axes
    assert axes.images[0].get_array()[:, 0].tolist() == [2, 3, 1, 0]  # click in domain 1: M3oE, STAR, MLP, MMoE
    assert [text.get_text() for text in axes.texts][6] == "69.00\n-2.82 %"  # 0.69 against 0.71


def test_figure_3_shows_what_the_modules_add_up_to(eager, tiny, monkeypatch, tmp_path):
    figures = importlib.import_module("studies.m3oe.figures")
    small_m3oe = {"units": (8, 8), "expert_units": 4, "tower_units": (4,), "num_experts": 2}
    monkeypatch.setitem(tiny.DATASETS, "movielens", (small, 1e-2, {"m3oe": small_m3oe}))
    monkeypatch.setattr(figures, "NUM_ROWS", 40)
    seen = []
    module_vectors = figures.module_vectors
    monkeypatch.setattr(figures, "module_vectors", lambda *a: seen.append(module_vectors(*a)) or seen[0])
    _, file = tiny.draw("movielens", None, folder=tmp_path, max_updates=1, batch_size=5000)
    assert file.read_bytes().startswith(b"\x89PNG")
    panels = seen[0]
    assert [list(groups) for groups in panels.values()] == [
        ["domain 1", "domain 2", "domain 3", "fused"],
        ["task 1", "task 2", "fused"],
        ["shared", "domain", "task", "fused"],
    ]
    domains, tasks, views = panels.values()
    assert views["fused"].shape == (40, 4)
    assert (views["shared"] >= -1e-6).all()  # a blend of ReLUs: what is left of the sum without the other modules
    # each module's part is its fused vector times one weight: alpha, in (0, 1)
    for part, fused in ((views["domain"], domains["fused"]), (views["task"], tasks["fused"])):
        weight = part[fused > 1e-3] / fused[fused > 1e-3]
        np.testing.assert_allclose(weight, weight[0], rtol=1e-3)
        assert 0 < weight[0] < 1


def test_unknown_model_and_setting(study):
    assert [row.name for row in study.chosen_rows(["mmoe"], ["MTL", "MDMT"])] == ["MMoE-MTL", "MMoE-MDMT"]
    assert len(study.chosen_rows(["all"], ["all"])) == 15
    with pytest.raises(ValueError, match=r"`models` must be one of .* Did you mean 'mmoe'\? Received: models='mmoee'"):
        study.chosen_rows(["mmoee"], ["all"])
    with pytest.raises(ValueError, match=r"`setting` must be one of .* Did you mean 'MTL'\?"):
        study.chosen_rows(["all"], ["MTLL"])
