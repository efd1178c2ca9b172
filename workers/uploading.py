"""Putting the parts of an upload together, and unpacking archives, so that data sets hold whole and checked files."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.dataset_names import check_path
from storage.errors import ArtifactNotFound, BadDatasetName, ChecksumMismatch, Superseded, UploadNotFound, UploadRefused
from storage.landing import local_errors, sha256_of
from storage.records import Attempt, DatasetFile, NewFile, Part, State, Upload
from storage.staging import staging
from workers.archives import Unpackable, unpacked
from workers.lease import LeaseKeeper
from workers.lifecycle import Work, is_tried_again
from workers.parts import Parts
from workers.scratch import Scratch

Json = dict[str, Any]

RATIO_MAX = 200
"""How many times as large as the archive its members may be; what people pack shrinks to a fiftieth at most."""

RATIO_FLOOR_BYTES = 64 * 2**20
"""What members may always have together, however small the archive."""


class _Cancelled(Exception):
    """The client asked for the end of the task; what is stored already goes."""


def complete(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Make the file of an upload, or the members of the archive that it is, part of the data set.

    Raises UploadRefused, UploadNotFound and DatasetNotFound when it was ended meanwhile, DatasetConflict, DatasetFull,
    StoredQuota when the members of an archive are too much.
    """
    try:
        return _completed(parts, attempt, lease)
    except Superseded:
        raise
    except Exception as error:
        if not is_tried_again(error, attempt, parts.settings.lost_max):
            lease.check()  # whoever took it over may be about to commit
            _end_whole(parts, attempt)
        if isinstance(error, _Cancelled):
            return Work(State.CANCELLED)
        raise


def _end_whole(parts: Parts, attempt: Attempt) -> None:
    """End an upload that came in one request: nobody was told its number, and it would count as stored for days."""
    upload = parts.records.uploads.get(attempt.spec["upload_id"])
    if upload.is_whole:
        parts.records.uploads.end(upload.id)


def _completed(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    upload = parts.records.uploads.get(attempt.spec["upload_id"])
    place = f"datasets/{upload.dataset_id}/upload-{upload.id}"
    done = parts.records.datasets.stored_under(upload.dataset_id, place)
    if done:  # by an attempt whose end was not recorded
        return _work(upload, done)
    scratch = Scratch(parts.settings.scratch)
    try:
        files = _files(parts, upload, scratch.attempt(attempt.name), lease)
        new = [
            NewFile(path, f"{place}/{attempt.task.id}-{attempt.number}-{number}", file.stat().st_size, sha256_of(file))
            for number, (path, file) in enumerate(sorted(files.items()))
        ]
        lease.check()
        with staging(parts.records, parts.objects, upload.dataset_id, new, upload.id) as staged:
            for each in new:
                lease.check()
                if lease.is_cancel_requested:
                    raise _Cancelled
                parts.objects.put_file(each.key, files[each.path])
            parts.records.datasets.commit(upload.dataset_id, staged, upload.id)
    except UploadNotFound:
        # Maybe as it is over by an attempt that was taken over when it had all but committed.
        done = parts.records.datasets.stored_under(upload.dataset_id, place)
        if not done:
            raise
        return _work(upload, done)
    finally:
        scratch.close()
    return _work(upload, new)


def _work(upload: Upload, files: list[NewFile] | list[DatasetFile]) -> Work:
    report: Json = {"path": upload.path, "file_count": len(files), "bytes": sum(each.size_bytes for each in files)}
    if not upload.unpack:
        report["sha256"] = files[0].sha256
    return Work(State.FINISHED, report=report)


def _files(parts: Parts, upload: Upload, folder: Path, lease: LeaseKeeper) -> Mapping[str, Path]:
    """What the upload brings, by path in the data set."""
    whole = folder / "whole"
    _join(parts, upload, whole, lease)
    if not upload.unpack:
        return {upload.path: whole}
    members = folder / "members"
    members.mkdir()
    limit_bytes = min(parts.settings.archive_limit_bytes, max(RATIO_FLOOR_BYTES, RATIO_MAX * upload.size_bytes))
    try:
        made = unpacked(whole, members, limit_bytes, is_tree=True)
        before = f"{upload.path}/" if upload.path else ""
        return {check_path(before + name): members / name for name in made["files"]}
    except (Unpackable, BadDatasetName) as error:
        raise UploadRefused(f"the archive cannot be unpacked: {error}") from None


def _join(parts: Parts, upload: Upload, whole: Path, lease: LeaseKeeper) -> None:
    """Write the parts one after the other. Raises UploadRefused when they are not what was promised."""
    known = {part.number: part for part in parts.records.uploads.parts(upload.id)}
    digest, size = hashlib.sha256(), 0
    with local_errors("an upload cannot be put together"), whole.open("xb") as file:
        for number in range(1, upload.part_count + 1):
            lease.check()
            content = _part(parts, upload, number, known.get(number))
            digest.update(content)
            size += file.write(content)
    if size != upload.size_bytes:
        raise UploadRefused(f"the parts have {size} bytes together, not the {upload.size_bytes} that were promised")
    if upload.sha256 is not None and digest.hexdigest() != upload.sha256:
        raise UploadRefused(
            f"the SHA-256 of the whole is {digest.hexdigest()}, not the {upload.sha256} that was promised; "
            "send the wrong parts again, or begin anew"
        )


def _part(parts: Parts, upload: Upload, number: int, part: Part | None) -> bytes:
    sha256 = None if part is None else part.sha256
    try:
        return parts.objects.get_bytes(upload.part_key(number, sha256), upload.part_bytes, sha256)
    except ArtifactNotFound:
        raise UploadRefused(f"part {number} is missing; send it again") from None
    except ChecksumMismatch as error:
        raise UploadRefused(f"part {number} is not as it was sent; send it again ({error})") from None
