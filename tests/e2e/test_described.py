"""The server answers as its OpenAPI document says, whatever it is asked; schemathesis asks."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import urllib3
from flask import Flask, Response, request
from werkzeug.serving import make_server

from api.access import Access, Headers
from api.app import create_app
from settings import Settings
from storage.live import Live
from storage.records import LOCAL, Caller, Quotas, Records, Role
from tests.described.run import ask, serving

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(600)]

App = tuple[Flask, str]
Lock = Callable[[Flask, pytest.MonkeyPatch], None]


def test_every_operation_answers_as_it_is_described():
    with serving() as (url, key):
        whole = json.loads(urllib3.request("GET", f"{url}/openapi.json").data)
        code, said = ask(url, key, "--max-examples", "5")
    count = sum(len(verbs) for verbs in whole["paths"].values())
    assert code == 0, said
    assert f"Tested: {count}\n" in said, said


# The same with a lock taken away


@pytest.fixture
def app(settings: Settings, redis_url: str) -> Iterator[App]:
    """An app alone, whose data sets need no worker, and a key of it."""
    records = Records.connect(settings.database_url)
    records.upgrade()
    live = Live(redis_url)
    made = create_app(settings, records, live)
    yield made, records.keys.create("described")[1]
    made.extensions["modelyard"].finish()
    live.close()
    records.close()


@contextmanager
def listening(app: Flask) -> Iterator[str]:
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def found(app: App, *words: str) -> tuple[int, str]:
    made, key = app
    with listening(made) as url:
        return ask(url, key, "--include-path-regex", r"^/datasets(/\{name\})?$", *words)


def no_key(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody is let in."""

    def anybody(access: Access, headers: Headers) -> Caller:
        owner = access._records.accounts.ensure(LOCAL)
        return Caller(owner.id, owner.name, Role.TRAIN, None, Quotas())

    monkeypatch.setattr(Access, "account_of", anybody)


def no_limit(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any `limit` is taken."""
    monkeypatch.setattr("api.schemas.paging.limit_of", lambda value: 10)


def no_allow(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrong verb is not told the right ones."""
    change(app, lambda response: response.headers.pop("Allow", None))


def no_cursor(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """A member of an answer is missing."""

    def shorten(response: Response) -> None:
        if response.is_json and "next_cursor" in response.json:
            response.set_data(json.dumps({name: each for name, each in response.json.items() if name != "next_cursor"}))

    change(app, shorten)


def no_delete(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was deleted is still there."""
    monkeypatch.setattr(app.extensions["modelyard"].records.datasets, "delete", lambda dataset_id: None)


def no_care(app: Flask, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names that nobody should use are a fault of the server."""

    def fail(name: str) -> Any:
        if not name.isascii():
            raise RuntimeError(name)
        return name

    monkeypatch.setattr("api.blueprints.datasets.check_name", fail)


def change(app: Flask, how: Callable[[Response], object]) -> None:
    @app.after_request
    def look(response: Response) -> Response:
        if request.path.startswith("/datasets"):
            how(response)
        return response


@pytest.mark.parametrize(
    ("phases", "removed"),
    [
        ("coverage", {no_key: "API accepts requests without authentication"}),
        (
            "examples,coverage",
            {
                no_limit: "Schema-violating request accepted",
                no_allow: "returned 405 without required `Allow` header",
                no_cursor: "Response violates schema",
            },
        ),
        ("fuzzing", {no_care: "Server error"}),
        ("stateful", {no_delete: "Deleted resource still available"}),
    ],
    ids=lambda given: None if isinstance(given, str) else ",".join(each.__name__ for each in given),
)
def test_a_lock_that_is_taken_away_is_found_out(
    phases: str, removed: dict[Lock, str], app: App, monkeypatch: pytest.MonkeyPatch
):
    for remove in removed:
        remove(app[0], monkeypatch)
    code, said = found(app, "--phases", phases, "--max-examples", "100" if phases == "stateful" else "30")
    assert code == 1, said
    for words in removed.values():
        assert words in said, said


def test_with_all_locks_in_place_nothing_is_found(app: App):
    code, said = found(app, "--max-examples", "5")
    assert code == 0, said
