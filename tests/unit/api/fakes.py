"""Stand-ins for Redis and the workers with the interfaces that the API uses; the records are real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from storage.errors import LiveUnavailable
from storage.live import Heartbeat
from storage.records import Records, Task
from workers.queue import NoAnswer

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

    def steps(self, task_id: int, attempt: int) -> Json:
        self._live.answer()
        return self.of_steps.get((task_id, attempt), {})

    def hint_cancel(self, task_id: int) -> None:
        self._live.answer()
        self.hinted.append(task_id)


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


class FakeStatistics:
    def __init__(self, live: FakeLive) -> None:
        self._live = live
        self.counts: dict[int, dict[str, float]] = {}

    def count(
        self,
        service_id: int,
        *,
        succeeded: bool,
        inferences: int = 0,
        predict_ms: float = 0.0,
        transform_ms: float = 0.0,
    ) -> None:
        self._live.answer()
        held = self.counts.setdefault(service_id, dict.fromkeys(self._names(), 0))
        held["predict_count"] += 1
        held["predict_success" if succeeded else "predict_failure"] += 1
        if succeeded:
            held["inference_count"] += inferences
            held["total_predict_duration_ms"] += predict_ms
            held["total_transform_duration_ms"] += transform_ms

    def of(self, service_id: int) -> dict[str, float]:
        self._live.answer()
        return self.counts.get(service_id, dict.fromkeys(self._names(), 0))

    @staticmethod
    def _names() -> tuple[str, ...]:
        return (
            "inference_count",
            "predict_count",
            "predict_success",
            "predict_failure",
            "total_predict_duration_ms",
            "total_transform_duration_ms",
        )


class FakeQueue:
    """Takes messages; `on_send` is the worker that gets each at once, if there is one."""

    def __init__(self, records: Records, live: FakeLive) -> None:
        self._records = records
        self._live = live
        self.sent: list[int] = []
        self.asked: list[tuple[Json, str]] = []
        self.on_send: Callable[[Task], None] = lambda task: None
        self.reply: Callable[[Json], Json] | None = lambda request: {
            "predictions": [{"uri": "1", "classes": [{"prob": 0.9, "cat": "setosa", "last": True}]}],
            "timings": {"load_ms": 1.0, "input_ms": 2.0, "compute_ms": 3.0, "output_ms": 4.0},
        }

    def send_task(self, task: Task) -> bool:
        if self._live.is_down:
            return False
        self._records.tasks.mark_sent([task.id])
        self.sent.append(task.id)
        self.on_send(task)
        return True

    def predict(self, request: Json, queue: str, timeout_s: float) -> Json:
        self._live.answer()
        self.asked.append((request, queue))
        if self.reply is None:
            raise NoAnswer(queue, timeout_s)
        return self.reply(request)
