"""What a receiver is told: the end of a task, as GET /tasks/NUMBER would tell it."""

from __future__ import annotations

from typing import Any

import orjson

from ml.json_text import finite
from storage.moments import moment
from storage.records import Delivery, Kind, Parcel, Records, State, Task
from storage.records.deliveries import PING

Json = dict[str, Any]

PAYLOAD_LIMIT_BYTES = 64 * 2**10

# What is left out of a task that is too large, one after the other, until it fits.
_LARGE = ("attempts", "warnings", "measure", "phases", "failure")


def payload_of(records: Records, parcel: Parcel) -> bytes:
    """The body of a delivery: the same for each attempt and replay, since nothing of an ended task changes."""
    delivery = parcel.delivery
    if delivery.event == PING:
        return _written(delivery, {"webhook_id": delivery.webhook_id})
    assert delivery.task_id is not None
    task = document(records, records.tasks.get(delivery.task_id, parcel.account_id))
    left_out: list[str] = []
    while True:
        content = _written(delivery, {"task": task, "left_out": left_out})
        larger = next((name for name in _LARGE if name not in left_out), None)
        if len(content) <= PAYLOAD_LIMIT_BYTES or larger is None:
            return content
        task[larger] = _brief(task[larger]) if larger == "failure" else None
        left_out.append(larger)


def document(records: Records, task: Task) -> Json:
    """An ended task with the members of GET /tasks/NUMBER."""
    report = records.tasks.report_in_brief(task.id)
    version = records.versions.of_task(task.id)
    attempts = records.tasks.attempts(task.id)
    until = task.started_at if task.started_at is not None else task.finished_at
    queued = {} if until is None else {"queued": round(max(0.0, until - task.created_at), 4)}
    has_result = task.kind is Kind.PREDICT and task.state is State.FINISHED and report is not None
    return {
        "task_id": task.id,
        "kind": str(task.kind),
        "state": str(task.state),
        "service": None if task.service_id is None else records.services.get(task.service_id).name,
        "job": task.job,
        "percent": 100.0 if task.state is State.FINISHED else 0.0 if task.attempt == 0 else None,
        "progress": None,
        "attempt": task.attempt,
        "cancel_requested": task.cancel_requested_at is not None,
        "created_at": moment(task.created_at),
        "started_at": moment(task.started_at),
        "finished_at": moment(task.finished_at),
        "warnings": [*task.warnings, *((report or {}).get("warnings") or [])],
        "failure": task.failure,
        "queue": task.queue,
        "queue_position": None,
        "estimate": None,
        "phases": {**queued, **(attempts[-1].phases if attempts else {})},
        "attempts": [
            {
                "attempt": each.number,
                "worker": each.owner,
                "started_at": moment(each.started_at),
                "ended_at": moment(each.ended_at),
                "outcome": each.outcome,
                "resumed_iteration": each.resumed_iteration,
                "phases": each.phases,
                "failure": each.failure,
            }
            for each in attempts
        ],
        "measure": (report or {}).get("measure"),
        "report": None if report is None else f"/tasks/{task.id}/report",
        "result": f"/tasks/{task.id}/result" if has_result else None,
        "version": None if version is None else version.number,
    }


def _written(delivery: Delivery, data: Json) -> bytes:
    told = {"type": delivery.event, "timestamp": moment(delivery.event_at), "data": data}
    return orjson.dumps(finite(told), option=orjson.OPT_NON_STR_KEYS)


def _brief(failure: Json | None) -> Json | None:
    """A failure without its log, its message cut."""
    if failure is None:
        return None
    return {**failure, "log": [], "message": str(failure.get("message", ""))[:2000]}
