"""One running stack for the tests that only need an API to speak to."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from cli.stack import Stack
from settings import Settings
from tests.services import free_port, short_folder

Json = dict[str, Any]

LIMIT_BYTES = 12 * 2**20
ANSWER_BYTES = 2 * 2**20

ALLOWED = "127.0.0.2"
"""The one address of this machine that answers may be sent to."""

PUSH_TIMEOUT_S = 6.0


@dataclass(frozen=True)
class Answer:
    """What came back: status, headers in lower case, and the JSON of the body."""

    code: int
    headers: dict[str, str]
    json: Any


@dataclass(frozen=True)
class Client:
    """Speaks HTTP with one API and knows nothing else of it."""

    port: int
    data: Path

    def send(self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None) -> Answer:
        """Send bytes as they are."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        assert answer.headers["Content-Type"] == "application/json", content
        assert b"Traceback" not in content
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, json.loads(content))

    def call(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        """Send a JSON value."""
        return self.send(method, path, None if body is None else json.dumps(body).encode(), headers)


@pytest.fixture(scope="session")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A client of a stack of its own."""
    data = tmp_path_factory.mktemp("data").resolve()
    with short_folder() as home:
        settings = Settings(
            home=home,
            port=free_port(),
            flower_port=0,
            # /proc cannot be written, not even by root: a place for a repository that must be refused.
            data_roots=(data, Path("/proc")),
            threads=1,
            request_limit_bytes=LIMIT_BYTES,
            answer_limit_bytes=ANSWER_BYTES,
            fetch_allow=(ALLOWED,),
            push_timeout_s=PUSH_TIMEOUT_S,
        )
        with Stack(settings) as stack:
            stack.wait_ready(100)
            yield Client(settings.port, data)
