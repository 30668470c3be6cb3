"""TensorFlow, its API of the server, protobuf and gRPC fit together, in `pyproject.toml` and in `constraints.txt`."""

import importlib
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
NAMES = ("tensorflow", "tensorflow-serving-api", "protobuf", "grpcio", "grpcio-health-checking")


@pytest.fixture(scope="module")
def wanted():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found = {requirement.name: requirement for requirement in map(Requirement, project["dependencies"])}
    return {name: found[name].specifier for name in NAMES}


def test_each_tensorflow_may_have_the_api_of_its_own_version(wanted):
    for version in ("2.20.0", "2.21.0"):
        assert Version(version) in wanted["tensorflow"]
        assert Version(version) in wanted["tensorflow-serving-api"]


def test_the_pinned_versions_fit(wanted):
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line)
    for name in NAMES:
        assert Version(pins[name]) in wanted[name], name
    assert pins["tensorflow-serving-api"].rpartition(".")[0] == pins["tensorflow"].rpartition(".")[0]
    for line in importlib.metadata.requires("grpcio-health-checking"):
        requirement = Requirement(line)
        if requirement.name == "protobuf":
            assert Version(pins["protobuf"]) in requirement.specifier


def test_a_script_may_begin_with_the_stubs():
    script = "from tensorflow_serving.apis import prediction_service_pb2 as p, prediction_service_pb2_grpc as g; "
    script += "assert p.DESCRIPTOR and g.PredictionServiceStub"
    subprocess.run([sys.executable, "-c", script], check=True)


def needs(name, extras, known):
    """What a distribution needs with some extras, and what that needs, as `known`: normal names with their extras."""
    for requirement in map(Requirement, importlib.metadata.requires(name) or []):
        key = canonicalize_name(requirement.name), frozenset(requirement.extras)
        marker = requirement.marker
        if key not in known and (marker is None or any(marker.evaluate({"extra": extra}) for extra in {*extras, ""})):
            known.add(key)
            needs(requirement.name, requirement.extras, known)
    return known


def test_what_the_demo_needs_is_pinned_before_all_else():
    first, _, _ = (ROOT / "constraints.txt").read_text().partition("\n# What lint")
    pinned = {canonicalize_name(line.partition("==")[0]) for line in first.splitlines()[1:]}
    needed = {name for name, _ in needs("tfmtr", ["baselines", "plots"], set())}
    assert pinned == needed - {"setuptools", "wheel"}
