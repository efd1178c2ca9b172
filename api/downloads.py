"""Files as they are downloaded: one, or a part of one, or many as an archive, from the object store to the client.

Nothing is held but what is on its way. Files of versions, results and data sets never change, so that a download which
outlives its files is cut off, and never mixed.
"""

from __future__ import annotations

import hashlib
import io
import json
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import cast
from urllib.parse import quote

from flask import Response, request

from api import archives, results
from api.answers import Json, dump, failure
from api.archives import Member
from api.parts import Parts, account
from api.query import flag
from api.refusals import BadQuery, FileGone, PreconditionFailed, RangeUnsatisfiable
from ml.repository_files import in_order
from storage.errors import ArtifactNotFound, ChecksumMismatch, DatasetFileNotFound, StoreUnavailable, VersionNotFound
from storage.objects import Content
from storage.records import Dataset, Service, State, Task, Version

FORMATS = {"tar.gz": "application/gzip", "zip": "application/zip", "tar": "application/x-tar"}
"""Types of the archives that can be asked for."""

BINARY = "application/octet-stream"
TYPES = {
    ".csv": "text/csv",
    ".json": "application/json",
    ".jsonl": "application/x-ndjson",
    ".parquet": "application/vnd.apache.parquet",
    ".txt": "text/plain",
}
"""Types of files by their endings; all others are BINARY, also those that a browser would show as a page."""

_CHUNK_BYTES = 256 * 1024
_LINK_S = 3600
_MTIME_STEP_S = 2  # zip archives know no smaller one


@dataclass(frozen=True)
class Entry:
    """A file to download. key : where its content is stored; without one it is `content`."""

    path: str
    size_bytes: int
    sha256: str
    key: str = ""
    content: bytes = b""

    @property
    def media_type(self) -> str:
        """What the file is, by its name."""
        return TYPES.get(PurePosixPath(self.path).suffix.lower(), BINARY)

    def as_json(self) -> Json:
        """The file in lists."""
        told = {"path": self.path, "bytes": self.size_bytes, "sha256": self.sha256}
        return {**told, "media_type": self.media_type}


@dataclass(frozen=True)
class Files:
    """Files that belong together. name : what an archive of them is called. changed_at : of the newest, in seconds."""

    name: str
    changed_at: float
    entries: Sequence[Entry]

    def at(self, path: str) -> Entry:
        """The file of that path. Raises FileGone."""
        for each in self.entries:
            if each.path == path:
                return each
        raise FileGone(f"{self.name} has no file {path[:200]!r}")


# What there is


def of_service(parts: Parts, service: Service, given: str | None) -> tuple[Version, Files]:
    """A version of a service's repository and its files: the one that predictions use, or the one of that number.

    Raises BadQuery, and FileGone when there is none.
    """
    try:
        if given is None:
            version = parts.records.versions.newest(service.repository_id)
        else:
            version = parts.records.versions.numbered(service.repository_id, _number(given))
    except VersionNotFound as error:
        raise FileGone(f"service {service.name!r} has no such files: {error}") from None
    return version, Files(f"{service.name}-{version.number}", version.created_at, _entries_of(version))


def _number(given: str) -> int:
    if not (given.isascii() and given.isdigit() and len(given) <= 9 and int(given) > 0):
        raise BadQuery(f"version is {given[:40]!r}; it must be the number of a version")
    return int(given)


def _entries_of(version: Version, folder: str = "") -> list[Entry]:
    """The files of a version, in the order in which a reader of their folder finds the right one."""
    found = {each.name: each for each in version.artifacts}
    ordered = (found[name] for name in in_order(found, version.description.get("file")))
    return [Entry(f"{folder}{each.name}", each.size_bytes, each.sha256, each.key) for each in ordered]


def of_task(parts: Parts, task: Task) -> Files:
    """The report of an ended task, the result of a prediction, and the model of a training that published one."""
    report = parts.records.tasks.report(task.id) if task.state.is_final else None
    entries = []
    if report is not None:
        content = dump(results.reported(report))
        entries.append(_written("report.json", content))
    if report is not None and results.has_result(task, report):
        result: Json = report["result"]
        path = f"result.{result['form']}"
        if "content" in result:
            entries.append(_written(path, result["content"].encode()))
        else:
            entries.append(Entry(path, result["size_bytes"], result["sha256"], result["key"]))
    version = parts.records.versions.of_task(task.id) if task.state is State.FINISHED else None
    if version is not None:
        entries += _entries_of(version, "model/")
    return Files(f"task-{task.id}", task.finished_at or task.created_at, entries)


def _written(path: str, content: bytes) -> Entry:
    return Entry(path, len(content), hashlib.sha256(content).hexdigest(), content=content)


def of_dataset(parts: Parts, dataset: Dataset, path: str = "") -> Files:
    """The files of a data set as it is now: all of them, or the one at `path`. Raises DatasetFileNotFound."""
    found = parts.records.datasets.files_at(dataset.id, dataset.revision, path)
    if path:
        found = [each for each in found if each.path == path]
        if not found:
            raise DatasetFileNotFound(f"data set {dataset.name!r} holds no file {path[:200]!r}")
    entries = [Entry(each.path, each.size_bytes, each.sha256, each.key) for each in found]
    return Files(dataset.name, dataset.changed_at, entries)


# What is sent


def one(parts: Parts, entry: Entry) -> Response:
    """The answer that sends a file, or the part of it that the request wants; or one that leads to the object store.

    Raises BadQuery, FileGone, PreconditionFailed, Busy, StoreUnavailable.
    """
    response = _answer(PurePosixPath(entry.path).name, entry.media_type, entry.sha256)
    response.accept_ranges = "bytes"
    if _is_known(response, entry.sha256):
        return response
    if flag(request.args, "link", default=False) and entry.key:
        disposition = response.headers["Content-Disposition"]
        link = parts.objects.download_link(entry.key, _LINK_S, disposition, entry.media_type)
        if link is not None:
            return Response(status=307, headers={"Location": link, "Cache-Control": "no-store"}, mimetype=BINARY)
    try:
        start, stop = _range(response, entry)
    except RangeUnsatisfiable as error:
        response = failure(error.kind, str(error))
        response.headers["Content-Range"] = f"bytes */{entry.size_bytes}"
        return response
    with ExitStack() as stack:
        stack.enter_context(parts.transfers.held(account().id))
        with parts.waits.held(account().id):  # the store may take its time
            content = stack.enter_context(closing(_opened(parts, entry, start)))
        response.response = _pieces(entry, content, start, stop)
        response.call_on_close(stack.pop_all().close)
    response.content_length = stop - start
    return response


def archive(parts: Parts, files: Files) -> Response:
    """The answer that sends files as an archive of the format that the request wants.

    Raises BadQuery, FileGone, PreconditionFailed, Busy, StoreUnavailable.
    """
    form = request.args.get("format", "tar.gz")
    if form not in FORMATS:
        raise BadQuery(f"format is {form[:40]!r}; use one of {', '.join(FORMATS)}")
    last = int(files.changed_at)
    steps = range(len(files.entries) - 1, -1, -1)
    # Readers of model folders take the newest file of a kind, so the last one is the newest.
    members = {
        Member(each.path, each.size_bytes, last - step * _MTIME_STEP_S): each
        for step, each in zip(steps, files.entries, strict=True)
    }
    name = f"{files.name}.{form}"
    told = json.dumps([[form, last], *([each.path, each.sha256] for each in files.entries)])
    response = _answer(name, FORMATS[form], hashlib.sha256(told.encode()).hexdigest())
    if _is_known(response, str(response.get_etag()[0])):
        return response
    with parts.waits.held(account().id):
        _check_there(parts, files)

    def contents(member: Member) -> Iterator[bytes]:
        entry = members[member]
        with closing(_opened(parts, entry, 0)) as content:
            yield from _pieces(entry, content, 0, entry.size_bytes)

    with ExitStack() as stack:
        stack.enter_context(parts.transfers.held(account().id))
        response.response = _PACKERS[form](list(members), contents)
        response.call_on_close(stack.pop_all().close)
    if form == "tar":
        response.content_length = archives.tar_size(list(members))
    return response


_PACKERS = {"tar.gz": archives.tar_gz, "zip": archives.zip, "tar": archives.tar}


def _answer(name: str, media_type: str, tag: str) -> Response:
    response = Response(mimetype=media_type)
    response.set_etag(tag)
    response.headers["Cache-Control"] = "private, no-cache"  # what was deleted must not come out of a cache
    response.headers.set("Content-Disposition", "attachment", **_named(name))
    return response


def _named(name: str) -> dict[str, str]:
    """The name of a file as RFC 6266 wants it told: outside of ASCII it comes twice."""
    if name.isascii():
        return {"filename": name}
    simple = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    return {"filename": simple, "filename*": f"UTF-8''{quote(name, safe='')}"}


def _is_known(response: Response, tag: str) -> bool:
    """Whether the client has it already; `response` says so then. Raises PreconditionFailed."""
    if request.if_match and not request.if_match.contains(tag):
        raise PreconditionFailed(f"If-Match names another state; that of now is {tag}")
    if not request.if_none_match.contains_weak(tag):
        return False
    response.status_code = 304
    return True


def _range(response: Response, entry: Entry) -> tuple[int, int]:
    """The first byte to send and the one behind the last; `response` tells of them. Raises RangeUnsatisfiable."""
    wanted, size = request.range, entry.size_bytes
    is_late = request.if_range.etag != entry.sha256 if "If-Range" in request.headers else False
    # Several parts would be a form of its own; a server may send the whole instead.
    if wanted is None or wanted.units != "bytes" or len(wanted.ranges) != 1 or is_late:
        return 0, size
    found = wanted.range_for_length(size)
    if found is None:
        raise RangeUnsatisfiable(size)
    response.status_code = 206
    response.content_range = wanted.make_content_range(size)
    return found


def _check_there(parts: Parts, files: Files) -> None:
    """Raises FileGone when files were cleaned already: versions lose all of theirs together."""
    first = next((each for each in files.entries if each.key), None)
    if first is not None and not parts.objects.exists(first.key):
        raise _gone(first)


def _opened(parts: Parts, entry: Entry, start: int) -> Content:
    if not entry.key:
        return cast(Content, io.BytesIO(entry.content[start:]))
    try:
        return parts.objects.open(entry.key, start)
    except ArtifactNotFound:
        raise _gone(entry) from None


def _gone(entry: Entry) -> FileGone:
    return FileGone(f"{entry.path!r} was deleted")


def _pieces(entry: Entry, content: Content, start: int, stop: int) -> Iterator[bytes]:
    """The bytes from `start` up to `stop`. The last ones of a whole file are held back until its digest is right."""
    digest, at = hashlib.sha256(), start
    while at < stop:
        piece = content.read(min(_CHUNK_BYTES, stop - at))
        if not piece:
            raise StoreUnavailable(f"{entry.path!r} ended after {at} of {entry.size_bytes} bytes")
        at += len(piece)
        digest.update(piece)
        if at == entry.size_bytes and start == 0 and digest.hexdigest() != entry.sha256:
            raise ChecksumMismatch(f"{entry.path!r} is not what was stored")
        yield piece
