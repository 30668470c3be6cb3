"""Labelled rows with their split become examples as they are, and what is learnt of them is served."""

import dataclasses
import re
import shutil

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.base_log import base, write
from helpers.few_signatures import keep_signatures
from helpers.untraced import untraced
from typer.testing import CliRunner

import tfmtr
from tfmtr import cli, inputs, training
from tfmtr.operations.service import start_service
from tfmtr.schema import Feature
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.session import SavedModelSession

SPLITS = ("train", "validation", "test")
WORDS = {"Train": "train", " dev": "validation", "TEST": "test"}
COLUMNS = {"user": "user", "title": "title", "territory": "territory", "name": "name"}
WHAT = {
    "columns": COLUMNS,
    "split_column": "part",
    "tasks": {"click": "click", "buy": "buy:after=click", "watch": "seconds:regression"},
    "training": {"position": "pos"},
    "context": {"tab": "tab", "when": "hour:number"},
    "scenario": ["tab"],
    "id_features": {"user": "hashed:64", "title": "top:30"},
}


def tables():
    """Rows, users and titles: nulls among labels and ids, and rows of users and titles that are in no table."""
    rows, users, titles = base()
    rng = np.random.default_rng(1)
    rows = rows.sample(frac=1, random_state=0, ignore_index=True).drop(columns="time")
    rows["part"] = rng.choice(list(WORDS), len(rows), p=[0.7, 0.1, 0.2])
    rows["tab"] = rng.choice(["home", "search"], len(rows), p=[0.7, 0.3])
    rows["hour"] = rng.integers(0, 24, len(rows))
    rows["list"] = rng.integers(0, 900, len(rows)).astype("float64")
    for column, share in (("buy", 0.3), ("seconds", 0.2), ("click", 0.05), ("hour", 0.05), ("list", 0.02)):
        rows[column] = rows[column].astype("float64").mask(rng.random(len(rows)) < share)
    rows.loc[[3, 8], "user"], rows.loc[[5, 8], "title"] = None, None
    rows.loc[10:14, "title"], rows.loc[[20, 21], "user"] = "t999", "u9999"
    users["tastes"] = [[float(i % 3), 1.0] for i in range(len(users))]
    titles["tags"] = [[["a"], ["a", "b"], []][i % 3] for i in range(len(titles))]
    return rows, users, titles


def logs_of(folder, own, **changes):
    """`Logs` of tables; the rows are in two files."""
    rows, users, titles = own
    paths = {"events": write(folder, "rows", [rows[:2000], rows[2000:]])}
    paths |= {name: write(folder, name, table) for name, table in (("users", users), ("titles", titles))}
    return tfmtr.Logs(**paths, **{**WHAT, **changes})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The prepared rows, the tables, and what pandas makes of them: rows that are kept, in the order of the files."""
    folder, own = tmp_path_factory.mktemp("rows"), tables()
    data = tfmtr.prepare_rows(logs_of(folder, own), folder / "data", progress=False)
    return data, own, joined(own)


def joined(own):
    """Rows with the columns of their users and titles, without those that have none, in the order of the files."""
    rows, users, titles = own
    rows = rows[rows.user.isin(users.user) & rows.title.isin(titles.title)].reset_index(drop=True)
    for table, key in ((users, "user"), (titles, "title")):
        rows = rows.join(table.set_index(key), on=key)
    return rows.assign(split=rows.part.map(WORDS))


def examples(data, split):
    files = data.examples(split, windows=[0, 1])
    return pd.concat([pq.ParquetFile(file).read().to_pandas() for file in files], ignore_index=True)


def test_every_cell_is_that_of_the_row_in_the_order_of_the_files(made):
    data, (_, users, titles), kept = made
    places = {name: dict(zip(sorted(ids), range(len(ids)), strict=True))
              for name, ids in (("user", users.user), ("title", titles.title))}  # fmt: skip
    for split in SPLITS:
        found, rows = examples(data, split), kept[kept.split == split].reset_index(drop=True)
        expected = pd.DataFrame(
            {
                **{name: rows[name] for name in ("user", "title", "territory", "genre", "tab")},
                "age": rows.age.astype("float32"),
                "tags": rows.tags,
                "position": rows.pos.astype("float32"),
                "when": rows.hour.astype("float32"),
                "click": rows.click.astype("float32"),
                "buy": rows.buy.astype("float32"),
                "watch": rows.seconds.astype("float32"),
                "user_row": rows.user.map(places["user"]),
                "title_row": rows.title.map(places["title"]),
            }
        )
        assert set(found) == set(expected)
        found.tags = found.tags.map(list)
        pd.testing.assert_frame_equal(found[list(expected)], expected, check_dtype=False)
    assert kept[["click", "buy", "seconds"]].isna().sum().min() > 100  # null labels are among them
    assert {w: len(data.examples("test", windows=[w])) for w in (0, 1)} == {0: 0, 1: 1}
    assert data.test_windows == [1]
    store = data.vectors("user").vectors
    np.testing.assert_array_equal(store, np.stack(users.sort_values("user").tastes))


def test_what_is_dropped_is_counted_and_said(made):
    data, (rows, *_), kept = made
    dropped = {"incomplete": 3, "unknown_title": 5, "unknown_user": 2}
    assert data.report["rows"] == {"given": len(rows), "kept": len(kept), "dropped": dropped}
    warnings = " | ".join(data.report["warnings"])
    for text in (
        "3 rows without user or title were dropped",
        "5 rows of titles that are not in the titles table were dropped",
        "2 rows of users that are not in the users table were dropped",
        "10 titles of the training rows are not among the 30 most frequent",
    ):
        assert text in warnings
    counts = {row["split"]: row for row in data.report["examples"]}
    for split in SPLITS:
        own = kept[kept.split == split]
        assert (counts[split]["rows"], counts[split]["positives"]) == (len(own), (own.click == 1).sum())
        assert counts[split]["users"] == own.user.nunique()


def test_the_schema_is_that_of_the_training_rows(made):
    data, _, kept = made
    rows = kept[kept.split == "train"]
    by_name = {feature.name: feature for feature in data.schema.features}
    assert list(by_name) == [
        *("user", "territory", "age", "title", "genre", "tags", "position", "tab", "when", "user_vector"),
    ]
    assert by_name["user"] == Feature("user", "user", "string", width=64)
    frequent = rows.groupby("title").size().reset_index(name="rows").sort_values(["rows", "title"], ascending=[0, 1])
    assert by_name["title"] == Feature("title", "title", "id", tuple(frequent.title[:30]))
    assert by_name["tab"].vocabulary == ("home", "search")
    for name, column in (("age", "age"), ("when", "hour"), ("position", "pos")):
        assert by_name[name].mean == pytest.approx(rows[column].mean(), rel=1e-8)
        assert by_name[name].std == pytest.approx(rows[column].std(ddof=0), rel=1e-8)
    tasks = {task.name: task for task in data.schema.tasks}
    for name, column, kind, after in (("buy", "buy", "binary", "click"), ("watch", "seconds", "regression", None)):
        assert (tasks[name].kind, tasks[name].after) == (kind, after)
        assert tasks[name].mean == pytest.approx(rows[column].mean(), rel=1e-8)
    assert data.schema.scenario.groups == {("home",): "home", ("search",): "search"}


def test_the_other_tables_are_those_that_were_given(made):
    data, (_, users, titles), kept = made
    found = pd.read_parquet(data.path / "users.parquet")
    assert found.user.tolist() == sorted(users.user)
    assert found.territory.tolist() == users.sort_values("user").territory.tolist()
    assert pd.read_parquet(data.path / "titles.parquet").name.tolist() == titles.sort_values("title").name.tolist()
    events = pd.read_parquet(data.path / "events.parquet")
    rows = kept[kept.click == 1]
    rows = rows.assign(window=(rows.split == "test").astype(int))
    expected = rows[["user", "title", "window", "split"]].drop_duplicates().sort_values(["user", "title", "window"])
    keys = ["user", "title", "window", "split"]
    assert sorted(map(tuple, events[keys].to_numpy())) == sorted(map(tuple, expected[keys].to_numpy()))
    assert events.time.isna().all()
    offered = pd.read_parquet(data.path / "availability.parquet")
    assert len(offered) == 4 * len(titles) * 3
    assert set(offered.window) == {0, 1, 2}


def test_rows_of_a_request_are_side_by_side_in_the_order_of_its_first_one(tmp_path):
    own = tables()
    logs = logs_of(tmp_path, own)
    logs = dataclasses.replace(logs, columns={**logs.columns, "request": "list"})
    data = tfmtr.prepare_rows(logs, tmp_path / "data", progress=False)
    kept = joined(own)
    for split in SPLITS:
        rows = kept[kept.split == split].reset_index(drop=True)
        first = rows.groupby("list").list.transform(lambda part: part.index[0]).fillna(rows.index.to_series())
        expected = rows.iloc[np.lexsort((rows.index, first))].reset_index(drop=True)
        found = examples(data, split)
        assert found.request.astype(object).where(found.request.notna(), None).tolist() == [
            f"{n:.0f}" if n == n else None for n in expected.list
        ]
        assert found[["user", "title"]].equals(expected[["user", "title"]])


def test_without_users_and_titles_they_are_those_of_the_rows_and_text_files_give_the_same(tmp_path):
    rows, *_ = tables()
    what = {"columns": {"user": "user", "title": "title"}, "scenario": [], "tasks": {"click": "click"}}
    rows.to_csv(tmp_path / "rows.csv", index=False)
    made = []
    for number, path in enumerate((write(tmp_path, "rows", rows), tmp_path / "rows.csv")):
        logs = tfmtr.Logs(path, **{**WHAT, **what})
        made.append(tfmtr.prepare_rows(logs, tmp_path / f"data-{number}", progress=False))
    for split in SPLITS:
        found = [examples(data, split) for data in made]
        pd.testing.assert_frame_equal(*found)
    whole = rows[rows.user.notna() & rows.title.notna()]
    assert made[0].report["rows"]["kept"] == len(whole)
    assert pd.read_parquet(made[0].path / "users.parquet").user.tolist() == sorted(whole.user.unique())
    assert (made[0].schema.slices, set(found[0].territory)) == (("territory",), {"all"})
    assert "territory" not in {feature.name for feature in made[0].schema.features}  # it would tell nothing


@pytest.mark.parametrize(
    ("change", "changes", "text"),
    [
        ({"part": "Train"}, {}, r"`split_column` must have the words train, .*'train' in 3600 rows"),
        ({"part": ["Train", "TEST", "x"] * 1200}, {}, r"`split_column` must have the words .*'x' in 1200 rows"),
        ({"part": ["Train", "TEST", None] * 1200}, {}, r"`split_column` must have .*nothing in 1200 rows"),
        ({"part": ["Train", "TEST"] * 1800}, {}, r"must name rows for validation, too.*'test' in 1800, 'train' in"),
        ({"click": 2}, {}, r"Labels of the binary task 'click' must be 0, 1 or null"),
        ({"click": 0.0, "buy": 1.0}, {}, r"Events of the task 'buy', which is after 'click', must have"),
        ({}, {"split_column": None}, r"`split_column` must name the column that says train, validation or test"),
        ({}, {"split_column": "prt"}, r"`events` must have the column 'prt'.*Did you mean 'part'"),
        ({}, {"tasks": {}}, r"`tasks` must name the labels of the rows. Received: tasks=\{\}"),
        ({}, {"columns": {**COLUMNS, "time": "hour"}}, r"`columns` must name no time: .*Received: time='hour'"),
        ({}, {"time_format": "%d"}, r"`time_format` must be left out: times of given rows are not read"),
        ({}, {"id_features": {"item": "top"}}, r"`id_features` must be one of \['title', 'user'\]"),
        ({}, {"id_features": {"user": "hash:9"}}, r"`id_features` of 'user' must be one of .*Did you mean 'hashed'"),
        ({"user": "z"}, {}, r"`events` must have users of the users table: .*Received: none that match"),
        ({"user": None}, {}, r"`events` must have rows with a user and a title. Received: 3600 rows without"),
        (
            {"place": "DE"},
            {"columns": {**COLUMNS, "request": "pos"}, "context": {"request": "place"}},
            r"context column 'request' must have another name: impressions have it",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(tmp_path, change, changes, text):
    rows, users, titles = tables()
    logs = logs_of(tmp_path, (rows.assign(**change), users, titles), **changes)
    with pytest.raises(ValueError, match=text):
        tfmtr.prepare_rows(logs, tmp_path / "data", progress=False)
    assert not (tmp_path / "data").exists()


def test_rows_that_name_two_territories_of_a_user_are_refused(tmp_path):
    rows, users, titles = tables()
    rows["territory"] = np.where(rows.index % 2, "DE", "PL")
    logs = logs_of(tmp_path, (rows, users.drop(columns="territory"), titles))
    with pytest.raises(ValueError, match=r"`events` must name one territory for each user; .* `context`.*first \['u00"):
        tfmtr.prepare_rows(logs, tmp_path / "data", progress=False)


def test_the_command_speaks_of_its_own_options(made, tmp_path):
    data, _, _ = made
    logs = data.report["logs"]
    words = ["prepare", "rows", "--rows", logs["events"], "--users", logs["users"], "--titles", logs["titles"]]
    words += ["--map", "user=user,title=title,name=name", "--split-column", "part", "--task", "click=click"]
    words += ["--task", "buy=buy:after=click", "--task", "watch=seconds:regression", "--training", "position=pos"]
    words += ["--context", "tab,when=hour:number", "--scenario", "tab", "--id-feature", "user=hashed:64"]
    words += ["--id-feature", "title=top:30", "--out", str(tmp_path / "data")]
    told = CliRunner().invoke(cli.app, words)
    assert told.exit_code == 0, told.output
    assert "the rows are given with their split" in " ".join(told.output.split())
    assert tfmtr.Dataset(tmp_path / "data").report["fingerprint"] == data.report["fingerprint"]
    refused = CliRunner().invoke(cli.app, [*words[:-1], str(tmp_path / "other"), "--id-feature", "title"])
    assert re.search(r"`--id-feature` must name each of them once", str(refused.exception))
    assert cli.in_words_of(cli.command_of(["prepare", "rows"]), "`events`, `columns`, `id_features`") == (
        "`--rows`, `--map`, `--id-feature`"
    )


@pytest.fixture(scope="module")
def runs(made, tmp_path_factory):
    """A two-tower and a ranking model of the rows."""
    data, folder = made[0], tmp_path_factory.mktemp("runs")
    common = {"epochs": 1, "batch_size": 512, "embedding_dim": 4, "learning_rate": 0.02, "deterministic": False}
    with untraced():
        first = training.train(data, folder / "first", training.Recipe(units=(8, 4), **common), verbose=0)
        recipe = training.Recipe(form="ranking", share="shared_bottom", row_weights="position", **common)
        second = training.train(data, folder / "second", recipe, verbose=0)
    return first, second


@pytest.mark.usefixtures("eager")
def test_rows_at_hand_in_the_trainer_s_order_make_the_same_model(made, runs):
    data, run = made[0], runs[1]
    recipe, options = run.recipe, {"batch_size": run.recipe.batch_size, "weights": "position"}
    batches = inputs.batches(data, data.examples("train"), seed=[recipe.seed, 1], **options)
    model, _ = training.fit(recipe, data.schema, batches, inputs.batches(data, data.examples("validation"), **options))
    table = next(inputs.read_tables(data.examples("test", windows=[1]), rows=300))
    features = inputs.model_inputs(table, data.schema, inputs.open_stores(data))
    ours, theirs = (
        one.predictor.predict_on_batch({name: features[name] for name in one.predictor.input})
        for one in (model, run.load())
    )
    for task in ("click", "buy", "watch"):
        np.testing.assert_allclose(ours[task], theirs[task], rtol=1e-6, atol=1e-6)


def test_there_is_no_list_model_and_no_day_after_the_rows(made, runs, tmp_path):
    assert "rows that were given" in runs[0].document["listwise"]["reason"]
    with pytest.raises(ValueError, match=r"without a given split, to go on day by day.*--split-column"):
        start_service(tmp_path / "service", runs[0], tmp_path / "out")


def test_evaluation_speaks_of_the_test_rows_and_lists_hide_what_users_had(made, runs, tmp_path):
    _, _, kept = made
    with untraced():
        first = tfmtr.evaluate(runs[0], baselines=["popularity"])
        second = tfmtr.evaluate(runs[1], baselines=[])
        second_run = shutil.copytree(runs[1], tmp_path / "run")
        assert set(tfmtr.calibrate(second_run, by="tab").document["maps"]["click"]) <= {"home", "search", "", "all"}
    test = kept[kept.split == "test"]
    for name, column in (("click", "click"), ("buy", "buy"), ("watch", "seconds")):
        for found in (first, second):
            assert found.document["tasks"][name]["tab"]["1"]["overall"]["rows"] == test[column].notna().sum()
    clicks = kept[kept.click == 1]
    had = set(zip(*(clicks[clicks.split != "test"][key] for key in ("user", "title")), strict=True))
    taken = {pair for pair in zip(*(clicks[clicks.split == "test"][key] for key in ("user", "title")), strict=True)}
    assert first.document["left_out"]["1"]["positives"] == len(taken & had) > 0


def ask(session, raw):
    """What an exported model says of rows, by the name of its task."""
    signature = session.signatures["serving_default"]
    return predict(session, signature, raw, choose_outputs(signature))


def test_served_scores_are_the_model_s_own_for_known_and_unknown_ids(made, runs, tmp_path, monkeypatch):
    data, _, _ = made
    keep_signatures(monkeypatch, "serving_default")
    version = tfmtr.export(runs[0], tmp_path / "model", ranking=runs[1], candidates=5, first_weight=0.0)
    assert "needs" not in version.facts  # no operation that is not TensorFlow's own
    table = next(inputs.read_tables(data.examples("test", windows=[1]), rows=200))
    schema, model = runs[1].schema, runs[1].load()
    known = set(schema.by_role("title")[0].vocabulary)
    assert {title in known for title in table["title"].to_pylist()} == {True, False}
    features = inputs.model_inputs(table, schema, inputs.open_stores(data))
    expected = model.predictor.predict_on_batch({name: features[name] for name in model.predictor.input})
    raw = {f.name: table[f.name].to_numpy(zero_copy_only=False) for f in schema.features
           if f.name in table.column_names and f.name not in ("tags", "position")}  # fmt: skip
    raw = {name: v.astype("float32") if v.dtype.kind == "f" else v.astype(object) for name, v in raw.items()}
    raw["when"] = np.where(np.isnan(raw["when"]), {f.name: f.mean for f in schema.features}["when"], raw["when"])
    raw["tags"] = np.asarray([(list(tags) + [""] * 2)[:2] for tags in table["tags"].to_pylist()], object)
    raw["user_vector"] = inputs.take_vectors(data.vectors("user").vectors, table["user_row"])
    session = SavedModelSession(version)
    served = ask(session, raw)
    for task in ("click", "watch"):
        np.testing.assert_allclose(served[task], expected[task], rtol=1e-6, atol=1e-6)
    strangers = {**raw, "user": np.asarray(["nobody"] * 200, object), "title": np.asarray(["new"] * 200, object)}
    assert np.isfinite(ask(session, strangers)["click"]).all()
