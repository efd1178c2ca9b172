"""The front in this very process, where granian, or Redis, does what it seldom does."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from flask import Flask

import workers.asked
from api.app import create_app
from api.front import Front, Scope
from settings import Settings
from storage.live import Request as Waiting
from storage.live import Sent
from storage.records import Records
from tests.unit.api.test_front import Asked, Headers
from workers.queue import Changed


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
    yield create_app(settings, records)
    records.close()


def test_flask_answers_when_the_hot_way_fails_unexpectedly(app: Flask, caplog: pytest.LogCaptureFixture):
    front = Front(app)

    async def fail(*_: Any) -> None:
        raise ZeroDivisionError

    front._hot.answer = fail  # type: ignore[method-assign]
    caller = Caller(b"{}")
    asyncio.run(front.__rsgi__(post("/predict", 2), caller))
    assert caller.code == 400
    assert json.loads(caller.content)["status"]["code"] == 400
    assert "ZeroDivisionError" in caplog.text


def test_body_that_ends_before_its_length_is_not_answered(app: Flask):
    caller = Caller(b" " * 1000)
    asyncio.run(Front(app).__rsgi__(post("/predict", 2**21), caller))
    assert caller.code == 0


class OneLane:
    """A tube whose answer overtakes the word that the request was taken."""

    replies = "replies:1"

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self.withdrawn: list[str] = []

    def expect(self, request_id: str) -> asyncio.Future[bytes]:
        self._future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        return self._future

    def append(
        self, lane: str, requests: list[Waiting], spread: Any, then: Callable[[list[Sent], str], None], failed: Any
    ) -> None:
        self._future.set_result(b"the old version's answer")
        then([Sent.WAITS], self._mark)

    def forget(self, request_id: str) -> None:
        pass

    def withdraw(self, lane: str, request_id: str) -> None:
        self.withdrawn.append(request_id)


@pytest.mark.parametrize("mark", ["mark 1", "mark 2"])
def test_answer_that_overtakes_the_word_of_a_change_is_not_given(app: Flask, mark: str):
    known = SimpleNamespace(mark="mark 1")
    question = SimpleNamespace(lane="predict.xgboost.cpu", batch="1.cpu:0", encoded=b"{}")
    tube = OneLane(mark)

    async def ask() -> bytes:
        hot = Front(app)._hot
        hot._loop, hot._tube = asyncio.get_running_loop(), cast(Any, tube)
        return await hot._asked(cast(Any, known), cast(Any, question), workers.asked.Asked(b"{}", b'["1,2"]'), None)

    if mark == known.mark:
        assert asyncio.run(ask()) == b"the old version's answer"
        assert tube.withdrawn == []
    else:
        with pytest.raises(Changed):
            asyncio.run(ask())
