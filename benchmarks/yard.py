"""A stack of its own for a benchmark, and a client that keeps its connection."""

from __future__ import annotations

import dataclasses
import http.client
import json
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil

from cli.stack import Stack
from settings import Settings
from storage.records import Records

Json = dict[str, Any]


class Client:
    """Speaks to the API over one connection.

    headers : of each request, the key with them.
    """

    def __init__(self, port: int, headers: Mapping[str, str]) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=600)
        self.headers = dict(headers)

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        """The answer; anything but success ends the benchmark."""
        content_sent = None if body is None else json.dumps(body)
        try:
            self._connection.request(method, path, content_sent, self.headers)
        except (BrokenPipeError, http.client.RemoteDisconnected):  # closed by the server while it idled
            self._connection.close()
            self._connection.request(method, path, content_sent, self.headers)
        answer = self._connection.getresponse()
        content: Json = json.loads(answer.read())
        if answer.status >= 300:
            raise SystemExit(f"{method} {path}: {answer.status} {content}")
        return content

    def wait(self, task_id: int) -> Json:
        """The task once it is final."""
        while True:
            task = self.call("GET", f"/tasks/{task_id}")
            if task["state"] in ("finished", "failed", "cancelled"):
                if task["state"] != "finished":
                    raise SystemExit(f"task {task_id}: {task}")
                return task
            time.sleep(0.02)

    def create(self, name: str, label: str, mllib: Json) -> None:
        """A service with the csv connector and xgboost, its repository in the object store."""
        self.call(
            "PUT",
            f"/services/{name}",
            {
                "mllib": "xgboost",
                "description": "benchmark",
                "model": {"repository": name},
                "parameters": {"input": {"connector": "csv", "label": label}, "mllib": mllib, "output": {}},
            },
        )

    def train(self, name: str, data: Path, mllib: Json) -> int:
        """Start a training and return its task's number."""
        answer = self.call(
            "POST",
            "/train",
            {
                "service": name,
                "async": True,
                "parameters": {"input": {}, "mllib": mllib, "output": {}},
                "data": [str(data)],
            },
        )
        return int(answer["head"]["task_id"])


@contextmanager
def running_stack(**changes: Any) -> Iterator[tuple[Stack, Settings, Client]]:
    """The whole stack in a temporary home, asked with a key as in production; `changes` are settings."""
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = dataclasses.replace(
        Settings.from_env({"MODELYARD_HOME": str(home)}),
        port=port,
        flower_port=0,
        data_roots=(home / "data",),
        **changes,
    )
    (home / "data").mkdir()
    try:
        with Stack(settings) as stack:
            stack.wait_ready(60)
            with closing(Records.connect(settings.database_url)) as records:
                _, secret = records.keys.create("local", "benchmark")
            yield stack, settings, Client(port, {"Content-Type": "application/json", "X-API-KEY": secret})
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def idle_trainer(stack: Stack) -> Iterator[None]:
    """The training worker lives but takes no work, so that only the server is measured."""
    worker = psutil.Process(stack.pid_of("train1"))
    held = [worker, *worker.children(recursive=True)]
    for process in held:
        process.suspend()
    try:
        yield
    finally:
        for process in held:
            process.resume()


def median(values: list[float]) -> float:
    """The middle value."""
    return sorted(values)[len(values) // 2]
