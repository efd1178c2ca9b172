"""The text of an svm source: rows of `label id:value id:value …`, parsed piece by piece.

After a row's label there may be a `qid:number`, which is not used; what stands behind a `#` is a comment. Words are
separated by blanks or tabs. Blank lines are no rows.

A piece is about a megabyte of whole lines. It is rewritten, with nothing but replacements of bytes, to a CSV text of
two columns, which pyarrow reads: `id:value` is such a row already once the blanks between words are line ends, and
`:label` marks where a row of ours begins. What pyarrow refuses, or could take for something else, is read again word by
word, slowly, which finds the line and the word for the message, or reads what is unusual but right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ml.connectors.pieces import Ordered, SourceBytes
from ml.connectors.source import Source
from ml.errors import BadInput
from ml.other_formats import refuse_others
from ml.svm_labels import NUMBER, WrongWord, label_of, no_label, told, wrong_line

#: Bytes of a piece, and of the longest line.
PIECE_BYTES = 2**20
LINE_LIMIT_BYTES = 2**26

_HEAD_BYTES = 2**16
_STEP_BYTES = 2**16
#: One less than fits, so that the number of possible ids fits as well.
_ID_MOST = 2**63 - 2
#: What stands for an id that is not there; never a real one, as they are not negative.
_NO_ID = -(2**63)

_INTEGER = re.compile(rb"-?[0-9]+")
_COMMENT = re.compile(rb"#[^\n]*")
_QUERY = re.compile(rb"^([ \t]*[^\s:]+)[ \t]+qid:[0-9]+(?=[ \t\n]|\Z)", re.MULTILINE)
_INDENT = re.compile(rb"^[ \t]+", re.MULTILINE)
_BREAKS = bytes.maketrans(b" \t", b"\n\n")
#: What pyarrow reads as a number and we do not: 0x10 as an id, nan(1) as a value; and an id without digits.
_MISREAD = (b"x", b"X", b"(", b" :", b"\t:", b"\n:", b"-9223372036854775808")

_READ = {
    "parse_options": pacsv.ParseOptions(delimiter=":", quote_char=False, double_quote=False),
    "convert_options": pacsv.ConvertOptions(
        column_types={"id": pa.int64(), "value": pa.float64()}, null_values=[""], strings_can_be_null=False
    ),
}


@dataclass
class Rows:
    """Rows of a piece.

    position : offset of the piece in the text.
    labels : float64 array, shape (rows,); None when they were not asked for.
    starts : int64 array, shape (rows + 1,): values of row i are those from starts[i] to before starts[i + 1].
    ids : int64 array, shape (values,), at least 0 and increasing within a row. values : float32 array, as long; NaN
        where one is missing, never infinite.
    """

    position: int
    labels: np.ndarray | None
    starts: np.ndarray
    ids: np.ndarray
    values: np.ndarray

    def __len__(self) -> int:
        return len(self.starts) - 1


class SvmText:
    """The text of a source; `name` is how messages call it. Raises BadInput when there is no text."""

    def __init__(self, source: Source) -> None:
        self.name = source.name
        self._bytes = SourceBytes(source, "an svm file")
        try:
            head = self._bytes.read(0, _HEAD_BYTES)
            refuse_others(self.name, head)
            if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
                raise BadInput(f"{self.name} is UTF-16 text; save it as UTF-8")
            self._start = 3 if head[:3] == b"\xef\xbb\xbf" else 0
            first = re.search(rb"\r?\n|\r(?!\Z)", head)
            self._line_end = b"\r" if first is not None and first[0] == b"\r" else b"\n"
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> SvmText:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()

    def pieces(self, *, labelled: bool, threads: int) -> Iterator[Rows]:
        """The rows, in order, of every piece that has some; with labels, which they must have then, when `labelled`.

        Raises BadInput, also when there are no rows.
        """
        is_empty = True
        jobs = (partial(self._rows, start, stop, labelled) for start, stop in self._ranges())
        with Ordered(threads if self._bytes.size > PIECE_BYTES else 1) as ordered:
            for rows in ordered.run(jobs):
                if len(rows):
                    is_empty = False
                    yield rows
        if is_empty:
            raise BadInput(f"missing data: {self.name} is empty")

    def line_of(self, position: int, row: int) -> int:
        """Number of the line, from 1, of a row of the piece at an offset; reads everything before it."""
        line = 1 + self._line_ends(position)
        for words in self._lines(position):
            row -= bool(words)
            if row < 0:
                break
            line += 1
        return line

    def _line_ends(self, position: int) -> int:
        return sum(
            self._bytes.read(at, min(PIECE_BYTES, position - at)).count(self._line_end)
            for at in range(self._start, position, PIECE_BYTES)
        )

    def _lines(self, start: int, stop: int | None = None) -> Iterator[list[bytes]]:
        """The words of every line from an offset on, without comments."""
        size = self._bytes.size if stop is None else stop
        while start < size:
            # As long a piece as it was read in: line ends are understood the same way then.
            end = self._line_stop(start, start + PIECE_BYTES) if stop is None else stop
            data = _with_plain_ends(self._bytes.read(start, end - start))
            for line in data.removesuffix(b"\n").split(b"\n"):
                yield line.partition(b"#")[0].split()
            start = end

    def _ranges(self) -> Iterator[tuple[int, int]]:
        """First and last offset of each piece."""
        start = self._start
        while start < self._bytes.size:
            stop = self._line_stop(start, start + PIECE_BYTES)
            yield start, stop
            start = stop

    def _line_stop(self, start: int, wanted: int) -> int:
        """Where the last line ends that ends before `wanted`; or else the first one behind it."""
        size = self._bytes.size
        if wanted >= size:
            return size
        position = max(start, wanted - _STEP_BYTES)
        found = self._bytes.read(position, wanted - position).rfind(self._line_end)
        if found >= 0:
            return self._with_other_half(position + found + 1)
        position = wanted
        while position < size:
            chunk = self._bytes.read(position, _STEP_BYTES)
            found = chunk.find(self._line_end)
            if found >= 0:
                return self._with_other_half(position + found + 1)
            position += len(chunk)
            if position - start > LINE_LIMIT_BYTES:
                line = 1 + self._line_ends(start)
                raise BadInput(
                    f"line {line} of {self.name}, or a line soon behind it, is longer than "
                    f"{LINE_LIMIT_BYTES // 2**20} MiB; is this an svm file with one row per line?"
                )
        return size

    def _with_other_half(self, end: int) -> int:
        """The end of a line, behind both characters when its end has two."""
        return end + 1 if self._line_end == b"\r" and self._bytes.read(end, 1) == b"\n" else end

    def _rows(self, start: int, stop: int, labelled: bool) -> Rows:
        data = self._bytes.read(start, stop - start)
        if b"\0" in data:
            raise BadInput(f"{self.name} is not a text file: it holds NUL bytes")
        rows = _parsed(data, start, labelled)
        return self._slowly(start, stop, labelled) if rows is None else rows

    def _slowly(self, start: int, stop: int, labelled: bool) -> Rows:
        """The rows as they are word by word. Raises the BadInput that says where the data is wrong."""
        labels: list[float] = []
        starts, ids, values = [0], [], []
        for number, words in enumerate(self._lines(start, stop)):
            if not words:
                continue
            try:
                label, features = _row(words)
                if label is None and labelled:
                    raise no_label(words[0])
            except WrongWord as wrong:
                raise wrong_line(1 + self._line_ends(start) + number, self.name, wrong, words) from None
            labels.append(0.0 if label is None else label)
            ids += [each for each, _ in features]
            values += [value for _, value in features]
            starts.append(len(ids))
        return Rows(
            start,
            np.array(labels, np.float64) if labelled else None,
            np.array(starts, np.int64),
            np.array(ids, np.int64),
            np.array(values, np.float32),
        )


def _row(words: Sequence[bytes]) -> tuple[float | None, list[tuple[int, float]]]:
    """Label, if there is one, and features of a row that is not blank. Raises WrongWord."""
    label = label_of(words[0])
    rest = words if label is None else words[1:]
    if rest and re.fullmatch(rb"qid:[0-9]+", rest[0]):
        rest = rest[1:]
    features: list[tuple[int, float]] = []
    before = -1
    for word in rest:
        left, colon, right = word.partition(b":")
        if not colon or _INTEGER.fullmatch(left) is None or NUMBER.fullmatch(right) is None:
            raise WrongWord(f"has the word {told(word)}, which is no feature of the form id:value")
        if len(left) > 30 or not 0 <= int(left) <= _ID_MOST:
            raise WrongWord(f"has the feature id {told(left)}; ids are whole numbers from 0 to {_ID_MOST}")
        each = int(left)
        if each <= before:
            again = "twice" if each == before else f"after feature {before}"
            raise WrongWord(f"has feature {each} {again}; the ids of a row must increase")
        with np.errstate(over="ignore"):
            value = float(np.float32(float(right)))
        if np.isinf(value):
            raise WrongWord(f"has the value {told(right)} for feature {each}; it is too large")
        features.append((each, value))
        before = each
    return label, features


def _with_plain_ends(data: bytes) -> bytes:
    return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n") if b"\r" in data else data


def _parsed(data: bytes, position: int, labelled: bool) -> Rows | None:
    """The rows as pyarrow reads them; None where only a look at every word can tell what they are."""
    data = _with_plain_ends(data)
    if b"#" in data:
        data = _COMMENT.sub(b"", data)
    if b"qid:" in data:
        data = _QUERY.sub(rb"\1", data)
    if data[:1] in (b" ", b"\t") or b"\n " in data or b"\n\t" in data:
        data = _INDENT.sub(b"", data)
    data = data.strip(b"\n")
    if data.startswith(b":") or any(each in data for each in _MISREAD):
        return None
    first = data[:_HEAD_BYTES].split(maxsplit=1)
    has_labels = bool(first) and b":" not in first[0]
    if labelled and not has_labels and first:
        return None
    mark = b"\n:" if has_labels else b"\n:\n"
    text = (mark + data.replace(b"\n", mark)).translate(_BREAKS)
    try:
        table = pacsv.read_csv(
            pa.BufferReader(text),
            read_options=pacsv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=["id", "value"]),
            **_READ,
        )
    except (pa.ArrowInvalid, UnicodeDecodeError):
        return None
    made = _gathered(table.combine_chunks(), has_labels)
    if made is None:
        return None
    labels, starts, ids, values = made
    return Rows(position, labels if labelled else None, starts, ids, values)


def _gathered(table: pa.Table, has_labels: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray] | None:
    """Labels, starts, ids and values of the rows in a table of marks and features; None when something is wrong."""
    ids = _filled(table.column("id"), _NO_ID)
    numbers = _filled(table.column("value"), np.nan)
    is_mark = ids == _NO_ID
    if table.column("value").null_count:
        is_null = np.from_dlpack(pc.cast(pc.is_null(table.column("value")), pa.uint8()).combine_chunks()).view(bool)
        if np.any(is_null & ~is_mark):
            return None
    else:
        is_null = np.zeros(len(ids), bool)
    marks = np.flatnonzero(is_mark)
    begins = marks - np.arange(len(marks))  # how many features stand before each mark
    is_row = ~is_null[marks] if has_labels else np.diff(begins, append=len(ids) - len(marks)) > 0
    labels = numbers[marks[is_row]]
    ids, numbers = ids[~is_mark], numbers[~is_mark]
    starts = np.append(begins[is_row], len(ids))
    if len(starts) > 1 and starts[0] != 0:
        return None
    with np.errstate(over="ignore"):
        values = numbers.astype(np.float32)
    rises = np.diff(ids) > 0
    inner = starts[1:-1]
    rises[inner[(inner > 0) & (inner < len(ids))] - 1] = True
    if not rises.all() or np.isinf(values).any() or (len(ids) and not 0 <= ids.min() <= ids.max() <= _ID_MOST):
        return None
    return labels, starts, ids, values


def _filled(column: pa.ChunkedArray, value: float) -> np.ndarray:
    """A column as an array; not by `to_numpy`, which imports pandas wherever that is installed."""
    filled = pc.fill_null(column, value) if column.null_count else column
    chunks = [np.from_dlpack(chunk) for chunk in filled.chunks]
    return chunks[0] if len(chunks) == 1 else np.concatenate(chunks or [np.zeros(0)])
