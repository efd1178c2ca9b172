"""How each server is started, asked and ended."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers.installing import NotThere, python_of
from benchmarks.peers.model import DATA, DEPTH, TREES, Model
from benchmarks.yard import running_stack
from cli import guard

HOST = "127.0.0.1"
START_S = 120.0
_STOP_S = 15.0
_SERVERS = Path(__file__).resolve().parent / "servers"
_CLOSE = 1e-6


@dataclass(frozen=True)
class Running:
    """A server that answers.

    body : what asks about one row. read : the probability of the second class in an answer.
    """

    port: int
    path: str
    body: Callable[[np.ndarray], Any]
    read: Callable[[Any], float]
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Where it is asked."""
        return f"http://{HOST}:{self.port}{self.path}"

    def asked(self, row: np.ndarray) -> bytes:
        """The content of a request about a row of float32 numbers."""
        return json.dumps(self.body(row)).encode()

    @property
    def sent(self) -> dict[str, str]:
        """The headers of a request."""
        return {"Content-Type": "application/json", **self.headers}

    def probability(self, row: np.ndarray) -> float:
        """What it says of a row. Raises OSError when it cannot be reached, and NotThere when it refuses."""
        connection = http.client.HTTPConnection(HOST, self.port, timeout=10)
        try:
            connection.request("POST", self.path, self.asked(row), self.sent)
            answer = connection.getresponse()
            content = answer.read()
        except http.client.HTTPException as error:
            raise OSError(str(error)) from error
        finally:
            connection.close()
        if answer.status != 200:
            raise NotThere(f"answers {answer.status}: {content[:300]!r}")
        try:
            return self.read(json.loads(content))
        except (KeyError, IndexError, TypeError, ValueError):
            raise NotThere(f"answers something else: {content[:300]!r}") from None

    def check(self, model: Model) -> None:
        """Raises NotThere unless its answers are those of the bare library."""
        for row, truth in zip(model.rows, model.truth, strict=True):
            found = self.probability(row)
            if abs(found - float(truth)) > _CLOSE:
                raise NotThere(f"says {found}, where the bare library says {truth}")


def numbers(row: np.ndarray) -> list[float]:
    """A row as a client has it: the shortest decimals that are the same 32-bit numbers."""
    return [float(str(value)) for value in row]


@contextmanager
def modelyard(model: Model, scratch: Path) -> Iterator[Running]:
    """The whole stack with one API process: a key in the header, checks and metrics as always."""
    with running_stack(api_workers=1, threads=1) as (_, settings, client):
        data = settings.data_roots[0] / "data.csv"
        shutil.copyfile(DATA, data)
        label = data.read_text(encoding="utf-8").splitlines()[0].split(",")[-1]
        mllib = {
            "nclasses": 2,
            "iterations": TREES,
            "objective": "binary:logistic",
            "booster_params": {"max_depth": DEPTH, "tree_method": "hist", "seed": 1},
        }
        client.create("peers", label, mllib)
        client.wait(client.train("peers", data, {}))

        def read(answer: Any) -> float:
            classes = answer["body"]["predictions"][0]["classes"]
            return next(float(each["prob"]) for each in classes if each["cat"] == "1")

        yield Running(
            settings.port,
            "/predict",
            lambda row: {
                "service": "peers",
                "parameters": {"output": {"best": 2}},
                "data": [",".join(map(str, numbers(row)))],
            },
            read,
            {"X-API-KEY": client.headers["X-API-KEY"]},
        )


@contextmanager
def litserve(model: Model, scratch: Path) -> Iterator[Running]:
    """One worker and one web process, which is its default."""
    port = _free_port()
    command = [str(python_of("litserve")), str(_SERVERS / "litserve_server.py")]
    running = Running(
        port, "/predict", lambda row: {"data": numbers(row)}, lambda answer: float(answer["predictions"][0])
    )
    with _process(command, scratch, {"MODEL": str(model.path), "PORT": str(port)}, running, model):
        yield running


@contextmanager
def bentoml(model: Model, scratch: Path) -> Iterator[Running]:
    """One worker, which is its default."""
    port = _free_port()
    command = [str(python_of("bentoml")), "-m", "bentoml", "serve", "bentoml_server:Trees"]
    command += ["--host", HOST, "--port", str(port), "--working-dir", str(_SERVERS)]
    environment = {"MODEL": str(model.path), "BENTOML_HOME": str(scratch), "BENTOML_DO_NOT_TRACK": "True"}
    running = Running(port, "/predict", lambda row: {"data": [numbers(row)]}, lambda answer: float(answer[0]))
    with _process(command, scratch, environment, running, model):
        yield running


@contextmanager
def mlserver(model: Model, scratch: Path) -> Iterator[Running]:
    """Its own runtime for XGBoost, with one worker process, which is its default."""
    port = _free_port()
    taken = {"host": HOST, "http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port()}
    (scratch / "settings.json").write_text(json.dumps({**taken, "debug": False, "parallel_workers": 1}))
    served = {
        "name": "trees",
        "implementation": "mlserver_xgboost.XGBoostModel",
        "parameters": {"uri": str(model.path)},
        "max_batch_size": 64,
        "max_batch_time": 0.001,
    }
    (scratch / "model-settings.json").write_text(json.dumps(served))
    command = [str(python_of("mlserver").with_name("mlserver")), "start", str(scratch)]
    running = Running(
        port,
        "/v2/models/trees/infer",
        lambda row: {"inputs": [{"name": "x", "shape": [1, len(row)], "datatype": "FP32", "data": numbers(row)}]},
        lambda answer: float(answer["outputs"][0]["data"][0]),
    )
    with _process(command, scratch, {}, running, model):
        yield running


@contextmanager
def ray(model: Model, scratch: Path) -> Iterator[Running]:
    """One replica and one proxy, which is its default."""
    port = _free_port()
    command = [str(python_of("ray")), str(_SERVERS / "ray_server.py")]
    environment = {
        "MODEL": str(model.path), "PORT": str(port), "SCRATCH": str(scratch), "RAY_USAGE_STATS_ENABLED": "0",
    }  # fmt: skip
    running = Running(
        port, "/predict", lambda row: {"data": numbers(row)}, lambda answer: float(answer["predictions"][0])
    )
    with _process(command, scratch, environment, running, model):
        yield running


CONTENDERS: dict[str, Callable[[Model, Path], AbstractContextManager[Running]]] = {
    "modelyard": modelyard,
    "litserve": litserve,
    "mlserver": mlserver,
    "bentoml": bentoml,
    "ray": ray,
}


@contextmanager
def running(name: str, model: Model) -> Iterator[Running]:
    """A server by name, once its answers are right; raises NotThere when it does not come to that."""
    scratch = Path(tempfile.mkdtemp(prefix="peer-"))
    try:
        with CONTENDERS[name](model, scratch) as found:
            found.check(model)
            yield found
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
    return port


@contextmanager
def _process(
    command: list[str], scratch: Path, environment: Mapping[str, str], asked: Running, model: Model
) -> Iterator[None]:
    """A program that serves, until the block ends: then it and all that it started are gone."""
    mark, log = uuid.uuid4().hex, scratch / "server.log"
    # One thread per prediction, for all alike: a row is too little work to share.
    threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    whole = {**inherited, **threads, "PATH": path, "HOST": HOST, **environment, guard.MARK: mark}
    with log.open("wb") as output:
        process = subprocess.Popen(
            guard.guarded(command), env=whole, cwd=scratch, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        _wait(process, asked, model, log)
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        guard.kill_marked(mark)


def _wait(process: subprocess.Popen[bytes], asked: Running, model: Model, log: Path) -> None:
    began = time.monotonic()
    while True:
        if process.poll() is not None:
            raise NotThere(f"ended with status {process.returncode}: {_last_words(log)}")
        try:
            asked.probability(model.rows[0])
            return
        except (OSError, NotThere) as error:  # some answer before their model is loaded
            if time.monotonic() - began > START_S:
                raise NotThere(f"is not ready after {START_S:.0f} s ({error}): {_last_words(log)}") from None
        time.sleep(0.2)


def _last_words(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " ".join(lines[-4:])[-600:] or "it said nothing"
