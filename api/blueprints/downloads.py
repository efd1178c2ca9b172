"""Files of services, tasks and data sets, one by one or as an archive."""

from __future__ import annotations

from flask import Blueprint, Response, request

from api import downloads
from api.answers import envelope, plain
from api.blueprints.datasets import find as find_dataset
from api.blueprints.tasks import find as find_task
from api.downloads import Files
from api.parts import account, parts
from api.query import check_known
from api.roles import needs
from api.schemas.reading import fold
from storage.records import Role, Version

blueprint = Blueprint("downloads", __name__)

_ONE = ("link",)
_ARCHIVE = ("format",)


def _version(name: str) -> tuple[Version, Files]:
    service = parts().records.services.find(account().id, fold(name))
    return downloads.of_service(parts(), service, request.args.get("version"))


@blueprint.get("/services/<name>/files")
@needs(Role.READ)
def service_files(name: str) -> Response:
    """The files of the version that predictions use, or of the one that `version` names."""
    check_known(request.args, ("version",))
    version, files = _version(name)
    told = sorted((each.as_json() for each in files.entries), key=lambda each: str(each["path"]))
    return envelope(body={"version": version.number, "files": told})


@blueprint.get("/services/<name>/files/<path:path>")
@needs(Role.READ)
def service_file(name: str, path: str) -> Response:
    """One of the files, or a part of it."""
    check_known(request.args, ("version", *_ONE))
    return downloads.one(parts(), _version(name)[1].at(path))


@blueprint.get("/services/<name>/archive")
@needs(Role.READ)
def service_archive(name: str) -> Response:
    """All of the files, so that a folder of them is a repository."""
    check_known(request.args, ("version", *_ARCHIVE))
    return downloads.archive(parts(), _version(name)[1])


@blueprint.get("/tasks/<number>/files")
@needs(Role.READ)
def task_files(number: str) -> Response:
    """The files of a task: report, result, model."""
    check_known(request.args, ())
    task = find_task(number)
    return plain({"task_id": task.id, "files": [each.as_json() for each in downloads.of_task(parts(), task).entries]})


@blueprint.get("/tasks/<number>/files/<path:path>")
@needs(Role.READ)
def task_file(number: str, path: str) -> Response:
    """One of the files, or a part of it."""
    check_known(request.args, _ONE)
    return downloads.one(parts(), downloads.of_task(parts(), find_task(number)).at(path))


@blueprint.get("/tasks/<number>/archive")
@needs(Role.READ)
def task_archive(number: str) -> Response:
    """All of the files."""
    check_known(request.args, _ARCHIVE)
    return downloads.archive(parts(), downloads.of_task(parts(), find_task(number)))


@blueprint.get("/datasets/<name>/files/<path:path>")
@needs(Role.READ)
def dataset_file(name: str, path: str) -> Response:
    """A file of a data set, or a part of it."""
    check_known(request.args, _ONE)
    return downloads.one(parts(), downloads.of_dataset(parts(), find_dataset(name), path).at(path))


@blueprint.get("/datasets/<name>/archive")
@needs(Role.READ)
def dataset_archive(name: str) -> Response:
    """All files of a data set, as they are now."""
    check_known(request.args, _ARCHIVE)
    return downloads.archive(parts(), downloads.of_dataset(parts(), find_dataset(name)))
