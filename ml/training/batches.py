"""Batches of rows without end: pass after pass over a table, each in an order of its own, or in the table's."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ml.errors import BadInput
from ml.tables import Chunk, Table


class Batches:
    """Rows of a table, pass after pass; a batch that reaches the end of a pass goes on in the next one.

    With a seed, the order of each pass is drawn from the seed and the number of the pass, and from nothing else; so
    the two numbers of `position` are all that is needed to go on with the very same rows.
    """

    def __init__(self, table: Table, seed: int | None = None) -> None:
        """Batches from the first row of the first pass on.

        seed : not negative; None takes the rows as they lie. Raises BadInput for a table without rows.
        """
        if len(table) == 0:
            raise BadInput(f"{table.name} has no rows to train on")
        self._table = table
        self._seed = seed
        self._pass, self._row = 0, 0
        self._chunks: Iterator[Chunk] = iter(())
        self._chunk: Chunk | None = None
        self._at, self._end = 0, 0

    @property
    def position(self) -> tuple[int, int]:
        """Number of the pass, from 0, and how many of its rows were given."""
        return self._pass, self._row

    @property
    def width(self) -> int:
        """Number of features."""
        return self._table.width

    def go_to(self, number: int, row: int) -> None:
        """Go on at a position that `position` told, or in the next pass where the table has become shorter."""
        self._pass, self._row = (number, row) if row <= len(self._table) else (number + 1, 0)
        self._open()

    def skip(self, rows: int) -> None:
        """Pass over some rows."""
        passes, row = divmod(self._row + rows, len(self._table))
        self.go_to(self._pass + passes, row)

    def fill(self, features: np.ndarray, labels: np.ndarray | None) -> None:
        """Put the next rows into arrays, as many as these have.

        features : float32 array, C-contiguous, shape (rows, features). labels : array whose rows have the shape of the
        table's labels, of a type that can hold them; None when they are not wanted.
        """
        filled, wanted = 0, len(features)
        while filled < wanted:
            if self._at == self._end:
                self._next_chunk()
            count = min(wanted - filled, self._end - self._at)
            self._copy(features[filled : filled + count], None if labels is None else labels[filled : filled + count])
            self._at += count
            self._row += count
            filled += count

    def _copy(self, features: np.ndarray, labels: np.ndarray | None) -> None:
        """The next rows of the chunk, as many as there is room for."""
        chunk = self._chunk
        assert chunk is not None
        stop = self._at + len(features)
        if chunk.order is None:
            features[:] = chunk.take(slice(self._at, stop))[0]
            rows: slice | np.ndarray = slice(self._at, stop)
        else:
            rows = chunk.order[self._at : stop]
            if isinstance(chunk.features, np.ndarray):
                # Unlike an index in brackets this needs no array in between. The rows are known to be there, and
                # "clip" spares the copy with which "raise" guards the result.
                np.take(chunk.features, rows, axis=0, out=features, mode="clip")
            else:
                features[:] = chunk.take(rows)[0]
        if labels is not None:
            assert chunk.labels is not None
            labels[:] = chunk.labels[rows]

    def _next_chunk(self) -> None:
        self._chunk = next(self._chunks, None)
        if self._chunk is None:
            if self._row == len(self._table):
                self._pass, self._row = self._pass + 1, 0
            self._open()
            self._chunk = next(self._chunks)
        self._at = 0
        self._end = len(self._chunk) if self._chunk.order is None else len(self._chunk.order)

    def _open(self) -> None:
        """Begin to read at the position."""
        generator = None if self._seed is None else np.random.default_rng((self._seed, self._pass))
        self._chunks = iter(self._table.chunks(generator, self._row))
        self._chunk, self._at, self._end = None, 0, 0
