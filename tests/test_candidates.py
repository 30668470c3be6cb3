"""Examples of a second stage from a first stage's lists, and what is trained, evaluated, exported and served of them.

Tests `tfmtr.candidates`, `tfmtr.retrieval.first_stage` and `tfmtr prepare candidates`.
"""

import functools
import json
import re
import shutil

import ibis
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from helpers.chain_log import TITLES, chain_data
from helpers.untraced import untraced
from typer.testing import CliRunner

import tfmtr
from tfmtr import cli, inputs, training
from tfmtr.candidates import Numbers, find_rows, prepare_candidates
from tfmtr.datasets.dataset import Dataset
from tfmtr.evaluation import two_stage_lists
from tfmtr.evaluation.baseline_lists import catalogue_of, positives_of, validation_cases
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.evaluation.index_lists import ListCase
from tfmtr.evaluation.past import Past
from tfmtr.evaluation.ranking import ndcg_of_users
from tfmtr.evaluation.two_stage_lists import FirstStage, after_both, choose_first_weight, scores_at, second_scores
from tfmtr.exporting import export
from tfmtr.operations.forgetting import forget
from tfmtr.reporting.lists_section import describe_lists
from tfmtr.reporting.runs import read_models
from tfmtr.retrieval.first_stage import FirstStageFeatures, feature_names
from tfmtr.run import Run
from tfmtr.serving.local import serve
from tfmtr.serving.recommendations import history_inputs, read_history, recommend

CANDIDATES, NEGATIVES, K = 12, 6, 5
COUNTERS = ("title", "title,territory")
SMALL = {"epochs": 1, "batch_size": 500, "deterministic": False}
RANKING = training.Recipe(form="ranking", share="shared_bottom", **SMALL | {"epochs": 4, "learning_rate": 0.02})


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("candidates")
    log = chain_data(folder / "log", counters=COUNTERS)
    with untraced():
        training.train(log, folder / "first", training.Recipe(units=(8, 4), **SMALL), verbose=0)
        prepare_candidates(folder / "first", folder / "data", candidates=CANDIDATES, negatives=NEGATIVES)
        training.train(folder / "data", folder / "second", RANKING, verbose=0)
    return folder


@pytest.fixture(scope="module")
def first(folder):
    return Run(folder / "first")


@pytest.fixture(scope="module")
def data(folder):
    return Dataset(folder / "data")


@pytest.fixture(scope="module")
def plain(folder):
    """The first stage without its list model."""
    shutil.copytree(folder / "first", folder / "plain")
    (folder / "plain/listwise.npz").unlink()
    return folder / "plain"


def rows_of(data, split, window):
    return pa.concat_tables(pq.read_table(file, partitioning=None) for file in data.examples(split, windows=[window]))


def test_rows_are_what_was_taken_and_some_of_what_was_passed_over_of_lists_as_of_the_window(first, data):
    """Candidates, labels and evidence from the list model's equation, user by user."""
    past, log, checked = Past(first.data), first.data, 0
    assert [row["window"] for row in data.report["examples"] if row["split"] == "train"] == [-2, -1, 0, 1, 2]
    for split, window in (("train", -2), ("train", 0), ("validation", -1), ("test", 2)):
        scorer = first.list_model.as_of(log, past, window)
        taken = positives_of(log, log.examples(split, windows=[window], sampling=("random", "active")))
        case = ListCase(taken, catalogue_of(log, window), most=1000, past=past, window=window)
        rows, users = rows_of(data, split, window).to_pandas(), []
        for number, user in enumerate(case.users):
            query = scorer.queries_of(past, past.numbers([user]), window)[0]
            scores = scorer.outputs @ query
            allowed = case.allowed(number, number + 1)[0]
            best = np.argsort(-np.where(allowed, scores, -np.inf), kind="stable")[: min(CANDIDATES, allowed.sum())]
            had = set(case.positive_titles[case.positive_users == number]) & set(best)
            own = rows[rows.user == user]
            if not had:
                assert own.empty
                continue
            users.append(user)
            assert set(own.title_row[own.event == 1]) == had
            assert set(own.title_row) <= set(best)
            assert len(own) == own.title_row.nunique() == min(len(had) + NEGATIVES, len(best))
            assert [f"t{title:02}" for title in own.title_row] == own.title.tolist()
            assert (own.territory == taken.to_pandas().set_index("user").territory.loc[[user]].iloc[0]).all()
            place = {title: np.sum(scores[best] > scores[title] + 1e-5 * (1 + abs(scores[title]))) for title in best}
            np.testing.assert_allclose(own.first_stage_score, scores[own.title_row], atol=1e-5)
            np.testing.assert_allclose(own.first_stage_rank, np.log1p([place[t] for t in own.title_row]), atol=1e-5)
            width = scorer.inputs.shape[1]
            past_part = scorer.outputs[:, :width] @ query[:width]
            np.testing.assert_allclose(own.first_stage_past, past_part[own.title_row], atol=1e-5)
            added = own.first_stage_past + own.first_stage_popularity + own.first_stage_activity
            np.testing.assert_allclose(own.first_stage_score, added, atol=1e-5)
            earlier = len({*past.title[(past.user == past.numbers([user])[0]) & (past.window < window)]})
            np.testing.assert_allclose(own.first_stage_titles_had, np.log1p(earlier) - 2, atol=1e-5)
            checked += 1
        assert rows.user.drop_duplicates().tolist() == users
        counts = np.bincount(past.title[past.is_history & past.is_fitted & (past.window < window)], minlength=TITLES)
        shares = np.log((counts + 0.1) / (counts + 0.1).sum())
        np.testing.assert_allclose(rows.first_stage_share_4, shares[rows.title_row], atol=1e-5)
    assert checked > 60


def test_rows_have_counters_of_their_own_title_as_of_the_window(data):
    assert len(data.schema.counters) == 2
    for split, window in (("train", 0), ("test", 2)):
        rows = rows_of(data, split, window).to_pandas()
        for name, keys in (("title", ["title"]), ("title_territory", ["title", "territory"])):
            stored = pq.read_table(data.path / f"counters/{name}.parquet", filters=[("window", "=", window)])
            both = rows.merge(stored.to_pandas(), on=keys, how="left", suffixes=("", "_stored"))
            feature = f"count_{name}_event_2d"
            assert both[feature].nunique() > 5
            np.testing.assert_array_equal(both[feature], both[f"{feature}_stored"].fillna(0.0))


def test_what_is_known_of_a_window_is_from_before_it(first):
    log, past, cut = first.data, Past(first.data), Past(first.data)
    for window in (0, 2):
        is_before = cut.window < window
        for name in ("user", "title", "window", "second", "is_fitted", "is_history"):
            setattr(cut, name, getattr(past, name)[: len(past.window)][past.window < window])
        assert not is_before.all()
        whole, early = (FirstStageFeatures.as_of(first.list_model, log, one, window) for one in (past, cut))
        np.testing.assert_array_equal(whole.shares, early.shares)
        np.testing.assert_array_equal(whole.scorer.outputs, early.scorer.outputs)
        cut = Past(log)


def test_users_keep_their_split_and_what_is_left_out_is_counted(first, data):
    facts, seen = data.report["candidates"], {}
    assert facts["run_id"] == first.run_id
    assert data.log_fingerprint == first.data.report["fingerprint"] != data.report["fingerprint"]
    for split in ("train", "validation", "test"):
        files = sorted(data.path.glob(f"examples/split={split}/**/*.parquet"))
        table = pa.concat_tables(pq.read_table(file, partitioning=None) for file in files)
        seen[split] = set(table["user"].to_pylist())
        assert pc.sum(table["event"]).as_py() == facts["among_candidates"][split] < facts["taken"][split]
        took = sum(row["positives"] for row in first.data.report["examples"] if row["split"] == split)
        assert facts["taken"][split] + facts["again"][split] + facts["early"].get(split, 0) == took
        before = first.data.path.glob(f"examples/split={split}/**/*.parquet")
        assert seen[split] <= {u for file in before for u in pq.read_table(file)["user"].to_pylist()}
    assert facts["early"]["train"] > 0
    assert not seen["train"] & seen["test"]
    positives = [
        sum(map(len, (pq.read_table(f) for f in d.discoveries("test", windows=[2])))) for d in (first.data, data)
    ]
    assert positives[0] == positives[1]


def test_the_schema_has_the_evidence_and_the_mean_labels_of_the_rows(data):
    rows = pa.concat_tables(rows_of(data, "train", window) for window in (-2, -1, 0)).to_pandas()
    pairs = data.schema.evidence
    assert tuple(feature.name for feature in pairs) == feature_names(5)
    for feature in pairs:
        assert feature.mean == pytest.approx(rows[feature.name].mean(), abs=1e-5)
        assert feature.std == pytest.approx(rows[feature.name].std(ddof=0), rel=1e-3)
        quantiles = np.unique(np.quantile(rows[feature.name].astype(float), np.linspace(0, 1, 17)))
        np.testing.assert_allclose(feature.quantiles, quantiles, rtol=1e-6)
    assert data.schema.tasks[0].mean == pytest.approx(rows.event.mean())


def test_numbers_leave_out_nulls_and_a_column_of_one_value_has_a_deviation_of_1_and_no_bins():
    numbers = Numbers()
    for values in ([1.0, None], [3.0, 5.0]):
        numbers.add(pa.table({"a": values, "b": [7.0, 7.0], "c": pa.nulls(2, pa.float32())}), ("a", "b", "c"))
    assert numbers.moments("a") == (3.0, pytest.approx(np.sqrt(8 / 3)))
    assert numbers.moments("b") == (7.0, 1.0)
    assert numbers.moments("c") == (0.0, 1.0)
    assert numbers.quantiles("a")[:3] == (1.0, 1.25, 1.5)
    assert len(numbers.quantiles("a")) == 17
    assert numbers.quantiles("b") == numbers.quantiles("c") == ()


def test_a_pair_s_own_row_comes_before_a_drawn_one():
    table = pa.table({"user": ["b", "a", "a", "b"], "title_row": [1, 0, 2, 3]})
    asked = np.array(["a", "a", "b"]), np.array([2, 1, 0])
    rows, is_own = find_rows(table, np.array([True, True, False, False]), *asked, np.random.default_rng(0))
    assert (rows.tolist(), is_own.tolist()) == ([2, 1, 0], [True, False, False])


def test_lists_are_judged_by_all_that_users_took(folder, first, data):
    shutil.copytree(folder / "second", folder / "judged")
    both = evaluate(folder / "judged", retrieval=folder / "first", candidates=CANDIDATES, baselines=["recent"]).document
    alone = evaluate(first, baselines=["recent"]).document
    assert both["means"]["new"]["recent"] == alone["means"]["new"]["recent"]
    assert both["means"]["new"]["first stage"]["ndcg"] == pytest.approx(alone["means"]["new"]["model"]["ndcg"])
    lists = describe_lists(read_models([folder / "judged"]), num_samples=50)
    assert re.match(r"judged, after both stages, .* the first stage alone: NDCG 0\.\d+ and 0\.\d+ over", lists.stages)
    (row,) = (row for row in lists.rows if row.name == "first stage")
    assert row.figures["ndcg"].mean == both["means"]["new"]["first stage"]["ndcg"]
    tests = sum(len(rows_of(data, "test", window)) for window in (1, 2))
    assert sum(cells["overall"]["rows"] for cells in both["tasks"]["event"]["territory"].values()) == tests


def test_a_model_of_candidates_makes_better_lists_than_one_of_titles_drawn_at_random(folder, first, data):
    """Both alone, without the first stage's score: the one has learnt what that knows, the other cannot."""
    with untraced():
        training.train(first.data, folder / "at_random", RANKING, verbose=0)
    found, window = {}, 2
    for name, of in (("second", data), ("at_random", first.data)):
        stage, past, run = FirstStage(first, of, CANDIDATES), Past(of), Run(folder / name)
        index, score, evidence = stage.at(window, past)
        scores = second_scores(run.load(window=window), run.schema, of)
        positives = positives_of(of, of.discoveries("test", windows=[window]), columns=None)
        case = ListCase(positives, index.catalogue, most=1000, past=past, window=window)
        lists = case.lists(after_both(score, evidence, scores, k=K, first_weight=0.0))
        found[name] = np.mean(ndcg_of_users(lists))
    assert found["second"] > 1.3 * found["at_random"]


@pytest.fixture(scope="module")
def server(folder):
    with untraced():
        version = export(
            folder / "first", folder / "saved", ranking=folder / "second", candidates=CANDIDATES, first_weight=0.25
        )
    with serve(version) as server:
        yield server


def test_served_lists_and_ranks_are_the_offline_ones(folder, first, data, server):
    past, window = Past(data), data.next_window
    index, score, evidence = FirstStage(first, data, CANDIDATES).at(window, past, weights=2)
    run = Run(folder / "second")
    scores_of = second_scores(run.model, run.schema, data)
    users = pq.read_table(data.path / "users.parquet").slice(0, 30)
    rows = users.append_column("title_row", pa.array(np.zeros(len(users), int)))
    case = ListCase(rows, index.catalogue, most=100)
    case.had, checked = past.had(past.numbers(case.users), window), 0
    places, own = score(case.rows, case.allowed(0, len(users)))
    final = scores_of(case.rows, places, evidence(case.rows, places)) + 0.25 * own
    for number, user in enumerate(case.users):
        answer = recommend(f"127.0.0.1:{server.port}", server.name, data.path, user, k=K)["titles"]
        order = np.argsort(-np.where(places[number] >= 0, final[number], -np.inf), kind="stable")[:K]
        order = order[places[number][order] >= 0]
        assert [row["title"] for row in answer] == [past.titles[place] for place in places[number][order]]
        np.testing.assert_allclose([row["score"] for row in answer], final[number][order], rtol=1e-4, atol=1e-4)
        checked += len(answer)
    assert checked > 100


def test_given_titles_are_ranked_as_in_the_list(folder, data, server):
    """With what `recommend` is given, too; without a history the first stage knows less."""
    loaded, con = tf.saved_model.load(str(folder / "saved/1")).signatures, ibis.duckdb.connect()
    row = pq.read_table(data.path / "users.parquet").slice(3, 1)
    user = row.to_pylist()[0]
    raw = {"territory": tf.constant([user["territory"]])}
    raw["user_vector"] = tf.constant(inputs.take_vectors(data.vectors("user").vectors, row["user_row"]))
    given = {name: tf.constant(v) for name, v in history_inputs(read_history(con, data, user["user"])).items()}
    given |= {"request_territory": tf.constant([user["territory"]]), "seen": tf.constant([[""]])}
    listed = loaded["recommend"](
        k=tf.constant([K]), allow=tf.constant([[""]]),
        where=tf.constant([[""]]), diversity=tf.constant([0.0]), rank_by=tf.constant([""]),
        combine_tasks=tf.constant([""]), weight_event=tf.constant([1.0]), first_stage_weight=tf.constant([0.0]),
        **raw, **given,
    )  # fmt: skip
    ask = functools.partial(
        loaded["rank"], **raw, rank_titles=listed["titles"],
        combine_tasks=tf.constant([""]), weight_event=tf.constant([1.0]),
    )  # fmt: skip
    np.testing.assert_allclose(ask(**given)["scores"], listed["scores"], rtol=1e-4, atol=1e-5)
    nothing = given | {"history": tf.constant([[""]]), "history_ages": tf.constant([[0.0]])}
    assert not np.allclose(ask(**nothing)["scores"], listed["scores"], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates": 0}, "`candidates` must be"),
        ({"negatives": 0}, "`negatives` must be"),
        ({"run": "second"}, "must be of form=two_tower"),
        ({"run": "plain"}, "`run` must have a list model"),
        ({"out": "data"}, "`out` must be a new folder"),
    ],
)
@pytest.mark.usefixtures("plain")
def test_what_cannot_be_is_refused(folder, change, message):
    options = {"run": "first", "out": "other", "candidates": CANDIDATES} | change
    run, out = (folder / options.pop(name) for name in ("run", "out"))
    with pytest.raises(ValueError, match=message):
        prepare_candidates(run, out, **options)
    assert not (folder / "other").exists()


def test_models_that_do_not_go_together_are_refused(folder, plain, tmp_path):
    with pytest.raises(ValueError, match="A two-tower model knows no feature of a user and a title"):
        training.train(folder / "data", tmp_path / "run", training.Recipe(**SMALL), verbose=0)
    with pytest.raises(ValueError, match=r"`ranking` must read what the first stage knows; .* without a list model"):
        export(plain, tmp_path / "saved", ranking=folder / "second")
    with pytest.raises(ValueError, match="`run` must read what the first stage knows"):
        evaluate(folder / "second", retrieval=plain)


def test_a_user_is_forgotten_in_all_files(folder, data, tmp_path):
    copy = shutil.copytree(data.path, tmp_path / "data")
    user = rows_of(data, "train", 0)["user"][0].as_py()
    forget(user, data=[copy])
    files = [file for file in copy.rglob("*.parquet") if "user" in pq.read_schema(file).names]
    assert {file.relative_to(copy).parts[0] for file in files} >= {"examples", "discoveries", "events.parquet"}
    for file in files:
        assert user not in pq.read_table(file, partitioning=None)["user"].to_pylist()


def test_the_command_says_what_was_found(folder, tmp_path):
    typed = ["prepare", "candidates", str(folder / "first"), "--out", str(tmp_path / "data")]
    result = CliRunner().invoke(cli.app, [*typed, "--candidates", str(CANDIDATES), "--negatives", str(NEGATIVES)])
    assert result.exit_code == 0, result.output
    made, before = Dataset(tmp_path / "data"), json.loads((folder / "data/prepare.json").read_text())
    assert made.report["fingerprint"] == before["fingerprint"]  # the same bytes
    facts = made.report["candidates"]
    assert (
        f"{facts['among_candidates']['train']:,} of {facts['taken']['train']:,} titles that users took" in result.output
    )
    early = sum(facts["early"].values())
    assert f"left out: {early:,} titles that users took are of the first two windows" in result.output
    assert tfmtr.prepare_candidates is prepare_candidates


def test_the_first_stage_s_weight_is_chosen_in_windows_that_the_models_have_not_learnt_from(
    folder, first, data, monkeypatch
):
    monkeypatch.setattr(two_stage_lists, "FEW", 10)
    run, asked, restored = Run(folder / "second"), [], []
    model = run.load(window=1)
    scores_of = second_scores(model, run.schema, data)
    monkeypatch.setattr(two_stage_lists, "restore", lambda own, weights: restored.append(weights))
    stage = FirstStage(first, data, CANDIDATES)
    monkeypatch.setattr(
        stage,
        "at",
        lambda window, *given, at=stage.at, **options: asked.append(window) or at(window, *given, **options),
    )
    found = choose_first_weight(stage, scores_at(run, model, scores_of), Past(data), data.test_windows)
    assert asked == [1, 2]
    assert restored == [run.weights(1), run.weights(2)]
    cases = validation_cases(data, Past(data), columns=None, windows=[1, 2])
    assert found["lists"] == sum(len(case.users) for _, case in cases) > 10
