"""Where the model of an import task comes from."""

from __future__ import annotations

from storage.records import Attempt
from workers.importing import import_folder
from workers.installing import install
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts
from workers.publishing import publish


def import_model(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Make a version of an archive (`init`), of the best model of another place (`source`), or of what lies there."""
    if "init" in attempt.spec:
        return install(parts, attempt, lease)
    if "source" in attempt.spec:
        return publish(parts, attempt, lease)
    return import_folder(parts, attempt, lease)
