"""The Flask app: parts, routes, and what surrounds every request."""

from __future__ import annotations

import logging
import time
from typing import cast

from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import HTTPException

from api import roles
from api.access import Access, Headers
from api.allowance import Counted, Left
from api.answers import NOSNIFF, failure, speaks_deepdetect
from api.auditing import by
from api.blueprints import (
    accounts,
    datasets,
    docs,
    downloads,
    health,
    info,
    metrics,
    predict,
    services,
    tasks,
    train,
    webhooks,
)
from api.compression import compress
from api.cors import preflight
from api.figures import NO_ROUTE
from api.parts import COUNTED, IS_SLOW, Parts, Sender, parts, trace_carried
from api.refusals import BadQuery, BodyTooSlow, ForeignOrigin, KeyNeeded, Refusal, RoleNeeded, TooManyRequests
from api.waiting import thread_slots
from logs import context
from logs.context import trace_ids
from ml.errors import MlError
from settings import Settings
from storage.data_roots import DataRoots
from storage.errors import StorageError
from storage.live import Live
from storage.objects.base import Objects
from storage.records import Records, Role
from workers.queue import Queue
from workers.tracing import RequestSpan, carried_by, traces

_OPEN = health.OPEN | docs.OPEN
_AUDITED = (KeyNeeded, RoleNeeded, ForeignOrigin)
_QUOTAS = {"too_many_requests": "requests", "too_many_queued": "queued_tasks", "too_much_stored": "stored_bytes"}
_log = logging.getLogger(__name__)


def create_app(
    settings: Settings,
    records: Records | None = None,
    live: Live | None = None,
    queue: Sender | None = None,
    objects: Objects | None = None,
) -> Flask:
    """An app of its own: several may live in one process. What is not given is made from the settings.

    Nothing is connected to before it is needed. The records must have their tables.
    """
    records = records or Records.connect(settings.database_url, settings.quotas)
    live = live or Live(settings.live_url)
    app = Flask("api", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = settings.request_limit_bytes
    app.config["PROVIDE_AUTOMATIC_OPTIONS"] = False
    waits, slots = thread_slots(settings.api_threads)
    app.extensions["modelyard"] = Parts(
        settings=settings,
        records=records,
        live=live,
        queue=queue or Queue(settings.broker_url, records, live),
        waits=waits,
        slots=slots,
        access=Access(records, is_loopback=settings.is_loopback),
        data_roots=DataRoots(settings.data_roots),
        given_objects=objects,
    )
    app.url_map.strict_slashes = False
    app.before_request(_begin)
    app.after_request(_finish)
    app.register_error_handler(Refusal, _known)
    app.register_error_handler(StorageError, _known)
    app.register_error_handler(MlError, _known)
    app.register_error_handler(HTTPException, _http)
    app.register_error_handler(Exception, _unexpected)
    routes = (info, services, train, predict, tasks, datasets, downloads, webhooks, accounts, metrics, health, docs)
    for each in routes:
        app.register_blueprint(each.blueprint)
    return app


def _begin() -> Response | None:
    g.began = time.perf_counter()
    headers = cast(Headers, request.headers)
    found = traces()
    if found is not None:
        g.span = found.request(f"{request.method} {_route()}", headers)
    else:
        g.carried = carried_by(headers)
    context.clear()  # the thread had another request before
    context.note(**trace_ids(trace_carried()))
    if request.blueprint == "services":
        context.note(service=(request.view_args or {}).get("name"))
    if request.environ.get(IS_SLOW):
        idle_s, body_s = parts().settings.client_idle_s, parts().settings.body_timeout_s
        raise BodyTooSlow(f"the body did not come: no byte for {idle_s:g} s, or not all of it within {body_s:g} s")
    told = preflight(parts().cors)
    if told is None and _endpoint() not in _OPEN:
        _admit()
    # No text of the records holds it, and PostgreSQL does not even compare with one.
    if b"%00" in request.query_string:
        raise BadQuery("the query holds a NUL character")
    return told


def _admit() -> None:
    """Find out who calls. Raises KeyNeeded, ForeignOrigin, TooManyRequests, RoleNeeded."""
    g.account = caller = parts().access.account_of(cast(Headers, request.headers))
    context.note(account=caller.name)
    most = caller.quotas.requests_per_minute
    if most:
        counted: Counted | None = request.environ.get(COUNTED)
        if counted is None or counted.account_id != caller.id:
            counted = Counted(caller.id, parts().allowances.take(caller.id, most))
        g.left = left = counted.left
        if not left.is_allowed:
            raise TooManyRequests(left.refusal)
    if request.endpoint is not None:
        # A route that says nothing is for nobody but administrators; a test finds it.
        roles.check(caller, roles.needed(current_app, request.endpoint) or Role.ADMIN)


def _endpoint() -> str | None:
    """Where the request leads; for a verb that its address does not take, where the others lead."""
    others = getattr(request.routing_exception, "valid_methods", None)
    adapter = current_app.create_url_adapter(request) if others else None
    if not others or adapter is None:
        return request.endpoint
    found: str = adapter.match(method=min(others))[0]
    return found


def _finish(response: Response) -> Response:
    compress(request, response)
    for name, value in (NOSNIFF, *parts().cors.headers(request.headers.get("Origin"))):
        response.headers.add(name, value)
    left: Left | None = g.get("left")
    for name, value in () if left is None else left.headers:
        response.headers[name] = value
    who = g.get("account")
    parts().note(
        request.method,
        _route(),
        # The path as it was sent, still escaped: a decoded one could forge lines.
        request.environ.get("RAW_URI") or ascii(request.full_path.rstrip("?"))[1:-1],
        response.status_code,
        time.perf_counter() - g.get("began", time.perf_counter()),
        "-" if who is None else who.name,
        {name: value for name, value in context.ids().items() if name != "account"},
    )
    span: RequestSpan | None = g.get("span")
    if span is not None:
        span.end(request.method, _route(), response.status_code)
    context.clear()
    return response


def _route() -> str:
    return NO_ROUTE if request.url_rule is None else request.url_rule.rule


def _known(error: Exception) -> Response:
    """An error that says itself what it is."""
    kind: str = getattr(error, "kind", "internal")
    answer = failure(kind, str(error), getattr(error, "section", None))
    if isinstance(error, _AUDITED):
        parts().auditor.refused(by(f"refused.{kind}", "route", f"{request.method} {_route()}"))
    if kind in _QUOTAS:
        parts().figures.refused(_QUOTAS[kind])
    if answer.status_code >= 500:
        _log.warning("%s %s: %s: %s", request.method, ascii(request.path), kind, error)
    return answer


def _http(error: HTTPException) -> Response:
    """What Flask itself refuses: unknown addresses and verbs, and bodies over the limit."""
    path = ascii(request.path)[1:-1]
    if error.code == 404 or (error.code == 405 and speaks_deepdetect(request.path)):
        return failure("route_not_found", f"there is nothing at {request.method} {path}")
    if error.code == 405:
        allowed = ", ".join(sorted(getattr(error, "valid_methods", None) or ()))
        response = failure("verb_not_allowed", f"{request.method} is not offered at {path}; use {allowed}")
        response.headers["Allow"] = allowed
        return response
    if error.code == 413:
        limit = parts().settings.request_limit_bytes
        if request.mimetype == "multipart/form-data" and (request.content_length or 0) <= limit:
            return failure("body_too_large", "the form has too many parts, or a field that is too long")
        return failure("body_too_large", f"the body is larger than {limit} bytes, the limit of this server")
    if error.code is not None and error.code < 500:
        return failure("refused", error.description or error.name)
    return _unexpected(error)


def _unexpected(error: Exception) -> Response:
    _log.error("%s %s failed unexpectedly", request.method, ascii(request.path), exc_info=error)
    return failure("internal", "unexpected error; the server's log has it")
