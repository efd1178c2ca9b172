"""Going on with an earlier training, over HTTP: the same as one long training, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Client

pytestmark = pytest.mark.servers

Json = dict[str, Any]
NETWORK = {
    "template": "mlp",
    "layers": [12],
    "nclasses": 2,
    "solver": {"test_interval": 100, "solver_type": "ADAM", "base_lr": 0.01},
    "net": {"batch_size": 25, "test_batch_size": 100},
}
OPTIONS: dict[str, Json] = {
    "xgboost": {"nclasses": 2, "test_interval": 100, "booster_params": {"max_depth": 2, "subsample": 0.7}},
    "torch": NETWORK,
    "caffe": NETWORK,
}


def rows(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    inputs = np.random.default_rng(6).normal(size=(200, 4))
    lines = [",".join([*map(repr, map(float, row)), str(int(row[0] * row[1] > 0))]) for row in inputs]
    (folder / "rows.csv").write_text("\n".join(["a,b,c,d,y", *lines]) + "\n")
    return str(folder / "rows.csv")


class Service:
    """A service of its own, and trainings on the same rows."""

    def __init__(self, client: Client, name: str, library: str) -> None:
        self.client, self.name, self.library = client, name, library
        self.folder = client.data / "resume" / name
        self.data = rows(self.folder)
        self.create()

    def create(self) -> None:
        body = {
            "mllib": self.library,
            "description": "going on",
            "model": {"repository": str(self.folder / "model"), "create_repository": True},
            "parameters": {
                "input": {"connector": "csv", "label": "y", "test_split": 0.2, "shuffle": True, "seed": 1},
                "mllib": OPTIONS[self.library],
                "output": {"measure": ["acc", "mcll"]},
            },
        }
        answer = self.client.call("PUT", f"/services/{self.name}", body)
        assert answer.code == 201, answer.json

    def train(self, iterations: int, **mllib: Any) -> Json:
        """The answer of a blocking training."""
        wanted = {"iterations": iterations} if self.library == "xgboost" else {"solver": {"iterations": iterations}}
        parameters = {"mllib": {**wanted, **mllib}, "output": {"measure_hist": True}}
        body = {"service": self.name, "async": False, "parameters": parameters, "data": [self.data]}
        found: Json = self.client.call("POST", "/train", body).json
        return found

    def probabilities(self) -> list[float]:
        lines = [f"{a},{b},0.5,-0.5" for a in (-1, 0.2, 1) for b in (-1, 0.3, 1)]
        body = {"service": self.name, "parameters": {"output": {"best": -1}}, "data": lines}
        answer = self.client.call("POST", "/predict", body)
        assert answer.code == 200, answer.json
        return [
            next(each["prob"] for each in row["classes"] if each["cat"] == "1")
            for row in answer.json["body"]["predictions"]
        ]


@pytest.mark.parametrize("library", list(OPTIONS))
def test_two_trainings_the_second_with_resume_are_one_long_training(client: Client, library: str) -> None:
    halves = Service(client, f"halves-{library}", library)
    whole = Service(client, f"whole-{library}", library)
    assert halves.train(200)["status"]["code"] == 201
    resumed = halves.train(400, resume=True)
    assert resumed["status"]["code"] == 201, resumed
    longer = whole.train(400)
    assert longer["status"]["code"] == 201, longer
    # A training ends with a test, so the first half was tested after its last iteration as well.
    last = 199 if library != "torch" else 200
    tests = [number for number in resumed["body"]["measure_hist"]["iteration_hist"] if number != last or last == 200]
    assert tests == longer["body"]["measure_hist"]["iteration_hist"]
    assert halves.probabilities() == whole.probabilities()
    assert resumed["body"]["measure"]["mcll"] == longer["body"]["measure"]["mcll"]
    assert halves.train(400, resume=True)["status"]["code"] == 201  # nothing is left to do but to test


@pytest.mark.parametrize("library", ["torch", "caffe"])
def test_state_without_resume_and_resume_without_state_are_refused(client: Client, library: str) -> None:
    service = Service(client, f"state-{library}", library)
    refused = service.train(50, resume=True)["status"]
    assert (refused["code"], refused["dd_code"]) == (400, 1006)
    assert "resuming a model requires a solverstate" in refused["dd_msg"]
    assert service.train(50)["status"]["code"] == 201
    refused = service.train(100)["status"]
    assert (refused["code"], refused["dd_code"]) == (400, 1006)
    assert "requires a resume argument for training" in refused["dd_msg"]
    assert "clear=lib" in refused["dd_msg"]
    # The cure that the text names.
    assert client.call("DELETE", f"/services/{service.name}?clear=lib").code == 200
    service.create()
    assert service.train(50)["status"]["code"] == 201


def test_trees_cannot_go_on_without_a_model_and_start_anew_without_resume(client: Client) -> None:
    service = Service(client, "state-xgboost", "xgboost")
    refused = service.train(5, resume=True)["status"]
    assert (refused["code"], refused["dd_code"]) == (400, 1006)
    assert service.train(30)["status"]["code"] == 201
    first = service.probabilities()
    assert service.train(30)["status"]["code"] == 201
    assert service.probabilities() == first
