"""Services as DeepDetect's clients see them, and the long ways of making and deleting one."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence

from api import jobs, origins, repositories
from api.accepting import send
from api.answers import Json
from api.parts import Parts
from api.refusals import Busy, GoesOn
from api.schemas.reading import fold
from api.waiting import wait_for_end
from ml.json_text import finite
from ml.options import Warning
from storage.errors import LiveUnavailable, StorageError, VersionNotFound
from storage.records import Account, Kind, ModelSize, Repository, Service, State, Task, Version
from workers.queue import CONTROL_QUEUE

IMPORT_WAIT_S = 20.0
INSTALL_WAIT_S = 60.0
"""How long a creation waits for a model that has to be copied or fetched first."""

END_WAIT_S = 30.0
"""How long a DELETE waits for what it ends: a training has ten seconds to stop by itself and five after TERM."""

CLEARING = frozenset({"lib", "index", "full", "dir"})
"""Values of `clear` that remove something; any other is `mem`, which does not."""

_log = logging.getLogger(__name__)


# Describing


def describe(parts: Parts, services: Sequence[Service], *, with_jobs: bool) -> list[Json]:
    """The objects of GET /services and GET /info."""
    ids = [service.id for service in services]
    open_jobs: dict[int, list[Task]] = {}
    for task in parts.records.tasks.open_jobs(ids) if ids else []:
        open_jobs.setdefault(task.service_id or 0, []).append(task)
    models = parts.records.versions.sizes({service.repository_id for service in services})
    statistics = _Statistics(parts)
    progress = _progress(parts, [task for tasks in open_jobs.values() for task in tasks]) if with_jobs else {}
    made = []
    for service in services:
        running = open_jobs.get(service.id, [])
        model = models.get(service.repository_id)
        one: Json = {
            "name": service.name,
            "description": service.description,
            "mllib": service.mllib,
            "mltype": service.mltype,
            "type": service.type,
            "predict": model is not None,
            "training": bool(running),
            "repository": parts.repository(service).name,
            "parameters": service.parameters,
            "model_stats": _model_stats(model),
            "service_stats": statistics.of(service),
        }
        one["stats"] = one["model_stats"]
        if with_jobs:
            one["jobs"] = [_job(task, progress.get(task.id, {})) for task in running]
        if model is not None:
            one |= {"width": -1, "height": -1}
        made.append(one)
    return made


def _progress(parts: Parts, tasks: Sequence[Task]) -> dict[int, Json]:
    try:
        found = parts.live.progress.get_many([task.id for task in tasks if task.state is State.RUNNING])
    except LiveUnavailable:
        return {}
    current = {task.id: task.attempt for task in tasks}
    return {task_id: one for task_id, one in found.items() if one.get("attempt") == current[task_id]}


def _job(task: Task, progress: Json) -> Json:
    return {
        "job": task.job,
        "status": "running",
        "time": jobs.elapsed_s(task),
        "task_id": task.id,
        "state": str(task.state),
        "measure": progress.get("measure") or {},
    }


def _model_stats(model: ModelSize | None) -> Json:
    """DeepDetect counts the weights of a network here, of which a tree model has none; the size is a member of ours."""
    stats: Json = {"params": 0, "frozen_params": 0, "data_mem_train": 0, "data_mem_test": 0}
    if model is not None:
        stats |= {"params": model.params, "frozen_params": model.frozen_params, "size_bytes": model.size_bytes}
    return stats


class _Statistics:
    """Counts of predictions; after the first silence of Redis it is not asked again within one answer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._is_silent = False

    def of(self, service: Service) -> Json:
        counts: dict[str, float] = {}
        if not self._is_silent:
            try:
                self._parts.tally.flush()
                counts = self._parts.live.statistics.of(service.id)
            except LiveUnavailable:
                self._is_silent = True
        answered = counts.get("predict_success", 0)
        predict_ms = counts.get("total_predict_duration_ms", 0.0)
        transform_ms = counts.get("total_transform_duration_ms", 0.0)
        predict_average = predict_ms / answered if answered else -1.0
        transform_average = transform_ms / answered if answered else -1.0
        return {
            "inference_count": counts.get("inference_count", 0),
            "predict_count": counts.get("predict_count", 0),
            "predict_success": answered,
            "predict_failure": counts.get("predict_failure", 0),
            "avg_batch_size": counts.get("inference_count", 0) / answered if answered else -1.0,
            "avg_predict_duration_ms": predict_average,
            "avg_transform_duration_ms": transform_average,
            "total_predict_duration_ms": predict_ms,
            "total_transform_duration_ms": transform_ms,
            "avg_predict_duration": predict_average / 1000 if answered else -1.0,
            "avg_transform_duration": transform_average / 1000 if answered else -1.0,
        }


def newest_version(parts: Parts, service: Service) -> Version | None:
    """The version that predictions of a service use now."""
    try:
        return parts.records.versions.newest(service.repository_id)
    except VersionNotFound:
        return None


# Creating


def create(
    parts: Parts, account: Account, name: str, wanted: origins.Wanted
) -> tuple[Service | None, list[Warning], Task | None]:
    """Make a service on its repository; a model that the request names, or that lies there already, is taken over.

    Returns the service, further warnings, and the task that takes the model over if there is one. When the request
    names the model and that task failed, there is no service.
    Raises BadParameter, RepositoryUnusable, ServiceExists, StorageFull, RecordsUnavailable.
    """
    model = wanted.request.model
    location = repositories.check_usable(parts, account, model.repository, create=model.create_repository)
    repository = parts.records.repositories.ensure(account.id, location)
    origins.check_library(parts, repository, wanted.request.library)
    is_named = bool(model.init) or wanted.source is not None
    weights = ""
    if model.init:
        origins.check_archive(parts, account, model.init)
    elif model.weights and not is_named:
        weights = origins.check_weights(parts, account, repository, model.weights)
    service = parts.records.services.add(
        account.id,
        name,
        mllib=wanted.request.library,
        mltype=wanted.mltype,
        type=wanted.request.type,
        description=wanted.request.description,
        repository_id=repository.id,
        parameters=wanted.parameters,
        model={"weights": weights} if weights else {},
    )
    note_change(parts)
    try:
        folder = repositories.folder_of(parts, repository)
        if folder is not None:
            repositories.keep_request(folder, "config.json", wanted.config)
        warnings = []
        if is_named:
            task = _take_over(parts, account, service, repository, wanted, {}, INSTALL_WAIT_S)
        elif weights and newest_version(parts, service) is None:
            task = _take_over(parts, account, service, repository, wanted, {"weights": weights}, IMPORT_WAIT_S)
        else:
            if weights:
                text = f"model.weights was ignored: {repository.name} holds a version already, which goes first"
                warnings.append(Warning("model.weights", text))
            if not origins.holds_something_new(parts, repository, wanted.request.library):
                return service, warnings, None
            task = _take_over(parts, account, service, repository, wanted, {}, IMPORT_WAIT_S)
    except StorageError:
        _forget(parts, service)  # a failed creation leaves no service behind
        raise
    if is_named and task.state.is_final and task.state is not State.FINISHED:
        _forget(parts, service)
        return None, warnings, task
    return service, [*warnings, *_told_of(parts, repository, task)], task


def differing(parts: Parts, account: Account, name: str, body: Json) -> list[str]:
    """In what an existing service differs from the one that a creation request describes; empty when in nothing.

    Raises ServiceNotFound; MlError and StorageError for a request that is wrong.
    """
    service = parts.records.services.find(account.id, fold(name))
    wanted = origins.read(parts, account, body).value
    request = wanted.request
    location = repositories.location_of(parts, account, request.model.repository)
    found = {
        "mllib": service.mllib == request.library,
        "type": service.type == request.type,
        "description": service.description == request.description,
        "model.repository": parts.repository(service).location == location,
        # Of a model from elsewhere the parameters came with it, and may have changed there since.
        "parameters": bool(request.model.init) or wanted.source is not None or service.parameters == wanted.parameters,
    }
    return [name for name, is_same in found.items() if not is_same]


def _take_over(
    parts: Parts,
    account: Account,
    service: Service,
    repository: Repository,
    wanted: origins.Wanted,
    more: Json,
    wait_s: float,
) -> Task:
    """The task that makes a version of the model, as it is after a while."""
    spec: Json = {
        "service": service.name,
        "mllib": service.mllib,
        "connector": wanted.request.connector,
        "mltype": service.mltype,
        "type": service.type,
        "repository_id": repository.id,
        "parameters": service.parameters,
        **more,
    }
    if wanted.request.model.init:
        spec |= {"init": wanted.request.model.init, "request": finite(wanted.config)}
    elif wanted.source is not None:
        spec |= {"source": wanted.source, "config": finite(wanted.config)}
    task, _ = parts.records.tasks.add(
        account.id, Kind.IMPORT, CONTROL_QUEUE, spec, service_id=service.id, repository_id=repository.id
    )
    if send(parts, task):
        with contextlib.suppress(Busy), parts.slots.held(account.id):
            task = wait_for_end(parts.records, task.id, wait_s, parts.ending)
    return task


def _told_of(parts: Parts, repository: Repository, task: Task) -> list[Warning]:
    """What the client is told of the model that was, or was not, taken over."""
    if task.state is State.FINISHED:
        report = parts.records.tasks.report(task.id) or {}
        return [Warning(each["parameter"], each["message"]) for each in report.get("warnings") or ()]
    if task.state.is_final:
        reason = (task.failure or {}).get("message", "it was cancelled")
        text = f"the model in {repository.name} was not taken over: {reason}"
    else:
        text = f"the model in {repository.name} is still being taken over; predict works when task {task.id} ends"
    return [Warning("model.repository", text)]


# Deleting


def delete(parts: Parts, account: Account, service: Service, clear: str) -> Task | None:
    """End the jobs of a service, clear its repository as `clear` says, and forget it.

    Returns the clearing task if there was one. Raises GoesOn when something takes longer than END_WAIT_S; the service
    stays then. A clearing that failed is for the caller to tell.
    """
    deadline = time.monotonic() + END_WAIT_S
    _end_jobs(parts, service, deadline)
    task = None
    if clear in CLEARING:
        task = _clear(parts, account, service, clear, deadline)
        if task.state is not State.FINISHED:
            return task
    _forget(parts, service)
    tasks = parts.records.tasks
    # Trainings that were accepted in between; and predictions, whose results nobody could name the service of.
    for late in [*tasks.open_jobs([service.id]), *tasks.open_predictions(service.id)]:
        cancel(parts, late)
    return task


def _forget(parts: Parts, service: Service) -> None:
    parts.records.services.delete(service.id)
    note_change(parts)


def note_change(parts: Parts) -> None:
    """Have every API process read services again. When they cannot be told, they do within ten seconds."""
    try:
        parts.live.changes.note()
    except LiveUnavailable as error:
        _log.info("a change was not told: %s", error)


def _end_jobs(parts: Parts, service: Service, deadline: float) -> None:
    tasks = parts.records.tasks.open_jobs([service.id])
    for task in tasks:
        cancel(parts, task)
    for task in tasks:
        if not wait_for_end(parts.records, task.id, deadline - time.monotonic(), parts.ending).state.is_final:
            raise GoesOn(f"job {task.job} of service {service.name!r} is still stopping; delete the service again soon")


def cancel(parts: Parts, task: Task) -> Task:
    """Ask for the end of a task, and hurry its worker; a task that waited for its place may start then."""
    after = parts.records.tasks.request_cancel(task.id)
    if after.state.is_final:
        if task.state is State.QUEUED and task.repository_id is not None:
            following = parts.records.tasks.next_of_repository(task.repository_id)
            if following is not None and following.sent_at is None:
                parts.queue.send_task(following)
        return after
    try:
        parts.live.progress.hint_cancel(task.id)
    except LiveUnavailable:
        _log.info("task %s is cancelled without a hint: its worker finds out at the next renewal", task.id)
    return after


def _clear(parts: Parts, account: Account, service: Service, mode: str, deadline: float) -> Task:
    repository = parts.repository(service)
    sections = (service.parameters.get("input"), service.parameters.get("mllib"))
    spec = {
        "service": service.name,
        "mode": mode,
        "mllib": service.mllib,
        "repository_id": repository.id,
        "db": any(isinstance(section, dict) and bool(section.get("db")) for section in sections),
    }
    task, _ = parts.records.tasks.add(
        account.id, Kind.CLEAR, CONTROL_QUEUE, spec, service_id=service.id, repository_id=repository.id
    )
    if parts.records.tasks.is_startable(task) and not parts.queue.send_task(task):
        parts.records.tasks.request_cancel(task.id)
        raise LiveUnavailable("Redis does not take messages now, so the repository cannot be cleared; try again later")
    task = wait_for_end(parts.records, task.id, deadline - time.monotonic(), parts.ending)
    if not task.state.is_final:
        # Not at some later moment, when a new service may have trained there.
        cancel(parts, task)
        raise GoesOn(
            f"the repository of service {service.name!r} could not be cleared in time: another task holds it, or no "
            "control worker runs; nothing was deleted, try again later"
        )
    return task


def failed(task: Task) -> tuple[str, str, str | None]:
    """Kind, text and section of what kept a task from its end."""
    failure = task.failure or {"kind": "goes_on", "message": f"task {task.id} was cancelled meanwhile; try again"}
    return failure["kind"], failure["message"], failure.get("section")
