"""How attempts at tasks ended and how long they took, counted for Prometheus. Lost with Redis: a counter that begins
anew.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field
from typing import cast

from storage.live.server import LiveServer

BOUNDS_S = (0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0, 4 * 3600.0, 24 * 3600.0)
"""Upper bounds of the classes that attempts are counted in, in seconds; the last class has none."""

_KEY = "endings"
_LIFETIME_S = 30 * 86400


@dataclass
class Ending:
    """Attempts of a kind of task that ended in one way.

    count : all of them. timed : how many took how long, by the classes of BOUNDS_S and one more. seconds : their sum.
    """

    count: int = 0
    timed: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS_S) + 1))
    seconds: float = 0.0


class Endings:
    """Counters by kind of task and outcome. They stand here because processes that train may end with their task."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def note(self, kind: str, outcome: str, seconds: float | None = None) -> None:
        """Count an attempt that ended; `seconds` None when nobody knows how long it took."""
        name = f"{kind}:{outcome}"
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=False)
            pipe.hincrby(_KEY, f"{name}:count", 1)
            if seconds is not None:
                pipe.hincrby(_KEY, f"{name}:{bisect_left(BOUNDS_S, seconds)}", 1)
                pipe.hincrbyfloat(_KEY, f"{name}:seconds", seconds)
            pipe.expire(_KEY, _LIFETIME_S)
            pipe.execute()

    def all(self) -> dict[tuple[str, str], Ending]:
        """Everything that was counted, by kind and outcome."""
        with self._server.errors():
            held = cast("dict[str, str]", self._server.redis.hgetall(_KEY))
        found: dict[tuple[str, str], Ending] = {}
        for name, value in held.items():
            kind, outcome, what = name.split(":")
            ending = found.setdefault((kind, outcome), Ending())
            if what == "count":
                ending.count = int(value)
            elif what == "seconds":
                ending.seconds = float(value)
            else:
                ending.timed[int(what)] = int(value)
        return found
