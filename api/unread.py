"""How much of what was sent lies unread, as the kernel counts it: the HTTP server takes whatever it is given."""

from __future__ import annotations

import sys
from ipaddress import IPv6Address, ip_address
from pathlib import Path

_TABLES = (Path("/proc/self/net/tcp"), Path("/proc/self/net/tcp6"))

Connection = tuple[int, str]
"""Our port, and the client's address and port as the kernel writes them."""


def connection_of(server: str, client: str) -> Connection | None:
    """The connection between two addresses such as 127.0.0.1:8080 and [::1]:40000; None when they name none."""
    ours = server.rpartition(":")[2]
    host, _, theirs = client.rpartition(":")
    try:
        address = ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if not (ours.isdigit() and theirs.isdigit()):
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return int(ours), f"{_written(address.packed)}:{int(theirs):04X}"


def unread_bytes() -> dict[Connection, int] | None:
    """Bytes that wait in the kernel, by connection; None where the kernel does not tell.

    Of several connections of a client to addresses of ours with one port the fullest counts.
    """
    found: dict[Connection, int] = {}
    try:
        for table in _TABLES:
            with table.open() as lines:
                next(lines)
                for line in lines:
                    words = line.split(maxsplit=5)
                    # An old address may be the client of a socket for both kinds.
                    connection = int(words[1].rpartition(":")[2], 16), words[2].removeprefix(_MAPPED)
                    found[connection] = max(found.get(connection, 0), int(words[4].partition(":")[0], 16))
    except (OSError, StopIteration):
        return found or None
    return found


def _written(address: bytes) -> str:
    """An address in the kernel's table: words of four bytes, each as a number of this machine."""
    words = (address[start : start + 4] for start in range(0, len(address), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)


_MAPPED = _written(IPv6Address("::ffff:0.0.0.0").packed[:12])
