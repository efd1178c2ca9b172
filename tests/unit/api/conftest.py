"""An app with real records on SQLite, a folder for objects, and fakes for Redis and the workers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.app import create_app
from settings import Settings
from storage.live import Live
from storage.objects import connect
from storage.objects.base import Objects
from storage.records import Artifact, NewVersion, Records, State
from tests.documented import watch
from tests.unit.api.fakes import FakeLive, FakeQueue

Json = dict[str, Any]


@pytest.fixture(scope="session")
def empty_records(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with tables and nothing in them, copied for each test: making the tables takes longer."""
    path = tmp_path_factory.mktemp("records") / "records.db"
    records = Records.connect(f"sqlite:///{path}")
    records.upgrade()
    records.close()
    return path


@pytest.fixture
def records(empty_records: Path, settings: Settings) -> Iterator[Records]:
    shutil.copy(empty_records, settings.home / "records.db")
    records = Records.connect(settings.database_url)
    yield records
    records.close()


@pytest.fixture
def live() -> FakeLive:
    return FakeLive()


@pytest.fixture
def queue(records: Records, live: FakeLive) -> FakeQueue:
    return FakeQueue(records, live)


@pytest.fixture
def objects(settings: Settings) -> Objects:
    return connect(settings.objects_url)


@pytest.fixture
def app(settings: Settings, records: Records, live: FakeLive, queue: FakeQueue, objects: Objects) -> Iterator[Flask]:
    """All that it answers must be as its OpenAPI document says."""
    made = create_app(settings, records, cast(Live, live), queue, objects)
    undocumented: list[str] = []
    watch(made, undocumented)
    yield made
    made.extensions["modelyard"].finish()
    assert undocumented == []


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def data(settings: Settings) -> Path:
    """The data root, with a small table in it."""
    [root] = settings.data_roots
    (root / "train.csv").write_text("a,b,target\n1,2,0\n3,4,1\n5,6,2\n")
    return root


class Yard:
    """What tests do again and again: services, trainings, and a worker's part of them."""

    def __init__(self, client: FlaskClient, records: Records, data: Path) -> None:
        self.client = client
        self.records = records
        self.data = data

    def service_body(self, **changes: Any) -> Json:
        return {
            "mllib": "xgboost",
            "description": "iris",
            "model": {"repository": str(self.data / "model"), "create_repository": True},
            "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {}},
            **changes,
        }

    def create(self, name: str = "iris", **changes: Any) -> None:
        answer = self.client.put(f"/services/{name}", json=self.service_body(**changes))
        assert answer.status_code == 201, answer.text

    def train_body(self, **changes: Any) -> Json:
        return {
            "service": "iris",
            "async": True,
            "parameters": {"input": {"label": "target"}, "mllib": {"iterations": 5}, "output": {"measure": ["acc"]}},
            "data": [str(self.data / "train.csv")],
            **changes,
        }

    def train(self, **changes: Any) -> int:
        answer = self.client.post("/train", json=self.train_body(**changes))
        assert answer.status_code == 201, answer.text
        return int(answer.json["head"]["task_id"])

    def finish(self, task_id: int, state: State = State.FINISHED, failure: Json | None = None) -> None:
        """Do a worker's part: claim a task and end it, with a version when it is a training that finished."""
        attempt = self.records.tasks.claim(task_id, "worker", 20.0)
        assert attempt is not None
        version = None
        if state is State.FINISHED and attempt.task.kind in ("train", "import"):
            artifact = Artifact("0005.model", f"{attempt.prefix}/model/0005.model", 12, "0" * 64)
            description = {"labels": ["setosa", "versicolor", "virginica"], "mltype": "classification"}
            version = NewVersion(f"{attempt.prefix}/model", description, [artifact])
        report = None if state is State.FAILED else dict(REPORT)
        self.records.tasks.end(
            attempt,
            state,
            phases={"claiming": 0.01, "reading": 0.2, "training": 1.5, "saving": 0.1, "publishing": 0.05},
            report=report,
            version=version,
            failure=failure,
        )


REPORT: Json = {
    "measure": {"acc": 0.75, "iteration": 4, "test_id": 0, "test_name": "test.csv"},
    "measures": [{"acc": 0.75, "test_id": 0, "test_name": "test.csv"}],
    "measure_hist": {"acc_hist": [0.5, 0.6, 0.7, 0.72, 0.75], "iteration_hist": [0, 1, 2, 3, 4]},
    "parameters": {"input": {"connector": "csv"}},
    "mltype": "classification",
    "warnings": [],
    "iteration": 4,
}


@pytest.fixture
def yard(client: FlaskClient, records: Records, data: Path) -> Yard:
    return Yard(client, records, data)
