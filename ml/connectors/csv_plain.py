"""Rows of plain numbers, read as the JSON that they came in: what most predictions bring, in a fraction of the time.

Between its quotes, a line of numbers is what an array of JSON has between its brackets. So a reader of JSON makes one
array of all lines at once, and no text is ever made of them. Whatever is not plain (quotes, blanks, words, missing
values, labels, ids, numbers as JSON does not write them) is left to `csv.py`, which also finds the words for what is
wrong; here nothing is refused.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import orjson
import simdjson

from ml.connectors.csv_columns import Fitted, Scaling
from ml.tables import DenseTable

_BETWEEN = b'","'
_COMMA, _CLOSED = ord(","), ord("]")


class PlainRows:
    """Reads rows of cells by position, as `csv.read_prediction` does for columns that are all numbers."""

    def __init__(self, fitted: Fitted, places: Sequence[Sequence[str]]) -> None:
        """places : the columns that rows may have, the likeliest first."""
        #: The separator as JSON writes it in a text.
        self._separator = orjson.dumps(fitted.separator)[1:-1]
        self._names = [[name.encode() for name in names] for names in places]
        #: By number of cells, where the features stand among them; None when they stand as they are needed.
        self._order: dict[int, list[int] | None] = {}
        if fitted.categories or fitted.unnamed or fitted.id:
            return
        if {fitted.separator, fitted.quote} & set("0123456789+-.eE"):
            return
        self._scaling = Scaling(fitted, fitted.features)
        for names in places:
            if len(names) in self._order or not set(fitted.features) <= set(names):
                # An earlier choice of columns counts, be it of use here or not.
                self._order.setdefault(len(names), [])
                continue
            order = [list(names).index(name) for name in fitted.features]
            self._order[len(names)] = None if order == list(range(len(names))) else order
        self._plain = b'0123456789.eE+-,"' + self._separator

    def read(self, encoded: bytes, name: str) -> DenseTable | None:
        """The table of some lines; None when they are not plain.

        encoded : an array of JSON, without blanks between its texts. name : of the table.
        """
        lines = encoded[2:-2]
        if not self._order or not lines or encoded[:2] != b'["' or lines.translate(None, self._plain):
            return None
        rows = lines.count(_BETWEEN) + 1
        values = self._numbers(lines, rows)
        if values is None:
            return None
        order = self._order.get(values.shape[1], [])
        if order == [] or lines.partition(b'"')[0].split(self._separator) in self._names:
            return None
        if order is not None:
            values = values[:, order]
        with np.errstate(over="ignore"):
            features = self._scaling(values).astype(np.float32)
        if not np.isfinite(features).all():
            return None
        return DenseTable(features, None, [str(row) for row in range(1, rows + 1)], name)

    def _numbers(self, lines: bytes, rows: int) -> np.ndarray | None:
        """float64 of shape (rows, cells); None where there is anything else, or rows are not of one length."""
        if self._separator != b",":
            if lines.count(b",") != rows - 1:
                return None
            lines = lines.replace(_BETWEEN, b"\n").replace(self._separator, b",").replace(b"\n", _BETWEEN)
        text = b"[[" + lines.replace(_BETWEEN, b"],[") + b"]]"
        if b"-0," in text or b"-0]" in text:
            return None  # JSON's zero has no sign
        try:
            found = simdjson.Parser().parse(text)
            assert isinstance(found, simdjson.Array)
            values = np.frombuffer(found.as_buffer(of_type="d"))
        except (TypeError, ValueError, RuntimeError):
            return None
        width, more = divmod(len(values), rows)
        if more:
            return None
        if rows > 1:
            letters = np.frombuffer(text, np.uint8)
            ends = letters[np.flatnonzero(letters == _COMMA) - 1] == _CLOSED
            if not np.array_equal(np.flatnonzero(ends) + 1, np.arange(1, rows) * width):
                return None
        return values.reshape(rows, width)
