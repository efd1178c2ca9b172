"""Removing what a repository holds: its versions, and the files in its folder that the mode names."""

from __future__ import annotations

from ml.registry import find
from ml.repository_files import DESCRIPTION, INDEX, PROGRESS
from storage import repository_folder
from storage.records import Attempt, State
from storage.repository_folder import MARKER
from workers.folders import folder_of, waiting_to_write
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts


def clear_repository(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Do `mode` of the specification.

    "lib" removes the versions, the model files and the similarity index, so that a training begins anew; "full"
    everything; "dir" the folder itself as well; "index" the similarity index only.
    Raises RepositoryUnusable when something cannot be removed, or belongs to another account.
    """
    spec = attempt.spec
    mode = spec["mode"]
    repository = parts.records.repositories.get(spec["repository_id"])
    if not repository.is_folder:
        versions = 0 if mode == "index" else parts.records.versions.remove_all(repository.id)
        return Work(State.FINISHED, report={"versions_removed": versions, "files_removed": []})
    # Not while a version is being copied there: what is written after us would stay.
    with waiting_to_write(parts, repository.id, lambda: lease.is_lost or lease.is_cancel_requested) as turn:
        folder = folder_of(parts, repository)
        if mode in ("full", "dir"):
            parts.records.repositories.check_alone(repository)
        versions = 0
        if mode != "index":
            versions = parts.records.versions.remove_all(repository.id)
            turn.note_exported(parts.records.repositories.get(repository.id).version_counter)
        patterns = list(INDEX) if mode == "index" else _patterns(spec)
        removed = repository_folder.clear(folder, mode, patterns)
    return Work(State.FINISHED, report={"versions_removed": versions, "files_removed": removed})


def _patterns(spec: dict[str, object]) -> list[str]:
    """What `lib` removes: the files of the library, ours that describe them, and the similarity index."""
    info = find(str(spec["mllib"])).INFO
    contained = info.cleared or info.files
    if not spec.get("db"):
        contained += info.cleared_without_db
    return [*(f"*{part}*" for part in contained), DESCRIPTION, PROGRESS, MARKER, *INDEX]
