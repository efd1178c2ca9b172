"""Lines as text for a terminal and as JSON for whoever gathers them."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pythonjsonlogger.orjson import OrjsonFormatter

from logs.context import NAMES, ids
from logs.redaction import redacted, redacted_value

FORMAT = "MODELYARD_LOG_FORMAT"
ROLE = "MODELYARD_LOG_ROLE"
"""Names what a process does, in every line; set for the processes that the command line starts."""

_TEXT = "%(asctime)s %(levelname)s %(name)s%(about)s %(message)s"
_BRIEF = {"trace_id": "trace", "span_id": None}
# What every record has; the rest was given with the call.
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", *NAMES}


class Passing(logging.Filter):
    """Adds what is known of the work to each record, and takes credentials out of all that it says.

    Stands on handlers, not on loggers: those see the records of all loggers, other people's too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Always true; the record is changed once, however many handlers it meets."""
        if getattr(record, "_was_passed", False):
            return True
        known = ids()
        for name in NAMES:
            if name in known and not hasattr(record, name):
                setattr(record, name, known[name])
        try:
            message = record.getMessage()
        except Exception as error:  # what logging would print about it holds the arguments
            message = f"{record.msg!r} could not be written: {type(error).__name__}"
        record.msg, record.args = redacted(message), None
        if record.exc_info:
            record.exc_text = redacted(_formatter.formatException(record.exc_info))
            record.exc_info = None
        elif record.exc_text:
            record.exc_text = redacted(record.exc_text)
        if record.stack_info:
            record.stack_info = redacted(record.stack_info)
        for name in vars(record).keys() - _OWN:
            setattr(record, name, redacted_value(getattr(record, name)))
        record._was_passed = True
        return True


_formatter = logging.Formatter()


class TextLines(logging.Formatter):
    """One line for people, with the ids in brackets; the lines of a traceback follow it."""

    def __init__(self) -> None:
        super().__init__(_TEXT)

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        record.about = brief({name: value for name in NAMES if (value := getattr(record, name, None)) is not None})
        return super().format(record)

    def formatMessage(self, record: logging.LogRecord) -> str:
        """The line itself. What a message says on further lines is indented, so that it passes for no line of ours."""
        return super().formatMessage(record).strip().replace("\r", "").replace("\n", "\n    ")


def brief(known: Mapping[str, Any]) -> str:
    """Ids as a line of text tells them: ` [service=iris task=17 attempt=2]`; empty when there are none."""
    told = [(_BRIEF.get(name, name), value) for name, value in known.items()]
    words = " ".join(f"{name}={_shown(value)}" for name, value in told if name is not None)
    return f" [{words}]" if words else ""


def _shown(value: Any) -> str:
    """A value that clients choose, on one line whatever it holds."""
    text = str(value)
    return text if text.isprintable() else ascii(text)[1:-1]


class JsonLines(OrjsonFormatter):
    """One JSON object, and one line, for each record."""

    def __init__(self, role: str) -> None:
        super().__init__(
            ["levelname", "name", "message", "process"],
            rename_fields={
                "levelname": "level",
                "name": "logger",
                "process": "pid",
                "exc_info": "exception",
                "stack_info": "stack",
            },
            static_fields={"role": role},
            json_default=repr,
        )

    def add_fields(self, log_data: dict[str, Any], record: logging.LogRecord, message_dict: dict[str, Any]) -> None:
        """Every field, the time first."""
        log_data["time"] = moment(record.created)
        super().add_fields(log_data, record, message_dict)


def moment(seconds: float) -> str:
    """A time as RFC 3339 writes it, in UTC, to the millisecond."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def is_json() -> bool:
    """Whether this process writes JSON. Anything but `json` is text: the settings say what is wrong with the rest."""
    return os.environ.get(FORMAT, "").strip().lower() == "json"


def role() -> str:
    """What this process does."""
    return os.environ.get(ROLE) or "modelyard"


def formatter(does: str = "") -> logging.Formatter:
    """What makes lines in this process, as its environment says. does : its role, when the environment has none."""
    return JsonLines(does or role()) if is_json() else TextLines()
