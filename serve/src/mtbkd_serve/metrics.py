"""What Prometheus reads: requests, latencies, and what answers look like, so that drift shows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mtbkd_serve.batching import Found
from mtbkd_serve.folder import Config

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
_SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
_NATS = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1, 1.5, 2, 3, 5)
_VARIANCES = tuple(10.0**k for k in range(-6, 9))


@dataclass(frozen=True)
class Metrics:
    """Counters and histograms of one server, in a registry of its own."""

    registry: CollectorRegistry
    requests: Counter
    seconds: Histogram
    waiting: Gauge
    batches: Histogram
    uncertainty: Histogram
    outside: Histogram
    reliable: Histogram
    flags: Counter
    answers: Counter

    def answered(self, config: Config, found: Found) -> None:
        """Count what was answered."""
        for part in ("total", "aleatoric", "epistemic"):
            values = found[part]
            each = values.mean(1) if values.ndim == 2 else values
            _observe(self.uncertainty.labels(part), each)
        _observe(self.outside, found["outside"])
        if "reliable" in found:
            _observe(self.reliable, found["reliable"])
        for flag, n in zip(*np.unique(found["flag"], return_counts=True), strict=True):
            self.flags.labels("none" if flag < 0 else config.flags[int(flag)]).inc(int(n))
        if config.family == "classification":
            said = np.unique(found["probs"].argmax(1), return_counts=True)
            for one, n in zip(*said, strict=True):
                self.answers.labels(config.classes[int(one)]).inc(int(n))


def make_metrics(config: Config) -> Metrics:
    """All at zero."""
    registry = CollectorRegistry()
    unit, buckets = ("nats", _NATS)
    if config.family == "regression":
        unit, buckets = ("squared units of the target", _VARIANCES)
    found = Metrics(
        registry=registry,
        requests=Counter(
            "mtbkd_requests", "Requests that were answered", ["path", "status"], registry=registry
        ),
        seconds=Histogram(
            "mtbkd_request_seconds", "From request to answer", ["path"], registry=registry,
            buckets=_SECONDS,
        ),
        waiting=Gauge("mtbkd_waiting", "Requests that are being answered", registry=registry),
        batches=Histogram(
            "mtbkd_batch_rows", "Examples of one run of the graph", registry=registry, buckets=_ROWS
        ),
        uncertainty=Histogram(
            "mtbkd_uncertainty", f"Uncertainty of answers, in {unit}; of several columns the mean",
            ["part"], registry=registry, buckets=buckets,
        ),
        outside=Histogram(
            "mtbkd_outside",
            "p-value of being like calibration examples; spread evenly if nothing drifts",
            registry=registry, buckets=_SHARES,
        ),
        reliable=Histogram(
            "mtbkd_reliable", "Probability that an answer is right", registry=registry,
            buckets=_SHARES,
        ),
        flags=Counter("mtbkd_flags", "Why answers are unsure", ["flag"], registry=registry),
        answers=Counter(
            "mtbkd_answers", "Classes that were answered", ["answer"], registry=registry
        ),
    )  # fmt: skip
    for flag in ("none", *config.flags):
        found.flags.labels(flag)
    return found


def _observe(histogram: Histogram, values: NDArray[np.float32]) -> None:
    for value in values[np.isfinite(values)].tolist():
        histogram.observe(value)
