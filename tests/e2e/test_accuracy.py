"""Networks trained over HTTP on scikit-learn's data reach what such networks reach."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn import datasets, linear_model, metrics
from sklearn.model_selection import train_test_split

from tests.e2e.conftest import Client

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

Json = dict[str, Any]


def write_split(folder: Path, load: Callable[[], Any], *, classes: bool) -> tuple[list[np.ndarray], list[str]]:
    """Write train.csv and test.csv; returns train inputs, test inputs, train labels, test labels, and the paths."""
    found = load()
    parts = train_test_split(
        found.data, found.target, test_size=0.25, random_state=0, stratify=found.target if classes else None
    )
    folder.mkdir(parents=True)
    paths = []
    for name, inputs, labels in (("train", parts[0], parts[2]), ("test", parts[1], parts[3])):
        header = ",".join([*(f"x{each}" for each in range(inputs.shape[1])), "y"])
        rows = (
            ",".join([*(f"{float(cell)!r}" for cell in row), f"{label:g}"])
            for row, label in zip(inputs, labels, strict=True)
        )
        (folder / f"{name}.csv").write_text("\n".join([header, *rows]) + "\n")
        paths.append(str(folder / f"{name}.csv"))
    return list(parts), paths


def create(client: Client, name: str, library: str, mllib: Json, **input_options: Any) -> None:
    body = {
        "mllib": library,
        "description": "accuracy",
        "model": {"repository": str(client.data / "accuracy" / name / "model"), "create_repository": True},
        "parameters": {"input": {"connector": "csv", "label": "y", **input_options}, "mllib": mllib, "output": {}},
    }
    answer = client.call("PUT", f"/services/{name}", body)
    assert answer.code == 201, answer.json


def train(client: Client, name: str, data: list[str], measures: list[str]) -> Json:
    """The measures of a blocking training."""
    body = {"service": name, "async": False, "parameters": {"output": {"measure": measures}}, "data": data}
    answer = client.call("POST", "/train", body)
    assert answer.code == 201, answer.json
    found: Json = answer.json["body"]["measure"]
    return found


def network(iterations: int, **options: Any) -> Json:
    return {
        "template": "mlp",
        "layers": [100],
        "solver": {"iterations": iterations, "test_interval": 200, "solver_type": "ADAM", "base_lr": 0.003},
        "net": {"batch_size": 64, "test_batch_size": 256},
        **options,
    }


SCALED = {"scale": True, "shuffle": True, "seed": 1}


def test_digits_are_told_apart_by_a_torch_mlp(client: Client) -> None:
    _, data = write_split(client.data / "accuracy" / "digits", datasets.load_digits, classes=True)
    create(client, "digits", "torch", network(600, nclasses=10), **SCALED)
    assert train(client, "digits", data, ["acc", "f1"])["acc"] >= 0.95


@pytest.mark.parametrize("library", ["torch", "caffe"])
def test_breast_cancer_is_found_by_an_mlp(client: Client, library: str) -> None:
    name = f"cancer-{library}"
    _, data = write_split(client.data / "accuracy" / name, datasets.load_breast_cancer, classes=True)
    create(client, name, library, network(400, nclasses=2), **SCALED)
    assert train(client, name, data, ["auc", "acc"])["auc"] >= 0.98


def test_wines_are_told_apart_by_a_caffe_mlp_on_standardised_features(client: Client) -> None:
    _, data = write_split(client.data / "accuracy" / "wine", datasets.load_wine, classes=True)
    create(client, "wine", "caffe", network(400, nclasses=3), **{**SCALED, "scale_type": "znorm"})
    assert train(client, "wine", data, ["acc"])["acc"] >= 0.97


def test_diabetes_is_predicted_no_worse_than_by_a_linear_model(client: Client) -> None:
    parts, data = write_split(client.data / "accuracy" / "diabetes", datasets.load_diabetes, classes=False)
    train_inputs, test_inputs, train_labels, test_labels = parts
    linear = linear_model.LinearRegression().fit(train_inputs, train_labels)
    error = metrics.mean_absolute_error(test_labels, linear.predict(test_inputs))
    options = network(1500, ntargets=1, regression=True, layers=[50])
    create(client, "diabetes", "torch", options, **{**SCALED, "scale_type": "znorm"})
    # Two runs of the same network differ by about this much.
    assert train(client, "diabetes", data, ["eucll"])["eucll"] <= error * 1.02


def colours(path: Path, rows: list[str]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["colour,size,y", *rows]) + "\n")
    return str(path)


@pytest.mark.parametrize("library", ["xgboost", "torch", "caffe"])
def test_words_are_learned_and_words_never_seen_are_refused(client: Client, library: str) -> None:
    """The class follows from the colour alone."""
    numbers = np.random.default_rng(2)
    words = numbers.choice(["red", "green", "blue"], size=200)
    rows = [
        f"{word},{size:.3f},{int(word == 'red')}" for word, size in zip(words, numbers.normal(size=200), strict=True)
    ]
    name = f"colours-{library}"
    folder = client.data / "accuracy" / name
    data = [colours(folder / "train.csv", rows[:150]), colours(folder / "test.csv", rows[150:])]
    options = {"iterations": 20} if library == "xgboost" else network(200)
    create(client, name, library, {**options, "nclasses": 2}, categoricals=["colour"])
    assert train(client, name, data, ["acc"])["acc"] == 1.0
    body = {"service": name, "parameters": {"output": {"best": 1}}, "data": ["colour,size", "red,0", "blue,0"]}
    answer = client.call("POST", "/predict", body)
    assert [each["classes"][0]["cat"] for each in answer.json["body"]["predictions"]] == ["1", "0"]
    refused = client.call("POST", "/predict", {**body, "data": ["colour,size", "mauve,0"]})
    assert (refused.code, refused.json["status"]["dd_code"]) == (400, 1005)
    assert "unknown category mauve for variable colour" in refused.json["status"]["dd_msg"]
    data[1] = colours(folder / "strange.csv", ["mauve,0.0,1"])
    again = {"service": name, "async": False, "parameters": {"mllib": {"resume": True}}, "data": data}
    refused = client.call("POST", "/train", again)
    assert (refused.code, refused.json["status"]["dd_code"]) == (400, 1005)
    assert "unknown category mauve for variable colour" in refused.json["status"]["dd_msg"]
