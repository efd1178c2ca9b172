"""Putting a backup into an empty home, and fitting records to a store that were copied one after the other."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from cli.backup.copying import ABOUT, DATA, OBJECTS, RECORDS, NoBackup
from cli.remote.tables import counted
from settings import Settings
from storage.landing import is_partial_name, landing, local_errors, sync_folder
from storage.live import Live
from storage.objects import Objects, connect
from storage.records import Records
from storage.records.schema import REVISION

_ATTEMPT = re.compile(r"attempts/(\d{1,18})/(\d{1,9})/")
_UPLOAD = re.compile(r"(?:uploads/|datasets/\d+/upload-)(\d{1,18})/")


def restore(settings: Settings, source: Path, say: Callable[[str], None] = lambda line: None) -> None:
    """Put the backup in the folder `source` where the settings say; all of these places must be empty.

    One that was interrupted may be begun again. Raises NoBackup, RecordsUnavailable, StoreUnavailable, StorageFull,
    LiveUnavailable.
    """
    _check_backup(source)
    with local_errors(f"{settings.home} cannot be written"):
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
    objects = connect(settings.objects_url, endpoint_url=settings.s3_endpoint_url)
    place = _check_places(settings, source, objects)
    if settings.redis_url is not None:
        _check_stopped(settings)
    count = 0
    for key in _keys_in(source / OBJECTS):
        objects.put_file(key, source / OBJECTS / key)
        count += 1
    say(counted(count, "object"))
    # The records get their name last: they make it an installation.
    copy = place.with_name(f"{place.name}.restored")
    with local_errors(f"{place} cannot be written"):
        place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        for suffix in ("-wal", "-shm"):  # of one that was interrupted; they would be taken for this one's
            Path(f"{copy}{suffix}").unlink(missing_ok=True)
        with (source / RECORDS).open("rb") as content, landing(copy, durable=True, mode=0o600) as file:
            shutil.copyfileobj(content, file, 2**20)
    with contextlib.closing(Records.connect(f"sqlite:///{copy}")) as records:
        records.upgrade()
        interrupted = settle(settings, records, objects)
    _restore_data(settings, source / DATA)
    with local_errors(f"{place} cannot be written"):
        copy.rename(place)
        sync_folder(place.parent)
    say(f"the records; {counted(interrupted, 'task')} to begin or go on again")


def _check_backup(source: Path) -> None:
    try:
        form = str(json.loads((source / ABOUT).read_text(encoding="utf-8"))["records"])
        is_whole = (source / RECORDS).is_file()
    except (OSError, ValueError, KeyError, TypeError):
        is_whole = False
    if not is_whole:
        raise NoBackup(f"{source} holds no complete backup: {ABOUT} is written last, when everything else is there")
    if form > REVISION:
        raise NoBackup(f"{source} was made by a newer version, whose records have form {form}; install that one")


def _keys_in(folder: Path) -> Iterator[str]:
    """The objects of a backup. Not as those of a store, which writes into its folder: this one may be read-only."""

    def fail(error: OSError) -> None:
        raise error

    if not folder.exists():
        return  # there were none
    with local_errors(f"{folder} cannot be read"):
        for place, inner, names in os.walk(folder, onerror=fail):
            if place == str(folder):
                inner[:] = [name for name in inner if not name.startswith(".")]  # no key begins with a dot
            paths = [Path(place, name) for name in names if not is_partial_name(name)]
            yield from (path.relative_to(folder).as_posix() for path in paths if stat.S_ISREG(path.lstat().st_mode))


def _check_places(settings: Settings, source: Path, objects: Objects) -> Path:
    """Where the records are to be. Raises NoBackup when anything lies where something is to be put."""
    with contextlib.closing(Records.connect(settings.database_url)) as records:
        if not records.database.is_sqlite:
            raise NoBackup("MODELYARD_DATABASE_URL names a database server: restore it by its own means")
        place = Path(str(records.database.url.database))
    if place.exists():
        raise NoBackup(f"{place} is there already; restore into another MODELYARD_HOME, or put that one aside")
    for listed in objects.list():
        if not (source / OBJECTS / listed.key).is_file():  # left by a restore that was interrupted
            raise NoBackup("the object store is not empty; name an empty one, or put its content aside")
    root = settings.home / "data"
    if (source / DATA).is_dir():
        if root not in settings.data_roots:
            raise NoBackup(f"the backup has the files of {root}, which MODELYARD_DATA_ROOTS does not name")
        if root.is_dir() and any(root.iterdir()):
            raise NoBackup(f"{root} is not empty; restore into another MODELYARD_HOME, or put it aside")
    return place


def _restore_data(settings: Settings, source: Path) -> None:
    """All of it at once, so that what an interruption leaves is not taken for the user's."""
    if not source.is_dir():
        return
    root, copy = settings.home / "data", settings.home / "data.restored"
    with local_errors(f"{root} cannot be written"):
        root.mkdir(parents=True, exist_ok=True)
        if copy.exists():
            shutil.rmtree(copy)
        shutil.copytree(source, copy, symlinks=True)
        copy.rename(root)


def settle(settings: Settings, records: Records, objects: Objects) -> int:
    """Have records and a Redis of our own go on after records and objects were restored; how many tasks were running.

    Nothing may run meanwhile. Raises NoBackup when a worker does; RecordsUnavailable, StoreUnavailable,
    LiveUnavailable.
    """
    if settings.redis_url is not None:
        _forget_old_time(settings)
    attempts: dict[int, int] = {}
    uploads = 0
    for listed in objects.list():
        if found := _ATTEMPT.match(listed.key):
            task, number = int(found[1]), int(found[2])
            attempts[task] = max(number, attempts.get(task, 0))
        elif found := _UPLOAD.match(listed.key):
            uploads = max(uploads, int(found[1]))
    return records.inventory.go_on(attempts, uploads)


def _forget_old_time(settings: Settings) -> None:
    """Progress and messages in Redis are those of tasks that may have other numbers now."""
    _check_stopped(settings)
    with contextlib.closing(Live(settings.live_url)) as live:
        live.clear()


def _check_stopped(settings: Settings) -> None:
    """Raises NoBackup while a worker gives signs of life."""
    with contextlib.closing(Live(settings.live_url)) as live:
        if beats := live.heartbeats.all():
            names = ", ".join(beat.worker for beat in beats[:5])
            raise NoBackup(f"stop all parts first, and ask again 15 s later; still alive: {names}")
