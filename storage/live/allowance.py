"""Requests that accounts may still make in this minute, shared out to the processes that answer them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from storage.live.server import LiveServer

WINDOW_S = 60

# A window begins with the first request and ends by Redis' own clock: those of several machines need not agree.
_TAKE = """
local used = tonumber(redis.call('GET', KEYS[1]) or '0')
local given = math.max(0, math.min(tonumber(ARGV[1]), tonumber(ARGV[2]) - used))
redis.call('INCRBY', KEYS[1], given)
local left = redis.call('PTTL', KEYS[1])
if left < 0 then
    left = tonumber(ARGV[3])
    redis.call('PEXPIRE', KEYS[1], left)
end
return {given, math.max(0, tonumber(ARGV[2]) - used - given), left}
"""


@dataclass(frozen=True)
class Share:
    """given : requests that a process may let through. rest : those that nobody has yet. for_s : until all ends."""

    given: int
    rest: int
    for_s: float


class Allowance:
    """Counters by account, each for a minute."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._take = server.redis.register_script(_TAKE)

    def take(self, account_id: int, wanted: int, most: int) -> Share:
        """At most `wanted` of the `most` requests of a minute, as far as they are not given away."""
        with self._server.errors():
            found = self._take(keys=[_key(account_id)], args=[wanted, most, WINDOW_S * 1000])
        given, rest, left_ms = cast("list[int]", found)
        return Share(given, rest, left_ms / 1000)

    def used(self, account_id: int) -> int:
        """Requests that were given away in this minute."""
        with self._server.errors():
            return int(cast("str | None", self._server.redis.get(_key(account_id))) or 0)


def _key(account_id: int) -> str:
    return f"requests:{account_id}"
