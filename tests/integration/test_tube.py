"""The lane as an event loop speaks to it, on a real Redis."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable

import pytest
import redis

from storage.errors import LiveUnavailable
from storage.live import Live, Request, Sent, Spread
from storage.live.tube import Tube
from tests.services import RedisServer

pytestmark = pytest.mark.servers

LANE = "predict.toy.cpu"


def with_tube(url: str, do: Callable[[Tube], Awaitable[None]]) -> None:
    async def run() -> None:
        tube = Tube(url)
        try:
            await asyncio.wait_for(do(tube), 20)
        finally:
            tube.close()

    asyncio.run(run())


async def until(is_so: Callable[[], bool], within_s: float = 5.0) -> None:
    async with asyncio.timeout(within_s):
        while not is_so():
            await asyncio.sleep(0.01)


async def appended(tube: Tube, *request_ids: str) -> list[Sent]:
    """What became of requests. Raises LiveUnavailable."""
    future: asyncio.Future[list[Sent]] = asyncio.get_running_loop().create_future()
    wanted = [Request(each, "1.cpu:x", tube.replies, 30.0, b"?" + each.encode()) for each in request_ids]
    tube.append(LANE, wanted, Spread(), future.set_result, future.set_exception)
    return await future


def drain(url: str, count: int) -> None:
    """Answer so many requests, as a worker would: each with what it asked."""
    live = Live(url)
    made = live.lane.drain(LANE, f"drain-{uuid.uuid4().hex}", lease_s=30.0)
    answers: list[tuple[bytes, bytes]] = []
    try:
        until = time.monotonic() + 10
        while (count > 0 or answers) and time.monotonic() < until:
            batch = made.turn(answers, most=16, wait_s=0.2 if count > 0 else 0.0)
            answers = [] if batch is None else [(each.id, b"!" + each.asked) for each in batch.requests]
            count -= len(answers)
        made.leave(at_once=True)  # or the next request would be handed to it, while its lease lasts
    finally:
        made.close()
        live.close()


async def answered(tube: Tube, url: str, *request_ids: str) -> list[bytes]:
    """The answers to requests, in the order of their ids."""
    futures = [tube.expect(each) for each in request_ids]
    await appended(tube, *request_ids)
    await asyncio.to_thread(drain, url, len(request_ids))
    found = [await asyncio.wait_for(each, 5) for each in futures]
    for each in request_ids:
        tube.forget(each)
    return found


def test_each_of_many_requests_gets_its_own_answer(redis_url: str):
    names = [f"r{number}" for number in range(500)]

    async def do(tube: Tube) -> None:
        assert await answered(tube, redis_url, *names) == [b"!?" + each.encode() for each in names]
        assert not tube._waiting

    with_tube(redis_url, do)


def test_commands_of_one_connection_are_answered_in_order(redis_url: str):
    async def do(tube: Tube) -> None:
        found: list[bytes] = []
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        for number in range(1000):
            tube._out.send(found.append, "ECHO", number)
        tube._out.send(lambda _: ended.set_result(None), "PING")
        await ended
        assert found == [str(number).encode() for number in range(1000)]

    with_tube(redis_url, do)


def test_connections_that_the_server_killed_are_made_again(own_redis: RedisServer):
    async def do(tube: Tube) -> None:
        assert await answered(tube, own_redis.url, "before") == [b"!?before"]
        wire = tube._out._wire
        assert wire is not None
        with redis.Redis.from_url(own_redis.url) as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: not wire.is_open)
        assert await answered(tube, own_redis.url, "after") == [b"!?after"]

    with_tube(own_redis.url, do)


def test_scripts_that_were_flushed_are_sent_again(own_redis: RedisServer):
    async def do(tube: Tube) -> None:
        assert await answered(tube, own_redis.url, "before") == [b"!?before"]
        with redis.Redis.from_url(own_redis.url) as client:
            client.script_flush()
        assert await answered(tube, own_redis.url, "after") == [b"!?after"]

    with_tube(own_redis.url, do)


def test_server_that_is_down_is_told_at_once_and_used_again_when_it_is_back(own_redis: RedisServer):
    async def do(tube: Tube) -> None:
        assert await answered(tube, own_redis.url, "before") == [b"!?before"]
        await asyncio.to_thread(own_redis.kill)
        began = time.monotonic()
        for name in ("first", "second"):
            with pytest.raises(LiveUnavailable):
                await appended(tube, name)
        assert time.monotonic() - began < 10
        await asyncio.to_thread(own_redis.start)
        assert await answered(tube, own_redis.url, "after") == [b"!?after"]

    with_tube(own_redis.url, do)


def test_caller_that_was_cancelled_takes_no_answer_from_others(redis_url: str):
    async def do(tube: Tube) -> None:
        tube.expect("gone").cancel()
        kept = tube.expect("kept")
        await appended(tube, "gone", "kept")
        await asyncio.to_thread(drain, redis_url, 2)
        assert await asyncio.wait_for(kept, 5) == b"!?kept"
        tube.forget("gone")
        tube.forget("kept")
        assert await answered(tube, redis_url, "next") == [b"!?next"]

    with_tube(redis_url, do)


def test_closed_tube_refuses_and_leaves_no_connection(own_redis: RedisServer):
    async def do(tube: Tube) -> None:
        await answered(tube, own_redis.url, "before")
        tube.close()
        with pytest.raises(LiveUnavailable):
            await appended(tube, "late")
        with redis.Redis.from_url(own_redis.url) as client:
            await until(lambda: len(client.client_list()) == 1)

    with_tube(own_redis.url, do)
