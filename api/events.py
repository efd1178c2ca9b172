"""Event streams of tasks: one look at all that are watched, for all who watch, a few times a second.

Streams live on the event loop and hold no thread. Each only knows how far it has read of what is kept once for each
task, so a slow reader costs no memory: it is told what is new when it has read the rest.
"""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from collections import Counter, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]  # it is, but not by name

from api.access import Headers
from api.answers import Json
from api.event_stream import Place, at, comment, event, opening, points_of
from api.facts import current, facts_of, written
from api.jobs import note_ends
from api.parts import Parts
from api.refusals import Refusal, TooManyStreams
from api.schemas.task import dropped_lines, log_line
from api.unread import Connection, connection_of, unread_bytes
from api.waiting import half_of
from storage.errors import LiveUnavailable, StorageError
from storage.live import LogLine
from storage.live.task_logs import KEPT
from storage.records import State, Task

EVENTS = "modelyard.events"
"""Where the environment of a request has the streams of its process."""

WATCH = "modelyard.watch"
"""Where a view leaves what its caller watches from now on."""

_LOOK_S = 0.3
# Between looks into the records: what tells progress runs, and what falls silent may be over.
_RECORDS_S, _RECORDS_OF_RUNNING_S = 0.9, 2.5
_HEARTBEAT_S = 15.0
_UNREAD_BYTES = 1 << 16
_PATIENCE_S = 60.0
_FILES = 1 << 16
_REDIS_AWAY = comment("Redis does not answer; progress and measures come when it does again")
_KEY_GONE = comment("this key is not in force any more")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Watch:
    """What a client asked for: a task of its account, and how far it had read; None when it comes first."""

    task_id: int
    account_id: int
    last: Place | None


@dataclass(eq=False)
class _Stream:
    """One client. `unread` counts bytes since the last time it had read everything."""

    watch: Watch
    headers: Headers
    transport: Any
    connection: Connection | None
    over: asyncio.Future[None]
    measures: int
    lines: int
    checked_at: float
    sent_at: float
    facts: bytes = b""
    progress: bytes = b""
    unread: int = 0
    is_away_told: bool = False
    last_words: bytes | None = None

    @property
    def is_held(self) -> bool:
        return self.unread >= _UNREAD_BYTES

    def end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)


@dataclass(frozen=True)
class _Line:
    """A log line as the event that tells it. measures : of its attempt, those that were told before it."""

    number: int
    attempt: int
    measures: int
    made: bytes


@dataclass(eq=False)
class _Watched:
    """What is known of a task, as the events that tell it."""

    task_id: int
    streams: set[_Stream] = field(default_factory=set)
    task: Task | None = None
    looked_at: float = float("-inf")
    told: Json | None = None
    told_at: float = float("-inf")
    measures: list[bytes] = field(default_factory=list)
    lines: deque[_Line] = field(default_factory=lambda: deque(maxlen=KEPT))
    facts: bytes = b""
    warnings: bytes = b""
    progress: bytes = b""
    end: bytes | None = None

    @property
    def attempt(self) -> int:
        return 0 if self.task is None else self.task.attempt

    @property
    def is_running(self) -> bool:
        return self.task is not None and self.task.state is State.RUNNING

    @property
    def last_line(self) -> int:
        return self.lines[-1].number if self.lines else 0

    def lines_after(self, number: int) -> Iterator[_Line]:
        """Those that a stream was not told, oldest first."""
        if number >= self.last_line:
            return iter(())
        # Most streams have read all but the newest.
        position = next((at for at in range(len(self.lines) - 1, -1, -1) if self.lines[at].number <= number), -1)
        return islice(self.lines, position + 1, None)

    def is_due(self, now: float) -> bool:
        """Whether the records must be asked."""
        if self.end is not None:
            return False
        if self.told is not None and self.told.get("attempt", self.attempt) > self.attempt:
            return True
        tells = self.is_running and now - self.told_at < _RECORDS_S
        return now - self.looked_at >= (_RECORDS_OF_RUNNING_S if tells else _RECORDS_S)


class Events:
    """The event streams of one process."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._room = parts.settings.event_streams
        self._watched: dict[int, _Watched] = {}
        self._count = 0
        self._open: Counter[int] = Counter()
        """How many streams each account has."""
        self._is_over = False
        self._is_redis_away = False
        self._joined = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="events")

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin on an event loop."""
        files = _allow_files()
        if files // 2 < self._room:
            _log.warning("%d event streams at most: this process may open no more than %d files", files // 2, files)
            self._room = files // 2
        self._looking = loop.create_task(self._keep_looking())

    def hurry(self) -> None:
        """End all streams: the process ends, and clients find another one when they come again."""
        self._is_over = True
        for stream in self._streams():
            stream.end()

    def stop(self) -> None:
        """Look no more."""
        self._looking.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def check_room(self, account_id: int) -> None:
        """Raises TooManyStreams when no more may be open, or none of the account. Any thread may ask."""
        most = half_of(self._room)
        if self._count >= self._room:
            whose = f"{self._room} event streams"
        elif self._open.get(account_id, 0) >= most:
            whose = f"{most} event streams of this account, half of what may be,"
        else:
            return
        raise TooManyStreams(f"{whose} are open in this process already; poll the task, or try again later")

    async def follow(self, watch: Watch, scope: Any, transport: Any, gone: asyncio.Future[None]) -> None:
        """Tell a client all about a task until that is over, the client is gone, or this process ends.

        transport : takes the bytes of the answer. gone : done when the client has hung up.
        """
        now = time.monotonic()
        last = watch.last or Place()
        over = asyncio.get_running_loop().create_future()
        connection = connection_of(scope.server, scope.client)
        stream = _Stream(watch, scope.headers, transport, connection, over, last.measures, last.lines, now, now)
        gone.add_done_callback(lambda _: stream.end())
        watched = self._watched.setdefault(watch.task_id, _Watched(watch.task_id))
        watched.streams.add(stream)
        self._count += 1
        self._open[watch.account_id] += 1
        try:
            await transport.send_bytes(opening(last))
            self._joined.set()
            if not self._is_over:
                await stream.over
        except ProtocolClosed:
            pass  # the client hung up
        finally:
            self._count -= 1
            self._open[watch.account_id] -= 1
            if not self._open[watch.account_id]:
                del self._open[watch.account_id]
            watched.streams.discard(stream)
            if not watched.streams:
                self._watched.pop(watch.task_id, None)

    def _streams(self) -> list[_Stream]:
        return [stream for watched in self._watched.values() for stream in watched.streams]

    async def _keep_looking(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._joined.wait(), _LOOK_S if self._watched else None)
            self._joined.clear()
            try:
                await self._look()
            except Exception:
                _log.exception("looking after event streams failed unexpectedly; it goes on")
                await asyncio.sleep(_LOOK_S)

    async def _look(self) -> None:
        watched, streams = list(self._watched.values()), self._streams()
        await asyncio.get_running_loop().run_in_executor(self._thread, self._read, watched, streams)
        for each in watched:
            for stream in list(each.streams):
                await self._tell(stream, each)

    # Reading, in the thread: the loop leaves what is known alone until it is done

    def _read(self, watched: list[_Watched], streams: list[_Stream]) -> None:
        now = time.monotonic()
        self._read_live([each for each in watched if each.is_running], now)
        self._read_records([each for each in watched if each.is_due(now)], now)
        self._look_for_readers([stream for stream in streams if stream.is_held], now)
        for stream in streams:
            if now - stream.checked_at >= _HEARTBEAT_S:
                stream.checked_at = now
                self._check_key(stream)

    def _read_live(self, watched: list[_Watched], now: float) -> None:
        if not watched:
            return
        told = {each.task_id: list(each.streams) for each in watched}
        try:
            news = self._parts.live.progress.news(
                {each.task_id: (each.attempt, len(each.measures)) for each in watched}
            )
            lines = self._parts.live.logs.of([(each.task_id, each.last_line) for each in watched])
        except LiveUnavailable:
            self._is_redis_away = True
            return
        self._is_redis_away = False
        for each in watched:
            progress, points = news[each.task_id]
            _add(each, points)
            _add_lines(each, told[each.task_id], *lines[each.task_id])
            if progress != each.told:
                each.told, each.told_at = progress, now
                if each.task is not None and current(each.task, progress) is not None:
                    each.progress = event("progress", progress)

    def _read_records(self, watched: list[_Watched], now: float) -> None:
        if not watched:
            return
        try:
            found = {task.id: task for task in self._parts.records.tasks.get_many([each.task_id for each in watched])}
            note_ends(self._parts, found.values())
            for each in watched:
                each.looked_at = now
                if each.task_id in found:
                    self._take(each, found[each.task_id])
        except StorageError as error:
            _log.info("event streams wait for the records: %s", error)

    def _take(self, watched: _Watched, task: Task) -> None:
        """What the records say of a task now."""
        facts = written(facts_of(self._parts, task, None))
        if watched.task is None:
            watched.warnings = _warnings(task.warnings)
        if task.state.is_final:
            watched.end = self._end(watched, task, facts)
        elif task.attempt != watched.attempt:
            # It begins with the measures of those before that it goes on from.
            watched.measures = []
            progress = current(task, watched.told)
            watched.progress = b"" if progress is None else event("progress", progress)
        watched.task = task
        for name in ("percent", "progress", "warnings", "failure", "finished_at"):
            del facts[name]
        watched.facts = event("state", facts)

    def _end(self, watched: _Watched, task: Task, facts: Json) -> bytes:
        """The last event of a task, once all measures are known that were taken."""
        report = self._parts.records.tasks.report(task.id)
        points = points_of(report or {})
        if not points and task.attempt:
            with suppress(LiveUnavailable):
                points = self._parts.live.progress.history(task.id, task.attempt)
        watched.task = task
        _add(watched, points[len(watched.measures) :])
        told = list(watched.streams)
        with suppress(LiveUnavailable):
            _add_lines(watched, told, *self._parts.live.logs.since(task.id, watched.last_line))
        more = [each for each in (report or {}).get("warnings") or [] if each not in task.warnings]
        facts = {**facts, "warnings": [*task.warnings, *more], "measure": (report or {}).get("measure")}
        return _warnings(more) + event(
            "end", facts, Place(task.attempt, len(watched.measures), True, watched.last_line)
        )

    def _look_for_readers(self, held: list[_Stream], now: float) -> None:
        """Go on with clients that have read all they were sent, and give up those that read nothing."""
        unread = unread_bytes() if held else None
        for stream in held:
            if unread is not None and stream.connection in unread and unread[stream.connection] == 0:
                stream.unread = 0
            elif unread is None or now - stream.sent_at > _PATIENCE_S:
                stream.last_words = b""  # who comes again goes on

    def _check_key(self, stream: _Stream) -> None:
        with suppress(StorageError):
            try:
                is_allowed = self._parts.access.account_of(stream.headers).id == stream.watch.account_id
            except Refusal:
                is_allowed = False
            if not is_allowed:
                stream.last_words = _KEY_GONE

    # Telling, on the loop

    async def _tell(self, stream: _Stream, watched: _Watched) -> None:
        if stream.over.done() or (stream.is_held and stream.last_words is None):
            return
        now = time.monotonic()
        told = b"".join(self._news(stream, watched)) if stream.last_words is None else stream.last_words
        if told or now - stream.sent_at >= _HEARTBEAT_S:
            stream.unread += len(told)
            stream.sent_at = now
            try:
                await stream.transport.send_bytes(told or comment())
            except ProtocolClosed:
                stream.end()
        if stream.last_words is not None:
            stream.end()

    def _news(self, stream: _Stream, watched: _Watched) -> Iterator[bytes]:
        if stream.facts != watched.facts:
            if not stream.facts and stream.watch.last is None:
                yield watched.warnings
            stream.facts = watched.facts
            yield watched.facts
        if watched.is_running and self._is_redis_away != stream.is_away_told:
            stream.is_away_told = self._is_redis_away
            yield _REDIS_AWAY if self._is_redis_away else b""
        size = 0
        for told in self._measures_and_lines(stream, watched):
            size += len(told)
            yield told
            if size >= _UNREAD_BYTES:
                return
        if watched.end is None:
            if stream.progress != watched.progress:
                stream.progress = watched.progress
                yield watched.progress
        else:
            stream.last_words = watched.end
            yield watched.end

    def _measures_and_lines(self, stream: _Stream, watched: _Watched) -> Iterator[bytes]:
        """What a stream was not told of both, each line after the measures that were told before it."""
        for line in watched.lines_after(stream.lines):
            # Lines of earlier attempts come first: this one may have begun with fewer measures than they had.
            while line.attempt == watched.attempt and stream.measures < min(line.measures, len(watched.measures)):
                yield self._measure(stream, watched)
            if line.attempt == watched.attempt and line.measures > len(watched.measures) and watched.end is None:
                break  # it was written while this was read; the measures come with the next look
            if dropped := line.number - stream.lines - 1:
                stream.lines = line.number - 1
                yield event("log", dropped_lines(dropped))
            stream.lines = line.number
            yield at(Place(watched.attempt, stream.measures, lines=stream.lines), line.made)
        while stream.measures < len(watched.measures):
            yield self._measure(stream, watched)

    @staticmethod
    def _measure(stream: _Stream, watched: _Watched) -> bytes:
        made = watched.measures[stream.measures]
        stream.measures += 1
        return at(Place(watched.attempt, stream.measures, lines=stream.lines), made)


def _add(watched: _Watched, points: Iterable[Json]) -> None:
    for point in points:
        watched.measures.append(event("measure", point))


def _add_lines(watched: _Watched, streams: Iterable[_Stream], lines: Iterable[LogLine], newest: int) -> None:
    """New lines of a task, and the number of the newest one.

    A smaller one than this process knew, or a client that another process told, says that Redis lost all of them.

    streams : those that were there before the lines were read.
    """
    is_lost = newest < watched.last_line
    for stream in streams:
        if is_lost or newest < stream.lines:
            stream.lines = 0
    if is_lost:
        watched.lines.clear()
        return
    watched.lines.extend(
        _Line(each.number, each.attempt, each.measures, event("log", log_line(each))) for each in lines
    )


def _warnings(warnings: Iterable[Json]) -> bytes:
    return b"".join(event("warning", each) for each in warnings)


def _allow_files() -> int:
    """Let this process open as many files as it may, for each stream is one; how many that is."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(hard, _FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            return wanted
    return _FILES if soft == resource.RLIM_INFINITY else soft
