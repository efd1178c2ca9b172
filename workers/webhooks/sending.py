"""One attempt at a delivery: sign, send, and record what came of it."""

from __future__ import annotations

import email.utils
import logging
import random
import time
from collections.abc import Sequence
from datetime import UTC, datetime

from standardwebhooks import Webhook

from settings import Settings
from storage import fetch
from storage.errors import FetchFailed, StorageError
from storage.records import Parcel, Receipt, Records
from workers.webhooks.payload import payload_of

KEPT_BYTES = 1024
"""Of an answer, for the log of the delivery."""

_GONE = 410
_BUSY = frozenset({429, 503})
_PATIENCE_S = 86400.0
_log = logging.getLogger(__name__)


def deliver(records: Records, settings: Settings, parcel: Parcel) -> str:
    """Try once. Returns what came of it: delivered, failed (it is tried again), given_up or superseded.

    Raises RecordsUnavailable.
    """
    delivery = parcel.delivery
    retry_after = ""
    try:
        content = payload_of(records, parcel)
        taken = post(parcel.url, delivery.event_id, content, parcel.secrets, settings)
    except FetchFailed as error:
        receipt = Receipt(None, str(error), None)
    except StorageError:
        raise
    except Exception:
        # Counted like any other, or it would be tried for ever.
        _log.exception("delivery %s failed unexpectedly", delivery.id)
        receipt = Receipt(None, "unexpected error; the worker's log has it", None)
    else:
        receipt = _receipt(taken)
        retry_after = taken.retry_after if taken.status in _BUSY else ""
    # Attempts whose senders died count too, or an event that kills its sender would be sent for ever.
    tried = max(delivery.failures, delivery.attempt - 1)
    again_in_s = _delay_s(settings.webhook_delays_s, tried, retry_after)
    is_held = records.deliveries.record(
        parcel,
        receipt,
        again_in_s=again_in_s,
        ends_webhook="the receiver answered 410 Gone" if receipt.status == _GONE else None,
        give_up_s=settings.webhook_give_up_s,
    )
    is_last = again_in_s is None or receipt.status == _GONE
    outcome = "delivered" if receipt.error is None else "given_up" if is_last else "failed"
    _log.info(
        "delivery %s of %s to webhook %s, attempt %s: %s%s",
        delivery.id,
        delivery.event,
        delivery.webhook_id,
        delivery.attempt,
        outcome if is_held else "superseded",
        "" if receipt.error is None else f", {receipt.error}",
    )
    return outcome if is_held else "superseded"


def post(url: str, event_id: str, content: bytes, secrets: Sequence[str], settings: Settings) -> fetch.Taken:
    """Send an event, signed as the Standard Webhooks specification says. Raises FetchFailed."""
    now = datetime.now(UTC)
    signatures = [Webhook(secret).sign(event_id, now, content.decode()) for secret in secrets]
    return fetch.notify(
        url,
        content,
        {
            "Content-Type": "application/json",
            "webhook-id": event_id,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(signatures),
        },
        allow=settings.fetch_allow,
        kept_bytes=KEPT_BYTES,
        timeout_s=settings.webhook_timeout_s,
    )


def _receipt(taken: fetch.Taken) -> Receipt:
    # PostgreSQL keeps no NUL, and what is shown to people is text.
    answer = taken.beginning.decode("utf-8", "replace").replace("\0", "\ufffd")
    if 200 <= taken.status < 300:
        return Receipt(taken.status, None, answer)
    why = ", and redirects are not followed" if taken.status < 400 else ""
    return Receipt(taken.status, f"it answered with status {taken.status}{why}", answer)


def _delay_s(delays_s: Sequence[float], failures: int, retry_after: str) -> float | None:
    """Seconds until the next attempt, after `failures` earlier ones failed as well; None when there is none.

    Scattered by a fifth, so that what failed together does not come back together.
    """
    if failures >= len(delays_s):
        return None
    return max(delays_s[failures] * random.uniform(0.9, 1.1), _asked_s(retry_after))


def _asked_s(retry_after: str) -> float:
    """The seconds that a header Retry-After asks for, a day at most; 0 for one that cannot be read."""
    text = retry_after.strip()
    if text.isascii() and text.isdigit():
        return min(float(text[:9]), _PATIENCE_S)
    try:
        wanted_at = email.utils.parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return 0.0
    return min(max(0.0, wanted_at - time.time()), _PATIENCE_S)
