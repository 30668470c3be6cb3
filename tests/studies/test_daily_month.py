import json

import pytest

from studies.daily_month import study as daily_month
from tfmtr import training

FOLDER = daily_month.HERE


@pytest.mark.usefixtures("eager")
def test_a_short_month_and_the_comparison_after_it(tmp_path, monkeypatch):
    """One day that is refused and mended, then the day after."""
    refused = daily_month.Day(daily_month.half_of_the_users, "refused", daily_month.AGAIN)
    monkeypatch.setattr(daily_month, "DAYS", (refused,))
    monkeypatch.setattr(daily_month, "LENGTH", 1)
    said = []
    small = {"units": (8,), "batch_size": 4096, "epochs": 1, "listwise": False}
    lines = daily_month.main(tmp_path, num_users=4_500, days=1, out=tmp_path, say=said.append, **small)
    assert lines[0]["found"] == lines[0]["stated"] == ["refused", "promoted"]
    assert lines[0]["late_rows"] > 0
    found = lines[1]["compare"]
    for name in ("at once", "popularity", "neighbours", "EASE"):
        for metric in ("pr_auc", "ndcg@10"):
            cell = found[f"daily minus {name}"][metric]
            assert cell["low"] <= cell["difference"] <= cell["high"]
            assert abs(found["daily"][metric] - found[name][metric] - cell["difference"]) < 2e-4
    assert said[-1] == "1 of 1 days ended as stated"
    written = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert written == json.loads(json.dumps(lines))
    assert "Every second user is missing" in (tmp_path / "README.md").read_text()


def test_the_checked_in_month_ended_as_stated():
    lines = [json.loads(line) for line in (FOLDER / "results.jsonl").read_text().splitlines()]
    days = [line for line in lines if "day" in line]
    assert [line["day"] for line in days] == list(range(1, daily_month.LENGTH + 1))
    for line, day in zip(days, daily_month.DAYS, strict=True):
        stated = [day.ends, *(ends for _, ends in day.mended)]
        assert (line["brings"], line["stated"], line["found"]) == (day.brings.__name__, stated, stated)
    assert (FOLDER / "README.md").read_text() == daily_month.page(lines)
    assert set(lines[-1]["versions"]) == set(training.versions())
