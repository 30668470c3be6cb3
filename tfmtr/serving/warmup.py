"""Requests that are saved with a model and replayed while it loads, so that no client meets a cold graph."""

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.message import DecodeError
from tensorflow_serving.apis.predict_pb2 import PredictRequest  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog  # pyright: ignore[reportAttributeAccessIssue]

from tfmtr.serving.batching import Session
from tfmtr.serving.errors import CODES, ServerError, invalid_argument
from tfmtr.serving.handlers import answer_classify, answer_multi_inference, answer_predict, answer_regress
from tfmtr.serving.storage import Location, is_file, join, locate

FILE = Path("assets.extra") / "tf_serving_warmup_requests"
MAX_RECORDS = 1000
ANSWERS = {
    "predict_log": answer_predict,
    "classify_log": answer_classify,
    "regress_log": answer_regress,
    "multi_inference_log": answer_multi_inference,
}


def warm_up(session: Session, path: str | os.PathLike, num_iterations: int = 1) -> None:
    """Replays the requests of a version.

    Args:
        session: The `SavedModelSession`, loaded.
        path: Directory of the version, or its address; without the file nothing happens.
        num_iterations: How often each request is run.

    Raises:
        ServerError: If the file cannot be read, has over 1,000 records, or a request fails.
    """
    file = join(locate(path), FILE)
    if not is_file(file):
        return
    for count, record in enumerate(_records(file), start=1):
        if count > MAX_RECORDS:
            raise invalid_argument(f"Number of warmup records exceeds the maximum ({MAX_RECORDS}) at {file}")
        kind = record.WhichOneof("log_type")
        if kind is None:
            continue
        if kind not in ANSWERS:
            raise ServerError(grpc.StatusCode.UNIMPLEMENTED, f"Unsupported log_type for warmup: {kind}")
        for _ in range(num_iterations):
            replay(session, kind, getattr(record, kind).request)


def replay(session: Session, kind: str, request: Any) -> None:
    """Answers one request, of whatever model it names.

    Args:
        session: The `SavedModelSession`, loaded.
        kind: A key of `ANSWERS`.
        request: The request.

    Raises:
        ServerError: If it fails.
    """
    version = SimpleNamespace(session=session, number=0)
    models: Any = SimpleNamespace(
        lease=lambda spec: contextlib.nullcontext(version),
        as_content=False,
        check_method_names=False,
        count_fallbacks=lambda *_: None,  # nobody asked
    )
    ANSWERS[kind](models, request)


def _records(file: Location) -> Iterator[PredictionLog]:
    try:
        for data in tf.data.TFRecordDataset(str(file)).as_numpy_iterator():
            yield PredictionLog.FromString(data)
    except tf.errors.OpError as error:
        text = f"{error.message}. Please verify your warmup data is in TFRecord format."
        raise ServerError(CODES[error.error_code], text) from error
    except DecodeError as error:
        raise invalid_argument(
            f"Failed to parse warmup record: {file} has a record that is no PredictionLog"
        ) from error


def write_warm_up(requests: Iterable[PredictRequest], path: str | os.PathLike) -> None:
    """Saves `PredictRequest`s with a version, which servers replay when they load it.

    Args:
        requests: The requests.
        path: Directory of the version.
    """
    file = Path(path) / FILE
    file.parent.mkdir(exist_ok=True)
    with tf.io.TFRecordWriter(str(file)) as writer:
        for request in requests:
            log = PredictionLog()
            log.predict_log.request.CopyFrom(request)
            writer.write(log.SerializeToString())
