"""Routes that send files."""

from __future__ import annotations

from api import downloads
from api.openapi import datasets, deepdetect, native
from api.openapi.operation import Answer, Operation, Parameter, json_answer
from api.schemas import download

_VERSION = Parameter(
    "version",
    "Number of a version of the service's repository; that of the predictions when absent.",
    {"type": "integer", "minimum": 1, "maximum": 999999999},
)
_LINK = Parameter(
    "link",
    "Whether to be sent on to an address of the S3 store, which needs no key for an hour; without such a store the "
    "file is sent. false when absent.",
    {"type": "string", "enum": ["true", "false", "1", "0"]},
)
_FORMAT = Parameter(
    "format",
    "The kind of archive.",
    {"type": "string", "enum": list(downloads.FORMATS), "default": next(iter(downloads.FORMATS))},
    example="zip",
)
_CONDITIONS = tuple(
    Parameter(name, text, {"type": "string"}, "header")
    for name, text in (
        ("If-None-Match", "ETags; the answer is 304 when the file has one of them."),
        ("If-Match", "ETags; the answer is 412 when the file has none of them."),
    )
)
_PART = (
    *_CONDITIONS,
    Parameter("Range", "The part of the file to send, as in bytes=0-999.", {"type": "string"}, "header"),
    Parameter("If-Range", "An ETag; the whole file is sent when it has another one.", {"type": "string"}, "header"),
)
_HEADERS = {"ETag": "Of the content.", "Content-Disposition": "Name of the file."}
_UNCHANGED = Answer("The client has it already.")
_FILE_TYPES = dict.fromkeys([downloads.BINARY, *downloads.TYPES.values()])
_FILE = {
    200: Answer("The file.", _FILE_TYPES, {**_HEADERS, "Accept-Ranges": "Always bytes."}),
    206: Answer("A part of it.", _FILE_TYPES, {**_HEADERS, "Content-Range": "The part, and the size of the whole."}),
    304: _UNCHANGED,
    307: Answer("Where the object store has it.", {downloads.BINARY: None}, {"Location": "The address."}),
}
_ARCHIVE = {
    200: Answer("The archive.", dict.fromkeys(downloads.FORMATS.values()), _HEADERS),
    304: _UNCHANGED,
}
_OF_ARCHIVE = ("bad_query", "precondition_failed", "busy", "store_unavailable")
_OF_FILE = (*_OF_ARCHIVE, "range_unsatisfiable")
_SERVICE = ("service_not_found", "file_not_found")
_TASK = ("task_not_found", "file_not_found")
_DATASET = ("bad_dataset_name", "dataset_not_found", "file_not_found")


def _path(example: str) -> Parameter:
    return Parameter("path", "Path of the file.", {"type": "string", "minLength": 1}, "path", True, example=example)


OPERATIONS = {
    "downloads.service_files": {
        "GET": Operation(
            "Services",
            "List the files of a model",
            "The files of the version that predictions use, or of another one.",
            {200: json_answer("The files.", download.ServiceFilesSchema)},
            ("bad_query", *_SERVICE),
            (deepdetect.NAME, _VERSION),
        )
    },
    "downloads.service_file": {
        "GET": Operation(
            "Services",
            "Download a file of a model",
            "Whole, or a part of it.",
            _FILE,
            (*_OF_FILE, *_SERVICE),
            (deepdetect.NAME, _path("modelyard.json"), _VERSION, _LINK, *_PART),
        )
    },
    "downloads.service_archive": {
        "GET": Operation(
            "Services",
            "Download a model",
            "All files as one archive; unpacked into a folder of a data root they are a repository.",
            _ARCHIVE,
            (*_OF_ARCHIVE, *_SERVICE),
            (deepdetect.NAME, _VERSION, _FORMAT, *_CONDITIONS),
        )
    },
    "downloads.task_files": {
        "GET": Operation(
            "Tasks",
            "List the files of a task",
            "Its report, the result of a prediction, and the model of a training.",
            {200: json_answer("The files.", download.TaskFilesSchema)},
            ("bad_query", "task_not_found"),
            (native.NUMBER,),
        )
    },
    "downloads.task_file": {
        "GET": Operation(
            "Tasks",
            "Download a file of a task",
            "Whole, or a part of it. `result.json` holds the predictions alone.",
            _FILE,
            (*_OF_FILE, *_TASK),
            (native.NUMBER, _path("report.json"), _LINK, *_PART),
        )
    },
    "downloads.task_archive": {
        "GET": Operation(
            "Tasks",
            "Download the files of a task",
            "All of them as one archive.",
            _ARCHIVE,
            (*_OF_ARCHIVE, *_TASK),
            (native.NUMBER, _FORMAT, *_CONDITIONS),
        )
    },
    "downloads.dataset_file": {
        "GET": Operation(
            "Data sets",
            "Download a file of a data set",
            "Whole, or a part of it.",
            _FILE,
            (*_OF_FILE, *_DATASET, "dataset_file_not_found"),
            (datasets.NAME, datasets.PATH, _LINK, *_PART),
        )
    },
    "downloads.dataset_archive": {
        "GET": Operation(
            "Data sets",
            "Download a data set",
            "All files as one archive.",
            _ARCHIVE,
            (*_OF_ARCHIVE, *_DATASET),
            (datasets.NAME, _FORMAT, *_CONDITIONS),
        )
    },
}
