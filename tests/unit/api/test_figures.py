"""Figures of several processes are shown as those of one, each series with its process."""

from __future__ import annotations

from typing import cast

import pytest
from prometheus_client.parser import text_string_to_metric_families

from api.figures import ApiFigures
from storage.errors import LiveUnavailable
from storage.live import Live
from workers.figures import PARTS, PredictionFigures


class FakeFigures:
    """What other processes told; None while Redis is away."""

    def __init__(self, told: dict[str, str] | None) -> None:
        self._told = told

    def all(self) -> dict[str, str]:
        if self._told is None:
            raise LiveUnavailable("Redis does not answer")
        return self._told


class FakeLive:
    def __init__(self, told: dict[str, str] | None) -> None:
        self.figures = FakeFigures(told)


class Shown:
    """Values by name and labels."""

    def __init__(self, text: bytes) -> None:
        self._values = {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for metric in text_string_to_metric_families(text.decode())
            for sample in metric.samples
        }

    def __call__(self, name: str, **labels: str) -> float:
        return self._values[name, frozenset(labels.items())]


def figures(told: dict[str, str] | None) -> ApiFigures:
    return ApiFigures(cast(Live, FakeLive(told)))


def worker(requests: int, seconds: float) -> str:
    counted = PredictionFigures()
    lane = counted.of("predict.toy.cpu")
    for _ in range(requests):
        lane.note_model(was_loaded=False)
        lane.note_request(dict.fromkeys(PARTS, seconds * 1000))
    return counted.told().decode()


def test_each_series_has_the_process_that_counted_it():
    here = figures({"worker-a": worker(3, 0.002), "worker-b": worker(5, 0.2)})
    here.note("POST", "/predict", 200, 0.004)
    here.note("POST", "/predict", 200, 0.006)
    here.note("POST", "/predict", 503, 1.5)
    shown = Shown(here.of_all())
    for process, requests, seconds, within in (("worker-a", 3, 0.002, 3), ("worker-b", 5, 0.2, 0)):
        where = {"lane": "predict.toy.cpu", "process": process}
        assert shown("modelyard_model_hits_total", **where) == requests
        assert shown("modelyard_prediction_seconds_count", **where, part="compute") == requests
        assert shown("modelyard_prediction_seconds_sum", **where, part="compute") == pytest.approx(requests * seconds)
        assert shown("modelyard_prediction_seconds_bucket", **where, part="input", le="0.1") == within
    where = {"method": "POST", "route": "/predict", "process": here.process}
    assert shown("modelyard_requests_total", **where, status="200") == 2
    assert shown("modelyard_requests_total", **where, status="503") == 1
    assert shown("modelyard_request_seconds_bucket", **where, le="0.005") == 1
    assert shown("modelyard_request_seconds_bucket", **where, le="+Inf") == 3
    assert shown("modelyard_redis_up") == 1


def test_each_metric_is_described_once_and_no_series_tells_when_it_began():
    text = figures({"worker-a": worker(1, 0.1), "worker-b": worker(1, 0.1)}).of_all().decode()
    described = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(described) == len(set(described))
    assert "modelyard_prediction_seconds" in described
    assert "_created" not in text


def test_own_figures_are_shown_when_redis_is_away():
    here = figures(None)
    here.note("GET", "/info", 200, 0.001)
    shown = Shown(here.of_all())
    assert shown("modelyard_redis_up") == 0
    assert shown("modelyard_requests_total", method="GET", route="/info", status="200", process=here.process) == 1


def test_text_that_is_none_is_left_out():
    assert b'process="worker-b"' in figures({"worker-a": "what { is this", "worker-b": worker(1, 0.1)}).of_all()


def test_methods_that_nobody_knows_are_one_label():
    here = figures({})
    for method in ("BREW", "PROPFIND"):
        here.note(method, "none", 405, 0.001)
    assert b'method="other"' in here.of_all()
    assert b"BREW" not in here.of_all()
