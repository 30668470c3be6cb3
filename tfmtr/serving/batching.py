"""Requests of many clients as one run of the graph, by TF Serving's rules."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Callable, Hashable, Mapping, Sequence
from concurrent import futures
from typing import Any, Self

import grpc
import numpy as np

from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.session import SavedModelSession


@dataclasses.dataclass(frozen=True)
class BatchingOptions:
    """TF Serving's `BatchingParameters`.

    Attributes:
        max_batch_size: Most rows of one run, and of one request.
        batch_timeout_micros: How long a batch that is not full waits for more requests.
        max_enqueued_batches: Full batches that may wait; further requests are refused.
        num_batch_threads: Runs at the same time; by default one for each core.
        allowed_batch_sizes: Sizes that batches are padded to, ascending, the last `max_batch_size`; empty for any.
        pad_variable_length_inputs: Whether requests whose other dimensions differ are padded to one shape.
        enable_large_batch_splitting: Whether a request of more rows is run in parts.
        max_execution_batch_size: Most rows of such a part.
    """

    max_batch_size: int = 1000
    batch_timeout_micros: int = 0
    max_enqueued_batches: int = 10
    num_batch_threads: int = 0
    allowed_batch_sizes: tuple[int, ...] = ()
    pad_variable_length_inputs: bool = False
    enable_large_batch_splitting: bool = False
    max_execution_batch_size: int = 0

    @classmethod
    def from_proto(cls, proto: Any) -> Self:
        """The options of a `BatchingParameters` message.

        Raises:
            ValueError: If a number is out of its range.
        """
        given = {}
        for field in dataclasses.fields(cls):
            if field.name in ("allowed_batch_sizes", "pad_variable_length_inputs"):
                value = getattr(proto, field.name)
                given[field.name] = tuple(value) if field.name == "allowed_batch_sizes" else value
            elif proto.HasField(field.name):
                given[field.name] = getattr(proto, field.name).value
        options = cls(**given)
        sizes = options.allowed_batch_sizes
        largest = options.max_execution_batch_size or options.max_batch_size
        if options.max_batch_size < 1 or options.max_enqueued_batches < 0 or options.batch_timeout_micros < 0:
            raise ValueError(
                "batching needs a positive max_batch_size, and a batch_timeout_micros and max_enqueued_batches that "
                f"are not negative. Received: {options}"
            )
        if options.num_batch_threads < 0 or options.max_execution_batch_size < 0:
            raise ValueError(
                "batching needs a num_batch_threads and a max_execution_batch_size that are not negative. Received: "
                f"{options}"
            )
        if sizes and (list(sizes) != sorted(set(sizes)) or sizes[0] < 1 or sizes[-1] != largest):
            raise ValueError(
                "allowed_batch_sizes must be positive and ascending, and the last one the largest batch. Received: "
                f"allowed_batch_sizes={list(sizes)}, largest batch={largest}"
            )
        return options

    @property
    def largest(self) -> int:
        """Most rows of one run."""
        if self.enable_large_batch_splitting:
            return self.max_execution_batch_size or self.max_batch_size
        return self.max_batch_size


@dataclasses.dataclass
class Task:
    """One request, or a part of one, that waits to be run."""

    feeds: dict[str, np.ndarray]
    rows: int
    done: futures.Future = dataclasses.field(default_factory=futures.Future)
    deadline: float = float("inf")


class BatchScheduler:
    """Threads that run batches of all models.

    Args:
        options: The `BatchingOptions`.
        num_cpus: Threads where the options do not say.
    """

    def __init__(self, options: BatchingOptions, num_cpus: int) -> None:
        self.options = options
        self._changed = threading.Condition()
        self._queues = {}  # {key: [Batch]}, the last one open for more tasks
        self._is_closed = False
        count = options.num_batch_threads or num_cpus
        self._threads = [threading.Thread(target=self._work, name=f"batch-{i}", daemon=True) for i in range(count)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the threads; what waits is run first."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def submit(self, key: Hashable, task: Task, run: Callable[[list[Task]], None]) -> None:
        """Puts a task into the open batch of its key, which `run(tasks)` runs.

        Raises:
            ServerError: UNAVAILABLE if too many batches wait.
        """
        with self._changed:
            batches = self._queues.setdefault(key, [])
            if not batches or batches[-1].rows + task.rows > self.options.largest:
                if len(batches) > self.options.max_enqueued_batches:
                    raise ServerError(
                        grpc.StatusCode.UNAVAILABLE,
                        "The batch scheduling queue to which this task was submitted is full; currently "
                        f"{len(batches)} batches enqueued and max_enqueued_batches is "
                        f"{self.options.max_enqueued_batches}",
                    )
                due = time.monotonic() + self.options.batch_timeout_micros / 1e6
                batches.append(Batch(run, due))
            batches[-1].tasks.append(task)
            batches[-1].rows += task.rows
            self._changed.notify()

    def _next(self) -> Batch | None:
        """The first batch that is full or due; `None` once closed. Called with the lock."""
        while True:
            now, wait = time.monotonic(), None
            best = None
            for key, batches in self._queues.items():
                batch = batches[0]
                is_ready = len(batches) > 1 or batch.rows >= self.options.largest or batch.due <= now or self._is_closed
                if is_ready and (best is None or batch.due < self._queues[best][0].due):
                    best = key
                elif not is_ready:
                    wait = min(batch.due - now, wait if wait is not None else float("inf"))
            if best is not None:
                batch = self._queues[best].pop(0)
                if not self._queues[best]:
                    del self._queues[best]
                return batch
            if self._is_closed:
                return None
            self._changed.wait(wait)

    def _work(self) -> None:
        while True:
            with self._changed:
                batch = self._next()
            if batch is None:
                return
            batch.run(batch.tasks)


@dataclasses.dataclass
class Batch:
    """Tasks that will be run together."""

    run: Callable[[list[Task]], None]
    due: float
    tasks: list[Task] = dataclasses.field(default_factory=list)
    rows: int = 0


class BatchingSession:
    """A `SavedModelSession` whose runs are put together with others of the same feeds and fetches.

    Args:
        session: The session.
        scheduler: The `BatchScheduler`.
        owns_scheduler: Whether nobody else uses it, so that it ends with the session.
    """

    def __init__(self, session: SavedModelSession, scheduler: BatchScheduler, *, owns_scheduler: bool = False) -> None:
        self._session, self._scheduler, self._owns_scheduler = session, scheduler, owns_scheduler
        self.signatures = session.signatures

    def run(self, feeds: Mapping[str, Any], fetches: Sequence[str], timeout_seconds: float | None = None) -> list[Any]:
        """As `SavedModelSession.run`; waits for the batch.

        Raises:
            ServerError: INVALID_ARGUMENT if the inputs are no rows or too many; UNAVAILABLE if the queue is full; else
                what the batch's run raises.
        """
        options = self._scheduler.options
        feeds = {name: np.asarray(value) for name, value in feeds.items()}
        sizes = set()
        for value in feeds.values():
            if not value.ndim:
                raise invalid_argument("Batching Run() input tensors must have at least one dimension")
            sizes.add(len(value))
        if not feeds or sizes == {0}:
            return self._session.run(feeds, fetches, timeout_seconds)
        if len(sizes) > 1:
            raise invalid_argument("Batching Run() input tensors must have equal 0th-dimension size")
        rows = sizes.pop()
        if rows > options.max_batch_size and not options.enable_large_batch_splitting:
            raise invalid_argument(f"Task size {rows} is larger than maximum input batch size {options.max_batch_size}")
        end = time.monotonic() + timeout_seconds if timeout_seconds else float("inf")
        step = max(1, options.largest)
        tasks = [
            Task({name: value[i : i + step] for name, value in feeds.items()}, min(step, rows - i), deadline=end)
            for i in range(0, rows, step)
        ]
        key = id(self), tuple(fetches), tuple(sorted((name, *self._kind(value)) for name, value in feeds.items()))
        for task in tasks:
            self._scheduler.submit(key, task, lambda batch: self._run_batch(batch, fetches))
        parts = []
        for task in tasks:
            left = max(0.0, end - time.monotonic())
            try:
                parts.append(task.done.result(None if left > threading.TIMEOUT_MAX else left))
            except futures.TimeoutError:
                raise ServerError(
                    grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline exceeded while the request waited for its batch"
                ) from None
        return parts[0] if len(parts) == 1 else [np.concatenate(values) for values in zip(*parts, strict=True)]

    def _kind(self, value: np.ndarray) -> tuple[str, int | tuple[int, ...]]:
        """What arrays must share to be put together: one client's odd request must not fail others'."""
        is_padded = self._scheduler.options.pad_variable_length_inputs
        return value.dtype.str, value.ndim if is_padded else value.shape[1:]

    def _run_batch(self, tasks: list[Task], fetches: Sequence[str]) -> None:
        now = time.monotonic()
        tasks = [task for task in tasks if task.deadline > now]  # nobody waits for the others
        if not tasks:
            return
        try:
            results = self._results(tasks, fetches)
        except Exception as error:
            if len(tasks) == 1:
                tasks[0].done.set_exception(error)
            for task in tasks if len(tasks) > 1 else ():  # whose fault it is shows when each is run alone
                self._run_batch([task], fetches)
            return
        for task, result in zip(tasks, results, strict=True):
            task.done.set_result(result)

    def _results(self, tasks: list[Task], fetches: Sequence[str]) -> list[list[Any]]:
        timeout = max(task.deadline for task in tasks) - time.monotonic()
        rows = sum(task.rows for task in tasks)
        size = next((n for n in self._scheduler.options.allowed_batch_sizes if n >= rows), rows)
        feeds = {name: self._joined([task.feeds[name] for task in tasks], size - rows) for name in tasks[0].feeds}
        outputs = self._session.run(feeds, fetches, None if timeout == float("inf") else max(0.001, timeout))
        if len(tasks) == 1 and size == rows:
            return [outputs]
        outputs = [np.asarray(output) for output in outputs]
        for name, output in zip(fetches, outputs, strict=True):
            if not output.ndim or len(output) != size:
                raise ServerError(
                    grpc.StatusCode.FAILED_PRECONDITION,
                    "Batched output tensor's 0th dimension does not equal the sum of the 0th dimension sizes of the "
                    f"input tensors: {name} has shape {list(output.shape)} for {size} rows",
                )
        ends = np.cumsum([task.rows for task in tasks])
        return [[output[end - task.rows : end] for output in outputs] for task, end in zip(tasks, ends, strict=True)]

    def _joined(self, parts: list[np.ndarray], padding: int) -> np.ndarray:
        shapes = {part.shape[1:] for part in parts}
        if len(shapes) > 1:
            shape = np.max(list(shapes), axis=0)
            parts = [
                np.pad(
                    part, [(0, 0), *((0, int(n) - m) for n, m in zip(shape, part.shape[1:], strict=True))],
                    constant_values=b"" if part.dtype == object else 0,
                )
                for part in parts
            ]  # fmt: skip
        if padding:
            parts = [*parts, np.repeat(parts[-1][:1], padding, axis=0)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def cancel(self) -> None:
        """As `SavedModelSession.cancel`."""
        self._session.cancel()

    def close(self) -> None:
        """As `SavedModelSession.close`."""
        if self._owns_scheduler:
            self._scheduler.close()
        self._session.close()


Session = SavedModelSession | BatchingSession
