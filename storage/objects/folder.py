"""Objects in a folder of this machine, or of a file server that all machines mount at the same place."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import io
import os
import stat
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

from storage.errors import (
    ArtifactExists,
    ArtifactNotFound,
    BadArtifactKey,
    ChecksumMismatch,
    StoreUnavailable,
)
from storage.landing import (
    Readable,
    copy_hashing,
    is_partial_name,
    local_errors,
    partial_name,
    sha256_of,
    sync_folder,
)
from storage.objects.base import Content, Listed, Objects, Stored, check_key

_PARTIAL = ".partial"  # no key begins with a dot
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


class FolderObjects(Objects):
    """A key is a path below `root`. Content is written in `root/.partial`, forced to the disk, then linked.

    Linking refuses to overwrite, so that two writers of one key cannot both win.
    """

    def __init__(self, root: Path) -> None:
        """Create `root` if it is missing; later it must not vanish. Raises StoreUnavailable."""
        self.root = root
        self._partial = root / _PARTIAL
        with self._errors():
            self._partial.mkdir(parents=True, exist_ok=True)

    def put_file(self, key: str, path: Path) -> Stored:
        with path.open("rb") as source:
            return self._put(key, source)

    def put_bytes(self, key: str, data: bytes) -> Stored:
        return self._put(key, io.BytesIO(data))

    def exists(self, key: str) -> bool:
        path = self._path(key)
        with self._errors():
            if path.is_file():
                return True
            self._require_store()
        return False

    def list(self, prefix: str = "") -> Iterator[Listed]:
        start = self._path(prefix) if prefix else self.root
        with self._errors():
            self._require_store()
        waiting = [start]
        while waiting:
            folder = waiting.pop()
            with self._errors():
                found = self._entries(folder)
            for path, size in found:
                if size is None:
                    waiting.append(path)
                else:
                    yield Listed(path.relative_to(self.root).as_posix(), size)

    def clean(self, older_than_s: float) -> int:
        count, limit = 0, time.time() - older_than_s
        with self._errors(), os.scandir(self._partial) as entries:
            for entry in entries:
                if not is_partial_name(entry.name):
                    continue  # the lock
                with contextlib.suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime <= limit:
                        os.unlink(entry.path)
                        count += 1
        return count

    def check(self) -> None:
        probe = self._partial / partial_name()
        with self._errors():
            try:
                with open(self._create(probe), "wb") as file:
                    file.write(b"x" * 4096)
                    file.flush()
            finally:
                with contextlib.suppress(FileNotFoundError):
                    probe.unlink()

    def _read(self, key: str, target: BinaryIO, limit_bytes: int | None) -> Stored:
        with self._errors():
            try:
                with self._path(key).open("rb") as source:
                    size = os.fstat(source.fileno()).st_size
                    if limit_bytes is not None and size > limit_bytes:
                        raise ChecksumMismatch(f"{key!r} holds {size} bytes, at most {limit_bytes} were expected")
                    return Stored(key, *copy_hashing(source, target))
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._require_store()
                raise ArtifactNotFound(key) from None

    def _open(self, key: str, start: int) -> Content:
        with self._errors():
            try:
                file = self._path(key).open("rb")
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                self._require_store()
                raise ArtifactNotFound(key) from None
            file.seek(start)
        return file

    def _delete(self, keys: Iterable[str]) -> None:
        with self._errors():
            self._require_store()
            for key in keys:
                path = self.root / key
                with contextlib.suppress(FileNotFoundError, NotADirectoryError, IsADirectoryError):
                    path.unlink()
                    self._prune(path.parent)

    def _put(self, key: str, source: Readable) -> Stored:
        path = self._path(key)
        partial = self._partial / partial_name()
        with self._errors():
            try:
                with open(self._create(partial), "wb") as target:
                    stored = Stored(key, *copy_hashing(source, target))
                    target.flush()
                    os.fsync(target.fileno())
                self._publish(partial, path, stored)
            finally:
                with contextlib.suppress(FileNotFoundError):
                    partial.unlink()
        return stored

    def _create(self, partial: Path) -> int:
        return os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)

    def _publish(self, partial: Path, path: Path, stored: Stored) -> None:
        """Give the whole content its name, and come back when the name is on the disk."""
        for _ in range(100):
            try:
                made = self._make_folders(path.parent)
                self._link(partial, path)
            except FileExistsError:
                self._compare(path, stored)
                return
            except FileNotFoundError:
                if not partial.exists():
                    raise StoreUnavailable(
                        f"{stored.key!r} cannot be stored: its temporary file was cleaned away too early"
                    ) from None
                continue  # a concurrent deletion pruned the folder that was just made
            except NotADirectoryError:
                raise BadArtifactKey(f"{stored.key!r} lies below a key that holds content itself") from None
            for folder in (path.parent, *made):
                with contextlib.suppress(FileNotFoundError):
                    sync_folder(folder)
            return
        raise StoreUnavailable(f"{stored.key!r} cannot be stored: its folder vanishes again and again")

    def _make_folders(self, folder: Path) -> Sequence[Path]:
        """Create what is missing between `root` and `folder`; return the folders that got a new entry."""
        missing = []
        while not folder.is_dir():
            missing.append(folder)
            folder = folder.parent
        changed = []
        for each in reversed(missing):
            try:
                each.mkdir()
            except FileExistsError:
                if not stat.S_ISDIR(each.stat().st_mode):  # FileNotFoundError: it vanished again
                    raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(each)) from None
            else:
                changed.append(each.parent)
        return changed

    def _link(self, partial: Path, path: Path) -> None:
        """Move to a name that must be free; raises FileExistsError when it is not."""
        try:
            os.link(partial, path)
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
        else:
            return
        # A file system without hard links: the writers of this store agree by a lock instead.
        with open(os.open(self._partial / "lock", os.O_RDWR | os.O_CREAT, 0o644), "r+b") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if os.path.lexists(path):
                raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path))
            partial.rename(path)

    def _compare(self, path: Path, stored: Stored) -> None:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            raise BadArtifactKey(f"{stored.key!r} is the folder of other keys")
        if found.st_size != stored.size or sha256_of(path) != stored.sha256:
            raise ArtifactExists(f"other content is stored under {stored.key!r}; keys are written once")

    def _entries(self, folder: Path) -> Sequence[tuple[Path, int | None]]:
        """What is in a folder, with the size of files and None for folders; nothing when it vanished."""
        found: list[tuple[Path, int | None]] = []
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.name == _PARTIAL and folder == self.root:
                        continue
                    with contextlib.suppress(FileNotFoundError):
                        if entry.is_dir(follow_symlinks=False):
                            found.append((Path(entry.path), None))
                        elif entry.is_file(follow_symlinks=False):
                            found.append((Path(entry.path), entry.stat(follow_symlinks=False).st_size))
        except (FileNotFoundError, NotADirectoryError):
            return []
        return found

    def _prune(self, folder: Path) -> None:
        while folder != self.root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already: both are as wanted
                return
            folder = folder.parent

    def _require_store(self) -> None:
        """Raise when the store's folder vanished: an unmounted disk must not look like an empty store."""
        if not self._partial.is_dir():
            raise FileNotFoundError(errno.ENOENT, "the folder is missing; is its disk mounted?", str(self.root))

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return local_errors(f"object store {str(self.root)!r}")
