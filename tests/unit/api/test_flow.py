"""Answers go out as fast as they are read, and not to clients that read next to nothing."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest

import api.flow
from api.flow import LEAST_BYTES, PATIENCE_S, WINDOW_BYTES, Flow, Sending, Stalled


class Kernel:
    """A client that reads at a pace, by a clock that goes on whenever somebody waits."""

    def __init__(self, read_by: Callable[[float], float]) -> None:
        self.now = self.sent = 0.0
        self._read_by = read_by

    async def send_bytes(self, piece: bytes) -> None:
        self.sent += len(piece)

    async def unread(self, connection: Any) -> int:
        return max(0, round(self.sent - self._read_by(self.now)))

    async def wait(self, seconds: float) -> None:
        self.now += seconds


def send(kernel: Kernel, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    async def sent() -> None:
        sending = Sending(cast(Flow, kernel), kernel, (8080, "client"), cast(Any, SimpleNamespace(done=lambda: False)))
        await sending.send(bytes(size))
        await sending.end()

    # No event loop: nothing here really waits.
    clock = SimpleNamespace(time=lambda: kernel.now)
    monkeypatch.setattr(api.flow, "asyncio", SimpleNamespace(sleep=kernel.wait, get_running_loop=lambda: clock))
    with pytest.raises(StopIteration):
        sent().send(None)


def test_client_that_reads_nothing_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    kernel = Kernel(lambda now: 0)
    with pytest.raises(Stalled):
        send(kernel, WINDOW_BYTES, monkeypatch)
    assert PATIENCE_S < kernel.now < PATIENCE_S + 1


def test_client_that_reads_a_little_now_and_then_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    kernel = Kernel(lambda now: now // 10 * 4096)
    with pytest.raises(Stalled):
        send(kernel, WINDOW_BYTES, monkeypatch)
    assert PATIENCE_S < kernel.now < PATIENCE_S + 1


def test_client_that_falls_asleep_after_a_good_beginning_is_cut_off(monkeypatch: pytest.MonkeyPatch):
    kernel = Kernel(lambda now: min(now, 1.0) * 2**19)
    with pytest.raises(Stalled):
        send(kernel, WINDOW_BYTES, monkeypatch)
    assert 2 * PATIENCE_S < kernel.now < 2 * PATIENCE_S + 1


def test_slow_client_gets_everything(monkeypatch: pytest.MonkeyPatch):
    kernel = Kernel(lambda now: now // 20 * (LEAST_BYTES // 2))
    send(kernel, 2 * WINDOW_BYTES + 1000, monkeypatch)
    assert kernel.sent == 2 * WINDOW_BYTES + 1000
    assert kernel.now > 20 * PATIENCE_S


def test_rest_may_be_less_than_what_must_be_read_in_that_time(monkeypatch: pytest.MonkeyPatch):
    kernel = Kernel(lambda now: min(2 * LEAST_BYTES, now * 2**20) if now < 2 * PATIENCE_S - 1 else 2**20)
    send(kernel, 2 * LEAST_BYTES + 100, monkeypatch)
    assert PATIENCE_S < kernel.now < 2 * PATIENCE_S


def test_what_the_http_server_still_holds_is_not_taken_for_read(monkeypatch: pytest.MonkeyPatch):
    """The kernel's part grows from nothing to all of it, and nobody reads."""
    kernel = Kernel(lambda now: max(0.0, WINDOW_BYTES - 1 - now * 2**19))
    with pytest.raises(Stalled):
        send(kernel, WINDOW_BYTES, monkeypatch)
    assert kernel.now < PATIENCE_S + 1
