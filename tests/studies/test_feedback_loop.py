import numpy as np
import pytest

from studies.cells import RESULTS, document_of, read_cells
from studies.feedback_loop import study as feedback_loop
from tfmtr.datasets.truth import Truth

SIZE = {"num_users": 600, "num_titles": 40, "num_territories": 4}


@pytest.fixture
def world(tmp_path):
    return feedback_loop.World(tmp_path, 0, 50, **SIZE)


def test_the_world_is_that_of_the_simulator(world, tmp_path):
    truth, users = Truth(tmp_path), world.users[[3, 7, 500]]
    for i, user in zip((3, 7, 500), users, strict=True):
        np.testing.assert_allclose(
            world.relevance[i], truth.relevance([user] * 40, world.titles.tolist()), rtol=1e-5, atol=1e-9
        )
        offered = world.offered(36)[i]
        if world.is_there(36)[i]:
            assert ((truth.exposure([user] * 40, world.titles.tolist(), 36) > 0) == offered).all()
    assert max(day for _, _, day in world.streams[0].T) == feedback_loop.FIRST - 1


def test_users_are_shown_the_best_of_what_they_may_see_and_stream_by_the_truth(world, monkeypatch):
    monkeypatch.setattr(feedback_loop, "EXPLORED", 0.0)
    world.rate[:] = 0.2  # about one title a day
    world.relevance[:] = 1.0
    scores = np.tile(np.arange(40.0), (600, 1))  # the last title is the best
    start, before = feedback_loop.FIRST, [set() for _ in world.users]
    for user, title, day in world.streams[0].T:
        if day >= start - feedback_loop.LOOKBACK:
            before[user].add(title)
    world.show(scores, start)
    user, title, day = world.streams[1]
    assert set(day) == set(range(start, start + 7))
    assert len({(u, t) for u, t in zip(user, title, strict=True)}) == len(user)  # nothing twice within a month
    for u in np.unique(user)[:100]:
        on_first_day = set(title[(user == u) & (day == start)].tolist())
        allowed = [t for t in np.flatnonzero(world.offered(start)[u]) if t not in before[u]]
        assert on_first_day == set(sorted(allowed)[len(allowed) - len(on_first_day) :])
    assert (world.streamed(start, start + 7)[1] == title).all()
    world.relevance[:] = 0.0
    world.show(scores, start + 7)
    assert world.streams[2].shape == (3, 0)


def test_the_gap_is_that_of_the_lists(world):
    assert feedback_loop.measure(world, world.relevance, 40)["local_gap"] == 0.0
    only_local = feedback_loop.measure(world, np.tile(1.0 * world.is_local, (600, 1)), 40)
    none = feedback_loop.measure(world, np.tile(1.0 * ~world.is_local, (600, 1)), 40)
    assert only_local["local_gap"] > 0.1 > -0.1 > none["local_gap"]
    best = feedback_loop.measure(world, world.relevance, 40)["relevance"]
    there, offered = world.is_there(40), world.offered(40)
    lists = np.sort(np.where(offered, world.relevance, -1)[there], axis=1)[:, ::-1][:, : feedback_loop.K]
    assert best == pytest.approx(lists[lists >= 0].mean())
    popular, true = (feedback_loop.measure(world, scores, 35) for scores in (world.popular(35), world.relevance))
    assert popular["popularity_lift"] > true["popularity_lift"]


def test_rounds_are_computed_once_and_a_model_learns_from_its_own(tmp_path, monkeypatch):
    monkeypatch.setattr(feedback_loop, "CONTENDERS", ("multi-task", "popular", "truth"))
    options = {"seeds": 1, "rounds": 2, "folder": tmp_path, "size": {**SIZE, "num_users": 1_500}}
    cells = feedback_loop.main(**options, epochs=1, units=(8,), batch_size=512)
    streams = [of["streams"] for of in cells["multi-task"][0]["metrics"]]
    assert len(streams) == 2
    assert min(streams) > 0
    truth, popular = (cells[name][0]["metrics"] for name in ("truth", "popular"))
    assert truth[0]["relevance"] > popular[0]["relevance"]
    assert truth[1]["local_gap"] == 0.0
    monkeypatch.setattr(feedback_loop, "trained_scores", None)  # would fail if a cell were computed again
    assert feedback_loop.main(**options, epochs=1, units=(8,), batch_size=512) == cells
    assert read_cells(tmp_path / RESULTS)["truth-seed-0"] == cells["truth"][0]
    found = (tmp_path / "README.md").read_text()
    assert f"| truth | {truth[0]['gini']:.3f} (n/a) | {truth[1]['gini']:.3f} (n/a) |" in found
    assert (tmp_path / "rounds.png").stat().st_size > 10_000


def test_the_recipes_are_those_of_the_published_cells():
    """Scores are the towers': a list model would be fitted for nothing."""
    for name in ("baseline", "multi-task"):
        cell = read_cells(feedback_loop.HERE / RESULTS)[f"{name}-seed-0"]
        assert document_of(feedback_loop.recipe_of(name, 0, epochs=6, patience=1)) == cell["recipe"]


def test_the_page_has_changes_and_their_p_values():
    def cell(gaps):
        metrics = [{**dict.fromkeys(feedback_loop.METRICS, 0.5), "local_gap": gap} for gap in gaps]
        return {"metrics": metrics, "date": "2026-01-01", "versions": {"keras": "3"}}

    cells = {"a": [cell((-0.1, -0.2)), cell((-0.1, -0.21)), cell((-0.1, -0.19))], "truth": [cell((0, 0))] * 3}
    found = feedback_loop.page(cells, 2, SIZE, "command")
    assert "| a | -0.1000 | 0.003 |" in found
    assert "| truth | +0.0000 | n/a |" in found
    assert "| a | -0.1000 (0.0000) | -0.2000 (0.0100) |" in found
