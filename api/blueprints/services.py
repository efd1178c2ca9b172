"""/services/NAME: create, describe, delete."""

from __future__ import annotations

from typing import Any

from flask import Blueprint, Response, request

from api import auditing, origins, repositories, services
from api.answers import Json, envelope, failure, with_warnings
from api.body import read_object
from api.parts import account, parts
from api.query import flag
from api.refusals import BadBody, NothingToDelete
from api.roles import needs
from api.schemas.reading import fold
from api.schemas.task import read_services_query
from ml.errors import BadParameter, MlError
from ml.options import Loaded
from storage.errors import RepositoryUnusable, ServiceExists, ServiceNotFound
from storage.records import Role, State

blueprint = Blueprint("services", __name__)

_NAME_LIMIT = 255


@blueprint.route("/services/<name>", methods=["PUT", "POST"])
@needs(Role.TRAIN)
def create(name: str) -> Response:
    """Create a service. The name is looked at first, then the JSON, the repository, and the options."""
    name = fold(name)
    _check_free(name)
    body = read_object(parts().settings.request_limit_bytes)
    if len(name) > _NAME_LIMIT or not name.isprintable():
        raise BadBody(f"a service name has at most {_NAME_LIMIT} printable characters")
    loaded = _load(body)
    service, warnings, task = services.create(parts(), account(), name, loaded.value)
    if service is not None:
        auditing.note("service.create", "service", name)
    head = with_warnings({}, [each.as_json() for each in (*loaded.warnings, *warnings)])
    if task is not None:
        head["task_id"] = task.id
        if service is None:
            return failure(*services.failed(task), head={"method": "/services", **head})
    return envelope(201, {"method": "/services", **head} if head else None)


def _check_free(name: str) -> None:
    try:
        parts().records.services.find(account().id, name)
    except ServiceNotFound:
        return
    raise ServiceExists(name)


def _load(body: Json) -> Loaded[origins.Wanted]:
    """The options; a repository that cannot be used is told before an option that cannot."""
    try:
        return origins.read(parts(), account(), body)
    except MlError as error:
        if not (isinstance(error, BadParameter) and error.section in {"service", "model"}):
            _check_repository(body.get("model"))
        raise


def _check_repository(model: Any) -> None:
    """Refuse a repository that cannot be used, without making the folder: there will be no service."""
    if not isinstance(model, dict) or not isinstance(model.get("repository"), str):
        return
    try:
        repositories.check_usable(parts(), account(), model["repository"], create=False)
    except RepositoryUnusable:
        if not model.get("create_repository"):
            raise


@blueprint.get("/services")
@needs(Role.READ)
def several() -> Response:
    """A page of the services that match, newest first. DeepDetect has no such route; GET /info lists all."""
    arguments = {name: values[-1] for name, values in request.args.lists()}
    query = read_services_query(arguments)
    with_jobs = flag(arguments, "status", default=False)
    found = parts().records.services.page(
        account().id,
        limit=query.page.limit + 1,
        before_id=query.page.before_id,
        mllib=query.mllib,
        since=query.created.since,
        until=query.created.until,
    )
    shown, more = query.page.cut(found)
    return envelope(body={"services": services.describe(parts(), shown, with_jobs=with_jobs), "next_cursor": more})


@blueprint.get("/services/<name>")
@needs(Role.READ)
def get(name: str) -> Response:
    """Describe a service; `status=false` leaves the jobs out, `labels=true` adds the class names."""
    with_jobs = flag(request.args, "status", default=True)
    with_labels = flag(request.args, "labels", default=False)
    service = parts().records.services.find(account().id, fold(name))
    [body] = services.describe(parts(), [service], with_jobs=with_jobs)
    if with_labels:
        version = services.newest_version(parts(), service)
        body["labels"] = [] if version is None else list(version.description.get("labels") or [])
    return envelope(body=body)


@blueprint.delete("/services/<name>")
@needs(Role.TRAIN)
def delete(name: str) -> Response:
    """End the jobs of a service and forget it; `clear` removes files of its repository first."""
    try:
        service = parts().records.services.find(account().id, fold(name))
    except ServiceNotFound as error:
        raise NothingToDelete(str(error)) from None
    clear = request.args.get("clear", "mem").lower()
    repository = parts().repository(service)
    if clear in {"full", "dir"} and repository.is_folder and parts().data_roots.is_root(repository.location):
        raise RepositoryUnusable(
            f"the repository {repository.name} is a whole data root, which clear={clear} would empty; "
            "use clear=lib, or delete its files yourself"
        )
    with parts().slots.held(account().id):
        task = services.delete(parts(), account(), service, clear)
    if task is not None and task.state is not State.FINISHED:
        return failure(*services.failed(task), head={"method": "/services", "task_id": task.id})
    auditing.note("service.delete", "service", service.name)
    if task is None:
        return envelope()
    return envelope(head={"method": "/services", "task_id": task.id})
