import importlib

import numpy as np
import pytest


@pytest.fixture(scope="module")
def funnel():
    return importlib.import_module("studies.kuairand_funnel.study")


def test_the_funnel_on_the_log_that_is_here(funnel, shared_data, tmp_path, monkeypatch):
    path = shared_data("kuairand-pure/user_features_pure.parquet").parent
    schema, parts = funnel.read(path)
    assert [(task.name, task.after) for task in schema.tasks] == [
        ("click", None),
        ("long_view", "click"),
        ("like", None),
    ]
    labels = {name: np.concatenate([y[name] for _, y in parts.values()]) for name in ("click", "long_view")}
    assert int((labels["long_view"] > labels["click"]).sum()) == 250  # long views without a click
    heads = funnel.heads_for(schema)
    assert {"esmm", "naive_cvr", "escm2", "cross_distil"} <= set(heads)
    assert not {"esm2", "hm3", "esdf", "position_bias", "in_batch_softmax", "mt_fwfm"} & set(heads)

    some = {name: tuple({k: v[:6000] for k, v in half.items()} for half in part) for name, part in parts.items()}
    monkeypatch.setattr(funnel, "read", lambda path: (schema, some))
    (cell,) = funnel.main(path, names=["esmm"], seeds=1, folder=tmp_path, max_epochs=1)
    assert set(cell["test"]) == set(funnel.METRICS)
    assert 0.5 < cell["test"]["click_auc"] < 1
    funnel.write_report(tmp_path)
    assert "| esmm | " in (tmp_path / "README.md").read_text()
