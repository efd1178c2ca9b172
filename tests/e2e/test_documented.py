"""The examples of the OpenAPI document are sent to a fresh stack, one after the other, and answer as it says."""

from __future__ import annotations

import http.client
import json
import shutil
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
import urllib3

import settings as settings_module
from cli.stack import Stack
from settings import Settings
from tests.documented import faults
from tests.services import free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

Json = dict[str, Any]

NO_HEADERS: Mapping[str, str] = {}
DATA = Path(settings_module.__file__).parent / "examples" / "data"

ORDER = (
    ("get", "/healthz", 200),
    ("get", "/readyz", 200),
    ("get", "/openapi.json", 200),
    ("get", "/docs", 200),
    ("get", "/docs/{file}", 200),
    ("put", "/services/{name}", 201),
    ("get", "/services", 200),
    ("get", "/services/{name}", 200),
    ("get", "/info", 200),
    ("post", "/train", 201),
    ("get", "/train", 200),
    ("get", "/tasks/{number}", 200),
    ("get", "/tasks/{number}/report", 200),
    ("post", "/predict", 200),
    ("get", "/tasks/{number}/result", 200),
    ("get", "/services/{name}/files", 200),
    ("get", "/services/{name}/files/{path}", 200),
    ("get", "/services/{name}/archive", 200),
    ("get", "/tasks/{number}/files", 200),
    ("get", "/tasks/{number}/files/{path}", 200),
    ("get", "/tasks/{number}/archive", 200),
    ("get", "/tasks", 200),
    ("put", "/train", 201),
    ("delete", "/tasks/{number}/result", 200),
    ("delete", "/tasks/{number}", 200),
    ("delete", "/train", 200),
    ("get", "/tasks/{number}/logs", 200),
    ("get", "/tasks/{number}/events", 200),
    ("put", "/datasets/{name}", 201),
    ("get", "/datasets", 200),
    ("post", "/datasets/{name}/files", 201),
    ("post", "/datasets/{name}/uploads", 201),
    ("put", "/datasets/{name}/uploads/{number}/parts/{part}", 200),
    ("get", "/datasets/{name}/uploads/{number}", 200),
    ("delete", "/datasets/{name}/uploads/{number}", 200),
    ("post", "/datasets/{name}/uploads/{number}/complete", 404),
    ("post", "/datasets/{name}/describe", 200),
    ("get", "/datasets/{name}", 200),
    ("get", "/datasets/{name}/files/{path}", 200),
    ("get", "/datasets/{name}/archive", 200),
    ("delete", "/datasets/{name}/files/{path}", 200),
    ("delete", "/datasets/{name}", 200),
    ("get", "/account", 200),
    ("get", "/keys", 403),
    ("post", "/keys", 403),
    ("delete", "/keys/{number}", 403),
    ("get", "/audit", 403),
    ("post", "/webhooks", 201),
    ("get", "/webhooks", 200),
    ("get", "/webhooks/{number}", 200),
    ("patch", "/webhooks/{number}", 200),
    ("post", "/webhooks/{number}/secret", 200),
    ("post", "/webhooks/{number}/test", 409),
    ("get", "/webhooks/{number}/deliveries", 200),
    ("get", "/webhooks/{number}/deliveries/{delivery}", 404),
    ("post", "/webhooks/{number}/deliveries/{delivery}/replay", 404),
    ("delete", "/webhooks/{number}", 200),
    ("get", "/metrics", 200),
    ("delete", "/services/{name}", 200),
    ("post", "/services/{name}", 201),
)
"""Every operation, in an order that works, with the status of its examples; those of tasks are a 201.

The only upload is given up before anything completes it, and the only webhook is inactive: nothing is sent. A stack
without keys lets nobody manage any over HTTP.
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """A stack as a newcomer has it, with the example data in its data root."""
    with short_folder() as home:
        settings = Settings(home=home, port=free_port(), flower_port=0, threads=1)
        data = home / "data"
        data.mkdir()
        shutil.copy(DATA / "iris.csv", data)
        with Stack(settings) as stack:
            stack.wait_ready(100)
            yield settings.port


def send(
    port: int, verb: str, path: str, body: bytes | None = None, headers: Mapping[str, str] = NO_HEADERS
) -> tuple[int, str, bytes]:
    """Status, content type and body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    try:
        connection.request(verb.upper(), path, body, {"Content-Type": "application/json"} | headers if body else {})
        answer = connection.getresponse()
        return answer.status, answer.headers.get("Content-Type", ""), answer.read()
    finally:
        connection.close()


def address(path: str, operation: Json) -> str:
    """The path and query of an operation's examples."""
    query = {}
    for parameter in operation["parameters"]:
        if "example" not in parameter:
            assert not parameter["required"], parameter
        elif parameter["in"] == "path":
            path = path.replace("{" + parameter["name"] + "}", quote(str(parameter["example"])))
        elif parameter["in"] == "query":
            query[parameter["name"]] = parameter["example"]
    return f"{path}?{urlencode(query)}" if query else path


def headers_of(operation: Json, content_type: str) -> dict[str, str]:
    """The headers of an operation's examples."""
    given = {
        each["name"]: each["example"]
        for each in operation["parameters"]
        if each["in"] == "header" and "example" in each
    }
    return {"Content-Type": content_type, **given}


def bodies(operation: Json) -> dict[str, tuple[str, bytes | None]]:
    """Type and content of an operation's examples; nothing where it takes none."""
    content = operation.get("requestBody", {}).get("content", {})
    found = {
        name: encoded(kind, example["value"])
        for kind, each in content.items()
        for name, example in each["examples"].items()
    }
    return found or {"": ("", None)}


def encoded(kind: str, value: Any) -> tuple[str, bytes]:
    """An example as it is sent: a form holds a file under each name."""
    if kind == "application/json":
        return kind, json.dumps(value).encode()
    if kind == "multipart/form-data":
        content, form_type = urllib3.encode_multipart_formdata({name: (name, text) for name, text in value.items()})
        return form_type, content
    return kind, value.encode()


def wait(port: int, number: int) -> None:
    """Until a task is over."""
    deadline = time.monotonic() + 100
    while (task := json.loads(send(port, "get", f"/tasks/{number}")[2]))["state"] in ("queued", "running"):
        assert time.monotonic() < deadline, task
        time.sleep(0.05)
    assert task["state"] == "finished", task["failure"]


def test_every_example_runs_and_answers_as_documented(port: int):
    whole = json.loads(send(port, "get", "/openapi.json")[2])
    everything = {(verb, path) for path, verbs in whole["paths"].items() for verb in verbs}
    assert {(verb, path) for verb, path, _ in ORDER} == everything
    for verb, path, wanted in ORDER:
        operation = whole["paths"][path][verb]
        for name, (kind, body) in bodies(operation).items():
            headers = headers_of(operation, kind)
            status, content_type, content = send(port, verb, address(path, operation), body, headers)
            is_task = body is not None and path == "/predict" and json.loads(body).get("async")
            assert status == (201 if is_task else wanted), (verb, path, name, content[:500])
            assert list(faults(whole, path, verb, status, content_type, content)) == []
            told = json.loads(content) if content_type == "application/json" else {}
            assert "warnings" not in told.get("head", {}), (verb, path, name)
            if "task_id" in told.get("head", {}) and verb in ("post", "put"):
                wait(port, told["head"]["task_id"])
