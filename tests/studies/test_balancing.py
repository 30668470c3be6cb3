import importlib
import json

import numpy as np
import pytest

from studies.cells import RESULTS, Cell
from tfmtr import components


@pytest.fixture(scope="module")
def study():
    return importlib.import_module("studies.balancing.study")


@pytest.mark.parametrize(
    ("dataset", "file"),
    [("kuairand", "kuairand-pure/user_features_pure.parquet"), ("movielens", "movielens-1m/ml-1m-rebuilt.zip")],
)
@pytest.mark.usefixtures("eager")
def test_cells_page_and_figure(study, shared_data, tmp_path, monkeypatch, dataset, file):
    path = shared_data(file)
    schema, parts = study.read(dataset, path.parent if dataset == "kuairand" else path)
    some = {}
    for name, (x, y) in parts.items():
        kept = np.linspace(0, len(x["scenario"]) - 1, 6000).astype(int)
        some[name] = {k: v[kept] for k, v in x.items()}, {k: v[kept] for k, v in y.items()}
    monkeypatch.setattr(study, "read", lambda dataset, path: (schema, some))
    models = ["mmoe+equal", "mmoe+fixed_weights", "mmoe+self_auxiliary"]
    steps = {"max_epochs": 1, "batch_size": 2000, "learning_rate": 0.01}
    cells = study.main(dataset, path, models=models, seeds=1, folder=tmp_path, **steps)
    for cell in cells:
        assert 0.5 < cell["test"]["mean_auc"] < 1
        assert {f"{task}_auc" for task in study.PLOTTED[dataset]} <= set(cell["test"])
    assert len({cell["test"]["mean_auc"] for cell in cells}) == 3
    monkeypatch.setattr(study, "run", lambda *arguments: pytest.fail("computed again"))
    again = study.main(dataset, path, models=models, seeds=1, folder=tmp_path, **steps)
    assert again == json.loads(json.dumps(cells))
    study.write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "\n| mmoe+fixed_weights | " in page
    for cell in cells:
        for task, scenarios in cell["by_scenario"].items():
            assert f"AUC of {task} by scenario" in page
            assert np.mean(list(scenarios.values())) == pytest.approx(cell["test"][f"{task}_scenarios"])
            assert f"| {next(iter(scenarios.values())):.4f} |" in page
    assert (tmp_path / f"{dataset}.png").stat().st_size > 5000


def test_every_balancer_is_compared_and_the_best_on_validation_rows_go_on(study, tmp_path):
    names = study.names_for("kuairand", tmp_path)
    assert {name.partition("+")[2] for name in names} == {*components.names("balancing"), *study.HEADS}
    with pytest.raises(ValueError, match="Compute the cells of KuaiRand first"):
        study.names_for("movielens", tmp_path)
    for name, validation, test in (
        ("a", 0.9, 0.1),
        ("b", 0.8, 0.2),
        ("c", 0.7, 0.3),
        ("d", 0.6, 0.99),
        ("equal", 1, 1),
    ):
        cell = {"model": f"mmoe+{name}", "validation_auc": validation, "test": {"mean_auc": test}}
        Cell(tmp_path / RESULTS, f"kuairand/mmoe+{name}-seed-0").write(cell)
    found = study.names_for("movielens", tmp_path)
    assert found[:4] == ["shared_bottom+equal", "shared_bottom+a", "shared_bottom+b", "shared_bottom+c"]
    assert len(found) == 12


def test_fixed_weights_are_one_over_the_entropy(study):
    tasks = [type("T", (), {"name": n, "column": n})() for n in ("a", "b")]
    y = {"a": np.asarray([0.0, 1.0, np.nan]), "b": np.asarray([0.0, 0.0, 0.0, 1.0])}
    weights = study.options("fixed_weights", y, tasks, {"batch_size": 2})["weights"]
    entropy = {"a": np.log(2), "b": -0.25 * np.log(0.25) - 0.75 * np.log(0.75)}
    assert weights["b"] / weights["a"] == pytest.approx(entropy["a"] / entropy["b"])
    assert np.mean(list(weights.values())) == pytest.approx(1)
    assert study.options("pcgrad", y, tasks, {"batch_size": 2}) == {}
    # As they were when the cells were computed.
    assert study.options("metabalance", y, tasks, {"batch_size": 2}) == {"strategy": "reduce"}
    assert study.options("fair_grad", y, tasks, {"batch_size": 2}) == {"weighs_own": True}


def test_epochs_are_counted_in_steps(study):
    y = {"a": np.zeros(5)}
    for balance, option in (("dynamic_weight_average", "period"), ("stch", "warmup"), ("bilevel", "every")):
        assert study.options(balance, y, [], {"batch_size": 2}) == {option: 3}
