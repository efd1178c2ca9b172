"""A local copy of artifacts, by digest, shared by all processes of a machine and bounded in bytes.

How it stays whole without a lock that a stopped or killed process could keep:

- `entries/<sha256>` are read-only files that appear by a hard link, whole and verified, and vanish by a
  rename.
- A user gets a folder `uses/<token>` of its own with hard links to the entries. Its files are therefore safe
  from eviction, and an entry with more than one link is in use. The user holds a lock on `uses/<token>.lock`
  for as long as it lives; the kernel drops it when the process ends, and the next user removes the folder.
- `locks/<xx>` only make processes that want the same entry download it once; who waits too long downloads it
  anyway.
- Entries have the fixed modification time `_MARK`. One that was written to loses it, and is verified again.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from storage.errors import ChecksumMismatch, StorageFull, StoreUnavailable
from storage.landing import landing, local_errors, sha256_of
from storage.objects.base import Objects, check_key
from storage.objects.manifest import Manifest, ManifestFile, check_name, check_sha256

_MARK = 1_000_000_000 * 10**9  # nanoseconds
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


@dataclass(frozen=True)
class _Entry:
    path: Path
    size: int
    used_ns: int
    links: int


class Cache:
    """Copies of artifacts below `folder`, at most `limit_bytes` of them besides what is in use.

    wait_s : seconds to wait for another process that downloads the same artifact.
    """

    def __init__(self, folder: Path, limit_bytes: int, *, wait_s: float = 60.0) -> None:
        """Create the folder if it is missing. Raises StoreUnavailable, StorageFull."""
        self.limit_bytes = limit_bytes
        self._wait_s = wait_s
        self._folder = folder
        self._entries, self._uses, self._locks = folder / "entries", folder / "uses", folder / "locks"
        with self._errors():
            for each in (self._entries, self._uses, self._locks):
                each.mkdir(parents=True, exist_ok=True)

    @contextlib.contextmanager
    def fetch(self, objects: Objects, key: str, sha256: str, size: int) -> Iterator[Path]:
        """A read-only file with the content of an artifact, named as the last part of its key.

        It stays until the block ends, whatever else is fetched. size : bytes, as the record says.
        Raises ArtifactNotFound; ChecksumMismatch when the store's content is not that of the record;
        StoreUnavailable; StorageFull.
        """
        name = check_key(key).rpartition("/")[2]
        with self.folder(objects, Manifest((ManifestFile(name, key, size, sha256),))) as folder:
            yield folder / name

    @contextlib.contextmanager
    def folder(self, objects: Objects, manifest: Manifest) -> Iterator[Path]:
        """A folder with the files of a manifest under their names, read-only, until the block ends.

        Raises what `fetch` raises.
        """
        with self._use() as folder:
            for file in manifest.files:
                target = folder / check_name(file.name)
                with self._errors():
                    target.parent.mkdir(parents=True, exist_ok=True)
                self._provide(objects, file, target)
            yield folder
        # The caller has what it came for; if this fails, the next download meets the same and says so.
        with contextlib.suppress(StoreUnavailable, StorageFull):
            self.trim()

    @contextlib.contextmanager
    def room(self) -> Iterator[Path]:
        """A folder of the caller's own, which is gone when the block ends; what it holds is safe from eviction.

        Raises StoreUnavailable, StorageFull.
        """
        with self._use() as folder:
            yield folder
        with contextlib.suppress(StoreUnavailable, StorageFull):
            self.trim()

    def take(self, sha256: str, size: int, target: Path) -> bool:
        """Give a sound entry the second name `target`, in a room; False when there is none.

        Raises StoreUnavailable, StorageFull.
        """
        with self._errors():
            return self._take(check_sha256(sha256), size, target)

    def keep(self, sha256: str, size: int, path: Path) -> None:
        """Make a file in a room an entry. sha256, size : of its content, which the caller has verified.

        Raises StoreUnavailable, StorageFull.
        """
        check_sha256(sha256)
        with contextlib.suppress(StorageFull):
            self.trim(size)
        with self._errors():
            self._keep(sha256, path)

    def trim(self, room_bytes: int = 0) -> None:
        """Remove what dead processes left, then the entries longest unused until `room_bytes` would fit."""
        with self._errors():
            self._sweep_uses()
            self._evict(self.limit_bytes - room_bytes)

    def used_bytes(self) -> int:
        """Bytes of all entries."""
        with self._errors():
            return sum(entry.size for entry in self._listed())

    def _provide(self, objects: Objects, file: ManifestFile, target: Path) -> None:
        check_sha256(file.sha256)  # it becomes a file name
        with self._errors():
            if self._take(file.sha256, file.size, target):
                return
        with self._alone(file.sha256):
            with self._errors():
                if self._take(file.sha256, file.size, target):  # fetched by another process meanwhile
                    return
            self.trim(file.size)
            try:
                stored = objects.get_file(file.key, target, file.sha256)
            except StorageFull:
                with self._errors():
                    self._evict(0)
                stored = objects.get_file(file.key, target, file.sha256)
            if stored.size != file.size:
                raise ChecksumMismatch(f"{file.key!r} has {stored.size} bytes, its record says {file.size}")
            with self._errors():
                self._keep(file.sha256, target)

    def _take(self, sha256: str, size: int, target: Path) -> bool:
        """Give a sound entry the second name `target`; False when there is none. Removes a damaged one."""
        entry = self._entries / sha256
        try:
            _link(entry, target)
        except FileNotFoundError:
            return False
        found = target.stat()
        sound = found.st_size == size and found.st_mtime_ns == _MARK
        if sound or (found.st_size == size and sha256_of(target) == sha256):
            _mark(target)
            return True
        with contextlib.suppress(FileNotFoundError):
            if entry.stat().st_ino == found.st_ino:
                entry.unlink()
        target.unlink()
        return False

    def _keep(self, sha256: str, target: Path) -> None:
        """Make a verified file an entry; forced to the disk, so that the mark holds after a power cut."""
        descriptor = os.open(target, os.O_RDONLY)
        try:
            os.fsync(descriptor)
            os.fchmod(descriptor, 0o444)
        finally:
            os.close(descriptor)
        _mark(target)
        with contextlib.suppress(FileExistsError):
            _link(target, self._entries / sha256)

    def _evict(self, limit_bytes: int) -> None:
        """Remove unused entries, the longest unused first, until at most `limit_bytes` are left."""
        entries = sorted(self._listed(), key=lambda entry: entry.used_ns)
        total = sum(entry.size for entry in entries)
        for entry in entries:
            if total <= limit_bytes:
                return
            if entry.links == 1 and self._remove(entry.path):
                total -= entry.size

    def _remove(self, path: Path) -> bool:
        """Remove an entry unless it is in use.

        Away from its name nobody can begin to use it, so that the count of links can be trusted.
        """
        token = secrets.token_hex(8)
        with self._held(token):
            aside = self._uses / token
            try:
                path.rename(aside)
            except FileNotFoundError:
                return True
            if aside.stat().st_nlink == 1:
                aside.unlink()
                return True
            with contextlib.suppress(FileExistsError):
                os.link(aside, path)
            aside.unlink()
            return False

    def _listed(self) -> list[_Entry]:
        found = []
        with os.scandir(self._entries) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    state = entry.stat(follow_symlinks=False)
                    found.append(_Entry(Path(entry.path), state.st_size, state.st_atime_ns, state.st_nlink))
        return found

    @contextlib.contextmanager
    def _use(self) -> Iterator[Path]:
        token = secrets.token_hex(8)
        folder = self._uses / token
        with self._held(token):
            with self._errors():
                folder.mkdir()
            try:
                yield folder
            finally:
                shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def _held(self, token: str) -> Iterator[None]:
        """Hold the lock that says: the owner of `uses/<token>` is alive."""
        path = self._uses / f"{token}.lock"
        with self._errors():
            # Locked before it has its name, so that nobody takes the owner for dead in between.
            waiting = self._uses / f"{token}.new"
            descriptor = os.open(waiting, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX)
                waiting.rename(path)
            except BaseException:
                os.close(descriptor)
                raise
        try:
            yield
        finally:
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            os.close(descriptor)

    def _sweep_uses(self) -> None:
        """Remove the folders of owners that are dead: whose lock can be had."""
        for lock in [*self._uses.glob("*.lock"), *self._uses.glob("*.new")]:
            with contextlib.suppress(FileNotFoundError, BlockingIOError), lock.open("rb") as file:
                if lock.suffix == ".new" and time.time() - os.fstat(file.fileno()).st_mtime < 60:
                    continue  # about to be locked
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left = lock.with_suffix("")
                if left.is_dir():
                    shutil.rmtree(left, ignore_errors=True)
                else:
                    left.unlink(missing_ok=True)  # an entry that was being removed
                lock.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _alone(self, sha256: str) -> Iterator[None]:
        """Keep others from fetching the same, if that can be had in time."""
        with self._errors():
            descriptor = os.open(self._locks / sha256[:2], os.O_RDWR | os.O_CREAT, 0o644)
        try:
            deadline = time.monotonic() + self._wait_s
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        break
                    time.sleep(0.02)
            yield
        finally:
            os.close(descriptor)

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return local_errors(f"cache {str(self._folder)!r}")


def _mark(path: Path) -> None:
    """Note the use, and that the content is the verified one."""
    with contextlib.suppress(PermissionError):  # the entry of another account of this machine
        os.utime(path, ns=(time.time_ns(), _MARK))


def _link(source: Path, target: Path) -> None:
    """A second name for a file; a copy where the file system has no hard links."""
    try:
        os.link(source, target)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        with source.open("rb") as content, landing(target, durable=False, mode=0o444) as copy:
            shutil.copyfileobj(content, copy)
        _mark(target)
