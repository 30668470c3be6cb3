import datetime
import functools
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from rich.console import Console

from tfmtr import inputs, training
from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import write_json
from tfmtr.evaluation.evidence import compare_lists
from tfmtr.evaluation.metrics import OVERALL
from tfmtr.evaluation.past import Past
from tfmtr.operations import list_gate
from tfmtr.operations.gating import _p_value, gate
from tfmtr.operations.list_gate import choose_popularity, judge_lists, verdict
from tfmtr.operations.record import _lists
from tfmtr.retrieval.index import title_vectors
from tfmtr.run import Run
from tfmtr.schema import Schema

RECIPE = training.Recipe(units=(16, 8), epochs=6, batch_size=256, patience=6)


@pytest.fixture(scope="module")
def live(tiny, tmp_path_factory):
    run = tmp_path_factory.mktemp("gate") / "live"
    training.train(tiny, run, RECIPE, verbose=0)
    return run


@pytest.fixture(scope="module")
def data(tiny, tmp_path_factory):
    """Dataset data whose last two windows have validation rows: the tests' windows are cut off.

    What training users have is two days older than in `tiny`, and validation users had every fourth title of theirs.
    """
    path = tmp_path_factory.mktemp("gate-data") / "data"
    shutil.copytree(tiny, path)
    prepared = Dataset(path)
    (folder,) = path.glob("examples/split=validation/sampling=random/window=0")
    shutil.copytree(folder, folder.with_name("window=-1"))
    windows = [{"window": w, "start": f"2025-01-0{9 + w}", "end": f"2025-01-{10 + w:02}"} for w in (-1, 0)]
    write_json(path / "prepare.json", {**prepared.report, "windows": windows})
    catalogue = pq.read_table(path / "availability.parquet").to_pandas()
    catalogue = pd.concat([catalogue, catalogue[catalogue.window == 0].assign(window=-1)])
    catalogue.to_parquet(path / "availability.parquet", index=False)
    events = pq.read_table(path / "events.parquet").to_pandas()
    older = events[events.split == "train"]
    older = older.assign(window=older.window - 2, time=older.time - datetime.timedelta(days=2))
    own = events[events.split == "validation"]
    had = own[::4].assign(window=-1, time=pd.Timestamp("2025-01-08 06:00"))
    pd.concat([older, own, had]).to_parquet(path / "events.parquet", index=False)
    return path


@pytest.fixture
def popular(data, tmp_path):
    """The same with what is popular among training users telling some of what validation users will like."""
    path = tmp_path / "popular"
    shutil.copytree(data, path)
    (file,) = path.glob("examples/split=validation/sampling=random/window=0/*.parquet")
    liked = pq.read_table(file, partitioning=None).to_pandas()
    liked = liked[(liked.event > 0) & (liked.title_row % 3 == 0)]
    users = pq.read_table(path / "users.parquet").to_pandas()[:40]
    events = liked[["title", "territory"]].merge(users[["user", "territory"]], on="territory")[["user", "title"]]
    events = events.assign(window=-1, time=pd.Timestamp("2025-01-08 09:00"), split="train", is_history=True)
    events = pd.concat([pq.read_table(path / "events.parquet").to_pandas(), events])
    events.to_parquet(path / "events.parquet", index=False)
    return path


@pytest.fixture
def worst(live, tmp_path):
    """A copy of the live model whose titles' vectors point the other way: its lists are the live one's from behind."""
    folder = tmp_path / "worst"
    shutil.copytree(live, folder)
    file = Run(folder).weights()
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    for name in ("model/29", "model/30"):  # the title tower's last kernel and bias
        arrays[name] = -arrays[name]
    np.savez(file, **arrays)
    return folder


def held(live, candidate, data):
    """What `judge_lists` says of two runs."""
    runs = [(Run(run).load(), Schema.load(run)) for run in (live, candidate)]
    return judge_lists(runs, Dataset(data))


def lists_by_hand(data, scores):
    """Mean NDCG at 10 of validation users in window 0, from the files.

    Args:
        data: The directory.
        scores: Function of an example row, the titles it may be given and all events before; returns scores.
    """
    (file,) = data.glob("examples/split=validation/sampling=random/window=0/*.parquet")
    rows = pq.read_table(file, partitioning=None).to_pandas()
    events = pq.read_table(data / "events.parquet").to_pandas()
    before = events[events.window < 0]
    catalogue = pq.read_table(data / "availability.parquet").to_pandas()
    found = []
    for user, own in rows[rows.event > 0].groupby("user"):
        had = set(before[before.user == user].title)
        wanted = set(own.title) - had
        home = own.territory.iloc[0]
        allowed = catalogue[(catalogue.territory == home) & (catalogue.window == 0)].title
        allowed = sorted(set(allowed) - had, key=lambda title: int(title[1:]))
        if not wanted:
            continue
        own_scores = scores(own.iloc[[0]], allowed, before)
        order = sorted(range(len(allowed)), key=lambda i: tuple(-np.atleast_1d(own_scores[i])))[:10]
        gains = [(allowed[place] in wanted) / np.log2(2 + rank) for rank, place in enumerate(order)]
        found.append(sum(gains) / sum(1 / np.log2(2 + rank) for rank in range(min(10, len(wanted)))))
    return float(np.mean(found)), len(found)


def scores_of(run, data):
    """A function for `lists_by_hand`: the model's own scores, from its two towers."""
    data, model, schema = Dataset(data), Run(run).load(), Schema.load(run)
    titles = title_vectors(model, data, schema)
    place, stores = {title: i for i, title in enumerate(titles.ids)}, inputs.open_stores(data)

    def scores(row, allowed, before):
        x = inputs.model_inputs(pa.Table.from_pandas(row, preserve_index=False), schema, stores)
        query = model.user_tower.predict_on_batch({name: x[name] for name in model.user_tower.input})["event"][0]
        return titles.vectors[[place[title] for title in allowed]] @ query

    return scores


def counts_of(data):
    """A function for `lists_by_hand`: training users' events in the territory, then everywhere."""
    users = pq.read_table(data / "users.parquet").to_pandas()[["user", "territory"]]

    def scores(row, allowed, before):
        events = before[before.split == "train"].merge(users, on="user")
        here = events[events.territory == row.territory.iloc[0]].title.value_counts()
        everywhere = events.title.value_counts()
        return [(here.get(title, 0), everywhere.get(title, 0)) for title in allowed]

    return scores


def changed(live, folder, change):
    """A copy of a run whose newest weights went through `change`."""
    shutil.copytree(live, folder)
    file = Run(folder).weights()
    with np.load(file) as archive:
        arrays = {name: archive[name] for name in archive.files}
    rng = np.random.default_rng(0)
    for name, value in arrays.items():
        if name.startswith("model/") and value.dtype == np.float32:
            arrays[name] = change(value, rng)
    np.savez(file, **arrays)
    return folder


def test_the_same_model_passes(live, data):
    found = gate(live, live, data)
    assert (found["is_open"], found["reasons"]) == (True, [])
    cell = found["parts"]["last"]["event"]["territory"][OVERALL]
    assert cell["change"] == 0.0
    assert cell["live"] == cell["candidate"] > 0.25  # prevalence is about .2


def test_a_worse_model_does_not_and_the_reason_says_where(live, data, tmp_path):
    worse = changed(live, tmp_path / "worse", lambda value, rng: rng.permutation(value.ravel()).reshape(value.shape))
    found = gate(live, worse, data, max_shift=0.1)
    assert not found["is_open"]
    assert any("event is down by" in reason and "overall, in the last window" in reason for reason in found["reasons"])
    drop = -found["parts"]["last"]["event"]["territory"][OVERALL]["change"]
    assert f"{drop:.1%}" in " ".join(found["reasons"])
    assert gate(worse, live, data)["is_open"]  # better is never a reason
    again = gate(live, worse, data, max_drop=drop + 0.05, max_shift=1.0)
    for part, tasks in again["parts"].items():
        cells = found["parts"][part]["event"]["territory"]
        assert {name: cell["change"] for name, cell in tasks["event"]["territory"].items()} == {
            name: cell["change"] for name, cell in cells.items()
        }


def test_answers_that_are_no_numbers_close_it(live, data, tmp_path):
    broken = changed(live, tmp_path / "broken", lambda value, rng: np.full_like(value, np.nan))
    found = gate(live, broken, data)
    assert not found["is_open"]
    assert any("answers are not finite" in reason for reason in found["reasons"])


def test_answers_that_are_no_numbers_in_one_part_are_a_reason_too(live, data, monkeypatch):
    from tfmtr.operations import gating as module

    original, calls = module.predict, []

    def broken_once(model, files, *arguments, **options):
        values, users, positives = original(model, files, *arguments, **options)
        calls.append(files)
        if len(calls) == 2:  # the new model, in the last window
            values["event score"] = np.full_like(values["event score"], np.nan)
        return values, users, positives

    monkeypatch.setattr(module, "predict", broken_once)
    found = gate(live, live, data)
    assert not found["is_open"]
    assert len(found["reasons"]) == 1
    assert "answers are not finite, in the last window" in found["reasons"][0]


def test_a_window_unlike_those_before_closes_it(live, data, monkeypatch):
    from tfmtr.operations import gating as module

    original = module.predict

    def without_meaning(model, files, *arguments, **options):
        values, users, positives = original(model, files, *arguments, **options)
        if all("window=0" in str(file) for file in files):
            values["event"] = np.random.default_rng(1).permutation(values["event"])
        return values, users, positives

    monkeypatch.setattr(module, "predict", without_meaning)
    found = gate(live, live, data, max_shift=0.1)
    assert any("unlike those before" in reason for reason in found["reasons"])


def test_a_territory_counts_beyond_chance_only():
    rng = np.random.default_rng(0)
    labels, users = rng.normal(size=400), np.repeat(np.arange(100), 4)
    far, near = labels + rng.normal(size=400), labels + rng.normal(size=400)
    assert _p_value(labels, [near, far], users, "regression", 500) > 0.05
    assert _p_value(labels, [labels + 0.1, far], users, "regression", 500) < 0.01


def test_one_territory_closes_it_where_all_together_are_well(live, data, monkeypatch):
    """Seven territories of equal size get better, one gets worse; a ninth has ten users."""
    from tfmtr.operations import gating as module

    rng = np.random.default_rng(0)
    territory = np.repeat([f"T{i}" for i in range(8)] + ["tiny"], [*[600] * 8, 40])
    users, labels = np.arange(len(territory)) // 4, (rng.random(len(territory)) < 0.2).astype("float32")
    noise = rng.random(len(territory))
    old = np.clip(0.3 * labels + 0.7 * noise, 0, 1)
    new = np.where(np.isin(territory, ["T3", "tiny"]), noise, np.clip(0.45 * labels + 0.55 * noise, 0, 1))
    answers = iter([old, new, old, new])

    def predict(*arguments, columns):
        names = dict.fromkeys(columns, territory)  # the groups are as the territories
        return {"event": labels, "event score": next(answers), **names}, users, None

    monkeypatch.setattr(module, "predict", predict)
    reasons = gate(live, live, data, num_samples=200)["reasons"]
    assert len(reasons) == 4  # in the last window, and before it
    assert all("event is down by" in reason for reason in reasons)
    for column in ("territory", "scenario"):
        assert sum(f"in {column} T3 (p 0." in reason for reason in reasons) == 2


def test_a_drop_that_chance_alone_makes_is_a_note(live, data, monkeypatch):
    """The same two models, on 30 users and on 3,000: figures are down alike, beyond chance on the many alone."""
    from tfmtr.operations import gating as module

    for times, is_open in ((1, True), (100, False)):
        rng = np.random.default_rng(2)
        rows = 480 * times
        users, labels = np.arange(rows) // 16, (rng.random(rows) < 0.2).astype("float32")
        noise = rng.random((2, rows))
        scores = [(0.3 * labels + noise[0]) / 1.3, (0.24 * labels + noise[1]) / 1.3]
        answers = iter([*scores, *scores])

        def predict(*arguments, columns, labels=labels, users=users, answers=answers):
            slices = {"event": labels, "event score": next(answers)} | dict.fromkeys(
                columns, np.full(len(labels), "DE")
            )
            return slices, users, None

        monkeypatch.setattr(module, "predict", predict)
        found = gate(live, live, data, num_samples=300)
        cell = found["parts"]["last"]["event"]["territory"][OVERALL]
        assert -0.15 < cell["change"] < -0.1
        assert found["is_open"] == is_open == (cell["p_value"] > 0.05)
        text = f"event is down by {-cell['change']:.1%} overall"
        if is_open:
            assert f"{text}, within chance (p {cell['p_value']:.3f}), in the last window" in found["notes"]
            answers = iter([*scores, *scores])
            monkeypatch.setattr(module, "predict", functools.partial(predict, answers=answers))
            found = gate(live, live, data, max_shift=0.1, num_samples=300)
            assert f"{text}, in the last window" in found["reasons"]  # so far down that chance is no excuse
        else:
            assert f"{text}, in the last window" in found["reasons"]


def test_limits_and_rows_are_checked(live, data, tiny):
    with pytest.raises(ValueError, match="`max_drop` must be positive"):
        gate(live, live, data, max_drop=0)
    found = gate(live, live, tiny)
    assert not found["is_open"]
    assert found["reasons"][0].startswith("no row of a validation user in the last window")


def test_lists_are_those_that_counting_and_both_towers_give(live, worst, data):
    found = held(live, worst, data)["lists"]
    assert found["popularity"]["name"] == "popularity"  # the first of equal ones
    popular, users = lists_by_hand(data, counts_of(data))
    assert (found["users"], found["live"]["users"]) == (users, users)
    assert found["popularity"]["ndcg"] == pytest.approx(popular, abs=1e-12)
    for name, run in (("live", live), ("candidate", worst)):
        expected, _ = lists_by_hand(data, scores_of(run, data))
        assert found[name]["ours"] == pytest.approx(expected, abs=1e-6)
        assert found[name]["ratio"] == pytest.approx(expected / popular, abs=1e-6)
    assert found["left_out"]["positives"] > 0
    text = Console(width=80).render_lines(_lists(found))
    text = "\n".join("".join(part.text for part in line) for line in text)
    assert f"{found['candidate']['ours']:.4f}" in text


def test_lists_below_popularity_close_it_where_the_live_ones_are_not(live, worst, popular):
    limits = {"max_drop": 5.0, "max_shift": 5.0}
    found = gate(live, worst, popular, **limits)
    assert not found["is_open"]
    (reason,) = found["reasons"]
    assert "the new model's lists are below popularity's, and the live model's are not: NDCG 0." in reason
    cell = found["lists"]["candidate"]
    assert f"the ratio to popularity is {cell['ratio']:.2f} ({cell['low']:.2f} to {cell['high']:.2f})" in reason
    both = gate(worst, worst, popular, **limits)
    assert (both["is_open"], both["reasons"]) == (True, [])
    (note,) = both["notes"]
    assert "and so are the live model's" in note
    (note,) = gate(worst, live, popular, **limits)["notes"]
    assert "the new model's lists are below popularity's, within chance: NDCG 0." in note


def test_lists_above_popularity_are_not_worth_a_note(live, worst, data):
    found = held(worst, live, data)
    assert found["lists"]["candidate"]["ratio"] > 1
    assert (found["reasons"], found["notes"]) == ([], [])


def test_lists_without_any_positive_are_below_popularity_by_chance_or_not():
    """A user is drawn without one of those that popularity has a positive for."""
    users = pd.DataFrame({"user": range(50), "window": 0})
    rng = np.random.default_rng(0)
    for number, expected in ((1, False), (2, False), (5, True)):
        popular = users.assign(value=np.where(np.arange(50) < number, 0.5, 0.0))
        cell = compare_lists(users.assign(value=0.0), popular)
        drawn = rng.integers(50, size=(20_000, 50))
        assert cell["p_value"] == pytest.approx(min(1, 2 * np.mean((drawn >= number).all(axis=1))), abs=0.04)
        assert (cell["ratio"], cell["low"], cell["detectable"]) == (0.0, 0.0, None)
        reasons, notes = verdict({**cell, "ours": 0.6, "p_value": 1.0}, cell, "popularity")
        assert (len(reasons), len(notes)) == ((1, 0) if expected else (0, 1))
        assert (
            f"the ratio to popularity is 0.00 (0.00 to {'0.00' if expected else '1.00'}), p 0." in (reasons + notes)[0]
        )
    nothing = compare_lists(users.assign(value=0.0), users.assign(value=0.0), num_samples=100)
    assert verdict(nothing, nothing, "popularity") == ([], [])


def test_recent_popularity_is_taken_where_it_did_better_before(data, tmp_path):
    path = tmp_path / "recent"
    shutil.copytree(data, path)
    (file,) = path.glob("examples/split=validation/sampling=random/window=-1/*.parquet")
    rows = pq.read_table(file, partitioning=None).to_pandas()
    liked = rows[rows.event > 0].title.value_counts().index[:10]
    home = pq.read_table(path / "users.parquet").to_pandas()[:100]
    title = np.concatenate([np.repeat(liked, 100), np.repeat([f"t{i}" for i in range(50)], 400)])
    time = np.where(np.arange(len(title)) < 1000, np.datetime64("2025-01-07T18"), np.datetime64("2024-12-01"))
    user = np.tile(home.user, len(title) // 100)
    events = {"user": user, "title": title, "time": time.astype("datetime64[us]"), "window": -2, "split": "train"}
    events = pd.DataFrame({**events, "is_history": True})
    events = events[~((events.time < "2025-01-01") & events.title.isin(liked))]
    events.to_parquet(path / "events.parquet", index=False)
    prepared = Dataset(path)
    assert choose_popularity(prepared, Past(prepared), k=10) == ("recent", {"days": 2.0, "by_territory": True})
    shutil.rmtree(file.parent)  # nothing to judge by
    assert choose_popularity(prepared, Past(prepared), k=10) == ("popularity", {"by_territory": True})


def test_where_nothing_can_be_said_of_lists_a_note_says_why(live, data, tmp_path, monkeypatch):
    path = tmp_path / "few"
    shutil.copytree(data, path)
    events = pq.read_table(path / "events.parquet").to_pandas()
    again = events[(events.user == "u140") & (events.window == 0)].assign(window=-1)
    pd.concat([events, again]).to_parquet(path / "events.parquet", index=False)
    found = gate(live, live, path)
    assert (found["is_open"], found["lists"]) == (True, None)
    (note,) = found["notes"]
    assert "19 validation users liked a title in the last window that was new to them, 20 needed" in note
    own = found["list_values"]
    assert [len(own[name]) for name in ("live", "candidate", "popularity")] == [19] * 3
    day_before = {"live": [0.5, 0.5], "candidate": [0.25, 0.75], "popularity": [1.0, 0.5]}
    pooled = gate(live, live, path, earlier=[day_before, own])
    assert pooled["list_values"] == own
    assert (pooled["lists"]["users"], pooled["lists"]["days"]) == (21, 2)  # the third day is not needed
    for name in ("live", "candidate"):
        assert pooled["lists"][name]["ours"] == pytest.approx((sum(own[name]) + 1.0) / 21)
    assert pooled["lists"]["popularity"]["ndcg"] == pytest.approx((sum(own["popularity"]) + 1.5) / 21)
    text = Console(width=80).render_lines(_lists(pooled["lists"]))
    assert "lists of 21 users in 2 days" in "".join(part.text for part in text[0] + text[1])
    alone = {name: values[:1] for name, values in day_before.items()}
    monkeypatch.setattr(list_gate, "LEAST_USERS", 21)
    (note,) = gate(live, live, path, earlier=[alone])["notes"]
    assert "20 validation users liked a title in the last 2 days that was new to them, 21 needed" in note
    (path / "events.parquet").unlink()
    found = gate(live, live, path)
    assert (found["is_open"], found["lists"]) == (True, None)
    assert found["notes"] == [
        "lists were not held against popularity: the data have no events.parquet, which tells what users had; prepare "
        "them again"
    ]
    model = Run(live).load()
    runs = [(object(), None), (model, Schema.load(live))]
    assert "a model without a title index makes none" in judge_lists(runs, Dataset(data))["notes"][0]
