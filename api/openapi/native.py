"""Modelyard's own routes."""

from __future__ import annotations

from api.openapi.operation import (
    CREATED,
    JSON,
    PAGES,
    Answer,
    Operation,
    Parameter,
    json_answer,
    limit_of,
    number_in_path,
)
from api.schemas import deepdetect, health, task
from storage.records import Kind, State

_TEXT = {"type": "string", "minLength": 1}
NUMBER = number_in_path("Number of the task, as `task_id` told it.")
_PREDICTION = number_in_path("Number of a prediction task.", example=4)

SEVERAL = Operation(
    "Tasks",
    "List or poll tasks",
    "With `ids` the tasks of these numbers, in one call; without, a page of all that match, newest first.",
    {200: Answer("Tasks.", {JSON: {"anyOf": [task.PageSchema, task.PollSchema]}})},
    ("bad_query", "service_not_found"),
    (
        Parameter(
            "ids",
            f"At most {task.IDS_MOST} numbers with commas between them; stands alone.",
            {"type": "string", "pattern": r"^ *[0-9]{1,18} *(, *[0-9]{1,18} *)*$"},
        ),
        Parameter("state", "Only tasks in this state.", {"type": "string", "enum": list(State)}),
        Parameter("kind", "Only tasks of this kind.", {"type": "string", "enum": list(Kind)}),
        Parameter("service", "Only tasks of this service.", _TEXT),
        *PAGES,
        *CREATED,
    ),
)

ONE = Operation(
    "Tasks",
    "Describe a task",
    "Its state, progress, attempts, phases and measures.",
    {200: json_answer("The task.", task.OneTaskSchema)},
    ("bad_query", "task_not_found"),
    (NUMBER,),
)

REPORT = Operation(
    "Tasks",
    "Report of an ended task",
    "Measures, their whole histories, and parameters of a training; rows, times and form of the result of a "
    "prediction.",
    {200: json_answer("What it found.", task.ReportSchema)},
    ("bad_query", "task_not_found", "report_not_found"),
    (NUMBER,),
)

RESULT = Operation(
    "Tasks",
    "Result of a prediction task",
    "In the form that `parameters.output.format` asked for.",
    {
        200: Answer(
            "The predictions.",
            {
                JSON: deepdetect.PredictAnswerSchema,
                "application/x-ndjson": None,
                "application/vnd.apache.parquet": None,
            },
            {"Content-Disposition": "Name of the file, where it is no JSON."},
        )
    },
    (
        "bad_query",
        "task_not_found",
        "result_not_found",
        "result_pending",
        "store_unavailable",
        "storage_full",
        "checksum_mismatch",
        "busy",
    ),
    (_PREDICTION,),
)

DELETE_RESULT = Operation(
    "Tasks",
    "Delete the result of a prediction task",
    "It is not counted as stored from then on; may be repeated. The report still tells its form and size.",
    {200: json_answer("The task; `result` is null.", task.OneTaskSchema)},
    ("bad_query", "task_not_found", "result_not_found", "result_pending", "store_unavailable"),
    (_PREDICTION,),
)

LOGS = Operation(
    "Tasks",
    "What a task said",
    "Its newest log lines, oldest first; poll with `after`, or follow its events.",
    {200: json_answer("The lines.", task.LogsSchema)},
    ("bad_query", "task_not_found", "live_unavailable"),
    (
        NUMBER,
        Parameter(
            "after",
            "Only lines after that of this number; `after` of the answer before.",
            {"type": "integer", "minimum": 0, "maximum": 10**12, "default": 0},
            example=0,
        ),
        limit_of("Most lines."),
    ),
)

EVENTS = Operation(
    "Tasks",
    "Follow a task",
    "Server-sent events until the task is over: `state`, `warning`, `measure`, `log`, `progress` and `end`.",
    {
        200: Answer("The events.", {"text/event-stream": None}),
        204: Answer("The end was told before: `Last-Event-ID` is that of an `end`."),
    },
    ("bad_query", "bad_header", "task_not_found", "route_not_found", "too_many_streams"),
    (
        NUMBER,
        Parameter(
            "Last-Event-ID",
            "The id of the last event that came; the stream goes on after it. Empty, it counts as absent.",
            {"type": "string", "pattern": "^([0-9]{1,9}-[0-9]{1,15}(-end)?)?$"},
            "header",
        ),
    ),
)

CANCEL = Operation(
    "Tasks",
    "Cancel a task",
    "Asks for its end without waiting.",
    {
        200: json_answer("It was over already.", task.OneTaskSchema),
        202: json_answer("It can only end cancelled from now on.", task.OneTaskSchema),
    },
    ("bad_query", "task_not_found"),
    (NUMBER,),
)

METRICS = Operation(
    "Server",
    "Figures for Prometheus",
    "The figures of all processes of this installation, in the text format of Prometheus.",
    {200: Answer("The figures.", {"text/plain": None})},
    ("live_unavailable",),
)

HEALTHZ = Operation(
    "Server",
    "Whether the process lives",
    "Answers as long as the process does; touches nothing else.",
    {200: json_answer("It lives.", health.AliveSchema)},
)

READYZ = Operation(
    "Server",
    "Whether the server can do its work",
    "Looks at the records, Redis, the object store and the workers.",
    {
        200: json_answer("It can.", health.ReadySchema),
        503: json_answer("It cannot; `missing` says why.", health.ReadySchema),
    },
)

DOCUMENT = Operation(
    "Server",
    "This document",
    "The API as an OpenAPI 3.1 document.",
    {200: json_answer("The document.", health.DocumentSchema)},
)

PAGE = Operation(
    "Server",
    "This document to browse",
    "A page that shows the document and sends requests to this server.",
    {200: Answer("The page.", {"text/html": None})},
)

ASSET = Operation(
    "Server",
    "A file of the page",
    "Scripts, styles and the icon of /docs.",
    {
        200: Answer("The file.", {"text/javascript": None, "text/css": None, "image/png": None}),
        304: Answer("The client has it already."),
    },
    ("route_not_found",),
    (Parameter("file", "Name of the file.", _TEXT, "path", True, example="docs.js"),),
)

OPERATIONS = {
    "tasks.several": {"GET": SEVERAL},
    "tasks.one": {"GET": ONE},
    "tasks.report": {"GET": REPORT},
    "tasks.result": {"GET": RESULT},
    "tasks.delete_result": {"DELETE": DELETE_RESULT},
    "tasks.logs": {"GET": LOGS},
    "tasks.events": {"GET": EVENTS},
    "tasks.cancel": {"DELETE": CANCEL},
    "metrics.metrics": {"GET": METRICS},
    "health.healthz": {"GET": HEALTHZ},
    "health.readyz": {"GET": READYZ},
    "docs.document": {"GET": DOCUMENT},
    "docs.page": {"GET": PAGE},
    "docs.asset": {"GET": ASSET},
}
