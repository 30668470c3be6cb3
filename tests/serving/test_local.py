"""`tfmtr.serve`: what it makes of a version's path and options, and of a request; no model is loaded."""

import contextlib
import json

import numpy as np
import pytest

from tfmtr.schema import Feature, Scenario, Schema, Task
from tfmtr.serving import local
from tfmtr.serving.local import Recommendations, serve

SCHEMA = Schema(
    [
        Feature("age", "user", "number"),
        Feature("taste", "user", "vector", width=2),
        Feature("tags", "user", "set", ["a"], width=3),
        Feature("device", "user", "id", ["tv"]),
    ],
    [Task("click")],
    Scenario(["territory"], {("DE",): "one"}),
)


@pytest.fixture
def version(tmp_path):
    """A version as far as a server that is not started looks at it."""
    return make_version(tmp_path / "model")


def make_version(folder):
    path = folder / "1"
    (path / "assets.extra").mkdir(parents=True)
    (path / "assets.extra/tfmtr.json").write_text(json.dumps({"format": 1, "run_id": "a", "fingerprint": "b"}))
    (path / "assets.extra/schema.json").write_text(SCHEMA.to_json())
    return path


@pytest.mark.parametrize("name", ["a\\b", 'a"b', "a\nb", "a'b {"])
def test_a_model_s_folder_may_have_any_name(tmp_path, name):
    server = serve(make_version(tmp_path / name))
    (model,) = server._config.config
    assert (model.name, model.base_path) == (name, str(tmp_path / name))
    assert list(model.model_version_policy.specific.versions) == [1]


def test_a_version_that_is_gone_is_not_waited_for(version):
    server = serve(version)
    version.rename(version.parent / "gone")
    with pytest.raises(
        ValueError, match=r"`version` must be there still when the server starts\. Received: .*/model/1"
    ):
        server.start()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"port": 18501, "rest_api_port": 18501}, "`rest_api_port` must be another port than `port`. Received: 18501"),
        ({"enable_batchin": True}, r"`options` must be one of .*Did you mean 'enable_batching'\?"),
        ({"model_config_file": "x"}, "`options` must be one of"),
        *(({"port": port}, r"--port must be of the type int \| None\. Received: port=") for port in ("x", True)),
        ({"port": None}, r"`port` must be an integer: a local server is asked over gRPC\. Received: port=None"),
        ({"port": 99999}, "--port must be a port, from 0 to 65535. Received: port=99999"),
        ({"enable_batching": 1}, "--enable_batching must be of the type bool"),
    ],
)
def test_options_that_cannot_be_are_refused_at_once(version, options, message):
    with pytest.raises(ValueError, match=message):
        serve(version, **options)


@pytest.fixture
def asked(version, monkeypatch):
    """`asked(features, ...)`: what a server would be asked."""

    class Client(contextlib.nullcontext):
        def __enter__(self):
            return self

        def metadata(self):
            return {"recommend": None}

    monkeypatch.setattr(local.LocalServer, "client", lambda self: Client())
    monkeypatch.setattr(local, "ask", lambda client, inputs, **options: (inputs, options, ("cold_user",)))
    return serve(version).recommend


@pytest.mark.parametrize(
    ("features", "options", "message"),
    [
        *(({}, {"k": k}, "`k` must be an integer, from 1 to") for k in (2.5, "3", True, None, 0, 2**31)),
        *(({}, {"seen": seen}, "`seen` must be a list of ids, which are text") for seen in ("t1", [1], None, b"t1")),
        ({"device": ["tv", "phone"]}, {}, "`features` must have one text for 'device'. Received: device="),
        ({"device": True}, {}, "`features` must have one text for 'device'"),
        ({"territory": 3}, {}, "`features` must have one text for 'territory'"),
        *(({"age": age}, {}, "`features` must have a finite number for 'age'") for age in ("3", True, float("nan"))),
        *(({"tags": tags}, {}, "`features` must have a list of texts for 'tags'") for tags in ("a", [1])),
        *(({"taste": v}, {}, "`features` must have 2 finite numbers for 'taste'") for v in ([1], "ab", [1, np.inf], 1)),
        ({}, {"territory": 3}, "`territory` must be text"),
        ({"agee": 3}, {}, r"`features` must be one of .*Did you mean 'age'\?"),
    ],
)
def test_a_request_that_cannot_be_is_refused_here(asked, features, options, message):
    with pytest.raises(ValueError, match=message):
        asked(features, **options)


def test_what_fits_is_asked_as_it_is(asked):
    features = {"age": 3, "taste": np.ones(2), "tags": ("a",), "device": 5, "territory": "DE"}
    answer = asked(features, k=np.int64(3), seen={"t1"})
    assert (answer.titles["device"].tolist(), answer.titles["taste"].tolist()) == (["5"], [[1, 1]])
    assert answer.scores == {"territory": "DE", "seen": {"t1"}, "k": 3}
    asked(dict.fromkeys(features))  # nothing is known


def test_an_answer_says_what_was_not_known():
    lines = Recommendations(("7",), (1.5,), ("cold_user", "default_branch")).table().splitlines()
    assert lines[-2:] == [
        "A cold user: what is popular in the territory.",
        "No group has the scenario, such as the user's territory: the default branch.",
    ]
    assert "cold" not in str(Recommendations(("7",), (1.5,)))
