"""Requests about webhooks, and how webhooks and what was sent to them are told."""

from __future__ import annotations

import base64
import binascii
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from marshmallow import fields

from api.answers import Json
from api.refusals import BadBody
from api.schemas.described import Always, cursor, flag, several, text, whole
from api.schemas.reading import fold, read_strictly
from ml.options.loading import Flag, Several, Text, option, shown
from storage import fetch
from storage.errors import FetchForbidden
from storage.moments import moment
from storage.records import Delivering, Delivery, DeliveryAttempt, NewWebhook, Webhook
from storage.records.deliveries import EVENTS as EVENTS_BY_STATE

EVENTS = tuple(EVENTS_BY_STATE.values())
"""What a webhook can be told of."""

_PREFIX = "whsec_"
_SECRET_BYTES, _SECRET_LEAST, _SECRET_MOST = 32, 24, 64
_DESCRIPTION_MOST, _SERVICES_MOST, _NAME_MOST = 1000, 1000, 255


@dataclass(frozen=True)
class WebhookChange:
    """PATCH /webhooks/NUMBER: what is absent stays as it is."""

    url: str = option(
        Text(),
        "Address, http:// or https://, that events are posted to. It must be public, or named by "
        "MODELYARD_FETCH_ALLOW, and hold no user or password.",
        default="",
    )
    events: tuple[str, ...] = option(
        Several(Text()), "Which ends of tasks are told; all of them unless it is given.", default=()
    )
    services: tuple[str, ...] = option(
        Several(Text()),
        "Names of services: only the ends of their tasks are told. None, as in [], for those of all tasks.",
        default=(),
    )
    description: str = option(Text(), "For people.", default="")
    active: bool = option(Flag(), "Whether anything is sent.", default=True)


@dataclass(frozen=True)
class WebhookRequest(WebhookChange):
    """POST /webhooks."""

    secret: str = option(
        Text(),
        f"What events are signed with: {_PREFIX} and the base64 of {_SECRET_LEAST} to {_SECRET_MOST} bytes. "
        "Made when it is absent.",
        default="",
    )


@dataclass(frozen=True)
class SecretRequest:
    """POST /webhooks/NUMBER/secret."""

    secret: str = option(
        Text(),
        f"The new one: {_PREFIX} and the base64 of {_SECRET_LEAST} to {_SECRET_MOST} bytes. Made when it is absent.",
        default="",
    )


def read_webhook(body: Json, allow: Sequence[str]) -> tuple[NewWebhook, str]:
    """The body of POST /webhooks: a webhook and its secret. allow : as `storage.fetch` takes it. Raises BadBody."""
    wanted = read_strictly(WebhookRequest, body, "/webhooks")
    if not wanted.url:
        raise BadBody("url is missing; give the address that events are posted to")
    given = {name: getattr(wanted, name) for name in ("url", "services", "description", "active")}
    events = EVENTS if body.get("events") is None else wanted.events
    return NewWebhook(**_checked({**given, "events": events}, allow)), _secret(wanted.secret)


def read_change(body: Json, allow: Sequence[str]) -> Json:
    """The body of PATCH /webhooks/NUMBER, as the records take it. allow : as for `read_webhook`. Raises BadBody."""
    wanted = read_strictly(WebhookChange, body, "/webhooks")
    return _checked({name: getattr(wanted, name) for name, value in body.items() if value is not None}, allow)


def read_secret(body: Json) -> str:
    """The body of POST /webhooks/NUMBER/secret, or a new secret. Raises BadBody."""
    return _secret(read_strictly(SecretRequest, body, "/webhooks").secret)


def _checked(given: Mapping[str, Any], allow: Sequence[str]) -> Json:
    """Members of a request as members of `NewWebhook`. Raises BadBody."""
    made: Json = {}
    if "url" in given:
        try:
            made |= {"url": given["url"], "place": fetch.check_target(given["url"], allow=allow)}
        except FetchForbidden as error:
            raise BadBody(f"url: {error}") from None
    if "events" in given:
        made["events"] = list(dict.fromkeys(given["events"]))
        for event in made["events"]:
            if event not in EVENTS:
                raise BadBody(f"events holds {shown(event)}; use {', '.join(EVENTS)}")
        if not made["events"]:
            raise BadBody(f"events is empty; name some of {', '.join(EVENTS)}, or leave it out")
    if "services" in given:
        made["services"] = sorted({fold(name) for name in given["services"]})
        if len(made["services"]) > _SERVICES_MOST or any(not 0 < len(name) <= _NAME_MOST for name in made["services"]):
            raise BadBody(f"services must hold at most {_SERVICES_MOST} names of 1 to {_NAME_MOST} characters")
    if "description" in given:
        made["description"] = given["description"]
        if len(given["description"]) > _DESCRIPTION_MOST:
            raise BadBody(f"description is longer than {_DESCRIPTION_MOST} characters")
    if "active" in given:
        made["is_active"] = given["active"]
    return made


def _secret(given: str) -> str:
    """A secret that was given, or a new one. Raises BadBody, which does not repeat it."""
    if not given:
        return _PREFIX + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
    try:
        key = base64.b64decode(given.removeprefix(_PREFIX), validate=True) if given.startswith(_PREFIX) else b""
    except (binascii.Error, ValueError):
        key = b""
    if not _SECRET_LEAST <= len(key) <= _SECRET_MOST:
        raise BadBody(
            f"secret must be {_PREFIX} and the base64 of {_SECRET_LEAST} to {_SECRET_MOST} bytes; "
            "leave it out to get one"
        )
    return given


def told(webhook: Webhook) -> Json:
    """A webhook; never its secret."""
    until = webhook.old_secret_until
    return {
        "webhook_id": webhook.id,
        "url": webhook.url,
        "description": webhook.description,
        "events": webhook.events,
        "services": webhook.services,
        "active": webhook.is_active,
        "inactive_because": webhook.inactive_because,
        "failing_since": moment(webhook.failing_since),
        "old_secret_until": moment(until) if until is not None and until > time.time() else None,
        "created_at": moment(webhook.created_at),
        "changed_at": moment(webhook.changed_at),
    }


def told_delivery(delivery: Delivery) -> Json:
    """A delivery in lists."""
    return {
        "delivery_id": delivery.id,
        "webhook_id": delivery.webhook_id,
        "event_id": delivery.event_id,
        "event": delivery.event,
        "task_id": delivery.task_id,
        "replay_of": delivery.replay_of,
        "state": str(delivery.state),
        "attempt": delivery.attempt,
        "created_at": moment(delivery.created_at),
        "next_at": moment(delivery.due_at) if delivery.state is Delivering.WAITING else None,
        "ended_at": moment(delivery.ended_at),
    }


def told_attempt(attempt: DeliveryAttempt) -> Json:
    """One try at a delivery."""
    took_s = None if attempt.ended_at is None else max(0.0, attempt.ended_at - attempt.began_at)
    return {
        "attempt": attempt.number,
        "worker": attempt.owner,
        "began_at": moment(attempt.began_at),
        "ms": None if took_s is None else round(took_s * 1000, 1),
        "status": attempt.status,
        "error": attempt.error,
        "answer": attempt.answer,
    }


class WebhookSchema(Always):
    """A webhook."""

    webhook_id = whole("Its number.")
    url = text("Where events are posted to.")
    description = text("For people.")
    events = several(fields.String(), "Which ends of tasks are told.")
    services = several(fields.String(), "Services whose tasks count; all when there are none.")
    active = flag("Whether anything is sent.")
    inactive_because = text("Why nothing is sent; null while something is.", allow_none=True)
    failing_since = text("When the first attempt failed after which none went well; or null.", allow_none=True)
    old_secret_until = text("Until when the secret before this one signs as well; or null.", allow_none=True)
    created_at = text("When it was made, in ISO 8601.")
    changed_at = text("When it was changed last.")


class NewWebhookSchema(WebhookSchema):
    """POST /webhooks."""

    secret = text("What events are signed with; never told again.")


class SecretSchema(Always):
    """POST /webhooks/NUMBER/secret."""

    webhook_id = whole("Number of the webhook.")
    secret = text("What events are signed with from now on; never told again.")
    old_secret_until = text("Until when the one before signs as well.")


class WebhooksSchema(Always):
    """GET /webhooks."""

    webhooks = several(WebhookSchema, "Newest first.")
    next_cursor = cursor()


class DeletedWebhookSchema(Always):
    """DELETE /webhooks/NUMBER."""

    webhook_id = whole("The webhook.")
    deleted = flag("Always true.")


class DeliverySchema(Always):
    """A delivery in lists."""

    delivery_id = whole("Its number.")
    webhook_id = whole("Where it goes.")
    event_id = text("What the receiver knows the event by, as `webhook-id`; the same for each attempt and replay.")
    event = text("What happened.", [*EVENTS, "ping"])
    task_id = whole("The task that ended; null for a ping.", allow_none=True)
    replay_of = whole("The delivery that this one repeats, or null.", allow_none=True)
    state = text("waiting, delivered, or failed for good.", list(Delivering))
    attempt = whole("How often it was tried.")
    created_at = text("When it was made, in ISO 8601.")
    next_at = text("When it is tried next; of one under way, should its sender die. Null at the end.", allow_none=True)
    ended_at = text("When it was delivered or given up; or null.", allow_none=True)


class DeliveriesSchema(Always):
    """GET /webhooks/NUMBER/deliveries."""

    deliveries = several(DeliverySchema, "Newest first.")
    next_cursor = cursor()


class DeliveryAttemptSchema(Always):
    """One try at a delivery."""

    attempt = whole("1 for the first; 0 tells why none was made.")
    worker = text("Who tried: host and process; empty where nobody did.")
    began_at = text("When it began.")
    ms = fields.Float(
        allow_none=True, metadata={"description": "Milliseconds it took; null while it runs, or when its sender died."}
    )
    status = whole("HTTP status of the answer; null when none came.", allow_none=True)
    error = text("Why it failed; null when it went well, or runs.", allow_none=True)
    answer = text("The first 1024 bytes of the answer, or null.", allow_none=True)


class OneDeliverySchema(DeliverySchema):
    """GET /webhooks/NUMBER/deliveries/DELIVERY."""

    attempts = several(DeliveryAttemptSchema, "Every try, first one first.")
