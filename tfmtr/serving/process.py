"""The server's command in a process of its own: for benchmarks, tests and whoever wants one beside a notebook."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from typing import Self


def free_port() -> int:
    """A port of this machine that nobody listens on now."""
    return free_ports(1)[0]


def free_ports(number: int) -> list[int]:
    """Ports of this machine that nobody listens on now, no two the same.

    Args:
        number: Their number.
    """
    with contextlib.ExitStack() as listeners:
        return [listeners.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(number)]


class ServerProcess:
    """`tfmtr serve` on free ports of this machine; a context manager that waits for the ports and stops the server.

    Args:
        *flags: Further flags of the command, such as `"--model_base_path=saved_models/two_tower"`.

    Attributes:
        port: gRPC port.
        rest_port: REST port.
        process: The `subprocess.Popen`.
    """

    def __init__(self, *flags: str) -> None:
        self.port, self.rest_port = free_ports(2)
        ports = f"--port={self.port}", f"--rest_api_port={self.rest_port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (no pipe: a full one stops the server)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tfmtr.cli", "serve", *ports, *flags],
            stderr=self._log,
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )

    def wait(self, seconds: float = 60) -> Self:
        """Waits until the ports are open, and returns the object.

        Raises:
            RuntimeError: With what the server said, if it ended or its ports did not open.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end and self.process.poll() is None:
            try:
                socket.create_connection(("127.0.0.1", self.rest_port), 0.2).close()
                return self
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"the server must open its ports within {seconds} seconds. Received: {self.log()}")

    def log(self) -> str:
        """What the server wrote so far, a text."""
        self._log.seek(0)
        return self._log.read().decode()

    def stop(self, seconds: float = 60) -> int:
        """Asks the server to end, waits for it and returns its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def __enter__(self) -> Self:
        try:
            return self.wait()
        except BaseException:
            self.process.kill()
            raise

    def __exit__(self, *exception: object) -> None:
        self.stop()
