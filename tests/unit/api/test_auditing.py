"""What is done over HTTP is noted, and who was refused, without secrets and without filling the disk."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.auditor import Auditor
from storage.errors import RecordsUnavailable
from storage.records import NewNote, Note, Records, Role, State
from tests.unit.api.conftest import Yard


@pytest.fixture
def secret(records: Records) -> str:
    return records.keys.create("ann", role=Role.ADMIN)[1]


@pytest.fixture
def ann(client: FlaskClient, secret: str) -> FlaskClient:
    client.environ_base["HTTP_X_API_KEY"] = secret
    return client


def notes(records: Records, **filters: Any) -> list[Note]:
    """Oldest first, without those of the fixtures."""
    return [note for note in records.audit.page(limit=1000, **filters)[::-1] if note.role != "operator"]


def told(records: Records) -> list[tuple[str, str, str]]:
    return [(note.action, note.kind, note.name) for note in notes(records)]


def test_every_change_is_noted_and_no_reading_and_no_single_prediction(
    ann: FlaskClient, yard: Yard, records: Records, secret: str
):
    yard.create()
    yard.finish(yard.train())
    prediction = {"service": "iris", "parameters": {}, "data": ["1,2"]}
    assert ann.post("/predict", json=prediction).status_code == 200
    assert ann.post("/predict", json={**prediction, "async": True}).status_code == 201
    assert ann.delete("/tasks/2").status_code == 202
    assert ann.delete("/tasks/2").status_code == 200
    assert ann.post("/predict", json={**prediction, "async": True}).status_code == 201
    attempt = records.tasks.claim(3, "worker", 20.0)
    assert attempt is not None
    result = {"name": "predictions", "form": "json", "size_bytes": 2, "content": "[]"}
    records.tasks.end(attempt, State.FINISHED, phases={}, report={"warnings": [], "timings": {}, "result": result})
    for _ in range(2):
        assert ann.delete("/tasks/3/result").status_code == 200
    assert ann.put("/datasets/flowers").status_code == 201
    assert ann.put("/datasets/flowers").status_code == 200
    assert ann.delete("/datasets/flowers").status_code == 200
    made = ann.post("/keys", json={"role": "read"}).json
    assert ann.delete(f"/keys/{made['key_id']}").status_code == 200
    assert ann.get("/tasks").status_code == 200
    assert ann.get("/services/nobody").status_code == 404
    assert ann.delete("/services/iris").status_code == 200
    assert told(records) == [
        ("service.create", "service", "iris"),
        ("task.start", "train", "1"),
        ("task.start", "predict", "2"),
        ("task.cancel", "predict", "2"),
        ("task.start", "predict", "3"),
        ("result.delete", "predict", "3"),
        ("dataset.create", "dataset", "flowers"),
        ("dataset.delete", "dataset", "flowers"),
        ("key.create", "key", "2 (read)"),
        ("key.revoke", "key", "2"),
        ("service.delete", "service", "iris"),
    ]
    for note in notes(records):
        assert (note.account, note.key_id, note.role, note.address) == ("ann", 1, "admin", "127.0.0.1")
        assert (note.outcome, note.count) == ("done", 1)
    log = ann.get("/audit")
    for each in (secret, made["secret"]):
        assert each not in log.text
    assert len(log.json["notes"]) == 12
    assert ann.get("/audit", query_string={"action": "task."}).json["notes"][0]["name"] == "3"


def test_job_that_is_ended_is_noted_once(ann: FlaskClient, yard: Yard, records: Records):
    yard.create()
    yard.train()
    for _ in range(2):
        ann.delete("/train", query_string={"service": "iris", "job": 1})
    assert [note.action for note in notes(records)] == ["service.create", "task.start", "task.cancel"]


def test_training_that_is_sent_again_is_noted_once(ann: FlaskClient, yard: Yard, records: Records):
    yard.create()
    for _ in range(2):
        answer = ann.post("/train", json=yard.train_body(), headers={"Idempotency-Key": "once"})
        assert answer.status_code == 201
    assert [note.action for note in notes(records)] == ["service.create", "task.start"]


def test_audit_log_is_paged(ann: FlaskClient, records: Records):
    for number in range(5):
        ann.put(f"/datasets/{number}")
    first = ann.get("/audit", query_string={"limit": 2, "since": "2026-01-01T00:00:00Z"}).json
    assert [note["name"] for note in first["notes"]] == ["4", "3"]
    second = ann.get("/audit", query_string={"limit": 4, "cursor": first["next_cursor"]}).json
    assert [note["name"] for note in second["notes"]] == ["2", "1", "0", "1 (admin)"]
    assert second["next_cursor"] is None
    assert ann.get("/audit", query_string={"since": "soon"}).status_code == 400
    assert ann.get("/audit", query_string={"action": ""}).status_code == 400


def test_refusals_that_are_alike_are_one_line_and_then_their_count(app: Flask, ann: FlaskClient, records: Records):
    auditor: Auditor = app.extensions["modelyard"].auditor
    for number in range(30):
        assert ann.get(f"/tasks/{number}", headers={"X-API-KEY": f"guess-{number}"}).status_code == 401
    [first] = notes(records)
    assert (first.action, first.kind, first.name) == ("refused.key_needed", "route", "GET /tasks/<number>")
    assert (first.account, first.key_id, first.outcome, first.count) == (None, None, "refused", 1)
    auditor.flush()
    assert [note.count for note in notes(records)] == [1, 29]
    auditor.flush()
    assert len(notes(records)) == 2


def test_refusal_of_a_role_tells_whose_key_it_was(ann: FlaskClient, records: Records):
    key, reading = records.keys.create("ann", role=Role.READ)
    assert ann.put("/datasets/x", headers={"X-API-KEY": reading}).status_code == 403
    [note] = notes(records)
    assert (note.action, note.account, note.key_id, note.role) == ("refused.role_needed", "ann", key.id, "read")


def test_attacker_with_many_addresses_adds_a_bounded_number_of_lines(ann: FlaskClient, app: Flask, records: Records):
    for number in range(200):
        ann.get("/info", headers={"X-API-KEY": "guessed"}, environ_base={"REMOTE_ADDR": f"10.0.0.{number}"})
    auditor: Auditor = app.extensions["modelyard"].auditor
    auditor.flush()
    found = notes(records)
    assert len(found) == 21
    assert (found[-1].action, found[-1].count) == ("refused.others", 180)


def test_counts_are_written_once_a_minute(records: Records):
    slept: list[float] = []
    minute, written = threading.Event(), threading.Event()

    def sleep(seconds: float) -> None:
        if slept:
            written.set()
            threading.Event().wait()  # for good: the thread ends with the process
        slept.append(seconds)
        minute.wait(30)

    auditor = Auditor(records, sleep)
    for _ in range(3):
        auditor.refused(NewNote("refused.key_needed"))
    minute.set()
    assert written.wait(30)
    assert slept == [60.0]
    assert [note.count for note in notes(records)] == [1, 2]


def test_log_that_cannot_be_written_fails_no_request(
    ann: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def refuse(*told: NewNote) -> None:
        raise RecordsUnavailable("away")

    monkeypatch.setattr(records.audit, "add", refuse)
    assert ann.put("/datasets/flowers").status_code == 201
    assert "dataset.create" in caplog.text
