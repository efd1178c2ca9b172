"""The life of one attempt at a task, whatever its kind."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

from logs.context import bound, trace_ids
from logs.redaction import redacted
from ml.errors import MlError
from storage.errors import (
    FetchAbandoned,
    LiveUnavailable,
    RecordsUnavailable,
    StorageError,
    StoreUnavailable,
    Superseded,
)
from storage.live import Counts
from storage.records import Attempt, Ended, Kind, NewTask, NewVersion, State
from workers.lease import LeaseKeeper
from workers.parts import Parts
from workers.saying import say
from workers.tracing import traces

_log = logging.getLogger(__name__)
Json = dict[str, Any]


@dataclass
class Work:
    """What came of an attempt, before it is recorded.

    state : FINISHED, CANCELLED or FAILED, or QUEUED to hand the task back.
    outcome : for QUEUED only: "paused", "killed" or "stranded".
    following : a task that is accepted together with the end, when that is FINISHED.
    after : runs once the end is recorded, with what was recorded; for repairs that the sweep would do too.
    """

    state: State
    outcome: str = "paused"
    report: Json | None = None
    version: NewVersion | None = None
    failure: Json | None = None
    phases: Json = field(default_factory=dict)
    following: NewTask | None = None
    after: Callable[[Ended], None] | None = None


Doing = Callable[[Attempt, LeaseKeeper], Work]


def run_task(task_id: int, parts: Parts, work: Doing) -> Ended | None:
    """Do `work` for a task if nobody else does, and record how it ended.

    Returns what was recorded; None when there was nothing to do or another attempt took over.
    """
    began = time.monotonic()
    attempt = parts.records.tasks.claim(task_id, parts.owner, parts.settings.lease_s)
    if attempt is None:
        _log.info("task %s is not to be done here and now", task_id)
        return None
    claimed_s = round(time.monotonic() - began, 4)
    with _known(attempt, parts):
        return _run(attempt, parts, work, began, claimed_s)


@contextmanager
def _known(attempt: Attempt, parts: Parts) -> Iterator[None]:
    """Say in every line that is logged within whose work it is, and have its traces tell the same."""
    task = attempt.task
    account, service = parts.names.of(task)
    with (
        bound(account=account, service=service, task=task.id, attempt=attempt.number),
        _traced(attempt) as carried,
        bound(**trace_ids(carried)),
    ):
        yield


def _run(attempt: Attempt, parts: Parts, work: Doing, began: float, claimed_s: float) -> Ended | None:
    _log.info("%s begins", attempt.name)
    say(parts.live, attempt.task.id, attempt.number, "info", _beginning(attempt))
    settings = parts.settings
    try:
        with LeaseKeeper(parts.records, parts.live, attempt, settings.lease_s, settings.renew_s) as lease:
            done = _do(work, attempt, lease, settings.lost_max)
        lease.check()
        done.phases = {"claiming": claimed_s, **done.phases}
        # Before the records tell it: then nobody listens any more.
        say(parts.live, attempt.task.id, attempt.number, *_ending(done))
        ended = _record(attempt, done, parts)
    except Superseded:
        _log.warning("%s leaves: it was taken over", attempt.name)
        return None
    _log.info("%s is %s", attempt.name, ended.state)
    outcome = done.outcome if ended.state is State.QUEUED else str(ended.state)
    count_ending(parts, attempt.task.kind, outcome, time.monotonic() - began)
    if done.after is not None:
        done.after(ended)
    if attempt.task.kind is Kind.PREDICT:
        _count(attempt, done, ended, parts)
    send_next(attempt, ended, parts)
    return ended


def _beginning(attempt: Attempt) -> str:
    checkpoint = attempt.task.checkpoint
    goes_on = "" if checkpoint is None else f", from the checkpoint at iteration {checkpoint['iteration']}"
    return f"attempt {attempt.number} begins{goes_on}"


def _ending(done: Work) -> tuple[str, str]:
    """Level and words for the end of an attempt."""
    why = f": {done.failure['message']}" if done.failure else ""
    match done.state:
        case State.FINISHED:
            return "info", "the work is done"
        case State.CANCELLED:
            return "info", "the work was stopped, as was asked for"
        case State.FAILED:
            return "error", f"the work failed{why}"
    if done.outcome == "paused":
        return "info", "this worker stops; another attempt goes on"
    return "warning", f"this attempt ended{why}; another one follows"


def _count(attempt: Attempt, done: Work, ended: Ended, parts: Parts) -> None:
    """Count a prediction task that is over among the predictions of its service."""
    if attempt.task.service_id is None or ended.state not in (State.FINISHED, State.FAILED):
        return
    counts = Counts(predict_count=1, predict_failure=1)
    if ended.state is State.FINISHED:
        report = done.report or {}
        timings: dict[str, float] = report.get("timings", {})
        around = timings.get("input", 0.0) + timings.get("output", 0.0)
        counts = Counts(1, 1, 0, report.get("rows", 0), timings.get("compute", 0.0), around)
    try:
        parts.live.statistics.add(attempt.task.service_id, counts)
    except LiveUnavailable:
        _log.info("%s was not counted", attempt.name)


def _traced(attempt: Attempt) -> AbstractContextManager[str]:
    """The span of an attempt, when its task came with a trace; gives what goes along from there."""
    found, carried = traces(), attempt.spec.get("trace") or ""
    if found is None or not carried:
        return nullcontext(carried)
    about: dict[str, str | int] = {"modelyard.task": attempt.task.id, "modelyard.attempt": attempt.name}
    return found.task(attempt.task.kind, carried, about)


def _do(work: Doing, attempt: Attempt, lease: LeaseKeeper, tries_max: int) -> Work:
    try:
        return work(attempt, lease)
    except Superseded:
        raise
    except FetchAbandoned:
        lease.check()
        return Work(State.CANCELLED) if lease.is_cancel_requested else Work(State.QUEUED, "paused")
    except (StoreUnavailable, RecordsUnavailable) as error:
        # Not the task's fault: another attempt, maybe elsewhere, goes on from the checkpoint, or finds what this one
        # committed when only the answer was lost.
        _log.warning("%s met a store or a database that does not answer: %s", attempt.name, error)
        if is_tried_again(error, attempt, tries_max):
            return Work(State.QUEUED, "stranded", failure=failure_of(error))
        return Work(State.FAILED, failure=failure_of(error))
    except (MlError, StorageError) as error:
        return Work(State.FAILED, failure=failure_of(error))
    except Exception as error:
        _log.exception("%s failed unexpectedly", attempt.name)
        return Work(State.FAILED, failure=_internal(error))


def is_tried_again(error: Exception, attempt: Attempt, tries_max: int) -> bool:
    """Whether another attempt follows one that ends with this error."""
    return isinstance(error, StoreUnavailable | RecordsUnavailable) and attempt.task.tries < tries_max


def _record(attempt: Attempt, done: Work, parts: Parts) -> Ended:
    """Write the end, waiting for a database that restarts; if it stays away, the sweep acts on the lease."""
    for retry in Retrying(
        retry=retry_if_exception_type(RecordsUnavailable),
        stop=stop_after_delay(parts.settings.lease_s),
        wait=wait_exponential(multiplier=0.1, max=2),
        reraise=True,
    ):
        with retry:
            tasks = parts.records.tasks
            if done.state is State.QUEUED:
                return tasks.requeue(attempt, done.outcome, phases=done.phases, failure=done.failure)
            return tasks.end(
                attempt,
                done.state,
                phases=done.phases,
                report=done.report,
                version=done.version,
                failure=done.failure,
                following=done.following,
            )
    raise AssertionError("tenacity raises or returns")


def send_next(attempt: Attempt, ended: Ended, parts: Parts) -> None:
    """Tell the API that versions may have changed, and the workers what may start now: this task again, or the next
    one of its repository, and of its account if that has a quota.
    """
    try:
        if attempt.task.repository_id is not None:
            parts.live.changes.note()
    except LiveUnavailable as error:
        _log.info("%s: its end was not told to the API, which sees it within ten seconds: %s", attempt.name, error)
    tasks = parts.records.tasks
    if ended.following is not None and tasks.is_startable(ended.following):
        parts.queue.send_task(ended.following)
    if ended.state is State.QUEUED:
        parts.queue.send_task(tasks.get(attempt.task.id))
    elif attempt.task.repository_id is not None:
        following = tasks.next_of_repository(attempt.task.repository_id)
        if following is not None:
            parts.queue.send_task(following)
    if attempt.task.kind is Kind.TRAIN:
        waiting = tasks.next_of_account(attempt.task.account_id)
        if waiting is not None and waiting.sent_at is None:
            parts.queue.send_task(waiting)


def count_ending(parts: Parts, kind: Kind, outcome: str, seconds: float | None = None) -> None:
    """Count an attempt that ended, for Prometheus; not counted while Redis is away."""
    try:
        parts.live.endings.note(str(kind), outcome, seconds)
    except LiveUnavailable as error:
        _log.info("an end was not counted: %s", error)


def failure_of(error: MlError | StorageError, phase: str = "preparing") -> Json:
    """The failure record of an error whose text is fit for a client."""
    return {
        "kind": error.kind,
        "class": type(error).__name__,
        "message": redacted(str(error)),
        "section": getattr(error, "section", None),
        "phase": phase,
        "exit_code": None,
        "signal": None,
        "peak_bytes": None,
        "log": [],
        "advice": "correct the request and send it again" if isinstance(error, MlError) else "try again later",
    }


def _internal(error: Exception) -> Json:
    return {
        "kind": "internal",
        "class": type(error).__name__,
        "message": "unexpected error; the worker's log has it",
        "section": None,
        "phase": "preparing",
        "exit_code": None,
        "signal": None,
        "peak_bytes": None,
        "log": [],
        "advice": "this is a fault of the server; its log has the traceback",
    }
