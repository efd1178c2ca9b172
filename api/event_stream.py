"""Server-sent events as text, and the ids that let a stream go on where it broke off."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from api.answers import Json, dump
from api.refusals import BadHeader
from storage.live.series import STEP_SERIES

CONTENT_TYPE = "text/event-stream"
_AGAIN_MS = 2000
# The lines were not counted once, and need not be named.
_PLACE = re.compile(r"([0-9]{1,9})-([0-9]{1,12})(?:-([0-9]{1,12}))?(-end)?", re.ASCII)


@dataclass(frozen=True)
class Place:
    """How far a client has read.

    Attempts of a task measure at the same iterations, and one that goes on begins with the measures before its
    checkpoint: so the number of measures says what comes next, whichever attempt told them. The attempt is for people.
    Log lines are numbered through all attempts; `lines` is the number of the last one.
    """

    attempt: int = 0
    measures: int = 0
    is_end: bool = False
    lines: int = 0

    def __str__(self) -> str:
        lines = f"-{self.lines}" if self.lines else ""
        return f"{self.attempt}-{self.measures}{lines}{'-end' if self.is_end else ''}"


def read_place(text: str | None) -> Place | None:
    """What the header Last-Event-ID says; None when it is missing or empty. Raises BadHeader."""
    if not text:
        return None
    found = _PLACE.fullmatch(text)
    if found is None:
        raise BadHeader(
            f"Last-Event-ID is {text[:40]!r}; send the id of the last event that came, as in 1-25-7, or leave it out"
        )
    return Place(int(found[1]), int(found[2]), found[4] is not None, int(found[3] or 0))


def event(name: str, data: Any, place: Place | None = None) -> bytes:
    """One event; with a place, a client that comes again names it."""
    made = b"event: %s\ndata: %s\n\n" % (name.encode(), dump(data))
    return made if place is None else at(place, made)


def at(place: Place, made: bytes) -> bytes:
    """An event that was made without a place, with the one that a client has reached with it."""
    return b"id: %s\n%s" % (str(place).encode(), made)


def opening(place: Place) -> bytes:
    """What a stream begins with: when to come again, and the place to name then if nothing else was read."""
    return b"retry: %d\nid: %s\n\n" % (_AGAIN_MS, str(place).encode())


def comment(text: str = "") -> bytes:
    """A line that clients skip."""
    return b": %s\n\n" % text.encode()


def points_of(report: Mapping[str, Any]) -> list[Json]:
    """The measures of an ended training one by one, as its worker told them while it ran."""
    hist = {name: values for name, values in (report.get("measure_hist") or {}).items() if name not in STEP_SERIES}
    length = max((len(values) for values in hist.values()), default=0)
    return [
        {name.removesuffix("_hist"): values[at] for name, values in hist.items() if at < len(values)}
        for at in range(length)
    ]
