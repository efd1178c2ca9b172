"""Lists of files that can be downloaded."""

from __future__ import annotations

from marshmallow import Schema

from api.schemas.deepdetect import StatusSchema
from api.schemas.described import Always, one, several, text, whole


class FileSchema(Always):
    """A file to download."""

    path = text("Its path, which goes behind `files/`.")
    bytes = whole("Its size.")
    sha256 = text("SHA-256 of its content, which is its ETag too.")
    media_type = text("The Content-Type that it is sent with.")


class VersionFilesSchema(Always):
    """The files of a version."""

    version = whole("Number of the version in its repository.")
    files = several(FileSchema, "Its files, by path.")


class ServiceFilesSchema(Schema):
    """GET /services/NAME/files."""

    status = one(StatusSchema, "How it ended.")
    body = one(VersionFilesSchema, "The files.")


class TaskFilesSchema(Always):
    """GET /tasks/NUMBER/files."""

    task_id = whole("Number of the task.")
    files = several(FileSchema, "Its files: report, result and model, as far as it has them.")
