"""Services as DeepDetect's clients see them, and the long ways of making and deleting one."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from api import jobs, repositories
from api.accepting import send
from api.answers import Json, finite
from api.parts import Parts
from api.refusals import Busy, GoesOn
from api.waiting import wait_for_end
from ml.options import Loaded, ServiceOptions, Warning
from storage.errors import LiveUnavailable, StorageError, VersionNotFound
from storage.records import Account, Kind, Repository, Service, State, Task, Version
from workers.queue import CONTROL_QUEUE

IMPORT_WAIT_S = 20.0
END_WAIT_S = 30.0
"""How long a DELETE waits for what it ends: a training has ten seconds to stop by itself and five after TERM."""

CLEARING = frozenset({"lib", "full", "dir"})
"""Values of `clear` that remove something; any other is `mem`, which does not, and `index`: no library here has one."""

_log = logging.getLogger(__name__)


# Describing


def describe(
    parts: Parts, services: Sequence[Service], *, with_jobs: bool, newest: dict[int, Version] | None = None
) -> list[Json]:
    """The objects of GET /services and GET /info.

    newest : versions by repository, where the caller read them already.
    """
    ids = [service.id for service in services]
    open_jobs: dict[int, list[Task]] = {}
    for task in parts.records.tasks.open_jobs(ids) if ids else []:
        open_jobs.setdefault(task.service_id or 0, []).append(task)
    trained = parts.records.versions.repositories_with({service.repository_id for service in services})
    statistics = _Statistics(parts)
    progress = _progress(parts, [task for tasks in open_jobs.values() for task in tasks]) if with_jobs else {}
    made = []
    for service in services:
        running = open_jobs.get(service.id, [])
        can_predict = service.repository_id in trained
        one: Json = {
            "name": service.name,
            "description": service.description,
            "mllib": service.mllib,
            "mltype": service.mltype,
            "type": service.type,
            "predict": can_predict,
            "training": bool(running),
            "repository": parts.repository(service).name,
            "parameters": service.parameters,
            "model_stats": _model_stats((newest or {}).get(service.repository_id)),
            "service_stats": statistics.of(service),
        }
        one["stats"] = one["model_stats"]
        if with_jobs:
            one["jobs"] = [_job(task, progress.get(task.id, {})) for task in running]
        if can_predict:
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


def _model_stats(version: Version | None) -> Json:
    """DeepDetect counts network weights here, of which a tree model has none; the size is a member of ours."""
    stats: Json = {"params": 0, "frozen_params": 0, "data_mem_train": 0, "data_mem_test": 0}
    if version is not None:
        stats |= {"params": int(version.description.get("params") or 0), "size_bytes": version.size_bytes}
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
    parts: Parts, account: Account, name: str, body: Json, loaded: Loaded[ServiceOptions]
) -> tuple[Service, list[Warning], Task | None]:
    """Make a service on its repository; a model that lies in the folder already is imported.

    Returns the service, further warnings, and the task of the import if there was one.
    Raises RepositoryUnusable, ServiceExists, StorageFull, RecordsUnavailable.
    """
    options = loaded.value
    location = repositories.check_usable(
        parts, account, options.model.repository, create=options.model.create_repository
    )
    repository = parts.records.repositories.ensure(account.id, location)
    folder = Path(location) if repository.is_folder else None
    service = parts.records.services.add(
        account.id,
        name,
        mllib=options.library,
        mltype=options.mltype,
        type=options.type,
        description=options.description,
        repository_id=repository.id,
        parameters=finite(options.parameters),
    )
    if folder is None:
        return service, [], None
    try:
        repositories.keep_request(folder, "config.json", body)
    except StorageError:
        parts.records.services.delete(service.id)  # a failed creation leaves no service behind
        raise
    if newest_version(parts, service) is not None:
        return service, [], None
    if not repositories.holds_model(folder, options):
        return service, [], None
    task, warnings = _import(parts, account, service, repository)
    return service, warnings, task


def _import(parts: Parts, account: Account, service: Service, repository: Repository) -> tuple[Task, list[Warning]]:
    spec = {
        "service": service.name,
        "mllib": service.mllib,
        "mltype": service.mltype,
        "type": service.type,
        "repository_id": repository.id,
        "parameters": service.parameters,
    }
    task, _ = parts.records.tasks.add(
        account.id, Kind.IMPORT, CONTROL_QUEUE, spec, service_id=service.id, repository_id=repository.id
    )
    if send(parts, task):
        with contextlib.suppress(Busy), parts.slots.held():
            task = wait_for_end(parts.records, task.id, IMPORT_WAIT_S)
    if task.state is State.FINISHED:
        return task, []
    if task.state.is_final:
        reason = (task.failure or {}).get("message", "it was cancelled")
        text = f"the model in {repository.name} was not taken over: {reason}"
    else:
        text = f"the model in {repository.name} is still being taken over; predict works when task {task.id} ends"
    return task, [Warning("model.repository", text)]


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
    parts.records.services.delete(service.id)
    for late in parts.records.tasks.open_jobs([service.id]):  # accepted in between
        cancel(parts, late)
    return task


def _end_jobs(parts: Parts, service: Service, deadline: float) -> None:
    tasks = parts.records.tasks.open_jobs([service.id])
    for task in tasks:
        cancel(parts, task)
    for task in tasks:
        if not wait_for_end(parts.records, task.id, deadline - time.monotonic()).state.is_final:
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
    spec = {"service": service.name, "mode": mode, "mllib": service.mllib, "repository_id": repository.id}
    task, _ = parts.records.tasks.add(
        account.id, Kind.CLEAR, CONTROL_QUEUE, spec, service_id=service.id, repository_id=repository.id
    )
    if parts.records.tasks.is_startable(task) and not parts.queue.send_task(task):
        parts.records.tasks.request_cancel(task.id)
        raise LiveUnavailable("Redis does not take messages now, so the repository cannot be cleared; try again later")
    task = wait_for_end(parts.records, task.id, deadline - time.monotonic())
    if not task.state.is_final:
        # Not at some later moment, when a new service may have trained there.
        cancel(parts, task)
        raise GoesOn(
            f"the repository of service {service.name!r} could not be cleared in time: another task holds it, or no "
            "control worker runs; nothing was deleted, try again later"
        )
    return task


def failed_clearing(task: Task) -> tuple[str, str, str | None]:
    """Kind, text and section of what kept a repository from being cleared."""
    failure = task.failure or {"kind": "internal", "message": "the clearing of the repository was cancelled"}
    return failure["kind"], failure["message"], failure.get("section")
