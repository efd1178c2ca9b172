"""Making a version of model files that somebody put into a repository's folder by hand, or that another server left."""

from __future__ import annotations

import shutil
from pathlib import Path

from ml import serving
from ml.errors import ModelUnusable
from ml.options import load_service
from storage.objects.manifest import upload_folder
from storage.records import Attempt, NewVersion, State
from workers.lifecycle import Work
from workers.parts import Parts
from workers.scratch import Scratch
from workers.version_files import artifacts_of

_BESIDE = (serving.DESCRIPTION_FILE, serving.CORRESPONDENCE_FILE)


def import_folder(parts: Parts, attempt: Attempt) -> Work:
    """Publish the newest model of the folder, as it describes itself or else as the service's parameters do.

    Raises ModelUnusable when there is no model or it does not fit the service.
    """
    spec = attempt.spec
    repository = parts.records.repositories.get(spec["repository_id"])
    folder = parts.data_roots.resolve(repository.location)
    service = {"mllib": spec["mllib"], "model": {"repository": str(folder)}, "parameters": spec["parameters"]}
    scratch = Scratch(parts.settings.scratch)
    try:
        copy = scratch.attempt(attempt.name)
        # Described from the copy: the folder may change under us.
        _copy_files(folder, copy)
        description = serving.describe_folder(copy, load_service(service).value)
        kept = {description["file"], *_BESIDE}
        for each in copy.iterdir():
            if each.name not in kept:
                each.unlink()
        manifest = upload_folder(parts.objects, f"{attempt.prefix}/model", copy)
    finally:
        scratch.close()
    version = NewVersion(f"{attempt.prefix}/model", description, artifacts_of(manifest))
    return Work(State.FINISHED, report={"mltype": description["mltype"]}, version=version)


def _copy_files(folder: Path, copy: Path) -> None:
    """Copy the plain files of a folder; links could lead anywhere."""
    try:
        for each in sorted(folder.iterdir()):
            if each.is_file() and not each.is_symlink():
                shutil.copy2(each, copy / each.name, follow_symlinks=False)
    except OSError as error:
        raise ModelUnusable(f"the repository {folder} cannot be read: {error.strerror}") from error
