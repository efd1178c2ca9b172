"""/webhooks over the real records: what is told, what is refused, and whose it is."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from settings import Settings
from storage.records import Delivering, Receipt, Records, State
from tests.unit.api.conftest import Yard

Json = dict[str, Any]

URL = "https://receiver.example/modelyard?token=1"
GOOD_SECRET = "whsec_" + base64.b64encode(bytes(24)).decode()


def make(client: FlaskClient, **more: Any) -> Json:
    answer = client.post("/webhooks", json={"url": URL, **more})
    assert answer.status_code == 201, answer.text
    found: Json = answer.json
    assert answer.headers["Location"] == f"/webhooks/{found['webhook_id']}"
    return found


def refusal(client: FlaskClient, verb: str, path: str, body: Any = None, **headers: str) -> tuple[int, str, str]:
    answer = client.open(path, method=verb, json=body, headers=headers)
    return answer.status_code, answer.json["error"]["kind"], answer.json["error"]["message"]


def test_webhook_is_made_with_a_secret_of_its_own_that_is_told_once(client: FlaskClient):
    made = make(client)
    secret = made.pop("secret")
    assert secret.startswith("whsec_")
    assert len(base64.b64decode(secret.removeprefix("whsec_"), validate=True)) == 32
    assert (made["url"], made["services"], made["active"], made["inactive_because"]) == (URL, [], True, None)
    assert made["events"] == ["task.finished", "task.failed", "task.cancelled"]
    assert make(client)["secret"] != secret
    for answer in (
        client.get("/webhooks"),
        client.get(f"/webhooks/{made['webhook_id']}"),
        client.patch(f"/webhooks/{made['webhook_id']}", json={"description": "x"}),
        client.post(f"/webhooks/{made['webhook_id']}/test"),
        client.get(f"/webhooks/{made['webhook_id']}/deliveries"),
    ):
        assert answer.status_code in (200, 202)
        assert secret not in answer.text
        assert "whsec" not in answer.text


def test_webhook_is_described_changed_and_deleted(client: FlaskClient):
    made = make(client, events=["task.failed", "task.failed"], services=["Iris"], description="the pager")
    path = f"/webhooks/{made['webhook_id']}"
    assert (made["events"], made["services"], made["description"]) == (["task.failed"], ["iris"], "the pager")
    changed = client.patch(path, json={"url": "http://other.example", "services": [], "active": False}).json
    assert (changed["url"], changed["services"], changed["active"]) == ("http://other.example", [], False)
    assert (changed["inactive_because"], changed["events"]) == ("it was switched off", ["task.failed"])
    assert client.get(path).json == changed
    assert client.patch(path, json={"active": True}).json["inactive_because"] is None
    assert client.patch(path, json={}).json["active"] is True
    assert client.delete(path).json == {"webhook_id": made["webhook_id"], "deleted": True}
    assert refusal(client, "GET", path)[:2] == (404, "webhook_not_found")
    assert client.get("/webhooks").json["webhooks"] == []


def test_secret_may_be_brought_and_changed(client: FlaskClient, records: Records):
    made = make(client, secret=GOOD_SECRET)
    assert made["secret"] == GOOD_SECRET
    path = f"/webhooks/{made['webhook_id']}/secret"
    assert client.get(f"/webhooks/{made['webhook_id']}").json["old_secret_until"] is None
    rotated = client.post(path).json
    assert rotated["secret"] not in (GOOD_SECRET, None)
    assert client.get(f"/webhooks/{made['webhook_id']}").json["old_secret_until"] == rotated["old_secret_until"]
    other = "whsec_" + base64.b64encode(bytes(64)).decode()
    assert client.post(path, json={"secret": other}).json["secret"] == other
    delivery = records.deliveries.test(made["webhook_id"])
    parcel = records.deliveries.claim(delivery.id, "sender", 30.0)
    assert parcel is not None
    assert parcel.secrets == (other, rotated["secret"])


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "url is missing"),
        ({"url": 7}, "url is 7; it must be a text"),
        ({"url": "ftp://receiver.example"}, "must begin with http:// or https://"),
        ({"url": "https://"}, "must begin with http:// or https:// and a host"),
        ({"url": "https://me:word@receiver.example/"}, "user or password"),
        ({"url": "https://me@receiver.example/"}, "user or password"),
        ({"url": "https://receiver.example/" + "x" * 9000}, "longer than 8192 characters"),
        ({"url": URL, "events": ["task.begun"]}, "use task.finished, task.failed, task.cancelled"),
        ({"url": URL, "events": []}, "events is empty"),
        ({"url": URL, "events": [7]}, "events is [7]"),
        ({"url": URL, "services": [""]}, "services must hold"),
        ({"url": URL, "services": ["x" * 256]}, "services must hold"),
        ({"url": URL, "description": "x" * 1001}, "description is longer than 1000"),
        ({"url": URL, "active": "perhaps"}, "active is 'perhaps'"),
        ({"url": URL, "evnts": ["task.failed"]}, "did you mean 'events'?"),
        ({"url": URL, "secret": "mine alone"}, "secret must be whsec_"),
        ({"url": URL, "secret": "whsec_" + base64.b64encode(bytes(23)).decode()}, "24 to 64 bytes"),
        ({"url": URL, "secret": "whsec_" + base64.b64encode(bytes(65)).decode()}, "24 to 64 bytes"),
        ({"url": URL, "secret": "whsec_" + "ä" * 40}, "24 to 64 bytes"),
        ({"url": URL, "secret": "whsec_" + "!" * 40}, "24 to 64 bytes"),
    ],
)
def test_wrong_webhooks_are_refused_with_what_is_wrong(client: FlaskClient, body: Json, text: str):
    status, kind, message = refusal(client, "POST", "/webhooks", body)
    assert (status, kind) == (400, "bad_body")
    assert text in message
    assert str(body.get("secret", "mine alone")) not in message
    assert client.get("/webhooks").json["webhooks"] == []


INNER = (
    *("127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1.", "%31%32%37.0.0.1", "0", "0.0.0.0"),
    *("10.0.0.1", "172.16.0.1", "192.168.0.1:8080", "169.254.169.254", "100.64.0.1", "224.0.0.1", "255.255.255.255"),
    *("[::1]", "[::]", "[::ffff:10.0.0.1]", "[64:ff9b::a00:1]", "[2002:a00:1::]", "[fd00::1]", "[fe80::1%25eth0]"),
)


@pytest.mark.parametrize("host", INNER)
def test_address_of_the_inner_network_is_refused_at_once_however_it_is_written(client: FlaskClient, host: str):
    made = make(client)
    path, told = f"/webhooks/{made['webhook_id']}", "has no public address; it can be used when MODELYARD_FETCH_ALLOW"
    for verb, where in (("POST", "/webhooks"), ("PATCH", path)):
        status, kind, message = refusal(client, verb, where, {"url": f"http://{host}/"})
        assert (status, kind, told in message) == (400, "bad_body", True), (verb, message)
    assert [each["url"] for each in client.get("/webhooks").json["webhooks"]] == [made["url"]]


def test_inner_address_is_taken_where_the_operator_names_it(app: Flask, client: FlaskClient, settings: Settings):
    app.extensions["modelyard"].settings = replace(settings, fetch_allow=("10.0.0.0/8", "[::1]", "192.168.0.1"))
    for host in ("10.0.0.1", "0x0a000001", "[::ffff:10.0.0.1]", "[::1]:8080", "192.168.0.1"):
        url = f"http://{host}/"
        made = make(client, url=url)
        assert client.patch(f"/webhooks/{made['webhook_id']}", json={"url": url}).json["url"] == url
    assert refusal(client, "POST", "/webhooks", {"url": "http://192.168.0.2/"})[:2] == (400, "bad_body")


def test_public_address_is_taken_and_no_name_is_resolved(client: FlaskClient):
    # Whoever asks for an address of a name fails here, as all of the network is out of reach.
    names = ("localhost", "receiver.example", f"{'a' * 70}.example", "[::ffff:999.1.1.1]")
    for host in ("1.1.1.1", "[2606:4700::1111]", *names):
        assert make(client, url=f"https://{host}/")["url"] == f"https://{host}/"


def test_wrong_changes_are_refused_and_change_nothing(client: FlaskClient):
    path = f"/webhooks/{make(client)['webhook_id']}"
    before = client.get(path).json
    for body in ({"url": "x"}, {"events": []}, {"secret": GOOD_SECRET}, {"active": []}):
        assert refusal(client, "PATCH", path, body)[:2] == (400, "bad_body")
    assert refusal(client, "POST", f"{path}/secret", {"secret": "short"})[:2] == (400, "bad_body")
    assert client.get(path).json == before


def test_pages_lead_through_webhooks_and_deliveries(client: FlaskClient):
    ids = [make(client)["webhook_id"] for _ in range(3)]
    page = client.get("/webhooks?limit=2").json
    assert [each["webhook_id"] for each in page["webhooks"]] == ids[:0:-1]
    page = client.get(f"/webhooks?limit=2&cursor={page['next_cursor']}").json
    assert ([each["webhook_id"] for each in page["webhooks"]], page["next_cursor"]) == (ids[:1], None)
    path = f"/webhooks/{ids[0]}/deliveries"
    sent = [client.post(f"/webhooks/{ids[0]}/test").json["delivery_id"] for _ in range(3)]
    page = client.get(f"{path}?limit=2&state=waiting").json
    assert [each["delivery_id"] for each in page["deliveries"]] == sent[:0:-1]
    page = client.get(f"{path}?limit=2&cursor={page['next_cursor']}").json
    assert ([each["delivery_id"] for each in page["deliveries"]], page["next_cursor"]) == (sent[:1], None)
    assert client.get(f"{path}?state=failed").json["deliveries"] == []
    for query in ("state=sent", "limit=0", "cursor=x", "task=1"):
        assert refusal(client, "GET", f"{path}?{query}")[:2] == (400, "bad_query")


def test_delivery_tells_its_attempts_and_can_be_sent_again(client: FlaskClient, records: Records, yard: Yard):
    made = make(client)
    yard.create()
    task_id = yard.train()
    yard.finish(task_id, State.FAILED, {"kind": "bad_input", "message": "no"})
    [told] = client.get(f"/webhooks/{made['webhook_id']}/deliveries").json["deliveries"]
    assert (told["event"], told["task_id"], told["state"], told["attempt"]) == ("task.failed", task_id, "waiting", 0)
    parcel = records.deliveries.claim(told["delivery_id"], "host:1", 30.0)
    assert parcel is not None
    receipt = Receipt(500, "it answered with status 500", "sorry")
    records.deliveries.record(parcel, receipt, again_in_s=None, ends_webhook=None, give_up_s=3600.0)
    path = f"/webhooks/{made['webhook_id']}/deliveries/{told['delivery_id']}"
    ended = client.get(path).json
    assert (ended["state"], ended["next_at"], ended["attempt"]) == (str(Delivering.FAILED), None, 1)
    [attempt] = ended["attempts"]
    assert attempt.pop("ms") >= 0
    assert attempt.pop("began_at")
    assert attempt == {
        "attempt": 1,
        "worker": "host:1",
        "status": 500,
        "error": "it answered with status 500",
        "answer": "sorry",
    }
    answer = client.post(f"{path}/replay")
    assert answer.status_code == 202
    assert (answer.json["event_id"], answer.json["replay_of"]) == (ended["event_id"], ended["delivery_id"])
    assert answer.headers["Location"] == f"/webhooks/{made['webhook_id']}/deliveries/{answer.json['delivery_id']}"


def test_nothing_is_sent_to_an_inactive_webhook(client: FlaskClient):
    path = f"/webhooks/{make(client)['webhook_id']}"
    sent = client.post(f"{path}/test").json["delivery_id"]
    client.patch(path, json={"active": False})
    assert client.get(f"{path}/deliveries/{sent}").json["state"] == "failed"
    assert refusal(client, "POST", f"{path}/test")[:2] == (409, "webhook_inactive")
    assert refusal(client, "POST", f"{path}/deliveries/{sent}/replay")[:2] == (409, "webhook_inactive")


def test_accounts_have_webhooks_of_their_own(client: FlaskClient, records: Records):
    _, ann = records.keys.create("ann")
    _, bob = records.keys.create("bob")
    theirs = {"X-API-KEY": ann}
    made = client.post("/webhooks", json={"url": URL}, headers=theirs).json
    path = f"/webhooks/{made['webhook_id']}"
    sent = client.post(f"{path}/test", headers=theirs).json["delivery_id"]
    own = client.post("/webhooks", json={"url": URL}, headers={"X-API-KEY": bob}).json["webhook_id"]
    for verb, place, body in [
        ("GET", path, None),
        ("PATCH", path, {"active": False}),
        ("DELETE", path, None),
        ("POST", f"{path}/secret", {}),
        ("POST", f"{path}/test", None),
        ("GET", f"{path}/deliveries", None),
        ("GET", f"{path}/deliveries/{sent}", None),
        ("POST", f"{path}/deliveries/{sent}/replay", None),
        # Of another's delivery by way of one's own webhook.
        ("GET", f"/webhooks/{own}/deliveries/{sent}", None),
        ("POST", f"/webhooks/{own}/deliveries/{sent}/replay", None),
    ]:
        status, kind, _ = refusal(client, verb, place, body, **{"X-API-KEY": bob})
        assert (status, kind) == (404, "delivery_not_found" if str(own) in place else "webhook_not_found"), place
        assert refusal(client, verb, place, body)[0] == 401
    listed = client.get("/webhooks", headers={"X-API-KEY": bob}).json["webhooks"]
    assert [each["webhook_id"] for each in listed] == [own]
    assert client.get(path, headers=theirs).json["active"] is True


@pytest.mark.parametrize("number", ["x", "0x1", "٣", "9" * 19, "1.0"])
def test_what_is_no_number_names_no_webhook(client: FlaskClient, number: str):
    assert refusal(client, "GET", f"/webhooks/{number}")[:2] == (404, "webhook_not_found")
    path = f"/webhooks/{make(client)['webhook_id']}"
    assert refusal(client, "GET", f"{path}/deliveries/{number}")[:2] == (404, "delivery_not_found")
