"""The side of a model repository that lies in a data root, where users find and put files.

Callers resolve the folder with `DataRoots` first. Nothing here follows a link inside the folder: a name is replaced
or removed itself, never what it points to.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from storage.errors import RepositoryUnusable, StorageFull
from storage.landing import FULL, is_partial_name, landing, partial_name, sync_folder

MARKER = ".modelyard.json"
FOLDER_MODE = 0o775
_FILE_MODE = 0o664
_MARKER_LIMIT_BYTES = 2**20
_LEFTOVER_S = 3600.0

Mode = Literal["lib", "full", "dir"]


def prepare(folder: Path, create: bool) -> None:
    """Return when files can be written into `folder`, as a real attempt shows.

    create : make the folder and the missing ones above it, with permissions 775.
    Raises RepositoryUnusable when a file has the name, or the folder is missing or cannot be written;
    StorageFull when no space is left.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise RepositoryUnusable(f"file exists with same name as repository {folder}")
    with _errors(f"destination model directory {folder} is not writable or does not exist."):
        if create:
            _make(folder)
        probe = folder / partial_name()
        try:
            with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "wb") as file:
                file.write(b"x")
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()


def write_file(folder: Path, name: str, content: bytes | Path) -> None:
    """Give `folder` a file that appears whole, in place of one of that name, and survives a power cut.

    name : one name, not a path. content : the bytes, or a local file to copy.
    Raises RepositoryUnusable, StorageFull; OSError when the local file cannot be read.
    """
    _check_name(name)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(content.open("rb")) if isinstance(content, Path) else None
        stack.enter_context(_errors(f"{name!r} cannot be written to the repository {folder}"))
        with landing(folder / name, durable=True, mode=_FILE_MODE) as file:
            if source is not None:
                shutil.copyfileobj(source, file, 2**20)
            else:
                assert isinstance(content, bytes)
                file.write(content)


def export(folder: Path, files: Mapping[str, bytes | Path], marker: Mapping[str, Any]) -> None:
    """Write all `files`, then the marker, which says that they are the ones it speaks of.

    marker : JSON, kept as `.modelyard.json`. A former marker stays until the new one replaces it.
    Doing it again after an interruption is harmless; old temporary files are removed on the way.
    Raises what `write_file` raises.
    """
    if MARKER in files:
        raise RepositoryUnusable(f"{MARKER!r} is the name of the marker and cannot be a file of the repository")
    _remove_leftovers(folder)
    for name, content in files.items():
        write_file(folder, name, content)
    write_file(folder, MARKER, json.dumps(marker, indent=1, sort_keys=True).encode())


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of the last complete export; None when there is none or it was spoilt by hand.

    Raises RepositoryUnusable when it cannot be read.
    """
    with _errors(f"the marker of the repository {folder} cannot be read"):
        try:
            descriptor = os.open(folder / MARKER, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:  # a link, a file for a folder, a pipe
                return None
            raise
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.close(descriptor)
            return None
        with open(descriptor, "rb") as file:
            data = file.read(_MARKER_LIMIT_BYTES + 1)
    try:
        marker = json.loads(data) if len(data) <= _MARKER_LIMIT_BYTES else None
    except ValueError:
        return None
    return marker if isinstance(marker, dict) else None


def clear(folder: Path, mode: Mode, patterns: Sequence[str] = ()) -> list[str]:
    """Remove files of a repository; return the names removed from `folder`, sorted.

    mode : "lib" removes what matches `patterns` (shell patterns such as `*.model`, a folder with all in it);
        "full" removes everything, the folder stays; "dir" removes the folder as well.
    A missing folder is cleared already. Links are removed, what they point to stays.
    Raises RepositoryUnusable when something cannot be removed; what could be removed is gone then.
    """
    removed = []
    with _errors(f"the repository {folder} cannot be cleared"):
        try:
            # Names are removed relative to the opened folder: it cannot be exchanged for a link meanwhile.
            opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return []
        try:
            for name in sorted(os.listdir(opened)):
                if mode == "lib" and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
                    continue
                _remove(name, opened)
                removed.append(name)
        finally:
            os.close(opened)
        if mode == "dir":
            folder.rmdir()
    return removed


def _make(folder: Path) -> None:
    missing = []
    while not folder.is_dir():
        missing.append(folder)
        folder = folder.parent
    for each in reversed(missing):
        try:
            each.mkdir()
        except FileExistsError:
            if not each.is_dir():
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each)) from None
        else:
            each.chmod(FOLDER_MODE)  # not left to the umask: users put files there by hand
            sync_folder(each.parent)


def _remove(name: str, folder: int) -> None:
    try:
        if stat.S_ISDIR(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=folder)
        else:
            os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _remove_leftovers(folder: Path) -> None:
    limit = time.time() - _LEFTOVER_S
    with _errors(f"the repository {folder} cannot be read"), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                if is_partial_name(entry.name) and entry.stat(follow_symlinks=False).st_mtime < limit:
                    os.unlink(entry.path)


def _check_name(name: str) -> None:
    if not name or name in {".", ".."} or "/" in name or "\0" in name or is_partial_name(name):
        raise RepositoryUnusable(f"{name!r} cannot be the name of a file in a repository")


@contextlib.contextmanager
def _errors(doing: str) -> Iterator[None]:
    """Turn the operating system's errors into StorageFull and RepositoryUnusable; `doing` begins their text."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise StorageFull(f"{doing.rstrip('.')}: {error.strerror}") from error
        text = doing if doing.endswith(".") else f"{doing}: {error.strerror or error}"
        raise RepositoryUnusable(text) from error
