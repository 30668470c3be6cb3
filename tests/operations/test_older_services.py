"""A service that was started by a version without format numbers goes on: its data, its run and its model."""

import json
import tarfile
from pathlib import Path

import pandas as pd
import pytest
import tensorflow as tf
from helpers.days_log import DAYS, Tables, date, run_day

from tfmtr.datasets.dataset import Dataset
from tfmtr.documents import read_json
from tfmtr.run import Run
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server

ARCHIVE = Path(__file__).with_name("service_of_format_1.tar.xz")
LENGTHS = """
import tensorflow as tf

from tfmtr.signatures import Signature, specs


def lengths(served, *, title):
    return Signature(lambda raw: {"length": tf.norm(title(raw), axis=1)}, specs(served.titles))
"""
MADE_AT = "/a-service"  # where the archive says that its folder is


@pytest.fixture
def service(tmp_path):
    """The archive's service at a path of its own, with its log, which is drawn as it was then."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(tmp_path, filter="data")
    folder = tmp_path / "base"
    for file in folder.rglob("*.json"):
        file.write_text(file.read_text().replace(MADE_AT, str(folder)))
    tables = Tables(folder / "log")
    tables.write(events=tables.events[tables.events.time < pd.Timestamp(date(DAYS))])
    return tables


def test_it_goes_on(service, monkeypatch):
    folder = service.folder.parent
    documents = [folder / "data/prepare.json", folder / "run/run.json", folder / "service/service.json"]
    assert all("format" not in json.loads(file.read_text()) for file in documents)
    assert Dataset(folder / "data").test_windows == [1]
    assert Run(folder / "run").recipe.units == (8,)
    service.write(events=service.of_day(DAYS), name="events/first")
    (folder / "own_signatures.py").write_text(LENGTHS)
    monkeypatch.syspath_prepend(folder)
    record = run_day(service, signatures=["own_signatures:lengths"])  # which came later than the service
    assert (record["status"], record["reasons"]) == ("promoted", [])
    assert "lengths" in tf.saved_model.load(str(folder / "model/1")).signatures
    assert read_json(Path(record["run"]) / "run.json")["format"] == 3
    with Server(folder / "model", model_name="m", port=0) as server:  # as an older client asks
        answer = recommend(f"127.0.0.1:{server.port}", "m", folder / "data", "u0001", k=3)
    assert len(answer["titles"]) == 3


def test_a_newer_one_is_refused_in_one_line(service):
    file = service.folder.parent / "service/service.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "format": 99}))
    with pytest.raises(ValueError, match=r"must be of format 2 or older.*`tfmtr daily --start`\. Received: format 99"):
        run_day(service)
