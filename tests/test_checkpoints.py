import json
import math

import keras
import numpy as np
import pytest

from tfmtr.checkpoints import KeepState


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.optimizer.build(model.trainable_variables)
    return model


def keep_state(folder, model, epochs=9, **options):
    keep = KeepState(folder, model, **options)
    keep.set_model(model)
    keep.set_params({"epochs": epochs})
    model.stop_training = False
    return keep


def run(keep, model, rows):
    """Ends epochs with these figures, the kernel having the epoch's number, or NaN where the row says so."""
    for row in rows:
        epoch = keep.next_epoch
        model.variables[0].assign(np.full((2, 1), math.nan if row.pop("lost", False) else epoch))
        keep.on_epoch_end(epoch, row)
        if model.stop_training:
            break
    return keep


def values(*losses):
    return [{"loss": 1.0, "val_loss": loss} for loss in losses]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["loss", "val_loss"])
def test_an_epoch_that_is_not_finite_is_never_the_best(tmp_path, model, bad, name):
    rows = values(3.0, 2.0, 1.0, 2.5)
    rows[0][name] = rows[2][name] = bad
    keep = run(keep_state(tmp_path, model, patience=5), model, rows)
    assert keep.best_epoch == 1
    assert [problem["epoch"] for problem in keep.problems] == [0, 2]
    assert keep.problems[0]["figures"] == pytest.approx({name: bad}, nan_ok=True)
    assert np.load(keep.best)["model/0"][0, 0] == 1


def test_without_validation_the_last_finite_epoch_is_kept(tmp_path, model):
    rows = [{"loss": 3.0}, {"loss": 4.0}, {"loss": math.nan}]
    keep = run(keep_state(tmp_path, model, epochs=3), model, rows)
    assert (keep.best_epoch, keep.is_finished) == (1, True)
    assert sorted(path.name for path in tmp_path.glob("*.npz")) == ["epoch-1.npz", "epoch-2.npz"]


def test_a_weight_that_is_not_finite_ends_the_stage_at_once(tmp_path, model):
    rows = values(3.0, 2.0, 1.0, 0.5)
    rows[2]["lost"] = True
    keep = run(keep_state(tmp_path, model, patience=5, losses=lambda: {"click": 7.0}), model, rows)
    assert (keep.next_epoch, keep.best_epoch, keep.is_finished) == (3, 1, True)
    (problem,) = keep.problems
    assert problem["variable"] == model.variables[0].path
    assert (problem["count"], problem["losses"]) == ("1 of 2", {"click": 7.0})


def test_no_finite_epoch_is_no_best_epoch(tmp_path, model):
    keep = run(keep_state(tmp_path, model, patience=2), model, values(*[math.nan] * 6))
    assert (keep.best_epoch, keep.next_epoch) == (None, 3)  # early stopping counts from the first epoch


def test_the_state_with_its_nan_is_read_again(tmp_path, model):
    run(keep_state(tmp_path, model, patience=9), model, values(math.nan, 2.0, 3.0))
    model.variables[0].assign(np.full((2, 1), 7.0))
    again = keep_state(tmp_path, model, patience=9)
    assert model.variables[0][0, 0] == 2  # of the last epoch
    assert (again.next_epoch, again.best_epoch, len(again.problems)) == (3, 1, 1)
    run(again, model, values(math.inf, 1.0, 1.5))
    assert (again.best_epoch, [problem["epoch"] for problem in again.problems]) == (4, [0, 3])


@pytest.mark.parametrize("patience", [0, 1, 2])
def test_early_stopping_is_as_keras_s(tmp_path, patience):
    losses = [5.0, 4.0, 4.0, 3.0, 3.5, 3.2, 2.0, 9.0, 9.0, 9.0]

    class Figures(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_loss"] = losses[epoch]

    x, y = np.zeros((2, 2)), np.zeros((2, 1))
    lengths = []
    for make in (
        lambda model: keras.callbacks.EarlyStopping("val_loss", patience=patience),
        lambda model: KeepState(tmp_path / "state", model, patience=patience),
    ):
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        history = model.fit(x, y, epochs=len(losses), verbose=0, callbacks=[Figures(), make(model)])
        lengths.append(len(history.epoch))
    assert lengths[0] == lengths[1]


def test_a_state_of_before_is_read(tmp_path, model):
    keep = run(keep_state(tmp_path, model, patience=9), model, values(2.0, 3.0))
    state = json.loads((tmp_path / "state.json").read_text())
    del state["problems"]  # what earlier versions did not note
    (tmp_path / "state.json").write_text(json.dumps(state))
    assert keep_state(tmp_path, model, patience=9).problems == []
    assert keep.best_epoch == 0
