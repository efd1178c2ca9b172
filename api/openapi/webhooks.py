"""Routes of webhooks."""

from __future__ import annotations

from api.openapi.operation import PAGES, Operation, Parameter, json_answer, number_in_path
from api.schemas import webhook
from storage.records import Delivering

_NUMBER = number_in_path("Number of the webhook, as `webhook_id` told it.")
_DELIVERY = number_in_path("Number of the delivery, as `delivery_id` told it.", "delivery")
_UNKNOWN = ("bad_query", "webhook_not_found")
_OF_DELIVERY = (*_UNKNOWN, "delivery_not_found")
_BODY = ("bad_json", "bad_body", "body_too_large")
_SENT = {202: json_answer("It will be sent at once.", webhook.DeliverySchema, Location="The delivery.")}
# Nothing is sent to a host that nobody knows: it is made inactive, to be switched on when its receiver runs.
_EXAMPLE = {
    "url": "https://receiver.example/modelyard",
    "events": ["task.finished", "task.failed"],
    "services": ["flowers"],
    "active": False,
}

CREATE = Operation(
    "Webhooks",
    "Make a webhook",
    "The only answer that tells its secret.",
    {201: json_answer("It is there.", webhook.NewWebhookSchema, Location="The webhook.")},
    ("bad_query", "too_many_webhooks", *_BODY),
    body="WebhookRequest",
    examples={"ends": ("Ends of the tasks of a service", _EXAMPLE)},
)

SEVERAL = Operation(
    "Webhooks",
    "List webhooks",
    "A page of all, newest first.",
    {200: json_answer("Webhooks.", webhook.WebhooksSchema)},
    ("bad_query",),
    PAGES,
)

GET = Operation(
    "Webhooks",
    "Describe a webhook",
    "Everything but its secret.",
    {200: json_answer("The webhook.", webhook.WebhookSchema)},
    _UNKNOWN,
    (_NUMBER,),
)

CHANGE = Operation(
    "Webhooks",
    "Change a webhook",
    "What the body does not name stays as it is. One that is switched off gives up what waits for it.",
    {200: json_answer("The webhook as it is now.", webhook.WebhookSchema)},
    (*_UNKNOWN, *_BODY),
    (_NUMBER,),
    "WebhookChange",
    {"description": ("A word for people", {"description": "the dashboard"})},
)

DELETE = Operation(
    "Webhooks",
    "Delete a webhook",
    "What waits for it is not sent.",
    {200: json_answer("It is gone.", webhook.DeletedWebhookSchema)},
    _UNKNOWN,
    (_NUMBER,),
)

ROTATE = Operation(
    "Webhooks",
    "Change the secret",
    "For 24 hours the secret before signs as well, so that the receiver can change over without a loss.",
    {200: json_answer("The new secret.", webhook.SecretSchema)},
    (*_UNKNOWN, *_BODY),
    (_NUMBER,),
    "SecretRequest",
    {"new": ("A secret made by the server", {})},
)

TEST = Operation(
    "Webhooks",
    "Send a ping",
    "An event of the type `ping`, sent and tried again like any other.",
    _SENT,
    (*_UNKNOWN, "webhook_inactive", "too_many_deliveries"),
    (_NUMBER,),
)

DELIVERIES = Operation(
    "Webhooks",
    "List deliveries",
    "What was sent to a webhook, or is to be, newest first.",
    {200: json_answer("Deliveries.", webhook.DeliveriesSchema)},
    _UNKNOWN,
    (
        _NUMBER,
        Parameter("state", "Only those in this state.", {"type": "string", "enum": list(Delivering)}),
        *PAGES,
    ),
)

DELIVERY = Operation(
    "Webhooks",
    "Describe a delivery",
    "With every attempt and the beginning of its answer.",
    {200: json_answer("The delivery.", webhook.OneDeliverySchema)},
    _OF_DELIVERY,
    (_NUMBER, _DELIVERY),
)

REPLAY = Operation(
    "Webhooks",
    "Send an event again",
    "A new delivery of the same event: the same `webhook-id`, another time and signature.",
    _SENT,
    (*_OF_DELIVERY, "webhook_inactive", "too_many_deliveries"),
    (_NUMBER, _DELIVERY),
)

OPERATIONS = {
    "webhooks.create": {"POST": CREATE},
    "webhooks.several": {"GET": SEVERAL},
    "webhooks.get": {"GET": GET},
    "webhooks.change": {"PATCH": CHANGE},
    "webhooks.rotate": {"POST": ROTATE},
    "webhooks.test": {"POST": TEST},
    "webhooks.deliveries": {"GET": DELIVERIES},
    "webhooks.one_delivery": {"GET": DELIVERY},
    "webhooks.replay": {"POST": REPLAY},
    "webhooks.delete": {"DELETE": DELETE},
}
