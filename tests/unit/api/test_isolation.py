"""What belongs to an account does not exist for another: no status, no word and no list tells otherwise."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy import ColumnElement, and_
from werkzeug.test import TestResponse

from api.blueprints import docs, health
from storage.records import Records, Role, webhooks
from storage.records.schema import webhooks as table
from tests.unit.api.conftest import Yard

Json = dict[str, Any]

CSV = b"a,b\n1,2\n"
UNKNOWN = 999
TRAINING, PREDICTION, UPLOAD = 1, 3, 1

THEIRS: Json = {"name": "secret", "training": 2, "prediction": PREDICTION, "key": 1, "webhook": 1}
"""What is Ann's; the training still waits."""

OBJECTS: dict[tuple[str, str], tuple[str, Any]] = {
    ("services.get", "GET"): ("/services/{name}", None),
    ("services.delete", "DELETE"): ("/services/{name}?clear=full", None),
    ("train.start", "POST"): ("/train", {"service": "{name}", "async": True, "data": ["x.csv"], "parameters": {}}),
    ("train.start", "PUT"): ("/train", {"service": "{name}", "async": False, "data": ["x.csv"], "parameters": {}}),
    ("train.poll", "GET"): ("/train?service={name}&job=1", None),
    ("train.end", "DELETE"): ("/train?service={name}&job=1", None),
    ("downloads.service_files", "GET"): ("/services/{name}/files", None),
    ("downloads.service_file", "GET"): ("/services/{name}/files/a.model", None),
    ("downloads.service_archive", "GET"): ("/services/{name}/archive", None),
    ("downloads.task_files", "GET"): ("/tasks/{training}/files", None),
    ("downloads.task_file", "GET"): ("/tasks/{training}/files/report.json", None),
    ("downloads.task_archive", "GET"): ("/tasks/{training}/archive", None),
    ("downloads.dataset_file", "GET"): ("/datasets/{name}/files/a.csv", None),
    ("downloads.dataset_archive", "GET"): ("/datasets/{name}/archive", None),
    ("predict.predict", "POST"): ("/predict", {"service": "{name}", "parameters": {}, "data": ["1,2"]}),
    ("tasks.one", "GET"): ("/tasks/{training}", None),
    ("tasks.report", "GET"): ("/tasks/{training}/report", None),
    ("tasks.result", "GET"): ("/tasks/{prediction}/result", None),
    ("tasks.delete_result", "DELETE"): ("/tasks/{prediction}/result", None),
    ("tasks.logs", "GET"): ("/tasks/{training}/logs", None),
    ("tasks.events", "GET"): ("/tasks/{training}/events", None),
    ("tasks.cancel", "DELETE"): ("/tasks/{training}", None),
    ("datasets.get", "GET"): ("/datasets/{name}", None),
    ("datasets.delete", "DELETE"): ("/datasets/{name}", None),
    ("datasets.add_files", "POST"): ("/datasets/{name}/files", b"form"),
    ("datasets.remove_file", "DELETE"): ("/datasets/{name}/files/a.csv", None),
    ("datasets.describe", "POST"): ("/datasets/{name}/describe", None),
    ("datasets.begin", "POST"): ("/datasets/{name}/uploads", {"path": "b.csv", "bytes": 3}),
    ("datasets.upload", "GET"): ("/datasets/{name}/uploads/1", None),
    ("datasets.end", "DELETE"): ("/datasets/{name}/uploads/1", None),
    ("datasets.put_part", "PUT"): ("/datasets/{name}/uploads/1/parts/1", b"part"),
    ("datasets.complete", "POST"): ("/datasets/{name}/uploads/1/complete", None),
    ("accounts.revoke_key", "DELETE"): ("/keys/{key}", None),
    ("webhooks.get", "GET"): ("/webhooks/{webhook}", None),
    ("webhooks.change", "PATCH"): ("/webhooks/{webhook}", {"description": "mine"}),
    ("webhooks.delete", "DELETE"): ("/webhooks/{webhook}", None),
    ("webhooks.rotate", "POST"): ("/webhooks/{webhook}/secret", None),
    ("webhooks.test", "POST"): ("/webhooks/{webhook}/test", None),
    ("webhooks.deliveries", "GET"): ("/webhooks/{webhook}/deliveries", None),
    ("webhooks.one_delivery", "GET"): ("/webhooks/{webhook}/deliveries/1", None),
    ("webhooks.replay", "POST"): ("/webhooks/{webhook}/deliveries/1/replay", None),
}
"""Routes of one object: how it is asked for, and with what."""

WITHOUT_WORKERS = {
    *("tasks.events", "tasks.result", "downloads.service_file", "downloads.service_archive"),
    *("downloads.task_file", "downloads.task_archive"),
}
"""Routes of what only a worker, or the loop in front, makes: they have nothing to tell here."""

MAKING = {
    ("services.create", "PUT"),
    ("services.create", "POST"),
    ("datasets.create", "PUT"),
    ("accounts.create_key", "POST"),
    ("webhooks.create", "POST"),
}
LISTING = {
    ("info.info", "GET"): "/info?status=true",
    ("services.several", "GET"): "/services",
    ("tasks.several", "GET"): "/tasks",
    ("datasets.several", "GET"): "/datasets",
    ("webhooks.several", "GET"): "/webhooks",
    ("accounts.keys", "GET"): "/keys",
    ("accounts.audit", "GET"): "/audit",
    ("accounts.whoami", "GET"): "/account",
}
SHARED = {("metrics.metrics", "GET")}
"""Figures of the whole installation, which name no object."""


@pytest.fixture
def ann(records: Records) -> str:
    return records.keys.create("ann", "anns-laptop", role=Role.ADMIN)[1]


@pytest.fixture
def bob(records: Records) -> str:
    return records.keys.create("bob", role=Role.ADMIN)[1]


@pytest.fixture
def ask(client: FlaskClient, yard: Yard, ann: str, bob: str) -> Callable[..., TestResponse]:
    """Asks as somebody. Ann has a trained service `secret`, tasks, a data set of that name, an upload and a webhook."""

    def asking(key: str, verb: str, path: str, body: Any = None) -> TestResponse:
        headers = {"X-API-KEY": key}
        if body == b"form":
            return client.open(path, method=verb, headers=headers, data={"file": (io.BytesIO(CSV), "a.csv")})
        if body == b"part":
            headers["X-Content-SHA256"] = "0" * 64
            return client.open(path, method=verb, headers=headers, data=body)
        return client.open(path, method=verb, headers=headers, json=body, buffered=True)

    client.environ_base["HTTP_X_API_KEY"] = ann
    yard.create("secret")
    yard.finish(yard.train(service="secret"))
    assert yard.train(service="secret") == 2
    predicted = client.post("/predict", json={"service": "secret", "async": True, "parameters": {}, "data": ["1,2"]})
    assert predicted.json["head"]["task_id"] == PREDICTION
    for verb, path, body in (
        ("PUT", "/datasets/secret", None),
        ("POST", "/datasets/secret/files", b"form"),
        ("POST", "/datasets/secret/uploads", {"path": "b.csv", "bytes": 3}),
        ("POST", "/webhooks", {"url": "https://secret.example/ends"}),
    ):
        assert asking(ann, verb, path, body).status_code == 201, path
    assert asking(ann, "POST", "/webhooks/1/test").status_code == 202
    del client.environ_base["HTTP_X_API_KEY"]
    return asking


def filled(value: Any, **words: object) -> Any:
    """The value with words in the places of their names."""
    if isinstance(value, str):
        return re.sub(r"{(\w+)}", lambda found: str(words[found[1]]), value)
    return {name: filled(each, **words) for name, each in value.items()} if isinstance(value, dict) else value


def test_every_route_has_its_place_here(app: Flask):
    found = {
        (rule.endpoint, verb)
        for rule in app.url_map.iter_rules()
        for verb in (rule.methods or set()) - {"HEAD", "OPTIONS"}
        if rule.endpoint not in health.OPEN | docs.OPEN
    }
    assert found == {*OBJECTS, *MAKING, *LISTING, *SHARED}


def test_object_of_another_account_is_answered_as_one_that_does_not_exist(
    ask: Callable[..., TestResponse], ann: str, bob: str
):
    for (endpoint, verb), (path, body) in OBJECTS.items():
        theirs: Json = {"name": "secret", "training": TRAINING, "prediction": PREDICTION, "key": 1, "webhook": 1}
        if verb == "GET" and endpoint not in WITHOUT_WORKERS:
            assert ask(ann, verb, filled(path, **theirs)).status_code == 200, "it does exist"
        numbers = dict.fromkeys(("training", "prediction", "key", "webhook"), UNKNOWN)
        nobodys: Json = {"name": "nobody", **numbers}
        answers = [ask(bob, verb, filled(path, **words), filled(body, **words)) for words in (theirs, nobodys)]
        assert [answer.status_code for answer in answers] == [404, 404], (endpoint, answers[0].text)
        told = [
            re.sub(rf"\b(secret|nobody|{TRAINING}|{PREDICTION}|{UNKNOWN})\b", "X", answer.text) for answer in answers
        ]
        assert told[0] == told[1], endpoint
        assert dict(answers[0].headers) | {"Content-Length": ""} == dict(answers[1].headers) | {"Content-Length": ""}


@pytest.fixture
def unlocked(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """Records that are looked up by name and number alone. Of all that bears a name, there is only Ann's."""
    owner = records.accounts.ensure("ann").id
    tasks, services, datasets, keys = (
        type(each) for each in (records.tasks, records.services, records.datasets, records.keys)
    )
    many, service, dataset, revoke = tasks.get_many, services.find, datasets.find, keys.revoke
    monkeypatch.setattr(tasks, "get_many", lambda here, numbers, account_id=None: many(here, numbers))
    monkeypatch.setattr(services, "find", lambda here, account_id, name: service(here, owner, name))
    monkeypatch.setattr(datasets, "find", lambda here, account_id, name: dataset(here, owner, name))
    monkeypatch.setattr(keys, "revoke", lambda here, key_id, account_id, by: revoke(here, key_id, None, by))
    monkeypatch.setattr(webhooks, "_is", lambda account_id, number: of_any_account(number))


INCOMPLETE = {
    ("train.start", "PUT"): 400,
    ("datasets.put_part", "PUT"): 400,
    ("datasets.complete", "POST"): 400,
    ("tasks.delete_result", "DELETE"): 409,
}
"""What is asked for here in a way that cannot be done: that is told once its object was found."""


def of_any_account(webhook_id: int) -> ColumnElement[bool]:
    return and_(table.c.id == webhook_id, table.c.deleted_at.is_(None))


@pytest.mark.usefixtures("unlocked")
def test_where_records_are_not_looked_up_by_account_those_of_another_one_are_read_changed_and_deleted(
    ask: Callable[..., TestResponse], bob: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.datasets.WAIT_S", 0.1)  # for a worker, and there is none
    deleting = [route for route in reversed(OBJECTS) if route[1] == "DELETE"]  # what is in another thing first
    found = {}
    for endpoint, verb in [*(route for route in OBJECTS if route not in deleting), *deleting]:
        if verb == "GET" and endpoint in WITHOUT_WORKERS:
            continue
        path, body = OBJECTS[endpoint, verb]
        words = THEIRS | {"training": TRAINING if verb == "GET" else 2}
        path = path.removesuffix("?clear=full")  # nobody is there to clear a repository
        found[endpoint, verb] = ask(bob, verb, filled(path, **words), filled(body, **words)).status_code
    assert {route: code for route, code in found.items() if code >= 300} == INCOMPLETE
    assert len(found) >= 30


@pytest.mark.parametrize("is_locked", [True, False], ids=["locked", "the lock open"])
def test_deliveries_and_uploads_of_another_account_are_not_among_those_of_ones_own_webhooks_and_data_sets(
    ask: Callable[..., TestResponse], bob: str, records: Records, monkeypatch: pytest.MonkeyPatch, is_locked: bool
):
    if not is_locked:
        uploads, deliveries = type(records.uploads), type(records.deliveries)
        delivery = deliveries.get
        monkeypatch.setattr(uploads, "find", lambda here, dataset_id, number: here.get(number))
        monkeypatch.setattr(deliveries, "get", lambda here, webhook_id, number: delivery(here, 1, number))
    assert ask(bob, "PUT", "/datasets/own").status_code == 201
    own = ask(bob, "POST", "/webhooks", {"url": "https://own.example/"}).json["webhook_id"]
    upload, sent = "/datasets/own/uploads/1", f"/webhooks/{own}/deliveries/1"
    asked = (("GET", upload), ("DELETE", upload), ("GET", sent), ("POST", f"{sent}/replay"))
    found = [ask(bob, verb, path).status_code for verb, path in asked]
    assert found == ([404] * 4 if is_locked else [200, 200, 200, 202])


def test_nothing_that_another_account_tried_has_changed_anything(
    ask: Callable[..., TestResponse], ann: str, bob: str, records: Records
):
    for (_, verb), (path, body) in OBJECTS.items():
        ask(bob, verb, filled(path, **THEIRS), filled(body, **THEIRS))
    assert ask(ann, "GET", "/services/secret").json["body"]["predict"] is True
    assert [task["cancel_requested"] for task in ask(ann, "GET", "/tasks").json["tasks"]] == [False] * 3
    assert [file["path"] for file in ask(ann, "GET", "/datasets/secret").json["files"]] == ["a.csv"]
    assert ask(ann, "GET", "/datasets/secret/uploads/1").status_code == 200
    assert records.keys.list()[0].revoked_at is None
    assert ask(ann, "GET", "/webhooks/1").json["description"] == ""
    assert ask(ann, "GET", "/webhooks/1").json["old_secret_until"] is None
    assert len(ask(ann, "GET", "/webhooks/1/deliveries").json["deliveries"]) == 1


def test_lists_hold_nothing_of_another_account(ask: Callable[..., TestResponse], ann: str, bob: str):
    for path in LISTING.values():
        theirs, own = ask(ann, "GET", path), ask(bob, "GET", path)
        assert theirs.status_code == own.status_code == 200
        for word in ("secret", "ann", "laptop"):
            assert word not in own.text, (path, own.text)
    assert ask(bob, "GET", "/tasks?ids=1,2,3").json == {"tasks": [], "missing": [1, 2, 3]}
    assert ask(bob, "GET", "/tasks?service=secret").status_code == 404
    assert ask(bob, "GET", "/info").json["head"]["services"] == []


def test_figures_name_no_object(ask: Callable[..., TestResponse], bob: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("api.figures.ApiFigures.of_all", lambda figures: figures.told())
    assert "secret" not in ask(bob, "GET", "/metrics").text


def test_names_that_another_account_took_are_free(ask: Callable[..., TestResponse], yard: Yard, bob: str):
    body = yard.service_body(model={"repository": "mine", "create_repository": True})
    answers = [ask(bob, "PUT", f"/services/{name}", body) for name in ("secret", "nobody")]
    assert [each.status_code for each in answers] == [201, 201]
    assert answers[0].data == answers[1].data
    assert ask(bob, "PUT", "/datasets/secret").status_code == 201
    assert ask(bob, "GET", "/datasets/secret").json["files"] == []


def test_data_set_of_another_account_cannot_be_named_in_data(ask: Callable[..., TestResponse], yard: Yard, bob: str):
    assert ask(bob, "PUT", "/services/own", yard.service_body(model={"repository": "mine"})).status_code == 201
    told = []
    for name in ("secret", "nobody"):
        body = yard.train_body(service="own", data=[f"dataset://{name}/a.csv"]) | {"async": False}
        answer = ask(bob, "POST", "/train", body)
        assert answer.status_code == 400
        told.append(answer.text.replace(name, "X"))
    assert told[0] == told[1]


def test_idempotency_key_of_another_account_gives_its_task_to_nobody(
    ask: Callable[..., TestResponse], client: FlaskClient, yard: Yard, ann: str, bob: str
):
    assert ask(bob, "PUT", "/services/secret", yard.service_body(model={"repository": "mine"})).status_code == 201
    body = yard.train_body(service="secret")
    tasks = [
        client.post("/train", json=body, headers={"X-API-KEY": key, "Idempotency-Key": "same"}).json["head"]["task_id"]
        for key in (ann, bob)
    ]
    assert tasks[0] != tasks[1]


@pytest.mark.parametrize("number", ["0", "-1", "1.0", "01", "001", "1e0", "%31", "18446744073709551617", "1%00"])
def test_number_in_another_form_finds_nothing_of_another_account(
    ask: Callable[..., TestResponse], bob: str, number: str
):
    for path in ("/tasks/{}", "/datasets/secret/uploads/{}"):
        assert ask(bob, "GET", path.format(number)).status_code in (404,), path
    ask(bob, "PUT", "/datasets/own")
    found = ask(bob, "POST", f"/datasets/own/uploads/{number}/complete")
    missing = ask(bob, "POST", f"/datasets/own/uploads/{number.replace('1', '7')}/complete")
    assert (found.status_code, missing.status_code) == (404, 404)
    assert found.text.replace("1", "7") == missing.text
