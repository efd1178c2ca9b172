"""Trainings as DeepDetect's clients see them: `head` and `body` of the answers of /train."""

from __future__ import annotations

import time
from typing import Any

from api.answers import Json, with_warnings
from api.errors import status_of
from api.parts import Parts
from storage.errors import LiveUnavailable
from storage.records import Service, State, Task

HIST_POINTS = 10_000
"""Most points of a history in an answer, unless the request says otherwise."""

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
        found = parts.live.progress.get_many([task.id]).get(task.id, {})
    except LiveUnavailable:
        return {}
    return found if found.get("attempt", task.attempt) == task.attempt else {}


def status_answer(parts: Parts, service: Service, task: Task, hist_points: int = HIST_POINTS) -> tuple[Json, Json]:
    """`head` and `body` of GET /train."""
    if task.state is State.FAILED:
        failure = task.failure or {}
        error = status_of(failure.get("kind", "internal"), failure.get("message", ""), failure.get("section"))
        return with_warnings(head_of(task, status="error"), task.warnings), {"Error": error}
    head = head_of(task, status=_STATUS[task.state], time=elapsed_s(task))
    warnings = list(task.warnings)
    if task.state.is_final:
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
    body["measure_hist"], body["measure_sampling"] = sampled(hist, hist_points, stride)
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


STEP_SERIES = frozenset({"train_loss_hist", "learning_rate_hist", "elapsed_time_ms_hist"})
"""Histories with a point per iteration; the others have one per test."""


def sampled(hist: dict[str, list[Any]], points: int, stride: int = 1) -> tuple[Json, Json]:
    """Histories of at most `points` points, every k-th one of longer ones, and each such k.

    stride : iterations between two points of the series that have one per iteration, thinned out before already.
    """
    cut: Json = {}
    steps: Json = {}
    for name, values in hist.items():
        step = max(1, -(-len(values) // points))
        cut[name] = values[::step] if step > 1 else values
        total = step * (stride if name in STEP_SERIES else 1)
        if total > 1:
            steps[f"{name.removesuffix('_hist')}_sampling"] = total
    return cut, steps


def _live_history(parts: Parts, task: Task) -> tuple[dict[str, list[Any]], int]:
    """The series of a running attempt, and the stride of those with a point per iteration."""
    if task.attempt == 0:
        return {}, 1
    try:
        points = parts.live.progress.history(task.id, task.attempt)
        steps = parts.live.progress.steps(task.id, task.attempt)
    except LiveUnavailable:
        return {}, 1
    hist: dict[str, list[Any]] = {}
    for point in points:
        for name, value in point.items():
            hist.setdefault(f"{name}_hist", []).append(value)
    return {**(steps.get("series") or {}), **hist}, int(steps.get("stride") or 1)
