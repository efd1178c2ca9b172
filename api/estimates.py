"""When a task will start and end, as far as anything is known that says so; and what that is."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import median

from api.answers import Json
from storage.errors import LiveUnavailable
from storage.live import Live
from storage.records import Before, Kind, Records, Running, State, Task, Took

_OF_SERVICE, _OF_KIND = 20, 100
_FRESH_S, _DURATIONS_FRESH_S = 1.0, 10.0


@dataclass(frozen=True)
class Typical:
    """How long tasks of a kind take: the median, in seconds, and of what."""

    seconds: float
    words: str


@dataclass(frozen=True)
class Durations:
    """The newest durations in a queue, newest first."""

    by_service: dict[tuple[Kind, int | None], list[float]]
    by_kind: dict[Kind, list[float]]

    @classmethod
    def of(cls, took: Iterable[Took]) -> Durations:
        """Sorted by service and by kind, no more of each than the estimate rests on."""
        by_service: dict[tuple[Kind, int | None], list[float]] = defaultdict(list)
        by_kind: dict[Kind, list[float]] = defaultdict(list)
        for each in took:
            for seconds, most in (
                (by_service[each.kind, each.service_id], _OF_SERVICE),
                (by_kind[each.kind], _OF_KIND),
            ):
                if len(seconds) < most:
                    seconds.append(each.seconds)
        return cls(dict(by_service), dict(by_kind))

    def typical(self, kind: Kind, service_id: int | None) -> Typical | None:
        """That of the service, or else of all services; None when none has finished lately."""
        own = self.by_service.get((kind, service_id))
        if own and service_id is not None:
            last = f"the median of the last {len(own)} finished tasks" if len(own) > 1 else "the last finished task"
            return Typical(median(own), f"{last} of this kind of its service")
        others = self.by_kind.get(kind)
        return Typical(median(others), f"the median of finished {kind} tasks of all services") if others else None


@dataclass(frozen=True)
class Left:
    """A running task: seconds until its end, None where nothing says so."""

    seconds: float | None
    repository_id: int | None


@dataclass(frozen=True)
class Queue:
    """What is known of a queue: how long tasks take, what runs, and how many workers take tasks from it."""

    durations: Durations
    running: Sequence[Left]
    workers: int


def level(left: Sequence[float], workers: int, work: float) -> float:
    """Seconds until a worker is free for one more task, when work is spread evenly over workers.

    left : seconds that running tasks still take, each on a worker of its own. work : seconds of all that comes first.
    """
    busy = sorted(left, reverse=True)[:workers]
    free_at = sorted([*busy, *[0.0] * (workers - len(busy))])
    for count, until in enumerate(free_at[1:], 1):
        room = sum(until - each for each in free_at[:count])
        if room >= work:
            return (work + sum(free_at[:count])) / count if work else free_at[0]
    return (work + sum(free_at)) / workers if work else free_at[0]


def left_s(
    running: Running, progress: Json | None, durations: Durations, now: float
) -> tuple[float | None, str | None]:
    """Seconds until a running task ends, and what that rests on; None when nothing says so."""
    progress = progress or {}
    if progress.get("remain_s") is not None:
        return max(0.0, progress["remain_s"]), "the time that the training itself says is left"
    typical = durations.typical(running.kind, running.service_id)
    passed = now - running.started_at
    # One that takes longer than others says nothing of when it ends.
    if typical is None or passed > typical.seconds:
        return None, None
    return typical.seconds - passed, typical.words


def start_s(queue: Queue, before: Sequence[Before], repository_id: int | None) -> float | None:
    """Seconds until a queued task starts; None when nothing says so."""
    if queue.workers == 0 or any(each.seconds is None for each in queue.running):
        return None
    work = same = 0.0
    for each in before:
        typical = queue.durations.typical(each.kind, each.service_id)
        if typical is None:
            return None
        work += typical.seconds * each.count
        same += typical.seconds * each.count if each.is_same else 0.0
    # Tasks of one repository run one after the other, however many workers are free.
    if repository_id is not None:
        same += sum(each.seconds or 0.0 for each in queue.running if each.repository_id == repository_id)
    return max(same, level([each.seconds or 0.0 for each in queue.running], queue.workers, work))


@dataclass
class Estimates:
    """Estimates of one process; what is known of a queue is believed for a second, durations for ten."""

    records: Records
    live: Live
    _queues: dict[str, tuple[float, Queue]] = field(default_factory=dict)
    _durations: dict[str, tuple[float, Durations]] = field(default_factory=dict)

    def of(self, task: Task, before: Sequence[Before], progress: Json | None) -> Json | None:
        """`seconds_to_start`, `seconds_to_end` and `rests_on`, each null when it is not known; None after the end.

        before : what comes before it while it is queued.
        """
        if task.state.is_final:
            return None
        if task.cancel_requested_at is not None:
            return _told(None, None, None)
        if task.state is State.RUNNING:
            seconds, words = left_s(_running(task), progress, self._durations_of(task.queue), time.time())
            return _told(0.0, seconds, words)
        queue = self._queue_of(task.queue)
        start = None if queue is None else start_s(queue, before, task.repository_id)
        if queue is None or start is None:
            return _told(None, None, None)
        typical = queue.durations.typical(task.kind, task.service_id)
        ahead = sum(each.count for each in before) + len(queue.running)
        place = f"{ahead} task{'' if ahead == 1 else 's'} of its queue before it, workers for {queue.workers} at a time"
        if typical is None:
            return _told(start, None, place)
        return _told(start, start + typical.seconds, f"{place}; {typical.words}")

    def _durations_of(self, name: str) -> Durations:
        now = time.monotonic()
        kept = self._durations.get(name)
        if kept is None or now - kept[0] > _DURATIONS_FRESH_S:
            kept = self._durations[name] = (now, Durations.of(self.records.queues.took(name)))
        return kept[1]

    def _queue_of(self, name: str) -> Queue | None:
        now = time.monotonic()
        kept = self._queues.get(name)
        if kept is None or now - kept[0] > _FRESH_S:
            queue = self._looked_up(name)
            if queue is None:
                return None
            kept = self._queues[name] = (now, queue)
        return kept[1]

    def _looked_up(self, name: str) -> Queue | None:
        durations, running = self._durations_of(name), self.records.queues.running(name)
        with suppress(LiveUnavailable):
            alive = sum(name in beat.queues for beat in self.live.heartbeats.all())
            told = self.live.progress.get_many([each.id for each in running])
            now = time.time()
            left = [left_s(each, _of(each, told.get(each.id)), durations, now)[0] for each in running]
            ends = [Left(seconds, each.repository_id) for seconds, each in zip(left, running, strict=True)]
            # Some workers do several things at a time; what runs shows how many.
            return Queue(durations, ends, max(alive, len(running)) if alive else 0)
        return None


def _running(task: Task) -> Running:
    return Running(
        task.id, task.service_id, task.repository_id, task.kind, task.attempt, task.started_at or time.time()
    )


def _of(running: Running, progress: Json | None) -> Json | None:
    return progress if progress and progress.get("attempt", running.attempt) == running.attempt else None


def _told(start: float | None, end: float | None, rests_on: str | None) -> Json:
    return {
        "seconds_to_start": None if start is None else round(start, 1),
        "seconds_to_end": None if end is None else round(end, 1),
        "rests_on": rests_on,
    }
