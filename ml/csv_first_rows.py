"""The first rows of a CSV file, judged before a training on it waits for its turn.

Imports nothing heavy, as the API calls it. What is said is what the training would end with; where the rest of the file
could make the first rows right, nothing is.
"""

from __future__ import annotations

from collections.abc import Sequence

from ml.class_labels import ClassWords, fault_of, spread
from ml.csv_cells import MISSING, as_number
from ml.csv_head import CsvHead, is_utf8
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.target import Kind, Target

_BYTES = 2**19
_ROWS = 10_000


def check_first_rows(head: CsvHead, columns: Sequence[str], options: CsvOptions, target: Target) -> None:
    """Raises BadInput for rows of another width than the header, and for labels that can be none.

    columns : of the header line, the label columns among them.
    """
    labels = () if target.kind == "autoencoder" else options.label
    offsets = spread(options.label_offset, labels) if labels else []
    place_of = {name: place for place, name in enumerate(columns)}
    places = [(place_of[name], name, offset) for name, offset in zip(labels, offsets, strict=True)]
    classes = ClassWords(labels[0], offsets[0], target, head.name) if target.kind == "classification" else None
    rows, is_whole = head.first_rows(_BYTES)
    row = 0
    for row, (line, cells) in enumerate(rows, start=1):
        if row > _ROWS:
            is_whole = False
            break
        if len(cells) != len(columns):
            raise head.wrong_width(line, cells, len(columns), has_header=True)
        for place, name, offset in places:
            cell = cells[place]
            if not is_utf8(cell):
                raise head.no_utf8(line)
            if classes is None:
                _check_number(head, name, cell.strip(), offset, target.kind, row, line)
            elif (word := cell.strip()) not in classes.positions:
                classes.add(word, row)
    if is_whole and row == 0:
        raise BadInput(f"missing data: {head.name} has a header line but no rows")
    # Numbers that can be no classes may still turn out to be names of some, when words come behind them.
    if classes is not None and (is_whole or classes.are_too_many):
        classes.finish([])


def _check_number(head: CsvHead, name: str, cell: str, offset: int, kind: Kind, row: int, line: int) -> None:
    number = float("nan") if cell in MISSING else as_number(cell)
    if number is None:
        if "(" in cell:  # nan(1) is a number for some who read it
            return
        raise head.no_number(name, line, cell)
    if fault := fault_of(number + offset, kind, row):
        raise BadInput(f"label column {name} of {head.name} has {fault}")
