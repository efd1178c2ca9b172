"""A real Flower beside a real Redis and worker: who gets in, what it shows, and that it changes nothing."""

from __future__ import annotations

import base64
import http.client
import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flower.urls import handlers
from tornado.web import RequestHandler

from cli.services import flower_argv, flower_environment, worker_argv, worker_environment
from settings import Settings
from storage.live import Live
from storage.records import LOCAL, Kind, Records
from tests.services import RedisServer, Server, free_port
from workers.queue import Queue

pytestmark = pytest.mark.servers


@dataclass(frozen=True)
class Flower:
    """A running Flower."""

    port: int
    login: str
    log: Path

    def call(self, method: str, path: str, login: str | None = None) -> tuple[int, bytes]:
        """Status and body of an answer."""
        headers = {}
        if login is not None:
            headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read()
        finally:
            connection.close()


def until(claim: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)
    return found


@pytest.fixture(scope="module")
def fleet(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Settings:
    home = tmp_path_factory.mktemp("home")
    return Settings(home=home, redis_url=redis_server.url, flower_port=free_port(), threads=1)


@pytest.fixture(scope="module")
def flower(fleet: Settings) -> Iterator[Flower]:
    environment = flower_environment(fleet)
    server = Server(flower_argv(fleet), fleet.home / "flower.log", environment=environment)
    made = Flower(fleet.flower_port, environment["FLOWER_BASIC_AUTH"], server.log)

    def answers() -> bool:
        try:
            return made.call("GET", "/healthcheck")[0] == 200
        except OSError:
            return False

    try:
        server.wait_until(answers)
        yield made
    finally:
        server.stop()


def places(method: str) -> list[str]:
    """A path for each handler of Flower that answers a method itself."""
    found = []
    for each in handlers:
        pattern, handler = (each[0], each[1]) if isinstance(each, tuple) else (each.regex.pattern, each.handler_class)
        if getattr(handler, method.lower()) is not getattr(RequestHandler, method.lower()):
            found.append(pattern.removesuffix("$").replace("(.+)", "some").replace("(.*)", "some").replace("/?", ""))
    return found


def test_pages_and_answers_are_for_those_with_the_login(flower: Flower):
    for path in ("/", "/workers", "/tasks", "/broker", "/metrics", "/api/workers", "/api/tasks", "/api/queues/length"):
        assert flower.call("GET", path)[0] == 401, path
        assert flower.call("GET", path, "modelyard:guessed")[0] == 401, path
        assert flower.call("GET", path, flower.login)[0] == 200, path


def test_only_that_it_runs_is_told_to_everybody(flower: Flower):
    def is_open(path: str) -> bool:
        return flower.call("GET", path)[0] not in (401, 403, 404)

    # Pages, the picture of its name, and the form that asks for a login which no one is offered here.
    assert {path for path in places("GET") if is_open(path)} <= {"/healthcheck", "/login", "/logout"}
    assert flower.call("GET", "/healthcheck") == (200, b"OK")


def test_nothing_can_be_changed_with_the_login_either(flower: Flower):
    # The list of tasks is read by POST, and the last place answers that there is none.
    asked = [path for path in places("POST") if path not in ("/tasks/datatable", ".*")]
    # Should Flower name them anew, this test would otherwise walk nothing.
    assert {"/api/worker/shutdown/some", "/api/task/revoke/some", "/api/task/send-task/some"} <= set(asked)
    for path in asked:
        assert flower.call("POST", path, flower.login)[0] == 403, path
        assert flower.call("POST", path)[0] in (401, 403), path
    assert [places(method) for method in ("PUT", "PATCH", "DELETE")] == [[], [], []]


def test_login_is_made_once_for_its_owner_alone_and_is_not_on_the_command_line(fleet: Settings, flower: Flower):
    path = fleet.flower_login_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text().strip() == flower.login
    assert len(flower.login.partition(":")[2]) >= 32
    assert flower_environment(fleet)["FLOWER_BASIC_AUTH"] == flower.login
    password = flower.login.partition(":")[2]
    assert not any(password in word for word in flower_argv(fleet))
    assert password not in flower.log.read_text()


def test_task_is_shown_by_its_number_and_attempt(fleet: Settings, flower: Flower, tmp_path: Path):
    records, live = Records.connect(fleet.database_url), Live(fleet.live_url)
    records.upgrade()
    account = records.accounts.ensure(LOCAL)
    environment = {**os.environ, **worker_environment(fleet, ["control"])}
    worker = Server(worker_argv("control", ["control"]), tmp_path / "control.log", environment=environment)
    try:
        until(live.heartbeats.all)
        # Its events reach Flower.
        until(lambda: b"control@" in flower.call("GET", "/workers?json=1", flower.login)[1])
        repository = records.repositories.ensure(account.id, f"objects:{account.id}/iris")
        task, _ = records.tasks.add(account.id, kind=Kind.CLEAR, queue="control", spec={}, repository_id=repository.id)
        assert Queue(fleet.broker_url, records, live).send_task(task)

        def shown() -> bool:
            status, body = flower.call("GET", "/api/tasks", flower.login)
            assert status == 200
            return f"clear-{task.id}-a1" in json.loads(body)

        until(shown)
    finally:
        worker.stop()
        live.close()
        records.close()
