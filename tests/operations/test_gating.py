import shutil

import numpy as np
import pytest

from tfmtr import training
from tfmtr.datasets.prepared import Prepared
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.operations.gating import _p_value, gate

RECIPE = training.Recipe(units=(16, 8), epochs=6, batch_size=256, patience=6)


@pytest.fixture(scope="module")
def live(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("gate") / "live"
    training.train(tiny, run, RECIPE, verbose=0)
    return run


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """Prepared data whose last two windows have validation rows: the tests' windows are cut off."""
    path = tmp_path_factory.mktemp("gate-data") / "data"
    shutil.copytree(tiny, path)
    prepared = Prepared(path)
    (folder,) = path.glob("examples/split=validation/sampling=random/window=0")
    shutil.copytree(folder, folder.with_name("window=-1"))
    report = {**prepared.report, "windows": [{"window": -1}, {"window": 0}]}
    training.write_json(path / "prepare.json", report)
    return path


def changed(live, folder, change):
    """A copy of a run whose newest weights went through `change`."""
    shutil.copytree(live, folder)
    file = training.newest_weights(folder)
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rng = np.random.default_rng(0)
    for name, value in arrays.items():
        if name.startswith("model/") and value.dtype == np.float32:
            arrays[name] = change(value, rng)
    np.savez(file, **arrays)
    return folder


def test_the_same_model_passes(live, data):
    found = gate(live, live, data)
    assert (found["is_open"], found["reasons"]) == (True, [])
    cell = found["parts"]["last"]["event"]["territory"][OVERALL]
    assert cell["change"] == 0.0
    assert cell["live"] == cell["candidate"] > 0.25  # prevalence is about .2


def test_a_worse_model_does_not_and_the_reason_says_where(live, data, tmp_path):
    worse = changed(live, tmp_path / "worse", lambda value, rng: rng.permutation(value.ravel()).reshape(value.shape))
    found = gate(live, worse, data)
    assert not found["is_open"]
    assert any("event is down by" in reason and "overall, in the last window" in reason for reason in found["reasons"])
    drop = -found["parts"]["last"]["event"]["territory"][OVERALL]["change"]
    assert f"{drop:.1%}" in " ".join(found["reasons"])
    assert gate(worse, live, data)["is_open"]  # better is never a reason
    assert gate(live, worse, data, max_drop=drop + 0.05, max_shift=1.0)["parts"] == found["parts"]


def test_answers_that_are_no_numbers_close_it(live, data, tmp_path):
    broken = changed(live, tmp_path / "broken", lambda value, rng: np.full_like(value, np.nan))
    found = gate(live, broken, data)
    assert not found["is_open"]
    assert any("answers are not finite" in reason for reason in found["reasons"])


def test_answers_that_are_no_numbers_in_one_part_are_a_reason_too(live, data, monkeypatch):
    from tfmtr.operations import gating as module

    original, calls = module.predict, []

    def broken_once(model, files, *arguments, **options):
        values, users, positives = original(model, files, *arguments, **options)
        calls.append(files)
        if len(calls) == 2:  # the new model, in the last window
            values["event score"] = np.full_like(values["event score"], np.nan)
        return values, users, positives

    monkeypatch.setattr(module, "predict", broken_once)
    found = gate(live, live, data)
    assert not found["is_open"]
    assert len(found["reasons"]) == 1
    assert "answers are not finite, in the last window" in found["reasons"][0]


def test_a_window_unlike_those_before_closes_it(live, data, monkeypatch):
    from tfmtr.operations import gating as module

    original = module.predict

    def without_meaning(model, files, *arguments, **options):
        values, users, positives = original(model, files, *arguments, **options)
        if all("window=0" in str(file) for file in files):
            values["event"] = np.random.default_rng(1).permutation(values["event"])
        return values, users, positives

    monkeypatch.setattr(module, "predict", without_meaning)
    found = gate(live, live, data, max_shift=0.1)
    assert any("unlike those before" in reason for reason in found["reasons"])


def test_a_territory_counts_beyond_chance_only():
    rng = np.random.default_rng(0)
    labels, users = rng.normal(size=400), np.repeat(np.arange(100), 4)
    far, near = labels + rng.normal(size=400), labels + rng.normal(size=400)
    assert _p_value(labels, [near, far], users, "regression", 500) > 0.05
    assert _p_value(labels, [labels + 0.1, far], users, "regression", 500) < 0.01


def test_one_territory_closes_it_where_all_together_are_well(live, data, monkeypatch):
    """Seven territories of equal size get better, one gets worse; a ninth has ten users."""
    from tfmtr.operations import gating as module

    rng = np.random.default_rng(0)
    territory = np.repeat([f"T{i}" for i in range(8)] + ["tiny"], [*[600] * 8, 40])
    users, labels = np.arange(len(territory)) // 4, (rng.random(len(territory)) < 0.2).astype("float32")
    noise = rng.random(len(territory))
    old = np.clip(0.3 * labels + 0.7 * noise, 0, 1)
    new = np.where(np.isin(territory, ["T3", "tiny"]), noise, np.clip(0.45 * labels + 0.55 * noise, 0, 1))
    answers = iter([old, new, old, new])

    def predict(*arguments):
        return {"event": labels, "event score": next(answers), "territory": territory}, users, None

    monkeypatch.setattr(module, "predict", predict)
    reasons = gate(live, live, data, num_samples=200)["reasons"]
    assert len(reasons) == 2  # in the last window, and before it
    assert all("event is down by" in reason and "in territory T3 (p 0." in reason for reason in reasons)


def test_limits_and_rows_are_checked(live, data, tiny):
    with pytest.raises(ValueError, match="`max_drop` must be positive"):
        gate(live, live, data, max_drop=0)
    found = gate(live, live, tiny)
    assert not found["is_open"]
    assert found["reasons"][0].startswith("no row of a validation user in the last window")
