"""What would make lists look better than they are: labels that are shuffled, and a user's own pairs in the fit."""

import datetime

import numpy as np
import pandas as pd
import pytest
from helpers.chain_log import chain_data

from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.evaluation.index_lists import best_titles
from tfmtr.evaluation.lists import Lists
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.listwise.factors import learn, learn_factors
from tfmtr.listwise.model import ListModel, windows_before
from tfmtr.listwise.parts import Factors, find_parts
from tfmtr.listwise.past_titles import past_titles
from tfmtr.listwise.rows import first_windows, list_rows
from tfmtr.listwise.texts import unit

START = datetime.datetime(2024, 3, 1)
WINDOWS, RARE, PAIRS = 7, 50, 200


def model_of(past, data, *, popularity=False):
    """A list model of the last training windows."""
    rows = {window: list_rows(past, window, 4.0) for window in sorted(past.starts) if window <= 0}
    windows, vectors = list(rows)[-3:], unit(data.vectors("title").vectors)
    parts = [
        find_parts(past, w, 1.0, [rows[n] for n in windows_before(past, w) if n in rows], vectors) for w in windows
    ]
    factors, heads = learn(parts, [rows[window] for window in windows], first_windows(past))
    return ListModel(learn_factors(heads, popularity=True) if popularity else factors, 1.0, 0.0)


def ndcg_of(model, data, past, window):
    """Mean NDCG of all users' lists of new titles in a window."""
    there = past.is_history & (past.window == window)
    users, row = np.unique(past.user[there], return_inverse=True)
    had = past.had(users, window).toarray()
    title = past.title[there]
    is_new = ~had[row, title]
    scorer = model.as_of(data, past, window)
    ranked = best_titles(scorer.queries_of(past, users, window) @ scorer.outputs.T, ~had, 3)
    lists = Lists(ranked, np.full(len(users), "all"), row[is_new], title[is_new], num_titles=past.num_titles)
    return float(np.mean(ndcg_of_users(lists)))


def shuffled(seed):
    """Within a day, who took which title is drawn anew: what is popular stays."""
    rng = np.random.default_rng(seed)

    def change(events):
        titles = events.groupby(events.time.dt.date).title.transform(lambda titles: rng.permutation(titles.to_numpy()))
        return events.assign(title=titles)

    return change


def test_with_shuffled_labels_lists_fall_to_popularity(tmp_path):
    """What goes with the past helps where there is an order, and nothing where users took each other's titles."""
    gains = {}
    for name, changes in (("as it is", [None]), ("shuffled", [shuffled(seed) for seed in range(3)])):
        figures = {False: [], True: []}
        for number, change in enumerate(changes):
            data = chain_data(tmp_path / f"{name}-{number}", change=change)
            past = Past(data)
            for only in figures:
                model = model_of(past, data, popularity=only)
                figures[only] += [ndcg_of(model, data, past, window) for window in (1, 2)]
        gains[name] = np.mean(figures[False]) / np.mean(figures[True])
    assert gains["as it is"] > 1.3
    assert gains["shuffled"] < 1.1


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A log without any order, in whose first test window users take a rare title each: `(data, past, pairs)`."""
    folder, rng = tmp_path_factory.mktemp("planted"), np.random.default_rng(0)
    users = np.array([f"u{user:03}" for user in range(500)])
    odds = 1 / np.arange(1, 101)
    rows = []
    for user in users:
        for day in range(WINDOWS - 1):
            for title in rng.choice(100, rng.integers(1, 3), replace=False, p=odds / odds.sum()):
                rows.append((user, f"t{title:03}", day))
    chosen = rng.choice(len(users), PAIRS, replace=False)
    rows += [(users[user], f"t{100 + place % RARE:03}", WINDOWS - 2) for place, user in enumerate(chosen)]
    rows += [(users[user], f"t{100 + place:03}", 0) for place, user in enumerate(rng.choice(len(users), RARE))]
    rows += [(user, "t000", WINDOWS - 1) for user in users[:20]]  # so that there is a window after it
    events = pd.DataFrame(rows, columns=["user", "title", "day"])
    seconds = pd.to_timedelta(events.day * 86_400 + rng.integers(0, 86_000, len(events)), unit="s")
    events = events.assign(time=pd.Timestamp(START) + seconds).drop(columns="day")
    tables = {
        "events": events,
        "users": pd.DataFrame({"user": users, "territory": "DE"}),
        "titles": pd.DataFrame({"title": [f"t{i:03}" for i in range(100 + RARE)], "name": "title"}),
    }
    paths = {name: folder / f"{name}.parquet" for name in tables}
    for name, table in tables.items():
        table.to_parquet(paths[name], index=False)
    end = START + datetime.timedelta(days=WINDOWS - 2)
    calendar = Calendar(datetime.timedelta(days=1), num_train=WINDOWS - 3, num_test=2, end=end)
    columns = {name: name for name in ("user", "title", "territory", "time", "name")}
    logs = Logs(**paths, columns=columns, calendar=calendar, availability="anywhere")
    data = prepare(logs, folder / "data", test_fraction=0.4, validation_fraction=0.1, progress=False)
    return data, Past(data), [(users[user], f"t{100 + place % RARE:03}") for place, user in enumerate(chosen)]


def advantage(scorer, past, pairs, window):
    """How often a pair's user has a larger score of its title than users with a past as long, in the fit and out of it.

    `(of users in the fit, of others)`: 0.5 where the pair tells nothing.
    """
    users = np.arange(len(past.users))
    scores = scorer.queries_of(past, users, window) @ scorer.outputs.T
    lengths = np.diff(past_titles(past, users, window, None).indptr)
    is_fitted = np.zeros(len(users), bool)
    is_fitted[past.user[past.is_fitted]] = True
    found = {True: [], False: []}
    numbers, title_of = past.numbers([user for user, _ in pairs]), {name: i for i, name in enumerate(past.titles)}
    for user, (_, name) in zip(numbers, pairs, strict=True):
        title = title_of[name]
        same = np.flatnonzero((np.abs(lengths - lengths[user]) <= 1) & (users != user))
        own, others = scores[user, title], scores[same, title]
        found[bool(is_fitted[user])].append(np.mean((own > others) + 0.5 * (own == others)))
    return np.mean(found[True]), np.mean(found[False])


def test_own_pairs_of_a_window_are_in_no_score_of_it(planted):
    """The same for users in the fit and out of it; with the window's own pairs in the fit the probe sees it."""
    data, past, pairs = planted
    together = Factors(np.full((2, 5), 0.1), 1.0, np.zeros((2, 5)), np.zeros(5), np.array([50.0, 1.0, 0.1, 1.0]))
    model = ListModel(together, 1.0, 0.0)
    inside, outside = advantage(model.as_of(data, past, 1), past, pairs, 1)
    assert inside == pytest.approx(0.5, abs=0.08)
    assert outside == pytest.approx(0.5, abs=0.08)
    leaky, _ = advantage(model.as_of(data, past, 2), past, pairs, 1)  # what is known one window later
    assert leaky > 0.65
