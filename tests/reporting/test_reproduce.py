"""The command that a report says makes a run again."""

import dataclasses
import shlex

import pytest
import typer.main

from tfmtr import cli, training
from tfmtr.recipe import Recipe
from tfmtr.reporting.reproduce import record, train_command
from tfmtr.reporting.runs import EvaluatedRun

GROUPS = {"DE": "a b", "Côte d'Ivoire": "ö", 'US "1", x=y': "{b}"}


@pytest.mark.parametrize(
    "changes",
    [
        {"groups": GROUPS, "task_weights": {"click": 2.0, "like, too": 0.5}},
        {"schedule": ("cosine_decay", {"decay_steps": 500, "warmup_target": 0.1, "warmup_steps": 5})},
        {"schedule": ("piecewise_constant_decay", {"boundaries": (5,), "values": (0.2, 0.1)})},
        {"form": "ranking", "encode": ("cross", {"num_layers": 3}), "has_first_order": True},
        {"encode": "fwfm", "share": "none", "listwise": False},
        {
            "share": ("ple", {"units": (8,), "normalize": True}),
            "head": "esmm",
            "balance": ("grad_norm", {"alpha": 0.5}),
        },
        {"optimizer": ("adam", {"use_ema": True}), "clip_norm": 2.0, "updates": 5, "patience_updates": 2},
        {
            "units": (8, 4),
            "precision": "mixed_bfloat16",
            "row_weights": "w",
            "groups": "random",
            "normalizer": "groups",
        },
        {field.name: not field.default for field in dataclasses.fields(Recipe) if field.default is True},
    ],
)
def test_the_command_makes_the_recipe_again(changes, monkeypatch):
    recipe, made = Recipe(seed=7, **changes), []
    monkeypatch.setattr(training, "train", lambda data, out, recipe: made.append((str(data), str(out), recipe)))
    command = train_command(EvaluatedRun("runs/a b", {"recipe": recipe.document(), "data": "data"}, {}))
    monkeypatch.setattr("tfmtr.cli.train_command.check_typed", lambda **arguments: None)
    typer.main.get_command(cli.app)(shlex.split(command)[1:], standalone_mode=False)
    assert made == [("data", "runs/a b", recipe)]


def test_the_record_of_an_older_run_says_the_defaults_that_it_meant():
    document = {"recipe": {"share": "ple"}, "data": "data", "run_id": "20260101T000000-a-0", "stages": {}}
    for form, share in ((2, {"name": "ple", "normalize": True}), (3, "ple")):
        found = record("ple", EvaluatedRun("runs/a", {**document, "format": form}, {"date": "2026-01-02"}))
        assert found.recipe["share"] == share
