"""The receiver that docs/webhooks.md shows takes what is signed, once and in time, and nothing else."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"
KEY = b"thirty-two bytes that are secret"
SECRET = "whsec_" + base64.b64encode(KEY).decode()
BODY = '{"type":"task.finished","data":{"name":"é"}}'.encode()

Verify = Callable[[str, dict[str, str], bytes, set[str]], bool]


@pytest.fixture(scope="module")
def verify() -> Verify:
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, str(PAGE), "exec"), names)
    found: Verify = names["verify"]
    return found


def request(age_s: float = 0.0, event_id: str = "msg_1", key: bytes = KEY, body: bytes = BODY) -> dict[str, str]:
    """The headers of a request, signed by hand."""
    timestamp = str(int(time.time() - age_s))
    digest = hmac.new(key, f"{event_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    return {"webhook-id": event_id, "webhook-timestamp": timestamp, "webhook-signature": signature}


def test_event_is_taken_once(verify: Verify):
    seen: set[str] = set()
    assert verify(SECRET, request(), BODY, seen)
    assert not verify(SECRET, request(), BODY, seen), "the same again"
    assert not verify(SECRET, request(age_s=-1), BODY, seen), "sent once more, signed anew"
    assert verify(SECRET, request(event_id="msg_2"), BODY, seen)


@pytest.mark.parametrize(("without", "instead"), [("event_id in seen", "False"), ("> TOLERANCE_S", "> 10**9")])
def test_recorded_request_is_taken_again_where_a_lock_is_removed(without: str, instead: str):
    [code] = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert without in code
    names: dict[str, Any] = {}
    exec(code.replace(without, instead), names)
    recorded = request(age_s=86400 if "TOLERANCE" in without else 0)
    seen = set() if "TOLERANCE" in without else {"msg_1"}
    assert names["verify"](SECRET, recorded, BODY, seen)


@pytest.mark.parametrize("age_s", [400, 86400, -400])
def test_recorded_request_is_not_taken_later(verify: Verify, age_s: float):
    seen: set[str] = set()
    old = request(age_s)
    assert not verify(SECRET, old, BODY, seen)
    now = str(int(time.time()))
    assert not verify(SECRET, {**old, "webhook-timestamp": now}, BODY, seen), "the time is signed as well"
    assert seen == set()


def test_what_is_not_signed_by_the_secret_is_not_taken(verify: Verify):
    seen: set[str] = set()
    good = request()
    for headers, body in [
        (good, BODY + b" "),
        ({**good, "webhook-id": "msg_2"}, BODY),
        (request(key=b"x" * 32), BODY),
        ({**good, "webhook-signature": ""}, BODY),
        ({**good, "webhook-signature": "v1,"}, BODY),
        ({**good, "webhook-timestamp": "now"}, BODY),
        ({**good, "webhook-timestamp": "٣"}, BODY),
        ({}, BODY),
    ]:
        assert not verify(SECRET, headers, body, seen)
    assert seen == set()


def test_one_of_two_signatures_is_enough(verify: Verify):
    good, other = request(), request(key=b"y" * 32)
    both = f"{other['webhook-signature']} {good['webhook-signature']}"
    assert verify(SECRET, {**good, "webhook-signature": both}, BODY, set())


def test_what_the_library_signs_is_taken(verify: Verify):
    now = datetime.now(UTC)
    signature = Webhook(SECRET).sign("msg_1", now, BODY.decode())
    headers = {**request(), "webhook-timestamp": str(int(now.timestamp())), "webhook-signature": signature}
    assert verify(SECRET, headers, BODY, set())
