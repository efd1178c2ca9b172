"""Requests of many threads, sent together: one trip to Redis for all that came while the last one was under way."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from storage.errors import LiveUnavailable
from storage.live import Request, Waiter

_MOST = 64
_TRIPS = 4


@dataclass(frozen=True)
class Posted:
    """A request, and who waits for its answer."""

    request: Request
    waiter: Waiter


class Outbox:
    """The way of one process into one lane. Safe to share between threads.

    Whoever finds nobody sending sends for all; the others wait for their answers only, and are told there when
    something is wrong. A lone request goes at once.
    """

    def __init__(self, append: Callable[[Sequence[Posted]], None]) -> None:
        self._append = append
        self._posted: deque[Posted] = deque()
        self._sending = threading.Lock()

    def send(self, request: Request, waiter: Waiter) -> None:
        """Send a request, now or together with others; errors come out of `waiter.wait`."""
        self._posted.append(Posted(request, waiter))
        trips = 0
        # After letting go, look again: who came in between found somebody sending, and waits.
        while self._posted and self._sending.acquire(blocking=False):
            try:
                self._trip()
            finally:
                self._sending.release()
            trips += 1
            if trips == _TRIPS and self._posted:
                # Enough for one caller, who has an answer to wait for as well.
                threading.Thread(target=self._go_on, name="outbox", daemon=True).start()
                return

    def _go_on(self) -> None:
        while self._posted and self._sending.acquire(blocking=False):
            try:
                self._trip()
            finally:
                self._sending.release()

    def _trip(self) -> None:
        together: list[Posted] = []
        while self._posted and len(together) < _MOST:
            together.append(self._posted.popleft())
        if not together:
            return
        try:
            self._append(together)
        except LiveUnavailable as error:
            for each in together:
                each.waiter.fail(error)
        except BaseException:
            for each in together:
                each.waiter.fail(LiveUnavailable("the request could not be sent"))
            raise
