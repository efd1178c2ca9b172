"""Retention: old versions, the files of ended attempts, and inputs that nobody needs any more."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable

from storage.errors import StorageError
from storage.records import Task
from workers.parts import Parts

_GRACE_S = 3600.0
"""Nothing younger is cleaned: a worker that was taken over may still be writing below its own attempt."""

_TURN_S = 5.0
_INPUTS_S = 86400.0
_UPLOADS_S = 7 * 86400.0
_AT_ONCE = 20
_FILES_AT_ONCE = 1000
_log = logging.getLogger(__name__)

Step = Callable[[Parts, float], bool]
"""Cleans some of what is older than so many seconds; returns whether there may be more."""


def clean(
    parts: Parts, grace_s: float = _GRACE_S, left: Iterable[Step] | None = None, within_s: float = _TURN_S
) -> list[Step]:
    """Clean for about so long, a little of each kind in turn; returns the steps to go on with, none when all is clean.

    left : what the call before returned; None begins anew. A step that fails has to wait for that, and all have to
    when it took that long: a store that does not even refuse is not asked again at once.
    """
    until = time.monotonic() + within_s
    waiting = deque(STEPS if left is None else left)
    while waiting:
        step = waiting.popleft()
        try:
            if step(parts, grace_s):
                waiting.append(step)
        except StorageError as error:
            _log.warning("cleaning stopped early: %s", error)
            if time.monotonic() >= until:
                return []
        if time.monotonic() >= until:
            break
    return list(waiting)


def _forget_deliveries(parts: Parts, grace_s: float) -> bool:
    return parts.records.deliveries.forget(parts.settings.webhook_kept_s) > 0


def _sweep_audit(parts: Parts, grace_s: float) -> bool:
    return parts.records.audit.sweep(parts.settings.audit_kept_days * 86400.0)


def _clean_versions(parts: Parts, grace_s: float) -> bool:
    parts.records.versions.remove_old(parts.settings.versions_kept)
    removed = parts.records.versions.removed_prefixes(grace_s, _AT_ONCE)
    for version_id, prefix in removed:
        parts.objects.delete_prefix(prefix)
        parts.records.versions.forget_artifacts(version_id)
    return len(removed) == _AT_ONCE


def _clean_tasks(parts: Parts, grace_s: float) -> bool:
    ended = parts.records.tasks.ended_uncleaned(max(grace_s, parts.settings.attempts_kept_s), _AT_ONCE)
    for task in ended:
        _clean_task(parts, task)
    return len(ended) == _AT_ONCE


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


def _clean_inputs(parts: Parts, grace_s: float) -> bool:
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
    return False


def _clean_files(parts: Parts, grace_s: float) -> bool:
    """Delete files that left their data sets and that no task needs any more, or that never came in."""
    # The grace covers requests that found a file and are not tasks yet, and predictions, which never are.
    datasets, pins = parts.records.datasets, parts.records.tasks.open_pins()
    left = datasets.left_files(pins, grace_s, max(grace_s, _INPUTS_S), _FILES_AT_ONCE)
    if left:
        parts.objects.delete([key for _, key in left])
        datasets.forget_files([number for number, _ in left])
    return len(left) == _FILES_AT_ONCE


def _clean_uploads(parts: Parts, grace_s: float) -> bool:
    uploads = parts.records.uploads
    uploads.end_whole(grace_s)
    over = uploads.left(grace_s, max(grace_s, _UPLOADS_S), _AT_ONCE)
    for upload in over:
        uploads.end(upload.id)  # whoever still sends parts is told that it is over
        # In one go: whoever has a link may write faster than anybody deletes, and is to hold up nothing.
        parts.objects.delete([listed.key for listed in parts.objects.list(upload.prefix)])
        uploads.note_cleaned([upload.id])
    return len(over) == _AT_ONCE


def _clean_store(parts: Parts, grace_s: float) -> bool:
    parts.objects.clean(older_than_s=grace_s)
    return False


STEPS: tuple[Step, ...] = (
    _forget_deliveries,
    _sweep_audit,
    _clean_versions,
    _clean_tasks,
    _clean_inputs,
    _clean_files,
    _clean_uploads,
    _clean_store,
)
"""Those that need no object store come first, so that they are done also while it is away."""
