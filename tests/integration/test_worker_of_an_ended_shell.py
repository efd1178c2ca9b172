"""A worker whose starter has ended, as one that somebody started in the background of a shell and left."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from cli.services import worker_argv, worker_environment
from settings import Settings
from storage.records import Kind, State
from tests.integration.fronted import until
from tests.integration.test_repositories import FLOWERS, model, put
from tests.integration.yard import Yard, running_yard
from tests.services import STOP_S
from workers.queue import Queue

pytestmark = pytest.mark.servers

QUEUE = "batch.xgboost.cpu"
# The shell ends with its standard input, which it does not share.
_IN_BACKGROUND = 'log=$1; shift; "$@" </dev/null >"$log" 2>&1 & echo $!; read -r _'


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    with running_yard(settings, redis_url) as made:
        yield made


@contextmanager
def worker(yard: Yard, log: Path) -> Iterator[psutil.Process]:
    """A worker whose shell is gone. It ends after one task, or without one: also when the tests are killed."""
    environment = {**os.environ, **worker_environment(yard.parts.settings, [QUEUE], once_s=60)}
    command = ["sh", "-c", _IN_BACKGROUND, "sh", str(log), *worker_argv("left", [QUEUE])]
    with subprocess.Popen(
        command,
        env=environment,
        cwd=log.parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    ) as shell:
        assert shell.stdout is not None
        process = psutil.Process(int(shell.stdout.readline()))
        try:
            # Only then: a worker knows its starter when it has imported its parts.
            until(lambda: yard.parts.live.heartbeats.all() or not process.is_running(), 60)
            assert process.ppid() == shell.pid, log.read_text()
            shell.communicate()
            yield process
        finally:
            _end(process)


def _end(process: psutil.Process) -> None:
    with suppress(psutil.NoSuchProcess):
        process.terminate()
        psutil.wait_procs([process], timeout=STOP_S)
        process.kill()
        process.wait()


def test_prediction_task_is_done_by_a_worker_whose_shell_has_ended(yard: Yard, tmp_path: Path):
    parts = yard.parts
    put(yard.data / "iris", "0007.model", model(yard, 7))
    put(yard.data / "iris", "corresp.txt", "".join(f"{n} {name}\n" for n, name in enumerate(FLOWERS)).encode())
    yard.create("iris", yard.data / "iris")
    header, *rows = (line.rpartition(",")[0] for line in (yard.data / "iris.csv").read_text().splitlines())
    (yard.data / "rows.csv").write_text("\n".join([header, rows[0], rows[149]]) + "\n")
    yard.is_idle = True  # the worker is a process of its own
    asked = {"service": "iris", "async": True, "parameters": {}, "data": [str(yard.data / "rows.csv")]}
    yard.call("POST", "/predict", asked, code=201)
    [task] = yard.tasks(Kind.PREDICT)
    log = tmp_path / "worker.log"
    with worker(yard, log) as process:
        assert Queue(parts.settings.broker_url, parts.records, parts.live).send_tasks([task]) == 1
        until(lambda: parts.records.tasks.get(task.id).state.is_final or not process.is_running(), 60)
    assert parts.records.tasks.get(task.id).state is State.FINISHED, log.read_text()
    assert [attempt.outcome for attempt in parts.records.tasks.attempts(task.id)] == ["finished"]
