"""Stand-ins for Redis and the workers with the interfaces that the API uses; the records are real ones."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import orjson

from ml.json_text import dump
from storage.errors import LiveUnavailable
from storage.live import Counts, Heartbeat, LogLine, Share
from storage.records import Records, Task
from workers.asked import Answer, Asked
from workers.queue import Changed, NoAnswer

Json = dict[str, Any]

ALL_QUEUES = ("train.cpu", "predict.xgboost.cpu", "control")


class FakeLive:
    """Live state in dictionaries. `is_down` makes it as silent as a dead Redis."""

    def __init__(self) -> None:
        self.is_down = False
        self.reads = 0
        self.progress = FakeProgress(self)
        self.heartbeats = FakeHeartbeats(self)
        self.statistics = FakeStatistics(self)
        self.changes = FakeChanges(self)
        self.allowance = FakeAllowance(self)
        self.logs = FakeTaskLogs(self)

    def check(self) -> None:
        self.answer()

    def answer(self) -> None:
        self.reads += 1
        if self.is_down:
            raise LiveUnavailable("Redis does not answer: connection refused")


class FakeProgress:
    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.told: dict[int, Json] = {}
        self.points: dict[tuple[int, int], list[Json]] = {}
        self.of_steps: dict[tuple[int, int], Json] = {}
        self.hinted: list[int] = []

    def get_many(self, task_ids: Sequence[int]) -> dict[int, Json]:
        if not task_ids:
            return {}
        self._live.answer()
        return {task_id: self.told[task_id] for task_id in task_ids if task_id in self.told}

    def history(self, task_id: int, attempt: int) -> list[Json]:
        self._live.answer()
        return self.points.get((task_id, attempt), [])

    def news(self, seen: Mapping[int, tuple[int, int]]) -> dict[int, tuple[Json | None, list[Json]]]:
        self._live.answer()
        return {
            task_id: (self.told.get(task_id), self.points.get((task_id, attempt), [])[count:])
            for task_id, (attempt, count) in seen.items()
        }

    def steps(self, task_id: int, attempt: int) -> Json:
        self._live.answer()
        return self.of_steps.get((task_id, attempt), {})

    def hint_cancel(self, task_id: int) -> None:
        self._live.answer()
        self.hinted.append(task_id)


class FakeTaskLogs:
    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.lines: dict[int, list[LogLine]] = {}

    def since(self, task_id: int, number: int, limit: int = 500) -> tuple[list[LogLine], int]:
        self._live.answer()
        lines = self.lines.get(task_id, [])
        return [each for each in lines if each.number > number][:limit], lines[-1].number if lines else 0

    def of(self, wanted: Iterable[tuple[int, int]]) -> dict[int, tuple[list[LogLine], int]]:
        return {task_id: self.since(task_id, number) for task_id, number in wanted}


class FakeHeartbeats:
    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.beats = [Heartbeat("all@here", ALL_QUEUES)]
        self.sweep_age: float | None = 1.0

    def all(self) -> list[Heartbeat]:
        self._live.answer()
        return self.beats

    def queues(self) -> set[str]:
        return {queue for beat in self.all() for queue in beat.queues}

    def sweep_age_s(self) -> float | None:
        self._live.answer()
        return self.sweep_age


class FakeChanges:
    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.noted = 0

    @property
    def mark(self) -> str:
        return f"mark {self.noted}" if self.noted else ""

    def note(self) -> None:
        self._live.answer()
        self.noted += 1

    def current(self) -> str:
        self._live.answer()
        return self.mark


class FakeAllowance:
    """Never begins a new minute by itself."""

    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.given: dict[int, int] = {}
        self.wanted: list[int] = []

    def take(self, account_id: int, wanted: int, most: int) -> Share:
        self._live.answer()
        self.wanted.append(wanted)
        used = self.given.get(account_id, 0)
        given = max(0, min(wanted, most - used))
        self.given[account_id] = used + given
        return Share(given, max(0, most - used - given), 30.0)

    def used(self, account_id: int) -> int:
        self._live.answer()
        return self.given.get(account_id, 0)


class FakeStatistics:
    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.counts: dict[int, Counts] = {}

    def add(self, service_id: int, counts: Counts) -> None:
        self._live.answer()
        self.counts[service_id] = self.counts.get(service_id, Counts()) + counts

    def of(self, service_id: int) -> dict[str, float]:
        self._live.answer()
        return asdict(self.counts.get(service_id, Counts()))


def predicted(predictions: list[Json], **timings: float) -> Answer:
    """What a worker answers with predictions; `timings` in milliseconds."""
    return Answer("predictions", dump(predictions), len(predictions), timings)


def measured(measure: Json) -> Answer:
    """What a worker answers with measures."""
    return Answer("measure", dump(measure))


def refused(kind: str, message: str, section: str | None = None) -> Answer:
    """What a worker answers when it cannot."""
    return Answer("", b"", error={"kind": kind, "message": message, "section": section})


class FakeQueue:
    """Takes messages; `on_send` is the worker that gets each at once, if there is one."""

    def __init__(self, records: Records, live: FakeLive) -> None:
        self._records = records
        self._live = live
        self.sent: list[int] = []
        #: What was asked, its data with it, and the lane.
        self.asked: list[tuple[Json, str]] = []
        self.batches: list[str] = []
        self.numbers: list[str] = []
        self.on_send: Callable[[Task], None] = lambda task: None
        self.reply: Callable[[Json], Answer] | None = lambda request: predicted(
            [{"uri": "1", "classes": [{"prob": 0.9, "cat": "setosa", "last": True}]}],
            queued=0.5,
            load=1.0,
            input=2.0,
            compute=3.0,
            output=4.0,
        )

    def send_task(self, task: Task) -> bool:
        if self._live.is_down:
            return False
        self._records.tasks.mark_sent([task.id])
        self.sent.append(task.id)
        self.on_send(task)
        return True

    def predict(
        self,
        asked: Asked,
        lane: str,
        batch: str,
        timeout_s: float,
        mark: str | None = None,
        is_connected: Callable[[], bool] = lambda: True,
        request_id: str = "",
    ) -> Answer:
        self._live.answer()
        asked = Asked.split(asked.joined())  # what travels
        request = orjson.loads(asked.head)
        if asked.data:
            request["data"] = orjson.loads(asked.data)
        self.asked.append((request, lane))
        self.batches.append(batch)
        self.numbers.append(request_id)
        if mark is not None and mark != self._live.changes.mark:
            raise Changed
        if self.reply is None:
            raise NoAnswer(lane, timeout_s)
        return self.reply(request)
