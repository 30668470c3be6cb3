"""Counters in lists and in the served graph: what is looked up is what the rows of the log's own examples have.

Tests `tfmtr.datasets.counter_tables` and the counters of `tfmtr.retrieval.second_stage`.
"""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from helpers.base_log import base, prepared, read_examples
from helpers.untraced import untraced

from tfmtr import inputs, training
from tfmtr.datasets.counter_tables import counted, counter_tables
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.exporting import export
from tfmtr.run import Run
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.session import SavedModelSession

tf = pytest.importorskip("tensorflow")
COUNTERS = ("title", "title,territory", "title,tab,territory", "user")
TABS = ("home", "search")


def make(folder, counters=COUNTERS):
    events, users, titles = base(users=150)
    events["tab"] = np.random.default_rng(1).choice(TABS, len(events))
    options = {"counters": counters, "counter_days": (1, 7), "alpha": 3.0}
    return prepared(folder, events, users, titles, context={"tab": "tab"}, options=options)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make(tmp_path_factory.mktemp("counters"))


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """A two-tower run, and a ranking run with counters."""
    folder, common = tmp_path_factory.mktemp("runs"), {"epochs": 1, "batch_size": 1000, "deterministic": False}
    with untraced():
        training.train(data.path, folder / "first", training.Recipe(units=(8, 4), listwise=False, **common), verbose=0)
        recipe = training.Recipe(form="ranking", share="none", **common)
        training.train(data.path, folder / "second", recipe, verbose=0)
    return folder / "first", folder / "second"


def names_of(data):
    return [feature.name for feature in data.schema.counters]


def test_what_is_looked_up_is_what_rows_have(data):
    rows = read_examples(data)
    for window, part in rows.groupby("window"):
        tables = counter_tables("data", data, data.schema, window)
        found = counted(tables, pa.Table.from_pandas(part), part.title_row.to_numpy()[:, None])
        assert set(found) == set(names_of(data))
        for name, values in found.items():
            np.testing.assert_array_equal(values[:, 0], part[name].to_numpy(), err_msg=name)


def test_titles_and_values_without_a_row_have_the_overall_rate(data):
    tables = counter_tables("data", data, data.schema, data.next_window)
    rows = pa.table({"territory": ["DE", "nowhere", None], "tab": ["home", "home", None]})
    found = counted(tables, rows, np.array([[0, -1], [0, 1], [1, 2]]))
    stored = pd.read_parquet(data.path / "counters/title_territory.parquet").query(f"window == {data.next_window}")
    nothing = stored[stored.title.isna()].iloc[0]
    assert nothing.count_title_territory_click_7d == 0
    assert found["rate_title_territory_click_7d"][1:].ravel().tolist() == [nothing.rate_title_territory_click_7d] * 4
    assert found["count_title_territory_click_7d"][0, 0] > 0


def test_a_two_tower_model_leaves_them_out_and_knows_a_user_s(data, runs):
    first, second = (Run(run).schema for run in runs)
    assert not first.counters
    (text,) = Run(runs[0]).document["warnings"]
    assert text.endswith("Left out: count_title_rows_1d and 17 more")
    assert not Run(runs[1]).document["warnings"]
    assert [f.name for f in first.by_role("user") if "count_user" in f.name]
    assert second.counters == data.schema.counters


def test_the_graph_looks_up_what_the_model_says_of_rows(data, runs, tmp_path):
    version = export(runs[0], tmp_path / "home", ranking=runs[1], candidates=10, first_weight=0.0)
    session = SavedModelSession(version)
    users = pq.read_table(data.path / "users.parquet").slice(0, 4)
    users = users.append_column("tab", pa.array(["home", "search", "elsewhere", "home"]))
    titles = pq.read_table(data.path / "titles.parquet")
    asked = np.asarray([[3, 7, 0], [1, 2, 39], [5, 6, 8], [0, 10, 20]])
    schema, stores = Run(runs[1]).schema, inputs.open_stores(data)
    # Row by row, with counters that were looked up with Arrow and NumPy.
    one = users.take(np.repeat(np.arange(4), 3)).append_column("title_row", pa.array(asked.ravel()))
    for feature in schema.by_role("title"):
        if not feature.is_stored:
            one = one.append_column(feature.name, titles[feature.name].take(asked.ravel()))
    tables = counter_tables("data", data, schema, data.next_window)
    for name, values in counted(tables, users, asked).items():
        one = one.append_column(name, pa.array(values.ravel()))
    model = Run(runs[1]).load()
    features = inputs.model_inputs(one, schema, stores)
    expected = model.predictor.predict_on_batch({name: features[name] for name in model.predictor.input})["click"]
    raw = {}
    for feature in schema.by_role("user", "context"):
        if feature.is_stored:
            raw[feature.name] = inputs.take_vectors(stores["user"], users["user_row"])
        else:
            values = users[feature.name].to_numpy()
            raw[feature.name] = values.astype(object if values.dtype == object else "float32")
    raw["rank_titles"] = np.asarray(titles["title"].to_pylist(), object)[asked]
    served = session.signatures["rank"]
    defaults = {name: tf.make_ndarray(value) for name, value in served.defaults.items()}
    found = predict(session, served, {**defaults, **raw}, choose_outputs(served))
    np.testing.assert_allclose(found["scores_click"], expected.reshape(4, 3), rtol=1e-5)
    assert len(np.unique(np.round(expected, 6))) > 6


def test_lists_after_both_stages_have_them_as_of_their_window(data, runs):
    found = evaluate(runs[1], retrieval=runs[0], k=5, candidates=10, baselines=[])
    assert found.document["first_stage"]["candidates"] == 10
    assert 0 <= found.ndcg <= 1


def test_counters_that_cannot_be_looked_up_are_refused_by_name(data, tmp_path):
    other = make(tmp_path, ("title", "user,genre"))
    with pytest.raises(ValueError, match=r"`titles` must have the counters that .*Received: no \['count_user_genre_"):
        counter_tables("titles", other, other.schema, other.next_window)
    with pytest.raises(ValueError, match=r"Received: no \['count_title_tab_territory_click_1d'"):
        counter_tables("titles", other, data.schema, other.next_window)
