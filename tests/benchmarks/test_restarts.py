"""Clients of a rolling restart: what is UNAVAILABLE is asked again, what is wrong or never answered is lost."""

import collections
import threading

from benchmarks import restarts


def load(monkeypatch, answers):
    """Asks 4 of servers that answer so, by name; returns counts and what was lost."""

    class Kind:
        def __init__(self, server):
            self.server = server

        def ask(self, x):
            if answers[self.server] is None:
                raise restarts.UnavailableError
            return answers[self.server]

    monkeypatch.setattr(restarts, "PATIENCE", 0.05)
    counts, lost = collections.Counter(), []
    client = restarts.Load(["a", "b"], 0, threading.Event(), counts, lost)
    client.kind = Kind
    client.ask(4.0)
    return counts, lost


def test_what_is_unavailable_is_asked_of_the_other_server(monkeypatch):
    counts, lost = load(monkeypatch, {"a": None, "b": 2.0})
    assert (counts["asked again"], counts["answered over Kind"], lost) == (1, 1, [])


def test_a_wrong_answer_and_none_at_all_are_lost(monkeypatch):
    assert load(monkeypatch, {"a": 3.0, "b": 2.0})[1] == [(4.0, 3.0)]
    counts, lost = load(monkeypatch, {"a": None, "b": None})
    assert counts["asked again"] > 1
    assert lost == [(4.0, "UNAVAILABLE for 0.05 seconds")]
