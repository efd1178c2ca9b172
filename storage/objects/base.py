"""The interface of the object store. `folder.py` and `s3.py` implement it; one contract suite tests both."""

from __future__ import annotations

import io
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from storage.errors import BadArtifactKey, ChecksumMismatch, StoreUnavailable
from storage.landing import Readable, landing, local_errors

GET_BYTES_LIMIT = 64 * 2**20
KEY_LIMIT_BYTES = 900  # S3 takes 1024, of which the prefix of the store needs some
PART_LIMIT_BYTES = 255  # the longest file name


@dataclass(frozen=True)
class Stored:
    """What is kept of an artifact: its key, its size in bytes and its SHA-256 in hexadecimal."""

    key: str
    size: int
    sha256: str


class Content(Readable, Protocol):
    """The content of an artifact on its way; whoever opened it closes it.

    Reading may raise StoreUnavailable, ArtifactNotFound when it was deleted meanwhile, and OSError.
    """

    def close(self) -> None: ...


@dataclass(frozen=True)
class Listed:
    """A key of the store and the size of its content in bytes."""

    key: str
    size: int


def check_key(key: str) -> str:
    """Return `key` if it is safe on every driver: a relative path of printable parts; else BadArtifactKey."""
    complaint = _complaint(key)
    if complaint:
        shown = key if len(key) <= 100 else key[:100] + "…"
        raise BadArtifactKey(f"artifact key {shown!r} {complaint}")
    return key


def _complaint(key: str) -> str:
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        return "is not valid Unicode"
    if not 0 < len(encoded) <= KEY_LIMIT_BYTES:
        return f"must have between 1 and {KEY_LIMIT_BYTES} bytes"
    if not key.isprintable() or "\\" in key:
        return "must be printable and without backslash"
    if key.startswith("."):
        return "must not begin with a dot"
    parts = key.split("/")
    if any(part in {"", ".", ".."} for part in parts):
        return "must be relative, without empty parts, '.' and '..'"
    if any(len(part.encode()) > PART_LIMIT_BYTES for part in parts):
        return f"has a part of more than {PART_LIMIT_BYTES} bytes"
    return ""


class Objects(ABC):
    """Artifacts under keys such as `attempts/17/2/files/0100.model`, each written once and never changed.

    An artifact is visible under its key only when it is whole. Putting the same content again is harmless,
    other content is refused. All methods may be called from several threads, processes and machines at once.

    Every method may raise StoreUnavailable when the store fails or does not answer (a refused connection is
    noticed in seconds, a silent server within the timeouts of the driver); methods that write may raise
    StorageFull; all that take a key may raise BadArtifactKey. Only the store's own answer that there is no
    such key becomes ArtifactNotFound.
    """

    @abstractmethod
    def put_file(self, key: str, path: Path) -> Stored:
        """Store the content of the local file `path`.

        Raises ArtifactExists when other content is stored under `key`, ChecksumMismatch when the file changed
        while it was read, OSError when it cannot be opened.
        """

    @abstractmethod
    def put_bytes(self, key: str, data: bytes) -> Stored:
        """Store `data`. Raises ArtifactExists when other content is stored under `key`."""

    @abstractmethod
    def exists(self, key: str) -> bool:
        """Whether something is stored under `key`."""

    @abstractmethod
    def list(self, prefix: str = "") -> Iterator[Listed]:
        """Everything below the folder `prefix`, in no particular order; nothing is not an error.

        `a/b` lists `a/b/c` but not `a/bc`. The empty prefix lists all.
        """

    @abstractmethod
    def clean(self, older_than_s: float) -> int:
        """Remove what killed writers left and nobody sees, when it is older than that; return how many.

        The age must be longer than any upload takes: a slower writer would fail with StoreUnavailable.
        """

    @abstractmethod
    def check(self) -> None:
        """Return when the store can be used; StoreUnavailable or StorageFull, within about 3 s, when not."""

    @abstractmethod
    def _read(self, key: str, target: BinaryIO, limit_bytes: int | None) -> Stored:
        """Copy the content to `target`, an empty seekable file, hashing it.

        Raises ArtifactNotFound; ChecksumMismatch when more than `limit_bytes` are stored or when the content
        differs from a digest that the store keeps.
        """

    @abstractmethod
    def _open(self, key: str, start: int) -> Content:
        """The content from the byte `start` on. Raises ArtifactNotFound at once when there is none."""

    @abstractmethod
    def _delete(self, keys: Iterable[str]) -> None:
        """Remove keys that came from `list` or were checked; absent ones are no error."""

    def get_file(self, key: str, path: Path, sha256: str | None = None) -> Stored:
        """Copy an artifact to the local file `path`, which appears whole and right or not at all.

        path : its folder must exist; a file of that name is replaced. Not forced to the disk.
        sha256 : what the content must be; ChecksumMismatch is raised when it is not.
        Raises ArtifactNotFound; StorageFull and StoreUnavailable also when the local file cannot be written.
        """
        check_key(key)
        with local_errors(f"{key!r} cannot be copied to {str(path)!r}"), landing(path, durable=False) as file:
            stored = self._read(key, file, None)
            _verify(stored, sha256)
        return stored

    def read_through(self, key: str, sha256: str | None = None) -> Stored:
        """Read the content of an artifact and keep nothing of it, to learn whether it is whole.

        Raises ArtifactNotFound; ChecksumMismatch when it differs from `sha256`, or from a digest that the store keeps.
        """
        check_key(key)
        stored = self._read(key, _Nowhere(), None)
        _verify(stored, sha256)
        return stored

    def open(self, key: str, start: int = 0) -> Content:
        """The content of an artifact from the byte `start` on, read as it is asked for and not verified.

        Raises ArtifactNotFound.
        """
        return self._open(check_key(key), start)

    def download_link(self, key: str, lifetime_s: int, disposition: str, media_type: str) -> str | None:
        """An address that anybody may GET the content of `key` from for so long, without us; None where there is none.

        disposition, media_type : what the answer there says of itself.
        """
        check_key(key)
        return None

    def upload_link(self, key: str, lifetime_s: int, size_bytes: int) -> str | None:
        """An address that anybody may PUT the content of `key` to for so long, without us; None where there is none.

        size_bytes : of that content; the store takes neither more nor less there.
        What is written there replaces what was there before, and no digest is kept of it.
        """
        check_key(key)
        return None

    def get_bytes(self, key: str, limit_bytes: int = GET_BYTES_LIMIT, sha256: str | None = None) -> bytes:
        """The content of an artifact of at most `limit_bytes`.

        Raises ArtifactNotFound; ChecksumMismatch when there is more or when it differs from `sha256`.
        """
        check_key(key)
        buffer = io.BytesIO()
        _verify(self._read(key, buffer, limit_bytes), sha256)
        return buffer.getvalue()

    def delete(self, keys: Iterable[str]) -> None:
        """Remove artifacts; absent ones are no error."""
        self._delete([check_key(key) for key in keys])

    def delete_prefix(self, prefix: str) -> int:
        """Remove everything below the folder `prefix`, which must not be empty; return how many artifacts."""
        check_key(prefix)
        count, before = 0, None
        while found := [item.key for item in itertools.islice(self.list(prefix), 1000)]:
            if found == before:
                raise StoreUnavailable(f"{found[0]!r} is still there after it was deleted")
            self._delete(found)
            count, before = count + len(found), found
        return count


class _Nowhere(io.BytesIO):
    """A target that keeps nothing, for content of which only the digest matters."""

    def write(self, data: Any, /) -> int:
        return len(data)


def _verify(stored: Stored, sha256: str | None) -> None:
    if sha256 is not None and stored.sha256 != sha256:
        raise ChecksumMismatch(f"{stored.key!r} is damaged: its SHA-256 is {stored.sha256}, its record says {sha256}")
