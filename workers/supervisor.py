"""Watching over one training process: relaying what it tells, asking it to stop, judging how it ended."""

from __future__ import annotations

import logging
import shutil
import signal
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from logs.context import carried
from logs.redaction import redacted
from storage.errors import LiveUnavailable, StorageError, Superseded
from storage.live import Live
from storage.live.task_logs import KEPT
from storage.objects.base import Objects
from storage.objects.manifest import upload_folder
from storage.records import Attempt, Kind, Records
from workers.child import Child, Event
from workers.lease import LeaseKeeper
from workers.memory import memory_kills
from workers.saying import line

_LOOK_S = 0.1
_LIVE_AGAIN_S = 2.0
_log = logging.getLogger(__name__)

Json = dict[str, Any]


@dataclass
class Outcome:
    """How a training process ended.

    ending : "finished" and "cancelled" bring `result`, the event with the model; "paused" and "killed" leave the
        task to another attempt; "failed" brings `failure`.
    """

    ending: Literal["finished", "cancelled", "paused", "killed", "failed"]
    result: Event | None = None
    failure: Json | None = None
    warnings: list[Json] = field(default_factory=list)
    phases: dict[str, float] = field(default_factory=dict)
    progressed: bool = False


class Checkpoints:
    """Brings recovery checkpoints to the object store, beside the training; only the newest one counts."""

    def __init__(self, attempt: Attempt, objects: Objects, records: Records) -> None:
        self._attempt = attempt
        self._objects = objects
        self._records = records
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"checkpoints of {attempt.name}")
        self._under_way: Future[None] | None = None
        self._next: Event | None = None
        self._previous_prefix: str | None = None
        self.recorded = 0

    def add(self, event: Event) -> None:
        """Take a folder over; it is deleted once it is stored or when a newer one came first."""
        if self._next is not None:
            shutil.rmtree(self._next["folder"], ignore_errors=True)
        self._next = event
        self.advance()

    def advance(self) -> None:
        """Start on the newest folder when the one before is done."""
        if self._under_way is not None and self._under_way.done():
            self._under_way.result()
            self._under_way = None
        if self._under_way is None and self._next is not None:
            event, self._next = self._next, None
            self._under_way = self._pool.submit(carried(self._store), event)

    def finish(self) -> None:
        """Wait until the newest folder is stored."""
        while self._under_way is not None or self._next is not None:
            if self._under_way is not None:
                self._under_way.exception()
            self.advance()

    def close(self) -> None:
        """Let go; what is under way is waited for, because its thread uses the scratch folder."""
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _store(self, event: Event) -> None:
        folder = Path(event["folder"])
        prefix = f"{self._attempt.prefix}/checkpoints/{event['iteration']:09d}"
        try:
            upload_folder(self._objects, prefix, folder)
            self._records.tasks.checkpoint(self._attempt, {"iteration": event["iteration"], "prefix": prefix})
        except Superseded:
            return  # the lease keeper learns it too
        except (StorageError, OSError) as error:
            # A checkpoint that was not stored costs time after a crash, no more.
            _log.warning("checkpoint %s of %s was not stored: %s", event["iteration"], self._attempt.name, error)
            return
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        self.recorded += 1
        if self._previous_prefix not in (None, prefix):
            try:
                self._objects.delete_prefix(self._previous_prefix)
            except StorageError as error:
                _log.warning("an old checkpoint of %s was left: %s", self._attempt.name, error)
        self._previous_prefix = prefix


class Telling:
    """Puts progress, histories and log lines into the live state; a failing Redis costs it nothing but time."""

    def __init__(self, live: Live, attempt: Attempt) -> None:
        self._live = live
        self._attempt = attempt
        self._points: list[Json] = []
        self._steps: Json | None = None
        self._told = 0
        self._progress: Json = {"attempt": attempt.number, "phase": "starting", "percent": 0.0}
        self._again_at = 0.0
        self._changed = True
        self._lines: deque[Json] = deque()
        self._lines_lost = 0

    def say(self, level: str, message: str) -> None:
        """Tell the owner of the task in words; see `workers.saying.line`."""
        if len(self._lines) >= KEPT:
            self._lines.popleft()
            self._lines_lost += 1
        # Measures and lines are written now and then: their order is that in which they were told.
        self._lines.append({**line(level, message), "measures": len(self._points)})
        self._changed = True

    def phase(self, name: str) -> None:
        """A new phase began."""
        self._progress["phase"] = name
        self._changed = True

    def progress(self, event: Event) -> None:
        """An iteration is over."""
        total = event["iterations"]
        self._progress.update(
            iteration=event["iteration"],
            iterations=total,
            measure=event["measure"],
            remain_s=event["measure"].get("remain_time"),
            percent=round(100.0 * min(1.0, event["done"] / total), 2) if total else 0.0,
        )
        self._changed = True

    def history(self, hist: dict[str, list[Any]]) -> None:
        """The history of the attempts before this one."""
        length = max((len(values) for values in hist.values()), default=0)
        self._points = [
            {name.removesuffix("_hist"): values[at] for name, values in hist.items() if at < len(values)}
            for at in range(length)
        ]
        self._told = 0
        self._changed = True

    def measures(self, point: Json) -> None:
        """A test pass is over."""
        self._points.append(point)
        self._changed = True

    def steps(self, event: Event) -> None:
        """The values of every iteration so far, thinned out."""
        self._steps = {"series": event["series"], "stride": event["stride"]}
        self._changed = True

    def tell(self) -> None:
        """Write what changed."""
        if not self._changed or time.monotonic() < self._again_at:
            return
        try:
            self._live.progress.append_history(self._attempt.task.id, self._attempt.number, self._points, self._told)
            self._told = len(self._points)
            if self._steps is not None:
                self._live.progress.put_steps(self._attempt.task.id, self._attempt.number, self._steps)
                self._steps = None
            self._live.progress.put(self._attempt.task.id, self._progress)
            self._live.logs.append(self._attempt.task.id, self._attempt.number, list(self._lines), self._lines_lost)
            self._lines.clear()
            self._lines_lost = 0
            self._changed = False
        except LiveUnavailable:
            self._again_at = time.monotonic() + _LIVE_AGAIN_S


def supervise(
    child: Child,
    specification: Json,
    attempt: Attempt,
    lease: LeaseKeeper,
    checkpoints: Checkpoints,
    telling: Telling,
    *,
    is_stopping: Callable[[], bool],
    cancel_grace_s: float,
    kill_grace_s: float,
    shutdown_s: float,
) -> Outcome:
    """Run one specification in a waiting process until it ends, and say how it ended.

    is_stopping : whether this worker shuts down; the process then saves a checkpoint and the task goes to another one.
    Raises Superseded, the process being killed, when another attempt took over.
    """
    outcome = Outcome("killed")
    kills_before = memory_kills()
    phase, phase_began = "starting", time.monotonic()
    began = tells_checkpoint_at = phase_began
    asked: Literal["cancel", "pause"] | None = None
    asked_at = 0.0
    signalled = 0
    ended: Event | None = None

    def enter(name: str) -> None:
        nonlocal phase, phase_began
        at = time.monotonic()
        outcome.phases[phase] = round(outcome.phases.get(phase, 0.0) + at - phase_began, 4)
        phase, phase_began = name, at

    child.tell(specification)
    while True:
        for event in child.events(_LOOK_S):
            match event["event"]:
                case "phase":
                    enter(event["phase"])
                    telling.phase(event["phase"])
                case "progress":
                    telling.progress(event)
                case "measures":
                    telling.measures(event["hist"])
                case "steps":
                    telling.steps(event)
                case "history":
                    telling.history(event["hist"])
                case "checkpoint":
                    checkpoints.add(event)
                    if time.monotonic() >= tells_checkpoint_at:
                        telling.say("info", f"checkpoint at iteration {event['iteration']}")
                        # Ever more seldom: thousands of them would push all else out.
                        tells_checkpoint_at = 2 * time.monotonic() - began
                case "log":
                    _log_for(child, event)
                    if event.get("told"):
                        telling.say(event["level"], event["message"])
                case "warning":
                    telling.say("warning", f"{event['parameter']}: {event['message']}")
                    outcome.warnings.append({"parameter": event["parameter"], "message": event["message"]})
                case "finished" | "cancelled" | "paused" | "error":
                    ended = event
                case _:
                    pass  # "ready"
        checkpoints.advance()
        telling.tell()
        if lease.is_lost:
            child.end()
            lease.check()
        if child.is_silent or (ended is not None and not child.is_running):
            break
        if ended is None:
            if lease.is_cancel_requested and asked != "cancel":
                asked, asked_at, signalled = "cancel", time.monotonic(), 0
                child.tell({"command": "cancel"})
            elif asked is None and is_stopping():
                asked, asked_at = "pause", time.monotonic()
                child.tell({"command": "pause"})
        if asked is not None:
            waited = time.monotonic() - asked_at
            grace = cancel_grace_s if asked == "cancel" else shutdown_s
            if signalled == 0 and waited > grace:
                _log.warning("%s did not stop in %g s: TERM", attempt.name, grace)
                child.signal(signal.SIGTERM)
                signalled = 1
            elif signalled == 1 and waited > grace + kill_grace_s:
                _log.warning("%s did not end after TERM: KILL", attempt.name)
                child.signal(signal.SIGKILL)
                signalled = 2
    last_phase = phase
    enter("ended")
    child.end()
    if ended is not None and ended["event"] == "paused" and ended.get("folder"):
        checkpoints.add({"iteration": ended["iteration"], "folder": ended["folder"]})
    checkpoints.finish()
    outcome.progressed = checkpoints.recorded > 0
    what = "training" if attempt.task.kind is Kind.TRAIN else "prediction"
    _judge(outcome, child, ended, asked, last_phase, kills_before, what)
    telling.tell()
    if outcome.ending == "killed" and outcome.failure is not None:
        _log.warning("%s: %s", attempt.name, outcome.failure["message"], extra={"output": outcome.failure["log"]})
    return outcome


def _log_for(child: Child, event: Event) -> None:
    """Log what the process logged, as if it had been here but for its number."""
    logger = logging.getLogger(event["logger"])
    level = logging.getLevelNamesMapping().get(event["level"], logging.INFO)
    if logger.isEnabledFor(level):
        # By `args` and not as the message itself, which may hold what looks like a place for one.
        record = logger.makeRecord(logger.name, level, "", 0, "%s", (event["message"],), None)
        record.exc_text, record.process = event.get("exception"), child.pid
        logger.handle(record)


def _judge(
    outcome: Outcome,
    child: Child,
    ended: Event | None,
    asked: str | None,
    phase: str,
    kills_before: int | None,
    what: str,
) -> None:
    failure: Json = {
        "phase": phase,
        "class": None,
        "section": None,
        "exit_code": child.exit_status if (child.exit_status or 0) >= 0 else None,
        "signal": child.signal_name,
        "peak_bytes": child.peak_bytes,
        "log": [redacted(line) for line in child.log_tail()],
    }
    if ended is not None and ended["event"] in ("finished", "cancelled"):
        outcome.ending = ended["event"]
        outcome.result = ended
    elif ended is not None and ended["event"] == "paused":
        outcome.ending = "paused"
    elif ended is not None:
        outcome.ending = "failed"
        outcome.failure = {
            **failure,
            "kind": ended["kind"],
            "class": ended.get("class"),
            "message": redacted(ended["message"]),
            "section": ended.get("section"),
            "phase": ended.get("phase") or phase,
            "advice": _ADVICE.get(ended["kind"], "correct the request and send it again"),
        }
    elif asked == "cancel":
        outcome.ending = "cancelled"  # it had to be killed; nothing of it is left to publish
    elif asked == "pause":
        outcome.ending = "paused"  # it was too slow; the next attempt goes on from the checkpoint before
    else:
        kills = memory_kills()
        out_of_memory = (
            child.exit_status == -signal.SIGKILL
            and kills is not None
            and kills_before is not None
            and kills > kills_before
        )
        how = f"by {child.signal_name}" if child.signal_name else f"with exit code {child.exit_status}"
        outcome.ending = "killed"
        outcome.failure = {
            **failure,
            "kind": "out_of_memory" if out_of_memory else "killed",
            "message": f"the {what} ran out of memory and was killed by the kernel"
            if out_of_memory
            else f"the {what} process ended {how}",
            "advice": _ADVICE["out_of_memory" if out_of_memory else "killed"],
        }


_ADVICE = {
    "out_of_memory": "use less data or a smaller model, or give the worker more memory",
    "killed": "look at the log lines of this record and at the machine's own log for what killed it",
    "internal": "this is a fault of the server; its log has the traceback",
    "storage_full": "free space on the worker's disk, then send it again",
}
