"""Keeping the lease of an attempt while its worker is busy with it."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType

from logs.context import carried
from storage.errors import LiveUnavailable, StorageError, Superseded
from storage.live import Live
from storage.records import Attempt, Records

_LOOK_S = 0.25
_log = logging.getLogger(__name__)


class LeaseKeeper:
    """A thread that renews a lease, and learns whether the task was taken over or shall be cancelled.

    The row decides; Redis only makes the thread look at the row sooner.
    """

    def __init__(self, records: Records, live: Live, attempt: Attempt, lease_s: float, renew_s: float) -> None:
        self._records = records
        self._live = live
        self._attempt = attempt
        self._lease_s = lease_s
        self._renew_s = renew_s
        self._over = threading.Event()
        self._lost = threading.Event()
        self._cancel_requested = threading.Event()
        self._thread = threading.Thread(target=carried(self._keep), name=f"lease of {attempt.name}", daemon=True)

    @property
    def is_lost(self) -> bool:
        """Whether another attempt took over: nothing may be written any more."""
        return self._lost.is_set()

    @property
    def is_cancel_requested(self) -> bool:
        """Whether the client asked for the end of the task."""
        return self._cancel_requested.is_set()

    def check(self) -> None:
        """Raises Superseded when the lease is lost."""
        if self.is_lost:
            raise Superseded(f"{self._attempt.name} was taken over")

    def __enter__(self) -> LeaseKeeper:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _keep(self) -> None:
        renewed = time.monotonic()
        live_again = 0.0
        while not self._over.wait(min(_LOOK_S, self._renew_s)):
            hinted = False
            if not self.is_cancel_requested and time.monotonic() >= live_again:
                try:
                    hinted = self._live.progress.cancel_hinted(self._attempt.task.id)
                except LiveUnavailable:
                    live_again = time.monotonic() + self._renew_s
            if not hinted and time.monotonic() - renewed < self._renew_s:
                continue
            try:
                if self._records.tasks.renew(self._attempt, self._lease_s):
                    self._cancel_requested.set()
                renewed = time.monotonic()
            except Superseded:
                _log.warning("%s was taken over", self._attempt.name)
                self._lost.set()
                return
            except StorageError as error:
                # The lease may run out now; it stays ours as long as nobody takes over.
                _log.warning("the lease of %s was not renewed: %s", self._attempt.name, error)
