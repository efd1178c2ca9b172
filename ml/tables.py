"""Tables of numbers: what connectors make of data, and what backends train and predict on.

There are three ways to hold the features, with one interface: a dense array, a sparse one, and a file that is read
piece by piece, for data that memory cannot or should not hold (`ml/connectors/columnar.py`).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.options.loading import Warning
from ml.options.target import Target

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from ml.connectors.base import Fitted

__all__ = ["Chunk", "DenseTable", "SparseTable", "Table", "Target", "TrainingData"]


@dataclass
class Chunk:
    """Some rows of a table, in memory.

    features : float32 array, or CSR matrix of float32, shape (rows, features); NaN where a value is missing.
    labels : as described at `Target`, or None.
    order : row numbers within the chunk in the order in which they are to be taken; None for the order they have.
    """

    features: Any
    labels: np.ndarray | None
    order: np.ndarray | None = None

    def __len__(self) -> int:
        return int(self.features.shape[0])

    def take(self, rows: np.ndarray | slice) -> tuple[np.ndarray, np.ndarray | None]:
        """Features of some rows as a dense array, and their labels."""
        features = self.features[rows]
        dense = features if isinstance(features, np.ndarray) else features.toarray()
        return dense, None if self.labels is None else self.labels[rows]


class Table(ABC):
    """Rows with features, and maybe with labels.

    labels : as described at `Target`; None where there are none. May be an array that lives in a file.
    uris : name of every row; None for training data, whose rows need none.
    name : how the client calls the data.
    """

    name: str
    labels: np.ndarray | None
    uris: list[str] | None

    @abstractmethod
    def __len__(self) -> int:
        """Number of rows."""

    @property
    @abstractmethod
    def width(self) -> int:
        """Number of features."""

    @abstractmethod
    def chunks(self, generator: np.random.Generator | None = None, start: int = 0) -> Iterator[Chunk]:
        """All rows once, in pieces that fit into memory; in random order when a generator is given.

        The same generator state gives the same order. `start` : how many rows, in that order, to leave out at the
        beginning; the first chunk may hold some of them, its `order` does not.
        """


class _InMemory(Table):
    """A table that is one chunk."""

    features: Any

    def __len__(self) -> int:
        return int(self.features.shape[0])

    @property
    def width(self) -> int:
        return int(self.features.shape[1])

    def chunks(self, generator: np.random.Generator | None = None, start: int = 0) -> Iterator[Chunk]:
        order = None if generator is None else generator.permutation(len(self))
        if start:
            order = (np.arange(len(self)) if order is None else order)[start:]
        yield Chunk(self.features, self.labels, order)


@dataclass
class DenseTable(_InMemory):
    """A table in memory whose features are a float32 array, shape (rows, features)."""

    features: np.ndarray
    labels: np.ndarray | None
    uris: list[str] | None
    name: str


@dataclass
class SparseTable(_InMemory):
    """A table in memory whose features are a CSR matrix of float32; what it does not hold is 0."""

    features: csr_matrix
    labels: np.ndarray | None
    uris: list[str] | None
    name: str


@dataclass
class TrainingData:
    """Tables to train and test on, what was learned about the columns, and what there is to say.

    report : what the answer of a training tells for later predictions, below `parameters.input`.
    """

    train: Table
    tests: Sequence[Table]
    fitted: Fitted
    report: dict[str, Any]
    warnings: list[Warning]
