"""What surrounds every request: bodies, keys, errors, health, and what the API imports."""

from __future__ import annotations

import base64
import gzip
import json
import logging
import subprocess
import sys
import zlib
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

import settings as settings_module
from api import refusals
from api.access import OpenDoor, check_bind
from api.answers import dump
from api.app import create_app
from api.errors import CODES, ML, OWN, PHRASES, STORAGE, status_of
from api.query import as_object
from ml.errors import MlError
from settings import Settings
from storage.errors import StorageError
from storage.live import Live
from storage.records import Records
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive, FakeQueue

HEAVY = "torch tensorflow xgboost cv2 numpy polars pyarrow pandas sklearn scipy boto3 botocore alembic"


def kinds_of(base: type[Exception]) -> set[str]:
    return {base.kind} | {kind for each in base.__subclasses__() for kind in kinds_of(each)}


def fresh(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    root = str(Path(settings_module.__file__).parent)
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={"PYTHONPATH": root, "PATH": "/usr/bin:/bin", **environment},
        timeout=60,
    )


# Imports and the table


def test_api_brings_nothing_heavy():
    code = f"import sys, api.app; print(*sorted(set('{HEAVY}'.split()) & set(sys.modules)))"
    done = fresh(code)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == ""


def test_table_has_exactly_the_kinds_that_exist():
    assert kinds_of(StorageError) == set(STORAGE)
    assert kinds_of(MlError) == set(ML)
    assert kinds_of(refusals.Refusal) == set(OWN)
    assert {code.http for code in CODES.values()} <= set(PHRASES)


def test_status_objects_have_the_forms_of_deepdetect():
    assert status_of("unknown_library", "library 'x' is unknown") == {
        "code": 404,
        "msg": "NotFound",
        "dd_code": 1000,
        "dd_msg": "Unknown Library",
        "message": "library 'x' is unknown",
    }
    assert status_of("bad_parameter", "why", "mllib")["dd_msg"] == "Service Bad Request Error: why"
    assert status_of("bad_parameter", "why", "input")["dd_code"] == 1005
    assert status_of("bad_parameter", "why", "service")["dd_code"] == 400
    assert status_of("nothing heard of", "why") == {
        "code": 500,
        "msg": "InternalError",
        "dd_code": 1007,
        "dd_msg": "why",
    }


# Bodies


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "the body is empty"),
        (b"{", "the body is no JSON"),
        (b'{"service":"iris",}', "line 1 column"),
        (b"\xff\xfe{}", "not UTF-8"),
        (b"[" * 100_000, "nested deeper than 64 levels"),
        (b'{"data":' + b"[" * 70 + b"]" * 70 + b"}", "nested deeper than 64 levels"),
        (b'{"a":' + b"9" * 5000 + b"}", "too many digits"),
        (b'{"service":"a\\u0000"}', "NUL"),
        (b'{"service":"\\ud800"}', "surrogate"),
        (b'{"\\udfff":1}', "surrogate"),
    ],
)
def test_what_is_no_json_is_400_without_a_code(client: FlaskClient, yard: Yard, data: bytes, text: str):
    for path in ("/train", "/predict", "/services/new"):
        answer = client.post(path, data=data)
        assert answer.status_code == 400
        assert answer.json["status"]["msg"] == "BadRequest"
        assert "dd_code" not in answer.json["status"]
        assert text in answer.json["status"]["message"]


@pytest.mark.parametrize("data", [b"[]", b"null", b"3", b'"text"', b"true", b"NaN"])
def test_json_that_is_no_object_is_400_with_code_400(client: FlaskClient, data: bytes):
    for path in ("/train", "/predict", "/services/new"):
        answer = client.post(path, data=data)
        assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 400)
        assert "must be a JSON object" in answer.json["status"]["dd_msg"]


def test_nan_and_duplicate_names_are_tolerated(yard: Yard, client: FlaskClient, records: Records):
    data = (
        json.dumps(yard.service_body())[:-1] + ',"odd":[NaN,-Infinity,1e999],"description":"one","description":"two"}'
    )
    assert client.put("/services/iris", data=data).status_code == 201
    assert client.get("/services/iris").json["body"]["description"] == "two"
    body = json.dumps(yard.train_body())[:-1] + ',"odd":NaN}'
    task_id = client.post("/train", data=body).json["head"]["task_id"]
    dump(records.tasks.spec(task_id))
    json.dumps(records.tasks.spec(task_id), allow_nan=False)


def test_null_members_count_as_absent(yard: Yard, client: FlaskClient):
    yard.create(type=None, description=None)
    assert client.post("/train", json=yard.train_body(**{"async": None})).json["head"]["status"] == "running"


def test_body_over_the_limit_is_413(settings: Settings, records: Records, live: FakeLive, yard: Yard):
    app = create_app(replace(settings, request_limit_bytes=2000), records, cast(Live, live))
    answer = app.test_client().post("/train", data=b'{"data":["' + b"x" * 3000 + b'"]}')
    assert answer.status_code == 413
    assert answer.json["status"]["code"] == 413
    assert "larger than 2000 bytes" in answer.json["status"]["message"]
    packed = gzip.compress(b" " * 1_000_000)
    assert len(packed) < 2000
    answer = app.test_client().post("/train", data=packed, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413


@pytest.mark.parametrize("encoding", ["zstd", "br", "gzip, gzip", "compress"])
def test_body_that_is_packed_otherwise_is_refused(client: FlaskClient, encoding: str):
    answer = client.post("/train", data=b"x", headers={"Content-Encoding": encoding})
    assert answer.status_code == 415
    assert "send it plain, or as gzip or deflate" in answer.json["status"]["message"]


def test_small_body_that_unpacks_to_very_much_is_refused_before_it_does(client: FlaskClient):
    bomb = gzip.compress(b" " * (20 << 20), 9)
    answer = client.post("/train", data=bomb, headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 413
    assert "larger than 200 times what was sent" in answer.json["status"]["message"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_packed_bodies_are_unpacked(yard: Yard, client: FlaskClient, encoding: str, pack):
    data = pack(json.dumps(yard.service_body()).encode())
    headers = {"Content-Encoding": encoding}
    assert client.put("/services/iris", data=data, headers=headers).status_code == 201
    assert client.put("/services/b", data=data[:-9], headers=headers).status_code == 400
    assert client.put("/services/b", data=b"plain", headers=headers).status_code == 400
    assert client.put("/services/b", data=data, headers={"Content-Encoding": "br"}).status_code == 415


def test_long_answers_are_packed_for_who_takes_them(client: FlaskClient):
    path = "/tasks?ids=" + ",".join(map(str, range(10_001, 11_001)))
    answer = client.get(path, headers={"Accept-Encoding": "gzip, deflate"})
    assert answer.headers["Content-Encoding"] == "gzip"
    assert json.loads(gzip.decompress(answer.data)) == client.get(path).json
    assert "Content-Encoding" not in client.get("/info", headers={"Accept-Encoding": "gzip"}).headers


def test_query_strings_become_json():
    arguments = [
        ("service", "42"),
        ("job", "1"),
        ("half", "0.5"),
        ("flag", "True"),
        ("name", "x1"),
        ("version", "1.2.3"),
        ("parameters.output.measure_hist", "true"),
        ("parameters.output.max_hist_points", "100"),
        ("job", "2"),
        ("digits", "9" * 30),
    ]
    assert as_object(arguments) == {
        "service": "42",
        "job": 2,
        "half": 0.5,
        "flag": True,
        "name": "x1",
        "version": "1.2.3",
        "parameters": {"output": {"measure_hist": True, "max_hist_points": 100}},
        "digits": "9" * 30,
    }


# Errors


def test_unexpected_error_is_an_envelope_and_its_trace_is_in_the_log_only(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    def fail(*args, **more):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(app.extensions["modelyard"].records.services, "all_of", fail)
    monkeypatch.setattr(app.extensions["modelyard"].records.tasks, "page", fail)
    with caplog.at_level(logging.ERROR):
        answer = client.get("/info")
        native = client.get("/tasks")
    assert answer.status_code == native.status_code == 500
    assert answer.json["status"]["dd_code"] == 1007
    assert native.json["error"]["kind"] == "internal"
    for each in (answer, native):
        assert "secret" not in each.text
        assert "Traceback" not in each.text
    assert "secret detail" in caplog.text


@pytest.mark.parametrize(
    ("verb", "path"), [("GET", "/train/x"), ("PATCH", "/train"), ("OPTIONS", "/predict"), ("GET", "/chain/x")]
)
def test_unknown_route_or_verb_on_deepdetect_paths_is_404_with_envelope(client: FlaskClient, verb: str, path: str):
    answer = client.open(path, method=verb)
    assert answer.status_code == 404
    assert answer.json["status"]["code"] == 404
    assert answer.json["status"]["msg"].startswith("Not Found: ")


def test_nul_is_in_no_name_and_no_query(client: FlaskClient):
    for path in ("/services/%00", "/services/%00/files", "/tasks/%00"):
        assert client.get(path).status_code == 404
    assert client.get("/datasets/%00").status_code == 400
    assert client.get("/train?service=a%00&job=1").status_code == 400
    assert client.get("/tasks?service=%00").json["error"]["kind"] == "bad_query"


def test_records_that_do_not_answer_are_503(settings: Settings, live: FakeLive):
    records = Records.connect(f"sqlite:///{settings.home}/no/such/folder.db")
    client = create_app(settings, records, cast(Live, live)).test_client()
    answer = client.get("/info")
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


def test_each_request_is_one_line_in_the_access_log(
    client: FlaskClient, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    with caplog.at_level(logging.INFO, logger="api.access"):
        client.get("/services/a%0Ab")
    client.application.extensions["modelyard"].access_log.flush()
    [line] = capsys.readouterr().err.splitlines()
    assert r" INFO api.access [service=a\nb] GET /services/a" in line
    assert " 404 " in line


def test_two_apps_in_one_process_share_nothing(settings: Settings, client: FlaskClient, yard: Yard, tmp_path: Path):
    other = replace(settings, home=tmp_path, database_url=f"sqlite:///{tmp_path}/other.db")
    records = Records.connect(other.database_url)
    records.upgrade()
    second = create_app(other, records, cast(Live, FakeLive())).test_client()
    yard.create()
    assert len(client.get("/info").json["head"]["services"]) == 1
    assert second.get("/info").json["head"]["services"] == []
    records.close()


# Keys


def basic(user: str, password: str) -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_key_is_needed_once_one_exists(client: FlaskClient, records: Records):
    _, secret = records.keys.create("ann")
    for path in ("/info", "/tasks", "/services/x", "/nowhere"):
        answer = client.get(path)
        assert answer.status_code == 401, path
        assert [value.split()[0] for value in answer.headers.getlist("WWW-Authenticate")] == ["Bearer", "Basic"]
    assert client.get("/info").json["status"]["code"] == 401
    assert client.get("/tasks").json["error"]["kind"] == "key_needed"
    assert "X-API-KEY or as a Bearer token" in client.get("/tasks").json["error"]["message"]
    assert client.get("/healthz").status_code == 200
    assert client.get("/readyz").status_code == 200
    for headers in (
        {"X-API-KEY": secret},
        {"Authorization": f"Bearer {secret}"},
        basic("anybody", secret),
        basic(secret, ""),
    ):
        assert client.get("/info", headers=headers).status_code == 200
    for headers in (
        {"X-API-KEY": "wrong"},
        {"X-API-KEY": "é"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic !!"},
        {"Authorization": "Digest x"},
        basic("anybody", "wrong"),
    ):
        assert client.get("/info", headers=headers).status_code == 401


def test_revoked_key_ends_within_a_second(client: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch):
    records.keys.create("ann")
    key, secret = records.keys.create("bob")
    assert client.get("/info", headers={"X-API-KEY": secret}).status_code == 200
    records.keys.revoke(key.id)
    monkeypatch.setattr("api.access._FRESH_S", -1.0)
    assert client.get("/info", headers={"X-API-KEY": secret}).status_code == 401


def test_one_account_never_sees_what_belongs_to_another(
    client: FlaskClient, records: Records, yard: Yard, queue: FakeQueue
):
    ann = {"X-API-KEY": records.keys.create("ann")[1]}
    bob = {"X-API-KEY": records.keys.create("bob")[1]}
    assert client.put("/services/iris", json=yard.service_body(), headers=ann).status_code == 201
    task_id = client.post("/train", json=yard.train_body(), headers=ann).json["head"]["task_id"]
    yard.finish(task_id)
    running = client.post("/train", json=yard.train_body(), headers=ann).json["head"]["task_id"]
    for verb, path, body in (
        ("GET", "/services/iris", None),
        ("DELETE", "/services/iris", None),
        ("POST", "/train", yard.train_body()),
        ("GET", "/train?service=iris&job=1", None),
        ("DELETE", "/train?service=iris&job=2", None),
        ("POST", "/predict", {"service": "iris", "data": ["1,2"]}),
        ("GET", f"/tasks/{task_id}", None),
        ("GET", f"/tasks/{task_id}/report", None),
        ("DELETE", f"/tasks/{running}", None),
        ("GET", "/tasks?service=iris", None),
    ):
        assert client.open(path, method=verb, json=body, headers=bob).status_code == 404, (verb, path)
        if verb == "GET":
            assert client.open(path, method=verb, headers=ann).status_code == 200, path
    assert client.get("/info", headers=bob).json["head"]["services"] == []
    assert client.get("/tasks", headers=bob).json["tasks"] == []
    assert client.get(f"/tasks?ids={task_id}", headers=bob).json == {"tasks": [], "missing": [task_id]}
    taken = client.put("/services/iris", json=yard.service_body(), headers=bob)
    assert (taken.status_code, taken.json["status"]["dd_code"]) == (400, 1006)
    own = yard.service_body(model={"repository": "mine"})
    assert client.put("/services/iris", json=own, headers=bob).status_code == 201


def test_page_of_another_site_cannot_use_a_machine_without_keys(
    client: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.access._FRESH_S", -1.0)
    foreign = {"Origin": "https://evil.example"}
    assert client.get("/info", headers=foreign).status_code == 403
    assert client.get("/info", headers={"Origin": "null"}).status_code == 403
    assert client.get("/info", headers={"Origin": "http://localhost:3000"}).status_code == 200
    for several in (
        "http://localhost,https://evil.example",
        "http://localhost/,x",
        "http://localhost https://a.example",
    ):
        assert client.get("/info", headers={"Origin": several}).status_code == 403, several
    foreign["X-API-KEY"] = records.keys.create("ann")[1]
    assert client.get("/info", headers=foreign).status_code == 200


def test_wrong_verbs_are_told_the_right_ones_without_a_key_where_none_is_needed(
    client: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.access._FRESH_S", -1.0)
    key = {"X-API-KEY": records.keys.create("ann")[1]}
    for path in ("/healthz", "/openapi.json", "/docs/docs.js"):
        answer = client.open(path, method="TRACE")
        assert (answer.status_code, answer.headers["Allow"]) == (405, "GET, HEAD"), path
    for path in ("/tasks", "/datasets/flowers", "/nowhere"):
        assert client.open(path, method="TRACE").status_code == 401, path
    assert client.open("/datasets/flowers", method="TRACE", headers=key).headers["Allow"] == "DELETE, GET, HEAD, PUT"


def test_name_that_was_made_to_lead_here_opens_nothing_without_keys(
    client: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.access._FRESH_S", -1.0)
    for host in ("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]"):
        assert client.get("/info", headers={"Host": host}).status_code == 403, host
    for host in ("localhost:8080", "127.0.0.1", "127.1.2.3:80", "[::1]:8080"):
        assert client.get("/info", headers={"Host": host}).status_code == 200, host
    key = {"X-API-KEY": records.keys.create("ann")[1], "Host": "yard.example"}
    assert client.get("/info", headers=key).status_code == 200


def test_open_bind_needs_a_key(settings: Settings, records: Records, live: FakeLive):
    public = replace(settings, host="0.0.0.0")
    check_bind(settings, records)
    with pytest.raises(OpenDoor, match="modelyard keys create"):
        check_bind(public, records)
    client = create_app(public, records, cast(Live, live)).test_client()
    assert client.get("/info").status_code == 401
    records.keys.create("ann")
    check_bind(public, records)


def test_wsgi_app_is_not_made_for_everybody(settings: Settings, records: Records):
    environment = {**settings.to_env(), "MODELYARD_HOST": "0.0.0.0"}
    done = fresh("import api.serve", **environment)
    assert done.returncode != 0
    assert "MODELYARD_HOST=0.0.0.0 can be reached by others" in done.stderr
    assert "Traceback" not in done.stderr
    done = fresh("import api.serve", **settings.to_env())
    assert done.returncode == 0, done.stderr


# Health


def test_healthz_touches_nothing(app: Flask, monkeypatch: pytest.MonkeyPatch):
    parts = app.extensions["modelyard"]
    monkeypatch.setattr(parts, "records", None)
    monkeypatch.setattr(parts, "live", None)
    assert app.test_client().get("/healthz").json == {"status": "ok"}


def test_readyz_tells_what_is_missing(app: Flask, client: FlaskClient, live: FakeLive, records: Records):
    answer = client.get("/readyz")
    assert answer.status_code == 200
    assert answer.json == {
        "ready": True,
        "missing": {},
        "workers": {"train": 1, "predict": 1, "control": 1},
        "sweep_age_s": 1.0,
    }
    live.heartbeats.sweep_age = 31.0
    assert set(client.get("/readyz").json["missing"]) == {"sweep"}
    live.heartbeats.beats = []
    live.heartbeats.sweep_age = None
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert set(answer.json["missing"]) == {"workers.train", "workers.predict", "workers.control"}
    live.is_down = True
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "Redis does not answer" in answer.json["missing"]["redis"]


def test_readyz_of_a_public_server_tells_no_addresses(settings: Settings, live: FakeLive):
    records = Records.connect(f"sqlite:///{settings.home}/no/such/folder.db")
    client = create_app(replace(settings, host="0.0.0.0"), records, cast(Live, live)).test_client()
    answer = client.get("/readyz")
    assert answer.status_code == 503
    assert answer.json["missing"]["records"] == "records_unavailable"
