"""Folders that are damaged, of another kind, or not finished."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest

from tfmtr import models, training
from tfmtr.checkpoints import restore
from tfmtr.datasets.dataset import Dataset
from tfmtr.exporting import export
from tfmtr.run import Run
from tfmtr.schema import Feature, Schema
from tfmtr.scratch import scratch
from tfmtr.tuning.tuning import Tuning
from tfmtr.version import Version

RUN = {"recipe": {}, "fingerprint": "ab", "run_id": "r", "data": "d"}


@pytest.mark.parametrize(
    ("kind", "file", "text", "message"),
    [
        (Run, "run.json", "[]", r"run\.json` must hold a JSON object"),
        (Run, "run.json", "null", "must hold a JSON object"),
        (Run, "run.json", "{}", r"as `tfmtr train` leaves it.* without \['recipe', 'fingerprint', 'run_id', 'data'\]"),
        (Dataset, "prepare.json", "{}", r"as `tfmtr prepare` leaves it.* without \['fingerprint', 'windows'\]"),
        (Dataset, "prepare.json", "[]", r"prepare\.json` must hold a JSON object"),
        (Version, "assets.extra/tfmtr.json", "{}", "as `tfmtr export` leaves it"),
        (Run, "run.json", json.dumps(RUN | {"recipe": None}), r"as `tfmtr train` leaves it.* Received: recipe=None"),
        (Run, "run.json", json.dumps(RUN | {"fingerprint": None}), "Received: fingerprint=None"),
        (Run, "run.json", json.dumps(RUN | {"run_id": 3}), "Received: run_id=3"),
        (Run, "run.json", json.dumps(RUN | {"data": ["d"]}), r"Received: data=\['d'\]"),
        (Run, "run.json", json.dumps(RUN | {"stages": []}), r"Received: stages=\[\]"),
        (Run, "run.json", json.dumps(RUN | {"listwise": "x"}), "Received: listwise='x'"),
        (Dataset, "prepare.json", '{"fingerprint": 1, "windows": {}}', r"Received: fingerprint=1, windows=\{\}"),
        (Version, "assets.extra/tfmtr.json", '{"run_id": 1, "fingerprint": "a"}', "Received: run_id=1"),
        *((Run, "run.json", json.dumps(RUN | {"format": of}), f"Received: format {of}$") for of in (True, 0, -1, "2")),
    ],
)
def test_a_document_that_is_not_what_it_must_be_is_named(tmp_path, kind, file, text, message):
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=message):
        kind(tmp_path)


@pytest.mark.parametrize("path", [None, 3, ["a"]])
@pytest.mark.parametrize(("kind", "name"), [(Run, "run"), (Dataset, "data"), (Version, "version"), (Tuning, "search")])
def test_what_is_no_path_is_named(kind, name, path):
    with pytest.raises(ValueError, match=rf"`{name}` must be a directory made by `tfmtr \w+`. Received: {name}="):
        kind(path)


def test_an_evaluation_without_figures_is_named(tmp_path):
    (tmp_path / "run.json").write_text(json.dumps(RUN))
    (tmp_path / "evaluation.json").write_text("{}")
    with pytest.raises(ValueError, match=r"evaluation\.json` must be what `tfmtr evaluate` wrote"):
        Run(tmp_path).evaluation  # noqa: B018


@pytest.mark.parametrize("mark", ["prepare.json", "saved_model.pb", "service.json"])
def test_a_run_is_not_written_among_other_files(tiny, tmp_path, mark):
    (tmp_path / mark).write_text("{}")
    with pytest.raises(ValueError, match=rf"`out` must be a folder of its own.* made \(it has {mark}\)"):
        training.train(tiny, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [mark]


@pytest.mark.parametrize("mark", ["prepare.json", "saved_model.pb", "run.json"])
def test_a_version_is_not_written_among_other_files(tiny, tmp_path, mark):
    (tmp_path / mark).write_text("{}")
    with pytest.raises(ValueError, match=r"`out` must be a folder of its own"):
        export(tmp_path / "no run", tmp_path)


def test_weights_that_are_lost_or_not_there_yet_are_missed(tiny, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "run.json").write_text(json.dumps(RUN | {"windows": [1, 2, 3]}))
    for window in (2, 3, "x"):
        (tmp_path / f"weights/window-{window}.npz").write_text("")
    with pytest.raises(ValueError, match=r"must have the weights of every window before.* those of \[2, 3\]"):
        training.run_document.finished_windows(tmp_path, Dataset(tiny))
    (tmp_path / "weights/window-3.npz").rename(tmp_path / "weights/window-1.npz")
    assert training.run_document.finished_windows(tmp_path, Dataset(tiny)) == [1, 2]
    with pytest.raises(ValueError, match=r"must be a finished run for its newest model.* no weights for .* \[3\]"):
        Run(tmp_path).weights()
    assert Run(tmp_path).weights(2).name == "window-2.npz"


@pytest.fixture(scope="module")
def model(tiny):
    model = models.two_tower(Schema.load(tiny), units=(4,), embedding_dim=2)
    model.compile("sgd")
    return model


@pytest.mark.parametrize("damage", [lambda whole: b"half", lambda whole: whole[:-40], lambda whole: b""])
def test_weights_that_are_damaged_are_named(model, tmp_path, damage):
    training.save(model, tmp_path / "w.npz")
    restore(model, tmp_path / "w.npz")
    (tmp_path / "w.npz").write_bytes(damage((tmp_path / "w.npz").read_bytes()))
    with pytest.raises(ValueError, match=r"w\.npz` must be a whole file of weights"):
        restore(model, tmp_path / "w.npz")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: shutil.rmtree(data / "vectors/title"), "must have the stores .* Received: no vectors/title"),
        (lambda data: (data / "titles.parquet").unlink(), "`titles` must have a title"),
        (lambda data: cut(data, 0), "`titles` must have a title"),
        (lambda data: cut(data, 49), r"must have every title that is available; .* lacks \d+ of .* such as t49"),
        (lambda data: cut(data, 51), "A store must have a vector for each row .* Received: row 50 of 50"),
        (lambda data: (data / "events.parquet").unlink(), r"must be a whole directory; .* no \['events.parquet'\]"),
        (lambda data: (data / "users.parquet").unlink(), r"no \['users.parquet'\]"),
    ],
)
def test_titles_of_a_damaged_directory_are_not_exported(model, tiny, tmp_path, damage, message):
    data = Dataset(shutil.copytree(tiny, tmp_path / "data"))
    damage(data.path)
    with pytest.raises(ValueError, match=message):
        export(model, tmp_path / "out", titles=data)
    assert not (tmp_path / "out").exists()


def cut(data, rows):
    table = pq.read_table(data / "titles.parquet")
    pq.write_table(table.take(np.minimum(np.arange(rows), 49)), data / "titles.parquet")


def test_a_model_that_is_not_finite_is_not_exported(tiny, tmp_path):
    model = models.two_tower(Schema.load(tiny), units=(4,), embedding_dim=2)
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.nan))
    with pytest.raises(ValueError, match=r"`run` must be a model whose variables are finite.* in 1 of"):
        export(model, tmp_path / "out", titles=tiny)


def test_work_that_failed_leaves_no_folder_of_its_own(tmp_path):
    (tmp_path / "old").mkdir()
    for parent in ("old", "new"):
        with pytest.raises(KeyError), scratch(tmp_path / parent, "tmp-"):
            raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1.0, np.nan], "finite and never negative.* with nan"),
        ([-0.5, np.nan], "finite and never negative"),
        ([1.0, np.inf], "finite and never negative.* with inf"),
        ([0.0, 0.0], "somewhere positive"),
    ],
)
def test_rows_count_by_numbers(tiny, tmp_path, weights, message):
    data = shutil.copytree(tiny, tmp_path / "data")
    file = Dataset(data).examples("train")[0]
    table = pq.read_table(file, partitioning=None)
    pq.write_table(table.append_column("share", [np.resize(weights, len(table)).astype("float32")]), file)
    schema = Schema.load(data)
    schema.replace(features=[*schema.features, Feature("share", "training", "number")]).save(data)
    with pytest.raises(ValueError, match=f"`row_weights` must name a number that is {message}"):
        training.train(data, tmp_path / "run", training.Recipe(row_weights="share", upsample=False))
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_was_changed_by_hand_is_named_by_its_file(tmp_path):
    document = {"format": 3, "recipe": {"shaer": "ple"}, "fingerprint": "a", "run_id": "b", "data": "c"}
    (tmp_path / "run.json").write_text(json.dumps(document))
    with pytest.raises(
        ValueError, match=r"run\.json: A recipe must have keys of .*Did you mean 'share'\? Received: 'sh"
    ):
        Run(tmp_path).recipe  # noqa: B018


@pytest.mark.parametrize(
    ("part", "before"),
    [
        ("ple", ("ple", {"normalize": True})),
        ({"name": "mmoe", "num_experts": 2}, ("mmoe", {"normalize": True, "num_experts": 2})),
        ({"name": "snr", "normalize": False}, ("snr", {"normalize": False})),
        ("tfmtr.sharing.adatt:adatt", ("tfmtr.sharing.adatt:adatt", {"normalize": True})),
        ("stem", "stem"),
    ],
)
def test_runs_of_before_the_paper_s_form_was_the_default_keep_their_normalisation(tmp_path, part, before):
    for of, share in (({}, before), ({"format": 2}, before), ({"format": 3}, training.Recipe(share=part).share)):
        (tmp_path / "run.json").write_text(json.dumps(RUN | {"recipe": {"share": part}} | of))
        assert Run(tmp_path).recipe.share == share


@pytest.mark.parametrize(
    ("part", "before"),
    [("metabalance", {"strategy": "reduce"}), ("fair_grad", {"weighs_own": True})],
)
def test_runs_of_before_a_balancer_had_another_default_keep_theirs(tmp_path, part, before):
    for of, balance in (({"format": 2}, (part, before)), ({"format": 3}, part)):
        (tmp_path / "run.json").write_text(json.dumps(RUN | {"recipe": {"balance": part}} | of))
        assert Run(tmp_path).recipe.balance == balance


def with_a_list_model(folder, recipe=None, **document):
    """A run directory whose recipe asks for a list model."""
    recipe = {"listwise": True} if recipe is None else recipe
    (folder / "run.json").write_text(json.dumps(RUN | {"recipe": recipe, **document}))
    return Run(folder)


@pytest.mark.parametrize("text", [b"", b"half", b"PK\x03\x04 cut"])
def test_a_list_model_that_is_damaged_is_named(tmp_path, text):
    run = with_a_list_model(tmp_path, listwise={"reason": None})
    (tmp_path / "listwise.npz").write_bytes(text)
    with pytest.raises(ValueError, match=r"listwise\.npz` must be a whole file .*, or remove it and run `tfmtr train`"):
        run.list_model  # noqa: B018


def test_a_list_model_that_is_lost_or_not_there_yet_is_missed(tmp_path, capsys):
    lost = "has no listwise.npz: its lists are ordered by the towers alone. `tfmtr train` with the same recipe"
    for document in ({"listwise": {"reason": None}}, {"listwise": {"reason": None}, "start": "r"}, {}):
        assert with_a_list_model(tmp_path, **document).list_model is None
        assert lost in capsys.readouterr().err
    for document in ({"listwise": {"reason": "no events"}}, {"start": "a day of an earlier version"}):
        assert with_a_list_model(tmp_path, **document).list_model is None
    for recipe in ({}, {"listwise": False}):  # of a version that had none
        assert with_a_list_model(tmp_path, recipe).list_model is None
    assert not capsys.readouterr().err


def test_days_say_whether_they_have_a_list_model(tiny, tmp_path, capsys, eager):
    recipe = training.Recipe(units=(4,), epochs=1, batch_size=1000, deterministic=False)
    run, data = training.train(tiny, tmp_path / "run", recipe, verbose=0), Dataset(tiny)
    files = data.examples("train", windows=[2])
    for day in ("day", "other"):
        training.go_on(run, data, files, tmp_path / day, verbose=0)
        (tmp_path / "run/listwise.npz").unlink(missing_ok=True)
    assert capsys.readouterr().err.count("has no listwise.npz") == 1
    assert Run(tmp_path / "other").list_model is None
    assert not capsys.readouterr().err
    (tmp_path / "day/listwise.npz").unlink()
    assert Run(tmp_path / "day").list_model is None
    assert "day has no listwise.npz" in capsys.readouterr().err
