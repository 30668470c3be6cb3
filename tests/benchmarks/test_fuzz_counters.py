import importlib
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def fuzz_counters(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module("fuzz_counters")
    for name in ("fuzz_counters", "fuzz_prepare"):
        sys.modules.pop(name, None)


def test_random_logs(fuzz_counters, capsys):
    logs, cells = fuzz_counters.main(num_cases=1)
    assert logs == 1
    assert cells > 1000
    assert "1 logs: all counters are right" in capsys.readouterr().out


def test_a_wrong_counter_is_seen(fuzz_counters):
    with pytest.raises(AssertionError, match=r"here, count_title_click_1d: 0.5, not 0.25"):
        fuzz_counters.check({"count_title_click_1d": 0.5}, {"count_title_click_1d": 0.25}, "here")
