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
    until = time.monotonic() + 60
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
    time.sleep(12)  # what tests before this one had predicted is told by now
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


def test_figures_tell_of_tasks_attempts_workers_and_the_sweep(client: Client):
    shutil.copy(EXAMPLES / "iris.csv", client.data / "fleet.csv")
    made = client.call(
        "PUT",
        "/services/fleet",
        {
            "mllib": "xgboost",
            "model": {"repository": str(client.data / "models" / "fleet"), "create_repository": True},
            "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}, "output": {}},
        },
    )
    assert made.code == 201, made.json
    before = figures(client)

    def train(iterations: int) -> int:
        mllib = {"mllib": {"iterations": iterations}}
        call = {"service": "fleet", "async": True, "parameters": mllib, "data": [str(client.data / "fleet.csv")]}
        answer = client.call("POST", "/train", call)
        assert answer.code == 201, answer.json
        return int(answer.json["head"]["task_id"])

    # One that runs until it is cancelled, and two of the same repository behind it.
    long, *others = train(1_000_000), train(3), train(3)
    running = settled(client, lambda now: now["modelyard_tasks_running{queue=train.cpu}"] == 1)
    assert running["modelyard_tasks{kind=train,queue=train.cpu,state=running}"] == 1
    assert running["modelyard_tasks{kind=train,queue=train.cpu,state=queued}"] == 2
    assert running["modelyard_tasks_startable{queue=train.cpu}"] == 0
    assert running["modelyard_leases{state=held}"] == 1
    assert running["modelyard_leases{state=run_out}"] == 0
    assert 0 < running["modelyard_tasks_oldest_queued_seconds{queue=train.cpu}"] < 120
    assert running["modelyard_workers{queue=train.cpu}"] == 1
    assert 0 <= running["modelyard_sweep_age_seconds{}"] < 30
    assert running["modelyard_records_up{}"] == 1
    [train_bytes] = [value for name, value in running.items() if "memory_bytes{worker=train" in name]
    assert 20 << 20 < train_bytes < 8 << 30

    assert client.call("DELETE", f"/tasks/{long}").code == 202
    ends = {
        f"modelyard_attempts_total{{kind=train,outcome={outcome}}}": count
        for outcome, count in (("cancelled", 1), ("finished", len(others)))
    }
    after = settled(
        client,
        lambda now: (
            now["modelyard_tasks_running{queue=train.cpu}"] == 0
            and all(now.get(name, 0) - before.get(name, 0) >= count for name, count in ends.items())
        ),
    )
    assert {name: after[name] - before.get(name, 0) for name in ends} == ends
    timed = "modelyard_attempt_seconds_count{kind=train,outcome=finished}"
    assert after[timed] - before.get(timed, 0) == 2
    assert after["modelyard_tasks_running{queue=train.cpu}"] == 0
