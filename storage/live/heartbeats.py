"""Which workers live, told by themselves."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from typing import cast

from storage.live.server import LiveServer

_LIFETIME_S = 15
INTERVAL_S = 5.0
"""How often a worker beats."""


@dataclass(frozen=True)
class Heartbeat:
    """A sign of life. `devices` are the kinds it computes on; `at` is by the worker's clock, for people only.

    memory_bytes : anonymous memory of the worker and all processes under it, 0 when it is not known.
    process : what no other process that ever beat under this name is called, empty when it is not known.
    has_namesake : whether another one beats under this name as well.
    """

    worker: str
    queues: tuple[str, ...]
    devices: tuple[str, ...] = ("cpu",)
    at: float = 0.0
    memory_bytes: int = 0
    process: str = ""
    has_namesake: bool = False


class Heartbeats:
    """Signs of life that vanish by themselves 15 s after the last one."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def beat(self, heartbeat: Heartbeat) -> Heartbeat | None:
        """Say that a worker lives; returns what was said last under its name, None when that was too long ago."""
        value = json.dumps({**asdict(heartbeat), "at": time.time()})
        with self._server.errors():
            last = self._server.redis.set(f"worker:{heartbeat.worker}", value, ex=_LIFETIME_S, get=True)
        return None if last is None else _read(cast("str", last))

    def end(self, worker: str) -> None:
        """Say that a worker stops."""
        with self._server.errors():
            self._server.redis.delete(f"worker:{worker}")

    def all(self) -> list[Heartbeat]:
        """Every worker seen within the last 15 s, by name."""
        found: dict[str, Heartbeat] = {}
        with self._server.errors():
            names = sorted(self._server.redis.scan_iter("worker:*", count=500))
            values = cast("list[str | None]", self._server.redis.mget(names)) if names else []
        for value in values:
            if value is not None:
                beat = _read(value)
                found[beat.worker] = beat
        return list(found.values())

    def queues(self) -> set[str]:
        """Every queue that a living worker serves."""
        return {queue for beat in self.all() for queue in beat.queues}

    def note_sweep(self) -> None:
        """Say that a sweep ended now."""
        with self._server.errors():
            self._server.redis.set("sweep", str(time.time()), ex=86400)

    def sweep_age_s(self) -> float | None:
        """Seconds since the last sweep ended; None when none is known."""
        with self._server.errors():
            value = self._server.redis.get("sweep")
        return None if value is None else max(0.0, time.time() - float(cast("str", value)))


def _read(value: str) -> Heartbeat:
    fields = json.loads(value)
    return Heartbeat(
        fields["worker"],
        tuple(fields["queues"]),
        tuple(fields["devices"]),
        fields["at"],
        # An older worker does not tell these.
        fields.get("memory_bytes", 0),
        fields.get("process", ""),
        fields.get("has_namesake", False),
    )
