"""Looking what the tables of a data set hold, for whoever uploaded them."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path, PurePosixPath
from typing import Any

from ml import isolation
from ml.errors import NotIsolated
from storage.dataset_names import SCHEME
from storage.records import Attempt, State
from workers.datasets import fetched
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts

Json = dict[str, Any]

KINDS = {".csv": "csv", ".svm": "svm", ".libsvm": "svm"}
"""What a file is, by the end of its name."""

_WAIT_S = 3600.0
_log = logging.getLogger(__name__)


def describe(parts: Parts, attempt: Attempt, lease: LeaseKeeper) -> Work:
    """Keep the facts of each table of a data set that has none yet.

    Raises StoreUnavailable, StorageFull; NotIsolated where isolation is required and cannot be had.
    """
    [(name, (dataset_id, revision))] = attempt.spec["datasets"].items()
    described = 0
    for file in parts.records.datasets.files_at(dataset_id, revision):
        kind = KINDS.get(PurePosixPath(file.path).suffix.lower())
        if kind is None or file.facts is not None:
            continue
        lease.check()
        if lease.is_cancel_requested:
            return Work(State.CANCELLED)
        entry = f"{SCHEME}{name}/{file.path}"
        with fetched(parts, attempt.spec["datasets"], [entry]) as files:
            parts.records.datasets.describe(file.id, _facts(Path(files[entry][0]["path"]), kind))
        described += 1
    return Work(State.FINISHED, report={"file_count": described})


def _facts(path: Path, kind: str) -> Json:
    command = [sys.executable, "-m", "workers.facts", str(path), kind]
    command += ["isolated"] if isolation.is_required() else []
    environment = {"PYTHONPATH": os.pathsep.join(each for each in sys.path if each)}
    try:
        done = subprocess.run(
            command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=_WAIT_S, check=False
        )
        found: Json = json.loads(done.stdout)
    except (ValueError, subprocess.TimeoutExpired) as error:
        _log.warning("a file of a data set could not be looked into: %s", error)
        return {"kind": kind, "error": "looking into it took too long, or too much memory"}
    if "is_in_network" in found:
        raise NotIsolated
    return found
