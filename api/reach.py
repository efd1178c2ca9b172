"""Asks other hosts whether they have the data of a training, and how it begins, before it waits for its turn.

What is told is what the worker would be told as well. A host that is slow, refuses or is in trouble may be well again
until the training starts; so nothing is said of it. In a fleet the workers may have other names, networks and settings
than this process, so what follows from these is left to them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING

from ml.errors import BadInput
from settings import Settings
from storage import fetch
from storage.errors import FetchFailed, NoSuchFile
from storage.fetch import Seen
from storage.remote_address import FOLDER, is_bucket, place_of, shown

if TYPE_CHECKING:
    from storage.buckets import Buckets

_LOOKED_AT = 4
# Hosts that take their time must not hold all threads of the API: beyond these, trainings are accepted unseen.
_asking = threading.BoundedSemaphore(4)


def check(settings: Settings, entries: Sequence[str], count: int, judge: Callable[[str, bytes, int], None]) -> None:
    """Raises BadInput for an address, of http(s) or S3, where there is no data to read, and what `judge` raises.

    judge : called with each address whose host gives the beginning of its file for nothing, with the first `count`
    bytes, or all if it has fewer, and with the size of the whole.
    """
    if not entries or not settings.precheck_timeout_s or not _asking.acquire(blocking=False):
        return
    try:
        deadline = time.monotonic() + settings.precheck_timeout_s
        for entry in list(dict.fromkeys(entries))[:_LOOKED_AT]:
            left_s = deadline - time.monotonic()
            if left_s > 0:
                seen = _seen(settings, entry, count, left_s)
                if seen.size == 0:
                    raise BadInput(f"missing data: {shown(entry)} is empty")
                if seen.size is not None and seen.beginning is not None:
                    judge(entry, seen.beginning, seen.size)
    finally:
        _asking.release()


def _seen(settings: Settings, entry: str, count: int, left_s: float) -> Seen:
    try:
        if is_bucket(entry):
            return _in_bucket(settings, entry, count, left_s)
        return fetch.look(entry, count, allow=settings.fetch_allow, timeout_s=left_s)
    except FetchFailed as error:
        if settings.redis_url is not None and not isinstance(error, NoSuchFile):
            return Seen()
        raise BadInput(f"data cannot be read from {shown(entry)!r}: {error}") from None


def _in_bucket(settings: Settings, entry: str, count: int, left_s: float) -> Seen:
    place = place_of(entry, settings.data_s3_buckets)
    if place.is_folder:
        raise NoSuchFile(FOLDER)
    buckets = _buckets(settings.data_endpoint_url, settings.data_s3_profile, settings.precheck_timeout_s)
    return Seen() if buckets is None else buckets.look(place, count, left_s)


@cache
def _buckets(endpoint_url: str | None, profile: str | None, hurry_s: float) -> Buckets | None:
    """None where there is no library for S3, which the workers may have."""
    try:
        from storage.buckets import Buckets
    except ImportError as error:
        if error.name not in {"boto3", "botocore"}:
            raise
        return None
    return Buckets(endpoint_url, profile, hurry_s=hurry_s)
