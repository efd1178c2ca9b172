"""The interactive lane: requests that wait by model, the drains that compute them, and the replies.

A request waits in the list of those it may be computed with. A drain, one per worker process, takes a batch of a list
under a lease and answers each request by its id into the list of replies of the API process that asked. What a drain
took is put back once when its lease runs out. Nothing here is durable: a caller that gets no answer in time is told so.

All decisions are made inside Redis, by its clock, in the scripts of lane.lua; no two of them overlap.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from importlib.resources import files
from itertools import chain
from typing import Any, NamedTuple, cast

import redis
from redis.commands.core import Script

from storage.errors import LiveUnavailable
from storage.live.server import LiveServer

LOST = b"lost"
"""The answer to a request that two workers took and none computed."""

WAKE_UP_S = 2.0
"""How long a wake-up may be on its way before another is sent."""

_SCRIPTS = files(__package__).joinpath("lane.lua").read_text(encoding="utf-8")
_BELL_S = 0.5
_PIECE_BYTES = 1 << 18
_log = logging.getLogger(__name__)


class Sent(Enum):
    """What became of a request that was appended, or asked after."""

    WAITS = 0
    WAKE = 1
    """It waits, and a worker must be woken for it."""
    REFUSED = -1
    """Too many wait already; or, asked after, nobody knows it."""
    CHANGED = -2
    """It does not wait: something changed since it was made up."""


@dataclass(frozen=True)
class Spread:
    """How far requests are spread.

    workers : how many worker processes serve the lane. after_s : how long a request waits for a busy worker that holds
    its model before another one loads it. waiting : most requests that wait in one list.
    """

    workers: int = 1
    after_s: float = 0.05
    waiting: int = 10_000


@dataclass(frozen=True)
class Request:
    """A request on its way into a lane.

    batch : name of the list that it waits in, "<model>:<what else must be equal to be computed together>".
    replies : name of the list of replies. patience_s : how long the caller waits.
    mark : of `Changes`, at which it was made up; None when it is to wait whatever changed since.
    """

    id: str
    batch: str
    replies: str
    patience_s: float
    asked: bytes
    mark: str | None = None

    @property
    def wake(self) -> str:
        """Name of the wake-up that it may need."""
        return f"wake-{self.id}"


@dataclass(frozen=True)
class Taken:
    """A request that a drain took.

    waited_ms : since it was appended. asked : what was asked.
    """

    id: bytes
    waited_ms: float
    asked: bytes


@dataclass(frozen=True)
class Batch:
    """What a drain took: requests of one list, and how many were left there.

    closed : why there are not more: "empty" list, most "requests", most "bytes", or "repeated", a request that was lost
    before and comes last, or alone.
    """

    name: str
    requests: list[Taken]
    left: int
    closed: str


@dataclass(frozen=True)
class Depth:
    """How full a lane is.

    waiting : requests that wait, those of callers that are gone included. in_flight : requests that workers compute.
    oldest_s : how long the oldest one waits, 0 when none does.
    """

    waiting: int
    in_flight: int
    oldest_s: float


class Left(NamedTuple):
    """Whether a drain has gone, and the wake-up to send for what it left behind, or ''."""

    has_gone: bool
    wake: str


class Lane:
    """The scripts of one Redis server. Safe to share between threads."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._redis = server.bytes_client()
        self._append, self._nudge, self._turn, self._give, self._leave, self._renew = (
            self._redis.register_script(script(name)) for name in ("append", "nudge", "turn", "give", "leave", "renew")
        )

    def append(self, lane: str, requests: Sequence[Request], spread: Spread) -> list[Sent]:
        """Let requests wait; what became of each, Sent.WAKE for those whose wake-up must be sent."""
        with self._server.errors():
            return [Sent(each) for each in cast("list[int]", self._append([f"lane:{lane}"], told_of(requests, spread)))]

    def nudge(self, lane: str, request_id: str, spread: Spread) -> tuple[Sent, str]:
        """Ask after a request that was not answered yet, and have another worker come if nobody does."""
        wake = f"wake-{request_id}-{uuid.uuid4().hex[:6]}"
        with self._server.errors():
            return Sent(self._nudge([f"lane:{lane}"], (request_id, wake, *_milliseconds(spread)))), wake

    def withdraw(self, lane: str, request_id: str) -> None:
        """Take a request back: its caller is gone."""
        with self._server.errors():
            self._redis.delete(f"lane:{lane}:request:{request_id}")

    def waiting(self, lane: str) -> dict[str, int]:
        """How many requests wait in each list, those of callers that are gone included."""
        with self._server.errors():
            names = [name.decode() for name in cast("list[bytes]", self._redis.zrange(f"lane:{lane}:lists", 0, -1))]
            pipe = self._redis.pipeline(transaction=False)
            for name in names:
                pipe.llen(f"lane:{lane}:wait:{name}")
            return dict(zip(names, pipe.execute(), strict=True))

    def depth(self, lane: str) -> Depth:
        """How full a lane is now."""
        with self._server.errors():
            pipe = self._redis.pipeline(transaction=False)
            pipe.zrange(f"lane:{lane}:lists", 0, -1, withscores=True)
            pipe.zrange(f"lane:{lane}:drains", 0, -1)
            pipe.time()
            lists, drains, (seconds, microseconds) = pipe.execute()
            for name, _ in lists:
                pipe.llen(f"lane:{lane}:wait:{name.decode()}")
            for name in drains:
                pipe.hlen(f"lane:{lane}:flight:{name.decode()}")
            lengths = pipe.execute()
        arrived_ms = [score for _, score in lists]
        oldest_s = seconds + microseconds / 1e6 - min(arrived_ms) / 1000 if arrived_ms else 0.0
        return Depth(sum(lengths[: len(lists)]), sum(lengths[len(lists) :]), max(0.0, oldest_s))

    def drain(self, lane: str, name: str, *, lease_s: float, patience_s: float = 1.0) -> Drain:
        """A drain of that name, which must be its own."""
        return Drain(self, lane, name, lease_s, patience_s)

    def replies(self) -> Replies:
        """The list of replies of this process, read by a thread of its own."""
        return Replies(self._server)

    def close(self) -> None:
        """Give the connections back."""
        self._redis.close()


class Drain:
    """The worker's side: takes batches and answers them, under a lease that is renewed beside it."""

    def __init__(self, lane: Lane, name: str, drain: str, lease_s: float, patience_s: float) -> None:
        self._lane, self.lane, self.name = lane, name, drain
        self._keys = [f"lane:{name}"]
        self._bell = f"lane:{name}:bell:{drain}"
        self._holders = f"lane:{name}:holders:"
        self._lease_ms, self._patience_ms = round(lease_s * 1000), round(patience_s * 1000)
        pool = lane._redis.connection_pool
        self._connection = pool.connection_class(**pool.connection_kwargs)
        self._over = threading.Event()
        self._keeper = threading.Thread(target=self._keep, args=(lease_s / 4,), name="lease", daemon=True)
        self._keeper.start()

    def turn(
        self,
        answers: Sequence[tuple[bytes, bytes]] = (),
        *,
        most: int,
        most_bytes: int = 8 << 20,
        wake: str = "",
        wait_s: float = 0.0,
    ) -> Batch | None:
        """Give answers and take the next batch, in one trip; None when nothing waits, nor comes in time.

        most : most requests, one at least. most_bytes : most of what they ask together, unless it is one.
        wake : the wake-up that this drain came for, with its first turn. wait_s : how long to wait for a batch, less
        than a second, which is how long a connection waits for Redis.
        """
        told = chain.from_iterable(answers)
        arguments: tuple[Any, ...] = (self.name, self._lease_ms, most, most_bytes, self._patience_ms, wake, *told)
        with self._lane._server.errors():
            taken, given = self._taken(arguments, wait_s)
        if taken:
            requests = [Taken(*each) for each in zip(taken[3::3], map(float, taken[4::3]), taken[5::3], strict=True)]
            return Batch(taken[1].decode(), requests, taken[0], taken[2].decode())
        return _batch(given) if given else None

    def give(self, batch: str, answers: Sequence[tuple[bytes, bytes]] = ()) -> int | None:
        """Give answers before the next turn. Returns how many wait in a list; None when others wait as well."""
        with self._lane._server.errors():
            [waiting] = self._called(self._lane._give, (batch, *chain.from_iterable(answers)))
        return None if waiting < 0 else waiting

    def _taken(self, arguments: tuple[Any, ...], wait_s: float) -> tuple[list[Any], bytes | None]:
        """What the script took, and what stood in the bell or came there within `wait_s`."""
        bell = ("BLPOP", self._bell, wait_s) if wait_s > 0 else ("LPOP", self._bell)
        taken, given = self._called(self._lane._turn, arguments, bell)
        return taken, given[1] if isinstance(given, list | tuple) else given

    def _called(self, script: Script, arguments: tuple[Any, ...], *more: tuple[Any, ...]) -> list[Any]:
        """What a script of the lane comes to, and what further commands of the same trip do."""
        try:
            found = self._trip(("EVALSHA", script.sha, 1, *self._keys, *arguments), *more)
        except redis.ConnectionError:
            # The server may have closed the connection while it idled; a script that is told twice counts once.
            found = self._trip(("EVALSHA", script.sha, 1, *self._keys, *arguments), *more)
        if isinstance(found[0], redis.exceptions.NoScriptError):
            found = self._trip(("EVAL", script.script, 1, *self._keys, *arguments), *more)
        for each in found:
            if isinstance(each, Exception):
                self._connection.disconnect()  # another server may have taken over under the same name
                raise each
        return found

    def _trip(self, *commands: tuple[Any, ...]) -> list[Any]:
        """What comes of some commands, errors of the server included, on a connection of this drain's own.

        A pipeline of the client does the same for more time than a small model takes to compute.
        """
        connection = self._connection
        try:
            connection.send_packed_command(_in_pieces(connection.pack_commands(commands)), check_health=False)
            return [_answer(connection) for _ in commands]
        except BaseException:
            connection.disconnect()  # so that no later command takes what this one left unread
            raise

    def forget(self, model: str) -> None:
        """Say that a model is not held any more."""
        with self._lane._server.errors():
            self._lane._redis.zrem(f"{self._holders}{model}", self.name)

    def leave(self, answers: Sequence[tuple[bytes, bytes]] = (), *, at_once: bool = False) -> Left:
        """Give answers and end, unless work waits; `at_once` in any case: what is under way is put back then."""
        wake = f"wake-{uuid.uuid4().hex}"
        arguments: tuple[Any, ...] = (
            self.name,
            int(at_once),
            wake,
            round(WAKE_UP_S * 1000),
            *chain.from_iterable(answers),
        )
        with self._lane._server.errors():
            [code] = self._called(self._lane._leave, arguments)
        if code:
            self.close()
        return Left(bool(code), wake if code == 2 else "")

    def close(self) -> None:
        """Renew no more, and give the connection back."""
        self._over.set()
        self._connection.disconnect()

    def _keep(self, every_s: float) -> None:
        while not self._over.wait(every_s):
            try:
                with self._lane._server.errors():
                    self._lane._renew(self._keys, (self.name, self._lease_ms))
            except LiveUnavailable:
                continue  # the next turn meets the same and tells


class Replies:
    """The caller's side: whoever waits for the answer to a request is woken by one thread that reads them all."""

    def __init__(self, server: LiveServer) -> None:
        self._server = server
        self._redis = server.bytes_client()
        self.name = f"replies:{uuid.uuid4().hex}"
        self._waiting: dict[str, Waiter] = {}
        self._reader: threading.Thread | None = None
        self._starting = threading.Lock()
        self._over = False

    def expect(self, request_id: str) -> Waiter:
        """Someone waits for a request; must be called before it is sent, and `Waiter.close` at the end."""
        if self._reader is None:
            with self._starting:
                if self._reader is None:
                    self._reader = threading.Thread(target=self._read, name="replies", daemon=True)
                    self._reader.start()
        waiter = self._waiting[request_id] = Waiter(self._waiting, request_id)
        return waiter

    def close(self) -> None:
        """Read no more, from the return of this call on: in half a second, or as long as Redis may take to answer."""
        with self._starting:
            self._over = True
            if self._reader is not None:
                self._reader.join()

    def _read(self) -> None:
        while not self._over:
            try:
                found = cast("tuple[bytes, bytes] | None", self._redis.blpop([self.name], timeout=_BELL_S))
                for request_id, answer in replies_in(found[1]) if found else ():
                    self._hand_out(request_id, answer)
            except redis.RedisError:
                time.sleep(0.05)  # those who wait ask after their requests themselves
            except Exception:
                # Nobody else would begin another thread.
                _log.exception("reading replies failed unexpectedly")
                time.sleep(0.05)
        self._redis.close()

    def _hand_out(self, request_id: bytes, answer: bytes) -> None:
        waiter = self._waiting.get(request_id.decode())
        if waiter is not None:
            waiter.wake(answer)


class Waiter:
    """One caller that waits for one answer.

    is_sent : whether the request is known to have reached Redis; set by whoever sends it.
    """

    is_sent = False

    def __init__(self, waiting: dict[str, Waiter], request_id: str) -> None:
        self._waiting, self._request_id = waiting, request_id
        self._answer: bytes | Exception | None = None
        # A lock that somebody else releases: a third of the cost of an event.
        self._gate = threading.Lock()
        self._gate.acquire()

    def wait(self, timeout_s: float) -> bytes | None:
        """The answer; None when it did not come in time. Raises what `fail` was told."""
        if self._answer is None:
            self._gate.acquire(timeout=max(0.0, timeout_s))
        answer = self._answer
        if isinstance(answer, Exception):
            raise answer
        return answer

    def wake(self, answer: bytes) -> None:
        """Hand the answer over; a second one is dropped."""
        self._end(answer)

    def fail(self, error: Exception) -> None:
        """Say why there will be no answer."""
        self._end(error)

    def close(self) -> None:
        """Expect nothing any more."""
        self._waiting.pop(self._request_id, None)

    def _end(self, answer: bytes | Exception) -> None:
        if self._answer is None:
            self._answer = answer
            with suppress(RuntimeError):  # two at the same moment
                self._gate.release()


def replies_in(told: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Ids and answers of requests, as an element of a list of replies holds them; an element that is none has none."""
    start = 0
    while start < len(told):
        end = told.find(b"\n", start)
        request_id, _, rest = told[start:end].partition(b"\t")
        size = rest.partition(b"\t")[0]  # and what a later version of this program adds
        if end < 0 or not size.isdigit():
            return
        start = end + 1 + int(size)
        yield request_id, told[end + 1 : start]


def _in_pieces(packed: list[bytes]) -> Iterable[bytes | memoryview]:
    """Commands, cut where they are long: a connection waits for Redis a second with each piece that it sends."""
    if max(map(len, packed)) <= _PIECE_BYTES:
        return packed
    views = [memoryview(each) for each in packed]
    return [each[at : at + _PIECE_BYTES] for each in views for at in range(0, len(each), _PIECE_BYTES)]


def _answer(connection: redis.Connection) -> Any:
    try:
        return connection.read_response()
    except redis.ResponseError as error:
        return error


def _batch(given: bytes) -> Batch:
    """What a bell gave."""
    end = given.index(b"\n")
    name, left, closed = given[:end].split(b"\t")[:3]
    requests, start = [], end + 1
    while start < len(given):
        end = given.index(b"\n", start)
        request_id, waited_ms, size = given[start:end].split(b"\t")[:3]
        start = end + 1 + int(size)
        requests.append(Taken(request_id, float(waited_ms), given[end + 1 : start]))
    return Batch(name.decode(), requests, int(left), closed.decode())


def script(name: str) -> str:
    """A script of the lane, as text."""
    return f"{_SCRIPTS}\nreturn {name}()"


def told_of(requests: Sequence[Request], spread: Spread) -> list[str | bytes | int]:
    """The arguments of the script `append`."""
    told: list[str | bytes | int] = [*_milliseconds(spread), spread.waiting]
    for each in requests:
        left_ms = max(1, round(each.patience_s * 1000))
        mark = "" if each.mark is None else f"={each.mark}"
        told += (each.id, each.batch, each.replies, left_ms, each.wake, mark, each.asked)
    return told


def _milliseconds(spread: Spread) -> tuple[int, int, int]:
    return round(WAKE_UP_S * 1000), max(1, spread.workers), round(spread.after_s * 1000)
