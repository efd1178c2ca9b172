"""The lane for an event loop: what `Lane` and `Replies` are for threads, without a task or a wait of their own.

Commands of one connection do not wait for each other, and an answer goes straight to whoever wants it: at a few
thousand requests a second, streams and tasks would cost more than all else that is done for a request here.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, cast

import hiredis
from redis.asyncio.connection import SSLConnection, UnixDomainSocketConnection, parse_url

from storage.errors import LiveUnavailable
from storage.live.lane import Request, Sent, Spread, replies_in, script, told_of
from storage.live.server import is_replica

_CONNECT_S = 1.0
_BELL_S, _AGAIN_S = 0.5, 0.05
_PATIENCE_S = 1.0
_SCRIPTS = {name: script(name) for name in ("append", "nudge")}
_DIGESTS = {name: hashlib.sha1(text.encode()).hexdigest() for name, text in _SCRIPTS.items()}
_log = logging.getLogger(__name__)

Then = Callable[[Any], None]
"""Takes the answer to a command, or the exception that stands for it."""


class Wire(asyncio.Protocol):
    """One connection to Redis."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: deque[tuple[float, Then]] = deque()
        self._transport: asyncio.Transport | None = None
        self._moved_at = 0.0
        self._sent_bytes = self._left_bytes = self._gone_bytes = 0
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Part of asyncio.Protocol."""
        # Loops have transports of their own, which are of no common class.
        self._transport, self.is_open = cast(asyncio.Transport, transport), True

    def send(self, then: Then, *command: str | bytes | int | float) -> None:
        """Send a command; `then` takes what comes of it, a hiredis.ReplyError or LiveUnavailable included."""
        if self._transport is None or not self.is_open:
            then(LiveUnavailable("Redis does not answer: the connection is closed"))
            return
        self._waiting.append((time.monotonic(), then))
        packed = hiredis.pack_command(cast("Any", command))
        self._sent_bytes += len(packed)
        self._transport.write(packed)

    def data_received(self, data: bytes) -> None:
        """Part of asyncio.Protocol."""
        self._moved_at = time.monotonic()
        self._reader.feed(data)
        try:
            while self.is_open and (answer := self._reader.gets()) is not False:
                self._waiting.popleft()[1](answer)
        except hiredis.ProtocolError as error:
            self.close(f"it sent what is no answer ({error})")

    def connection_lost(self, error: Exception | None) -> None:
        """Part of asyncio.Protocol."""
        self.close(str(error or "it closed the connection"))

    def close(self, why: str) -> None:
        """Give the connection up, and tell all that wait."""
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()
        waiting, self._waiting = self._waiting, deque()
        for _, then in waiting:
            then(LiveUnavailable(f"Redis does not answer: {why}"))

    def check(self, patience_s: float) -> None:
        """Give the connection up when the oldest command waits longer than that, and as long nothing came or went.

        What is large takes its time on the way. To be called several times within that time.
        """
        if not self._waiting or self._transport is None:
            self._left_bytes = 0
            return
        now = time.monotonic()
        left = self._transport.get_write_buffer_size()
        gone = self._sent_bytes - left
        # Only what had to wait shows by going that the server reads: a little goes to one that is stopped as well.
        if self._left_bytes and gone > self._gone_bytes:
            self._moved_at = now
        self._left_bytes, self._gone_bytes = left, gone
        if now - max(self._waiting[0][0], self._moved_at) > patience_s:
            self.close(f"nothing came within {patience_s:g} s")


async def connected(url: str) -> Wire:
    """A connection to the server of a URL, as redis-py understands it. Raises LiveUnavailable."""
    loop = asyncio.get_running_loop()
    about: dict[str, Any] = dict(parse_url(url))
    kind = about.pop("connection_class", None)
    wire: Wire | None = None
    try:
        async with asyncio.timeout(_CONNECT_S):
            if kind is UnixDomainSocketConnection:
                _, wire = await loop.create_unix_connection(Wire, about["path"])
            else:
                host, port = about.get("host", "localhost"), about.get("port", 6379)
                if kind is SSLConnection:
                    context = SSLConnection(**about).ssl_context.get()
                    _, wire = await loop.create_connection(Wire, host, port, ssl=context, server_hostname=host)
                else:
                    _, wire = await loop.create_connection(Wire, host, port)
            if about.get("password"):
                await _answer(wire, "AUTH", about.get("username") or "default", about["password"])
            if about.get("db"):
                await _answer(wire, "SELECT", about["db"])
            for text in _SCRIPTS.values():
                await _answer(wire, "SCRIPT", "LOAD", text)
    except BaseException as error:
        if wire is not None:
            wire.close("it did not answer in time")  # the loop would keep it open for good
        if isinstance(error, OSError | TimeoutError):
            raise LiveUnavailable(f"Redis does not answer: {error or 'no connection in time'}") from error
        raise
    return wire


async def _answer(wire: Wire, *command: str | int) -> Any:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    wire.send(lambda answer: None if future.done() else future.set_result(answer), *command)
    answer = await future
    if isinstance(answer, LiveUnavailable):
        raise answer
    if isinstance(answer, Exception):
        wire.close("it refused the connection")
        raise LiveUnavailable(f"Redis does not answer: {answer}")
    return answer


class Line:
    """A connection that is made when it is needed, and made again when it is lost."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._wire: Wire | None = None
        self._early: list[tuple[Then, tuple[str | bytes | int | float, ...]]] = []
        self._connecting: asyncio.Task[None] | None = None
        self._is_over = False

    def send(self, then: Then, *command: str | bytes | int | float) -> None:
        """As `Wire.send`."""
        wire = self._wire
        if wire is not None and wire.is_open:
            wire.send(then, *command)
            return
        if self._is_over:
            then(LiveUnavailable("Redis does not answer: this process ends"))
            return
        self._early.append((then, command))
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._connect())

    def check(self, patience_s: float) -> None:
        """As `Wire.check`."""
        if self._wire is not None:
            self._wire.check(patience_s)

    def part(self) -> None:
        """Give the connection up, so that the next command makes one to whichever server has the address now."""
        if self._wire is not None:
            self._wire.close("it follows another server")

    def close(self) -> None:
        """Send nothing more."""
        self._is_over = True
        if self._connecting is not None:
            self._connecting.cancel()
        if self._wire is not None:
            self._wire.close("this process ends")

    async def _connect(self) -> None:
        error: LiveUnavailable | None = None
        try:
            self._wire = await connected(self._url)
        except LiveUnavailable as failed:
            error = failed
        self._connecting = None
        early, self._early = self._early, []
        for then, command in early:
            if error is not None or self._is_over:
                then(error or LiveUnavailable("this process ends"))
            else:
                self.send(then, *command)


class Tube:
    """Requests and replies of one event loop."""

    def __init__(self, url: str) -> None:
        self._out, self._in = Line(url), Line(url)
        self.replies = f"replies:{uuid.uuid4().hex}"
        self._waiting: dict[bytes, asyncio.Future[bytes]] = {}
        self._is_listening = self._is_over = False

    def expect(self, request_id: str) -> asyncio.Future[bytes]:
        """The answer to a request; `forget` it at the end."""
        if not self._is_listening:
            self._is_listening = True
            self._listen()
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._waiting[request_id.encode()] = future
        return future

    def forget(self, request_id: str) -> None:
        """Expect nothing any more."""
        self._waiting.pop(request_id.encode(), None)

    def append(
        self,
        lane: str,
        requests: Sequence[Request],
        spread: Spread,
        then: Callable[[list[Sent]], None],
        failed: Callable[[LiveUnavailable], None],
    ) -> None:
        """As `Lane.append`; what it returns, or raises, goes to `then` or `failed`."""

        def appended(answer: Any) -> None:
            then([Sent(each) for each in answer])

        self._script("append", lane, told_of(requests, spread), appended, failed)

    async def nudge(self, lane: str, request_id: str, wake: str, wake_ms: int, spread: Spread) -> Sent:
        """As `Lane.nudge`. Raises LiveUnavailable."""
        arguments = (request_id, wake, wake_ms, max(1, spread.workers), round(spread.after_s * 1000))
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def done(answer: Any) -> None:
            if not future.done():
                future.set_result(answer)

        self._script("nudge", lane, arguments, done, done)
        answer = await future
        if isinstance(answer, LiveUnavailable):
            raise answer
        return Sent(answer)

    def withdraw(self, lane: str, request_id: str) -> None:
        """As `Lane.withdraw`; unsaid when Redis is away."""
        self._out.send(lambda answer: None, "DEL", f"lane:{lane}:request:{request_id}")

    def check(self) -> None:
        """To be called now and then: a Redis that says nothing counts as one that is down."""
        self._out.check(_PATIENCE_S)
        self._in.check(_PATIENCE_S + _BELL_S)

    def close(self) -> None:
        """Listen no more."""
        self._is_over = True
        self._out.close()
        self._in.close()

    def _script(
        self,
        name: str,
        lane: str,
        arguments: Sequence[str | bytes | int | float],
        then: Then,
        failed: Callable[[LiveUnavailable], None],
    ) -> None:
        def done(answer: Any) -> None:
            if not isinstance(answer, Exception):
                then(answer)
            elif isinstance(answer, LiveUnavailable):
                failed(answer)
            elif str(answer).startswith("NOSCRIPT"):  # somebody flushed them
                self._out.send(done, "EVAL", _SCRIPTS[name], 1, f"lane:{lane}", *arguments)
            else:
                if is_replica(answer):
                    self._out.part()
                failed(LiveUnavailable(f"Redis does not answer: {answer}"))

        self._out.send(done, "EVALSHA", _DIGESTS[name], 1, f"lane:{lane}", *arguments)

    def _listen(self) -> None:
        if not self._is_over:
            self._in.send(self._heard, "BLPOP", self.replies, _BELL_S)

    def _heard(self, answer: Any) -> None:
        if isinstance(answer, Exception):
            # Those who wait ask after their requests themselves.
            if is_replica(answer):
                self._in.part()
            if not self._is_over:
                asyncio.get_running_loop().call_later(_AGAIN_S, self._listen)
            return
        self._listen()
        for request_id, reply in replies_in(answer[1]) if answer else ():
            future = self._waiting.get(request_id)
            if future is not None and not future.done():
                future.set_result(reply)
