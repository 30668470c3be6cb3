import contextlib
import json
import re
import shutil
import subprocess
import sys
import time

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest

from tfmtr import checkpoints, components, inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.diagnosis import losses_of
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.run import Run, recipe_of
from tfmtr.schema import Feature, Schema, Task

pytestmark = pytest.mark.usefixtures("with_grappler")  # losses of several processes are compared
SMALL = {"units": (16, 8), "epochs": 4, "patience": 1, "batch_size": 250, "learning_rate": 0.01, "listwise": False}
BALANCED = SMALL | {"units": (8,), "epochs": 2, "balance": "grad_norm", "optimizer": "sparse_adam", "share": "mmoe"}
SCRIPT = """
import sys, time
from pathlib import Path
import keras
from tfmtr import training

class Slow(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        time.sleep({delay})
        Path(sys.argv[2]).with_suffix(".steps").open("a").write("x")

fit = keras.Model.fit
keras.Model.fit = lambda self, *a, callbacks, **k: fit(self, *a, callbacks=[Slow(), *callbacks], **k)
training.train(sys.argv[1], sys.argv[2], training.Recipe(**{recipe}))
"""


def start(data, run, delay, recipe=SMALL):
    script = SCRIPT.format(delay=delay, recipe=recipe)
    with run.with_suffix(".out").open("wb") as stdout:
        return subprocess.Popen([sys.executable, "-c", script, str(data), str(run)], stdout=stdout)


def losses(run):
    stages = Run(run).document["stages"]
    return [[(epoch["loss"], epoch.get("val_loss")) for epoch in stage["history"]] for stage in stages.values()]


@pytest.fixture(scope="module")
def unbroken(tiny, tmp_path_factory):
    """A run whose output goes into a file."""
    run = tmp_path_factory.mktemp("runs") / "unbroken"
    keras.utils.clear_session()  # names of variables, too, are those of a process of its own
    with run.with_suffix(".out").open("w") as file, contextlib.redirect_stdout(file):
        training.train(tiny, run, training.Recipe(**SMALL))
    return run


def kill_and_resume(data, run, epochs_before, recipe):
    """Kills a run with -9 when some epochs are kept and the next one has begun, and finishes it in this process."""
    process = start(data, run, 0.05, recipe)
    state = run / "checkpoint" / "window-1" / "state.json"
    deadline = time.time() + 120
    while time.time() < deadline:
        kept = json.loads(state.read_text())["history"] if state.exists() else []
        steps = run.with_suffix(".steps").stat().st_size if run.with_suffix(".steps").exists() else 0
        if len(kept) >= epochs_before and steps > 18 * len(kept) + 3:
            break
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -9
    assert not (run / "weights").exists()  # really interrupted within the first stage
    training.train(data, run, training.Recipe(**recipe), verbose=0)


def check_same(run, unbroken):
    """Loss curves and all variables, the balancer's among them, to 1e-5."""
    assert [len(stage) for stage in losses(run)] == [len(stage) for stage in losses(unbroken)]
    for resumed, whole in zip(losses(run), losses(unbroken), strict=True):
        np.testing.assert_allclose(np.asarray(resumed, float), np.asarray(whole, float), atol=1e-5)
    with (
        np.load(run / "weights/window-3.npz") as resumed,
        np.load(unbroken / "weights/window-3.npz") as whole,
    ):
        for name in whole.files:
            if not name.endswith("_paths"):
                np.testing.assert_allclose(resumed[name], whole[name], atol=1e-5, err_msg=name)


def test_a_killed_run_ends_with_the_same_loss_curve(tiny, unbroken, tmp_path):
    kill_and_resume(tiny, tmp_path / "run", 2, SMALL)
    check_same(tmp_path / "run", unbroken)


def stop_after_an_epoch(data, run, recipe):
    """Trains until the first epoch is kept."""
    on_epoch_end = checkpoints.KeepState.on_epoch_end

    def stopped(self, epoch, logs=None):
        on_epoch_end(self, epoch, logs)
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints.KeepState, "on_epoch_end", stopped)
        with pytest.raises(KeyboardInterrupt):
            training.train(data, run, recipe, verbose=0)


def test_a_stopped_run_goes_on_with_the_balancer_s_state(tiny_two, tmp_path):
    recipe = training.Recipe(**BALANCED)
    training.train(tiny_two, tmp_path / "unbroken", recipe, verbose=0)
    stop_after_an_epoch(tiny_two, tmp_path / "run", recipe)
    training.train(tiny_two, tmp_path / "run", recipe, verbose=0)
    check_same(tmp_path / "run", tmp_path / "unbroken")
    model = Run(tmp_path / "run").load()
    weights = np.asarray(model.balance.state["weights"])
    assert abs(weights[0] - weights[1]) > 0.01  # it has learnt something that could be lost


def test_every_test_window_has_its_own_weights_and_the_best_epoch_is_kept(tiny, unbroken):
    data = Dataset(tiny)
    validation = inputs.batches(data, data.examples("validation"), batch_size=250)
    first = Run(unbroken).document["stages"]["1"]["history"]
    model = Run(unbroken).load(window=1)
    np.testing.assert_allclose(model.evaluate(validation, verbose=0), min(e["val_loss"] for e in first), rtol=1e-5)
    assert [len(stage) for stage in losses(unbroken)][1:] == [1, 1]  # one epoch a slice
    weights = [Run(unbroken).load(window=w).trainable_variables[0] for w in (1, 2, 3)]
    assert not np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[1], weights[2])


@pytest.mark.parametrize(("upsample", "sets"), [(True, {"random", "active"}), (False, {"random"})])
def test_what_each_stage_is_trained_on(tiny, tmp_path, monkeypatch, eager, upsample, sets):
    """The training windows first, then the slice of the day before; the active users for upsampling only."""
    read, seeds, batches = [], [], inputs.batches

    def recorded(prepared, files, **options):
        read.append([dict(re.findall(r"(\w+)=([\w-]+)", str(file))) for file in files])
        seeds.append(options.get("seed"))
        return batches(prepared, files, **options)

    monkeypatch.setattr(inputs, "batches", recorded)
    recipe = training.Recipe(**{**SMALL, "epochs": 1, "batch_size": 4096, "upsample": upsample, "deterministic": False})
    training.train(tiny, tmp_path / "run", recipe, verbose=0)
    validation, *stages = read
    assert {part["split"] for part in validation} == {"validation"}
    assert [{part["split"] for part in stage} for stage in stages] == [{"train"}] * 3
    assert [{part["sampling"] for part in stage} for stage in stages] == [sets] * 3
    first, *slices = [{int(part["window"]) for part in stage} for stage in stages]
    assert max(first) == 0
    assert slices == [{1}, {2}]
    assert seeds == [None, [0, 1], [0, 2], [0, 3]]  # each window has an order of its own


def test_output_in_a_file_is_plain_lines(unbroken):
    text = unbroken.with_suffix(".out").read_text()
    assert sum("loss: " in line for line in text.splitlines()) == sum(map(len, losses(unbroken)))  # a line an epoch
    assert not re.findall(r"[^\n\t\x20-\x7e]", text)


@pytest.mark.parametrize(("is_terminal", "lines"), [(True, 1), (False, 2)])
def test_a_terminal_has_a_progress_bar(monkeypatch, is_terminal, lines):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal, raising=False)
    assert training.callbacks.lines_of("auto") == lines
    assert training.callbacks.lines_of(0) == 0


def test_run_document_says_what_ran(tiny, unbroken):
    run = Run(unbroken).document
    assert run["fingerprint"] == "ab" * 32
    assert recipe_of(run) == training.Recipe(**SMALL)
    assert run["versions"]["tensorflow"]
    assert run["stages"]["1"]["seconds"] > 0


def test_a_finished_run_is_not_trained_again(tiny, unbroken):
    before = (unbroken / "weights/window-3.npz").stat().st_mtime_ns
    training.train(tiny, unbroken, training.Recipe(**SMALL), verbose=0)
    assert (unbroken / "weights/window-3.npz").stat().st_mtime_ns == before


def test_a_run_killed_between_windows_goes_on_with_the_next(tiny, unbroken, tmp_path):
    run = shutil.copytree(unbroken, tmp_path / "run")
    for window in (2, 3):
        (run / f"weights/window-{window}.npz").unlink()
    keras.utils.clear_session()  # names of variables, too, are those of a process of its own
    training.train(tiny, run, training.Recipe(**SMALL), verbose=0)
    assert losses(run) == losses(unbroken)
    with np.load(run / "weights/window-3.npz") as resumed, np.load(unbroken / "weights/window-3.npz") as whole:
        assert all(np.array_equal(resumed[name], whole[name]) for name in whole.files)


@pytest.mark.parametrize(
    "left",
    ["run.tmp", "weights/window-3.tmp", "checkpoint/window-3/state.json", "checkpoint/window-3/epoch-0.tmp"],
)
def test_what_a_kill_left_behind_is_removed_by_the_next_run(tiny, unbroken, tmp_path, left):
    run = shutil.copytree(unbroken, tmp_path / "run")
    (run / left).parent.mkdir(parents=True, exist_ok=True)
    (run / left).write_text("half")
    training.train(tiny, run, training.Recipe(**SMALL), verbose=0)
    assert sorted(path.name for path in run.iterdir()) == ["logs", "run.json", "schema.json", "weights"]
    assert sorted(path.name for path in (run / "weights").iterdir()) == [f"window-{i}.npz" for i in (1, 2, 3)]


def test_a_state_in_progress_is_not_tidied_away(tmp_path):
    state = tmp_path / "checkpoint" / "window-2" / "state.json"
    state.parent.mkdir(parents=True)
    state.write_text("{}")
    (state.parent / "epoch-1.tmp").write_text("half")
    training.run_document.tidy(tmp_path)
    assert [path.name for path in state.parent.iterdir()] == ["state.json"]


def test_another_recipe_needs_another_directory(tiny, unbroken):
    with pytest.raises(ValueError, match=r"`out` must be new.*whose recipe differ"):
        training.train(tiny, unbroken, training.Recipe(**{**SMALL, "seed": 1}), verbose=0)


@pytest.mark.parametrize("change", [{"units": (12, 8)}, {"share": "none"}, {"units": (16, 8, 8)}])
def test_weights_of_another_model_are_refused(tiny, unbroken, change):
    model = training.Recipe(**{**SMALL, **change}).build(Dataset(tiny).schema)
    with pytest.raises(ValueError, match="written by another recipe or schema"):
        training.restore(model, unbroken / "weights/window-1.npz")


def test_a_window_that_was_not_trained_for_is_named(unbroken, tmp_path):
    with pytest.raises(ValueError, match=r"`window` must be one that .* there are \[1, 2, 3\]"):
        Run(unbroken).load(window=9)
    with pytest.raises(ValueError, match="must be a directory made by `tfmtr train`"):
        Run(tmp_path).load()


def test_controls_change_the_groups_only(tiny):
    schema = Dataset(tiny).schema
    one = training.Recipe(groups="one").adapt(schema)
    random = training.Recipe(groups="random", seed=3).adapt(schema)
    assert one.scenario.num_groups == 1
    assert set(random.scenario.groups) == set(schema.scenario.groups)
    assert random.scenario.num_groups == schema.scenario.num_groups
    with pytest.raises(ValueError, match="`groups` must be one of"):
        training.Recipe(groups="two")
    own = {territory: f"own {i % 3}" for i, (territory,) in enumerate(schema.scenario.groups)}
    recipe = training.Recipe(groups=own)
    assert {territory: group for (territory,), group in recipe.adapt(schema).scenario.groups.items()} == own
    assert training.Recipe(**recipe.document()) == recipe
    assert {recipe: "found"}[training.Recipe(groups=dict(own))] == "found"  # a report tells models apart by recipe
    assert len({recipe, training.Recipe(groups={**own, "elsewhere": "own 0"})}) == 2
    missing = own.popitem()[0]
    with pytest.raises(ValueError, match=rf"must have every territory of the data\. Received: none for .*{missing}"):
        training.Recipe(groups=own).adapt(schema)


def test_a_multi_task_system_has_a_tower_for_each_scenario(tiny):
    schema = Dataset(tiny).schema
    recipe = training.Recipe(**{**SMALL, "share": "shared_bottom"})
    sizes = [training.dataclasses.replace(recipe, per_pair=on).build(schema).count_params() for on in (False, True)]
    assert sizes[1] > sizes[0]
    with pytest.raises(ValueError, match="must be a system that needs x alone"):
        training.Recipe(**{**SMALL, "share": "pepnet", "per_pair": True}).build(schema)


def test_the_sum_of_the_groups_means_is_another_loss(tiny):
    data = Dataset(tiny)
    (batch,) = inputs.batches(data, data.examples("train")[:1], batch_size=4096, schema=data.schema).take(1)
    losses = []
    for normalizer in ("rows", "groups"):
        model = training.Recipe(**{**SMALL, "unknown_rate": 0.0, "normalizer": normalizer}).build(data.schema)
        losses.append(float(model.evaluate(*batch[:2], verbose=0, return_dict=True)["loss"]))
    assert losses[1] > 1.5 * losses[0]  # a sum over groups
    with pytest.raises(ValueError, match=r"is for the head `parallel`\. Received: head='esmm'"):
        training.Recipe(normalizer="groups", head="esmm")


def test_ops_are_deterministic_in_training_only():
    from tensorflow.python.framework import config

    with training.op_determinism(True):
        assert config.is_op_determinism_enabled()
        with training.op_determinism(True):
            pass
        assert config.is_op_determinism_enabled()  # whoever switched it on switches it off
    assert not config.is_op_determinism_enabled()
    with training.op_determinism(False):
        assert not config.is_op_determinism_enabled()


def test_a_head_that_needs_the_titles_id_trains_and_is_evaluated(tiny, tmp_path, eager):
    recipe = training.Recipe(**(SMALL | {"epochs": 1, "batch_size": 5000}), head="in_batch_softmax", share="none")
    training.train(tiny, tmp_path / "run", recipe, verbose=0)
    assert "title" in {feature.name for feature in Schema.load(tmp_path / "run").by_role("training")}
    (history, *_) = losses(tmp_path / "run")
    assert np.isfinite(history).all()
    result = evaluate(tmp_path / "run", tiny, baselines=()).document
    assert 0 < result["recall"]["1"] < 1


def test_a_recipe_is_stored_as_before_where_it_says_nothing_new():
    assert not {"balance", "optimizer"} & set(training.Recipe().document())
    assert training.Recipe(balance="mgda").document()["balance"] == "mgda"
    assert recipe_of({"recipe": training.Recipe(optimizer="sparse_adam").document()}).optimizer == "sparse_adam"


@pytest.mark.parametrize("name", components.names("optimizers"))
def test_every_optimizer_has_its_class(name):
    assert issubclass(training.optimizer_of(name), keras.optimizers.Optimizer)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"balance": "pcgrad"}, r"balances two or more losses; leave out `balance`.* Received: \['event'\]"),
        ({"head": "esmm"}, "`head=esmm`"),
        ({"share": "pepnet", "per_pair": True}, "must be a system that needs x alone"),
        ({"share": lambda x: x}, r"`share` must be a name, or .* to be stored .* Received: share=<function"),
    ],
)
def test_what_does_not_fit_leaves_the_directory_as_it_was(tiny, tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        training.train(tiny, tmp_path / "run", training.Recipe(**{**SMALL, **changes}), verbose=0)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("examples", "at least one training row .* Received: 0 files without a row"),
        ("examples/split=train/sampling=random/window=0", "at least one training row"),
        ("examples/split=validation", "at least one validation row"),
        ("windows", "`data` must have a test window"),
        ("title_row", r"Examples must have .* without \['title_vector'\]"),
        ("event", r"Examples must have .* without \['event'\]"),
    ],
)
def test_data_that_cannot_be_trained_on_are_refused_before_anything_is_written(tiny, tmp_path, gone, message):
    data = shutil.copytree(tiny, tmp_path / "data")
    if gone == "windows":
        (data / "prepare.json").write_text(json.dumps({"fingerprint": "", "windows": [{"window": 0}]}))
    elif gone in ("title_row", "event"):
        for file in data.glob("examples/split=train/*/*/*.parquet"):
            pq.write_table(pq.read_table(file, partitioning=None).drop_columns(gone), file)
    else:
        shutil.rmtree(data / gone)
    recipe = training.Recipe(**SMALL, upsample=False)
    with pytest.raises(ValueError, match=message):
        training.train(data, tmp_path / "run", recipe, verbose=0)
    assert not (tmp_path / "run").exists()


def test_files_without_a_row_are_no_training_rows(tiny, tmp_path):
    data = shutil.copytree(tiny, tmp_path / "data")
    (file,) = data.glob("examples/split=validation/*/*/*.parquet")
    pq.write_table(pq.read_table(file, partitioning=None).slice(0, 0), file)
    with pytest.raises(ValueError, match=r"validation row .* Received: 1 files without a row"):
        training.train(data, tmp_path / "run", training.Recipe(**SMALL), verbose=0)


@pytest.mark.parametrize("there", ["weights", "checkpoint"])
def test_weights_without_a_document_are_nobody_s(tiny, unbroken, tmp_path, there):
    run = shutil.copytree(unbroken, tmp_path / "run")
    (run / "run.json").unlink()
    if there == "checkpoint":
        (run / "weights").rename(run / "checkpoint")
    with pytest.raises(ValueError, match=r"`out` must be new.* but no run\.json that says whose"):
        training.train(tiny, run, training.Recipe(**SMALL), verbose=0)


DIVERGES = {**SMALL, "learning_rate": 1e20, "epochs": 2, "batch_size": 1500}


def test_a_run_that_fails_says_where_to_look_and_leaves_the_directory_to_any_recipe(tiny, tmp_path, eager):
    run = tmp_path / "run"
    message = (
        r"for window 1 has none \(epoch 1: loss nan, val_loss nan, losses of the first rows event nan, \d+ of 32 "
        r"variables, the first one .*`learning_rate`.*Received: learning_rate=1e\+20, batch_size=1500"
    )
    for _ in range(2):  # the same recipe may try again
        with pytest.raises(ValueError, match=message):
            training.train(tiny, run, training.Recipe(**DIVERGES), verbose=0)
        assert sorted(path.name for path in run.iterdir()) == ["logs", "run.json", "schema.json"]
        assert Run(run).document["failed"]["window"] == 1
    (run / "evaluation.json").write_text("{}")
    (run / "weights").mkdir()
    (run / "weights" / "window-1.npz").write_text("of the run that failed")
    training.train(tiny, run, training.Recipe(**DIVERGES | {"learning_rate": 0.01, "listwise": True}), verbose=0)
    assert sorted(path.name for path in run.iterdir()) == ["listwise.npz", "logs", "run.json", "schema.json", "weights"]
    assert "failed" not in Run(run).document


def poisoned(unbroken, tmp_path):
    """A run whose first window's model has a weight that is not a number, and no further windows."""
    run = shutil.copytree(unbroken, tmp_path / "poisoned")
    with np.load(run / "weights" / "window-1.npz") as archive:
        arrays = dict(archive)
    arrays["model/3"] = np.full_like(arrays["model/3"], np.nan)
    np.savez(run / "weights" / "window-1.npz", **arrays)
    for window in (2, 3):
        (run / f"weights/window-{window}.npz").unlink()
    return run


def test_later_windows_and_days_fail_the_same_way(tiny, unbroken, tmp_path):
    run, data = poisoned(unbroken, tmp_path), Dataset(tiny)
    with pytest.raises(ValueError, match="for window 2 has none"):
        training.train(tiny, run, training.Recipe(**SMALL), verbose=0)
    assert (run / "weights/window-1.npz").exists()
    files = data.examples("train", windows=[2])
    with pytest.raises(ValueError, match="must be a finished run for its newest model"):
        training.go_on(run, data, files, tmp_path / "day", verbose=0)
    document = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps({**document, "windows": [1]}))  # as one that was trained for no other
    for _ in range(2):
        with pytest.raises(ValueError, match="for window 4 has none"):
            training.go_on(run, tiny, files, tmp_path / "day", verbose=0)
    assert not (tmp_path / "day" / "weights").exists()
    with pytest.raises(ValueError, match=r"`epochs` must be an integer, 1 or more. Received: epochs=0"):
        training.go_on(run, tiny, files, tmp_path / "other", epochs=0)
    with pytest.raises(ValueError, match="at least one training row"):
        training.go_on(run, tiny, [], tmp_path / "other")
    assert not (tmp_path / "other").exists()


def test_the_epochs_that_are_not_finite_are_named_in_one_line(tiny, tmp_path, capsys, monkeypatch, eager):
    found = []

    def not_finite(variables):
        """As if the second epoch had left a weight that is not finite."""
        found.append(variables)
        return ["w"] if len(found) == 2 else []

    monkeypatch.setattr(checkpoints, "not_finite", not_finite)
    training.train(tiny, tmp_path / "run", training.Recipe(**SMALL | {"batch_size": 1500}), verbose=0)
    run = Run(tmp_path / "run").document
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"warning: window 1: not finite in epochs 2 \(epoch 2: .* kept is epoch 1, the best", line)
    assert run["warnings"] == [line.removeprefix("warning: ")]
    assert len(run["stages"]["1"]["history"]) == 2


def test_losses_of_very_different_size_are_said_before_the_first_step(tiny_two, tmp_path, capsys, eager):
    data = shutil.copytree(tiny_two, tmp_path / "data")
    for file in data.glob("examples/*/*/*/*.parquet"):
        table = pq.read_table(file, partitioning=None)
        like = 600 * table["like"].to_numpy()
        pq.write_table(table.set_column(table.column_names.index("like"), "like", [like]), file)
    schema = Schema.load(data)
    schema.replace(tasks=[schema.tasks[0], Task("like", kind="regression", mean=60.0)]).save(data)
    recipe = training.Recipe(**{**SMALL, "epochs": 1, "batch_size": 4096, "deterministic": False})
    training.train(data, tmp_path / "run", recipe, verbose=0)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert re.search(r"that of like is [\d,]+ times that of event.*scale the label of like.*`Task.weight`", line)
    assert Run(tmp_path / "run").document["warnings"] == [line.removeprefix("warning: ")]
    schema = Dataset(data).schema
    for own, changes in ((schema, {"balance": "uncertainty"}), (weighted(schema), {})):
        chosen = training.dataclasses.replace(recipe, **changes)
        assert training.windows.starting_warnings(chosen.build(own), Dataset(data), own, chosen) == []


def weighted(schema):
    return schema.replace(tasks=[schema.tasks[0], training.dataclasses.replace(schema.tasks[1], weight=1e-4)])


def test_looking_at_the_losses_changes_nothing(tiny_two):
    data = Dataset(tiny_two)
    recipe = training.Recipe(**SMALL, head="in_batch_softmax")  # which learns titles' frequencies in training
    schema = recipe.adapt(data.schema)
    model = recipe.build(schema)
    before = [np.array(variable) for variable in model.variables]
    assert set(losses_of(model, data, data.examples("train"), schema, batch_size=250)) == {"event", "like"}
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value, err_msg=variable.path)


def test_an_unknown_optimizer_is_refused():
    with pytest.raises(ValueError, match=r"`optimizer` must be one of .* Did you mean 'sparse_adam'\?"):
        training.Recipe(optimizer="sparse_adm")


def test_a_budget_of_updates_ends_within_an_epoch(tiny, tmp_path, eager):
    recipe = training.Recipe(units=(8,), batch_size=1500, updates=4, patience_updates=5, listwise=False)
    model = training.train(tiny, tmp_path / "run", recipe, verbose=0).model
    steps = -(-inputs.num_rows(Dataset(tiny).examples("train", sampling=("random", "active"))) // 1500)
    assert 4 / steps > 1  # so that the second epoch is cut
    history = Run(tmp_path / "run").document["stages"]["1"]["history"]
    assert len(history) == -(-4 // steps)
    # Each further window is one whole epoch of its slice.
    files = [Dataset(tiny).examples("train", windows=[w], sampling=("random", "active")) for w in (1, 2)]
    assert int(model.optimizer.iterations) == 4 + sum(-(-inputs.num_rows(of) // 1500) for of in files)


def test_a_ranking_model_trains_resumes_and_is_evaluated(tiny_two, tmp_path, eager):
    recipe = training.Recipe(
        form="ranking", encode="cross", share=("mmoe", {"num_experts": 2}), per_pair=True, epochs=1, batch_size=5000,
        balance="pcgrad",
    )  # fmt: skip
    training.train(tiny_two, tmp_path / "run", recipe, verbose=0)
    assert Run(tmp_path / "run").recipe == recipe
    model = Run(tmp_path / "run").load()
    assert model.name == "ranking"
    document = evaluate(tmp_path / "run", tiny_two).document
    assert document["tasks"]["event"]["territory"]["1"]["overall"]["pr_auc"] > 0.1
    assert document["lists"] == {}
    with pytest.raises(ValueError, match=r"must be of form=two_tower for this step: .* Received: form=ranking"):
        Run(tmp_path / "run").load(form="two_tower")
    with pytest.raises(ValueError, match="whose recipe differ"):
        training.train(tiny_two, tmp_path / "run", training.Recipe(form="ranking"), verbose=0)


def test_a_run_with_averaged_weights_judges_keeps_and_resumes_them(tiny, tmp_path, eager):
    average = ("adam", {"use_ema": True, "ema_momentum": 0.9})
    recipe = training.Recipe(units=(8,), epochs=3, patience=3, batch_size=1500, learning_rate=0.3, optimizer=average)
    recipe = training.dataclasses.replace(recipe, listwise=False)
    runs = {name: tmp_path / name for name in ("whole", "stopped")}
    whole = training.train(tiny, runs["whole"], recipe, verbose=0).model
    stop_after_an_epoch(tiny, runs["stopped"], recipe)
    resumed = training.train(tiny, runs["stopped"], recipe, verbose=0).model
    np.testing.assert_allclose(*(np.asarray(losses(run)[0], float) for run in runs.values()), rtol=1e-5)
    for one, other in zip(whole.variables, resumed.variables, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    first, data = Run(runs["stopped"]).load(window=1), Dataset(tiny)
    validation = inputs.batches(data, data.examples("validation"), batch_size=1500)
    judged = [loss for _, loss in losses(runs["stopped"])[0]]
    assert first.evaluate(validation, verbose=0) == pytest.approx(min(judged), rel=1e-5)
    assert judged.index(min(judged)) < 2  # not the last epoch, at whose end Keras makes both the same
    for average, kept in zip(first.optimizer._model_variables_moving_average, first.trainable_variables, strict=True):
        np.testing.assert_array_equal(average, kept)  # where the next window begins


def test_rows_count_by_a_column(tiny, tmp_path, eager):
    """With weights of 0 for all positives there is nothing to see but negatives; with 1 nothing changes."""
    shutil.copytree(tiny, tmp_path / "data")
    for file in (tmp_path / "data").glob("examples/**/*.parquet"):
        table = pq.read_table(file, partitioning=None).to_pandas()
        ones = table.event.where(table.event == 1).astype("float32")  # null for negatives
        table.assign(ones=ones, zeros=0 * ones).to_parquet(file, index=False)
    schema = Schema.load(tiny)
    own = [Feature(name, "training", "number", mean=0.5, std=2.0) for name in ("ones", "zeros")]
    schema.replace(features=[*schema.features, *own]).save(tmp_path / "data")
    options = {"units": (8,), "epochs": 2, "batch_size": 1500, "learning_rate": 0.15, "listwise": False}
    found = {}
    for name in (None, "ones", "zeros"):
        training.train(tmp_path / "data", tmp_path / str(name), training.Recipe(**options, row_weights=name), verbose=0)
        found[name] = np.asarray(losses(tmp_path / str(name))[0], float)[:, 0]
    np.testing.assert_allclose(found["ones"], found[None], rtol=1e-6)
    assert found["zeros"][-1] < 0.2 * found[None][-1]


def test_a_negative_weight_is_refused(tiny):
    table = pq.read_table(Dataset(tiny).examples("validation")[0], partitioning=None)
    with pytest.raises(
        ValueError, match=r"`row_weights` must name a number that is finite and never negative\. Received: 'age'"
    ):
        inputs.row_weights(table.set_column(3, "age", [np.full(len(table), -1.0)]), "age")


def test_precision_is_the_recipe_s_where_it_says_one(tiny, tmp_path, eager):
    recipe = training.Recipe(units=(8,), epochs=1, batch_size=5000, precision="mixed_bfloat16", listwise=False)
    model = training.train(tiny, tmp_path / "run", recipe, verbose=0).model
    assert model.get_layer("user_dense_0").compute_dtype == "bfloat16"
    assert keras.config.dtype_policy().name == "float32"
    assert Run(tmp_path / "run").document["dtype_policy"] == "mixed_bfloat16"
    assert Run(tmp_path / "run").load().get_layer("user_dense_0").compute_dtype == "bfloat16"
