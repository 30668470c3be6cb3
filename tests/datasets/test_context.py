"""Columns of the events that a request has, too, and the scenarios of their values: from the log to the served list."""

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from helpers.base_log import base, examples, make_logs, prepared, read_examples
from helpers.untraced import untraced
from typer.testing import CliRunner

import tfmtr
from tfmtr import cli, training
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.exporting import export
from tfmtr.operations.service import start_service
from tfmtr.retrieval.embeddings import write_embeddings
from tfmtr.schema import Feature
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.recommendations import user_inputs
from tfmtr.serving.session import SavedModelSession

TABS = ("home", "search", "after")
STRATUM = ["split", "sampling", "window"]
CONTEXT = {"tab": "tab", "hour": "hour:number"}


def tables():
    events, users, titles = base()
    rng = np.random.default_rng(1)
    events["tab"] = rng.choice(TABS, len(events), p=[0.6, 0.3, 0.1])
    events.loc[rng.random(len(events)) < 0.02, "tab"] = None
    events["hour"] = events.time.dt.hour
    events["code"] = [f"c{i}" for i in range(len(events))]
    return events, users, titles


def contexts(events):
    """`{(user, title): contexts of its rows}`; a category that is null is "" in the examples."""
    rows = events.fillna({"tab": ""})
    return {key: set(zip(part.tab, part.hour, strict=True)) for key, part in rows.groupby(["user", "title"])}


@pytest.fixture(scope="module")
def sampled(tmp_path_factory):
    """Prepared with two drawn negatives for each positive, and the tables."""
    own = tables()
    options = {"alpha": 2.0, "negatives": "sampled"}
    data = prepared(tmp_path_factory.mktemp("context"), *own, context=CONTEXT, scenario=["tab"], options=options)
    return data, own


def test_rows_of_the_log_have_their_own_context_and_drawn_ones_that_of_positives(sampled):
    data, (events, *_) = sampled
    rows = read_examples(data)
    positives, drawn = rows[rows.click == 1], rows[rows.click == 0]
    own = contexts(events[events.click == 1])
    for row in positives.itertuples():
        assert (row.tab, row.hour) in own[row.user, row.title]
    # Two for each positive: each one's context twice.
    count = [*STRATUM, "tab", "hour"]
    here, there = (part.groupby(count, dropna=False).size() for part in (positives, drawn))
    full = drawn.groupby(STRATUM).size() == 2 * positives.groupby(STRATUM).size()
    assert full.all()
    pd.testing.assert_series_equal(there, 2 * here)
    assert (drawn.tab == "").any()


def test_logged_negatives_keep_theirs(tmp_path):
    events, users, titles = tables()
    data = prepared(tmp_path, events, users, titles, context=CONTEXT)
    rows = examples(data)
    own = contexts(events[events.click == 0])
    zeros = rows[rows.click == 0]
    assert len(zeros) > 500
    assert all((row.tab, row.hour) in own[row.user, row.title] for row in zeros.itertuples())
    assert data.schema.scenario.columns == ("territory",)


def test_the_schema_has_them_and_their_values_are_the_scenarios(sampled):
    data, _ = sampled
    tab, hour = data.schema.by_role("context")
    assert tab == Feature("tab", "context", "id", ("home", "search", "after"))
    assert (hour.kind, hour.role) == ("number", "context")
    assert hour.mean == pytest.approx(11.5, abs=0.5)
    assert data.schema.scenario.groups == {(tab,): tab for tab in TABS}
    assert data.schema.slices == ("territory", "tab")


def test_several_columns_compose_and_one_without_a_value_is_of_no_scenario(tmp_path):
    events, users, titles = tables()
    users["device"] = np.where(users.index % 2, "tv", "phone")
    data = prepared(tmp_path, events, users, titles, context={"tab": "tab"}, scenario=["tab", "device", "territory"])
    assert data.schema.scenario.columns == ("tab", "device", "territory")
    rows = examples(data)
    seen = set(zip(rows.tab, rows.device, rows.territory, strict=True))
    assert set(data.schema.scenario.groups) <= seen
    assert any(tab == "" for tab, *_ in seen)
    assert len(data.schema.scenario.groups) == 3 * 2 * 4
    assert data.schema.scenario.groups["home", "tv", "DE"] == "home/tv/DE"
    assert data.schema.slices == ("territory", "tab", "device")


def test_without_context_nothing_changes(tmp_path):
    events, users, titles = tables()
    data = [
        prepared(tmp_path / str(i), own, users, titles) for i, own in enumerate((events, events.drop(columns="tab")))
    ]
    assert len({one.report["fingerprint"] for one in data}) == 1
    assert data[0].report["logs"]["context"] == {}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"context": {"tab": "tap"}}, r"must have the column 'tap'.* Did you mean 'tab'"),
        ({"context": {"tab": "tab:number"}}, r"Column 'tab' of `events` must be a number; for a category say 'tab'"),
        ({"context": {"tab": "tab:text"}}, r"`kind` of context column 'tab' must be one of"),
        ({"context": {"age": "tab"}}, r"column 'age' .*must have another name: it is that of"),
        (
            {"context": {"seen": "tab"}},
            r"context column 'seen' must have another name: it is an input of every",
        ),
        ({"context": {"tab": "tab"}, "training": {"tab": "tab:id"}}, r"must have another name: it is that of"),
        ({"context": CONTEXT, "scenario": ["hour"]}, r"`scenario` must be one of \['tab', 'territory'\]"),
        ({"context": CONTEXT, "scenario": ["tap"]}, r"`scenario` must be one of .*Did you mean 'tab'"),
        ({"context": CONTEXT, "scenario": ["tab", "tab"]}, r"`scenario` must name each column once"),
        ({"context": {"tab": "code"}, "scenario": ["tab"]}, r"from 1 to 200 combinations .*Received: \d+ of \['tab'\]"),
    ],
)
def test_what_cannot_be_is_refused(tmp_path, changes, text):
    with pytest.raises(ValueError, match=text):
        prepared(tmp_path, *tables(), **changes)


@pytest.fixture(scope="module")
def run(sampled, tmp_path_factory):
    path = tmp_path_factory.mktemp("run") / "run"
    recipe = training.Recipe(units=(8, 4), epochs=2, batch_size=512, learning_rate=0.02, deterministic=False)
    with untraced():
        training.train(sampled[0].path, path, recipe, verbose=0)
    return path


def test_a_request_s_tab_chooses_the_branch_and_what_is_no_tab_the_default(sampled, run, tmp_path):
    version = export(run, tmp_path / "model")
    features = {"age": 30.0, "user_vector": np.ones(sampled[0].schema.features[-2].width), "hour": 12.0}
    features = {name: value for name, value in features.items() if name in {f.name for f in version.schema.features}}
    with tfmtr.serve(version) as server:
        asked = [
            server.recommend({**features, "tab": tab, "territory": "DE"}, k=5, territory="DE", history={"t001": 1.0})
            for tab in (*TABS, "elsewhere")
        ]
    assert ["default_branch" in answer.fallback for answer in asked] == [False, False, False, True]
    assert ["unknown_context" in answer.fallback for answer in asked] == [False, False, False, True]
    assert len({answer.scores for answer in asked}) == 4
    session = SavedModelSession(version.path)
    given = {name: np.asarray([value] * 2, "float32") for name, value in features.items() if name != "hour"}
    given |= {"territory": np.asarray(["DE"] * 2, object), "request_territory": np.asarray(["DE"] * 2, object)}
    given |= {"seen": np.full((2, 1), "", object), "k": np.full(2, 5, "int32")}
    hour = next(feature for feature in version.schema.features if feature.name == "hour")
    said = {"tab": np.asarray(["", ""], object), "hour": np.full(2, hour.mean, "float32")}
    signature, answers = session.signatures["recommend"], []
    defaults = {name: tf.make_ndarray(value) for name, value in signature.defaults.items()}
    for more in ({}, said):  # a context that is left out is one of which nothing is known
        answers.append(predict(session, signature, defaults | given | more, choose_outputs(signature)))
    np.testing.assert_array_equal(answers[0]["titles"], answers[1]["titles"])
    np.testing.assert_allclose(answers[0]["scores"], answers[1]["scores"], rtol=1e-6)
    assert all("unknown_context" in text for text in answers[0]["fallback"].astype(str))
    batched = session.signatures["recommend_batch"]
    assert {"tab", "hour"} <= set(batched.inputs)
    of_batch = {name: value for name, value in (given | said).items() if name in batched.inputs}
    again = predict(session, batched, of_batch, choose_outputs(batched))
    np.testing.assert_array_equal(again["titles"], answers[1]["titles"])


def test_evaluation_and_calibration_speak_of_tabs_and_vectors_of_users_have_none(sampled, run, tmp_path):
    with untraced():
        found = evaluate(run, baselines=[])
    assert set(found.document["tasks"]["click"]) == {"territory", "tab"}
    assert {"home", "search"} <= set(found.document["tasks"]["click"]["tab"]["1"])
    with untraced():
        assert set(tfmtr.calibrate(run, by="tab").document["maps"]["click"]) <= {*TABS, "", "all"}
    with untraced():
        assert write_embeddings(run, tmp_path / "vectors")["users"] == 300
    with pytest.raises(ValueError, match=r"whose scenarios are groups of territories.*whose scenario is \['tab'\]"):
        start_service(tmp_path / "service", run, tmp_path / "out")


def test_the_command(tmp_path):
    events, users, titles = tables()
    logs = make_logs(tmp_path, events, users, titles)
    words = ["prepare", "events", "--events", logs.events, "--users", logs.users, "--titles", logs.titles]
    words += ["--map", "user=user,title=title,territory=territory,time=time", "--task", "click=click"]
    words += ["--context", "tab,when=hour:number", "--scenario", "tab", "--out", tmp_path / "data"]
    told = CliRunner().invoke(cli.app, list(map(str, words)))
    assert told.exit_code == 0, told.output
    schema = tfmtr.Dataset(tmp_path / "data").schema
    assert [(f.name, f.kind) for f in schema.by_role("context")] == [("tab", "id"), ("when", "number")]
    assert schema.scenario.columns == ("tab",)


def test_a_number_of_the_context_that_is_none_is_one_line(sampled):
    with pytest.raises(ValueError, match=r"`context` must say 'hour' as a number\. Received: hour='abc'"):
        user_inputs(sampled[0], {"territory": "DE", "hour": "abc"})
    assert user_inputs(sampled[0], {"territory": "DE", "hour": "7"})["hour"] == 7
