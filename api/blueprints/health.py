"""/healthz: this process lives. /readyz: the server can do its work."""

from __future__ import annotations

import logging
from collections.abc import Callable

from flask import Blueprint, Response

from api.answers import Json, plain
from api.parts import Parts, parts
from storage.errors import StorageError

blueprint = Blueprint("health", __name__)

OPEN = frozenset({"health.healthz", "health.readyz"})
"""Endpoints that need no key."""

_KINDS = ("train", "predict", "control")
_log = logging.getLogger(__name__)


@blueprint.get("/healthz")
def healthz() -> Response:
    """Answers as long as the process does; touches nothing else."""
    return plain({"status": "ok"})


@blueprint.get("/readyz")
def readyz() -> Response:
    """200 when every part answers and a worker of each kind was seen lately, else 503 with what is missing."""
    here = parts()
    missing: Json = {}
    checks: dict[str, Callable[[], object]] = {
        "records": here.records.check,
        "redis": here.live.check,
        "objects": lambda: here.objects.check(),
    }
    for name, check in checks.items():
        try:
            check()
        except StorageError as error:
            _log.warning("not ready, %s: %s", name, error)
            # Addresses and users of servers are nobody else's business.
            missing[name] = str(error) if here.settings.is_loopback else error.kind
    workers, sweep_age_s = ({}, None) if "redis" in missing else _workers(here)
    for kind in () if "redis" in missing else _KINDS:
        if not workers.get(kind):
            missing[f"workers.{kind}"] = f"no worker of a {kind} queue was seen within the last 15 s"
    stale_s = max(30.0, 10 * here.settings.sweep_s)
    if sweep_age_s is not None and sweep_age_s > stale_s:
        missing["sweep"] = f"the last sweep ended {sweep_age_s:.0f} s ago; look at the control worker"
    answer = {
        "ready": not missing,
        "missing": missing,
        "workers": workers,
        "sweep_age_s": None if sweep_age_s is None else round(sweep_age_s, 1),
    }
    return plain(answer, 503 if missing else 200)


def _workers(here: Parts) -> tuple[Json, float | None]:
    """Living workers by kind of queue, and the seconds since the last sweep."""
    try:
        beats = here.live.heartbeats.all()
        sweep_age_s = here.live.heartbeats.sweep_age_s()
    except StorageError as error:
        _log.warning("not ready, redis: %s", error)
        return {}, None
    counts = {
        kind: sum(any(queue.partition(".")[0] == kind for queue in beat.queues) for beat in beats) for kind in _KINDS
    }
    return counts, sweep_age_s
