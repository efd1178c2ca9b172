"""`docs/errors.md` is true: every row is sent and its code and text are what came back."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.documented import faults, template_of
from tests.e2e.bad_requests import CASES, NET_TRAINED, SERVICE, SVM_TRAINED, TRAINED, prepare
from tests.e2e.conftest import Answer, Client

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

TABLE = Path(__file__).parents[2] / "docs" / "errors.md"
_ROW = re.compile(r"^\| ([a-z0-9-]+) \| (.+) \| (\d{3}) \| (-|\d+|[a-z_]+) \| (.+) \|$")


def rows() -> dict[str, tuple[int, str, str]]:
    """HTTP status, code and text of each case."""
    found: dict[str, tuple[int, str, str]] = {}
    for line in TABLE.read_text().splitlines():
        match = _ROW.match(line)
        if match:
            name, _, http, code, text = match.groups()
            assert name not in found, f"{name} stands twice in the table"
            found[name] = (int(http), code, text)
    return found


ROWS = rows()

Jobs = dict[str, tuple[str, int]]
"""Service and number of each training of the table."""


class Noted(Client):
    """A client that keeps what it was answered."""

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        answer = super().send(method, path, body, headers)
        ANSWERS.append((method, path, answer))
        return answer


ANSWERS: list[tuple[str, str, Answer]] = []


@pytest.fixture(scope="module")
def stage(client: Client) -> Client:
    noted = Noted(client.port, client.data)
    prepare(noted)
    return noted


def check(name: str, http: int, answer: dict[str, Any]) -> None:
    """Compare a status object, or a native error, with its row."""
    wanted_http, wanted_code, wanted_text = ROWS[name]
    if "error" in answer:
        code, texts = answer["error"]["kind"], [answer["error"]["message"]]
    else:
        assert answer["code"] == wanted_http
        code = str(answer.get("dd_code", "-"))
        texts = [answer[part] for part in ("msg", "dd_msg", "message") if part in answer]
    assert (http, code) == (wanted_http, wanted_code), texts
    assert any(wanted_text in text for text in texts), texts


def status_of(answer: Answer) -> dict[str, Any]:
    """What `check` looks at."""
    found: dict[str, Any] = answer.json if "error" in answer.json else answer.json["status"]
    return found


def test_every_row_has_a_request_and_every_request_a_row():
    assert sorted(ROWS) == sorted(CASES.names)


@pytest.mark.parametrize("name", list(CASES.requests))
def test_request_is_answered_as_the_table_says(stage: Client, name: str):
    answer = CASES.requests[name](stage)
    check(name, answer.code, status_of(answer))


def poll(stage: Client, job: tuple[str, int]) -> Answer:
    """The end of a training."""
    service, number = job
    return stage.call("GET", f"/train?service={service}&job={number}&timeout=80")


@pytest.fixture(scope="module")
def jobs(stage: Client) -> Jobs:
    """Every training of the table as an asynchronous job: accepted at once, then done one after the other."""
    numbers: Jobs = {}
    for name, make in CASES.trainings.items():
        answer = stage.call("POST", "/train", {**make(stage), "async": True})
        assert answer.code == 201, (name, answer.json)
        assert answer.json["head"]["status"] == "running"
        numbers[name] = (make(stage).get("service", SERVICE), answer.json["head"]["job"])
    return numbers


@pytest.mark.parametrize("name", list(CASES.trainings))
def test_training_fails_as_the_table_says(stage: Client, jobs: Jobs, name: str):
    answer = poll(stage, jobs[name])
    assert answer.code == 200
    assert answer.json["head"]["status"] == "error", answer.json
    error = answer.json["body"]["Error"]
    check(name, error["code"], error)
    task = stage.call("GET", f"/tasks/{answer.json['head']['task_id']}").json
    assert (task["state"], task["attempt"] <= 1) == ("failed", True)
    assert task["failure"]["phase"]
    assert task["failure"]["advice"]


@pytest.mark.parametrize("name", ["label-missing", "path-outside", "file-missing", "text-in-numeric-column"])
def test_blocking_training_answers_with_the_same_error(stage: Client, jobs: Jobs, name: str):
    job = poll(stage, jobs[name])
    answer = stage.call("POST", "/train", {**CASES.trainings[name](stage), "async": False})
    assert answer.json["status"] == job.json["body"]["Error"]
    check(name, answer.code, answer.json["status"])


def test_every_answer_is_one_that_the_openapi_document_knows(stage: Client):
    whole = stage.call("GET", "/openapi.json").json
    found = {
        fault
        for method, path, answer in ANSWERS
        for fault in faults(
            whole,
            template_of(whole, path),
            method,
            answer.code,
            answer.headers["content-type"],
            json.dumps(answer.json, separators=(",", ":")).encode(),
        )
    }
    assert found == set()
    assert len(ANSWERS) > len(CASES.requests)


def test_server_works_as_before_after_all_of_it(stage: Client):
    assert stage.call("GET", "/readyz").code == 200
    for service, row in ((TRAINED, "1,2"), (NET_TRAINED, "1,2,x"), (SVM_TRAINED, "1:1 2:2")):
        assert stage.call("POST", "/predict", {"service": service, "data": [row]}).code == 200
    assert stage.call("GET", "/services/never").code == 404
