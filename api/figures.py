"""What the API counts, shown with what all other processes counted, for Prometheus."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from storage.errors import LiveUnavailable
from storage.live import Live, Telling

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
NO_ROUTE = "none"
"""The route of requests for which there is none: what was asked for would be a label without bounds."""

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class ApiFigures:
    """The figures of one API process. Safe to share between threads.

    fleet : what is looked up of the whole installation when all figures are asked for.
    """

    def __init__(self, live: Live, fleet: Collector | None = None) -> None:
        self._live = live
        self._fleet = fleet
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "modelyard_requests", "Requests that were answered", ["method", "route", "status"], registry=self.registry
        )
        self._seconds = Histogram(
            "modelyard_request_seconds",
            "Seconds until a request was answered",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refused = Counter(
            "modelyard_quota_refusals", "Requests that a quota refused", ["quota"], registry=self.registry
        )
        self._known: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        self._telling: Telling | None = None

    @cached_property
    def process(self) -> str:
        """How the figures of this process are told apart from those of others."""
        return f"api-{socket.gethostname()}-{os.getpid()}"

    def note(self, method: str, route: str, status: int, seconds: float) -> None:
        """Count a request. route : its rule, such as /services/<name>, or NO_ROUTE."""
        key = (method, route, status)
        known = self._known.get(key)
        if known is None:
            shown = method if method in _METHODS else "other"
            known = self._requests.labels(shown, route, status), self._seconds.labels(shown, route)
            if shown == method:
                self._known[key] = known
        known[0].inc()
        known[1].observe(seconds)

    def refused(self, quota: str) -> None:
        """Count a request that a quota refused: `requests`, `queued_tasks` or `stored_bytes`."""
        self._refused.labels(quota).inc()

    def told(self) -> bytes:
        """What this process counted, in the exposition format of Prometheus."""
        return generate_latest(self.registry)

    def keep_telling(self) -> None:
        """Let other processes of the API show the figures of this one too, until `stop`."""
        self._telling = self._live.figures.keep_telling(self.process, self.told)

    def stop(self) -> None:
        """Tell other processes nothing more."""
        if self._telling is not None:
            self._telling.stop()

    def of_all(self) -> bytes:
        """What every process counted, each series with the label `process`, whether Redis could be asked, and what
        is known of the fleet.
        """
        shown = CollectorRegistry()
        redis = Gauge("modelyard_redis_up", "Whether Redis told the figures of the other processes", registry=shown)
        try:
            told = self._live.figures.all()
            redis.set(1)
        except LiveUnavailable:
            told = {}
            redis.set(0)
        shown.register(_Merged({**told, self.process: self.told().decode()}))
        if self._fleet is not None:
            shown.register(self._fleet)
        return generate_latest(shown)


class _Merged(Collector):
    """The metrics of several processes as if they were those of one."""

    def __init__(self, told: Mapping[str, str]) -> None:
        self._told = told

    def collect(self) -> Iterator[Metric]:
        """Part of prometheus_client."""
        found: dict[str, Metric] = {}
        for process, text in self._told.items():
            for metric in _metrics(text):
                merged = found.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                if merged.type == metric.type:
                    merged.samples += [_of(process, sample) for sample in metric.samples]
        yield from found.values()


def _metrics(text: str) -> Iterable[Metric]:
    try:
        # The library adds when each series began, which Prometheus takes for one more series each.
        return [each for each in text_string_to_metric_families(text) if not each.name.endswith("_created")]
    except ValueError:
        return ()  # of a version of ours that told them otherwise


def _of(process: str, sample: Any) -> Sample:
    return Sample(sample.name, {**sample.labels, "process": process}, sample.value)
