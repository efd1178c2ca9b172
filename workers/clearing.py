"""Removing what a repository holds: its versions, and the files in its folder that the mode names."""

from __future__ import annotations

from ml.registry import find
from storage import repository_folder
from storage.records import Attempt, State
from workers.lifecycle import Work
from workers.parts import Parts


def clear_repository(parts: Parts, attempt: Attempt) -> Work:
    """Do `mode` of the specification: "lib" (model files), "full" (everything), "dir" (and the folder itself).

    "index" takes the similarity index only, of which a tabular repository has none.
    """
    mode = attempt.spec["mode"]
    repository = parts.records.repositories.get(attempt.spec["repository_id"])
    removed: list[str] = []
    versions = 0
    if mode != "index":
        versions = parts.records.versions.remove_all(repository.id)
    if repository.is_folder and mode != "index":
        folder = parts.data_roots.resolve(repository.location)
        names = [f"*{suffix}*" for suffix in find(attempt.spec["mllib"]).INFO.files]
        removed = repository_folder.clear(folder, mode, names)
    return Work(State.FINISHED, report={"versions_removed": versions, "files_removed": removed})
