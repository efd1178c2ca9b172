"""Requests per minute: counted in Redis for all processes, but let through here.

A process takes a share of what an account may send in a minute, and asks Redis again when that is used up, so that most
requests cost no way to Redis. What it took and does not use, about a fiftieth of the quota for each machine, is lost to
the others until the minute is over.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass, field

from storage.errors import LiveUnavailable
from storage.live import Live
from storage.live.allowance import WINDOW_S

_SHARES = 50
_AGAIN_S = 1.0
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Left:
    """What is left of a quota after a request, or none for it.

    is_allowed : whether the request may be answered. most : the quota. rest : requests left, as far as is known here.
    for_s : seconds until the count begins anew.
    """

    is_allowed: bool
    most: int
    rest: int
    for_s: float

    @property
    def refusal(self) -> str:
        """What is told when there is none left."""
        return f"this account may send {self.most} requests a minute, and has; try again after Retry-After"

    @property
    def headers(self) -> list[tuple[str, str]]:
        """The fields RateLimit-Policy and RateLimit of the IETF's draft, and Retry-After with a refusal."""
        seconds = max(1, round(self.for_s + 0.5))
        made = [
            ("ratelimit-policy", f'"requests";q={self.most};w={WINDOW_S}'),
            ("ratelimit", f'"requests";r={self.rest};t={seconds}'),
        ]
        return made if self.is_allowed else [*made, ("retry-after", str(seconds))]


@dataclass(frozen=True)
class Counted:
    """A request that was counted before Flask had it, for the account that it came from."""

    account_id: int
    left: Left


@dataclass
class _Share:
    """What this process may let through for one account until a moment of the monotonic clock."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    most: int = 0
    here: int = 0
    rest: int = 0
    until: float = 0.0

    def take(self, most: int) -> Left | None:
        """Use one; None when Redis has to be asked."""
        left_s = self.until - time.monotonic()
        if left_s <= 0 or most != self.most:
            return None
        if self.here == 0:
            return None if self.rest else Left(False, most, 0, left_s)
        self.here -= 1
        return Left(True, most, self.here + self.rest, left_s)


class Allowances:
    """The shares of one process. Safe to share between threads.

    processes : how many of its kind this machine runs.
    """

    def __init__(self, live: Live, processes: int = 1) -> None:
        self._live = live
        self._processes = processes
        self._shares: dict[int, _Share] = {}
        self._lock = threading.Lock()

    def take_kept(self, account_id: int, most: int) -> Left | None:
        """Count a request by what is here already; None when Redis has to be asked. Waits for nothing."""
        share = self._shares.get(account_id)
        if share is None:
            return None
        with self._lock:
            return share.take(most)

    def take(self, account_id: int, most: int) -> Left:
        """Count a request of an account that may send `most` a minute.

        While Redis is away, that many are let through in a second.
        """
        with self._lock:
            share = self._shares.setdefault(account_id, _Share())
        with share.lock:  # one asks; the others find what it brings
            left = self.take_kept(account_id, most)
            while left is None:
                self._ask(share, account_id, most)
                left = self.take_kept(account_id, most)
            return left

    def _ask(self, share: _Share, account_id: int, most: int) -> None:
        try:
            found = self._live.allowance.take(account_id, max(1, most // (_SHARES * self._processes)), most)
            here, rest, for_s = found.given, found.rest, max(0.001, found.for_s)
        except LiveUnavailable as error:
            _log.warning("requests are not counted, as Redis is away: %s", error)
            here, rest, for_s = most, 0, _AGAIN_S
        with self._lock:
            share.most, share.here, share.rest, share.until = most, here, rest, time.monotonic() + for_s
