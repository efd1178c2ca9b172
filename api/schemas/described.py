"""Members of answers, each with its sentence: always there unless they say otherwise."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from marshmallow import Schema, fields
from marshmallow.validate import OneOf


class Always(Schema):
    """Base of answers whose members are always there, if only as null."""

    def on_bind_field(self, field_name: str, field_obj: fields.Field[Any]) -> None:
        """Called once for each member."""
        field_obj.required = True


def text(said: str, among: Iterable[str] = (), **more: Any) -> fields.String:
    """A text, or one of a few."""
    words = list(among)
    return fields.String(**_with(said, more), validate=OneOf(words) if words else None)


def whole(said: str, **more: Any) -> fields.Integer:
    """A whole number."""
    return fields.Integer(**_with(said, more))


def number(said: str, **more: Any) -> fields.Float:
    """A number; null where it is not finite."""
    return fields.Float(**_with(said, more))


def flag(said: str, **more: Any) -> fields.Boolean:
    """true or false."""
    return fields.Boolean(**_with(said, more))


def table(said: str, **more: Any) -> fields.Dict:
    """An object whose members depend on the request."""
    return fields.Dict(keys=fields.String(), **_with(said, more))


def one(kind: type[Schema], said: str, **more: Any) -> fields.Nested:
    """An object with a schema of its own."""
    return fields.Nested(kind, **_with(said, more))


def several(kind: type[Schema] | fields.Field[Any], said: str, **more: Any) -> fields.List[Any]:
    """An array."""
    inner = kind if isinstance(kind, fields.Field) else fields.Nested(kind)
    return fields.List(inner, **_with(said, more))


def cursor() -> fields.String:
    """Where the next page of a list begins."""
    return text("Goes into `cursor` for the next page; null on the last.", allow_none=True)


def _with(said: str, more: dict[str, Any]) -> dict[str, Any]:
    return {"required": True, "metadata": {"description": said}, **more}
