"""JSON as answers hold it: what JSON lacks is left out."""

from __future__ import annotations

import math
from typing import Any

import orjson


def dump(value: Any) -> bytes:
    """A JSON value; what JSON lacks (NaN, infinities) is dropped from objects and null in arrays."""
    content = orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS)
    # A null may be meant; only where there is one can there have been such a number.
    return orjson.dumps(finite(value), option=orjson.OPT_NON_STR_KEYS) if b"null" in content else content


def finite(value: Any) -> Any:
    """The same JSON value without NaN and infinities: dropped from objects, null in arrays."""
    if isinstance(value, dict):
        return {key: finite(each) for key, each in value.items() if not _is_wild(each)}
    if isinstance(value, list | tuple):
        return [None if _is_wild(each) else finite(each) for each in value]
    return None if _is_wild(value) else value


def _is_wild(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)
