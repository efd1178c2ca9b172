"""Every route says what role it needs, and nobody gets in with less."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api import roles
from api.blueprints import docs, health
from storage.records import Records, Role
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive

OPEN = health.OPEN | docs.OPEN
VALUES = {"name": "iris", "number": "1", "part": "1", "delivery": "1", "path": "a.csv"}


def routes(app: Flask) -> Iterator[tuple[str, str, str]]:
    """Endpoint, verb and an address of every route that is not open."""
    for rule in app.url_map.iter_rules():
        for verb in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            if rule.endpoint not in OPEN:
                yield rule.endpoint, verb, re.sub(r"<(?:\w+:)?(\w+)>", lambda found: VALUES[found[1]], rule.rule)


@pytest.fixture
def keys(records: Records) -> dict[Role, str]:
    """A key of the account ann for each role."""
    return {role: records.keys.create("ann", str(role), role)[1] for role in Role}


def test_every_route_says_what_role_it_needs(app: Flask):
    silent = {endpoint for endpoint, _, _ in routes(app) if roles.needed(app, endpoint) is None}
    assert not silent, f"put @needs(Role.…) above the functions of {sorted(silent)}"
    assert {endpoint for endpoint in OPEN if roles.needed(app, endpoint) is not None} == set()


def test_routes_that_change_something_need_more_than_reading(app: Flask):
    for endpoint, verb, address in routes(app):
        if verb not in ("GET", "HEAD"):
            assert cast(Role, roles.needed(app, endpoint)) >= Role.PREDICT, (verb, address)


def test_route_that_says_nothing_is_for_administrators_only(app: Flask, client: FlaskClient, keys: dict[Role, str]):
    app.add_url_rule("/new", "new", lambda: "here")
    assert client.get("/new", headers={"X-API-KEY": keys[Role.TRAIN]}).status_code == 403
    assert client.get("/new", headers={"X-API-KEY": keys[Role.ADMIN]}).status_code == 200


def test_key_of_a_lower_role_is_refused_alike_whether_the_object_exists_or_not(
    app: Flask, client: FlaskClient, yard: Yard, keys: dict[Role, str]
):
    client.environ_base["HTTP_X_API_KEY"] = keys[Role.TRAIN]
    yard.create()
    assert yard.train() == 1
    for endpoint, verb, address in routes(app):
        wanted = cast(Role, roles.needed(app, endpoint))
        other = address.replace("iris", "nobody").replace("/1", "/999")
        for role in Role:
            headers = {"X-API-KEY": keys[role]}
            if role < wanted:
                answers = [client.open(each, method=verb, headers=headers) for each in (address, other)]
                assert [each.status_code for each in answers] == [403, 403], (verb, address, role)
                assert answers[0].data == answers[1].data
                assert f"needs a key with the role {wanted}, and this one has {role}" in answers[0].text


def test_without_a_key_every_route_but_the_open_ones_is_closed(app: Flask, client: FlaskClient, keys: dict[Role, str]):
    for _, verb, address in routes(app):
        for headers in ({}, {"X-API-KEY": "guessed"}):
            assert client.open(address, method=verb, headers=headers).status_code == 401, (verb, address)


def test_key_for_predictions_cancels_those_but_no_training(
    client: FlaskClient, yard: Yard, keys: dict[Role, str], records: Records
):
    client.environ_base["HTTP_X_API_KEY"] = keys[Role.TRAIN]
    yard.create()
    yard.finish(yard.train())
    training = yard.train()
    body = {"service": "iris", "async": True, "parameters": {}, "data": ["1,2"]}
    client.environ_base["HTTP_X_API_KEY"] = keys[Role.PREDICT]
    predicted = client.post("/predict", json=body)
    assert predicted.status_code == 201, predicted.text
    assert client.delete(f"/tasks/{predicted.json['head']['task_id']}").status_code in (200, 202)
    refused = client.delete(f"/tasks/{training}")
    assert refused.status_code == 403
    assert refused.json["error"]["kind"] == "role_needed"
    assert records.tasks.get(training).cancel_requested_at is None


def test_links_to_the_store_are_told_to_those_who_may_upload_only(
    client: FlaskClient, keys: dict[Role, str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.datasets.links_of", lambda parts, upload: ["https://store/part"])
    writing = {"X-API-KEY": keys[Role.TRAIN]}
    client.put("/datasets/flowers", headers=writing)
    begun = client.post("/datasets/flowers/uploads", json={"path": "a.csv", "bytes": 3}, headers=writing)
    assert begun.json["links"] == ["https://store/part"]
    assert client.get("/datasets/flowers/uploads/1", headers=writing).json["links"] == ["https://store/part"]
    assert client.get("/datasets/flowers/uploads/1", headers={"X-API-KEY": keys[Role.READ]}).json["links"] is None


def test_machine_without_keys_trains_and_manages_none(client: FlaskClient, yard: Yard):
    yard.create()
    told = client.get("/account").json
    assert (told["account"], told["role"], told["key_id"]) == ("local", "train", None)
    refused = client.get("/keys")
    assert refused.status_code == 403
    assert "modelyard keys create" in refused.json["error"]["message"]


# Keys over HTTP


@pytest.fixture
def admin(client: FlaskClient, keys: dict[Role, str]) -> FlaskClient:
    client.environ_base["HTTP_X_API_KEY"] = keys[Role.ADMIN]
    return client


def test_administrator_makes_keys_whose_secret_is_told_once(admin: FlaskClient):
    made = admin.post("/keys", json={"role": "predict", "label": "camera"})
    assert made.status_code == 201
    assert made.headers["Cache-Control"] == "no-store"
    secret = made.json.pop("secret")
    told = admin.get("/account", headers={"X-API-KEY": secret}).json
    assert (told["account"], told["role"], told["key_id"]) == ("ann", "predict", made.json["key_id"])
    listed = admin.get("/keys", query_string={"limit": 1})
    assert secret not in listed.text
    [newest] = listed.json["keys"]
    assert (newest["label"], newest["role"], newest["revoked_at"]) == ("camera", "predict", None)
    more = admin.get("/keys", query_string={"cursor": listed.json["next_cursor"]})
    assert [each["role"] for each in more.json["keys"]] == ["admin", "train", "predict", "read"]


def test_administrator_ends_keys_of_its_account_but_not_its_own(
    admin: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch
):
    ended = admin.delete("/keys/1")
    assert ended.status_code == 200
    assert ended.json["revoked_at"] is not None
    assert admin.delete("/keys/1").status_code == 404
    own = admin.delete("/keys/4")
    assert (own.status_code, own.json["error"]["kind"]) == (409, "key_in_use")
    other, _ = records.keys.create("bob")
    foreign, missing = admin.delete(f"/keys/{other.id}"), admin.delete("/keys/999")
    assert (foreign.status_code, missing.status_code) == (404, 404)
    assert foreign.text.replace(str(other.id), "N") == missing.text.replace("999", "N")
    records.keys.revoke(4)
    assert admin.post("/keys", json={}).status_code == 404, "believed for a second, but the transaction looks"
    monkeypatch.setattr("api.access._FRESH_S", -1.0)
    assert admin.get("/keys").status_code == 401


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ({"role": "root"}, "it must be one of read, predict, train, admin"),
        ({"roll": "read"}, "did you mean 'role'?"),
        ({"label": 7}, "label is 7"),
        ({"label": "x" * 256}, "at most 255 printable characters"),
    ],
)
def test_key_request_that_is_wrong_makes_none(admin: FlaskClient, body: dict[str, Any], said: str):
    answer = admin.post("/keys", json=body)
    assert (answer.status_code, answer.json["error"]["kind"]) == (400, "bad_body")
    assert said in answer.json["error"]["message"]
    assert len(admin.get("/keys").json["keys"]) == 4


# What the account uses


def test_account_is_told_its_quotas_and_what_it_uses(admin: FlaskClient, yard: Yard, records: Records, live: FakeLive):
    records.quotas.set(records.accounts.ensure("ann"), {"trainings": 2, "requests_per_minute": 100})
    yard.create()
    yard.train()
    quotas = admin.get("/account").json["quotas"]
    assert quotas["trainings"] == {"limit": 2, "used": 0}
    assert quotas["queued_tasks"] == {"limit": None, "used": 1}
    assert quotas["stored_bytes"] == {"limit": None, "used": 0}
    assert quotas["requests_per_minute"]["limit"] == 100
    assert quotas["requests_per_minute"]["used"] >= 3
    live.is_down = True
    assert admin.get("/account").json["quotas"]["requests_per_minute"]["used"] is None
