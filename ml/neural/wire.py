"""The wire format of Protocol Buffers, as much of it as model files need, read without trust.

Source: "Encoding", the description of the format at protobuf.dev.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import Any

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5


class Broken(ValueError):
    """The bytes are no message."""


def fields(message: memoryview) -> Iterator[tuple[int, int, Any]]:
    """Number, wire type and value of every field: an int of a varint, else a view of the bytes. Raises Broken."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        number, kind = key >> 3, key & 7
        if number == 0:
            raise Broken("a field has the number 0")
        if kind == VARINT:
            value, at = _varint(message, at)
            yield number, kind, value
            continue
        if kind == BYTES:
            size, at = _varint(message, at)
        elif kind in (FIXED32, FIXED64):
            size = 4 if kind == FIXED32 else 8
        else:
            raise Broken(f"wire type {kind} is not in use")
        if size > len(message) - at:
            raise Broken("a field is longer than its message")
        yield number, kind, message[at : at + size]
        at += size


def varints(packed: memoryview) -> Iterator[int]:
    """The numbers of a packed field. Raises Broken."""
    at = 0
    while at < len(packed):
        value, at = _varint(packed, at)
        yield value


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """The number that begins at a place, and the place after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(message):
            raise Broken("a number has no end")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, at
    raise Broken("a number is too long")


def varint(number: int, value: int) -> bytes:
    """A field with a number that is not negative, an enumeration or a boolean."""
    return _key(number, VARINT) + _bare(value)


def real(number: int, value: float) -> bytes:
    """A field with a single-precision number."""
    return _key(number, FIXED32) + struct.pack("<f", value)


def nested(number: int, content: bytes | memoryview | Iterable[bytes]) -> bytes:
    """A field with a message, bytes or packed numbers."""
    joined = bytes(content) if isinstance(content, bytes | memoryview) else b"".join(content)
    return _key(number, BYTES) + _bare(len(joined)) + joined


def text(number: int, content: str) -> bytes:
    """A field with a text."""
    return nested(number, content.encode())


def packed(number: int, values: Iterable[int]) -> bytes:
    """A field with numbers that are not negative."""
    return nested(number, (_bare(value) for value in values))


def _key(number: int, kind: int) -> bytes:
    return _bare(number << 3 | kind)


def _bare(value: int) -> bytes:
    made = bytearray()
    while value >= 0x80:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    made.append(value)
    return bytes(made)
