"""Figures for Prometheus, read as Prometheus reads them, after requests that were counted by hand."""

from __future__ import annotations

import http.client
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.conftest import Client

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
LANE = "predict.xgboost.cpu"
ROW = "5.1,3.5,1.4,0.2"


def figures(client: Client) -> dict[str, float]:
    """Values by name and labels, summed over all processes."""
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    try:
        connection.request("GET", "/metrics")
        answer = connection.getresponse()
        assert answer.status == 200
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    finally:
        connection.close()
    found: dict[str, float] = {}
    for metric in text_string_to_metric_families(text):
        for sample in metric.samples:
            labels = ",".join(f"{name}={sample.labels[name]}" for name in sorted(sample.labels) if name != "process")
            found[f"{sample.name}{{{labels}}}"] = found.get(f"{sample.name}{{{labels}}}", 0) + sample.value
    return found


def settled(client: Client, is_there: Callable[[dict[str, float]], bool]) -> dict[str, float]:
    """The figures once all processes have told them, which they do every few seconds."""
    until = time.monotonic() + 20
    while True:
        found = figures(client)
        if is_there(found) or time.monotonic() > until:
            return found
        time.sleep(0.5)


def test_every_prediction_is_counted_once_by_those_who_handled_it(client: Client):
    path = client.data / "metrics.csv"
    shutil.copy(EXAMPLES / "iris.csv", path)
    made = client.call(
        "PUT",
        "/services/metrics",
        {
            "mllib": "xgboost",
            "model": {"repository": str(client.data / "models" / "metrics"), "create_repository": True},
            "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}, "output": {}},
        },
    )
    assert made.code == 201, made.json
    call = {"service": "metrics", "async": False, "parameters": {"mllib": {"iterations": 5}}, "data": [str(path)]}
    assert client.call("POST", "/train", call).code == 201
    time.sleep(6)  # what tests before this one had predicted is told by now
    before = figures(client)

    def predict(*rows: str) -> int:
        body = {"service": "metrics", "parameters": {}, "data": list(rows)}
        return client.call("POST", "/predict", body).code

    assert [predict(ROW) for _ in range(7)] == [200] * 7
    assert predict(ROW, ROW, ROW) == 200
    assert predict("no,numbers,at,all") == 400
    assert client.call("GET", "/no/such/place").code == 404

    def more(name: str, now: dict[str, float]) -> float:
        return now.get(name, 0) - before.get(name, 0)

    requests = f"modelyard_prediction_batch_requests_sum{{lane={LANE}}}"
    after = settled(client, lambda now: more(requests, now) >= 9)
    assert more("modelyard_requests_total{method=POST,route=/predict,status=200}", after) == 8
    assert more("modelyard_requests_total{method=POST,route=/predict,status=400}", after) == 1
    assert more("modelyard_requests_total{method=GET,route=none,status=404}", after) == 1
    assert more(requests, after) == 9
    for part in ("queued", "load", "input", "compute", "output"):
        assert more(f"modelyard_prediction_seconds_count{{lane={LANE},part={part}}}", after) == 8
    assert more(f"modelyard_prediction_batch_rows_sum{{lane={LANE}}}", after) == 10
    assert more(f"modelyard_prediction_failures_total{{kind=bad_input,lane={LANE}}}", after) == 1
    assert more(f"modelyard_model_loads_total{{lane={LANE}}}", after) == 1
    assert more(f"modelyard_model_hits_total{{lane={LANE}}}", after) == 8
    closed = [name for name in after if name.startswith("modelyard_prediction_batches_total")]
    assert sum(more(name, after) for name in closed) == more(
        f"modelyard_prediction_batch_requests_count{{lane={LANE}}}", after
    )
    assert after["modelyard_models{}"] >= 1
    assert after["modelyard_models_bytes{}"] > 0
    assert after["modelyard_redis_up{}"] == 1
