"""Answers to predictions that a template makes, or that another host gets, over HTTP alone."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import time
import urllib.error
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import ALLOWED, PUSH_TIMEOUT_S, Client
from tests.e2e.test_real_client import DD
from tests.receiver import answer, receiving

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
SERVICE = "outputs"
LINE = "{{uri}}:{{#classes}}{{cat}}={{prob}}{{^last}},{{/last}}{{/classes}}\n"


@pytest.fixture(scope="module")
def trained(client: Client) -> Client:
    """A service that knows the flowers of iris.csv."""
    path = client.data / "outputs.csv"
    shutil.copy(EXAMPLES / "iris.csv", path)
    made = client.call(
        "PUT",
        f"/services/{SERVICE}",
        {
            "mllib": "xgboost",
            "model": {"repository": str(client.data / "models" / SERVICE), "create_repository": True},
            "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}, "output": {}},
        },
    )
    assert made.code == 201, made.json
    parameters = {"mllib": {"iterations": 5}}
    call = {"service": SERVICE, "async": False, "parameters": parameters, "data": [str(path)]}
    done = client.call("POST", "/train", call)
    assert done.code == 201, done.json
    return client


def ask(client: Client, data: list[str] | None = None, **output: Any) -> tuple[int, str, str]:
    """Status, content type and text of a prediction with these output options."""
    body = {"service": SERVICE, "parameters": {"output": output}, "data": data or ["5.1,3.5,1.4,0.2", "6.3,3.3,6,2.5"]}
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=90)
    try:
        connection.request("POST", "/predict", json.dumps(body))
        found = connection.getresponse()
        return found.status, found.headers["Content-Type"], found.read().decode()
    finally:
        connection.close()


def test_template_makes_the_answer(trained: Client):
    status, kind, text = ask(
        trained, template=f"{{{{head.service}}}}\n{{{{#body.predictions}}}}{LINE}{{{{/body.predictions}}}}"
    )
    assert (status, kind) == (200, "application/json"), text
    service, first, second, end = text.split("\n")
    assert (service, end) == (SERVICE, "")
    assert first.startswith("1:0=0.")
    assert second.startswith("2:2=0.")
    plain = json.loads(ask(trained)[2])["body"]["predictions"][0]["classes"][0]["prob"]
    assert first == f"1:0={plain:.6g}"


def test_real_client_takes_a_template_that_makes_json_and_trips_over_text(trained: Client):
    dd = DD("127.0.0.1", trained.port)
    template = '{"names":[{{#body.predictions}}{{#classes}}"{{cat}}"{{/classes}}{{/body.predictions}}]}'
    assert dd.post_predict(SERVICE, ["5.1,3.5,1.4,0.2"], {}, {}, {"template": template}) == {"names": ["0"]}
    with pytest.raises(json.JSONDecodeError):
        dd.post_predict(SERVICE, ["5.1,3.5,1.4,0.2"], {}, {}, {"template": "just text"})


def test_other_host_gets_the_answer_and_its_answer_is_the_clients(trained: Client):
    with receiving(answer("201 Created", b'{"taken":true}', "Content-Type: text/html"), host=ALLOWED) as remote:
        found = ask(trained, network={"url": f"{remote.url}/hook?a=1"})
    assert found == (201, "application/json", '{"taken":true}')
    assert remote.heads[0].startswith("POST /hook?a=1 HTTP/1.1\r\n")
    assert "Content-Type: application/json" in remote.heads[0]
    sent = json.loads(remote.bodies[0])
    assert [each["classes"][0]["cat"] for each in sent["body"]["predictions"]] == ["0", "2"]
    assert sent["network"]["url"] == f"{remote.url}/hook?a=1"


def test_other_host_gets_what_a_template_made(trained: Client):
    network = {"http_method": "PUT", "content_type": "Content-Type: text/csv"}
    with receiving(answer("204 No Content"), host=ALLOWED) as remote:
        found = ask(
            trained,
            template="{{#body.predictions}}{{uri}};{{/body.predictions}}",
            network={"url": remote.url, **network},
        )
    assert (found[0], found[2]) == (204, "")
    assert remote.bodies == [b"1;2;"]
    assert remote.heads[0].startswith("PUT / HTTP/1.1\r\n")
    assert "Content-Type: text/csv" in remote.heads[0]


def test_real_client_raises_for_what_the_other_host_refuses(trained: Client):
    dd = DD("127.0.0.1", trained.port)
    with (
        receiving(answer("409 Conflict", b'{"why":"known"}'), host=ALLOWED) as remote,
        pytest.raises(urllib.error.HTTPError) as raised,
    ):
        dd.post_predict(SERVICE, ["5.1,3.5,1.4,0.2"], {}, {}, {"network": {"url": remote.url}})
    with raised.value as refusal:
        assert (refusal.code, json.load(refusal)) == (409, {"why": "known"})


def failed(found: tuple[int, str, str]) -> str:
    """The message of an answer that could not be sent."""
    assert found[0] == 404
    status = json.loads(found[2])["status"]
    assert (status["dd_code"], status["dd_msg"]) == (1009, "Output Connector Network Error")
    return str(status["message"])


def test_this_machine_is_sent_nothing_unless_it_is_allowed(trained: Client):
    with receiving(answer("200 OK", b"{}")) as remote:
        for host in ("127.0.0.1", "localhost", "2130706433", "[::ffff:127.0.0.1]"):
            assert "has no public address" in failed(ask(trained, network={"url": f"http://{host}:{remote.port}/"}))
        assert remote.heads == []


def test_host_that_does_not_answer_is_told_in_time(trained: Client):
    assert "refuses the connection" in failed(ask(trained, network={"url": f"http://{ALLOWED}:1/"}))
    assert "cannot be resolved" in failed(ask(trained, network={"url": "http://nowhere.invalid/"}))
    with socket.create_server((ALLOWED, 0)) as silent:
        began = time.monotonic()
        message = failed(ask(trained, network={"url": f"http://{ALLOWED}:{silent.getsockname()[1]}/"}))
        assert time.monotonic() - began < PUSH_TIMEOUT_S + 15
        assert f"did not answer in full within {PUSH_TIMEOUT_S:g} seconds" in message


def test_many_calls_that_wait_for_a_silent_host_leave_room_for_others(trained: Client):
    with socket.create_server((ALLOWED, 0), backlog=100) as silent, ThreadPoolExecutor(80) as pool:
        network = {"url": f"http://{ALLOWED}:{silent.getsockname()[1]}/"}
        waiting = [pool.submit(ask, trained, network=network) for _ in range(80)]
        time.sleep(PUSH_TIMEOUT_S / 4)
        began = time.monotonic()
        assert ask(trained)[0] == 200
        assert time.monotonic() - began < PUSH_TIMEOUT_S
        assert {each.result()[0] for each in waiting} == {404, 503}
