"""Redis behind a slow network, and one that becomes a replica."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
import redis

from storage.errors import LiveUnavailable
from storage.live import Counts, Live, Request, Sent, Spread, Taken
from storage.live.tube import Tube
from tests.services import RedisServer

pytestmark = [pytest.mark.servers, pytest.mark.timeout(60)]

LANE = "predict.toy.cpu"
PIECE = 32 * 1024


def append(live: Live, request_id: str, replies: str) -> None:
    live.lane.append(LANE, [Request(request_id, "1.cpu:x", replies, 30.0, b"?")], Spread())


@contextmanager
def slowly(path: str) -> Iterator[int]:
    """A port that leads to a Redis, to which 4 MiB a second go; the way back is quick."""
    threads: list[threading.Thread] = []
    sockets = [socket.socket()]
    [listening] = sockets
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2 * PIECE)
    listening.bind(("127.0.0.1", 0))
    listening.listen()

    def start(work: Callable[..., None], *about: Any) -> None:
        threads.append(threading.Thread(target=work, args=about, daemon=True))
        threads[-1].start()

    def carry(source: socket.socket, target: socket.socket, pause_s: float) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                target.sendall(piece)
                time.sleep(pause_s)
        shut(source, target)

    def serve() -> None:
        with suppress(OSError):
            while True:
                near, far = listening.accept()[0], socket.socket(socket.AF_UNIX)
                sockets.extend((near, far))
                far.connect(path)
                start(carry, near, far, PIECE / (4 << 20))
                start(carry, far, near, 0.0)

    start(serve)
    try:
        yield listening.getsockname()[1]
    finally:
        for each in sockets:
            shut(each)
        for thread in threads:
            thread.join(10)
        for each in sockets:
            each.close()


def shut(*ends: socket.socket) -> None:
    """Have whoever reads or writes there find the end; those that are at it already say so."""
    for each in ends:
        with suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


@pytest.mark.parametrize("way", ["turn", "leave"])
def test_large_answer_takes_its_time_to_a_redis_on_a_slow_network(own_redis: RedisServer, way: str) -> None:
    near = Live(own_redis.url)
    replies = near.lane.replies()
    waiter = replies.expect("a")
    append(near, "a", replies.name)
    large = bytes(range(256)) * (6 << 12)
    with slowly(str(own_redis.socket)) as port:
        far = Live(f"redis://127.0.0.1:{port}/0")
        drain = far.lane.drain(LANE, "far", lease_s=30.0)
        batch = drain.turn(most=8)
        assert batch is not None
        [taken] = batch.requests
        assert taken == Taken(b"a", taken.waited_ms, b"?")
        sock = drain._connection._sock
        assert sock is not None
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * PIECE)  # or most of it would be there already
        answers = [(b"a", large)]
        began = time.monotonic()
        if way == "turn":
            assert drain.turn(answers, most=8) is None
        else:
            assert drain.leave(answers) == (True, "")
        assert time.monotonic() - began > 1.2  # a second is how long a connection waits for a Redis that is silent
        assert waiter.wait(10) == large
        drain.close()
        far.close()
    replies.close()
    near.close()


def connections(client: redis.Redis) -> set[str]:
    """Numbers of all connections but that of the client itself."""
    own = str(client.client_id())
    return {each["id"] for each in client.client_list()} - {own}


def made(client: redis.Redis) -> int:
    """How many connections were made so far."""
    return int(client.info("stats")["total_connections_received"])


def until_it_works(ask: Callable[[], object]) -> None:
    until = time.monotonic() + 10
    while True:
        try:
            ask()
            return
        except LiveUnavailable:
            assert time.monotonic() < until
            time.sleep(0.02)


def test_connections_to_a_redis_that_became_a_replica_are_made_again(own_redis: RedisServer) -> None:
    live = Live(own_redis.url)
    drain = live.lane.drain(LANE, "here", lease_s=3600.0)
    asks: list[Callable[[], object]] = [
        lambda: append(live, "a", "replies:x"),
        lambda: drain.turn(most=8),
        lambda: live.statistics.add(1, Counts(predict_count=1)),
    ]
    with redis.Redis.from_url(own_redis.url) as client:
        for ask in asks:
            ask()
        before = connections(client)
        assert len(before) >= 3
        client.replicaof("127.0.0.1", "1")
        for ask in asks:
            with pytest.raises(LiveUnavailable, match="read only replica"):
                ask()
        client.replicaof("NO", "ONE")
        for ask in asks:
            until_it_works(ask)
        assert not before & connections(client)
    drain.close()
    live.close()


def test_event_loop_leaves_a_redis_that_became_a_replica(own_redis: RedisServer) -> None:
    async def append(tube: Tube) -> list[Sent]:
        future: asyncio.Future[list[Sent]] = asyncio.get_running_loop().create_future()
        request = Request("a", "1.cpu:x", tube.replies, 30.0, b"?")
        tube.append(LANE, [request], Spread(), future.set_result, future.set_exception)
        return await future

    async def heard(tube: Tube, client: redis.Redis, request_id: str) -> None:
        future = tube.expect(request_id)
        client.rpush(tube.replies, f"{request_id}\t5\nright")
        assert await asyncio.wait_for(future, 10) == b"right"
        tube.forget(request_id)

    async def test() -> None:
        tube = Tube(own_redis.url)
        with redis.Redis.from_url(own_redis.url) as client:
            await append(tube)
            await heard(tube, client, "first")
            before = connections(client)
            assert len(before) == 2
            client.replicaof("127.0.0.1", "1")
            with pytest.raises(LiveUnavailable, match="read only replica"):
                await append(tube)
            # Redis itself cuts off whoever listens at that moment; whoever comes to a replica then is refused.
            while before & connections(client):
                await asyncio.sleep(0.01)
            came = made(client)
            while made(client) < came + 3:
                await asyncio.sleep(0.01)
            client.replicaof("NO", "ONE")
            await append(tube)
            await heard(tube, client, "second")
        tube.close()

    asyncio.run(asyncio.wait_for(test(), 30))
