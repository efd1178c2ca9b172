"""What a task says of itself to its owner: a few plain lines that lead nowhere but to that task."""

from __future__ import annotations

import logging
import re
import time
from pathlib import Path
from typing import Any

from logs.redaction import redacted
from storage.errors import LiveUnavailable
from storage.live import Live
from storage.live.task_logs import MESSAGE_CHARACTERS

_log = logging.getLogger(__name__)

LEVELS = ("debug", "info", "warning", "error")
_OTHERS = {"critical": "error"}
_hidden: set[str] = set()


def hide(*folders: Path) -> None:
    """Leave out of all lines what lies in these folders of this machine, and where they are."""
    _hidden.update(re.escape(str(folder)) for folder in folders)


def line(level: str, message: str) -> dict[str, Any]:
    """A line as it is kept: on one line, not too long, without credentials and places of this machine."""
    level = level.lower()
    said = redacted(message)
    if _hidden:
        said = re.sub(rf"(?:{'|'.join(sorted(_hidden))})[^\s'\",;)]*", "…", said)
    said = " ".join(said.split())
    if len(said) > MESSAGE_CHARACTERS:
        said = said[: MESSAGE_CHARACTERS - 1] + "…"
    level = _OTHERS.get(level, level)
    return {"time": round(time.time(), 3), "level": level if level in LEVELS else "info", "message": said}


def say(live: Live, task_id: int, attempt: int, level: str, message: str) -> None:
    """Tell the owner of a task something; unsaid while Redis is away."""
    try:
        live.logs.append(task_id, attempt, [line(level, message)])
    except LiveUnavailable as error:
        _log.info("task %s could not say that it %s: %s", task_id, message, error)
