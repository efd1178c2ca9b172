"""Marshmallow's fields as JSON Schema: apispec does those of answers, and here are the options of requests."""

from __future__ import annotations

from typing import Any

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from marshmallow import Schema, fields

from api.answers import Json
from ml.options.loading import Choice, Flag, Group, Range, Real, Several, Table, Text, Whole, schema_of
from ml.options.loading import Json as Anything

_TYPES: dict[type[fields.Field[Any]], str] = {Whole: "integer", Real: "number", Flag: "boolean", Text: "string"}
_KINDS = (*_TYPES, Several, Table, Group, Anything)
_NULL: Json = {"type": "null"}


class Converter(OpenAPIConverter):
    """Also knows the fields of `ml.options.loading`."""

    def field2property(self, field: fields.Field[Any]) -> Json:
        """The schema of one member of an object."""
        if not isinstance(field, _KINDS):
            made: Json = super().field2property(field)
            return made
        return {**self._or_null(field), **_remarks(field)}

    def fields2jsonschema(self, fields: dict[str, Any], *, partial: Any = None) -> Json:
        """The schema of an object, with the other names that an option goes by."""
        made: Json = super().fields2jsonschema(fields, partial=partial)
        for field in fields.values():
            for other in field.metadata.get("other_keys", ()):
                same = self._or_null(field)
                made["properties"][other] = {**same, "description": f"Another name of `{field.data_key}`."}
        return made

    def schema2jsonschema(self, schema: Schema) -> Json:
        """The schema of an object; later versions may add members, so none is ever excluded."""
        made: Json = super().schema2jsonschema(schema)
        made.pop("additionalProperties", None)
        about = (type(schema).__doc__ or "").strip()
        return {"description": about, **made} if about and type(schema).__module__.startswith("api.") else made

    def _or_null(self, field: fields.Field[Any]) -> Json:
        """Values of an option; null counts as absent, unless the option has to be there."""
        made = self._values(field)
        if field.required or not made:
            return made
        if "enum" in made:
            made = {**made, "enum": [*made["enum"], None]}
        if isinstance(made.get("type"), str):
            return {**made, "type": [made["type"], "null"]}
        return {"anyOf": [*made.get("anyOf", [made]), _NULL]}

    def _values(self, field: fields.Field[Any]) -> Json:
        if isinstance(field, Group):
            found: Json = self.resolve_nested_schema(schema_of(field.into))
            return found
        bounds = _bounds(field)
        if isinstance(field, Several):
            each = {**self._values(field.inner), **bounds}
            return {"anyOf": [each, {"type": "array", "items": each}]}
        if isinstance(field, Table):
            return {"type": "object", "additionalProperties": {**self._values(field.inner), **bounds}}
        names = [name for kind, name in _TYPES.items() if isinstance(field, kind)]
        return {"type": names[0], **bounds} if names else {}


class Plugin(MarshmallowPlugin):
    """apispec's plugin with our converter."""

    Converter = Converter

    def place_of(self, into: type) -> Json:
        """The reference to the schema of an options class, which is added where it is missing."""
        assert self.converter is not None  # the document has made it
        found: Json = self.converter.resolve_nested_schema(schema_of(into))
        return found

    def schema_of(self, into: type) -> Json:
        """The schema of an options class itself."""
        assert self.converter is not None
        found: Json = self.converter.schema2jsonschema(schema_of(into))
        return found


def _bounds(field: fields.Field[Any]) -> Json:
    """What the validators allow; those of a list or an object look at each of its values."""
    made: Json = {}
    for each in field.validators:
        if isinstance(each, Choice):
            made["enum"] = list(each.words)
        elif isinstance(each, Range):
            if each.low is not None:
                made["exclusiveMinimum" if each.above else "minimum"] = each.low
            if each.high is not None:
                made["maximum"] = each.high
    return made


def _remarks(field: fields.Field[Any]) -> Json:
    text, unit, default = (field.metadata.get(name) for name in ("description", "unit", "default"))
    made: Json = {"description": f"{text} Unit: {unit}." if unit else text}
    if default is not None:
        made["default"] = default
    return made
