"""The embedded server: TF Serving's protocol on two ports, for development, tests and small installs."""

import errno
import logging
import signal
import socket
import sys
import threading
from concurrent import futures
from pathlib import Path

from tfmtr.serving.errors import ServerError
from tfmtr.serving.grpc_server import GrpcServer
from tfmtr.serving.models import Models
from tfmtr.serving.rest_server import RestServer
from tfmtr.serving.versions import Model

LAYOUT = "<model_base_path>/<integer version>/saved_model.pb"
GRACE_SECONDS = 30.0

logger = logging.getLogger(__name__)


def check_base_path(path):
    """Raises unless `path` can be the base path of a model: its versions are directories with integer names.

    An empty directory passes: the server waits for the first version.

    Raises:
        ValueError: If `path` is no directory, one version itself, a parent of base paths, or something else.
    """
    path = Path(path)
    received = f"Received: model_base_path={str(path)!r}"
    if not path.is_dir():
        raise ValueError(
            f"`model_base_path` must be a directory laid out as {LAYOUT}; export a model there. {received}"
        )
    if any((path / name).exists() for name in ("saved_model.pb", "saved_model.pbtxt")):
        raise ValueError(
            f"`model_base_path` must be laid out as {LAYOUT}, and this is a SavedModel itself; "
            f"pass its parent directory and name the version with an integer. {received}"
        )
    children = list(path.iterdir())
    if any(child.name.isdigit() for child in children):
        return
    models = sorted(str(child) for child in children if any(p.name.isdigit() for p in child.glob("*/")))
    if models:
        raise ValueError(f"`model_base_path` must be laid out as {LAYOUT}. Did you mean {models[0]}? {received}")
    if any(child.is_file() for child in children):
        raise ValueError(f"`model_base_path` must be laid out as {LAYOUT}; it has no version directory. {received}")


def check_port_is_free(host, port, flag):
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

    Ports open only when the model has a version available. A base path without a version is waited for.

    Args:
        model_base_path: Directory with one sub-directory for each version, named by an integer.
        model_name: Name that clients ask for.
        port: gRPC port; 0 for any free one.
        rest_api_port: REST port; 0 for any free one, `None` for no REST.
        host: Address to listen on, by default reachable from this machine only.
        file_system_poll_wait_seconds: Time between two looks for new versions; 0 looks once.
        rest_api_timeout_in_ms: Limit of a REST request's run; gRPC requests bring their own deadline.
        max_num_load_retries: Further attempts for a version that cannot be loaded.
        load_retry_interval_micros: Time between two attempts.

    Attributes:
        port: The gRPC port, once started.
        rest_port: The REST port, once started, or `None`.

    Raises:
        ValueError: If `model_base_path` has not the layout of a base path.

    Example:
        with Server("saved_models/two_tower", model_name="two_tower", port=0) as server:
            client = Client(f"127.0.0.1:{server.port}", "two_tower")
    """

    def __init__(
        self,
        model_base_path,
        *,
        model_name="default",
        port=8500,
        rest_api_port=None,
        host="127.0.0.1",
        file_system_poll_wait_seconds=1.0,
        rest_api_timeout_in_ms=30_000,
        max_num_load_retries=5,
        load_retry_interval_micros=1_000_000,
    ):
        check_base_path(model_base_path)
        self.port = port
        self.rest_port = rest_api_port
        self._host = host
        self._rest_timeout_seconds = rest_api_timeout_in_ms / 1000
        self._models = Models(
            [
                Model(
                    model_name,
                    model_base_path,
                    poll_wait_seconds=file_system_poll_wait_seconds,
                    max_num_load_retries=max_num_load_retries,
                    retry_interval_seconds=load_retry_interval_micros / 1e6,
                )
            ]
        )
        self._ports = []
        self._stopping = threading.Event()

    def start(self):
        """Loads the models, then opens the ports.

        Returns:
            Whether the server runs; `False` if `request_stop` came first.

        Raises:
            OSError: If a port is in use; nothing is loaded then.
            ServerError: If a model cannot be loaded.
        """
        if self.rest_port and self.rest_port == self.port:
            logger.error("REST is off: --rest_api_port and --port are both %d", self.port)
            self.rest_port = None
        check_port_is_free(self._host, self.port, "port")
        if self.rest_port is not None:
            check_port_is_free(self._host, self.rest_port, "rest_api_port")
        try:
            for model in self._models:
                model.start()
            for model in self._models:
                while not model.wait_until_available(0.2):
                    if self._stopping.is_set():
                        self.stop()
                        return False
            self._open_ports()
        except BaseException:
            self.stop()
            raise
        return True

    def _open_ports(self):
        self._ports.append(GrpcServer(self._models, self._host, self.port, GRACE_SECONDS))
        self.port = self._ports[-1].port
        logger.info("gRPC on %s:%d", self._host, self.port)
        if self.rest_port is not None:
            self._ports.append(
                RestServer(self._models, self._host, self.rest_port, GRACE_SECONDS, self._rest_timeout_seconds)
            )
            self.rest_port = self._ports[-1].port
            logger.info("REST on %s:%d", self._host, self.rest_port)

    def request_stop(self):
        """Makes `wait` return; callable from a signal handler."""
        self._stopping.set()

    def wait(self):
        """Blocks until `request_stop`."""
        self._stopping.wait()

    def stop(self):
        """Refuses new requests, waits up to 30 seconds for the running ones, unloads the models."""
        with futures.ThreadPoolExecutor(2) as together:
            list(together.map(lambda port: port.stop(), self._ports))
        self._ports = []
        for model in self._models:
            model.stop()

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *exception):
        self.stop()


def serve(
    model_base_path,
    *,
    model_name="default",
    port=8500,
    rest_api_port=0,
    host="127.0.0.1",
    file_system_poll_wait_seconds=1.0,
    rest_api_timeout_in_ms=30_000,
    max_num_load_retries=5,
    load_retry_interval_micros=1_000_000,
):
    """Serves a model until SIGTERM or SIGINT, then finishes the running requests and returns.

    Arguments are `tensorflow_model_server`'s flags, and `host`. Two defaults differ from its own: the server
    is reachable from this machine only, and a version that cannot be loaded is given up after 5 seconds, not
    5 minutes.

    Args:
        model_base_path: Directory with one sub-directory for each version, named by an integer.
        model_name: Name that clients ask for.
        port: gRPC port; 0 for any free one.
        rest_api_port: REST port; 0 for no REST.
        host: Address to listen on.
        file_system_poll_wait_seconds: Time between two looks for new versions; 0 looks once.
        rest_api_timeout_in_ms: Limit of a REST request's run.
        max_num_load_retries: Further attempts for a version that cannot be loaded.
        load_retry_interval_micros: Time between two attempts.

    Raises:
        ValueError: If `model_base_path` has not the layout of a base path.
        OSError: If a port is in use.
        SystemExit: With status 255 if the model cannot be loaded.
    """
    server = Server(
        model_base_path,
        model_name=model_name,
        port=port,
        rest_api_port=rest_api_port or None,
        host=host,
        file_system_poll_wait_seconds=file_system_poll_wait_seconds,
        rest_api_timeout_in_ms=rest_api_timeout_in_ms,
        max_num_load_retries=max_num_load_retries,
        load_retry_interval_micros=load_retry_interval_micros,
    )
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: server.request_stop())
    try:
        is_running = server.start()
    except ServerError as error:
        print(f"Failed to start server. Error: {error}", file=sys.stderr)
        raise SystemExit(255) from error
    if is_running:
        server.wait()
        logger.info("stopping: running requests are finished, new ones refused")
        server.stop()
    logger.info("stopped")
