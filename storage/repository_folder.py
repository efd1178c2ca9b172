"""The side of a model repository that lies in a data root, where users find and put files.

Callers resolve the folder with `DataRoots` first. Nothing here follows a link inside the folder: a name is replaced
or removed itself, never what it points to.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import hashlib
import json
import os
import shutil
import stat
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, Literal

from storage.errors import RepositoryUnusable, StorageFull
from storage.landing import FULL, is_partial_name, landing, partial_name, sync_folder

MARKER = ".modelyard.json"
FOLDER_MODE = 0o775
_FILE_MODE = 0o664
_MARKER_LIMIT_BYTES = 2**20
_LEFTOVER_S = 3600.0
_APART_NS = 10**9

Mode = Literal["lib", "index", "full", "dir"]


@dataclass(frozen=True)
class Seen:
    """A plain file as it lies in a folder: its bytes, and when it was written."""

    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Exported:
    """A file as an export left it. made : whether a training made it; else a person, or another server, did."""

    sha256: str
    size: int
    mtime_ns: int
    made: bool = True

    def is_still(self, seen: Seen | None) -> bool:
        """Whether the file looks as it did then; its content is not read."""
        return seen == Seen(self.size, self.mtime_ns)


@dataclass(frozen=True)
class Comparison:
    """What a folder holds, against what is known of it.

    present : the files that were asked for. changed : those of them that are new or have another content.
    removed : names of known files that an export wrote and that are gone.
    """

    present: dict[str, Seen]
    changed: frozenset[str]
    removed: frozenset[str]


def prepare(folder: Path, create: bool) -> None:
    """Return when files can be written into `folder`, as a real attempt shows.

    create : make the folder and the missing ones above it, with permissions 775.
    Raises RepositoryUnusable when a file has the name, or the folder is missing or cannot be written;
    StorageFull when no space is left.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise RepositoryUnusable(f"file exists with same name as repository {folder}")
    with _errors(f"destination model directory {folder} is not writable or does not exist."):
        if not create and not _is_there(folder):
            raise RepositoryUnusable(
                f"destination model directory {folder} is not writable or does not exist. "
                "(There is no such folder; with model.create_repository true it is made.)"
            )
        if create:
            _make(folder)
        probe = folder / partial_name()
        try:
            with open(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _FILE_MODE), "wb") as file:
                file.write(b"x")
        finally:
            with contextlib.suppress(OSError):
                probe.unlink()


def _is_there(folder: Path) -> bool:
    try:
        folder.lstat()
    except FileNotFoundError:
        return False
    return True


def write_file(folder: Path, name: str, content: bytes | Path, *, durable: bool = True) -> None:
    """Give `folder` a file that appears whole, in place of one of that name.

    name : one name, not a path. content : the bytes, or a local file to copy.
    durable : whether it must survive a power cut, which costs two waits for the disk.
    Raises RepositoryUnusable, StorageFull; OSError when the local file cannot be read.
    """
    _check_name(name)
    with contextlib.ExitStack() as stack:
        source = stack.enter_context(content.open("rb")) if isinstance(content, Path) else None
        stack.enter_context(_errors(f"{name!r} cannot be written to the repository {folder}"))
        with landing(folder / name, durable=durable, mode=_FILE_MODE) as file:
            if source is not None:
                shutil.copyfileobj(source, file, 2**20)
            else:
                assert isinstance(content, bytes)
                file.write(content)


def export(
    folder: Path,
    files: Mapping[str, Path],
    digests: Mapping[str, str],
    about: Mapping[str, Any],
    *,
    made: bool,
    spared: Collection[str] = (),
) -> list[str]:
    """Make `folder` hold `files`, then write the marker, which says so; return the names of files that went.

    files : local files by name. Each gets a later time than the one before it, as readers of such folders take the
        newest file of a kind; all of the times lie in the past.
    digests : SHA-256 of each. A file that lies there since the last export with the same content is not written again.
    about : members of the marker besides its files. A former marker stays until the new one replaces it.
    made : whether a training made the files. Those of earlier exports that a training made, and that are not among
        `files`, are removed; what was there before, or was changed since, is somebody's own and stays, and the marker
        remembers it.
    spared : names that stay although no file of this export has them.
    Doing it again after an interruption is harmless; old temporary files are removed on the way.
    Raises what `write_file` raises.
    """
    if MARKER in files:
        raise RepositoryUnusable(f"{MARKER!r} is the name of the marker and cannot be a file of the repository")
    former, seen = exported_files(folder), look(folder)
    _remove_leftovers(folder)
    in_place = {name for name in files if name in former and former[name].is_still(seen.get(name))}
    in_place = {name for name in in_place if former[name].sha256 == digests[name]}
    for name, path in files.items():
        if name not in in_place:
            write_file(folder, name, path)
    others = [name for name in sorted(former) if name not in files and former[name].is_still(seen.get(name))]
    removed = [name for name in others if former[name].made and name not in spared]
    written: dict[str, Any] = {}
    with _errors(f"the repository {folder} cannot be written"):
        for name in removed:
            (folder / name).unlink(missing_ok=True)
        latest = time.time_ns()
        for position, name in enumerate(reversed(list(files))):
            _set_time(folder, name, latest - position * _APART_NS)
            state = os.stat(folder / name, follow_symlinks=False)
            by_training = former[name].made if name in in_place else made
            written[name] = asdict(Exported(digests[name], state.st_size, state.st_mtime_ns, by_training))
    left = {name: asdict(former[name]) for name in others if name not in removed}
    marker = {**about, "files": written, "left": left}
    write_file(folder, MARKER, json.dumps(marker, indent=1, sort_keys=True).encode())
    return removed


def _set_time(folder: Path, name: str, at_ns: int) -> None:
    path = folder / name
    try:
        os.utime(path, ns=(at_ns, at_ns), follow_symlinks=False)
    except PermissionError:  # another account of this machine wrote it: a copy is ours
        with path.open("rb") as content, landing(path, durable=True, mode=_FILE_MODE) as copy:
            shutil.copyfileobj(content, copy, 2**20)
        os.utime(path, ns=(at_ns, at_ns), follow_symlinks=False)


def look(folder: Path) -> dict[str, Seen]:
    """The plain files of a folder by name; links, folders, the marker and our temporary files are left out.

    A folder that is missing has none. Raises RepositoryUnusable.
    """
    found = {}
    with (
        _errors(f"the repository {folder} cannot be read"),
        contextlib.suppress(FileNotFoundError),
        os.scandir(folder) as entries,
    ):
        for entry in entries:
            if entry.name == MARKER or is_partial_name(entry.name):
                continue
            with contextlib.suppress(FileNotFoundError):
                state = entry.stat(follow_symlinks=False)
                if stat.S_ISREG(state.st_mode):
                    found[entry.name] = Seen(state.st_size, state.st_mtime_ns)
    return found


def exported_files(folder: Path) -> dict[str, Exported]:
    """The files that the marker of the last complete export knows; empty when there was none or it is spoilt.

    Raises RepositoryUnusable when the marker cannot be read.
    """
    marker = read_marker(folder) or {}
    return {**_recorded(marker.get("left")), **_recorded(marker.get("files"))}


def _recorded(files: Any) -> dict[str, Exported]:
    made = {}
    for name, each in files.items() if isinstance(files, dict) else ():
        with contextlib.suppress(TypeError):
            made[name] = Exported(**each)
    return made


def compare(
    folder: Path, known: Mapping[str, str], is_wanted: Callable[[str], bool], *, thoroughly: bool
) -> Comparison:
    """Set the files of a folder against those that are known of it.

    known : SHA-256 by name. A file that is not among them, but that the marker knows as left there, has been seen
        already and counts as unchanged.
    is_wanted : whether a name is looked at.
    thoroughly : whether files are read that the marker does not vouch for; else they count as changed.
    Raises RepositoryUnusable.
    """
    marker = read_marker(folder) or {}
    former, left = _recorded(marker.get("files")), _recorded(marker.get("left"))
    present = {name: seen for name, seen in look(folder).items() if is_wanted(name)}
    changed = set()
    for name, seen in present.items():
        if name in left and name not in known and left[name].is_still(seen):
            continue
        vouched = former.get(name)
        if vouched is not None and vouched.is_still(seen):
            digest: str | None = vouched.sha256
        else:
            digest = sha256_in(folder, name) if thoroughly and name in known else None
        if digest is None or digest != known.get(name):
            changed.add(name)
    removed = {
        name
        for name, digest in known.items()
        if is_wanted(name) and name not in present and name in former and former[name].sha256 == digest
    }
    return Comparison(present, frozenset(changed), frozenset(removed))


def sha256_in(folder: Path, name: str) -> str | None:
    """SHA-256 of a plain file in hexadecimal; None when there is none of that name. Raises RepositoryUnusable."""
    with _errors(f"{name!r} in the repository {folder} cannot be read"):
        opened = _opened(folder / name)
        if opened is None:
            return None
        with opened as file:
            return hashlib.file_digest(file, "sha256").hexdigest()


def read_bytes(folder: Path, name: str, limit_bytes: int) -> bytes | None:
    """The content of a plain file; None when there is none of that name or it is larger. Raises RepositoryUnusable."""
    with _errors(f"{name!r} in the repository {folder} cannot be read"):
        opened = _opened(folder / name)
        if opened is None:
            return None
        with opened as file:
            data = file.read(limit_bytes + 1)
    return data if len(data) <= limit_bytes else None


def copy_out(folder: Path, names: Collection[str], target: Path) -> list[str]:
    """Copy plain files into a local folder, with their times; return the names of those that were there.

    Raises RepositoryUnusable; StorageFull when the local disk is full.
    """
    copied = []
    for name in sorted(names):
        _check_name(name)
        with _errors(f"{name!r} in the repository {folder} cannot be copied"):
            opened = _opened(folder / name)
            if opened is None:
                continue
            with opened as file, (target / name).open("wb") as copy:
                shutil.copyfileobj(file, copy, 2**20)
                state = os.fstat(file.fileno())
            os.utime(target / name, ns=(state.st_atime_ns, state.st_mtime_ns))
        copied.append(name)
    return copied


def _opened(path: Path) -> BufferedReader | None:
    """A plain file, opened; None for anything else: a link could lead anywhere, a pipe would block."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENOTDIR, errno.ENXIO}:
            return None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return None
    return open(descriptor, "rb")


def read_marker(folder: Path) -> dict[str, Any] | None:
    """The marker of the last complete export; None when there is none or it was spoilt by hand.

    Raises RepositoryUnusable when it cannot be read.
    """
    data = read_bytes(folder, MARKER, _MARKER_LIMIT_BYTES)
    try:
        marker = None if data is None else json.loads(data)
    except (ValueError, RecursionError):
        return None
    return marker if isinstance(marker, dict) else None


def clear(folder: Path, mode: Mode, patterns: Sequence[str] = ()) -> list[str]:
    """Remove files of a repository; return the names removed from `folder`, sorted.

    mode : "lib" and "index" remove what matches `patterns` (shell patterns such as `*.model`, a folder with all in
        it); "full" removes everything, the folder stays; "dir" removes the folder as well.
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
                if mode in {"lib", "index"} and not any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns):
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
