"""metrics.json in the folder of a repository: what GET /train would answer now, for those who read files instead."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from logs.context import carried
from ml.repository_files import METRICS
from storage import repository_folder
from storage.errors import StorageError
from storage.live.series import POINTS, as_series, sampled
from storage.records import Attempt, State, Task
from workers.child import Event
from workers.folders import folder_of
from workers.lease import LeaseKeeper
from workers.parts import Parts
from workers.supervisor import Telling

Json = dict[str, Any]

INTERVAL_S = 1.0
_AGAIN_S = 30.0
COST_MAX = 0.02
"""Writing may take this share of the time between two files: they hold whole histories."""

_STATUS = {State.FINISHED: "finished", State.FAILED: "error", State.CANCELLED: "terminated"}
_log = logging.getLogger(__name__)


def answer_of(parts: Parts, task: Task) -> Json:
    """The answer about a training that is over, from its report."""
    report = parts.records.tasks.report(task.id) or {}
    body: Json = {
        "measure": report.get("measure") or {},
        "measures": report.get("measures") or [],
        "parameters": report.get("parameters") or {},
    }
    return _answer(parts, task, body, report.get("measure_hist") or {}, report.get("stride") or 1)


def write_metrics(folder: Path, answer: Json, *, durable: bool = True) -> None:
    """Write metrics.json. Raises RepositoryUnusable, StorageFull."""
    repository_folder.write_file(folder, METRICS, json.dumps(answer).encode(), durable=durable)


def _answer(parts: Parts, task: Task, body: Json, hist: Mapping[str, list[Any]], stride: int) -> Json:
    end = time.time() if task.finished_at is None else task.finished_at
    series, sampling = sampled(hist, POINTS, stride)
    body = {**body, "measure_hist": series, "measure_sampling": sampling}
    if task.repository_id is not None:
        body["model"] = {"repository": parts.records.repositories.get(task.repository_id).name}
    if task.service_id is not None:
        service = parts.records.services.get(task.service_id)
        body |= {"mltype": service.mltype, "sname": service.name, "description": service.description}
    head = {
        "method": "/train",
        "job": task.job,
        "status": _STATUS.get(task.state, "running"),
        "time": float(round(max(0.0, end - task.created_at))),
        "task_id": task.id,
    }
    return {"status": {"code": 200, "msg": "OK"}, "head": head, "body": body}


class TellingFolder(Telling):
    """Writes metrics.json as well, after tests and never so often that it would be felt.

    A thread of its own writes: the training must not wait for a slow disk.
    """

    def __init__(self, parts: Parts, attempt: Attempt, lease: LeaseKeeper, folder: Path) -> None:
        super().__init__(parts.live, attempt)
        self._parts = parts
        self._lease = lease
        self._folder = folder
        self._kept_steps: Json = {}
        self._has_new = False
        self._due_at = 0.0
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=f"metrics of {attempt.name}")
        self._under_way: Future[None] | None = None

    def measures(self, point: Json) -> None:
        """A test pass is over."""
        super().measures(point)
        self._has_new = True

    def steps(self, event: Event) -> None:
        """The values of every iteration so far, thinned out."""
        super().steps(event)
        self._kept_steps = {"series": event["series"], "stride": event["stride"]}

    def tell(self) -> None:
        """Write what changed."""
        super().tell()
        is_idle = self._under_way is None or self._under_way.done()
        if self._has_new and is_idle and time.monotonic() >= self._due_at and not self._lease.is_lost:
            self._has_new = False
            # A copy of the list, whose points never change: the thread does the rest.
            self._under_way = self._pool.submit(
                carried(self._write), dict(self._measure), list(self._points), self._kept_steps
            )

    def close(self) -> None:
        """Wait for the file that is being written; no other follows."""
        self._has_new = False
        self._pool.shutdown(wait=True)

    def write_end(self, task: Task) -> None:
        """Write how a training ended that left no model, with all that it had told before.

        Raises RepositoryUnusable, StorageFull, RecordsUnavailable.
        """
        body: Json = {"measure": self._measure}
        if task.failure is not None:
            body["Error"] = {"msg": task.failure.get("message", ""), "kind": task.failure.get("kind", "internal")}
        hist, stride = as_series(self._points, self._kept_steps)
        write_metrics(self._folder, _answer(self._parts, task, body, hist, stride))

    @property
    def _measure(self) -> Json:
        return self._progress.get("measure") or {}

    def _write(self, measure: Json, points: Sequence[Json], steps: Json) -> None:
        began, wait_s = time.monotonic(), INTERVAL_S
        try:
            hist, stride = as_series(points, steps)
            answer = _answer(self._parts, self._attempt.task, {"measure": measure}, hist, stride)
            write_metrics(self._folder, answer, durable=False)
        except StorageError as error:
            _log.warning("metrics.json of %s was not written: %s", self._attempt.name, error)
            wait_s = _AGAIN_S
        ended = time.monotonic()
        self._due_at = ended + max(wait_s, (ended - began) / COST_MAX)


def telling_of(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Telling:
    """What tells of a training: to the live state, and to the folder of its repository where it has one."""
    if attempt.task.repository_id is not None:
        repository = parts.records.repositories.get(attempt.task.repository_id)
        if repository.is_folder:
            return TellingFolder(parts, attempt, lease, folder_of(parts, repository))
    return Telling(parts.live, attempt)
