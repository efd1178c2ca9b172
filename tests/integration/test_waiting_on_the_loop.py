"""How the event loop looks after predictions that wait longer than usual, with a Redis that is a toy."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask

from api.hot import Hot
from storage.errors import LiveUnavailable
from storage.live import Sent, Spread
from workers.asked import Asked

KNOWN: Any = SimpleNamespace(service=SimpleNamespace(id=1, name="s"), mark=None)
QUESTION: Any = SimpleNamespace(encoded=b"{}", lane="lane", batch="1.cpu:x")


class Caller:
    """One who stays."""

    async def client_disconnect(self) -> None:
        await asyncio.Event().wait()


class Tube:
    """A Redis that lost all requests once, and says so late.

    events : what came to it, in order. may_say : set when the first question after a request may be answered.
    """

    replies = "replies:x"

    def __init__(self) -> None:
        self.events: list[str] = []
        self.may_say = asyncio.Event()
        self.futures: list[asyncio.Future[bytes]] = []

    def expect(self, request_id: str) -> asyncio.Future[bytes]:
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def append(self, lane: str, requests: Any, spread: Any, then: Any, failed: Any) -> None:
        self.events.append("append")
        then([Sent.WAITS for _ in requests])

    async def nudge(self, *_: Any) -> Sent:
        self.events.append("nudge")
        await self.may_say.wait()
        return Sent.REFUSED if self.events.count("append") == 1 else Sent.WAITS

    def check(self) -> None:
        """Nothing is wrong."""

    def forget(self, request_id: str) -> None:
        """Nothing is kept."""

    withdraw = forget


async def until(claim: Callable[[], bool]) -> None:
    while not claim():
        await asyncio.sleep(0.001)


def on_a_loop(test: Callable[[Hot, Tube], Awaitable[None]], **parts: Any) -> None:
    """Run a test with a hot way whose parts are toys too."""
    given = SimpleNamespace(settings=SimpleNamespace(predict_timeout_s=30.0), cors=None, **parts)

    async def run(threads: ThreadPoolExecutor) -> None:
        tube = Tube()
        hot = Hot(cast(Flask, SimpleNamespace(extensions={"modelyard": given})), threads)
        hot._loop = asyncio.get_running_loop()
        hot._tube = cast(Any, tube)
        hot._keep(asyncio.create_task(hot._look_after()))
        try:
            await asyncio.wait_for(test(hot, tube), 20)
        finally:
            for task in hot._tasks:
                task.cancel()

    with ThreadPoolExecutor(2) as threads:
        asyncio.run(run(threads))


def test_request_that_redis_lost_is_asked_after_once_at_a_time_and_sent_again_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api.hot._LOOK_S", 0.001)

    async def test(hot: Hot, tube: Tube) -> None:
        asking = asyncio.create_task(hot._asked(KNOWN, QUESTION, Asked(b"{}", b"[]"), Caller()))
        await until(lambda: "nudge" in tube.events)
        [waiting] = hot._waiting.values()
        # The moments of many further questions come before the first one is answered.
        for _ in range(50):
            waiting.look_at = 0.0
            await asyncio.sleep(0.001)
        tube.may_say.set()
        while tube.events.count("append") < 2:
            waiting.look_at = 0.0
            await asyncio.sleep(0.001)
        waiting.look_at = 0.0
        await until(lambda: tube.events[-1] == "nudge")
        tube.futures[0].set_result(b"right")
        assert await asking == b"right"
        assert tube.events[:4] == ["append", "nudge", "append", "nudge"]

    on_a_loop(test, queue=SimpleNamespace(kept_spread=lambda lane: Spread()))


def test_workers_of_a_lane_are_looked_up_once_at_a_time() -> None:
    looked: list[str] = []
    is_over = threading.Event()

    def look_up(lane: str) -> Spread:
        looked.append(lane)
        assert is_over.wait(10)
        raise LiveUnavailable("Redis does not answer")

    async def test(hot: Hot, _: Tube) -> None:
        for _ in range(20):
            assert hot._spread("one") == hot._spread("other") == Spread()
            await asyncio.sleep(0)
        is_over.set()
        await until(lambda: not hot._looks)
        hot._spread("one")
        await until(lambda: not hot._looks)

    on_a_loop(test, queue=SimpleNamespace(kept_spread=lambda lane: None, look_up_spread=look_up))
    assert sorted(looked[:2]) == ["one", "other"]
    assert looked[2:] == ["one"]
