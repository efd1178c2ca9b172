"""A backup that is made under load, restored into an empty home, is whole and goes on."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import settings as settings_module
from cli.stack import Stack
from settings import Settings
from storage.records import Records
from tests.services import free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(480)]

ROOT = Path(settings_module.__file__).parent
FLOWERS = ["5.1,3.5,1.4,0.2", "6.2,3.4,5.4,2.3", "5.9,3.0,4.2,1.5"]
FINAL = {"finished", "failed", "cancelled"}
Json = dict[str, Any]


@dataclass
class Yard:
    """An installation, with a client whose key the commands made."""

    settings: Settings
    key: str = ""

    def command(self, *words: str, code: int = 0) -> str:
        """What a command of the installation prints; to standard error too when it fails as expected."""
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "cli.main", *words],
            env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), **self.settings.to_env()},
            cwd=self.settings.home.parent,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout if code == 0 else done.stdout + done.stderr

    def ask(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Json]:
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", self.settings.port, timeout=90)
        try:
            connection.request(method, path, content, {"X-API-KEY": self.key, **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        status, answer = self.ask(method, path, body, **headers)
        assert status < 300, answer
        return answer

    def create(self, name: str, repository: str) -> None:
        body = {
            "mllib": "xgboost",
            "description": "",
            "model": {"repository": repository, "create_repository": True},
            "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}, "output": {}},
        }
        self.call("PUT", f"/services/{name}", body)

    def train(self, name: str, data: str, iterations: int) -> int:
        parameters = {"input": {"shuffle": True, "seed": 1}, "mllib": {"iterations": iterations}, "output": {}}
        body = {"service": name, "async": True, "parameters": parameters, "data": [data]}
        return int(self.call("POST", "/train", body)["head"]["task_id"])

    def upload(self, name: str, content: bytes) -> None:
        self.call("PUT", f"/datasets/{name}")
        form = (
            b'--x\r\nContent-Disposition: form-data; name="file"; filename="iris.csv"\r\n\r\n'
            + content
            + b"\r\n--x--\r\n"
        )
        self.call("POST", f"/datasets/{name}/files", form, **{"Content-Type": "multipart/form-data; boundary=x"})

    def predict(self, name: str) -> Json:
        body = {"service": name, "parameters": {"output": {"best": -1}}, "data": FLOWERS}
        found: Json = self.call("POST", "/predict", body)["body"]
        return found

    def ended(self, task_ids: list[int], timeout_s: float = 100.0) -> list[Json]:
        deadline = time.monotonic() + timeout_s
        while True:
            told: list[Json] = self.call("GET", f"/tasks?ids={','.join(map(str, task_ids))}")["tasks"]
            if all(each["state"] in FINAL for each in told):
                return told
            assert time.monotonic() < deadline, told
            time.sleep(0.05)


@pytest.fixture
def folder() -> Iterator[Path]:
    with short_folder() as made:
        yield made


def _load(yard: Yard, over: threading.Event, faults: list[str]) -> None:
    """Services, data sets and their ends, as fast as they are answered."""
    iris = (ROOT / "examples" / "data" / "iris.csv").read_bytes()
    for number in range(10_000):
        if over.is_set():
            return
        try:
            yard.upload(f"passing{number}", iris)
            yard.create(f"passing{number}", f"passing{number}")
            if number < 8:  # all of them wait behind the long one, and are worked off after the restore
                yard.train(f"passing{number}", f"dataset://passing{number}/iris.csv", 5)
            if number:
                yard.call("DELETE", f"/datasets/passing{number - 1}")
                yard.call("DELETE", f"/services/passing{number - 1}", {"clear": "lib"})
        except AssertionError as error:
            faults.append(str(error))
            return


def test_backup_under_load_is_whole_and_goes_on_elsewhere(folder: Path):
    settings = Settings(home=folder / "home", port=free_port(), flower_port=0, threads=1, checkpoint_s=0.2)
    yard, copy = Yard(settings), folder / "copy"
    iris = (ROOT / "examples" / "data" / "iris.csv").read_bytes()
    (settings.home / "data").mkdir(parents=True)
    (settings.home / "data" / "iris.csv").write_bytes(iris)
    with Stack(settings) as stack:
        stack.wait_ready(90)
        yard.key = yard.command("keys", "create", "--account", "me").strip()
        yard.upload("flowers", iris)
        yard.create("kept", "kept")
        yard.create("shown", str(settings.home / "data" / "shown"))
        trained = [yard.train("kept", "dataset://flowers/iris.csv", 30), yard.train("shown", "iris.csv", 30)]
        assert {each["state"] for each in yard.ended(trained)} == {"finished"}
        right = {name: yard.predict(name) for name in ("kept", "shown")}
        yard.create("long", "long")
        running = yard.train("long", "iris.csv", 1_000_000)
        waiting = yard.train("long", "iris.csv", 10)
        over, faults = threading.Event(), []
        load = threading.Thread(target=_load, args=(yard, over, faults))
        load.start()
        try:
            records = Records.connect(settings.database_url)
            with contextlib.closing(records):
                deadline = time.monotonic() + 120
                while records.tasks.get(running).checkpoint is None:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            told = yard.command("backup", str(copy))
        finally:
            over.set()
            load.join()
        assert not faults, faults
        assert "is complete" in told
        assert "is not empty" in yard.command("backup", str(copy), code=1)
        newest = max(int(each.name) for each in (copy / "objects" / "attempts").iterdir())
    settings.home.rename(folder / "lost")
    assert "is restored" in yard.command("restore", str(copy))
    assert " 0 of them missing or damaged" in yard.command("verify", "--contents")
    assert "there already" in yard.command("restore", str(copy), code=1)
    with Stack(settings) as stack:
        stack.wait_ready(90)
        assert yard.ask("GET", "/services", **{"X-API-KEY": "my-guess"})[0] == 401
        assert {name: yard.predict(name) for name in right} == right
        # What was under way goes on, what waited comes after it, what was over stays.
        assert yard.call("GET", f"/tasks/{running}")["state"] in ("queued", "running")
        yard.call("DELETE", f"/tasks/{running}")
        told = {each["task_id"]: each["state"] for each in yard.ended([running, waiting, *trained])}
        assert told == {running: "cancelled", waiting: "finished", **dict.fromkeys(trained, "finished")}
        attempts = yard.call("GET", f"/tasks/{running}")["attempts"]
        assert attempts[0]["outcome"] == "lost", attempts
        # New tasks get numbers, and places in the store, that no task of the lost time had.
        again = [yard.train(name, "dataset://flowers/iris.csv", 30) for name in right]
        assert {each["state"] for each in yard.ended(again)} == {"finished"}
        assert min(again) > newest
    assert " 0 of them missing or damaged" in yard.command("verify", "--contents")
