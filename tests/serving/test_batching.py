import threading
import time
from types import SimpleNamespace

import grpc
import numpy as np
import pytest

from tfmtr.serving.batching import BatchingOptions, BatchingSession, BatchScheduler
from tfmtr.serving.errors import ServerError, invalid_argument
from tfmtr.serving.text_protos import BatchingParameters, read_text_proto


class Session:
    """Doubles `x`; refuses rows that hold -1; remembers the sizes of its runs."""

    signatures = SimpleNamespace()

    def __init__(self, seconds=0.0):
        self.sizes, self.seconds, self.gate = [], seconds, threading.Event()
        self.gate.set()

    def run(self, feeds, fetches, timeout_seconds=None):
        self.gate.wait(10)
        time.sleep(self.seconds)
        self.sizes.append(len(feeds["x"]))
        if np.any(feeds["x"] == -1):
            raise invalid_argument("no")
        return [np.sum(feeds["x"]) if name == "sum" else feeds["x"] * 2 for name in fetches]


@pytest.fixture
def make():
    schedulers = []

    def make(session, **options):
        schedulers.append(BatchScheduler(BatchingOptions(num_batch_threads=1, **options), 1))
        return BatchingSession(session, schedulers[-1])

    yield make
    for scheduler in schedulers:
        scheduler.close()


def together(calls):
    """Outcomes of functions that run at the same time."""
    outcomes = [None] * len(calls)

    def run(i):
        try:
            outcomes[i] = calls[i]()
        except ServerError as error:
            outcomes[i] = error

    threads = [threading.Thread(target=run, args=(i,)) for i in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def ask(session, rows, **options):
    return lambda: session.run({"x": np.asarray(rows, "float32")}, ["y"], **options)[0].tolist()


def test_requests_of_several_clients_are_one_run_and_each_gets_its_own_rows(make):
    inner = Session()
    session = make(inner, max_batch_size=8, batch_timeout_micros=200_000)
    assert together([ask(session, [i, 10 + i]) for i in range(4)]) == [[2 * i, 20 + 2 * i] for i in range(4)]
    assert inner.sizes == [8]  # full: it did not wait for the time to pass
    started = time.monotonic()
    assert ask(session, [5.0])() == [10.0]
    assert 0.15 < time.monotonic() - started < 2  # nobody else came
    assert session.run({"x": np.zeros((0,), "float32")}, ["y"])[0].tolist() == []


def test_sizes_are_padded_to_the_allowed_ones(make):
    inner = Session()
    session = make(inner, max_batch_size=8, batch_timeout_micros=1000, allowed_batch_sizes=(4, 8))
    assert ask(session, [1.0, 2.0, 3.0])() == [2.0, 4.0, 6.0]
    assert inner.sizes == [4]
    with pytest.raises(ServerError, match="Task size 9 is larger than maximum input batch size 8"):
        ask(session, np.ones(9))()


def test_large_requests_are_run_in_parts(make):
    inner = Session()
    session = make(inner, max_batch_size=4, enable_large_batch_splitting=True, max_execution_batch_size=4)
    assert ask(session, np.arange(10.0))() == (2 * np.arange(10.0)).tolist()
    assert sorted(inner.sizes) == [2, 4, 4]


def test_one_bad_request_fails_alone(make):
    session = make(Session(), max_batch_size=100, batch_timeout_micros=100_000)
    outcomes = together([ask(session, [1.0]), ask(session, [-1.0]), ask(session, [3.0])])
    assert outcomes[::2] == [[2.0], [6.0]]
    assert str(outcomes[1]) == "INVALID_ARGUMENT: no"
    # Another dtype or shape does not get into the batch at all.
    session = make(Session(), max_batch_size=100, batch_timeout_micros=100_000)
    odd = lambda: session.run({"x": np.ones((1, 3), "float32")}, ["y"])[0].shape  # noqa: E731
    double = lambda: session.run({"x": np.ones(1)}, ["y"])[0].dtype.name  # noqa: E731
    assert together([ask(session, [1.0]), odd, double]) == [[2.0], (1, 3), "float64"]


def test_variable_lengths_are_padded(make):
    inner = Session()
    session = make(inner, max_batch_size=2, batch_timeout_micros=500_000, pad_variable_length_inputs=True)
    outcomes = together([ask(session, [[1.0]]), ask(session, [[2.0, 3.0]])])
    assert outcomes == [[[2.0, 0.0]], [[4.0, 6.0]]]
    assert inner.sizes == [2]


def test_a_full_queue_and_a_deadline(make):
    inner = Session()
    inner.gate.clear()
    session = make(inner, max_batch_size=1, max_enqueued_batches=1)
    waiting = [threading.Thread(target=ask(session, [float(i)])) for i in range(3)]  # one runs, two wait
    for thread in waiting:
        thread.start()
        time.sleep(0.05)
    with pytest.raises(ServerError, match="queue to which this task was submitted is full") as caught:
        ask(session, [9.0])()
    assert caught.value.code == grpc.StatusCode.UNAVAILABLE
    inner.gate.set()
    for thread in waiting:
        thread.join()
    assert inner.sizes == [1, 1, 1]
    late = make(Session(0.5), max_batch_size=1)
    with pytest.raises(ServerError) as caught:
        ask(late, [1.0], timeout_seconds=0.1)()
    assert caught.value.code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert ask(make(Session(), max_batch_size=1), [1.0], timeout_seconds=1e15)() == [2.0]  # beyond Python's longest


def test_refusals(make):
    session = make(Session(), batch_timeout_micros=1000)
    for feeds, text in (
        ({"x": np.float32(1)}, "Batching Run() input tensors must have at least one dimension"),
        ({"x": np.ones(2), "z": np.ones(3)}, "Batching Run() input tensors must have equal 0th-dimension size"),
    ):
        with pytest.raises(ServerError) as caught:
            session.run(feeds, ["y"])
        assert caught.value.message == text
    session = make(Session(), max_batch_size=2, batch_timeout_micros=500_000)
    assert together([lambda: session.run({"x": np.ones(1)}, ["sum"])] * 2) == [[1.0], [1.0]]  # each alone, then


def test_parameters_of_a_file(tmp_path):
    file = tmp_path / "batching.txt"
    file.write_text("max_batch_size { value: 8 } batch_timeout_micros { value: 5 } allowed_batch_sizes: [2, 8]")
    options = BatchingOptions.from_proto(read_text_proto(file, BatchingParameters))
    assert (options.max_batch_size, options.batch_timeout_micros, options.allowed_batch_sizes) == (8, 5, (2, 8))
    for text, message in (
        ("max_batch_size { value: 0 }", "positive max_batch_size"),
        ("max_batch_size { value: 8 } allowed_batch_sizes: [2, 4]", "the last one the largest batch"),
        ("num_batch_threads { value: -1 }", "a num_batch_threads"),  # no thread: requests would wait for ever
        ("max_execution_batch_size { value: -1 }", "a max_execution_batch_size"),
        ("max_batch: 3", "BatchingParameters in protobuf's text format"),
    ):
        file.write_text(text)
        with pytest.raises(ValueError, match=message):
            BatchingOptions.from_proto(read_text_proto(file, BatchingParameters))
