"""The commands that speak with a server, against a whole stack: as programs, on a terminal and without one."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import pty
import re
import shlex
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tarfile
import termios
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import settings as settings_module
from cli.stack import Stack
from settings import Settings
from storage.records import Records
from tests.services import free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

ROOT = Path(settings_module.__file__).parent
COMMAND = [sys.executable, "-W", "ignore", "-m", "cli.main"]
CREATE = ("--mllib", "xgboost", "--connector", "csv", "--label", "species", "--nclasses", "3")
SHUFFLED = {"input": {"shuffle": True, "seed": 1}}
Json = dict[str, Any]


@dataclass(frozen=True)
class Shell:
    """Runs commands as somebody would who has set the variables of this stack."""

    settings: Settings
    folder: Path

    def environment(self, **more: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TERM": "xterm",
            **self.settings.to_env(),
            **more,
        }

    def run(self, *words: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environment(**environment),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=120,
        )

    def json(self, *words: str) -> Json:
        done = self.run(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        value: Json = json.loads(done.stdout)
        return value

    def ask(self, method: str, path: str, body: Json | None = None) -> Json:
        """The API itself, without our client."""
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.settings.port}{path}", data, method=method)
        with opener.open(request, timeout=60) as answer:
            value: Json = json.load(answer)
        return value

    @contextlib.contextmanager
    def started(self, *words: str) -> Iterator[subprocess.Popen[str]]:
        """A command that is still running."""
        with subprocess.Popen(
            [*COMMAND, *words],
            cwd=self.folder,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background has Ctrl-C ignored by all that they start.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        ) as process:
            try:
                yield process
            finally:
                process.kill()


@pytest.fixture(scope="module")
def running() -> Iterator[Settings]:
    with short_folder() as home:
        settings = Settings(home=home, port=free_port(), flower_port=0, threads=1, request_limit_bytes=2**20)
        with Stack(settings) as stack:
            stack.wait_ready(100)
            shutil.copy(ROOT / "examples" / "data" / "iris.csv", home / "data")
            yield settings


@pytest.fixture
def shell(running: Settings, tmp_path: Path) -> Shell:
    return Shell(running, tmp_path)


@pytest.fixture(scope="module")
def trained(running: Settings, tmp_path_factory: pytest.TempPathFactory) -> str:
    shell = Shell(running, tmp_path_factory.mktemp("shell"))
    assert shell.run("services", "create", "flowers", *CREATE).returncode == 0
    given = json.dumps({**SHUFFLED, "mllib": {"iterations": 20}})
    done = shell.run("train", "flowers", "iris.csv", "--test-split", "0.2", "--parameters", given)
    assert done.returncode == 0, done.stderr
    return "flowers"


def long(shell: Shell, name: str) -> tuple[str, ...]:
    """The words that start a training which nobody waits for."""
    assert shell.run("services", "create", name, *CREATE).returncode == 0
    return ("train", name, "iris.csv", "--parameters", '{"mllib": {"iterations": 1000000}}')


def wait_until(claim: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not claim():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.05)


def test_training_without_a_terminal_is_told_in_plain_lines_and_ends_with_its_measures(shell: Shell, trained: str):
    given = json.dumps({**SHUFFLED, "mllib": {"iterations": 40}})
    words = ("train", trained, "iris.csv", "--test-split", "0.2", "--measure", "acc", "--measure", "mcll")
    done = shell.run(*words, "--parameters", given)
    assert done.returncode == 0, done.stderr
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f]", done.stdout + done.stderr)
    found = re.match(r"task (\d+) is finished, version \d+\n", done.stdout)
    assert found is not None, done.stdout
    assert f"task {found[1]}: job " in done.stderr
    assert f"task {found[1]}: finished" in done.stderr
    measure = shell.ask("GET", f"/tasks/{found[1]}/report")["measures"][0]
    rows = dict(line.split() for line in done.stdout.splitlines()[1:])
    assert rows == {"measure": "split", "acc": f"{measure['acc']:.6g}", "mcll": f"{measure['mcll']:.6g}"}


@pytest.mark.parametrize("columns", [40, 120])
def test_training_on_a_terminal_shows_a_bar_that_fits_and_gives_the_cursor_back(
    shell: Shell, trained: str, columns: int
):
    given = json.dumps({**SHUFFLED, "mllib": {"iterations": 400}})
    words = ("train", trained, "iris.csv", "--test-split", "0.2", "--measure", "acc", "--parameters", given)
    code, told = on_terminal(shell, columns, *words)
    assert code == 0, told
    assert "\x1b[?25l" in told
    assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l")
    drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told))
    bars = [line for line in drawn if "━" in line]
    assert any("100%" in line for line in bars)
    assert any("iteration" in line for line in bars), told
    assert max(map(len, bars)) <= columns
    assert [line for line in drawn if line][-1].split()[0] == "acc"


def on_terminal(shell: Shell, columns: int, *words: str) -> tuple[int, str]:
    """Run a command on a terminal of that width; its exit code, and all that it wrote."""
    ours, its = pty.openpty()
    try:
        fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        with subprocess.Popen(
            [*COMMAND, *words], cwd=shell.folder, env=shell.environment(), stdin=its, stdout=its, stderr=its
        ) as process:
            os.close(its)
            its = -1
            told = b""
            with contextlib.suppress(OSError):  # the kernel's way to tell that nobody holds the other end
                while piece := os.read(ours, 65536):
                    told += piece
            return process.wait(60), told.decode()
    finally:
        os.close(ours)
        if its >= 0:
            os.close(its)


def test_predictions_are_those_of_the_api(shell: Shell, trained: str):
    rows = ["5.1,3.5,1.4,0.2", "6.2,3.4,5.4,2.3", "5.9,3.0,4.2,1.5"]
    body = {"service": trained, "parameters": {"output": {"best": 2}}, "data": rows}
    predictions = shell.ask("POST", "/predict", body)["body"]["predictions"]
    expected = [[str(one["uri"]), each["cat"], f"{each['prob']:.6g}"] for one in predictions for each in one["classes"]]
    for words, stdin in ((rows, ""), (["-"], "\n".join(rows))):
        done = shell.run("predict", trained, *words, "--best", "2", stdin=stdin)
        assert done.returncode == 0, done.stderr
        head, *lines = [line.split() for line in done.stdout.splitlines()]
        assert head == ["uri", "class", "probability"]
        assert lines == expected
    (shell.folder / "rows.csv").write_text("\n".join(rows))
    told = shell.json("predict", trained, "@rows.csv", "--best", "2")
    assert told["body"]["predictions"] == predictions


@pytest.mark.parametrize("form", ["json", "jsonl", "parquet"])
def test_result_of_a_prediction_task_is_saved_in_each_form(shell: Shell, trained: str, form: str):
    import pyarrow.parquet

    file = shell.folder / f"flowers.{form}"
    done = shell.run("predict", trained, "iris.csv", "--async", "--output", file.name)
    assert done.returncode == 0, done.stderr
    if form == "parquet":
        uris = pyarrow.parquet.read_table(file)["uri"].to_pylist()
    elif form == "jsonl":
        uris = [json.loads(line)["uri"] for line in file.read_text().splitlines()]
    else:
        uris = [one["uri"] for one in json.loads(file.read_text())["body"]["predictions"]]
    assert uris == [str(row) for row in range(1, 151)]


def test_service_is_created_listed_shown_and_deleted(shell: Shell):
    assert shell.run("services", "create", "passing", *CREATE, "--description", "for a moment").returncode == 0
    (listed,) = [one for one in shell.json("services", "list")["body"]["services"] if one["name"] == "passing"]
    assert listed["description"] == "for a moment"
    assert listed["parameters"] == {
        "input": {"connector": "csv", "label": "species"},
        "mllib": {"nclasses": 3},
        "output": {},
    }
    assert "for a moment" in shell.run("services", "show", "passing").stdout
    again = shell.run("services", "create", "passing", *CREATE)
    assert again.returncode == 1
    assert again.stderr.startswith("Error: 409 (1014) ")
    assert shell.run("services", "delete", "passing", "--clear", "full").stdout == "service passing is deleted\n"
    gone = shell.run("services", "show", "passing", "--json")
    assert gone.returncode == 1
    assert json.loads(gone.stdout)["status"]["dd_code"] == 1002


def test_interrupt_leaves_the_training_running_and_it_can_be_followed_and_cancelled(shell: Shell):
    with shell.started(*long(shell, "endless")) as process:
        number = first_iteration(process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130, told
        assert f"modelyard tasks follow {number}" in told
        assert "Traceback" not in told
    assert shell.json("tasks", "show", number)["state"] == "running"
    with shell.started("tasks", "follow", number) as process:
        first_iteration(process)
        assert shell.run("tasks", "cancel", number).stdout == f"task {number} will be cancelled\n"
        _, told = process.communicate(timeout=60)
        assert process.returncode == 1
        assert told.endswith(f"Error: task {number} was cancelled\n")
    assert "was over already: cancelled" in shell.run("tasks", "cancel", number).stdout


def test_interrupt_cancels_the_training_where_that_is_asked_for(shell: Shell):
    with shell.started(*long(shell, "stopped"), "--cancel-on-interrupt") as process:
        number = first_iteration(process)
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=60)
        assert process.returncode == 130
        assert f"task {number} is cancelled" in told
    assert shell.ask("GET", f"/tasks/{number}")["state"] == "cancelled"


def first_iteration(process: subprocess.Popen[str]) -> str:
    """Wait until a training is told to compute; the number of its task."""
    assert process.stderr is not None
    for line in process.stderr:
        if "iteration" in line:
            return line.removeprefix("task ").partition(":")[0]
    raise AssertionError("it ended before its first iteration")


def test_failed_training_ends_with_one_and_the_reason(shell: Shell, trained: str):
    done = shell.run("train", trained, "none.csv", "--parameters", '{"mllib": {"iterations": 5}}')
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert "failed (bad_input)" in last
    assert "none.csv" in last


def test_training_without_waiting_tells_how_to_follow_it_and_json_is_the_answer(shell: Shell, trained: str):
    words = ("train", trained, "iris.csv", "--parameters", '{"mllib": {"iterations": 5}}')
    done = shell.run(*words, "--no-wait")
    found = re.search(r"follow it with: modelyard tasks follow (\d+)\n", done.stdout)
    assert found is not None, done.stdout
    followed = shell.json("tasks", "follow", found[1])
    assert (followed["task_id"], followed["state"]) == (int(found[1]), "finished")
    accepted = shell.json(*words, "--no-wait")
    assert accepted["status"]["code"] == 201
    assert shell.run("tasks", "follow", str(accepted["head"]["task_id"])).returncode == 0


def repeated(file: Path, size: int) -> Path:
    """A csv of about `size` bytes, of the flowers again and again."""
    head, _, rows = (ROOT / "examples" / "data" / "iris.csv").read_bytes().partition(b"\n")
    file.write_bytes(head + b"\n" + rows * (size // len(rows)))
    return file


def test_data_set_is_uploaded_described_trained_on_and_deleted(shell: Shell, trained: str):
    # By form; by a form that is over the limit of this server, and so in parts; in parts at once.
    sizes = {"iris.csv": 4000, "middle.csv": 3 * 2**20, "large.csv": 5 * 2**20}
    files = [repeated(shell.folder / name, size) for name, size in sizes.items()]
    done = shell.run("datasets", "upload", "Garden", *(file.name for file in files), "--folder", "in")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"in/{file.name} is uploaded, {file.stat().st_size} bytes" for file in files]
    there = {file["path"]: file["sha256"] for file in shell.ask("GET", "/datasets/garden")["files"]}
    assert there == {f"in/{file.name}": hashlib.sha256(file.read_bytes()).hexdigest() for file in files}

    with tarfile.open(shell.folder / "more.tar.gz", "w:gz") as archive:
        archive.add(files[0], "deep/iris.csv")
    assert shell.run("datasets", "upload", "garden", "more.tar.gz", "--unpack").returncode == 0
    (shell.folder / "empty.txt").touch()
    assert shell.run("datasets", "upload", "garden", "empty.txt").returncode == 0
    assert shell.run("datasets", "describe", "garden").stdout == "4 files of data set garden are described\n"
    rows = [line.split() for line in shell.run("datasets", "show", "garden").stdout.splitlines()[-5:]]
    assert [(row[0], row[2]) for row in rows] == [
        ("deep/iris.csv", str(files[0].read_bytes().count(b"\n") - 1)),
        ("empty.txt", "-"),
        *((f"in/{file.name}", str(file.read_bytes().count(b"\n") - 1)) for file in (files[0], files[2], files[1])),
    ]

    words = ("train", trained, "dataset://garden/in/iris.csv", "--parameters", '{"mllib": {"iterations": 5}}')
    assert shell.run(*words).returncode == 0
    assert shell.run("datasets", "delete", "garden", "--file", "in/iris.csv").returncode == 0
    refused = shell.run(*words)
    assert (refused.returncode, "holds no such file" in refused.stderr) == (1, True)
    assert [one["name"] for one in shell.json("datasets", "list")["datasets"]] == ["garden"]
    assert shell.run("datasets", "delete", "garden").stdout == "data set garden is deleted\n"
    assert shell.run("datasets", "show", "garden").stderr.startswith("Error: 404 dataset_not_found: ")


@pytest.mark.parametrize("columns", [40, 120])
def test_upload_on_a_terminal_shows_a_bar_that_fits(shell: Shell, columns: int):
    file = repeated(shell.folder / "large.csv", 5 * 2**20)
    code, told = on_terminal(shell, columns, "datasets", "upload", "shown", file.name)
    assert code == 0, told
    assert told.rindex("\x1b[?25h") > told.rindex("\x1b[?25l")
    drawn = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", told))
    bars = [line for line in drawn if "━" in line]
    assert any("100%" in line for line in bars), told
    assert max(map(len, bars)) <= columns
    assert shell.run("datasets", "delete", "shown").returncode == 0


def test_tasks_are_filtered_and_go_on_at_a_cursor(shell: Shell, trained: str):
    first = shell.json("tasks", "list", "--kind", "train", "--service", trained, "--limit", "1")
    assert [task["kind"] for task in first["tasks"]] == ["train"]
    shown = shell.run("tasks", "list", "--limit", "1")
    cursor = shown.stderr.split()[-1]
    second = shell.json("tasks", "list", "--limit", "1", "--cursor", cursor)
    assert second["tasks"][0]["task_id"] == int(shown.stdout.splitlines()[1].split()[0]) - 1
    unknown = shell.run("tasks", "list", "--service", "nope")
    assert (unknown.returncode, unknown.stdout) == (1, "")


def test_server_that_is_down_is_told_in_one_line(shell: Shell):
    done = shell.run("services", "list", MODELYARD_URL=f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "does not answer: connection refused" in done.stderr


def test_doctor_finds_nothing_wrong_with_a_healthy_stack(shell: Shell, trained: str):
    done = shell.run("doctor", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 0, answer
    assert answer["healthy"] is True
    # How busy and how full the machine of the tests is, is not ours to say.
    checks = {"python", "redis", "records", "objects", "clocks", "workers", "queues", "ports", "strangers", "api"}
    ours = [each for each in answer["findings"] if each["check"] in checks]
    assert {each["check"] for each in ours} == checks
    assert {each["status"] for each in ours} == {"ok"}, ours


# The page


def examples() -> list[tuple[str, list[str]]]:
    """The commands of docs/cli.md, each with the lines that it is said to print."""
    found: list[tuple[str, list[str]]] = []
    for block in re.findall(r"```console\n(.*?)```", (ROOT / "docs" / "cli.md").read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ "):
                found.append((line[2:], []))
            elif found[-1][0].endswith("\\"):
                found[-1] = (found[-1][0][:-1] + line.strip(), [])
            else:
                found[-1][1].append(line)
    return found


def without_numbers(lines: list[str], home: Path) -> list[str]:
    """Lines without what differs from run to run: numbers, spaces, and the names of folder and machine."""
    plain = [line.replace(str(home), "/srv/home").replace(socket.gethostname(), "host") for line in lines]
    return [" ".join(re.sub(r"-?\d[\d.:TZ-]*(e-?\d+)?", "#", line).split()) for line in plain]


@pytest.mark.timeout(600)
def test_examples_of_the_page_print_what_it_says(tmp_path: Path):
    with short_folder() as home:
        settings = Settings(home=home, port=free_port(), flower_port=0, threads=1)
        with Stack(settings) as stack:
            stack.wait_ready(100)
            shutil.copy(ROOT / "examples" / "data" / "iris.csv", home / "data")
            shell = Shell(settings, tmp_path)
            for line, expected in examples():
                told = run_example(shell, line)
                check_lines(without_numbers(told, home), without_numbers(expected, home), line)


def run_example(shell: Shell, line: str) -> list[str]:
    (shell.folder / "modelyard").write_text(f'#!/bin/sh\nexec {shlex.join(COMMAND)} "$@"\n')
    (shell.folder / "modelyard").chmod(0o755)
    environment = shell.environment()
    environment["PATH"] = f"{shell.folder}:{environment['PATH']}"
    done = subprocess.run(
        ["sh", "-c", line], cwd=shell.folder, env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
    return done.stdout.splitlines()


def check_lines(told: list[str], expected: list[str], command: str) -> None:
    """The lines are equal; where the page has …, any others may stand."""
    if "…" not in expected:
        assert told == expected, command
        return
    rest = iter(told)
    for line in expected:
        if line != "…":
            assert line in rest, f"{command} does not print {line!r} at its place: {told}"


# With a key in force: the last of all, as the server asks everybody for one meanwhile


@pytest.fixture
def key(running: Settings) -> Iterator[str]:
    records = Records.connect(running.database_url)
    try:
        created, secret = records.keys.create("local")
        yield secret
        records.keys.revoke(created.id)
    finally:
        records.close()


def test_wrong_key_is_refused_and_the_right_one_is_let_in(shell: Shell, key: str):
    wait_until(lambda: shell.run("services", "list").returncode == 1)
    without = shell.run("services", "list")
    assert without.stderr.startswith("Error: 401 ")
    assert "MODELYARD_KEY" in without.stderr
    wrong = shell.run("services", "list", MODELYARD_KEY="wrong-key")
    assert wrong.returncode == 1
    assert "wrong-key" not in wrong.stderr
    assert shell.run("services", "list", MODELYARD_KEY=key).returncode == 0
    for given, told in (({}, "it asks for a key"), ({"MODELYARD_KEY": "wrong-key"}, "it does not know this key")):
        doctor = shell.run("doctor", "--role", "client", **given)
        assert doctor.returncode == 1
        assert f"fail  api: {told}" in doctor.stdout
        assert "wrong-key" not in doctor.stdout
    assert shell.run("doctor", "--role", "client", MODELYARD_KEY=key).returncode == 0
