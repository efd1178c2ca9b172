"""Puts the document together: the routes that Flask has, what is said of them, and what is known anyhow."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from apispec import APISpec
from flask import Flask
from werkzeug.routing import Rule

from api import refusals, roles
from api.answers import Json, speaks_deepdetect
from api.errors import CODES, PHRASES, code_of
from api.openapi import accounts, datasets, deepdetect, downloads, native, webhooks
from api.openapi.converter import Plugin
from api.openapi.operation import JSON, Answer, Operation, Parameter
from api.schemas.account import KeyRequest
from api.schemas.dataset import UploadRequest
from api.schemas.deepdetect import ErrorAnswerSchema
from api.schemas.health import NativeErrorSchema
from api.schemas.train import PredictRequest, TrainRequest
from api.schemas.webhook import EVENTS, SecretRequest, WebhookChange, WebhookRequest
from ml import errors as ml_errors
from ml.options import catalog
from ml.options.output import OutputOptions
from ml.options.service import ModelOptions, OriginOptions, ServiceHead
from storage import errors as storage_errors
from workers import queue

OPERATIONS: dict[str, dict[str, Operation]] = {
    **deepdetect.OPERATIONS,
    **datasets.OPERATIONS,
    **accounts.OPERATIONS,
    **webhooks.OPERATIONS,
    **native.OPERATIONS,
    **downloads.OPERATIONS,
}
"""By endpoint and verb."""

_VERSION = "3.1.0"
_ALWAYS = ("key_needed", "role_needed", "foreign_origin", "too_many_requests", "internal", "records_unavailable")
"""What every route may answer that needs an account."""

_SECTIONS = {"bad_parameter": ("input", "service", "mllib")}
_ABOUT = (
    "A machine-learning server whose work is done by a fleet. The routes of DeepDetect answer in its envelope, the "
    "others with plain JSON. Examples run in this order on a server whose data root holds iris.csv of the example "
    "data: create the service, train, poll, predict, delete. Numbers of jobs and tasks are those of a fresh server; "
    "use those that the answers tell. Where a key is needed it comes in one of three ways."
)
_KEYS: dict[str, Json] = {
    "key": {"type": "apiKey", "in": "header", "name": "X-API-KEY", "description": "A key in a header of its own."},
    "bearer": {"type": "http", "scheme": "bearer", "description": "A key as a bearer token."},
    "basic": {"type": "http", "scheme": "basic", "description": "A key as the password, with any user."},
}
_TAGS = {
    "Services": "Named configurations that clients train and ask.",
    "Training": "Jobs of a service.",
    "Prediction": "What a model says of data.",
    "Data sets": "Files that are uploaded, and named as dataset://NAME/PATH in `data`.",
    "Webhooks": "Addresses that are told of the ends of tasks, and what was sent to them.",
    "Tasks": "Every durable piece of work, by its number.",
    "Accounts": "Who calls, with which keys, and what was done.",
    "Server": "What the server is and how it is.",
}


def document(app: Flask, version: str, is_open: Iterable[str], *, needs_key: bool = True) -> Json:
    """The OpenAPI document of an app.

    is_open : endpoints that need no key. needs_key : whether the others do; not on a machine on which no key exists.
    Raises KeyError for a route that nothing is said of.
    """
    plugin = Plugin()
    spec = APISpec(
        "Modelyard",
        version,
        _VERSION,
        plugins=[plugin],
        info={"description": _ABOUT},
        servers=[{"url": "/"}],
        tags=[{"name": name, "description": text} for name, text in _TAGS.items()],
        security=[*({name: []} for name in _KEYS), *([] if needs_key else [{}])],
    )
    for name, scheme in _KEYS.items():
        spec.components.security_scheme(name, scheme)
    _add_requests(spec, plugin)
    open_ones = frozenset(is_open)
    for rule, verb, operation in routes(app):
        path = re.sub(r"<(?:\w+:)?(\w+)>", r"{\1}", rule.rule)
        made = _operation(operation, path, _ALWAYS if rule.endpoint not in open_ones else ())
        made["operationId"] = _id_of(rule.endpoint, verb)
        if rule.endpoint in open_ones:
            made["security"] = []
        elif role := roles.needed(app, rule.endpoint):
            made["description"] += f" Needs a key with the role `{role}`."
        spec.path(path, operations={verb.lower(): made})
    whole: Json = spec.to_dict()
    return whole


def routes(app: Flask) -> Iterator[tuple[Rule, str, Operation]]:
    """Every route and verb of an app, with what is said of it, in the order of the tags."""
    tags = list(_TAGS)
    found = [
        (rule, verb, _said_of(rule, verb))
        for rule in app.url_map.iter_rules()
        for verb in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    ]
    places = {(endpoint, verb): at for at, (endpoint, verb) in enumerate(_named())}
    return iter(sorted(found, key=lambda each: (tags.index(each[2].tag), places[each[0].endpoint, each[1]])))


def _said_of(rule: Rule, verb: str) -> Operation:
    try:
        return OPERATIONS[rule.endpoint][verb]
    except KeyError:
        raise KeyError(f"nothing is said of {verb} {rule.rule}; describe {rule.endpoint} in api/openapi") from None


def _named() -> Iterator[tuple[str, str]]:
    return ((endpoint, verb) for endpoint, verbs in OPERATIONS.items() for verb in verbs)


_WITH_BODY = ("body_too_slow", "encoding_unknown")
"""What every route may answer that takes a body."""


def _operation(operation: Operation, path: str, always: tuple[str, ...]) -> Json:
    answers = {str(status): _answer(each) for status, each in operation.answers.items()}
    of_body = () if operation.body is None else _WITH_BODY
    answers |= _failures((*operation.kinds, *of_body, *always), speaks_deepdetect(path))
    if operation.other is not None:
        answers["default"] = {"description": operation.other, "content": {JSON: {"schema": {}}}}
    made: Json = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "description": operation.text,
        "parameters": [_parameter(each) for each in operation.parameters],
        "responses": answers,
    }
    if operation.body is not None:
        examples = {name: {"summary": said, "value": value} for name, (said, value) in operation.examples.items()}
        body = operation.body
        schema = {"$ref": f"#/components/schemas/{body}"} if isinstance(body, str) else dict(body)
        content = {operation.body_type: {"schema": schema, "examples": examples}}
        made["requestBody"] = {"required": True, "content": content}
    return made


def _parameter(parameter: Parameter) -> Json:
    made: Json = {
        "name": parameter.name,
        "in": parameter.place,
        "description": parameter.text,
        "required": parameter.is_required,
        "schema": dict(parameter.schema),
    }
    return made if parameter.example is None else {**made, "example": parameter.example}


def _answer(answer: Answer) -> Json:
    made: Json = {"description": answer.text}
    if answer.content:
        made["content"] = {
            kind: {} if schema is None else {"schema": schema} for kind, schema in answer.content.items()
        }
    if answer.headers:
        made["headers"] = {
            name: {"description": text, "schema": {"type": "string"}} for name, text in answer.headers.items()
        }
    if answer.links:
        made["links"] = {
            name: {"operationId": _id_of(*each.to), "parameters": dict(each.parameters)}
            for name, each in answer.links.items()
        }
    return made


def _id_of(endpoint: str, verb: str) -> str:
    return f"{endpoint.replace('.', '_')}_{verb.lower()}"


# Errors


def _failures(kinds: Iterable[str], deepdetect: bool) -> dict[str, Json]:
    """The answers to requests that fail, one for each status."""
    by_status: dict[int, list[str]] = {}
    for kind in dict.fromkeys(kinds):
        by_status.setdefault(CODES[kind].http, []).append(kind)
    return {str(status): _failure(status, found, deepdetect) for status, found in sorted(by_status.items())}


def _failure(status: int, kinds: list[str], deepdetect: bool) -> Json:
    lines = [f"- `{kind}`: {_SAID.get(kind, 'A fault of the server; its log has it.')}" for kind in kinds]
    made: Json = {
        "description": "\n".join([PHRASES[status] + ":", "", *lines]),
        "content": {JSON: {"schema": _failure_schema(status, kinds, deepdetect)}},
    }
    if all(CODES[kind].retry_after_s is not None for kind in kinds):
        made["headers"] = {
            "Retry-After": {"description": "Seconds after which to try again.", "schema": {"type": "integer"}}
        }
    return made


def _failure_schema(status: int, kinds: list[str], deepdetect: bool) -> Json:
    """The schema of the error, narrowed down to the codes that there are."""
    if not deepdetect:
        narrow: Json = {"error": {"properties": {"kind": {"enum": sorted(kinds)}}}}
        return {"allOf": [NativeErrorSchema, {"properties": narrow}]}
    codes = {code_of(kind, section).dd_code for kind in kinds for section in ("", *_SECTIONS.get(kind, ()))}
    of_status: Json = {"code": {"const": status}}
    told = sorted(code for code in codes if code is not None)
    if told:
        of_status["dd_code"] = {"enum": told}
    return {"allOf": [ErrorAnswerSchema, {"properties": {"status": {"properties": of_status}}}]}


def _sentences() -> dict[str, str]:
    """What each kind of error means, in the words of its class."""
    found: dict[str, str] = {
        "internal": "A fault of the server; its log has it.",
        "killed": "A training process was killed too often without progress.",
        "worker_lost": "Workers vanished too often without progress.",
    }
    for module in (refusals, storage_errors, ml_errors, queue):
        for _, each in inspect.getmembers(module, inspect.isclass):
            kind = getattr(each, "kind", None)
            if isinstance(kind, str) and each.__module__ == module.__name__:
                found.setdefault(kind, inspect.cleandoc(each.__doc__ or "").split("\n\n")[0].replace("\n", " "))
    return found


_SAID = _sentences()


# Requests


def _add_requests(spec: APISpec, plugin: Plugin) -> None:
    """Add the schemas of the bodies: the options that `ml.options` reads, put together as requests hold them."""
    shape, schema = plugin.place_of, plugin.schema_of
    inputs = {"anyOf": [*(shape(each.options) for each in catalog.connectors().values()), {"type": "null"}]}
    libraries = {"anyOf": [*(shape(each.options) for each in catalog.libraries().values()), {"type": "null"}]}
    sections: Mapping[str, Json] = {
        "input": {"description": "Options of the input connector.", **inputs},
        "mllib": {"description": "Options of the library.", **libraries},
        "output": {"description": "Options of the output.", "anyOf": [shape(OutputOptions), {"type": "null"}]},
    }
    spec.components.schema("Parameters", {"type": "object", "properties": dict(sections)})
    creating: Json = {
        **sections,
        "input": {
            "description": "Options of the input connector, which has to be named.",
            "type": "object",
            "required": ["connector"],
            "properties": {"connector": {"enum": list(catalog.connectors())}},
            "anyOf": inputs["anyOf"][:-1],
        },
        "mllib": {
            "description": "Options of the library, and where the model comes from.",
            "anyOf": [{"allOf": [shape(OriginOptions), {"anyOf": libraries["anyOf"][:-1]}]}, {"type": "null"}],
        },
    }
    types = dict.fromkeys(kind for library in catalog.libraries().values() for kind in library.types)
    _add(
        spec,
        "ServiceRequest",
        schema(ServiceHead),
        type={"enum": [*types, None]},
        mllib={"enum": list(catalog.libraries())},
        model=shape(ModelOptions),
        parameters={"type": "object", "required": ["input"], "properties": creating},
    )
    parameters: Json = {"anyOf": [{"$ref": "#/components/schemas/Parameters"}, {"type": "null"}]}
    data: Json = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    _add(spec, "UploadRequest", schema(UploadRequest))
    _add(spec, "KeyRequest", schema(KeyRequest))
    for body in (WebhookRequest, WebhookChange):
        events = {"type": ["array", "null"], "items": {"enum": list(EVENTS)}, "minItems": 1, "anyOf": [{}]}
        _add(spec, body.__name__, schema(body), events=events)
    _add(spec, "SecretRequest", schema(SecretRequest))
    _add(
        spec,
        "TrainRequest",
        schema(TrainRequest),
        parameters=parameters,
        data={**data, "type": ["array", "null"]},
        service={"minLength": 1},
    )
    _add(
        spec,
        "PredictRequest",
        schema(PredictRequest),
        parameters=parameters,
        data=data,
        service={"minLength": 1},
    )


def _add(spec: APISpec, name: str, made: Json, **known: Json) -> None:
    """Add the schema of a body; `known` says more of members that the options leave open."""
    properties: dict[str, Any] = made["properties"]
    for member, more in known.items():
        properties[member] = {**properties[member], **more}
    spec.components.schema(name, made)
