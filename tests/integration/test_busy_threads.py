"""What is answered while all threads of the API wait, and while a Redis that stalls has all of them wait for it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask

from api.app import create_app
from api.front import Front, Scope
from settings import Settings
from storage.live.server import LiveServer
from storage.records import Records
from tests.unit.api.test_front import Asked, Headers

THREADS = 128


class Caller:
    """A caller's end, as granian shows it."""

    def __init__(self, body: bytes = b"") -> None:
        self._body = body
        self.code = 0
        self.content = b""

    async def __call__(self) -> bytes:
        return self._body

    async def client_disconnect(self) -> None:
        await asyncio.Event().wait()

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.code, self.content = status, body


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    settings = Settings(home=tmp_path, redis_url=f"unix://{tmp_path}/none.sock", api_threads=2)
    records = Records.connect(settings.database_url)
    records.upgrade()
    made = create_app(settings, records)
    yield made
    made.extensions["modelyard"].finish()
    records.close()


async def _known(*_: object) -> tuple[Any, Any, bytes]:
    service = SimpleNamespace(id=1, name="iris")
    question = SimpleNamespace(encoded=b"{}", lane="l", batch="b", tells_timings=False, warnings=())
    return SimpleNamespace(service=service, mark=None), question, b"[]"


async def _answered(*_: object) -> bytes:
    return b'{"name":"predictions","count":0}\n[]'


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/predict"])
def test_is_answered_while_every_thread_waits(app: Flask, path: str, monkeypatch: pytest.MonkeyPatch):
    front = Front(app)
    monkeypatch.setattr(front._hot, "_understood", _known)
    monkeypatch.setattr(front._hot, "_asked", _answered)
    may_end = threading.Event()
    content = b"{}" if path == "/predict" else b""
    headers = Headers(("host", "localhost"), ("content-length", str(len(content))))
    headers.get_all = lambda name: [value for key, value in headers.items() if key == name]  # type: ignore[attr-defined]
    asked = Asked("POST" if content else "GET", path, headers=headers)
    caller = Caller(content)

    async def ask() -> None:
        loop = asyncio.get_running_loop()
        front._hot._loop = loop
        waiting = [loop.run_in_executor(front._threads, may_end.wait) for _ in range(2)]
        try:
            async with asyncio.timeout(20):
                await front.__rsgi__(cast(Scope, asked), caller)
        finally:
            may_end.set()
            await asyncio.gather(*waiting)

    asyncio.run(ask())
    assert caller.code == (503 if path == "/readyz" else 200), caller.content
    if path != "/metrics":
        assert json.loads(caller.content)


def test_every_thread_has_its_connection_to_a_redis_that_stalls():
    """A server that answers nobody before all are there: who is refused a connection at once would be told 503."""
    everybody = threading.Barrier(THREADS)
    server = socket.create_server(("127.0.0.1", 0), backlog=THREADS)

    def answer(connection: socket.socket) -> None:
        with connection, contextlib.suppress(threading.BrokenBarrierError):
            everybody.wait(20)
            while asked := connection.recv(4096):
                connection.sendall(b"+PONG\r\n" * asked.count(b"*"))

    def serve() -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                threading.Thread(target=answer, args=[server.accept()[0]], daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    address = f"redis://127.0.0.1:{server.getsockname()[1]}/0?protocol=2&lib_name=&lib_version=&socket_timeout=20"
    live = LiveServer(address)

    def ask() -> bool:
        with live.errors():
            return bool(live.redis.ping())

    try:
        with ThreadPoolExecutor(THREADS) as pool:
            assert [each.result() for each in [pool.submit(ask) for _ in range(THREADS)]] == [True] * THREADS
    finally:
        live.redis.close()
        everybody.abort()
        server.close()
