"""Traces for OpenTelemetry, when it is told by its own variables where they go; otherwise nothing is loaded.

A trace comes with the header `traceparent` of a request, or begins in the API, and goes through the queue beside what
is asked. Both sides use this: it knows nothing of HTTP.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol

from logs.context import trace_ids

_OUR_NAME = "modelyard"
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_log = logging.getLogger(__name__)


class Headers(Protocol):
    """Headers of a request; names are asked for in lower case."""

    def get(self, key: str, default: Any = None, /) -> Any:
        """One of them."""


def are_wanted(environment: Mapping[str, str]) -> bool:
    """Whether the variables of OpenTelemetry name a place for traces."""
    if environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    exporter = environment.get("OTEL_TRACES_EXPORTER", "").strip().lower()
    return exporter != "none" and (exporter == "otlp" or any(environment.get(name) for name in _ENDPOINTS))


def carried_by(headers: Headers) -> str:
    """What a request brings of a trace where no spans are made, so that all its lines in logs can be found."""
    given: str | None = headers.get("traceparent")
    return given if given and trace_ids(given) else ""


@cache
def traces() -> Traces | None:
    """The traces of this process; None when they are not wanted, or OpenTelemetry is not installed."""
    if not are_wanted(os.environ):
        return None
    try:
        return Traces()
    except ImportError as error:
        _log.warning("no traces are sent: %s; run: pip install 'modelyard[traces]'", error)
        return None


class Traces:
    """Makes spans and hands them to OpenTelemetry, which sends them from a thread of its own."""

    def __init__(self) -> None:
        """Raises ImportError when OpenTelemetry is not installed."""
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace = trace
        self._propagator = TraceContextTextMapPropagator()
        # OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES win over our name.
        named = {} if "OTEL_SERVICE_NAME" in os.environ else {SERVICE_NAME: _OUR_NAME}
        self.provider = TracerProvider(resource=Resource.create(named))
        self.provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        self._tracer = self.provider.get_tracer(_OUR_NAME)

    def request(self, name: str, headers: Headers) -> RequestSpan:
        """A span of a request that came in, within the trace that its headers name, if they do."""
        given = {key: value for key in ("traceparent", "tracestate") if (value := headers.get(key))}
        parent = self._propagator.extract(given)
        span = self._tracer.start_span(name, parent, kind=self._trace.SpanKind.SERVER)
        carrier: dict[str, str] = {}
        self._propagator.inject(carrier, self._trace.set_span_in_context(span))
        return RequestSpan(self, span, _joined(carrier))

    def prediction(
        self,
        carried: str,
        parts: Mapping[str, tuple[int, int]],
        attributes: Mapping[str, str | int],
        failure: str | None = None,
    ) -> None:
        """A prediction that was computed here, in the trace that was carried with it.

        parts : beginning and end of each, in nanoseconds since 1970. failure : kind of the error that it ended with.
        """
        begin, end = min(each[0] for each in parts.values()), max(each[1] for each in parts.values())
        kind = self._trace.SpanKind.CONSUMER
        parent = self._propagator.extract(_split(carried))
        whole = self._tracer.start_span("prediction", parent, kind=kind, attributes=dict(attributes), start_time=begin)
        within = self._trace.set_span_in_context(whole)
        for name, (start, stop) in parts.items():
            self._tracer.start_span(name, within, start_time=start).end(stop)
        if failure is not None:
            self.fail(whole, failure)
        whole.end(end)

    @contextmanager
    def task(self, name: str, carried: str, attributes: Mapping[str, str | int]) -> Iterator[str]:
        """A span of the work within, in the trace that was carried with the task; gives what goes along from there."""
        parent = self._propagator.extract(_split(carried))
        kind = self._trace.SpanKind.CONSUMER
        with self._tracer.start_as_current_span(name, parent, kind=kind, attributes=dict(attributes)) as span:
            carrier: dict[str, str] = {}
            self._propagator.inject(carrier, self._trace.set_span_in_context(span))
            yield _joined(carrier)

    def fail(self, span: Any, why: str) -> None:
        """Say that what a span is about went wrong."""
        span.set_status(self._trace.Status(self._trace.StatusCode.ERROR, why))


class RequestSpan:
    """The span of a request. carried : what the queue takes along, for the spans of workers."""

    def __init__(self, traces: Traces, span: Any, carried: str) -> None:
        self._traces, self._span = traces, span
        self.carried = carried

    def end(self, method: str, route: str, status: int) -> None:
        """The request was answered."""
        names = ("http.request.method", "http.route", "http.response.status_code")
        self._span.set_attributes(dict(zip(names, (method, route, status), strict=True)))
        if status >= 500:
            self._traces.fail(self._span, str(status))
        self._span.end()


class Stopwatch:
    """The parts of one prediction as spans want them: with the time of day."""

    def __init__(self, waited_ms: float) -> None:
        now = time.time_ns()
        self.parts: dict[str, tuple[int, int]] = {"queued": (now - round(waited_ms * 1e6), now)}

    def note(self, name: str, seconds: float) -> None:
        """A part ends now that took so long."""
        now = time.time_ns()
        self.parts[name] = now - round(seconds * 1e9), now


def _joined(carrier: Mapping[str, str]) -> str:
    return " ".join([carrier.get("traceparent", ""), carrier.get("tracestate", "").replace(" ", "")]).strip()


def _split(carried: str) -> dict[str, str]:
    parent, _, state = carried.partition(" ")
    return {"traceparent": parent, **({"tracestate": state} if state else {})}
