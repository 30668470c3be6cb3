"""What is typed: options that are more than one word, and messages in the command's words."""

import dataclasses
import datetime
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import typer

from tfmtr import cli
from tfmtr.arguments import calendar_of, in_words_of, pairs, places_of, texts_of, whole_numbers
from tfmtr.cli import app, command_of, typed_names
from tfmtr.datasets.logs import Calendar

KEYS = ("user", "title", "territory", "time", "name")


def tfmtr(*arguments):
    """Runs the command as it is typed: `(status, standard output, standard error)`."""
    command = [sys.executable, "-m", "tfmtr", *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert "Traceback" not in result.stderr
    return result.returncode, result.stdout, result.stderr


def test_the_value_of_a_pair_may_contain_anything_but_a_comma():
    assert pairs("map", ["user = uid", " time=a=b"], KEYS) == {"user": "uid", "time": "a=b"}
    assert pairs("task", ["buy=b:after=click"]) == {"buy": "b:after=click"}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["usr=uid"], r"`--map` must be one of \['name', .*Did you mean 'user'\? Received: --map='usr'"),
        (["user=a", "user=b"], r"`--map` must name each of them once. Received: 'user' twice, as 'a' and 'b'"),
        (["user=a", ""], r"must be name=column pairs.* separated by commas.* must be renamed. Received: ''"),
        (["user"], r"`--map` must be name=column pairs\. Received: 'user'"),
        (["user="], "must be name=column pairs"),
        (["=a"], "must be name=column pairs"),
        (["user= "], "must be name=column pairs"),
    ],
)
def test_pairs_that_are_none(texts, message):
    with pytest.raises(ValueError, match=message):
        pairs("map", texts, KEYS)


@pytest.mark.parametrize(
    "read", [lambda path: texts_of("groups", path, "group"), lambda path: places_of("places", path)]
)
@pytest.mark.parametrize(
    ("content", "received"),
    [
        (b"{'DE': 'x'}", "no JSON at line 1, column 2"),
        (b'\xff\xfe{"DE": "x"}', "no UTF-8 at byte 0"),
        (b"[1]", "a list, no object"),
        (b"null", "a NoneType, no object"),
        (b"{}", "which is empty"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"DE": "a", "PL": "b", "DE": "a"}', "which has 'DE' twice"),
        (b'{"DE": {"a": 1, "a": 2}}', "which has 'a' twice"),
        (b'{"DE": ["a", "b"]}', r"where 'DE' is \[\"a\", \"b\"\]"),
        (b'{"DE": 3}', "where 'DE' is 3"),
        (b'{"DE": null}', "where 'DE' is null"),
        (b'{"DE": " "}', "where 'DE' is \" \""),
        (b'{"": "a"}', "where '' is"),
        (None, "cannot be read: No such file"),
    ],
)
def test_a_file_of_an_option_that_is_no_object_of_territories(tmp_path, read, content, received):
    file = tmp_path / "file.json"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"(?s)`--\w+` must be a JSON file of .*territory.* Received: {file}, .*{received}"
    ):
        read(file)


@pytest.mark.parametrize(
    "place",
    [
        "[13, NaN]",
        "[Infinity, 1]",
        "[13]",
        "[13, 52, 1]",
        "[181, 0]",
        "[52, 91]",
        "[true, 1]",
        '["13", 52]',
        "[1e999, 1]",
    ],
)
def test_places_must_be_two_numbers_on_the_globe(tmp_path, place):
    file = tmp_path / "file.json"
    file.write_text(f'{{"FR": [2, 48], "DE": {place}}}')
    with pytest.raises(ValueError, match=r"`--neighbours`.*\[longitude, latitude\].* where 'DE' is"):
        places_of("neighbours", file)


def test_files_that_are_as_they_should_be(tmp_path):
    file = tmp_path / "file.json"
    file.write_text("\ufeff" + json.dumps({"DE": [-180, 90.0], "日本": [139, 35]}))  # a mark that editors write
    assert places_of("neighbours", file) == {"DE": (-180, 90.0), "日本": (139, 35)}
    file.write_text('{"DE": "west"}')
    assert texts_of("groups", file, "group") == {"DE": "west"}
    assert (texts_of("groups", None, "group"), places_of("neighbours", None)) == (None, None)
    with pytest.raises(ValueError, match="cannot be read: Is a directory"):
        texts_of("groups", tmp_path, "group")


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        *(((days, 8, 3, None), "--window-days") for days in (0.0, -7.0, float("nan"), float("inf"), 1e-9, 1e9, 1e308)),
        *(((7.0, number, 3, None), "--train-windows") for number in (0, -1, 10**9)),
        *(((7.0, 8, number, None), "--test-windows") for number in (-1, 10**9)),
        ((400.0, 99_000, 3, None), "--end"),
    ],
)
def test_calendars_that_are_none(arguments, option):
    names = ("window_days", "train_windows", "test_windows", "end")
    with pytest.raises(ValueError, match=rf"^`{option}`.* Received: "):
        calendar_of(Calendar(), **dict(zip(names, arguments, strict=True)))


def test_options_change_a_calendar_where_they_are_given():
    own = Calendar(datetime.timedelta(days=28), num_train=9)
    assert calendar_of(own) == own
    assert calendar_of(own, window_days=14.0, test_windows=0) == dataclasses.replace(
        own, length=datetime.timedelta(days=14), num_test=0
    )
    assert calendar_of(Calendar(), window_days=7.0, warm_up=0.0) == Calendar(datetime.timedelta(days=7), warm_up=0.0)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(ValueError, match="`--warm-up` must be a share of the events, at least 0 and below 1"):
            calendar_of(Calendar(), warm_up=share)
    with pytest.raises(ValueError, match=r"`--warm-up` must be left out where .* Received: 0.1, 9 windows of 28 days"):
        calendar_of(own, warm_up=0.1)


def test_widths_are_whole_numbers():
    assert whole_numbers("units", "512, 256") == (512, 256)
    for text in ("a,b", "", "8,", "1.5"):
        with pytest.raises(ValueError, match=r"`--units` must be whole numbers.* Received: "):
            whole_numbers("units", text)


@pytest.mark.parametrize(
    ("names", "message", "expected"),
    [
        (["train"], "`batch_size` must be positive. Received: batch_size=0",
         "`--batch-size` must be positive. Received: batch_size=0"),
        (["train"], "`sharing` must be one of", "`--share` must be one of"),
        (["train"], "leave out `upsample=False`, or `deterministic=True`",
         "leave out `--no-upsample`, or `--deterministic`"),
        (["train"], "`balance=pcgrad` balances two or more losses; leave out `balance` to train one",
         "`--balance pcgrad` balances two or more losses; leave out `--balance` to train one"),
        (["train"], "`columns` and `alpha` are of another command", "`columns` and `alpha` are of another command"),
        (["recommend"], "No server answers at `server=127.0.0.1:1`", "No server answers at `--server 127.0.0.1:1`"),
        (["prepare", "events"], 'pass `missing_vectors="zero"`', "pass `--missing-vectors zero`"),
        (["prepare", "events"], "name another one in `columns` or `tasks`", "name another one in `--map` or `--task`"),
        (["prepare", "events"], "or pass `overwrite=True` (`--overwrite`) to replace it",
         "or pass `--overwrite` to replace it"),
        (["prepare", "events"], '`spark_master` must be left out unless `engine="spark"` (`--engine spark`). Received',
         "`--spark-master` must be left out unless `--engine spark`. Received"),
        (["prepare", "events"], "`calendar` must fit (or not)",
         "`--window-days`, `--train-windows`, `--test-windows` and `--end` must fit (or not)"),
        (["prepare", "simulator"], "`calendar` must fit",
         "`--window-days`, `--train-windows`, `--test-windows` and `--end` must fit"),
        (["recommend"], "`k` must be positive; name a `user_id`", "`-k` must be positive; name a `--user-id`"),
        (["report"], "`runs` must name a run", "`runs` must name a run"),
        (["serve"], "`model_base_path` must be", "`--model_base_path` must be"),
    ],
)  # fmt: skip
def test_messages_have_the_options_that_were_typed(names, message, expected):
    assert in_words_of(command_of(names), message) == expected


@pytest.mark.parametrize("typed", [["--data", "./data", "--model", "x"], ["--model", "y", "--data=data/"]])
def test_a_path_is_named_with_its_option_and_whether_it_exists(tmp_path, monkeypatch, typed):
    monkeypatch.chdir(tmp_path)
    message = "`data` must be a directory made by `tfmtr prepare`: it has no `prepare.json` of `data`"
    rest = "must be a directory made by `tfmtr prepare`: it has no `prepare.json` of `--data`"
    command = command_of(["train"])
    assert in_words_of(command, message, typed) == f"`--data data`, which does not exist, {rest}"
    Path("data").mkdir()
    assert in_words_of(command, message, typed) == f"`--data data` {rest}"
    assert in_words_of(command, message) == f"`data` {rest}"


def test_a_file_where_a_folder_must_be_is_named_with_its_option(tmp_path, monkeypatch, capsys):
    def fail(*arguments, **options):
        (tmp_path / "afile").write_text("")
        (tmp_path / "afile").mkdir()

    monkeypatch.setattr("tfmtr.training.train", fail)
    monkeypatch.setattr(sys, "argv", ["tfmtr", "train", "--data", "d", f"--out={tmp_path}/afile"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == f"error: --out {tmp_path}/afile: File exists\n"


def test_every_argument_of_every_command_is_known_by_its_option():
    def commands(command):
        below = command.list_commands(None) if hasattr(command, "commands") else []
        return [one for name in below for one in commands(command.get_command(None, name))] if below else [command]

    found = commands(typer.main.get_command(app))
    assert len(found) > 20
    for command in found:
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                text = in_words_of(command, f"`{parameter.name}` must be")
                assert text.removeprefix("`").partition("`")[0] in parameter.opts, (command.name, parameter.name)


def test_the_names_of_a_command_end_where_its_options_begin():
    assert typed_names(["prepare", "events", "--out", "train"]) == ["prepare", "events"]
    assert typed_names(["prepare", "xmarket", "--source", "events"]) == ["prepare", "xmarket"]
    assert typed_names(["train", "export"]) == ["train"]
    assert typed_names(["--no-import-paths", "train", "--out", "x"]) == ["train"]
    assert typed_names(["--version", "train"]) == typed_names([]) == typed_names(["nothing"]) == []


def test_versions_are_told_without_tensorflow():
    code = "import sys; sys.argv = ['tfmtr', '--version']; from tfmtr.cli import main\ntry: main()\nfinally: "
    code += "assert 'tensorflow' not in sys.modules"
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert text.startswith("tfmtr ")
    assert ", TensorFlow 2." in text
    assert tfmtr("serve", "--version")[1] == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train"], "error: Missing option '--data'."),
        (["train", "--data", "d", "--out", "w", "--epochs", "x"], "error: Invalid value for '--epochs': "),
        (["prepare", "evnts"], "error: No such command 'evnts'. Did you mean 'events'?"),
        (["--nothing"], "error: No such option: --nothing"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_two_lines_and_exit_code_2(arguments, message):
    status, _, text = tfmtr(*arguments)
    first, second = text.splitlines()
    assert status == 2
    assert first.startswith(message)
    assert second.startswith("help: tfmtr ")
    assert second.endswith(" --help")


def test_a_command_of_commands_shows_its_help():
    status, _, text = tfmtr("prepare")
    assert (status, "simulator" in text) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--data", "{tmp}", "--out", "{tmp}/r", "--groups", "x"],
         "error: `--groups` must be one of ['given', 'one', 'random', 'territories']. Received: groups='x'"),
        (["train", "--data", "{tmp}", "--out", "{tmp}/r", "--units", "a,b"], "`--units` must be whole numbers"),
        (["export", "{tmp}/run", "--titles", "{tmp}"], "{tmp}/run/run.json` must be a whole JSON document"),
        (["rollback", "--service", "{tmp}/run"], "service.json` must be a whole JSON document"),
        (["recommend", "--model", "m", "--data", "{tmp}", "--user-id", "u", "--server", "nothing"],
         "`--server` must be host:port"),
        (["daily", "--service", "{tmp}", "--day", "2024-03-01", "--groups", "{tmp}/run/run.json"],
         "`--groups` must be a JSON file"),
        (["evaluate", "{tmp}/run", "--data", "{tmp}", "--k", "0"], "`--k` must be positive"),
        (["prepare", "simulator", "--out", "{tmp}/x", "--simulator-seed", "-1"], "`--simulator-seed` must not be"),
        (["evaluate", "{tmp}/run", "{tmp}/run", "--data", "{tmp}"],
         "`runs` must name each run once"),
        (["index", "{tmp}/run/run.json", "--titles", "{tmp}"],
         "`{tmp}/run/run.json` must be a directory made by `tfmtr train`"),
        (["export", "{tmp}/no", "--titles", "{tmp}"],
         "`{tmp}/no`, which does not exist, must be a directory made by `tfmtr train`"),
    ],
)  # fmt: skip
def test_what_a_user_can_mend_is_one_line_and_exit_code_1(tmp_path, arguments, message, monkeypatch, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_bytes(b"\xff{")
    (tmp_path / "run" / "service.json").write_text("{'a'")
    monkeypatch.setattr(sys, "argv", ["tfmtr", *(argument.format(tmp=tmp_path) for argument in arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    text = capsys.readouterr().err
    assert ended.value.code == 1
    assert len(text.splitlines()) == 1
    assert text.startswith("error: ")
    assert message.format(tmp=tmp_path) in text


@pytest.mark.parametrize("command", ["index", "export"])
def test_an_index_is_chosen_by_its_option(command):
    text = in_words_of(command_of([command]), "`index` must be one of ['exact'].")
    assert text == "`--index` must be one of ['exact']."


def test_what_nobody_thought_of_is_one_line_too_and_says_where_to_look(monkeypatch, capsys):
    def fail(*arguments, **options):
        raise KeyError("windows")

    monkeypatch.setattr(cli, "app", fail)
    monkeypatch.setattr(cli, "typed_names", lambda typed: ["train"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    assert (
        capsys.readouterr().err
        == "error: KeyError: 'windows' (what led to it is shown where TFMTR_TRACEBACK=1 is set)\n"
    )
    monkeypatch.setenv("TFMTR_TRACEBACK", "1")
    with pytest.raises(KeyError):
        cli.main()


def test_warnings_until_an_error_are_printed_before_it(monkeypatch, capsys):
    def fail(*arguments, **options):
        error = ValueError("`events` must have a time")
        error.add_note("3 columns without a name were left out")
        raise error

    names = ["prepare", "events"]
    command = command_of(names)
    monkeypatch.setattr(cli, "command_of", lambda names: command)
    monkeypatch.setattr(cli, "typed_names", lambda typed: names)
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit):
        cli.main()
    warning, error = capsys.readouterr().err.splitlines()
    assert warning == "warning: 3 columns without a name were left out"
    assert error.startswith("error: `--events` must have a time")


def test_two_runs_of_one_name_are_two_columns(monkeypatch):
    from tfmtr.evaluation import evaluate, evaluation

    shown = []
    found = {run: SimpleNamespace(document={"fingerprint": data}) for run, data in zip("abc", "xxy", strict=True)}
    monkeypatch.setattr(evaluate, "evaluate", lambda run, data, **options: found[run.parts[0]])
    monkeypatch.setattr(evaluation, "print_tables", lambda results, console: shown.append(results))
    cli.evaluate(runs=[Path("a/run"), Path("b/run"), Path("c/other")], data=Path("d"))
    assert shown == [{"a/run": found["a"], "b/run": found["b"]}, {"other": found["c"]}]  # a table for each data set


def test_an_option_of_a_part_is_not_taken_for_one_of_the_command():
    command = cli.command_of(["train"])
    said = cli.in_words_of(command, "`units` of `share=ple` must be a value like its default. Received: units='a'")
    assert said == "`units` of `--share ple` must be a value like its default. Received: units='a'"
