"""Tables as xgboost takes them: a matrix in memory, or pages in files that are read one after the other.

What a sparse table does not hold is a missing value for xgboost, in training as in predictions; what it holds counts
as it is, a stored 0 included.

Tables that are not in memory become pages of bins, about as many as there are chunks. Memory: some chunks while they
are written, then some pages, and for every row its label, gradients, last prediction and place in the tree.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ml.connectors.disk import disk_error
from ml.options.target import Target
from ml.tables import Chunk, DenseTable, SparseTable, Table

#: Rows whose labels are looked at together.
_STEP_ROWS = 2**18
#: Most bytes of a page: by row, by cell of a dense chunk with up to 256 bins and with more, by value of a sparse one,
#: and by bin of the whole table, whose bounds stand in every page.
_ROW_BYTES, _CELL_BYTES, _WIDE_CELL_BYTES, _VALUE_BYTES, _BIN_BYTES = 8, 8, 16, 60, 8

#: Parameters of mallopt, from malloc.h of glibc, and their values in bytes.
_MALLOPT = {-3: 2**18, -1: 2**20}  # M_MMAP_THRESHOLD, M_TRIM_THRESHOLD


def give_memory_back() -> None:
    """Have the C library give memory back to the system as soon as it is freed; otherwise a training on disk, which
    takes and frees many megabytes in every round, holds a quarter more than it uses.
    """
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such function
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in _MALLOPT.items():
            mallopt(parameter, value)


def is_in_memory(table: Table) -> bool:
    """Whether the features of a table are one array, or one sparse matrix."""
    return isinstance(table, DenseTable | SparseTable)


def cells(table: Table) -> int:
    """How many values a table holds."""
    if isinstance(table, SparseTable):
        return int(table.features.nnz)
    values = getattr(table, "values", None)
    return values if isinstance(values, int) else len(table) * table.width


@dataclass(frozen=True)
class Rows:
    """Which rows count, and how much.

    class_weights : one number per class; empty when all count alike.
    is_training : rows whose label does not count are left out of a training; in tests, whose outputs are wanted for
        every row, they weigh nothing.
    """

    target: Target
    class_weights: tuple[float, ...]
    is_training: bool

    def taken(self, features: Any, labels: np.ndarray | None) -> dict[str, Any]:
        """Features, labels and weights as the matrices of xgboost take them by name."""
        assert labels is not None
        made: dict[str, Any] = {"data": features, "label": labels}
        ignored = self.target.ignored
        if ignored is not None:
            counts = labels != ignored
            if not self.is_training:
                made |= {"label": np.where(counts, labels, 0), "weight": counts.astype(np.float32)}
            elif not counts.all():
                made = {"data": features[counts], "label": labels[counts]}
        if self.class_weights and self.is_training:
            made["weight"] = np.array(self.class_weights, np.float32)[made["label"]]
        return made


def in_memory(xgboost: Any, table: Any, rows: Rows, threads: int) -> Any:
    """The matrix of a table in memory."""
    return xgboost.DMatrix(**rows.taken(table.features, table.labels), nthread=threads)


def on_disk(
    xgboost: Any,
    table: Table,
    rows: Rows,
    prefix: Path,
    *,
    threads: int,
    max_bin: int,
    like: Any = None,
    move: Callable[[np.ndarray], Any] | None = None,
) -> Any:
    """The matrix of a table that is read in chunks; its pages are files whose names begin with `prefix`.

    max_bin : bins per feature. like : the matrix that is trained on, whose bins those of a test set must be.
    move : brings an array to the GPU that trains, when one does.
    """

    class Pages(xgboost.DataIter):  # type: ignore[misc]  # a class that is known only when the library is loaded
        """Hands the chunks of a table to xgboost, which asks for all of them several times."""

        def __init__(self) -> None:
            # With a GPU xgboost would keep the pages in the memory of the host.
            super().__init__(cache_prefix=str(prefix), on_host=False)
            self._chunks: Iterator[Chunk] = iter(())

        def reset(self) -> None:
            self._chunks = table.chunks()

        def next(self, input_data: Callable[..., Any]) -> bool:
            for chunk in self._chunks:
                taken = rows.taken(chunk.features, chunk.labels)
                if taken["data"].shape[0] == 0:
                    continue
                # Two at a time: the page of the chunk before may still be on its way.
                _check_room(prefix, 2 * (_page_bytes(taken["data"], max_bin) + bounds))
                if move is not None:
                    taken["data"] = move(taken["data"])
                input_data(**taken)
                return True
            return False

    bounds = _BIN_BYTES * min(table.width * max_bin, cells(table))
    pages = Pages()
    try:
        return xgboost.ExtMemQuantileDMatrix(pages, missing=np.nan, nthread=threads, max_bin=max_bin, ref=like)
    except BaseException:
        for left in prefix.parent.glob(f"{prefix.name}*"):
            left.unlink(missing_ok=True)
        raise
    finally:
        pages.reset()  # lets go of the last chunk


def _page_bytes(features: Any, max_bin: int) -> int:
    """About the most that the page of a chunk takes on disk, without the bounds of bins."""
    rows, columns = features.shape
    if not isinstance(features, np.ndarray):
        return rows * _ROW_BYTES + int(features.nnz) * _VALUE_BYTES
    return rows * (_ROW_BYTES + columns * (_CELL_BYTES if max_bin <= 256 else _WIDE_CELL_BYTES))


def _check_room(prefix: Path, size: int) -> None:
    """See that so many bytes can be written beside `prefix`: xgboost ends the whole process when it cannot write.

    Raises BadInput.
    """
    probe = prefix.with_name(f"{prefix.name}.room")
    try:
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, max(1, size))
        finally:
            os.close(descriptor)
    except OSError as error:
        written = sum(each.stat().st_size for each in prefix.parent.glob(f"{prefix.name}*") if each != probe)
        raise disk_error(error, written) from None
    finally:
        probe.unlink(missing_ok=True)


def steps(rows: int) -> Iterator[slice]:
    """Some rows at a time, for looks at labels that are in a file."""
    return (slice(first, first + _STEP_ROWS) for first in range(0, rows, _STEP_ROWS))


def mover(device: str) -> Callable[[np.ndarray], Any] | None:
    """What brings an array to a GPU, device "cuda" or "cuda:1"; None where neither cupy nor torch is there to do so."""
    number = int(device.partition(":")[2] or 0)
    with contextlib.suppress(ImportError):
        cupy = importlib.import_module("cupy")

        def by_cupy(array: np.ndarray) -> Any:
            with cupy.cuda.Device(number):
                return cupy.asarray(array)

        return by_cupy
    with contextlib.suppress(ImportError):
        torch = importlib.import_module("torch")
        if torch.cuda.is_available():
            return lambda array: torch.from_numpy(np.ascontiguousarray(array)).to(f"cuda:{number}")
    return None
