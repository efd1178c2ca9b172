"""Predictions under way: a request waits under its own key, the answer comes through a list of its own.

The message that wakes the worker carries the request's id only. Nothing here is durable: a caller that gets no
answer in time is told so.
"""

from __future__ import annotations

import json
from typing import Any, cast

from storage.live.server import LiveServer


class Exchange:
    """Requests and replies by request id."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def ask(self, request_id: str, request: dict[str, Any], lifetime_s: float) -> None:
        """Leave a request for a worker."""
        with self._server.errors():
            self._server.redis.set(f"request:{request_id}", json.dumps(request), px=_milliseconds(lifetime_s))

    def take(self, request_id: str) -> tuple[dict[str, Any], float] | None:
        """The request and the seconds its caller still waits; None when it was taken already or nobody waits."""
        key = f"request:{request_id}"
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=True)
            pipe.pttl(key)
            pipe.getdel(key)
            left_ms, value = cast("tuple[int, str | None]", tuple(pipe.execute()))
        return None if value is None else (json.loads(value), max(left_ms, 0) / 1000)

    def withdraw(self, request_id: str) -> None:
        """Take a request back: its caller is gone."""
        with self._server.errors():
            self._server.redis.delete(f"request:{request_id}")

    def answer(self, request_id: str, answer: dict[str, Any]) -> None:
        """Send the answer to whoever waits."""
        key = f"reply:{request_id}"
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=True)
            pipe.rpush(key, json.dumps(answer))
            pipe.expire(key, 60)
            pipe.execute()

    def wait(self, request_id: str, timeout_s: float) -> dict[str, Any] | None:
        """The answer, or None after `timeout_s` seconds."""
        # Blocks for less than the socket's timeout at a time, so that a dead server is noticed.
        left = timeout_s
        while left > 0:
            step = min(0.5, left)
            with self._server.errors():
                found = cast("tuple[str, str] | None", self._server.redis.blpop([f"reply:{request_id}"], timeout=step))
            if found is not None:
                answer: dict[str, Any] = json.loads(found[1])
                return answer
            left -= step
        return None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
