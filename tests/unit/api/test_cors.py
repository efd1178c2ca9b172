"""Pages of other origins: off unless set, and never more than what is listed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

import pytest
from flask.testing import FlaskClient

from api.app import create_app
from settings import BadSetting, Settings
from storage.live import Live
from storage.objects.base import Objects
from storage.records import Records
from tests.unit.api.fakes import FakeLive, FakeQueue

PAGE = "https://app.example.org"
OTHER = "https://evil.example"

Door = Callable[[str], FlaskClient]


@pytest.fixture
def door(settings: Settings, records: Records, live: FakeLive, queue: FakeQueue, objects: Objects) -> Door:
    """A client of an app with a value of the setting."""

    def made(origins: str) -> FlaskClient:
        chosen = replace(settings, cors_origins=Settings.from_env({"MODELYARD_CORS_ORIGINS": origins}).cors_origins)
        return create_app(chosen, records, cast(Live, live), queue, objects).test_client()

    return made


def said(headers: object) -> dict[str, str]:
    return {
        name.lower(): value
        for name, value in headers.items()  # type: ignore[attr-defined]
        if name.lower().startswith("access-control") or name.lower() == "vary"
    }


def asking(origin: str, method: str = "POST", **more: str) -> dict[str, str]:
    return {"Origin": origin, "Access-Control-Request-Method": method, **more}


def test_without_the_setting_no_header_is_sent_and_no_preflight_answered(client: FlaskClient, records: Records):
    key = {"X-API-KEY": records.keys.create("ann")[1]}
    assert said(client.get("/info", headers={**key, "Origin": PAGE}).headers) == {}
    answer = client.options("/predict", headers={**asking(PAGE), **key})
    assert (answer.status_code, said(answer.headers)) == (404, {})
    answer = client.options("/tasks", headers={**asking(PAGE), **key})
    assert (answer.status_code, said(answer.headers)) == (405, {})


def test_listed_page_may_read_answers_and_refusals(door: Door, records: Records):
    client = door(f"https://first.example, {PAGE}")
    key = {"X-API-KEY": records.keys.create("ann")[1]}
    for path, headers, code in (("/info", key, 200), ("/info", {}, 401), ("/tasks/9", key, 404), ("/healthz", {}, 200)):
        answer = client.get(path, headers={**headers, "Origin": PAGE})
        assert answer.status_code == code
        assert answer.headers["Access-Control-Allow-Origin"] == PAGE
        assert "retry-after" in answer.headers["Access-Control-Expose-Headers"]
        assert "Access-Control-Allow-Credentials" not in answer.headers


@pytest.mark.parametrize(
    "origin",
    [
        None,
        OTHER,
        "null",
        "https://app.example.org.evil.example",
        "https://sub.app.example.org",
        "http://app.example.org",
        "https://app.example.org:8443",
        "https://app.example.org/",
        "HTTPS://APP.EXAMPLE.ORG",
        f"{PAGE},{OTHER}",
        f"{PAGE} {OTHER}",
        "",
        "*",
    ],
)
def test_origins_that_are_not_listed_are_not_reflected(door: Door, records: Records, origin: str | None):
    client = door(PAGE)
    headers = {"X-API-KEY": records.keys.create("ann")[1]} | ({} if origin is None else {"Origin": origin})
    assert said(client.get("/info", headers=headers).headers) == {"vary": "Origin"}
    answer = client.options("/predict", headers={**headers, "Access-Control-Request-Method": "POST"})
    assert (answer.status_code, said(answer.headers)) == (404, {"vary": "Origin"})


def test_star_admits_every_page_and_never_with_credentials(door: Door, records: Records):
    client = door("*")
    key = {"X-API-KEY": records.keys.create("ann")[1]}
    for origin in (PAGE, OTHER, "null"):
        told = said(client.get("/info", headers={**key, "Origin": origin}).headers)
        assert told["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in told
        told = said(client.options("/predict", headers=asking(origin)).headers)
        assert told["access-control-allow-origin"] == "*"
        assert "access-control-allow-credentials" not in told


@pytest.mark.parametrize(
    ("path", "methods"),
    [
        ("/predict", "POST"),
        ("/train", "DELETE, GET, HEAD, POST, PUT"),
        ("/services/x", "DELETE, GET, HEAD, POST, PUT"),
        ("/tasks/1", "DELETE, GET, HEAD"),
    ],
)
def test_preflight_tells_verbs_and_headers_without_a_key(door: Door, records: Records, path: str, methods: str):
    records.keys.create("ann")
    client = door(PAGE)
    answer = client.options(path, headers=asking(PAGE, **{"Access-Control-Request-Headers": "x-api-key"}))
    assert (answer.status_code, answer.data) == (204, b"")
    assert "Content-Type" not in answer.headers
    told = said(answer.headers)
    assert told["access-control-allow-origin"] == PAGE
    assert told["access-control-allow-methods"] == methods
    assert {"authorization", "content-type", "x-api-key", "idempotency-key"} <= set(
        told["access-control-allow-headers"].split(", ")
    )
    assert int(told["access-control-max-age"]) > 0
    assert told["vary"] == "Origin"


def test_what_is_no_preflight_is_answered_as_ever(door: Door, records: Records):
    client = door(PAGE)
    key = {"X-API-KEY": records.keys.create("ann")[1], "Origin": PAGE}
    assert client.options("/predict", headers=key).status_code == 404
    assert client.options("/tasks", headers=key).status_code == 405
    assert client.options("/nowhere", headers={**key, **asking(PAGE)}).status_code == 404
    assert client.options("/predict", headers=asking(OTHER)).status_code == 401


def test_long_answers_vary_by_both(door: Door, records: Records):
    client = door(PAGE)
    headers = {"X-API-KEY": records.keys.create("ann")[1], "Origin": PAGE, "Accept-Encoding": "gzip"}
    answer = client.get("/openapi.json", headers=headers)
    assert answer.headers.getlist("Vary") == ["Accept-Encoding", "Origin"]


@pytest.mark.parametrize("origins", [PAGE, "*"])
def test_being_listed_is_no_key_on_a_machine_without_keys(door: Door, origins: str):
    client = door(origins)
    answer = client.get("/info", headers={"Origin": PAGE})
    assert answer.status_code == 403
    assert answer.headers["Access-Control-Allow-Origin"] == origins, "so that the page can tell its reader why"
    assert client.get("/info", headers={"Host": "app.example.org"}).status_code == 403


def test_page_of_this_machine_needs_no_key_but_must_be_listed_to_read(door: Door):
    local = "http://localhost:3000"
    assert "Access-Control-Allow-Origin" not in door("").get("/info", headers={"Origin": local}).headers
    answer = door(local).get("/info", headers={"Origin": local})
    assert (answer.status_code, answer.headers["Access-Control-Allow-Origin"]) == (200, local)


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", ()),
        ("*", ("*",)),
        ("HTTPS://App.Example.org:443", ("https://app.example.org",)),
        ("http://a.example:80,http://b.example:8080", ("http://a.example", "http://b.example:8080")),
        ("http://[::1]:3000", ("http://[::1]:3000",)),
        ("capacitor://localhost", ("capacitor://localhost",)),
    ],
)
def test_setting_is_kept_as_browsers_write_origins(given: str, kept: tuple[str, ...]):
    settings = Settings.from_env({"MODELYARD_CORS_ORIGINS": given})
    assert settings.cors_origins == kept
    assert Settings.from_env(settings.to_env()).cors_origins == kept


@pytest.mark.parametrize(
    "given",
    [
        "null",
        "app.example.org",
        "https://a.example/",
        "https://a.example/x",
        "https://*.example",
        "*,https://a.example",
    ],
)
def test_setting_that_names_no_origin_is_refused(given: str):
    with pytest.raises(BadSetting, match="MODELYARD_CORS_ORIGINS"):
        Settings.from_env({"MODELYARD_CORS_ORIGINS": given})
