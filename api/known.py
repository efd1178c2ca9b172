"""What is known of the services that are asked for predictions, so that most requests need no SQL.

It is read again after a second, and at once when the mark of changes is another one: see `storage.live.changes`.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from storage.live import Live
from storage.records import Records, Service, Version

_FRESH_S, _MARKED_S = 1.0, 10.0
_KEPT = 4096


@dataclass
class Known:
    """A service and its newest version, None while there is none, as they were at a mark of changes.

    questions : what was made of parameters of requests, by those parameters as JSON.
    """

    service: Service
    version: Version | None
    mark: str
    read_at: float
    questions: dict[bytes, Any] = field(default_factory=dict)


class KnownServices:
    """Services by account and name. Safe to share between threads."""

    def __init__(self, records: Records, live: Live) -> None:
        self._records, self._live = records, live
        self._lock = threading.Lock()
        self._kept: dict[tuple[int, str], Known] = {}

    def find(self, account_id: int, name: str, *, stale: Known | None = None) -> Known:
        """The service of that name; `stale` is what was found before and is not to be believed any more.

        Raises ServiceNotFound, RecordsUnavailable, LiveUnavailable.
        """
        key = (account_id, name)
        kept = self._kept.get(key)
        if kept is not None and kept is not stale and time.monotonic() - kept.read_at < _FRESH_S:
            return kept
        return self._read(key)

    def kept(self, account_id: int, name: str) -> Known | None:
        """What is known of a service, to be believed while its mark is the one of now; None when there is nothing."""
        kept = self._kept.get((account_id, name))
        return kept if kept is not None and time.monotonic() - kept.read_at < _MARKED_S else None

    def _read(self, key: tuple[int, str]) -> Known:
        # The mark first: what changes after it makes the next look read again.
        mark, now = self._live.changes.current(), time.monotonic()
        service = self._records.services.find(*key)
        version = self._records.versions.newest_or_none(service.repository_id)
        with self._lock:
            before = self._kept.get(key)
            known = Known(service, version, mark, now)
            if before is not None and (before.service, before.version) == (service, version):
                known.questions = before.questions
            if len(self._kept) >= _KEPT:
                self._kept.clear()
            self._kept[key] = known
        return known
