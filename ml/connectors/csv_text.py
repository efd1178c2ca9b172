"""The text of a CSV source: its header, and its rows parsed piece by piece.

A piece is about a megabyte of whole rows, so memory does not grow with the file. pyarrow parses the pieces, several
at a time; one that it refuses is read once more with the standard library, slowly, which finds the line and the value
for the message, or reads what only pyarrow finds wrong.

Where a row ends is plain as long as no quote character has appeared. After the first one a row ends at a line end
with an even number of quotes before it, which is certain when every quote stands where the format wants it; a piece
with other quotes is left to the standard library, and the next piece begins where that stopped.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv

from ml.connectors.pieces import Ordered, SourceBytes
from ml.connectors.source import FileSource, Source
from ml.csv_cells import MISSING, as_number
from ml.csv_head import CsvHead, counted, is_blank, is_utf8, text_lines
from ml.errors import BadInput
from ml.options.csv import LINE_LIMIT_BYTES

T = TypeVar("T")

#: Cells that hold no value, for pyarrow, which does not look past blanks.
_NULLS = [*MISSING, *(" " * count for count in range(1, 9)), "\t"]

#: Bytes of a piece. A call of the parser costs some microseconds a column, so wide tables get larger ones.
PIECE_BYTES = 2**20
_PIECE_BYTES_A_COLUMN = 2**11
_PIECE_BYTES_MOST = 2**24

_STEP_BYTES = 2**12


class WrongRow(Exception):
    """Something is wrong with a row of a piece; becomes BadInput as soon as the number of that row is known.

    row : position in the piece, from 0. message : makes the text from the number of the row in the source, from 1.
    """

    def __init__(self, row: int, message: Callable[[int], str]) -> None:
        super().__init__(row)
        self.row = row
        self.message = message


@dataclass
class _Piece(Generic[T]):
    """A piece that was worked on.

    result : what was made of its rows; None when it has none. stop : where it ends.
    resume : where the next piece begins and whether quotes are to be heeded, when not where it was planned.
    """

    stop: int
    rows: int = 0
    result: T | None = None
    resume: tuple[int, bool] | None = None


class CsvText(CsvHead):
    """The text of a source, with its header.

    name : how messages call it. first : the cells of its first line. Raises BadInput when there is no text.
    """

    def __init__(self, source: Source, separator: str, quote: str) -> None:
        self.is_file = isinstance(source, FileSource)
        #: Share of the rows' bytes that `pieces` has given.
        self.share = 0.0
        super().__init__(SourceBytes(source, "a CSV file"), source.name, separator, quote)

    def __enter__(self) -> CsvText:
        return self

    # The rows

    def pieces(
        self,
        names: Sequence[str],
        kinds: Mapping[str, pa.DataType],
        work: Callable[[pa.RecordBatch], T],
        *,
        threads: int,
        skip_header: bool,
    ) -> Iterator[T]:
        """What `work` makes of each piece, in order; it is called in up to `threads` threads at once.

        names : of all columns. kinds : type, string or float64, of those that are read, in the wanted order.
        Raises BadInput, also when there are no rows.
        """
        reading = _Reading(self, names, kinds, work, skip_header)
        begin = self._after_header if skip_header else self._start
        position, quoted = begin, False
        size = min(_PIECE_BYTES_MOST, max(PIECE_BYTES, _PIECE_BYTES_A_COLUMN * len(names)))
        rows = 0
        is_going = True
        with Ordered(threads if self._size - position > size else 1) as ordered:
            while is_going:
                is_going = False
                jobs = (partial(reading, a, b, quoted) for a, b in self._ranges(position, quoted, size))
                results = ordered.run(jobs)
                while True:
                    try:
                        piece = next(results, None)
                    except WrongRow as wrong:
                        raise BadInput(wrong.message(rows + wrong.row + 1)) from None
                    if piece is None:
                        break
                    if piece.result is not None:
                        self.share = (piece.stop - begin) / (self._size - begin)
                        yield piece.result
                    rows += piece.rows
                    if piece.resume is not None:
                        position, quoted = piece.resume
                        results.close()
                        is_going = position < self._size
                        break
        if rows == 0:
            raise BadInput(f"missing data: {self.name} has a header line but no rows")

    def _ranges(self, start: int, quoted: bool, size: int) -> Iterator[tuple[int, int]]:
        """First and last offset of each piece."""
        while start < self._size:
            stop = start + size
            stop = self._size if stop >= self._size else self._row_end(start, stop, quoted)
            yield start, stop
            start = stop

    def _row_end(self, start: int, wanted: int, quoted: bool) -> int:
        """Where the first row ends that does not end before `wanted`; `start` is where a row begins.

        With `quoted`, a row that is too long to be one ends at any line end: the piece will turn out to be irregular.
        """
        quote = self.quote.encode()
        is_open = quoted and self._bytes.read(start, wanted - start).count(quote) % 2 == 1
        position, step, fallback = wanted, _STEP_BYTES, -1
        while position < self._size:
            chunk = self._bytes.read(position, step)
            last = 0
            while (found := chunk.find(self._line_end, last)) >= 0:
                if quoted and chunk.count(quote, last, found) % 2:
                    is_open = not is_open
                last = found + 1
                end = position + last
                if not is_open:
                    if end - wanted > LINE_LIMIT_BYTES:
                        break
                    # The other half of a line end of two characters belongs to this line.
                    return end + 1 if self._line_end == b"\r" and self._bytes.read(end, 1) == b"\n" else end
                fallback = fallback if fallback >= 0 else end
            if quoted and chunk.count(quote, last) % 2:
                is_open = not is_open
            position += len(chunk)
            step = min(2 * step, PIECE_BYTES)
            if position - wanted > LINE_LIMIT_BYTES:
                if fallback >= 0:
                    return fallback
                raise self.long_line(wanted)
        return self._size


class _Reading(Generic[T]):
    """Parses pieces of a text and has them worked on; called in several threads."""

    def __init__(
        self,
        text: CsvText,
        names: Sequence[str],
        kinds: Mapping[str, pa.DataType],
        work: Callable[[pa.RecordBatch], T],
        has_header: bool,
    ) -> None:
        self._text = text
        self._names = list(names)
        self._kinds = dict(kinds)
        self._work = work
        self._has_header = has_header
        self._quote = text.quote.encode()
        self._converted = pacsv.ConvertOptions(
            include_columns=list(kinds), column_types=self._kinds, null_values=_NULLS, strings_can_be_null=False
        )

    def __call__(self, start: int, stop: int, quoted: bool) -> _Piece[T]:
        data = self._text._bytes.read(start, stop - start)
        self._text.no_nul(data)
        if not quoted and self._quote and self._quote in data:
            return _Piece(start, resume=(start, True))
        table, end = None, stop
        if not quoted or _is_regular(data, self._quote, self._text.separator.encode()):
            table = self._parsed(data, quoted)
        if table is None:
            table, end = self._slowly(start, stop)
        resume = None if end == stop else (end, quoted)
        if table.num_rows == 0:
            return _Piece(end, resume=resume)
        batches = table.to_batches()
        batch = batches[0] if len(batches) == 1 else table.combine_chunks().to_batches()[0]
        return _Piece(end, batch.num_rows, self._work(batch), resume)

    def _parsed(self, data: bytes, quoted: bool) -> pa.Table | None:
        """The rows as pyarrow reads them; None when it refuses."""
        try:
            return pacsv.read_csv(
                pa.BufferReader(data),
                read_options=pacsv.ReadOptions(use_threads=False, block_size=len(data) + 1, column_names=self._names),
                parse_options=pacsv.ParseOptions(
                    delimiter=self._text.separator,
                    quote_char=self._text.quote or False,
                    newlines_in_values=quoted,
                ),
                convert_options=self._converted,
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError):
            return None

    def _slowly(self, start: int, stop: int) -> tuple[pa.Table, int]:
        """The rows as the standard library reads them, and where the last of them ends, at `stop` or behind it.

        Raises the BadInput that says where the data is wrong.
        """
        text = self._text
        wanted = [(i, name, pa.types.is_floating(self._kinds[name])) for i, name in enumerate(self._names)
                  if name in self._kinds]  # fmt: skip
        columns: dict[str, list[Any]] = {name: [] for name in self._kinds}
        taken = [0]
        reader = text.reader(counted(text_lines(io.BufferedReader(_From(text, start), PIECE_BYTES)), taken))

        def line() -> int:
            return text.line_number(start) + max(0, reader.line_num - 1)

        try:
            while taken[0] < stop - start:
                cells = next(reader, None)
                if cells is None:
                    break
                if is_blank(cells, len(self._names)):
                    continue
                if len(cells) != len(self._names):
                    raise text.wrong_width(line(), cells, len(self._names), has_header=self._has_header)
                for i, name, is_number in wanted:
                    if not is_utf8(cells[i]):
                        raise text.no_utf8(line())
                    columns[name].append(self._number(cells[i], name, line) if is_number else cells[i])
        except csv.Error as error:
            raise BadInput(f"line {line()} of {text.name} cannot be read: {error}") from None
        table = pa.table({name: pa.array(columns[name], kind) for name, kind in self._kinds.items()})
        return table, start + taken[0]

    def _number(self, cell: str, name: str, line: Callable[[], int]) -> float | None:
        bare = cell.strip()
        if bare in MISSING:
            return None
        number = as_number(bare)
        if number is None:
            raise self._text.no_number(name, line(), bare)
        return number


class _From(io.RawIOBase):
    """The bytes of a text from an offset on, as a stream."""

    def __init__(self, text: CsvText, position: int) -> None:
        super().__init__()
        self._text = text
        self._position = position

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._text._bytes.read(self._position, len(buffer))
        self._text.no_nul(data)
        self._position += len(data)
        buffer[: len(data)] = data
        return len(data)


def _is_regular(data: bytes, quote: bytes, separator: bytes) -> bool:
    """Whether every quote opens a cell, closes one, or is one of two that stand for one in a quoted cell."""
    cells = np.frombuffer(data, np.uint8)
    places = np.flatnonzero(cells == quote[0])
    if len(places) % 2:
        return False
    opening, closing = places[0::2], places[1::2]
    allowed = np.zeros(256, bool)
    allowed[[separator[0], quote[0], *b"\r\n"]] = True
    before = cells[np.maximum(opening - 1, 0)]
    after = cells[np.minimum(closing + 1, len(cells) - 1)]
    return bool(np.all(allowed[before] | (opening == 0)) and np.all(allowed[after]))
