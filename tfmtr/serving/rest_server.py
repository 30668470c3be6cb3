"""The REST port: predict with rows or columns, classify, regress, status, metadata and metrics."""

import asyncio
import json
import logging
import os
import re
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import unquote

import grpc
import tensorflow as tf
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import HttpVersion11, RawRequestMessage
from aiohttp.streams import StreamReader
from aiohttp.web_protocol import RequestHandler
from google.protobuf import json_format
from google.protobuf.message import Message
from tensorflow.core.protobuf.meta_graph_pb2 import SignatureDef
from tensorflow_serving.apis.classification_pb2 import ClassificationRequest  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusRequest  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_serving.apis.model_pb2 import ModelSpec  # pyright: ignore[reportAttributeAccessIssue]
from tensorflow_serving.apis.regression_pb2 import RegressionRequest  # pyright: ignore[reportAttributeAccessIssue]

from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.handlers import answer_classify, answer_regress, answer_status, signature_map
from tfmtr.serving.json_examples import read_examples, write_classifications, write_regressions
from tfmtr.serving.json_request import parse_json, read_inputs, signature_name
from tfmtr.serving.json_response import type_name, write_columns, write_error, write_rows
from tfmtr.serving.models import Models
from tfmtr.serving.predict import choose_outputs, predict
from tfmtr.serving.request_counts import LATENCY, METRICS, RUNTIME
from tfmtr.serving.tensor_proto import QUANTIZED, SENDABLE, as_array
from tfmtr.serving.wire import DEFAULT_SIGNATURE

HTTP_STATUS = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
CORS_HEADERS = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "POST, GET",
    "Access-Control-Allow-Headers": "Content-Type",
}
MAX_BYTES = 16 * 2**20  # of a body: as JSON of numbers it takes sixty times as much memory while it is read
MAX_INFLATED_BYTES = 100 * 2**20  # of a compressed body, where larger ones are allowed
SILENT_SECONDS = 20.0  # a client may send nothing for so long before and within a request
IDLE_SECONDS = 75.0  # and between two, longer than load balancers keep a connection that nobody uses
LINGERING_SECONDS = 2.0  # in which the rest of a refused body is read, also while the server stops
SETTLE_SECONDS = 0.05  # in which a server that is told to stop reads what has come before
NAME, VERSION = r"(?P<name>[^/:]+)", r"(?:/versions/(?P<version>[0-9]+)|/labels/(?P<label>[^/:]+))?"
PATHS = {
    "POST": re.compile(rf"(?i:/v1/models/{NAME}{VERSION}):(?P<verb>classify|regress|predict)"),
    "GET": re.compile(rf"(?i:/v1/models(?:/{NAME})?{VERSION}(?:/(?P<part>metadata))?)"),
}

logger = logging.getLogger(__name__)
http_logger = logger.getChild("http")
http_logger.setLevel(logging.CRITICAL)  # else aiohttp logs a traceback for each client that sends no HTTP


def match_path(method: str, path: str) -> re.Match[str] | None:
    """The match of one of `PATHS`, or `None`."""
    return PATHS[method].fullmatch(path) if method in PATHS else None


def read_model_spec(match: re.Match[str]) -> ModelSpec:
    """The `ModelSpec` of a matched path, without a name if that has none.

    Raises:
        ServerError: INVALID_ARGUMENT for a version beyond 64 bits.
    """
    spec = ModelSpec(name=unquote(match["name"] or ""))
    if match["label"]:
        spec.version_label = unquote(match["label"])
    if match["version"]:
        digits = match["version"].lstrip("0") or "0"
        if len(digits) > 19 or int(digits) >= 2**63:
            raise invalid_argument(f"Failed to convert version: {match['version']} to numeric.")
        spec.version.value = int(digits)
    return spec


def answer_predict(models: Models, spec: ModelSpec, body: bytes, timeout_seconds: float | None) -> bytes:
    """The JSON response to a predict body.

    Raises:
        ServerError: In TF Serving's order: syntax, `signature_name`, model, signature, tensors, run.
    """
    document = parse_json(body)
    name = signature_name(document)
    with models.lease(spec) as version:
        signature = version.session.signatures.get(name or DEFAULT_SIGNATURE)
        if signature is None:
            raise invalid_argument(f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def')
        if not signature.inputs:
            raise invalid_argument(f"Failed to get input map for signature: {name or 'DEFAULT'}")
        dtypes = {alias: tf.as_dtype(info.dtype) for alias, info in signature.inputs.items()}
        inputs, is_row = read_inputs(document, dtypes)
        check_types(signature)
        with METRICS.time(RUNTIME, model_name=spec.name, API="Predict", runtime="TF1"):
            arrays = predict(version.session, signature, inputs, choose_outputs(signature), timeout_seconds)
    models.count_fallbacks(spec.name, arrays)
    arrays = {alias: as_array(array) for alias, array in arrays.items()}
    return write_rows(arrays) if is_row else write_columns(arrays)


def check_types(signature: SignatureDef) -> None:
    """Raises INVALID_ARGUMENT if an output has a dtype that JSON cannot carry, though its values may look so."""
    for info in signature.outputs.values():
        if info.dtype in QUANTIZED or (info.dtype and info.dtype not in SENDABLE):
            raise invalid_argument(f"Failed to write JSON value for tensor type: {type_name(tf.as_dtype(info.dtype))}")


EXAMPLES = {
    "classify": (ClassificationRequest, answer_classify, write_classifications),
    "regress": (RegressionRequest, answer_regress, write_regressions),
}


def answer_examples(models: Models, spec: ModelSpec, verb: str, body: bytes, timeout_seconds: float | None) -> bytes:
    """The JSON response to a classify or regress body."""
    make, ask, write = EXAMPLES[verb]
    document = parse_json(body)
    spec.signature_name = signature_name(document)
    request = make(model_spec=spec, input=read_examples(document))
    return write(ask(models, request, timeout_seconds).result)


def _to_dict(message: Message) -> dict[str, Any]:
    return json_format.MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )


def answer_metadata(models: Models, spec: ModelSpec) -> dict[str, Any]:
    """The signatures of a version, as a JSON document."""
    number, signatures = signature_map(models, spec)
    return {
        "model_spec": _to_dict(ModelSpec(name=spec.name, version={"value": number})),
        "metadata": {"signature_def": _to_dict(signatures)},
    }


def answer(models: Models, method: str, path: str, body: bytes, timeout_seconds: float | None) -> bytes:
    """Routes one request under /v1/.

    Args:
        models: The `tfmtr.serving.models.Models`.
        method: HTTP method.
        path: Path as sent: percent-encoded, with the query string.
        body: Bytes.
        timeout_seconds: Limit of a run.

    Returns:
        Bytes of JSON.

    Raises:
        ServerError: For everything that is not a success.
    """
    match = match_path(method, path)
    if match is None:
        raise invalid_argument(f"Malformed request: {method} {path}")
    spec = read_model_spec(match)
    if method == "POST":
        if match["verb"] == "predict":
            return answer_predict(models, spec, body, timeout_seconds)
        return answer_examples(models, spec, match["verb"], body, timeout_seconds)
    if not spec.name:
        raise invalid_argument("Missing model name in request.")
    if match["part"] == "metadata":  # in other case TF Serving takes the path and answers the status
        document = answer_metadata(models, spec)
    else:
        document = _to_dict(answer_status(models, GetModelStatusRequest(model_spec=spec)))
    return json.dumps(document, indent=1, ensure_ascii=False).encode()


class _Connection(RequestHandler):
    """A connection that answers what was asked before either side ended, and waits for no silent client for ever."""

    is_half_closed = False
    is_stopping = False
    request: web.BaseRequest | None = None  # the one that is being answered
    heard_at = 0.0  # when the client sent something last
    _head_timer: asyncio.TimerHandle | None = None  # runs while a request's head is waited for

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        self.heard_at = self._loop.time()
        if self.request is None and self._head_timer is None:
            self._await_head()
        super().data_received(data)

    def connection_lost(self, exc: BaseException | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def eof_received(self) -> bool:
        self.is_half_closed = True
        waiting = [payload for _, payload in self._messages] + ([self.request.content] if self.request else [])
        # What is whole is answered; the rest of a request that is not will never come.
        return bool(waiting) and all(payload.is_eof() for payload in waiting)

    def begin(self, request: web.BaseRequest) -> None:
        """Takes note of a request whose head is there."""
        self.request = request
        self._stop_waiting()

    def stop(self) -> None:
        """Ends the connection, after what has been asked is answered."""
        self.is_stopping = True
        if self.request is None and not self._messages:
            self.force_close()

    async def read(self, request: web.BaseRequest) -> bytes:
        """The body.

        Raises:
            TimeoutError: If nothing of it comes for a while, for a shorter one while the server stops.
        """
        if request.content.is_eof():
            return await request.read()
        reading = asyncio.ensure_future(request.read())
        try:
            while not reading.done():
                limit = SILENT_SECONDS / (10 if self.is_stopping else 1)
                await asyncio.wait({reading}, timeout=limit / 4)
                if not reading.done() and self._loop.time() - self.heard_at > limit:
                    self._lingering_time = 0.0  # nobody is read after the answer either
                    raise TimeoutError
            return reading.result()
        finally:
            reading.cancel()

    def _await_head(self) -> None:
        self._head_timer = self._loop.call_later(SILENT_SECONDS, self.force_close)

    def _stop_waiting(self) -> None:
        if self._head_timer:
            self._head_timer.cancel()
            self._head_timer = None


class _Server(web.Server):
    def __call__(self) -> _Connection:
        return _Connection(self, loop=self._loop, **self._kwargs)


class RestServer:
    """Serves `models` on one port, from an event loop in a thread of its own.

    A connection holds no worker until its request is complete; JSON and model run in worker threads.

    Args:
        models: The `tfmtr.serving.models.Models`.
        host: Address to listen on.
        port: Port, 0 for any free one.
        grace_seconds: Longest time that `stop` waits for requests whose head has come before.
        timeout_seconds: Limit of a run; the answer to a longer one is 504.
        max_threads: Requests that are worked on at the same time; others wait.
        max_request_bytes: Largest body, inflated if it is compressed, by default `MAX_BYTES`.
        has_cors: Whether web pages of other origins may ask.
        metrics_path: Where Prometheus finds the metrics, or `None` for nowhere.
        tls: `ssl.SSLContext`, or `None` for plain text.

    Raises:
        OSError: If the port cannot be bound.
    """

    def __init__(
        self,
        models: Models,
        host: str,
        port: int,
        grace_seconds: float,
        timeout_seconds: float | None,
        *,
        max_threads: int | None = None,
        max_request_bytes: int | None = None,
        has_cors: bool = False,
        metrics_path: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._models = models
        self._timeout_seconds = timeout_seconds
        self._max_request_bytes = max_request_bytes or MAX_BYTES
        self._grace_seconds, self._metrics_path, self._tls = grace_seconds, metrics_path, tls
        self._headers = CORS_HEADERS if has_cors else {}
        self._workers = ThreadPoolExecutor(max_threads or 4 * (os.cpu_count() or 1), "rest")
        self._loop, self._complained_at = asyncio.new_event_loop(), 0.0
        self._loop.set_exception_handler(self._complain)
        self._thread = threading.Thread(target=self._loop.run_forever, name="rest-loop", daemon=True)
        self._thread.start()
        try:
            self.port = asyncio.run_coroutine_threadsafe(self._open(host, port), self._loop).result()
        except OSError:
            self._close_loop()
            raise

    async def _open(self, host: str, port: int) -> int:
        def make_request(
            message: RawRequestMessage,
            payload: StreamReader,
            protocol: _Connection,
            writer: AbstractStreamWriter,
            task: asyncio.Task[None],
        ) -> web.BaseRequest:
            size = min(self._max_request_bytes, MAX_INFLATED_BYTES) if message.compression else self._max_request_bytes
            request = web.BaseRequest(message, payload, protocol, writer, task, self._loop, client_max_size=size)
            protocol.begin(request)
            return request

        options: Any = {"request_factory": make_request, "access_log": None, "logger": http_logger}
        options["lingering_time"] = LINGERING_SECONDS
        self._server = _Server(self._handle, keepalive_timeout=IDLE_SECONDS, **options)
        self._runner = web.ServerRunner(self._server, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, host, port, reuse_address=True, reuse_port=False, ssl_context=self._tls)
        await site.start()
        return self._runner.addresses[0][1]

    async def _handle(self, request: web.BaseRequest) -> web.Response:
        response = await self._respond(request)
        connection: Any = request.protocol  # a `_Connection`
        connection.request = None
        if (connection.is_half_closed or connection.is_stopping) and not connection._messages:
            response.force_close()  # nothing more can be asked
        return response

    async def _respond(self, request: web.BaseRequest) -> web.Response:
        path = re.sub("^(?i:https?)://[^/]*", "", request.raw_path)  # proxies' clients may send all of an address
        if self._metrics_path and path.partition("?")[0] == self._metrics_path:
            if path != self._metrics_path:
                text = f"Unexpected path: {path}. Should be {self._metrics_path}"
                return web.Response(status=400, text=text, content_type="text/plain")
            return web.Response(text=METRICS.text(), content_type="text/plain")
        if not re.match("(?i)/v1/", path):
            return web.Response(status=404, text="<html><body>404 Not Found</body></html>", content_type="text/html")
        if request.method == "OPTIONS":
            has_origin = re.search("https?://", request.headers.get("Origin", ""))
            return web.Response(status=200 if has_origin else 400, headers=self._headers)
        connection: Any = request.protocol  # a `_Connection`
        waits = request.headers.get("Expect", "").lower() == "100-continue" and request.version >= HttpVersion11
        if waits and (request.content_length or 0) > request.client_max_size:
            connection._lingering_time = 0.0  # the body will not come
            response = self._answer(413, write_error(f"Maximum request body size {request.client_max_size} exceeded."))
            response.force_close()
            return response
        if waits:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun
        try:
            body = await connection.read(request)
        except TimeoutError:
            response = self._answer(408, write_error("Nothing of the request's body has come for too long"))
            response.force_close()
            return response
        except web.RequestPayloadError as error:  # broken chunks or compression
            return self._answer(400, write_error(str(error)))
        except web.HTTPRequestEntityTooLarge as error:
            return self._answer(413, write_error(error.text))
        arguments = self._models, request.method, path, body, self._timeout_seconds
        return self._answer(*await self._loop.run_in_executor(self._workers, _respond, *arguments))

    def _answer(self, status: int, body: bytes) -> web.Response:
        return web.Response(status=status, body=body, headers=self._headers, content_type="application/json")

    def stop(self) -> None:
        """Refuses new connections and waits for the requests whose head has come before."""
        asyncio.run_coroutine_threadsafe(self._drain(), self._loop).result()
        self._close_loop()

    async def _drain(self) -> None:
        end = self._loop.time() + self._grace_seconds
        await asyncio.sleep(SETTLE_SECONDS)
        for site in list(self._runner.sites):
            await site.stop()
        while (connections := self._server.connections) and self._loop.time() < end:
            for connection in connections:
                connection.stop()  # pyright: ignore[reportAttributeAccessIssue] - a `_Connection`
            await asyncio.sleep(0.01)
        await self._runner.cleanup()

    def _complain(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """Logs what goes wrong in the loop, a line a second at most: without files left, each connection fails."""
        if time.monotonic() - self._complained_at >= 1:
            self._complained_at = time.monotonic()
            logger.error("REST: %s: %s", context["message"], context.get("exception"))

    def _close_loop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        self._workers.shutdown(wait=False)


def _respond(models: Models, method: str, path: str, body: bytes, timeout_seconds: float | None) -> tuple[int, bytes]:
    started = time.perf_counter()
    match = match_path(method, path)
    name = unquote(match["name"] or "") if match else ""
    try:
        response = answer(models, method, path, body, timeout_seconds)
    except ServerError as error:
        METRICS.count(name, error.code.name)
        return HTTP_STATUS.get(error.code, 500), write_error(error.message)
    except Exception as error:
        logger.exception("a REST request failed")
        METRICS.count(name, "INTERNAL")
        return 500, write_error(f"{type(error).__name__}: {error}")
    METRICS.count(name, "OK")
    if method == "POST":
        METRICS.observe(LATENCY, time.perf_counter() - started, model_name=name, API=match["verb"], entrypoint="REST")
    return 200, response
