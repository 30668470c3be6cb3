"""A log of ratings and nothing else, from `prepare` to a served answer, a day and a report."""

import datetime

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from helpers.base_log import START, base
from helpers.untraced import untraced

from tfmtr import training
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.logs import Calendar, Logs
from tfmtr.datasets.prepare import prepare
from tfmtr.documents import read_json
from tfmtr.evaluation.evaluate import evaluate
from tfmtr.exporting import export
from tfmtr.operations.day import daily
from tfmtr.operations.forgetting import forget
from tfmtr.operations.service import read_live, start_service
from tfmtr.reporting.page import report
from tfmtr.serving.recommendations import recommend
from tfmtr.serving.server import Server

DAYS = 24


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Ratings of 24 days, half of the rows only shown; a model of them, and a service after one more day."""
    folder = tmp_path_factory.mktemp("bare")
    events, _, _ = base(users=900, per=30)
    rng = np.random.default_rng(0)
    events["stars"] = np.where(rng.random(len(events)) < 0.5, rng.integers(1, 6, len(events)), np.nan)
    events = events[["user", "title", "time", "stars"]]
    first, later = (events[is_first] for is_first in (events.time < last(DAYS), events.time >= last(DAYS)))
    (folder / "events").mkdir()
    first.to_parquet(folder / "events/all.parquet", index=False)
    logs = Logs(
        folder / "events",
        columns={"user": "user", "title": "title", "time": "time"},
        tasks={"liked": "stars>=4", "rated": "stars >= 1"},
        calendar=Calendar(datetime.timedelta(days=2), 6, 2, end=last(DAYS - 4).to_pydatetime()),
    )
    data = prepare(logs, folder / "data", validation_fraction=0.3, test_fraction=0.1, progress=False)
    with untraced():  # one epoch of a few steps
        training.train(data.path, folder / "run", training.Recipe(units=(8,), epochs=1, batch_size=4096), verbose=0)
    start_service(folder / "service", folder / "run", folder / "model")
    later[later.time < last(DAYS + 1)].to_parquet(folder / "events/day.parquet", index=False)
    limits = {"max_drop": 0.99, "max_shift": 0.99, "max_loss": 0.9, "max_share": 0.9, "max_move": 99.0}
    record = daily(folder / "service", last(DAYS).date(), say=lambda line: None, **limits)
    return folder, events[events.time < last(DAYS + 1)], record


def last(day):
    return START + pd.Timedelta(days=day)


def test_a_day_of_a_log_without_tables_is_promoted(service):
    folder, events, record = service
    assert record["status"] == "promoted", record["reasons"]
    data = Dataset(folder / "service/days" / record["day"] / "data")
    assert set(pq.read_table(data.path / "users.parquet")["user"].to_pylist()) == set(events.user)
    assert data.schema.scenario.groups == {("all",): "group-1"}
    window = next(row for row in record["funnel"] if row["window"] == 0)
    assert window["low_rated"] == ((events.time >= last(DAYS)) & (events.stars < 4)).sum() > 0


def test_what_was_rated_is_not_recommended_and_what_was_shown_is(service):
    """The whole catalogue is asked for: what is missing is what the user rated, as liked or low."""
    folder, events, record = service
    data = folder / "service/days" / record["day"] / "data"
    with Server(folder / "model", model_name="bare", port=0) as server:
        for user in ("u0001", "u0002", "u0003"):
            answer = recommend(f"127.0.0.1:{server.port}", "bare", data, user, k=40)
            own = events[events.user == user]
            rated, shown = own[own.stars.notna()], own[own.stars.isna()]
            assert {4.0, 5.0} & set(rated.stars)
            assert {1.0, 2.0, 3.0} & set(rated.stars)
            assert set(shown.title) - set(rated.title)
            found = [title["title"] for title in answer["titles"]]
            assert len(found) == len(set(found))
            assert set(found) == set(events.title) - set(rated.title)


def test_it_is_evaluated_and_reported(service, tmp_path):
    folder, _, _ = service
    evaluate(folder / "run", folder / "data", k=5, baselines=["popularity"])
    assert "all" in str(read_json(folder / "run/evaluation.json"))
    assert report([folder / "run"], tmp_path / "report.html", num_samples=20).is_file()


def test_a_model_of_it_is_exported_and_a_user_forgotten(service, tmp_path):
    folder, _, record = service
    version = export(folder / "run", tmp_path / "model", titles=folder / "data")
    assert read_json(version / "assets.extra/tfmtr.json")["titles"] == 40
    assert read_live(folder / "service")["day"] == record["day"]
    lines = forget("u0009", data=[folder / "data"])
    assert "u0009" not in pq.read_table(folder / "data/events.parquet")["user"].to_pylist()
    assert [line for line in lines if line.startswith("log:")] == [
        f"log: remove the user from {folder / 'events'} too, or the next `tfmtr prepare` brings the rows back"
    ]
