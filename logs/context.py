"""What the lines of a piece of work have in common: set once, and carried to every logger that is called within."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from typing import Any, ParamSpec, TypeVar

Ids = Mapping[str, str | int]

NAMES = ("account", "service", "task", "attempt", "trace_id", "span_id")
"""What may be known of a line, in the order in which it is told."""

_NONE: Ids = {}
_ids: ContextVar[Ids] = ContextVar("ids", default=_NONE)
_P = ParamSpec("_P")
_T = TypeVar("_T")


def ids() -> Ids:
    """What is known of the work that is done now."""
    return _ids.get()


def note(**more: str | int | None) -> None:
    """Say more of the work that is done now; what is None is left out."""
    _ids.set(_joined(more))


@contextmanager
def bound(**more: str | int | None) -> Iterator[None]:
    """Say more of the work that is done within; what is None is left out."""
    token = _ids.set(_joined(more))
    try:
        yield
    finally:
        _ids.reset(token)


def clear() -> None:
    """Forget what was said, where a thread goes on with other work."""
    _ids.set(_NONE)


def _joined(more: Mapping[str, str | int | None]) -> Ids:
    known = {**_ids.get(), **{name: value for name, value in more.items() if value is not None}}
    return {name: known[name] for name in NAMES if name in known}


def carried(work: Callable[_P, _T]) -> Callable[_P, _T]:
    """`work` for another thread, which would otherwise know nothing of what is done here."""
    context = copy_context()

    def there(*args: _P.args, **named: _P.kwargs) -> _T:
        # A copy each time: no two threads may be within the same context.
        return context.copy().run(work, *args, **named)

    return there


def trace_ids(carried: Any) -> dict[str, str]:
    """`trace_id` and `span_id` of what W3C calls a traceparent, whatever follows it; empty when it is none."""
    parts = carried.partition(" ")[0].split("-") if isinstance(carried, str) else []
    if len(parts) < 4 or (len(parts[0]), len(parts[1]), len(parts[2])) != (2, 32, 16):
        return {}
    if not all(set(each) <= _HEXADECIMAL for each in parts[:3]) or not set(parts[1]) - {"0"}:
        return {}
    return {"trace_id": parts[1], "span_id": parts[2]}


_HEXADECIMAL = frozenset("0123456789abcdef")
