"""The application as granian runs it: an event loop in front, Flask's threads behind it.

Bodies are read here, so a client that sends slowly holds no thread. Predictions that nothing is unusual about are
answered here as well (`api/hot.py`), without a thread of their own; everything else, and all that is refused, is
Flask's.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import io
import logging
import signal
import sys
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from types import FrameType
from typing import IO, Any, Protocol, cast
from urllib.parse import quote

from flask import Flask
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # it is, but not by name

from api.allowance import Counted
from api.events import EVENTS, WATCH, Events, Watch
from api.flow import Flow, Sending, Stalled
from api.hot import Hot
from api.parts import COUNTED, IS_CONNECTED, IS_SLOW, TRANSFERS, Parts
from api.unread import connection_of

_AT_ONCE_BYTES = 1 << 16
_SPOOLED_BYTES = 1 << 20
_STREAMED_BYTES = 1 << 18
_DISCARDED_BYTES = 64 << 20
_EMPTY = (204, 304)
_WATCHED, _WATCHED_THREADS = frozenset({"/healthz", "/readyz", "/metrics"}), 4
_log = logging.getLogger(__name__)


class Headers(Protocol):
    """Headers of a request, as granian gives them."""

    def items(self) -> list[tuple[str, str]]:
        """Names in lower case, and values."""

    def get(self, key: str, default: Any = None) -> Any:
        """One of them."""


class Scope(Protocol):
    """What granian tells of a request."""

    proto: str
    http_version: str
    server: str
    client: str
    scheme: str
    method: str
    path: str
    query_string: str
    headers: Headers


class Front:
    """An RSGI application around a Flask app."""

    def __init__(self, app: Flask) -> None:
        self._app = app
        self._parts = parts = cast(Parts, app.extensions["modelyard"])
        self._limit_bytes = parts.settings.request_limit_bytes
        self._idle_s, self._body_s = parts.settings.client_idle_s, parts.settings.body_timeout_s
        self._threads = ThreadPoolExecutor(parts.settings.api_threads, thread_name_prefix="flask")
        # Whatever the calls of clients wait for, those who look after the server are told how it is.
        self._watched = ThreadPoolExecutor(_WATCHED_THREADS, thread_name_prefix="watched")
        # A store that does not answer holds up downloads only.
        self._pieces = ThreadPoolExecutor(TRANSFERS, thread_name_prefix="pieces")
        self._hot = Hot(app, self._threads)
        self._events = Events(parts)
        self._flow = Flow()

    def __rsgi_init__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called once in each process, with its event loop."""
        # What is there now stays, and need not be looked through whenever garbage is looked for.
        gc.collect()
        gc.freeze()
        self._hot.start(loop)
        self._events.start(loop)
        _tell_of_the_end(loop, self._hurry)
        if self._parts.settings.api_workers > 1:  # else nobody but this process shows its figures
            self._parts.figures.keep_telling()

    def __rsgi_del__(self, loop: asyncio.AbstractEventLoop) -> None:
        """Called when the process ends."""
        self._hot.stop()
        self._events.stop()
        self._flow.stop()
        for threads in (self._threads, self._watched, self._pieces):
            threads.shutdown(wait=False, cancel_futures=True)
        self._parts.finish()

    def _hurry(self) -> None:
        self._parts.ending.begin()
        self._hot.hurry()
        self._events.hurry()

    async def __rsgi__(self, scope: Scope, proto: Any) -> None:
        """Answer a request."""
        if scope.proto != "http":
            return
        length = _length(scope)
        if length is not None and length > self._limit_bytes:
            # Told before it is read: Flask goes by the length, and who asks for leave to send need not begin.
            await self._answer(proto, scope, b"")
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._idle_s):
                    await self._discard(proto)
            return
        try:
            async with asyncio.timeout(self._body_s):
                body = await self._read(proto, length)
        except ProtocolClosed:
            return  # nobody is there to be told
        except TimeoutError:
            await self._answer(proto, scope, b"", is_slow=True)
            return
        counted = None
        if isinstance(body, bytes) and scope.path == "/predict" and scope.method == "POST":
            answer = await self._hot.answer(scope, body, proto)
            if isinstance(answer, tuple):
                await self._send(proto, scope, *answer)
                return
            counted = answer
        await self._answer(proto, scope, body, counted=counted)

    async def _answer(
        self,
        proto: Any,
        scope: Scope,
        body: bytes | IO[bytes],
        *,
        is_slow: bool = False,
        counted: Counted | None = None,
    ) -> None:
        """Have Flask answer, on a thread. is_slow : whether the body was given up. counted : if it was, already."""
        loop = asyncio.get_running_loop()
        gone = loop.create_task(_hung_up(proto))
        try:
            threads = self._watched if scope.path in _WATCHED else self._threads
            status, headers, content = await loop.run_in_executor(
                threads, self._by_flask, scope, body, gone, is_slow, counted
            )
            if isinstance(content, Watch):
                with contextlib.suppress(ProtocolClosed):
                    await self._events.follow(content, scope, proto.response_stream(status, headers), gone)
                return
        finally:
            gone.cancel()
        await self._send(proto, scope, status, headers, content)

    async def _send(
        self,
        proto: Any,
        scope: Scope,
        status: int,
        headers: list[tuple[str, str]],
        content: bytes | Iterable[bytes],
    ) -> None:
        """Send an answer, a long one no faster than the client reads it."""
        if isinstance(content, bytes) and len(content) <= _STREAMED_BYTES:
            proto.response_bytes(status, headers, content)
            return
        if isinstance(content, bytes):
            headers = [
                *(each for each in headers if each[0] != "content-length"),
                ("content-length", str(len(content))),
            ]
        loop = asyncio.get_running_loop()
        gone = loop.create_task(_hung_up(proto))
        try:
            sending = Sending(
                self._flow, proto.response_stream(status, headers), connection_of(scope.server, scope.client), gone
            )
            if isinstance(content, bytes):
                await sending.send(content)
            else:
                pieces = iter(content)
                while (piece := await loop.run_in_executor(self._pieces, next, pieces, None)) is not None:
                    await sending.send(piece)
            await sending.end()
        except Stalled:
            await self._flow.cut(scope.server, scope.client)
        except (ConnectionError, ProtocolClosed):
            pass  # the client hung up
        except Exception as error:
            # What ends early would look whole: the HTTP server ends chunks of unknown length as if nothing was.
            _log.warning("%s %s was cut off: %s", scope.method, ascii(scope.path), error)
            await self._flow.cut(scope.server, scope.client)
        finally:
            gone.cancel()
            if not isinstance(content, bytes):
                _close(content)

    async def _read(self, proto: Any, length: int | None) -> bytes | IO[bytes]:
        """The body, in a file when it may be long.

        Raises ProtocolClosed when it ends before its length, TimeoutError when it does not come on.
        """
        if length is not None and length <= _AT_ONCE_BYTES:
            if not length:
                return b""
            async with asyncio.timeout(self._idle_s):
                whole: bytes = await proto()
            return whole
        loop = asyncio.get_running_loop()
        file = tempfile.SpooledTemporaryFile(_SPOOLED_BYTES)  # noqa: SIM115  # closed with the request
        try:
            size = 0
            async with asyncio.timeout(self._idle_s) as patience:
                async for chunk in proto:
                    # A byte more than Flask will take: it tells what is wrong then.
                    file.write(chunk[: max(0, self._limit_bytes + 1 - size)])
                    size += len(chunk)
                    if size > 2 * self._limit_bytes + _SPOOLED_BYTES:
                        break  # who still sends has not listened
                    patience.reschedule(loop.time() + self._idle_s)
            if length is not None and size < length:
                raise ProtocolClosed  # granian ends the chunks of a caller that hung up like all others
            file.seek(0)
            if length is not None and length <= _SPOOLED_BYTES:
                with file:
                    return file.read()
        except BaseException:
            file.close()
            raise
        return file

    async def _discard(self, proto: Any) -> None:
        """Read what is left of a refused body: a client that still sends would not see the answer."""
        size = 0
        async for chunk in proto:
            size += len(chunk)
            if size > self._limit_bytes + _DISCARDED_BYTES:
                break

    def _by_flask(
        self,
        scope: Scope,
        body: bytes | IO[bytes],
        gone: asyncio.Task[None],
        is_slow: bool,
        counted: Counted | None,
    ) -> tuple[int, list[tuple[str, str]], bytes | Iterable[bytes] | Watch]:
        """Status, headers and content; of one that is long, its pieces, to be closed in the end."""
        environ = environ_of(scope, body)
        environ[IS_CONNECTED] = lambda: not gone.done()
        environ[EVENTS] = self._events
        environ[IS_SLOW] = is_slow
        environ[COUNTED] = counted
        told: list[Any] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            told[:] = [int(status.split(" ", 1)[0]), [(name.lower(), value) for name, value in headers]]
            return lambda data: None

        try:
            found: Iterable[bytes] = self._app.wsgi_app(environ, start_response)
        finally:
            environ["wsgi.input"].close()
        status, headers = told
        if is_slow:
            headers.append(("connection", "close"))  # the rest of the body is nobody's request
        if WATCH in environ:
            _close(found)
            return status, headers, cast(Watch, environ[WATCH])
        length = dict(headers).get("content-length", "0" if status in _EMPTY else None)
        if length is None or int(length) > _STREAMED_BYTES:
            return status, headers, found
        try:
            content = b"".join(found)
        finally:
            _close(found)
        return status, headers, content


async def _hung_up(proto: Any) -> None:
    """Return when the client has hung up."""
    await proto.client_disconnect()


def _close(found: Iterable[bytes]) -> None:
    """Let a WSGI application know that its answer was sent, or will not be."""
    with contextlib.suppress(AttributeError):
        found.close()  # type: ignore[attr-defined]


def _tell_of_the_end(loop: asyncio.AbstractEventLoop, then: Callable[[], None]) -> None:
    """Call `then` on the loop when this process is told to end, beside what granian does about it.

    granian itself waits for calls that are under way, then kills the process; it says nothing before.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        before = signal.getsignal(number)

        def told(number: int, frame: FrameType | None, before: Any = before) -> None:
            loop.call_soon_threadsafe(then)
            if callable(before):
                before(number, frame)

        signal.signal(number, told)
        signal.siginterrupt(number, False)


def _length(scope: Scope) -> int | None:
    """What a request says of the length of its body, in bytes; None when it comes in chunks, or has none."""
    given = scope.headers.get("content-length")
    return int(given) if given is not None and given.isdigit() else None


def environ_of(scope: Scope, body: bytes | IO[bytes]) -> dict[str, Any]:
    """The request as WSGI applications read it."""
    host, _, port = scope.server.rpartition(":")
    client, _, client_port = scope.client.rpartition(":")
    environ: dict[str, Any] = {
        "REQUEST_METHOD": scope.method,
        "SCRIPT_NAME": "",
        "PATH_INFO": scope.path.encode().decode("latin-1"),  # granian has decoded it
        "RAW_URI": quote(scope.path) + (f"?{scope.query_string}" if scope.query_string else ""),
        "QUERY_STRING": scope.query_string,
        "SERVER_NAME": host.strip("[]"),
        "SERVER_PORT": port,
        "SERVER_PROTOCOL": f"HTTP/{scope.http_version}",
        "REMOTE_ADDR": client.strip("[]"),
        "REMOTE_PORT": client_port,
        "wsgi.version": (1, 0),
        "wsgi.url_scheme": scope.scheme,
        "wsgi.input": io.BytesIO(body) if isinstance(body, bytes) else body,
        "wsgi.errors": sys.stderr,
        "wsgi.multithread": True,
        "wsgi.multiprocess": True,
        "wsgi.run_once": False,
    }
    for name, value in scope.headers.items():
        # The one with `_` would pass for the one with a hyphen; and what is handed on is in no chunks any more.
        if "_" in name or name == "transfer-encoding":
            continue
        key = name.upper().replace("-", "_")
        key = key if key in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{key}"
        environ[key] = f"{environ[key]},{value}" if key in environ else value
    if "CONTENT_LENGTH" not in environ:
        # All of it was read; a body that is known to be longer than the limit is refused.
        environ["CONTENT_LENGTH"] = str(len(body) if isinstance(body, bytes) else body.seek(0, io.SEEK_END))
        environ["wsgi.input"].seek(0)
    return environ
