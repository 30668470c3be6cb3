"""The options of `tfmtr prepare` about windows, times and splits, as they are typed."""

import json
import sys

import pandas as pd
import pytest
from helpers.base_log import base, write
from typer.testing import CliRunner

from tfmtr import cli
from tfmtr.cli import app


@pytest.fixture
def tables(tmp_path):
    """Paths of the base log's tables, with options of the command."""
    events, users, titles = base()
    events["part"] = ["test" if i % 5 == 0 else "train" for i in range(len(events))]
    for name, table in (
        ("events", events.drop(columns="time")),
        ("timed", events),
        ("users", users),
        ("titles", titles),
    ):
        write(tmp_path, name, table)
    paths = [f"--{name}={tmp_path / f'{name}.parquet'}" for name in ("events", "users", "titles")]
    return [
        "prepare",
        "events",
        *paths,
        "--map=user=user,title=title",
        "--task=click=click",
        f"--out={tmp_path / 'out'}",
    ]


def run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_no_times(tables, tmp_path):
    result = run(*tables, "--no-times")
    assert result.exit_code == 0, result.output
    assert "windows: no times: of training and validation users half of the pairs are history" in result.output
    assert result.output.count("No times: the order of events is not known") == 2
    assert "warning: the log has no times: nothing is known of the order of events" in result.output
    report = json.loads((tmp_path / "out/prepare.json").read_text())
    assert (report["times"], report["logs"]["has_times"]) == (False, False)


def test_a_given_split(tables, tmp_path):
    result = run(*tables, "--no-times", "--split-column", "part")
    assert result.exit_code == 0, result.output
    assert "windows: the split is given: half of the training pairs are history" in result.output
    kept = pd.read_parquet(tmp_path / "out/events.parquet")
    assert set(kept.split) == {"train", "validation", "test"}
    assert "training rows were drawn for validation, as the split has no rows for it" in " ".join(result.output.split())


def test_the_windows_are_said_and_the_funnel_is_shown(tables, tmp_path):
    tables[2] = f"--events={tmp_path / 'timed.parquet'}"
    result = run(*tables, "--window-days", 2)
    assert result.exit_code == 0, result.output
    assert "windows: 8 of 2 days for training, 3 for the tests, after a warm-up of 6 days (2" in result.output
    for text in ("events", "in windows", "discoveries", "  train, random users", "  validation", "  test"):
        assert f"\n{text}" in result.output
    assert "- before the first window: what users had" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "`--events` must have the column 'time'; name another one in `--map` or `--task`; or say `--no-times`."),
        (["--no-times", "--window-days", "7"], "`--end` must be left out where there are no times (`--no-times`)"),
        (["--no-times", "--time-format", "%d/%m/%Y"], "`--time-format` must be left out where there are no times"),
        (
            ["--no-times", "--split-column", "part", "--fold", "1/5"],
            "`--fold` must be left out where `--split-column` says",
        ),
        (["--no-times", "--split-column", "click"], "`--split-column` must have the words train, validation"),
        (["--no-times", "--fold", "6/5"], "`--fold` must be i/n with at least 2 folds and i from 1 to n"),
        (["--warm-up", "1.5"], "`--warm-up` must be a share of the events, at least 0 and below 1"),
    ],
)
def test_what_is_refused_names_the_option(tables, arguments, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["tfmtr", *map(str, tables), *arguments])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    text = capsys.readouterr().err
    assert message in text
    assert "Traceback" not in text
