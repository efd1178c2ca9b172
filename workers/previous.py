"""What a training finds in its repository: the newest version, and before that what somebody put there by hand."""

from __future__ import annotations

import logging
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ml.errors import MlError, ModelUnusable
from ml.options import wants_previous
from storage.errors import RepositoryUnusable, StorageError, StorageFull
from storage.objects.manifest import upload_folder
from storage.records import Attempt, NewVersion, Repository, Version
from workers.export import export_newest
from workers.folders import waiting_to_write
from workers.importing import Found, copy_files, copy_weights, describe, is_untouched, look_into, newest_of
from workers.lease import LeaseKeeper
from workers.parts import Parts
from workers.version_files import artifacts_of, manifest_of

Json = dict[str, Any]

_log = logging.getLogger(__name__)


@dataclass
class Previous:
    """What the training process is told of its repository (None: there is nothing), and what the client is told."""

    told: Json | None = None
    warnings: list[Json] = field(default_factory=list)


def previous_of(
    parts: Parts, attempt: Attempt, folder: Path, lease: LeaseKeeper, is_stopping: Callable[[], bool]
) -> Previous:
    """What the repository holds already; with its files in `folder` when the training is to start from them.

    Files that somebody changed in the repository's own folder become a version of their own first. Those that cannot,
    because they do not fit the service, are handed to a training that wants to start from them all the same.
    """
    if attempt.task.repository_id is None:
        return Previous()
    spec = attempt.spec
    is_wanted = wants_previous(spec["mllib"], spec["connector"], spec["parameters"])
    repository = parts.records.repositories.get(attempt.task.repository_id)
    previous, version = Previous(), newest_of(parts, repository.id)
    # An attempt that goes on from a checkpoint has heeded all this already.
    if repository.is_folder and attempt.task.checkpoint is None:
        by_hand = _ByHand(parts, attempt, repository, folder, lease, is_stopping)
        found = by_hand.take_over()
        # Who removes every model by hand wants to begin anew; predictions go on with the version until then.
        version = None if found.is_emptied else newest_of(parts, repository.id)
        if by_hand.refusal is not None:
            if is_wanted and found.is_changed:
                previous.told = {"files": sorted(found.files), "folder": str(by_hand.copy), "description": {}}
                return previous
            text = f"the model files that lie in {repository.location} were not taken over: {by_hand.refusal}"
            previous.warnings.append({"parameter": "model.repository", "message": text})
    if version is not None:
        previous.told = _of_version(parts, version, folder / "previous" if is_wanted else None)
    elif is_wanted and spec.get("weights"):
        copy = folder / "previous"
        copy.mkdir(exist_ok=True)
        name = copy_weights(parts, repository, spec["weights"], copy)
        previous.told = {"files": [name], "folder": str(copy), "description": {}}
    return previous


def _of_version(parts: Parts, version: Version, copy: Path | None) -> Json:
    told: Json = {"files": [each.name for each in version.artifacts], "description": version.description}
    if copy is not None:
        with parts.cache.folder(parts.objects, manifest_of(version)) as files:
            shutil.copytree(files, copy, symlinks=False, dirs_exist_ok=True)
        told["folder"] = str(copy)
    return told


class _ByHand:
    """Takes over what lies in a repository's folder and not in its newest version."""

    def __init__(
        self,
        parts: Parts,
        attempt: Attempt,
        repository: Repository,
        folder: Path,
        lease: LeaseKeeper,
        is_stopping: Callable[[], bool],
    ) -> None:
        self._parts = parts
        self._attempt = attempt
        self._repository = repository
        self._lease = lease
        self._is_stopping = is_stopping
        self.copy = folder / "found"
        self.refusal: MlError | StorageError | None = None

    def take_over(self) -> Found:
        """Publish the changes, if there are any; `refusal` tells why that could not be."""
        shutil.rmtree(self.copy, ignore_errors=True)
        nothing = Found(None, frozenset(), is_changed=False, is_emptied=False)
        try:
            if is_untouched(self._parts, self._repository, self._attempt.spec["mllib"]):
                return nothing
            with waiting_to_write(self._parts, self._repository.id, self._is_pointless) as turn:
                repository = self._parts.records.repositories.get(self._repository.id)
                found = look_into(self._parts, repository, self._attempt.spec["mllib"], turn)
                if not found.is_changed:
                    return found
                self.copy.mkdir()
                metrics = copy_files(self._parts, repository, found, self.copy)
        except (RepositoryUnusable, StorageFull) as error:
            # The folder is a copy; what is in the records goes on, and the client is told.
            self.refusal = error
            return nothing
        try:
            description = describe(self.copy, self._attempt.spec, self._repository, metrics)
        except ModelUnusable as error:
            self.refusal = error
        else:
            self._publish(description)
        return found

    def _publish(self, description: Json) -> None:
        parts, attempt = self._parts, self._attempt
        # Of this try alone: when the store fell silent in between, the next one may find other files.
        prefix = f"{attempt.prefix}/found-{uuid.uuid4().hex[:8]}"
        manifest = upload_folder(parts.objects, prefix, self.copy)
        self._lease.check()
        spec = {
            "service": attempt.spec.get("service"),
            "mllib": attempt.spec["mllib"],
            "parameters": attempt.spec["parameters"],
            "repository_id": self._repository.id,
        }
        version = NewVersion(prefix, description, artifacts_of(manifest))
        number = parts.records.tasks.adopt(attempt, spec, version, {"mltype": description["mltype"]})
        _log.info("%s found model files that somebody had put there: version %s", attempt.name, number)
        try:
            export_newest(parts, self._repository.id)
        except StorageError as error:
            _log.warning("the repository's folder was not written, the sweep tries again: %s", error)

    def _is_pointless(self) -> bool:
        return self._lease.is_lost or self._lease.is_cancel_requested or self._is_stopping()
