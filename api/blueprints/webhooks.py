"""/webhooks: addresses that are told of the ends of tasks. What is sent to them, a control worker sends."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api import auditing
from api.answers import plain
from api.body import read_object
from api.parts import account, parts
from api.query import check_known, choice, whole_number
from api.roles import needs
from api.schemas.paging import PAGE, read_page
from api.schemas.webhook import (
    read_change,
    read_secret,
    read_webhook,
    told,
    told_attempt,
    told_delivery,
)
from storage.errors import DeliveryNotFound, WebhookNotFound
from storage.moments import moment
from storage.records import Delivering, Delivery, Role, Webhook

BOTH_SECRETS_S = 86400.0
"""How long an old secret signs beside the new one."""

blueprint = Blueprint("webhooks", __name__)


@blueprint.post("/webhooks")
@needs(Role.TRAIN)
def create() -> Response:
    """Make a webhook; the only answer that tells its secret."""
    check_known(request.args, ())
    settings = parts().settings
    new, secret = read_webhook(read_object(settings.request_limit_bytes), settings.fetch_allow)
    webhook = parts().records.webhooks.add(account().id, new, secret)
    auditing.note("webhook.create", "webhook", webhook.id)
    made = plain({**told(webhook), "secret": secret}, 201)
    made.headers["Location"] = f"/webhooks/{webhook.id}"
    return made


@blueprint.get("/webhooks")
@needs(Role.READ)
def several() -> Response:
    """A page of all webhooks, newest first."""
    check_known(request.args, PAGE)
    page = read_page(request.args)
    shown, more = page.cut(parts().records.webhooks.page(account().id, limit=page.limit + 1, before_id=page.before_id))
    return plain({"webhooks": [told(each) for each in shown], "next_cursor": more})


@blueprint.get("/webhooks/<number>")
@needs(Role.READ)
def get(number: str) -> Response:
    """A webhook."""
    check_known(request.args, ())
    return plain(told(_find(number)))


@blueprint.patch("/webhooks/<number>")
@needs(Role.TRAIN)
def change(number: str) -> Response:
    """Change what the body names."""
    check_known(request.args, ())
    webhook = _find(number)
    settings = parts().settings
    changes = read_change(read_object(settings.request_limit_bytes), settings.fetch_allow)
    if changes:
        webhook = parts().records.webhooks.change(account().id, webhook.id, changes)
        auditing.note("webhook.change", "webhook", webhook.id)
    return plain(told(webhook))


@blueprint.delete("/webhooks/<number>")
@needs(Role.TRAIN)
def delete(number: str) -> Response:
    """Forget a webhook; what waits for it is not sent."""
    check_known(request.args, ())
    webhook = _find(number)
    parts().records.webhooks.delete(account().id, webhook.id)
    auditing.note("webhook.delete", "webhook", webhook.id)
    return plain({"webhook_id": webhook.id, "deleted": True})


@blueprint.post("/webhooks/<number>/secret")
@needs(Role.TRAIN)
def rotate(number: str) -> Response:
    """Sign with another secret; for a day with the one before as well."""
    check_known(request.args, ())
    webhook = _find(number)
    has_body = bool(request.get_data(cache=True).strip())
    secret = read_secret(read_object(parts().settings.request_limit_bytes) if has_body else {})
    changed = parts().records.webhooks.rotate(account().id, webhook.id, secret, BOTH_SECRETS_S)
    auditing.note("webhook.secret", "webhook", webhook.id)
    until = moment(changed.old_secret_until)
    return plain({"webhook_id": webhook.id, "secret": secret, "old_secret_until": until})


@blueprint.post("/webhooks/<number>/test")
@needs(Role.TRAIN)
def test(number: str) -> Response:
    """Have a ping sent."""
    check_known(request.args, ())
    return _accepted(parts().records.deliveries.test(_find(number).id))


@blueprint.get("/webhooks/<number>/deliveries")
@needs(Role.READ)
def deliveries(number: str) -> Response:
    """A page of what was sent, or is to be, newest first."""
    check_known(request.args, (*PAGE, "state"))
    page, state = read_page(request.args), choice(Delivering, "state", request.args.get("state"))
    webhook = _find(number)
    found = parts().records.deliveries.page(webhook.id, limit=page.limit + 1, before_id=page.before_id, state=state)
    shown, more = page.cut(found)
    return plain({"deliveries": [told_delivery(each) for each in shown], "next_cursor": more})


@blueprint.get("/webhooks/<number>/deliveries/<delivery>")
@needs(Role.READ)
def one_delivery(number: str, delivery: str) -> Response:
    """A delivery with every attempt."""
    check_known(request.args, ())
    found = _find_delivery(number, delivery)
    attempts = [told_attempt(each) for each in parts().records.deliveries.attempts(found.id)]
    return plain({**told_delivery(found), "attempts": attempts})


@blueprint.post("/webhooks/<number>/deliveries/<delivery>/replay")
@needs(Role.TRAIN)
def replay(number: str, delivery: str) -> Response:
    """Have an event sent once more."""
    check_known(request.args, ())
    return _accepted(parts().records.deliveries.replay(_find_delivery(number, delivery)))


def _accepted(delivery: Delivery) -> Response:
    made = plain(told_delivery(delivery), 202)
    made.headers["Location"] = f"/webhooks/{delivery.webhook_id}/deliveries/{delivery.id}"
    return made


def _find(number: str) -> Webhook:
    webhook_id = whole_number(number)
    if webhook_id is None:
        raise WebhookNotFound(repr(number[:40]))
    return parts().records.webhooks.get(account().id, webhook_id)


def _find_delivery(number: str, delivery: str) -> Delivery:
    webhook = _find(number)
    delivery_id = whole_number(delivery)
    if delivery_id is None:
        raise DeliveryNotFound(repr(delivery[:40]))
    return parts().records.deliveries.get(webhook.id, delivery_id)
