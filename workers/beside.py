"""Data of other hosts and of large data sets for predictions, fetched beside those that are computed meanwhile.

A worker process computes for many callers one after the other, so it never waits for a host. A request whose data are
not here is answered with that, at once, and asked again under its own number by the API until they are. What was
fetched for a number is kept for it only: the next request asks the host again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

from storage.errors import FetchAbandoned
from workers.asked import DATA_COMING
from workers.datasets import Fetched, Named, held
from workers.fetching import Fetch, fetching
from workers.parts import Parts
from workers.queue import Overloaded

_AT_ONCE = 32
_SHARE = 0.9
_PATIENCE_S = 15.0
Json = dict[str, Any]


_Key = tuple[bytes, str]
_Bring = Callable[[ExitStack, Callable[[], bool]], Any]
"""Brings data here, to be kept until the stack is closed; the function says whether anybody still wants them."""


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
    found: Any = None
    error: Exception | None = None


class Errands:
    """The fetches of one worker process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._errands: dict[_Key, _Errand] = {}
        self._changing = threading.Lock()

    def of(self, request: bytes) -> Fetch:
        """What fetches for a request. Raises DataComing until all has come, then BadInput when something cannot."""

        def fetch(entries: Sequence[str], with_folders: bool) -> list[list[Json]]:
            given = list(entries)

            def bring(kept: ExitStack, is_wanted: Callable[[], bool]) -> list[list[Json]]:
                settings = self._parts.settings
                # The caller is to hear why, and not only that the time is over.
                within_s = settings.predict_timeout_s * _SHARE
                made = fetching(settings, self._parts.cache, within_s=within_s, is_wanted=is_wanted)
                return kept.enter_context(made)(given, with_folders)

            found: list[list[Json]] = self._brought((request, "hosts"), bring)
            return found

        return fetch

    def of_datasets(self, request: bytes, wanted: Named) -> Fetched:
        """The files of data sets, for a request. Raises DataComing until all are here, then as `held` does."""
        found: Fetched = self._brought(
            (request, "data sets"), lambda kept, is_wanted: kept.enter_context(held(self._parts, wanted))
        )
        return found

    def end(self, request: bytes) -> None:
        """Give up what was fetched for a request that is answered; what came a moment too late is kept for the next."""
        for key in ((request, "hosts"), (request, "data sets")):
            with self._changing:
                errand = self._errands.get(key)
                if errand is None or not errand.is_in_use:
                    continue
                del self._errands[key]
            errand.over.set()

    def _brought(self, key: _Key, bring: _Bring) -> Any:
        with self._changing:
            errand = self._errands.get(key) or self._begin(key, bring)
            errand.asked_at = time.monotonic()
            if not errand.done.is_set():
                raise DataComing
            errand.is_in_use = True
        if errand.error is not None:
            raise errand.error
        return errand.found

    def _begin(self, key: _Key, bring: _Bring) -> _Errand:
        if len(self._errands) >= _AT_ONCE:
            raise Overloaded(f"{_AT_ONCE} predictions of this worker wait for their data already; try again later")
        errand = self._errands[key] = _Errand(time.monotonic())
        threading.Thread(target=self._run, args=(key, errand, bring), name="errand", daemon=True).start()
        return errand

    def _run(self, key: _Key, errand: _Errand, bring: _Bring) -> None:
        def is_wanted() -> bool:
            return errand.is_in_use or time.monotonic() - errand.asked_at < _PATIENCE_S

        try:
            with ExitStack() as kept:
                try:
                    errand.found = bring(kept, is_wanted)
                except FetchAbandoned:
                    return
                except Exception as error:
                    errand.error = error
                errand.done.set()
                while not errand.over.wait(_PATIENCE_S / 4):
                    with self._changing:
                        if not is_wanted():
                            self._errands.pop(key, None)
                            return
        finally:
            with self._changing:
                if self._errands.get(key) is errand:
                    del self._errands[key]
