"""Files of other hosts, in the cache of this machine: fetched once, and asked after whenever they are wanted again.

Beside the entries of the cache lies a record for each address, which says what was last fetched from it and how its
host knows it. The record is also the lock of those who want the same at one time: the kernel drops it when its holder
ends. Records are named by a digest, since addresses may hold credentials.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

import orjson

from storage import fetch
from storage.errors import FetchAbandoned, FetchFailed, StorageFull
from storage.fetch import Fetched, Known
from storage.landing import local_errors
from storage.objects.cache import Cache

_LOOK_S = 0.05
_RECORDS_KEPT_S, _CLEAN_S = 30 * 86400.0, 3600.0


@dataclass(frozen=True)
class Limits:
    """How much a file may take.

    timeout_s : for all of it. is_wanted : asked now and then whether anybody still waits for it.
    """

    bytes: int
    timeout_s: float
    is_wanted: Callable[[], bool]

    def clock(self) -> Callable[[], float]:
        """Begin now; what is returned tells the seconds that are left."""
        deadline = time.monotonic() + self.timeout_s
        return lambda: deadline - time.monotonic()


class Origin(Protocol):
    """A place that one file comes from."""

    @property
    def name(self) -> str:
        """The whole address, credentials included: what two who want the same have in common."""

    @property
    def shown(self) -> str:
        """The address as messages tell it."""

    def fetch(self, path: Path, known: Known | None, limits: Limits) -> Fetched | None:
        """Fetch the file to `path`; None when it is still the one that `known` tells of. Raises FetchFailed."""


@dataclass(frozen=True)
class WebOrigin:
    """A file at http(s). allow : hosts and networks that may be used although they are not public."""

    name: str
    allow: Sequence[str]

    @property
    def shown(self) -> str:
        """The address without credentials."""
        return fetch.shown(self.name)

    def fetch(self, path: Path, known: Known | None, limits: Limits) -> Fetched | None:
        """See `Origin`."""
        return fetch.fetch_changed(
            self.name,
            path,
            known,
            allow=self.allow,
            limit_bytes=limits.bytes,
            timeout_s=limits.timeout_s,
            is_wanted=limits.is_wanted,
        )


@dataclass(frozen=True)
class _Record:
    """What was fetched last, and when that was over, by the clock that all processes of this machine share."""

    sha256: str
    size: int
    at: float
    known: Known | None


class RemoteFiles:
    """What is kept of other hosts in a cache. Safe to share between threads and processes."""

    def __init__(self, cache: Cache, folder: Path) -> None:
        """folder : for the records; made when it is missing. Raises StoreUnavailable, StorageFull."""
        self._cache = cache
        self._records = folder
        self._cleaned_at = float("-inf")
        with local_errors("the records of fetched files cannot be kept"):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)

    def provide(self, origin: Origin, target: Path, limits: Limits) -> int:
        """Have the file of `origin` at `target`, in a room of the cache; returns its bytes.

        The host is asked each time, and sends the file only when it is another one than before. Who finds somebody
        fetching it takes what that one gets.
        Raises FetchFailed, StorageFull, StoreUnavailable.
        """
        began, left_s = time.monotonic(), limits.clock()
        if began - self._cleaned_at > _CLEAN_S:
            self._cleaned_at = began
            self.clean()
        with self._held(origin, left_s, limits) as file:
            with local_errors(f"{target.name} cannot be removed"):
                target.unlink(missing_ok=True)  # of a try that failed
            record = _read(file)
            is_here = record is not None and self._cache.take(record.sha256, record.size, target)
            if record is not None and is_here:
                if record.size > limits.bytes:
                    raise FetchFailed(f"{origin.shown} is larger than {limits.bytes} bytes")
                if began <= record.at <= time.monotonic():
                    return record.size
            limits = replace(limits, timeout_s=max(0.001, left_s()))
            known = record.known if record is not None and is_here else None
            fetched = self._fetch(origin, target, known, limits)
            if fetched is None:
                assert record is not None
                return record.size
            self._cache.keep(fetched.sha256, fetched.size, target)
            _write(file, _Record(fetched.sha256, fetched.size, time.monotonic(), fetched.known))
            return fetched.size

    def clean(self) -> None:
        """Forget addresses that nobody asked for in a month."""
        with local_errors("the records of fetched files cannot be cleaned"), os.scandir(self._records) as records:
            for each in records:
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - each.stat().st_mtime > _RECORDS_KEPT_S:
                        # Whoever holds it now fetches once more than needed, at worst.
                        os.unlink(each.path)

    def _fetch(self, origin: Origin, target: Path, known: Known | None, limits: Limits) -> Fetched | None:
        try:
            return origin.fetch(target, known, limits)
        except StorageFull:
            self._cache.trim(self._cache.limit_bytes)
            return origin.fetch(target, known, limits)

    @contextlib.contextmanager
    def _held(self, origin: Origin, left_s: Callable[[], float], limits: Limits) -> Iterator[int]:
        """The record of an address, open, which nobody else reads or writes meanwhile. Raises FetchFailed."""
        path = self._records / hashlib.sha256(origin.name.encode()).hexdigest()
        with local_errors("the record of a fetched file cannot be opened"):
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while not _locked(file):
                if not limits.is_wanted():
                    raise FetchAbandoned(f"{origin.shown} is not wanted any more")
                if left_s() <= 0:
                    raise FetchFailed(f"{origin.shown} did not come within {limits.timeout_s:g} seconds")
                time.sleep(_LOOK_S)
            with local_errors("the record of a fetched file cannot be touched"):
                os.utime(file)
            yield file
        finally:
            os.close(file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _read(file: int) -> _Record | None:
    """None for a record that is new, or half written by somebody who was killed."""
    try:
        told = orjson.loads(os.pread(file, 1 << 16, 0))
        known = told.pop("known")
        return _Record(**told, known=None if known is None else Known(**known))
    except (orjson.JSONDecodeError, TypeError, KeyError, AttributeError):
        return None


def _write(file: int, record: _Record) -> None:
    with local_errors("the record of a fetched file cannot be written"):
        os.ftruncate(file, 0)
        os.pwrite(file, orjson.dumps(asdict(record)), 0)
