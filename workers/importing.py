"""Making versions of model files that somebody put into a repository's folder by hand, or that another server left."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml import serving
from ml.errors import ModelUnusable
from ml.options import load_service
from ml.registry import find
from ml.repository_files import (
    BEST,
    DESCRIPTION,
    METRICS,
    PROGRESS,
    TEXT_BYTES,
    belongs,
    best_iteration,
    is_model,
    iteration_of,
    newest,
)
from ml.training.checkpoints import read_progress, write_progress
from ml.training.elsewhere import progress_from
from storage import repository_folder
from storage.errors import StorageError, VersionNotFound
from storage.objects.manifest import Manifest, upload_folder
from storage.records import Attempt, Ended, NewVersion, Repository, State, Version
from storage.repository_folder import copy_out
from workers.export import export_held, export_newest
from workers.folders import Turn, folder_of, waiting_to_write
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts
from workers.scratch import Scratch
from workers.version_files import artifacts_of

Json = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Found:
    """What lies in the folder of a repository.

    version : the newest one, which the folder was given before; None when there is none.
    files : those that make up its newest model; none when no model lies there.
    is_changed : whether somebody put, changed or removed some of them since.
    is_emptied : whether somebody removed every model of the newest version.
    """

    version: Version | None
    files: frozenset[str]
    is_changed: bool
    is_emptied: bool


def look_into(parts: Parts, repository: Repository, mllib: str, turn: Turn) -> Found:
    """What a folder holds for a library, once the newest version was copied there. Raises RepositoryUnusable."""
    version = newest_of(parts, repository.id)
    if version is not None and repository.exported_version < version.number:
        export_held(parts, repository, turn)
    folder = folder_of(parts, repository)
    endings = find(mllib).INFO.files
    known = {} if version is None else {each.name: each.sha256 for each in version.artifacts}
    compared = repository_folder.compare(folder, known, lambda name: belongs(name, endings), thoroughly=True)
    if not any(is_model(name, endings) for name in compared.present):
        return Found(version, frozenset(), False, version is not None)
    times = {name: seen.mtime_ns for name, seen in compared.present.items()}
    files = newest(times, endings, _best_iterations(folder, times)) | (known.keys() & times.keys())
    return Found(version, frozenset(files), bool(compared.changed & files or compared.removed), False)


def is_untouched(parts: Parts, repository: Repository, mllib: str) -> bool:
    """Whether a folder certainly holds what its newest version left there, without asking for the right to write it.

    False says nothing: `look_into` looks more closely. Raises RepositoryUnusable.
    """
    version = newest_of(parts, repository.id)
    if version is not None and repository.exported_version < version.number:
        return False
    endings = find(mllib).INFO.files
    known = {} if version is None else {each.name: each.sha256 for each in version.artifacts}
    compared = repository_folder.compare(
        folder_of(parts, repository), known, lambda name: belongs(name, endings), thoroughly=False
    )
    has_model = any(is_model(name, endings) for name in compared.present)
    return has_model == (version is not None) and not (compared.changed and has_model) and not compared.removed


def newest_of(parts: Parts, repository_id: int) -> Version | None:
    """The newest version of a repository, if it has one."""
    try:
        return parts.records.versions.newest(repository_id)
    except VersionNotFound:
        return None


def _best_iterations(folder: Path, names: Mapping[str, int]) -> set[int]:
    found = set()
    for name in names:
        if name.startswith(BEST.removesuffix(".txt")):
            best = best_iteration(read_text(folder, name) or "")
            if best is not None:
                found.add(best)
    return found


def read_text(folder: Path, name: str, limit_bytes: int = TEXT_BYTES) -> str | None:
    """The text of a plain file; None when it is missing, larger than the limit or no text."""
    data = repository_folder.read_bytes(folder, name, limit_bytes)
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def import_folder(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Publish the newest model of a folder, or the file that `weights` names, as it describes itself.

    Nothing is published when the newest version holds just these files. Raises ModelUnusable when there is no model or
    it does not fit the service.
    """
    spec = attempt.spec
    repository = parts.records.repositories.get(spec["repository_id"])
    scratch = Scratch(parts.settings.scratch)
    try:
        copy = scratch.attempt(attempt.name)
        metrics = None
        if repository.is_folder:
            with waiting_to_write(parts, repository.id, lambda: lease.is_lost or lease.is_cancel_requested) as turn:
                repository = parts.records.repositories.get(repository.id)
                found = look_into(parts, repository, spec["mllib"], turn)
                if found.version is not None and not found.is_changed:
                    return Work(State.FINISHED, report={"mltype": spec["mltype"], "version": found.version.number})
                # Described from the copy: the folder may change under us.
                metrics = copy_files(parts, repository, found, copy)
        if spec.get("weights"):
            copy_weights(parts, repository, spec["weights"], copy)
        description = describe(copy, spec, repository, metrics)
        lease.check()
        manifest = upload_folder(parts.objects, f"{attempt.prefix}/model", copy)
    finally:
        scratch.close()
    return published(parts, attempt, lease, manifest, description)


def published(parts: Parts, attempt: Attempt, lease: LeaseKeeper, manifest: Manifest, description: Json) -> Work:
    """The end of an import: its version, unless the newest one has the very same files, or nobody wants it any more."""
    if lease.is_cancel_requested:
        return Work(State.CANCELLED)  # with a version it would become the first one of an empty repository
    repository_id = attempt.spec["repository_id"]
    before = newest_of(parts, repository_id)
    report: Json = {"mltype": description["mltype"]}
    same = {each.name: each.sha256 for each in manifest.files}
    if before is not None and same == {each.name: each.sha256 for each in before.artifacts}:
        return Work(State.FINISHED, report={**report, "version": before.number})
    version = NewVersion(f"{attempt.prefix}/model", description, artifacts_of(manifest))

    def copy_to_data_root(ended: Ended) -> None:
        if ended.version is None:
            return
        try:
            export_newest(parts, repository_id)
        except StorageError as error:
            _log.warning("the repository's folder was not written, the sweep tries again: %s", error)

    return Work(State.FINISHED, report=report, version=version, after=copy_to_data_root)


def copy_files(parts: Parts, repository: Repository, found: Found, copy: Path) -> str | None:
    """Copy what was found out of a folder; returns the text of its metrics.json."""
    folder = folder_of(parts, repository)
    copy_out(folder, found.files, copy)
    return read_text(folder, METRICS)


def copy_weights(parts: Parts, repository: Repository, weights: str, copy: Path) -> str:
    """Copy the file that `model.weights` names, as the newest one; returns its name.

    weights : a name in the repository, or a path inside a data root. Raises ModelUnusable, OutsideDataRoots.
    """
    if "/" in weights:
        path = parts.data_roots.resolve(weights)
        folder, name = path.parent, path.name
    elif repository.is_folder:
        folder, name = folder_of(parts, repository), weights
    else:
        raise ModelUnusable(f"model.weights is {weights!r}, but the repository has no folder; give the path of a file")
    if not copy_out(folder, [name], copy):
        raise ModelUnusable(f"model.weights is {weights!r}, and no such file lies there")
    os.utime(copy / name)
    return name


def describe(copy: Path, spec: Json, repository: Repository, metrics: str | None) -> Json:
    """The description of the newest model in a copied folder; our own files beside it are made to fit it.

    metrics : the text of metrics.json, whose curves a resumed training continues.
    Raises ModelUnusable when there is no model or it does not fit the service.
    """
    service = {
        "mllib": spec["mllib"],
        "type": spec.get("type", "supervised"),
        "model": {"repository": repository.location},
        "parameters": spec["parameters"],
    }
    description = serving.describe_folder(copy, load_service(service).value)
    _settle_progress(copy, description, metrics)
    (copy / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
    return description


def _settle_progress(copy: Path, description: Json, metrics: str | None) -> None:
    """Keep training.json if it is about this model; else make one of what another server's files tell."""
    kept = copy / PROGRESS
    if kept.exists() and kept.stat().st_size <= TEXT_BYTES and _is_of(copy, description["digest"]):
        try:
            read_progress(copy)
            return
        except ModelUnusable:
            pass
    kept.unlink(missing_ok=True)
    try:
        answer = json.loads(metrics or "null")
        done = iteration_of(description["file"]) or 0
        progress = progress_from(answer, read_text(copy, BEST), done)
    except (ValueError, RecursionError):
        return
    if progress is not None:
        write_progress(copy, progress)


def _is_of(copy: Path, digest: str) -> bool:
    """Whether what a training wrote of a model is about the file with that digest."""
    try:
        return bool(json.loads(read_text(copy, DESCRIPTION) or "null")["digest"] == digest)
    except (ValueError, KeyError, TypeError, RecursionError):
        return False
