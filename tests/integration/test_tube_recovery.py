"""The lane of an event loop hears replies again, whatever became of Redis meanwhile."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Awaitable, Callable, Iterator

import pytest
import redis

from storage.errors import LiveUnavailable
from storage.live import Request, Sent, Spread
from storage.live.tube import Tube
from tests.services import RedisServer, running_redis

pytestmark = pytest.mark.servers

LANE = "predict.toy.cpu"


@pytest.fixture
def server() -> Iterator[RedisServer]:
    """One that these tests may kill."""
    with running_redis() as found:
        yield found


def on_a_loop(server: RedisServer, test: Callable[[Tube], Awaitable[None]]) -> None:
    """Run a test beside what the API does with a tube all the time."""

    async def look_after(tube: Tube) -> None:
        while True:
            await asyncio.sleep(0.05)
            tube.check()

    async def run() -> None:
        tube = Tube(server.url)
        looking = asyncio.create_task(look_after(tube))
        try:
            await test(tube)
        finally:
            looking.cancel()
            tube.close()

    asyncio.run(run())


async def hears(server: RedisServer, tube: Tube, request_id: str, within_s: float = 5.0) -> None:
    """Waits until a reply comes through, which is pushed once."""
    future = tube.expect(request_id)
    with redis.Redis.from_url(server.url) as client:
        client.rpush(tube.replies, f"{request_id}\t5\nright")
    async with asyncio.timeout(within_s):
        assert await future == b"right"
    tube.forget(request_id)


async def append(tube: Tube, request_id: str) -> list[Sent]:
    """Raises LiveUnavailable."""
    future: asyncio.Future[list[Sent]] = asyncio.get_running_loop().create_future()
    request = Request(request_id, "1.cpu:x", tube.replies, 30.0, b"asked")
    tube.append(LANE, [request], Spread(), future.set_result, future.set_exception)
    return await future


async def appends(tube: Tube, request_id: str, within_s: float = 5.0) -> None:
    """Append until it is taken, as callers come again."""
    end = time.monotonic() + within_s
    while True:
        try:
            assert await append(tube, request_id) in ([Sent.WAKE], [Sent.WAITS])
            return
        except LiveUnavailable:
            assert time.monotonic() < end, "Redis is not found again"
            await asyncio.sleep(0.05)


def test_replies_are_heard_after_redis_was_killed_again_and_again(server: RedisServer) -> None:
    async def test(tube: Tube) -> None:
        await appends(tube, "first")
        await hears(server, tube, "first")
        for number in range(5):
            server.kill()
            await asyncio.sleep(0.02 * number)
            with pytest.raises(LiveUnavailable):
                await append(tube, "meanwhile")
            server.start()
            await appends(tube, f"again-{number}")
            await hears(server, tube, f"again-{number}")

    on_a_loop(server, test)


def test_replies_are_heard_after_redis_was_killed_while_it_was_found_again(server: RedisServer) -> None:
    async def test(tube: Tube) -> None:
        await hears(server, tube, "first")
        for number in range(8):
            server.restart()
            # Between the moments at which the tube tries again.
            await asyncio.sleep(0.013 * number)
        await appends(tube, "last")
        await hears(server, tube, "last")

    on_a_loop(server, test)


def test_redis_that_says_nothing_counts_as_one_that_is_down(server: RedisServer) -> None:
    async def test(tube: Tube) -> None:
        await appends(tube, "first")
        await hears(server, tube, "first")
        os.kill(server.pid, signal.SIGSTOP)
        try:
            began = time.monotonic()
            with pytest.raises(LiveUnavailable):
                await append(tube, "second")
            assert time.monotonic() - began < 10
            for _ in range(2):  # each makes a connection of its own, in vain
                with pytest.raises(LiveUnavailable):
                    await append(tube, "second")
        finally:
            os.kill(server.pid, signal.SIGCONT)
        await appends(tube, "third")
        await hears(server, tube, "third")
        with redis.Redis.from_url(server.url) as client:
            async with asyncio.timeout(5):
                while len(client.client_list()) != 3:  # two of the tube, and this one
                    await asyncio.sleep(0.01)

    on_a_loop(server, test)
