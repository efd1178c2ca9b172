"""Trainings and predictions over HTTP, number by number against xgboost called directly on the same split."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost
from sklearn import datasets, metrics
from sklearn.model_selection import train_test_split

from tests.e2e.conftest import Client

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

ROUNDS = 25
INTERVAL = 4
SEED = 11
BOOSTER = {"eta": 0.25, "max_depth": 4, "subsample": 1.0}


@dataclass(frozen=True)
class Case:
    """A data set of scikit-learn and what is trained on it."""

    name: str
    load: Callable[[], Any]
    objective: str
    classes: int
    measures: tuple[str, ...]

    @property
    def is_regression(self) -> bool:
        return self.classes == 0


CASES = (
    Case("iris", datasets.load_iris, "multi:softprob", 3, ("acc", "mcll", "f1")),
    Case("wine", datasets.load_wine, "multi:softprob", 3, ("acc", "mcll", "f1")),
    Case("cancer-multi", datasets.load_breast_cancer, "multi:softprob", 2, ("acc", "mcll", "f1", "auc")),
    Case("cancer-binary", datasets.load_breast_cancer, "binary:logistic", 2, ("acc", "mcll", "f1", "auc")),
    Case("diabetes", datasets.load_diabetes, "reg:squarederror", 0, ("eucll",)),
)


@dataclass(frozen=True)
class Split:
    """The same rows for both sides: files for the server, arrays for the direct call."""

    train: Path
    test: Path
    unlabelled: Path
    train_inputs: np.ndarray
    train_labels: np.ndarray
    test_inputs: np.ndarray
    test_labels: np.ndarray

    @classmethod
    def write(cls, case: Case, folder: Path) -> Split:
        """Split with scikit-learn, and write each number in full."""
        found = case.load()
        parts = train_test_split(
            found.data,
            found.target,
            test_size=0.3,
            random_state=5,
            stratify=None if case.is_regression else found.target,
        )
        inputs, test_inputs, labels, test_labels = parts
        folder.mkdir()
        paths = [folder / f"{name}.csv" for name in ("train", "test", "unlabelled")]
        columns = [f"x{number}" for number in range(inputs.shape[1])]
        write_csv(paths[0], [*columns, "target"], np.column_stack([inputs, labels]))
        write_csv(paths[1], [*columns, "target"], np.column_stack([test_inputs, test_labels]))
        write_csv(paths[2], columns, test_inputs)
        return cls(*paths, inputs, labels, test_inputs, test_labels)


def write_csv(path: Path, columns: list[str], rows: np.ndarray) -> None:
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows.tolist())


class Direct:
    """xgboost itself, with the settings of the request and nothing of ours in between."""

    def __init__(self, case: Case, split: Split, booster: dict[str, float]) -> None:
        self._case = case
        self._test = xgboost.DMatrix(split.test_inputs.astype(np.float32))
        self.labels = split.test_labels
        train = xgboost.DMatrix(split.train_inputs.astype(np.float32), label=split.train_labels)
        wanted: dict[str, Any] = {**booster, "objective": case.objective, "seed": SEED, "nthread": 1}
        if case.objective == "multi:softprob":
            wanted["num_class"] = case.classes
        self._booster = xgboost.train(wanted, train, ROUNDS)

    def outputs(self, rounds: int = ROUNDS) -> np.ndarray:
        """Values, or probabilities of shape (rows, classes), of the first `rounds` rounds."""
        found = self._booster.predict(self._test, iteration_range=(0, rounds))
        return np.column_stack([1 - found, found]) if self._case.objective == "binary:logistic" else found

    def trees(self) -> list[Any]:
        """Every tree with its splits and leaves."""
        return [json.loads(tree) for tree in self._booster.get_dump(dump_format="json")]

    def measures(self, rounds: int = ROUNDS) -> dict[str, float]:
        """What scikit-learn finds, and numpy for `eucll`, the mean distance."""
        outputs = self.outputs(rounds).astype(np.float64)
        if self._case.is_regression:
            return {"eucll": float(np.abs(outputs - self.labels).mean())}
        outputs /= outputs.sum(axis=1, keepdims=True)  # they add up to one in single precision only
        guessed = outputs.argmax(axis=1)
        found = {
            "acc": metrics.accuracy_score(self.labels, guessed),
            "mcll": metrics.log_loss(self.labels, outputs),
            "f1": metrics.f1_score(self.labels, guessed, average="macro"),
        }
        if "auc" in self._case.measures:
            found["auc"] = metrics.roc_auc_score(self.labels, self.outputs(rounds)[:, 1])
        return found


@dataclass(frozen=True)
class Trained:
    """One case, trained on both sides."""

    case: Case
    service: str
    split: Split
    direct: Direct
    body: dict[str, Any]


def train(client: Client, case: Case, name: str, split: Split, booster: dict[str, float]) -> dict[str, Any]:
    """Create the service, train it and return the body of the last poll."""
    size = {"ntargets": 1, "regression": True} if case.is_regression else {"nclasses": case.classes}
    made = client.call(
        "PUT",
        f"/services/{name}",
        {
            "mllib": "xgboost",
            "description": case.name,
            "model": {"repository": str(client.data / "models" / name), "create_repository": True},
            "parameters": {"input": {"connector": "csv", "label": "target"}, "mllib": size, "output": {}},
        },
    )
    assert made.code == 201, made.json
    started = client.call(
        "POST",
        "/train",
        {
            "service": name,
            "async": True,
            "parameters": {
                "input": {},
                "mllib": {
                    "objective": case.objective,
                    "iterations": ROUNDS,
                    "test_interval": INTERVAL,
                    "seed": SEED,
                    "booster_params": booster,
                },
                "output": {"measure": list(case.measures)},
            },
            "data": [str(split.train), str(split.test)],
        },
    )
    assert started.code == 201, started.json
    assert "warnings" not in started.json["head"]
    polled = client.call("GET", f"/train?service={name}&job={started.json['head']['job']}&timeout=60").json
    assert polled["head"]["status"] == "finished", polled
    assert "warnings" not in polled["head"]
    body: dict[str, Any] = polled["body"]
    return body


@pytest.fixture(scope="module", params=CASES, ids=[case.name for case in CASES])
def trained(request: pytest.FixtureRequest, client: Client) -> Trained:
    case: Case = request.param
    name = f"against-{case.name}"
    split = Split.write(case, client.data / name)
    return Trained(case, name, split, Direct(case, split, BOOSTER), train(client, case, name, split, BOOSTER))


def ask(client: Client, service: str, data: list[str], **output: Any) -> Any:
    answer = client.call(
        "POST",
        "/predict",
        {"service": service, "parameters": {"input": {}, "mllib": {}, "output": output}, "data": data},
    )
    assert answer.code == 200, answer.json
    return answer.json["body"]


def table(case: Case, predictions: list[dict[str, Any]]) -> np.ndarray:
    """Predictions as xgboost gives them, in the order of the rows that `uri` counts from 1."""
    assert [each["uri"] for each in predictions] == [str(row) for row in range(1, len(predictions) + 1)]
    if case.is_regression:
        return np.array([each["vector"][0]["val"] for each in predictions])
    found = np.empty((len(predictions), case.classes))
    for row, each in enumerate(predictions):
        assert {one["cat"] for one in each["classes"]} == {str(label) for label in range(case.classes)}
        shares = [one["prob"] for one in each["classes"]]
        assert shares == sorted(shares, reverse=True)
        found[row, [int(one["cat"]) for one in each["classes"]]] = shares
    return found


def test_final_measures_are_those_of_xgboost(trained: Trained):
    expected = trained.direct.measures()
    told = trained.body["measure"]
    assert {name: told[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert told["iteration"] == ROUNDS - 1
    [only] = trained.body["measures"]
    assert {name: only[name] for name in expected} == {name: told[name] for name in expected}


def test_history_holds_what_xgboost_had_reached_at_each_test(trained: Trained):
    iterations = [*range(INTERVAL, ROUNDS - 1, INTERVAL), ROUNDS - 1]
    hist = trained.body["measure_hist"]
    assert hist["iteration_hist"] == iterations
    # Iterations count from 0: after number 4 the model has 5 rounds.
    staged = [trained.direct.measures(iteration + 1) for iteration in iterations]
    for name in trained.case.measures:
        assert hist[f"{name}_hist"] == pytest.approx([each[name] for each in staged], rel=1e-6), name


def test_predictions_of_a_file_are_those_of_xgboost(trained: Trained, client: Client):
    body = ask(client, trained.service, [str(trained.split.unlabelled)], best=-1)
    np.testing.assert_allclose(table(trained.case, body["predictions"]), trained.direct.outputs(), rtol=1e-6, atol=1e-6)


def test_predictions_of_lines_are_those_of_the_file(trained: Trained, client: Client):
    lines = trained.split.unlabelled.read_text().splitlines()
    body = ask(client, trained.service, lines, best=-1)
    assert body == ask(client, trained.service, [str(trained.split.unlabelled)], best=-1)


def test_measures_of_a_labelled_prediction_are_those_of_xgboost(trained: Trained, client: Client):
    body = ask(client, trained.service, [str(trained.split.test)], measure=list(trained.case.measures))
    expected = trained.direct.measures()
    assert {name: body["measure"][name] for name in expected} == pytest.approx(expected, rel=1e-6)


def test_without_best_only_the_most_probable_class_is_told(trained: Trained, client: Client):
    predictions = ask(client, trained.service, [str(trained.split.unlabelled)])["predictions"]
    if trained.case.is_regression:
        assert all(each["vector"][0]["last"] is True and len(each["vector"]) == 1 for each in predictions)
        return
    assert [len(each["classes"]) for each in predictions] == [1] * len(trained.split.test_labels)
    guessed = [int(each["classes"][0]["cat"]) for each in predictions]
    assert guessed == trained.direct.outputs().argmax(axis=1).tolist()


def test_model_in_the_repository_is_the_one_that_xgboost_trains(trained: Trained, client: Client):
    file = client.data / "models" / trained.service / f"{ROUNDS:04d}.model"
    booster = xgboost.Booster(model_file=bytearray(file.read_bytes()))
    assert [json.loads(tree) for tree in booster.get_dump(dump_format="json")] == trained.direct.trees()


SAMPLED = [case for case in CASES if case.name in ("wine", "cancer-binary", "diabetes")]


@pytest.mark.parametrize("case", SAMPLED, ids=[case.name for case in SAMPLED])
def test_training_on_samples_of_the_rows_is_as_good_as_that_of_xgboost(case: Case, client: Client):
    # Our draws depend on the iteration alone, so that a training can resume: other trees, equally good ones.
    booster = {**BOOSTER, "subsample": 0.7}
    name = f"sampled-{case.name}"
    split = Split.write(case, client.data / name)
    expected = Direct(case, split, booster).measures()
    told = train(client, case, name, split, booster)["measure"]
    if case.is_regression:
        mean = float(np.abs(split.train_labels.mean() - split.test_labels).mean())
        assert told["eucll"] < 1.1 * expected["eucll"]
        assert told["eucll"] < 0.85 * mean
    else:
        assert told["acc"] > expected["acc"] - 0.05
        assert told["acc"] > 0.9
        assert told["mcll"] < 1.25 * expected["mcll"] + 0.02
        assert told.get("auc", 1.0) > 0.97
