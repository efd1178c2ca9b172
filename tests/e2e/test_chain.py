"""One job through the whole chain, create → train → poll → predict → delete, by template, task and connector."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.e2e.conftest import Client

pytestmark = pytest.mark.servers

ROWS, TESTED, FEATURES = 400, 100, 6
Json = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is learned: the labels of the rows, what says so, and which figure must become how good.

    labels : from inputs, shape (rows, 6), to label columns, shape (rows, columns).
    mllib : the options of the task.
    measure : asked for; `key` is looked at, and `good` says whether its value is.
    """

    name: str
    labels: Callable[[np.ndarray], np.ndarray]
    mllib: Json
    measure: str
    key: str
    good: Callable[[float], bool]


def _planes(inputs: np.ndarray) -> np.ndarray:
    """Three numbers per row, each a plane in the inputs; their spread is about 0.4."""
    weights = np.array([[1.0, -1, 0, 0.5, 0, 0], [0, 1.0, 1, 0, -1, 0], [-0.5, 0, 0, 1, 0, 1.0]]).T
    return inputs @ weights


JOBS = {
    job.name: job
    for job in (
        Job(
            "classification",
            lambda inputs: _planes(inputs).argmax(axis=1)[:, None],
            {"nclasses": 3},
            "acc",
            "acc",
            lambda share: share >= 0.8,
        ),
        Job(
            "multi-label",
            lambda inputs: (_planes(inputs) > np.median(_planes(inputs), axis=0)).astype(int),
            {"nclasses": 3, "multi_label": True},
            "acc",
            "f1",
            lambda share: share >= 0.8,
        ),
        Job(
            "regression",
            lambda inputs: _planes(inputs)[:, :1],
            {"ntargets": 1, "regression": True},
            "eucll",
            "eucll",
            lambda error: error <= 0.2,
        ),
        Job(
            "several targets",
            lambda inputs: _planes(inputs)[:, :2],
            {"ntargets": 2, "regression": True},
            "eucll",
            "eucll_1",
            lambda error: error <= 0.2,
        ),
        Job(
            "autoencoder",
            lambda inputs: inputs[:, :0],
            {"autoencoder": True},
            "eucll",
            "eucll",
            # The mean of each feature as its reconstruction would have sqrt(6 / 12) / 6 = 0.118.
            lambda error: error <= 0.1,
        ),
    )
}

SOLVER = {"iterations": 600, "test_interval": 200, "solver_type": "ADAM", "base_lr": 0.02}
NETWORK = {"solver": SOLVER, "net": {"batch_size": 50, "test_batch_size": 64}}
MODELS: dict[str, tuple[str, Json]] = {
    "xgboost": ("xgboost", {"iterations": 60, "test_interval": 20}),
    "torch lregression": ("torch", {"template": "lregression", **NETWORK}),
    "torch mlp": ("torch", {"template": "mlp", "layers": [24], "activation": "tanh", **NETWORK}),
    "caffe lregression": ("caffe", {"template": "lregression", **NETWORK}),
    "caffe mlp": ("caffe", {"template": "mlp", "layers": [24], "activation": "tanh", **NETWORK}),
}

#: What cannot be, each with a word of the error that says so.
REFUSED = {
    ("xgboost", "autoencoder", "csv"): "nclasses",
    ("xgboost", "autoencoder", "svm"): "nclasses",
    **{(model, "several targets", "svm"): "one label" for model in MODELS},
    **{(model, "multi-label", "svm"): "one label" for model in MODELS},
}


def write_rows(path: Path, connector: str, inputs: np.ndarray, labels: np.ndarray) -> list[str]:
    """Write a data file; returns its first three rows as they are sent to be predicted, without labels."""
    if connector == "csv":
        names = [f"x{each}" for each in range(inputs.shape[1])] + [f"y{each}" for each in range(labels.shape[1])]
        cells = np.hstack([inputs, labels])
        rows = "".join(",".join(f"{float(cell)!r}" for cell in row) + "\n" for row in cells)
        path.write_text(",".join(names) + "\n" + rows)
        return [",".join(map(repr, map(float, row))) for row in inputs[:3]]
    plain = [" ".join(f"{place}:{float(value)!r}" for place, value in enumerate(row, start=1)) for row in inputs]
    truth = [f"{row[0]:g}" if len(row) else "0" for row in labels]
    path.write_text("".join(f"{label} {row}\n" for label, row in zip(truth, plain, strict=True)))
    return plain[:3]


def poll(client: Client, service: str) -> Json:
    """The last answer about job 1."""
    while True:
        answer = client.call("GET", f"/train?service={service}&job=1&timeout=30")
        assert answer.code == 200, answer.json
        found: Json = answer.json
        if found["head"]["status"] != "running":
            return found


@pytest.mark.parametrize("connector", ["csv", "svm"])
@pytest.mark.parametrize("task", list(JOBS))
@pytest.mark.parametrize("model", list(MODELS))
def test_a_job_goes_through_the_whole_chain(client: Client, model: str, task: str, connector: str) -> None:
    job = JOBS[task]
    library, options = MODELS[model]
    name = f"{model}-{task}-{connector}".replace(" ", "-")
    numbers = np.random.default_rng(7)
    inputs = numbers.uniform(size=(ROWS, FEATURES))
    labels = job.labels(inputs)
    folder = client.data / "chain" / name
    folder.mkdir(parents=True)
    write_rows(folder / f"train.{connector}", connector, inputs[TESTED:], labels[TESTED:])
    asked = write_rows(folder / f"test.{connector}", connector, inputs[:TESTED], labels[:TESTED])
    columns = [f"y{each}" for each in range(labels.shape[1])]
    created = client.call(
        "PUT",
        f"/services/{name}",
        {
            "mllib": library,
            "description": task,
            "type": "supervised",
            "model": {"repository": str(folder / "model"), "create_repository": True},
            "parameters": {"input": {"connector": connector}, "mllib": {**options, **job.mllib}, "output": {}},
        },
    )
    refused = REFUSED.get((model, task, connector))
    if refused is not None and created.code != 201:
        assert created.json["status"]["dd_code"] in (1004, 1005, 1006)
        assert refused in created.json["status"]["dd_msg"]
        return
    assert created.code == 201, created.json
    started = client.call(
        "POST",
        "/train",
        {
            "service": name,
            "async": True,
            "parameters": {
                "input": {"label": columns, "shuffle": True, "seed": 3}
                if connector == "csv" and columns
                else {"seed": 3},
                "mllib": {},
                "output": {"measure": [job.measure]},
            },
            "data": [str(folder / f"train.{connector}"), str(folder / f"test.{connector}")],
        },
    )
    assert started.code == 201, started.json
    ended = poll(client, name)
    if refused is not None:
        assert ended["head"]["status"] == "error", ended
        assert refused in ended["body"]["Error"]["dd_msg"]
    else:
        assert ended["head"]["status"] == "finished", ended
        check_report(ended, job, library)
        check_prediction(client, name, task, library, asked, labels)
        check_files(folder / "model", library, options)
    assert client.call("DELETE", f"/services/{name}?clear=full").code == 200
    assert client.call("GET", f"/services/{name}").code == 404
    assert list((folder / "model").iterdir()) == []


def check_report(ended: Json, job: Job, library: str) -> None:
    """The figures are there, and good."""
    measure, hist = ended["body"]["measure"], ended["body"]["measure_hist"]
    assert job.good(measure[job.key]), measure
    tests = {"xgboost": [20, 40, 59], "torch": [200, 400, 600], "caffe": [200, 400, 599]}[library]
    assert hist["iteration_hist"] == tests
    assert len(hist[f"{job.key}_hist"]) == 3
    assert measure["iteration"] == tests[-1]
    if library != "xgboost":
        losses = hist["train_loss_hist"]
        assert len(losses) == SOLVER["iterations"]
        assert np.mean(losses[-50:]) < np.mean(losses[:50])


def check_prediction(client: Client, name: str, task: str, library: str, asked: list[str], labels: np.ndarray) -> None:
    """Three rows have three answers of the shape that the task has, and the answers tell what was learned."""
    answer = client.call("POST", "/predict", {"service": name, "parameters": {"output": {"best": -1}}, "data": asked})
    assert answer.code == 200, answer.json
    predictions = answer.json["body"]["predictions"]
    assert len(predictions) == 3
    for prediction, truth in zip(predictions, labels, strict=False):
        if task in ("classification", "multi-label"):
            shares = {each["cat"]: each["prob"] for each in prediction["classes"]}
            assert sorted(shares) == ["0", "1", "2"]
            assert prediction["classes"][-1]["last"] is True
            if task == "classification":
                assert sum(shares.values()) == pytest.approx(1, abs=1e-4)
        elif task == "autoencoder":
            assert 0 <= prediction["losses"][0]["loss"] < 0.2
        else:
            values = {each["cat"]: each["val"] for each in prediction["vector"]}
            assert [values[str(each)] for each in range(len(truth))] == pytest.approx(truth, abs=0.7)


def check_files(folder: Path, library: str, options: Json) -> None:
    """The repository holds the files of the reference under their names."""
    wanted = {"config.json", "model.json", "metrics.json", "corresp.txt"}
    if library == "xgboost":
        wanted |= {"0060.model", "model.fmap"}
    elif library == "torch":
        wanted |= {"checkpoint-600.npt", "solver-600.pt", "best_model.txt"}
    else:
        template = options["template"]
        wanted |= {"model_iter_600.caffemodel", "model_iter_600.solverstate", "best_model.txt"}
        wanted |= {f"{template}.prototxt", "deploy.prototxt", f"{template}_solver.prototxt"}
    # The folder is written after the job has ended, the model last.
    until = time.monotonic() + 30
    while wanted - {path.name for path in folder.iterdir()} and time.monotonic() < until:
        time.sleep(0.05)
    assert wanted <= {path.name for path in folder.iterdir()}
    assert json.loads((folder / "config.json").read_text())["mllib"] == library
