"""Answers as strict JSON: DeepDetect's envelope and our own plain objects."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from flask import Response, request

from api.errors import PHRASES, code_of, status_of
from logs.redaction import redacted
from ml.json_text import finite

Json = dict[str, Any]

DEEPDETECT = frozenset({"info", "services", "train", "predict", "chain", "resources", "stream"})
"""First parts of the paths that speak DeepDetect's envelope."""


NOSNIFF = ("x-content-type-options", "nosniff")
"""A header of every answer: what a client made of a template is no page because a browser thinks that it looks so."""


def speaks_deepdetect(path: str) -> bool:
    """Whether answers on a path carry DeepDetect's envelope."""
    return path.lstrip("/").partition("/")[0] in DEEPDETECT


def dump(value: Any) -> bytes:
    """A JSON value as UTF-8 that every reader takes: never NaN or Infinity."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except ValueError:
        text = json.dumps(finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return text.encode("utf-8", "replace")


def plain(value: Any, http: int = 200) -> Response:
    """An answer of our own routes."""
    return written(dump(value), http)


def document(http: int = 200, head: Json | None = None, body: Json | None = None) -> Json:
    """What DeepDetect's envelope holds; `head` and `body` are left out when None."""
    answer: Json = {"status": {"code": http, "msg": PHRASES[http]}}
    if head is not None:
        answer["head"] = head
    if body is not None:
        answer["body"] = body
    return answer


def envelope(http: int = 200, head: Json | None = None, body: Json | None = None) -> Response:
    """An answer in DeepDetect's envelope; `head` and `body` are left out when None."""
    return plain(document(http, head, body), http)


def written(content: bytes, http: int = 200) -> Response:
    """An answer that somebody else has made. It is called JSON, as all answers are, whatever it is."""
    return Response(content, http, mimetype="application/json")


def with_warnings(head: Json, warnings: Iterable[Mapping[str, str]]) -> Json:
    """`head` with `warnings`, each once and in order, when there are any."""
    told = list({(each["parameter"], each["message"]): dict(each) for each in warnings}.values())
    return {**head, "warnings": told} if told else head


def failure(kind: str, message: str, section: str | None = None, head: Json | None = None) -> Response:
    """The answer to a request that failed, in the form of the path it came to."""
    if speaks_deepdetect(request.path):
        answer: Json = {"status": status_of(kind, message, section)}
        if head is not None:
            answer["head"] = head
    else:
        answer = {"error": {"kind": kind, "message": redacted(message)}}
    code = code_of(kind, section)
    response = plain(answer, code.http)
    if code.retry_after_s is not None:
        response.headers["Retry-After"] = str(code.retry_after_s)
    if code.http == 401:
        response.headers.add("WWW-Authenticate", 'Bearer realm="modelyard"')
        response.headers.add("WWW-Authenticate", 'Basic realm="modelyard", charset="UTF-8"')
    return response
