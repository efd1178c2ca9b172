"""How much of what was sent lies unread, as the kernel counts it: the HTTP server takes whatever it is given."""

from __future__ import annotations

from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

Ports = tuple[int, int]
"""Ours and the client's."""


def ports_of(server: str, client: str) -> Ports | None:
    """The ports of a connection between two addresses such as 127.0.0.1:8080; None when they name none."""
    ours, theirs = server.rpartition(":")[2], client.rpartition(":")[2]
    return (int(ours), int(theirs)) if ours.isdigit() and theirs.isdigit() else None


def unread_bytes() -> dict[Ports, int] | None:
    """Bytes that wait in the kernel, by the ports of each connection; None where the kernel does not tell.

    Of connections that differ in their addresses alone the fullest counts: who reads may wait for it, no longer.
    """
    found: dict[Ports, int] = {}
    try:
        for table in _TABLES:
            with table.open() as lines:
                next(lines)
                for line in lines:
                    words = line.split(maxsplit=5)
                    ports = _port(words[1]), _port(words[2])
                    found[ports] = max(found.get(ports, 0), int(words[4].partition(":")[0], 16))
    except (OSError, StopIteration):
        return found or None
    return found


def _port(address: str) -> int:
    return int(address.rpartition(":")[2], 16)
