"""A real prediction worker with room for one model: what it answers, holds, and does when memory does not come back."""

from __future__ import annotations

import dataclasses
import itertools
import os
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from cli import guard
from cli.services import services_of
from cli.stack import Stack
from settings import Settings
from storage.records import Version
from tests.integration.test_predicting import LANE, Made, as_asked, batch_of, make, publish, question, table
from tests.services import short_folder
from workers.memory import anonymous_bytes
from workers.parts import Parts

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

NAME = "predict-xgboost"
MIB = 1 << 20
LOST_MIB = 12
# What stands in `workers.warm` for a limit of next to nothing, with the model that is kept and one that is loaded.
ALLOWED_MIB = 32 + 2 * LOST_MIB
# A library that keeps memory of every model it loads.
LOSING = f"""
import os
if os.environ.get("MODELYARD_WORKER_QUEUES"):
    from ml import serving
    load, lost = serving.load, []
    def losing(*given, **more):
        lost.append(bytearray(b"x") * ({LOST_MIB} << 20))
        return load(*given, **more)
    serving.load = losing
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[Made]:
    """Models that answer differently."""
    return [make(tmp_path_factory.mktemp("model"), iterations) for iterations in (1, 3, 6, 12, 25)]


class Worker:
    """A worker under a supervisor, and its pool processes."""

    def __init__(self, stack: Stack, parts: Parts) -> None:
        self.stack, self.parts = stack, parts
        self.pids: list[int] = []
        self.most = 0
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._look)

    def watch(self, known: list[tuple[Version, np.ndarray]]) -> None:
        """Begin to watch, once it has answered."""
        ask_in_turn(self.parts, known[:1], lambda number: number >= 1, 60)
        [pid] = self._pool()
        self.at_first = anonymous_bytes(pid) or 0
        self._watch.start()

    def stop(self) -> None:
        self._over.set()
        if self._watch.ident is not None:
            self._watch.join()

    def _pool(self) -> list[int]:
        main = self.stack.pid_of(NAME)
        assert main is not None, self.log
        return [each.pid for each in psutil.Process(main).children() if "spawn_main" in " ".join(each.cmdline())]

    def _look(self) -> None:
        while not self._over.wait(0.02):
            try:
                found = self._pool()
            except psutil.Error:
                continue
            for pid in found:
                self.most = max(self.most, anonymous_bytes(pid) or 0)
                if pid not in self.pids:
                    self.pids.append(pid)

    @property
    def log(self) -> str:
        return self.stack.log_of(NAME).read_text()


@contextmanager
def worker(redis_url: str, sites: Path | None = None) -> Iterator[Worker]:
    """A worker that keeps one model; `sites` is a folder with what its Python does first."""
    with short_folder() as home, ExitStack() as closing:
        settings = dataclasses.replace(
            Settings.from_env({"MODELYARD_HOME": str(home), "MODELYARD_REDIS_URL": redis_url}),
            threads=1,
            flower_port=0,
            models_limit_bytes=1,
        )
        parts = Parts.make(settings)
        closing.callback(parts.records.close)
        closing.callback(parts.live.close)
        closing.callback(parts.queue.close)
        parts.records.upgrade()
        [service] = [each for each in services_of(settings) if each.name == NAME]
        if sites is not None:
            paths = os.pathsep.join([str(sites), service.env["PYTHONPATH"]])
            service = dataclasses.replace(service, env={**service.env, "PYTHONPATH": paths})
        stack = closing.enter_context(Stack(settings, [service], []))
        found = Worker(stack, parts)
        try:
            yield found
        finally:
            found.stop()
            stack.stop()
            assert guard.marked(stack.mark) == []


def published(parts: Parts, models: list[Made]) -> list[tuple[Version, np.ndarray]]:
    """A version of each model, and its probabilities for the rows of `question`."""
    account = parts.records.accounts.ensure("local")
    found = []
    for number, made in enumerate(models):
        service = parts.records.services.add(
            account.id,
            f"kinds-{number}",
            mllib="xgboost",
            mltype="classification",
            type="supervised",
            description="",
            repository_id=parts.records.repositories.ensure(account.id, f"objects:1/kinds-{number}").id,
            parameters={},
        )
        found.append((publish(parts, service, made), made.probabilities()))
    return found


def ask_in_turn(
    parts: Parts, known: list[tuple[Version, np.ndarray]], is_enough: Callable[[int], bool], limit_s: float
) -> int:
    """Callers that ask for one model after the other until it is enough; how many answers, all right, they got."""
    turns = itertools.count()
    end = time.monotonic() + limit_s

    def ask() -> int:
        answers = 0
        while True:
            number = next(turns)
            if is_enough(number):
                return answers
            assert time.monotonic() < end, f"not enough after {number} requests"
            version, expected = known[number % len(known)]
            answer = parts.queue.predict(as_asked(question(version)), LANE, batch_of(version), 100.0)
            np.testing.assert_allclose(table(answer), expected, atol=1e-6)
            answers += 1

    with ThreadPoolExecutor(4) as pool:
        callers = [pool.submit(ask) for _ in range(4)]
        return sum(each.result() for each in callers)


def test_models_used_in_turn_leave_the_process_as_small_as_it_was(models: list[Made], redis_url: str):
    with worker(redis_url) as found:
        known = published(found.parts, models)
        found.watch(known)
        assert ask_in_turn(found.parts, known, lambda number: number >= 300, 200) == 300
        assert len(found.pids) == 1
        assert found.most < found.at_first + 32 * MIB
        assert "must be replaced" not in found.log


def test_process_whose_memory_does_not_come_back_is_replaced_and_no_request_is_lost(
    models: list[Made], redis_url: str, tmp_path: Path
):
    (tmp_path / "sitecustomize.py").write_text(textwrap.dedent(LOSING))
    with worker(redis_url, tmp_path) as found:
        known = published(found.parts, models)
        found.watch(known)
        assert ask_in_turn(found.parts, known, lambda number: len(found.pids) >= 4, 300) > 12
        assert found.most < found.at_first + (ALLOWED_MIB + 2 * LOST_MIB) * MIB
        assert found.log.count("must be replaced") >= 3
        assert "ERROR" not in found.log
        assert "Traceback" not in found.log
