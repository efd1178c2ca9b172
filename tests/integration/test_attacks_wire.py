"""Attacks on the wire: requests in requests, headers and addresses without end, lines that are none;
bodies that are too large, and what comes too slowly.

They are made on the HTTP server itself, as it is started. After each the server answers the next caller, and nothing of
what was hidden in a request was answered.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import select
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from cli.services import services_of
from settings import Settings
from storage.records import Records
from tests.integration.fronted import Line, request, until
from tests.services import RedisServer, free_port

pytestmark = pytest.mark.servers

SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Api]:
    """The API alone, as `modelyard up` starts it."""
    folder = tmp_path_factory.mktemp("wire").resolve()
    with alone(folder, redis_server, request_limit_bytes=2**20, client_idle_s=3.0, body_timeout_s=6.0) as api:
        yield api


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[Api]:
    """The same without its limit on the size of bodies, and with more time than these tests take."""
    folder = tmp_path_factory.mktemp("unlocked").resolve()
    with alone(folder, redis_server, request_limit_bytes=2**34, client_idle_s=60.0, body_timeout_s=60.0) as api:
        yield api


@contextlib.contextmanager
def alone(folder: Path, redis: RedisServer, **limits: Any) -> Iterator[Api]:
    (folder / "data").mkdir()
    settings = Settings(
        home=folder, port=free_port(), data_roots=(folder / "data",), redis_url=redis.url, api_threads=4, **limits
    )
    records = Records.connect(settings.database_url)
    records.upgrade()
    records.close()
    [api] = [each for each in services_of(settings) if each.name == "api"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(api.argv, env={**os.environ, **api.env}, stdout=log, stderr=log)
    try:
        until(lambda: is_answering(settings.port) or process.poll() is not None, 60)
        yield Api(settings.port, folder / "log", psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(30)


@dataclasses.dataclass(frozen=True)
class Api:
    port: int
    log: Path
    process: psutil.Process

    def sent(self, data: bytes) -> bytes:
        """All that comes back for some bytes, until the server closes or has nothing more to say."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as line:
            back = b""
            try:
                line.sendall(data)
                line.shutdown(socket.SHUT_WR)
                while piece := line.recv(65536):
                    back += piece
            except OSError:
                pass  # closed meanwhile, or kept open without a word
            return back

    def check(self) -> None:
        """The next caller is answered."""
        with closing(Line(self.port)) as line:
            assert line.ask("GET", "/healthz").code == 200


def is_answering(port: int) -> bool:
    try:
        with closing(Line(port)) as line:
            return line.ask("GET", "/healthz").code == 200
    except OSError:
        return False


def post(*headers: str, body: bytes = b"") -> bytes:
    return "\r\n".join(["POST /train HTTP/1.1", "Host: localhost", *headers]).encode("latin-1") + b"\r\n\r\n" + body


SMUGGLING = {
    "chunks and a length": post("Content-Length: 4", "Transfer-Encoding: chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a length and chunks": post("Transfer-Encoding: chunked", "Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "two lengths": post("Content-Length: 0", f"Content-Length: {len(SMUGGLED)}", body=SMUGGLED),
    "two lengths in one": post(f"Content-Length: 0, {len(SMUGGLED)}", body=SMUGGLED),
    "a length with a sign": post("Content-Length: +0", body=SMUGGLED),
    "a length below zero": post("Content-Length: -1", body=SMUGGLED),
    "a length that is no number": post("Content-Length: 0x0", body=SMUGGLED),
    "a length beyond all": post("Content-Length: " + "9" * 40, body=SMUGGLED),
    "chunks of another name": post("Transfer-Encoding: xchunked", body=SMUGGLED),
    "chunks twice": post("Transfer-Encoding: chunked", "Transfer-Encoding: identity", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks after a blank": post("Transfer-Encoding : chunked", "Content-Length: 4", body=b"0\r\n\r\n" + SMUGGLED),
    "chunks on a folded line": post("Transfer-Encoding:", " chunked", body=b"0\r\n\r\n" + SMUGGLED),
    "a chunk of a wrong size": post("Transfer-Encoding: chunked", body=b"zz\r\n\r\n" + SMUGGLED),
    "a chunk of all sizes": post("Transfer-Encoding: chunked", body=b"f" * 16 + b"\r\n" + SMUGGLED),
    "a chunk with much to say": post("Transfer-Encoding: chunked", body=b"0;" + b"x" * 10**6 + b"\r\n\r\n" + SMUGGLED),
    "bare line feeds": b"POST /train HTTP/1.1\nHost: localhost\nContent-Length: 0\n\n" + b"",
    "a NUL in a header": post("X: a\0b", "Content-Length: 0"),
    "a line end in a header": post("X: a\rb", "Content-Length: 0"),
    "a version that is none": b"POST /train HTTP/9.9\r\nHost: localhost\r\n\r\n",
}


def answers(back: bytes) -> list[int]:
    """The codes of all answers on a connection; bodies here are JSON, which holds no such line."""
    return [int(each[:3]) for each in back.split(b"HTTP/1.1 ")[1:]]


@pytest.mark.parametrize("kind", SMUGGLING)
def test_no_request_hides_in_another(kind: str, server: Api):
    """A request whose end can be seen in two places is refused, or the connection ends with it.

    Where a proxy in front sees the other end, what follows would be somebody else's request.
    """
    codes = answers(server.sent(SMUGGLING[kind]))
    assert all(code < 500 for code in codes)
    if kind in {"chunks and a length", "a length and chunks"}:
        # Chunks win, as RFC 9112 section 6.3 has it; what follows them is a request of the same caller.
        assert codes[0] == 400
    else:
        assert len(codes) <= 1
    assert b"/smuggled" not in server.sent(SMUGGLING[kind]).partition(b"\r\n\r\n")[2] or len(codes) == 2
    server.check()


ENDLESS = {
    "a long address": b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long query": b"GET /tasks?cursor=" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a long header": b"GET /tasks HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
    "many headers": b"GET /tasks HTTP/1.1\r\nHost: localhost\r\n" + b"X: y\r\n" * 100_000 + b"\r\n",
    "a long name of a header": b"GET /tasks HTTP/1.1\r\nHost: localhost\r\n" + b"x" * 2_000_000 + b": y\r\n\r\n",
    "a long method": b"A" * 100_000 + b" /tasks HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "line ends": b"\r\n" * 500_000,
    "noise": bytes(range(256)) * 4000,
    "the beginning of another protocol": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    "HTTP/2 without its settings": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 10_000,
}


@pytest.mark.parametrize("kind", ENDLESS)
def test_what_has_no_end_is_not_waited_for_nor_kept(kind: str, server: Api):
    before = server.process.memory_info().rss
    codes = answers(server.sent(ENDLESS[kind]))
    assert all(400 <= code < 500 or code == 200 for code in codes), codes
    server.check()
    assert server.process.memory_info().rss < before + 100 * 2**20


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override: DELETE", "X_API_KEY: a", "Transfer_Encoding: chunked"])
def test_header_with_another_meaning_elsewhere_has_none_here(header: str, server: Api):
    with closing(Line(server.port)) as line:
        assert line.ask("GET", "/tasks", None, header).code == 200


@pytest.mark.parametrize(
    "address", ["//localhost/tasks", "http://elsewhere/tasks", "*", "localhost:80", "/tasks#x", "/\\tasks"]
)
@pytest.mark.parametrize("method", ["GET", "CONNECT", "TRACE", "DELETE", "PROPFIND"])
def test_no_address_is_taken_for_another_host(address: str, method: str, server: Api):
    back = server.sent(request(method, address))
    assert all(code < 500 for code in answers(back))
    assert b"location: http://elsewhere" not in back.lower()


def test_lines_of_the_log_are_those_of_requests(server: Api):
    for address in (b"/a%0d%0aforged", b"/a\x1b[31mforged", b"/a\x85forged", "/größe\u2028forged".encode()):
        server.sent(b"GET %b HTTP/1.1\r\nHost: localhost\r\nUser-Agent: a\x1bforged\r\n\r\n" % address)
    server.check()
    until(lambda: b"/healthz" in server.log.read_bytes())
    for line in server.log.read_bytes().splitlines():
        assert b"\x1b" not in line
        assert not line.startswith(b"forged")


@pytest.mark.parametrize("size", [2**20 - 100, 2**20 + 1, 30 * 2**20])
@pytest.mark.parametrize("chunked", [True, False])
def test_large_bodies_are_refused_at_the_limit_and_only_there(size: int, chunked: bool, server: Api):
    body = json.dumps({"service": "none", "data": ["x"]}).encode()
    body = body.replace(b"x", b"x" * (size - len(body) + 1))
    try:
        with closing(Line(server.port)) as line:
            code = line.ask("POST", "/train", body, chunked=chunked).code
    except (ConnectionError, AssertionError, IndexError):
        code = 413  # the server closed while it was still sent to
    assert code == (404 if size < 2**20 else 413)
    server.check()


@pytest.mark.parametrize("path", ["/train", "/predict"])
@pytest.mark.parametrize("chunked", [True, False])
def test_without_the_limit_a_body_beyond_it_is_read_whole(path: str, chunked: bool, server: Api, unlocked: Api):
    body = json.dumps({"service": "none", "parameters": {}, "data": ["x" * 2**21]}).encode()
    codes = []
    for api in (server, unlocked):
        with closing(Line(api.port)) as line:
            codes.append(line.ask("POST", path, body, chunked=chunked).code)
    assert codes == [413, 404]  # there is no such service, which is known once the body was read


def test_without_the_limit_a_body_that_is_announced_as_huge_is_waited_for(server: Api, unlocked: Api):
    with closing(Line(server.port)) as line, closing(Line(unlocked.port)) as other:
        for each in (other, line):
            each.send(post(f"Content-Length: {2**33}", body=b" " * 100_000))
        assert line.answer().code == 413
        assert is_silent(other.socket)


SLOW = {
    "a body that stops": (post("Content-Length: 2", body=b"{"), b"", b"}"),
    "a body that drips": (
        post("Transfer-Encoding: chunked", body=b"1\r\n{\r\n"),
        b"1\r\n \r\n",
        b"1\r\n}\r\n0\r\n\r\n",
    ),
    "headers that drip": (b"POST /train HTTP/1.1\r\nX: x", b"x", b"\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{}"),
}
"""Requests that come slowly: how they begin, what is added again and again, and the end that would make them whole."""


def test_what_comes_slowly_is_waited_for_only_without_the_limits_on_time(server: Api, unlocked: Api):
    with contextlib.ExitStack() as held:
        ended, kept = (
            {kind: held.enter_context(closing(Line(api.port))) for kind in SLOW} for api in (server, unlocked)
        )
        for kind, (first, _, _) in SLOW.items():
            for lines in (kept, ended):
                lines[kind].send(first)
        until(lambda: are_over(ended, kept), 60)
        for kind, line in ended.items():
            told = beginning_of(line)
            assert told == b"HTTP/1.1 408" or (kind == "headers that drip" and told == b""), kind
        for kind, line in kept.items():
            assert is_silent(line.socket), kind
            line.send(SLOW[kind][2])
            assert line.answer().code == 400, kind  # it came as a whole, and names no service


def are_over(ended: dict[str, Line], kept: dict[str, Line]) -> bool:
    """Whether the server had enough of each slow request; those that go on get a little more, there and elsewhere."""
    going = [kind for kind in SLOW if is_silent(ended[kind].socket)]
    for kind in going:
        for line in (ended[kind], kept[kind]):
            with contextlib.suppress(ConnectionError):  # of the one that is ended right now
                line.send(SLOW[kind][1])
    return not going


def beginning_of(line: Line) -> bytes:
    """What came first; nothing where the connection was only closed."""
    with contextlib.suppress(ConnectionError):
        return line.socket.recv(12)
    return b""


def is_silent(line: socket.socket) -> bool:
    """Whether it is open, and nothing came."""
    return not select.select([line], [], [], 0)[0]
