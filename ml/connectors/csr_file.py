"""Sparse tables on disk: files that are written once and read as often as wanted, in constant memory.

`values` and `columns` hold the values of all rows one after the other, and the column of each; `starts` says where each
row begins; `labels` holds the labels. All are bare numbers of the machine's order and are mapped into memory to be
read, so that what is in memory of them belongs to the system's file cache, which gives it back when others need it.

How random the order of the rows is: as in `columnar.py`, where blocks have 128 KB; here that is so on average, as rows
are not equally long.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix

from ml.connectors.disk import disk_error
from ml.errors import BadInput
from ml.tables import Chunk, Table

#: Bytes of a chunk, and how many blocks of consecutive rows make one in random order.
CHUNK_BYTES = 2**23
BLOCKS = 64

_FILES = ("values", "columns", "starts", "labels")
_BUFFER_BYTES = 2**20


class CsrFile(Table):
    """Rows of a sparse table on disk; what a row does not hold is 0.

    Memory: a mapping of the files, which costs none of its own, and a chunk of about 8 MB while rows are taken in
    random order. The files must stay as they are for as long as the table is used.
    """

    def __init__(self, folder: Path, name: str, width: int, kinds: dict[str, np.dtype], shape: tuple[int, ...]) -> None:
        self.name = name
        self.uris = None
        self._folder = folder
        self._width = width
        self._values, self._columns, self._starts = (_mapped(folder / each, kinds[each]) for each in _FILES[:3])
        labels = _mapped(folder / "labels", kinds["labels"]).reshape(-1, *shape) if "labels" in kinds else None
        self.labels = labels
        self._first, self._stop = 0, len(self._starts) - 1

    def __len__(self) -> int:
        return self._stop - self._first

    @property
    def width(self) -> int:
        """Number of features."""
        return self._width

    def part(self, first: int, stop: int, name: str) -> CsrFile:
        """The rows from `first` to before `stop` as a table of their own, on the same files."""
        made = object.__new__(CsrFile)
        made.__dict__.update(self.__dict__)
        made.name = name
        made._first, made._stop = self._first + first, self._first + stop
        made.labels = None if self.labels is None else self.labels[first:stop]
        return made

    def remove(self) -> None:
        """Take the files away; what is mapped of them stays readable."""
        for name in _FILES:
            (self._folder / name).unlink(missing_ok=True)

    def chunks(self, generator: np.random.Generator | None = None, start: int = 0) -> Iterator[Chunk]:
        """All rows once, about 8 MB at a time; see the top of this file for the random order.

        The generator is drawn from before the first chunk, and then no more. Rows that `start` leaves out are not
        read, but for those that share a chunk with others.
        """
        if generator is None:
            for first, stop in self._ranges(self._first + start):
                yield Chunk(self._rows(first, stop), self._labels(first - self._first, stop - self._first))
            return
        for numbers, features, order in self._shuffled(generator, start):
            yield Chunk(features, None if self.labels is None else np.asarray(self.labels)[numbers], order)

    def numbered(
        self, generator: np.random.Generator | None = None
    ) -> Iterator[tuple[np.ndarray, csr_matrix, np.ndarray | None]]:
        """All rows once, as `chunks` gives them, in their order already, each with its number in the table first."""
        if generator is None:
            for first, stop in self._ranges(self._first):
                a, b = first - self._first, stop - self._first
                yield np.arange(a, b), self._rows(first, stop), self._labels(a, b)
            return
        for numbers, features, order in self._shuffled(generator, 0):
            taken = numbers[order]
            yield taken, features[order], None if self.labels is None else np.asarray(self.labels)[taken]

    @property
    def values(self) -> int:
        """How many values the rows hold."""
        return int(self._starts[self._stop] - self._starts[self._first])

    def _labels(self, first: int, stop: int) -> np.ndarray | None:
        return None if self.labels is None else np.asarray(self.labels)[first:stop]

    def _ranges(self, first: int) -> Iterator[tuple[int, int]]:
        """First and last row of each chunk, by number in the file."""
        size = self._values.dtype.itemsize + self._columns.dtype.itemsize
        while first < self._stop:
            # A row costs its place among the starts as well, so that there are not too many of empty ones.
            limit = first + max(1, CHUNK_BYTES // self._starts.dtype.itemsize)
            wanted = self._starts[first] + CHUNK_BYTES // size
            stop = int(np.searchsorted(self._starts[: min(limit, self._stop) + 1], wanted, side="right")) - 1
            stop = min(max(stop, first + 1), self._stop)
            yield first, stop
            first = stop

    def _rows(self, first: int, stop: int) -> csr_matrix:
        """Consecutive rows, by number in the file, as views of the files."""
        begin, end = int(self._starts[first]), int(self._starts[stop])
        starts = np.asarray(self._starts[first : stop + 1]) - begin
        return _matrix(self._values[begin:end], self._columns[begin:end], starts, self._width)

    def _shuffled(
        self, generator: np.random.Generator, start: int
    ) -> Iterator[tuple[np.ndarray, csr_matrix, np.ndarray]]:
        """Numbers and features of the rows of some blocks, in memory, and the order to take them in."""
        size = self.values * (self._values.dtype.itemsize + self._columns.dtype.itemsize)
        row_bytes = size / max(1, len(self)) + self._starts.dtype.itemsize
        block_rows = max(1, int(CHUNK_BYTES / BLOCKS / row_bytes))
        places = generator.permutation(-(-len(self) // block_rows))
        key = int(generator.integers(2**63))
        for position in range(0, len(places), BLOCKS):
            first = self._first + places[position : position + BLOCKS] * block_rows
            stop = np.minimum(first + block_rows, self._stop)
            rows = int((stop - first).sum())
            if start >= rows:
                start -= rows
                continue
            blocks = list(zip(first.tolist(), stop.tolist(), strict=True))
            numbers = np.concatenate([np.arange(a, b) for a, b in blocks]) - self._first
            lengths = np.concatenate([np.diff(self._starts[a : b + 1]) for a, b in blocks])
            spans = [slice(int(self._starts[a]), int(self._starts[b])) for a, b in blocks]
            features = _matrix(
                np.concatenate([self._values[span] for span in spans]),
                np.concatenate([self._columns[span] for span in spans]),
                np.concatenate([[0], np.cumsum(lengths)]),
                self._width,
            )
            # Each chunk has a generator of its own, so that those left out need not be drawn for.
            order = np.random.default_rng((key, position)).permutation(rows)[start:]
            start = 0
            yield numbers, features, order


def _matrix(values: np.ndarray, columns: np.ndarray, starts: np.ndarray, width: int) -> csr_matrix:
    """A CSR matrix of arrays that are known to be right; its two kinds of numbers are of one type, as it wants."""
    if starts[-1] < 2**31 and columns.dtype == np.int32:
        starts = starts.astype(np.int32)
    return csr_matrix((values, columns, starts), shape=(len(starts) - 1, width))


def _mapped(path: Path, dtype: np.dtype) -> np.ndarray:
    if path.stat().st_size == 0:
        return np.zeros(0, dtype)
    # Copy on write: arrays may be written to, which some libraries insist on, without a change to the file.
    return np.asarray(np.memmap(path, dtype, mode="c"))


class CsrWriter:
    """Writes a sparse table on disk. Raises BadInput when the disk is full; what was written is taken away then."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._kinds: dict[str, np.dtype] = {"starts": np.dtype(np.int64)}
        self._label_shape: tuple[int, ...] = ()
        self._files: dict[str, Any] = {}
        self._count = 0
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in _FILES:
                self._files[name] = (folder / name).open("wb", buffering=_BUFFER_BYTES)
            self._files["starts"].write(np.zeros(1, np.int64).data)
        except OSError as error:
            raise self._failed(error) from None
        self.rows = 0

    def append(self, features: csr_matrix, labels: np.ndarray | None) -> None:
        """Add rows; all calls bring the same types, and all or none of them labels."""
        self.append_values(features.data, features.indices, np.asarray(features.indptr, np.int64), labels)

    def append_values(
        self, values: np.ndarray, columns: np.ndarray, starts: np.ndarray, labels: np.ndarray | None
    ) -> None:
        """The same, as the arrays of a CSR matrix; `columns` may be any whole numbers."""
        parts = {"values": values, "columns": columns, "starts": starts[1:] + (self._count - starts[0])}
        if labels is not None:
            parts["labels"] = labels
            self._label_shape = labels.shape[1:]
        try:
            for name, array in parts.items():
                self._kinds.setdefault(name, array.dtype)
                self._files[name].write(np.ascontiguousarray(array, self._kinds[name]).data)
        except OSError as error:
            raise self._failed(error) from None
        self._count += len(values)
        self.rows += len(starts) - 1

    def finish(self, name: str, width: int) -> CsrFile:
        """Close the files; the table that they hold."""
        try:
            for file in self._files.values():
                file.close()
        except OSError as error:
            raise self._failed(error) from None
        kinds = {"values": np.dtype(np.float32), "columns": np.dtype(np.int32), **self._kinds}
        return CsrFile(self._folder, name, width, kinds, self._label_shape)

    def _failed(self, error: OSError) -> BadInput:
        written = 0
        for name, file in self._files.items():
            path = self._folder / name
            with contextlib.suppress(OSError):
                written += os.stat(path).st_size
            with contextlib.suppress(OSError):  # what was not written yet cannot be
                file.close()
            path.unlink(missing_ok=True)
        return disk_error(error, written)
