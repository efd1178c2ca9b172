"""Addresses of other hosts in requests: which of them may be read at all. Asks nobody, and needs no library for S3."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from storage import fetch
from storage.errors import FetchForbidden

REMOTE = ("http://", "https://", "s3://")
"""How they begin."""

BUCKETS = "MODELYARD_DATA_S3_BUCKETS"
FOLDER = "it is a folder; give the addresses of its files"
"""What is said of a folder where a file is wanted."""

_SCHEME = "s3://"
_KEY_LIMIT_BYTES = 1024  # what S3 takes


@dataclass(frozen=True)
class Place:
    """What an address of S3 names: an object, or all objects in a folder."""

    bucket: str
    key: str

    @property
    def is_folder(self) -> bool:
        """Whether it can be no object: it has no key, or one with a slash at its end."""
        return not self.key or self.key.endswith("/")

    def __str__(self) -> str:
        return f"{_SCHEME}{self.bucket}/{self.key}"


def is_bucket(address: str) -> bool:
    """Whether an address is one of S3."""
    return address.startswith(_SCHEME)


def shown(address: str) -> str:
    """An address as messages and logs may tell it: without credentials."""
    return address[:200] if is_bucket(address) else fetch.shown(address)


def check(address: str, buckets: Sequence[str]) -> None:
    """Refuse what can be refused without asking anybody. Raises FetchForbidden."""
    if is_bucket(address):
        place_of(address, buckets)
    else:
        fetch.check_url(address)


def place_of(address: str, buckets: Sequence[str]) -> Place:
    """What an address names, if it lies in one of the `buckets`. Raises FetchForbidden."""
    bucket, _, key = address.removeprefix(_SCHEME).partition("/")
    if not buckets:
        raise FetchForbidden(f"no bucket may be read here; the operator names those that may in {BUCKETS}")
    if bucket not in buckets:
        raise FetchForbidden(f"bucket {bucket[:80]!r} may not be read; the operator names those that may in {BUCKETS}")
    if len(key.encode("utf-8", "replace")) > _KEY_LIMIT_BYTES or not (key == "" or key.isprintable()):
        raise FetchForbidden(f"the key must be printable, and have at most {_KEY_LIMIT_BYTES} bytes")
    return Place(bucket, key)
