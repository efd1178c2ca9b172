"""The line that every request leaves, written some at a time: a write of its own would cost a prediction a tenth."""

from __future__ import annotations

import atexit
import logging
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import TextIO

_EVERY_S = 0.1
_log = logging.getLogger("api.access")


class AccessLog:
    """Gathers lines and writes them a tenth of a second later. Safe to share between threads.

    stream : where they go; None for where the standard error goes then.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._lines: deque[str] = deque()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None

    def note(self, method: str, target: str, status: int, seconds: float, account: str) -> None:
        """Note a request. target : path and query as they were sent, escaped. account : its name, or "-"."""
        if not _log.isEnabledFor(logging.INFO):
            return
        now = time.time()
        when, milliseconds = _clock(int(now)), int(now % 1 * 1000)
        self._lines.append(
            f"{when},{milliseconds:03d} INFO api.access {method} {target} {status} {seconds * 1000:.1f} ms {account}\n"
        )
        if self._writer is None:
            self._start()

    def flush(self) -> None:
        """Write what was noted so far."""
        lines = []
        with suppress(IndexError):
            while True:
                lines.append(self._lines.popleft())
        if lines:
            stream = self._stream or sys.stderr
            stream.write("".join(lines))
            stream.flush()

    def _start(self) -> None:
        with self._starting:
            if self._writer is None:
                self._writer = threading.Thread(target=self._write, name="access-log", daemon=True)
                self._writer.start()
                atexit.register(self.flush)

    def _write(self) -> None:
        over = threading.Event()
        while True:
            over.wait(_EVERY_S)
            try:
                self.flush()
            except (OSError, ValueError):
                continue  # nobody reads, or the stream is closed


@lru_cache(maxsize=2)
def _clock(second: int) -> str:
    """As the other lines of the log tell the time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(second))
