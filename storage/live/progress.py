"""What a running task tells while it runs. The records get the same at its end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

from storage.live.server import LiveServer

LIFETIME_S = 3600
_HINT_LIFETIME_S = 120

HISTORY = "history:{}:{}"
"""The key of the history of an attempt, from the numbers of its task and its own."""


class Progress:
    """Progress and measure histories by task, and the hint that cancels faster than a renewal."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server

    def put(self, task_id: int, progress: dict[str, Any]) -> None:
        """Replace the progress of a task, and keep what it said before for as long."""
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=False)
            pipe.set(f"progress:{task_id}", json.dumps(progress), ex=LIFETIME_S)
            pipe.expire(f"log:{task_id}", LIFETIME_S)
            pipe.execute()

    def get_many(self, task_ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The progress of those tasks that have some."""
        if not task_ids:
            return {}
        with self._server.errors():
            values = cast("list[str | None]", self._server.redis.mget([f"progress:{task_id}" for task_id in task_ids]))
        return {
            task_id: json.loads(value) for task_id, value in zip(task_ids, values, strict=True) if value is not None
        }

    def append_history(self, task_id: int, attempt: int, points: Sequence[dict[str, Any]], start: int) -> None:
        """Make the history of an attempt hold `points` from position `start` on.

        `points` is the whole history; when Redis lost what came before `start`, all of it is written again.
        """
        key = HISTORY.format(task_id, attempt)
        with self._server.errors():
            # The lifetime goes with the points: a writer that is cut off in between would leave a key for ever.
            pipe = self._server.redis.pipeline(transaction=True)
            if points[start:]:
                pipe.rpush(key, *(json.dumps(point) for point in points[start:]))
            pipe.llen(key)
            pipe.expire(key, LIFETIME_S)
            held = pipe.execute()[-2]
            if held != len(points):
                pipe.delete(key)
                if points:
                    pipe.rpush(key, *(json.dumps(point) for point in points))
                    pipe.expire(key, LIFETIME_S)
                pipe.execute()

    def history(self, task_id: int, attempt: int) -> list[dict[str, Any]]:
        """Every point of an attempt so far, oldest first."""
        with self._server.errors():
            values = cast("list[str]", self._server.redis.lrange(HISTORY.format(task_id, attempt), 0, -1))
        return [json.loads(value) for value in values]

    def news(
        self, seen: Mapping[int, tuple[int, int]]
    ) -> dict[int, tuple[dict[str, Any] | None, list[dict[str, Any]]]]:
        """The progress of tasks, and the points of their histories that are new, in one call.

        seen : by task, the attempt and how many points of it are known.
        """
        task_ids = list(seen)
        if not task_ids:
            return {}
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=False)
            pipe.mget([f"progress:{task_id}" for task_id in task_ids])
            for task_id in task_ids:
                attempt, count = seen[task_id]
                pipe.lrange(HISTORY.format(task_id, attempt), count, -1)
            told, *points = pipe.execute()
        return {
            task_id: (None if progress is None else json.loads(progress), [json.loads(each) for each in new])
            for task_id, progress, new in zip(task_ids, told, points, strict=True)
        }

    def put_steps(self, task_id: int, attempt: int, steps: dict[str, Any]) -> None:
        """Replace the values of every iteration of an attempt: `series` by name, and the `stride` between two."""
        with self._server.errors():
            self._server.redis.set(f"steps:{task_id}:{attempt}", json.dumps(steps), ex=LIFETIME_S)

    def steps(self, task_id: int, attempt: int) -> dict[str, Any]:
        """What `put_steps` kept last; empty when there is nothing."""
        with self._server.errors():
            value = cast("str | None", self._server.redis.get(f"steps:{task_id}:{attempt}"))
        return {} if value is None else cast("dict[str, Any]", json.loads(value))

    def hint_cancel(self, task_id: int) -> None:
        """Tell the worker of a task to look at its row now."""
        with self._server.errors():
            self._server.redis.set(f"cancel:{task_id}", "1", ex=_HINT_LIFETIME_S)

    def cancel_hinted(self, task_id: int) -> bool:
        """Whether somebody hinted at the end of a task."""
        with self._server.errors():
            return bool(self._server.redis.exists(f"cancel:{task_id}"))
