"""Whether a caller that waits is still there.

The server tells a blocking application nothing of callers that hang up. But the connections are sockets of this very
process: one that is gone, or at whose end is nothing more to read, belongs to nobody any more.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Mapping
from typing import Any


def is_connected(environ: Mapping[str, Any]) -> bool:
    """Whether the connection that a request came over is open, as far as can be told."""
    host, port = environ.get("REMOTE_ADDR"), environ.get("REMOTE_PORT")
    if not host or not port or not str(port).isdigit():
        return True
    found = _end_of(str(host), int(port))
    return found is not False


def _end_of(host: str, port: int) -> bool | None:
    """Whether the connection from there is open; None when sockets cannot be listed."""
    try:
        numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    except OSError:
        return None
    for number in numbers:
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{number}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(number)) as connection:
                if connection.family not in (socket.AF_INET, socket.AF_INET6):
                    continue
                there = connection.getpeername()
                if there[1] == port and there[0].removeprefix("::ffff:") == host.removeprefix("::ffff:"):
                    try:
                        return connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT) != b""
                    except BlockingIOError:
                        return True
    return False
