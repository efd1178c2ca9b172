"""What answers tell of a task: facts from the records, and what its worker told last."""

from __future__ import annotations

from api.answers import Json
from api.parts import Parts
from storage.moments import moment
from storage.records import State, Task


def current(task: Task, progress: Json | None) -> Json | None:
    """Progress of the attempt that runs now, or None: an earlier one may have left its own."""
    return progress if progress and progress.get("attempt", task.attempt) == task.attempt else None


def facts_of(parts: Parts, task: Task, progress: Json | None) -> Json:
    """All that lists and polls of many tasks tell of one. Times are seconds since the epoch."""
    percent = 100.0 if task.state is State.FINISHED else 0.0 if task.attempt == 0 else None
    if progress is not None:
        percent = progress.get("percent", percent)
    return {
        "task_id": task.id,
        "kind": str(task.kind),
        "state": str(task.state),
        "service": None if task.service_id is None else parts.service_name(task.service_id),
        "job": task.job,
        "percent": percent,
        "progress": progress,
        "attempt": task.attempt,
        "cancel_requested": task.cancel_requested_at is not None,
        "created_at": task.created_at,
        "started_at": task.started_at,
        "finished_at": task.finished_at,
        "warnings": task.warnings,
        "failure": task.failure,
    }


def written(facts: Json) -> Json:
    """What TaskSchema would dump, for a fraction of its time: a poll may ask for a thousand tasks."""
    for name in ("created_at", "started_at", "finished_at"):
        facts[name] = moment(facts[name])
    return facts
