"""The labels of svm rows, and the first lines of a file of them, judged before a training on it waits for its turn.

Imports nothing heavy, as the API calls it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence

from ml.class_labels import class_of, of_no_class
from ml.csv_head import Bytes
from ml.errors import BadInput
from ml.options.loading import shown
from ml.options.target import Target
from ml.other_formats import IN_MEMORY, refuse_others, taken_for_line

# Each digit has one place in it: a word of half a million digits must not be tried in as many ways.
NUMBER = re.compile(rb"[+-]?(?:(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:e[+-]?[0-9]+)?|inf(?:inity)?|nan)", re.IGNORECASE)

_BYTES = 2**19
_LINES = 10_000


class WrongWord(Exception):
    """What is wrong with a line; the text goes on after its number."""


def label_of(word: bytes) -> float | None:
    """The label that the first word of a row is; None when it is a feature. Raises WrongWord."""
    if b":" in word:
        return None
    if NUMBER.fullmatch(word) is None:
        cells = word.split(b",")
        hint = "; a label is a number"
        if all(map(NUMBER.fullmatch, cells)):
            hint = ": a row has one label; use the connector csv for several"
        elif len(cells) > 1:
            hint = "; it looks like CSV, which services with the connector csv read"
        raise WrongWord(f"has the label {told(word)}{hint}")
    return float(word)


def no_label(word: bytes) -> WrongWord:
    """What is wrong with a row that begins with a feature where a label is needed."""
    return WrongWord(f"has no label: it begins with {told(word)}")


def wrong_line(line: int, source: str, wrong: WrongWord, words: Sequence[bytes] = ()) -> BadInput:
    """The fault of a line as clients are told it. words : of the line, as far as they may tell what was meant."""
    is_name = source == IN_MEMORY and line == len(words) == 1 and not set(b",:") & set(words[0])
    hint = taken_for_line(words[0][:200].decode("utf-8", errors="replace")) if is_name else ""
    return BadInput(f"line {line} of {source} {wrong}{hint}")


def no_finite(label: float, line: int, source: str) -> BadInput:
    """What is wrong with an infinite label, or NaN."""
    return BadInput(f"label {label:g} in line {line} of {source} is no finite number")


def told(word: bytes) -> str:
    """A word in a message."""
    return shown(word[:200].decode("utf-8", errors="replace"))


def may_be_signed(labels: Collection[float], offset: int, target: Target) -> bool:
    """Whether there is nothing but -1 and 1, so that these may stand for two classes."""
    return target.classes == 2 and offset == 0 and {each for each in labels if each != target.ignored} <= {-1.0, 1.0}


def outside(label: float, line: int, labels: Collection[float], offset: int, target: Target, source: str) -> BadInput:
    """What is wrong with a label, one of `labels`, that no class has."""
    return BadInput(f"label {label:g} in line {line} of {source}{of_no_class(label, labels, offset, target)}")


def check_first_lines(content: Bytes, name: str, offset: int, target: Target) -> None:
    """Raises BadInput for labels that a training would end with; says nothing where the rest of the file decides.

    name : how messages call the file.
    """
    if target.kind == "autoencoder":
        return
    data = content.read(0, _BYTES)
    refuse_others(name, data)
    if b"\0" in data:
        return  # no text, or UTF-16: the training says which
    is_whole = len(data) >= content.size
    lines = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
    if not is_whole:
        lines.pop()  # it may be cut
    if len(lines) > _LINES:
        is_whole, lines = False, lines[:_LINES]
    found: dict[float, int] = {}
    for line, text in enumerate(lines, start=1):
        words = text.partition(b"#")[0].split(maxsplit=1)
        if words:
            found.setdefault(_label(words[0], line, name), line)
    if is_whole and not found:
        raise BadInput(f"missing data: {name} is empty")
    if target.kind != "classification" or may_be_signed(found, offset, target):
        return
    for label, line in found.items():
        if class_of(label, offset, target) is None:
            raise outside(label, line, found, offset, target, name)


def _label(word: bytes, line: int, name: str) -> float:
    try:
        label = label_of(word)
        if label is None:
            raise no_label(word)
    except WrongWord as wrong:
        raise wrong_line(line, name, wrong) from None
    if not math.isfinite(label):
        raise no_finite(label, line, name)
    return label
