"""From JSON objects to frozen dataclasses: one declaration per option gives the schema, the type and the text.

An option is a dataclass field made with `option(...)`. `schema_of` turns the dataclass into a marshmallow schema once;
`load` reads a JSON object with it. Unknown names never fail: they come back as warnings with the nearest known name.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from functools import cache
from typing import Any, Generic, TypeVar

from marshmallow import EXCLUDE, Schema, ValidationError, fields
from marshmallow.validate import Validator

from ml.errors import BadParameter, MlError

T = TypeVar("T")
F = TypeVar("F", bound=MlError)

UNKNOWN_MOST = 100
"""Unknown members of one object that are told by name: to look for what was meant takes time for each."""

_TOLD_MOST = 3

_NAME_CHARACTERS = 80


@dataclasses.dataclass(frozen=True)
class Warning:
    """Something in a request that had no effect or another one than asked.

    parameter : dotted path, e.g. "parameters.mllib.iteratons".
    message : a sentence for the client.
    """

    parameter: str
    message: str

    def as_json(self) -> dict[str, str]:
        """The form used in events and in `head.warnings`."""
        return {"parameter": self.parameter, "message": self.message}


@dataclasses.dataclass(frozen=True)
class Loaded(Generic[T]):
    """Options and what the reader has to say about the request they came from."""

    value: T
    warnings: list[Warning]


class Range(Validator):
    """A number between two bounds; either may be None, and the lower one may be excluded.

    Of a list or an object, every value is looked at.
    """

    def __init__(self, low: float | None = None, high: float | None = None, *, above: bool = False) -> None:
        self.low, self.high, self.above = low, high, above

    def __call__(self, value: Any) -> Any:
        values = value.values() if isinstance(value, dict) else value if isinstance(value, tuple) else (value,)
        for each in values:
            if (
                (self.low is not None and (each < self.low or (self.above and each == self.low)))
                or (self.high is not None and each > self.high)
                or each != each
            ):
                raise ValidationError(self.text())
        return value

    def text(self) -> str:
        """What is allowed, in words."""
        parts = []
        if self.low is not None:
            parts.append(f"{'above' if self.above else 'at least'} {self._plain(self.low)}")
        if self.high is not None:
            parts.append(f"at most {self._plain(self.high)}")
        return " and ".join(parts) or "a number"

    @staticmethod
    def _plain(bound: float) -> str:
        is_short = float(bound).is_integer() and abs(bound) < 2**64
        return str(int(bound)) if is_short else f"{bound:g}"


class Choice(Validator):
    """One of a few words."""

    def __init__(self, *words: str) -> None:
        self.words = words

    def __call__(self, value: Any) -> Any:
        if value not in self.words:
            raise ValidationError("one of " + ", ".join(self.words))
        return value


class Whole(fields.Field[int]):
    """A whole number; 3.0 is one, "3" and true are not."""

    allowed = "a whole number"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise ValidationError(self.allowed)
        if isinstance(value, float) and not value.is_integer():
            raise ValidationError(self.allowed)
        return int(value)


class Real(fields.Field[float]):
    """A finite number; whole ones too, texts and booleans not."""

    allowed = "a number"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValidationError(self.allowed)
        try:
            number = float(value)
        except OverflowError:
            raise ValidationError(self.allowed) from None
        if number - number != 0:  # NaN and the infinities
            raise ValidationError(self.allowed)
        return number


class Flag(fields.Field[bool]):
    """true or false; 1 and 0 are taken for them."""

    allowed = "true or false"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> bool:
        if isinstance(value, bool):
            return value
        if isinstance(value, int) and value in (0, 1):
            return bool(value)
        raise ValidationError(self.allowed)


class Text(fields.Field[str]):
    """A text."""

    allowed = "a text"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        if not isinstance(value, str):
            raise ValidationError(self.allowed)
        return value


class Several(fields.Field[tuple[Any, ...]]):
    """A list of values, or a single one that stands for a list of one.

    Loads into a tuple.
    """

    def __init__(self, inner: fields.Field[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner
        self.allowed = f"{getattr(inner, 'allowed', 'a value')} or a list of them"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> tuple[Any, ...]:
        values = value if isinstance(value, list) else [value]
        try:
            return tuple(self.inner.deserialize(each, attr, data) for each in values)
        except ValidationError:
            raise ValidationError(self.allowed) from None


class Table(fields.Field[dict[str, Any]]):
    """A JSON object whose values all have one type."""

    def __init__(self, inner: fields.Field[Any], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.inner = inner
        self.allowed = f"an object whose values are {getattr(inner, 'allowed', 'values')}"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError(self.allowed)
        try:
            return {str(key): self.inner.deserialize(each, attr, data) for key, each in value.items()}
        except ValidationError:
            raise ValidationError(self.allowed) from None


class Json(fields.Field[Any]):
    """Any JSON value."""

    allowed = "a JSON value"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> Any:
        return value


class Group(fields.Field[Any]):
    """A JSON object with options of its own, loaded into a dataclass; `elsewhere` as in `load`."""

    allowed = "an object"

    def __init__(self, into: type, elsewhere: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.into, self.elsewhere = into, elsewhere


def option(
    kind: fields.Field[Any],
    text: str,
    *,
    default: Any = None,
    factory: Callable[[], Any] | None = None,
    key: str | None = None,
    other_keys: tuple[str, ...] = (),
    unit: str | None = None,
) -> Any:
    """Declare an option as a field of a frozen dataclass.

    kind : the marshmallow field, with its validators.
    text : one sentence that says what the option does.
    key : name in JSON where it differs from the field's name; `other_keys` are accepted as well.
    unit : unit of the value, when it has one.
    """
    metadata = {"kind": kind, "text": text, "key": key, "other_keys": other_keys, "unit": unit}
    if factory is not None:
        return dataclasses.field(default_factory=factory, metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@cache
def schema_of(into: type) -> Schema:
    """The marshmallow schema of an options dataclass; each field carries text, unit, default and allowed values."""
    made: dict[str, Any] = {}
    for each in dataclasses.fields(into):
        kind: fields.Field[Any] = each.metadata["kind"]
        kind.metadata = {
            "description": each.metadata["text"],
            "unit": each.metadata["unit"],
            "default": default_of(each),
            "allowed": allowed_by(kind),
            "other_keys": each.metadata["other_keys"],
        }
        kind.data_key = each.metadata["key"] or each.name
        made[each.name] = kind
    return Schema.from_dict(made, name=into.__name__ + "Schema")(unknown=EXCLUDE)


def default_of(declared: dataclasses.Field[Any]) -> Any:
    """What an absent option counts as, as JSON; None when there is nothing to say."""
    value = declared.default
    if value is dataclasses.MISSING or value is None or value in ("", ()):
        return None
    try:
        for validator in declared.metadata["kind"].validators:
            validator(value)
    except ValidationError:
        return None  # a value that nobody may give stands for none
    if isinstance(value, tuple):
        return value[0] if len(value) == 1 else list(value)
    return value


def allowed_by(kind: fields.Field[Any]) -> str:
    """Which values an option takes, in words."""
    text = str(getattr(kind, "allowed", "a value"))
    for each in kind.validators:
        if isinstance(each, Range):
            text += ", " + each.text()
        elif isinstance(each, Choice):
            text = "one of " + ", ".join(each.words)
    return text


def keys_of(into: type) -> dict[str, str]:
    """Every JSON name an options dataclass takes, with the field it sets."""
    keys = {}
    for each in dataclasses.fields(into):
        for key in (each.metadata["key"] or each.name, *each.metadata["other_keys"]):
            keys[key] = each.name
    return keys


def shown(value: Any, limit: int = 80) -> str:
    """A value as it stands in a message: JSON-like and short."""
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"


def load(
    into: type[T],
    given: Any,
    *,
    path: str,
    section: str,
    owner: str,
    elsewhere: Mapping[str, str] | None = None,
) -> Loaded[T]:
    """Read the JSON object `given` into the dataclass `into`.

    path : where `given` stands in the request, e.g. "parameters.mllib".
    section : the section of BadParameter.
    owner : what takes the options, for the text of warnings, e.g. "xgboost".
    elsewhere : names that are known but do nothing here, each with the reason; given at their harmless value (false,
        null) they pass without a word.
    Absent and null members leave the default. Raises BadParameter for a wrong type or a value out of range.
    """
    if given is None:
        given = {}
    if not isinstance(given, Mapping):
        raise BadParameter(name=path, section=section, message=f"{path} is {shown(given)}; it must be an object")
    schema: Schema = schema_of(into)  # type: ignore[arg-type]  # a class is hashable
    known = keys_of(into)
    values: dict[str, Any] = {}
    named: dict[str, str] = {}
    warnings: list[Warning] = []
    unknown = 0
    for key, value in given.items():
        if value is None:
            continue
        field = known.get(key)
        if field is None:
            unknown += 1
            if unknown <= UNKNOWN_MOST:
                places = [f"{path}.{group}.{key}" for group in _groups_with(key, schema)]
                warnings.extend(_unknown(key, value, path, owner, known, elsewhere or {}, places))
            continue
        name = f"{path}.{key}"
        if field in named and values.get(field) is not None:
            warnings.append(Warning(name, f"{name} was ignored: {path}.{named[field]} says the same and came first"))
            continue
        kind = schema.fields[field]
        if isinstance(kind, Group):
            inner: Loaded[Any] = load(
                kind.into, value, path=name, section=section, owner=owner, elsewhere=kind.elsewhere
            )
            values[field] = inner.value
            warnings.extend(inner.warnings)
        else:
            try:
                values[field] = kind.deserialize(value, key, given)
            except ValidationError:
                raise BadParameter(
                    name=name,
                    section=section,
                    message=f"{name} is {shown(value)}; it must be {allowed_by(kind)}",
                ) from None
        named[field] = key
    if unknown > UNKNOWN_MOST:
        more = unknown - UNKNOWN_MOST
        warnings.append(Warning(path, f"{path} has {more} more members that are unknown to {owner} and were ignored"))
    return Loaded(into(**values), warnings)


def _groups_with(key: str, schema: Schema) -> list[str]:
    """The groups of options that take a name, which is looked for one level above them by mistake."""
    return [
        str(kind.data_key)
        for kind in schema.fields.values()
        if isinstance(kind, Group) and key.lower() in keys_of(kind.into)
    ]


def _unknown(
    key: str,
    value: Any,
    path: str,
    owner: str,
    known: Mapping[str, str],
    elsewhere: Mapping[str, str],
    places: Sequence[str],
) -> list[Warning]:
    """places : where an option of just that name stands."""
    key = key if len(key) <= _NAME_CHARACTERS else key[:_NAME_CHARACTERS] + "…"
    name = f"{path}.{key}"
    if key in elsewhere:
        return [] if value is False else [Warning(name, f"{name} was ignored: {elsewhere[key]}")]
    near = places or get_close_matches(key.lower(), known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return [Warning(name, f"{name} is unknown to {owner} and was ignored{hint}")]


def with_ignored(error: F, warnings: Sequence[Warning]) -> F:
    """The error with what was ignored of the request: what is missing may stand there, misspelt or misplaced."""
    ignored = [each.message for each in warnings if " was ignored" in each.message][:_TOLD_MOST]
    if ignored:
        error.args = ("; ".join([str(error), *ignored]),)
    return error


def as_json(options: Any) -> dict[str, Any]:
    """An options dataclass as a JSON object under its JSON names, defaults included."""
    made: dict[str, Any] = {}
    for each in dataclasses.fields(options):
        value = getattr(options, each.name)
        if dataclasses.is_dataclass(value):
            value = as_json(value)
        elif isinstance(value, tuple):
            value = list(value)
        made[each.metadata["key"] or each.name] = value
    return made
