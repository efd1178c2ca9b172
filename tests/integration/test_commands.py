"""The commands that speak HTTP, with a server that answers what a test wants."""

from __future__ import annotations

import hashlib
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
from cli.remote import following, uploading
from tests.services import free_port

Json = dict[str, Any]
# Among the answers of a fake server: it breaks the connection off.
HANGS_UP = 0


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
            is_json = headers.get("content-type", "application/json") == "application/json"
            server.asked.append((request, headers, json.loads(body) if body and is_json else body or None))
            code, content = server.told(request)
            if code == HANGS_UP:
                self.close_connection = True
                return
            self.send_response(code)
            for name, value in {**server.headers, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

        def log_message(self, *words: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as listening:
        server.url = f"http://127.0.0.1:{listening.server_address[1]}"
        thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
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
    fake.answers["GET /services"] = [(401, {"status": {"code": 401, "msg": "Unauthorized", "message": "unknown key"}})]
    result = run("services", "list", MODELYARD_KEY="my-secret")
    assert result.exit_code == 1
    assert result.stderr == "Error: 401 unknown key; name a key in MODELYARD_KEY\n"
    assert fake.asked[0][1]["x-api-key"] == "my-secret"
    assert "my-secret" not in result.output
    assert "my-secret" not in run("services", "list", "--help", MODELYARD_KEY="my-secret").output


def test_redirect_is_an_error_and_takes_the_key_nowhere(fake: Fake, run: Run):
    fake.answers = {"GET /services": [(302, {})], "GET /elsewhere": [(200, {})]}
    fake.headers["Location"] = "/elsewhere"
    assert run("services", "list", MODELYARD_KEY="my-secret").exit_code == 1
    assert [request for request, _, _ in fake.asked] == ["GET /services?limit=20"]


def test_json_prints_the_answer_as_it_came_and_an_error_too(fake: Fake, run: Run):
    odd = b'{ "head": {"services":[]},   "more": 1.50 }'
    fake.answers = {"GET /services": [(200, odd)], "GET /services/iris": [(404, b'{"status": {"code": 404}}')]}
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


def test_task_is_cancelled_or_was_over(fake: Fake, run: Run):
    fake.answers["DELETE /tasks/4"] = [(202, {"state": "running"}), (200, {"state": "finished"})]
    assert run("tasks", "cancel", "4").stdout == "task 4 will be cancelled\n"
    assert "was over already: finished" in run("tasks", "cancel", "4").stdout


def test_result_is_deleted(fake: Fake, run: Run):
    fake.answers["DELETE /tasks/4/result"] = [(200, {"state": "finished", "result": None})]
    assert run("tasks", "delete", "4").stdout == "the result of task 4 is deleted\n"


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


@pytest.mark.parametrize(
    ("words", "rows", "best"),
    [
        (("-1,2", "3,4", "-.5,6"), ["-1,2", "3,4", "-.5,6"], None),
        (("1,2", "--best", "-1", "-3"), ["1,2", "-3"], -1),
        (("-1 3:0.5", "--best=2", "--", "-a,1", "--best"), ["-1 3:0.5", "-a,1", "--best"], 2),
    ],
    ids=["csv", "a value of an option", "svm, and a lone --"],
)
def test_row_may_begin_with_a_negative_number(
    fake: Fake, run: Run, words: tuple[str, ...], rows: list[str], best: int | None
):
    fake.answers["POST /predict"] = [(200, {"body": {"predictions": []}})]
    result = run("predict", "--json", "iris", *words)
    assert result.exit_code == 0, result.output
    assert fake.asked[0][2]["data"] == rows
    assert fake.asked[0][2]["parameters"].get("output", {}).get("best") == best


@pytest.mark.parametrize(
    ("words", "told"),
    [(("-1,2", "--bset", "3"), "--bset"), (("-1,2", "-x"), "-x"), (("-1,2", "--best"), "requires an argument")],
)
def test_wrong_option_beside_a_negative_number_is_told(run: Run, words: tuple[str, ...], told: str):
    result = run("predict", "iris", *words)
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_what_a_template_made_is_printed_as_it_is(fake: Fake, run: Run):
    fake.answers["POST /predict"] = [(200, b"1: setosa")]
    assert run("predict", "iris", "1,2").stdout == "1: setosa\n"


def test_answer_of_something_that_is_no_api_is_told(fake: Fake, run: Run):
    fake.answers = {"GET /services": [(200, b"<html>")], "GET /tasks": [(502, b"<html>Bad Gateway")]}
    assert "no JSON object" in run("services", "list").stderr
    assert run("tasks", "list").stderr == "Error: 502 <html>Bad Gateway\n"


def test_list_of_all_goes_on_page_after_page(fake: Fake, run: Run):
    fake.answers = {
        "GET /tasks?limit=1000": [(200, {"tasks": [{"task_id": 2}], "next_cursor": "abc"})],
        "GET /tasks?limit=1000&cursor=abc": [(200, {"tasks": [{"task_id": 1}], "next_cursor": None})],
    }
    assert json.loads(run("tasks", "list", "--all", "--json").stdout) == {
        "tasks": [{"task_id": 2}, {"task_id": 1}],
        "next_cursor": None,
    }
    assert [line.split()[0] for line in run("tasks", "list", "--all").stdout.splitlines()] == ["task", "2", "1"]
    assert "exclude each other" in run("tasks", "list", "--all", "--limit", "3").stderr


def test_files_that_would_lie_elsewhere_are_not_saved(fake: Fake, run: Run, tmp_path: Path):
    for path in ("../stolen", "/etc/stolen", "a/../../stolen"):
        fake.answers["GET /tasks/1/files"] = [(200, {"files": [{"path": path, "sha256": "0" * 64}]})]
        result = run("tasks", "download", "1", "--to", str(tmp_path / "here"))
        assert (result.exit_code, "outside of the folder" in result.stderr) == (1, True)


def test_file_that_is_not_what_was_told_is_not_kept(fake: Fake, run: Run, tmp_path: Path):
    fake.answers = {
        "GET /tasks/1/files": [(200, {"files": [{"path": "a.txt", "sha256": "0" * 64}]})],
        "GET /tasks/1/files/a.txt": [(200, b"other")],
    }
    result = run("tasks", "download", "1", "--to", str(tmp_path / "here"))
    assert result.exit_code == 1
    assert "is not what the server told before" in result.stderr
    assert list((tmp_path / "here").iterdir()) == []


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


# Data sets


def begun(content: bytes, part_bytes: int, missing: list[int], **more: Any) -> Json:
    """What a server tells of an upload."""
    sha256 = hashlib.sha256(content).hexdigest()
    upload = {"upload_id": 3, "path": "big.csv", "bytes": len(content), "sha256": sha256, "unpack": False}
    return {**upload, "part_bytes": part_bytes, "missing": missing, "links": None, **more}


@pytest.fixture
def big(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that goes in parts, and no waiting when one goes wrong."""
    monkeypatch.setattr(uploading, "_FORM_BYTES", 4)
    monkeypatch.setattr(uploading, "_FIRST_WAIT_S", 0.001)
    monkeypatch.setattr(uploading, "_LAST_WAIT_S", 0.001)
    file = tmp_path / "big.csv"
    file.write_bytes(b"0123456789")
    return file


def requests(fake: Fake) -> list[str]:
    return [request for request, _, _ in fake.asked]


def test_small_files_go_in_one_form_with_the_paths_of_their_folder(fake: Fake, run: Run, tmp_path: Path):
    for path, content in {"b.csv": b"x", "in/a.csv": b"", ".hidden": b"x", ".git/x": b"x"}.items():
        (tmp_path / "all" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "all" / path).write_bytes(content)
    fake.answers = {"PUT /datasets/My%20set": [(201, {})], "POST /datasets/My%20set/files": [(201, {"files": []})]}
    result = run("datasets", "upload", "My set", str(tmp_path / "all"), "--folder", "new/")
    assert result.exit_code == 0, result.output
    assert result.stdout == "new/b.csv is uploaded, 1 bytes\nnew/in/a.csv is uploaded, 0 bytes\n"
    assert requests(fake) == ["PUT /datasets/My%20set", "POST /datasets/My%20set/files"]
    form = fake.asked[1][2]
    assert form.count(b"filename=") == 2
    assert b'filename="new/b.csv"' in form
    assert b'filename="new/in/a.csv"' in form


def test_form_that_is_too_large_for_the_server_goes_in_parts(fake: Fake, run: Run, tmp_path: Path):
    file = tmp_path / "a.csv"
    file.write_bytes(b"abc")
    fake.answers = {
        "PUT /datasets/d": [(200, {})],
        "POST /datasets/d/files": [(413, {"error": {"kind": "body_too_large", "message": "no"}})],
        "POST /datasets/d/uploads": [(201, begun(b"abc", 2, [1, 2], path="b.csv"))],
        "PUT /datasets/d/uploads/3/parts/1": [(200, {})],
        "PUT /datasets/d/uploads/3/parts/2": [(200, {})],
        "POST /datasets/d/uploads/3/complete": [(200, {"bytes": 3})],
    }
    result = run("datasets", "upload", "d", str(file), "--as", "b.csv")
    assert result.exit_code == 0, result.output
    assert result.stdout == "b.csv is uploaded, 3 bytes\n"
    assert fake.asked[2][2] == {"path": "b.csv", "bytes": 3, "sha256": hashlib.sha256(b"abc").hexdigest()}
    sent = [(headers["x-content-sha256"], body) for _, headers, body in fake.asked[3:5]]
    assert sent == [(hashlib.sha256(piece).hexdigest(), piece) for piece in (b"ab", b"c")]


def test_upload_goes_on_with_what_the_server_misses_after_a_broken_connection(fake: Fake, run: Run, big: Path):
    wrong = {"error": {"kind": "checksum_wrong", "message": "send the part again"}}
    upload = begun(big.read_bytes(), 4, [1, 2, 3])
    fake.answers = {
        "PUT /datasets/d": [(200, {})],
        "POST /datasets/d/uploads": [(201, upload)],
        "PUT /datasets/d/uploads/3/parts/1": [(HANGS_UP, {})],
        "GET /datasets/d/uploads/3": [
            (503, {}),
            (200, {**upload, "missing": [2, 3]}),
            (200, {**upload, "missing": [3]}),
        ],
        "PUT /datasets/d/uploads/3/parts/2": [(200, {})],
        "PUT /datasets/d/uploads/3/parts/3": [(400, wrong), (200, {})],
        "POST /datasets/d/uploads/3/complete": [(HANGS_UP, {}), (202, {"task_id": 7}), (200, {"bytes": 10})],
        "GET /tasks/7": [(200, {"task_id": 7, "state": "finished"})],
    }
    result = run("datasets", "upload", "d", str(big), "--json")
    assert result.exit_code == 0, result.output
    assert result.stdout == '{"bytes": 10}\n'
    assert requests(fake)[2:] == [
        "PUT /datasets/d/uploads/3/parts/1",
        "GET /datasets/d/uploads/3",
        "GET /datasets/d/uploads/3",
        "PUT /datasets/d/uploads/3/parts/2",
        "PUT /datasets/d/uploads/3/parts/3",
        "GET /datasets/d/uploads/3",
        "PUT /datasets/d/uploads/3/parts/3",
        *["POST /datasets/d/uploads/3/complete"] * 2,
        "GET /tasks/7",
        "GET /tasks/7/logs?after=0&limit=500",
        "POST /datasets/d/uploads/3/complete",
    ]


def test_part_that_always_comes_in_wrong_is_given_up_and_the_upload_kept(fake: Fake, run: Run, big: Path):
    upload = begun(big.read_bytes(), 16, [1])
    fake.answers = {
        "PUT /datasets/d": [(200, {})],
        "POST /datasets/d/uploads": [(201, upload)],
        "GET /datasets/d/uploads/3": [(200, upload)],
        "PUT /datasets/d/uploads/3/parts/1": [(400, {"error": {"kind": "checksum_wrong", "message": "not it"}})],
    }
    result = run("datasets", "upload", "d", str(big))
    assert result.exit_code == 1
    assert requests(fake).count("PUT /datasets/d/uploads/3/parts/1") == 3
    assert result.stderr.endswith("Error: 400 checksum_wrong: not it\n")
    assert f"modelyard datasets upload d {big} --resume 3" in result.stderr


def test_interrupt_leaves_an_upload_that_can_be_taken_up(
    fake: Fake, run: Run, big: Path, monkeypatch: pytest.MonkeyPatch
):
    upload = begun(big.read_bytes(), 4, [1, 2, 3])
    fake.answers = {
        "PUT /datasets/d": [(200, {})],
        "POST /datasets/d/uploads": [(201, upload)],
        "GET /datasets/d/uploads/3": [(200, {**upload, "missing": [3]})],
        "PUT /datasets/d/uploads/3/parts/3": [(200, {})],
        "POST /datasets/d/uploads/3/complete": [(200, {"bytes": 10})],
    }

    def interrupted(self: object, number: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(uploading._Parts, "_send_part", interrupted)
        left = run("datasets", "upload", "d", str(big))
    assert left.exit_code == 130
    assert "--resume 3" in left.stderr
    assert "modelyard datasets delete d --upload 3" in left.stderr
    assert run("datasets", "upload", "d", str(big), "--resume", "3").stdout == "big.csv is uploaded, 10 bytes\n"
    assert fake.asked[-2][2] == b"89"
    big.write_bytes(b"another one")
    other = run("datasets", "upload", "d", str(big), "--resume", "3")
    assert (other.exit_code, "is not the file that upload 3 began with" in other.stderr) == (1, True)


def test_archive_that_is_refused_leaves_no_upload(fake: Fake, run: Run, big: Path):
    refused = {"error": {"kind": "upload_refused", "message": "no zip or tar archive"}}
    fake.answers = {
        "PUT /datasets/d": [(200, {})],
        "POST /datasets/d/uploads": [(201, begun(big.read_bytes(), 16, [], path="in", unpack=True))],
        "POST /datasets/d/uploads/3/complete": [(400, refused)],
        "DELETE /datasets/d/uploads/3": [(200, {})],
    }
    result = run("datasets", "upload", "d", str(big), "--unpack", "--folder", "in")
    assert (result.exit_code, result.stderr) == (1, "Error: 400 upload_refused: no zip or tar archive\n")
    assert (fake.asked[1][2]["path"], fake.asked[1][2]["unpack"]) == ("in", True)
    assert requests(fake)[-1] == "DELETE /datasets/d/uploads/3"


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("none.csv",), 1, "none.csv cannot be read: No such file or directory"),
        (("empty",), 1, "folder empty holds no files"),
        (("empty", "--unpack"), 1, "empty is a folder; give a file"),
        (("/dev/null",), 1, "/dev/null is no file"),
        (("a.csv", "in/a.csv"), 1, "a.csv and in/a.csv would both be a.csv in the data set"),
        (("a.csv", "in/b.csv", "--as", "c.csv"), 2, "--as names one file"),
        (("in", "--as", "c.csv"), 1, "in is a folder; give a file"),
        (("a.csv", "--as", "c.csv", "--folder", "d"), 2, "--as goes with neither"),
        (("a.csv", "--resume", "3", "--unpack"), 2, "--resume takes one FILE"),
    ],
)
def test_files_that_cannot_be_uploaded_are_told_before_anything_is_sent(
    fake: Fake, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...], code: int, told: str
):
    for path in ("a.csv", "in/a.csv", "in/b.csv", "empty/.hidden"):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text("x")
    monkeypatch.chdir(tmp_path)
    result = run("datasets", "upload", "d", *words)
    assert result.exit_code == code
    assert told in result.stderr
    assert fake.asked == []


def test_data_set_is_shown_with_what_was_found_in_its_files(fake: Fake, run: Run):
    columns = [{"name": "size", "values": None}, {"name": "species", "values": {"a": 2, "b": 1}}]
    files = [
        {"path": "a.csv", "bytes": 40, "facts": {"kind": "csv", "rows": 3, "columns": 2, "about": columns}},
        {"path": "b.svm", "bytes": 50, "facts": {"kind": "svm", "rows": 4, "columns": 7, "classes": {"1": 3, "2": 1}}},
        {"path": "c.csv", "bytes": 60, "facts": {"kind": "csv", "error": "too long"}},
        {"path": "d.txt", "bytes": 70, "facts": None},
    ]
    fake.answers["GET /datasets/d"] = [(200, {"name": "d", "state": "ready", "files": files, "next_cursor": "abc"})]
    result = run("datasets", "show", "d")
    assert [line.split() for line in result.stdout.splitlines()[-5:]] == [
        ["path", "bytes", "rows", "columns", "classes"],
        ["a.csv", "40", "3", "2", "species:", "2"],
        ["b.svm", "50", "4", "7", "2"],
        ["c.csv", "60", "-", "-", "-"],
        ["d.txt", "70", "-", "-", "-"],
    ]
    assert result.stderr == "warning: c.csv cannot be looked into: too long\nthere are more: --cursor abc\n"


def test_description_that_takes_longer_is_followed(fake: Fake, run: Run):
    fake.answers = {
        "POST /datasets/d/describe": [(202, {"task_id": 8})],
        "GET /tasks/8": [(200, {"task_id": 8, "state": "finished"})],
    }
    assert run("datasets", "describe", "d").stdout == "task 8 is finished\n"
    fake.answers["POST /datasets/d/describe"] = [(200, {"file_count": 1})]
    assert run("datasets", "describe", "d").stdout == "1 file of data set d is described\n"


@pytest.mark.parametrize(
    ("words", "request_line", "told"),
    [
        ((), "DELETE /datasets/D", "data set d is deleted\n"),
        (("--file", "a b/c.csv"), "DELETE /datasets/D/files/a%20b/c.csv", "a b/c.csv of data set d is deleted\n"),
        (("--upload", "3"), "DELETE /datasets/D/uploads/3", "upload 3 of data set d is deleted\n"),
    ],
)
def test_data_set_file_or_upload_is_deleted(fake: Fake, run: Run, words: tuple[str, ...], request_line: str, told: str):
    fake.answers[request_line] = [(200, {"deleted": True})]
    assert run("datasets", "delete", "D", *words).stdout == told
    assert requests(fake) == [request_line]
    # An empty name is no way to delete the whole.
    assert run("datasets", "delete", "D", "--file", "").exit_code == 2
    assert len(fake.asked) == 1


@pytest.mark.parametrize("name", ["a/b", "..", "."])
def test_name_that_would_become_another_address_is_refused(fake: Fake, run: Run, name: str):
    for words in (("delete", name), ("show", name), ("create", name)):
        result = run("datasets", *words)
        assert result.exit_code == 2
        assert "cannot be the name of a data set" in result.stderr
    assert fake.asked == []


# Webhooks

HOOK = {
    "webhook_id": 7,
    "url": "https://receiver.example/in",
    "description": "the pager",
    "events": ["task.failed"],
    "services": ["iris"],
    "active": False,
    "inactive_because": "the receiver answered 410 Gone",
    "failing_since": "2026-11-21T18:50:01.112Z",
    "old_secret_until": None,
    "created_at": "2026-11-21T18:00:01.112Z",
    "changed_at": "2026-11-21T18:00:01.112Z",
}
DELIVERY = {
    "delivery_id": 3,
    "webhook_id": 7,
    "event_id": "msg_1",
    "event": "task.failed",
    "task_id": 17,
    "replay_of": None,
    "state": "waiting",
    "attempt": 1,
    "created_at": "2026-11-21T18:50:01.112Z",
    "next_at": "2026-11-21T18:50:06.112Z",
    "ended_at": None,
}


def test_webhook_is_made_and_its_secret_alone_goes_to_standard_output(fake: Fake, run: Run):
    fake.answers["POST /webhooks"] = [(201, {**HOOK, "secret": "whsec_word"})]
    words = ("--event", "task.failed", "--service", "Iris", "--service", "wine", "--description", "the pager")
    result = run("webhooks", "create", HOOK["url"], *words)
    assert (result.exit_code, result.stdout) == (0, "whsec_word\n")
    assert "secret of webhook 7; keep it" in result.stderr
    [(_, _, body)] = fake.asked
    wanted = {"url": HOOK["url"], "events": ["task.failed"], "services": ["Iris", "wine"], "description": "the pager"}
    assert body == wanted
    run("webhooks", "create", HOOK["url"], "--secret-file", "-", stdin="whsec_mine\n")
    given = {name: value for name, value in fake.asked[-1][2].items() if value is not None}
    assert given == {"url": HOOK["url"], "secret": "whsec_mine"}


def test_webhooks_and_what_was_sent_to_them_are_shown(fake: Fake, run: Run):
    attempt = {"attempt": 1, "worker": "host:1", "began_at": "2026-11-21T18:50:01.2Z", "ms": 21.5, "status": 500}
    attempt |= {"error": "it answered with status 500", "answer": "so\u001b[2Jrry"}
    fake.answers |= {
        "GET /webhooks": [(200, {"webhooks": [HOOK], "next_cursor": "abc"})],
        "GET /webhooks/7": [(200, HOOK)],
        "GET /webhooks/7/deliveries": [(200, {"deliveries": [DELIVERY], "next_cursor": None})],
        "GET /webhooks/7/deliveries/3": [(200, {**DELIVERY, "attempts": [attempt]})],
    }
    listed = run("webhooks", "list")
    assert "https://receiver.example/in  no" in listed.stdout
    assert "--cursor abc" in listed.stderr
    shown = run("webhooks", "show", "7").stdout
    assert "because           the receiver answered 410 Gone" in shown
    assert "services          iris" in shown
    sent = run("webhooks", "deliveries", "7", "--state", "waiting")
    assert fake.asked[-1][0] == "GET /webhooks/7/deliveries?state=waiting&limit=20"
    assert "task.failed" in sent.stdout
    assert sent.stderr == ""
    one = run("webhooks", "delivery", "7", "3").stdout
    assert "it answered with status 500" in one
    assert "\u001b" not in one, "what a receiver answers must not steer a terminal"


@pytest.mark.parametrize(
    ("words", "request_line", "body", "answer", "told"),
    [
        (("switch", "7", "on"), "PATCH /webhooks/7", {"active": True}, HOOK, "webhook 7 is on"),
        (("switch", "7", "off"), "PATCH /webhooks/7", {"active": False}, HOOK, "webhook 7 is off"),
        (("rotate", "7"), "POST /webhooks/7/secret", {}, {"webhook_id": 7, "secret": "whsec_new"}, "whsec_new"),
        (("delete", "7"), "DELETE /webhooks/7", None, {"webhook_id": 7}, "webhook 7 is deleted"),
        (("test", "7"), "POST /webhooks/7/test", None, DELIVERY, "modelyard webhooks delivery 7 3"),
        (
            ("replay", "7", "2"),
            "POST /webhooks/7/deliveries/2/replay",
            None,
            DELIVERY,
            "modelyard webhooks delivery 7 3",
        ),
    ],
)
def test_webhook_is_changed_tested_and_replayed(
    fake: Fake, run: Run, words: tuple[str, ...], request_line: str, body: Any, answer: Json, told: str
):
    fake.answers[request_line] = [(200, answer)]
    result = run("webhooks", *words)
    assert (result.exit_code, told in result.stdout) == (0, True), result.output
    assert [(line, sent) for line, _, sent in fake.asked] == [(request_line, body)]
    as_json = run("webhooks", *words, "--json")
    assert json.loads(as_json.stdout) == answer
