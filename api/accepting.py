"""From a training request to a task: what can be told at once is told, all else is the worker's."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from api import auditing, data, datasets, origins, prechecks, repositories
from api.answers import Json
from api.devices import choose_training
from api.parts import Parts, trace_carried
from api.refusals import BadHeader
from api.schemas.train import TrainRequest
from ml.errors import BadParameter, MlError
from ml.json_text import finite
from ml.options import Warning, load_training, merge
from ml.options.loading import with_ignored
from storage.errors import OutsideDataRoots, QueueQuota, RepositoryUnusable, StorageError, StoredQuota
from storage.records import Account, Kind, Service, Task
from workers.queue import train_queue

RECORD_BYTES = 64 * 1024
"""Most bytes of data that are kept in a record; more lie in the object store."""

_PIECE = 1000
_log = logging.getLogger(__name__)

Faults = (MlError, OutsideDataRoots, RepositoryUnusable)
"""What is the client's fault, and becomes the error of an asynchronous job rather than of the call."""


@dataclass(frozen=True)
class Repeatable:
    """An Idempotency-Key and the digest of the request that it came with."""

    key: str
    digest: str


def repeatable(header: str | None, method: str, path: str, body: Json) -> Repeatable | None:
    """What makes a request repeatable, if it wants to be. Raises BadHeader."""
    if header is None:
        return None
    if not 0 < len(header) <= 255 or not header.isascii() or not header.isprintable():
        raise BadHeader("Idempotency-Key must be 1 to 255 printable ASCII characters")
    digest = hashlib.sha256()
    for piece in _canonical(method, path, body):
        digest.update(piece.encode())
    return Repeatable(header, digest.hexdigest())


def _canonical(method: str, path: str, body: Json) -> Iterator[str]:
    """A request as JSON with sorted names and no blanks; its data in pieces, between which other threads get a turn."""
    yield f"[{_json(method)},{_json(path)},{{"
    for place, (name, value) in enumerate(sorted(body.items())):
        yield f"{',' if place else ''}{_json(name)}:"
        if name != "data" or not isinstance(value, list):
            yield _json(value)
            continue
        yield "["
        for start in range(0, len(value), _PIECE):
            yield ("," if start else "") + _json(value[start : start + _PIECE])[1:-1]
        yield "]"
    yield "}]"


_json = partial(json.dumps, sort_keys=True, separators=(",", ":"))


def accept(
    parts: Parts,
    account: Account,
    service: Service,
    body: Json,
    request: TrainRequest,
    warnings: Iterable[Warning],
    repeat: Repeatable | None,
) -> Task:
    """A durable task for a training request, sent to the workers if Redis takes it.

    An asynchronous request with a fault of the client's becomes a task that has failed already; a blocking one raises.
    Raises IdempotencyConflict, ServiceNotFound, QueueQuota, StoredQuota, RecordsUnavailable, StoreUnavailable,
    StorageFull.
    """
    spec = _outline(service, body, request)
    queue, told, failure = train_queue("cpu"), list(warnings), None
    try:
        queue, remarks = _complete(parts, account, service, request, spec)
        told += remarks
    except Faults as error:
        if isinstance(error, BadParameter):
            with_ignored(error, told)
        if not request.is_async:
            raise
        failure = failure_record(error)
        spec["data"] = []
    job = {"repository_id": service.repository_id, "is_job": True, "failure": failure}
    task, is_new = record(parts, account, service, Kind.TRAIN, queue, spec, told, repeat, **job)
    if is_new and failure is None:
        send(parts, task)
        _keep(parts, service, spec["request"])
    return task


def record(
    parts: Parts,
    account: Account,
    service: Service,
    kind: Kind,
    queue: str,
    spec: Json,
    warnings: Iterable[Warning],
    repeat: Repeatable | None,
    **more: Any,
) -> tuple[Task, bool]:
    """A durable task of a service, and True; or that of the earlier request that this one repeats, and False.

    more : as `storage.records.tasks.Tasks.add` takes it, which raises. Inputs that no task needs are deleted.
    """
    try:
        task, is_new = parts.records.tasks.add(
            account.id,
            kind,
            queue,
            spec,
            service_id=service.id,
            warnings=[each.as_json() for each in warnings],
            idempotency_key=None if repeat is None else repeat.key,
            request_digest=None if repeat is None else repeat.digest,
            **more,
        )
    except (QueueQuota, StoredQuota):
        drop_inputs(parts, spec)
        raise
    if is_new:
        auditing.note("task.start", str(task.kind), task.id)
    else:
        drop_inputs(parts, spec)
    return task, is_new


def send(parts: Parts, task: Task) -> bool:
    """Tell the workers of a task that may start; False when they did not hear of it. The sweep repeats it then."""
    return not task.state.is_final and parts.records.tasks.is_startable(task) and parts.queue.send_task(task)


def failure_record(error: Exception) -> Json:
    """What a task keeps of an error that was found before any work began."""
    return {
        "kind": getattr(error, "kind", "internal"),
        "class": type(error).__name__,
        "message": str(error),
        "section": getattr(error, "section", None),
        "phase": "accepting",
        "exit_code": None,
        "signal": None,
        "peak_bytes": None,
        "log": [],
        "advice": "correct the request and send it again",
    }


def _outline(service: Service, body: Json, request: TrainRequest) -> Json:
    """The specification as far as it can be written down for any request, right or wrong."""
    given: Any = request.parameters
    parameters = merge(service.parameters, given if isinstance(given, dict) else None)
    kept = {name: value for name, value in body.items() if name != "data"}
    spec: Json = finite(
        {
            "service": service.name,
            "mllib": service.mllib,
            "connector": connector_of(service, parameters),
            "device": "cpu",
            "parameters": parameters,
            "request": kept,
        }
    )
    if carried := trace_carried():
        spec["trace"] = carried
    return spec


def connector_of(service: Service, parameters: Any) -> str:
    """The input connector of merged parameters; that of the service where they name none or something else than one."""
    for each in (parameters, service.parameters):
        section = each.get("input") if isinstance(each, dict) else None
        connector = section.get("connector") if isinstance(section, dict) else None
        if isinstance(connector, str):
            return connector
    return ""


def _complete(
    parts: Parts, account: Account, service: Service, request: TrainRequest, spec: Json
) -> tuple[str, list[Warning]]:
    """Check the request and finish its specification; returns the queue, and warnings."""
    given: Any = request.parameters
    merged = merge(service.parameters, given) if isinstance(given, dict | None) else given
    loaded = load_training(service.mllib, spec["connector"], merged)
    entries = data.entries_of(request.data)
    data.check_paths(parts, entries)
    pins = datasets.pinned(parts, account, entries, is_training=True)
    if pins:
        spec["datasets"] = pins
    prechecks.check(parts, loaded.value.input, loaded.value.mllib.target, entries, pins)
    folder = repositories.folder_of(parts, parts.repository(service))
    if folder is not None:
        repositories.check_folder(folder)
    if service.model.get("weights"):
        spec["weights"] = service.model["weights"]
    if loaded.value.output.target_repository:
        spec |= _target(parts, account, service, loaded.value.output.target_repository)
    device, queue, remarks = choose_training(parts, loaded.value.mllib)
    spec["device"] = device
    if data.is_bulky(entries, RECORD_BYTES):
        spec["data_key"] = data.store(parts, entries)
    else:
        spec["data"] = entries
        spec["request"]["data"] = entries
    return queue, [*loaded.warnings, *remarks]


def _target(parts: Parts, account: Account, service: Service, name: str) -> Json:
    """Where a copy of the best model goes when the training has ended well, and the config.json of that place.

    Raises BadParameter, RepositoryUnusable, StorageFull.
    """
    location = repositories.check_usable(parts, account, name, create=True)
    target = parts.records.repositories.ensure(account.id, location)
    if target.id == service.repository_id:
        parameter = "parameters.output.target_repository"
        text = f"{parameter} is the repository of the service itself; name another one"
        raise BadParameter(name=parameter, section="output", message=text)
    origins.check_library(parts, target, service.mllib)
    config = {
        "mllib": service.mllib,
        "type": service.type,
        "description": service.description,
        "model": {"repository": target.name},
        "parameters": origins.published_parameters(service.parameters),
    }
    return {"target_repository_id": target.id, "target_config": config}


def drop_inputs(parts: Parts, spec: Json) -> None:
    """Delete the stored inputs of a request that did not become a task of its own."""
    if "data_key" not in spec:
        return
    try:
        parts.objects.delete([spec["data_key"]])
    except StorageError as error:
        _log.info("inputs of a repeated request were left to the cleaner: %s", error)


def _keep(parts: Parts, service: Service, request: Json) -> None:
    """Keep the request in the repository. The task is accepted by now, so a failure is only logged."""
    try:
        folder = repositories.folder_of(parts, parts.repository(service))
        if folder is not None:
            repositories.keep_request(folder, "model.json", request)
    except StorageError as error:
        _log.warning("model.json of service %s was not written: %s", service.name, error)
