"""/train: start, poll and end trainings."""

from __future__ import annotations

import time
from typing import Any

from flask import Blueprint, Response, request

from api import accepting, auditing, jobs, services
from api.answers import Json, envelope, failure, with_warnings
from api.body import read_object
from api.parts import account, parts
from api.query import as_object
from api.refusals import BadQuery, GoesOn
from api.roles import needs
from api.schemas.reading import read, service_of
from api.schemas.train import TrainRequest
from api.waiting import wait_for_end
from logs import context
from ml.options.loading import shown
from storage.errors import JobNotFound
from storage.records import Role, Service, State, Task

blueprint = Blueprint("train", __name__)

_TIMEOUT_MOST_S = 86_400.0
_FOREVER_S = 10.0 * 365 * 86_400


@blueprint.route("/train", methods=["POST", "PUT"])
@needs(Role.TRAIN)
def start() -> Response:
    """Accept a training; with `async:false` answer at its end."""
    began = time.monotonic()
    body = read_object(parts().settings.request_limit_bytes)
    service = _service_of(body)
    loaded = read(TrainRequest, body, "/train")
    repeat = accepting.repeatable(request.headers.get("Idempotency-Key"), request.method, request.path, body)
    arguments = (parts(), account(), service, body, loaded.value, loaded.warnings, repeat)
    if loaded.value.is_async:
        task = accepting.accept(*arguments)
        return envelope(201, with_warnings(jobs.head_of(task, status="running"), task.warnings))
    with parts().slots.held(account().id):
        task = wait_for_end(parts().records, accepting.accept(*arguments).id, _FOREVER_S, parts().ending)
    return _blocking_answer(service, task, time.monotonic() - began)


def _blocking_answer(service: Service, task: Task, took_s: float) -> Response:
    if not task.state.is_final:
        raise GoesOn(f"this server ends and the training goes on; poll task {task.id}, or repeat with its key")
    head: Json = {"method": "/train", "time": float(round(took_s)), "task_id": task.id}
    if task.state is State.FAILED:
        record = task.failure or {}
        return failure(record.get("kind", "internal"), record.get("message", ""), record.get("section"), head=head)
    told, answer = jobs.status_answer(parts(), service, task)
    if task.state is State.CANCELLED:
        head["status"] = "terminated"
    head = with_warnings(head, told.get("warnings", ()))
    if not jobs.output_of(parts(), task).measure_hist:
        del answer["measure_hist"], answer["measure_sampling"]
    return envelope(201, head, answer)


@blueprint.get("/train")
@needs(Role.READ)
def poll() -> Response:
    """How a job stands; waits at most `timeout` seconds for its end."""
    query = as_object(request.args.items(multi=True))
    timeout_s = _timeout_of(query)
    points = _points_of(query)
    service = _service_of(query)
    task = _job(service, query)
    if isinstance(task, Response):
        return task
    if timeout_s > 0 and not task.state.is_final:
        with parts().slots.held(account().id):
            task = wait_for_end(parts().records, task.id, timeout_s, parts().ending)
    return envelope(200, *jobs.status_answer(parts(), service, task, points))


@blueprint.delete("/train")
@needs(Role.TRAIN)
def end() -> Response:
    """End a job, wait for that, and forget it."""
    query = as_object(request.args.items(multi=True))
    service = _service_of(query)
    task = _job(service, query)
    if isinstance(task, Response):
        return task
    if task.state.is_final:
        return envelope(200, jobs.head_of(task))
    with parts().slots.held(account().id):
        services.cancel(parts(), task)
        auditing.note("task.cancel", str(task.kind), task.id)
        task = wait_for_end(parts().records, task.id, services.END_WAIT_S, parts().ending)
    if not task.state.is_final:
        # It cannot end otherwise any more, but it is not over: a repeated DELETE goes on waiting.
        return envelope(200, jobs.head_of(task, status="cancelling", time=jobs.elapsed_s(task)))
    if task.state is not State.CANCELLED:
        return envelope(200, jobs.head_of(task))
    parts().records.tasks.forget(task.id)
    return envelope(200, jobs.head_of(task, status="terminated", time=jobs.elapsed_s(task)))


def _job(service: Service, query: Json) -> Task | Response:
    """The job that a query names, or the answer that there is none: it repeats the number."""
    number = query.get("job")
    message = "job is missing; name its number" if number is None else f"job {shown(number)} does not exist"
    if isinstance(number, int) and not isinstance(number, bool) and 0 < number < 2**31:
        try:
            return parts().records.tasks.job(service.id, number)
        except JobNotFound as error:
            message = str(error)
    head: Json = {"method": "/train"} if number is None else {"method": "/train", "job": number}
    return failure(JobNotFound.kind, message, head=head)


def _timeout_of(query: Json) -> float:
    value = query.get("timeout", 0)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadQuery(f"timeout is {shown(value)}; it must be a number of seconds")
    return min(float(value), _TIMEOUT_MOST_S)


def _points_of(query: Json) -> int | None:
    output: Any = query.get("parameters", {})
    output = output.get("output", {}) if isinstance(output, dict) else {}
    value = output.get("max_hist_points") if isinstance(output, dict) else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BadQuery(f"parameters.output.max_hist_points is {shown(value)}; it must be a whole number of at least 1")
    return value


def _service_of(given: Json) -> Service:
    """The service that a request names. Raises ServiceNotFound."""
    service = parts().records.services.find(account().id, service_of(given))
    context.note(service=service.name)
    return service
