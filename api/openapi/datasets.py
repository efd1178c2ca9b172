"""Routes of data sets."""

from __future__ import annotations

import hashlib

from api.openapi.operation import PAGES, Link, Operation, Parameter, json_answer, links_to_task, number_in_path
from api.schemas import dataset
from api.schemas.dataset import CHECKSUM

NAME = Parameter("name", "Name of the data set.", {"type": "string", "minLength": 1}, "path", True, example="flowers")
PATH = Parameter(
    "path",
    "Path of the file in the data set.",
    {"type": "string", "minLength": 1},
    "path",
    True,
    example="few.csv",
)
_NUMBER = number_in_path("Number of the upload, as `upload_id` told it.")
_LINES = "5.1,3.5,1.4,0.2\n6.2,2.9,4.3,1.3\n"
_UNKNOWN = ("bad_query", "bad_dataset_name", "dataset_not_found")
_OF_UPLOAD = (*_UNKNOWN, "upload_not_found", "upload_completing")
_KEPT = ("store_unavailable", "storage_full")
_TASK = links_to_task("$response.body#/task_id")
_WORK = {
    200: json_answer("It is done; with what was found.", dataset.WorkSchema).then(**_TASK),
    202: json_answer("It takes longer; poll the task.", dataset.WorkSchema, Location="The task.").then(**_TASK),
}
_WORKING = (
    "bad_input",
    "upload_refused",
    "missing_extra",
    "not_isolated",
    "checksum_mismatch",
    "killed",
    "worker_lost",
    "too_many_queued",
    "too_much_stored",
)
_OF_DATASET = {"name": "$request.path.name"}
_THIS_UPLOAD = {**_OF_DATASET, "number": "$response.body#/upload_id"}

SEVERAL = Operation(
    "Data sets",
    "List data sets",
    "A page of all, newest first.",
    {200: json_answer("Data sets.", dataset.DatasetsSchema)},
    ("bad_query",),
    PAGES,
)

_HAVING = {
    "files": Link(("datasets.add_files", "POST"), _OF_DATASET),
    "upload": Link(("datasets.begin", "POST"), _OF_DATASET),
    "dataset": Link(("datasets.get", "GET"), _OF_DATASET),
    "describe": Link(("datasets.describe", "POST"), _OF_DATASET),
    "end": Link(("datasets.delete", "DELETE"), _OF_DATASET),
}

CREATE = Operation(
    "Data sets",
    "Make a data set",
    "Without a body.",
    {
        200: json_answer("It was there already.", dataset.DatasetSchema).then(**_HAVING),
        201: json_answer("It was made.", dataset.DatasetSchema).then(**_HAVING),
    },
    ("bad_query", "bad_dataset_name", "bad_body", "bad_json", "body_too_large"),
    (NAME,),
)

GET = Operation(
    "Data sets",
    "Describe a data set",
    "With a page of its files, by path.",
    {200: json_answer("The data set.", dataset.OneDatasetSchema)},
    _UNKNOWN,
    (NAME, *PAGES),
)

DELETE = Operation(
    "Data sets",
    "Delete a data set",
    "Tasks that were accepted before go on with what it held.",
    {200: json_answer("It is gone.", dataset.DeletedSchema)},
    _UNKNOWN,
    (NAME,),
)

ADD = Operation(
    "Data sets",
    "Upload files",
    "As a form; all are taken, or none. With `unpack` one archive, whose members are taken.",
    {
        **_WORK,
        201: json_answer("They are there.", dataset.AddedSchema).then(
            remove=Link(("datasets.remove_file", "DELETE"), {**_OF_DATASET, "path": "$response.body#/files/0/path"})
        ),
    },
    (*_UNKNOWN, "bad_body", "body_too_large", "dataset_conflict", "dataset_full", "file_too_large", *_WORKING, *_KEPT),
    (
        NAME,
        Parameter("folder", "Put before the names of the files.", {"type": "string"}),
        Parameter("unpack", "Whether to take the members of an archive.", {"type": "boolean", "default": False}),
    ),
    {
        "type": "object",
        "additionalProperties": {"type": "string", "format": "binary"},
        "description": "Any number of files, each with its name.",
    },
    {"file": ("A table", {"few.csv": _LINES})},
    body_type="multipart/form-data",
)

REMOVE = Operation(
    "Data sets",
    "Delete a file",
    "Takes one file out of a data set.",
    {200: json_answer("It is gone.", dataset.DeletedSchema)},
    (*_UNKNOWN, "dataset_file_not_found"),
    (NAME, PATH),
)

DESCRIBE = Operation(
    "Data sets",
    "Look what tables hold",
    "A worker counts rows, columns and classes of each csv and svm file; `GET` tells them then.",
    _WORK,
    (*_UNKNOWN, *_WORKING, *_KEPT),
    (NAME,),
)

BEGIN = Operation(
    "Data sets",
    "Begin an upload in parts",
    "For large files: parts can be sent again, in any order, and after a break.",
    {
        201: json_answer("What to send.", dataset.UploadSchema, Location="The upload.").then(
            part=Link(("datasets.put_part", "PUT"), {**_THIS_UPLOAD, "part": "$response.body#/missing/0"}),
            upload=Link(("datasets.upload", "GET"), _THIS_UPLOAD),
            complete=Link(("datasets.complete", "POST"), _THIS_UPLOAD),
            end=Link(("datasets.end", "DELETE"), _THIS_UPLOAD),
        )
    },
    (*_UNKNOWN, "bad_json", "bad_body", "body_too_large", "file_too_large", "dataset_full", "too_much_stored", *_KEPT),
    (NAME,),
    "UploadRequest",
    examples={"file": ("A file", {"path": "more.csv", "bytes": len(_LINES)})},
)

UPLOAD = Operation(
    "Data sets",
    "Describe an upload",
    "What of it is there, and what is missing.",
    {200: json_answer("The upload.", dataset.UploadSchema)},
    (*_OF_UPLOAD, *_KEPT),
    (NAME, _NUMBER),
)

PART = Operation(
    "Data sets",
    "Send a part",
    "May be sent again.",
    {200: json_answer("It is there.", dataset.PartSchema)},
    (*_OF_UPLOAD, "bad_header", "bad_body", "body_too_large", "checksum_wrong", *_KEPT),
    (
        NAME,
        _NUMBER,
        number_in_path("Its number, from 1.", "part"),
        Parameter(
            CHECKSUM,
            "SHA-256 of the part, in hexadecimal.",
            {"type": "string", "pattern": "^[0-9A-Fa-f]{64}$"},
            "header",
            True,
            example=hashlib.sha256(_LINES.encode()).hexdigest(),
        ),
    ),
    {"type": "string", "format": "binary"},
    {"part": ("All of a small file", _LINES)},
    body_type="application/octet-stream",
)

COMPLETE = Operation(
    "Data sets",
    "End an upload",
    "A worker puts the parts together, and unpacks what is to be unpacked.",
    _WORK,
    (*_OF_UPLOAD, *_WORKING, "dataset_conflict", "dataset_full", *_KEPT),
    (NAME, _NUMBER),
)

END = Operation(
    "Data sets",
    "Give an upload up",
    "Its parts are deleted.",
    {200: json_answer("It is gone.", dataset.DeletedSchema)},
    (*_OF_UPLOAD, *_KEPT),
    (NAME, _NUMBER),
)

OPERATIONS = {
    "datasets.create": {"PUT": CREATE},
    "datasets.several": {"GET": SEVERAL},
    "datasets.add_files": {"POST": ADD},
    "datasets.get": {"GET": GET},
    "datasets.describe": {"POST": DESCRIBE},
    "datasets.remove_file": {"DELETE": REMOVE},
    "datasets.begin": {"POST": BEGIN},
    "datasets.put_part": {"PUT": PART},
    "datasets.upload": {"GET": UPLOAD},
    "datasets.complete": {"POST": COMPLETE},
    "datasets.end": {"DELETE": END},
    "datasets.delete": {"DELETE": DELETE},
}
