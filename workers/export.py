"""Copying a published version to the data-root folder of its repository, where people look for it."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from storage import repository_folder
from storage.errors import VersionNotFound
from storage.records import Version
from workers.parts import Parts
from workers.version_files import manifest_of

_LEASE_S = 300.0
_log = logging.getLogger(__name__)


def export_newest(parts: Parts, repository_id: int) -> bool:
    """Make the folder of a repository hold its newest version, if it has a folder and nobody is writing it now.

    The records decide which version counts, so a copy that was cut off is simply made again. Returns whether this call
    brought the folder up to date.
    """
    repositories = parts.records.repositories
    repository = repositories.get(repository_id)
    if not repository.is_folder or not repositories.lock_export(repository_id, _LEASE_S):
        return False
    exported: int | None = None
    try:
        try:
            version = parts.records.versions.newest(repository_id)
        except VersionNotFound:
            exported = repository.version_counter  # all were removed: nothing to copy
            return False
        folder = parts.data_roots.resolve(repository.location)
        repository_folder.prepare(folder, create=True)
        _copy(parts, version, folder)
        exported = version.number
    finally:
        repositories.unlock_export(repository_id, exported)
    return True


def _copy(parts: Parts, version: Version, folder: Path) -> None:
    report = parts.records.tasks.report(version.task_id)
    if report is not None:
        repository_folder.write_file(folder, "metrics.json", json.dumps(_metrics(version, report)).encode())
    marker = {
        "version": version.number,
        "task_id": version.task_id,
        "description": version.description,
        "files": {each.name: each.sha256 for each in version.artifacts},
    }
    with parts.cache.folder(parts.objects, manifest_of(version)) as copy:
        repository_folder.export(folder, {each.name: copy / each.name for each in version.artifacts}, marker)


def _metrics(version: Version, report: dict[str, Any]) -> dict[str, Any]:
    """What the web interface of DeepDetect reads: the last status answer of the training."""
    return {
        "status": {"code": 200, "msg": "OK"},
        "head": {"method": "/train", "status": "finished", "task_id": version.task_id},
        "body": {key: report.get(key, {}) for key in ("measure", "measure_hist", "parameters")}
        | {"mltype": report.get("mltype", "")},
    }
