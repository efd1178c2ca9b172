"""The connection to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.errors import LiveUnavailable

_TIMEOUT_S = 1.0


class LiveServer:
    """A pool of connections that gives up after a second: live state is never worth a long wait."""

    def __init__(self, url: str) -> None:
        self.url = url
        # One retry, at once: a connection that the server closed while it idled must not fail the next call.
        self.redis = redis.Redis.from_url(
            url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
            decode_responses=True,
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what Redis raises into LiveUnavailable."""
        try:
            yield
        except redis.RedisError as error:
            raise LiveUnavailable(f"Redis does not answer: {error}") from error
