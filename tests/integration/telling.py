"""The application as `api.serve` makes it, which tells with each answer which way the request took."""

from __future__ import annotations

from typing import Any

from api.front import Front
from api.serve import app as served


def telling(front: Front) -> Front:
    """Mark what the hot way answers, and all else as Flask's."""
    hot, flask = front._hot.answer, front._by_flask

    async def by_loop(*arguments: Any) -> Any:
        answer = await hot(*arguments)
        if not isinstance(answer, tuple):
            return answer
        return answer[0], [*answer[1], ("x-way", "loop")], answer[2]

    def by_flask(*arguments: Any) -> Any:
        status, headers, content = flask(*arguments)
        return status, [*headers, ("x-way", "flask")], content

    front._hot.answer = by_loop  # type: ignore[method-assign]
    front._by_flask = by_flask  # type: ignore[method-assign]
    return front


app = telling(served)
