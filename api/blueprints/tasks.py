"""/tasks: every durable piece of work, by number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response, request

from api import auditing, results, services
from api.answers import Json, plain
from api.event_stream import CONTENT_TYPE, read_place
from api.events import EVENTS, WATCH, Events, Watch
from api.facts import current, facts_of, written
from api.jobs import note_ends, progress_of
from api.parts import account, parts
from api.query import check_known, whole_number
from api.refusals import NotReported, RouteNotFound
from api.roles import check, needs
from api.schemas.reading import fold
from api.schemas.task import (
    ListQuery,
    OneTaskSchema,
    PollQuery,
    log_line,
    read_logs_query,
    read_query,
)
from storage.errors import LiveUnavailable, TaskNotFound
from storage.records import Kind, Role, State, Task

blueprint = Blueprint("tasks", __name__)

_ONE = OneTaskSchema()


@blueprint.get("/tasks")
@needs(Role.READ)
def several() -> Response:
    """The tasks of the given numbers, or a page of all that match, newest first."""
    query = read_query(_arguments())
    return _page(query) if isinstance(query, ListQuery) else _poll(query)


def _arguments() -> dict[str, str]:
    return {name: values[-1] for name, values in request.args.lists()}


def _poll(query: PollQuery) -> Response:
    found = parts().records.tasks.get_many(query.ids, account().id)
    seen = {task.id for task in found}
    missing = [task_id for task_id in query.ids if task_id not in seen]
    return plain({"tasks": _told(found), "missing": missing})


def _page(query: ListQuery) -> Response:
    service_id = None
    if query.service is not None:
        service_id = parts().records.services.find(account().id, fold(query.service)).id
    found = parts().records.tasks.page(
        account().id,
        limit=query.page.limit + 1,
        before_id=query.page.before_id,
        before_at=query.page.after.at if query.page.after else 0.0,
        state=query.state,
        kind=query.kind,
        service_id=service_id,
        since=query.created.since,
        until=query.created.until,
    )
    shown, more = query.page.cut(found)
    return plain({"tasks": _told(shown), "next_cursor": more})


def _told(tasks: Sequence[Task]) -> Any:
    """Tasks as answers hold them: one read of the live state for all of them."""
    note_ends(parts(), tasks)
    try:
        progress = parts().live.progress.get_many([task.id for task in tasks if task.state is State.RUNNING])
    except LiveUnavailable:
        progress = {}
    return [written(facts_of(parts(), task, current(task, progress.get(task.id)))) for task in tasks]


def _whole(task: Task) -> Json:
    """All that is known of one task."""
    records = parts().records
    progress = (progress_of(parts(), task) or None) if task.state is State.RUNNING else None
    report = records.tasks.report(task.id) if task.state.is_final else None
    version = records.versions.of_task(task.id) if task.state.is_final else None
    attempts = records.tasks.attempts(task.id)
    facts = facts_of(parts(), task, progress)
    facts["phases"] = {**_queued(task), **(attempts[-1].phases if attempts else {})}
    facts["attempts"] = attempts
    facts["queue"] = task.queue
    before = records.queues.before(task) if task.state is State.QUEUED else []
    facts["queue_position"] = sum(each.count for each in before) if task.state is State.QUEUED else None
    facts["estimate"] = parts().estimates.of(task, before, progress)
    facts["measure"] = (report or progress or {}).get("measure")
    facts["report"] = None if report is None else f"/tasks/{task.id}/report"
    facts["result"] = f"/tasks/{task.id}/result" if results.has_result(task, report) else None
    facts["version"] = None if version is None else version.number
    if report is not None:
        facts["warnings"] = [*task.warnings, *(report.get("warnings") or [])]
    told: Json = _ONE.dump(facts)
    return told


def _queued(task: Task) -> Json:
    """Seconds before the first attempt, once that is known."""
    until = task.started_at if task.started_at is not None else task.finished_at
    return {} if until is None else {"queued": round(max(0.0, until - task.created_at), 4)}


def find(number: str) -> Task:
    """The task of that number. Raises TaskNotFound."""
    task_id = whole_number(number)
    if task_id is None:
        raise TaskNotFound(repr(number[:40]))
    return parts().records.tasks.get(task_id, account().id)


@blueprint.get("/tasks/<number>")
@needs(Role.READ)
def one(number: str) -> Response:
    """One task with its attempts, phases, queue position and measures."""
    check_known(request.args, ())
    return plain(_whole(find(number)))


@blueprint.get("/tasks/<number>/report")
@needs(Role.READ)
def report(number: str) -> Response:
    """What an ended task found: measures, histories, parameters."""
    check_known(request.args, ())
    task = find(number)
    found = parts().records.tasks.report(task.id)
    if found is None:
        raise NotReported(f"task {task.id} is {task.state} and has no report")
    return plain(results.reported(found))


@blueprint.get("/tasks/<number>/result")
@needs(Role.READ)
def result(number: str) -> Response:
    """What a prediction task answers: the answer of /predict, JSON lines or Parquet."""
    check_known(request.args, ())
    return results.answer(parts(), find(number))


@blueprint.delete("/tasks/<number>/result")
@needs(Role.PREDICT)
def delete_result(number: str) -> Response:
    """Delete the result of a prediction task; again as often as wanted. What is not over has none to delete."""
    check_known(request.args, ())
    task = find(number)
    if results.delete(parts(), task):
        auditing.note("result.delete", str(task.kind), task.id)
    return plain(_whole(task))


@blueprint.get("/tasks/<number>/logs")
@needs(Role.READ)
def logs(number: str) -> Response:
    """What a task said, for those who poll; the newest lines are kept, for an hour after its end."""
    after, limit = read_logs_query(_arguments())
    task = find(number)
    lines, newest = parts().live.logs.since(task.id, after, limit)
    if newest < after:  # Redis lost those that the client had, and counts from 1 again
        after = 0
        lines, _ = parts().live.logs.since(task.id, after, limit)
    last = lines[-1].number if lines else after
    dropped = last - after - len(lines)
    return plain({"logs": [log_line(each) for each in lines], "dropped": dropped, "after": last})


@blueprint.get("/tasks/<number>/events")
@needs(Role.READ)
def events(number: str) -> Response:
    """What happens to a task, as server-sent events until its end; the event loop in front of Flask sends them."""
    check_known(request.args, ())
    task = find(number)
    last = read_place(request.headers.get("Last-Event-ID"))
    streams: Events | None = request.environ.get(EVENTS)
    if streams is None:
        raise RouteNotFound("events are sent by the event loop in front of Flask only; start it with `modelyard api`")
    if last is not None and last.is_end:
        return Response(status=204)  # so that a browser does not come again
    streams.check_room(account().id)
    if request.method != "HEAD":
        request.environ[WATCH] = Watch(task.id, account().id, last)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return Response(iter(()), mimetype=CONTENT_TYPE, headers=headers)


@blueprint.delete("/tasks/<number>")
@needs(Role.PREDICT)
def cancel(number: str) -> Response:
    """Ask for the end of a task without waiting: 202, or 200 when it was over already."""
    check_known(request.args, ())
    task = find(number)
    if task.kind is not Kind.PREDICT:
        check(account(), Role.TRAIN)
    if task.state.is_final:
        return plain(_whole(task), 200)
    asked = services.cancel(parts(), task)
    auditing.note("task.cancel", str(task.kind), task.id)
    # It may have ended since it was read; then nothing was asked of anybody.
    return plain(_whole(asked), 200 if asked.cancel_requested_at is None else 202)
