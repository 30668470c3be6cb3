"""Counts and latencies of requests under TF Serving's names, for Prometheus."""

import bisect
import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

COUNT = ":tensorflow:serving:request_count"
LATENCY = ":tensorflow:serving:request_latency"
RUNTIME = ":tensorflow:serving:runtime_latency"
FALLBACKS = "tfmtr_fallbacks"  # answers in which something was not known, by what
MAX_NAMES = 1000  # of models that are counted by name: clients may ask for any
BOUNDS = [10 * 1.8**i for i in range(33)]  # microseconds


class Metrics:
    """Counters and histograms by labels; safe to use from many threads.

    Example:
    >>> metrics = Metrics()
    >>> metrics.count("toy", "OK")
    >>> print(metrics.text().splitlines()[1])
    :tensorflow:serving:request_count{model_name="toy",status="OK"} 1
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts, self._fallbacks = {}, {}
        self._histograms = {}
        self._names = set()

    def count(self, model_name: str, status: str) -> None:
        """One more request; of names beyond the first 1,000 under no name."""
        with self._lock:
            if len(self._names) < MAX_NAMES:
                self._names.add(model_name)
            labels = ("model_name", model_name if model_name in self._names else ""), ("status", status)
            self._counts[labels] = self._counts.get(labels, 0) + 1

    def count_fallbacks(self, model_name: str, arrays: Mapping[str, Any]) -> None:
        """Counts what the output `fallback` names, if a model has it: text joined by commas for each row, or ""."""
        rows = arrays.get("fallback")
        if rows is None or getattr(rows, "ndim", 0) != 1 or rows.dtype != object:
            return
        names = [name for row in rows if row for name in row.decode(errors="replace").split(",")]
        with self._lock:
            for name in names:
                labels = ("model_name", model_name), ("kind", name)
                self._fallbacks[labels] = self._fallbacks.get(labels, 0) + 1

    @contextlib.contextmanager
    def time(self, name: str, **labels: str) -> Iterator[None]:
        """One more duration of the histogram `name`, unless the block raises."""
        started = time.perf_counter()
        yield
        self.observe(name, time.perf_counter() - started, **labels)

    def observe(self, name: str, seconds: float, **labels: str) -> None:
        """One more duration of the histogram `name`."""
        microseconds = 1e6 * seconds
        key = name, tuple(labels.items())
        with self._lock:
            counts, total = self._histograms.get(key) or ([0] * (len(BOUNDS) + 1), [0.0])
            counts[bisect.bisect_left(BOUNDS, microseconds)] += 1
            total[0] += microseconds
            self._histograms[key] = counts, total

    def totals(self) -> dict[str, int]:
        """`{name of a counter: its sum over all labels}`, under TensorFlow's name and under Prometheus's."""
        with self._lock:
            total = sum(self._counts.values())
        return {COUNT: total, COUNT.replace(":", "/"): total}

    def text(self) -> str:
        """All of it in Prometheus's text format."""
        with self._lock:
            counts, fallbacks = sorted(self._counts.items()), sorted(self._fallbacks.items())
            histograms = sorted((key, (list(c), t[0])) for key, (c, t) in self._histograms.items())
        lines = [f"# TYPE {COUNT} counter", *(f"{COUNT}{{{_labels(labels)}}} {n}" for labels, n in counts)]
        if fallbacks:
            lines.append(f"# TYPE {FALLBACKS} counter")
            lines += (f"{FALLBACKS}{{{_labels(labels)}}} {n}" for labels, n in fallbacks)
        last = None
        for (name, labels), (numbers, total) in histograms:
            if name != last:
                lines.append(f"# TYPE {name} histogram")
                last = name
            text, running = _labels(labels), 0
            for bound, number in zip([*(f"{b:g}" for b in BOUNDS), "+Inf"], numbers, strict=True):
                running += number
                lines.append(f'{name}_bucket{{{text},le="{bound}"}} {running}')
            lines += [f"{name}_sum{{{text}}} {total:g}", f"{name}_count{{{text}}} {running}"]
        return "\n".join(lines) + "\n"


def _labels(labels: Iterable[tuple[str, str]]) -> str:
    escaped = ((k, v.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")) for k, v in labels)
    return ",".join(f'{k}="{v}"' for k, v in escaped)


METRICS = Metrics()  # of the process, as in TF Serving
