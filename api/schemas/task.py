"""Answers and queries of /tasks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from marshmallow import Schema, fields

from api.query import check_known, choice, whole_number
from api.refusals import BadQuery
from api.schemas.deepdetect import WarningSchema
from api.schemas.described import Always, cursor, several
from api.schemas.paging import PAGE, SPAN, PageQuery, Span, limit_of, read_page, read_span
from ml.options.catalog import libraries
from storage.live import LogLine
from storage.moments import moment
from storage.records import Kind, State

IDS_MOST = 1000
_LINE_MOST = 10**12


class Moment(fields.Field[float]):
    """Seconds since the epoch, told as ISO 8601 in UTC."""

    def _serialize(self, value: float | None, attr: str | None, obj: Any, **options: Any) -> str | None:
        return moment(value)


def _told(text: str, kind: str | None = None) -> Any:
    """What a member is; `kind` of one that is written as it is."""
    return {"description": text} if kind is None else {"description": text, "type": [kind, "null"]}


class TaskSchema(Always):
    """A task in lists and polls of many."""

    task_id = fields.Integer(metadata=_told("Number of the task."))
    kind = fields.String(metadata=_told("What it does: train, predict, clear, import, upload or describe."))
    state = fields.String(metadata=_told("queued, running, finished, failed or cancelled; the last three are final."))
    service = fields.String(allow_none=True, metadata=_told("Name of its service."))
    job = fields.Integer(
        allow_none=True, metadata=_told("For trainings: number within the service, as /train knows it.")
    )
    percent = fields.Float(allow_none=True, metadata=_told("How much is done, 0 to 100; null when that is not known."))
    progress = fields.Raw(
        metadata=_told(
            "While it runs: phase, and iteration, iterations, measure, remain_s, or rows and total; else null.",
            "object",
        )
    )
    attempt = fields.Integer(metadata=_told("How often a worker began it."))
    cancel_requested = fields.Boolean(metadata=_told("Whether somebody asked for its end."))
    created_at = Moment(metadata=_told("When it was accepted."))
    started_at = Moment(allow_none=True, metadata=_told("When its first attempt began."))
    finished_at = Moment(allow_none=True, metadata=_told("When it ended."))
    warnings = several(WarningSchema, "What in the request had no effect, or another one than asked.")
    failure = fields.Raw(
        metadata=_told("Why it failed: kind, message, phase, exit code or signal, last log lines, advice.", "object")
    )


class AttemptSchema(Always):
    """One try at a task."""

    attempt = fields.Integer(attribute="number", metadata=_told("1 for the first."))
    worker = fields.String(attribute="owner", metadata=_told("Who tried: host and process."))
    started_at = Moment(allow_none=True, metadata=_told("When it began."))
    ended_at = Moment(allow_none=True, metadata=_told("When it ended; null while it runs."))
    outcome = fields.String(
        allow_none=True, metadata=_told("finished, failed, cancelled, paused, killed or lost; null while it runs.")
    )
    resumed_iteration = fields.Integer(
        allow_none=True, metadata=_told("The iteration of the checkpoint it went on from, or null.")
    )
    phases = fields.Raw(metadata=_told("Seconds spent in each phase.", "object"))
    failure = fields.Raw(metadata=_told("Why it failed, or null.", "object"))


class OneTaskSchema(TaskSchema):
    """A task with all that is known of it."""

    queue = fields.String(metadata=_told("The queue it waits or waited in."))
    queue_position = fields.Integer(
        allow_none=True, metadata=_told("How many of its queue come before it; null when it does not wait.")
    )
    estimate = fields.Raw(
        metadata=_told(
            "seconds_to_start, seconds_to_end and what they rest_on, each null when it is not known; null at the end.",
            "object",
        ),
    )
    phases = fields.Raw(metadata=_told("Seconds in each phase: queued, then those of the newest attempt.", "object"))
    attempts = fields.List(fields.Nested(AttemptSchema), metadata=_told("Every try, first one first."))
    measure = fields.Raw(metadata=_told("The newest measures, or null.", "object"))
    report = fields.String(
        allow_none=True, metadata=_told("Where measures and histories can be read at the end, or null.")
    )
    result = fields.String(
        allow_none=True, metadata=_told("For predictions: where the result can be read at the end, or null.")
    )
    version = fields.Integer(
        allow_none=True, metadata=_told("Number of the version it published in its repository, or null.")
    )


class PollSchema(Always):
    """GET /tasks?ids=…"""

    tasks = fields.List(fields.Nested(TaskSchema), metadata=_told("Those that there are, by number."))
    missing = fields.List(fields.Integer(), metadata=_told("Numbers that the account has no task of."))


class PageSchema(Always):
    """GET /tasks with filters."""

    tasks = fields.List(fields.Nested(TaskSchema), metadata=_told("Newest first."))
    next_cursor = cursor()


class LogLineSchema(Always):
    """A line that a task said."""

    number = fields.Integer(metadata=_told("Counted from 1 through all attempts of the task."))
    attempt = fields.Integer(metadata=_told("The attempt that said it."))
    time = Moment(metadata=_told("When it was said."))
    level = fields.String(metadata=_told("debug, info, warning or error."))
    message = fields.String(metadata=_told("What it says."))


class LogsSchema(Always):
    """What a task said."""

    logs = fields.List(fields.Nested(LogLineSchema), metadata=_told("The lines, oldest first."))
    dropped = fields.Integer(
        metadata=_told("How many lines between `after` and the last one here are not kept any more.")
    )
    after = fields.Integer(metadata=_told("Goes into `after` for the lines that follow."))


def log_line(line: LogLine) -> dict[str, Any]:
    """What `LogLineSchema` would dump."""
    return {
        "number": line.number,
        "attempt": line.attempt,
        "time": moment(line.time),
        "level": line.level,
        "message": line.message,
    }


def dropped_lines(count: int) -> dict[str, Any]:
    """What an event stream tells in the place of lines that are not kept any more."""
    lines = "1 line is" if count == 1 else f"{count} lines are"
    return {"level": "warning", "message": f"{lines} not kept any more", "dropped": count}


class ReportSchema(Schema):
    """What an ended task found; which members it has depends on its kind."""

    measure = fields.Dict(metadata=_told("The last measures."))
    measures = fields.List(fields.Dict(), metadata=_told("The measures of each test set."))
    measure_hist = fields.Dict(metadata=_told("Histories of the measures, an array for each."))
    parameters = fields.Dict(metadata=_told("What of the parameters is told at the end."))
    mltype = fields.String(metadata=_told("What the service predicts."))
    iteration = fields.Integer(allow_none=True, metadata=_told("The last iteration."))
    peak_bytes = fields.Integer(allow_none=True, metadata=_told("Most memory that the training process held."))
    warnings = several(WarningSchema, "What had no effect.", required=False)
    rows = fields.Integer(metadata=_told("Of a prediction: how many rows it predicted."))
    timings = fields.Dict(metadata=_told("Of a prediction: milliseconds of each part."))
    result = fields.Dict(metadata=_told("Of a prediction: form, bytes and SHA-256 of its result."))


@dataclass(frozen=True)
class PollQuery:
    """GET /tasks?ids=1,2,…"""

    ids: tuple[int, ...]


@dataclass(frozen=True)
class ListQuery:
    """GET /tasks with filters."""

    state: State | None
    kind: Kind | None
    service: str | None
    page: PageQuery
    created: Span


@dataclass(frozen=True)
class ServicesQuery:
    """GET /services."""

    mllib: str | None
    page: PageQuery
    created: Span


def read_services_query(arguments: Mapping[str, str]) -> ServicesQuery:
    """What GET /services is asked. Raises BadQuery."""
    check_known(arguments, ("status", "mllib", *PAGE, *SPAN))
    mllib = arguments.get("mllib")
    if mllib is not None and mllib not in libraries():
        raise BadQuery(f"mllib is {mllib[:40]!r}; use one of {', '.join(libraries())}")
    return ServicesQuery(mllib, read_page(arguments), read_span(arguments))


def read_query(arguments: Mapping[str, str]) -> PollQuery | ListQuery:
    """What GET /tasks is asked. Raises BadQuery."""
    check_known(arguments, ("ids", "state", "kind", "service", *PAGE, *SPAN))
    if "ids" in arguments:
        if len(arguments) > 1:
            raise BadQuery("ids stands alone: leave the other query parameters out, or ids")
        return PollQuery(_ids(arguments["ids"]))
    service = arguments.get("service")
    if service == "":
        raise BadQuery("service is empty; name one, or leave it out")
    return ListQuery(
        state=choice(State, "state", arguments.get("state")),
        kind=choice(Kind, "kind", arguments.get("kind")),
        service=service,
        page=read_page(arguments),
        created=read_span(arguments),
    )


def read_logs_query(arguments: Mapping[str, str]) -> tuple[int, int]:
    """What GET /tasks/…/logs is asked: the number of the last line that is known, and how many may come."""
    check_known(arguments, ("after", "limit"))
    after = whole_number(arguments.get("after", "0"))
    if after is None or after > _LINE_MOST:
        raise BadQuery(f"after is {arguments['after'][:40]!r}; it must be the number of a line, or 0 for all")
    return after, limit_of(arguments.get("limit"))


def _ids(text: str) -> tuple[int, ...]:
    words = [word.strip() for word in text.split(",", IDS_MOST + 1)]
    if len(words) > IDS_MOST:
        raise BadQuery(f"ids holds more than {IDS_MOST} numbers; ask in several calls")
    ids = []
    for word in words:
        number = whole_number(word)
        if number is None:
            raise BadQuery(f"ids holds {word[:40]!r}; it must be task numbers with commas between them, as in ids=1,2")
        ids.append(number)
    return tuple(dict.fromkeys(ids))
