import numpy as np
import pytest

from studies.feedback_loop.study import FIRST, World
from studies.popularity_bias import study

SIZE = {"num_users": 600, "num_titles": 40, "num_territories": 4}


@pytest.fixture
def world(tmp_path):
    return World(tmp_path, 0, FIRST + 1, **SIZE)


def test_ndcg_is_by_the_truth_and_random_titles_cost_some(world):
    assert study.true_ndcg(world, world.relevance, FIRST) == pytest.approx(1.0)
    there, offered = np.flatnonzero(world.is_there(FIRST)), world.offered(FIRST)
    scores, found = world.popular(FIRST), []
    for user in there:
        titles = np.flatnonzero(offered[user])
        gain, discount = world.relevance[user, titles], 1 / np.log2(np.arange(2, 12))
        order = titles[np.argsort(-scores[user, titles], kind="stable")][:10]
        best = np.sort(gain)[::-1][:10]
        found.append(world.relevance[user, order] @ discount[: len(order)] / (best @ discount[: len(best)]))
    assert study.true_ndcg(world, scores, FIRST) == pytest.approx(np.mean(found))
    mixed = [study.with_random_titles(world, world.relevance, FIRST, share, 0) for share in (0.0, 0.2, 0.8)]
    ndcg = [study.true_ndcg(world, scores, FIRST) for scores in mixed]
    assert ndcg[0] == pytest.approx(1.0)
    assert 1 > ndcg[1] > ndcg[2]


def test_a_small_study_goes_on_where_it_was(tmp_path, monkeypatch):
    strengths = {"plain": [None], "ips": [("ips", {"power": 1.0})], "random": [0.4], "truth": [None]}
    monkeypatch.setattr(study, "STRENGTHS", strengths)
    options = {"seeds": 1, "folder": tmp_path, "size": SIZE, "share": "none", "units": (8,), "epochs": 1}
    cells = study.main(**options)
    assert [(name, strength) for name, strength in cells] == [
        ("plain", ""), ("ips", "power=1.0"), ("random", "share=0.4"), ("truth", "")
    ]  # fmt: skip
    assert cells["truth", ""][0]["metrics"]["ndcg"] == pytest.approx(1.0)
    monkeypatch.setattr(study, "World", None)  # nothing is computed again
    assert study.main(**options) == cells
    assert "| ips | power=1.0 |" in (tmp_path / "README.md").read_text(encoding="utf-8")
    assert (tmp_path / "trade_off.png").exists()
