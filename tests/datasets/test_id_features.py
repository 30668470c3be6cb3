"""Ids of users and titles as features: bounded to the most frequent or hashed, from the log to the model's look-up."""

import re
from collections import Counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.base_log import base, prepared, read_examples

import tfmtr
from tfmtr.datasets.id_features import MOST_IDS, parse_id_feature
from tfmtr.encoders.raw import look_up, raw_inputs
from tfmtr.growth import grow_schema
from tfmtr.inputs import model_inputs
from tfmtr.operations.forgetting import forget
from tfmtr.schema import Feature


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The prepared base log, with its events."""
    tables = base()
    ids = {"user": "top:40", "title": "hashed:16"}
    return prepared(tmp_path_factory.mktemp("ids"), *tables, id_features=ids), tables[0]


def test_the_most_frequent_users_are_those_of_the_training_rows(made):
    data, events = made
    user, title = (next(f for f in data.schema.features if f.name == name) for name in ("user", "title"))
    assert (title.role, title.kind, title.width) == ("title", "string", 16)
    users = pd.read_parquet(data.path / "events.parquet").groupby("user").split.first()
    start = pd.Timestamp(next(row["start"] for row in data.report["windows"] if row["window"] == 1))
    rows = events[(events.time < start) & (events.user.map(users) == "train")]
    counts = rows.user.value_counts()
    assert len(user.vocabulary) == 40
    assert [counts[name] for name in user.vocabulary] == sorted(counts, reverse=True)[:40]
    names = [(-counts[name], name) for name in user.vocabulary]
    assert names == sorted(names)
    assert f"{len(counts) - 40} users of the training rows are not among the 40" in " ".join(data.report["warnings"])
    found = read_examples(data)
    assert not set(found[found.split == "test"].user) & set(user.vocabulary)


def test_examples_have_no_further_columns(made, tmp_path):
    data, _ = made
    plain = prepared(tmp_path, *base())
    assert read_examples(data).equals(read_examples(plain))
    assert [f.name for f in plain.schema.features] == [f.name for f in data.schema.features if f.name not in (
        "user", "title")]  # fmt: skip


def test_training_and_the_exported_graph_look_ids_up_alike(made):
    data, _ = made
    schema = data.schema.replace(features=[f for f in data.schema.features if f.name in ("user", "title")])
    users = [*schema.features[0].vocabulary[:3], "nobody", ""]
    table = pa.table({"user": users, "title": [f"t{i:03d}" for i in range(5)]})
    import keras

    raw = raw_inputs(schema, "user", "title")
    graph = keras.Model(raw, look_up(raw, schema, "user", "title"))
    given = {name: keras.ops.convert_to_tensor(table[name].to_pylist()) for name in ("user", "title")}
    served, trained = graph(given), model_inputs(table, schema, {})
    for name in ("user", "title"):
        np.testing.assert_array_equal(served[name], trained[name])
    assert trained["user"].tolist() == [1, 2, 3, 0, 0]
    assert 0 <= trained["title"].min() <= trained["title"].max() < 16


def test_more_ids_than_other_categories_may_have_values_and_growth_of_them(tmp_path):
    """A million look-ups one after the other in a list would not end."""
    number = 30_000
    titles = [f"t{i}" for i in range(number)]
    rows = pd.DataFrame({"user": ["a", "b"] * (number // 2), "title": titles, "click": [0, 1, 1] * (number // 3)})
    rows["part"] = np.where(rows.index < number - 4, "train", np.where(rows.index % 2, "validation", "test"))
    rows.to_parquet(tmp_path / "rows.parquet")
    what = {"columns": {"user": "user", "title": "title"}, "tasks": {"click": "click"}, "split_column": "part"}
    logs = tfmtr.Logs(tmp_path / "rows.parquet", **what, id_features={"title": "top"})
    schema = tfmtr.prepare_rows(logs, tmp_path / "data", progress=False).schema
    (title,) = schema.features
    assert Counter(title.vocabulary) == Counter(titles[:-4])
    later = schema.replace(features=[Feature("title", "title", "id", [*titles[-4:], *titles[:100]])])
    assert grow_schema(schema, later).features[0].vocabulary == (*title.vocabulary, *titles[-4:])


def test_a_user_s_id_that_is_a_value_of_the_feature_is_named_when_the_user_is_forgotten(tmp_path):
    data = prepared(tmp_path, *base(users=60, per=20), id_features={"user": "top"})
    user, *_ = data.schema.features[0].vocabulary
    lines = forget(user, data=[data.path])
    assert any(line.startswith("ids: the user's id is a value of the feature 'user'") for line in lines)
    stranger = pd.read_parquet(data.path / "users.parquet").user
    stranger = next(name for name in stranger if name not in data.schema.features[0].vocabulary)
    assert not any(line.startswith("ids: ") for line in forget(stranger, data=[data.path]))


def test_what_a_text_says():
    assert parse_id_feature("title", " top ") == ("top", MOST_IDS)
    assert parse_id_feature("user", "hashed : 100_000") == ("hashed", 100_000)


@pytest.mark.parametrize("text", ["hashed", "top:", "top:0", "top:-1", "hashed:1.5", "top:9999999999", "top:1:2"])
def test_what_is_no_number_of_entries(text):
    with pytest.raises(ValueError, match=re.escape(f"such as top:50000 or hashed:100000. Received: {text!r}")):
        parse_id_feature("user", text)


def test_a_wrong_text_is_refused_before_anything_is_read(tmp_path):
    with pytest.raises(ValueError, match=r"`id_features` of 'user' must be one of \['hashed', 'top'\]"):
        prepared(tmp_path, *base(), id_features={"user": "all"})
