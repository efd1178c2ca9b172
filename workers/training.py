"""The work of a training task: data in, a child at work, a version out."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from ml.options.catalog import libraries
from storage.errors import ArtifactNotFound, ChecksumMismatch, StorageError
from storage.objects.manifest import download_folder, read_manifest, upload_folder
from storage.records import Attempt, Ended, NewVersion, State
from workers.child import Standby
from workers.child_work import ChildWork
from workers.deaths import after_death
from workers.export import export_newest
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.metrics import TellingFolder, telling_of
from workers.parts import Parts
from workers.previous import previous_of
from workers.publishing import after_training
from workers.saying import say
from workers.scratch import Scratch
from workers.supervisor import Outcome, Telling
from workers.version_files import artifacts_of

_log = logging.getLogger(__name__)
Json = dict[str, Any]


class Training(ChildWork):
    """Does the trainings of one worker process, one at a time."""

    def __init__(self, parts: Parts, scratch: Scratch, standby: Standby, is_stopping: Callable[[], bool]) -> None:
        super().__init__(parts, scratch, is_stopping)
        self._standby = standby

    def __call__(self, attempt: Attempt, lease: LeaseKeeper) -> Work:
        """One attempt; its files live in a scratch folder that is gone afterwards."""
        return self._in_folder(attempt, lease, self._train)

    def prepare(self) -> None:
        """Have a process wait for the next training."""
        self._standby.prepare()

    def close(self) -> None:
        """End the waiting process and give the scratch folder up."""
        self._standby.close()
        self._scratch.close()

    def _train(self, attempt: Attempt, lease: LeaseKeeper, folder: Path, held: ExitStack) -> Work:
        began = time.monotonic()
        parts, settings, spec = self._parts, self._parts.settings, attempt.spec
        data = self._data(attempt, lease, held, for_training=True)
        resume = self._patiently(lambda: self._fetch_checkpoint(attempt, folder), lease)
        previous = self._patiently(
            lambda: previous_of(parts, attempt, folder, lease, self._is_stopping),
            lease,
        )
        specification: Json = {
            "task": attempt.name,
            "backend": spec["mllib"],
            "connector": spec["connector"],
            "parameters": spec["parameters"],
            "data": data,
            "scratch": str(folder),
            "resume": resume,
            "previous": previous.told,
            "threads": settings.threads,
            "device": spec["device"],
            "checkpoint_s": settings.checkpoint_s,
        }
        telling = telling_of(parts, attempt, lease)
        child = self._standby.take(libraries()[spec["mllib"]].engine)
        prepared_s = round(time.monotonic() - began, 4)
        try:
            outcome = self._watched(child, specification, attempt, lease, telling)
        finally:
            if isinstance(telling, TellingFolder):
                telling.close()
            self._keep_log(attempt, child.log)
        outcome.phases = {"preparing": prepared_s, **outcome.phases}
        outcome.warnings += previous.warnings
        if outcome.result is not None and outcome.result["model_folder"] is not None:
            say(parts.live, attempt.task.id, attempt.number, "info", "publishing the model")
        work = self._work(attempt, lease, outcome)
        work.after = self._after(attempt, telling)
        return work

    def _fetch_checkpoint(self, attempt: Attempt, folder: Path) -> str | None:
        checkpoint = attempt.task.checkpoint
        if checkpoint is None:
            return None
        target = folder / "resume"
        try:
            manifest = read_manifest(self._parts.objects, checkpoint["prefix"])
            download_folder(self._parts.objects, manifest, target)
        except (ArtifactNotFound, ChecksumMismatch) as error:
            # Records that were restored from a backup may name files that are gone. The result is the same, later.
            _log.warning("%s starts afresh, its checkpoint cannot be used: %s", attempt.name, error)
            shutil.rmtree(target, ignore_errors=True)
            return None
        return str(target)

    def _work(self, attempt: Attempt, lease: LeaseKeeper, outcome: Outcome) -> Work:
        match outcome.ending:
            case "finished" | "cancelled":
                state = State.FINISHED if outcome.ending == "finished" else State.CANCELLED
                if outcome.result is None or outcome.result["model_folder"] is None:
                    return Work(state, phases=outcome.phases)  # killed, or cancelled before its first iteration
                lease.check()
                began = time.monotonic()
                result = outcome.result
                version = self._patiently(lambda: self._upload(attempt, result), lease)
                outcome.phases["publishing"] = round(time.monotonic() - began, 4)
                following = None
                if state is State.FINISHED:
                    following, remarks = after_training(self._parts, attempt, Path(result["model_folder"]))
                    outcome.warnings += remarks
                report = {
                    **outcome.result["report"],
                    # What the options warned of stands in the task already.
                    "warnings": [each for each in outcome.warnings if each not in attempt.task.warnings],
                    "iteration": outcome.result["iteration"],
                    "peak_bytes": outcome.result.get("peak_bytes"),
                }
                return Work(state, report=report, version=version, phases=outcome.phases, following=following)
            case "paused":
                return Work(State.QUEUED, "paused", phases=outcome.phases)
            case "killed":
                return after_death(self._parts, attempt, outcome)
            case "failed":
                return Work(State.FAILED, failure=outcome.failure, phases=outcome.phases)

    def _upload(self, attempt: Attempt, result: Json) -> NewVersion:
        prefix = f"{attempt.prefix}/model"
        manifest = upload_folder(self._parts.objects, prefix, Path(result["model_folder"]))
        return NewVersion(prefix, result["description"], artifacts_of(manifest))

    def _after(self, attempt: Attempt, telling: Telling) -> Callable[[Ended], None]:
        def write_folder(ended: Ended) -> None:
            """Bring the model to the repository's folder, or else what became of the training."""
            if attempt.task.repository_id is None:
                return
            try:
                if ended.version is not None:
                    export_newest(self._parts, attempt.task.repository_id)
                elif ended.state.is_final and isinstance(telling, TellingFolder):
                    telling.write_end(self._parts.records.tasks.get(attempt.task.id))
            except StorageError as error:
                _log.warning("the repository's folder was not written, the sweep tries again: %s", error)

        return write_folder

    def _keep_log(self, attempt: Attempt, log: Path) -> None:
        try:
            if log.exists() and log.stat().st_size:
                self._parts.objects.put_file(f"{attempt.prefix}/log.txt", log)
        except StorageError as error:
            _log.warning("the log of %s was not kept: %s", attempt.name, error)
        finally:
            log.unlink(missing_ok=True)
