"""/docs: a page that needs nothing but this server, and says so to the browser."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from flask.testing import FlaskClient

from storage.records import Records


class Named(HTMLParser):
    """What a page loads, and what it would run or show by itself."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.inline: list[str] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._inside = tag if tag in {"script", "style"} else ""
        if tag in {"script", "link", "img"}:
            self.loaded.append(str(given.get("src") or given.get("href")))
        self.inline += [name for name in given if name.startswith("on") or name == "style"]

    def handle_data(self, data: str) -> None:
        if self._inside and data.strip():
            self.inline.append(data)

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


@pytest.fixture
def page(client: FlaskClient) -> Named:
    with client.get("/docs") as answer:
        assert (answer.status_code, answer.mimetype) == (200, "text/html")
        return Named(answer.text)


def test_page_and_all_that_it_names_come_from_here_and_need_no_key(client: FlaskClient, page: Named, records: Records):
    records.keys.create("ann")
    assert len(page.loaded) >= 4
    for path in page.loaded:
        assert path.startswith("/docs/"), path
        with client.get(path) as answer:
            assert answer.status_code == 200, path
            kind = {"js": "text/javascript", "css": "text/css", "png": "image/png"}[path.rpartition(".")[2]]
            assert answer.mimetype == kind
            assert answer.headers["X-Content-Type-Options"] == "nosniff"
            assert len(answer.data) > 10
            if kind == "text/css":
                assert set(re.findall(r"url\(\"?(\w+):", answer.text)) <= {"data"}, "styles load nothing more"
                assert "@import" not in answer.text


def test_page_has_no_script_of_its_own_inside_and_its_policy_allows_none(client: FlaskClient, page: Named):
    assert page.inline == []
    with client.get("/docs") as answer:
        headers = answer.headers
    policy = dict(part.strip().split(" ", 1) for part in headers["Content-Security-Policy"].split(";"))
    assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
    assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_page_asks_this_server_and_nobody_else(client: FlaskClient):
    with client.get("/docs/docs.js") as script:
        assert 'url: "/openapi.json"' in script.text
        assert "validatorUrl: null" in script.text, "else the document's address is sent to another host"
        assert not re.search(r"https?://", script.text)
    assert client.get("/openapi.json").json["servers"] == [{"url": "/"}]


@pytest.mark.parametrize("name", ["x.js", "docs.html", "..%2fapp.py", "swagger-ui.js", "LICENSE", "%00"])
def test_files_that_the_page_does_not_need_are_not_there(client: FlaskClient, name: str):
    answer = client.get(f"/docs/{name}")
    assert (answer.status_code, answer.json["error"]["kind"]) == (404, "route_not_found")


def test_unchanged_files_are_not_sent_again(client: FlaskClient):
    with client.get("/docs/docs.js") as first:
        etag = first.headers["ETag"]
    with client.get("/docs/docs.js", headers={"If-None-Match": etag}) as second:
        assert (second.status_code, second.data) == (304, b"")


def test_every_answer_says_that_its_type_is_what_it_is(client: FlaskClient):
    for path in ("/info", "/tasks", "/nowhere", "/healthz", "/metrics", "/openapi.json", "/services/none"):
        assert client.get(path).headers["X-Content-Type-Options"] == "nosniff", path
