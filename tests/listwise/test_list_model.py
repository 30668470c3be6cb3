"""What a list model knows at a moment, what it learns, and that the graph says the same."""

import dataclasses
import shutil
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from helpers.chain_log import TITLES, chain_data
from scipy import sparse

from tfmtr.datasets.dataset import Dataset
from tfmtr.encoders.raw import lookup
from tfmtr.evaluation.past import Past
from tfmtr.listwise import past_titles as module
from tfmtr.listwise.collaborative import next_titles
from tfmtr.listwise.factors import learn
from tfmtr.listwise.layer import ListQuery, newest
from tfmtr.listwise.model import ListModel, Scorer, windows_before
from tfmtr.listwise.parts import Factors, activity_of, find_parts
from tfmtr.listwise.past_titles import past_titles
from tfmtr.listwise.rows import first_windows, list_rows
from tfmtr.listwise.texts import next_vectors, unit
from tfmtr.operations.forgetting import forget


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return chain_data(tmp_path_factory.mktemp("chain"))


@pytest.fixture(scope="module")
def past(data):
    return Past(data)


@pytest.fixture(scope="module")
def vectors(data):
    return unit(data.vectors("title").vectors)


@pytest.fixture(scope="module")
def order(past, vectors):
    """A list model of the first training windows."""
    rows = {window: list_rows(past, window, 4.0) for window in sorted(past.starts) if window <= 0}
    windows = list(rows)[-3:]
    parts = [
        find_parts(past, w, 1.0, [rows[n] for n in windows_before(past, w) if n in rows], vectors) for w in windows
    ]
    return ListModel(learn(parts, [rows[window] for window in windows], first_windows(past))[0], 1.0, 0.25)


def events_of(data):
    return pd.read_parquet(data.path / "events.parquet")


def test_pasts_are_the_newest_titles_before_the_window(data, past, monkeypatch):
    monkeypatch.setattr(module, "MOST", 3)
    users = np.arange(len(past.users))[::-1]
    found = past_titles(past, users, 1, None)
    events = events_of(data)
    start = pd.Timestamp(past.starts[1])
    for row, user in enumerate(users):
        own = events[(events.user == past.users[int(user)].as_py()) & (events.time < start)]
        newest_titles = own.groupby("title").time.max().sort_values().index[-3:]
        assert sorted(past.titles[title] for title in found[row].indices) == sorted(newest_titles)
        assert found[row].data.tolist() == pytest.approx([1 / np.sqrt(len(newest_titles))] * len(newest_titles))
    assert past_titles(past, np.array([-1, 0]), 1, None)[0].nnz == 0  # a user who is not known


def test_rows_are_what_training_users_took_and_did_not_have(data, past):
    rows = list_rows(past, 0, 4.0)
    events = events_of(data)
    own = events[(events.window == 0) & (events.split == "train")]
    before = set(map(tuple, events[events.window < 0][["user", "title"]].to_numpy()))
    new = {pair for pair in map(tuple, own[["user", "title"]].to_numpy()) if pair not in before}
    assert rows.wanted.nnz == len(new)
    assert len(rows) == len({user for user, _ in new})
    assert np.asarray(rows.wanted.sum(axis=1)).min() >= 1
    assert rows.had.multiply(rows.wanted.astype(bool)).nnz == 0


def test_what_comes_later_changes_nothing(tmp_path, data, past, order):
    """Events from a window on are left out of the log: its scorer stays the same, bit by bit."""

    def cut(events):
        start = pd.Timestamp(past.starts[1])
        later = events.time >= start
        newest_event = events.sort_values("time").iloc[-1:].assign(title="t00")  # so that the calendar stays
        return pd.concat([events[~later], newest_event])

    other = chain_data(tmp_path, change=cut)
    cut_past = Past(other)
    assert cut_past.starts == past.starts
    ours, theirs = order.as_of(data, past, 1), order.as_of(other, cut_past, 1)
    for name, value in vars(ours).items():
        np.testing.assert_array_equal(value, getattr(theirs, name), err_msg=name)
    assert not np.array_equal(order.as_of(data, past, 2).outputs, order.as_of(other, cut_past, 2).outputs)


def test_test_users_are_in_no_fit(tmp_path, data, past, order):
    """What users of the test and validation folds had is changed: scorers stay, their own queries do not."""
    splits = events_of(data).groupby("user").split.first()
    others = set(splits.index[splits != "train"])

    def change(events):
        theirs = events.user.isin(others)
        return events.assign(title=events.title.where(~theirs, "t" + events.title.str[1:].astype(int).map(
            lambda i: f"{(i + 5) % TITLES:02}")))  # fmt: skip

    other = chain_data(tmp_path, change=change)
    changed = Past(other)
    ours, theirs = order.as_of(data, past, 1), order.as_of(other, changed, 1)
    np.testing.assert_array_equal(ours.outputs, theirs.outputs)
    np.testing.assert_array_equal(ours.inputs, theirs.inputs)
    users = np.flatnonzero([user in others for user in past.users.to_pylist()])
    assert not np.allclose(ours.queries_of(past, users, 1), theirs.queries_of(changed, users, 1))


def test_scores_are_the_parts(data, past, vectors, order):
    scorer, users = order.as_of(data, past, 1), np.arange(40)
    earlier = [list_rows(past, number, order.half_life) for number in windows_before(past, 1)]
    parts = find_parts(past, 1, 1.0, earlier, vectors)
    pasts, homes = past_titles(past, users, 1, order.half_life), past.homes[users]
    prior, there = parts.prior(order.factors)
    by_hand = np.tensordot(order.factors.weights, parts.scores(pasts), axes=1) + prior + there[homes]
    by_hand = by_hand + np.outer(activity_of(pasts), parts.lean(order.factors))
    np.testing.assert_allclose(scorer.queries_of(past, users, 1) @ scorer.outputs.T, by_hand, rtol=1e-4, atol=1e-3)
    towers, titles = np.ones((40, 3), "float32"), np.full((TITLES, 3), 2.0, "float32")
    joined = scorer.join_queries(towers, scorer.queries_of(past, users, 1)) @ scorer.join_titles(titles).T
    np.testing.assert_allclose(joined, by_hand + 0.25 * 6.0, rtol=1e-4, atol=1e-3)
    twice = scorer.queries_of(past, np.array([3, 3, 5]), 1)
    np.testing.assert_array_equal(twice, scorer.queries_of(past, np.array([3, 5]), 1)[[0, 0, 1]])
    unknown = scorer.queries(pasts[:1] * 0, np.array([-1])) @ scorer.outputs.T
    np.testing.assert_allclose(unknown[0], prior - 2 * parts.lean(order.factors), rtol=1e-5, atol=1e-5)


def test_lists_follow_the_chain(data, past, order):
    """The title after the last one that a user had is near the top; by popularity alone it is not."""
    scorer = order.as_of(data, past, 1)
    events = events_of(data)
    last = events[events.window < 1].sort_values("time").groupby("user").title.last()
    users = past.numbers(last.index.to_list())
    scores = scorer.queries_of(past, users, 1) @ scorer.outputs.T
    following = [(int(title[1:]) + 1) % TITLES for title in last]
    ranks = (scores > scores[np.arange(len(users)), following][:, None]).sum(axis=1)
    alone = scorer.queries(past_titles(past, users, 1, 4.0) * 0, past.homes[users]) @ scorer.outputs.T
    by_prior = (alone > alone[np.arange(len(users)), following][:, None]).sum(axis=1)
    assert np.mean(ranks < 3) > 0.6
    assert np.mean(by_prior < 3) < 0.4


def test_a_saved_model_is_the_same(tmp_path, data, past, order):
    order.save(tmp_path / "listwise.npz")
    again = ListModel.load(tmp_path / "listwise.npz")
    assert (again.days, again.model_weight) == (order.days, order.model_weight)
    for name, value in vars(order.as_of(data, past, 1)).items():
        np.testing.assert_array_equal(value, getattr(again.as_of(data, past, 1), name), err_msg=name)


def test_a_saved_model_of_a_log_without_times_is_the_same(tmp_path):
    model = ListModel(Factors(np.full((2, 1), 0.5), 1.0, np.ones((2, 1)), np.ones(1), np.ones(4)), None, 0.1)
    model.save(tmp_path / "listwise.npz")
    again = ListModel.load(tmp_path / "listwise.npz")
    assert (again.days, again.model_weight) == (None, 0.1)
    np.testing.assert_array_equal(again.factors.trends, model.factors.trends)


def test_a_saved_model_of_other_parts_is_refused(tmp_path, order):
    factors = dataclasses.replace(order.factors, weights=order.factors.weights[:2])
    dataclasses.replace(order, factors=factors).save(tmp_path / "listwise.npz")
    with pytest.raises(ValueError, match=r"listwise\.npz` must have factors of 4 scores .* train the run again\. Rec"):
        ListModel.load(tmp_path / "listwise.npz")


def test_a_title_that_nobody_took_is_found_by_its_text(past, vectors):
    """Its prior is the smallest; whoever took what has the same text has it before all others of its kind."""
    parts = find_parts(past, 1, 1.0, [], vectors)
    names = dataclasses.replace(parts, vectors=np.eye(TITLES, 3, dtype="float32")[np.arange(TITLES) % 3])
    factors = Factors(np.full((2, 5), 0.1), 1.0, np.zeros((2, 5)), np.zeros(5), np.array([0.0, 0.0, 5.0, 0.0]))
    parts = dataclasses.replace(names, everywhere=names.everywhere.copy(), titles=names.titles[1:], follow=np.eye(3),
                                weights=names.weights[:, 1:, 1:])  # fmt: skip
    parts.everywhere[:, 0] = parts.everywhere.min() - 1
    inputs, outputs = parts.factorised(factors, 8)
    scores = inputs @ outputs.T
    assert scores[3, 0] == pytest.approx(5.0, abs=1e-3)
    assert scores[4, 0] == pytest.approx(0.0, abs=1e-3)


def test_the_graph_folds_as_the_scorer_does(data, past, order):
    scorer, users = order.as_of(data, past, 2), np.arange(30)
    layer = ListQuery(scorer, lookup(past.titles))
    known = past.is_history & (past.window < 2)
    titles, ages = np.full((30, 40), "", object), np.zeros((30, 40), "float32")
    for user in users:
        own = np.flatnonzero(known & (past.user == user))
        own = own[np.argsort(past.second[own])]  # a title may come twice
        titles[user, : len(own)] = [past.titles[title] for title in past.title[own]]
        ages[user, : len(own)] = past.ages(own, 2)
    home = np.asarray(past.territories, object)[past.homes[users]]
    query, has_history, has_past = layer(
        tf.constant(titles), tf.constant(ages), tf.constant([[""]] * 30), tf.constant(home)
    )
    np.testing.assert_allclose(query, scorer.queries_of(past, users, 2), rtol=1e-5, atol=1e-5)
    assert has_history.numpy().tolist() == (titles != "").any(axis=1).tolist()
    seen, has_history, has_past = layer(
        tf.constant([["?"]] * 30), tf.zeros([1, 1]), tf.constant(titles), tf.constant(home)
    )
    fresh, *_ = layer(tf.constant(titles), tf.zeros([1, 1]), tf.constant([[""]] * 30), tf.constant(home))
    np.testing.assert_allclose(seen, fresh, rtol=1e-6)
    assert not has_history.numpy().any()
    nowhere, _, has_past = layer(tf.constant([[""]]), tf.zeros([1, 1]), tf.constant([[""]]), tf.constant(["Atlantis"]))
    np.testing.assert_allclose(nowhere[0], scorer.queries(sparse.csr_matrix((1, TITLES)), np.array([-1]))[0])
    assert not has_past.numpy().any()


def test_the_newest_titles_count_once():
    index, ages = newest(tf.constant([[1, 2, 1, 0, 3, 2]]), tf.constant([[9.0, 8.0, 7.0, 6.0, 5.0, 4.0]]))
    assert index.shape[1] == module.MOST
    assert index.numpy()[0, -3:].tolist() == [1, 3, 2]
    assert ages.numpy()[0, -3:].tolist() == [7.0, 5.0, 4.0]
    assert not index.numpy()[0, :-3].any()
    long = tf.range(1, module.MOST + 6)[None]
    index, _ = newest(long, tf.cast(long, tf.float32))
    assert index.numpy()[0, [0, -1]].tolist() == [6, module.MOST + 5]


def test_scorers_are_made_of_any_number_of_territories(past, vectors):
    """Of more than sixteen the differences are a product of narrow factors; here of two, which is exact."""
    parts = find_parts(past, 1, 1.0, [], vectors)
    (of_one, of_other), there = np.diff(parts.there.begin), parts.there
    begin = np.concatenate([[0], np.cumsum(np.tile([of_one, of_other], 10))])
    many = {"rest": np.tile(there.rest, 10), "titles": np.tile(there.titles, 10), "counted": np.tile(there.counted, 10)}
    many = dataclasses.replace(parts, there=dataclasses.replace(there, begin=begin, **many))
    model = ListModel(Factors(np.full((2, 5), 0.1), 1.0, np.ones((2, 5)), np.ones(5), np.ones(4)), None, 0.0)
    wide, few = Scorer.of(many, model, [str(i) for i in range(20)]), Scorer.of(parts, model, past.territories)
    assert wide.homes.shape == (20, wide.inputs.shape[1] + 2 + 16)
    for number in range(2):
        np.testing.assert_allclose(wide.homes[number] @ wide.outputs.T, few.homes[number] @ few.outputs.T, atol=1e-3)
    assert wide.outputs.shape == (TITLES, wide.homes.shape[1])


def test_what_users_take_next_is_of_rows_before_the_window_and_of_recent_ones_first(past, vectors):
    """By the ridge regression of its own test, with half the weight after three windows; own rows change nothing."""
    windows = windows_before(past, 0)
    rows = [list_rows(past, window, 4.0) for window in windows]
    found = find_parts(past, 0, 1.0, rows, vectors)
    ages = np.concatenate([np.full(len(row), -row.window) for row in rows])
    pasts, wanted = (sparse.vstack([getattr(row, name) for row in rows]).tocsr() for name in ("pasts", "wanted"))
    np.testing.assert_allclose(
        found.weights[1], next_titles(pasts, wanted, 0.5 ** (ages / 3.0), found.titles), rtol=1e-5
    )
    assert not np.allclose(found.weights[1], next_titles(pasts, wanted, np.ones(len(ages)), found.titles), rtol=1e-3)
    later = find_parts(past, 0, 1.0, [*rows, list_rows(past, 0, 4.0), list_rows(past, 1, 4.0)], vectors)
    np.testing.assert_array_equal(later.weights, found.weights)
    np.testing.assert_allclose(found.follow, next_vectors(pasts, wanted, 0.5 ** (ages / 3.0), vectors), rtol=1e-4)
    np.testing.assert_array_equal(later.follow, found.follow)


def test_eight_windows_before_one_are_read():
    assert windows_before(SimpleNamespace(starts=dict.fromkeys(range(-11, 3))), 1) == list(range(-7, 1))


def test_what_is_forgotten_counts_no_longer(tmp_path, past, data, order):
    """The next scorer is that of a log without the user, and no file of the folder has the id or the user's rows."""
    events = events_of(data)
    user = events[events.split == "train"].user.value_counts().index[0]
    shutil.copytree(data.path, tmp_path / "data")
    lines = forget(user, data=[tmp_path / "data"])
    assert any("what `tfmtr index` makes, count without them" in line for line in lines)
    without = chain_data(tmp_path / "without", change=lambda events: events[events.user != user])
    forgotten = Dataset(tmp_path / "data")
    ours, theirs = order.as_of(forgotten, Past(forgotten), 1), order.as_of(without, Past(without), 1)
    for name, value in vars(ours).items():
        np.testing.assert_array_equal(value, getattr(theirs, name), err_msg=name)
    assert not np.array_equal(ours.outputs, order.as_of(data, past, 1).outputs)
    for file in (tmp_path / "data").rglob("*.parquet"):
        assert user not in pd.read_parquet(file).to_string(), file
