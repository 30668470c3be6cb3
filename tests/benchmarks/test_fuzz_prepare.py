import random

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, find, settings

from benchmarks import fuzz_prepare

# The first case that is found: smaller ones take long to look for, and no less to prepare.
FIRST = settings(max_examples=500, database=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))


def test_random_logs(capsys):
    logs, examples = fuzz_prepare.main(num_cases=15)
    assert logs == 15
    assert examples > 500
    assert "15 logs: all cells are right" in capsys.readouterr().out


def test_a_negative_that_may_not_be_is_seen(tmp_path):
    hidden = {"low_ratings": "hide", "negatives": "both", "alpha": 3.0}
    case = find(
        fuzz_prepare.cases(), lambda one: one.options == hidden and ">=" in next(iter(one.tasks.values()), ""),
        settings=FIRST, random=random.Random(0),
    )  # fmt: skip
    data = fuzz_prepare.prepare_case(case, tmp_path)
    assert fuzz_prepare.compare(case, data) > 0
    first = next(iter(case.tasks))
    case.events.columns[case.tasks[first].partition(">=")[0]][:] = [-99.0] * len(case.events.columns["time"])
    with pytest.raises(AssertionError, match=r"is no negative|was not available|are missing|drawn|not np.float32.0.0"):
        fuzz_prepare.compare(case, data)


def test_a_wrong_cell_is_seen(tmp_path):
    case = find(
        fuzz_prepare.cases(), lambda one: one.has_impressions and len(one.titles.columns) > 2,
        settings=FIRST, random=random.Random(0),
    )  # fmt: skip
    data = fuzz_prepare.prepare_case(case, tmp_path)
    assert fuzz_prepare.compare(case, data) > 0
    *_, name = case.titles.columns
    kind = case.titles.kinds[name]
    case.titles.columns[name][:] = fuzz_prepare._column(np.random.default_rng(99), kind, 99)[
        : len(case.titles.columns[name])
    ]
    with pytest.raises(AssertionError, match=f"{name}: "):
        fuzz_prepare.compare(case, data)
