"""A server on the loopback address that answers with the bytes a test says, however odd or slow."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

Answering = Callable[[socket.socket], None]


@dataclass
class Receiver:
    """What came in, first one first: heads and bodies of requests."""

    host: str
    port: int
    heads: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    open: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://{self.host}:{self.port}"


def answer(status: str, body: bytes = b"", *headers: str) -> Answering:
    """Answers that are whole."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return lambda connection: connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)


@contextlib.contextmanager
def receiving(
    answering: Answering, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None, listens: bool = True
) -> Iterator[Receiver]:
    """Run a server that answers every connection with `answering` and then closes it.

    host : an address of this machine. listens : whether it reads the request before it answers.
    """
    listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    listening.settimeout(0.05)
    receiver = Receiver(host, listening.getsockname()[1])
    receiver.open.set()

    def serve() -> None:
        while receiver.open.is_set():
            try:
                connection = listening.accept()[0]
            except TimeoutError:
                continue
            # The other side goes away as the test wants it, also in the middle.
            with contextlib.suppress(OSError), connection:
                connection.settimeout(10.0)
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                with connection:
                    if listens:
                        _read(connection, receiver)
                    answering(connection)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield receiver
    finally:
        receiver.open.clear()
        thread.join()
        listening.close()


def _read(connection: socket.socket, receiver: Receiver) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    receiver.heads.append(head.decode())
    lines = dict(line.lower().split(": ", 1) for line in head.decode().split("\r\n")[1:])
    while len(body) < int(lines.get("content-length", 0)):
        piece = connection.recv(65536)
        if not piece:
            return
        body += piece
    receiver.bodies.append(body)
