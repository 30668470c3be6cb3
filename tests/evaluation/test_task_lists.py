"""Lists by task and scenario, held against loops over a data frame."""

import io
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from helpers.html_page import Page
from rich.console import Console
from scipy import sparse

from tfmtr.evaluation.evidence import compare_lists
from tfmtr.evaluation.index_lists import ListCase, best_titles
from tfmtr.evaluation.list_scores import FIRST_STAGE, MODEL
from tfmtr.evaluation.stage_gains import gain_rows, verdict
from tfmtr.evaluation.task_lists import REQUESTS, USERS, TaskCase, by_task, first_users
from tfmtr.evaluation.task_tables import tasks_table
from tfmtr.reporting.page import template_environment
from tfmtr.reporting.runs import EvaluatedRun, Model
from tfmtr.reporting.stages_section import describe_stages
from tfmtr.schema import Scenario, Schema, Task

K, NUM_TITLES, NUM_USERS = 3, 12, 90
TABS = ["home", "search", ""]
SCHEMA = Schema(
    (),
    [Task("click"), Task("like"), Task("seconds", kind="regression")],
    Scenario(["tab"], {"home": "home", "search": "search"}),
    slices=["territory", "tab"],
)


class Before:
    """A `Past` of some pairs of a user and a title."""

    def __init__(self, pairs):
        self.pairs = pairs

    def numbers(self, users):
        return np.asarray([int(user[1:]) for user in users])

    def had(self, users, window):
        return sparse.csr_matrix(self.pairs[users])


def catalogue(territories, seen):
    """All titles but the last in DE, all in PL."""
    allowed = np.ones((len(territories), NUM_TITLES), bool)
    allowed[np.asarray(territories) == "DE", -1] = False
    return allowed


catalogue.num_titles = NUM_TITLES


@pytest.fixture(scope="module")
def log():
    """Rows that are a positive of click or like, what users had, and what a ranking knows: `(frame, had, scores)`."""
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(NUM_USERS), 5)
    frame = pd.DataFrame({"user": [f"u{i}" for i in users], "title_row": rng.integers(0, NUM_TITLES, len(users))})
    frame["territory"] = np.where(users % 3, "DE", "PL")
    frame["tab"] = rng.choice(TABS, len(users), p=[0.6, 0.3, 0.1])
    frame["click"] = (rng.random(len(users)) < 0.6).astype(float)
    frame["like"] = np.where(rng.random(len(users)) < 0.1, np.nan, rng.random(len(users)) < 0.3)
    frame["seconds"] = 1.0
    frame = frame[(frame.click == 1) | (frame.like == 1)].reset_index(drop=True)
    return frame, rng.random((NUM_USERS, NUM_TITLES)) < 0.1, rng.random((NUM_USERS, len(TABS), NUM_TITLES))


def ranking(scores):
    def rank(rows, allowed):
        users = [int(user[1:]) for user in rows["user"].to_pylist()]
        tabs = [TABS.index(tab) for tab in rows["tab"].to_pylist()]
        return best_titles(scores[users, tabs], allowed, K)

    return rank


def case_of(frame, had, most=1000):
    return TaskCase(pa.Table.from_pandas(frame), SCHEMA, catalogue, most=most, past=Before(had), window=2)


def expected(frame, had, scores, task, *, is_request):
    """`{(user, tab or None): (recall, NDCG, reciprocal rank)}` by loops."""
    rows = frame[[not had[int(user[1:]), title] for user, title in zip(frame.user, frame.title_row, strict=True)]]
    found = {}
    for user, own in rows.groupby("user"):
        clicks = own[own.click == 1]
        first_tab = (clicks if len(clicks) else own).iloc[0].tab
        for tab in own.tab.unique() if is_request else [first_tab]:
            wanted = own[(own[task] == 1) & ((own.tab == tab) | (not is_request))]
            wanted = set(wanted.title_row)
            if not wanted:
                continue
            number = int(user[1:])
            values = scores[number, TABS.index(tab)].copy()
            values[had[number]] = -np.inf
            if own.territory.iloc[0] == "DE":
                values[-1] = -np.inf
            ranks = [place + 1 for place, title in enumerate(np.argsort(-values)[:K]) if title in wanted]
            ideal = sum(1 / np.log2(1 + rank) for rank in range(1, min(len(wanted), K) + 1))
            gain = sum(1 / np.log2(1 + rank) for rank in ranks) / ideal
            found[user, tab if is_request else None] = (
                len(ranks) / len(wanted), gain, 1 / ranks[0] if ranks else 0.0,
            )  # fmt: skip
    return found


@pytest.mark.parametrize("task", ["click", "like"])
@pytest.mark.parametrize("is_request", [False, True])
def test_lists_of_a_task_are_those_of_loops_over_users_and_tabs(log, task, is_request):
    frame, had, scores = log
    case = case_of(frame, had)
    found = case.scores(case.titles(ranking(scores)))
    found = found[(found.task == task) & (found.kind == (REQUESTS if is_request else USERS))]
    keys = zip(found.user, found["of tab"] if is_request else [None] * len(found), strict=True)
    own = dict(zip(keys, found[["recall", "ndcg", "mrr"]].to_numpy(), strict=True))
    oracle = expected(frame, had, scores, task, is_request=is_request)
    assert own.keys() == oracle.keys()
    for key, values in oracle.items():
        np.testing.assert_allclose(own[key], values)
    assert set(found.task) == {task}  # a regression has no positives


def test_pooled_lists_of_the_first_task_are_the_evaluation_s_own(log):
    frame, had, scores = log
    case, rank = case_of(frame, had), ranking(scores)
    clicks = pa.Table.from_pandas(frame[frame.click == 1], preserve_index=False)
    plain = ListCase(clicks, catalogue, most=1000, past=Before(had), window=2)
    ours = case.index_lists(plain, case.titles(rank))
    np.testing.assert_array_equal(ours.lists.ranked_titles, plain.lists(rank).ranked_titles)
    np.testing.assert_array_equal(ours.users, plain.users)


def test_each_task_has_its_own_first_users(log):
    frame, had, scores = log
    case = case_of(frame, had, most=7)
    found = case.scores(case.titles(ranking(scores)))
    for task, own in found[found.kind == USERS].groupby("task"):
        order = [key for key, _ in expected(frame, had, scores, task, is_request=False)]
        assert set(own.user) == set(sorted(order, key=lambda user: int(user[1:]))[:7])
    assert first_users(np.array(["b", "a", "a"]), np.array([False, True, True]), 1).tolist() == [False, True, True]


@pytest.fixture(scope="module")
def document(log):
    """What an evaluation says of three contenders, the first stage being worse than the model, and better than ease."""
    frame, had, scores = log
    case, rng = case_of(frame, had), np.random.default_rng(1)
    liked = np.zeros_like(scores)
    liked[frame.user.str[1:].astype(int), :, frame.title_row] = 1.0
    contenders = {MODEL: 0.9 * liked, FIRST_STAGE: 0.5 * liked, "ease": 0.0 * liked}
    frames = [
        case.scores(case.titles(ranking(rng.random(scores.shape) + knows))).assign(contender=name)
        for name, knows in contenders.items()
    ]
    frames = pd.concat(frames)
    found = {"by_task": by_task(frames, SCHEMA, "ease"), "scenario_split": "tab", "k": K}
    return {**found, "first_stage": {"run_id": "r"}, "baselines": {"best": "ease"}}, frames


def test_cells_have_means_and_ratios_of_the_same_lists(document):
    found, frames = document
    cell = found["by_task"]["like"]["tab"]["home"]
    rows = frames[(frames.task == "like") & (frames.kind == REQUESTS) & (frames["of tab"] == "home")]
    parts = {name: part for name, part in rows.groupby("contender")}
    assert cell["means"]["ease"]["mrr"] == pytest.approx(parts["ease"].mrr.mean())
    assert (cell["lists"], cell["positives"]) == (len(parts[MODEL]), parts[MODEL].positives.sum())
    values = {name: part[["user", "window"]].assign(value=part.ndcg) for name, part in parts.items()}
    ratio = compare_lists(values[MODEL], values[FIRST_STAGE], num_samples=1000)
    assert {key: cell["compared"]["ndcg"][FIRST_STAGE][key] for key in ratio} == ratio
    assert cell["first_stage"]["ndcg"]["ours"] == pytest.approx(parts[FIRST_STAGE].ndcg.mean())
    pooled = found["by_task"]["like"]["overall"]["overall"]
    assert set(pooled["compared"]) == {"ndcg", "recall", "mrr"}
    few = found["by_task"]["like"]["tab"][""]
    assert few["reason"] == f"{few['positives']} positives, 30 needed"
    assert few["means"] == few["compared"] == {}
    assert next(iter(found["by_task"]["click"]["tab"])) == "home"  # the most lists first


def test_the_rows_say_which_stage_gains_and_fit_a_terminal(document):
    found, _ = document
    rows = {(row.task, row.scenario): row for row in gain_rows(found)}
    assert list(rows)[:2] == [("click", "all"), ("click", "home")]
    assert [verdict(gain) for gain in rows["click", "all"].gains] == ["higher", "higher"]
    assert rows["like", "unknown"].gains == (None, None)
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(tasks_table("both", found))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "like: n/a in tab unknown" in " ".join(text.split())
    assert "MRR" in text
    alone = {**found, "first_stage": None}
    assert [len(row.gains) for row in gain_rows(alone)] == [1] * len(rows)
    assert not list(gain_rows({**found, "by_task": {}}))


def test_a_page_says_which_stage_gains_and_where_it_is_not_shown(document):
    found, _ = document
    found = {**found, "by_task": {**found["by_task"]}}
    near = found["by_task"]["like"]["overall"]["overall"]["compared"]["ndcg"][FIRST_STAGE]
    near.update(low=0.9, high=1.3)
    gains = describe_stages(Model("both", (EvaluatedRun(Path("both"), {}, found),)))
    template = template_environment().get_template("sections/stages.html")
    page = Page(str(template.make_module({"k": K, "model": "both"}).gains_table(gains, "stages")))
    assert page.tables["stages"]["headers"][:6] == [
        "task", "tab", "lists", "first stage alone / ease", "ratio", "95 % interval",
    ]  # fmt: skip
    rows = {(row[0][0], row[1][0]): [text for text, _ in row] for row in page.tables["stages"]["rows"]}
    assert rows["click", "all"][3] == rows["click", "all"][6] == "higher"
    assert rows["like", "all"][6:9] == ["not shown", f"{near['ratio']:.3f}", "0.900 to 1.300"]
    assert ("like", "unknown") not in rows
    assert "like: n/a in tab unknown" in page.text
    assert {len(row) for row in page.tables["stages"]["rows"]} == {len(page.tables["stages"]["headers"])}
    by_territory = describe_stages(Model("both", (EvaluatedRun(Path("both"), {}, found),)), "territory")
    assert {row.scenario for row in by_territory.rows} == {"all", "DE", "PL"}
