"""The connection to Redis."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from storage.errors import LiveRefused, LiveUnavailable

_TIMEOUT_S = 1.0
# As many as there may be threads that wait for a Redis that stalls, and more; the client's own default is 100.
_CONNECTIONS_MOST = 10_000


class LiveServer:
    """A pool of connections that gives up after a second: live state is never worth a long wait."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.redis = self._client(decode_responses=True)
        self._clients = [self.redis]

    def bytes_client(self) -> redis.Redis:
        """A client with a pool of its own, whose answers are bytes."""
        self._clients.append(made := self._client(decode_responses=False))
        return made

    def _client(self, *, decode_responses: bool) -> redis.Redis:
        # One retry, at once: a connection that the server closed while it idled must not fail the next call.
        return redis.Redis.from_url(
            self.url,
            socket_timeout=_TIMEOUT_S,
            socket_connect_timeout=_TIMEOUT_S,
            retry=Retry(NoBackoff(), 1),
            max_connections=_CONNECTIONS_MOST,
            decode_responses=decode_responses,
        )

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Turns what Redis raises into LiveUnavailable, and into LiveRefused where it wants another password."""
        try:
            yield
        except redis.AuthenticationError as error:
            raise LiveRefused(
                f"Redis does not answer: it refuses the user or password of MODELYARD_REDIS_URL, or wants one ({error})"
            ) from error
        except redis.RedisError as error:
            if is_replica(error):
                for each in self._clients:
                    each.connection_pool.disconnect(inuse_connections=False)
            raise LiveUnavailable(f"Redis does not answer: {error}") from error


def is_replica(error: Exception) -> bool:
    """Whether a server answered that it follows another one, which a new connection to the same address may reach."""
    # The client leaves the word out, but where a script told it: then it stands within.
    return isinstance(error, redis.ReadOnlyError | redis.exceptions.MasterDownError) or any(
        word in str(error) for word in ("READONLY", "MASTERDOWN")
    )
