"""Unpacks an archive, as a program of its own: what somebody else packed can ask for any amount of memory or time.

`python -I -S unpack.py ARCHIVE FOLDER LIMIT_BYTES MEMBERS_MAX MEMORY_BYTES [tree] [isolated]` writes the plain files of
a zip or tar archive, `-` for the one that is the standard input, into FOLDER, side by side or, with `tree`, in the
folders that they have in the archive, and prints a JSON object: `files`, `skipped`, or `error`; or, with `isolated`,
that it `is_in_network`, if the kernel keeps it there, and nothing is written. Nothing is imported but the standard
library.
"""

from __future__ import annotations

import bz2
import contextlib
import ctypes
import gzip
import json
import lzma
import os
import resource
import signal
import stat
import sys
import tarfile
import time
import zipfile
import zlib
from collections.abc import Sequence
from typing import IO, Any, Self

CPU_S = 1800
CPU_FLOOR_S = 60
"""Seconds of processor time: at most, and at least."""

NAME_BYTES = 200
PATH_BYTES = 4095
"""What the kernel takes."""

EXTENDED_BYTES = 8192
"""Most bytes of what a tar says of a member in a block of its own: tarfile takes a time that is their square."""

SHOWN = 200
"""Characters of a name in messages."""

_CHUNK = 1 << 20
_BYTES_PER_S = 4 << 20
_RATIO = 200
_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_ABOUT_OTHERS = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_BROKEN = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    LookupError,  # tarfile's, over headers that end too soon
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
)


class Refused(Exception):
    """The archive is not to be unpacked; the text says why."""


class Unpacking:
    """What was written so far, and what still may be."""

    def __init__(self, folder: str, limit_bytes: int, members_max: int, is_tree: bool = False) -> None:
        self.folder = folder
        self.is_tree = is_tree
        self.limit_bytes = limit_bytes
        self.members_max = members_max
        self.members = 0
        self.bytes = 0
        self.files: dict[tuple[str, ...], str] = {}
        self.skipped: list[str] = []

    def count(self) -> None:
        """Take notice of a member."""
        self.members += 1
        if self.members > self.members_max:
            raise Refused(f"it has more than {self.members_max} members")

    def check_path(self, path: str) -> list[str]:
        """Refuse a name that leads out of the folder; returns its parts."""
        parts = path.replace("\\", "/").split("/")
        if path.startswith(("/", "\\")) or ".." in parts or "\0" in path or (len(path) > 1 and path[1] == ":"):
            raise Refused(f"its member {path[:SHOWN]!r} leads out of the archive")
        if len(path) > PATH_BYTES:
            raise Refused(f"the name of its member {path[:SHOWN]!a} is longer than {PATH_BYTES} characters")
        return [part for part in parts if part not in ("", ".")]

    def write(self, path: str, size: int, changed_at: float, source: IO[bytes]) -> None:
        """Write a plain file under a number; its name is decided when all are known."""
        parts = tuple(self.check_path(path))
        if not parts:
            return
        is_hidden = any(part.startswith(".") for part in parts) if self.is_tree else parts[-1].startswith(".")
        if is_hidden or "__MACOSX" in parts:
            self.skipped.append(path[:SHOWN])
            return
        too_large = f"its content is larger than {self.limit_bytes} bytes"
        if self.bytes + size > self.limit_bytes:
            raise Refused(too_large)
        target = os.path.join(self.folder, f".{self.members}")
        with open(target, "xb") as file:
            while chunk := source.read(_CHUNK):
                self.bytes += len(chunk)
                if self.bytes > self.limit_bytes:  # whatever its header said
                    raise Refused(too_large)
                file.write(chunk)
        changed_at = min(max(0.0, changed_at), time.time())
        os.utime(target, (changed_at, changed_at))
        if parts in self.files:  # of a name that comes twice the last one counts, as with tar
            os.unlink(self.files[parts])
        self.files[parts] = target

    def settle_tree(self) -> list[str]:
        """Give the files their names, in their folders."""
        if not self.files:
            raise Refused("it holds no files")
        names = []
        for parts, path in self.files.items():
            self.check_name(parts)
            target = os.path.join(self.folder, *parts)
            os.makedirs(os.path.dirname(target), exist_ok=True)
            os.rename(path, target)
            names.append("/".join(parts))
        return sorted(names)

    @staticmethod
    def check_name(parts: Sequence[str]) -> None:
        """Refuse a name that a file cannot be kept under."""
        for part in parts:
            try:
                is_fit = len(part.encode("utf-8")) <= NAME_BYTES and part.isprintable()
            except UnicodeEncodeError:
                is_fit = False
            if not is_fit:
                raise Refused(f"the name of its member {part[:SHOWN]!a} cannot be used")

    def settle(self) -> list[str]:
        """Give the files their names; a folder around all of them is left out, and so are files in other folders."""
        if not self.files:
            raise Refused("it holds no files")
        depth = 0
        while len({parts[: depth + 1] for parts in self.files}) == 1 and all(
            len(parts) > depth + 1 for parts in self.files
        ):
            depth += 1
        names = []
        for parts, path in self.files.items():
            if len(parts) > depth + 1:
                self.skipped.append("/".join(parts)[:SHOWN])
                os.unlink(path)
                continue
            self.check_name(parts[-1:])
            os.rename(path, os.path.join(self.folder, parts[-1]))
            names.append(parts[-1])
        if not names:
            raise Refused("it holds no files side by side")
        return sorted(names)


def from_zip(packed: IO[bytes], made: Unpacking) -> None:
    """Write the members of a zip archive."""
    with zipfile.ZipFile(packed) as archive:
        for member in archive.infolist():
            made.count()
            kind = stat.S_IFMT(member.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise Refused(
                    f"its member {member.filename[:SHOWN]!r} is a link or a device; only files can be unpacked"
                )
            if member.is_dir():
                made.check_path(member.filename)
                continue
            if member.flag_bits & 1:
                raise Refused("it is encrypted")
            changed_at = 0.0
            with contextlib.suppress(ValueError, OverflowError):
                changed_at = time.mktime((*member.date_time, 0, 0, -1))
            with archive.open(member) as source:
                made.write(member.filename, member.file_size, changed_at, source)


class _Header(tarfile.TarInfo):
    """The header of a tar's block, which may say only so much of another one."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        made = super().frombuf(buf, encoding, errors)
        if made.type in _ABOUT_OTHERS and made.size > EXTENDED_BYTES:
            raise Refused(f"it says more than {EXTENDED_BYTES} bytes of a member besides its content")
        return made


def from_tar(packed: IO[bytes], made: Unpacking) -> None:
    """Write the members of a tar archive, packed by gzip, bzip2 or xz or not at all."""
    magic = packed.read(6)
    packed.seek(0)
    # Not tarfile's own way of unpacking a stream: it takes one that is cut off for one that ends.
    stream: Any = packed
    if magic.startswith(b"\x1f\x8b"):
        stream = gzip.GzipFile(fileobj=packed)
    elif magic.startswith(b"BZh"):
        stream = bz2.BZ2File(packed)
    elif magic == b"\xfd7zXZ\0":
        stream = lzma.open(packed)  # noqa: SIM115  # closed with the archive, which ends this program
    with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Header) as archive:
        for member in archive:
            made.count()
            if member.isdir():
                made.check_path(member.name)
                continue
            source = archive.extractfile(member) if member.isreg() else None
            if source is None:
                raise Refused(f"its member {member.name[:SHOWN]!r} is a link or a device; only files can be unpacked")
            made.write(member.name, member.size, member.mtime, source)
    left = made.limit_bytes
    while chunk := stream.read(_CHUNK):  # to the end, where the checksum is
        left -= len(chunk)
        if left < 0:
            raise Refused(f"its content is larger than {made.limit_bytes} bytes")


def confine(limit_bytes: int, memory_bytes: int, work_bytes: int) -> bool:
    """Give up what unpacking does not need; False when that leaves the network within reach.

    limit_bytes : of a file that is written. work_bytes : how much is to be done, which decides about the time for it.
    """
    cpu_s = min(CPU_S, CPU_FLOOR_S + work_bytes // _BYTES_PER_S)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes + 1, limit_bytes + 1))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    if sys.platform != "linux":
        return False
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    # As in `ml.isolation`, which this program cannot import.
    return bool(system.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 or system.unshare(_CLONE_NEWNET) == 0)


def unpack(packed: IO[bytes], folder: str, limit_bytes: int, members_max: int, is_tree: bool = False) -> dict[str, Any]:
    """Unpack an archive into an empty folder; returns what `main` prints. After an error the folder is empty."""
    made = Unpacking(folder, limit_bytes, members_max, is_tree)
    try:
        is_zip = packed.read(4) in (b"PK\3\4", b"PK\5\6")
        packed.seek(0)
        (from_zip if is_zip else from_tar)(packed, made)
        return {"files": made.settle_tree() if is_tree else made.settle(), "skipped": sorted(made.skipped)}
    except Refused as error:
        reason = str(error)
    except _BROKEN as error:
        text = " ".join(str(error).split())[:200]
        reason = f"it is no zip or tar archive, or a broken one ({text or type(error).__name__})"
    except MemoryError:
        reason = "unpacking it takes too much memory"
    except OSError as error:
        reason = f"it cannot be unpacked: {error.strerror or error}"
    for place, folders, names in os.walk(folder, topdown=False):
        for left in names:
            os.unlink(os.path.join(place, left))
        for left in folders:
            os.rmdir(os.path.join(place, left))
    return {"error": reason}


def main(arguments: Sequence[str]) -> int:
    """Print what came of it."""
    path, folder = arguments[:2]
    limit_bytes, members_max, memory_bytes = map(int, arguments[2:5])
    # Before rights are given up; a pipe would block.
    with open(0 if path == "-" else os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as packed:
        work_bytes = min(limit_bytes, _RATIO * os.fstat(packed.fileno()).st_size)
        if not confine(limit_bytes, memory_bytes, work_bytes) and "isolated" in arguments[5:]:
            print(json.dumps({"is_in_network": True}))
            return 0
        print(json.dumps(unpack(packed, folder, limit_bytes, members_max, "tree" in arguments[5:])))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
