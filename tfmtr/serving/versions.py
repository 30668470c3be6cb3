"""The versions of one model: found on disk, loaded, swapped without a gap, unloaded when no longer used."""

import contextlib
import dataclasses
import logging
import os
import threading
import time
from collections.abc import Callable, Collection, Iterable, Iterator

from tensorflow_serving.apis.get_model_status_pb2 import ModelVersionStatus  # pyright: ignore[reportAttributeAccessIssue]

from tfmtr.serving.batching import Session
from tfmtr.serving.errors import ServerError, not_found, server_error
from tfmtr.serving.session import SavedModelSession
from tfmtr.serving.storage import AnyLocation, Location, join, list_names, locate

START, LOADING, AVAILABLE = ModelVersionStatus.START, ModelVersionStatus.LOADING, ModelVersionStatus.AVAILABLE
UNLOADING, END = ModelVersionStatus.UNLOADING, ModelVersionStatus.END

MIN_PAUSE_SECONDS = 0.1  # after a look at the disk that failed
Policy = Callable[[Iterable[int]], set[int]]  # from the numbers on disk to those that are wanted

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
        is_wanted: Whether the policy asked for it at the last look.
    """

    number: int
    state: int = START
    error: ServerError | None = None
    session: Session = None  # pyright: ignore[reportAssignmentType] - requests see a version once it is loaded
    requests: int = 0
    attempts: int = 0
    retry_at: float = 0.0
    is_wanted: bool = True


def latest(count: int = 1) -> Policy:
    """Policy that wants the largest version numbers."""
    return lambda numbers: set(sorted(numbers)[-count:])


def all_versions(numbers: Iterable[int]) -> set[int]:
    """Policy that wants every version."""
    return set(numbers)


def specific(wanted: Iterable[int]) -> Policy:
    """Policy that wants some versions; those that are not on disk are waited for."""
    return lambda numbers: set(numbers) & set(wanted)


class Model:
    """Keeps the versions under a base path that its policy wants available.

    A version is loaded and available before others are unloaded, and an old one is unloaded
    when its last request is done. A version that cannot be loaded ends with its error while the old one
    serves on; it is tried again only after its directory has been away, or when the server restarts.

    Args:
        name: Name that clients ask for.
        base_path: Directory whose sub-directories with integer names are the versions; or its address, such as
            `gs://bucket/model`.
        policy: Function from the numbers on disk to those that are wanted, by default the largest.
        load: Function from a version's directory to a session.
        poll_wait_seconds: Time between two looks at `base_path`; 0 looks once, a negative number never.
        max_num_load_retries: Further attempts for a version that cannot be loaded.
        retry_interval_seconds: Time between two attempts.
    """

    def __init__(
        self,
        name: str,
        base_path: str | os.PathLike,
        *,
        policy: Policy | None = None,
        load: Callable[[Location], Session] = SavedModelSession,
        poll_wait_seconds: float = 1.0,
        max_num_load_retries: int = 5,
        retry_interval_seconds: float = 1.0,
    ) -> None:
        self.name = name
        self.base_path, self._policy = locate(base_path), policy or latest()
        self._load_session = load
        self._poll_wait_seconds = poll_wait_seconds
        self._max_num_attempts = 1 + max_num_load_retries
        self._retry_interval_seconds = retry_interval_seconds
        self._versions = {}
        self._changed = threading.Condition()
        self._stopping, self._wake, self._has_looked = threading.Event(), threading.Event(), False
        self._thread = None  # while something is watched, or is still to be unloaded
        self._last_note = None

    def start(self) -> None:
        """Starts to watch the base path, in a thread of its own, which ends when there is none and all is unloaded."""
        with self._changed:
            if self._thread is None and not self._stopping.is_set():
                self._thread = threading.Thread(target=self._watch, name=f"versions-of-{self.name}", daemon=True)
                self._thread.start()

    def configure(self, base_path: str | os.PathLike | None, policy: Policy | None) -> None:
        """Looks elsewhere, or for other versions, from now on; `base_path=None` unloads all and looks nowhere."""
        with self._changed:
            self.base_path, self._policy = locate(base_path) if base_path else None, policy
            self._has_looked = False
            for version in self._versions.values():
                version.attempts = 0
        self.start()
        self._wake.set()

    def stop(self, grace_seconds: float = 0.0) -> None:
        """Stops watching and unloads everything; runs that last longer than `grace_seconds` are cancelled."""
        self._stopping.set()
        self._wake.set()
        if thread := self._thread:
            thread.join()
        self._unload(keep=())
        with self._changed:
            self._changed.wait_for(lambda: not self._unloading(), grace_seconds)
            late = [version.session for version in self._unloading()]
        for session in late:
            session.cancel()

    def cancel(self) -> None:
        """Ends the runs under way, and all that would come, with UNAVAILABLE."""
        with self._changed:
            loaded = [v.session for v in self._versions.values() if v.state in (AVAILABLE, UNLOADING)]
        for session in loaded:
            session.cancel()

    @contextlib.contextmanager
    def lease(self, number: int | None = None) -> Iterator[Version]:
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

    def status(self, number: int | None = None) -> list[Version]:
        """Copies of the versions seen since the start, newest first; or of version `number` only."""
        with self._changed:
            versions = [dataclasses.replace(v) for v in self._versions.values() if number in (None, v.number)]
        return sorted(versions, key=lambda v: -v.number)

    def is_available(self, number: int) -> bool:
        """Whether a version serves now."""
        with self._changed:
            return number in self._versions and self._versions[number].state == AVAILABLE

    def wait_until_available(self, timeout_seconds: float | None = None, *, is_needed: bool = False) -> bool:
        """Waits for a version that serves.

        Args:
            timeout_seconds: Longest time to wait, or `None`.
            is_needed: Whether to give up, too, if there is no version on disk to load.

        Returns:
            Whether one is available; `False` after `timeout_seconds` or where there is none.

        Raises:
            ServerError: If the newest version cannot be loaded.
        """

        def outcome() -> bool | ServerError | None:
            versions = [v for v in self._versions.values() if v.is_wanted]
            if any(v.state == START or (v.state == LOADING and v.error is None) for v in versions):
                return None  # the others may come first, but each is tried once
            if any(v.state == AVAILABLE for v in versions):
                return True
            newest = max(versions, key=lambda v: v.number, default=None)
            if newest is None:
                return False if is_needed and self._has_looked else None
            return newest.error if newest.state == END else None

        with self._changed:
            result = self._changed.wait_for(lambda: outcome() is not None, timeout_seconds) and outcome()
        if isinstance(result, ServerError):
            raise result
        return bool(result)

    def poll(self) -> None:
        """One look at the base path, and what follows from it: the loads, then the unloads."""
        with self._changed:
            base_path, policy = self.base_path, self._policy
        paths, error = find_versions(base_path)
        chosen = policy(paths) if base_path and policy else set()
        with self._changed:
            if (base_path, policy) != (self.base_path, self._policy):
                return  # configured anew meanwhile: what was seen is of the old place
            self._has_looked = True
            for version in self._versions.values() if error is None else ():
                version.is_wanted = version.number in chosen
                if version.number not in paths:
                    version.attempts = 0  # a directory that comes back is a new one
                if version.state == LOADING and not version.is_wanted:
                    version.state = END  # its retries are given up
            for number in chosen:
                self._versions.setdefault(number, Version(number))
            self._changed.notify_all()
        if error is not None:
            self._note(f"cannot list the versions of model {self.name}, which stays as it is: {error}")
            return
        if base_path and not chosen:
            kind = "wanted version" if paths else "version"
            self._note(f"no {kind} of model {self.name} under {base_path}; waiting for a directory <version>")
        else:
            self._note(None)
        for number in sorted(chosen, reverse=True):
            if self._must_load(number):
                self._load(number, paths[number])
        if not chosen or any(self.is_available(number) for number in chosen):
            self._unload(keep=chosen)

    def _watch(self) -> None:
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                if self._poll_wait_seconds >= 0 or self.base_path is None:
                    self.poll()
            except Exception:
                logger.exception("looking for versions of model %s failed", self.name)
                self._wake.wait(min(max(MIN_PAUSE_SECONDS, self._poll_wait_seconds), threading.TIMEOUT_MAX))
                continue
            with self._changed:
                if self.base_path is None and all(v.state == END for v in self._versions.values()):
                    self._thread = None
                    return
            retries = [v.retry_at - time.monotonic() for v in self._versions.values() if v.state == LOADING]
            pauses = [max(0.01, pause) for pause in retries]
            if self._poll_wait_seconds > 0:
                pauses.append(self._poll_wait_seconds)
            self._wake.wait(min([*pauses, threading.TIMEOUT_MAX]))  # a longer pause is an error of Python's

    def _unloading(self) -> list[Version]:
        return [v for v in self._versions.values() if v.state == UNLOADING]

    def _must_load(self, number: int) -> bool:
        version = self._versions[number]
        if version.state == LOADING:
            return time.monotonic() >= version.retry_at
        return version.state == START or (version.state == END and version.attempts == 0)

    def _load(self, number: int, path: Location) -> None:
        version = self._versions[number]
        self._set(version, LOADING)
        version.attempts += 1
        started = time.monotonic()
        try:
            session = self._load_session(path)
        except Exception as raised:  # the disk's, the graph's or a file's beside it: all have their retries
            error = server_error(raised)
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

    def _unload(self, keep: Collection[int]) -> None:
        with self._changed:
            leaving = [v for v in self._versions.values() if v.state == AVAILABLE and v.number not in keep]
            for version in leaving:
                version.state = UNLOADING
            idle = [v for v in leaving if not v.requests]
            self._changed.notify_all()
        for version in idle:
            self._close(version)

    def _close(self, version: Version) -> None:
        try:
            version.session.close()
        except Exception:  # it serves no more in any case
            logger.exception("model %s version %d could not be closed in order", self.name, version.number)
        version.attempts = 0
        self._set(version, END)
        self._wake.set()  # perhaps there is nothing left to watch
        logger.info("model %s version %d is unloaded", self.name, version.number)

    def _set(
        self, version: Version, state: int, error: ServerError | None = None, session: Session | None = None
    ) -> None:
        with self._changed:
            version.state, version.error, version.session = state, error, session  # pyright: ignore[reportAttributeAccessIssue]
            self._changed.notify_all()

    def _note(self, text: str | None) -> None:
        if text and text != self._last_note:
            logger.warning(text)
        self._last_note = text


def find_versions(base_path: AnyLocation | None) -> tuple[dict[int, AnyLocation], OSError | None]:
    """What has an integer as its whole name: a directory, or a file, which cannot be loaded and says so.

    Args:
        base_path: Their parent, or `None` for none.

    Returns:
        `({number: location}, error)`: the `OSError` if `base_path` cannot be listed, otherwise `None`.
    """
    if base_path is None:
        return {}, None
    try:
        # In order, so that of `02` and `2` always the same one counts, the last.
        names = [name for name in list_names(base_path) if name.isascii() and name.isdigit()]
    except OSError as error:
        return {}, error
    return {int(name): join(base_path, name) for name in names if int(name) < 2**63}, None
