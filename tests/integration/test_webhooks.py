"""Events on their way to real receivers: signed, in time, to each in turn, again until they are taken."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import hashlib
import hmac
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import redis

import settings as settings_module
from settings import Settings
from storage.errors import RecordsUnavailable
from storage.records import Kind, Parcel, State, Task
from tests.integration.yard import Yard, running_yard
from tests.receiver import Answering, Receiver, answer, receiving
from workers.webhooks import courier as courier_module
from workers.webhooks.courier import Courier
from workers.webhooks.payload import PAYLOAD_LIMIT_BYTES, payload_of
from workers.webhooks.sending import deliver

pytestmark = pytest.mark.servers

Json = dict[str, Any]

SECRET = "whsec_" + base64.b64encode(b"thirty-two bytes that are secret").decode()
OTHER = "whsec_" + base64.b64encode(b"another thirty-two bytes, also s").decode()
WAIT_S = 60.0


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    chosen = dataclasses.replace(
        settings, fetch_allow=("127.0.0.0/8",), webhook_timeout_s=5.0, webhook_delays_s=(0.1, 0.1, 0.1, 0.1)
    )
    with running_yard(chosen, redis_url) as made:
        yield made


@contextlib.contextmanager
def couriers(yard: Yard, count: int = 1) -> Iterator[list[Courier]]:
    made = [Courier(yard.parts) for _ in range(count)]
    for each in made:
        each.start()
    try:
        yield made
    finally:
        for each in made:
            each.stop()
        until(lambda: not any(each._under_way for each in made), "senders that end")


def until(is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline, f"waited for {what}"
        time.sleep(0.02)


def hook(yard: Yard, url: str, **more: Any) -> int:
    return int(yard.call("POST", "/webhooks", {"url": url, "secret": SECRET, **more}, code=201)["webhook_id"])


def ping(yard: Yard, webhook_id: int) -> int:
    return int(yard.call("POST", f"/webhooks/{webhook_id}/test", code=202)["delivery_id"])


def told(yard: Yard, webhook_id: int, delivery_id: int) -> Json:
    return yard.call("GET", f"/webhooks/{webhook_id}/deliveries/{delivery_id}")


def settled(yard: Yard, webhook_id: int, delivery_id: int) -> Json:
    """A delivery at its end."""
    until(lambda: told(yard, webhook_id, delivery_id)["state"] != "waiting", "the end of a delivery")
    return told(yard, webhook_id, delivery_id)


def once(yard: Yard, delivery_id: int) -> str:
    """What comes of one attempt, now."""
    with yard.parts.records.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE webhook_deliveries SET due_at = 0 WHERE id = {delivery_id}")
    parcel = yard.parts.records.deliveries.claim(delivery_id, "sender", 30.0)
    assert parcel is not None
    return deliver(yard.parts.records, yard.parts.settings, parcel)


def headers_of(head: str) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in head.lower().split("\r\n")[1:]) | {
        "webhook-signature": next(
            line.split(": ", 1)[1] for line in head.split("\r\n") if line.lower().startswith("webhook-signature")
        )
    }


def signed_by(secret: str, event_id: str, timestamp: str, body: bytes) -> str:
    """The signature as the specification has it, by hand."""
    key = base64.b64decode(secret.removeprefix("whsec_"))
    content = f"{event_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()


def check(receiver: Receiver, nth: int, *secrets: str) -> dict[str, str]:
    """The headers of what came in, whose signatures must be those of the secrets."""
    headers, body = headers_of(receiver.heads[nth]), receiver.bodies[nth]
    wanted = [signed_by(each, headers["webhook-id"], headers["webhook-timestamp"], body) for each in secrets]
    assert headers["webhook-signature"].split(" ") == wanted
    assert abs(int(headers["webhook-timestamp"]) - time.time()) < 300
    return headers


def accept(yard: Yard, state: State = State.FINISHED, **more: Any) -> Task:
    """A task that ends at once."""
    records = yard.parts.records
    account = records.accounts.ensure("local")
    task, _ = records.tasks.add(account.id, Kind.TRAIN, "nowhere", {"parameters": {}}, **more)
    attempt = records.tasks.claim(task.id, "worker", 30.0)
    assert attempt is not None
    records.tasks.end(attempt, state, phases={"training": 1.5}, report={"measure": {"acc": 0.5, "f1": 1.0}})
    return task


# What is sent


def test_end_of_a_training_is_told_as_the_api_tells_it_and_is_signed(yard: Yard):
    with receiving(answer("204 No Content")) as receiver:
        webhook_id = hook(yard, f"{receiver.url}/in?token=1", services=["flowers"])
        yard.create("flowers", "flowers")
        job = yard.train("flowers", 3)
        accept(yard)  # of no service
        task_id = job["head"]["task_id"]
        with couriers(yard):
            [delivery] = yard.call("GET", f"/webhooks/{webhook_id}/deliveries")["deliveries"]
            ended = settled(yard, webhook_id, delivery["delivery_id"])
    [attempt] = ended["attempts"]
    assert (ended["state"], attempt["status"], attempt["error"], attempt["answer"]) == ("delivered", 204, None, "")
    headers = check(receiver, 0, SECRET)
    assert receiver.heads[0].startswith("POST /in?token=1 HTTP/1.1\r\n")
    assert headers["webhook-id"] == ended["event_id"]
    assert headers["content-type"] == "application/json"
    sent = json.loads(receiver.bodies[0])
    task = yard.call("GET", f"/tasks/{task_id}")
    assert sent["type"] == "task.finished"
    assert sent["data"] == {"task": task, "left_out": []}
    assert (task["service"], task["version"], task["report"]) == ("flowers", 1, f"/tasks/{task_id}/report")
    assert set(task["measure"]) >= {"acc", "f1"}
    ends = [datetime.fromisoformat(each) for each in (sent["timestamp"], task["finished_at"])]
    assert abs(ends[0] - ends[1]) < timedelta(seconds=5)


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELLED])
def test_other_ends_are_told_as_the_api_tells_them(yard: Yard, state: State, monkeypatch: pytest.MonkeyPatch):
    webhook_id = hook(yard, "http://127.0.0.1:9/")
    task = accept(yard, state)
    parcel = parcel_of(yard, webhook_id)
    with monkeypatch.context() as patched:  # a report may hold very long histories, and a whole result
        patched.setattr(yard.parts.records.tasks, "report", None)
        sent = json.loads(payload_of(yard.parts.records, parcel))
    assert sent["type"] == f"task.{state}"
    assert sent["data"]["task"] == yard.call("GET", f"/tasks/{task.id}")
    assert sent["data"]["task"]["measure"] == {"acc": 0.5, "f1": 1.0}


def parcel_of(yard: Yard, webhook_id: int) -> Parcel:
    """The newest delivery, claimed."""
    delivery = yard.parts.records.deliveries.page(webhook_id, limit=1)[0]
    parcel = yard.parts.records.deliveries.claim(delivery.id, "sender", 30.0)
    assert parcel is not None
    return parcel


def test_large_task_is_cut_to_the_limit_and_says_so(yard: Yard):
    webhook_id = hook(yard, "http://127.0.0.1:9/")
    records = yard.parts.records
    account = records.accounts.ensure("local")
    failure = {"kind": "internal", "message": "x" * 10_000, "log": ["y" * 1000] * 100, "advice": "look"}
    warnings = [{"parameter": f"p{number}", "message": "z" * 100} for number in range(1000)]
    records.tasks.add(account.id, Kind.TRAIN, "nowhere", {}, warnings=warnings, failure=failure)
    content = payload_of(records, parcel_of(yard, webhook_id))
    assert len(content) <= PAYLOAD_LIMIT_BYTES
    data = json.loads(content)["data"]
    assert "warnings" in data["left_out"]
    assert "failure" in data["left_out"]
    assert data["task"]["warnings"] is None
    assert (data["task"]["failure"]["kind"], data["task"]["failure"]["advice"]) == ("internal", "look")


def test_after_a_change_both_secrets_sign(yard: Yard):
    with receiving(answer("200 OK")) as receiver:
        webhook_id = hook(yard, receiver.url)
        assert once(yard, ping(yard, webhook_id)) == "delivered"
        yard.call("POST", f"/webhooks/{webhook_id}/secret", {"secret": OTHER})
        assert once(yard, ping(yard, webhook_id)) == "delivered"
    check(receiver, 0, SECRET)
    check(receiver, 1, OTHER, SECRET)
    assert json.loads(receiver.bodies[0])["data"] == {"webhook_id": webhook_id}


def test_replay_has_the_id_and_the_body_of_the_event_and_a_time_of_its_own(yard: Yard):
    with receiving(answer("200 OK")) as receiver:
        webhook_id = hook(yard, receiver.url)
        accept(yard)
        [delivery] = yard.call("GET", f"/webhooks/{webhook_id}/deliveries")["deliveries"]
        assert once(yard, delivery["delivery_id"]) == "delivered"
        began = int(time.time())
        until(lambda: int(time.time()) > began, "the next second")
        path = f"/webhooks/{webhook_id}/deliveries/{delivery['delivery_id']}/replay"
        assert once(yard, yard.call("POST", path, code=202)["delivery_id"]) == "delivered"
    first, second = check(receiver, 0, SECRET), check(receiver, 1, SECRET)
    assert first["webhook-id"] == second["webhook-id"]
    assert int(first["webhook-timestamp"]) < int(second["webhook-timestamp"])
    assert receiver.bodies[0] == receiver.bodies[1]


# Receivers that do not take it


def in_turn(*answers: Answering) -> Answering:
    """Answers one after the other, the last for good."""
    left = list(answers)
    return lambda connection: (left.pop(0) if len(left) > 1 else left[0])(connection)


def test_receiver_that_fails_and_recovers_gets_the_event(yard: Yard):
    with receiving(in_turn(answer("500 Oops", b"sorry"), lambda _: None, answer("200 OK", b"thanks"))) as receiver:
        webhook_id = hook(yard, receiver.url)
        with couriers(yard):
            ended = settled(yard, webhook_id, ping(yard, webhook_id))
    assert (ended["state"], ended["attempt"]) == ("delivered", 3)
    assert [each["status"] for each in ended["attempts"]] == [500, None, 200]
    assert [each["answer"] for each in ended["attempts"]] == ["sorry", None, "thanks"]
    assert "status 500" in ended["attempts"][0]["error"]
    assert "broke off" in ended["attempts"][1]["error"]
    ids = {check(receiver, nth, SECRET)["webhook-id"] for nth in range(3)}
    assert ids == {ended["event_id"]}
    assert yard.call("GET", f"/webhooks/{webhook_id}")["failing_since"] is None


def test_event_is_given_up_after_the_last_delay(yard: Yard):
    with receiving(answer("500 Oops")) as receiver:
        webhook_id = hook(yard, receiver.url)
        delivery_id = ping(yard, webhook_id)
        outcomes = [once(yard, delivery_id) for _ in range(5)]
    assert outcomes == ["failed"] * 4 + ["given_up"]
    ended = told(yard, webhook_id, delivery_id)
    assert (ended["state"], ended["next_at"], len(ended["attempts"])) == ("failed", None, 5)
    found = yard.call("GET", f"/webhooks/{webhook_id}")
    assert found["active"] is True
    assert found["failing_since"] is not None


@pytest.mark.parametrize(
    ("status", "more", "text"),
    [
        ("301 Moved", ["Location: {inner}"], "status 301, and redirects are not followed"),
        ("307 Again", ["Location: {inner}"], "status 307, and redirects are not followed"),
        ("404 Not Found", [], "status 404"),
    ],
)
def test_only_2xx_is_success_and_no_redirect_is_followed(yard: Yard, status: str, more: list[str], text: str):
    with receiving(answer("200 OK")) as inner:
        lines = [line.format(inner=inner.url) for line in more]
        with receiving(answer(status, b"no", *lines)) as receiver:
            webhook_id = hook(yard, receiver.url)
            delivery_id = ping(yard, webhook_id)
            assert once(yard, delivery_id) == "failed"
    assert text in told(yard, webhook_id, delivery_id)["attempts"][0]["error"]
    assert inner.heads == []


def test_410_switches_the_webhook_off(yard: Yard):
    with receiving(answer("410 Gone")) as receiver:
        webhook_id = hook(yard, receiver.url)
        delivery_id, other = ping(yard, webhook_id), ping(yard, webhook_id)
        assert once(yard, delivery_id) == "given_up"
    found = yard.call("GET", f"/webhooks/{webhook_id}")
    assert (found["active"], found["inactive_because"]) == (False, "the receiver answered 410 Gone")
    assert [told(yard, webhook_id, each)["state"] for each in (delivery_id, other)] == ["failed", "failed"]


def test_webhook_that_does_nothing_but_fail_is_switched_off(yard: Yard):
    settings = dataclasses.replace(yard.parts.settings, webhook_give_up_s=1.0)
    with receiving(answer("500 Oops")) as receiver:
        webhook_id = hook(yard, receiver.url)
        delivery_id = ping(yard, webhook_id)
        once(yard, delivery_id)
        with yard.parts.records.database.write() as connection:
            connection.exec_driver_sql("UPDATE webhooks SET failing_since = failing_since - 2")
            connection.exec_driver_sql("UPDATE webhook_deliveries SET due_at = 0")
        deliver(yard.parts.records, settings, parcel_of(yard, webhook_id))
    found = yard.call("GET", f"/webhooks/{webhook_id}")
    assert found["active"] is False
    assert "every attempt failed" in found["inactive_because"]


def due_at(yard: Yard, webhook_id: int) -> float:
    """Unix time of the next attempt at the newest delivery."""
    return yard.parts.records.deliveries.page(webhook_id, limit=1)[0].due_at


def waits_s(yard: Yard, webhook_id: int) -> float:
    """Seconds until the next attempt at the newest delivery."""
    return due_at(yard, webhook_id) - time.time()


@pytest.mark.parametrize(
    ("status", "header", "least", "most"),
    [
        ("503 Busy", "120", 100, 121),
        ("429 Slow down", "120", 100, 121),
        ("503 Busy", "date", 100, 121),
        ("500 Oops", "120", 0, 2),
        ("503 Busy", "9" * 40, 86000, 86401),
        ("503 Busy", "soon", 0, 2),
        ("503 Busy", "-5", 0, 2),
    ],
)
def test_receiver_may_say_how_long_it_wants_to_be_left_alone(
    yard: Yard, status: str, header: str, least: float, most: float
):
    said = format_datetime(datetime.now(UTC) + timedelta(seconds=120), usegmt=True) if header == "date" else header
    with receiving(answer(status, b"", f"Retry-After: {said}")) as receiver:
        webhook_id = hook(yard, receiver.url)
        began = time.time()
        once(yard, ping(yard, webhook_id))
        assert least <= due_at(yard, webhook_id) - began, "counted from before the attempt"
        assert waits_s(yard, webhook_id) <= most


def test_delays_grow_and_are_scattered(yard: Yard):
    random.seed(1)
    yard.parts = dataclasses.replace(
        yard.parts, settings=dataclasses.replace(yard.parts.settings, webhook_delays_s=(50.0, 500.0))
    )
    with receiving(answer("500 Oops")) as receiver:
        webhook_id = hook(yard, receiver.url)
        seen = set()
        for _ in range(4):
            delivery_id = ping(yard, webhook_id)
            once(yard, delivery_id)
            seen.add(round(waits_s(yard, webhook_id)))
            once(yard, delivery_id)
            assert 440 <= waits_s(yard, webhook_id) <= 551
    assert len(seen) > 1
    assert all(44 <= each <= 56 for each in seen)


def test_inner_network_gets_nothing(yard: Yard):
    yard.parts = dataclasses.replace(yard.parts, settings=dataclasses.replace(yard.parts.settings, fetch_allow=()))
    with receiving(answer("200 OK")) as receiver:
        # The API still allows what the sender does not; of a name it does not ask where it leads.
        for url in (receiver.url, receiver.url.replace("127.0.0.1", "localhost")):
            webhook_id = hook(yard, url)
            delivery_id = ping(yard, webhook_id)
            assert once(yard, delivery_id) == "failed"
        assert receiver.heads == []
    [attempt] = told(yard, webhook_id, delivery_id)["attempts"]
    assert "MODELYARD_FETCH_ALLOW" in attempt["error"]
    assert attempt["status"] is None


def test_answer_with_what_no_text_holds_is_kept_as_text(yard: Yard):
    with receiving(answer("200 OK", b"a\0b\xff" + b"x" * 5000)) as receiver:
        webhook_id = hook(yard, receiver.url)
        delivery_id = ping(yard, webhook_id)
        assert once(yard, delivery_id) == "delivered"
    assert told(yard, webhook_id, delivery_id)["attempts"][0]["answer"] == "a\ufffdb\ufffd" + "x" * 1020


def test_fault_of_our_own_is_an_attempt_like_any_other(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    def broken(*_: Any) -> bytes:
        raise ValueError("never")

    monkeypatch.setattr("workers.webhooks.sending.payload_of", broken)
    webhook_id = hook(yard, "http://127.0.0.1:9/")
    delivery_id = ping(yard, webhook_id)
    assert once(yard, delivery_id) == "failed"
    assert "the worker's log has it" in told(yard, webhook_id, delivery_id)["attempts"][0]["error"]


# Several at once


def test_slow_receivers_do_not_hold_a_quick_one_up(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    """More events for a host that never answers than could be sent at once, all due before that of the quick one."""
    monkeypatch.setattr(courier_module, "SLOTS", 16)
    yard.parts = dataclasses.replace(
        yard.parts, settings=dataclasses.replace(yard.parts.settings, webhook_timeout_s=30.0)
    )
    with socket.create_server(("127.0.0.2", 0)) as silent, receiving(answer("200 OK")) as quick:
        slow = hook(yard, f"http://127.0.0.2:{silent.getsockname()[1]}/")
        waiting = [ping(yard, slow) for _ in range(20)]
        with couriers(yard) as [courier]:
            until(lambda: len(courier._under_way) == 4, "the slow ones, half of what may go to a host")
            webhook_id = hook(yard, quick.url)
            began = time.monotonic()
            delivery_id = ping(yard, webhook_id)
            assert settled(yard, webhook_id, delivery_id)["state"] == "delivered"
            assert time.monotonic() - began < 20, "none of the slow ones is over before 30 seconds"
            # Its thread ends a little later than its delivery.
            until(lambda: delivery_id not in courier._under_way, "room that is free again")
            assert len(courier._under_way) == 4
            assert {told(yard, slow, each)["state"] for each in waiting} == {"waiting"}
            yard.call("DELETE", f"/webhooks/{slow}")
            silent.close()
            courier.stop()
            for each in threading.enumerate():
                if each.name.startswith("delivery "):
                    each.join(WAIT_S)


def test_courier_that_was_stopped_tells_no_figures_and_looks_for_nothing_any_more(yard: Yard):
    with couriers(yard):
        until(lambda: any(name.startswith("worker-") for name in yard.parts.live.figures.all()), "figures")
    assert {"courier", "figures"}.isdisjoint(each.name for each in threading.enumerate())


def test_oldest_go_first_and_hosts_take_turns(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(courier_module, "SLOTS", 1)
    monkeypatch.setattr(courier_module, "SLOTS_OF_HOST", 1)
    carried: list[tuple[int, str]] = []
    courier = Courier(yard.parts)
    many, few = hook(yard, "http://127.0.0.1:9/"), hook(yard, "http://127.0.0.2:9/")
    first, second, third = (ping(yard, many) for _ in range(3))
    last = ping(yard, few)

    def carry(due: Any) -> None:
        carried.append((due.id, due.host))
        parcel = yard.parts.records.deliveries.claim(due.id, "sender", 3600.0)
        assert parcel is not None
        del courier._under_way[due.id]

    monkeypatch.setattr(courier, "_carry", carry)
    for _ in range(4):
        assert courier.look() == 1
        until(lambda: not courier._under_way, "a turn")
    assert carried == [
        (first, "127.0.0.1"),
        (last, "127.0.0.2"),
        (second, "127.0.0.1"),
        (third, "127.0.0.1"),
    ]
    assert courier.look() == 0


def test_several_senders_send_everything_once(yard: Yard):
    with receiving(answer("200 OK")) as receiver:
        webhook_id = hook(yard, receiver.url)
        waiting = [ping(yard, webhook_id) for _ in range(12)]
        with couriers(yard, 3) as senders:
            ended = [settled(yard, webhook_id, each) for each in waiting]
    text = "".join(each.figures.told().decode() for each in senders)  # of all: no thread is left
    assert [each["attempt"] for each in ended] == [1] * 12
    ids = [check(receiver, nth, SECRET)["webhook-id"] for nth in range(len(receiver.heads))]
    assert sorted(ids) == sorted(each["event_id"] for each in ended)
    sent = [
        line for line in text.splitlines() if line.startswith('modelyard_webhook_attempts_total{outcome="delivered"}')
    ]
    assert sum(float(line.rpartition(" ")[2]) for line in sent) == 12


def test_figures_tell_what_waits(yard: Yard):
    webhook_id = hook(yard, "http://127.0.0.1:9/")
    ping(yard, webhook_id), ping(yard, webhook_id)
    shown = yard.client.get("/metrics").text
    assert "modelyard_webhook_deliveries_waiting 2.0" in shown
    [line] = [each for each in shown.splitlines() if each.startswith("modelyard_webhook_deliveries_oldest_seconds ")]
    assert 0 <= float(line.rpartition(" ")[2]) < 60
    assert SECRET not in shown


# Senders that die

_SENDER = """
import os, threading
from settings import Settings
from workers.parts import Parts
from workers.webhooks.courier import Courier
Courier(Parts.make(Settings.from_env(os.environ))).start()
print("sends", flush=True)
threading.Event().wait()
"""


@contextlib.contextmanager
def sender(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """A process that sends, of its own."""
    root = str(Path(settings_module.__file__).parent)
    process = subprocess.Popen(
        [sys.executable, "-c", _SENDER],
        env={**os.environ, **settings.to_env(), "PYTHONPATH": root},
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def test_event_of_a_sender_that_is_killed_is_sent_by_another(yard: Yard):
    settings = dataclasses.replace(yard.parts.settings, webhook_timeout_s=5.0, lease_s=1.0, renew_s=0.2)
    held = socket.create_server(("127.0.0.1", 0))
    port = held.getsockname()[1]
    webhook_id = hook(yard, f"http://127.0.0.1:{port}/")
    delivery_id = ping(yard, webhook_id)
    with held, sender(settings) as first:
        held.settimeout(WAIT_S)
        taken, _ = held.accept()
        with taken:
            assert taken.recv(100).startswith(b"POST / ")
            first.kill()  # between what it sent and what it would have written
            first.wait()
            [attempt] = told(yard, webhook_id, delivery_id)["attempts"]
            assert (attempt["ms"], attempt["status"], attempt["error"]) == (None, None, None)
        with sender(settings):
            again, _ = held.accept()
            with again:
                assert again.recv(65536).startswith(b"POST / ")
                again.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                ended = settled(yard, webhook_id, delivery_id)
    assert (ended["state"], ended["attempt"]) == ("delivered", 2)
    assert [each["status"] for each in ended["attempts"]] == [None, 200]
    assert ended["attempts"][1]["worker"] != attempt["worker"]


def test_sender_waits_for_records_that_are_away(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(courier_module, "_AGAIN_S", 0.05)
    due, calls = yard.parts.records.deliveries.due, []

    def away(of_each: int, after: int) -> Any:
        calls.append(after)
        if len(calls) == 1:
            raise RecordsUnavailable("away")
        if len(calls) == 2:
            raise ValueError("a fault")
        return due(of_each, after)

    monkeypatch.setattr(yard.parts.records.deliveries, "due", away)
    with receiving(answer("200 OK")) as receiver:
        webhook_id = hook(yard, receiver.url)
        with couriers(yard):
            assert settled(yard, webhook_id, ping(yard, webhook_id))["state"] == "delivered"
    assert len(calls) > 2


# Secrets


def test_secret_stands_in_no_log_no_task_and_nothing_that_redis_holds(
    yard: Yard, redis_url: str, caplog: pytest.LogCaptureFixture
):
    caplog.set_level("DEBUG")
    with receiving(answer("500 Oops", b"no")) as receiver:
        webhook_id = hook(yard, f"{receiver.url}/?token=hush")
        task = accept(yard)
        with couriers(yard) as [courier]:
            delivery = yard.parts.records.deliveries.page(webhook_id, limit=1)[0]
            until(lambda: told(yard, webhook_id, delivery.id)["attempt"] > 0, "an attempt")
            yard.parts.live.figures.tell("test", courier.figures.told())
    key = SECRET.removeprefix("whsec_")
    assert "delivery" in caplog.text
    assert "hush" not in caplog.text
    with redis.Redis.from_url(redis_url) as client:
        kept = b"".join(client.dump(name) or b"" for name in client.scan_iter())
    spec = json.dumps(yard.parts.records.tasks.spec(task.id))
    shown = yard.client.get("/metrics").text + yard.client.get(f"/webhooks/{webhook_id}/deliveries").text
    for text in (caplog.text, kept.decode("latin-1"), spec, shown, yard.client.get("/webhooks").text):
        assert key not in text
