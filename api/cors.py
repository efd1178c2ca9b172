"""Pages of other origins: which of them may read answers here, and what their browsers are told before they ask.

A page brings its key itself; cookies and passwords that a browser keeps are never asked for, so no answer allows
credentials. Who may come in without a key is decided elsewhere (`api/access.py`), and being listed changes nothing
there: on a machine without keys, pages of other sites stay refused.
"""

from __future__ import annotations

from flask import Response, request

ANY = "*"

_TAKEN = (
    "authorization, content-encoding, content-type, idempotency-key, last-event-id, traceparent, tracestate, x-api-key"
)
_SHOWN = ("access-control-expose-headers", "content-disposition, location, ratelimit, ratelimit-policy, retry-after")
_VARIES = ("vary", "Origin")
_PREFLIGHT_KEPT_S = 600


class Cors:
    """What `MODELYARD_CORS_ORIGINS` allows; false when it names nobody."""

    def __init__(self, origins: tuple[str, ...]) -> None:
        self._to_all: tuple[tuple[str, str], ...] = ()
        self._to_others: tuple[tuple[str, str], ...] = ()
        self._told: dict[str, tuple[tuple[str, str], ...]] = {}
        if ANY in origins:
            self._to_all = (("access-control-allow-origin", ANY), _SHOWN)
        elif origins:
            # Said to everybody, or a cache would hand one page what was meant for another.
            self._to_others = (_VARIES,)
            self._told = {each: (("access-control-allow-origin", each), _SHOWN, _VARIES) for each in origins}

    def __bool__(self) -> bool:
        return bool(self._to_all or self._told)

    def admits(self, origin: str | None) -> bool:
        """Whether pages of an origin may read what is answered."""
        return origin is not None and (bool(self._to_all) or origin in self._told)

    def headers(self, origin: str | None) -> tuple[tuple[str, str], ...]:
        """What every answer to a request with this `Origin` says."""
        return self._to_all or self._told.get(origin or "", self._to_others)


def preflight(cors: Cors) -> Response | None:
    """The answer to a browser that asks whether its page may send a request; None when this is no such question.

    Browsers send no key along, so it is asked before the account is looked for. It is answered for routes that exist.
    """
    if request.method != "OPTIONS" or not cors.admits(request.headers.get("Origin")):
        return None
    methods = getattr(request.routing_exception, "valid_methods", None)
    if not methods or "Access-Control-Request-Method" not in request.headers:
        return None
    response = Response(status=204)
    del response.headers["Content-Type"]
    response.headers["Access-Control-Allow-Methods"] = ", ".join(sorted(methods))
    response.headers["Access-Control-Allow-Headers"] = _TAKEN
    response.headers["Access-Control-Max-Age"] = str(_PREFLIGHT_KEPT_S)
    return response
