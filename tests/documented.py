"""Compares what an app answers with what its OpenAPI document says of the route."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from flask import Flask, Response, request
from jsonschema import Draft202012Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT202012

from api.blueprints import docs, health
from api.openapi.document import document

Json = dict[str, Any]

_URI = "urn:document"


@cache
def the_document(app: Flask) -> Json:
    """The document of an app."""
    return document(app, "0", health.OPEN | docs.OPEN)


def validator(whole: Json, schema: Json) -> Draft202012Validator:
    """A validator of a schema that refers to components of a document."""
    registry: Registry[Any] = Registry().with_resource(_URI, Resource(contents=whole, specification=DRAFT202012))
    return Draft202012Validator(_absolute(schema), registry=registry)


def _absolute(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {
            key: _URI + value
            if key == "$ref" and isinstance(value, str) and value.startswith("#")
            else _absolute(value)
            for key, value in schema.items()
        }
    return [_absolute(each) for each in schema] if isinstance(schema, list) else schema


def faults(whole: Json, path: str, verb: str, status: int, content_type: str, body: bytes) -> Iterator[str]:
    """In what an answer is not as the document says; the path is the document's own.

    Answers to verbs that a path does not have, and to unknown paths, are nobody's; and so is what a template or
    another host made of a prediction.
    """
    if path == "/predict" and not body.startswith(b'{"status":{"code":'):
        return
    operation = whole["paths"].get(path, {}).get(verb.lower())
    if operation is None:
        return
    told = operation["responses"].get(str(status), operation["responses"].get("default"))
    where = f"{verb} {path} -> {status}"
    if told is None:
        yield f"{where} is not documented: {body[:200]!r}"
        return
    kind = content_type.partition(";")[0]
    if kind not in told.get("content", {}):
        if body:
            yield f"{where}: {kind} is not documented"
        return
    schema = told["content"][kind].get("schema")
    if schema is None:
        return
    for error in validator(whole, schema).iter_errors(json.loads(body)):
        yield f"{where}: {error.json_path} {error.message[:300]}"


def template_of(whole: Json, path: str) -> str:
    """The path of the document that a request goes to; empty for none."""
    plain = path.partition("?")[0]
    for each in whole["paths"]:
        if re.fullmatch(re.sub(r"{\w+}", "[^/]+", each), plain):
            return str(each)
    return ""


def watch(app: Flask, found: list[str]) -> None:
    """Note every answer of an app that is not as its document says."""

    @app.after_request
    def look(response: Response) -> Response:
        try:
            whole = the_document(app)
        except KeyError:
            return response  # a test of the document names the route that nothing is said of
        if request.url_rule is not None and not response.direct_passthrough and request.method != "HEAD":
            path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", request.url_rule.rule)
            content_type = response.headers.get("Content-Type", "")
            if not response.is_streamed and response.headers.get("Content-Encoding") is None:
                body = response.get_data()
                found.extend(faults(whole, path, request.method, response.status_code, content_type, body))
        return response
