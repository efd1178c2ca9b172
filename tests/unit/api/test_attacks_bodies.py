"""Attacks by way of a body: what makes readers of JSON, of queries and of forms slow, large, confused or lost.

Each answer is one of the client's errors, in time; `internal` never. Where a limit of ours is what holds, the attack is
shown to get through without it.
"""

from __future__ import annotations

import gzip
import io
import json
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from api import body as bodies
from api.body import parse_object
from api.refusals import BadBody, BadJson
from tests.unit.api.conftest import Yard

# Werkzeug leaves the files of a form that it gives up to the collector of garbage.
pytestmark = [
    pytest.mark.filterwarnings("ignore:Unclosed file:ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

LIMIT_S = 5.0
"""Seconds of processor time in which every body of these must be answered; the slowest takes a tenth of it."""

BODIES = [
    ("PUT", "/services/odd"),
    ("POST", "/services/odd"),
    ("DELETE", "/services/iris"),
    ("POST", "/train"),
    ("POST", "/predict"),
    ("PUT", "/datasets/odd"),
    ("POST", "/datasets/flowers/uploads"),
]
"""All routes that read a body as JSON."""

DIGITS = b"9" * 1_000_000
ATTACKS: dict[str, bytes] = {
    "arrays in each other": b'{"data":' + b"[" * 1_000_000,
    "arrays in each other, closed": b'{"data":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "objects in each other": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "both in each other": b'{"a":[' * 50_000 + b"]}" * 50_000,
    "a million digits": b'{"service":"iris","parameters":{"mllib":{"iterations":' + DIGITS + b"}}}",
    "a million digits after a point": b'{"service":"iris","parameters":{"mllib":{"iterations":0.' + DIGITS + b"}}}",
    "a million digits of an exponent": b'{"service":"iris","parameters":{"mllib":{"iterations":1e' + DIGITS + b"}}}",
    "a number beyond all": b'{"service":"iris","parameters":{"mllib":{"iterations":1e400}}}',
    "a number below all": b'{"service":"iris","parameters":{"mllib":{"iterations":-1e400}}}',
    "no number": b'{"service":"iris","parameters":{"mllib":{"iterations":NaN,"nclasses":Infinity}}}',
    "a whole number beyond 64 bits": b'{"service":"iris","parameters":{"mllib":{"iterations":' + b"9" * 40 + b"}}}",
    "an unknown one beyond 64 bits": b'{"service":"iris","parameters":{"mllib":{"odd":' + b"9" * 400 + b"}}}",
    "one beyond 64 bits beside what is no number": b'{"service":"iris","data":["1"],"parameters":{"mllib":{"odd":'
    + b"9" * 40
    + b',"other":NaN}}}',
    "half a pair": b'{"service":"\\ud800"}',
    "half a pair in a name": b'{"\\udfff":1}',
    "half a pair, as bytes": b'{"service":"\xed\xa0\x80"}',
    "overlong bytes": b'{"service":"\xc0\xaf\xc0\xae"}',
    "a NUL": b'{"service":"a\\u0000b"}',
    "a NUL, as a byte": b'{"service":"a\0b"}',
    "one name a hundred thousand times": b"{" + b",".join([b'"service":"iris"'] * 100_000) + b"}",
    "a hundred thousand names": b"{" + b",".join(b'"n%d":%d' % (n, n) for n in range(100_000)) + b"}",
    "a hundred thousand names of parameters": b'{"service":"iris","parameters":{"mllib":{'
    + b",".join(b'"n%d":1' % n for n in range(100_000))
    + b"}}}",
    "names as numbers": b'{"parameters":{"mllib":{' + b",".join(b'"%d":1' % 10**n for n in range(300)) + b"}}}",
    "names that objects of Python have": b'{"__class__":1,"__init__":{"__globals__":1},"service":{"__proto__":1}}',
    "a name of a million letters": b'{"' + b"n" * 1_000_000 + b'":1}',
    "a service of a million letters": b'{"service":"' + b"n" * 1_000_000 + b'"}',
    "a million backslashes": b'{"service":"' + b"\\\\" * 500_000 + b'"}',
    "a million escapes": b'{"service":"' + b"\\u00e9" * 200_000 + b'"}',
    "a million empty arrays": b'{"service":"iris","data":[' + b",".join([b"[]"] * 500_000) + b"]}",
    "a million numbers as data": b'{"service":"iris","data":[' + b",".join([b"1"] * 1_000_000) + b"]}",
    "a text for an object": b'{"service":"iris","parameters":"x","data":"y","model":"z","mllib":"xgboost"}',
    "arrays for objects": b'{"service":["iris"],"parameters":[[]],"data":{"a":1},"model":[],"mllib":["xgboost"]}',
    "wrong at its end": b'{"service":"iris","data":["' + b"x" * 1_000_000 + b'"',
    "blanks": b" " * 2_000_000,
    "a mark of the order of bytes": b"\xef\xbb\xbf\xef\xbb\xbf{}",
    "another encoding": '{"service":"iris"}'.encode("utf-16"),
}


@pytest.fixture
def ready(yard: Yard, client: FlaskClient) -> FlaskClient:
    """A server with a service and a data set."""
    yard.create()
    yard.finish(yard.train())
    assert client.put("/datasets/flowers").status_code == 201
    return client


@pytest.mark.parametrize("attack", ATTACKS)
def test_no_body_is_the_servers_fault_or_takes_long(attack: str, ready: FlaskClient):
    for verb, path in BODIES:
        began = time.process_time()
        answer = ready.open(path, method=verb, data=ATTACKS[attack])
        assert time.process_time() - began < LIMIT_S, (verb, path)
        assert answer.status_code < 500, (verb, path, answer.text[:500])
        assert "Recursion" not in answer.text
        assert len(answer.data) < 1_000_000, "nor does its answer grow with it"


@pytest.mark.parametrize("attack", sorted(ATTACKS)[::6])
def test_packed_the_bodies_do_no_more(attack: str, ready: FlaskClient):
    for verb, path in BODIES[3:5]:
        headers = {"Content-Encoding": "gzip"}
        answer = ready.open(path, method=verb, data=gzip.compress(ATTACKS[attack], 1), headers=headers)
        assert answer.status_code < 500, answer.text[:500]


# The locks, and what happens without them


def test_brackets_are_limited_by_us_and_only_by_us(monkeypatch: pytest.MonkeyPatch):
    packed = b'{"data":[' + b",".join([b"[]"] * 500_000) + b"]}"
    began = time.process_time()
    with pytest.raises(BadJson, match="brackets"):
        parse_object(packed)
    refused_s = time.process_time() - began
    monkeypatch.setattr(bodies, "BRACKETS_MOST", 10**9)
    began = time.process_time()
    assert len(parse_object(packed)["data"]) == 500_000
    assert refused_s < (time.process_time() - began) / 20


@pytest.mark.parametrize("packed", [b'{"a":' * 70 + b"1" + b"}" * 70, b'{"a":' + b"[" * 70 + b"]" * 70 + b"}"])
def test_depth_is_limited_by_us_and_only_by_us(packed: bytes, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(BadJson, match="deeper than 64"):
        parse_object(packed)
    monkeypatch.setattr(bodies, "DEPTH_LIMIT", 100)
    assert parse_object(packed)


def test_texts_that_cannot_be_kept_are_refused_by_us_and_only_by_us(monkeypatch: pytest.MonkeyPatch):
    for packed in (b'{"a":"\\ud800"}', b'{"a":"\\u0000"}', b'{"\\udc00":1}', b'{"a":[{"b":["\\udbff"]}]}'):
        with pytest.raises(BadJson, match="surrogate"):
            parse_object(packed)
    monkeypatch.setattr(bodies, "_check_texts", lambda value: None)
    with pytest.raises(UnicodeEncodeError):
        str(parse_object(b'{"a":"\\ud800"}')["a"]).encode()


def test_digits_are_limited_by_python_and_would_take_the_square_of_their_time():
    code = "import sys; {}sys.path.insert(0, '.'); from api.body import parse_object; parse_object({!r})"
    packed = b'{"a":' + b"9" * 5000 + b"}"

    def outcome(lock: str) -> str:
        command = [sys.executable, "-c", code.format(lock, packed)]
        return subprocess.run(command, capture_output=True, text=True, check=False).stderr

    assert "too many digits" in outcome("")
    assert outcome("sys.set_int_max_str_digits(0); ") == ""


def test_hashes_of_texts_differ_from_process_to_process():
    """Names that all have one hash would make an object take the square of its time; nobody can know such names."""

    def hashed(environment: dict[str, str]) -> str:
        command = [sys.executable, "-c", "print(hash('a name'))"]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout

    assert len({hashed({}) for _ in range(3)}) == 3
    # The lock open:
    assert len({hashed({"PYTHONHASHSEED": "0"}) for _ in range(3)}) == 1


def test_packed_body_stops_at_its_limits_and_only_there(client: FlaskClient, monkeypatch: pytest.MonkeyPatch):
    bomb = gzip.compress(b'{"service":"' + b" " * 50_000_000 + b'"}')
    assert len(bomb) < 100_000
    asked = {"data": bomb, "headers": {"Content-Encoding": "gzip"}}
    with client.application.test_request_context("/train", **asked), pytest.raises(bodies.BodyTooLarge):
        bodies.read_object(1_000_000)
    with client.application.test_request_context("/train", **asked), pytest.raises(bodies.BodyTooLarge):
        bodies.read_object(10**9)
    # The locks open:
    monkeypatch.setattr(bodies, "_UNZIPPED_TIMES", 10**6)
    with client.application.test_request_context("/train", **asked):
        assert bodies.read_object(10**9)


# Against another reader


def _reference(data: bytes) -> Any:
    return json.loads(data.decode("utf-8-sig"))


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**25), 10**25)
    | st.floats()
    | st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=20),
    lambda children: (
        st.lists(children, max_size=5)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=5),
            children,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(value=_JSON)
def test_any_json_is_read_as_python_reads_it(value: Any):
    data = json.dumps(value).encode()
    try:
        found = parse_object(data)
    except BadBody:
        assert not isinstance(value, dict)
        return
    assert _is_near(found, _reference(data))


def _is_near(found: Any, value: Any) -> bool:
    if isinstance(value, dict):
        return found.keys() == value.keys() and all(_is_near(found[key], value[key]) for key in value)
    if isinstance(value, list):
        return len(found) == len(value) and all(map(_is_near, found, value))
    if isinstance(value, int | float) and not isinstance(value, bool):  # a whole one beyond 64 bits may be a real one
        return bool(found == value or found == float(value) or (found != found and value != value))
    return bool(found == value)


@given(data=st.binary(max_size=60) | st.text(alphabet='{}[]":,0123456789eE+-.\\u tfnNIl', max_size=60).map(str.encode))
def test_any_bytes_are_an_object_or_refused(data: bytes):
    try:
        found = parse_object(data)
    except (BadJson, BadBody):
        return
    assert isinstance(found, dict)
    json.dumps(found).encode()


# Queries and forms


QUERIES = [
    "&".join(f"n{number}=1" for number in range(20_000)),
    ".".join(["a"] * 20_000) + "=1",
    "service=" + "n" * 60_000,
    "job=" + "9" * 60_000,
    "job=1e400",
    "job=-1",
    "timeout=" + "9" * 30,
    "timeout=nan",
    "parameters.output.max_hist_points=" + "9" * 30,
    "parameters=1&parameters.output=2&parameters.output.max_hist_points=3",
    "%00=%00",
    "service=%ff%fe",
    "service=%ed%a0%80&job=1",
    "=" * 10_000,
    "&" * 10_000,
    "__class__.__init__=1",
    "limit=-1",
    "limit=99999999999999999999",
    "cursor=" + "A" * 10_000,
    "cursor=%00",
    "cursor=eyJiZWZvcmUiOiAxZTQwMH0",
    "ids=" + ",".join(["9" * 18] * 1000),
    "ids=" + "," * 10_000,
    "status=\u0661&job=\u0661",
]


@pytest.mark.parametrize("path", ["/train", "/tasks", "/services/iris", "/datasets", "/datasets/flowers", "/info"])
def test_no_query_is_the_servers_fault_or_takes_long(path: str, ready: FlaskClient):
    for query in QUERIES:
        began = time.process_time()
        answer = ready.get(f"{path}?{query}")
        assert time.process_time() - began < LIMIT_S, query[:80]
        assert answer.status_code < 500, (query[:80], answer.text[:500])


def _form(parts: int, head: bytes = b'Content-Disposition: form-data; name="f"; filename="a%d.csv"') -> bytes:
    pieces = (b"--x\r\n" + head.replace(b"%d", b"%d" % number) + b"\r\n\r\n1\r\n" for number in range(parts))
    return b"".join(pieces) + b"--x--\r\n"


FORMS: dict[str, Callable[[], bytes]] = {
    "a hundred thousand parts": lambda: _form(100_000),
    "a hundred thousand fields": lambda: _form(100_000, b'Content-Disposition: form-data; name="f%d"'),
    "a name without an end": lambda: _form(1, b'Content-Disposition: form-data; name="f"; filename="' + b"n" * 10**6),
    "a name of a million letters": lambda: _form(
        1, b'Content-Disposition: form-data; name="f"; filename="' + b"n" * 10**6 + b'"'
    ),
    "a field of megabytes": lambda: _form(1, b'Content-Disposition: form-data; name="f"').replace(b"1", b"1" * 10**7),
    "a hundred thousand headers": lambda: _form(1, b"X: y\r\n" * 100_000 + b'Content-Disposition: form-data; name="f"'),
    "no end": lambda: _form(1)[:-8],
    "no part": lambda: b"--x--\r\n",
    "almost boundaries": lambda: b"\r\n--" * 500_000,
    "line ends": lambda: b"--x\r\n\r\n" + b"\r" * 2_000_000,
    "names that continue": lambda: _form(
        1, b"Content-Disposition: form-data; name=f; " + b"; ".join(b"filename*%d=a" % n for n in range(5000))
    ),
    "a name in another encoding": lambda: _form(
        1, b"Content-Disposition: form-data; name=f; filename*=utf-7''%2BADw-script"
    ),
}


@pytest.mark.parametrize("kind", FORMS)
def test_no_form_is_the_servers_fault_or_takes_long(kind: str, ready: FlaskClient):
    began = time.process_time()
    answer = ready.post(
        "/datasets/flowers/files", data=FORMS[kind](), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert time.process_time() - began < 2 * LIMIT_S
    assert 200 <= answer.status_code < 500, answer.text[:500]


@pytest.mark.parametrize(
    "content_type",
    [
        "multipart/form-data",
        "multipart/form-data; boundary=",
        "multipart/form-data; boundary=" + "x" * 10_000,
        "multipart/form-data; boundary=\xff",
        "multipart/mixed; boundary=x",
        "application/x-www-form-urlencoded",
        "text/plain; charset=utf-7",
        "application/json; charset=" + "x" * 10_000,
        "",
    ],
)
def test_no_content_type_is_the_servers_fault(content_type: str, ready: FlaskClient):
    for verb, path in (*BODIES, ("POST", "/datasets/flowers/files")):
        answer = ready.open(path, method=verb, data=b"--x\r\n\r\n{}", headers={"Content-Type": content_type})
        assert answer.status_code < 500, (verb, path, answer.text)


@pytest.mark.parametrize("header", ["X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override"])
def test_verb_is_that_of_the_request_whatever_a_header_says(header: str, ready: FlaskClient):
    assert ready.get("/services/iris", headers={header: "DELETE"}).status_code == 200
    assert ready.post("/services/iris?_method=DELETE", data=b"{}", headers={header: "DELETE"}).status_code >= 400
    assert ready.get("/services/iris").status_code == 200


def test_too_many_parts_are_told_as_such(ready: FlaskClient):
    files = [("file", (io.BytesIO(b"1"), f"a{number}.csv")) for number in range(3)]
    assert ready.post("/datasets/flowers/files", data={"file": [each[1] for each in files]}).status_code == 201
    answer = ready.post(
        "/datasets/flowers/files", data=_form(10_001), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    assert answer.status_code in (400, 413)
    assert "parts" in answer.text


SERVICE = {
    "mllib": "xgboost",
    "model": {"repository": "again", "create_repository": True},
    "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}},
}
_WORDS = st.sampled_from(["service", "data", "parameters", "input", "mllib", "output", "model", "type", "iterations"])


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=st.dictionaries(_WORDS, st.recursive(_JSON, lambda inner: st.dictionaries(_WORDS, inner, max_size=4))))
def test_any_object_is_answered_without_a_fault_of_the_server(body: Any, ready: FlaskClient):
    for verb, path in BODIES[:5]:
        answer = ready.open(path, method=verb, data=json.dumps({"service": "iris", **body}))
        assert answer.status_code < 500, (verb, path, answer.text)
        if answer.status_code == 200 and verb == "DELETE":
            ready.put("/services/iris", json=SERVICE)
