"""Copying the best model of a repository into another: `target_repository` of trainings, `from_repository` of services.

The copy is an import task of the target repository, so that its version is published like any other: once, in its turn.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml.errors import ModelUnusable
from ml.options.service import without_db
from ml.registry import find
from ml.repository_files import (
    BEST,
    CONFIG,
    DESCRIPTION,
    METRICS,
    REPORTS,
    REQUEST,
    best_iteration,
    is_model,
    iteration_of,
    published,
)
from storage import repository_folder
from storage.landing import sha256_of
from storage.objects.manifest import upload_folder
from storage.records import Attempt, Kind, NewTask, Repository, Version
from workers.folders import folder_of, waiting_to_write
from workers.importing import Found, describe, look_into, newest_of, read_text
from workers.importing import published as published_work
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.metrics import answer_of
from workers.parts import Parts
from workers.queue import CONTROL_QUEUE
from workers.scratch import Scratch
from workers.version_files import manifest_of

Json = dict[str, Any]

_PARAMETER = "parameters.output.target_repository"


def after_training(parts: Parts, attempt: Attempt, model_folder: Path) -> tuple[NewTask | None, list[Json]]:
    """The task that copies what a training is about to publish into its `target_repository`; and warnings."""
    spec = attempt.spec
    target_id = spec.get("target_repository_id")
    if target_id is None:
        return None, []
    target = parts.records.repositories.get(target_id).name
    warnings = []
    if find(spec["mllib"]).INFO.keeps_best:
        if best_iteration(read_text(model_folder, BEST) or "") is None:
            text = (
                f"nothing was copied to {target}: the training measured nothing by which a best model could be chosen; "
                "give it a test set, or parameters.input.test_split, and a measure"
            )
            return None, [{"parameter": _PARAMETER, "message": text}]
    else:
        text = f"{spec['mllib']} keeps no best model: the copy in {target} is the final one"
        warnings.append({"parameter": _PARAMETER, "message": text})
    copying: Json = {
        "service": spec.get("service"),
        "mllib": spec["mllib"],
        "parameters": spec["parameters"],
        "repository_id": target_id,
        "source": {"task_id": attempt.task.id},
        "config": spec.get("target_config"),
    }
    return NewTask(Kind.IMPORT, CONTROL_QUEUE, copying, attempt.task.service_id, target_id), warnings


def publish(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Copy the best model that a training published, that a repository holds, or that lies in a folder.

    Raises ModelUnusable when there is none, RepositoryUnusable when the folder cannot be read.
    """
    spec = attempt.spec
    scratch = Scratch(parts.settings.scratch)
    try:
        copy = scratch.attempt(attempt.name)
        with _source(parts, spec["source"], spec["mllib"], lease) as source:
            file = _best_file(source, spec["mllib"])
            endings = find(spec["mllib"]).INFO.files
            repository_folder.copy_out(source.folder, published(source.names, endings, file), copy)
            description = _description(parts, spec, source, file, copy)
            for name, content in _reports(parts, spec, source).items():
                text = json.dumps(content, ensure_ascii=False, indent=1)
                (copy / name).write_text(text, encoding="utf-8")
        lease.check()
        manifest = upload_folder(parts.objects, f"{attempt.prefix}/model", copy)
    finally:
        scratch.close()
    return published_work(parts, attempt, lease, manifest, description)


@dataclass(frozen=True)
class _Source:
    """Where a model is copied from.

    folder : a readable folder with the files called `names`. version : what they are, when a version is copied.
    """

    folder: Path
    names: Collection[str]
    version: Version | None = None


@contextmanager
def _source(parts: Parts, given: Json, mllib: str, lease: LeaseKeeper) -> Iterator[_Source]:
    if "folder" in given:
        folder = parts.data_roots.resolve(given["folder"])
        yield _Source(folder, list(repository_folder.look(folder)))
        return
    if "task_id" in given:
        version = parts.records.versions.of_task(given["task_id"])
    else:
        repository = parts.records.repositories.get(given["repository_id"])
        version = newest_of(parts, repository.id)
        if repository.is_folder:
            found = _looked_into(parts, repository, mllib, lease)
            if found.is_changed:  # what lies there is newer, and nobody has taken it over yet
                yield _Source(folder_of(parts, repository), sorted(found.files))
                return
    if version is None:
        raise ModelUnusable("the repository to publish from holds no model; train in it first")
    with parts.cache.folder(parts.objects, manifest_of(version)) as files:
        yield _Source(files, [each.name for each in version.artifacts], version)


def _looked_into(parts: Parts, repository: Repository, mllib: str, lease: LeaseKeeper) -> Found:
    with waiting_to_write(parts, repository.id, lambda: lease.is_lost or lease.is_cancel_requested) as turn:
        return look_into(parts, parts.records.repositories.get(repository.id), mllib, turn)


def _best_file(source: _Source, mllib: str) -> str:
    """The model of the iteration that best_model.txt names; without one the final or newest model."""
    endings = find(mllib).INFO.files
    models = [name for name in source.names if is_model(name, endings)]
    final = source.version.description["file"] if source.version is not None else None
    if final is None:
        seen = repository_folder.look(source.folder)
        final = max(models, key=lambda name: (seen[name].mtime_ns, name), default=None)
    if final is None or final not in models:
        raise ModelUnusable(f"the repository to publish from holds no model of {mllib}; train in it first")
    best = best_iteration(read_text(source.folder, BEST) or "")
    kept = [name for name in models if best is not None and iteration_of(name) == best]
    # A head that was trained on a frozen network is of another kind than the network itself.
    kept.sort(key=lambda name: (Path(name).suffix != Path(final).suffix, name))
    return kept[0] if kept else str(final)


def _description(parts: Parts, spec: Json, source: _Source, file: str, copy: Path) -> Json:
    """What the copied model is; written beside it as well."""
    target = parts.records.repositories.get(spec["repository_id"])
    if source.version is None:
        return describe(copy, spec, target, None)
    if source.version.description.get("backend") != spec["mllib"]:
        raise ModelUnusable(
            f"the repository to publish from holds a model of {source.version.description.get('backend')}, "
            f"the service is one of {spec['mllib']}"
        )
    description = {**source.version.description, "file": file, "digest": sha256_of(copy / file)}
    if iteration_of(file) is not None and file != source.version.description["file"]:
        description["rounds"] = iteration_of(file)
    if isinstance(description.get("parameters"), Mapping):
        description["parameters"] = without_db(description["parameters"])
    (copy / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")
    return description


def _reports(parts: Parts, spec: Json, source: _Source) -> dict[str, Json]:
    """config.json, model.json and metrics.json of the copy; the data base of the training is not copied with it."""
    found: dict[str, Json] = {}
    if source.version is None:
        for name in REPORTS:
            try:
                kept = json.loads(read_text(source.folder, name) or "null")
            except (ValueError, RecursionError):
                continue
            if isinstance(kept, dict):
                found[name] = kept
    else:
        task = parts.records.tasks.get(source.version.task_id)
        if task.kind is Kind.TRAIN:
            found[REQUEST] = parts.records.tasks.spec(task.id).get("request") or {}
            found[METRICS] = answer_of(parts, task)
    if spec.get("config"):
        found[CONFIG] = spec["config"]
    for name in (CONFIG, REQUEST):
        if name in found and isinstance(found[name].get("parameters"), Mapping):
            found[name] = {**found[name], "parameters": without_db(found[name]["parameters"])}
    return found
