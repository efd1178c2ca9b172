"""Live state in Redis: progress, histories, log lines, heartbeats, hints, predictions under way.

All of it may vanish at any moment and is refilled or done without; every key has a lifetime. Only commands of
Redis 6.2 are used, which is what the embedded server speaks.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from storage.live.allowance import Allowance, Share
from storage.live.changes import Changes
from storage.live.endings import Ending, Endings
from storage.live.figures import Figures, Telling
from storage.live.heartbeats import Heartbeat, Heartbeats
from storage.live.lane import LOST, Batch, Depth, Drain, Lane, Replies, Request, Sent, Spread, Taken, Waiter
from storage.live.progress import Progress
from storage.live.server import LiveServer
from storage.live.statistics import Counts, Statistics
from storage.live.task_logs import LogLine, TaskLogs

__all__ = [
    "LOST",
    "Allowance",
    "Batch",
    "Changes",
    "Counts",
    "Depth",
    "Drain",
    "Ending",
    "Endings",
    "Figures",
    "Heartbeat",
    "Heartbeats",
    "Lane",
    "Live",
    "LogLine",
    "Progress",
    "Replies",
    "Request",
    "Sent",
    "Share",
    "Spread",
    "Statistics",
    "Taken",
    "TaskLogs",
    "Telling",
    "Waiter",
]


class Live:
    """All live state behind one address. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.server = LiveServer(url)
        self.progress = Progress(self.server)
        self.heartbeats = Heartbeats(self.server)
        self.lane = Lane(self.server)
        self.changes = Changes(self.server)
        self.statistics = Statistics(self.server)
        self.figures = Figures(self.server)
        self.endings = Endings(self.server)
        self.allowance = Allowance(self.server)
        self.logs = TaskLogs(self.server)

    def check(self) -> None:
        """Raises LiveUnavailable unless Redis answers within a second."""
        with self.server.errors():
            self.server.redis.ping()

    def facts(self) -> dict[str, Any]:
        """What the server tells of itself: the members of Redis' INFO, and `clock_s`, the seconds since the epoch."""
        with self.server.errors():
            facts = self.server.redis.info()
            seconds, micros = self.server.redis.time()
        return {**facts, "clock_s": seconds + micros / 1e6}

    def waiting_messages(self, queue: str) -> int:
        """Messages of a queue that no worker has taken yet."""
        with self.server.errors():
            return int(self.server.redis.llen(queue))

    def waiting_by_queue(self, queues: Collection[str]) -> dict[str, int]:
        """Messages of several queues that no worker has taken yet, in one trip."""
        with self.server.errors():
            pipe = self.server.redis.pipeline(transaction=False)
            for queue in queues:
                pipe.llen(queue)
            return dict(zip(queues, pipe.execute(), strict=True))

    def clear(self) -> None:
        """Forget everything; with commands that every user may give who may write, as FLUSHDB is not."""
        with self.server.errors():
            some: list[str] = []
            for key in self.server.redis.scan_iter(count=1000):
                some.append(key)
                if len(some) == 1000:
                    self.server.redis.unlink(*some)
                    some.clear()
            if some:
                self.server.redis.unlink(*some)

    def close(self) -> None:
        """Give all connections back; drains and replies are closed by those who made them."""
        self.lane.close()
        self.server.redis.close()
