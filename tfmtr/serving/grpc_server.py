"""The gRPC port: PredictionService and ModelService."""

# Protobuf makes its classes when it is imported:
# pyright: reportAttributeAccessIssue=false

import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent import futures
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2_grpc
from tensorflow_serving.apis import model_service_pb2_grpc, prediction_service_pb2_grpc
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest, ClassificationResponse
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, GetModelMetadataResponse
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest, GetModelStatusResponse
from tensorflow_serving.apis.inference_pb2 import MultiInferenceRequest, MultiInferenceResponse
from tensorflow_serving.apis.model_management_pb2 import ReloadConfigRequest, ReloadConfigResponse
from tensorflow_serving.apis.predict_pb2 import PredictRequest, PredictResponse
from tensorflow_serving.apis.regression_pb2 import RegressionRequest, RegressionResponse

from tfmtr.serving.errors import STOPPING, ServerError
from tfmtr.serving.handlers import (
    answer_classify,
    answer_metadata,
    answer_multi_inference,
    answer_predict,
    answer_regress,
    answer_reload,
    answer_status,
)
from tfmtr.serving.models import Models
from tfmtr.serving.request_counts import LATENCY, METRICS

MAX_ERROR_BYTES = 1024
YEAR_SECONDS = 365 * 24 * 3600
OPTIONS = (
    ("grpc.so_reuseport", 0),  # a second server on the port must fail, not share it
    ("grpc.server_handshake_timeout_ms", 20_000),  # for who connects and says nothing
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
)

logger = logging.getLogger(__name__)

SETTLE_SECONDS = 0.05  # in which what has come before the stop is taken, and without a call after it the port closes
BUSY_SECONDS = 1.0  # after which it closes though clients go on


def limit_text(text: str) -> str:
    """`text`, cut after 1024 bytes as TF Serving does.

    Example:
    >>> limit_text("x" * 2000)[-13:]
    'x...TRUNCATED'
    """
    encoded = text.encode()
    if len(encoded) <= MAX_ERROR_BYTES:
        return text
    return encoded[:MAX_ERROR_BYTES].decode(errors="ignore") + "...TRUNCATED"


def _remaining_seconds(context: grpc.ServicerContext) -> float | None:
    # A call without deadline has one in the far future, beyond the range of TensorFlow's milliseconds.
    seconds = context.time_remaining()
    return seconds if seconds is not None and seconds < YEAR_SECONDS else None


def _measured(api: str, context: grpc.ServicerContext, answer: Callable[..., Any], models: Models, request: Any) -> Any:
    """`_respond`, counted; of the successes the latency, too."""
    started, name = time.perf_counter(), request.model_spec.name
    try:
        return _respond(context, answer, models, request, _remaining_seconds(context))
    finally:
        status = context.code()
        METRICS.count(name, status.name if status else "OK")
        if status is None:
            METRICS.observe(LATENCY, time.perf_counter() - started, model_name=name, API=api, entrypoint="GRPC")


def _respond(context: grpc.ServicerContext, answer: Callable[..., Any], *arguments: Any) -> Any:
    remaining = _remaining_seconds(context)
    if remaining is not None and remaining <= 0:
        context.abort(grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded before the request was run")
    try:
        return answer(*arguments)
    except ServerError as error:
        status = error.code, limit_text(error.message)
    except Exception as error:
        logger.exception("%s failed", answer.__name__)
        status = grpc.StatusCode.INTERNAL, limit_text(f"{type(error).__name__}: {error}")
    context.abort(*status)


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """Procedures that run a model; those not defined here answer UNIMPLEMENTED."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def Predict(self, request: PredictRequest, context: grpc.ServicerContext) -> PredictResponse:  # noqa: D102, N802
        return _measured("Predict", context, answer_predict, self._models, request)

    def Classify(self, request: ClassificationRequest, context: grpc.ServicerContext) -> ClassificationResponse:  # noqa: D102, N802
        return _measured("Classify", context, answer_classify, self._models, request)

    def Regress(self, request: RegressionRequest, context: grpc.ServicerContext) -> RegressionResponse:  # noqa: D102, N802
        return _measured("Regress", context, answer_regress, self._models, request)

    def MultiInference(self, request: MultiInferenceRequest, context: grpc.ServicerContext) -> MultiInferenceResponse:  # noqa: D102, N802
        return _respond(context, answer_multi_inference, self._models, request, _remaining_seconds(context))

    def GetModelMetadata(  # noqa: D102, N802
        self, request: GetModelMetadataRequest, context: grpc.ServicerContext
    ) -> GetModelMetadataResponse:
        return _respond(context, answer_metadata, self._models, request)


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """Procedures about models; those not defined here answer UNIMPLEMENTED."""

    def __init__(self, models: Models) -> None:
        self._models = models

    def GetModelStatus(self, request: GetModelStatusRequest, context: grpc.ServicerContext) -> GetModelStatusResponse:  # noqa: D102, N802
        return _respond(context, answer_status, self._models, request)

    def HandleReloadConfigRequest(  # noqa: D102, N802
        self, request: ReloadConfigRequest, context: grpc.ServicerContext
    ) -> ReloadConfigResponse:
        return _respond(context, answer_reload, self._models, request, _remaining_seconds(context))


class Arrivals(grpc.ServerInterceptor):
    """Sees every call as it comes, and refuses those after the server was told to stop.

    What reaches a port of gRPC while it closes is CANCELLED, which clients do not try again; UNAVAILABLE they do.
    """

    def __init__(self) -> None:
        self.last, self.is_over = 0.0, False  # time of the last call; whether calls are refused

    def intercept_service(  # noqa: D102
        self, continuation: Callable[..., Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler:
        self.last = time.monotonic()
        return REFUSAL if self.is_over else continuation(handler_call_details)


def _refuse(request: Any, context: grpc.ServicerContext) -> None:
    context.abort(grpc.StatusCode.UNAVAILABLE, STOPPING)


REFUSAL = grpc.unary_unary_rpc_method_handler(_refuse)


class Parsing(grpc.ServerInterceptor):
    """Parses requests in a way that never fails, and refuses those that are no message.

    gRPC keeps the state of a call whose bytes it cannot parse for ever: 15 kB each.
    """

    def intercept_service(  # noqa: D102
        self, continuation: Callable[..., Any], handler_call_details: grpc.HandlerCallDetails
    ) -> grpc.RpcMethodHandler | None:
        handler = continuation(handler_call_details)
        if handler is None or handler.request_streaming:
            return handler
        kind = "unary_stream" if handler.response_streaming else "unary_unary"
        answer, parse = getattr(handler, kind), handler.request_deserializer

        def answer_parsed(request: Any, context: grpc.ServicerContext) -> Any:
            if request is NO_MESSAGE:
                context.abort(grpc.StatusCode.INTERNAL, "Exception deserializing request!")
            return answer(request, context)

        def parsed(data: bytes) -> Any:
            try:
                return data if parse is None else parse(data)
            except Exception:  # protobuf's implementations raise several
                return NO_MESSAGE

        make = getattr(grpc, f"{kind}_rpc_method_handler")
        return make(answer_parsed, parsed, handler.response_serializer)


NO_MESSAGE = object()  # instead of a request that cannot be parsed


class Health(health.HealthServicer):
    """Health checks; who watches them is told of a stop and let go."""

    def end(self) -> None:
        """Ends the calls of those who watch."""
        with self._lock:
            callbacks = [callback for found in self._send_response_callbacks.values() for callback in found]
        for callback in callbacks:
            callback(None)


class GrpcServer:
    """Serves `models` on one port.

    Args:
        models: The `tfmtr.serving.models.Models`.
        host: Address to listen on.
        port: Port, 0 for any free one, `None` for the socket alone.
        grace_seconds: Longest time that `stop` waits for running calls.
        max_threads: Calls that are worked on at the same time; others wait.
        max_request_bytes: Largest request, or `None` for gRPC's own limit of 2 GiB.
        channel_arguments: Further `{argument: value}` of gRPC.
        socket_path: A Unix socket to listen on, too.
        tls: `grpc.ServerCredentials`, or `None` for plain text.
        has_health: Whether to serve `grpc.health.v1.Health`.

    Raises:
        OSError: If the port cannot be bound.
    """

    def __init__(
        self,
        models: Models,
        host: str,
        port: int | None,
        grace_seconds: float,
        *,
        max_threads: int | None = None,
        max_request_bytes: int | None = None,
        channel_arguments: Mapping[str, int | str] | Iterable[tuple[str, int | str]] = (),
        socket_path: str | None = None,
        tls: grpc.ServerCredentials | None = None,
        has_health: bool = False,
    ) -> None:
        self._grace_seconds = grace_seconds
        options = dict(OPTIONS) | {"grpc.max_receive_message_length": max_request_bytes or -1} | dict(channel_arguments)
        workers = futures.ThreadPoolExecutor(max_threads or 4 * (os.cpu_count() or 1), "grpc")
        self._arrivals = Arrivals()
        self._server = grpc.server(workers, interceptors=[self._arrivals, Parsing()], options=list(options.items()))
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(PredictionService(models), self._server)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(models), self._server)
        self._health = Health() if has_health else None
        if self._health:
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self.port = None
        try:
            if port is not None:
                self.port = (
                    self._server.add_secure_port(address, tls) if tls else self._server.add_insecure_port(address)
                )
            if socket_path:
                self._server.add_insecure_port(f"unix:{socket_path}")
        except RuntimeError as error:
            raise OSError(str(error)) from error
        self._server.start()

    def stop(self) -> None:
        """Refuses new calls with UNAVAILABLE, closes the port and waits for the running ones."""
        started = time.monotonic()
        if self._health:
            self._health.enter_graceful_shutdown()
        time.sleep(SETTLE_SECONDS)
        self._arrivals.is_over = True
        if self._health:
            self._health.end()
        while time.monotonic() - self._arrivals.last < SETTLE_SECONDS and time.monotonic() - started < BUSY_SECONDS:
            time.sleep(SETTLE_SECONDS / 5)
        self._server.stop(self._grace_seconds - (time.monotonic() - started)).wait()
