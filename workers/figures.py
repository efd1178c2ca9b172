"""What a worker process counts, for Prometheus."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from functools import cache

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from storage.live import Batch

PARTS = ("queued", "load", "input", "compute", "output")
_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_REQUESTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096, 16384, 65536)


class PredictionFigures:
    """The figures of one process, by lane: the queue of an engine on a kind of device."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._lanes: dict[str, LaneFigures] = {}
        self.seconds = Histogram(
            "modelyard_prediction_seconds",
            "Seconds of a prediction by part: queued, load, input, compute, output",
            ["lane", "part"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.failures = Counter(
            "modelyard_prediction_failures",
            "Predictions answered with an error",
            ["lane", "kind"],
            registry=self.registry,
        )
        self.requests = Histogram(
            "modelyard_prediction_batch_requests",
            "Requests that were taken together",
            ["lane"],
            buckets=_REQUESTS,
            registry=self.registry,
        )
        self.rows = Histogram(
            "modelyard_prediction_batch_rows",
            "Rows that were answered together",
            ["lane"],
            buckets=_ROWS,
            registry=self.registry,
        )
        self.batches = Counter(
            "modelyard_prediction_batches",
            "Batches by what closed them: empty (nothing more waited), requests or bytes (as many as allowed), "
            "repeated (a request of a worker that died is computed alone)",
            ["lane", "closed"],
            registry=self.registry,
        )
        self.hits = Counter(
            "modelyard_model_hits", "Requests whose model was loaded already", ["lane"], registry=self.registry
        )
        self.loads = Counter("modelyard_model_loads", "Models that were loaded", ["lane"], registry=self.registry)
        self.evictions = Counter(
            "modelyard_model_evictions", "Models given up to make room for others", ["lane"], registry=self.registry
        )
        self.models = Gauge("modelyard_models", "Models that are loaded", registry=self.registry)
        self.bytes = Gauge(
            "modelyard_models_bytes", "Bytes that loaded models were seen to take", registry=self.registry
        )

    def of(self, lane: str) -> LaneFigures:
        """The figures of one lane."""
        found = self._lanes.get(lane)
        if found is None:
            found = self._lanes[lane] = LaneFigures(self, lane)
        return found

    def told(self) -> bytes:
        """All of it, in the exposition format of Prometheus."""
        return generate_latest(self.registry)


class LaneFigures:
    """What is counted of one lane. Labels are looked up once: that is most of what counting costs."""

    def __init__(self, figures: PredictionFigures, lane: str) -> None:
        self._figures, self._lane = figures, lane
        self._seconds = [(part, figures.seconds.labels(lane, part)) for part in PARTS]
        self._requests, self._rows = figures.requests.labels(lane), figures.rows.labels(lane)
        self._hits, self._loads = figures.hits.labels(lane), figures.loads.labels(lane)
        self._evictions = figures.evictions.labels(lane)

    def note_request(self, timings: Mapping[str, float]) -> None:
        """Count a request by what its parts took, in milliseconds."""
        for part, seen in self._seconds:
            seen.observe(timings[part] / 1000)

    def note_failure(self, kind: str) -> None:
        """Count a request that was answered with an error of that kind."""
        self._figures.failures.labels(self._lane, kind).inc()

    def note_batch(self, batch: Batch) -> None:
        """Count a batch that was taken."""
        self._requests.observe(len(batch.requests))
        self._figures.batches.labels(self._lane, batch.closed).inc()

    def note_rows(self, rows: int) -> None:
        """Count the rows of a batch that were answered."""
        self._rows.observe(rows)

    def note_model(self, *, was_loaded: bool) -> None:
        """Count that a model was there, or had to be loaded."""
        (self._loads if was_loaded else self._hits).inc()

    def note_eviction(self) -> None:
        """Count a model that was given up."""
        self._evictions.inc()

    def note_models(self, count: int, taken_bytes: int) -> None:
        """Say how many models are loaded now, and what they take."""
        self._figures.models.set(count)
        self._figures.bytes.set(taken_bytes)


class WebhookFigures:
    """What one process counts of what it sends to webhooks."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._attempts = Counter(
            "modelyard_webhook_attempts",
            "Attempts to send an event to a webhook: delivered, failed (tried again), given_up (not tried again), "
            "superseded (another sender took over, or the webhook was ended)",
            ["outcome"],
            registry=self.registry,
        )
        for outcome in ("delivered", "failed", "given_up"):
            self._attempts.labels(outcome)  # so that the first one is seen as a rise

    def note(self, outcome: str) -> None:
        """Count an attempt by what came of it."""
        self._attempts.labels(outcome).inc()

    def told(self) -> bytes:
        """All of it, in the exposition format of Prometheus."""
        return generate_latest(self.registry)


@cache
def process_name() -> str:
    """How the figures of this process are told apart from those of others."""
    return f"worker-{socket.gethostname()}-{os.getpid()}"
