"""Answers go out no faster than they are read: the HTTP server takes whatever it is given, and keeps it in memory."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from api.unread import Connection, connection_of, unread_bytes

WINDOW_BYTES = 1 << 20
"""How much may be on its way to a client that reads nothing, besides what lies in the kernel."""

LEAST_BYTES, PATIENCE_S = 1 << 16, 60.0
"""How much a client must read within that many seconds, unless it reads all that there is."""

_PIECE_BYTES = 1 << 18
_LITTLE_BYTES = 1 << 16
_FIRST_LOOK_S, _LAST_LOOK_S = 0.001, 0.05


class Stalled(ConnectionError):
    """The client reads nothing any more, or next to nothing."""


class Flow:
    """What of the answers of one process is still unread; who asks at the same time shares one look."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="flow")
        self._look: asyncio.Future[dict[Connection, int] | None] | None = None

    def stop(self) -> None:
        """Look no more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def unread(self, connection: Connection) -> int:
        """Bytes that a client has not read, 0 when nobody can tell."""
        if self._look is None or self._look.done():
            self._look = asyncio.get_running_loop().run_in_executor(self._thread, unread_bytes)
        found = await asyncio.shield(self._look)
        return (found or {}).get(connection, 0)

    async def cut(self, server: str, client: str) -> None:
        """Break a connection off, so that the client knows that its answer is not whole."""
        connection = connection_of(server, client)
        if connection is not None:
            await asyncio.get_running_loop().run_in_executor(self._thread, _shut, connection[0], client)


class Sending:
    """One answer on its way. gone : done when the client has hung up."""

    def __init__(self, flow: Flow, transport: Any, connection: Connection | None, gone: asyncio.Future[None]) -> None:
        self._flow = flow
        self._transport = transport
        self._connection = connection
        self._gone = gone
        self._sent = 0

    async def send(self, piece: bytes) -> None:
        """Hand a piece on, once what went before has been read. Raises Stalled, and ConnectionError for who hung up."""
        for start in range(0, len(piece), _PIECE_BYTES):
            part = piece[start : start + _PIECE_BYTES]
            await self._transport.send_bytes(part)
            self._sent += len(part)
            if self._sent >= WINDOW_BYTES:
                await self._until_read()

    async def end(self) -> None:
        """Wait for the client to read the rest, unless that is little."""
        if self._sent > _LITTLE_BYTES:
            await self._until_read()

    async def _until_read(self) -> None:
        self._sent = 0
        if self._connection is None:
            return
        loop = asyncio.get_running_loop()
        look_s, before, read, since = _FIRST_LOOK_S, 0, 0, loop.time()
        while True:
            # First it must come from the HTTP server into the kernel.
            await asyncio.sleep(look_s)
            if self._gone.done():
                raise ConnectionAbortedError
            left = await self._flow.unread(self._connection)
            if left == 0:
                return
            # It may grow as well, as long as the HTTP server holds some of it.
            read += max(0, before - left)
            before = left
            if loop.time() - since > PATIENCE_S:
                if read < LEAST_BYTES:
                    raise Stalled
                read, since = 0, loop.time()
            look_s = min(look_s * 2, _LAST_LOOK_S)


def _shut(port: int, client: str) -> None:
    """Shut the connection between our port and the address of a client down; it stays its owner's to close."""
    for name in os.listdir("/proc/self/fd"):
        with suppress(OSError, ValueError):
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            # A copy: meanwhile the number may belong to something else, which may be closed at any moment.
            with _copy(int(name)) as found:
                if found.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                if found.getsockname()[1] == port and _address(found.getpeername()) == client:
                    found.shutdown(socket.SHUT_RDWR)
                    return


def _copy(descriptor: int) -> socket.socket:
    copy = os.dup(descriptor)
    try:
        return socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        raise


def _address(found: Any) -> str:
    host, port = found[:2]
    host = host.removeprefix("::ffff:")  # the old address of a client of a socket for both
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
