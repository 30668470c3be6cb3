import json
import shutil
from pathlib import Path

import pytest
from helpers import report_runs

from tfmtr.reporting.runs import names_of, read_models


def copy(run, folder, **changes):
    """A copy of a run with changes in its evaluation."""
    shutil.copytree(run, folder)
    document = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps({**document, **changes}))
    return folder


def test_seeds_of_one_recipe_are_one_model_and_the_last_run_s_model_is_the_last(runs):
    baseline, upsampled, first, second = runs
    models = read_models([first, baseline, second, upsampled])
    assert [model.name for model in models] == ["baseline", "multi-task", "upsampled"]
    assert [run.path for run in models[1].runs] == [first, second]
    assert [model.name for model in read_models([baseline, second, first])] == ["baseline", "multi-task"]


def test_unmerged_runs_stay_apart_and_are_named_by_their_directories(runs):
    for own in (runs[2:], [runs[0], runs[2]]):
        models = read_models(own, is_merged=False)
        assert [model.name for model in models] == [run.name for run in own]


def test_names_are_the_last_parts_that_differ():
    assert names_of([Path("/r/a/seed-1"), Path("/r/b/seed_2")]) == ["a", "b"]
    assert names_of([Path("/r/a/seed-1"), Path("/r/a/seed-2")]) == ["seed-1", "seed-2"]
    assert names_of([Path("/r/a/x-seed0"), Path("/r/a/x")]) == ["x-seed0", "x"]
    assert names_of([Path("/r/baseline_seed_12")]) == ["baseline"]


def test_the_same_seed_twice_is_refused(runs, prepared, tmp_path):
    again = report_runs.write_run(tmp_path / "again", prepared, "multi-task", 1)
    with pytest.raises(
        ValueError, match=r"must differ in their seed.* Received: .*again and .*-seed-1, both with seed 1"
    ):
        read_models([*runs, again])
    with pytest.raises(ValueError, match="must differ in their seed"):
        read_models([runs[0], runs[0]], is_merged=False)


def test_a_run_that_was_not_evaluated_names_the_command(runs, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(runs[0], run)
    (run / "scores.parquet").unlink()
    with pytest.raises(ValueError, match=r"was evaluated by an earlier version\. Run `tfmtr evaluate .*run --data"):
        read_models([run])
    (run / "evaluation.json").unlink()
    with pytest.raises(ValueError, match=r"it has no evaluation\.json\. Run `tfmtr evaluate .*run --data"):
        read_models([run])
    with pytest.raises(ValueError, match="must be a directory made by `tfmtr train`"):
        read_models([tmp_path])


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("fingerprint", "cd" * 32, "must have the same fingerprint; evaluate them on the same prepared directory"),
        ("forgotten", 1, "must have the same forgotten; evaluate all of them again, a user was forgotten since"),
        ("k", 20, "must have the same k; evaluate them with the same --k. Received: .* with 3, .* with 20"),
        ("local_share", 0.5, "must have the same local share; evaluate them with the same --local-share"),
    ],
)
def test_runs_that_were_evaluated_in_different_ways_are_refused(runs, tmp_path, key, value, message):
    with pytest.raises(ValueError, match=message):
        read_models([runs[0], copy(runs[1], tmp_path / "other", **{key: value})])
