"""DeepDetect's routes: /info, /services, /train, /predict."""

from __future__ import annotations

from typing import Any

from api.openapi.operation import CREATED, PAGES, Link, Operation, Parameter, json_answer, links_to_task
from api.schemas import deepdetect as told
from api.services import CLEARING
from ml.options.catalog import libraries

SERVICE = "iris-docs"
"""The service of all examples."""

FILE = "iris.csv"
"""The file of all examples: one of `examples/data`, in a data root."""

ROWS = ("5.1,3.5,1.4,0.2", "6.2,3.4,5.4,2.3")
LINES = (
    "sepal_length_cm,sepal_width_cm,petal_length_cm,petal_width_cm,species",
    "5.1,3.5,1.4,0.2,0",
    "4.9,3.0,1.4,0.2,0",
    "5.0,3.6,1.4,0.2,0",
    "7.0,3.2,4.7,1.4,1",
    "6.4,3.2,4.5,1.5,1",
    "5.5,2.3,4.0,1.3,1",
    "6.3,3.3,6.0,2.5,2",
    "5.8,2.7,5.1,1.9,2",
    "7.1,3.0,5.9,2.1,2",
)

_FLAG = {"type": "string", "enum": ["true", "false", "1", "0"]}
_TEXT = {"type": "string", "minLength": 1}
NAME = Parameter(
    "name", "Name of the service; upper and lower case are the same.", _TEXT, "path", True, example=SERVICE
)
_SERVICE = Parameter(
    "service", "Name of the service; upper and lower case are the same.", _TEXT, is_required=True, example=SERVICE
)
_JOB = Parameter(
    "job", "Number of the training within the service.", {"type": "integer", "minimum": 1}, is_required=True, example=1
)
_REPEAT = Parameter(
    "Idempotency-Key",
    "Of two requests with the same key and body, the second gets the answer of the first.",
    {"type": "string", "minLength": 1, "maxLength": 255},
    "header",
)

_TASK = links_to_task("$response.body#/head/task_id")
_OF_SERVICE = {"name": "$request.path.name"}
_OF_JOB = {"service": "$request.body#/service", "job": "$response.body#/head/job"}

_BODY = ("bad_json", "bad_body", "bad_parameter", "body_too_large")
_MODEL = ("unknown_library", "missing_extra", "unknown_connector", "model_unusable", "repository_unusable")
_DATA = ("bad_input", "outside_data_roots")
_FAULTS = (
    "out_of_memory",
    "not_isolated",
    "killed",
    "worker_lost",
    "checksum_mismatch",
    "artifact_not_found",
    "storage_full",
)
_KEPT = ("live_unavailable", "store_unavailable")
_QUOTAS = ("too_many_queued", "too_much_stored")

INFO = Operation(
    "Server",
    "What this server is",
    "Version of the server, and the services of the account.",
    {200: json_answer("The server and its services.", told.InfoSchema)},
    ("bad_query",),
    (Parameter("status", "Whether the services tell their open jobs; false when absent.", _FLAG),),
)

CREATE = Operation(
    "Services",
    "Create a service",
    "Names a library, an input connector and a place for the models. `parameters` are the defaults of later calls. "
    "A model that lies in the repository already, or that the request names, becomes a version; the call waits for "
    "that a while.",
    {
        201: json_answer("The service is there.", told.DoneSchema).then(
            service=Link(("services.get", "GET"), _OF_SERVICE),
            end=Link(("services.delete", "DELETE"), _OF_SERVICE),
        )
    },
    (
        *_BODY,
        *_MODEL,
        *_DATA,
        *_FAULTS,
        *_KEPT,
        *_QUOTAS,
        "unknown_type",
        "version_not_found",
        "service_exists",
        "fetch_failed",
        "fetch_forbidden",
        "goes_on",
    ),
    (NAME,),
    "ServiceRequest",
    {
        "iris": (
            "A classification of three kinds of flowers",
            {
                "mllib": "xgboost",
                "description": "iris flowers",
                "model": {"repository": SERVICE},
                "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}},
            },
        )
    },
)

SEVERAL = Operation(
    "Services",
    "List services",
    "A page of those that match, newest first. `GET /info` lists all, by name.",
    {200: json_answer("The page.", told.ServicesAnswerSchema)},
    ("bad_query",),
    (
        Parameter("status", "Whether the open jobs are told; false when absent.", _FLAG),
        Parameter("mllib", "Only services of this library.", {"type": "string", "enum": list(libraries())}),
        *PAGES,
        *CREATED,
    ),
)

DESCRIBE = Operation(
    "Services",
    "Describe a service",
    "Its parameters, its newest version, its open jobs and counts of its predictions.",
    {200: json_answer("The service.", told.ServiceAnswerSchema)},
    ("bad_query", "service_not_found"),
    (
        NAME,
        Parameter("status", "Whether the open jobs are told; true when absent.", _FLAG),
        Parameter("labels", "Whether the words of the label column are told; false when absent.", _FLAG),
    ),
)

DELETE = Operation(
    "Services",
    "Delete a service",
    "Cancels its open jobs, waits for their end, and clears its repository as `clear` says.",
    {200: json_answer("The service is gone.", told.DoneSchema)},
    ("nothing_to_delete", "goes_on", "busy", *_MODEL, *_FAULTS, *_KEPT),
    (
        NAME,
        Parameter(
            "clear",
            "What is removed of the repository: `mem` nothing, `index` the similarity index, `lib` the models, `full` "
            "all that is inside, `dir` the folder too. Any other word is taken for `mem`.",
            {"type": "string", "examples": ["mem", *sorted(CLEARING)], "default": "mem"},
            example="full",
        ),
    ),
)

_TRAINING: dict[str, Any] = {
    "service": SERVICE,
    "async": True,
    "parameters": {
        "input": {"test_split": 0.2, "shuffle": True, "seed": 1},
        "mllib": {"iterations": 20},
        "output": {"measure": ["acc", "f1"]},
    },
    "data": [FILE],
}

TRAIN = Operation(
    "Training",
    "Start a training",
    "Answers at once with the number of a job to poll; with `async` false, at the end. What is wrong with the "
    "parameters or the data of an asynchronous call is told by its job.",
    {
        201: json_answer("The training was accepted; with `async` false, it is over.", told.JobSchema).then(
            poll=Link(("train.poll", "GET"), _OF_JOB),
            end=Link(("train.end", "DELETE"), _OF_JOB),
            report=Link(("tasks.report", "GET"), {"number": "$response.body#/head/task_id"}),
            **_TASK,
        )
    },
    (
        *_BODY,
        *_MODEL,
        *_DATA,
        *_FAULTS,
        *_KEPT,
        *_QUOTAS,
        "service_missing",
        "bad_header",
        "service_not_found",
        "idempotency_conflict",
        "unknown_name",
        "busy",
        "goes_on",
    ),
    (_REPEAT,),
    "TrainRequest",
    {
        "file": ("A table in a data root", _TRAINING),
        "lines": (
            "A table in the request",
            {"service": SERVICE, "parameters": {"mllib": {"iterations": 5}}, "data": list(LINES)},
        ),
        "blocking": (
            "An answer at the end",
            {**_TRAINING, "async": False, "parameters": {"mllib": {"iterations": 5}}},
        ),
    },
)

POLL = Operation(
    "Training",
    "Poll a training",
    "How a job stands, with its measures; waits for its end for `timeout` seconds at most.",
    {200: json_answer("The job.", told.JobSchema)},
    ("bad_query", "service_missing", "service_not_found", "job_not_found", "busy"),
    (
        _SERVICE,
        _JOB,
        Parameter("timeout", "Seconds to wait for the end.", {"type": "number", "default": 0}, example=20),
        Parameter(
            "parameters.output.max_hist_points",
            "Most points of each history.",
            {"type": "integer", "minimum": 1},
        ),
    ),
)

END = Operation(
    "Training",
    "End a training",
    "Cancels a job, waits for its end and forgets it; one that was over already stays.",
    {200: json_answer("The job is over, or `cancelling`.", told.EndedJobSchema)},
    ("service_missing", "service_not_found", "job_not_found", "busy"),
    (_SERVICE, _JOB),
)

PREDICT = Operation(
    "Prediction",
    "Predict",
    "Predicts rows with the newest version. With `async` it becomes a task, whose result is kept; with "
    "`parameters.output.template` what the template makes is answered, still as application/json.",
    {
        200: json_answer("What was predicted.", told.PredictAnswerSchema),
        201: json_answer(
            "The task was accepted.", told.PredictTaskSchema, Location="Where the task can be polled."
        ).then(result=Link(("tasks.result", "GET"), {"number": "$response.body#/head/task_id"}), **_TASK),
    },
    (
        *_BODY,
        *_MODEL,
        *_DATA,
        *_FAULTS,
        *_KEPT,
        *_QUOTAS,
        "service_missing",
        "bad_header",
        "service_not_found",
        "no_model",
        "version_not_found",
        "train_predict_conflict",
        "idempotency_conflict",
        "no_answer",
        "overloaded",
        "answer_too_large",
        "busy",
        "push_target_missing",
        "push_failed",
    ),
    (_REPEAT,),
    "PredictRequest",
    {
        "rows": ("Two rows", {"service": SERVICE, "data": list(ROWS)}),
        "best": (
            "All classes, and how long each part took",
            {"service": SERVICE, "parameters": {"output": {"best": 3, "timings": True}}, "data": list(ROWS)},
        ),
        "measures": (
            "How good the predictions of labelled rows are",
            {"service": SERVICE, "parameters": {"output": {"measure": ["acc"]}}, "data": [FILE]},
        ),
        "task": ("A file, as a task", {"service": SERVICE, "async": True, "data": [FILE]}),
    },
    "With `parameters.output.network`: status and body of the host that the answer was sent to.",
)

OPERATIONS = {
    "info.info": {"GET": INFO},
    "services.create": {"PUT": CREATE, "POST": CREATE},
    "services.several": {"GET": SEVERAL},
    "services.get": {"GET": DESCRIBE},
    "services.delete": {"DELETE": DELETE},
    "train.start": {"POST": TRAIN, "PUT": TRAIN},
    "train.poll": {"GET": POLL},
    "train.end": {"DELETE": END},
    "predict.predict": {"POST": PREDICT},
}
