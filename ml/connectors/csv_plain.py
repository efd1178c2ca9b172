"""A few rows of plain numbers, read without the parser: what most predictions bring, in a tenth of its time.

Whatever is not plain (quotes, blanks, words, missing values, labels, ids) is left to `csv.py`, which also finds the
words for what is wrong; here nothing is refused.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from ml.connectors.csv_columns import Fitted, Scaling
from ml.tables import DenseTable

ROWS_MOST = 128
"""With more rows the parser is faster."""


class PlainRows:
    """Reads rows of cells by position, as `csv.read_prediction` does for columns that are all numbers."""

    def __init__(self, fitted: Fitted, places: Sequence[Sequence[str]]) -> None:
        """places : the columns that rows may have, the likeliest first."""
        self._separator = fitted.separator
        self._names = [list(names) for names in places]
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
        # Signs are taken where a number may have them, and Python reads no such text otherwise than the parser does.
        self._is_plain = re.compile(rf"(?:[0-9.{re.escape(self._separator)}]|[eE][+-]?|-)+").fullmatch

    def read(self, lines: Sequence[str], name: str) -> DenseTable | None:
        """The table of some lines; None when they are not plain."""
        if not self._order or not 0 < len(lines) <= ROWS_MOST:
            return None
        rows = []
        count = lines[0].count(self._separator) + 1
        order = self._order.get(count, [])
        if order == [] or lines[0].split(self._separator) in self._names:
            return None
        for line in lines:
            cells = line.split(self._separator)
            if len(cells) != count or not self._is_plain(line):
                return None
            try:
                rows.append([float(cell) for cell in cells])
            except ValueError:
                return None
        values = np.array(rows)
        if order is not None:
            values = values[:, order]
        with np.errstate(over="ignore"):
            features = self._scaling(values).astype(np.float32)
        if not np.isfinite(features).all():
            return None
        return DenseTable(features, None, [str(row) for row in range(1, len(rows) + 1)], name)
