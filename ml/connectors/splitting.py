"""Which rows of a table are trained on and which are tested on."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np

from ml.connectors.disk import disk_error
from ml.errors import BadInput
from ml.options.target import Target
from ml.tables import Table

_STEP_ROWS = 2**16


def train_rows(rows: int, share: float, source: str) -> int:
    """How many rows to train on, floor(rows * (1 - share)); the others are to test on. Raises BadInput."""
    if share == 0:
        return rows
    # The small term keeps 10 * (1 - 0.9) from becoming 0.9999…
    kept = math.floor(rows * (1 - share) + 1e-9)
    if kept == 0 or kept == rows:
        part = "train" if kept == 0 else "test"
        raise BadInput(f"parameters.input.test_split {share:g} leaves none of the {rows} rows of {source} to {part} on")
    return kept


def chosen_rows(generator: np.random.Generator, rows: int, kept: int, folder: Path) -> np.ndarray:
    """Whether each row is among those that a permutation puts behind the first `kept`; drawn as `permutation` draws,
    but in files of `folder`, which have no name any more when this returns. Raises BadInput.
    """
    order = _scratch_array(folder / "order", np.dtype(np.int64), rows)
    for first in range(0, rows, _STEP_ROWS):
        order[first : first + _STEP_ROWS] = np.arange(first, min(rows, first + _STEP_ROWS))
    generator.shuffle(order)
    chosen = _scratch_array(folder / "chosen", np.dtype(np.bool_), rows)
    for first in range(kept, rows, _STEP_ROWS):
        chosen[order[first : first + _STEP_ROWS]] = True
    return chosen


def _scratch_array(path: Path, dtype: np.dtype, rows: int) -> np.ndarray:
    """An array of zeros in a file without a name. Raises BadInput."""
    try:
        with path.open("w+b") as file:
            # To write where there is no disk behind would end the process.
            os.posix_fallocate(file.fileno(), 0, rows * dtype.itemsize)
            made = np.asarray(np.memmap(file, dtype, "r+", shape=(rows,)))
    except OSError as error:
        raise disk_error(error) from None
    finally:
        path.unlink(missing_ok=True)
    return made


def class_counts(table: Table, target: Target) -> np.ndarray:
    """How many rows each class has; rows whose label does not count are left out."""
    assert table.labels is not None
    counts = np.zeros(target.classes, np.int64)
    for first in range(0, len(table), _STEP_ROWS):
        labels = np.asarray(table.labels[first : first + _STEP_ROWS])
        if target.ignored is not None:
            labels = labels[labels != target.ignored]
        counts += np.bincount(labels, minlength=target.classes)
    return counts
