"""The bytes of a file of data, by offset. Imports nothing heavy: the API looks at the heads of files with it."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

from ml.errors import BadInput
from ml.opening import open_unlinked


class FileBytes:
    """The bytes of a regular file.

    name : how messages call it. wanted : what it must be, for messages, e.g. "a CSV file". is_resolved : whether the
    path was looked at already and has no link, so that one that leads through a link by now is refused.
    size : how many there are. Raises BadInput for what is no regular file or cannot be read.
    """

    def __init__(self, path: Path, name: str, wanted: str, *, is_resolved: bool = False) -> None:
        self._name = name
        self._descriptor: int | None
        self._descriptor, self.size = _opened(path, name, wanted, is_resolved)

    def read(self, position: int, count: int) -> bytes:
        """Up to so many bytes from an offset on; fewer only at the end. Safe in several threads."""
        assert self._descriptor is not None
        parts = []
        try:
            while count > 0 and (part := os.pread(self._descriptor, count, position)):
                parts.append(part)
                position += len(part)
                count -= len(part)
        except OSError as error:
            raise _unreadable(self._name, error) from None
        if count > 0 and position < self.size:
            raise BadInput(
                f"data file {self._name} became shorter while it was read; train on a file that nobody writes to"
            )
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _opened(path: Path, name: str, wanted: str, is_resolved: bool) -> tuple[int, int]:
    """Descriptor and size of a regular file. Raises BadInput."""
    try:
        # Without waiting: to open a pipe would last until somebody writes to it.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = open_unlinked(path) if is_resolved else os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"data file {name} does not exist") from None
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise BadInput(f"{name} is no regular file, requires {wanted}") from None
        raise _unreadable(name, error) from None
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode):
        return descriptor, status.st_size
    os.close(descriptor)
    what = "a directory" if stat.S_ISDIR(status.st_mode) else "no regular file"
    raise BadInput(f"{name} is {what}, requires {wanted}")


def _unreadable(name: str, error: OSError) -> BadInput:
    return BadInput(f"data file {name} cannot be read: {(error.strerror or 'unknown error').lower()}")
