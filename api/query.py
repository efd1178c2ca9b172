"""Query strings as DeepDetect reads them: dotted names nest, values find their types."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from enum import StrEnum
from typing import Any, TypeVar

from api.refusals import BadQuery

Json = dict[str, Any]
E = TypeVar("E", bound=StrEnum)

_TEXTS = frozenset({"service"})  # a service may be named 42
_WHOLE = re.compile(r"[+-]?[0-9]{1,18}")
_REAL = re.compile(r"[+-]?[0-9]{0,18}\.[0-9]{1,18}")
_BOOLEANS = {"true": True, "false": False}
_FLAGS = {**_BOOLEANS, "1": True, "0": False}
_DEPTH_LIMIT = 8


def as_object(arguments: Iterable[tuple[str, str]]) -> Json:
    """The JSON object that a query string stands for.

    `job=1` is a number, `True` a boolean, anything else a text; `parameters.output.max_hist_points=100` nests, and
    several dotted names merge. `service` stays a text. Of a name given twice the last one counts.
    """
    made: Json = {}
    for name, value in arguments:
        *outer, last = name.split(".", _DEPTH_LIMIT)
        at = made
        for part in outer:
            inner = at.get(part)
            if not isinstance(inner, dict):
                inner = at[part] = {}
            at = inner
        at[last] = value if name in _TEXTS else _typed(value)
    return made


def _typed(value: str) -> Any:
    if value.lower() in _BOOLEANS:
        return _BOOLEANS[value.lower()]
    if _WHOLE.fullmatch(value):
        return int(value)
    return float(value) if _REAL.fullmatch(value) else value


def whole_number(text: str) -> int | None:
    """A number as queries and addresses hold it: digits alone, at most 18; None for any other text."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else None


def choice(kinds: type[E], name: str, value: str | None) -> E | None:
    """One of a few words of the query string; None when it is absent. Raises BadQuery."""
    if value is None:
        return None
    found = next((kind for kind in kinds if kind == value), None)
    if found is None:
        raise BadQuery(f"{name} is {value[:40]!r}; use one of {', '.join(kinds)}")
    return found


def flag(arguments: Mapping[str, str], name: str, default: bool) -> bool:
    """A boolean of the query string: true, false, 1 or 0. Raises BadQuery."""
    value = arguments.get(name)
    if value is None:
        return default
    if value.lower() not in _FLAGS:
        raise BadQuery(f"{name} must be a boolean value")
    return _FLAGS[value.lower()]


def check_known(arguments: Iterable[str], known: Iterable[str]) -> None:
    """Raises BadQuery, naming the nearest known one, when a query parameter is unknown."""
    known = sorted(known)
    for name in arguments:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "use " + (", ".join(known) or "none")
            raise BadQuery(f"query parameter {name[:80]!r} is unknown; {hint}")
