"""Counts of predictions, gathered in this process and told to Redis once a second: they may get lost."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from storage.errors import LiveUnavailable
from storage.live import Counts, Live

_EVERY_S = 1.0
_log = logging.getLogger(__name__)


class Tally:
    """What `service_stats` of the DeepDetect API counts. Safe to share between threads.

    sleep : waits for so many seconds.
    """

    def __init__(self, live: Live, sleep: Callable[[float], None] = time.sleep) -> None:
        self._live = live
        self._sleep = sleep
        self._lock = threading.Lock()
        self._counts: dict[int, Counts] = {}
        self._teller: threading.Thread | None = None
        self._is_over = False

    def count(self, service_id: int, counts: Counts) -> None:
        """Add to the counts of a service."""
        with self._lock:
            before = self._counts.get(service_id)
            self._counts[service_id] = counts if before is None else before + counts
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, name="tally", daemon=True)
                self._teller.start()

    def flush(self) -> None:
        """Tell what was counted so far."""
        with self._lock:
            counts, self._counts = self._counts, {}
        for service_id, each in counts.items():
            try:
                self._live.statistics.add(service_id, each)
            except LiveUnavailable:
                _log.info("predictions of service %s were not counted", service_id)

    def stop(self) -> None:
        """Tell what is left, and nothing after that."""
        self._is_over = True
        self.flush()

    def _tell(self) -> None:
        while True:
            self._sleep(_EVERY_S)
            if self._is_over:
                return
            self.flush()
