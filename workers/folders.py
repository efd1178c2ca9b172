"""The folders of repositories in data roots, as workers reach them: one at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from logs.context import carried
from storage.errors import StorageError, StoreUnavailable
from storage.records import Repository
from workers.parts import Parts

LEASE_S = 60.0
PATIENCE_S = 600.0
_RENEW_S = 15.0
_LOOK_S = 0.1
_log = logging.getLogger(__name__)


def folder_of(parts: Parts, repository: Repository) -> Path:
    """The folder of a repository. Raises RepositoryUnusable when its path leads elsewhere by now."""
    return parts.data_roots.repository(repository.location)


class Turn:
    """The right to write a folder, kept up while it is held."""

    def __init__(self, parts: Parts, repository_id: int, until: float) -> None:
        self._repositories = parts.records.repositories
        self._id = repository_id
        self._until = until
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=carried(self._keep), name=f"folder of repository {repository_id}", daemon=True
        )
        self._thread.start()

    def note_exported(self, version: int) -> None:
        """Note the number of the version that lies in the folder now."""
        with self._lock:
            self._repositories.note_exported(self._id, self._until, version)

    def give_back(self) -> None:
        """Let others write."""
        self._over.set()
        self._thread.join()
        self._repositories.unlock_export(self._id, self._until)

    def _keep(self) -> None:
        while not self._over.wait(_RENEW_S):
            try:
                with self._lock:
                    renewed = self._repositories.renew_export(self._id, self._until, LEASE_S)
                    if renewed is None:
                        # Nothing breaks: files appear whole, and the newest version wins at the next sweep.
                        _log.warning("the folder of repository %s is another's by now", self._id)
                        return
                    self._until = renewed
            except StorageError as error:
                _log.warning("the right to write the folder of repository %s was not renewed: %s", self._id, error)


@contextmanager
def writing(parts: Parts, repository_id: int) -> Iterator[Turn | None]:
    """Hold the right to write the folder of a repository, if nobody else does; else None."""
    until = parts.records.repositories.lock_export(repository_id, LEASE_S)
    if until is None:
        yield None
        return
    turn = Turn(parts, repository_id, until)
    try:
        yield turn
    finally:
        turn.give_back()


@contextmanager
def waiting_to_write(
    parts: Parts, repository_id: int, is_pointless: Callable[[], bool] = lambda: False
) -> Iterator[Turn]:
    """Hold the right to write the folder of a repository, after whoever does so now.

    is_pointless : whether to give up early. Raises StoreUnavailable when the wait was in vain.
    """
    deadline = time.monotonic() + PATIENCE_S
    while True:
        with writing(parts, repository_id) as turn:
            if turn is not None:
                yield turn
                return
        if is_pointless() or time.monotonic() > deadline:
            raise StoreUnavailable("the folder of the repository is being written by another worker")
        time.sleep(_LOOK_S)
