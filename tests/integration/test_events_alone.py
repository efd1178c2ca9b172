"""Event streams, look by look, with a client's end that shows what was sent."""

from __future__ import annotations

import asyncio
import contextlib
import re
import resource
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # it is, but not by name

import api.events
from api.app import create_app
from api.event_stream import Place
from api.events import Events, Watch
from api.refusals import TooManyStreams
from api.unread import Connection, connection_of
from settings import Settings
from storage.errors import RecordsUnavailable
from storage.live import Live, LogLine
from storage.records import Account, Records, State
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive, FakeQueue
from tests.unit.api.test_front import Headers

POINTS = [{"iteration": n, "acc": n / 10} for n in range(10)]


@pytest.fixture
def live() -> FakeLive:
    return FakeLive()


@pytest.fixture
def app(settings: Settings, records: Records, live: FakeLive) -> Flask:
    return create_app(settings, records, cast(Live, live), FakeQueue(records, live))


@pytest.fixture
def yard(settings: Settings, app: Flask, records: Records) -> Yard:
    """A yard that has a service `iris`."""
    [data] = settings.data_roots
    (data / "train.csv").write_text("a,b,target\n1,2,0\n3,4,1\n5,6,2\n")
    made = Yard(app.test_client(), records, data)
    made.create()
    return made


@pytest.fixture
def local(records: Records) -> Account:
    return records.accounts.ensure("local")


@pytest.fixture
def events(app: Flask) -> Events:
    return Events(app.extensions["modelyard"])


class Caller:
    """The transport of an answer. `is_closed` as after the client hung up."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_closed = False

    async def send_bytes(self, data: bytes) -> None:
        if self.is_closed:
            raise ProtocolClosed
        self.sent += data

    def take(self) -> list[str]:
        """The names and ids of what came since the last look; comments as they are."""
        sent, self.sent = self.sent.decode(), b""
        return [
            name if name.startswith(":") else " ".join(each for each in (name, place) if each)
            for block in sent.split("\n\n")[:-1]
            for name, place in [(part(block, "event") or block, part(block, "id"))]
        ]


def part(block: str, name: str) -> str:
    found = re.search(rf"^{name}: (.*)$", block, re.MULTILINE)
    return "" if found is None else found[1]


class Following:
    """A client that follows a task."""

    def __init__(self, events: Events, account: Account, task_id: int, last: Place | None = None) -> None:
        self.caller = Caller()
        self.gone: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        scope = SimpleNamespace(
            server="127.0.0.1:8080", client="127.0.0.1:4000", headers=Headers(("host", "localhost"))
        )
        watch = Watch(task_id, account.id, last)
        self.task = asyncio.create_task(events.follow(watch, scope, self.caller, self.gone))

    async def over(self) -> bool:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        return self.task.done()


Follow = Callable[..., Awaitable[Following]]


@contextlib.asynccontextmanager
async def following(events: Events, account: Account) -> AsyncIterator[Follow]:
    """Begins clients, whose first block is taken already, and ends them."""
    begun: list[Following] = []

    async def begin(task_id: int, last: Place | None = None) -> Following:
        made = Following(events, account, task_id, last)
        begun.append(made)
        await asyncio.sleep(0)
        assert made.caller.take() == [f"retry: 2000\nid: {last or Place()} {last or Place()}"]
        return made

    yield begin
    for each in begun:
        each.gone.cancel()
        await each.task


def run(events: Events, account: Account, does: Callable[[Follow], Awaitable[None]]) -> None:
    async def all_of_it() -> None:
        async with following(events, account) as follow:
            await does(follow)
        assert events._watched == {}
        assert events._count == 0

    asyncio.run(all_of_it())


def look_into_records(events: Events) -> None:
    """Have the next look ask the records, as one a second later would."""
    for each in events._watched.values():
        each.looked_at = float("-inf")


def test_new_attempt_goes_on_where_the_one_before_was(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive
):
    task_id = yard.train()
    first = records.tasks.claim(task_id, "worker", 20.0)
    assert first is not None

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        live.progress.told[task_id] = {"attempt": 1, "percent": 40.0}
        live.progress.points[task_id, 1] = POINTS[:3]
        await events._look()
        await events._look()
        assert one.caller.take() == ["state", "measure 1-1", "measure 1-2", "measure 1-3", "progress"]
        await events._look()
        assert one.caller.take() == []
        records.tasks.requeue(first, "stranded", phases={})
        records.tasks.claim(task_id, "worker", 20.0)
        # Its checkpoint had two of the three measures; the third is taken again.
        live.progress.points[task_id, 2] = POINTS[:2]
        live.progress.told[task_id] = {"attempt": 2, "percent": 30.0}
        await events._look()
        await events._look()
        assert one.caller.take() == ["state", "progress"]
        live.progress.points[task_id, 2] = POINTS[:5]
        other = await follow(task_id, Place(1, 1))
        await events._look()
        assert one.caller.take() == ["measure 2-4", "measure 2-5"]
        assert other.caller.take() == ["state", "measure 2-2", "measure 2-3", "measure 2-4", "measure 2-5", "progress"]

    run(events, local, does)


def test_end_comes_once_and_last(events: Events, local: Account, yard: Yard, live: FakeLive):
    task_id = yard.train()
    yard.finish(task_id)

    async def does(follow: Follow) -> None:
        one, late = await follow(task_id), await follow(task_id, Place(1, 4))
        await events._look()
        assert one.caller.take() == ["state", *[f"measure 1-{n}" for n in range(1, 6)], "end 1-5-end"]
        assert late.caller.take() == ["state", "measure 1-5", "end 1-5-end"]
        assert await one.over()
        assert await late.over()

    run(events, local, does)
    assert live.changes.noted  # versions answer from the moment at which the end is told


def test_failed_task_tells_the_measures_that_redis_still_has(
    events: Events, local: Account, yard: Yard, live: FakeLive
):
    task_id = yard.train()
    live.progress.points[task_id, 1] = POINTS[:2]
    yard.finish(task_id, State.FAILED, {"kind": "killed", "message": "gone"})

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        assert one.caller.sent.count(b'"message":"gone"') == 1
        assert one.caller.take() == ["state", "measure 1-1", "measure 1-2", "end 1-2-end"]

    run(events, local, does)


def test_warnings_are_told_to_who_comes_first_only(events: Events, local: Account, yard: Yard):
    task_id = yard.train(extra=1)

    async def does(follow: Follow) -> None:
        one, again = await follow(task_id), await follow(task_id, Place())
        await events._look()
        assert one.caller.take() == ["warning", "state"]
        assert again.caller.take() == ["state"]

    run(events, local, does)


def test_reader_is_sent_more_only_when_it_has_read_the_rest(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive, monkeypatch: pytest.MonkeyPatch
):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.points[task_id, 1] = [{"iteration": n, "text": "x" * 1000} for n in range(1000)]
    connection = connection_of("127.0.0.1:8080", "127.0.0.1:4000")
    assert connection is not None
    unread: dict[Connection, int] | None = {connection: 1}
    monkeypatch.setattr(api.events, "unread_bytes", lambda: unread)

    async def does(follow: Follow) -> None:
        nonlocal unread
        one = await follow(task_id)
        for _ in range(5):
            await events._look()
        assert 2**16 <= len(one.caller.sent) < 2**16 + 2048
        for _ in range(25):
            unread = {connection: 0}
            await events._look()
        measures = [each for each in one.caller.take() if each.startswith("measure")]
        assert measures == [f"measure 1-{n}" for n in range(1, 1001)]
        # Where nothing tells what was read, the client must come again.
        last = await follow(task_id)
        unread = None
        for _ in range(3):
            await events._look()
        assert await last.over()
        assert len(last.caller.sent) < 2**16 + 2048

    run(events, local, does)


def test_redis_that_is_away_is_told_once_and_nothing_is_missed(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive
):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.points[task_id, 1] = POINTS[:1]

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        await events._look()
        assert one.caller.take() == ["state", "measure 1-1"]
        live.is_down = True
        for _ in range(3):
            await events._look()
        assert one.caller.take() == [": Redis does not answer; progress and measures come when it does again"]
        live.is_down = False
        live.progress.points[task_id, 1] = POINTS[:3]
        await events._look()
        assert one.caller.take() == ["measure 1-2", "measure 1-3"]

    run(events, local, does)


def test_records_that_are_away_are_asked_again(
    events: Events, local: Account, yard: Yard, records: Records, monkeypatch: pytest.MonkeyPatch
):
    task_id = yard.train()
    yard.finish(task_id)

    def fail(*_: Any) -> None:
        raise RecordsUnavailable("away")

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        with monkeypatch.context() as patch:
            patch.setattr(records.tasks, "get_many", fail)
            await events._look()
            patch.undo()
            patch.setattr(records.tasks, "report", fail)
            look_into_records(events)
            await events._look()
        assert one.caller.take() == []
        look_into_records(events)
        await events._look()
        assert one.caller.take()[-1] == "end 1-5-end"

    run(events, local, does)


def test_silence_is_broken_by_a_comment(events: Events, local: Account, yard: Yard, monkeypatch: pytest.MonkeyPatch):
    task_id = yard.train()

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        assert one.caller.take() == ["state"]
        [stream] = events._streams()
        stream.sent_at -= 15.0
        await events._look()
        await events._look()
        assert one.caller.take() == [": "]

    run(events, local, does)


def test_stream_of_a_key_that_stands_for_nobody_any_more_ends(
    events: Events, local: Account, yard: Yard, records: Records
):
    task_id = yard.train()

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        one.caller.take()
        records.keys.create("alice")  # from now on a key is needed
        events._parts.access._keys_exist = (float("-inf"), False)
        [stream] = events._streams()
        stream.checked_at -= 15.0
        await events._look()
        assert one.caller.take() == [": this key is not in force any more"]
        assert await one.over()

    run(events, local, does)


def test_caller_that_hung_up_unseen_is_noticed_when_it_is_sent_something(events: Events, local: Account, yard: Yard):
    task_id = yard.train()

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        one.caller.is_closed = True
        await events._look()
        assert await one.over()

    run(events, local, does)


def test_end_of_the_process_ends_all_streams_and_those_that_come_then(events: Events, local: Account, yard: Yard):
    task_id = yard.train()

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        events.hurry()
        assert await one.over()
        assert await (await follow(task_id)).over()

    run(events, local, does)


def test_room_is_half_of_the_files_that_may_be_open(
    events: Events, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (2, 4))
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda kind, limits: given.append(limits))

    async def start() -> None:
        events.start(asyncio.get_running_loop())
        events.stop()

    asyncio.run(start())
    assert given == [(4, 4)]
    assert "2 event streams at most" in caplog.text
    events._count = 2
    with pytest.raises(TooManyStreams, match="2 event streams are open"):
        events.check_room(1)


def test_account_has_half_of_the_streams(events: Events, local: Account, yard: Yard):
    task_id = yard.train()
    events._room = 4

    async def does(follow: Follow) -> None:
        await follow(task_id)
        events.check_room(local.id)
        second = await follow(task_id)
        with pytest.raises(TooManyStreams, match="2 event streams of this account, half of what may be, are open"):
            events.check_room(local.id)
        events.check_room(local.id + 1)
        second.gone.set_result(None)
        await second.task
        events.check_room(local.id)

    run(events, local, does)
    assert not events._open


def test_flask_alone_says_where_streams_are(yard: Yard, app: Flask):
    task_id = yard.train()
    answer = cast(Any, app.test_client().get(f"/tasks/{task_id}/events"))
    assert (answer.status_code, answer.json["error"]["kind"]) == (404, "route_not_found")
    assert "modelyard api" in answer.json["error"]["message"]


def lines(*said: tuple[int, int, int]) -> list[LogLine]:
    """Log lines, each as its number, its attempt and the measures before it."""
    return [LogLine(number, attempt, 1.0, "info", f"line {number}", measures) for number, attempt, measures in said]


def test_lines_and_measures_come_in_one_order_whenever_they_are_read(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive
):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.told[task_id] = {"attempt": 1}

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        live.logs.lines[task_id] = lines((1, 1, 0), (2, 1, 2))
        live.progress.points[task_id, 1] = POINTS[:1]
        await events._look()
        await events._look()
        # The second line was said behind a measure that is not read yet.
        assert one.caller.take() == ["state", "log 1-0-1", "measure 1-1-1", "progress"]
        live.progress.points[task_id, 1] = POINTS[:3]
        live.logs.lines[task_id] = lines((1, 1, 0), (2, 1, 2), (3, 1, 3))
        late, again = await follow(task_id), await follow(task_id, Place(1, 1, lines=1))
        await events._look()
        new = ["measure 1-2-1", "log 1-2-2", "measure 1-3-2", "log 1-3-3"]
        assert one.caller.take() == new
        assert late.caller.take() == ["state", "log 1-0-1", "measure 1-1-1", *new, "progress"]
        assert again.caller.take() == ["state", *new, "progress"]

    run(events, local, does)


def test_lines_of_earlier_attempts_do_not_wait_for_measures_that_are_taken_again(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive
):
    task_id = yard.train()
    first = records.tasks.claim(task_id, "worker", 20.0)
    assert first is not None
    records.tasks.requeue(first, "stranded", phases={})
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.told[task_id] = {"attempt": 2}
    live.progress.points[task_id, 2] = POINTS[:1]
    live.logs.lines[task_id] = lines((1, 1, 0), (2, 1, 5), (3, 2, 1))

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        await events._look()
        assert one.caller.take() == ["state", "log 2-0-1", "log 2-0-2", "measure 2-1-2", "log 2-1-3", "progress"]

    run(events, local, does)


def test_lines_that_were_dropped_are_counted(events: Events, local: Account, yard: Yard, live: FakeLive):
    task_id = yard.train()
    yard.finish(task_id)
    live.logs.lines[task_id] = lines((21, 1, 0), (22, 1, 0))

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        assert b'"message":"20 lines are not kept any more","dropped":20' in one.caller.sent
        sent = one.caller.take()
        assert sent[:4] == ["state", "log", "log 1-0-21", "log 1-0-22"]
        assert sent[-1] == "end 1-5-22-end"

    run(events, local, does)


def test_lines_begin_anew_when_redis_lost_them(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive
):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.told[task_id] = {"attempt": 1}
    live.logs.lines[task_id] = lines((1, 1, 0), (2, 1, 0))

    async def does(follow: Follow) -> None:
        one = await follow(task_id)
        await events._look()
        await events._look()
        one.caller.take()
        live.logs.lines[task_id] = lines((1, 1, 0))
        await events._look()
        await events._look()
        assert one.caller.take() == ["log 1-0-1"]

    run(events, local, does)


@pytest.mark.parametrize("is_over", [False, True])
def test_client_that_comes_again_after_redis_lost_the_lines_gets_the_new_ones(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive, is_over: bool
):
    task_id = yard.train()
    if is_over:
        yard.finish(task_id)
    else:
        records.tasks.claim(task_id, "worker", 20.0)
        live.progress.told[task_id] = {"attempt": 1}
    live.logs.lines[task_id] = lines((1, 1, 0), (2, 1, 0))

    async def does(follow: Follow) -> None:
        again, other = await follow(task_id, Place(1, 0, lines=400)), await follow(task_id, Place(1, 0, lines=1))
        for _ in range(3):
            await events._look()
        assert [each for each in again.caller.take() if each.startswith("log")] == ["log 1-0-1", "log 1-0-2"]
        assert [each for each in other.caller.take() if each.startswith("log")] == ["log 1-0-2"]

    run(events, local, does)


def test_client_that_comes_while_lines_are_read_keeps_its_place(
    events: Events, local: Account, yard: Yard, records: Records, live: FakeLive, monkeypatch: pytest.MonkeyPatch
):
    """It may have been told of lines by another process that were not there when these were read."""
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.told[task_id] = {"attempt": 1}
    live.logs.lines[task_id] = lines((1, 1, 0))
    read, came = live.logs.of, threading.Event()

    async def does(follow: Follow) -> None:
        await follow(task_id)
        await events._look()
        loop, late = asyncio.get_running_loop(), []

        async def comes() -> None:
            late.append(await follow(task_id, Place(1, 0, lines=2)))
            came.set()

        def reading(wanted: Any) -> Any:
            found = read(wanted)
            if not late:
                asyncio.run_coroutine_threadsafe(comes(), loop)
                assert came.wait(30)
                live.logs.lines[task_id] = lines((1, 1, 0), (2, 1, 0))
            return found

        monkeypatch.setattr(live.logs, "of", reading)
        for _ in range(3):
            await events._look()
        assert [each for each in late[0].caller.take() if each.startswith("log")] == []

    run(events, local, does)
