"""Attacks by way of lines: header lines that a request would have others send, and log lines that it would forge."""

from __future__ import annotations

import io
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from marshmallow import ValidationError

from api.access_log import AccessLog
from ml.errors import BadParameter
from ml.options import output
from ml.options.loading import load
from ml.options.output import NetworkOptions


def network(**given: Any) -> NetworkOptions:
    made = load(NetworkOptions, given, path="parameters.output.network", section="output", owner="the network")
    return made.value


LINES = [
    "text/html\r\nX-Injected: 1",
    "text/html\nX-Injected: 1",
    "text/html\rX-Injected: 1",
    "Content-Type: text/html\r\n\r\n<script>",
    "Host: elsewhere",
    "X-Injected: 1",
    "Content-Type: a\0b",
    "Content-Type: a\x0bb",
    "Content-Type: a\u2028b",
    "Content-Type: a\u0085b",
    "text/html\u560d\u560aX-Injected: 1",
    "\x1b[31m",
]


@pytest.mark.parametrize("line", LINES, ids=ascii)
def test_content_type_is_one_line_about_the_content(line: str, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadParameter, match="content_type"):
        network(content_type=line)
    # The lock open:
    monkeypatch.setattr(output._ContentType, "_deserialize", lambda self, value, *_, **__: value)
    assert network(content_type=line).content_type == line


@pytest.mark.parametrize(
    "method", ["GET / HTTP/1.1\r\nX: y\r\n\r\nGET", "POST\r\n", "TRACE", "CONNECT", "OPTIONS", "PO ST", "", "GET\0"]
)
def test_method_is_one_of_a_list(method: str):
    with pytest.raises((BadParameter, ValidationError)):
        network(http_method=method)


@pytest.mark.parametrize("name", ["日本", "a b", "größe", "a;b=c", "a,b", "<script>", "a%0ab", "\u202egnp.csv"])
def test_name_in_a_header_of_an_answer_stays_inside(name: str, client: FlaskClient):
    made = client.put(f"/datasets/{name}")
    if made.status_code == 400:  # not printable
        return
    answer = client.post(f"/datasets/{name}/uploads", json={"path": "a.csv", "bytes": 3})
    assert answer.status_code == 201, answer.text
    location = answer.headers["Location"]
    assert location.isascii()
    assert location.isprintable()
    assert client.get(location).status_code == 200


FORGED = [
    "%0a2026-01-01 INFO api.access GET /forged 200",
    "%0d%0aforged",
    "%1b%5b2J",
    "%c2%85forged",
    "%e2%80%a8forged",
    "%00",
]


@pytest.mark.parametrize("path", FORGED)
@pytest.mark.parametrize("place", ["/services/{}", "/tasks?cursor={}", "/{}"])
def test_request_is_one_line_of_the_log_whatever_its_address_holds(
    path: str,
    place: str,
    app: Flask,
    client: FlaskClient,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    stream = io.StringIO()
    log = AccessLog(stream)
    monkeypatch.setattr("api.parts.Parts.note", lambda self, *told: log.note(told[0], *told[2:]))
    monkeypatch.setattr(log, "_start", lambda: None)
    with caplog.at_level("INFO"):
        client.get(place.format(path))
    log.flush()
    for text in (stream.getvalue(), *(record.getMessage() + "\n" for record in caplog.records)):
        assert len(text.splitlines()) == 1
        assert text[:-1].isprintable()


@pytest.mark.parametrize("header", ["traceparent", "tracestate", "X-Request-Id", "X-Forwarded-For", "Idempotency-Key"])
def test_header_that_means_nothing_changes_nothing(header: str, client: FlaskClient):
    for value in ("x" * 10_000, "\x1b[31m", "a, b", "00-" + "0" * 32 + "-" + "0" * 16 + "-00", "\xff"):
        answer = client.get("/tasks", headers={header: value})
        assert answer.status_code == 200
        assert value not in str(answer.headers)
