"""What an input connector is: it reads data to train on, remembers what it learned, and reads data to predict on."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml.connectors.source import Source
from ml.options.loading import Warning
from ml.options.target import Target
from ml.tables import Table, TrainingData


class Fitted(Protocol):
    """What a training learned about its data and a prediction needs again."""

    @property
    def inputs(self) -> list[str]:
        """Name of every feature."""

    @property
    def words(self) -> list[str] | None:
        """Class names, when the labels were words."""

    def as_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""

    def write_files(self, folder: Path) -> None:
        """Write what the connector keeps in a repository besides our own description, e.g. bounds.dat."""


class Connector(Protocol):
    """The functions of a connector's module; all raise BadInput for what is wrong with the data."""

    def read_training(
        self, sources: Sequence[Source], options: Any, target: Target, *, threads: int, scratch: Path
    ) -> TrainingData:
        """Read the training set (first source) and the test sets (the others, else a share that is split off).

        `options.seed` is used as it is, so a caller that wants a new order each time puts a fresh seed there.
        scratch : existing folder for files that live as long as the tables.
        """

    def read_prediction(
        self, sources: Sequence[Source], fitted: Any, target: Target, *, labelled: bool, threads: int
    ) -> tuple[Table, list[Warning]]:
        """Read rows to predict on, in the feature order of the training; with labels when `labelled`."""

    def fitted(self, given: Any) -> Fitted:
        """The object that `as_json` came from. Raises TypeError for anything else."""

    def fitted_by_hand(self, inputs: Sequence[str], options: Any, folder: Path) -> Fitted:
        """What can be said of a model somebody put into `folder` by hand, from the service's options and files there.

        inputs : names of its features. Raises ModelUnusable.
        """

    def resolve(self, fitted: Any, options: Any, given: Collection[str]) -> Any:
        """`fitted` with what a prediction request says otherwise; names not in `given` follow the training."""
