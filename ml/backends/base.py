"""What a backend is: it describes itself, trains step by step, and turns features into predictions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

    from ml.options.requests import ServiceOptions, TrainingOptions
    from ml.options.target import Target
    from ml.tables import TrainingData


@dataclass(frozen=True)
class BackendInfo:
    """What a backend says of itself before its library is imported.

    files : endings of the model files it loads.
    cleared : what the names of its model files contain, by which `clear=lib` finds them; `files` when empty.
    cleared_without_db : the same, but only for services whose input is no data base (`db`).
    devices : kinds of device, "cpu" or "cuda".
    extra : the installation extra that brings the library.
    test_sets_max : how many test sets a training takes; None for any number.
    best : classes in a prediction when the request does not say; -1 for all.
    first_iteration : number of the first iteration in measures: DeepDetect counts from 1 with torch, else from 0.
    keeps_best : whether the best model so far is kept beside the final one, with best_model.txt.
    """

    name: str
    files: tuple[str, ...]
    trains: bool
    devices: tuple[str, ...]
    extra: str
    cleared: tuple[str, ...] = ()
    cleared_without_db: tuple[str, ...] = ()
    test_sets_max: int | None = 1
    best: int = 1
    first_iteration: int = 0
    keeps_best: bool = False


@dataclass(frozen=True)
class Previous:
    """What an earlier training, or a person, left in the repository that is trained in now.

    files : names of all files of the newest version.
    folder : those files; None when the options of this training do not want them, see `wants_previous`.
    description : of the newest version; empty when it has none.
    """

    files: tuple[str, ...] = ()
    folder: Path | None = None
    description: dict[str, Any] | None = None


class Trainer(Protocol):
    """A training under way; the loop calls `step` until `done` reaches the wanted number."""

    done: int

    @property
    def can_save(self) -> bool:
        """Whether `save_state` is exact at this iteration; it must be so again after a few iterations at most."""

    def step(self) -> None:
        """Do one iteration. Raises BadParameter or BadInput for what only the library can find wrong."""

    def running(self) -> dict[str, float]:
        """Values of the last iteration, e.g. train_loss and learning_rate; empty when the library tells none."""

    def test(self, position: int) -> tuple[np.ndarray | None, dict[str, Any]]:
        """Outputs for a test set, as described at `Target`, and measures of the library's own.

        Outputs are None when all that was asked for is among the measures already.
        """

    def keep(self, wanted: Collection[int]) -> None:
        """Keep the model as it stands for the repository, if `done` is in `wanted`, and drop kept ones that are not.

        wanted : values of `done` at which the best tests were made.
        """

    def save_state(self, folder: Path) -> None:
        """Write all that is needed to go on, bit for bit, into an empty folder."""

    def save_model(self, folder: Path, rounds: int) -> str:
        """Write the model as it stands, and everything kept; returns the name of the file to predict with.

        rounds : number of iterations asked for.
        """

    def facts(self) -> dict[str, Any]:
        """What the description of the model tells besides, e.g. `params`, the number of its weights."""


class Engine(Protocol):
    """A loaded model, ready to predict."""

    bytes: int

    def predict(self, features: Any, options: Any = None) -> np.ndarray:
        """Outputs, as described at `Target`, for features as in `Chunk`. Raises BadInput.

        options : of the library, as the request says them, for what predictions can ask of it; those that the request
            leaves out are as in the training. None when there is no request.
        """

    def rows_together(self, options: Any = None) -> int:
        """How many rows are computed at once; 1 where the outputs of a row do not depend on the others."""

    def extract(self, features: Any, layer: str, options: Any = None) -> np.ndarray:
        """What a layer of a network gives, shape (rows, …). Raises BadParameter for a layer that is not there.

        Asked only of backends whose options have `extract_layer`.
        """


class Backend(Protocol):
    """The functions of a backend's module."""

    INFO: BackendInfo

    def warm(self) -> None:
        """Import the library. Raises MissingExtra."""

    def start(
        self,
        options: TrainingOptions,
        data: TrainingData,
        *,
        threads: int,
        device: str,
        seed: int,
        scratch: Path,
        resume: Path | None,
        previous: Previous,
    ) -> tuple[Trainer, list[tuple[str, str]]]:
        """A training on `data`; and warnings as (parameter, message).

        seed : for every random draw that no option seeds.
        scratch : existing folder for files of the training.
        resume : a folder of `save_state`, to go on from bit for bit; `previous` was heeded then already.
        """

    def facts(self, path: Path) -> dict[str, Any]:
        """What a model file says of itself; called in a confined process. Raises ModelUnusable, MissingExtra."""

    def describe(self, folder: Path, options: ServiceOptions) -> dict[str, Any]:
        """Facts of the newest model file in a folder somebody filled by hand: at least `file`, `digest`, `target`
        (as JSON) and `inputs`, the names of its features. Raises ModelUnusable.
        """

    def load(self, folder: Path, description: dict[str, Any], *, device: str, threads: int) -> Engine:
        """The described model. Raises ModelUnusable, MissingExtra."""


def target_of(description: dict[str, Any]) -> Target:
    """The target that a description was made for. Raises ModelUnusable."""
    from ml.errors import ModelUnusable
    from ml.options.target import Target

    try:
        return Target.from_json(description["target"])
    except (KeyError, TypeError):
        raise ModelUnusable("the description of the model does not say what it predicts") from None
