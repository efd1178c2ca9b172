"""Which part of a list is asked for, and where the next page of it begins."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from api.query import whole_number
from api.refusals import BadQuery

LIMIT_MOST = 1000
LIMIT = 100

PAGE = ("limit", "cursor")
"""The query parameters that say which page is wanted."""

SPAN = ("since", "until")
"""Those that say from which time."""

_ID_BELOW = 2**63


class Numbered(Protocol):
    """A member of a list that is told newest first."""

    @property
    def id(self) -> int:
        """Later ones have higher numbers."""


N = TypeVar("N", bound=Numbered)


@dataclass(frozen=True)
class Place:
    """Where a page ends: number of the last one on it, and when that was created."""

    id: int
    at: float


@dataclass(frozen=True)
class PageQuery:
    """At most `limit` members of a list, those that come after a place; None for the first page."""

    limit: int
    after: Place | None

    @property
    def before_id(self) -> int | None:
        """What the numbers on the page are below, as the newest come first."""
        return None if self.after is None else self.after.id

    def cut(
        self, found: Sequence[N], created_at: Callable[[N], float] = attrgetter("created_at")
    ) -> tuple[Sequence[N], str | None]:
        """The page, of members of which one more was looked for than it holds, and the cursor of the next one."""
        shown = found[: self.limit]
        return shown, cursor_before(shown[-1].id, created_at(shown[-1])) if len(found) > self.limit else None


@dataclass(frozen=True)
class Span:
    """From a moment on, up to, but without, another one, in seconds since 1970; None for no bound."""

    since: float | None
    until: float | None


def read_page(arguments: Mapping[str, str]) -> PageQuery:
    """The page that a query asks for. Raises BadQuery."""
    return PageQuery(limit_of(arguments.get("limit")), cursor_of(arguments.get("cursor")))


def read_span(arguments: Mapping[str, str]) -> Span:
    """The time that a query asks for. Raises BadQuery."""
    return Span(moment_of(arguments, "since"), moment_of(arguments, "until"))


def limit_of(value: str | None) -> int:
    """How many a page holds at most. Raises BadQuery."""
    if value is None:
        return LIMIT
    number = whole_number(value)
    if number is None or not 1 <= number <= LIMIT_MOST:
        raise BadQuery(f"limit is {value[:40]!r}; it must be a whole number from 1 to {LIMIT_MOST}")
    return number


def moment_of(arguments: Mapping[str, str], name: str) -> float | None:
    """A time of the query in seconds since 1970; one without a zone is in UTC."""
    given = arguments.get(name)
    if given is None:
        return None
    try:
        # The plus of a zone comes as a space when nobody escaped it.
        found = datetime.fromisoformat(re.sub(r" (\d\d:\d\d)$", r"+\1", given.strip()))
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        raise BadQuery(f"{name} is {given[:40]!r}; it must be a time in ISO 8601, as in 2026-01-31T09:30:00Z") from None


# Cursors


def cursor_before(number: int, created_at: float) -> str:
    """The cursor of the page that comes after a task, a service or a data set."""
    return _packed({"before": number, "at": created_at})


def cursor_of(value: str | None) -> Place | None:
    """What `cursor_before` was given. Raises BadQuery."""
    if value is None:
        return None
    found = _unpacked(value)
    number, at = found.get("before"), found.get("at")
    if not (type(number) is int and 0 < number < _ID_BELOW and type(at) is float and isfinite(at)):
        raise _unreadable()
    return Place(number, at)


def cursor_after(path: str) -> str:
    """The cursor of the page that comes after the file at `path`."""
    return _packed({"after": path})


def path_of(value: str | None) -> str | None:
    """What `cursor_after` was given. Raises BadQuery."""
    if value is None:
        return None
    after = _unpacked(value).get("after")
    if not isinstance(after, str) or "\0" in after or not after.isprintable():
        raise _unreadable()
    return after


def _packed(place: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(place).encode()).decode().rstrip("=")


def _unpacked(value: str) -> dict[str, Any]:
    try:
        found = json.loads(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {}


def _unreadable() -> BadQuery:
    return BadQuery("cursor cannot be read; use next_cursor of the page before, or leave it out")
