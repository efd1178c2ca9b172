"""Prediction tasks in a whole stack over HTTP: a result of many megabytes, and the worker killed in the middle."""

from __future__ import annotations

import http.client
import io
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow.parquet
import pytest

from cli.stack import Stack
from settings import Settings
from tests.services import free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

Json = dict[str, Any]
ROWS = 150_000


class Server:
    """A stack with a trained service, and a file of many rows."""

    def __init__(self, stack: Stack, data: Path) -> None:
        self.stack, self.data = stack, data
        numbers = np.random.default_rng(7)
        table = numbers.normal(size=(2000, 5)).round(3)
        kinds = (table[:, 0] * table[:, 1] > table[:, 2]).astype(int)
        lines = [
            ",".join([*map(str, row), str(kind)]) for row, kind in zip(table.tolist(), kinds.tolist(), strict=True)
        ]
        (data / "train.csv").write_text("\n".join(["a,b,c,d,e,kind", *lines]))
        many = numbers.normal(size=(ROWS, 5)).round(3).tolist()
        self.many = data / "many.csv"
        self.many.write_text("\n".join(["a,b,c,d,e", *(",".join(map(str, row)) for row in many)]))
        body = {
            "mllib": "xgboost",
            "model": {"repository": "kinds"},
            "parameters": {"input": {"connector": "csv", "label": "kind"}, "mllib": {"nclasses": 2}},
        }
        self.json("PUT", "/services/kinds", body)
        training = {"mllib": {"iterations": 300, "booster_params": {"max_depth": 8}}}
        asked = {"service": "kinds", "async": False, "parameters": training, "data": [str(data / "train.csv")]}
        self.json("POST", "/train", asked)

    def call(self, method: str, path: str, body: Any = None) -> tuple[int, str, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.stack.settings.port, timeout=120)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, answer.headers["Content-Type"], answer.read()
        finally:
            connection.close()

    def json(self, method: str, path: str, body: Any = None) -> Json:
        code, _, content = self.call(method, path, body)
        assert code < 300, content
        found: Json = json.loads(content)
        return found

    def ask(self, **output: Any) -> int:
        asked = {"service": "kinds", "async": True, "parameters": {"output": output}, "data": [str(self.many)]}
        return int(self.json("POST", "/predict", asked)["head"]["task_id"])

    def task(self, task_id: int) -> Json:
        return self.json("GET", f"/tasks/{task_id}")

    def finished(self, task_id: int) -> Json:
        until(lambda: self.task(task_id)["finished_at"])
        task = self.task(task_id)
        assert task["state"] == "finished", task
        return task


def until(is_so: Callable[[], Any], timeout_s: float = 120.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    data = tmp_path_factory.mktemp("data").resolve()
    with short_folder() as home:
        settings = Settings(
            home=home,
            port=free_port(),
            flower_port=0,
            data_roots=(data,),
            threads=1,
            lease_s=3.0,
            renew_s=0.5,
            sweep_s=0.5,
        )
        with Stack(settings) as stack:
            stack.wait_ready(100)
            yield Server(stack, data)


@pytest.fixture(scope="module")
def expected(server: Server) -> list[Json]:
    """The same answered at once."""
    answer = server.json("POST", "/predict", {"service": "kinds", "data": [str(server.many)]})
    found: list[Json] = answer["body"]["predictions"]
    assert len(found) == ROWS
    return found


def test_one_row_takes_no_longer_than_a_moment(server: Server):
    asked = {"service": "kinds", "async": True, "data": ["0.1,0.2,0.3,0.4,0.5"]}
    began = time.monotonic()
    task_id = server.json("POST", "/predict", asked)["head"]["task_id"]
    server.finished(task_id)
    assert time.monotonic() - began < 60
    at_once = server.json("POST", "/predict", {**asked, "async": False})["body"]
    assert server.json("GET", f"/tasks/{task_id}/result")["body"] == at_once


def test_a_result_of_many_megabytes_comes_whole(server: Server, expected: list[Json]):
    task_id = server.ask()
    server.finished(task_id)
    code, kind, content = server.call("GET", f"/tasks/{task_id}/result")
    assert (code, kind) == (200, "application/x-ndjson")
    assert len(content) > 8 * 2**20
    assert [json.loads(line) for line in content.splitlines()] == expected


def test_parquet_is_read_by_others(server: Server, expected: list[Json]):
    task_id = server.ask(format="parquet")
    server.finished(task_id)
    code, kind, content = server.call("GET", f"/tasks/{task_id}/result")
    assert (code, kind) == (200, "application/vnd.apache.parquet")
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    assert table.column("prob").to_pylist() == [each["classes"][0]["prob"] for each in expected]
    assert table.column("uri").to_pylist() == [each["uri"] for each in expected]


def test_a_task_whose_worker_is_killed_is_finished_once_by_another(server: Server, expected: list[Json]):
    task_id = server.ask()
    until(lambda: 0 < (server.task(task_id)["percent"] or 0) < 100)
    owner = server.task(task_id)["attempts"][0]["worker"]
    worker = psutil.Process(int(owner.rpartition(":")[2]))
    children = worker.children(recursive=True)
    os.kill(worker.pid, signal.SIGKILL)
    task = server.finished(task_id)
    assert task["attempts"][0]["outcome"] == "lost"
    assert task["attempts"][-1]["worker"] != owner
    assert not any(each.is_running() and each.status() != psutil.STATUS_ZOMBIE for each in children)
    _, _, content = server.call("GET", f"/tasks/{task_id}/result")
    assert [json.loads(line) for line in content.splitlines()] == expected


def test_a_task_that_is_cancelled_in_the_middle_has_no_result(server: Server):
    task_id = server.ask()
    until(lambda: 0 < (server.task(task_id)["percent"] or 0) < 100)
    server.json("DELETE", f"/tasks/{task_id}")
    until(lambda: server.task(task_id)["finished_at"])
    assert server.task(task_id)["state"] == "cancelled"
    assert server.call("GET", f"/tasks/{task_id}/result")[0] == 404


def test_interactive_predictions_are_answered_beside_a_large_task(server: Server):
    task_id = server.ask()
    until(lambda: 0 < (server.task(task_id)["percent"] or 0) < 100)
    for _ in range(5):
        server.json("POST", "/predict", {"service": "kinds", "data": ["0.1,0.2,0.3,0.4,0.5"]})
    assert server.task(task_id)["state"] == "running"
    server.finished(task_id)
