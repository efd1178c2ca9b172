"""Whether a drain had better wait a moment for the callers that it just answered.

Many callers ask anew as soon as they are answered, and come back one by one within a millisecond or two. A drain that
goes on at once computes the first of them alone and lets the others wait for a whole call, although a network takes
hardly longer for all of them than for one. So what a call costs whatever its rows is measured, and where it is long, a
small part of it is spent on waiting until as many have come as were served before.
"""

from __future__ import annotations

import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

LEAST_S = 0.004
"""A call that costs less beyond its rows is not worth waiting for: what waits costs round trips itself."""

_SHARE = 0.25
_MOST_S = 0.010
_LEAST_SHARE = 0.02
_STEP_S = 0.0003
_KEPT = 256


@dataclass
class _List:
    """What is known of a list of requests.

    calls : rows and seconds of calls, by the power of two of their rows, newer ones counting for half.
    share : of what a call costs beyond its rows, how much is worth waiting.
    """

    calls: dict[int, tuple[float, float]] = field(default_factory=dict)
    share: float = _SHARE


class Gathering:
    """What calls cost, by the lists whose requests they compute, and how long to wait before the next one."""

    def __init__(
        self, sleep: Callable[[float], None] = time.sleep, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lists: OrderedDict[str, _List] = OrderedDict()
        self._sleep, self._clock = sleep, clock

    def note(self, name: str, rows: int, seconds: float) -> None:
        """Note what a call for some requests of a list took; one that is quick whatever its rows need not be known."""
        if rows < 1 or seconds < LEAST_S / 2:
            return
        known = self._lists.setdefault(name, _List())
        self._lists.move_to_end(name)
        if len(self._lists) > _KEPT:
            self._lists.popitem(last=False)
        size = rows.bit_length()
        before = known.calls.get(size, (float(rows), seconds))
        known.calls[size] = (before[0] + rows) / 2, (before[1] + seconds) / 2

    def patience_s(self, name: str) -> float:
        """How long the next call for a list may be put off, in seconds; 0 where waiting does not pay."""
        known = self._lists.get(name)
        if known is None:
            return 0.0
        fixed = _fixed_s(known.calls)
        return min(_MOST_S, known.share * fixed) if fixed >= LEAST_S else 0.0

    def wait(self, name: str, answered: int, waiting: int, count: Callable[[], int | None]) -> None:
        """Wait until the requests of a list are as many as if all who were answered had come back, or `patience_s`.

        answered : requests that were answered just now. waiting : those that waited then. count : how many wait now;
        None, which ends it, when requests of other lists wait too.
        """
        wanted, now = answered + waiting, self._clock()
        until, came = now + self.patience_s(name), waiting
        if wanted < 2:
            return  # one caller gains nothing
        while came < wanted and self._clock() < until:
            self._sleep(_STEP_S)
            counted = count()
            if counted is None:
                return
            came = counted
        known = self._lists[name]
        # Where callers do not come back, trying it costs less and less.
        failed = came - waiting < answered / 2
        known.share = max(_LEAST_SHARE, known.share / 2) if failed else _SHARE


def _fixed_s(calls: dict[int, tuple[float, float]]) -> float:
    """What a call costs whatever its rows, in seconds: where the line through what is known begins."""
    if len(calls) < 2:
        return 0.0
    rows = [each for each, _ in calls.values()]
    seconds = [each for _, each in calls.values()]
    return max(0.0, min(statistics.linear_regression(rows, seconds).intercept, *seconds))
