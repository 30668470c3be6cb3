"""`prepare` with `examples="impressions"`: every labelled row of the log, as often as it was logged."""

import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.base_log import CALENDAR, START, base, examples, prepared
from helpers.untraced import untraced

from tfmtr import Dataset, Recipe, training
from tfmtr.candidates import prepare_candidates
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.operations.forgetting import forget
from tfmtr.training import windows

TASKS = {"click": "click", "buy": "buy:after=click", "seconds": "seconds:regression"}
OPTIONS = {"examples": "impressions", "negatives": "both", "random_fraction": 1.0, "num_groups": 2}
RANKING = Recipe(form="ranking", share="none", epochs=1)
COLUMNS = {**{name: name for name in ("user", "title", "territory", "time", "name")}, "request": "list"}


def log():
    """Events with repeated rows, titles that were not on offer before, unknown labels and requests."""
    events, users, titles = base(users=120, titles=30)
    rng = np.random.default_rng(3)
    events["tab"] = rng.choice(["home", "search"], len(events))
    events["list"] = rng.integers(0, 400, len(events))
    events["click"], events["list"] = events.click.astype("float64"), events.list.astype("float64")
    events.loc[rng.random(len(events)) < 0.1, ["click", "buy"]] = np.nan
    events.loc[rng.random(len(events)) < 0.1, "seconds"] = np.nan
    events.loc[rng.random(len(events)) < 0.05, "list"] = np.nan
    events.loc[events.title == "t000", "time"] += pd.Timedelta(days=21)  # appears in a window, and ends after the last
    twice = events.sample(200, random_state=0)
    events = pd.concat([events, twice]).sort_values("time", kind="stable").reset_index(drop=True)
    return events[events.time < START + pd.Timedelta(days=28)], users, titles


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    tables = log()
    folder = tmp_path_factory.mktemp("impressions")
    changes = {"tasks": TASKS, "columns": COLUMNS, "context": {"tab": "tab"}, "training": {"pos": "pos"}}
    return prepared(folder, *tables, options=OPTIONS, **changes), tables


def rows_of(data, kind="impressions"):
    """All rows of a kind with their split and window."""
    parts = []
    for file in sorted(data.path.glob(f"{kind}/*/*/*/*.parquet")):
        split, sampling, window = (part.partition("=")[2] for part in file.parts[-4:-1])
        assert sampling == "random"
        part = pq.ParquetFile(file).read().to_pandas()
        parts.append(part.assign(split=split, window=int(window)))
    return pd.concat(parts, ignore_index=True)


def expected_rows(data, tables):
    """The same by pandas, from the tables of the log."""
    events, users, titles = tables
    events = events[events[["click", "buy", "seconds"]].notna().any(axis=1)].copy()
    start = START + pd.Timedelta(days=28) - 3 * CALENDAR.length
    events["window"] = (events.time - start) // CALENDAR.length - 1
    splits = pq.read_table(data.path / "events.parquet", columns=["user", "split"]).to_pandas().drop_duplicates()
    events = events.merge(splits, "left", "user").merge(users, "left", "user").merge(titles, "left", "title")
    events = events[(events.window >= -1) & ((events.split != "test") | (events.window > 0))]
    return events.assign(request=events.list.map(lambda one: None if np.isnan(one) else str(int(one))))


def comparable(rows, columns):
    """Rows in an order of their own, nulls as one text."""
    rows = rows[columns].astype({name: "float64" for name in ("click", "buy", "seconds", "pos", "age")})
    rows = rows.astype(object).where(rows.notna(), "null").astype(str)
    return rows.sort_values(columns).reset_index(drop=True)


def test_every_cell_is_that_of_the_log(whole):
    data, tables = whole
    columns = ["user", "title", "territory", "age", "genre", "tab", "pos", "click", "buy", "seconds", "request"]
    columns += ["split", "window"]
    here, there = rows_of(data), expected_rows(data, tables)
    assert here.duplicated(["user", "title", "window"]).sum() > 100
    assert here.click.isna().sum() > 50
    assert (here.title == "t000").any()
    pd.testing.assert_frame_equal(comparable(here, columns), comparable(there, columns))
    counts = pd.DataFrame(data.report["impressions"])
    assert counts.rows.sum() == len(here)
    assert counts.positives.sum() == (here.click == 1).sum()


def test_rows_of_one_request_are_side_by_side(whole):
    data, _ = whole
    for file in data.rows_for("ranking", "train"):
        rows = pq.ParquetFile(file).read(["user", "request"]).to_pandas().dropna()
        changes = (rows != rows.shift()).any(axis=1).sum()
        assert changes == len(rows.drop_duplicates()) > 10


def test_examples_of_two_towers_are_as_without_it(whole, tmp_path):
    data, tables = whole
    columns = {name: name for name in COLUMNS if name != "request"}
    changes = {"tasks": TASKS, "columns": columns, "context": {"tab": "tab"}, "training": {"pos": "pos"}}
    alone = prepared(tmp_path, *tables, options=OPTIONS | {"examples": "discoveries"}, **changes)
    pd.testing.assert_frame_equal(examples(alone), examples(data))
    assert not alone.has_impressions
    assert alone.rows_for("ranking", "train") == alone.examples("train")
    assert data.rows_for("two_tower", "train") == data.examples("train")
    assert alone.schema == data.schema


def test_a_ranking_model_learns_from_them_and_is_judged_by_them(whole, tmp_path, monkeypatch):
    (data, _), stages, fit_stage = whole, [], windows.fit_stage

    def noted(model, job, stage, **options):
        stages.append(stage)
        return fit_stage(model, job, stage, **options)

    monkeypatch.setattr(windows, "fit_stage", noted)
    with untraced():
        run = training.train(data.path, tmp_path / "run", RANKING, verbose=0)
        found = evaluate(run.path, baselines=[])
    assert stages[0].files == data.rows_for("ranking", "train")
    assert stages[0].validation == data.rows_for("ranking", "validation")
    assert {file.parts[-5] for file in (*stages[0].files, *stages[0].validation)} == {"impressions"}
    test = rows_of(data).query("split == 'test'")
    cell = found.document["tasks"]["click"]["territory"]["1"][OVERALL]
    assert (cell["rows"], cell["positives"]) == (test.click.notna().sum(), (test.click == 1).sum())


def test_lists_of_a_first_stage_are_made_of_discoveries(whole, tmp_path):
    data, _ = whole
    with untraced():
        run = training.train(data.path, tmp_path / "run", Recipe(units=[4], epochs=1), verbose=0)
    candidates = prepare_candidates(run.path, tmp_path / "candidates", candidates=10)
    assert not candidates.has_impressions
    assert not (candidates.path / "impressions").exists()
    assert candidates.discoveries("test", windows=[1])


def test_a_user_is_forgotten_in_them(whole, tmp_path):
    data = Dataset(shutil.copytree(whole[0].path, tmp_path / "data"))
    user = rows_of(data).user[0]
    forget(user, data=[data.path])
    assert user not in set(rows_of(data).user)


@pytest.mark.parametrize(
    ("options", "changes", "text"),
    [
        ({"examples": "all"}, {}, r"`examples` must be one of \['discoveries', 'impressions'\]"),
        ({}, {"tasks": {}}, r"must have rows of what was shown and not taken, whose first task is 0\. Received"),
        ({}, {"has_times": False, "columns": {"user": "user", "title": "title"}}, r"drawn\. Received.*has_times=False"),
        ({"examples": "discoveries"}, {"columns": COLUMNS}, r"`columns` may name a request, .* request='list'"),
        ({}, {"columns": {**COLUMNS, "request": "lisd"}}, r"must have the column 'lisd'.*Did you mean 'list'"),
        (
            {},
            {"columns": COLUMNS, "context": {"request": "tab"}},
            r"context column 'request' must have another name: impressions have it for the request",
        ),
    ],
)  # fmt: skip
def test_bad_input(tmp_path, options, changes, text):
    if changes.get("has_times") is False:
        from tfmtr.datasets.logs import Calendar

        changes = {**changes, "calendar": Calendar()}
    with pytest.raises(ValueError, match=text):
        prepared(tmp_path, *log(), options=OPTIONS | options, **changes)
