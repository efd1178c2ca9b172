"""What Flask is told of a request that came in through the event loop."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.wrappers import Request

from api.front import Scope, environ_of


class Headers:
    """Headers as granian has them: names in lower case, several values where a name came several times."""

    def __init__(self, *pairs: tuple[str, str]) -> None:
        self._pairs = list(pairs)

    def items(self) -> list[tuple[str, str]]:
        return self._pairs

    def get(self, key: str, default: Any = None) -> Any:
        return next((value for name, value in self._pairs if name == key), default)


@dataclass
class Asked:
    method: str = "GET"
    path: str = "/info"
    query_string: str = ""
    headers: Headers = field(default_factory=Headers)
    proto: str = "http"
    http_version: str = "1.1"
    server: str = "127.0.0.1:8080"
    client: str = "127.0.0.1:40000"
    scheme: str = "http"


def read(asked: Asked, body: bytes = b"") -> Request:
    return Request(environ_of(cast(Scope, asked), body))


def test_method_path_query_and_body_arrive():
    found = read(Asked("POST", "/train", "a=1&b=%20x"), b"body")
    assert (found.method, found.path, found.args.to_dict(), found.data) == (
        "POST",
        "/train",
        {"a": "1", "b": " x"},
        b"body",
    )


@pytest.mark.parametrize("path", ["/services/größe", "/services/100%25", "/services/a b", "/services/日本"])
def test_path_is_taken_as_granian_has_decoded_it(path: str):
    assert read(Asked(path=path)).path == path


def test_addresses_of_the_sixth_version_lose_their_brackets():
    found = environ_of(cast(Scope, Asked(server="[::1]:8080", client="[fe80::1]:5")), b"")
    assert (found["SERVER_NAME"], found["SERVER_PORT"]) == ("::1", "8080")
    assert (found["REMOTE_ADDR"], found["REMOTE_PORT"]) == ("fe80::1", "5")


def test_header_that_came_twice_has_both_values():
    found = read(Asked(headers=Headers(("accept", "text/html"), ("accept", "application/json"))))
    assert found.headers["Accept"] == "text/html,application/json"


def test_header_with_an_underscore_cannot_pass_for_another():
    found = read(Asked(headers=Headers(("x_api_key", "forged"), ("x-api-key", "real"), ("content_length", "9"))))
    assert found.headers["X-API-KEY"] == "real"
    assert found.content_length == 0


def test_body_of_unknown_length_is_given_the_length_it_has():
    chunked = Asked("POST", headers=Headers(("transfer-encoding", "chunked")))
    assert read(chunked, b"12345").content_length == 5
    assert environ_of(cast(Scope, Asked("POST")), io.BytesIO(b"123"))["CONTENT_LENGTH"] == "3"
    assert environ_of(cast(Scope, Asked("POST")), io.BytesIO(b"123"))["wsgi.input"].read() == b"123"


def test_body_of_exactly_the_limit_is_read_as_a_stream_to_its_end():
    class Limited(Request):
        max_content_length = 5

    for headers in (Headers(("content-length", "5")), Headers(("transfer-encoding", "chunked"))):
        found = Limited(environ_of(cast(Scope, Asked("PUT", headers=headers)), b"12345"))
        assert (found.stream.read(4), found.stream.read(4), found.stream.read(4)) == (b"1234", b"5", b"")
    longer = Limited(environ_of(cast(Scope, Asked("PUT")), b"123456"))
    with pytest.raises(RequestEntityTooLarge):
        longer.stream.read()
