"""What becomes of a prediction on the event loop when something there fails unexpectedly."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.allowance import Counted
from api.hot import Hot, Response
from storage.records import Records
from workers.queue import CallerGone


class Headers(dict[str, str]):
    """Headers as granian has them."""

    def get_all(self, name: str) -> list[str]:
        return [self[name]] if name in self else []


@pytest.fixture
def hot(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hot]:
    """One to which the caller is known, however long the test takes."""
    access = app.extensions["modelyard"].access
    monkeypatch.setattr(access, "kept", access.account_of)
    with ThreadPoolExecutor(1) as threads:
        yield Hot(app, threads)


def answered(hot: Hot) -> Response | Counted | None:
    """What it answers where nothing has to be waited for, so that no loop is needed."""
    scope: Any = SimpleNamespace(headers=Headers(host="localhost"), path="/predict", query_string="")
    with pytest.raises(StopIteration) as ended:
        hot.answer(scope, b"{}", None).send(None)
    answer: Response | Counted | None = ended.value.value
    return answer


async def _known(*_: object) -> tuple[Any, Any, bytes]:
    service = SimpleNamespace(id=1, name="s")
    return SimpleNamespace(service=service, mark=None), SimpleNamespace(encoded=b"{}", lane="l", batch="b"), b"[]"


async def _broken(*_: object) -> bytes:
    raise RuntimeError("nobody thought of this")


def test_request_that_fails_after_it_was_counted_is_not_counted_again(
    client: FlaskClient,
    records: Records,
    hot: Hot,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
):
    local = records.accounts.ensure("local")
    records.quotas.set(local, {"requests_per_minute": 500})
    assert client.get("/account").headers["RateLimit"].startswith('"requests";r=499;')
    monkeypatch.setattr(hot, "_understood", _known)
    monkeypatch.setattr(hot, "_asked", _broken)
    counted = answered(hot)
    assert isinstance(counted, Counted)
    assert (counted.account_id, counted.left.rest) == (local.id, 498)
    assert "nobody thought of this" in caplog.text
    told = client.get("/account", environ_overrides={"modelyard.counted": counted})
    assert told.headers["RateLimit"].startswith('"requests";r=498;')


def test_request_that_fails_before_it_was_counted_is_left_to_flask(hot: Hot, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(hot, "_understood", _broken)
    assert answered(hot) is None


def test_request_for_which_there_is_no_room_is_left_to_flask(
    records: Records, hot: Hot, monkeypatch: pytest.MonkeyPatch
):
    local = records.accounts.ensure("local")
    monkeypatch.setattr(hot, "_understood", _known)
    monkeypatch.setattr(hot, "_asked", _broken)
    taken = 0
    while hot._room.take(local.id, 2**20):
        taken += 1
    assert taken == 128, "half of 256 MiB"
    assert answered(hot) is None
    assert hot._room.take(local.id + 1, 2**20), "others have room"
    hot._room.give_back(local.id, 2**20)
    asked: list[object] = []

    async def note(*given: object) -> bytes:
        asked.append(given)
        raise CallerGone

    monkeypatch.setattr(hot, "_asked", note)
    told = answered(hot)
    assert isinstance(told, tuple)
    assert (told[0], len(asked)) == (499, 1)
    assert hot._room.take(local.id, 2**20), "it gave its room back"
