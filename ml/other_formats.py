"""Tells what was sent where CSV or svm is wanted, so that messages say what to do instead. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ml.csv_cells import as_number
from ml.errors import BadInput
from ml.options.loading import shown

IN_MEMORY = "in-memory data"
"""How messages call lines that came with a request."""

_LOOKED_AT = 2000
# What a file begins with, and what it is then.
_FORMATS = {
    b"\x1f\x8b": "is packed with gzip; unpack it first",
    b"\xfd7zXZ\0": "is packed with xz; unpack it first",
    b"\x28\xb5\x2f\xfd": "is packed with zstd; unpack it first",
    b"BZh91AY&SY": "is packed with bzip2; unpack it first",
    b"PK\x03\x04": "is a zip archive or a spreadsheet; unpack it, or save its table as CSV",
    b"\xd0\xcf\x11\xe0": "is a spreadsheet; save its table as CSV",
    b"PAR1\x15": "is a Parquet file; write its table as CSV",
    b"\x93NUMPY": "is an array of numpy; write it as CSV",
    b"\x89HDF": "is an HDF5 file; write its table as CSV",
}
_JSON = re.compile(r"\{ *(?:\"|$)|\[ *(?:[{\[\"]|$)")
_FEATURE = re.compile(r"[0-9]+:[^:]+")


def refuse_others(name: str, head: bytes) -> None:
    """Raises BadInput for a file whose first bytes say that it is no text."""
    for begin, what in _FORMATS.items():
        if head.startswith(begin):
            raise BadInput(f"{name} {what}")


def other_than_csv(cells: Sequence[str]) -> str:
    """What to say of the cells of a first line that no CSV has; empty when it may be some."""
    line = cells[0][:_LOOKED_AT] if cells else ""
    if _JSON.match(line):
        return "; it looks like JSON: write it as CSV, one row per line"
    words = line.split()
    if len(line) == _LOOKED_AT:
        words.pop()  # it may be cut
    if len(cells) == 1 < len(words) and as_number(words[0]) is not None and all(map(_FEATURE.fullmatch, words[1:])):
        return "; it looks like svm, which services with the connector svm read"
    return ""


def taken_for_line(word: str) -> str:
    """What to say of data that is one word, and no number: somebody meant a file."""
    return f"; no data root has a file {shown(word)}, so it was taken for a line of data"
