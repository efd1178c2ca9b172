"""The commands that speak HTTP, with a server that answers what a test wants."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from cli import main as command
from cli.remote import following
from tests.services import free_port

Json = dict[str, Any]


@dataclass
class Fake:
    """A server; `answers` are given in order for each verb and path, the last one again and again."""

    url: str = ""
    answers: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def told(self, request: str) -> tuple[int, bytes]:
        known = self.answers.get(request) or self.answers.get(request.partition("?")[0]) or [(404, {})]
        code, body = known.pop(0) if len(known) > 1 else known[0]
        return code, body if isinstance(body, bytes) else json.dumps(body).encode()


@pytest.fixture
def fake() -> Iterator[Fake]:
    server = Fake()

    class Handler(http.server.BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("Content-Length", 0))
            body = self.rfile.read(length)
            request = f"{self.command} {self.path}"
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.asked.append((request, headers, json.loads(body) if body else None))
            code, content = server.told(request)
            self.send_response(code)
            for name, value in {**server.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_DELETE = answer

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        listening.shutdown()
        thread.join()


@pytest.fixture
def run(fake: Fake) -> Callable[..., Result]:
    def invoke(*words: str, stdin: str | None = None, **environment: str) -> Result:
        given = {"MODELYARD_URL": fake.url, "MODELYARD_KEY": None, **environment}
        return CliRunner().invoke(command.main, list(words), env=given, input=stdin)

    return invoke


Run = Callable[..., Result]


def test_key_travels_as_a_header_and_is_never_shown(fake: Fake, run: Run):
    fake.answers["GET /info"] = [(401, {"status": {"code": 401, "msg": "Unauthorized", "message": "unknown key"}})]
    result = run("services", "list", MODELYARD_KEY="my-secret")
    assert result.exit_code == 1
    assert result.stderr == "Error: 401 unknown key; name a key in MODELYARD_KEY\n"
    assert fake.asked[0][1]["x-api-key"] == "my-secret"
    assert "my-secret" not in result.output
    assert "my-secret" not in run("services", "list", "--help", MODELYARD_KEY="my-secret").output


def test_redirect_is_an_error_and_takes_the_key_nowhere(fake: Fake, run: Run):
    fake.answers = {"GET /info": [(302, {})], "GET /elsewhere": [(200, {})]}
    fake.headers["Location"] = "/elsewhere"
    assert run("services", "list", MODELYARD_KEY="my-secret").exit_code == 1
    assert [request for request, _, _ in fake.asked] == ["GET /info"]


def test_json_prints_the_answer_as_it_came_and_an_error_too(fake: Fake, run: Run):
    odd = b'{ "head": {"services":[]},   "more": 1.50 }'
    fake.answers = {"GET /info": [(200, odd)], "GET /services/iris": [(404, b'{"status": {"code": 404}}')]}
    assert run("services", "list", "--json").stdout == odd.decode() + "\n"
    refused = run("services", "show", "iris", "--json")
    assert refused.exit_code == 1
    assert refused.stdout == '{"status": {"code": 404}}\n'


def test_service_is_created_with_what_the_options_say(fake: Fake, run: Run, tmp_path: Path):
    more = tmp_path / "more.json"
    more.write_text('{"input": {"scale": true, "label": "other"}, "mllib": {"layers": [8]}}')
    fake.answers["PUT /services/Wine%2F1"] = [(201, {"head": {"warnings": [{"message": "a was ignored"}]}})]
    words = ("--mllib", "torch", "--connector", "csv", "--template", "mlp", "--nclasses", "3", "--label", "cultivar")
    result = run("services", "create", "Wine/1", *words, "--repository", "wine", "--parameters", str(more))
    assert result.exit_code == 0, result.output
    assert result.stderr == "warning: a was ignored\n"
    assert fake.asked[0][2] == {
        "mllib": "torch",
        "description": "",
        "model": {"repository": "wine", "create_repository": True},
        "parameters": {
            "input": {"scale": True, "label": "cultivar", "connector": "csv"},
            "mllib": {"layers": [8], "template": "mlp", "nclasses": 3},
        },
    }


def test_training_is_followed_over_a_restart_of_the_server(fake: Fake, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "_FIRST_LOOK_S", 0.001)
    running = {"task_id": 4, "state": "running", "percent": 50.0, "progress": {"iteration": 5, "iterations": 10}}
    fake.answers = {
        "POST /train": [(201, {"head": {"job": 2, "task_id": 4}})],
        "GET /tasks/4": [
            (200, {"task_id": 4, "state": "queued", "queue_position": 1}),
            (200, running),
            (503, {"error": {"kind": "live_unavailable", "message": "Redis is away"}}),
            (200, {"task_id": 4, "state": "finished", "report": "/tasks/4/report", "version": 3}),
        ],
        "GET /tasks/4/report": [
            (200, {"measures": [{"acc": 0.5, "test_name": "a", "test_id": 0}, {"acc": 0.75, "test_name": "b"}]})
        ],
    }
    result = run("train", "iris", "-", "--test-split", "0.2", "--measure", "acc", stdin="x,y\n1,2\n")
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == ["task 4 is finished, version 3", "measure    a     b", "acc      0.5  0.75"]
    assert result.stderr.splitlines() == [
        "task 4: job 2 of iris is accepted",
        "task 4: waiting, 1 before it",
        "task 4: 50 %  iteration 5/10",
        "task 4: waiting for the server: 503 live_unavailable: Redis is away",
        "task 4: finished",
    ]
    assert fake.asked[0][2] == {
        "service": "iris",
        "async": True,
        "parameters": {"input": {"test_split": 0.2}, "output": {"measure": ["acc"]}},
        "data": ["x,y", "1,2"],
    }


def test_server_that_stays_away_ends_the_following(fake: Fake, run: Run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(following, "_FIRST_LOOK_S", 0.001)
    monkeypatch.setattr(following, "_PATIENCE_S", 0.0)
    fake.answers["GET /tasks/4"] = [(503, {"error": {"kind": "records_unavailable", "message": "no database"}})]
    result = run("tasks", "follow", "4")
    assert result.exit_code == 1
    assert result.stderr.endswith("Error: 503 records_unavailable: no database\n")


def test_task_that_is_unknown_is_not_waited_for(fake: Fake, run: Run):
    fake.answers["GET /tasks/4"] = [(404, {"error": {"kind": "task_not_found", "message": "task 4 does not exist"}})]
    assert run("tasks", "follow", "4").exit_code == 1
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("cancels", "asked", "told"),
    [(False, [], "modelyard tasks follow 4"), (True, ["DELETE /tasks/4"], "task 4 is cancelled")],
)
def test_interrupt_ends_the_following_or_the_task(
    fake: Fake, run: Run, monkeypatch: pytest.MonkeyPatch, cancels: bool, asked: list[str], told: str
):
    fake.answers = {
        "GET /tasks/4": [(200, {"state": "running"}), (200, {"state": "cancelled"})],
        "DELETE /tasks/4": [(202, {})],
    }

    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(following.follow, "__kwdefaults__", {"cancels": False, "sleep": interrupted})
    result = run("tasks", "follow", "4", *(["--cancel-on-interrupt"] if cancels else []))
    assert result.exit_code == 130
    assert told in result.stderr
    assert [request for request, _, _ in fake.asked if request.startswith("DELETE")] == asked


def test_result_of_many_rows_is_shown_in_part_and_saved_whole(fake: Fake, run: Run, tmp_path: Path):
    lines = [json.dumps({"uri": str(row), "classes": [{"cat": "a", "prob": 0.5}]}) for row in range(1, 131)]
    content = "\n".join(lines).encode()
    fake.answers["GET /tasks/9/result"] = [(200, content)]
    result = run("tasks", "result", "9")
    assert len(result.stdout.splitlines()) == 101
    assert "and 30 more" in result.stderr
    file = tmp_path / "all.jsonl"
    saved = run("tasks", "result", "9", "--output", str(file))
    assert saved.exit_code == 0, saved.output
    assert file.read_bytes() == content
    assert sorted(tmp_path.iterdir()) == [file]


def test_result_that_cannot_be_had_leaves_no_file(fake: Fake, run: Run, tmp_path: Path):
    fake.answers["GET /tasks/9/result"] = [(409, {"error": {"kind": "result_pending", "message": "not yet"}})]
    result = run("tasks", "result", "9", "--output", str(tmp_path / "all.json"))
    assert result.exit_code == 1
    assert result.stderr == "Error: 409 result_pending: not yet\n"
    assert list(tmp_path.iterdir()) == []


def test_form_of_a_result_follows_the_name_of_its_file(fake: Fake, run: Run, tmp_path: Path):
    fake.answers = {
        "POST /predict": [(201, {"head": {"task_id": 9}})],
        "GET /tasks/9": [(200, {"task_id": 9, "state": "finished"})],
        "GET /tasks/9/result": [(200, b"PAR1")],
    }
    result = run("predict", "iris", "many.csv", "--async", "--output", str(tmp_path / "all.parquet"))
    assert result.exit_code == 0, result.output
    assert fake.asked[0][2]["parameters"]["output"]["format"] == "parquet"
    assert (tmp_path / "all.parquet").read_bytes() == b"PAR1"


def test_what_a_template_made_is_printed_as_it_is(fake: Fake, run: Run):
    fake.answers["POST /predict"] = [(200, b"1: setosa")]
    assert run("predict", "iris", "1,2").stdout == "1: setosa\n"


def test_answer_of_something_that_is_no_api_is_told(fake: Fake, run: Run):
    fake.answers = {"GET /info": [(200, b"<html>")], "GET /tasks": [(502, b"<html>Bad Gateway")]}
    assert "no JSON object" in run("services", "list").stderr
    assert run("tasks", "list").stderr == "Error: 502 <html>Bad Gateway\n"


def test_server_that_is_not_there_is_told_in_one_line(run: Run):
    result = run("tasks", "list", MODELYARD_URL=f"http://127.0.0.1:{free_port()}")
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1
    assert "connection refused; start the server (modelyard up)" in result.stderr


def test_server_that_does_not_answer_is_given_up_in_time(run: Run):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        result = run("tasks", "list", "--timeout", "0.2", MODELYARD_URL=url)
    assert result.exit_code == 1
    assert "gave no answer within 0.2 s" in result.stderr


def test_connection_that_breaks_is_told(run: Run):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            connection, _ = server.accept()
            connection.recv(65536)
            connection.close()

        thread = threading.Thread(target=hang_up)
        thread.start()
        result = run("tasks", "list", MODELYARD_URL=f"http://127.0.0.1:{server.getsockname()[1]}")
        thread.join()
    assert result.exit_code == 1
    assert "broke the connection off" in result.stderr
