"""Unpacking what somebody else packed, in a process of its own that may do little else (`workers/unpack.py`)."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from ml import isolation
from ml.errors import NotIsolated
from ml.opening import open_unlinked
from storage.errors import StorageFull, StoreUnavailable
from workers import unpack

Json = dict[str, Any]

MEMBERS_MAX = 10_000
_MEMORY_BYTES = 2 * 2**30
_WAIT_S = 3600.0


class Unpackable(Exception):
    """An archive that cannot or must not be unpacked; the text says why."""


def unpacked(
    archive: Path, folder: Path, limit_bytes: int, *, is_tree: bool = False, is_resolved: bool = False
) -> Json:
    """Write the files of an archive into an empty folder; returns the names of `files`, and of those `skipped`.

    limit_bytes : most bytes of all members together.
    is_tree : whether files keep their folders; else those side by side are taken, the others skipped.
    is_resolved : as that of `ml.connectors.source.FileSource`.
    Raises Unpackable, StorageFull, StoreUnavailable; NotIsolated where isolation is required and cannot be had.
    """
    limits = [str(limit_bytes), str(MEMBERS_MAX), str(_MEMORY_BYTES)]
    words = [*(["tree"] if is_tree else []), *(["isolated"] if isolation.is_required() else [])]
    command = [sys.executable, "-I", "-S", unpack.__file__, "-", str(folder), *limits, *words]
    try:
        with open(_descriptor(archive, is_resolved), "rb") as packed:
            done = subprocess.run(command, env={}, stdin=packed, capture_output=True, timeout=_WAIT_S, check=False)
    except subprocess.TimeoutExpired:
        raise Unpackable(f"unpacking it takes longer than {_WAIT_S:g} s") from None
    except OSError as error:
        raise StoreUnavailable(f"no process could be started to unpack an archive: {error.strerror}") from error
    try:
        made: Json = json.loads(done.stdout)
    except ValueError:
        raise Unpackable("unpacking it ended the unpacking process") from None
    if "is_in_network" in made:
        raise NotIsolated
    if "error" in made:
        if os.strerror(errno.ENOSPC) in made["error"]:
            raise StorageFull(made["error"])
        raise Unpackable(made["error"])
    return made


def _descriptor(archive: Path, is_resolved: bool) -> int:
    try:
        return open_unlinked(archive) if is_resolved else os.open(archive, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise Unpackable(f"it cannot be read: {error.strerror}") from None
