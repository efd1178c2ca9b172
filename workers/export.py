"""Copying a published version to the data-root folder of its repository, where people look for it."""

from __future__ import annotations

from pathlib import Path

from ml.repository_files import REPORTS, in_order
from storage import repository_folder
from storage.errors import VersionNotFound
from storage.records import Kind, Repository, Version
from workers.folders import Turn, folder_of, writing
from workers.metrics import answer_of, write_metrics
from workers.parts import Parts
from workers.version_files import manifest_of


def export_newest(parts: Parts, repository_id: int) -> bool:
    """Make the folder of a repository hold its newest version, if it has a folder and nobody is writing it now.

    The records decide which version counts, so a copy that was cut off is simply made again. Returns whether this call
    brought the folder up to date.
    """
    if not parts.records.repositories.get(repository_id).is_folder:
        return False
    with writing(parts, repository_id) as turn:
        return turn is not None and export_held(parts, parts.records.repositories.get(repository_id), turn)


def export_held(parts: Parts, repository: Repository, turn: Turn) -> bool:
    """`export_newest` for whoever has the right to write the folder."""
    try:
        version = parts.records.versions.newest(repository.id)
    except VersionNotFound:
        turn.note_exported(repository.version_counter)  # all were removed: nothing to copy
        return False
    folder = folder_of(parts, repository)
    repository_folder.prepare(folder, create=True)
    task = parts.records.tasks.get(version.task_id)
    if task.kind is Kind.TRAIN:
        write_metrics(folder, answer_of(parts, task))
    _copy(parts, version, folder, made=task.kind is Kind.TRAIN)
    turn.note_exported(version.number)
    return True


def _copy(parts: Parts, version: Version, folder: Path, *, made: bool) -> None:
    digests = {each.name: each.sha256 for each in version.artifacts}
    about = {"version": version.number, "task_id": version.task_id}
    names = in_order(digests, version.description.get("file"))
    with parts.cache.folder(parts.objects, manifest_of(version)) as copy:
        files = {name: copy / name for name in names}
        repository_folder.export(folder, files, digests, about, made=made, spared=REPORTS)
