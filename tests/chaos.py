"""The kill loop: many small trainings on several workers while everything is killed at random moments.

    python -m tests.chaos --rounds 20
    python -m tests.chaos --rounds 20 --records postgresql --objects rclone

After each round it checks that every accepted task has exactly one final state, that nothing was published twice or by
a superseded attempt, that resumed trainings end with the numbers and the model bytes of uninterrupted ones, that
cancelled ones are cancelled, that nothing accepted was forgotten, that no process is left over, and that everything
went on within the limit. It prints what it did and ends with 1 at the first violation.

Two of the tasks of a round are predictions, of some lines and of a file, whose results must be right to the row.
Callers predict all the while (`tests.asking`): each answer must be that of its own request, each refusal a documented
one, none may come later than the deadline, and after the last deed of a round the rate must be full again within the
same limit. Of the deeds of a round one is done to a prediction worker, and one to a server that the stack shares with
others, if there is one: it is killed or held, and is back a moment later (`tests.breaking`).
"""

from __future__ import annotations

import argparse
import collections
import dataclasses
import fcntl
import http.client
import importlib.util
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from sqlalchemy import text

from cli.services import services_of, steps_of, worker_argv
from cli.stack import Backoff, Service, Stack
from ml.options.catalog import engines, libraries
from settings import Settings
from storage.records import Records, State, Task
from tests.asking import TIMEOUT_S, WINDOW_S, Asked, Asking, is_right, lines_of, write_models
from tests.breaking import OBJECTS, RECORDS, Breakage, Shared, running_shared
from tests.services import free_port

RECOVERY_LIMIT_S = 30.0
ROUND_LIMIT_S = 120.0
PREDICTING = ("predict-xgboost", "predict-xgboost-2")
FINAL = {"finished", "failed", "cancelled"}
# For how long a shared server is away at most.
_BROKEN_S = 3.0
# How often a file to be predicted has each row that is known.
_REPEATED = 100

Json = dict[str, Any]


@dataclass(frozen=True)
class Workload:
    """A training that is always the same, and lasts a few seconds on one thread."""

    name: str
    rows: int
    is_regression: bool
    parameters: Json
    mllib: str = "xgboost"

    @property
    def engine(self) -> str:
        """What its training process has imported."""
        return libraries()[self.mllib].engine


WORKLOADS = (
    Workload("plain", 12_000, False, {"test_interval": 10, "iterations": 120}),
    Workload(
        "sampled",
        12_000,
        False,
        {
            "test_interval": 10,
            "iterations": 120,
            "booster_params": {"subsample": 0.7, "colsample": 0.6, "max_depth": 5},
        },
    ),
    Workload(
        "dart",
        1_500,
        False,
        {"test_interval": 10, "iterations": 90, "booster": "dart", "booster_params": {"max_depth": 3}},
    ),
    Workload("regression", 20_000, True, {"test_interval": 10, "iterations": 250, "objective": "reg:squarederror"}),
)

# Every random state of a network takes part: of its first weights, the order of its rows, its dropout.
NETWORKS = (
    Workload(
        "network",
        6_000,
        False,
        {
            "template": "mlp",
            "layers": [32, 16],
            "dropout": 0.2,
            "seed": 5,
            "net": {"batch_size": 64},
            "solver": {"iterations": 2_500, "test_interval": 250, "solver_type": "ADAM", "base_lr": 0.003},
        },
        "torch",
    ),
    Workload(
        "caffe",
        6_000,
        True,
        {
            "template": "mlp",
            "layers": [24],
            "seed": 5,
            "net": {"batch_size": 50},
            "solver": {
                "iterations": 2_500,
                "test_interval": 250,
                "solver_type": "SGD",
                "momentum": 0.9,
                "base_lr": 0.001,
                "lr_policy": "step",
                "stepsize": 800,
                "gamma": 0.5,
            },
        },
        "caffe",
    ),
)


def write_data(folder: Path) -> None:
    """Three noisy classes, or a noisy sum, of 20 columns; the same bytes every time."""
    folder.mkdir(parents=True, exist_ok=True)
    for workload in (*WORKLOADS, *NETWORKS):
        numbers = np.random.default_rng(7)
        inputs = numbers.normal(size=(workload.rows, 20)).round(4)
        value = inputs[:, :5].sum(axis=1) + inputs[:, 5] * inputs[:, 6] + numbers.normal(size=workload.rows)
        target = value.round(4) if workload.is_regression else np.digitize(value, [-1.0, 1.0])
        header = ",".join([*(f"x{column}" for column in range(20)), "target"])
        form = "%.4f" if workload.is_regression else "%d"
        np.savetxt(
            folder / f"{workload.name}.csv",
            np.column_stack([inputs, target]),
            fmt=["%.4f"] * 20 + [form],
            delimiter=",",
            header=header,
            comments="",
        )


class Violation(Exception):
    """A promise was broken."""


@dataclass
class Totals:
    """What the loop did so far."""

    rounds: int = 0
    tasks: int = 0
    states: collections.Counter[str] = field(default_factory=collections.Counter)
    kills: collections.Counter[str] = field(default_factory=collections.Counter)
    attempts: collections.Counter[str] = field(default_factory=collections.Counter)
    given_up: int = 0
    resumed: int = 0
    recoveries: list[float] = field(default_factory=list)
    full_again: list[float] = field(default_factory=list)


@dataclass
class Kill:
    """One deed, with the attempts that ran on what it hit."""

    kind: str
    at: float
    hit: list[tuple[int, int]]


class Client:
    """A client that repeats a request until it is answered, as a careful client does."""

    def __init__(self, port: int, between: Callable[[], None]) -> None:
        """`between` runs before each repetition."""
        self._port = port
        self._between = between

    def call(self, method: str, path: str, body: Json | None = None, key: str | None = None) -> tuple[int, Json]:
        """Status and answer; repeats when the connection breaks or the server says that it is not ready."""
        end = time.monotonic() + 60
        while True:
            try:
                status, answer = self.once(method, path, body, key)
                if status != 503 or time.monotonic() > end:
                    return status, answer
            except (OSError, http.client.HTTPException, ValueError):
                if time.monotonic() > end:
                    raise
            self._between()
            time.sleep(0.1)

    def once(self, method: str, path: str, body: Json | None = None, key: str | None = None) -> tuple[int, Json]:
        """One request, without a second try."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            headers = {"Idempotency-Key": key} if key else {}
            connection.request(method, path, json.dumps(body) if body is not None else None, headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()


class Chaos:
    """A stack of its own, what is done to it, and what must hold afterwards."""

    def __init__(
        self,
        stack: Stack,
        settings: Settings,
        dice: random.Random,
        known: dict[str, list[Asked]],
        breakages: Sequence[Breakage],
    ) -> None:
        """`known` is what `write_models` told of the models in the data root, `breakages` what servers may suffer."""
        self.stack = stack
        self._breakages = breakages
        self.settings = settings
        self.dice = dice
        # A process that is held back may hold the write lock of SQLite: nothing is answered until it is let go.
        self.client = Client(settings.port, between=self._let_go)
        self.records = Records.connect(settings.database_url)
        self.totals = Totals()
        self.expected: dict[str, tuple[Json, list[str]]] = {}
        self.asking = Asking(settings.port, known, dice)
        self._known = known
        self._sent: dict[int, Workload] = {}
        self._predicted: dict[int, list[Asked]] = {}
        self._last_deed = 0.0
        self._kills: list[Kill] = []
        self._held: list[tuple[int, float]] = []

    # Processes

    def _workers(self) -> list[psutil.Process]:
        return self._alive([f"train{number}" for number in range(1, self.settings.train_workers + 1)])

    def _alive(self, names: Sequence[str]) -> list[psutil.Process]:
        found = []
        for name in names:
            pid = self.stack.pid_of(name)
            if pid is not None and psutil.pid_exists(pid):
                found.append(psutil.Process(pid))
        return found

    def _pools(self, worker: psutil.Process) -> list[psutil.Process]:
        return [child for child in _children(worker) if "spawn_main" in _command(child)]

    def _training_of(self, pool: psutil.Process) -> psutil.Process | None:
        """The process that trains under a pool process; the others wait, one for each engine."""
        engines_at_work = {
            self._sent[task_id].engine for task_id, _ in self._running_on({pool.pid}) if task_id in self._sent
        }
        for child in _children(pool):
            command = _command(child).split()
            if "ml.training.run" in command and engines_at_work & set(command):
                return child
        return None

    def _running_on(self, pool_pids: set[int]) -> list[tuple[int, int]]:
        with self.records.database.read() as connection:
            rows = connection.execute(text("SELECT task_id, number, owner FROM attempts WHERE ended_at IS NULL")).all()
        return [(row.task_id, row.number) for row in rows if int(row.owner.rpartition(":")[2]) in pool_pids]

    # Deeds

    def _note(self, kind: str, pools: list[psutil.Process]) -> None:
        self.totals.kills[kind] += 1
        self._last_deed = time.monotonic()
        self._kills.append(Kill(kind, time.time(), self._running_on({pool.pid for pool in pools})))

    def _pick_worker(self) -> psutil.Process | None:
        workers = [worker for worker in self._workers() if self._pools(worker)]
        return self.dice.choice(workers) if workers else None

    def kill_child(self, number: signal.Signals) -> None:
        """A process that trains."""
        pools = [pool for worker in self._workers() for pool in self._pools(worker)]
        at_work = [(pool, training) for pool in pools if (training := self._training_of(pool)) is not None]
        if at_work:
            pool, training = self.dice.choice(at_work)
            self._note(f"training {number.name}", [pool])
            _send(training, number)

    def kill_pool(self, number: signal.Signals) -> None:
        """The pool process of a worker, which supervises."""
        worker = self._pick_worker()
        if worker:
            pool = self._pools(worker)[0]
            self._note(f"pool {number.name}", [pool])
            _send(pool, number)

    def kill_worker(self, number: signal.Signals) -> None:
        """The main process of a worker."""
        worker = self._pick_worker()
        if worker:
            self._note(f"worker {number.name}", self._pools(worker))
            _send(worker, number)

    def kill_service(self, name: str) -> None:
        """A process that supports the workers."""
        pid = self.stack.pid_of(name)
        if pid is not None:
            self._note(f"{name} SIGKILL", [])
            if name == "api":
                self.asking.api_is_killed()
            os.kill(pid, signal.SIGKILL)

    def flush(self) -> None:
        """Everything that Redis knows."""
        import redis

        with redis.Redis.from_url(self.settings.live_url, socket_timeout=2) as server:
            try:
                server.flushall()
            except redis.RedisError:
                return
        self._note("redis FLUSHALL", [])

    def hold_back(self) -> None:
        """A worker that neither works nor dies until its lease has run out."""
        worker = self._pick_worker()
        if worker:
            self._note("worker SIGSTOP", self._pools(worker))
            self._hold(worker)

    def _hold(self, worker: psutil.Process) -> None:
        for process in (*self._pools(worker), worker):
            _send(process, signal.SIGSTOP)
            self._held.append((process.pid, time.monotonic() + self.settings.lease_s * 1.5))

    def disturb_predicting(self) -> None:
        """Kill a prediction worker, or its pool process, or hold both back until what they took was taken back."""
        workers = self._alive(PREDICTING)
        if not workers:
            return
        worker = self.dice.choice(workers)
        deed = self.dice.choice(["pool SIGKILL", "pool SIGTERM", "worker SIGKILL", "worker SIGTERM", "worker SIGSTOP"])
        what, _, name = deed.partition(" ")
        number = signal.Signals[name]
        self._note(f"predicting {deed}", [])
        if number is signal.SIGSTOP:
            self._hold(worker)
        else:
            for process in self._pools(worker) if what == "pool" else [worker]:
                _send(process, number)

    def break_server(self) -> None:
        """Have a shared server fail for a moment."""
        if not self._breakages:
            return
        breakage = self.dice.choice(self._breakages)
        self._note(breakage.name, [])
        breakage.begin()
        try:
            self._sleep(self.dice.uniform(0.0, _BROKEN_S))
        finally:
            breakage.end()
        self._last_deed = time.monotonic()

    def _let_go(self, everything: bool = False) -> None:
        kept = []
        for pid, until in self._held:
            if everything or time.monotonic() > until:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)
            else:
                kept.append((pid, until))
        self._held = kept

    def deeds(self) -> list[Callable[[], None]]:
        """Everything that can happen to a stack."""
        both = (signal.SIGKILL, signal.SIGTERM)
        return [
            *(lambda number=number: self.kill_child(number) for number in both),
            *(lambda number=number: self.kill_pool(number) for number in both),
            *(lambda number=number: self.kill_worker(number) for number in both),
            lambda: self.kill_service("api"),
            lambda: self.kill_service("redis"),
            lambda: self.kill_service("control"),
            self.flush,
            self.hold_back,
            *[self.break_server] * len(self._breakages),
        ]

    # A round

    def prepare(self) -> None:
        """The services that trainings share, and what an uninterrupted training of each workload gives."""
        for workload in WORKLOADS:
            self.create(workload, workload.name)
        for workload in (*WORKLOADS, *NETWORKS):
            task_id = self.submit(workload, uuid.uuid4().hex)
            self.wait({task_id}, time.monotonic() + ROUND_LIMIT_S)
            task = self.records.tasks.get(task_id)
            _require(task.state is State.FINISHED, f"{workload.name} did not train: {task.failure}")
            self.expected[workload.name] = self.result(task_id)
            (attempt,) = self.records.tasks.attempts(task_id)
            _say(f"  {workload.name}: {attempt.phases.get('training', 0):.2f} s uninterrupted")
        self._prepare_asking()

    def _prepare_asking(self) -> None:
        for name, known in self._known.items():
            many = "\n".join(lines_of(known * _REPEATED)) + "\n"
            (self.settings.data_roots[0] / f"{name}.csv").write_text(many, encoding="utf-8")
            status, answer = self.client.call(
                "PUT",
                f"/services/{name}",
                {
                    "mllib": "xgboost",
                    "description": "asked all the time",
                    "model": {"repository": str(self.settings.data_roots[0] / name)},
                    "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {}},
                },
            )
            _require(status == 201, f"service {name}: {answer}")
            end = time.monotonic() + ROUND_LIMIT_S
            body = {"service": name, "parameters": {}, "data": known[0].lines}
            while (told := self.client.call("POST", "/predict", body))[0] != 200:
                _require(time.monotonic() < end, f"{name} does not predict: {told}")
                time.sleep(0.1)
        self.asking.start()
        _say(f"  predictions: {self.asking.rate:.1f} right answers per second undisturbed")

    def create(self, workload: Workload, name: str) -> None:
        """A service, and the repository of its name."""
        status, answer = self.client.call(
            "PUT",
            f"/services/{name}",
            {
                "mllib": workload.mllib,
                "description": "chaos",
                "model": {"repository": name},
                "parameters": {
                    "input": {"connector": "csv", "label": "target"},
                    "mllib": _size(workload),
                    "output": {},
                },
            },
        )
        # The answer to a first try may have been lost with the server.
        _require(status in (201, 409), f"service {name}: {answer}")

    def submit(self, workload: Workload, key: str) -> int:
        """Send a training until it is accepted."""
        if workload in NETWORKS:
            self.create(workload, _service(workload, key))
        status, answer = self.client.call("POST", "/train", self._training(workload, key), key)
        _require(status == 201, f"train {workload.name}: {status} {answer}")
        task_id = int(answer["head"]["task_id"])
        self._sent[task_id] = workload
        return task_id

    def submit_predictions(self) -> None:
        """Send two prediction tasks until they are accepted: some lines, which wait as all others do, and a file."""
        few, many = self.dice.sample(sorted(self._known), 2)
        asked = self.dice.choices(self._known[few], k=self.dice.randint(1, 40))
        path = str(self.settings.data_roots[0] / f"{many}.csv")
        for name, rows, data in ((few, asked, lines_of(asked)), (many, self._known[many] * _REPEATED, [path])):
            output = {"best": -1, "format": "json"}
            body = {"service": name, "async": True, "parameters": {"output": output}, "data": data}
            status, answer = self.client.call("POST", "/predict", body, uuid.uuid4().hex)
            _require(status == 201, f"predict by {name} as a task: {status} {answer}")
            self._predicted[int(answer["head"]["task_id"])] = rows

    def submit_while_the_api_dies(self, workload: Workload, key: str) -> int:
        """Send a training while its server is killed, then ask again with the same key, as a client would."""
        answers: list[tuple[int, Json]] = []

        def send() -> None:
            with suppress(OSError, http.client.HTTPException, ValueError):
                answers.append(self.client.once("POST", "/train", self._training(workload, key), key))

        if workload in NETWORKS:
            self.create(workload, _service(workload, key))
        sending = threading.Thread(target=send)
        sending.start()
        time.sleep(self.dice.uniform(0, 0.03))
        self.kill_service("api")
        sending.join()
        again = self.submit(workload, key)
        if answers and answers[0][0] == 201:
            _require(answers[0][1]["head"]["task_id"] == again, "a repeated key made a second task")
        return again

    def _training(self, workload: Workload, key: str) -> Json:
        return {
            "service": _service(workload, key),
            "async": True,
            "parameters": {
                "input": {"test_split": 0.2, "shuffle": True, "seed": 7},
                "mllib": workload.parameters,
                "output": {"measure": ["eucll"] if workload.is_regression else ["acc", "f1", "mcll"]},
            },
            "data": [str(self.settings.data_roots[0] / f"{workload.name}.csv")],
        }

    def result(self, task_id: int) -> tuple[Json, list[str]]:
        """The final numbers of a training and the digests of what it published, but for what tells how long it took."""
        report = self.records.tasks.report(task_id)
        version = self.records.versions.of_task(task_id)
        _require(report is not None and version is not None, f"task {task_id} is finished without a result")
        assert report is not None
        assert version is not None
        timeless = {name: value for name, value in report["measure"].items() if "time" not in name}
        history = {name: value for name, value in report["measure_hist"].items() if "time" not in name}
        digests = sorted(each.sha256 for each in version.artifacts if each.name != "training.json")
        return {"measure": timeless, "history": history}, digests

    def wait(self, task_ids: set[int], until: float) -> None:
        """Poll as a client does until all are final."""
        while True:
            self._let_go()
            ids = ",".join(map(str, sorted(task_ids)))
            _, answer = self.client.call("GET", f"/tasks?ids={ids}")
            tasks = answer.get("tasks", [])
            _require(len(tasks) == len(task_ids), f"tasks were forgotten: {answer}")
            if all(task["state"] in FINAL for task in tasks):
                return
            if time.monotonic() > until:
                raise Violation(f"not final after {ROUND_LIMIT_S:g} s: {[t for t in tasks if t['state'] not in FINAL]}")
            time.sleep(0.1)

    def round(self) -> None:
        """Send, kill, wait, check."""
        self._kills = []
        chosen = [*self.dice.sample(WORKLOADS, 2), self.dice.choice(NETWORKS)]
        self.dice.shuffle(chosen)
        keys = {workload.name: uuid.uuid4().hex for workload in chosen}
        accepted: dict[int, Workload] = {}
        cancelled: set[int] = set()
        for position, workload in enumerate(chosen):
            send = self.submit_while_the_api_dies if position == 0 and self.dice.random() < 0.2 else self.submit
            accepted[send(workload, keys[workload.name])] = workload
        self._predicted = {}
        self.submit_predictions()
        for _ in range(self.dice.randint(2, 4)):
            if self.dice.random() < 0.5:
                self._until_a_checkpoint(set(accepted))
            self._sleep(self.dice.uniform(0.05, 1.0))
            if self.dice.random() < 0.15:
                victim = self.dice.choice(sorted(accepted))
                status, _ = self.client.call("DELETE", f"/tasks/{victim}")
                _require(status in (200, 202), f"cancel answered {status}")
                if status == 202:
                    cancelled.add(victim)
            self.dice.choice(self.deeds())()
        self._sleep(self.dice.uniform(0.05, 1.0))
        self.break_server()
        self.disturb_predicting()
        self.wait({*accepted, *self._predicted}, time.monotonic() + ROUND_LIMIT_S)
        self._let_go(everything=True)
        self._check(accepted, cancelled, keys)
        self._check_asking()

    def _until_a_checkpoint(self, task_ids: set[int]) -> None:
        """Wait, but not long, until something could be resumed."""
        end = time.monotonic() + 8
        while time.monotonic() < end:
            tasks = self.records.tasks.get_many(task_ids)
            if all(task.state.is_final for task in tasks):
                return
            if any(task.state is State.RUNNING and task.checkpoint for task in tasks):
                return
            self._sleep(0.1)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._let_go()
            time.sleep(min(0.05, max(0.0, end - time.monotonic())))

    # Promises

    def _check(self, accepted: dict[int, Workload], cancelled: set[int], keys: dict[str, str]) -> None:
        for task_id, workload in accepted.items():
            task = self.records.tasks.get(task_id)
            self.totals.tasks += 1
            self.totals.states[str(task.state)] += 1
            self._check_task(task, workload, task_id in cancelled)
        for task_id, asked in self._predicted.items():
            self._check_predicted(self.records.tasks.get(task_id), asked)
        self._check_keys(set(accepted), set(keys.values()))
        self._check_recovery(accepted)
        self._check_leftovers()
        self.totals.rounds += 1

    def _check_task(self, task: Task, workload: Workload, was_cancelled: bool) -> None:
        _require(task.state.is_final, f"task {task.id} is {task.state} after it was final")
        attempts = self.records.tasks.attempts(task.id)
        for attempt in attempts:
            self.totals.attempts[str(attempt.outcome)] += 1
            self.totals.resumed += attempt.resumed_iteration is not None
        _require(
            sum(attempt.outcome in FINAL for attempt in attempts) <= 1,
            f"task {task.id} ended more than once: {attempts}",
        )
        version = self.records.versions.of_task(task.id)
        if was_cancelled:
            _require(task.state is State.CANCELLED, f"task {task.id} was cancelled and is {task.state}")
        elif task.state is State.FAILED:
            deaths = sum(attempt.outcome in ("killed", "failed") for attempt in attempts)
            gave_up = deaths >= self.settings.deaths_max and (task.failure or {}).get("kind") == "killed"
            _require(gave_up, f"task {task.id} failed: {task.failure}")
            self.totals.given_up += 1
        else:
            _require(task.state is State.FINISHED, f"task {task.id} is {task.state}")
        if task.state is State.FINISHED:
            _require(version is not None, f"task {task.id} is finished without a version")
            assert version is not None
            _require(version.attempt == task.attempt, f"task {task.id}: a superseded attempt published")
            found = self.result(task.id)
            if found != self.expected[workload.name]:
                raise Violation(f"task {task.id} ({workload.name}) differs from the uninterrupted training: {attempts}")
        else:
            _require(version is None, f"task {task.id} is {task.state} and published")

    def _check_predicted(self, task: Task, asked: Sequence[Asked]) -> None:
        self.totals.tasks += 1
        self.totals.states[str(task.state)] += 1
        attempts = self.records.tasks.attempts(task.id)
        self.totals.attempts.update(str(attempt.outcome) for attempt in attempts)
        if task.state is State.FAILED:
            deaths = sum(attempt.outcome in ("killed", "failed", "stranded") for attempt in attempts)
            _require(deaths >= self.settings.deaths_max, f"prediction {task.id} failed: {task.failure}")
            self.totals.given_up += 1
            return
        _require(task.state is State.FINISHED, f"prediction {task.id} is {task.state}")
        status, told = self.client.call("GET", f"/tasks/{task.id}/result")
        _require(status == 200, f"the result of prediction {task.id}: {status} {told}")
        _require(told["head"]["service"] == asked[0].service, f"prediction {task.id} is that of {told['head']}")
        _require(is_right(asked, told["body"]["predictions"]), f"prediction {task.id} has a wrong result: {attempts}")

    def _check_keys(self, task_ids: set[int], keys: set[str]) -> None:
        with self.records.database.read() as connection:
            rows = connection.execute(text("SELECT id, idempotency_key FROM tasks WHERE kind = 'train'")).all()
        known = {row.idempotency_key: row.id for row in rows}
        _require(len(known) == len(rows), "one key has two tasks")
        _require({known.get(key) for key in keys} == task_ids, "accepted tasks and rows differ")

    def _check_recovery(self, accepted: dict[int, Workload]) -> None:
        for kill in self._kills:
            for task_id, number in kill.hit:
                if task_id not in accepted:
                    continue
                attempts = self.records.tasks.attempts(task_id)
                hit = attempts[number - 1]
                if hit.outcome in FINAL:
                    continue
                following = attempts[number].started_at if len(attempts) > number else self._finished_at(task_id)
                recovery = following - kill.at
                self.totals.recoveries.append(recovery)
                _require(
                    recovery <= RECOVERY_LIMIT_S,
                    f"task {task_id} went on {recovery:.1f} s after {kill.kind}: {attempts}",
                )

    def _check_asking(self) -> None:
        """Everything is as it was before the last deed, or becomes so in time."""
        while (took_s := self.asking.recovery_s(self._last_deed)) is None or self.asking.violations:
            _require(not self.asking.violations, "; ".join(self.asking.violations[:3]))
            _require(
                time.monotonic() - self._last_deed < RECOVERY_LIMIT_S + WINDOW_S,
                f"the rate of right predictions is not full {RECOVERY_LIMIT_S:g} s after the last deed",
            )
            self._sleep(0.1)
        self.totals.full_again.append(took_s)
        _require(took_s <= RECOVERY_LIMIT_S, f"the rate of right predictions was full after {took_s:.1f} s only")

    def _finished_at(self, task_id: int) -> float:
        return self.records.tasks.get(task_id).finished_at or 0.0

    def _check_leftovers(self) -> None:
        """A worker that was held back finds out only now that its attempt is over: it gets a moment to clear up."""
        problem: str | None = None
        end = time.monotonic() + 15
        while time.monotonic() < end:
            problem = self._left_process() or self._left_folder()
            if problem is None:
                return
            time.sleep(0.2)
        raise Violation(problem)

    def _left_process(self) -> str | None:
        """A training process that no living pool process keeps waiting, or one that predicts, if there is one."""
        pools = {pool.pid for worker in self._workers() for pool in self._pools(worker)}
        keepers: collections.Counter[int] = collections.Counter()
        for process in psutil.process_iter(["cmdline", "ppid"]):
            command = " ".join(process.info["cmdline"] or [])
            if "ml.bulk.run" in command and self._is_ours(process):
                return f"process {process.pid} predicts for a task that is over"
            if "ml.training.run" in command and self._is_ours(process):
                if process.info["ppid"] not in pools:
                    return f"training process {process.pid} is an orphan"
                keepers[process.info["ppid"]] += 1
        # One waits for each engine that is installed.
        waiting = sum(importlib.util.find_spec(engine) is not None for engine in engines())
        doubled = [pid for pid, count in keepers.items() if count > waiting]
        return f"pool process {doubled[0]} keeps too many training processes" if doubled else None

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.environ().get("MODELYARD_STACK") == self.stack.mark
        except psutil.Error:
            return False

    def _left_folder(self) -> str | None:
        """Working folders of attempts that a living process keeps, if there are any."""
        kinds = ("train", "predict")
        left = [path for kind in kinds for path in self.settings.scratch.glob(f"*/{kind}-*") if path.is_dir()]
        held = [path for path in left if not _is_left(path.parent)]
        return f"scratch folders of ended attempts: {held}" if held else None


def _service(workload: Workload, key: str) -> str:
    """Networks get a service each: a repository with the state of a solver takes no training but its resumption."""
    return f"{workload.name}-{key[:12]}" if workload in NETWORKS else workload.name


def _size(workload: Workload) -> Json:
    return {"regression": True, "ntargets": 1} if workload.is_regression else {"nclasses": 3}


def _is_left(folder: Path) -> bool:
    """Whether the process of a scratch folder is gone; the next worker deletes it then."""
    try:
        with (folder / "lock").open("rb+") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return process.children()
    except psutil.Error:
        return []


def _command(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _send(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.Error):
        process.send_signal(number)


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Violation(otherwise)


def _say(line: str) -> None:
    print(line, flush=True)


@contextmanager
def _home(kept: str | None) -> Iterator[Path]:
    if kept is not None:
        path = Path(kept).absolute()
        path.mkdir(parents=True, exist_ok=True)
        yield path
        return
    path = Path(tempfile.mkdtemp(prefix="chaos-"))  # short: the path of a unix socket is limited
    try:
        yield path
    except Violation:
        _say(f"the state is kept in {path}")
        raise
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    shutil.rmtree(path, ignore_errors=True)


def _report(totals: Totals, asking: Asking, took_s: float) -> None:
    _say(f"rounds {totals.rounds}, tasks {totals.tasks}, {took_s:.0f} s")
    _say(f"ends: {dict(sorted(totals.states.items()))}, given up after repeated deaths: {totals.given_up}")
    _say(f"attempts: {dict(sorted(totals.attempts.items()))}, resumed from a checkpoint: {totals.resumed}")
    _say(f"kills: {sum(totals.kills.values())}")
    for kind, count in sorted(totals.kills.items()):
        _say(f"  {kind:20} {count}")
    if totals.recoveries:
        middle = sorted(totals.recoveries)[len(totals.recoveries) // 2]
        _say(f"recoveries {len(totals.recoveries)}, median {middle:.1f} s, worst {max(totals.recoveries):.1f} s")
    else:
        _say("recoveries 0")
    outcomes = ", ".join(f"{count} {outcome}" for outcome, count in sorted(asking.outcomes.items()))
    _say(f"predictions {sum(asking.outcomes.values())}: {outcomes}; longest {asking.longest_s:.1f} s")
    if totals.full_again:
        middle = sorted(totals.full_again)[len(totals.full_again) // 2]
        worst = max(totals.full_again)
        _say(f"full rate again {len(totals.full_again)} times, median {middle:.1f} s, worst {worst:.1f} s")


def main() -> int:
    """Run the loop; 0 when every promise held."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=None, help="of the dice; printed, so that a run can be repeated")
    parser.add_argument("--lease", type=float, default=4.0, help="seconds; the product's default is 20")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--home", default=None, help="keep the state in this folder")
    parser.add_argument("--records", choices=RECORDS, default=RECORDS[0])
    parser.add_argument("--objects", choices=OBJECTS, default=OBJECTS[0])
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # leaves every block, so nothing is left behind
    seed = arguments.seed if arguments.seed is not None else random.SystemRandom().randrange(10**6)
    stores = f"records in {arguments.records}, objects in {arguments.objects}"
    _say(f"seed {seed}, lease {arguments.lease:g} s, {arguments.workers} training workers, {stores}")
    try:
        with _home(arguments.home) as home, running_shared(arguments.records, arguments.objects) as shared:
            _run(home, arguments, random.Random(seed), shared)
    except Violation as violation:
        _say(f"VIOLATION: {violation}")
        return 1
    return 0


def _services(settings: Settings) -> list[Service]:
    """Those of the one-machine stack, with a second worker for predictions: one takes over from the other."""
    services = services_of(settings)
    [first] = [each for each in services if each.name == PREDICTING[0]]
    argv = tuple(worker_argv(PREDICTING[1], ["predict.xgboost.cpu"]))
    return [*services, dataclasses.replace(first, name=PREDICTING[1], argv=argv)]


def _run(home: Path, arguments: argparse.Namespace, dice: random.Random, shared: Shared) -> None:
    settings = dataclasses.replace(
        Settings.from_env({"MODELYARD_HOME": str(home)}),
        port=free_port(),
        flower_port=0,
        data_roots=(home / "data",),
        train_workers=arguments.workers,
        threads=1,
        lease_s=arguments.lease,
        renew_s=arguments.lease / 4,
        sweep_s=min(2.0, arguments.lease / 8),
        checkpoint_s=0.1,
        predict_timeout_s=TIMEOUT_S,
        **shared.settings,
    )
    os.environ.update(shared.environment)  # credentials are no settings: boto3 reads them in every process
    write_data(home / "data")
    known = write_models(home / "data")
    began = time.monotonic()
    with Stack(settings, _services(settings), steps_of(settings), backoff=Backoff(most_s=2.0)) as stack:
        stack.wait_ready(60)
        chaos = Chaos(stack, settings, dice, known, shared.breakages)
        try:
            chaos.prepare()
            for number in range(1, arguments.rounds + 1):
                at = time.monotonic()
                kills = sum(chaos.totals.kills.values())
                chaos.round()
                done = sum(chaos.totals.kills.values()) - kills
                _say(f"round {number}: {done} kills, {time.monotonic() - at:.1f} s")
        finally:
            chaos.asking.stop()
            _report(chaos.totals, chaos.asking, time.monotonic() - began)
    _say(f"{chaos.totals.rounds} passed, 0 failed")


if __name__ == "__main__":
    sys.exit(main())
