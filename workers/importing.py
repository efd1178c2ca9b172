"""Making a version of model files that somebody put into a repository's folder by hand, or that another server left."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import Any

from ml import serving
from storage import repository_folder
from storage.objects.manifest import upload_folder
from storage.records import Attempt, NewVersion, State
from workers.lifecycle import Work
from workers.parts import Parts
from workers.version_files import artifacts_of


def import_folder(parts: Parts, attempt: Attempt) -> Work:
    """Publish what lies in the folder, described by our marker when it is ours, else by the service's parameters."""
    repository = parts.records.repositories.get(attempt.spec["repository_id"])
    folder = parts.data_roots.resolve(repository.location)
    copy = parts.settings.scratch / f"import-{uuid.uuid4().hex}"
    copy.mkdir(parents=True)
    try:
        description, names = _describe(folder, attempt)
        for name in names:
            shutil.copyfile(folder / name, copy / name, follow_symlinks=False)
        manifest = upload_folder(parts.objects, f"{attempt.prefix}/model", copy)
    finally:
        shutil.rmtree(copy, ignore_errors=True)
    version = NewVersion(f"{attempt.prefix}/model", description, artifacts_of(manifest))
    return Work(State.FINISHED, report={"mltype": description.get("mltype", "")}, version=version)


def _describe(folder: Path, attempt: Attempt) -> tuple[dict[str, Any], list[str]]:
    marker = repository_folder.read_marker(folder)
    if marker is not None and all((folder / name).is_file() for name in marker["files"]):
        description: dict[str, Any] = marker["description"]
        return description, sorted(marker["files"])
    return serving.describe_folder(folder, attempt.spec)
