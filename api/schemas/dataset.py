"""Requests about data sets, and how data sets, files and uploads are told."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from api.answers import Json
from api.refusals import BadBody, BadHeader, BadQuery
from api.schemas.task import moment
from ml.errors import BadParameter
from ml.options.loading import Flag, Range, Text, Whole, load, option
from storage.records import Dataset, DatasetFile, Part, Upload

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
        raise BadBody(each.message.replace("body.", ""))
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
