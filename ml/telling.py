"""Log records of a training or prediction process as events, so that whoever started it can log them as its own.

What the owner of the task may read is logged with `told`; all other records are for those who run the machine.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

told = logging.getLogger("ml.told")
"""What a task says to its owner: no paths of this machine, and nothing of anybody else."""

_MESSAGE_CHARACTERS = 10_000


class EventHandler(logging.Handler):
    """Hands every record on as an event `log`."""

    def __init__(self, emit: Callable[[dict[str, Any]], None]) -> None:
        super().__init__()
        self._emit = emit

    def emit(self, record: logging.LogRecord) -> None:
        """Hand it on."""
        try:
            self._emit(
                {
                    "event": "log",
                    "level": record.levelname,
                    "logger": record.name,
                    "message": record.getMessage()[:_MESSAGE_CHARACTERS],
                    "exception": logging.Formatter().formatException(record.exc_info) if record.exc_info else None,
                    "told": record.name == told.name,
                }
            )
        except Exception:
            self.handleError(record)  # to stderr, which is a log too


def listen(emit: Callable[[dict[str, Any]], None]) -> None:
    """Have all records of this process become events: our own from INFO on, those of libraries when they warn."""
    root = logging.getLogger()
    root.addHandler(EventHandler(emit))
    root.setLevel(logging.WARNING)
    logging.getLogger("ml").setLevel(logging.INFO)
    logging.captureWarnings(True)
