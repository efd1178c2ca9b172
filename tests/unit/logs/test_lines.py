"""Lines as text and as JSON: what stands in them, whoever logged them."""

from __future__ import annotations

import io
import json
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any

import pytest

from api.access_log import AccessLog
from logs import context, setting_up
from logs.context import bound, carried, trace_ids
from logs.lines import FORMAT, ROLE
from logs.setting_up import set_up

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def undisturbed() -> Iterator[None]:
    """The loggers and hooks of the tests come back afterwards."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook, threading.excepthook, sys.unraisablehook = hooks
    logging.captureWarnings(False)


class Written:
    """What a process that was set up writes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, form: str) -> None:
        monkeypatch.setenv(FORMAT, form)
        monkeypatch.setenv(ROLE, "train")
        self._stream = io.StringIO()
        monkeypatch.setattr(sys, "stderr", self._stream)
        set_up()

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.text.splitlines()]


@pytest.fixture
def as_json(undisturbed: None, monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch, "json")


@pytest.fixture
def as_text(undisturbed: None, monkeypatch: pytest.MonkeyPatch) -> Written:
    return Written(monkeypatch, "text")


def test_line_of_any_logger_is_one_object_with_the_ids_of_its_work(as_json: Written):
    with bound(account="ann", service="iris", task=17, attempt=2, **trace_ids(TRACE)):
        logging.getLogger("some.library").warning("read %d rows\nand more", 3)
    [line] = as_json.objects
    at = datetime.fromisoformat(line.pop("time"))
    assert at.utcoffset() is not None
    assert line.pop("pid") > 0
    assert line == {
        "level": "WARNING",
        "logger": "some.library",
        "message": "read 3 rows\nand more",
        "role": "train",
        "account": "ann",
        "service": "iris",
        "task": 17,
        "attempt": 2,
        "trace_id": TRACE.split("-")[1],
        "span_id": TRACE.split("-")[2],
    }


def test_time_is_utc_to_the_millisecond(as_json: Written, monkeypatch: pytest.MonkeyPatch):
    record = logging.makeLogRecord({"name": "a", "msg": "b", "levelno": logging.INFO, "created": 1_700_000_000.25})
    logging.getLogger().handle(record)
    assert as_json.objects[0]["time"] == "2023-11-14T22:13:20.250Z"


def test_error_is_text_in_a_field_without_secrets(as_json: Written):
    try:
        raise ValueError("redis://:hush-hush@h")
    except ValueError:
        logging.getLogger("a").exception("it failed", extra={"given": {"Authorization": "Basic hush-hush", "n": 1}})
    [line] = as_json.objects
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: redis://***@h")
    assert line["given"] == {"Authorization": "***", "n": 1}


def test_what_nobody_caught_and_warnings_are_lines_too(as_json: Written):
    def fail() -> None:
        raise RuntimeError("in a thread")

    thread = threading.Thread(target=fail, name="worker bee")
    thread.start()
    thread.join()
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old ways", DeprecationWarning, stacklevel=1)
    try:
        raise KeyError("at the top")
    except KeyError as error:
        sys.excepthook(KeyError, error, error.__traceback__)
    assert [each["level"] for each in as_json.objects] == ["ERROR", "WARNING", "CRITICAL"]
    assert "worker bee" in as_json.objects[0]["message"]
    assert "old ways" in as_json.objects[1]["message"]
    assert "at the top" in as_json.objects[2]["exception"]


def test_text_has_the_ids_briefly_and_no_line_that_passes_for_one_of_ours(as_text: Written):
    with bound(service="a\nb", task=17, attempt=2, **trace_ids(TRACE)):
        logging.getLogger("a").info("first\n2026-11-21 18:00:00,000 INFO forged")
    first, second = as_text.text.splitlines()
    assert first.endswith(rf" INFO a [service=a\nb task=17 attempt=2 trace={TRACE.split('-')[1]}] first")
    assert second == "    2026-11-21 18:00:00,000 INFO forged"


def test_message_that_cannot_be_put_together_does_not_tell_its_arguments(as_json: Written):
    logging.getLogger("a").info("%d of %s", "secret-word")
    [line] = as_json.objects
    assert "secret-word" not in json.dumps(line)


def test_ids_go_along_into_threads_that_are_told_to_carry_them(as_json: Written):
    with bound(task=17), ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(carried(context.ids)) for _ in range(20)]
        stray = pool.submit(context.ids)
    assert [job.result() for job in jobs] == [{"task": 17}] * 20
    assert stray.result() == {}
    assert context.ids() == {}


@pytest.mark.parametrize(
    "carried", ["", "00-0-0-00", TRACE.upper(), "00-" + "0" * 32 + "-00f067aa0ba902b7-01", TRACE[3:], None]
)
def test_what_is_no_trace_has_no_ids(carried: str | None):
    assert trace_ids(carried) == {}


def test_access_line_is_an_object_without_secrets(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(FORMAT, "json")
    monkeypatch.setenv(ROLE, "api")
    caplog.set_level(logging.INFO, logger="api.access")
    stream = io.StringIO()
    log = AccessLog(stream)
    monkeypatch.setattr(log, "_start", lambda: None)
    log.note("GET", "/info?api_key=hush-hush", 200, 0.00317, "ann", {"service": "iris"})
    log.flush()
    line = json.loads(stream.getvalue())
    assert {name: line[name] for name in ("level", "logger", "role", "account", "service")} == {
        "level": "INFO",
        "logger": "api.access",
        "role": "api",
        "account": "ann",
        "service": "iris",
    }
    assert (line["method"], line["path"], line["status"], line["ms"]) == ("GET", "/info?api_key=***", 200, 3.2)


def test_handlers_of_granian_are_of_the_same_form():
    import logging.config
    from pathlib import Path

    told = json.loads(Path(setting_up.__file__).with_name("granian.json").read_text())
    configurator = logging.config.DictConfigurator(told)
    made = configurator.configure_formatter(dict(told["formatters"]["ours"]))
    assert isinstance(made, logging.Formatter)
    assert set(told["loggers"]) == {"_granian", "granian.access"}
