"""A copy of records, objects and the home's data root, made while everything runs, that fits together.

The order is what makes it fit. Artifacts are written once and never changed, and stored before a record names them;
they are deleted an hour after the last record stopped naming them at the earliest. So whatever the records name at a
moment can be copied during the hour that follows. All objects are copied first, however long that takes, then the
records in one moment, then the objects that came meanwhile, which is quick.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from cli.remote.tables import counted
from settings import Settings
from storage.errors import ArtifactNotFound, RecordsUnavailable, StorageFull
from storage.landing import is_partial_name, landing, local_errors
from storage.objects import Objects, connect
from storage.records import Records
from storage.records.schema import REVISION

RECORDS, OBJECTS, DATA, ABOUT = "records.db", "objects", "data", "backup.json"
_QUICK_S = 1800.0


class NoBackup(Exception):
    """A backup cannot be made, or cannot be restored; the text tells the operator what to do."""


@dataclass
class Copied:
    """How much was copied. `files` are those of the home's data root."""

    objects: int = 0
    bytes: int = 0
    files: int = 0


def backup(settings: Settings, target: Path, say: Callable[[str], None] = lambda line: None) -> Copied:
    """Copy everything into the folder `target`, which must be empty or missing.

    Raises NoBackup, RecordsUnavailable, StoreUnavailable, StorageFull. What was begun stays, without the file that says
    that it is complete.
    """
    with contextlib.closing(Records.connect(settings.database_url)) as records:
        if not records.database.is_sqlite:
            raise NoBackup("these records are in a database server: use its own means, as docs/operations.md says")
        source = Path(str(records.database.url.database))
        if not source.exists():
            raise NoBackup(f"there is nothing to copy: {source} is missing")
        records.check()
    objects = connect(settings.objects_url, endpoint_url=settings.s3_endpoint_url)
    with local_errors(f"{target} cannot be written"):
        target.mkdir(parents=True, exist_ok=True, mode=0o700)  # requests and digests of keys lie in it
        if any(target.iterdir()):
            raise NoBackup(f"{target} is not empty; name a new folder for each backup")
        target.chmod(0o700)  # it may have been there
    copied = Copied()
    _copy_objects(objects, target / OBJECTS, copied)
    say(f"{counted(copied.objects, 'object')}, {copied.bytes} bytes")
    began = time.monotonic()
    _copy_records(source, target / RECORDS)
    say("the records, as they were in one moment")
    before = copied.objects
    _copy_objects(objects, target / OBJECTS, copied)
    say(f"{counted(copied.objects - before, 'object')} that came meanwhile")
    if time.monotonic() - began > _QUICK_S:
        raise NoBackup("the store grew so fast that some of its objects may have been deleted before they were copied")
    _copy_data(settings, target / DATA, copied)
    if copied.files:
        say(f"{counted(copied.files, 'file')} of {settings.home / 'data'}")
    about = {
        "modelyard": version("modelyard"),
        "records": REVISION,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "objects": copied.objects,
        "bytes": copied.bytes,
        "files": copied.files,
    }
    os.sync()  # all of it is on the disk before the file that says so
    with local_errors(f"{target} cannot be written"), landing(target / ABOUT, durable=True) as file:
        file.write(json.dumps(about, indent=1).encode() + b"\n")
    return copied


def _copy_objects(objects: Objects, folder: Path, copied: Copied) -> None:
    """Copy what is not there yet."""
    for listed in objects.list():
        path = folder / listed.key
        if path.exists():
            continue
        with local_errors(f"{path} cannot be written"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(ArtifactNotFound):  # it was deleted meanwhile
            copied.bytes += objects.get_file(listed.key, path).size
            copied.objects += 1


def _copy_records(source: Path, target: Path) -> None:
    """SQLite's own copy of a database that others write to: all of one moment, or an error."""
    try:
        with (
            contextlib.closing(sqlite3.connect(f"{source.as_uri()}?mode=ro", uri=True, timeout=15)) as opened,
            contextlib.closing(sqlite3.connect(target)) as copy,
        ):
            opened.backup(copy)
    except sqlite3.Error as error:
        full = "full" in str(error)
        raise (StorageFull if full else RecordsUnavailable)(f"the records cannot be copied: {error}") from error


def _copy_data(settings: Settings, target: Path, copied: Copied) -> None:
    """The data root in the home, after the records: a repository's folder is never older than what they say of it."""
    root = settings.home / "data"
    if root not in settings.data_roots or not root.is_dir():
        return

    def copy(source: str, to: str) -> str:
        with contextlib.suppress(FileNotFoundError):  # users and trainings go on writing
            shutil.copy2(source, to, follow_symlinks=False)
            copied.files += 1
        return to

    def left_out(folder: str, names: list[str]) -> list[str]:
        return [name for name in names if is_partial_name(name) or not _is_plain(Path(folder, name))]

    with local_errors(f"{target} cannot be written"):
        try:
            shutil.copytree(root, target, symlinks=True, copy_function=copy, ignore=left_out)
        except shutil.Error as error:
            raise NoBackup(f"{root} could not be copied whole: {error.args[0][0][2]}") from error


def _is_plain(path: Path) -> bool:
    """Whether it is a file, a folder or a link: pipes and sockets cannot be copied."""
    return path.is_symlink() or path.is_file() or path.is_dir()
