"""Workers that end after one task, as a cluster starts them: one per task, and none is ever stopped at work."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.services import worker_argv, worker_environment
from settings import Settings
from storage.records import Kind, State
from tests.integration.yard import Yard, running_yard
from tests.services import Server
from workers.queue import Queue

pytestmark = [pytest.mark.servers, pytest.mark.slow]

QUEUE = "train.cpu"


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    with running_yard(settings, redis_url) as made:
        made.is_idle = True  # the worker is a process of its own
        yield made


@contextmanager
def worker(yard: Yard, log: Path, within_s: float, queue: str = QUEUE) -> Iterator[Server]:
    environment = {**os.environ, **worker_environment(yard.parts.settings, [queue], within_s)}
    server = Server(worker_argv("one", [queue]), log, environment=environment)
    try:
        yield server
    finally:
        server.stop()


def test_worker_does_one_task_leaves_the_others_and_ends(yard: Yard, tmp_path: Path):
    parts = yard.parts
    for name in ("one", "two", "three"):
        yard.create(name, name)
        asked = {"service": name, "async": True, "parameters": {"mllib": {"iterations": 3}}}
        yard.call("POST", "/train", {**asked, "data": [str(yard.data / "iris.csv")]}, code=201)
    tasks = yard.tasks(Kind.TRAIN)
    queue = Queue(parts.settings.broker_url, parts.records, parts.live)
    assert queue.send_tasks(tasks) == 3
    with worker(yard, tmp_path / "worker.log", 120) as server:
        assert server.wait(120) == 0, server.log.read_text()
    states = [parts.records.tasks.get(task.id).state for task in tasks]
    assert sorted(states) == [State.FINISHED, State.QUEUED, State.QUEUED], server.log.read_text()
    assert parts.live.waiting_messages(QUEUE) == 2, "what it did not do waits for others"
    assert parts.live.heartbeats.all() == [], "it said good-bye"


@pytest.mark.parametrize("queue", [QUEUE, "batch.xgboost.cpu"])
def test_worker_ends_when_no_task_comes(yard: Yard, tmp_path: Path, queue: str):
    began = time.monotonic()
    with worker(yard, tmp_path / "worker.log", 1, queue) as server:
        assert server.wait(120) == 0, server.log.read_text()
    assert time.monotonic() - began > 1
    assert "none came" in server.log.read_text()
