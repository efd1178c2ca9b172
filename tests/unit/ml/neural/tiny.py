"""Trainings so small that hundreds of them take seconds."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from ml.backends import caffe as caffe_backend
from ml.backends import torch as torch_backend
from ml.backends.base import Previous
from ml.options import load_training
from ml.options.target import Target
from ml.tables import DenseTable, TrainingData

BACKENDS = {"torch": torch_backend, "caffe": caffe_backend}
ROWS, WIDTH, TESTED = 40, 5, 12


class Fitted:
    """As much of what a connector learned as a training looks at."""

    inputs = [f"x{each}" for each in range(WIDTH)]  # noqa: RUF012
    words = None


def inputs() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(ROWS + TESTED, WIDTH)).astype(np.float32)


def labels(target: Target) -> np.ndarray | None:
    """Labels that follow from the inputs."""
    planes = inputs()[:, :3] + 0.5 * inputs()[:, 2:5]
    match target.kind:
        case "classification":
            return planes.argmax(axis=1).astype(np.int32)
        case "multi_label":
            return (planes > 0).astype(np.float32)
        case "soft_labels":
            return (1 / (1 + np.exp(-planes))).astype(np.float32)
        case "regression":
            return (100 + planes[:, : target.targets]).astype(np.float64)
        case _:
            return None


def tables(target: Target) -> TrainingData:
    features, truth = inputs(), labels(target)
    parts = [None, None] if truth is None else [truth[:ROWS], truth[ROWS:]]
    train = DenseTable(features[:ROWS], parts[0], None, "train.csv")
    return TrainingData(train, [DenseTable(features[ROWS:], parts[1], None, "test.csv")], Fitted(), {}, [])


def begin(
    folder: Path,
    library: str = "torch",
    *,
    resume: Path | None = None,
    previous: Previous | None = None,
    data: TrainingData | None = None,
    shuffle: bool = True,
    device: str = "cpu",
    seed: int = 3,
    **mllib: Any,
) -> Any:
    """A trainer and its remarks; three classes, and two small hidden layers, unless the options say otherwise."""
    if not {"ntargets", "autoencoder", "nclasses"} & mllib.keys():
        mllib["nclasses"] = 3
    given = {"template": "mlp", "layers": [4, 3], "net": {"batch_size": 8}, **mllib}
    given["solver"] = {"iterations": 20, "base_lr": 0.05, **mllib.get("solver", {})}
    columns = [f"y{each}" for each in range(_columns(mllib))]
    parameters = {"input": {"label": columns, "shuffle": shuffle}, "mllib": given}
    options = load_training(library, "csv", parameters).value
    scratch = folder / "scratch"
    scratch.mkdir(parents=True, exist_ok=True)
    return BACKENDS[library].start(
        options,
        tables(options.mllib.target) if data is None else data,
        threads=1,
        device=device,
        seed=seed,
        scratch=scratch,
        resume=resume,
        previous=previous or Previous(),
    )


def _columns(mllib: dict[str, Any]) -> int:
    """How many label columns a csv file would have."""
    if mllib.get("autoencoder"):
        return 0
    return int(mllib["nclasses"] if mllib.get("multi_label") else mllib.get("ntargets", 1))


def steps(trainer: Any, count: int) -> list[float]:
    """The losses of so many more iterations."""
    losses = []
    for _ in range(count):
        trainer.step()
        losses.append(trainer.running()["train_loss"])
    return losses


def saved_model(trainer: Any, folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder / trainer.save_model(folder, 20)


def weights(path: Path) -> dict[str, torch.Tensor]:
    """The weights of a file that a torch training wrote."""
    found: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["weights"]
    return found
