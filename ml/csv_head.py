"""The header line of a CSV text, and what options say of its columns.

Imports nothing heavy: the API looks at the heads of files with it before a training is accepted, and the connector
reads all else behind the same head.
"""

from __future__ import annotations

import csv
import difflib
import io
import re
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Any, Protocol

from ml.csv_cells import as_number
from ml.errors import BadInput
from ml.options.csv import LINE_LIMIT_BYTES, CsvOptions
from ml.options.loading import shown
from ml.other_formats import IN_MEMORY, other_than_csv, refuse_others, taken_for_line

SEPARATORS = (",", ";", "\t", "|", ":", " ")

_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_COMPARED = 100
_COMPARED_CHARACTERS = 40
_HEAD_BYTES = 2**16
_STEP_BYTES = 2**20


class Bytes(Protocol):
    """Bytes by offset. size : how many there are."""

    size: int

    def read(self, position: int, count: int) -> bytes:
        """Up to so many bytes from an offset on; fewer only at the end."""

    def close(self) -> None:
        """Give them up."""


class CsvHead:
    """The head of a CSV text.

    name : how messages call it. first : the cells of its first line. Raises BadInput when there is no text.
    """

    def __init__(self, content: Bytes, name: str, separator: str, quote: str) -> None:
        self.name = name
        self.separator = separator
        self.quote = quote
        self._bytes = content
        self._size = content.size
        self._line_end = b"\n"
        try:
            self._start = self._first_text()
            self.first, self._after_header = self._first_row()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> CsvHead:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._bytes.close()

    @property
    def is_all(self) -> bool:
        """Whether nothing comes behind the first line."""
        return self._after_header >= self._size

    def _first_text(self) -> int:
        """Where the first line begins that is not blank."""
        head = self._bytes.read(0, _HEAD_BYTES)
        refuse_others(self.name, head)
        if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BadInput(f"{self.name} is UTF-16 text; save it as UTF-8")
        begin = position = 3 if head[:3] == b"\xef\xbb\xbf" else 0
        while True:
            chunk = self._bytes.read(position, _HEAD_BYTES)
            if not chunk:
                raise BadInput(f"missing data: {self.name} is empty")
            rest = chunk.lstrip()
            position += len(chunk) - len(rest)
            if rest:
                break
        # Blanks before the text belong to its line: they may be empty cells.
        begin = max(begin, position - _HEAD_BYTES)
        before = self._bytes.read(begin, position - begin)
        return begin + max(before.rfind(b"\n"), before.rfind(b"\r")) + 1

    def _first_row(self) -> tuple[list[str], int]:
        """The cells of the first row, and where the next one begins."""
        length = _HEAD_BYTES
        while True:
            data = self._bytes.read(self._start, length)
            self.no_nul(data)
            is_all = self._start + len(data) >= self._size
            taken = [0]
            try:
                cells: list[str] = next(self.reader(counted(text_lines(io.BytesIO(data)), taken)), [])
            except csv.Error as error:
                raise BadInput(f"the header line of {self.name} cannot be read: {error}") from None
            if taken[0] < len(data) or is_all:
                if data[: taken[0]].endswith(b"\r"):
                    self._line_end = b"\r"
                return [cell.strip() for cell in cells], self._start + taken[0]
            if length > LINE_LIMIT_BYTES:
                raise self.long_line(self._start)
            length = min(4 * length, LINE_LIMIT_BYTES + 1)

    def first_rows(self, count: int) -> tuple[Iterator[tuple[int, list[str]]], bool]:
        """Line number and cells of the rows in so many bytes behind the header, and whether these are all rows.

        Raises BadInput for bytes that are no text.
        """
        data = self._bytes.read(self._after_header, count)
        self.no_nul(data)
        is_whole = self._after_header + len(data) >= self._size
        return self._rows_in(data, is_whole), is_whole

    def _rows_in(self, data: bytes, is_whole: bool) -> Iterator[tuple[int, list[str]]]:
        taken, before = [0], self.line_number(self._after_header)
        reader = self.reader(counted(text_lines(io.BytesIO(data)), taken))
        for cells in reader:
            if taken[0] >= len(data) and not is_whole:
                return  # it may be cut
            if not is_blank(cells, len(self.first)):
                yield before + max(0, reader.line_num - 1), cells

    def header(self) -> list[str]:
        """The names in the first line. Raises BadInput for empty or repeated ones."""
        if not all(is_utf8(name) for name in self.first):
            raise BadInput(f"{self.name} is not UTF-8 text: its header line cannot be read; save it as UTF-8")
        seen: set[str] = set()
        for position, name in enumerate(self.first, start=1):
            if name in seen:
                raise BadInput(f"column {name} stands twice in the header line of {self.name}; names must differ")
            if not name and position < len(self.first):
                raise BadInput(f"column {position} of {self.name} has no name in the header line")
            seen.add(name)
        return list(self.first)

    def separator_hint(self) -> str:
        """What to say when columns are not as they should be: another separator, or what the text is instead."""
        if (other := other_than_csv(self.first)) or len(self.first) > 1:
            return other
        line = self.first[0] if self.first else ""
        best = max((s for s in SEPARATORS if s != self.separator), key=line.count)
        if line.count(best) == 0:
            return taken_for_line(line) if self.name == IN_MEMORY and as_number(line) is None else ""
        return (
            f"; only one column was found with separator {self.separator!r} in {shown(line)}: "
            f"set parameters.input.separator to {best!r}?"
        )

    def missing_hint(self, name: str, columns: Sequence[str]) -> str:
        """What to say when a column was not found. columns : those that may be meant."""
        same = spelt_otherwise(name, columns)
        return same or self.separator_hint() or near(name, columns) or no_header(name, self.first)

    def long_line(self, position: int) -> BadInput:
        """What is wrong with a line that begins at an offset and has no end."""
        return BadInput(
            f"line {self.line_number(position)} of {self.name} is longer than {LINE_LIMIT_BYTES // 2**20} MiB; "
            "is this a CSV file with one row per line?"
        )

    def line_number(self, position: int) -> int:
        """Number of the line, from 1, that holds an offset; reads everything before it."""
        return 1 + sum(
            self._bytes.read(at, min(_STEP_BYTES, position - at)).count(self._line_end)
            for at in range(0, position, _STEP_BYTES)
        )

    def wrong_width(self, line: int, cells: Sequence[str], wanted: int, *, has_header: bool) -> BadInput:
        """What is wrong with a line of another number of cells than the first one."""
        hint = self.separator_hint()
        if any("\n" in cell for cell in cells):
            hint = f"; a cell of it holds line ends: is a quote {self.quote} before it not closed?"
        first = "header" if has_header else "first"
        return BadInput(f"line {line} of {self.name} has {len(cells)} cells; the {first} line has {wanted}{hint}")

    def no_utf8(self, line: int) -> BadInput:
        """What is wrong with a line of which a cell is wanted that is no text."""
        return BadInput(f"{self.name} is not UTF-8 text: line {line} cannot be read; save it as UTF-8")

    def no_number(self, column: str, line: int, cell: str) -> BadInput:
        """What is wrong with a cell in a column of numbers."""
        return BadInput(
            f"column {column} is not a number, use categoricals or ignore parameters instead: "
            f"line {line} of {self.name} has {shown(cell)}"
            + ("; numbers are written with a point, as in 1.5" if _DECIMAL_COMMA.fullmatch(cell) else "")
        )

    def no_nul(self, data: bytes) -> None:
        """Raises BadInput for bytes that no text holds."""
        if b"\0" in data:
            raise BadInput(f"{self.name} is not a text file: it holds NUL bytes")

    def reader(self, lines: Iterable[str]) -> Any:
        """The rows of some lines, read by the standard library."""
        csv.field_size_limit(LINE_LIMIT_BYTES + 1)
        if self.quote:
            return csv.reader(lines, delimiter=self.separator, quotechar=self.quote, doublequote=True)
        return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE)


def text_lines(stream: Any) -> io.TextIOWrapper:
    """Lines with the ends they have; bytes that are no UTF-8 become surrogates, so that none is lost or invented."""
    return io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")


def counted(lines: Iterable[str], taken: list[int]) -> Iterator[str]:
    """The lines, with the bytes of all that were taken in `taken[0]`."""
    for each in lines:
        taken[0] += len(each) if each.isascii() else len(each.encode("utf-8", "surrogateescape"))
        yield each


def is_blank(cells: Sequence[str], columns: int) -> bool:
    """Whether a line is no row: there is nothing in it."""
    return not cells or (len(cells) == 1 < columns and not cells[0].strip())


def is_utf8(cell: str) -> bool:
    """Whether a cell holds no surrogates, which stand for bytes that are no UTF-8."""
    return cell.isascii() or not any("\ud800" <= character <= "\udfff" for character in cell)


def feature_columns(columns: Sequence[str], source: str, hint: str, options: CsvOptions) -> list[str]:
    """The columns of a training file that are features. Raises BadInput when one is missing that the options name."""

    present = set(columns)  # options may name as many columns as there are

    def find(name: str, what: str) -> None:
        if name not in present:
            told = f"; its columns are {listed(columns)}{near(name, columns) or no_header(name, columns)}"
            raise BadInput(f"cannot find {what} in {source}{told if spelt_otherwise(name, columns) else hint or told}")

    for name in options.label:
        find(name, f"label column {name}")
    if options.id:
        find(options.id, f"id column {options.id}")
    for option in ("ignore", "categoricals", "categoricals_mapping"):
        for name in getattr(options, option):
            find(name, f"column {name} of parameters.input.{option}")
    apart = {*options.label, options.id, *options.ignore}
    # A trailing separator makes a last column without a name: no feature.
    features = [name for name in columns if name and name not in apart]
    if not features:
        raise BadInput(f"{source} has no feature column{hint or '; all are label, id or ignored'}")
    return features


def no_header(name: str, columns: Sequence[str]) -> str:
    """What to say when a column was not found, and what should be names of columns looks like a row."""
    numbers = sum(as_number(each) is not None for each in columns)
    if as_number(name) is not None or 2 * numbers <= len(columns):
        return ""
    return "; is the header line missing, which names the columns?"


def near(name: str, columns: Sequence[str]) -> str:
    """What to say when a column was not found: which one may be meant."""
    if same := spelt_otherwise(name, columns):
        return same
    # Comparing takes time that grows with the square of a name's length. Labels stand first or last.
    some = columns if len(columns) <= 2 * _COMPARED else [*columns[:_COMPARED], *columns[-_COMPARED:]]
    known = {each.lower()[:_COMPARED_CHARACTERS]: each for each in some if each}
    found = difflib.get_close_matches(name.lower()[:_COMPARED_CHARACTERS], known, n=1)
    return f"; did you mean {shown(known[found[0]])}?" if found else ""


def spelt_otherwise(name: str, columns: Sequence[str]) -> str:
    """What to say when a column was not found, and one has its name but for upper case and blanks around it."""
    wanted = name.strip().lower()
    same = next((each for each in columns if each.strip().lower() == wanted), None)
    return "" if same is None else f"; did you mean {shown(same)}?"


def listed(names: Sequence[str], most: int = 10) -> str:
    """The first of some names, and how many more there are."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"
