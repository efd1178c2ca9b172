"""The line that every request leaves, written some at a time: a write of its own would cost a prediction a tenth."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from functools import lru_cache
from typing import TextIO

import orjson

from logs.context import Ids
from logs.lines import brief, is_json, role
from logs.redaction import redacted

_EVERY_S = 0.1
_log = logging.getLogger("api.access")


class AccessLog:
    """Gathers lines and writes them a tenth of a second later. Safe to share between threads.

    stream : where they go; None for where the standard error goes then.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._is_json = is_json()
        self._same = f'"level":"INFO","logger":"api.access","role":{_quoted(role())},"pid":{os.getpid()}'
        self._lines: deque[str] = deque()
        self._starting = threading.Lock()
        self._writer: threading.Thread | None = None

    def note(
        self, method: str, target: str, status: int, seconds: float, account: str, about: Ids | None = None
    ) -> None:
        """Note a request.

        target : path and query as they were sent, escaped. account : its name, or "-". about : what else is known.
        """
        if not _log.isEnabledFor(logging.INFO):
            return
        if "?" in target or "@" in target or "=" in target:
            target = redacted(target)
        now = time.time()
        took = f"{seconds * 1000:.1f}"
        if self._is_json:
            self._lines.append(self._json(now, method, target, status, took, account, about))
        else:
            when, milliseconds = _clock(int(now)), int(now % 1 * 1000)
            ids = brief(about) if about else ""
            self._lines.append(
                f"{when},{milliseconds:03d} INFO api.access{ids} {method} {target} {status} {took} ms {account}\n"
            )
        if self._writer is None:
            self._start()

    def _json(
        self, now: float, method: str, target: str, status: int, took: str, account: str, about: Ids | None
    ) -> str:
        # Put together by hand: much of it is the same in most lines, and is quoted once.
        more = "".join([f',"{name}":{_quoted(value)}' for name, value in about.items()]) if about else ""
        return (
            f'{{"time":"{_utc(int(now))}.{int(now % 1 * 1000):03d}Z",{self._same},'
            f'"message":{_quoted(f"{method} {target} {status}")},"account":{_quoted(account)},'
            f'"method":{_quoted(method)},"path":{_quoted(target)},"status":{status},"ms":{took}{more}}}\n'
        )

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


@lru_cache(maxsize=2)
def _utc(second: int) -> str:
    """The time as lines of JSON tell it, but for the fraction."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=1024)
def _quoted(value: str | int) -> str:
    """A value as JSON."""
    return orjson.dumps(value).decode()
