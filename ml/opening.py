"""Opening what a path names at the time it was looked at, and nothing else."""

from __future__ import annotations

import os
from pathlib import Path


def open_unlinked(path: Path) -> int:
    """A descriptor to read a file or folder from; no part of its absolute path may be a link.

    Who may change folders can put a link in the place of one that was looked at, at any moment. So each folder is
    opened in the one before, never by a path. Does not wait for the other end of a pipe.
    Raises OSError: ELOOP or ENOTDIR for a link.
    """
    *folders, name = path.parts[1:] or (".",)
    place = os.open("/", os.O_PATH | os.O_CLOEXEC)
    try:
        for each in folders:
            inner = os.open(each, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
            os.close(place)
            place = inner
        return os.open(name, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    finally:
        os.close(place)
