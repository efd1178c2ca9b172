"""Working folders on this machine's disk. They belong to one process and vanish with it."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from storage.landing import local_errors


class Scratch:
    """A folder held by a lock for as long as its process lives, so that anybody can tell a left one from a used one."""

    def __init__(self, parent: Path) -> None:
        """Make a folder below `parent`, and delete those whose processes are gone."""
        parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.folder, self._lock = _held_folder(parent)
        for left in parent.iterdir():
            if left != self.folder:
                _remove_if_left(left)

    def attempt(self, name: str) -> Path:
        """A fresh folder for one attempt."""
        folder = self.folder / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    @contextmanager
    def own(self) -> Iterator[Path]:
        """A folder that is gone when the block ends. Raises StorageFull, StoreUnavailable."""
        with local_errors("no working folder can be made"):
            folder = Path(tempfile.mkdtemp(dir=self.folder))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)


def _held_folder(parent: Path) -> tuple[Path, int]:
    """A new folder and the descriptor of its lock."""
    while True:
        folder = parent / uuid.uuid4().hex
        folder.mkdir(mode=0o700)
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        # Another process may have found the folder before it was locked, taken it for a left one and deleted it.
        if (folder / "lock").exists():
            return folder, lock
        os.close(lock)


def _remove_if_left(folder: Path) -> None:
    try:
        lock = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return  # just being made, or just being removed
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return
    else:
        shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)
