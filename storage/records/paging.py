"""Pages of long tables, newest first: a page begins behind the last row of the one before, which an index finds."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, ColumnElement, Double, Select, literal, tuple_


def newest(wanted: Select[Any], number: Column[int], *, limit: int, before_id: int | None) -> Select[Any]:
    """A page of rows by `number`; before_id : that of the last row of the page before."""
    if before_id is not None:
        wanted = wanted.where(number < before_id)
    return wanted.order_by(number.desc()).limit(limit)


def newest_by_time(
    wanted: Select[Any],
    created_at: Column[float],
    number: Column[int],
    *,
    limit: int,
    before: tuple[float, int] | None,
) -> Select[Any]:
    """A page of rows by time: where an index has it so, what came later or earlier than is wanted is not read at all.

    before : time and number of the last row of the page before.
    """
    if before is not None:
        at, last = before
        wanted = wanted.where(tuple_(created_at, number) < tuple_(literal(at, Double), literal(last)))
    return wanted.order_by(created_at.desc(), number.desc()).limit(limit)


def within(created_at: Column[float], since: float | None, until: float | None) -> list[ColumnElement[bool]]:
    """Whether rows are of a time, in seconds since 1970, whose end does not count; None for no bound."""
    bounds = []
    if since is not None:
        bounds.append(created_at >= since)
    if until is not None:
        bounds.append(created_at < until)
    return bounds
