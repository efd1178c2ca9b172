"""The `data` of a request: an array of texts, each a path or a line."""

from __future__ import annotations

import json
import time
import uuid
from typing import Any

import orjson

from api.parts import Parts
from ml.errors import BadInput
from ml.options.loading import shown
from storage import remote_address
from storage.dataset_names import SCHEME
from storage.errors import FetchForbidden
from storage.remote_address import REMOTE

_PATHS = ("/", "./", "../", "file://")
_LOOKED_AT = 1000


def entries_of(given: Any) -> list[str]:
    """The entries as they were sent. Raises BadInput."""
    if not isinstance(given, list) or not given:
        example = f", as in [{json.dumps(given[:80])}]" if isinstance(given, str) else ""
        raise BadInput(f"missing data: data must be an array of texts, with at least one{example}")
    for each in given:
        if not isinstance(each, str):
            raise BadInput(
                f'missing data: data must hold texts only: paths, or lines, each a whole row as in "5.1,3.5"; '
                f"{shown(each)} is none"
            )
    return given


def check_paths(parts: Parts, entries: list[str]) -> None:
    """Raises OutsideDataRoots for a path that leads out of the data roots, BadInput for an address that is none to use.

    Looks at what can only be a path, and at no more than a request with files has: every entry is looked at by the
    worker, which need not answer a client in milliseconds.
    """
    for each in entries[:_LOOKED_AT]:
        if each.startswith(REMOTE) and entries[0].startswith(REMOTE):
            _check_address(parts, each)
        elif each.startswith(_PATHS) and parts.data_roots.looks_like_path(each):
            parts.data_roots.resolve(each)


def _check_address(parts: Parts, entry: str) -> None:
    try:
        remote_address.check(entry, parts.settings.data_s3_buckets)
    except FetchForbidden as error:
        raise BadInput(f"data cannot be read from {remote_address.shown(entry)!r}: {error}") from None


def are_remote(entries: list[str]) -> bool:
    """Whether entries are files of which a worker may have to fetch some from other hosts."""
    return any(each.startswith(REMOTE) for each in entries[:_LOOKED_AT])


def are_elsewhere(entries: list[str]) -> bool:
    """Whether entries are files of other hosts or of data sets, which a worker has to fetch first."""
    return any(each.startswith((*REMOTE, SCHEME)) for each in entries[:_LOOKED_AT])


def is_bulky(entries: list[str], limit_bytes: int) -> bool:
    """Whether entries are larger together than what may travel inside a record or a message."""
    total = 0
    for each in entries:
        total += len(each)  # characters first: mostly enough, and without a copy
        if total > limit_bytes:
            return True
    return total * 4 > limit_bytes and sum(len(each.encode()) for each in entries) > limit_bytes


def store(parts: Parts, entries: list[str]) -> str:
    """Put bulky entries into the object store; the age in the key lets a forgotten one be found.

    They are written as workers hand them on, which read them once only: without blanks.
    """
    key = f"inputs/{int(time.time())}-{uuid.uuid4().hex}.json"
    parts.objects.put_bytes(key, orjson.dumps(entries))
    return key
