"""The embedded server: TF Serving's protocol on two ports, for development, tests and small installs."""

import errno
import logging
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
from concurrent import futures
from pathlib import Path
from typing import Any, NamedTuple, NoReturn, Self

import grpc
import tensorflow as tf
from tensorflow_serving.config.model_server_config_pb2 import ModelConfigList, ModelServerConfig  # pyright: ignore[reportAttributeAccessIssue]

from tfmtr.serving.batching import BatchingOptions, BatchingSession, BatchScheduler, Session
from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.grpc_server import GrpcServer
from tfmtr.serving.models import Models
from tfmtr.serving.options import ServerOptions
from tfmtr.serving.rest_server import RestServer
from tfmtr.serving.session import SavedModelSession
from tfmtr.serving.storage import Location, check_scheme, is_directory, is_file, join, list_names, locate
from tfmtr.serving.text_protos import BatchingParameters, MonitoringConfig, SSLConfig, read_text_proto
from tfmtr.serving.versions import Model, Policy
from tfmtr.serving.warmup import warm_up

LAYOUT = "<model_base_path>/<integer version>/saved_model.pb"
GRACE_SECONDS = 8.0  # with what follows below the 10 seconds after which Docker kills
CUT_SECONDS = 1.0  # in which those that are cut are told so

logger = logging.getLogger(__name__)


def check_base_path(path: str | os.PathLike) -> None:
    """Raises unless `path` can be the base path of a model: its versions are directories with integer names.

    An empty directory passes: the server waits for the first version.

    Raises:
        ValueError: If `path` is no directory, one version itself, a parent of base paths, or something else.
    """
    received = f"Received: model_base_path={str(path)!r}"
    check_scheme(path)
    place = locate(path)
    if not is_directory(place):
        raise ValueError(
            f"`model_base_path` must be a directory laid out as {LAYOUT}; export a model there. {received}"
        )
    names = list_names(place)
    if {"saved_model.pb", "saved_model.pbtxt"} & set(names):
        raise ValueError(
            f"`model_base_path` must be laid out as {LAYOUT}, and this is a SavedModel itself; "
            f"pass its parent directory and name the version with an integer. {received}"
        )
    if any(name.isdigit() for name in names):
        return
    children = [join(place, name) for name in names]
    folders = [child for child in children if is_directory(child)]
    models = [str(child) for child in folders if any(name.isdigit() for name in list_names(child))]
    if models:
        raise ValueError(f"`model_base_path` must be laid out as {LAYOUT}. Did you mean {models[0]}? {received}")
    if len(folders) < len(children):
        raise ValueError(f"`model_base_path` must be laid out as {LAYOUT}; it has no version directory. {received}")


def check_port_is_free(host: str, port: int, flag: str) -> None:
    """Raises unless `port` can be bound now.

    Raises:
        OSError: If it is in use or not allowed.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise OSError(error.errno, f"cannot listen on port {port} of {host}: {error.strerror}") from error
            raise OSError(
                errno.EADDRINUSE, f"port {port} on {host} is in use; choose another with --{flag} <port>"
            ) from error


class Server:
    """A running server; a context manager that starts and stops it.

    Ports open only when every model has a version available. A base path without a version is waited for.

    Args:
        model_base_path: Directory with one sub-directory for each version, named by an integer, or its address, such
            as `gs://bucket/model`; or `None` with a `model_config_file`.
        rest_api_port: REST port; 0 for any free one, `None` for no REST.
        **options: The other fields of `tfmtr.serving.options.ServerOptions`; `port=0` takes any free one, `port=None`
            leaves gRPC to the `grpc_socket_path`, if there is one.

    Attributes:
        port: The gRPC port, once started, or `None`.
        rest_port: The REST port, once started, or `None`.

    Raises:
        ValueError: If `model_base_path` has not the layout of a base path, or an option does not fit.

    Example:
        with Server("saved_models/two_tower", model_name="two_tower", port=0) as server:
            client = Client(f"127.0.0.1:{server.port}", "two_tower")
    """

    def __init__(
        self, model_base_path: str | os.PathLike | None = None, *, rest_api_port: int | None = None, **options: Any
    ) -> None:
        if model_base_path:
            check_base_path(model_base_path)
        given = ServerOptions(model_base_path=str(model_base_path or ""), rest_api_port=rest_api_port, **options)
        self.options, self.port, self.rest_port = given, given.port, rest_api_port
        self._config = read_config(given)
        self._session_config = read_session_config(given.tensorflow_session_config_file)
        self._tls = read_tls(given.ssl_config_file)
        self._metrics_path = read_metrics_path(given.monitoring_config_file)
        self._channel_arguments = read_channel_arguments(given.grpc_channel_arguments)
        self._scheduler = None
        if given.enable_batching and not given.enable_per_model_batching_parameters:
            self._scheduler = BatchScheduler(read_batching(given.batching_parameters_file), os.cpu_count() or 1)
        self._models = Models(
            self._make_model,
            allow_labels_for_unavailable=given.allow_version_labels_for_unavailable_models,
            check_method_names=given.enable_signature_method_name_check,
            as_content=given.enable_serialization_as_tensor_content,
        )
        self._ports = []
        self._stopping = threading.Event()
        self._watcher = None

    def _make_model(self, name: str, base_path: str, *, policy: Policy) -> Model:
        return Model(
            name,
            base_path,
            policy=policy,
            load=self._load,
            poll_wait_seconds=self.options.file_system_poll_wait_seconds,
            max_num_load_retries=self.options.max_num_load_retries,
            retry_interval_seconds=self.options.load_retry_interval_micros / 1e6,
        )

    def _load(self, path: Location) -> Session:
        """One version, warm, and batched if that is asked for."""
        options = self.options
        session = SavedModelSession(
            path,
            options.saved_model_tags.split(","),
            memory_fraction=options.per_process_gpu_memory_fraction,
            config=self._session_config,
            intra_op_threads=options.tensorflow_intra_op_parallelism or options.tensorflow_session_parallelism,
            inter_op_threads=options.tensorflow_inter_op_parallelism or options.tensorflow_session_parallelism,
        )
        try:
            if options.enable_model_warmup:
                warm_up(session, path, max(1, options.num_request_iterations_for_warmup))
            scheduler = self._scheduler
            file = join(path, "batching_params.pbtxt")
            if options.enable_batching and options.enable_per_model_batching_parameters and is_file(file):
                scheduler = BatchScheduler(read_batching(file), os.cpu_count() or 1)
        except ValueError as error:
            session.close()
            raise invalid_argument(str(error)) from error
        except Exception:
            session.close()
            raise
        return (
            BatchingSession(session, scheduler, owns_scheduler=scheduler is not self._scheduler)
            if scheduler
            else session
        )

    def start(self) -> bool:
        """Loads the models, then opens the ports.

        Returns:
            Whether the server runs; `False` if `request_stop` came first.

        Raises:
            OSError: If a port is in use; nothing is loaded then.
            ServerError: If a model cannot be loaded, or a label is given to a version that is not.
        """
        if self.rest_port and self.rest_port == self.port:
            logger.error("REST is off: --rest_api_port and --port are both %d", self.port)
            self.rest_port = None
        if ignored := self.options.without_effect():
            logger.warning("without effect here: %s", ", ".join(ignored))
        if self.port is not None:
            check_port_is_free(self.options.host, self.port, "port")
        if self.rest_port is not None:
            check_port_is_free(self.options.host, self.rest_port, "rest_api_port")
        try:
            self._config = servable(self._config)
            self._check_labels()
            self._models.configure(self._config)
            for model in self._models:
                while not model.wait_until_available(0.2):
                    if self._stopping.is_set():
                        self.stop()
                        return False
            self._models.reload(self._config)
            self._open_ports()
        except BaseException:
            self.stop()
            raise
        if self.options.model_config_file and self.options.model_config_file_poll_wait_seconds > 0:
            self._watcher = threading.Thread(target=self._watch_config, name="config", daemon=True)
            self._watcher.start()
        return True

    def _check_labels(self) -> None:
        """TF Serving takes no labels before versions are available, so a start with labels fails there, too."""
        for config in () if self.options.allow_version_labels_for_unavailable_models else self._config.config:
            for number in config.version_labels.values():
                raise ServerError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    f"Request to assign label to version {number} of model {config.name}, which is not currently "
                    "available for inference; --allow_version_labels_for_unavailable_models lets a server start so",
                )

    def _watch_config(self) -> None:
        """Applies the configuration file again and again; a bad one changes nothing."""
        pause = min(self.options.model_config_file_poll_wait_seconds, threading.TIMEOUT_MAX)
        while not self._stopping.wait(pause):
            try:
                self._models.reload(servable(read_config(self.options)), timeout_seconds=60)
            except (ValueError, OSError, ServerError) as error:
                logger.error("%s is not applied: %s", self.options.model_config_file, error)

    def _open_ports(self) -> None:
        options = self.options
        default_threads = max(4 * (os.cpu_count() or 1), 64 if options.enable_batching else 0)
        if self.port is not None or options.grpc_socket_path:
            self._ports.append(
                GrpcServer(
                    self._models,
                    options.host,
                    self.port,
                    GRACE_SECONDS + CUT_SECONDS,
                    max_threads=options.grpc_max_threads or default_threads,
                    max_request_bytes=options.max_request_bytes,
                    channel_arguments=self._channel_arguments,
                    socket_path=options.grpc_socket_path,
                    tls=self._tls and self._tls.grpc,
                    has_health=options.enable_grpc_healthcheck_service,
                )
            )
            self.port = self._ports[-1].port
            logger.info("gRPC on %s", options.grpc_socket_path if self.port is None else f"{options.host}:{self.port}")
        if self.rest_port is not None:
            self._ports.append(
                RestServer(
                    self._models,
                    options.host,
                    self.rest_port,
                    GRACE_SECONDS + CUT_SECONDS,
                    options.rest_api_timeout_in_ms / 1000,
                    max_threads=options.rest_api_num_threads or default_threads,
                    max_request_bytes=options.max_request_bytes,
                    has_cors=options.rest_api_enable_cors_support,
                    metrics_path=self._metrics_path,
                    tls=self._tls and self._tls.rest,
                )
            )
            self.rest_port = self._ports[-1].port
            logger.info("REST on %s:%d", options.host, self.rest_port)

    def request_stop(self) -> None:
        """Makes `wait` return; callable from a signal handler."""
        self._stopping.set()

    def wait(self) -> None:
        """Blocks until `request_stop`."""
        self._stopping.wait()

    def stop(self) -> None:
        """Refuses new requests, waits up to 8 seconds for the running ones and cuts them, unloads the models."""
        self._stopping.set()
        cut = threading.Timer(GRACE_SECONDS, self._models.cancel)
        cut.start()
        with futures.ThreadPoolExecutor(2) as together:
            list(together.map(lambda port: port.stop(), self._ports))
        cut.cancel()
        self._ports = []
        if self._watcher:
            self._watcher.join()
        self._models.stop()
        if self._scheduler:
            self._scheduler.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stop()


def read_config(options: ServerOptions) -> ModelConfigList:
    """The `ModelConfigList` of a server's options.

    Raises:
        ValueError: If the file is no `ModelServerConfig` with a `model_config_list`.
    """
    if not options.model_config_file:
        config = ModelConfigList()
        place = locate(options.model_base_path)
        path = place if isinstance(place, str) else os.path.abspath(place)
        config.config.add(name=options.model_name, base_path=path, model_platform="tensorflow")
        return config
    config = read_text_proto(options.model_config_file, ModelServerConfig)
    if config.WhichOneof("config") != "model_config_list":
        raise ValueError(
            f"{options.model_config_file} must hold a model_config_list {{ config {{ name base_path model_platform }} "
            f"}}. Received: {config.WhichOneof('config')}"
        )
    return config.model_config_list


def servable(config: ModelConfigList) -> ModelConfigList:
    """A list without the models whose address no file system here can read; says of each why.

    Raises:
        ServerError: INVALID_ARGUMENT if none is left.
    """
    usable, faults = ModelConfigList(), []
    for model in config.config:
        try:
            check_scheme(model.base_path)
            usable.config.append(model)
        except ValueError as error:
            faults.append(f"model {model.name} is not served: {error}")
            logger.error(faults[-1])
    if faults and not usable.config:
        raise invalid_argument(faults[0])
    return usable


class Tls(NamedTuple):
    """The same certificate for both ports."""

    grpc: grpc.ServerCredentials
    rest: ssl.SSLContext


def read_tls(path: str) -> Tls | None:
    """What both ports need of a file with an `SSLConfig`; `None` without a file.

    Raises:
        ValueError: If it has no key or certificate, or they are not PEM text.
    """
    if not path:
        return None
    config = read_text_proto(path, SSLConfig)
    if not config.server_key or not config.server_cert:
        raise ValueError(f"{path} must have server_key and server_cert, PEM text both. Received: one of them is empty")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    with tempfile.TemporaryDirectory() as folder:  # Python reads certificates from files only
        files = Path(folder) / "cert.pem", Path(folder) / "key.pem"
        for file, text in zip(files, (config.server_cert, config.server_key), strict=True):
            file.touch(mode=0o600)
            file.write_text(text, encoding="utf-8")
        try:
            context.load_cert_chain(*files)
            if config.custom_ca:
                context.load_verify_locations(cadata=config.custom_ca)
        except ssl.SSLError as error:
            raise ValueError(f"{path} must hold a key and a certificate as PEM text. Received: {error}") from error
    if config.client_verify:
        context.verify_mode = ssl.CERT_REQUIRED
    credentials = grpc.ssl_server_credentials(
        [(config.server_key.encode(), config.server_cert.encode())],
        root_certificates=config.custom_ca.encode() or None,
        require_client_auth=config.client_verify,
    )
    return Tls(credentials, context)


def read_metrics_path(path: str) -> str | None:
    """Where Prometheus finds the metrics: of a file with a `MonitoringConfig`; `None` if they are not enabled."""
    if not path:
        return None
    config = read_text_proto(path, MonitoringConfig).prometheus_config
    return (config.path or "/monitoring/prometheus/metrics") if config.enable else None


def read_session_config(path: str) -> tf.compat.v1.ConfigProto | None:
    """The `ConfigProto` of a file; `None` without one."""
    return read_text_proto(path, tf.compat.v1.ConfigProto) if path else None


def read_batching(path: str | os.PathLike) -> BatchingOptions:
    """The `BatchingOptions` of a file with `BatchingParameters`; TF Serving's defaults without one."""
    return BatchingOptions.from_proto(read_text_proto(path, BatchingParameters)) if path else BatchingOptions()


def read_channel_arguments(text: str) -> dict[str, int | str]:
    """`{name: value}` of `"name=value,name=value"`, whole numbers as such.

    Raises:
        ValueError: If a part has no `=`.

    Example:
    >>> read_channel_arguments("grpc.max_concurrent_streams=100,grpc.x=y")
    {'grpc.max_concurrent_streams': 100, 'grpc.x': 'y'}
    """
    arguments = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals:
            raise ValueError(f"--grpc_channel_arguments must be name=value,name=value. Received: {text!r}")
        arguments[name] = int(value) if value.lstrip("-").isdigit() else value
    return arguments


def serve(
    model_base_path: str | os.PathLike | None = None,
    *,
    port: int | None = 8500,
    rest_api_port: int | None = 0,
    **options: Any,
) -> None:
    """Serves models until SIGTERM or SIGINT, then finishes the running requests and returns.

    Args:
        model_base_path: As for `Server`.
        port: gRPC port; 0 for no gRPC.
        rest_api_port: REST port; 0 for no REST.
        **options: The other fields of `tfmtr.serving.options.ServerOptions`.

    Raises:
        ValueError: If `model_base_path` has not the layout of a base path, or an option does not fit.
        OSError: If a port is in use.
        SystemExit: With status 255 if a model or the configuration cannot be loaded.
    """
    try:
        server = Server(model_base_path, port=port or None, rest_api_port=rest_api_port or None, **options)
    except ValueError as error:
        if not options.get("model_config_file"):
            raise
        _fail(error)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    try:
        is_running = server.start()
    except ServerError as error:
        _fail(error)
    if is_running:
        server.wait()
        logger.info("stopping: running requests are finished, new ones refused")
        server.stop()
    logger.info("stopped")


def _fail(error: Exception) -> NoReturn:
    print(f"Failed to start server. Error: {error}", file=sys.stderr)
    raise SystemExit(255) from error
