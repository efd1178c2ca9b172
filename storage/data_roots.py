"""The folders that requests may read and write. Every path of a client goes through here."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from storage.errors import OutsideDataRoots, RepositoryUnusable

_PATH_LIMIT_BYTES = 4095  # what the kernel takes
_NAME_LIMIT_BYTES = 255
# One word that ends as files of data do, and is no address.
_FILE_NAME = re.compile(
    r" *(?![a-z][a-z0-9+.-]*://)[^\s,;|\"']+"
    r"\.(?:csv|tsv|txt|svm|libsvm|data|dat|jsonl?|parquet|xlsx?|npy|tar|tgz|zip|gz|bz2|xz|zst)/? *",
    re.IGNORECASE,
)
_UNREACHABLE = frozenset({errno.ELOOP, errno.ENAMETOOLONG, errno.EINVAL})


class DataRoots:
    """Folders that a client may name paths in. The roots themselves may be links and may not exist yet."""

    def __init__(self, roots: Sequence[Path]) -> None:
        """`roots` are absolute; the first is where relative names are meant to be created."""
        self.roots = tuple(roots)

    def resolve(self, path: str) -> Path:
        """The real, absolute path, without links and `..`, of what a client named; it need not exist.

        path : absolute, `file://` with an absolute path, or relative to one of the roots: to the first root in
            which it exists, else to the first.
        Raises OutsideDataRoots, which names the roots, when the path leads out of them, also through links, or
        when it can be no path: empty, with a NUL byte, a loop of links, a name that is too long.
        """
        wanted = self._local(path)
        roots = [_real(root) for root in self.roots]
        places = [Path(wanted)] if os.path.isabs(wanted) else [root / wanted for root in roots]
        # Where a name exists it decides: that a link leads out of one root must not make it mean another.
        place = next(filter(os.path.lexists, places), places[0] if places else None)
        if place is not None:
            found = self._reached(path, place)
            if any(found.is_relative_to(root) for root in roots):
                return found
        allowed = ", ".join(str(root) for root in self.roots)
        raise OutsideDataRoots(
            f"path {_shown(path)} is outside of the data roots ({allowed}); move it there, "
            "or let the operator add its folder to MODELYARD_DATA_ROOTS"
        )

    def repository(self, location: str) -> Path:
        """The folder of a repository, which is known by its real path.

        Raises RepositoryUnusable when the path leads elsewhere by now.
        """
        try:
            found = self.resolve(location)
        except OutsideDataRoots as error:
            raise RepositoryUnusable(
                f"destination model directory {location} is not writable or does not exist. ({error})"
            ) from None
        if str(found) != location:
            # A link that took its place could lead to somebody else's.
            raise RepositoryUnusable(f"the repository {location} is a link by now; put the folder back")
        return found

    def is_inside(self, path: Path | str) -> bool:
        """Whether `path` leads into a root, or is one."""
        try:
            self.resolve(str(path))
        except OutsideDataRoots:
            return False
        return True

    def is_root(self, path: Path | str) -> bool:
        """Whether `path` leads to a root itself, which must not be cleared or removed as a repository."""
        return _real(Path(path)) in [_real(root) for root in self.roots]

    def looks_like_path(self, entry: str) -> bool:
        """Whether an entry of `data` is meant as a path rather than as a line of data.

        A path has no line break, and begins with `/`, `./`, `../` or `file://`, or names an existing file or
        folder in a root, or is a single word that ends like the name of a file of data: what names a file that is not
        there is no row of one cell.
        """
        if not entry or any(mark in entry for mark in "\n\r\0") or len(entry) > _PATH_LIMIT_BYTES:
            return False
        if entry.startswith(("/", "./", "../", "file://")):
            return True
        # Most entries are lines of data, and no root has anything of such a name: then nothing need be followed.
        first = entry.partition("/")[0]
        if not any(os.path.lexists(os.path.join(root, first)) for root in self.roots):
            return False
        try:
            return self.resolve(entry).exists()
        except (OutsideDataRoots, OSError):
            return False

    def is_meant_as_file(self, entry: str) -> bool:
        """Whether an entry of a data set is a path: as `looks_like_path`, or one word that ends as files of data do.

        A data set is no single word, so nothing is lost. A row for a prediction may be one.
        """
        is_name = len(entry) <= _PATH_LIMIT_BYTES and _FILE_NAME.fullmatch(entry) is not None
        return is_name or self.looks_like_path(entry)

    def missing(self, path: str, place: Path) -> str:
        """What to say when there is nothing at the `place` that a path was resolved to; empty when there may be."""
        try:
            place.stat()
        except (FileNotFoundError, NotADirectoryError):
            wanted = f"data file {path} does not exist"
            if os.path.isabs(path) or path.startswith("file://"):
                return wanted
            return f"{wanted} in the data roots ({', '.join(map(str, self.roots))})"
        except OSError:  # who reads it will say
            return ""
        return ""

    def _local(self, path: str) -> str:
        if path.startswith("file://"):
            host, slash, rest = path.removeprefix("file://").partition("/")
            if host not in {"", "localhost"} or not slash:
                raise OutsideDataRoots(f"{_shown(path)} must name a file of this machine: file:///folder/file")
            path = slash + unquote(rest)
        try:
            encoded = os.fsencode(path)
        except UnicodeEncodeError:
            raise OutsideDataRoots(f"{_shown(path)} is no path: it is not valid Unicode") from None
        if not encoded or b"\0" in encoded:
            raise OutsideDataRoots(f"{_shown(path)} is no path: it is empty or has a NUL byte")
        names = encoded.split(b"/")
        if len(encoded) > _PATH_LIMIT_BYTES or any(len(name) > _NAME_LIMIT_BYTES for name in names):
            raise OutsideDataRoots(f"{_shown(path)} is no path: a name in it, or all of it, is too long")
        return path

    def _reached(self, path: str, place: Path) -> Path:
        try:
            found = os.path.realpath(place)
            is_loop = os.path.realpath(found) != found
        except OSError as error:  # a link that may not be read, as those of other processes in /proc
            raise OutsideDataRoots(f"{_shown(path)} cannot be followed: {error.strerror}") from None
        if is_loop:
            # Behind a loop of links the names that follow are taken as they stand, and may be links themselves.
            raise OutsideDataRoots(f"{_shown(path)} cannot be followed: {os.strerror(errno.ELOOP)}")
        try:
            os.stat(found)
        except OSError as error:
            # Missing, or not to be read: that is for whoever opens it. A loop has no real path at all.
            if error.errno in _UNREACHABLE:
                raise OutsideDataRoots(f"{_shown(path)} cannot be followed: {error.strerror}") from None
        return Path(found)


def _real(root: Path) -> Path:
    return Path(os.path.realpath(root))


def _shown(path: str) -> str:
    """A path for a message: short, and with what cannot be printed escaped."""
    return repr(path if len(path) <= 200 else path[:200] + "…")
