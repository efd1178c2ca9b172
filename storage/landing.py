"""Files that appear whole or not at all: written under a temporary name beside their place, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Protocol

from storage.errors import StorageFull, StoreUnavailable

CHUNK = 1 << 20
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})

# Temporary names begin with a dot and are ours alone, so that leftovers of a killed writer can be told apart.
_PREFIX, _SUFFIX = ".modelyard-", ".partial"


class Readable(Protocol):
    """Whatever gives bytes: a file, a buffer, the body of an answer."""

    def read(self, amount: int, /) -> bytes: ...


def partial_name() -> str:
    """A file name that nothing else uses."""
    return f"{_PREFIX}{secrets.token_hex(8)}{_SUFFIX}"


def is_partial_name(name: str) -> bool:
    """Whether a name was made by `partial_name`."""
    return name.startswith(_PREFIX) and name.endswith(_SUFFIX)


def copy_hashing(source: Readable, target: BinaryIO) -> tuple[int, str]:
    """Copy to the end of `source`, reading it once; return bytes copied and SHA-256 in hexadecimal."""
    digest, size = hashlib.sha256(), 0
    while chunk := source.read(CHUNK):
        digest.update(chunk)
        target.write(chunk)
        size += len(chunk)
    return size, digest.hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file in hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a power cut. Raises OSError."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def landing(path: Path, *, durable: bool, mode: int = 0o644) -> Iterator[BinaryIO]:
    """Yield a file that takes the place of `path` when the block ends well, and vanishes when it does not.

    path : its folder must exist. Whatever has that name is replaced, a link itself and not what it points to.
    durable : whether content and name must survive a power cut, which costs two waits for the disk.
    mode : permission bits, less the process's umask.
    Raises OSError.
    """
    partial = path.with_name(partial_name())
    descriptor = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    try:
        with open(descriptor, "w+b") as file:
            yield file
            file.flush()
            if durable:
                os.fsync(descriptor)
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    if durable:
        sync_folder(path.parent)


@contextlib.contextmanager
def local_errors(doing: str) -> Iterator[None]:
    """Turn the operating system's errors into StorageFull and StoreUnavailable; `doing` begins their text."""
    try:
        yield
    except OSError as error:
        reason = f"{doing}: {error.strerror or error}"
        raise (StorageFull(reason) if error.errno in FULL else StoreUnavailable(reason)) from error
