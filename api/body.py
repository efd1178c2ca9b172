"""One reader of request bodies: JSON whatever the content type says, as DeepDetect's clients send it."""

from __future__ import annotations

import json
import zlib
from typing import Any

import orjson
from flask import request

from api.refusals import BadBody, BadJson, BodyTooLarge, EncodingUnknown

Json = dict[str, Any]

DEPTH_LIMIT = 64

BRACKETS_MOST = 100_000
"""Arrays and objects of a body, those in its texts too: to look through them takes time, and each takes memory."""

_UNUSUAL = b"\\u"
_UNZIPPED_STEP = 1 << 20
_UNZIPPED_TIMES, _UNZIPPED_ALWAYS = 200, 16 << 20
_PATIENT_BYTES = 16 << 20


def read_object(limit_bytes: int) -> Json:
    """The body of the current request as a JSON object.

    limit_bytes : largest body, also after it was unzipped.
    NaN and Infinity are read as numbers, of a name given twice the last one counts.
    Raises BadJson, BadBody, BodyTooLarge, EncodingUnknown.
    """
    return parse_object(_raw(limit_bytes))


def _raw(limit_bytes: int) -> bytes:
    data = request.get_data(cache=False)
    packed_bytes, encoding = len(data), _encoding()
    if encoding in {"", "identity"}:
        return data
    if encoding not in {"gzip", "x-gzip", "deflate"}:
        raise EncodingUnknown(f"the body is encoded as {encoding[:40]!r}; send it plain, or as gzip or deflate")
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 32)  # 32: gzip and zlib are told apart by their headers
    whole = bytearray()
    try:
        while data and not unzip.eof:
            whole += unzip.decompress(data, _UNZIPPED_STEP)
            if len(whole) > limit_bytes:
                raise BodyTooLarge(f"the unzipped body is larger than {limit_bytes} bytes")
            if len(whole) > max(_UNZIPPED_ALWAYS, _UNZIPPED_TIMES * packed_bytes):
                raise BodyTooLarge(f"the unzipped body is larger than {_UNZIPPED_TIMES} times what was sent")
            data = unzip.unconsumed_tail
    except zlib.error:
        raise BadJson(f"the body is not {encoding}, although Content-Encoding says so") from None
    if not unzip.eof:
        raise BadJson(f"the {encoding} body is cut off")
    return bytes(whole)


def check_plain() -> None:
    """Raises EncodingUnknown when the body of the current request, which is no JSON, is packed."""
    if _encoding() not in {"", "identity"}:
        raise EncodingUnknown(f"the body is encoded as {_encoding()[:40]!r}; files are sent as they are")


def _encoding() -> str:
    return request.headers.get("Content-Encoding", "").strip().lower()


def parse_object(data: bytes) -> Json:
    """A JSON object from UTF-8. Raises BadJson and BadBody."""
    value = _parse(data)
    if not isinstance(value, dict):
        raise BadBody(f"the body is {_kind(value)}; it must be a JSON object")
    return value


def _parse(data: bytes) -> Any:
    brackets = data.count(b"[") + data.count(b"{")
    if brackets > BRACKETS_MOST:
        raise BadJson(f"the body holds more than {BRACKETS_MOST} brackets; send so much as a file")
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        value = _patiently(data, error)
    if brackets > DEPTH_LIMIT and _depth_exceeds(value, DEPTH_LIMIT):
        raise BadJson(_too_deep())
    # One letter is looked for ten times as fast as two.
    if b"\\" in data and _UNUSUAL in data:
        _check_texts(value)
    return value


def _patiently(data: bytes, error: orjson.JSONDecodeError) -> Any:
    """The value by a reader that takes NaN too, and has the words for everything else that is wrong."""
    if not data.strip():
        raise BadJson("the body is empty; it must be a JSON object")
    if len(data) > _PATIENT_BYTES:  # nobody else gets a turn while it reads
        raise BadJson(f"the body is no JSON: {error.msg} at line {error.lineno} column {error.colno}")
    try:
        return json.loads(data.decode("utf-8-sig"), parse_int=_whole)
    except UnicodeDecodeError as wrong:
        raise BadJson(f"the body is not UTF-8: byte {wrong.start} cannot be read") from None
    except RecursionError:
        raise BadJson(_too_deep()) from None
    except json.JSONDecodeError as wrong:
        raise BadJson(f"the body is no JSON: {wrong.msg} at line {wrong.lineno} column {wrong.colno}") from None
    except ValueError:
        raise BadJson("the body holds a number with too many digits") from None


def _whole(digits: str) -> int | float:
    """A whole number as the quick reader has it: a real one where 64 bits are too few. Raises ValueError."""
    number = int(digits)
    return number if -(2**63) <= number < 2**64 else float(digits)


def _too_deep() -> str:
    return f"the body is nested deeper than {DEPTH_LIMIT} levels"


def _depth_exceeds(value: Any, limit: int) -> bool:
    level = [value]
    for _ in range(limit + 1):
        level = [
            child
            for each in level
            if isinstance(each, dict | list)
            for child in (each.values() if isinstance(each, dict) else each)
            if isinstance(child, dict | list)
        ]
        if not level:
            return False
    return True


def _check_texts(value: Any) -> None:
    """Escapes can spell what no database and no file keeps: NUL and halves of character pairs."""
    if isinstance(value, str):
        if "\0" in value or any("\ud800" <= each <= "\udfff" for each in value):
            raise BadJson("the body holds a text with NUL or half a surrogate pair, which cannot be kept")
    elif isinstance(value, dict):
        for key, each in value.items():
            _check_texts(key)
            _check_texts(each)
    elif isinstance(value, list):
        for each in value:
            _check_texts(each)


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "a text", list: "an array"}
    return names[type(value)]
