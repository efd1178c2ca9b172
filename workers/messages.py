"""What a worker makes of a message: of one that a later version of this program sent, too.

A message is a hint and the row is the truth: one that is left alone is acknowledged, its task goes on waiting, and the
sweep sends it again until a worker comes that understands it.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable
from functools import wraps
from typing import Any

from workers.queue import MESSAGE_VERSION, VERSION_HEADER

_log = logging.getLogger(__name__)


def message(work: Callable[..., None]) -> Callable[..., None]:
    """A bound Celery task that calls `work` with what it knows of a message, unless its version is a later one.

    Within a version fields may be added, behind the known ones or by name; they say nothing that must be known.
    """
    count = len(inspect.signature(work).parameters)

    @wraps(work)
    def taken(task: Any, *args: Any, **_: Any) -> None:
        version = getattr(task.request, VERSION_HEADER, None) or 1
        if not isinstance(version, int) or version > MESSAGE_VERSION:
            _log.info("message %s is of version %s and left to workers that know it", task.request.id, version)
            return
        work(*args[:count])

    return taken
