"""Trainings as DeepDetect's clients see them: `head` and `body` of the answers of /train."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from api.answers import Json, with_warnings
from api.errors import status_of
from api.facts import current
from api.parts import Parts
from ml.options.output import OutputOptions, of_parameters
from storage.errors import LiveUnavailable
from storage.live.series import as_series, sampled
from storage.records import Service, State, Task

_JUST_ENDED_S = 5.0
_STATUS = {
    State.QUEUED: "running",
    State.RUNNING: "running",
    State.FINISHED: "finished",
    State.FAILED: "error",
    State.CANCELLED: "terminated",
}


def head_of(task: Task, **more: Any) -> Json:
    """The head of every answer about a job."""
    return {"method": "/train", "job": task.job, **more, "task_id": task.id}


def elapsed_s(task: Task) -> float:
    """Whole seconds since a job was accepted, up to its end."""
    end = time.time() if task.finished_at is None else task.finished_at
    return float(round(max(0.0, end - task.created_at)))


def progress_of(parts: Parts, task: Task) -> Json:
    """What the worker told last; empty when it told nothing yet or Redis is down."""
    try:
        return current(task, parts.live.progress.get_many([task.id]).get(task.id)) or {}
    except LiveUnavailable:
        return {}


def output_of(parts: Parts, task: Task) -> OutputOptions:
    """What a training that was accepted, or the service for it, asked of its answers."""
    return of_parameters(parts.records.tasks.spec(task.id)["parameters"])


def note_ends(parts: Parts, tasks: Iterable[Task]) -> None:
    """Have versions answer from the moment at which the end of their task is told: the worker says that there is a new
    one only after the records do.
    """
    now = time.time()
    if any(task.state is State.FINISHED and now - (task.finished_at or 0.0) < _JUST_ENDED_S for task in tasks):
        with suppress(LiveUnavailable):
            parts.live.changes.note()


def status_answer(parts: Parts, service: Service, task: Task, hist_points: int | None = None) -> tuple[Json, Json]:
    """`head` and `body` of GET /train.

    hist_points : most points of each history; what the training asked for when the call says nothing.
    """
    if task.state is State.FAILED:
        failure = task.failure or {}
        error = status_of(failure.get("kind", "internal"), failure.get("message", ""), failure.get("section"))
        return with_warnings(head_of(task, status="error"), task.warnings), {"Error": error}
    head = head_of(task, status=_STATUS[task.state], time=elapsed_s(task))
    warnings = list(task.warnings)
    if task.state.is_final:
        note_ends(parts, [task])
        report = parts.records.tasks.report(task.id) or {}
        warnings += report.get("warnings") or []
        hist, stride = report.get("measure_hist") or {}, report.get("stride") or 1
        body: Json = {
            "measure": report.get("measure") or {},
            "measures": report.get("measures") or [],
            "parameters": report.get("parameters") or {},
        }
    else:
        hist, stride = _live_history(parts, task)
        body = {"measure": progress_of(parts, task).get("measure") or {}}
    points = output_of(parts, task).max_hist_points if hist_points is None else hist_points
    body["measure_hist"], body["measure_sampling"] = sampled(hist, points, stride)
    body |= about(parts, service)
    return with_warnings(head, warnings), body


def about(parts: Parts, service: Service) -> Json:
    """What each body tells of the service."""
    return {
        "model": {"repository": parts.repository(service).name},
        "mltype": service.mltype,
        "sname": service.name,
        "description": service.description,
    }


def _live_history(parts: Parts, task: Task) -> tuple[dict[str, list[Any]], int]:
    """The series of a running attempt, and the stride of those with a point per iteration."""
    if task.attempt == 0:
        return {}, 1
    try:
        points = parts.live.progress.history(task.id, task.attempt)
        steps = parts.live.progress.steps(task.id, task.attempt)
    except LiveUnavailable:
        return {}, 1
    return as_series(points, steps)
