"""The front in this very process, where granian, or Redis, does what it seldom does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask

from api.app import create_app
from api.front import Front, Scope
from settings import Settings
from storage.records import Records
from tests.unit.api.test_front import Asked, Headers


class Caller:
    """A caller's end, as granian shows it: what is sent, and what was answered."""

    def __init__(self, *chunks: bytes) -> None:
        self._chunks = chunks
        self.code = 0
        self.content = b""

    async def __call__(self) -> bytes:
        return b"".join(self._chunks)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for chunk in self._chunks:
            yield chunk

    def response_bytes(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.code, self.content = status, body


def post(path: str, length: int) -> Scope:
    return cast(Scope, Asked("POST", path, headers=Headers(("host", "localhost"), ("content-length", str(length)))))


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    settings = Settings(home=tmp_path, redis_url=f"unix://{tmp_path}/none.sock")
    records = Records.connect(settings.database_url)
    records.upgrade()
    made = create_app(settings, records)
    yield made
    made.extensions["modelyard"].finish()
    records.close()


def test_flask_answers_when_the_hot_way_fails_unexpectedly(app: Flask, caplog: pytest.LogCaptureFixture):
    front = Front(app)

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError

    front._hot._answer = fail  # type: ignore[method-assign]
    caller = Caller(b"{}")
    asyncio.run(front.__rsgi__(post("/predict", 2), caller))
    assert caller.code == 400
    assert json.loads(caller.content)["status"]["code"] == 400
    assert "ZeroDivisionError" in caplog.text


def test_body_that_ends_before_its_length_is_not_answered(app: Flask):
    caller = Caller(b" " * 1000)
    asyncio.run(Front(app).__rsgi__(post("/predict", 2**21), caller))
    assert caller.code == 0
