"""What clients have not read is told of each connection by itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from contextlib import ExitStack, closing

import pytest

from api.unread import Connection, connection_of, unread_bytes

WAIT_S = 30.0


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def listener(family: int) -> socket.socket:
    """A server at a port of the loopback interface; of the newer family for clients of both."""
    try:
        made = socket.socket(family)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        made.bind(("::" if family == socket.AF_INET6 else "127.0.0.1", 0))
    except OSError:
        pytest.skip("this machine has no such addresses")
    made.listen()
    return made


def caller(host: str, port: int, to: int) -> socket.socket:
    """A client at an address, whose kernel takes little that it does not read."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    made.bind((host, port))
    made.connect(("127.0.0.1", to))
    return made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_clients_with_the_same_port_at_two_addresses_are_told_apart(family: int):
    with ExitStack() as stack:
        server = stack.enter_context(closing(listener(family)))
        port = server.getsockname()[1]
        asleep = stack.enter_context(closing(caller("127.0.0.2", 0, port)))
        to_asleep = stack.enter_context(closing(server.accept()[0]))
        awake = stack.enter_context(closing(caller("127.0.0.3", asleep.getsockname()[1], port)))
        to_awake = stack.enter_context(closing(server.accept()[0]))
        assert asleep.getsockname()[1] == awake.getsockname()[1]

        def unread(each: socket.socket) -> int:
            host, theirs = each.getsockname()
            connection = connection_of(f"127.0.0.1:{port}", f"{host}:{theirs}")
            found = unread_bytes()
            assert connection is not None
            assert found is not None
            return found[connection]

        to_asleep.sendall(b"x" * 2**16)
        to_awake.sendall(b"x" * 100)
        until(lambda: unread(awake) == 0)
        assert 2**14 < unread(asleep) <= 2**16
        assert unread(awake) == 0


@pytest.mark.parametrize("client", ["[::1]:40000", "127.0.0.1:40000", "[::ffff:127.0.0.1]:40000", "[fe80::1%2]:1"])
def test_clients_of_all_kinds_of_addresses_have_a_connection(client: str):
    found = connection_of("[::]:8080", client)
    assert found is not None
    assert found[0] == 8080


def test_old_address_is_the_same_in_both_forms():
    plain, mapped = (connection_of("0.0.0.0:1", each) for each in ("127.0.0.1:2", "[::ffff:127.0.0.1]:2"))
    assert plain == mapped


@pytest.mark.parametrize("client", ["", "unix:", "/run/api.sock", "localhost:1", "127.0.0.1:", "127.0.0.1"])
def test_what_is_no_address_has_no_connection(client: str):
    assert connection_of("127.0.0.1:8080", client) is None


def test_table_of_the_kernel_names_a_client_of_the_newer_addresses():
    with closing(listener(socket.AF_INET6)) as server, socket.socket(socket.AF_INET6) as client:
        port = server.getsockname()[1]
        if client.connect_ex(("::1", port)):
            pytest.skip("this machine has no such addresses")
        with closing(server.accept()[0]):
            connection: Connection | None = connection_of(f"[::]:{port}", f"[::1]:{client.getsockname()[1]}")
            found = unread_bytes()
    assert found is not None
    assert connection in found
