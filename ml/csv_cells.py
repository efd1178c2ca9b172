"""What single cells of a CSV text hold. Imports nothing heavy: the API reads the first rows of files with it."""

from __future__ import annotations

#: Cells that hold no value.
MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL")


def as_number(cell: str) -> float | None:
    """The number that a cell holds; None when it holds none.

    Python alone would read 1_000, and digits of other scripts; other readers of the same file would not.
    """
    if "_" in cell or not cell.isascii():
        return None
    try:
        return float(cell)
    except ValueError:
        return None
