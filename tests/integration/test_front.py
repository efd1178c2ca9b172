"""The event loop in front of Flask, over plain sockets: HTTP itself, and that both ways to predict answer the same."""

from __future__ import annotations

import dataclasses
import gzip
import json
import re
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from cli.stack import Stack
from tests.integration.fronted import (
    ROW,
    WAY,
    Line,
    beside,
    create,
    fronted,
    predict,
    processes,
    put_iris,
    request,
    train,
    unnamed_files,
    until,
)
from tests.services import free_port

pytestmark = pytest.mark.servers

LIMIT_BYTES = 3 * 2**20


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A stack that has a service `iris` with a model."""
    data = put_iris(tmp_path_factory.mktemp("data"))
    with fronted(data, request_limit_bytes=LIMIT_BYTES, api_threads=8) as stack:
        with closing(Line(stack.settings.port)) as line:
            create(line, "iris", data)
            train(line, "iris", data)
        yield stack


@pytest.fixture(scope="module")
def port(stack: Stack) -> int:
    return stack.settings.port


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


def test_body_far_over_the_limit_is_refused_before_it_is_read(port: int):
    head = "Content-Length: 999999999999999999"
    with closing(Line(port)) as line, closing(Line(port)) as other:
        line.send(request("POST", "/predict", None, head))
        told = line.answer()
        at_limit = other.ask("POST", "/predict", b" " * (LIMIT_BYTES + 1), chunked=True)
        assert (told.code, told.content) == (413, at_limit.content)
        with pytest.raises(OSError):  # noqa: PT011  # reset, or broken
            line.send(bytes(2**28))


def test_client_that_asks_before_it_sends_too_much_is_spared_the_sending(line: Line):
    line.send(request("POST", "/predict", None, "Content-Length: 999999999", "Expect: 100-continue"))
    assert line.answer().code == 413


def test_body_over_the_limit_is_refused_as_a_route_that_is_not_there_first(line: Line):
    line.send(request("POST", "/no-such-page", None, f"Content-Length: {LIMIT_BYTES + 1}"))
    assert line.answer().code == 404


@pytest.mark.parametrize("size", [100, 2 * 2**20, LIMIT_BYTES + 1])
@pytest.mark.parametrize("chunked", [False, True])
def test_client_that_hangs_up_in_mid_body_leaves_nothing(stack: Stack, size: int, chunked: bool):
    log, pids = stack.log_of("api"), processes(stack)
    written, files = log.stat().st_size, unnamed_files(pids)
    for _ in range(20):
        with closing(Line(stack.settings.port)) as each:
            each.send(request("POST", "/predict", b" " * size, chunked=chunked)[: -size // 2])
    with closing(Line(stack.settings.port)) as line:
        assert line.ask("POST", "/predict", predict()).code == 200
    until(lambda: len(unnamed_files(pids)) <= len(files))
    with log.open("rb") as lines:
        lines.seek(written)
        told = lines.read().decode()
    assert "Traceback" not in told
    assert "rror" not in told


def test_bodies_that_stop_halfway_hold_no_thread(port: int):
    lines = [Line(port) for _ in range(40)]  # of 8 threads
    for each in lines:
        each.send(request("POST", "/predict", predict())[:-5])
    with closing(Line(port)) as line:
        began = time.monotonic()
        assert line.ask("GET", "/services/iris").code == 200
        assert line.ask("POST", "/predict", predict()).code == 200
        assert time.monotonic() - began < 20
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


def test_packed_bodies_are_read(line: Line):
    packed = gzip.compress(predict())
    for _ in range(2):
        answer = line.ask("POST", "/predict", packed, "Content-Encoding: gzip")
        assert (answer.code, answer.headers[WAY]) == (200, "flask")
    assert answer.json["body"] == line.ask("POST", "/predict", predict()).json["body"]
    bomb = gzip.compress(b" " * (LIMIT_BYTES + 1))
    assert line.ask("POST", "/predict", bomb, "Content-Encoding: gzip").code == 413
    assert line.ask("POST", "/predict", packed[:-9], "Content-Encoding: gzip").code == 400
    assert line.ask("POST", "/predict", packed, "Content-Encoding: br").code == 415
    assert line.ask("POST", "/predict", predict(), "Content-Encoding: identity").code == 200


def test_large_answers_are_packed_for_clients_that_unpack_them(line: Line):
    body = predict(data=[ROW] * 5000)
    plain, packed = line.ask("POST", "/predict", body), line.ask("POST", "/predict", body, "Accept-Encoding: gzip")
    assert len(packed.content) * 5 < len(plain.content)
    assert json.loads(gzip.decompress(packed.content))["body"] == plain.json["body"]
    assert len(plain.json["body"]["predictions"]) == 5000
    assert (plain.headers["vary"], packed.headers[WAY]) == ("Accept-Encoding", "loop")


@pytest.mark.parametrize("accepted", ["gzip;q=0", "identity", "x-gzipped", "GZIP", "*", "deflate, gzip;q=0.5", "*;q=0"])
def test_what_a_client_unpacks_is_understood_the_same_on_both_ways(line: Line, accepted: str):
    body = predict(data=[ROW] * 300)
    line.ask("POST", "/predict", body)
    by_flask = line.ask("POST", "/predict", body, f"Accept-Encoding: {accepted}", chunked=True)
    by_loop = line.ask("POST", "/predict", body, f"Accept-Encoding: {accepted}")
    assert by_loop.headers[WAY] == "loop"
    assert by_loop.headers.get("content-encoding") == by_flask.headers.get("content-encoding")


def test_long_headers_are_taken_and_far_too_many_are_refused(port: int):
    for lines in (["X-Long: " + "a" * 60_000], ["X-Each: " + "a" * 4_000] * 10):
        with closing(Line(port)) as each:
            assert each.ask("POST", "/predict", predict(), *lines).code == 200
    for lines in (["X-Many: a"] * 500, ["X-Long: " + "a" * 8_000] * 100):
        with closing(Line(port)) as each:
            assert each.ask("POST", "/predict", predict(), *lines).code == 431
    with closing(Line(port)) as line:
        assert line.ask("GET", "/" + "a" * 70_000).code == 414


def test_service_on_an_address_of_the_new_protocol_is_asked_on_both_ways(stack: Stack):
    settings = dataclasses.replace(stack.settings, host="::1", port=free_port())
    with beside(stack, settings), closing(Line(settings.port, "::1")) as line:
        for host in ("localhost", f"[::1]:{settings.port}"):
            for way in ("flask", "loop"):
                answer = line.ask("POST", "/predict", predict(), f"Host: {host}", chunked=way == "flask")
            assert (answer.code, answer.headers[WAY]) == (200, "loop"), host
        assert line.ask("POST", "/predict", predict(), "Host: [::2]").code == 403


def test_pages_of_other_origins_are_told_the_same_on_both_ways(stack: Stack):
    page = "http://localhost:3000"
    settings = dataclasses.replace(stack.settings, port=free_port(), cors_origins=(page,))
    with beside(stack, settings), closing(Line(settings.port)) as line:
        for headers, code, allowed, way in (
            ((), 200, None, "loop"),
            ((f"Origin: {page}",), 200, page, "loop"),
            (("Origin: http://localhost:3001",), 200, None, "loop"),
            # Without keys a page of another host stays refused, which no list changes.
            (("Origin: https://app.example.org",), 403, None, "flask"),
            ((f"Origin: {page}", f"Origin: {page}"), 403, None, "flask"),
        ):
            line.ask("POST", "/predict", predict(), *headers)
            answers = [line.ask("POST", "/predict", predict(), *headers, chunked=chunked) for chunked in (True, False)]
            assert [each.code for each in answers] == [code, code], headers
            assert [each.headers.get("access-control-allow-origin") for each in answers] == [allowed] * 2, headers
            assert [each.headers["vary"] for each in answers] == ["Origin"] * 2
            assert [each.headers[WAY] for each in answers] == ["flask", way]
            assert answers[0].headers.keys() == answers[1].headers.keys()
            assert not any("credentials" in name for each in answers for name in each.headers)
        asked = line.ask("OPTIONS", "/predict", None, f"Origin: {page}", "Access-Control-Request-Method: POST")
        assert (asked.code, asked.headers["access-control-allow-origin"]) == (204, page)
        assert line.ask("POST", "/predict", predict(), f"Origin: {page}").code == 200


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
    "data of another host": (predict(data=["http://127.0.0.1:1/rows.csv"]), ()),
    "data of a bucket": (predict(data=["s3://bucket/rows.csv"]), ()),
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
    "two origins": (predict(), ("Origin: http://localhost", "Origin: http://evil.example")),
    "an origin with a path": (predict(), ("Origin: http://localhost/,http://evil.example",)),
    "a key where none is needed": (predict(), ("X-API-KEY: wrong",)),
    "two keys": (predict(), ("X-API-KEY: a", "X-API-KEY: b")),
    "another content type": (predict(), ("Content-Type: text/plain",)),
    "a capital in the name": (predict(service="IRIS"), ()),
}

BY_LOOP = {
    "one row",
    "three rows",
    "gzip asked for",
    "unknown parameter",
    "timings",
    "missing value",
    "bad row",
    "empty row",
    "best of two",
    "own origin",
    "a key where none is needed",
    "another content type",
    "a capital in the name",
}
"""The cases that the loop itself answers; all others are refused, or unusual, and Flask's."""


@pytest.mark.parametrize("case", SAME)
@pytest.mark.parametrize("path", ["/predict", "/predict?x=1"])
def test_both_ways_answer_the_same(line: Line, case: str, path: str):
    body, headers = SAME[case]
    # A body in chunks is Flask's; of the others, the first teaches what the second is answered with.
    by_flask = line.ask("POST", path, body, *headers, chunked=True)
    line.ask("POST", path, body, *headers)
    by_loop = line.ask("POST", path, body, *headers)
    told = [{**each.headers, "date": "", "content-length": "", WAY: ""} for each in (by_flask, by_loop)]
    contents = [
        without_time(gzip.decompress(each.content) if each.headers.get("content-encoding") == "gzip" else each.content)
        for each in (by_flask, by_loop)
    ]
    assert (by_loop.code, told[1], contents[1]) == (by_flask.code, told[0], contents[0])
    assert by_flask.headers[WAY] == "flask"
    assert by_loop.headers[WAY] == ("loop" if case in BY_LOOP else "flask")
