"""Makes a process write its lines in our form, whoever logs them."""

from __future__ import annotations

import logging
import os
import sys
import threading
from types import TracebackType
from typing import Any

from logs.lines import Passing, formatter
from logs.redaction import learn_environment

_log = logging.getLogger("uncaught")


def set_up(level: int = logging.INFO, role: str = "") -> None:
    """Have every logger of this process write to standard error; what was set up before is replaced.

    Warnings and errors that nobody caught, in any thread, become lines as well.
    role : what this process does; empty for what its environment says.
    """
    learn_environment(os.environ)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(formatter(role))
    handler.addFilter(Passing())
    root = logging.getLogger()
    for before in list(root.handlers):
        root.removeHandler(before)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = _uncaught_in_thread
    sys.unraisablehook = _unraisable


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, trace)
        return
    _log.critical("this process ends: %s", kind.__name__, exc_info=(kind, error, trace))


def _uncaught_in_thread(told: threading.ExceptHookArgs) -> None:
    if told.exc_type is SystemExit:
        return
    name = "?" if told.thread is None else told.thread.name
    error = told.exc_value if told.exc_value is not None else told.exc_type()
    _log.error("thread %s ends: %s", name, told.exc_type.__name__, exc_info=(told.exc_type, error, told.exc_traceback))


def _unraisable(told: Any) -> None:
    error = told.exc_value if told.exc_value is not None else told.exc_type()
    _log.error(
        "%s in %r",
        told.err_msg or "an error that nobody could catch",
        told.object,
        exc_info=(told.exc_type, error, told.exc_traceback),
    )
