"""Looks what a table holds, as a program of its own: what somebody else wrote can ask for any amount of memory or time.

`python -m workers.facts FILE KIND [isolated]` prints a JSON object about a file of the kind csv or svm; or, with
`isolated`, that it `is_in_network`, if the kernel keeps it there.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TextIO

from workers.unpack import confine

VALUES_MOST = 50
"""Most values of a column, or labels, that are told with their counts: a column with more is no class."""

COLUMNS_MOST = 1000
MEMORY_BYTES = 2 * 2**30
_LINE_BYTES = 8 * 2**20
_VALUE_CHARACTERS = 100
_SEPARATORS = ",;\t|"

Json = dict[str, Any]


class _Values:
    """The values of a column, for as long as they are few."""

    def __init__(self) -> None:
        self._counts: Counter[str] | None = Counter()

    def note(self, value: str) -> None:
        if self._counts is not None:
            self._counts[value[:_VALUE_CHARACTERS]] += 1
            if len(self._counts) > VALUES_MOST:
                self._counts = None

    def told(self) -> Json | None:
        return None if self._counts is None else dict(sorted(self._counts.items()))


def of_csv(file: TextIO) -> Json:
    """Rows, columns, and per column its name and the count of each value, if these are few.

    The first line that is not blank is the header. The separator is the one that the header has most of.
    """
    csv.field_size_limit(_LINE_BYTES)
    header = next(_lines(file), "")
    separator = max(_SEPARATORS, key=header.count)
    names = next(csv.reader([header], delimiter=separator), [])
    values = [_Values() for _ in names[:COLUMNS_MOST]]
    rows = 0
    for row in csv.reader(_lines(file), delimiter=separator):
        if row:
            rows += 1
            for column, value in zip(values, row, strict=False):
                column.note(value)
    columns = [
        {"name": name[:_VALUE_CHARACTERS], "values": column.told()} for name, column in zip(names, values, strict=False)
    ]
    return {"kind": "csv", "rows": rows, "columns": len(names), "separator": separator, "about": columns}


def of_svm(file: TextIO) -> Json:
    """Rows, the largest number of a column, and the count of each label, if these are few."""
    labels, rows, largest = _Values(), 0, 0
    for line in _lines(file):
        label, _, rest = line.partition("#")[0].strip().partition(" ")
        if not label:
            continue
        rows += 1
        labels.note(label)
        for pair in rest.split():
            number = pair.partition(":")[0]
            if number.isascii() and number.isdigit() and len(number) < 19:
                largest = max(largest, int(number))
    return {"kind": "svm", "rows": rows, "columns": largest, "classes": labels.told()}


def _lines(file: TextIO) -> Iterator[str]:
    """The lines that are not blank. Raises ValueError for one that is too long."""
    while line := file.readline(_LINE_BYTES):
        if len(line) == _LINE_BYTES:
            raise ValueError(f"a line is longer than {_LINE_BYTES} characters")
        if line.strip():
            yield line.replace("\0", "")


def main(arguments: Sequence[str]) -> int:
    """Print what was found, or `error`."""
    path, kind = arguments[:2]
    with open(path, encoding="utf-8-sig", errors="replace", newline="") as file:
        size = os.fstat(file.fileno()).st_size
        if not confine(size, MEMORY_BYTES, size) and "isolated" in arguments[2:]:
            print(json.dumps({"is_in_network": True}))
            return 0
        try:
            found = of_csv(file) if kind == "csv" else of_svm(file)
        except (ValueError, csv.Error, MemoryError) as error:
            found = {"kind": kind, "error": str(error) or "reading it takes too much memory"}
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
