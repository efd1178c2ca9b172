"""Tables on disk: an Arrow file that is written once and read as often as wanted, in constant memory.

`features.arrow` is an Arrow IPC file with one column, `features`, a fixed-size list of numbers per row, in record
batches of about 8 MB; `labels.npy` is a NumPy file. Both are mapped into memory to be read, so that what is in memory
of them belongs to the system's file cache, which gives it back when others need it.

How random the order of the rows is: a batch consists of 64 blocks of consecutive rows (128 KB each). Each pass takes
the blocks of the whole table in random order, 64 at a time, and the rows of these 64 in random order. So neighbours
in the file meet within a pass more often than chance would have it, by the share of a chunk that one block is, and
no more; a table of less than 64 blocks is shuffled perfectly.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from ml.connectors.disk import disk_error
from ml.errors import BadInput
from ml.tables import Chunk, Table

#: Bytes of a record batch, and of the rows that are shuffled with each other.
BATCH_BYTES = 2**23
#: Blocks of rows that make a batch.
BLOCKS = 64

_FEATURES_FILE = "features.arrow"
_LABELS_FILE = "labels.npy"
_LABEL_ROWS = 2**16


class ColumnarTable(Table):
    """Rows of a table on disk; features are of the type they were written with, float32 for backends.

    Memory: a mapping of the files, which costs none of its own, and a chunk of 8 MB while rows are taken in random
    order. The files must stay as they are for as long as the table is used.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.uris = None
        self._folder = folder
        # Copy on write: arrays may be written to, which some libraries insist on, without a change to the file.
        self._mapped = np.memmap(folder / _FEATURES_FILE, np.uint8, mode="c")
        self._batches: list[np.ndarray] = []
        opened = pa.ipc.open_file(pa.py_buffer(self._mapped))
        kind = opened.schema.field(0).type
        self._width = int(kind.list_size)
        self.dtype = np.dtype(kind.value_type.to_pandas_dtype())
        begin = self._mapped.ctypes.data
        bare = np.asarray(self._mapped)
        for position in range(opened.num_record_batches):
            values = opened.get_batch(position).column(0).values
            offset = values.buffers()[1].address - begin
            size = len(values) * self.dtype.itemsize
            self._batches.append(bare[offset : offset + size].view(self.dtype).reshape(-1, self._width))
        self._first, self._stop = 0, sum(len(batch) for batch in self._batches)
        self.labels = _labels(folder)

    def __len__(self) -> int:
        return self._stop - self._first

    @property
    def width(self) -> int:
        """Number of features."""
        return self._width

    def part(self, first: int, stop: int, name: str) -> ColumnarTable:
        """The rows from `first` to before `stop` as a table of their own, on the same files."""
        made = object.__new__(ColumnarTable)
        made.__dict__.update(self.__dict__)
        made.name = name
        made._first, made._stop = self._first + first, self._first + stop
        made.labels = None if self.labels is None else self.labels[first:stop]
        return made

    def relabel(self, change: Callable[[np.ndarray], np.ndarray]) -> None:
        """Replace the labels of the whole table by what `change` makes of them, some rows at a time."""
        assert self.labels is not None
        writer = _LabelWriter(self._folder)
        try:
            for first in range(0, len(self), _LABEL_ROWS):
                writer.append(change(np.asarray(self.labels[first : first + _LABEL_ROWS])))
            writer.finish()
        except OSError as error:
            writer.drop()
            raise disk_error(error) from None
        self.labels = _labels(self._folder)

    def remove(self) -> None:
        """Take the files away; what is mapped of them stays readable."""
        for name in (_FEATURES_FILE, _LABELS_FILE):
            (self._folder / name).unlink(missing_ok=True)

    def chunks(self, generator: np.random.Generator | None = None, start: int = 0) -> Iterator[Chunk]:
        """All rows once, about 8 MB at a time; see the top of this file for the random order.

        The generator is drawn from before the first chunk, and then no more. Rows that `start` leaves out are not
        read, but for those that share a chunk with others.
        """
        if generator is None:
            for _, features, labels in self._in_order(start):
                yield Chunk(features, labels)
            return
        for _, features, labels, order in self._shuffled(generator, start):
            yield Chunk(features, labels, order)

    def numbered(
        self, generator: np.random.Generator | None = None
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None]]:
        """All rows once, as `chunks` gives them, in their order already, each with its number in the table first."""
        if generator is None:
            for first, features, labels in self._in_order(0):
                yield np.arange(first, first + len(features)), features, labels
            return
        for numbers, features, labels, order in self._shuffled(generator, 0):
            yield numbers[order], features[order], None if labels is None else labels[order]

    def _in_order(self, start: int) -> Iterator[tuple[int, np.ndarray, np.ndarray | None]]:
        """Number of the first row, features and labels of each batch; views of the files."""
        begin = 0
        for batch in self._batches:
            first, stop = max(self._first + start, begin), min(self._stop, begin + len(batch))
            if first < stop:
                number = first - self._first
                labels = None if self.labels is None else np.asarray(self.labels)[number : stop - self._first]
                yield number, batch[first - begin : stop - begin], labels
            begin += len(batch)

    def _shuffled(
        self, generator: np.random.Generator, start: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray | None, np.ndarray]]:
        """Numbers, features and labels of the rows of some blocks, in memory, and the order to take them in."""
        block_rows = _block_rows(self.width, self.dtype)
        batch_rows = BLOCKS * block_rows
        lowest, highest = self._first // block_rows, -(-self._stop // block_rows)
        places = generator.permutation(np.arange(lowest, highest))
        key = int(generator.integers(2**63))
        bare = None if self.labels is None else np.asarray(self.labels)
        for position in range(0, len(places), BLOCKS):
            # First and last row of each block; the blocks at the ends of a part may be cut.
            first = np.maximum(places[position : position + BLOCKS] * block_rows, self._first)
            stop = np.minimum((places[position : position + BLOCKS] + 1) * block_rows, self._stop)
            rows = int((stop - first).sum())
            if start >= rows:
                start -= rows
                continue
            features = np.empty((rows, self.width), self.dtype)
            numbers = np.concatenate([np.arange(a, b) for a, b in zip(first, stop, strict=True)]) - self._first
            at = 0
            for a, b in zip(first.tolist(), stop.tolist(), strict=True):
                within = a % batch_rows
                features[at : at + b - a] = self._batches[a // batch_rows][within : within + b - a]
                at += b - a
            # Each chunk has a generator of its own, so that those left out need not be drawn for.
            order = np.random.default_rng((key, position)).permutation(rows)[start:]
            start = 0
            yield numbers, features, None if bare is None else bare[numbers], order


def _block_rows(width: int, dtype: np.dtype) -> int:
    """Rows of a block; every batch but the last has `BLOCKS` of them."""
    return max(1, BATCH_BYTES // BLOCKS // (width * dtype.itemsize))


def _labels(folder: Path) -> np.ndarray | None:
    path = folder / _LABELS_FILE
    return np.load(path, mmap_mode="c", allow_pickle=False) if path.exists() else None


class ColumnarWriter:
    """Writes a table on disk.

    width : number of features. dtype : their type. Raises BadInput when the disk is full; what was written is taken
    away then.
    """

    def __init__(self, folder: Path, width: int, dtype: Any = np.float32) -> None:
        self._path = folder / _FEATURES_FILE
        self._folder = folder
        self._dtype = np.dtype(dtype)
        self._pending = np.empty((BLOCKS * _block_rows(width, self._dtype), width), self._dtype)
        self._count = 0
        self._kind = pa.list_(pa.from_numpy_dtype(self._dtype), width)
        self._labels: _LabelWriter | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name in (_FEATURES_FILE, _LABELS_FILE):
                (folder / name).unlink(missing_ok=True)
            self._sink = pa.OSFile(str(self._path), "wb")
            self._file = pa.ipc.new_file(self._sink, pa.schema([("features", self._kind)]))
        except OSError as error:
            raise disk_error(error) from None

    def append(self, features: np.ndarray, labels: np.ndarray | None) -> None:
        """Add rows; all or none of the calls have labels, always of the same type."""
        try:
            if labels is not None:
                self._labels = self._labels or _LabelWriter(self._folder)
                self._labels.append(labels)
            position = 0
            while position < len(features):
                taken = min(len(features) - position, len(self._pending) - self._count)
                self._pending[self._count : self._count + taken] = features[position : position + taken]
                self._count += taken
                position += taken
                if self._count == len(self._pending):
                    self._write()
        except OSError as error:
            raise self._given_up(error) from None

    def finish(self, name: str) -> ColumnarTable:
        """Close the files; the table that they hold."""
        try:
            self._write()
            self._file.close()
            self._sink.close()
            if self._labels is not None:
                self._labels.finish()
        except OSError as error:
            raise self._given_up(error) from None
        return ColumnarTable(self._folder, name)

    def _write(self) -> None:
        if self._count == 0:
            return
        rows = self._pending[: self._count]
        values = pa.Array.from_buffers(self._kind.value_type, rows.size, [None, pa.py_buffer(rows)])
        made = pa.FixedSizeListArray.from_arrays(values, self._kind.list_size)
        self._file.write_batch(pa.record_batch([made], names=["features"]))
        self._count = 0

    def _given_up(self, error: OSError) -> BadInput:
        written = self._path.stat().st_size if self._path.exists() else 0
        self._path.unlink(missing_ok=True)
        if self._labels is not None:
            self._labels.drop()
        return disk_error(error, written)


class _LabelWriter:
    """Writes labels.npy; the file has its name when it is finished."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / _LABELS_FILE
        self._file = self._path.with_suffix(".new").open("wb")
        self._rows = 0
        self._first: np.ndarray | None = None

    def append(self, labels: np.ndarray) -> None:
        """Add labels, always of the same type and shape but for the rows."""
        if self._first is None:
            self._first = labels[:0].copy()
            self._header()
        self._file.write(np.ascontiguousarray(labels).data)
        self._rows += len(labels)

    def finish(self) -> None:
        """Close the file and give it its name."""
        self._file.seek(0)
        self._header()
        self._file.close()
        os.replace(self._file.name, self._path)

    def drop(self) -> None:
        """Take the file away."""
        with contextlib.suppress(OSError):  # what was not written yet cannot be
            self._file.close()
        Path(self._file.name).unlink(missing_ok=True)

    def _header(self) -> None:
        """Write the header; NumPy pads it, so that it is as long for no rows as for all of them."""
        assert self._first is not None
        about = {
            "descr": np.lib.format.dtype_to_descr(self._first.dtype),
            "fortran_order": False,
            "shape": (self._rows, *self._first.shape[1:]),
        }
        np.lib.format.write_array_header_1_0(self._file, about)
