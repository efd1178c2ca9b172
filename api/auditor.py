"""Writes the audit log: changes one by one, refusals at a bounded rate."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from storage.errors import StorageError
from storage.records import NewNote, Records

_EVERY_S = 60.0
_KINDS_MOST = 20
_OTHERS = NewNote("refused.others", outcome="refused")
_log = logging.getLogger(__name__)


class Auditor:
    """Writes for one API process. Safe to share between threads.

    Of refusals that are alike, and follow each other within a minute, the first is written at once and the others as
    one line; and more than 20 that differ are one line too. So an attacker adds 41 lines a minute at most.
    sleep : waits for so many seconds.
    """

    def __init__(self, records: Records, sleep: Callable[[float], None] = time.sleep) -> None:
        self._records = records
        self._sleep = sleep
        self._lock = threading.Lock()
        self._refused: dict[NewNote, int] = {}
        self._others = 0
        self._teller: threading.Thread | None = None
        self._is_over = False

    def done(self, note: NewNote) -> None:
        """Note what was done. It cannot be taken back any more, so a log that cannot be written fails nothing."""
        try:
            self._records.audit.add(note)
        except StorageError as error:
            _log.error("the audit log cannot be written (%s): %r", error, note)

    def refused(self, note: NewNote) -> None:
        """Note a refusal, at once or with the others of its minute."""
        note = replace(note, trace="", outcome="refused")
        with self._lock:
            is_new = note not in self._refused and len(self._refused) < _KINDS_MOST
            if is_new:
                self._refused[note] = 0
            elif note in self._refused:
                self._refused[note] += 1
            else:
                self._others += 1
            if self._teller is None:
                self._teller = threading.Thread(target=self._tell, name="audit", daemon=True)
                self._teller.start()
        if is_new:
            self.done(note)

    def flush(self) -> None:
        """Write the refusals that were only counted so far."""
        with self._lock:
            refused, self._refused = self._refused, {}
            others, self._others = self._others, 0
        for note, count in [*refused.items(), (_OTHERS, others)]:
            if count:
                self.done(replace(note, count=count))

    def stop(self) -> None:
        """Write what is left; what is only counted after that is lost."""
        self._is_over = True
        self.flush()

    def _tell(self) -> None:
        while True:
            self._sleep(_EVERY_S)
            if self._is_over:
                return
            self.flush()
