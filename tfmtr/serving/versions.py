"""The versions of one model: found on disk, loaded, swapped without a gap, unloaded when no longer used."""

import contextlib
import dataclasses
import logging
import math
import threading
import time
from pathlib import Path

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus

from tfmtr.serving.errors import ServerError, not_found
from tfmtr.serving.session import SavedModelSession

START, LOADING, AVAILABLE = ModelVersionStatus.START, ModelVersionStatus.LOADING, ModelVersionStatus.AVAILABLE
UNLOADING, END = ModelVersionStatus.UNLOADING, ModelVersionStatus.END

logger = logging.getLogger(__name__)


@dataclasses.dataclass
class Version:
    """What the server knows of one version.

    Args:
        number: The version's number, the name of its directory.
        state: One of `START`, `LOADING`, `AVAILABLE`, `UNLOADING`, `END`.
        error: Why it could not be loaded, or `None`.
        session: The loaded SavedModel while `AVAILABLE` or `UNLOADING`.
        requests: Requests that use the session now.
        attempts: Loads tried since the directory appeared.
        retry_at: Earliest time (monotonic, seconds) of the next attempt.
    """

    number: int
    state: int = START
    error: ServerError | None = None
    session: SavedModelSession | None = None
    requests: int = 0
    attempts: int = 0
    retry_at: float = 0.0


class Model:
    """Keeps the newest version under a base path available.

    A newer version is loaded and available before the old one is unloaded, and an old one is unloaded
    when its last request is done. A version that cannot be loaded ends with its error while the old one
    serves on; it is tried again only after its directory has been away, or when the server restarts.

    Args:
        name: Name that clients ask for.
        base_path: Directory whose sub-directories with integer names are the versions.
        poll_wait_seconds: Time between two looks at `base_path`; 0 looks once, a negative number never.
        max_num_load_retries: Further attempts for a version that cannot be loaded.
        retry_interval_seconds: Time between two attempts.
    """

    def __init__(self, name, base_path, *, poll_wait_seconds=1.0, max_num_load_retries=5, retry_interval_seconds=1.0):
        self.name = name
        self.base_path = Path(base_path)
        self._poll_wait_seconds = poll_wait_seconds
        self._max_num_attempts = 1 + max_num_load_retries
        self._retry_interval_seconds = retry_interval_seconds
        self._versions = {}
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"versions-of-{name}", daemon=True)
        self._last_note = None

    def start(self):
        """Starts to watch the base path, in a thread of its own."""
        self._thread.start()

    def stop(self, grace_seconds=0.0):
        """Stops watching and unloads everything; runs that last longer than `grace_seconds` are cancelled."""
        self._stopping.set()
        if self._thread.ident:
            self._thread.join()
        self._unload(keep=None)
        with self._changed:
            self._changed.wait_for(lambda: not self._unloading(), grace_seconds)
            late = [version.session for version in self._unloading()]
        for session in late:
            session.cancel()

    @contextlib.contextmanager
    def lease(self, number=None):
        """Holds a version while a request uses it.

        Args:
            number: The version; by default the largest that is available.

        Yields:
            The `Version`, whose session stays open until the block ends.

        Raises:
            ServerError: NOT_FOUND if that version is not available.
        """
        with self._changed:
            available = [v for v in self._versions.values() if v.state == AVAILABLE and number in (None, v.number)]
            if not available:
                which = f"Latest({self.name})" if number is None else f"Specific({self.name}, {number})"
                raise not_found(f"Servable not found for request: {which}")
            version = max(available, key=lambda v: v.number)
            version.requests += 1
        try:
            yield version
        finally:
            with self._changed:
                version.requests -= 1
                is_last = version.state == UNLOADING and not version.requests
            if is_last:
                self._close(version)

    def status(self, number=None):
        """Copies of the versions seen since the start, newest first; or of version `number` only."""
        with self._changed:
            versions = [dataclasses.replace(v) for v in self._versions.values() if number in (None, v.number)]
        return sorted(versions, key=lambda v: -v.number)

    def wait_until_available(self, timeout_seconds=None):
        """Waits for a version that serves.

        Returns:
            Whether one is available; `False` only after `timeout_seconds`.

        Raises:
            ServerError: If the newest version cannot be loaded.
        """

        def outcome():
            versions = self._versions.values()
            if any(v.state == AVAILABLE for v in versions):
                return True
            newest = max(versions, key=lambda v: v.number, default=None)
            return newest.error if newest and newest.state == END else None

        with self._changed:
            result = self._changed.wait_for(outcome, timeout_seconds)
        if isinstance(result, ServerError):
            raise result
        return bool(result)

    def poll(self):
        """One look at the base path, and what follows from it: at most one load, then the unloads."""
        try:
            paths = {int(p.name): p for p in self.base_path.iterdir() if p.name.isascii() and p.name.isdigit()}
        except OSError as error:
            self._note(f"cannot list the versions of model {self.name}, which stays as it is: {error}")
            return
        newest = max((number for number in paths if number < 2**63), default=None)
        with self._changed:
            for version in self._versions.values():
                if version.number not in paths:
                    version.attempts = 0  # a directory that comes back is a new one
                if version.state == LOADING and version.number != newest:
                    version.state = END  # its retries are given up
            self._changed.notify_all()
        if newest is None:
            self._note(f"no version of model {self.name} under {self.base_path}; waiting for a directory <version>")
            self._unload(keep=None)
            return
        self._note(None)
        if self._must_load(newest):
            self._load(newest, paths[newest])
        if self._versions[newest].state == AVAILABLE:
            self._unload(keep=newest)

    def _watch(self):
        if self._poll_wait_seconds < 0:
            return
        while not self._stopping.is_set():
            try:
                self.poll()
            except Exception:
                logger.exception("looking for versions of model %s failed", self.name)
            retries = [v.retry_at - time.monotonic() for v in self._versions.values() if v.state == LOADING]
            if not retries and self._poll_wait_seconds == 0:
                return
            pauses = [max(0.01, pause) for pause in retries] + [self._poll_wait_seconds or math.inf]
            self._stopping.wait(min(pauses))

    def _unloading(self):
        return [v for v in self._versions.values() if v.state == UNLOADING]

    def _must_load(self, number):
        with self._changed:
            version = self._versions.setdefault(number, Version(number))
        if version.state == LOADING:
            return time.monotonic() >= version.retry_at
        return version.state == START or (version.state == END and version.attempts == 0)

    def _load(self, number, path):
        version = self._versions[number]
        self._set(version, LOADING)
        version.attempts += 1
        started = time.monotonic()
        try:
            session = SavedModelSession(path)
        except ServerError as error:
            is_final = version.attempts >= self._max_num_attempts
            version.retry_at = time.monotonic() + self._retry_interval_seconds
            self._set(version, END if is_final else LOADING, error=error)
            logger.error(
                "model %s version %d cannot be loaded (attempt %d of %d): %s",
                *(self.name, number, version.attempts, self._max_num_attempts, error),
            )
            return
        self._set(version, AVAILABLE, session=session)
        logger.info(
            "model %s version %d is available (loaded in %.2f s)", self.name, number, time.monotonic() - started
        )

    def _unload(self, keep):
        with self._changed:
            leaving = [v for v in self._versions.values() if v.state == AVAILABLE and v.number != keep]
            for version in leaving:
                version.state = UNLOADING
            idle = [v for v in leaving if not v.requests]
            self._changed.notify_all()
        for version in idle:
            self._close(version)

    def _close(self, version):
        version.session.close()
        version.attempts = 0
        self._set(version, END)
        logger.info("model %s version %d is unloaded", self.name, version.number)

    def _set(self, version, state, error=None, session=None):
        with self._changed:
            version.state, version.error, version.session = state, error, session
            self._changed.notify_all()

    def _note(self, text):
        if text and text != self._last_note:
            logger.warning(text)
        self._last_note = text
