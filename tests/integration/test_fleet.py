"""A fleet: machines that share nothing but PostgreSQL, S3 and a Redis with a password.

Every worker has a home folder of its own and no data root in common with the others, so whatever passes from one to
another passes through the servers.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import json
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import redis
import xgboost

from cli import guard
from cli.services import redis_server, services_of, steps_of
from cli.stack import Stack
from settings import Settings
from storage.objects.s3 import S3Objects, S3Options
from storage.records import Records
from tests.services import S3Server, Server, free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

Json = dict[str, Any]
ROUNDS = 400
INTERVAL = 50
ROWS = 10_000
BOOSTER = {"max_depth": 4, "eta": 0.2}


def until(claim: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
    return found


@pytest.fixture
def guarded_redis(tmp_path: Path) -> Iterator[str]:
    """The address of a Redis on TCP that wants a password."""
    port, secret = free_port(), "s3cret"
    url = f"redis://:{secret}@127.0.0.1:{port}/0"
    options = ["--port", str(port), "--bind", "127.0.0.1", "--requirepass", secret, "--save", "", "--appendonly", "no"]
    server = Server([redis_server(), *options, "--dir", str(tmp_path)], tmp_path / "redis.log")

    def answers() -> bool:
        with redis.Redis.from_url(url) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False

    try:
        server.wait_until(answers)
        yield url
    finally:
        server.stop()


@dataclass(frozen=True)
class Fleet:
    """The machines by the service that each runs, and a client of the API."""

    machines: dict[str, Stack]
    port: int
    records: Records

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=90)
        try:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            content: Json = json.loads(answer.read())
        finally:
            connection.close()
        assert answer.status < 300, content
        return content

    def machine_of(self, owner: str) -> str:
        """Which machine the process of an attempt (`host:pid`) is on."""
        pool = psutil.Process(int(owner.rpartition(":")[2]))
        pids = {pool.pid, *(parent.pid for parent in pool.parents())}
        [name] = [name for name, stack in self.machines.items() if stack.pid_of(name) in pids]
        return name


@contextlib.contextmanager
def running_fleet(database_url: str, redis_url: str, store: S3Server, training: list[str]) -> Iterator[Fleet]:
    """Machines that train, one that predicts, one that sweeps, and one with the API."""
    options = S3Options(store.endpoint_url, "us-east-1", store.access_key_id, store.secret_access_key)
    bucket = S3Objects("fleet", "yard", options)
    bucket._client().create_bucket(Bucket="fleet")
    port = free_port()
    machines: dict[str, Stack] = {}
    records = Records.connect(database_url)
    with short_folder() as folder, contextlib.ExitStack() as started:
        started.callback(records.close)
        for name in ("api", *training, "predict-xgboost", "control"):
            home = folder / name
            (home / "data").mkdir(parents=True)
            settings = Settings.from_env(
                {
                    "MODELYARD_HOME": str(home),
                    "MODELYARD_PORT": str(port),
                    "MODELYARD_FLOWER_PORT": "0",
                    "MODELYARD_DATABASE_URL": database_url,
                    "MODELYARD_REDIS_URL": redis_url,
                    "MODELYARD_OBJECTS_URL": "s3://fleet/yard",
                    "MODELYARD_S3_ENDPOINT_URL": store.endpoint_url,
                    "MODELYARD_CHECKPOINT_S": "0.2",
                    "MODELYARD_TRAIN_WORKERS": "2",
                    "MODELYARD_THREADS": "1",
                }
            )
            [service] = [each for each in services_of(settings) if each.name == name]
            service = dataclasses.replace(service, env={**service.env, **store.environment()})
            steps = steps_of(settings) if name == "api" else []
            steps = [dataclasses.replace(each, env={**each.env, **store.environment()}) for each in steps]
            machines[name] = Stack(settings, [service], steps)
        try:
            for stack in machines.values():
                stack.start()
            machines["api"].wait_ready(100)
            yield Fleet(machines, port, records)
        finally:
            for stack in machines.values():
                stack.ask_stop()
            for stack in machines.values():
                stack.stop()
                assert guard.marked(stack.mark) == []
        for name, stack in machines.items():
            # Nothing that counts is kept on a machine.
            here = {path.name for path in stack.settings.home.iterdir()}
            assert not here & {"records.db", "objects"}, (name, here)
            assert list(stack.settings.scratch.glob("*")) == [], name


def data() -> tuple[list[str], np.ndarray, np.ndarray]:
    """Lines with a header, and what they say: inputs, shape (ROWS, 8), and one of three kinds."""
    numbers = np.random.default_rng(17)
    inputs = numbers.normal(size=(ROWS, 8)).round(3)
    value = inputs[:, :4].sum(axis=1) + inputs[:, 4] * inputs[:, 5] + numbers.normal(size=ROWS)
    kinds = np.digitize(value, [-1.0, 1.0])
    lines = [",".join([*(f"x{column}" for column in range(8)), "kind"])]
    rows = zip(inputs.tolist(), kinds.tolist(), strict=True)
    lines += [",".join([*map(str, row), str(kind)]) for row, kind in rows]
    return lines, inputs, kinds


def start_training(fleet: Fleet, name: str, lines: list[str], iterations: int) -> int:
    fleet.call(
        "PUT",
        f"/services/{name}",
        {
            "mllib": "xgboost",
            "description": "",
            "model": {"repository": name},
            "parameters": {"input": {"connector": "csv", "label": "kind"}, "mllib": {"nclasses": 3}, "output": {}},
        },
    )
    answer = fleet.call(
        "POST",
        "/train",
        {
            "service": name,
            "async": True,
            "parameters": {
                "input": {"test_split": 0.2},
                "mllib": {"iterations": iterations, "test_interval": INTERVAL, "booster_params": BOOSTER},
                "output": {"measure": ["acc", "mcll"]},
            },
            "data": lines,
        },
    )
    return int(answer["head"]["task_id"])


def predicted(fleet: Fleet, name: str, rows: np.ndarray) -> np.ndarray:
    lines = [",".join(f"x{column}" for column in range(8)), *(",".join(map(str, row)) for row in rows.tolist())]
    request = {"service": name, "parameters": {"output": {"best": -1}}, "data": lines}
    found = np.empty((len(rows), 3))
    for row, each in enumerate(fleet.call("POST", "/predict", request)["body"]["predictions"]):
        for one in each["classes"]:
            found[row, int(one["cat"])] = one["prob"]
    return found


def direct(inputs: np.ndarray, kinds: np.ndarray, rounds: int) -> xgboost.Booster:
    """xgboost itself, on the rows that `test_split` leaves to train on."""
    rows = ROWS * 4 // 5
    wanted = {**BOOSTER, "objective": "multi:softprob", "num_class": 3, "nthread": 1, "seed": 0}
    return xgboost.train(wanted, xgboost.DMatrix(inputs[:rows].astype(np.float32), label=kinds[:rows]), rounds)


def assert_equal_to_xgboost(fleet: Fleet, name: str, inputs: np.ndarray, kinds: np.ndarray, rounds: int) -> None:
    """Histories and predictions of a finished training are those of xgboost called directly."""
    rows = ROWS * 4 // 5
    booster = direct(inputs, kinds, rounds)
    rest = xgboost.DMatrix(inputs[rows:].astype(np.float32))
    hist = fleet.call("GET", f"/train?service={name}&job=1")["body"]["measure_hist"]
    assert hist["iteration_hist"] == [*range(INTERVAL, rounds - 1, INTERVAL), rounds - 1]
    guessed = [
        booster.predict(rest, iteration_range=(0, iteration + 1)).argmax(axis=1) for iteration in hist["iteration_hist"]
    ]
    assert hist["acc_hist"] == pytest.approx([float((each == kinds[rows:]).mean()) for each in guessed])
    some = inputs[-50:]
    expected = booster.predict(xgboost.DMatrix(some.astype(np.float32)))
    np.testing.assert_allclose(predicted(fleet, name, some), expected, atol=1e-6)


def test_killed_training_goes_on_at_another_machine_and_a_third_predicts(
    postgres_url: str, guarded_redis: str, rclone_server: S3Server
):
    # rclone checks the signature of every request.
    with running_fleet(postgres_url, guarded_redis, rclone_server, ["train1", "train2"]) as fleet:
        lines, inputs, kinds = data()
        task_id = start_training(fleet, "moves", lines, ROUNDS)
        assert "data_key" in fleet.records.tasks.spec(task_id), "so many lines go through the object store"

        # Once a checkpoint is stored: kill the training process, then take its machine away.
        until(lambda: fleet.records.tasks.get(task_id).checkpoint)
        [first] = fleet.records.tasks.attempts(task_id)
        machine = fleet.machine_of(first.owner)
        pool = psutil.Process(int(first.owner.rpartition(":")[2]))
        # One process waits for each engine; the one of xgboost has become this training.
        [training] = [child for child in pool.children() if {"ml.training.run", "xgboost"} <= set(child.cmdline())]
        training.send_signal(signal.SIGKILL)
        until(lambda: fleet.records.tasks.attempts(task_id)[0].outcome)
        fleet.machines[machine].stop()

        until(lambda: fleet.records.tasks.get(task_id).state.is_final, 120)
        told = fleet.call("GET", f"/tasks/{task_id}")
        assert (told["state"], told["version"]) == ("finished", 1), told
        tries = told["attempts"]
        assert tries[0]["outcome"] == "killed"
        assert tries[0]["failure"]["signal"] == "SIGKILL"
        # The machine may have begun again before it left; then it handed on what it held.
        assert [each["outcome"] for each in tries[1:]] in (["finished"], ["paused", "finished"])
        assert all(each["resumed_iteration"] > 0 for each in tries[1:])
        assert fleet.machine_of(tries[-1]["worker"]) in {"train1", "train2"} - {machine}
        assert_equal_to_xgboost(fleet, "moves", inputs, kinds, ROUNDS)
        prediction = fleet.machines["predict-xgboost"].settings
        assert list((prediction.cache / "entries").iterdir()), "it has the model from the object store"


def test_fleet_works_with_a_store_that_answers_as_aws_does(
    postgres_url: str, guarded_redis: str, moto_server: S3Server
):
    with running_fleet(postgres_url, guarded_redis, moto_server, ["train1"]) as fleet:
        lines, inputs, kinds = data()
        task_id = start_training(fleet, "stays", lines, 60)
        until(lambda: fleet.records.tasks.get(task_id).state.is_final)
        told = fleet.call("GET", f"/tasks/{task_id}")
        assert (told["state"], told["version"], len(told["attempts"])) == ("finished", 1, 1), told
        assert_equal_to_xgboost(fleet, "stays", inputs, kinds, 60)
