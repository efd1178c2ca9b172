"""The event loop in front of Flask, over plain sockets: HTTP itself, and that both ways to predict answer the same."""

from __future__ import annotations

import gzip
import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any

import pytest

from cli.stack import Stack
from settings import Settings
from tests.integration.yard import EXAMPLES
from tests.services import short_folder

pytestmark = pytest.mark.servers

LIMIT_BYTES = 3 * 2**20
ROW = "5.1,3.5,1.4,0.2"


@dataclass(frozen=True)
class Answer:
    """What came back over a socket."""

    code: int
    headers: dict[str, str]
    content: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.content)


class Line:
    """One connection."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.socket = socket.create_connection((host, port), timeout=20)
        self._file = self.socket.makefile("rb")

    def close(self) -> None:
        self._file.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def answer(self, *, has_body: bool = True) -> Answer:
        """The next answer; also one without a body, such as that to HEAD."""
        first = self._file.readline().split(b" ", 2)
        assert first[0].startswith(b"HTTP/1."), first
        headers: dict[str, str] = {}
        while (line := self._file.readline().strip()) != b"":
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        length = int(headers.get("content-length", "0"))
        return Answer(int(first[1]), headers, self._file.read(length) if has_body else b"")

    def ask(self, method: str, path: str, body: bytes | None = None, *headers: str, chunked: bool = False) -> Answer:
        self.send(request(method, path, body, *headers, chunked=chunked))
        return self.answer(has_body=method != "HEAD")


def request(method: str, path: str, body: bytes | None = None, *headers: str, chunked: bool = False) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", *headers]
    if not any(each.lower().startswith("host:") for each in headers):
        lines.append("Host: localhost")
    if body is not None and chunked:
        lines.append("Transfer-Encoding: chunked")
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body) if body else b"0\r\n\r\n"
    elif body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + (body or b"")


def predict(**changes: Any) -> bytes:
    return json.dumps({"service": "iris", "parameters": {}, "data": [ROW], **changes}).encode()


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Where a stack listens that has a service `iris` with a model."""
    data = tmp_path_factory.mktemp("data").resolve()
    (data / "iris.csv").write_text((EXAMPLES / "iris.csv").read_text())
    with socket.create_server(("127.0.0.1", 0)) as held:
        free: int = held.getsockname()[1]
    with short_folder() as home:
        settings = Settings(
            home=home,
            port=free,
            flower_port=0,
            data_roots=(data,),
            threads=1,
            request_limit_bytes=LIMIT_BYTES,
            api_threads=8,
        )
        with Stack(settings) as stack:
            stack.wait_ready(100)
            with closing(Line(free)) as line:
                label = (data / "iris.csv").read_text().split("\n", 1)[0].split(",")[-1]
                service = {
                    "mllib": "xgboost",
                    "description": "iris",
                    "model": {"repository": str(data / "iris"), "create_repository": True},
                    "parameters": {"input": {"connector": "csv", "label": label}, "mllib": {"nclasses": 3}},
                }
                made = line.ask("PUT", "/services/iris", json.dumps(service).encode())
                assert made.code == 201, made
                training = {
                    "service": "iris",
                    "async": False,
                    "parameters": {"mllib": {"iterations": 3}, "input": {}, "output": {}},
                    "data": [str(data / "iris.csv")],
                }
                trained = line.ask("POST", "/train", json.dumps(training).encode())
                assert trained.code == 201, trained
            yield free


@pytest.fixture
def line(port: int) -> Iterator[Line]:
    with closing(Line(port)) as made:
        yield made


def test_connection_is_kept_and_requests_sent_at_once_are_answered_in_order(line: Line):
    line.send(request("GET", "/healthz") + request("POST", "/predict", predict()) + request("GET", "/no-such-page"))
    assert [line.answer().code for _ in range(3)] == [200, 200, 404]
    assert line.ask("GET", "/healthz").code == 200


def test_head_has_the_headers_of_get_and_no_body(line: Line):
    head, get = line.ask("HEAD", "/healthz"), line.ask("GET", "/healthz")
    assert (head.code, head.headers["content-type"]) == (get.code, get.headers["content-type"])
    assert head.content == b""


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "BREW"])
def test_method_that_predict_does_not_have_is_refused(line: Line, method: str):
    answer = line.ask(method, "/predict", b"{}")
    assert answer.code == 404
    assert answer.json["status"]["msg"] == f"Not Found: there is nothing at {method} /predict"


@pytest.mark.parametrize("chunked", [False, True])
def test_body_at_the_limit_is_read_and_one_byte_more_is_refused(port: int, chunked: bool):
    for size, code in ((LIMIT_BYTES, 400), (LIMIT_BYTES + 1, 413), (LIMIT_BYTES + 2**20, 413)):
        with closing(Line(port)) as line:
            answer = line.ask("POST", "/predict", b" " * size, chunked=chunked)
            assert answer.code == code, size
            assert answer.json["status"]["code"] == code
            assert line.ask("GET", "/healthz").code == 200


def test_bodies_that_stop_halfway_hold_no_thread(port: int):
    lines = [Line(port) for _ in range(40)]  # of 8 threads
    for each in lines:
        each.send(request("POST", "/predict", predict())[:-5])
    with closing(Line(port)) as line:
        began = time.monotonic()
        assert line.ask("GET", "/services/iris").code == 200
        assert line.ask("POST", "/predict", predict()).code == 200
        assert time.monotonic() - began < 5
    for each in lines[1:]:
        each.close()
    lines[0].send(predict()[-5:])
    assert lines[0].answer().code == 200
    lines[0].close()


def test_client_that_expects_to_be_told_to_continue_is_told(line: Line):
    body = predict()
    line.send(request("POST", "/predict", body, "Expect: 100-continue")[: -len(body)])
    assert line.answer(has_body=False).code == 100
    line.send(body)
    assert line.answer().code == 200


def test_request_of_the_first_version_is_answered_and_the_connection_closed(line: Line):
    line.send(b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert line.answer().code == 200
    assert line.socket.recv(1) == b""


def test_upgrade_to_a_web_socket_is_not_taken(line: Line):
    upgrade = ("Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13")
    answer = line.ask("GET", "/healthz", None, *upgrade, "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==")
    assert answer.code == 400
    assert line.ask("GET", "/healthz").code == 200


@pytest.mark.parametrize(
    ("path", "name"),
    [("/gr%C3%B6%C3%9Fe", r"/gr\xf6\xdfe"), ("/100%2525", "/100%25"), ("/a%20b", "/a b"), ("/%3Fx", "/?x")],
)
def test_name_in_a_path_is_decoded_once(line: Line, path: str, name: str):
    answer = line.ask("GET", path)
    assert answer.code == 404
    assert answer.json["error"]["message"] == f"there is nothing at GET {name}"


@pytest.mark.parametrize("path", ["/services/%ff", "/services/%00", "/services/%", "/services/%zz"])
def test_path_that_is_no_text_is_refused(line: Line, path: str):
    answer = line.ask("GET", path)
    assert answer.code in (400, 404)
    assert answer.headers["content-type"] == "application/json"


def without_time(content: bytes) -> bytes:
    content = re.sub(rb'"(time|queued|load|input|compute|output)":[0-9.e-]+', rb'"\1":0', content)
    return re.sub(rb"0x[0-9a-f]+", b"0x", content)


SAME: dict[str, tuple[bytes, tuple[str, ...]]] = {
    "one row": (predict(), ()),
    "three rows": (predict(data=[ROW] * 3), ()),
    "gzip asked for": (predict(data=[ROW] * 300), ("Accept-Encoding: gzip",)),
    "unknown parameter": (predict(parameters={"output": {"nonsense": 1}}), ()),
    "unknown member": (predict(extra=1), ()),
    "timings": (predict(parameters={"output": {"timings": True}}), ()),
    "missing value": (predict(data=["nan,3.5,1.4,0.2"]), ()),
    "bad row": (predict(data=["a,b"]), ()),
    "empty row": (predict(data=[""]), ()),
    "no data": (predict(data=[]), ()),
    "data of another kind": (predict(data=[1]), ()),
    "no service": (predict(service="nobody"), ()),
    "service of another kind": (predict(service=3), ()),
    "bad parameters": (predict(parameters={"output": {"best": "many"}}), ()),
    "best of two": (predict(parameters={"output": {"best": 2}}), ()),
    "no JSON": (b"{", ()),
    "a list": (b"[]", ()),
    "nothing": (b"", ()),
    "foreign host": (predict(), ("Host: evil.example",)),
    "foreign origin": (predict(), ("Origin: http://evil.example",)),
    "own origin": (predict(), ("Origin: http://localhost",)),
    "a key where none is needed": (predict(), ("X-API-KEY: wrong",)),
    "two keys": (predict(), ("X-API-KEY: a", "X-API-KEY: b")),
    "another content type": (predict(), ("Content-Type: text/plain",)),
    "a capital in the name": (predict(service="IRIS"), ()),
}


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize("path", ["/predict", "/predict?x=1"])
def test_both_ways_answer_the_same(line: Line, case: str, path: str):
    body, headers = SAME[case]
    # A body in chunks is Flask's; of the others, the first teaches what the second is answered with.
    by_flask = line.ask("POST", path, body, *headers, chunked=True)
    line.ask("POST", path, body, *headers)
    by_loop = line.ask("POST", path, body, *headers)
    told = [{**each.headers, "date": "", "content-length": ""} for each in (by_flask, by_loop)]
    contents = [
        without_time(gzip.decompress(each.content) if each.headers.get("content-encoding") == "gzip" else each.content)
        for each in (by_flask, by_loop)
    ]
    assert (by_loop.code, told[1], contents[1]) == (by_flask.code, told[0], contents[0])
