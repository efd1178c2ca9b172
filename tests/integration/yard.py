"""The API and the workers in one process: what the API sends is done at once, by the real code on real stores."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

from api.app import create_app
from settings import Settings
from storage.live import Taken
from storage.records import Kind, State, Task, Version
from workers.asked import Answer, Asked
from workers.bulk import Prediction
from workers.child import Standby
from workers.clearing import clear_repository
from workers.describing import describe
from workers.lifecycle import run_task
from workers.origins import import_model
from workers.parts import Parts
from workers.predicting import Predictor
from workers.queue import Queue
from workers.scratch import Scratch
from workers.training import Training
from workers.uploading import complete

Json = dict[str, Any]

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"


class Yard:
    """Sends requests to an API whose queue is a worker of this very process."""

    def __init__(self, parts: Parts, training: Training, standby: Standby) -> None:
        self.parts = dataclasses.replace(parts, queue=cast(Queue, self))
        training._parts = self.parts
        self._training = training
        self._standby = standby
        self._predictor = Predictor(self.parts)
        self._asking = Prediction(self.parts, training._scratch, lambda: False)
        self.is_idle = False
        """Whether messages are left lying, as if no worker ran."""
        self.before: Callable[[Task], None] = lambda task: None
        """Called before each task that is worked on."""
        self.app = create_app(parts.settings, parts.records, parts.live, self, parts.objects)
        self.client = self.app.test_client()
        [self.data] = parts.settings.data_roots
        header, *rows = (EXAMPLES / "iris.csv").read_text().splitlines()
        words = ("setosa", "versicolor", "virginica")
        named = (f"{row.rpartition(',')[0]},{words[int(row.rpartition(',')[2])]}" for row in rows)
        (self.data / "iris.csv").write_text("\n".join([header, *named]) + "\n")

    # The way to the workers

    def send_task(self, task: Task) -> bool:
        self.parts.records.tasks.mark_sent([task.id])
        if self.is_idle:
            return True
        self.before(task)
        if task.kind is Kind.TRAIN:
            self._standby.prepare()
            run_task(task.id, self.parts, self._training)
        elif task.kind is Kind.CLEAR:
            run_task(task.id, self.parts, lambda attempt, lease: clear_repository(self.parts, attempt, lease))
        elif task.kind is Kind.PREDICT:
            way = self.parts.records.tasks.spec(task.id)["way"]
            run_task(task.id, self.parts, self._asking.ask if way == "ask" else self._asking.compute)
        elif task.kind is Kind.UPLOAD:
            run_task(task.id, self.parts, lambda attempt, lease: complete(self.parts, attempt, lease))
        elif task.kind is Kind.DESCRIBE:
            run_task(task.id, self.parts, lambda attempt, lease: describe(self.parts, attempt, lease))
        else:
            run_task(task.id, self.parts, lambda attempt, lease: import_model(self.parts, attempt, lease))
        return True

    def send_tasks(self, tasks: list[Task]) -> int:
        return sum(self.send_task(task) for task in tasks)

    def predict(
        self, asked: Asked, lane: str, batch: str, timeout_s: float, *_: object, request_id: str = "1"
    ) -> Answer:
        [(_, answer)] = self._predictor.answer([Taken(request_id.encode(), 0.0, asked.joined())])
        return Answer.split(answer)

    # What tests do

    def call(self, verb: str, path: str, body: Any = None, *, code: int = 200, key: str | None = None) -> Json:
        """The JSON of an answer whose status must be `code`."""
        headers = {} if key is None else {"X-API-KEY": key}
        answer = self.client.open(path, method=verb, json=body, headers=headers)
        assert answer.status_code == code, answer.text
        found: Json = answer.json
        return found

    def body(self, repository: Path | str, **changes: Any) -> Json:
        body: Json = {
            "mllib": "xgboost",
            "description": "iris",
            "model": {"repository": str(repository), "create_repository": True},
            "parameters": {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3}, "output": {}},
        }
        for name, value in changes.items():
            body[name] = {**body[name], **value} if isinstance(body.get(name), dict) else value
        return body

    def create(self, name: str, repository: Path | str, *, code: int = 201, **changes: Any) -> Json:
        return self.call("PUT", f"/services/{name}", self.body(repository, **changes), code=code)

    def network(self, repository: Path | str, mllib: str = "torch", **more: Any) -> Json:
        """What a service of a small network differs in from `body`."""
        options = {"nclasses": 3, "template": "mlp", "layers": [8], **more}
        section = {"connector": "csv", "label": "species", "scale": True}
        return self.body(repository, mllib=mllib, parameters={"input": section, "mllib": options})

    def learn(self, service: str, iterations: int = 20, *, interval: int = 5, **mllib: Any) -> Json:
        """The answer of GET /train at the end of the training of a network."""
        solver = {"solver_type": "ADAM", "base_lr": 0.05, **mllib.pop("solver", {})}
        solver |= {"iterations": iterations, "test_interval": interval}
        return self.train(service, solver=solver, net={"batch_size": 32}, **mllib)

    def train(
        self,
        service: str,
        iterations: int | None = None,
        *,
        data: list[str] | None = None,
        code: int = 201,
        **mllib: Any,
    ) -> Json:
        """The answer of GET /train at the end of a training."""
        output = {"measure": ["acc", "f1"], **mllib.pop("output", {})}
        asked = {
            "service": service,
            "async": True,
            "parameters": {
                "input": {"test_split": 0.3, "shuffle": True, "seed": 1},
                "mllib": {**({} if iterations is None else {"iterations": iterations}), **mllib},
                "output": output,
            },
            "data": data or [str(self.data / "iris.csv")],
        }
        job = self.call("POST", "/train", asked, code=code)["head"]["job"]
        return self.call("GET", f"/train?service={service}&job={job}")

    def describe(self, service: str) -> Json:
        found: Json = self.call("GET", f"/services/{service}?labels=true")["body"]
        return found

    def prediction(self, service: str) -> list[str]:
        """The classes of the first, the middle and the last flower."""
        rows = (self.data / "iris.csv").read_text().splitlines()
        asked = [",".join(row.split(",")[:4]) for row in (rows[1], rows[75], rows[150])]
        answer = self.call("POST", "/predict", {"service": service, "parameters": {}, "data": asked})
        return [each["classes"][0]["cat"] for each in answer["body"]["predictions"]]

    def versions(self, repository: Path | str, account: str = "local") -> list[Version]:
        records = self.parts.records
        found = records.repositories.named(account, str(repository))
        return [records.versions.get(each.id) for each in records.versions.all_of(found.id)]

    def tasks(self, kind: Kind) -> list[Task]:
        """All tasks of a kind, oldest first."""
        records = self.parts.records
        account = records.accounts.ensure("local")
        return records.tasks.page(account.id, limit=100, kind=kind)[::-1]


def names(folder: Path) -> list[str]:
    return sorted(each.name for each in folder.iterdir())


def read(path: Path) -> Any:
    return json.loads(path.read_text())


@contextmanager
def running_yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    parts = Parts.make(dataclasses.replace(settings, redis_url=redis_url))
    parts.records.upgrade()
    scratch = Scratch(parts.settings.scratch)
    standby = Standby(scratch.folder, 1, [])
    yard = Yard(parts, Training(parts, scratch, standby, lambda: False), standby)
    try:
        yield yard
    finally:
        # What it counted would be told a second later, to the Redis of the next test.
        yard.app.extensions["modelyard"].finish()
        standby.close()
        scratch.close()
        parts.live.close()
        parts.records.close()


__all__ = ["Json", "State", "Yard", "names", "read", "running_yard"]
