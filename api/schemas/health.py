"""Answers of /healthz and /readyz, and the errors of native routes."""

from __future__ import annotations

from marshmallow import Schema, fields

from api.schemas.described import flag, number, one, table, text


class ErrorSchema(Schema):
    """What was wrong."""

    kind = text("Which error it is: stable, and fit for programs.")
    message = text("What was wrong, what is allowed, what to do.")


class NativeErrorSchema(Schema):
    """A request that failed, on Modelyard's own routes."""

    error = one(ErrorSchema, "What was wrong.")


class AliveSchema(Schema):
    """GET /healthz."""

    status = text("Always `ok`.", ["ok"])


class ReadySchema(Schema):
    """GET /readyz."""

    ready = flag("Whether the server can do its work.")
    missing = fields.Dict(
        keys=fields.String(),
        values=fields.String(),
        required=True,
        metadata={"description": "What is missing, and why."},
    )
    workers = table("How many workers of each kind were seen within the last 15 s.")
    sweep_age_s = number("Seconds since the last sweep ended; null when none was seen.", allow_none=True)


class DocumentSchema(Schema):
    """An OpenAPI document."""

    openapi = text("Version of the specification.")
    info = table("Title, version and description.")
    paths = table("The routes.")
    components = table("The schemas.")
