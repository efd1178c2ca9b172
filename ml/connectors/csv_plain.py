"""Rows of plain numbers, read as the JSON that they came in: what most predictions bring, in a fraction of the time.

Between its quotes, a line of numbers is what an array of JSON has between its brackets. So a reader of JSON makes one
array of all lines at once, and no text is ever made of them. Whatever is not plain (quotes, blanks, words, missing
values, labels, ids, numbers as JSON does not write them) is left to `csv.py`, which also finds the words for what is
wrong; here nothing is refused.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

import numpy as np
import orjson
import simdjson

from ml.connectors.csv_columns import Fitted, Scaling, with_names
from ml.errors import BadInput
from ml.tables import DenseTable

BYTES_MOST = 8 << 20
"""Of longer texts the parser makes a table piece by piece, in less memory."""

_BETWEEN = b'","'
_OF_NUMBERS = b"0123456789.eE+-"
_WITHOUT_QUOTES = bytes.maketrans(b'"', b" ")
# A parser has memory for the longest text that it read: making one takes longer than reading a few rows.
_kept = threading.local()


class PlainRows:
    """Reads rows of cells by position, as `csv.read_prediction` does for columns that are all numbers."""

    def __init__(self, fitted: Fitted, places: Sequence[Sequence[str]]) -> None:
        """places : the columns that rows may have, the likeliest first."""
        #: The separator as JSON writes it in a text.
        self._separator = orjson.dumps(fitted.separator)[1:-1]
        self._names = [[name.encode() for name in names] for names in places]
        #: By number of cells, where the features stand among them; None when they stand as they are needed.
        self._order: dict[int, list[int] | None] = {}
        if fitted.categories or fitted.id:
            return
        if fitted.unnamed:
            try:
                fitted = with_names(fitted, fitted.features, "")
            except BadInput:  # of which the data has a part
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

    def read(self, encoded: bytes, name: str) -> DenseTable | None:
        """The table of some lines; None when they are not plain.

        encoded : an array of JSON, without blanks between its texts. name : of the table.
        """
        lines = encoded[2:-2]
        if not self._order or not lines or encoded[:2] != b'["' or len(encoded) > BYTES_MOST:
            return None
        first = lines.partition(b'"')[0].split(self._separator)
        order = self._order.get(len(first), [])
        if order == [] or first in self._names:
            return None
        values = self._numbers(lines, len(first))
        if values is None:
            return None
        if order is not None:
            values = values[:, order]
        with np.errstate(over="ignore"):
            features = self._scaling(values).astype(np.float32)
        if not np.isfinite(features).all():
            return None
        return DenseTable(features, None, list(map(str, range(1, len(values) + 1))), name)

    def _numbers(self, lines: bytes, width: int) -> np.ndarray | None:
        """float64 of shape (rows, width); None where there is anything else, or a row has another width."""
        # Without its numbers, each row is the same.
        row = self._separator * (width - 1)
        left = lines.translate(None, _OF_NUMBERS)
        rows = (len(left) + len(_BETWEEN)) // (len(row) + len(_BETWEEN))
        if left != _BETWEEN.join([row] * rows):
            return None
        if self._separator != b",":
            lines = lines.replace(self._separator, b",")
        text = b"[" + lines.translate(_WITHOUT_QUOTES) + b"]"
        parser: simdjson.Parser | None = getattr(_kept, "parser", None)
        if parser is None:
            parser = _kept.parser = simdjson.Parser()
        try:
            found = parser.parse(text)
            assert isinstance(found, simdjson.Array)
            values = np.frombuffer(found.as_buffer(of_type="d"))
        except (TypeError, ValueError, RuntimeError):
            return None
        if len(values) != rows * width:
            return None
        if b"-" in text and not values.all() and any(zero in text for zero in (b"-0,", b"-0 ", b"-0]")):
            return None  # a whole zero of JSON has no sign
        return values.reshape(rows, width)
