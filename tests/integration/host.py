"""Another host, on the loopback address: files by path, each with an ETag, and a list of what was asked for."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_PART = re.compile(r"bytes=([0-9]+)-([0-9]+)")


@dataclass
class Host:
    """files : by path. asked : path and status of each GET, in the order of the answers; looked : of each HEAD.

    gate : answers wait while it is closed. failures : how many requests to come are answered with 503.
    gives_parts : whether parts of files are offered, and given; such an answer has status 206.
    """

    port: int
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, int]] = field(default_factory=list)
    looked: list[tuple[str, int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    failures: int = 0
    has_etags: bool = True
    gives_parts: bool = False

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def sent(self) -> int:
        """How often a file was sent whole."""
        return sum(status == 200 for _, status in self.asked)


@contextlib.contextmanager
def hosting(**files: bytes) -> Iterator[Host]:
    """A host with `files` by name."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            host.gate.wait(30)
            content = host.files.get(self.path.partition("?")[0])
            etag = f'"{hashlib.sha256(content or b"").hexdigest()[:16]}"'
            if host.failures:
                host.failures -= 1
                self.answer(503)
            elif content is None:
                self.answer(404)
            elif host.has_etags and self.headers.get("If-None-Match") == etag:
                self.answer(304)
            elif host.gives_parts and (asked := _PART.fullmatch(self.headers.get("Range", ""))):
                part = content[int(asked[1]) : int(asked[2]) + 1]
                told = f"bytes {asked[1]}-{int(asked[1]) + len(part) - 1}/{len(content)}"
                self.answer(206, part, {"Content-Range": told})
            else:
                headers = {"ETag": etag} if host.has_etags else {}
                self.answer(200, content, headers | ({"Accept-Ranges": "bytes"} if host.gives_parts else {}))

        do_HEAD = do_GET

        def answer(self, status: int, content: bytes = b"", headers: dict[str, str] | None = None) -> None:
            is_look = self.command == "HEAD"
            (host.looked if is_look else host.asked).append((self.path, status))
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            with contextlib.suppress(OSError):  # who asked may be gone
                self.wfile.write(b"" if is_look else content)

        def log_message(self, *_: object) -> None:
            """Nothing: the list says it all."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    host = Host(server.server_address[1], {f"/{name}": content for name, content in files.items()})
    host.gate.set()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield host
    finally:
        host.gate.set()
        server.shutdown()
        thread.join()
        server.server_close()


def wait_until(holds: Callable[[], bool], timeout_s: float = 30.0) -> None:
    """Wait for something that is about to hold."""
    until = time.monotonic() + timeout_s
    while not holds():
        assert time.monotonic() < until, "it never came"
        time.sleep(0.01)
