"""One user's recommendations from a running server: what a service's own back end would do."""

from __future__ import annotations

import dataclasses
import datetime
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import grpc
import ibis
import numpy as np

from tfmtr.checks import check_choice, check_number
from tfmtr.datasets.dataset import Dataset
from tfmtr.datasets.engines.duckdb import read_files
from tfmtr.datasets.seen import seen_pairs
from tfmtr.evaluation.past import EVENTS, SECONDS_A_DAY, has_events
from tfmtr.kinds import KINDS
from tfmtr.names import HISTORY, weight_name
from tfmtr.serving.client import Client, ServerError

if TYPE_CHECKING:
    from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef

    from tfmtr.version import Version


def recommend(
    server: str,
    model: str,
    data: str | os.PathLike,
    user_id: str,
    *,
    k: int = 10,
    territory: str | None = None,
    context: Mapping[str, str] | None = None,
    weights: Mapping[str, float] | None = None,
    timeout: float = 10.0,
) -> dict[str, Any]:
    """Asks a server for the best titles of one user.

    Reads the user's row, vector and seen titles from a prepared directory (the store that the model leaves
    outside), sends them to the signature `recommend`, and looks up the titles' names. A user who is not
    in the table is served as a cold one: unknown features, no history.

    Args:
        server: `host:port` of the gRPC server.
        model: Name of the served model.
        data: Directory made by `tfmtr prepare`.
        user_id: The user.
        k: How many titles.
        territory: Territory of the request, whose catalogue is searched; the user's own by default.
        context: `{column: value}` of the request, such as the tab, beside or in place of what the table says.
        weights: `{task: weight}`; by default the tasks have their own.
        timeout: Seconds.

    Returns:
        `{"territory", "is_known", "fallback", "titles": [{"title", "name", "score"}]}`, best first; `fallback` is a
        list of what was not known, as `tfmtr.retrieval.recommender.Recommender` names it.

    Raises:
        ValueError: If the user is unknown and no `territory` is given, `k` is not positive, the model has no such
            column of a request or task, or no server answers.
        ServerError: If the server refuses the request.
    """
    if k < 1:
        raise ValueError(f"`k` must be positive. Received: k={k}")
    data = Dataset(data)
    tables = ibis.duckdb.connect()
    users = read_files(tables, [data.path / "users.parquet"])
    row = next(iter(users.filter(users.user == str(user_id)).to_pyarrow().to_pylist()), None)
    if row is None and territory is None:
        raise ValueError(
            f"`user_id` must be in {data.path / 'users.parquet'}, or a `territory` must be given to serve the user as "
            f"a cold one. Received: user_id={user_id!r}"
        )
    seen = seen_pairs(tables, data)
    seen = seen.filter(seen.user == str(user_id)).title.to_pyarrow().to_pylist()
    history = read_history(tables, data, str(user_id))
    row = (row or {"territory": territory}) | dict(context or {})
    with Client(server, model, timeout=timeout) as client:
        try:
            signature = client.metadata().get("recommend")
            inputs = user_inputs(data, row, signature)
            for name in context or {}:
                check_choice("context", name, sorted(inputs))
            inputs |= weight_inputs(weights or {}, signature)
            if signature is not None and HISTORY[0] in signature.inputs:
                inputs |= history_inputs(history)
            answer = ask(client, inputs, territory=territory or row["territory"], seen=seen, k=k)
        except ServerError as error:
            if error.code != grpc.StatusCode.UNAVAILABLE or not re.search("connect|DNS", error.message):
                raise
            raise ValueError(
                f"No server answers at `server={server}`; it must be the gRPC port of one that `tfmtr serve` started. "
                f"Received: {error.message}"
            ) from error
    titles = read_files(tables, [data.path / "titles.parquet"])
    names = titles.filter(titles.title.isin(answer.titles)).select("title", "name").to_pyarrow().to_pylist()  # pyright: ignore[reportArgumentType]
    names = {title["title"]: title["name"] for title in names}
    return {
        "territory": territory or row["territory"],
        "is_known": "user" in row,
        "fallback": list(answer.fallback),
        "titles": [
            {"title": title, "name": names.get(title), "score": score}
            for title, score in zip(answer.titles, answer.scores, strict=True)
        ],
    }


class Answer(NamedTuple):
    """What the signature `recommend` answers for one user.

    Attributes:
        titles: Ids of the titles, best first.
        scores: Their scores.
        fallback: What was not known; see `tfmtr.retrieval.recommender.Recommender`.
    """

    titles: tuple[str, ...]
    scores: tuple[float, ...]
    fallback: tuple[str, ...]


def ask(
    client: Client, inputs: Mapping[str, np.ndarray], *, territory: str | None, seen: Iterable[str], k: int
) -> Answer:
    """Asks for one user's titles: an `Answer`.

    Args:
        client: `Client` of the model.
        inputs: What `user_inputs` returns.
        territory: Whose catalogue is searched; `None` where it is not known.
        seen: Ids of titles that are left out.
        k: How many titles.
    """
    request = {"request_territory": np.asarray([territory or ""], object)}
    request |= {"seen": np.asarray([list(seen) or [""]], object), "k": np.asarray([k], np.int32)}
    answer = client.predict({**inputs, **request}, signature_name="recommend")
    count = int(answer["count"][0])
    return Answer(
        tuple(title.decode() for title in answer["titles"][0][:count]),
        tuple(float(score) for score in answer["scores"][0][:count]),
        tuple(name for name in answer.get("fallback", [b""])[0].decode().split(",") if name),
    )


def read_history(tables: Any, data: Dataset, user_id: str) -> dict[str, float]:
    """What a user had, as of the end of the last window: `{title: days}`, the newest last.

    Args:
        tables: DuckDB's connection of Ibis.
        data: The `Dataset`.
        user_id: The user.
    """
    if not has_events(data):
        return {}
    events = read_files(tables, [data.path / EVENTS])
    events = events.filter(events.user == user_id, events.is_history)  # pyright: ignore[reportArgumentType]
    times = events.group_by("title").aggregate(second=events.time.epoch_seconds().max()).to_pyarrow()  # pyright: ignore[reportAttributeAccessIssue]
    end = data.report["windows"][-1].get("end")
    now = None if end is None else datetime.datetime.fromisoformat(end).replace(tzinfo=datetime.UTC).timestamp()
    ages = {
        title: 0.0 if now is None or second is None else max(now - second, 1.0) / SECONDS_A_DAY
        for title, second in zip(times["title"].to_pylist(), times["second"].to_pylist(), strict=True)
    }
    return dict(sorted(ages.items(), key=lambda pair: (-pair[1], pair[0])))


def history_inputs(history: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Raw inputs of a past `{title: days}`, the newest last."""
    titles, ages = list(history) or [""], list(history.values()) or [0.0]
    return dict(zip(HISTORY, (np.asarray([titles], object), np.asarray([ages], np.float32)), strict=True))


def weight_inputs(weights: Mapping[str, float], signature: SignatureDef | None) -> dict[str, np.ndarray]:
    """Raw inputs of tasks' weights.

    Args:
        weights: `{task: weight}`.
        signature: `SignatureDef` of `recommend`.

    Raises:
        ValueError: If the model has no such task, or a weight is not finite.
    """
    given = set() if signature is None else set(signature.inputs)
    prefix = weight_name("")
    tasks = sorted(name.removeprefix(prefix) for name in given if name.startswith(prefix))
    for task, weight in weights.items():
        check_choice("weights", task, tasks)
        check_number(f"weights of {task!r}", weight)
    return {weight_name(task): np.asarray([weight], np.float32) for task, weight in weights.items()}


def user_inputs(
    data: Dataset | Version, row: Mapping[str, Any], signature: SignatureDef | None = None
) -> dict[str, np.ndarray]:
    """Raw inputs of one user, `{column: array of one row}`; what the row does not say is unknown.

    Args:
        data: The `Dataset`, or a `Version` where the row has no `user_row`.
        row: The user's row, `{column: value}`.
        signature: `SignatureDef` of the model, which may be older than the data: lists have its lengths, and features
            that it does not know are left out. By default the inputs are those of the data.
    """
    schemas = getattr(data, "schemas", None) or (data.schema,)
    features = list({f.name: f for schema in reversed(schemas) for f in schema.by_role("user", "context")}.values())
    if signature is not None:
        shapes = {name: [dim.size for dim in spec.tensor_shape.dim] for name, spec in signature.inputs.items()}
        is_list = {feature.name: KINDS[feature.kind].is_wide and KINDS[feature.kind].is_text for feature in features}
        features = [
            dataclasses.replace(f, width=shapes[f.name][1]) if is_list[f.name] else f
            for f in features
            if f.name in shapes
        ]
    inputs = {}
    for feature in features:
        value, store = row.get(feature.name), row.get("user_row")
        if value is None and feature.is_stored and store is not None and store >= 0:
            value = data.vectors("user").vectors[store]  # pyright: ignore[reportAttributeAccessIssue]
        try:
            inputs[feature.name] = KINDS[feature.kind].request(value, feature)
        except ValueError:
            raise ValueError(
                f"`{'context' if feature.role == 'context' else 'row'}` must say {feature.name!r} as a {feature.kind}. "
                f"Received: {feature.name}={value!r}"
            ) from None
    for column in (column for schema in schemas for column in schema.scenario.columns):
        inputs.setdefault(column, np.asarray([row.get(column) or ""], object))
    return inputs
