"""A stack that is asked over plain sockets, whose API tells with each answer which way the request took."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cli.services import services_of, steps_of, worker_argv
from cli.stack import Stack, Step
from settings import Settings
from tests.integration.yard import EXAMPLES
from tests.services import free_port, short_folder

WAY = "x-way"
"""Header of each answer: `loop` where the event loop made it, else `flask`."""

FIRST, SECOND = "predict-xgboost", "predict-xgboost-2"
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


def telling(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line of the API, for an application that tells the way."""
    assert argv[-1] == "api.serve:app"
    return (*argv[:-1], "tests.integration.telling:app")


@contextlib.contextmanager
def running(settings: Settings, *, is_doubled: bool = False) -> Iterator[Stack]:
    """What `modelyard up` runs, ready to be asked; `is_doubled` with a second worker that predicts with XGBoost."""
    services = {each.name: each for each in services_of(settings)}
    services["api"] = dataclasses.replace(services["api"], argv=telling(services["api"].argv))
    if is_doubled:
        argv = tuple(worker_argv(SECOND, ["predict.xgboost.cpu"]))
        services[SECOND] = dataclasses.replace(services[FIRST], name=SECOND, argv=argv)
    with Stack(settings, list(services.values()), steps_of(settings)) as stack:
        stack.wait_ready(100)
        yield stack


@contextlib.contextmanager
def fronted(data: Path, *, is_doubled: bool = False, **options: Any) -> Iterator[Stack]:
    """The same with a home of its own and `data` as its data root; `options` are further settings."""
    with short_folder() as home:
        settings = Settings(home=home, port=free_port(), flower_port=0, data_roots=(data,), threads=1, **options)
        with running(settings, is_doubled=is_doubled) as stack:
            yield stack


def create(line: Line, name: str, data: Path, *headers: str) -> None:
    """A service for the iris data, which `data` holds as iris.csv."""
    label = (data / "iris.csv").read_text().split("\n", 1)[0].split(",")[-1]
    service = {
        "mllib": "xgboost",
        "description": "iris",
        "model": {"repository": str(data / name), "create_repository": True},
        "parameters": {"input": {"connector": "csv", "label": label}, "mllib": {"nclasses": 3}},
    }
    made = line.ask("PUT", f"/services/{name}", json.dumps(service).encode(), *headers)
    assert made.code == 201, made


def train(line: Line, name: str, data: Path, *headers: str, iterations: int = 3) -> None:
    """Publish a version of a service, once the training has ended."""
    training = {
        "service": name,
        "async": False,
        "parameters": {"mllib": {"iterations": iterations}, "input": {}, "output": {}},
        "data": [str(data / "iris.csv")],
    }
    trained = line.ask("POST", "/train", json.dumps(training).encode(), *headers)
    assert trained.code == 201, trained


def put_iris(data: Path) -> Path:
    """The folder, which holds the data of `create` and `train` now."""
    (data / "iris.csv").write_text((EXAMPLES / "iris.csv").read_text())
    return data.resolve()


@contextlib.contextmanager
def beside(stack: Stack, settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """One more API on the same servers, at another address."""
    [api] = [each for each in services_of(settings) if each.name == "api"]
    process = stack.beside(Step(f"api-{settings.port}", telling(api.argv), api.env))
    try:
        assert api.not_ready is not None
        until(lambda: api.not_ready is None or api.not_ready() is None)
        yield process
    finally:
        process.terminate()
        process.wait(20)


def processes(stack: Stack, name: str = "api") -> list[psutil.Process]:
    """The processes of a service."""
    first = psutil.Process(stack.pid_of(name))
    return [first, *first.children(recursive=True)]


def unnamed_files(pids: list[psutil.Process]) -> list[str]:
    """The temporary files without a name that some processes hold open; psutil leaves such files out."""
    held = []
    for each in pids:
        for path in Path(f"/proc/{each.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed between the listing and this look
                held.append(os.readlink(path))
    return [each for each in held if each.startswith("/") and each.endswith(" (deleted)")]


def until(claim: Callable[[], Any], timeout_s: float = 20.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
    return found
