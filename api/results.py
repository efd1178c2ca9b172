"""The results of prediction tasks, as they are downloaded."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import orjson
from flask import Response

from api.answers import Json, dump, with_warnings, written
from api.parts import Parts, account
from api.refusals import NoResult, ResultPending
from storage.errors import ArtifactNotFound, StorageFull
from storage.records import Kind, State, Task

_CHUNK_BYTES = 256 * 1024
_TYPES = {"json": "application/json", "jsonl": "application/x-ndjson", "parquet": "application/vnd.apache.parquet"}


def has_result(task: Task, report: Json | None) -> bool:
    """Whether a task has a result that can be asked for."""
    is_done = task.kind is Kind.PREDICT and task.state is State.FINISHED
    return is_done and report is not None and not _is_deleted(report.get("result", {}))


def _is_deleted(result: Json) -> bool:
    return not result.keys() & {"content", "key"}


def delete(parts: Parts, task: Task) -> bool:
    """Delete the result of a task; False when it was deleted before.

    Raises ResultPending, NoResult, StoreUnavailable.
    """
    result = _found(parts, task)["result"]
    if _is_deleted(result):
        return False
    # First what is stored: while that cannot be deleted the result is there, and counts.
    if "key" in result:
        parts.objects.delete([result["key"]])
    return parts.records.tasks.forget_result(task.id)


def reported(report: Json) -> Json:
    """A report as clients see it: of a result what it is, not what is in it or where it lies."""
    if "result" not in report:
        return report
    result = {name: value for name, value in report["result"].items() if name in ("form", "size_bytes", "sha256")}
    return {**report, "result": result}


def answer(parts: Parts, task: Task) -> Response:
    """The result of a task: the answer of /predict when it is JSON, else the file.

    Raises ResultPending, NoResult, Busy, StoreUnavailable, StorageFull.
    """
    report = _found(parts, task)
    result: Json = report["result"]
    if _is_deleted(result):
        raise NoResult(f"the result of task {task.id} was deleted")
    form: str = result["form"]
    before, after = _around(parts, task, report) if form == "json" else (b"", b"")
    if "content" in result:
        response = written(before + result["content"].encode() + after)
        response.mimetype = _TYPES[form]
    else:
        file = _fetched(parts, task, result)
        response = Response(_pieces(before, file, after), mimetype=_TYPES[form])
        response.content_length = len(before) + result["size_bytes"] + len(after)
        response.call_on_close(file.close)
    if form != "json":
        response.headers["Content-Disposition"] = f'attachment; filename="task-{task.id}.{form}"'
    return response


def _found(parts: Parts, task: Task) -> Json:
    """The report of a prediction task that has, or had, a result. Raises ResultPending, NoResult."""
    if task.kind is not Kind.PREDICT:
        raise NoResult(f"task {task.id} is of kind {task.kind}; only predictions have a result")
    if not task.state.is_final:
        raise ResultPending(f"task {task.id} is {task.state}; its result is there when it has finished")
    report = parts.records.tasks.report(task.id)
    if task.state is not State.FINISHED or report is None:
        why = f": {task.failure['message']}" if task.failure else ""
        raise NoResult(f"task {task.id} {_ENDS[task.state]} and has no result{why}")
    return report


_ENDS = {State.FAILED: "failed", State.CANCELLED: "was cancelled", State.FINISHED: "has finished"}


def _around(parts: Parts, task: Task, report: Json) -> tuple[bytes, bytes]:
    """What stands before and after the result in the answer of /predict."""
    took_ms = round(((task.finished_at or task.created_at) - task.created_at) * 1000, 3)
    spec = parts.records.tasks.spec(task.id)
    head: Json = {"method": "/predict", "time": took_ms, "service": spec["service"], "task_id": task.id}
    if spec["tells_timings"]:
        queued_ms = ((task.started_at or task.created_at) - task.created_at) * 1000
        timings: dict[str, Any] = report["timings"]
        head["timings"] = {**timings, "queued": round(timings.get("queued", 0.0) + queued_ms, 3)}
    head = with_warnings(head, [*task.warnings, *report["warnings"]])
    start = dump({"status": {"code": 200, "msg": "OK"}, "head": head})
    return start[:-1] + b',"body":{' + orjson.dumps(report["result"]["name"]) + b":", b"}}"


def _fetched(parts: Parts, task: Task, result: Json) -> BinaryIO:
    """A stored result as a local file that is gone once it is closed, found to be what was stored."""
    try:
        own = Path(tempfile.mkdtemp(dir=parts.downloads.folder))
    except OSError as error:
        raise StorageFull(f"the result cannot be fetched: {(error.strerror or 'unknown error').lower()}") from None
    try:
        path = own / "result"
        with parts.slots.held(account().id):
            parts.objects.get_file(result["key"], path, result["sha256"])
        return path.open("rb")
    except ArtifactNotFound:
        raise NoResult(
            f"the result of task {task.id} was deleted: it was kept for {parts.settings.attempts_kept_s:g} seconds, "
            "as MODELYARD_ATTEMPTS_KEPT_S says"
        ) from None
    finally:
        shutil.rmtree(own, ignore_errors=True)


def _pieces(before: bytes, file: BinaryIO, after: bytes) -> Iterator[bytes]:
    with file:
        if before:
            yield before
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
        if after:
            yield after
