"""What masks and baselines know is what the model may know, and nothing of a window or of later."""

import datetime
import shutil

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.evaluation.baseline_lists import catalogue_of, positives_of
from tfmtr.evaluation.index_lists import AmongCase, ListCase, best_titles
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import evaluate_lists

START = datetime.datetime(2024, 1, 3)  # of what may be used: two days are before it
END = datetime.datetime(2024, 1, 9)


def small_log(folder, seed=0):
    """Events of twelve days; `Logs` with a calendar that neither begins nor ends with them."""
    rng = np.random.default_rng(seed)
    users = pd.DataFrame({"user": [f"u{i:03}" for i in range(150)], "territory": rng.choice(["DE", "FR"], 150)})
    titles = pd.DataFrame({"title": [f"t{i:02}" for i in range(40)], "name": [f"film {i}" for i in range(40)]})
    chosen = rng.choice(titles.title, 2500, p=np.arange(1, 41) / 820)
    events = pd.DataFrame({"user": rng.choice(users.user, 2500), "title": chosen})
    events["time"] = pd.Timestamp(2024, 1, 1) + pd.to_timedelta(rng.integers(0, 12 * 86_400, 2500), unit="s")
    events = pd.concat([events, events[:30]], ignore_index=True)  # rows that come twice
    paths = {name: folder / f"{name}.parquet" for name in ("events", "users", "titles")}
    for name, table in (("events", events), ("users", users), ("titles", titles)):
        table.to_parquet(paths[name], index=False)
    calendar = Calendar(datetime.timedelta(days=1), num_train=4, num_test=2, end=END, start=START)
    columns = {name: name for name in ("user", "title", "territory", "time", "name")}
    return events, Logs(**paths, columns=columns, calendar=calendar, availability="anywhere")


@pytest.fixture(scope="module")
def case(tmp_path_factory):
    folder = tmp_path_factory.mktemp("past")
    events, logs = small_log(folder)
    options = {"test_fraction": 0.3, "validation_fraction": 0.2, "progress": False}
    return events, prepare(logs, folder / "data", **options)


def start_of(window):
    return END + datetime.timedelta(days=window - 1)


def splits_of(data):
    """`{user: split}`, as the examples have it."""
    found = {}
    for file in data.path.glob("examples/*/*/*/*.parquet"):
        split = file.parts[-4].partition("=")[2]
        found |= dict.fromkeys(pq.ParquetFile(file).read(["user"])["user"].to_pylist(), split)
    return found


@pytest.mark.parametrize("window", [-1, 1, 2, 3])
def test_the_history_is_what_was_between_the_calendar_s_start_and_the_window(case, window):
    events, data = case
    past = Past(data)
    history = past.history(window)
    known = events[(events.time >= START) & (events.time < start_of(window))].drop_duplicates()
    ids = pq.read_table(data.path / "titles.parquet")["title"].to_numpy()
    users = past.users.to_numpy(zero_copy_only=False)
    found = pd.DataFrame({"user": users[history.users], "title": ids[history.titles], "age": history.age})
    found = found.sort_values(["user", "title", "age"], ignore_index=True)
    known = known.assign(age=(start_of(window) - known.time) / datetime.timedelta(days=1))
    known = known.drop(columns="time").sort_values(["user", "title", "age"], ignore_index=True)
    pd.testing.assert_frame_equal(found, known, check_dtype=False, atol=1e-9)
    # Fitted is what training users did: never what a test or a validation user did.
    splits = splits_of(data)
    fitted = {user for user, is_fitted in zip(users[history.users], history.fitted, strict=True) if is_fitted}
    others = set(users[history.users]) - fitted
    assert {splits[user] for user in fitted} == {"train"}
    assert {splits[user] for user in others if user in splits} == {"validation", "test"}
    assert len(fitted) > 50 < len(others)


@pytest.mark.parametrize("window", [1, 2, 3])
def test_a_baseline_sees_the_events_that_the_model_sees(case, window):
    """A model's user vector is the mean of the titles before the window: those of the baselines' history, no others."""
    _, data = case
    past = Past(data)
    history = past.history(window)
    store = pq.read_table(data.path / "vectors/user/ids.parquet").to_pandas()
    newest = store[store.window <= window].groupby("user").window.idxmax()
    vectors, titles = data.vectors("user").vectors, data.vectors("title").vectors
    users = past.users.to_numpy(zero_copy_only=False)
    for number, user in enumerate(users):
        had = np.unique(history.titles[history.users == number])
        expected = titles[had].mean(axis=0) if len(had) else np.zeros(titles.shape[1])
        np.testing.assert_allclose(vectors[newest[user]], expected, atol=1e-5)
    # And what it is trained on: every positive of a training user before the window is there to be fitted on.
    ids = pq.read_table(data.path / "titles.parquet")["title"].to_numpy()
    fitted = set(zip(users[history.users[history.fitted]], ids[history.titles[history.fitted]], strict=True))
    files = data.examples("train", windows=range(-3, window), sampling=("random", "active"))
    rows = pd.concat(pq.ParquetFile(file).read().to_pandas() for file in files)
    trained = rows[rows.event > 0]
    assert set(zip(trained.user, trained.title, strict=True)) <= fitted
    assert len(trained) > 100


@pytest.mark.parametrize("window", [1, 2])
def test_lists_leave_out_what_was_before_the_window_and_nothing_later(case, window):
    events, data = case
    past = Past(data)
    users = past.users.to_numpy(zero_copy_only=False)[::7]
    ids = pq.read_table(data.path / "titles.parquet")["title"].to_numpy()
    had = past.had(past.numbers(users), window).toarray()
    for row, user in enumerate(users):
        before = events[(events.user == user) & (events.time < start_of(window))]  # also before the calendar's start
        assert set(ids[had[row]]) == set(before.title)
    kept = pd.read_parquet(data.path / "events.parquet")
    assert kept[kept.time.isna()].window.unique().tolist() == [-4]  # not even their order is known
    assert (kept.time.isna().sum()) == len(events.loc[events.time < START, ["user", "title"]].drop_duplicates())


def test_an_oracle_is_perfect_and_chance_is_ten_of_the_catalogue(case):
    _, data = case
    past, rng, window = Past(data), np.random.default_rng(0), 1
    positives = positives_of(data, data.examples("test", windows=[window]))
    case = ListCase(positives, catalogue_of(data, window), most=1000, past=past, window=window)
    titles = positives["title_row"].to_numpy()
    wanted = {user: titles[positives["user"].to_numpy() == user] for user in case.users}

    def oracle(rows, allowed):
        score = np.zeros(allowed.shape)
        for row, user in enumerate(rows["user"].to_pylist()):
            score[row, wanted[user]] = 1.0
        return best_titles(score, allowed, 10)

    cell = evaluate_lists(case.lists(oracle))["overall"]
    assert cell["ndcg"] == cell["capped_recall"] == cell["hit_rate"] == 1.0
    assert case.left_out["positives"] > 0  # discoveries of titles that were had long before
    recalls, shares = [], [case.allowed(0, 1000).sum(axis=1)]
    for _ in range(200):
        chance = case.lists(lambda rows, allowed: best_titles(rng.random(allowed.shape), allowed, 10))
        recalls.append(evaluate_lists(chance)["overall"]["recall"])
    assert np.mean(recalls) == pytest.approx(np.mean(10 / shares[0]), rel=0.05)


def test_each_positive_is_ranked_among_random_titles_that_the_user_did_not_have(case):
    _, data = case
    past, window = Past(data), 1
    positives = positives_of(data, data.examples("test", windows=[window]))
    whole = ListCase(positives, catalogue_of(data, window), most=1000, past=past, window=window)
    among = AmongCase(whole, 6)
    allowed = np.concatenate([among.allowed(i, i + 256) for i in range(0, len(among.rows), 256)])
    assert len(allowed) == len(whole.positive_titles)
    assert allowed[np.arange(len(allowed)), among.positive_titles].all()
    for row, owner in enumerate(whole.positive_users):
        others = np.setdiff1d(np.flatnonzero(allowed[row]), [among.positive_titles[row]])
        assert not np.isin(others, whole.positive_titles[whole.positive_users == owner]).any()
        assert whole.allowed(owner, owner + 1)[0, others].all()  # of the catalogue, and not had
    assert np.median(allowed.sum(axis=1)) == 6
    np.testing.assert_array_equal(allowed[:256], AmongCase(whole, 6).allowed(0, 256))  # the same for all that are asked
    rng = np.random.default_rng(7)
    cell = evaluate_lists(among.lists(lambda rows, allowed: best_titles(rng.random(allowed.shape), allowed, 3)))
    assert cell["overall"]["hit_rate"] == pytest.approx(3 / 6, abs=0.2)  # chance
    with pytest.raises(ValueError, match=r"`among` must be an integer, 2 or more"):
        AmongCase(whole, 1)


def test_users_whose_positives_are_all_masked_leave_both_sides_and_are_counted(case):
    _, data = case
    past, window = Past(data), 2
    positives = positives_of(data, data.examples("test", windows=[window]))
    user = positives["user"][0].as_py()
    number = past.numbers([user])[0]
    had = np.flatnonzero(past.had([number], window).toarray()[0])
    assert len(had)
    again = pa.table({"user": [user], "territory": [positives["territory"][0].as_py()], "title_row": had[:1]})
    others = positives.filter(pa.array(positives["user"].to_numpy() != user))
    table = pa.concat_tables([again.cast(others.schema), others])
    catalogue = catalogue_of(data, window)
    with_user = ListCase(table, catalogue, most=1000, past=past, window=window)
    without = ListCase(others, catalogue, most=1000, past=past, window=window)
    assert user not in with_user.users
    assert (with_user.users == without.users).all()
    assert (with_user.positive_titles == without.positive_titles).all()
    assert with_user.left_out == {key: value + 1 for key, value in without.left_out.items()}
    assert user in ListCase(table, catalogue, most=1000).users  # where repeats are allowed


@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.parametrize("share", [1.0, 0.5, 0.01, 0.0])
def test_best_titles_of_large_catalogues_are_those_of_a_sort(share, dtype):
    """Groups of titles are looked at first; catalogues of which groups have all sizes, ties and few allowed titles."""
    rng = np.random.default_rng(0)
    for titles in (1, 32, 64, 65, 1_000, 1_031):
        scores = np.round(3 * rng.normal(size=(20, titles))).astype(dtype)
        allowed = rng.random(scores.shape) < share
        found = best_titles(scores, allowed, 2)
        for row, own, may in zip(found, scores, allowed, strict=True):
            expected = [title for title in np.argsort(-own, kind="stable") if may[title]][:2]
            assert row.tolist() == expected + [-1] * (min(2, titles) - len(expected))


def test_best_titles_keeps_the_order_of_titles_where_scores_tie():
    rng = np.random.default_rng(0)
    scores, allowed = rng.integers(0, 4, (50, 30)).astype(float), rng.random((50, 30)) < 0.5
    allowed[0] = False
    found = best_titles(scores, allowed, 8)
    for row in range(50):
        expected = sorted(np.flatnonzero(allowed[row]), key=lambda title: (-scores[row, title], title))[:8]
        assert found[row].tolist() == [*expected, *[-1] * (8 - len(expected))]
    assert best_titles(scores, allowed, 100).shape == (50, 30)


def test_data_that_do_not_tell_what_users_had_are_refused(case, tmp_path):
    shutil.copytree(case[1].path, tmp_path / "data")
    (tmp_path / "data" / "events.parquet").unlink()
    with pytest.raises(
        ValueError, match=r"must have events.parquet, which tells what users had; prepare the data again"
    ):
        Past(Dataset(tmp_path / "data"))


def test_times_may_have_milliseconds(case, tmp_path):
    _, data = case
    shutil.copytree(data.path, tmp_path / "data")
    file = tmp_path / "data" / "events.parquet"
    events = pq.read_table(file).to_pandas()
    events["time"] += pd.Timedelta(milliseconds=250)
    events.to_parquet(file, index=False)
    whole, later = Past(data).history(1), Past(Dataset(tmp_path / "data")).history(1)
    is_older = whole.age > 2 / 86_400
    np.testing.assert_allclose(whole.age[is_older] - later.age[is_older], 0.25 / 86_400, atol=1e-9)
    assert later.age.min() > 0
