"""Data of other hosts for predictions, fetched beside those that are computed meanwhile.

A worker process computes for many callers one after the other, so it never waits for a host. A request whose data are
not here is answered with that, at once, and asked again under its own number by the API until they are. What was
fetched for a number is kept for it only: the next request asks the host again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from storage.errors import FetchAbandoned
from workers.asked import DATA_COMING
from workers.fetching import Fetch, fetching
from workers.parts import Parts
from workers.queue import Overloaded

_AT_ONCE = 32
_SHARE = 0.9
_PATIENCE_S = 15.0
Json = dict[str, Any]


class DataComing(Exception):
    """The data of a request are being fetched."""

    kind = DATA_COMING


@dataclass
class _Errand:
    """What is fetched for one request; over when it is answered, or when nobody asked for long."""

    asked_at: float
    done: threading.Event = field(default_factory=threading.Event)
    over: threading.Event = field(default_factory=threading.Event)
    is_in_use: bool = False
    found: list[list[Json]] = field(default_factory=list)
    error: Exception | None = None


class Errands:
    """The fetches of one worker process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._errands: dict[bytes, _Errand] = {}
        self._changing = threading.Lock()

    def of(self, request: bytes) -> Fetch:
        """What fetches for a request. Raises DataComing until all has come, then BadInput when something cannot."""

        def fetch(entries: Sequence[str], with_folders: bool) -> list[list[Json]]:
            with self._changing:
                errand = self._errands.get(request) or self._begin(request, entries, with_folders)
                errand.asked_at = time.monotonic()
                if not errand.done.is_set():
                    raise DataComing
                errand.is_in_use = True
            if errand.error is not None:
                raise errand.error
            return errand.found

        return fetch

    def end(self, request: bytes) -> None:
        """Give up what was fetched for a request that is answered; what came a moment too late is kept for the next."""
        with self._changing:
            errand = self._errands.get(request)
            if errand is None or not errand.is_in_use:
                return
            del self._errands[request]
        errand.over.set()

    def _begin(self, request: bytes, entries: Sequence[str], with_folders: bool) -> _Errand:
        if len(self._errands) >= _AT_ONCE:
            raise Overloaded(f"{_AT_ONCE} predictions of this worker wait for other hosts already; try again later")
        errand = self._errands[request] = _Errand(time.monotonic())
        about = (request, errand, list(entries), with_folders)
        threading.Thread(target=self._run, args=about, name="errand", daemon=True).start()
        return errand

    def _run(self, request: bytes, errand: _Errand, entries: list[str], with_folders: bool) -> None:
        def is_wanted() -> bool:
            return errand.is_in_use or time.monotonic() - errand.asked_at < _PATIENCE_S

        settings = self._parts.settings
        # The caller is to hear why, and not only that the time is over.
        within_s = settings.predict_timeout_s * _SHARE
        try:
            with fetching(settings, self._parts.cache, within_s=within_s, is_wanted=is_wanted) as fetch:
                try:
                    errand.found = fetch(entries, with_folders)
                except FetchAbandoned:
                    return
                except Exception as error:
                    errand.error = error
                errand.done.set()
                while not errand.over.wait(_PATIENCE_S / 4):
                    with self._changing:
                        if not is_wanted():
                            self._errands.pop(request, None)
                            return
        finally:
            with self._changing:
                if self._errands.get(request) is errand:
                    del self._errands[request]
