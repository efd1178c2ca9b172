"""Whether callers are still there, told from real connections on this machine."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from api import callers
from api.callers import is_connected

Json = dict[str, Any]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6], ids=["IPv4", "IPv6"])
def listener(request: pytest.FixtureRequest) -> Iterator[socket.socket]:
    with socket.socket(request.param) as made:
        made.bind(("127.0.0.1" if request.param == socket.AF_INET else "::1", 0))
        made.listen()
        yield made


class Call:
    """A connection: the caller's end, ours, and what the server says of it."""

    def __init__(self, listener: socket.socket) -> None:
        self.caller = socket.socket(listener.family)
        self.caller.connect(listener.getsockname())
        self.ours, there = listener.accept()
        self.environ: Json = {"REMOTE_ADDR": there[0], "REMOTE_PORT": str(there[1])}

    def close(self) -> None:
        self.caller.close()
        self.ours.close()


@pytest.fixture
def call(listener: socket.socket) -> Iterator[Call]:
    made = Call(listener)
    yield made
    made.close()


def test_caller_that_waits_is_there(call: Call):
    assert is_connected(call.environ)


def test_what_a_caller_sent_is_left_to_the_server(call: Call):
    call.caller.sendall(b"more")
    assert is_connected(call.environ)
    assert is_connected(call.environ)
    assert call.ours.recv(16) == b"more"


def test_caller_that_hung_up_is_gone(call: Call):
    call.caller.close()
    assert not is_connected(call.environ)


def test_caller_that_broke_off_is_gone(call: Call):
    call.caller.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    call.caller.close()
    assert not is_connected(call.environ)


def test_caller_whose_connection_we_closed_is_gone(call: Call):
    call.ours.close()
    # Its other end is in this process too, but is connected to the listener's port.
    assert not is_connected(call.environ)


def test_looking_changes_nothing_about_a_connection(call: Call):
    open_files = sorted(os.listdir("/proc/self/fd"))
    for blocking in (True, False):
        call.ours.setblocking(blocking)
        assert is_connected(call.environ)
        assert os.get_blocking(call.ours.fileno()) is blocking
    assert sorted(os.listdir("/proc/self/fd")) == open_files


def test_one_caller_is_told_from_another(listener: socket.socket):
    calls = [Call(listener) for _ in range(3)]
    calls[1].caller.close()
    assert [is_connected(each.environ) for each in calls] == [True, False, True]
    for each in calls:
        each.close()


def test_caller_of_the_old_protocol_on_a_socket_of_the_new_one_is_found():
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as listener:
        caller = socket.create_connection(("127.0.0.1", listener.getsockname()[1]))
        ours, there = listener.accept()
        assert there[0] == "::ffff:127.0.0.1"
        for name in ("127.0.0.1", "::ffff:127.0.0.1"):
            assert is_connected({"REMOTE_ADDR": name, "REMOTE_PORT": str(there[1])})
        caller.close()
        assert not is_connected({"REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": str(there[1])})
        ours.close()


@pytest.mark.parametrize(
    "environ", [{}, {"REMOTE_ADDR": "127.0.0.1"}, {"REMOTE_ADDR": "", "REMOTE_PORT": "1"}, {"REMOTE_PORT": "unix"}]
)
def test_caller_that_nothing_is_known_of_counts_as_there(environ: Json):
    assert is_connected(environ)


def test_callers_count_as_there_when_sockets_cannot_be_listed(call: Call, monkeypatch: pytest.MonkeyPatch):
    call.caller.close()

    def refuse(path: str) -> list[str]:
        raise PermissionError(path)

    monkeypatch.setattr(callers.os, "listdir", refuse)
    assert is_connected(call.environ)
