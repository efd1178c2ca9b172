"""What tasks tell of themselves in words, for their owners: the newest lines of each, numbered from its first on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from storage.live.progress import HISTORY, LIFETIME_S
from storage.live.server import LiveServer

KEPT = 500
"""Most lines that are kept of a task; the oldest go first."""

MESSAGE_CHARACTERS = 1000

_KEY = "log:{}"
# Numbers go on where the newest line ends, in one step, since two attempts may write at once for a moment. A line that
# does not say how many measures came before it comes after all that there are. Kept is "<number> <measures> <JSON>".
_APPEND = """
local newest = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
local number = tonumber(newest[2] or '0') + tonumber(ARGV[1])
local measures = redis.call('LLEN', KEYS[2])
for each = 4, #ARGV, 2 do
    number = number + 1
    local before = ARGV[each] == '' and measures or ARGV[each]
    redis.call('ZADD', KEYS[1], number, string.format('%d %d ', number, before) .. ARGV[each + 1])
end
redis.call('ZREMRANGEBYRANK', KEYS[1], 0, -1 - tonumber(ARGV[2]))
redis.call('EXPIRE', KEYS[1], ARGV[3])
return number
"""


@dataclass(frozen=True)
class LogLine:
    """A line that was kept.

    number : counted from 1 in each task; one that is missing was dropped. time : seconds since the epoch by the clock
    of whoever wrote it. measures : how many measures the attempt had told before.
    """

    number: int
    attempt: int
    time: float
    level: str
    message: str
    measures: int


class TaskLogs:
    """The lines of tasks; those of a task vanish together, as its progress does."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._append = server.redis.register_script(_APPEND)

    def append(self, task_id: int, attempt: int, lines: Sequence[Mapping[str, Any]], skipped: int = 0) -> None:
        """Add lines, each with `time`, `level` and `message`; `skipped` others before them are lost already.

        `measures` of a line is how many the attempt had told before it; without, it comes after those that are kept.
        """
        if not lines:
            return
        texts: list[str] = []
        for line in lines:
            said = {name: line[name] for name in ("time", "level", "message")}
            texts += [str(line.get("measures", "")), json.dumps({**said, "attempt": attempt})]
        with self._server.errors():
            self._append(
                keys=[_KEY.format(task_id), HISTORY.format(task_id, attempt)],
                args=[skipped, KEPT, LIFETIME_S, *texts],
            )

    def since(self, task_id: int, number: int, limit: int = KEPT) -> tuple[list[LogLine], int]:
        """At most `limit` lines after that of this number, oldest first, and the number of the newest one or 0."""
        return self.of([(task_id, number)], limit)[task_id]

    def of(self, wanted: Iterable[tuple[int, int]], limit: int = KEPT) -> dict[int, tuple[list[LogLine], int]]:
        """As `since`, of several tasks in one call."""
        pairs = list(wanted)
        if not pairs:
            return {}
        with self._server.errors():
            pipe = self._server.redis.pipeline(transaction=False)
            for task_id, number in pairs:
                key = _KEY.format(task_id)
                pipe.zrangebyscore(key, f"({number}", "+inf", start=0, num=limit)
                pipe.zrange(key, -1, -1)
            told = cast("list[list[str]]", pipe.execute())
        return {
            task_id: ([_line(each) for each in lines], _line(newest[0]).number if newest else 0)
            for (task_id, _), lines, newest in zip(pairs, told[::2], told[1::2], strict=True)
        }


def _line(kept: str) -> LogLine:
    number, measures, text = kept.split(" ", 2)
    said = json.loads(text)
    return LogLine(int(number), said["attempt"], said["time"], said["level"], said["message"], int(measures))
