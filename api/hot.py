"""Predictions answered on the event loop: those that nothing is unusual about.

Whatever has to be looked up, checked anew or refused is left to Flask, which keeps what it finds; so the first request
of its kind goes there, and those that follow within the second are answered here.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
import time
import uuid
from collections.abc import Callable, Hashable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import orjson
from flask import Flask

from api import predicting
from api.access import Headers
from api.allowance import Counted, Left
from api.answers import NOSNIFF, dump
from api.body import parse_object
from api.compression import LEVEL, WORTH_BYTES, takes_gzip
from api.ending import ENDING_S
from api.errors import code_of, status_of
from api.known import Known
from api.parts import Parts
from api.predicting import Question
from api.refusals import Refusal, TooManyRequests
from api.schemas.reading import fold
from api.waiting import Room
from logs.context import Ids, trace_ids
from storage.errors import LiveUnavailable, StorageError
from storage.live import LOST, Request, Sent, Spread
from storage.live.lane import WAKE_UP_S
from storage.live.tube import Tube
from storage.records import Account, Role
from storage.remote_address import REMOTE
from workers.asked import Answer, Asked
from workers.queue import CallerGone, Changed, NoAnswer, Overloaded
from workers.tracing import RequestSpan, carried_by, traces

_FIRST_NUDGE_S, _LAST_NUDGE_S, _LOOK_S = 0.1, 1.0, 0.05
_WAITING_MOST, _WAITING_BYTES = 4096, 256 << 20
_THREADS = 8
_BRACKETS_MOST = 1000
_DECIDING = ("x-api-key", "authorization", "host", "origin")
_PATHS = ("/", "./", "../", "file://", "dataset://", *REMOTE)
_JSON = ("content-type", "application/json")

_log = logging.getLogger(__name__)

T = TypeVar("T")
Response = tuple[int, list[tuple[str, str]], bytes]


@dataclass
class _Waiting:
    """A request that waits for its answer."""

    lane: str
    request: Request
    future: asyncio.Future[bytes]
    deadline: float
    proto: Any
    look_at: float
    step_s: float = _FIRST_NUDGE_S
    sends: int = 1
    hang_up: asyncio.Task[None] | None = None
    is_asked_after: bool = False


@dataclass
class _Counting:
    """How a request was counted, for whatever becomes of it."""

    counted: Counted | None = None


class Hot:
    """The quick way of one process."""

    def __init__(self, app: Flask, threads: ThreadPoolExecutor) -> None:
        """threads : what packs long answers."""
        self._parts: Parts = app.extensions["modelyard"]
        self._packers = threads
        # Its own: the others may all wait, for a store or a database that does not answer.
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="hot")
        self._room = Room(_WAITING_MOST, _WAITING_BYTES)
        self._timeout_s = self._parts.settings.predict_timeout_s
        self._traces = traces()
        self._cors = self._parts.cors or None
        self._waiting: dict[str, _Waiting] = {}
        self._posted: dict[str, list[_Waiting]] = {}
        self._looks: dict[Hashable, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin on an event loop."""
        self._loop = loop
        self._tube = Tube(self._parts.settings.live_url)
        self._keep(loop.create_task(self._look_after()))

    def hurry(self) -> None:
        """Have all that wait answered or refused in time: the process ends."""
        self._timeout_s = min(self._timeout_s, ENDING_S)
        ends = time.monotonic() + ENDING_S
        for waiting in self._waiting.values():
            waiting.deadline = min(waiting.deadline, ends)
            waiting.look_at = min(waiting.look_at, ends)

    def stop(self) -> None:
        """Answer nothing more."""
        self._tube.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        for task in self._tasks:
            task.cancel()

    async def answer(self, scope: Any, content: bytes, proto: Any) -> Response | Counted | None:
        """The answer to a prediction; how it was counted, or None when it was not, when it is for Flask to answer."""
        counting = _Counting()
        try:
            return await self._answer(scope, content, proto, counting)
        except Exception:
            _log.exception("the hot way failed unexpectedly; Flask answers")  # to ask twice does no harm
            return counting.counted

    async def _answer(self, scope: Any, content: bytes, proto: Any, counting: _Counting) -> Response | Counted | None:
        began = time.perf_counter()
        headers: Headers = scope.headers
        if headers.get("content-encoding") is not None or _is_doubtful(scope):
            return None
        access = self._parts.access
        account = access.kept(headers) or await self._looked_up(("account", *_who(headers)), access.account_of, headers)
        if account is None or account.role < Role.PREDICT:
            return None
        found = await self._understood(account, content)
        if found is None:
            return None
        known, question, encoded = found
        left, most = None, account.quotas.requests_per_minute
        if most:
            left = self._parts.allowances.take_kept(account.id, most)
            if left is None:
                return None  # Flask asks Redis
            counting.counted = Counted(account.id, left)
        span = None if self._traces is None else self._traces.request("POST /predict", headers)
        carried = carried_by(headers) if span is None else span.carried
        about: Ids = {"service": known.service.name, **(trace_ids(carried) if carried else {})}
        told = partial(self._told, scope, account, began, span, left, about)
        if left is not None and not left.is_allowed:
            self._parts.figures.refused("requests")
            return told(*_refused(TooManyRequests.kind, left.refusal))
        size = len(content) + len(question.encoded)
        if not self._room.take(account.id, size):
            return counting.counted  # a thread waits for it, if one is left
        try:
            raw = await self._asked(known, question, Asked(question.encoded, encoded, carried), proto)
        except Changed:
            return counting.counted  # Flask reads it all again
        except (NoAnswer, Overloaded, CallerGone, LiveUnavailable) as error:
            predicting.count(self._parts, known.service.id, None)
            return told(*_refused(error.kind, str(error)))
        finally:
            self._room.give_back(account.id, size)
        answer = Answer.split(raw)
        predicting.count(self._parts, known.service.id, answer)
        if answer.error is not None:
            error_ = answer.error
            return told(*_refused(error_["kind"], error_["message"], error_.get("section")))
        head = predicting.head_of(known.service.name, question, answer, question.warnings, began)
        made, more = predicting.enveloped(head, answer), [_JSON, NOSNIFF]
        if len(made) >= WORTH_BYTES:
            more.append(("vary", "Accept-Encoding"))
            if takes_gzip(",".join(scope.headers.get_all("accept-encoding"))):
                made = await self._loop.run_in_executor(self._packers, gzip.compress, made, LEVEL)
                more.append(("content-encoding", "gzip"))
        return told(200, more, made)

    async def _looked_up(self, key: Hashable, look_up: Callable[..., T], *about: Any) -> T | None:
        """What a look into the records finds; one at a time about the same. None where it is refused."""
        try:
            found: T = await asyncio.shield(self._look(key, look_up, *about))
        except (Refusal, StorageError):
            return None  # Flask says why
        return found

    def _look(self, key: Hashable, look_up: Callable[..., T], *about: Any) -> asyncio.Future[T]:
        """The look in a thread that finds something, which may be under way already."""
        under_way = self._looks.get(key)
        if under_way is None:
            under_way = self._looks[key] = self._loop.run_in_executor(self._threads, look_up, *about)
            under_way.add_done_callback(lambda _: self._looks.pop(key, None))
        return under_way

    async def _understood(self, account: Account, content: bytes) -> tuple[Known, Question, bytes] | None:
        """What a request asks for, if all of it is known already and it brings a few lines of data."""
        if content.count(b"[") + content.count(b"{") > _BRACKETS_MOST:
            return None  # to look through them takes time, in which the loop would do nothing else
        try:
            body = parse_object(content)
        except Refusal:
            return None
        name, entries = body.get("service"), body.get("data")
        if not isinstance(name, str) or not body.keys() <= predicting.MEMBERS:
            return None
        services, name = self._parts.services, fold(name)
        known = services.kept(account.id, name)
        if known is None:
            known = await self._looked_up(("service", account.id, name), services.find, account.id, name)
        question = None if known is None else predicting.kept_question(known, body.get("parameters"))
        if known is None or question is None or question.template is not None or question.network is not None:
            return None
        if not isinstance(entries, list) or not entries or len(content) > predicting.INLINE_BYTES:
            return None
        if set(map(type, entries)) != {str}:
            return None
        encoded = orjson.dumps(entries)
        if b"/" in encoded and any(each.startswith(_PATHS) for each in entries):
            return None
        return known, question, encoded

    async def _asked(self, known: Known, question: Question, asked: Asked, proto: Any) -> bytes:
        request_id = uuid.uuid4().hex
        now = time.monotonic()
        waiting = _Waiting(
            question.lane,
            Request(request_id, question.batch, self._tube.replies, self._timeout_s, asked.joined(), known.mark),
            self._tube.expect(request_id),
            now + self._timeout_s,
            proto,
            now + _FIRST_NUDGE_S,
        )
        self._waiting[request_id] = waiting
        self._post(waiting)
        try:
            answer = await waiting.future
        except (NoAnswer, CallerGone, LiveUnavailable):
            self._tube.withdraw(waiting.lane, request_id)
            raise
        finally:
            self._tube.forget(request_id)
            del self._waiting[request_id]
            if waiting.hang_up is not None:
                waiting.hang_up.cancel()
        if answer == LOST:
            raise NoAnswer(waiting.lane, self._timeout_s, "two workers died of it or beside it")
        return answer

    # Sending

    def _post(self, waiting: _Waiting) -> None:
        """Send a request together with all others of this turn of the loop."""
        posted = self._posted.get(waiting.lane)
        if posted is None:
            self._posted[waiting.lane] = posted = []
            self._loop.call_soon(self._send, waiting.lane)
        posted.append(waiting)

    def _send(self, lane: str) -> None:
        posted = self._posted.pop(lane)

        def appended(sent: list[Sent]) -> None:
            for each, became in zip(posted, sent, strict=True):
                if became is Sent.REFUSED:
                    text = f"too many predictions wait for the workers of {lane}; try again in a second"
                    _fail(each, Overloaded(text))
                elif became is Sent.WAKE:
                    self._wake(lane, each.request.wake)
                elif became is Sent.CHANGED:
                    _fail(each, Changed())

        def failed(error: LiveUnavailable) -> None:
            for each in posted:
                _fail(each, error)

        self._tube.append(lane, [each.request for each in posted], self._spread(lane), appended, failed)

    def _wake(self, lane: str, wake: str) -> None:
        self._aside(self._parts.queue.wake, lane, wake)

    def _spread(self, lane: str) -> Spread:
        kept = self._parts.queue.kept_spread(lane)
        if kept is None:
            if (key := ("spread", lane)) not in self._looks:
                self._look(key, self._parts.queue.look_up_spread, lane).add_done_callback(_unheard)
            return Spread()
        return kept

    def _aside(self, work: Callable[..., Any], *about: Any) -> None:
        """Do something in a thread that nobody waits for."""
        self._loop.run_in_executor(self._threads, work, *about).add_done_callback(_unheard)

    # Looking after those that wait longer than usual

    async def _look_after(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self._tube.check()
            now = time.monotonic()
            for waiting in list(self._waiting.values()):
                if waiting.look_at > now:
                    continue
                if now >= waiting.deadline:
                    _fail(waiting, NoAnswer(waiting.lane, self._timeout_s))
                    continue
                if waiting.is_asked_after:
                    continue  # a second question would overtake what the first one does
                if waiting.hang_up is None:
                    waiting.hang_up = self._loop.create_task(self._watch(waiting))
                waiting.step_s = min(waiting.step_s * 2, _LAST_NUDGE_S)
                waiting.look_at = min(now + waiting.step_s, waiting.deadline)
                self._keep(self._loop.create_task(self._nudge(waiting)))

    async def _watch(self, waiting: _Waiting) -> None:
        await waiting.proto.client_disconnect()
        _fail(waiting, CallerGone())

    async def _nudge(self, waiting: _Waiting) -> None:
        request_id = waiting.request.id
        wake = f"wake-{request_id}-{uuid.uuid4().hex[:6]}"
        waiting.is_asked_after = True
        try:
            spread = self._spread(waiting.lane)
            became = await self._tube.nudge(waiting.lane, request_id, wake, round(WAKE_UP_S * 1000), spread)
            if became is Sent.WAKE:
                self._wake(waiting.lane, wake)
            elif became is Sent.REFUSED:
                # Answered just now; or Redis lost it: then it is asked once more.
                await asyncio.sleep(0.2)
                if waiting.future.done():
                    return
                if waiting.sends == 2:
                    raise LiveUnavailable("Redis lost the request twice; try again later")
                waiting.sends += 1
                left_s = waiting.deadline - time.monotonic()
                waiting.request = replace(waiting.request, patience_s=left_s, mark=None)
                self._post(waiting)
        except LiveUnavailable as error:
            _fail(waiting, error)
        finally:
            waiting.is_asked_after = False

    def _keep(self, task: asyncio.Task[Any]) -> None:
        """Hold a task: the loop itself does not."""
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _told(
        self,
        scope: Any,
        account: Account,
        began: float,
        span: RequestSpan | None,
        left: Left | None,
        about: Ids,
        status: int,
        headers: list[tuple[str, str]],
        made: bytes,
    ) -> Response:
        took_s = time.perf_counter() - began
        self._parts.note("POST", "/predict", _target(scope), status, took_s, account.name, about)
        if span is not None:
            span.end("POST", "/predict", status)
        if left is not None:
            headers = list(dict([*headers, *left.headers]).items())
        if self._cors is not None:
            headers.extend(self._cors.headers(scope.headers.get("origin")))
        return status, headers, made


def _target(scope: Any) -> str:
    return f"{scope.path}?{scope.query_string}" if scope.query_string else str(scope.path)


def _unheard(done: asyncio.Future[Any]) -> None:
    """Take note of what work came to that nobody waited for; a Redis that is away is told to those who ask."""
    error = None if done.cancelled() else done.exception()
    if error is not None and not isinstance(error, LiveUnavailable):
        _log.error("work beside predictions failed unexpectedly", exc_info=error)


def _is_doubtful(scope: Any) -> bool:
    """Whether something that decides about the account is told twice: Flask takes both as one, which fits nobody."""
    return any(len(scope.headers.get_all(name)) > 1 for name in _DECIDING)


def _who(headers: Headers) -> tuple[str | None, ...]:
    """All that decides about the account of a request."""
    return tuple(headers.get(name) for name in _DECIDING)


def _fail(waiting: _Waiting, error: Exception) -> None:
    with suppress(asyncio.InvalidStateError):
        waiting.future.set_exception(error)


def _refused(kind: str, message: str, section: str | None = None) -> Response:
    code = code_of(kind, section)
    headers = [_JSON, NOSNIFF]
    if code.retry_after_s is not None:
        headers.append(("retry-after", str(code.retry_after_s)))
    return code.http, headers, dump({"status": status_of(kind, message, section)})
