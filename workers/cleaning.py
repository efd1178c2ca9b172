"""Retention: old versions, the files of ended attempts, and inputs that nobody needs any more."""

from __future__ import annotations

import logging
import time

from storage.errors import StorageError
from storage.records import Task
from workers.parts import Parts

_GRACE_S = 3600.0
"""Nothing younger is cleaned: a worker that was taken over may still be writing below its own attempt."""

_INPUTS_S = 86400.0
_UPLOADS_S = 7 * 86400.0
_log = logging.getLogger(__name__)


def clean(parts: Parts, grace_s: float = _GRACE_S) -> None:
    """One round of cleaning; what fails is tried again in the next."""
    try:
        parts.records.deliveries.forget(parts.settings.webhook_kept_s)
        parts.records.versions.remove_old(parts.settings.versions_kept)
        for version_id, prefix in parts.records.versions.removed_prefixes(grace_s):
            parts.objects.delete_prefix(prefix)
            parts.records.versions.forget_artifacts(version_id)
        for task in parts.records.tasks.ended_uncleaned(max(grace_s, parts.settings.attempts_kept_s)):
            _clean_task(parts, task)
        _clean_inputs(parts)
        _clean_datasets(parts, grace_s)
        parts.records.audit.sweep(parts.settings.audit_kept_days * 86400.0)
        parts.objects.clean(older_than_s=grace_s)
    except StorageError as error:
        _log.warning("cleaning stopped early: %s", error)


def _clean_task(parts: Parts, task: Task) -> None:
    """Delete what the attempts of an ended task left, but for the versions that came of them."""
    place = f"attempts/{task.id}"
    kept = set()
    if task.repository_id is not None:
        for version in parts.records.versions.stored_under(task.repository_id, place):
            kept |= {artifact.key for artifact in version.artifacts} | {f"{version.prefix}/manifest.json"}
    parts.objects.delete([listed.key for listed in parts.objects.list(place) if listed.key not in kept])
    spec = parts.records.tasks.spec(task.id)
    if "data_key" in spec:
        parts.objects.delete([spec["data_key"]])
    parts.records.tasks.mark_cleaned(task.id)


def _clean_inputs(parts: Parts) -> None:
    """Delete inputs whose request never became a task, or whose prediction is long over; their keys say their age."""
    now = time.time()
    left = []
    needed = parts.records.tasks.open_data_keys()
    for listed in parts.objects.list("inputs"):
        born = listed.key.removeprefix("inputs/").partition("-")[0]
        if listed.key not in needed and born.isdigit() and now - int(born) > _INPUTS_S:
            left.append(listed.key)
    if left:
        parts.objects.delete(left)


def _clean_datasets(parts: Parts, grace_s: float) -> None:
    """Delete files that left their data sets and that no task needs any more, and what is left of uploads."""
    # The grace covers requests that found a file and are not tasks yet, and predictions, which never are.
    datasets, uploads = parts.records.datasets, parts.records.uploads
    if left := datasets.left_files(parts.records.tasks.open_pins(), grace_s, max(grace_s, _INPUTS_S)):
        parts.objects.delete([key for _, key in left])
        datasets.forget_files([number for number, _ in left])
    for upload in uploads.left(grace_s, max(grace_s, _UPLOADS_S)):
        uploads.end(upload.id)  # whoever still sends parts is told that it is over
        # In one go: whoever has a link may write faster than anybody deletes, and is to hold up nothing.
        parts.objects.delete([listed.key for listed in parts.objects.list(upload.prefix)])
        uploads.note_cleaned([upload.id])
