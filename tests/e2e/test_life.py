"""A service from its creation to its end, over HTTP alone."""

from __future__ import annotations

import csv
import http.client
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Client

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"


def service(client: Client, name: str, **changes: Any) -> dict[str, Any]:
    return {
        "mllib": "xgboost",
        "description": f"the service {name}",
        "model": {"repository": str(client.data / "models" / name), "create_repository": True},
        "parameters": {
            "input": {"connector": "csv", "label": "species"},
            "mllib": {"nclasses": 3},
            "output": {},
        },
        **changes,
    }


def training(client: Client, name: str, iterations: int = 30, **changes: Any) -> dict[str, Any]:
    return {
        "service": name,
        "async": True,
        "parameters": {
            "input": {"test_split": 0.2, "shuffle": True, "seed": 7},
            "mllib": {"iterations": iterations},
            "output": {"measure": ["acc", "f1", "mcll"]},
        },
        "data": [str(iris(client))],
        **changes,
    }


def iris(client: Client) -> Path:
    path = client.data / "iris.csv"
    if not path.exists():
        shutil.copy(EXAMPLES / "iris.csv", path)
    return path


def until(claim: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)
    return found


def test_whole_life_of_a_service(client: Client):
    made = client.call("PUT", "/services/Whole", service(client, "whole"))
    assert (made.code, made.json) == (201, {"status": {"code": 201, "msg": "Created"}})
    started = client.call("POST", "/train", training(client, "whole"))
    assert started.code == 201
    head = started.json["head"]
    assert (head["method"], head["job"], head["status"]) == ("/train", 1, "running")

    polled = client.call("GET", "/train?service=whole&job=1&timeout=60").json
    assert polled["head"]["status"] == "finished"
    assert polled["body"]["measure"]["acc"] > 0.85
    assert polled["body"]["measure"]["iteration"] == 29
    hist = polled["body"]["measure_hist"]
    assert len(hist["acc_hist"]) == len(hist["iteration_hist"]) >= 29
    assert hist["acc_hist"][-1] == polled["body"]["measure"]["acc"]

    task = client.call("GET", f"/tasks/{head['task_id']}").json
    assert (task["state"], task["percent"], task["version"], task["attempt"]) == ("finished", 100.0, 1, 1)
    assert {"queued", "reading", "training", "saving", "publishing"} <= set(task["phases"])
    assert task["measure"] == polled["body"]["measure"]
    assert client.call("GET", task["report"]).json["measure"] == task["measure"]

    with iris(client).open(newline="") as file:
        header, *rows = csv.reader(file)
    column = header.index("species")
    chosen = [rows[0], rows[75], rows[149]]
    lines = [",".join(row[:column] + row[column + 1 :]) for row in chosen]
    predicted = client.call("POST", "/predict", {"service": "WHOLE", "data": lines})
    assert predicted.code == 200, predicted.json
    assert predicted.json["head"]["service"] == "whole"
    classes = [each["classes"][0]["cat"] for each in predicted.json["body"]["predictions"]]
    assert classes == [row[column] for row in chosen]

    described = client.call("GET", "/services/whole?labels=true").json["body"]
    assert (described["predict"], described["training"], described["jobs"]) == (True, False, [])
    assert described["service_stats"]["predict_success"] == 1
    folder = client.data / "models" / "whole"
    until(lambda: (folder / "0030.model").exists())
    assert (folder / "config.json").exists()
    assert (folder / "model.json").exists()

    assert client.call("DELETE", "/services/whole?clear=full").code == 200
    assert client.call("GET", "/services/whole").code == 404
    assert list(folder.iterdir()) == []


def test_blocking_training_and_regression(client: Client):
    shutil.copy(EXAMPLES / "diabetes.csv", client.data / "diabetes.csv")
    parameters = {
        "input": {"connector": "csv", "label": "progression"},
        "mllib": {"regression": True, "ntargets": 1},
    }
    assert client.call("PUT", "/services/sugar", service(client, "sugar", parameters=parameters)).code == 201
    body = {
        "service": "sugar",
        "async": False,
        "parameters": {
            "input": {"test_split": 0.2},
            "mllib": {"iterations": 40, "booster_params": {"eta": 0.1, "max_depth": 3}},
            "output": {"measure": ["eucll"], "measure_hist": True},
        },
        "data": [str(client.data / "diabetes.csv")],
    }
    answer = client.call("POST", "/train", body)
    assert answer.code == 201, answer.json
    assert 0 < answer.json["body"]["measure"]["eucll"] < 70
    assert len(answer.json["body"]["measure_hist"]["eucll_hist"]) >= 39
    assert answer.json["body"]["model"]["repository"] == str(client.data / "models" / "sugar")
    assert client.call("GET", "/services/sugar").json["body"]["mltype"] == "regression"
    measured = client.call(
        "POST",
        "/predict",
        {"service": "sugar", "parameters": {"output": {"measure": ["eucll"]}}, "data": body["data"]},
    )
    assert measured.code == 200, measured.json
    assert set(measured.json["body"]) == {"measure"}
    client.call("DELETE", "/services/sugar?clear=dir")
    assert not (client.data / "models" / "sugar").exists()


def test_cancelled_job_is_gone_and_its_task_says_so(client: Client):
    client.call("PUT", "/services/long", service(client, "long"))
    task_id = client.call("POST", "/train", training(client, "long", 500_000)).json["head"]["task_id"]
    assert client.call("POST", "/predict", {"service": "long", "data": ["1,2,3,4"]}).json["status"]["dd_code"] == 1008
    until(lambda: client.call("GET", f"/tasks/{task_id}").json["percent"])
    running = client.call("GET", "/train?service=long&job=1").json
    assert running["head"]["status"] == "running"
    assert running["body"]["measure"]["remain_time_str"]
    ended = client.call("DELETE", "/train?service=long&job=1")
    assert ended.json["head"]["status"] == "terminated"
    assert client.call("GET", "/train?service=long&job=1").json["status"]["dd_code"] == 1003
    assert client.call("GET", f"/tasks/{task_id}").json["state"] == "cancelled"
    assert client.call("DELETE", "/services/long?clear=lib").code == 200


def test_model_in_a_folder_serves_at_once(client: Client):
    client.call("PUT", "/services/first", service(client, "first"))
    client.call("POST", "/train", training(client, "first", 5, **{"async": False}))
    folder = client.data / "models" / "first"
    until(lambda: (folder / "0005.model").exists())
    copy = client.data / "models" / "copy"
    shutil.copytree(folder, copy)
    made = client.call("PUT", "/services/copy", service(client, "copy"))
    assert made.code == 201
    assert "warnings" not in made.json["head"], made.json
    line = "5.1,3.5,1.4,0.2"
    answers = [client.call("POST", "/predict", {"service": name, "data": [line]}) for name in ("first", "copy")]
    assert answers[0].json["body"] == answers[1].json["body"]
    for name in ("first", "copy"):
        client.call("DELETE", f"/services/{name}?clear=dir")


def test_body_sent_in_chunks_is_read(client: Client):
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=30)
    body = json.dumps(service(client, "chunks", model={"repository": "chunks"})).encode()
    pieces = iter([body[:20], body[20:]])
    connection.request("PUT", "/services/chunks", pieces, encode_chunked=True, headers={"Transfer-Encoding": "chunked"})
    assert connection.getresponse().status == 201
    connection.close()
    client.call("DELETE", "/services/chunks")
