"""A worker and messages of a later version of the program: nothing is lost, nothing fails, nothing turns in circles."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from cli.services import worker_argv, worker_environment
from settings import Settings
from storage.live import Live, Request, Spread
from storage.live.lane import _batch, replies_in
from storage.records import LOCAL, Kind, Records, State, Task
from tests.integration.fronted import until
from tests.services import RedisServer, Server
from workers.queue import DRAIN, MESSAGE_VERSION, SWEEP, TASK_NAMES, VERSION_HEADER, sender

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

SWEEP_S = 0.5


@dataclass
class Fleet:
    """A worker of the program of now, which also sweeps, and what it works with."""

    settings: Settings
    records: Records
    live: Live
    worker: Server

    def task(self, name: str) -> Task:
        """A task that is over at once when a worker takes it."""
        account = self.records.accounts.ensure(LOCAL)
        repository = self.records.repositories.ensure(account.id, f"objects:{account.id}/{name}")
        spec = {"mode": "index", "repository_id": repository.id}
        return self.records.tasks.add(account.id, Kind.CLEAR, "control", spec, repository_id=repository.id)[0]

    def send(self, name: str, message_id: str, *args: Any, version: Any, **named: Any) -> None:
        app = sender(self.settings.broker_url)
        headers = {VERSION_HEADER: version, "another_header": "x"}
        app.send_task(name, args=args, kwargs=named, queue="control", task_id=message_id, headers=headers)
        app.close()

    def need(self, task: Task, version: int) -> None:
        """Have a task ask for a worker that knows this version of specifications."""
        spec = json.dumps({**self.records.tasks.spec(task.id), "needs": version})
        with self.records.database.write() as connection:
            connection.execute(text("UPDATE tasks SET spec = :spec WHERE id = :id"), {"spec": spec, "id": task.id})

    def is_over(self, task: Task) -> bool:
        return self.records.tasks.get(task.id).state is State.FINISHED

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.worker.log.read_text().splitlines()]

    def said(self, words: str) -> int:
        return sum(words in each["message"] for each in self.lines)


@pytest.fixture
def fleet(own_redis: RedisServer, tmp_path: Path) -> Iterator[Fleet]:
    settings = Settings(home=tmp_path, redis_url=own_redis.url, sweep_s=SWEEP_S, threads=1, log_format="json")
    records, live = Records.connect(settings.database_url), Live(settings.live_url)
    records.upgrade()
    environment = worker_environment(settings, ["control"])
    worker = Server(worker_argv("control", ["control"]), tmp_path / "control.log", environment=environment)
    made = Fleet(settings, records, live, worker)
    try:
        until(live.heartbeats.all, 60)
        yield made
    finally:
        worker.stop()
        live.close()
        records.close()


def test_message_of_a_later_version_is_left_alone_and_its_task_is_done_all_the_same(fleet: Fleet):
    task = fleet.task("one")
    later = MESSAGE_VERSION + 1
    fleet.send(TASK_NAMES["clear"], "later-1", task.id, {"a": "new field"}, version=later, another=[1])
    fleet.send(DRAIN, "later-2", "predict.xgboost.cpu", "wake", version=later)
    fleet.send(SWEEP, "later-3", version="2026-11")
    until(lambda: all(fleet.said(f"message later-{number} is of version") == 1 for number in (1, 2, 3)))
    # The sweep sends it again, as one that every worker knows.
    until(lambda: fleet.is_over(task))
    assert [row.outcome for row in fleet.records.tasks.attempts(task.id)] == ["finished"]
    assert not [each for each in fleet.lines if each["level"] in ("ERROR", "CRITICAL")]


def test_fields_that_a_worker_does_not_know_change_nothing(fleet: Fleet):
    task = fleet.task("one")
    with fleet.records.database.write() as connection:  # so that only the message of this test can be it
        connection.execute(text("UPDATE tasks SET sent_at = 1e12"))
    fleet.send(TASK_NAMES["clear"], "more", task.id, {"priority": 3}, version=MESSAGE_VERSION, colour="red")
    until(lambda: fleet.is_over(task))


def test_task_that_needs_a_later_worker_waits_without_turning_in_circles(fleet: Fleet):
    needy = fleet.task("one")
    fleet.need(needy, 2)
    plain = fleet.task("two")
    fleet.send("modelyard.dream", "unknown", needy.id, version=MESSAGE_VERSION)
    until(lambda: fleet.is_over(plain))
    words = f"task {needy.id} is not to be done here and now"
    until(lambda: fleet.said(words) >= 4)
    at = [datetime.fromisoformat(each["time"]) for each in fleet.lines if words in each["message"]]
    took_s = (at[-1] - at[0]).total_seconds()
    # The first may have been late; each comes after two sweeps.
    assert took_s >= (len(at) - 2) * SWEEP_S, "it comes again at the pace of the sweep, not at once"
    found = fleet.records.tasks.get(needy.id)
    assert (found.state, found.attempt, found.failure) == (State.QUEUED, 0, None)
    # A worker that knows it does it.
    fleet.need(needy, 1)
    until(lambda: fleet.is_over(needy))


def test_requests_in_a_lane_may_have_fields_of_a_later_version(redis_url: str):
    live = Live(redis_url)
    lane = "predict.toy.cpu"
    asked = b'{"version_id":1,"more":true}\n["1,2"]\n00-trace\nlater line'
    live.lane.append(lane, [Request("r", "1.cpu:x", "replies:test", 30.0, asked)], Spread())
    key = f"lane:{lane}:request:r"
    client = live.server.bytes_client()
    head, _, rest = client.get(key).partition(b"\n")  # type: ignore[union-attr]
    client.set(key, head + b"\tlater field\n" + rest, px=30_000)
    drain = live.lane.drain(lane, "a", lease_s=30.0)
    try:
        batch = drain.turn(most=9)
        assert batch is not None
        assert [(each.id, each.asked) for each in batch.requests] == [(b"r", asked)]
        assert drain.turn([(b"r", b"answer")], most=9) is None
        assert list(replies_in(client.lpop("replies:test"))) == [(b"r", b"answer")]  # type: ignore[arg-type]
    finally:
        drain.close()
        client.close()
        live.close()


def test_answers_and_bells_may_have_fields_of_a_later_version():
    assert list(replies_in(b"r\t2\tlater\nokq\t1\nx")) == [(b"r", b"ok"), (b"q", b"x")]
    batch = _batch(b"1.cpu:x\t3\tempty\tlater\nr\t1.5\t2\tlater\nab")
    assert [(each.id, each.asked) for each in batch.requests] == [(b"r", b"ab")]
