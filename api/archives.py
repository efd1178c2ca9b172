"""Archives that are made while they are sent: nothing of them is kept, and the same files make the same bytes."""

from __future__ import annotations

import stat
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

MODE = 0o644
_LEVEL = 1  # models and numbers shrink little more at higher levels, which cost much more
_GZIP = zlib.MAX_WBITS | 16
_FIRST_ZIP_YEAR = 1980


@dataclass(frozen=True)
class Member:
    """A file of an archive: its path, its size in bytes, and when it was written, in seconds since 1970."""

    path: str
    size_bytes: int
    changed_at: int


Contents = Callable[[Member], Iterator[bytes]]
"""Gives the content of a member, all of `size_bytes`, or raises; an archive that raises is cut off there."""


def tar(members: Sequence[Member], contents: Contents) -> Iterator[bytes]:
    """The bytes of a tar archive."""
    for each in members:
        yield _tar_head(each)
        yield from contents(each)
        yield bytes(-each.size_bytes % tarfile.BLOCKSIZE)
    yield bytes(2 * tarfile.BLOCKSIZE)


def tar_size(members: Sequence[Member]) -> int:
    """How many bytes `tar` makes of some members."""
    blocks = sum(
        len(_tar_head(each)) + -(-each.size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE for each in members
    )
    return blocks + 2 * tarfile.BLOCKSIZE


def tar_gz(members: Sequence[Member], contents: Contents) -> Iterator[bytes]:
    """The bytes of a tar archive that is packed with gzip."""
    pack = zlib.compressobj(_LEVEL, wbits=_GZIP)
    for piece in tar(members, contents):
        if packed := pack.compress(piece):
            yield packed
    yield pack.flush()


def zip(members: Sequence[Member], contents: Contents) -> Iterator[bytes]:
    """The bytes of a zip archive."""
    sink = _Sink()
    # zipfile takes whatever can be written to, and says behind each member what it did not know before it.
    with zipfile.ZipFile(sink, "w") as archive:  # type: ignore[call-overload]
        for each in members:
            info = zipfile.ZipInfo(each.path, _zip_time(each.changed_at))
            info.compress_type, info._compresslevel = zipfile.ZIP_DEFLATED, _LEVEL  # type: ignore[attr-defined]
            info.external_attr = (stat.S_IFREG | MODE) << 16
            info.create_system = 3  # Unix, whose modes these are
            info.file_size = each.size_bytes
            with archive.open(info, "w") as target:
                for piece in contents(each):
                    target.write(piece)
                    yield from sink.taken()
    yield from sink.taken()


def _tar_head(member: Member) -> bytes:
    info = tarfile.TarInfo(member.path)
    info.size, info.mtime, info.mode = member.size_bytes, member.changed_at, MODE
    return info.tobuf(tarfile.PAX_FORMAT)


def _zip_time(changed_at: int) -> Any:
    found = time.gmtime(changed_at)[:6]
    return found if found[0] >= _FIRST_ZIP_YEAR else (_FIRST_ZIP_YEAR, 1, 1, 0, 0, 0)


class _Sink:
    """Takes what is written, until it is taken away."""

    def __init__(self) -> None:
        self._written: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._written.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> Iterable[bytes]:
        """What was written since the last time."""
        taken, self._written = self._written, []
        return [each for each in taken if each]
