"""A trace goes with a request from the API through the queue to the worker, and on to a collector."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from cli.stack import Stack
from settings import Settings
from tests.services import free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
ROW = "5.1,3.5,1.4,0.2"
PARTS = {"queued", "load", "input", "compute", "output"}


class Collector:
    """Takes spans as an OpenTelemetry collector does, over HTTP on the loopback address."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:  # a name that http.server gives
                told = ExportTraceServiceRequest.FromString(self.rfile.read(int(self.headers["Content-Length"])))
                for resource in told.resource_spans:
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def of(self, trace_id: str, *names: str) -> dict[str, Span]:
        """The spans of a trace by name, once these are among them."""
        until = time.monotonic() + 30
        while True:
            found = {span.name: span for span in list(self.spans) if span.trace_id.hex() == trace_id}
            if found.keys() >= set(names) or time.monotonic() > until:
                return found
            time.sleep(0.1)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Traced:
    """A stack whose traces go to a collector."""

    def __init__(self, port: int, data: Path, collector: Collector) -> None:
        self.port, self.data, self.collector = port, data, collector

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method, path, None if body is None else json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def predict(self, *rows: str, **headers: str) -> int:
        body = {"service": "traced", "parameters": {}, "data": list(rows)}
        return self.call("POST", "/predict", body, **headers)[0]


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Traced]:
    data = tmp_path_factory.mktemp("data").resolve()
    shutil.copy(EXAMPLES / "iris.csv", data / "iris.csv")
    collector = Collector()
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    before = {name: os.environ.get(name) for name in given}
    os.environ.update(given)
    try:
        with short_folder() as home:
            settings = Settings(home=home, port=free_port(), flower_port=0, data_roots=(data,), threads=1)
            with Stack(settings) as stack:
                stack.wait_ready(100)
                found = Traced(settings.port, data, collector)
                service = {
                    "mllib": "xgboost",
                    "model": {"repository": str(data / "models"), "create_repository": True},
                    "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}},
                }
                assert found.call("PUT", "/services/traced", service)[0] == 201
                yield found
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
        collector.close()


def parent_of(number: int) -> tuple[str, str, str]:
    """Trace, span and header of a caller."""
    trace_id, span_id = f"{number:032x}", f"{number + 7:016x}"
    return trace_id, span_id, f"00-{trace_id}-{span_id}-01"


def train(traced: Traced, **headers: str) -> None:
    call = {
        "service": "traced",
        "async": False,
        "parameters": {"mllib": {"iterations": 3}},
        "data": [str(traced.data / "iris.csv")],
    }
    assert traced.call("POST", "/train", call, **headers)[0] == 201


def test_training_and_predictions_are_spans_of_the_callers_trace(traced: Traced):
    trace_id, span_id, header = parent_of(0xABC)
    train(traced, traceparent=header)
    spans = traced.collector.of(trace_id, "POST /train", "train")
    assert spans.keys() == {"POST /train", "train"}
    assert spans["POST /train"].parent_span_id.hex() == span_id
    assert spans["train"].parent_span_id == spans["POST /train"].span_id

    # The first goes through Flask, the second stays on the event loop.
    for number in (0xDEF1, 0xDEF2):
        trace_id, span_id, header = parent_of(number)
        assert traced.predict(ROW, traceparent=header, tracestate="vendor=one, other=two") == 200
        spans = traced.collector.of(trace_id, "POST /predict", "prediction", *PARTS)
        assert spans.keys() == {"POST /predict", "prediction", *PARTS}
        request, prediction = spans["POST /predict"], spans["prediction"]
        assert request.parent_span_id.hex() == span_id
        assert prediction.parent_span_id == request.span_id
        assert "vendor=one" in prediction.trace_state
        for name in PARTS:
            assert spans[name].parent_span_id == prediction.span_id
            assert spans[name].start_time_unix_nano <= spans[name].end_time_unix_nano
        order = [spans[name].end_time_unix_nano for name in ("queued", "load", "input", "compute", "output")]
        assert order == sorted(order)
        assert request.start_time_unix_nano <= spans["load"].end_time_unix_nano
        assert spans["output"].end_time_unix_nano <= request.end_time_unix_nano
        attributes = {each.key: each.value for each in request.attributes}
        assert attributes["http.response.status_code"].int_value == 200
        assert attributes["http.route"].string_value == "/predict"


def test_failed_prediction_is_a_failed_span(traced: Traced):
    train(traced)
    trace_id, _, header = parent_of(0xBAD)
    assert traced.predict("no,numbers,at,all", traceparent=header) == 400
    spans = traced.collector.of(trace_id, "prediction", "queued", "load")
    assert spans["prediction"].status.message == "bad_input"
    assert {"queued", "load"} <= spans.keys()
    assert "output" not in spans


@pytest.mark.parametrize(
    "header",
    ["", "what", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", "ff-" + "1" * 32 + "-" + "2" * 16 + "-01"],
)
def test_header_that_is_none_begins_a_new_trace(traced: Traced, header: str):
    train(traced)
    before = len(traced.collector.spans)
    assert traced.predict(ROW, traceparent=header) == 200
    until = time.monotonic() + 20
    while time.monotonic() < until:
        found = [span for span in traced.collector.spans[before:] if span.name == "POST /predict"]
        if found:
            break
        time.sleep(0.1)
    assert found
    assert found[-1].parent_span_id == b""
    assert found[-1].trace_id != b""
