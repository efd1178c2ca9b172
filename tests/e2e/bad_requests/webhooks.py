"""Bad input of webhooks."""

from __future__ import annotations

from typing import Any

from tests.e2e.bad_requests.cases import request
from tests.e2e.conftest import ALLOWED, Answer, Client


def hook(client: Client, **more: Any) -> Answer:
    """Make a webhook to which nothing is sent."""
    return client.call("POST", "/webhooks", {"url": "https://receiver.example/", "active": False, **more})


def change(client: Client, what: str = "", **changes: Any) -> Answer:
    """Change a new webhook, or its secret, and delete it."""
    path = f"/webhooks/{hook(client).json['webhook_id']}"
    try:
        return client.call("POST" if what else "PATCH", path + what, changes)
    finally:
        client.call("DELETE", path)


@request
def webhook_unknown(client: Client) -> Answer:
    return client.call("GET", "/webhooks/999")


@request
def webhook_without_url(client: Client) -> Answer:
    return client.call("POST", "/webhooks", {})


@request
def webhook_of_another_scheme(client: Client) -> Answer:
    return hook(client, url="ftp://receiver.example/")


@request
def webhook_with_a_password(client: Client) -> Answer:
    return hook(client, url="https://me:mine@receiver.example/")


@request
def webhook_at_an_inner_address(client: Client) -> Answer:
    return hook(client, url="http://0x7f000001/")


@request
def webhook_changed_to_an_inner_address(client: Client) -> Answer:
    return change(client, url="http://[::ffff:10.0.0.1]/")


@request
def webhook_event_unknown(client: Client) -> Answer:
    return hook(client, events=["task.begun"])


@request
def webhook_events_empty(client: Client) -> Answer:
    return hook(client, events=[])


@request
def webhook_services_unusable(client: Client) -> Answer:
    return hook(client, services=["x" * 256])


@request
def webhook_description_too_long(client: Client) -> Answer:
    return hook(client, description="x" * 1001)


@request
def webhook_secret_short(client: Client) -> Answer:
    return hook(client, secret="whsec_c2hvcnQ=")


@request
def webhook_member_unknown(client: Client) -> Answer:
    return hook(client, evnts=["task.failed"])


@request
def webhook_change_of_wrong_type(client: Client) -> Answer:
    return change(client, active="off")


@request
def webhook_secret_changed_to_a_short_one(client: Client) -> Answer:
    return change(client, "/secret", secret="whsec_c2hvcnQ=")


@request
def webhook_inactive(client: Client) -> Answer:
    return change(client, "/test")


@request
def webhooks_too_many(client: Client) -> Answer:
    made = []
    while (answer := hook(client)).code == 201:
        made.append(answer.json["webhook_id"])
    for each in made:
        client.call("DELETE", f"/webhooks/{each}")
    return answer


@request
def deliveries_too_many(client: Client) -> Answer:
    path = f"/webhooks/{hook(client, url=f'http://{ALLOWED}:9/', active=True).json['webhook_id']}"
    while (answer := client.call("POST", f"{path}/test")).code == 202:
        pass
    client.call("DELETE", path)
    return answer


@request
def delivery_unknown(client: Client) -> Answer:
    return deliveries(client, "GET", "/999")


@request
def delivery_to_replay_unknown(client: Client) -> Answer:
    return deliveries(client, "POST", "/999/replay")


@request
def deliveries_of_unknown_state(client: Client) -> Answer:
    return deliveries(client, "GET", "?state=sent")


def deliveries(client: Client, verb: str, place: str) -> Answer:
    """Ask for what was sent to a new webhook, and delete it."""
    path = f"/webhooks/{hook(client).json['webhook_id']}"
    try:
        return client.call(verb, f"{path}/deliveries{place}")
    finally:
        client.call("DELETE", path)
