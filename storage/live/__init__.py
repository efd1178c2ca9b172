"""Live state in Redis: progress, histories, heartbeats, hints, predictions under way.

All of it may vanish at any moment and is refilled or done without; every key has a lifetime. Only commands of
Redis 6.2 are used, which is what the embedded server speaks.
"""

from __future__ import annotations

from storage.live.exchange import Exchange
from storage.live.heartbeats import Heartbeat, Heartbeats
from storage.live.progress import Progress
from storage.live.server import LiveServer
from storage.live.statistics import Statistics

__all__ = ["Exchange", "Heartbeat", "Heartbeats", "Live", "Progress", "Statistics"]


class Live:
    """All live state behind one address. Safe to share between threads."""

    def __init__(self, url: str) -> None:
        self.server = LiveServer(url)
        self.progress = Progress(self.server)
        self.heartbeats = Heartbeats(self.server)
        self.exchange = Exchange(self.server)
        self.statistics = Statistics(self.server)

    def check(self) -> None:
        """Raises LiveUnavailable unless Redis answers within a second."""
        with self.server.errors():
            self.server.redis.ping()

    def waiting_messages(self, queue: str) -> int:
        """Messages of a queue that no worker has taken yet."""
        with self.server.errors():
            return int(self.server.redis.llen(queue))

    def close(self) -> None:
        """Give all connections back."""
        self.server.redis.close()
