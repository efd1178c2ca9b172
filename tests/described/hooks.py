"""What schemathesis has to know of this server beyond its document."""

from __future__ import annotations

from typing import Any

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData, Failure
from schemathesis.core.transport import Response

from tests.documented import validator

KEPT = ("kept", "kept-files")
"""A service with a model, and a data set: they are there for the other operations, so they are not deleted."""


@schemathesis.hook
def filter_case(context: schemathesis.HookContext, case: schemathesis.Case) -> bool:
    """Whether to send a request."""
    named = str((case.path_parameters or {}).get("name", "")).lower()
    return case.method != "DELETE" or named not in KEPT


@schemathesis.hook
def filter_failure(
    context: schemathesis.HookContext, failure: Failure, case: schemathesis.Case, response: Response
) -> bool:
    """Whether a failure is one: what `docs/api.md` calls right although the document does not may be taken."""
    if not isinstance(failure, AcceptedNegativeData):
        return True
    return not (_brings_unreadable_header(case) or _is_right_body(case))


def _brings_unreadable_header(case: schemathesis.Case) -> bool:
    """Whether a header holds more than ASCII; such ones count as absent."""
    return any(not str(value).isascii() for value in (case.headers or {}).values())


def _is_right_body(case: schemathesis.Case) -> bool:
    """Whether a body is right but for 1 and 0 in the place of true and false."""
    whole = case.operation.schema.raw_schema
    operation = whole["paths"][case.operation.path][case.method.lower()]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None or not isinstance(case.body, dict):
        return False
    lenient = _lenient({"components": whole["components"], "schema": content["schema"]})
    return validator(lenient, lenient["schema"]).is_valid(case.body)


def _lenient(schema: Any) -> Any:
    """A schema for which 1 and 0 are booleans too."""
    if isinstance(schema, list):
        return [_lenient(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {name: _lenient(each) for name, each in schema.items()}
    types = made.get("type")
    if types == "boolean" or (isinstance(types, list) and "boolean" in types):
        return {"anyOf": [made, {"enum": [0, 1]}]}
    return made
