"""How long a connection waits for Redis: for as long as anything moves on it."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from storage.errors import LiveUnavailable
from storage.live import lane, tube
from storage.live.tube import Wire

MIB = 2**20


class Transport:
    """One that sends nothing by itself. left : bytes that were written and have not gone yet."""

    def __init__(self) -> None:
        self.left = 0
        self.is_aborted = False

    def write(self, data: bytes) -> None:
        self.left += len(data)

    def get_write_buffer_size(self) -> int:
        return self.left

    def abort(self) -> None:
        self.is_aborted = True


class Waited:
    """A wire, its transport, and what came of the commands that were sent; `now` is what the clock says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(tube, "time", SimpleNamespace(monotonic=lambda: self.now))
        self.wire, self.transport = Wire(), Transport()
        self.wire.connection_made(cast(asyncio.Transport, self.transport))
        self.answers: list[Any] = []

    def send(self, size: int = 10) -> None:
        self.wire.send(self.answers.append, "ECHO", b"x" * size)

    def is_open_after(self, seconds: float) -> bool:
        """Whether it is after so many seconds, in which it was looked at as often as it is."""
        until = self.now + seconds
        while self.now < until:
            self.now = min(until, self.now + 0.05)
            self.wire.check(1.0)
        return self.wire.is_open


@pytest.fixture
def waited(monkeypatch: pytest.MonkeyPatch) -> Waited:
    return Waited(monkeypatch)


def test_server_that_says_nothing_is_given_up(waited: Waited) -> None:
    waited.send()
    waited.transport.left = 0
    assert waited.is_open_after(0.9)
    waited.send()
    waited.transport.left = 0
    assert not waited.is_open_after(0.2)
    assert waited.transport.is_aborted
    assert [type(each) for each in waited.answers] == [LiveUnavailable] * 2


def test_connection_on_which_nobody_waits_is_kept(waited: Waited) -> None:
    waited.send()
    waited.wire.data_received(b"$2\r\nok\r\n")
    assert waited.is_open_after(60)
    assert waited.answers == [b"ok"]


def test_answer_that_comes_steadily_is_waited_for(waited: Waited) -> None:
    waited.send()
    waited.transport.left = 0
    waited.wire.data_received(b"$50\r\n")
    for _ in range(5):
        assert waited.is_open_after(0.8)
        waited.wire.data_received(b"ten bytes!")
    assert waited.is_open_after(0.9)
    waited.wire.data_received(b"\r\n")
    assert waited.answers == [b"ten bytes!" * 5]


def test_answer_that_stops_coming_is_given_up(waited: Waited) -> None:
    waited.send()
    waited.transport.left = 0
    assert waited.is_open_after(0.9)
    waited.wire.data_received(b"$50\r\nten bytes!")
    assert waited.is_open_after(0.9)
    assert not waited.is_open_after(0.2)


def test_command_that_goes_steadily_is_waited_for(waited: Waited) -> None:
    waited.send(8 * MIB)
    for _ in range(7):
        assert waited.is_open_after(0.8)
        waited.transport.left -= MIB
        waited.send()  # others are sent meanwhile, so that no less is left
    assert waited.is_open_after(0.9)
    assert not waited.is_open_after(0.2)


def test_server_that_follows_another_is_left_with_all_that_was_asked_of_it(waited: Waited) -> None:
    waited.wire.send(lambda _: waited.wire.close("it follows another server"), "EVALSHA")
    waited.send()
    waited.wire.data_received(b"-READONLY You can't write against a read only replica.\r\n$2\r\nok\r\n")
    assert not waited.wire.is_open
    assert [type(each) for each in waited.answers] == [LiveUnavailable]


def test_long_commands_are_sent_in_pieces() -> None:
    packed = [b"short", bytes(range(256)) * 4096, b"end"]
    pieces = list(lane._in_pieces(packed))
    assert max(map(len, pieces)) <= 2**18
    assert b"".join(pieces) == b"".join(packed)
    assert lane._in_pieces([b"short"]) == [b"short"]
