"""What a backend is: it describes itself, trains step by step, and turns features into predictions."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from ml.connectors.csv import Target, TrainingData
    from ml.options.requests import ServiceOptions, TrainingOptions


@dataclass(frozen=True)
class BackendInfo:
    """What a backend says of itself before its library is imported.

    files : endings of the model files it loads.
    devices : kinds of device, "cpu" or "cuda".
    extra : the installation extra that brings the library.
    test_sets_max : how many test sets a training takes.
    best : classes in a prediction when the request does not say; -1 for all.
    """

    name: str
    files: tuple[str, ...]
    trains: bool
    devices: tuple[str, ...]
    extra: str
    test_sets_max: int = 1
    best: int = 1


class Trainer(Protocol):
    """A training under way; the loop calls `step` until `done` reaches the wanted number."""

    done: int

    @property
    def can_save(self) -> bool:
        """Whether `save_state` is exact at this iteration; it must be so again after a few iterations at most."""

    def step(self) -> None:
        """Do one iteration. Raises BadParameter or BadInput for what only the library can find wrong."""

    def test(self, position: int) -> tuple[np.ndarray, dict[str, float]]:
        """Predictions for a test set, and measures of the library's own.

        Probabilities, shape (rows, classes), or values, shape (rows, targets).
        """

    def save_state(self, folder: Path) -> None:
        """Write all that is needed to go on, bit for bit, into an empty folder."""

    def save_model(self, folder: Path, rounds: int) -> str:
        """Write the model as it stands under the name of `rounds` iterations; returns the file name."""


class Engine(Protocol):
    """A loaded model, ready to predict."""

    bytes: int

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Probabilities, shape (rows, classes), or values, shape (rows, targets), of float32 features."""


class Backend(Protocol):
    """The functions of a backend's module."""

    INFO: BackendInfo

    def warm(self) -> None:
        """Import the library. Raises MissingExtra."""

    def target(self, options: Any) -> Target:
        """What the labels are, from the `mllib` options."""

    def start(
        self, options: TrainingOptions, data: TrainingData, *, threads: int, device: str, resume: Path | None
    ) -> tuple[Trainer, list[tuple[str, str]]]:
        """A training on `data`, or the one that `resume` (a folder of `save_state`) left off; and warnings."""

    def facts(self, path: Path) -> dict[str, Any]:
        """What a model file says of itself; called in a confined process. Raises ModelUnusable, MissingExtra."""

    def describe(self, folder: Path, options: ServiceOptions) -> dict[str, Any]:
        """Facts of the newest model file in a folder somebody filled by hand. Raises ModelUnusable."""

    def load(self, folder: Path, description: dict[str, Any], *, device: str, threads: int) -> Engine:
        """The described model. Raises ModelUnusable, MissingExtra."""
