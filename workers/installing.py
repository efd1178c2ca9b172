"""Installing the model that a service's creation names as an archive: fetched, unpacked, described, published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ml.errors import BadParameter, ModelUnusable
from ml.options import ServiceOptions, load_service
from ml.options.requests import SECTIONS
from ml.registry import find
from ml.repository_files import CONFIG, METRICS, is_model
from settings import Settings
from storage.errors import StorageFull
from storage.fetch import fetch_file, shown
from storage.objects.manifest import upload_folder
from storage.records import Attempt, State
from workers.archives import Unpackable, unpacked
from workers.importing import describe, published, read_text
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts
from workers.scratch import Scratch

Json = dict[str, Any]

_CONFIG_BYTES = 2**20


def install(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Publish what an archive holds; the parameters in its config.json become those of the service.

    Raises BadParameter, ModelUnusable, FetchFailed, OutsideDataRoots, StorageFull.
    """
    spec = attempt.spec
    scratch = Scratch(parts.settings.scratch)
    try:
        folder = scratch.attempt(attempt.name)
        copy = folder / "model"
        copy.mkdir()
        warnings = _unpacked(parts, spec["init"], folder, copy)
        lease.check()
        config = _configuration(copy, spec)
        loaded = load_service(config)
        options = loaded.value
        warnings += [each.as_json() for each in loaded.warnings]
        if not any(is_model(each.name, find(options.library).INFO.files) for each in copy.iterdir()):
            raise ModelUnusable(f"{_told(spec['init'])} holds no model of {options.library}")
        repository = parts.records.repositories.get(spec["repository_id"])
        described = {**spec, "parameters": options.parameters}
        description = describe(copy, described, repository, read_text(copy, METRICS))
        (copy / CONFIG).write_text(json.dumps(config, ensure_ascii=False, indent=1), encoding="utf-8")
        lease.check()
        manifest = upload_folder(parts.objects, f"{attempt.prefix}/model", copy)
    finally:
        scratch.close()
    work = published(parts, attempt, lease, manifest, description)
    if work.state is State.FINISHED:
        _configure(parts, attempt, options)
        work.report = {**(work.report or {}), "warnings": warnings}
    return work


def _unpacked(parts: Parts, init: str, folder: Path, copy: Path) -> list[Json]:
    """Unpack the archive at a path or URL into `copy`; returns warnings."""
    settings = parts.settings
    limit_bytes = settings.archive_limit_bytes
    is_remote = init.startswith(("http://", "https://"))
    if is_remote:
        archive = folder / "archive"
        fetch_archive(init, archive, settings)
    else:
        archive = parts.data_roots.resolve(init)
    made = _run(init, archive, copy, limit_bytes, is_resolved=not is_remote)
    if not made["skipped"]:
        return []
    names = ", ".join(repr(name[:80]) for name in made["skipped"][:3])
    text = (
        f"{len(made['skipped'])} members of {_told(init)} were left out, as only files side by side are taken: {names}"
    )
    return [{"parameter": "model.init", "message": text}]


def fetch_archive(url: str, path: Path, settings: Settings) -> None:
    """Fetch an archive from another host. Raises what `fetch_file` raises."""
    fetch_file(
        url,
        path,
        allow=settings.fetch_allow,
        limit_bytes=settings.fetch_limit_bytes,
        timeout_s=settings.fetch_timeout_s,
    )


def _run(init: str, archive: Path, copy: Path, limit_bytes: int, *, is_resolved: bool) -> Json:
    if not archive.is_file():
        raise BadParameter(name="model.init", section="model", message=f"{_told(init)} is no file that lies there")
    try:
        return unpacked(archive, copy, limit_bytes, is_resolved=is_resolved)
    except Unpackable as error:
        raise _refused(init, str(error)) from None
    except StorageFull as error:
        raise StorageFull(f"{_told(init)}: {error}") from None


def _refused(init: str, reason: str) -> BadParameter:
    return BadParameter(name="model.init", section="model", message=f"{_told(init)} cannot be installed: {reason}")


def _told(init: str) -> str:
    """The archive in messages: without what a URL may carry of credentials."""
    return f"the archive {shown(init) if '://' in init else init[:200]}"


def _configuration(copy: Path, spec: Json) -> Json:
    """The creation request with the parameters that the archive's config.json has, if it has any."""
    config: Json = {**spec["request"], "mllib": spec["mllib"]}
    try:
        kept = json.loads(read_text(copy, CONFIG, _CONFIG_BYTES) or "null")
    except (ValueError, RecursionError):
        raise ModelUnusable(f"{CONFIG} in {_told(spec['init'])} is no JSON") from None
    if not isinstance(kept, dict) or not isinstance(kept.get("parameters"), dict):
        return config
    if kept.get("mllib", spec["mllib"]) != spec["mllib"]:
        raise BadParameter(
            name="mllib",
            section="mllib",
            message=f"{_told(spec['init'])} holds a model of {str(kept['mllib'])[:80]}; "
            f"create the service with that mllib instead of {spec['mllib']}",
        )
    parameters = {}
    for name in SECTIONS:
        section = kept["parameters"].get(name)
        if isinstance(section, list) and len(section) == 1:  # as servers of 2021 wrote it
            section = section[0]
        parameters[name] = section if isinstance(section, dict) else {}
    parameters["input"].setdefault("connector", spec["connector"])
    parameters["mllib"].pop("from_repository", None)
    return {**config, "parameters": parameters}


def _configure(parts: Parts, attempt: Attempt, options: ServiceOptions) -> None:
    if attempt.task.service_id is not None:
        parts.records.services.configure(attempt.task.service_id, mltype=options.mltype, parameters=options.parameters)
