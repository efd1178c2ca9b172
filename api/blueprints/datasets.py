"""/datasets: files that users upload, and train on and predict with by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from flask import Blueprint, Response, request

from api import auditing, datasets, services
from api.answers import Json, failure, plain
from api.body import check_plain, read_object
from api.parts import account, parts
from api.query import check_known, flag, whole_number
from api.refusals import BadBody
from api.roles import needs
from api.schemas.dataset import (
    CHECKSUM,
    checksum_of,
    read_upload,
    told,
    told_file,
    told_upload,
)
from api.schemas.paging import PAGE, cursor_after, limit_of, path_of, read_page
from storage.dataset_names import check_name
from storage.errors import UploadNotFound
from storage.records import Dataset, NewFile, Role, State, Task, Upload
from storage.records.datasets import FILES_MOST

blueprint = Blueprint("datasets", __name__)


@blueprint.get("/datasets")
@needs(Role.READ)
def several() -> Response:
    """A page of all data sets, newest first."""
    check_known(request.args, PAGE)
    page = read_page(request.args)
    shown, more = page.cut(parts().records.datasets.page(account().id, limit=page.limit + 1, before_id=page.before_id))
    return plain({"datasets": [told(each) for each in shown], "next_cursor": more})


@blueprint.put("/datasets/<name>")
@needs(Role.TRAIN)
def create(name: str) -> Response:
    """Make a data set; 200 when it is there already."""
    check_known(request.args, ())
    name = check_name(name)
    if request.get_data(cache=True).strip() and read_object(parts().settings.request_limit_bytes):
        raise BadBody("a data set is made without a body, or with an empty object")
    dataset, is_new = parts().records.datasets.create(account().id, name)
    if is_new:
        auditing.note("dataset.create", "dataset", dataset.name)
    return plain(told(dataset), 201 if is_new else 200)


@blueprint.get("/datasets/<name>")
@needs(Role.READ)
def get(name: str) -> Response:
    """A data set with a page of its files, by path."""
    check_known(request.args, PAGE)
    limit, after = limit_of(request.args.get("limit")), path_of(request.args.get("cursor"))
    dataset = find(name)
    found = parts().records.datasets.files(dataset.id, limit=limit + 1, after=after)
    more = cursor_after(found[limit - 1].path) if len(found) > limit else None
    files = [told_file(each) for each in found[:limit]]
    return plain({**told(dataset), "files": files, "next_cursor": more})


@blueprint.delete("/datasets/<name>")
@needs(Role.TRAIN)
def delete(name: str) -> Response:
    """Forget a data set. Tasks that were accepted before go on with what it held."""
    check_known(request.args, ())
    dataset = find(name)
    parts().records.datasets.delete(dataset.id)
    auditing.note("dataset.delete", "dataset", dataset.name)
    return plain({"name": dataset.name, "deleted": True})


@blueprint.post("/datasets/<name>/files")
@needs(Role.TRAIN)
def add_files(name: str) -> Response:
    """Take the files of a form, all or none; `folder` is put before their names, `unpack=true` takes an archive."""
    check_known(request.args, ("folder", "unpack"))
    folder = request.args.get("folder", "").rstrip("/")
    wants_members = flag(request.args, "unpack", default=False)
    dataset = find(name)
    _check_form()
    with datasets.receiving(parts(), account()) as place:
        given = list(request.files.items(multi=True))
        if not given:
            raise BadBody("the form brings no files; send each as a part with a file name")
        if wants_members and len(given) > 1:
            raise BadBody(f"unpack takes one archive at a time, and the form brings {len(given)} files")
        received = [(str(each.filename), datasets.receive(cast(Any, each.stream), place)) for _, each in given]
        if not wants_members:
            files = [(f"{folder}/{path}" if folder else path, each) for path, each in received]
            return _added(dataset, *datasets.add(parts(), dataset, files))
        archive = datasets.take_archive(parts(), dataset, folder, received[0][1])
    try:
        task = datasets.complete(parts(), account(), archive)
    except Exception:
        parts().records.uploads.end(archive.id)  # nobody knows its number, and it would count as stored
        raise
    if task.state.is_final:
        parts().records.uploads.end(archive.id)
    return _ended(dataset, task)


def _added(dataset: Dataset, revision: int, new: Sequence[NewFile]) -> Response:
    added = [{"path": each.path, "bytes": each.size_bytes, "sha256": each.sha256} for each in new]
    return plain({"name": dataset.name, "revision": revision, "files": added}, 201)


def _check_form() -> None:
    check_plain()
    if request.mimetype != "multipart/form-data":
        raise BadBody("files are sent as a form: Content-Type must be multipart/form-data")
    request.max_form_parts = FILES_MOST


@blueprint.post("/datasets/<name>/describe")
@needs(Role.TRAIN)
def describe(name: str) -> Response:
    """Have a worker look what the tables hold: 200 when GET tells it, 202 with a task to poll when it takes longer."""
    check_known(request.args, ())
    dataset = find(name)
    return _ended(dataset, datasets.describe(parts(), account(), dataset))


@blueprint.delete("/datasets/<name>/files/<path:path>")
@needs(Role.TRAIN)
def remove_file(name: str, path: str) -> Response:
    """Take one file out of a data set."""
    check_known(request.args, ())
    dataset = find(name)
    revision = parts().records.datasets.remove_file(dataset.id, path)
    return plain({"name": dataset.name, "revision": revision, "path": path, "deleted": True})


@blueprint.post("/datasets/<name>/uploads")
@needs(Role.TRAIN)
def begin(name: str) -> Response:
    """Begin an upload in parts."""
    check_known(request.args, ())
    dataset = find(name)
    upload = datasets.begin(parts(), dataset, read_upload(read_object(parts().settings.request_limit_bytes)))
    response = plain(_told(upload), 201)
    response.headers["Location"] = f"/datasets/{dataset.name}/uploads/{upload.id}"
    return response


@blueprint.get("/datasets/<name>/uploads/<number>")
@needs(Role.READ)
def upload(name: str, number: str) -> Response:
    """An upload and what is there of it."""
    check_known(request.args, ())
    return plain(_told(_upload(find(name), number)))


@blueprint.put("/datasets/<name>/uploads/<number>/parts/<part>")
@needs(Role.TRAIN)
def put_part(name: str, number: str, part: str) -> Response:
    """Take a part, whose SHA-256 the request brings along."""
    check_known(request.args, ())
    check_plain()
    sha256 = checksum_of(request.headers.get(CHECKSUM))
    found = _upload(find(name), number)
    with datasets.receiving(parts(), account()) as place:
        received = datasets.receive(cast(Any, request.stream), place)
        made = datasets.put_part(parts(), found, whole_number(part) or 0, received, sha256)
    return plain({"part": made.number, "bytes": made.size_bytes, "sha256": made.sha256})


@blueprint.post("/datasets/<name>/uploads/<number>/complete")
@needs(Role.TRAIN)
def complete(name: str, number: str) -> Response:
    """Put the parts together: 200 at the end, 202 with a task to poll when that takes longer."""
    check_known(request.args, ())
    dataset = find(name)
    upload_id = whole_number(number)
    found = None if upload_id is None else parts().records.uploads.get(upload_id)
    if found is None or found.dataset_id != dataset.id:
        raise UploadNotFound(repr(number[:40]) if upload_id is None else upload_id)
    return _ended(dataset, datasets.complete(parts(), account(), found))


@blueprint.delete("/datasets/<name>/uploads/<number>")
@needs(Role.TRAIN)
def end(name: str, number: str) -> Response:
    """Give an upload up."""
    check_known(request.args, ())
    found = _upload(find(name), number)
    datasets.end(parts(), found)
    return plain({"upload_id": found.id, "deleted": True})


def find(name: str) -> Dataset:
    """The data set of that name. Raises BadDatasetName, DatasetNotFound."""
    return parts().records.datasets.find(account().id, check_name(name))


def _upload(dataset: Dataset, number: str) -> Upload:
    upload_id = whole_number(number)
    if upload_id is None:
        raise UploadNotFound(repr(number[:40]))
    return parts().records.uploads.find(dataset.id, upload_id)


def _told(upload: Upload) -> Json:
    # Who has a link can write a part.
    links = datasets.links_of(parts(), upload) if account().role >= Role.TRAIN else None
    return told_upload(upload, datasets.parts_of(parts(), upload), links)


def _ended(dataset: Dataset, task: Task) -> Response:
    """The answer about a task that works on a data set."""
    if not task.state.is_final:
        response = plain({"name": dataset.name, "task_id": task.id, "state": str(task.state)}, 202)
        response.headers["Location"] = f"/tasks/{task.id}"
        return response
    if task.state is not State.FINISHED:
        return failure(*services.failed(task))
    report = parts().records.tasks.report(task.id) or {}
    return plain({"name": dataset.name, "task_id": task.id, "state": str(task.state), **report})
