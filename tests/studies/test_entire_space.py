import importlib
import json

import numpy as np
import pytest

from studies.cells import RESULTS, read_cells

SMALL = {"rows": 6_000, "max_epochs": 2, "batch_size": 500}


@pytest.fixture(scope="module")
def study():
    return importlib.import_module("studies.entire_space.study")


def test_cells_are_written_and_not_computed_again(study, tmp_path, monkeypatch, capsys):
    heads = ["naive_cvr", "esm2", "parallel"]
    cells = study.main(names=heads, seeds=1, folder=tmp_path, **SMALL)
    assert list(read_cells(tmp_path / RESULTS)) == [f"hidden-0/{head}-seed-0" for head in sorted(heads)]
    for cell in cells:
        assert 0.5 < cell["test"]["auc"] < 1
        assert 0.5 < cell["test"]["ctcvr_auc"] < 1
        assert 0 < cell["test"]["calibration"] < 0.3
    monkeypatch.setattr(study, "run", None)
    assert study.main(names=heads, seeds=1, folder=tmp_path, **SMALL) == json.loads(json.dumps(cells))
    study.write_report(tmp_path)
    page = (tmp_path / "README.md").read_text()
    assert "## 0% of the confounding intent hidden" in page
    assert page.count("\n| naive_cvr | ") == page.count("\n| esm2 | ") == 1


@pytest.mark.parametrize(("setting", "head"), [({"delay": 2.0}, "esdf"), ({"position": 2.0}, "position_bias")])
def test_logs_with_delays_and_positions(study, tmp_path, setting, head):
    (cell,) = study.main(names=[head], seeds=1, folder=tmp_path, **setting, **SMALL)
    ((name, value),) = setting.items()
    assert list(read_cells(tmp_path / RESULTS)) == [f"{name}-{value:g}/{head}-seed-0"]
    assert np.isfinite(list(cell["test"].values())).all()
    assert cell["recipe"][name] == value
    study.write_report(tmp_path)
    assert f"\n| {head} | " in (tmp_path / "README.md").read_text()


def test_heads_without_a_conditional_output_give_the_ratio():
    class Model:
        def predict(self, x, **options):
            return {"click": np.asarray([[0.5], [0.1]]), "purchase": np.asarray([[0.1], [0.2]])}

    p = importlib.import_module("studies.heads").predict(Model(), None, "purchase", "click")
    np.testing.assert_allclose(p["purchase|click"], [0.2, 1.0])  # never above 1
    np.testing.assert_allclose(p["purchase"], [0.1, 0.2])


def test_the_table_compares_each_head_with_naive_cvr():
    head_study, metrics = importlib.import_module("studies.heads"), {"auc": "AUC", "log_loss": "log loss"}

    def cell(head, seed, loss):
        test = {"auc": 0.5, "log_loss": loss + 0.001 * seed}
        return {"head": head, "seed": seed, "recipe": {}, "date": "", "versions": {}, "test": test}

    cells = [cell(head, seed, loss) for head, loss in (("naive_cvr", 0.4), ("esmm", 0.3)) for seed in range(3)]
    esmm, naive = head_study.table(cells, metrics).splitlines()[-2:]
    assert esmm == "| esmm | 0.5000 ± 0.0000 | 0.3010 ± 0.0010 | 0.000 | 3 |"
    assert naive.endswith("|  | 3 |")
