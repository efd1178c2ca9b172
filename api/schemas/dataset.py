"""Requests about data sets, and how data sets, files and uploads are told."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from marshmallow import Schema, fields

from api.answers import Json
from api.refusals import BadBody, BadHeader, BadQuery
from api.schemas.described import Always, flag, several, table, text, whole
from ml.errors import BadParameter
from ml.options.loading import Flag, Range, Text, Whole, load, option
from storage.moments import moment
from storage.records import Dataset, DatasetFile, Part, State, Upload

CHECKSUM = "X-Content-SHA256"
"""The header with the SHA-256 of what a request brings, in hexadecimal."""

_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class UploadRequest:
    """POST /datasets/NAME/uploads."""

    path: str = option(
        Text(),
        "Where the file will lie in the data set; of an archive to unpack, the folder of its members.",
        default="",
    )
    bytes: int = option(Whole(validate=Range(0)), "Size of the whole file.", default=-1, unit="bytes")
    sha256: str = option(Text(), "SHA-256 of the whole file, in hexadecimal.", default="")
    unpack: bool = option(Flag(), "Whether the file is a zip or tar archive whose members are wanted.", default=False)
    links: bool = option(
        Flag(), "Whether to answer with addresses of the S3 store that the parts can be sent to.", default=False
    )


def read_upload(body: Json) -> UploadRequest:
    """The body of the request. Raises BadBody."""
    try:
        loaded = load(UploadRequest, body, path="body", section="service", owner="/datasets")
    except BadParameter as error:
        raise BadBody(str(error).replace("body.", "")) from None
    for each in loaded.warnings:
        raise BadBody(each.message.replace("body.", "").replace(" and was ignored", ""))
    wanted = loaded.value
    if wanted.bytes < 0:
        raise BadBody("bytes is missing; say how large the file is")
    if not wanted.path and not wanted.unpack:
        raise BadBody("path is missing; say where the file will lie in the data set")
    if wanted.sha256 and not _SHA256.fullmatch(wanted.sha256.lower()):
        raise BadBody("sha256 is no SHA-256: 64 hexadecimal digits")
    return wanted


def checksum_of(header: str | None) -> str:
    """The digest that a request must bring. Raises BadHeader."""
    found = (header or "").strip().lower()
    if not _SHA256.fullmatch(found):
        raise BadHeader(f"{CHECKSUM} must be the SHA-256 of the body: 64 hexadecimal digits")
    return found


def cursor_after(path: str) -> str:
    """The cursor of the page that comes after the file at `path`."""
    return base64.urlsafe_b64encode(json.dumps({"after": path}).encode()).decode().rstrip("=")


def path_of(cursor: str | None) -> str | None:
    """What `cursor_after` was given. Raises BadQuery."""
    if cursor is None:
        return None
    try:
        found = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
        after = found["after"]
    except (binascii.Error, ValueError, TypeError, KeyError, RecursionError):
        after = None
    if not isinstance(after, str) or "\0" in after or not after.isprintable():
        raise BadQuery("cursor cannot be read; use next_cursor of the page before, or leave it out")
    return after


def told(dataset: Dataset) -> Json:
    """A data set in lists."""
    return {
        "name": dataset.name,
        "state": "ready" if dataset.file_count else "empty",
        "revision": dataset.revision,
        "file_count": dataset.file_count,
        "bytes": dataset.size_bytes,
        "created_at": moment(dataset.created_at),
        "changed_at": moment(dataset.changed_at),
    }


def told_file(file: DatasetFile) -> Json:
    """A file of a data set."""
    return {"path": file.path, "bytes": file.size_bytes, "sha256": file.sha256, "facts": file.facts}


def told_upload(upload: Upload, there: Iterable[Part], links: list[str] | None) -> Json:
    """An upload and what is there of it."""
    parts = {part.number: {"part": part.number, "bytes": part.size_bytes, "sha256": part.sha256} for part in there}
    return {
        "upload_id": upload.id,
        "path": upload.path,
        "bytes": upload.size_bytes,
        "sha256": upload.sha256,
        "unpack": upload.unpack,
        "part_bytes": upload.part_bytes,
        "part_count": upload.part_count,
        "parts": list(parts.values()),
        "missing": [number for number in range(1, upload.part_count + 1) if number not in parts],
        "links": links,
        "created_at": moment(upload.created_at),
    }


class DatasetSchema(Always):
    """A data set in lists."""

    name = text("Its name.")
    state = text("Whether it holds files.", ["ready", "empty"])
    revision = whole("How often it was changed.")
    file_count = whole("How many files it holds.")
    bytes = whole("Size of its files together.")
    created_at = text("When it was made, in ISO 8601.")
    changed_at = text("When it was changed last.")


class DatasetFileSchema(Always):
    """A file of a data set."""

    path = text("Where it lies in the data set.")
    bytes = whole("Its size.")
    sha256 = text("SHA-256 of its content.")
    facts = table("What a worker found in it, rows, columns and classes; null until it was looked at.", allow_none=True)


class DatasetsSchema(Always):
    """GET /datasets."""

    datasets = several(DatasetSchema, "Newest first.")
    next_cursor = text("Goes into `cursor` for the next page; null on the last.", allow_none=True)


class OneDatasetSchema(DatasetSchema):
    """GET /datasets/NAME."""

    files = several(DatasetFileSchema, "A page of its files, by path.")
    next_cursor = text("Goes into `cursor` for the next page; null on the last.", allow_none=True)


class AddedFileSchema(Always):
    """A file that was just taken."""

    path = text("Where it lies in the data set.")
    bytes = whole("Its size.")
    sha256 = text("SHA-256 of its content.")


class AddedSchema(Always):
    """POST /datasets/NAME/files."""

    name = text("The data set.")
    revision = whole("That of the data set with these files.")
    files = several(AddedFileSchema, "What was taken.")


class DeletedSchema(Schema):
    """What is not there any more."""

    name = fields.String(metadata={"description": "The data set."})
    upload_id = fields.Integer(metadata={"description": "The upload."})
    path = fields.String(metadata={"description": "The file."})
    revision = fields.Integer(metadata={"description": "That of the data set without the file."})
    deleted = flag("Always true.")


class WorkSchema(Schema):
    """A task that works on a data set; what it found, once it is over."""

    name = text("The data set.")
    task_id = whole("Number of the task.")
    state = text("State of the task.", list(State))


class PartSchema(Always):
    """A part of an upload that is there."""

    part = whole("Its number, from 1.")
    bytes = whole("Its size.")
    sha256 = text("SHA-256 of its content.")


class UploadSchema(Always):
    """An upload in parts."""

    upload_id = whole("Its number.")
    path = text("Where the file will lie.")
    bytes = whole("Size of the whole file.")
    sha256 = text("What the SHA-256 of the whole must be; null when that was not said.", allow_none=True)
    unpack = flag("Whether the file is an archive whose members are wanted.")
    part_bytes = whole("Size of each part but the last.")
    part_count = whole("How many parts there are.")
    parts = several(PartSchema, "Those that are there.")
    missing = several(fields.Integer(), "Numbers of those that are not.")
    links = several(
        fields.String(), "Addresses of the S3 store for the parts; null when not asked for.", allow_none=True
    )
    created_at = text("When it began.")
