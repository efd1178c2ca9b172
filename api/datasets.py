"""Data sets: files in, by the form or in parts, and what `dataset://` in a request stands for."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from api.answers import Json
from api.parts import Parts
from api.refusals import BadBody, ChecksumWrong, FileTooLarge, GoesOn, UploadCompleting
from api.schemas.dataset import UploadRequest
from api.waiting import wait_for_end
from ml.errors import BadInput
from storage.dataset_names import SCHEME, check_path, split_address
from storage.errors import BadDatasetName, DatasetNotFound, StorageError, UploadNotFound, UploadRefused
from storage.landing import copy_hashing, local_errors
from storage.records import Account, Dataset, Kind, NewFile, Part, State, Task, Upload
from storage.records.uploads import LINK_S
from storage.staging import staging
from workers.queue import CONTROL_QUEUE

WAIT_S = 30.0
"""How long a call waits for the workers to put an upload together; then its task can be polled."""

PART_BYTES = 16 * 2**20
_PARTS_MOST = 10_000
_ENTRIES_MOST = 1000
_log = logging.getLogger(__name__)


# What requests name


def pinned(parts: Parts, account: Account, entries: Sequence[str], *, is_training: bool = False) -> Json:
    """Number and state of each data set that entries of `data` name, so that what happens to it later changes nothing.

    is_training : whether each entry must be a single file, since the first is the training set and others are tests.
    Raises BadInput.
    """
    named = dict.fromkeys(entry for entry in entries if entry.startswith(SCHEME))
    if len(named) > _ENTRIES_MOST:
        raise BadInput(f"data names more than {_ENTRIES_MOST} files of data sets; name a folder of them")
    known: dict[str, Dataset] = {}
    for entry in named:
        try:
            name, path = split_address(entry)
            if name not in known:
                known[name] = parts.records.datasets.find(account.id, name)
        except (BadDatasetName, DatasetNotFound) as error:
            raise BadInput(f"missing data: {entry[:200]!r} cannot be read: {error}") from None
        found = parts.records.datasets.files_at(known[name].id, known[name].revision, path, limit=2)
        if not found and not path:
            raise BadInput(f"missing data: {entry[:200]!r} holds no file; upload one to the data set first")
        if not found:
            raise BadInput(f"missing data: {entry[:200]!r} does not exist: data set {name!r} holds no such file")
        if is_training and len(found) > 1:
            raise BadInput(
                f"data holds {entry[:200]!r}, which is several files; name one, as in "
                f"{SCHEME}{name}/{found[0].path}: the first entry is the training set, the others are test sets"
            )
    return {name: [dataset.id, dataset.revision] for name, dataset in known.items()}


# Files


@dataclass(frozen=True)
class Received:
    """A file that came with a request, on this machine's disk for as long as the request takes."""

    path: Path
    size: int
    sha256: str


@contextmanager
def receiving(parts: Parts, account: Account) -> Iterator[Path]:
    """A folder for what a request brings. Raises Busy when too many bring something."""
    with parts.slots.held(account.id), parts.downloads.own() as folder:
        yield folder


def receive(stream: BinaryIO, folder: Path) -> Received:
    """Keep what a client sends. Raises StorageFull, StoreUnavailable."""
    path = folder / uuid.uuid4().hex
    with local_errors("what was sent cannot be kept"), path.open("xb") as file:
        size, sha256 = copy_hashing(stream, file)
    return Received(path, size, sha256)


def add(parts: Parts, dataset: Dataset, files: Sequence[tuple[str, Received]]) -> tuple[int, list[NewFile]]:
    """Make files part of a data set, all at once; returns its new state and what was added.

    Raises BadDatasetName, BadBody, DatasetNotFound, DatasetConflict, DatasetFull, StoredQuota.
    """
    new = []
    for path, received in files:
        key = f"datasets/{dataset.id}/{uuid.uuid4().hex}"
        new.append(NewFile(check_path(path), key, received.size, received.sha256))
    if len({each.path for each in new}) < len(new):
        raise BadBody("two of the files have the same path")
    with staging(parts.records, parts.objects, dataset.id, new) as staged:
        for each, (_, received) in zip(new, files, strict=True):
            parts.objects.put_file(each.key, received.path)
        return parts.records.datasets.commit(dataset.id, staged), new


def describe(parts: Parts, account: Account, dataset: Dataset) -> Task:
    """The task that looks what the tables of a data set hold, after `WAIT_S` at most. Raises Busy."""
    spec: Json = {"datasets": {dataset.name: [dataset.id, dataset.revision]}}
    task, _ = parts.records.tasks.add(account.id, Kind.DESCRIBE, CONTROL_QUEUE, spec)
    parts.queue.send_task(task)
    with parts.slots.held(account.id):
        return wait_for_end(parts.records, task.id, WAIT_S, parts.ending)


# Uploads in parts


def begin(parts: Parts, dataset: Dataset, wanted: UploadRequest) -> Upload:
    """Begin an upload. Raises FileTooLarge, BadDatasetName, BadBody."""
    # A body that ends just at the limit of requests is refused: it cannot be told from one that goes on.
    most_bytes = parts.settings.request_limit_bytes - 1
    limit_bytes = min(parts.settings.dataset_file_limit_bytes, _PARTS_MOST * most_bytes)
    part_bytes = max(min(PART_BYTES, most_bytes), -(-wanted.bytes // _PARTS_MOST))
    if wanted.bytes > limit_bytes:
        raise FileTooLarge(f"the file has {wanted.bytes} bytes; a file of a data set has at most {limit_bytes}")
    if wanted.path:
        check_path(wanted.path)
    if wanted.links:
        if parts.objects.upload_link("uploads/0/1", LINK_S, part_bytes) is None:
            raise BadBody("links is true, and this server's store gives none; send the parts to the server")
        if not wanted.sha256:
            raise BadBody("links is true, which needs sha256: the server does not see the parts when they are sent")
    return parts.records.uploads.add(
        dataset.id,
        wanted.path,
        size_bytes=wanted.bytes,
        part_bytes=part_bytes,
        sha256=wanted.sha256.lower() or None,
        unpack=wanted.unpack,
        is_direct=wanted.links,
    )


def links_of(parts: Parts, upload: Upload) -> list[str] | None:
    """Where the parts of an upload can be sent to without us."""
    if not upload.is_direct:
        return None
    numbers = range(1, upload.part_count + 1)
    return [
        parts.objects.upload_link(upload.part_key(number), LINK_S, upload.size_of(number)) or "" for number in numbers
    ]


def parts_of(parts: Parts, upload: Upload) -> list[Part]:
    """The parts that are there. Of those that came without us only sizes are known."""
    if not upload.is_direct:
        return parts.records.uploads.parts(upload.id)
    sizes = {listed.key: listed.size for listed in parts.objects.list(upload.prefix)}
    found = ((number, sizes.get(upload.part_key(number))) for number in range(1, upload.part_count + 1))
    return [Part(number, size, None) for number, size in found if size == upload.size_of(number)]


def put_part(parts: Parts, upload: Upload, number: int, received: Received, sha256: str) -> Part:
    """Store a part; one that comes again takes the place of the one before.

    Raises BadBody, ChecksumWrong, UploadNotFound, UploadCompleting.
    """
    release(parts, upload)
    if upload.is_direct:
        raise BadBody("the parts of this upload are sent to its links")
    if not 1 <= number <= upload.part_count:
        raise BadBody(f"the upload has the parts 1 to {upload.part_count}, and no part {number}")
    if received.sha256 != sha256:
        raise ChecksumWrong(f"the SHA-256 of what came is {received.sha256}, not {sha256}; send the part again")
    if received.size != upload.size_of(number):
        raise BadBody(f"part {number} has {upload.size_of(number)} bytes, and {received.size} came")
    part = Part(number, received.size, received.sha256)
    parts.objects.put_file(upload.part_key(number, sha256), received.path)
    try:
        replaced = parts.records.uploads.note_part(upload.id, part)
    except UploadNotFound:
        # Its upload may have been cleaned already; unless the same part came before and is of use.
        if part not in parts.records.uploads.parts(upload.id):
            _drop(parts, upload, part)
        raise
    if replaced is not None and replaced.sha256 != part.sha256:
        _drop(parts, upload, replaced)
    return part


def _drop(parts: Parts, upload: Upload, part: Part) -> None:
    """Delete the content of a part that is of no use any more."""
    try:
        parts.objects.delete([upload.part_key(part.number, part.sha256)])
    except StorageError as error:
        _log.warning("a part of upload %s is left to the cleaning: %s", upload.id, error)


def release(parts: Parts, upload: Upload) -> None:
    """Have an upload whose completion failed go on. Raises UploadCompleting while it is being completed."""
    if upload.task_id is None:
        return
    task = parts.records.tasks.get(upload.task_id)
    if not task.state.is_final:
        raise UploadCompleting(f"upload {upload.id} is being completed by task {task.id}; wait for its end")
    parts.records.uploads.complete_by(upload.id, None, instead_of=task.id)


def complete(parts: Parts, account: Account, upload: Upload) -> Task:
    """The task that puts an upload together, after `WAIT_S` at most; of one that was completed before, its task.

    Raises UploadRefused when parts are missing, UploadNotFound when it was ended, Busy.
    """
    task = None if upload.task_id is None else parts.records.tasks.get(upload.task_id)
    if upload.ended_at is not None and (task is None or task.state is not State.FINISHED):
        raise UploadNotFound(upload.id)
    if task is None or task.state in (State.FAILED, State.CANCELLED):
        task = _completing(parts, account, upload)
    if task.state.is_final:
        return task
    with parts.slots.held(account.id):
        return wait_for_end(parts.records, task.id, WAIT_S, parts.ending)


def _completing(parts: Parts, account: Account, upload: Upload) -> Task:
    there = {part.number for part in parts_of(parts, upload)}
    missing = [str(number) for number in range(1, upload.part_count + 1) if number not in there]
    if missing:
        shown = ", ".join(missing[:10]) + (", …" if len(missing) > 10 else "")
        raise UploadRefused(f"upload {upload.id} is not complete: {len(missing)} parts are missing: {shown}")
    task, _ = parts.records.tasks.add(account.id, Kind.UPLOAD, CONTROL_QUEUE, {"upload_id": upload.id})
    if not parts.records.uploads.complete_by(upload.id, task.id, instead_of=upload.task_id):
        parts.records.tasks.request_cancel(task.id)
        raise GoesOn(f"upload {upload.id} is being completed by another call, or was ended; look at it again")
    parts.queue.send_task(task)
    return task


def end(parts: Parts, upload: Upload) -> None:
    """Give an upload up. Raises UploadCompleting, UploadNotFound."""
    release(parts, upload)
    if not parts.records.uploads.end(upload.id):
        raise UploadNotFound(upload.id)


def take_archive(parts: Parts, dataset: Dataset, folder: str, received: Received) -> Upload:
    """An upload of an archive that came in one piece, with its only part.

    Nobody is told its number, and it counts as stored: it ends with whatever becomes of it.
    """
    if folder:
        check_path(folder)
    upload = parts.records.uploads.add(
        dataset.id,
        folder,
        size_bytes=received.size,
        part_bytes=max(1, received.size),
        sha256=received.sha256,
        unpack=True,
        is_whole=True,
    )
    try:
        put_part(parts, upload, 1, received, received.sha256)
    except Exception:
        parts.records.uploads.end(upload.id)
        raise
    return upload
