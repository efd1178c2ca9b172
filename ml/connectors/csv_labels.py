"""Labels of CSV data: classes by number or by word, and numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml.connectors.csv_columns import Fitted, spread
from ml.connectors.csv_text import MISSING, WrongRow, as_number
from ml.csv_head import listed
from ml.errors import BadInput
from ml.options.loading import Warning, shown
from ml.options.target import Target

#: Different labels that are collected before it is looked whether they can be classes at all.
_WORDS_MOST = 100_000


def encoded(column: pa.Array) -> tuple[np.ndarray, list[str]]:
    """Position of every cell among the different words, and these without blanks around them, in order."""
    coded = pc.dictionary_encode(column)
    words = [word.strip() for word in coded.dictionary.to_pylist()]
    return np.from_dlpack(coded.indices), words


class Classes:
    """The class labels of training data, gathered piece by piece: numbers when all are numbers, else words."""

    def __init__(self, name: str, offset: int, target: Target, source: str) -> None:
        self._name = name
        self._offset = offset
        self._target = target
        self._source = source
        self._positions: dict[str, int] = {}
        self._rows: list[int] = []
        self._seen = 0
        self._most = max(_WORDS_MOST, 4 * target.classes)

    def add(self, codes: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """Count a piece in; returns a number per row, int32, that `finish` says the class of."""
        for code, word in enumerate(words):
            if word not in self._positions:
                row = self._seen + int(np.argmax(codes == code)) + 1
                if not word:
                    raise self._missing(row)
                self._positions[word] = len(self._positions)
                self._rows.append(row)
        self._seen += len(codes)
        if len(self._positions) > self._most:
            self.finish([])  # says what is wrong with so many, unless they are one number in many spellings
        return np.array([self._positions[word] for word in words], np.int32)[codes]

    def finish(self, warnings: list[Warning]) -> tuple[np.ndarray, list[str] | None]:
        """The label of every number that `add` gave, int32, and the class names when the labels are words."""
        words = list(self._positions)
        numbers = [as_number(word) for word in words]
        finite = [number for number in numbers if number is not None and math.isfinite(number)]
        if len(finite) == len(words):
            return self._numbered(finite), None
        others = [word for word, number in zip(words, numbers, strict=True) if number is None or number != number]
        if finite and all(word in MISSING for word in others):
            raise self._missing(self._rows[self._positions[others[0]]])
        return self._named(words, numbers, warnings)

    def _missing(self, row: int) -> BadInput:
        return BadInput(f"label column {self._name} of {self._source} has no value in row {row}")

    def _named(
        self, words: Sequence[str], numbers: Sequence[float | None], warnings: list[Warning]
    ) -> tuple[np.ndarray, list[str]]:
        target = self._target
        outside = _outside(target)
        ignored = [outside is not None and number == outside for number in numbers]
        names = [word for word, is_ignored in zip(words, ignored, strict=True) if not is_ignored]
        if len(names) > target.classes:
            raise BadInput(
                f"label column {self._name} of {self._source} holds {len(names)} classes ({listed(names)}), "
                f"but parameters.mllib.nclasses is {target.classes}"
            )
        if len(names) < target.classes:
            text = (
                f"label column {self._name} holds {len(names)} classes, parameters.mllib.nclasses is {target.classes}"
            )
            warnings.append(Warning("parameters.mllib.nclasses", text))
        if self._offset:
            text = "parameters.input.label_offset was ignored: the labels are words, numbered from 0"
            warnings.append(Warning("parameters.input.label_offset", text))
        positions = {name: position for position, name in enumerate(names)}
        return np.array([positions.get(word, outside) for word in words], np.int32), names

    def _numbered(self, numbers: Sequence[float]) -> np.ndarray:
        target, offset = self._target, self._offset
        labels = [class_of(number, offset, target) for number in numbers]
        for position, (number, label) in enumerate(zip(numbers, labels, strict=True)):
            if label is not None:
                continue
            shifted = number + offset
            lowest, highest = min(numbers), max(numbers)
            hint = ""
            if lowest > 0 and highest - lowest < target.classes and lowest.is_integer():
                hint = f"; set parameters.input.label_offset to {-int(lowest)}?"
            elif shifted.is_integer() and shifted >= target.classes:
                hint = f"; is parameters.mllib.nclasses, {target.classes}, too small?"
            elif not shifted.is_integer():
                hint = "; is this a regression?"
            after = f" (with label_offset {offset})" if offset else ""
            raise BadInput(
                f"label {number:g} of column {self._name} in {self._source}{after} is outside of "
                f"0..{target.classes - 1}, first in row {self._rows[position]}{hint}"
            )
        return np.array(labels, np.int32)


def _outside(target: Target) -> int | None:
    """The label that does not count, when it is not the number of a class: rows may have it besides the classes."""
    if target.ignored is None or 0 <= target.ignored < target.classes:
        return None
    return target.ignored


def class_of(number: float, offset: int, target: Target) -> int | None:
    """The label for a number in the data; None when it is neither a class nor the label that does not count.

    The latter may be written as it is or as it would be before the offset is added.
    """
    outside = _outside(target)
    shifted = number + offset
    if outside is not None and outside in (number, shifted):
        return outside
    return int(shifted) if shifted.is_integer() and 0 <= shifted < target.classes else None


def known_classes(
    codes: np.ndarray, words: Sequence[str], name: str, fitted: Fitted, target: Target, source: str
) -> np.ndarray:
    """Labels, int32, of data that the model was not trained on. Raises WrongRow for a class that it does not know."""
    offset = fitted.label_offset[0] if fitted.label_offset else 0
    positions = {word: position for position, word in enumerate(fitted.words or ())}
    labels = []
    for code, word in enumerate(words):
        label: int | None = None
        number = as_number(word)
        if fitted.words is not None:
            label = positions.get(word)
            if label is None and number is not None and number == _outside(target):
                label = target.ignored
        elif number is not None:
            label = class_of(number, offset, target)
        if label is None:
            raise WrongRow(int(np.argmax(codes == code)), partial(_unknown_label, word, name, source))
        labels.append(label)
    return np.array(labels, np.int32)[codes]


def _unknown_label(word: str, name: str, source: str, row: int) -> str:
    if not word:
        return f"label column {name} of {source} has no value in row {row}"
    return f"label {shown(word)[1:-1]} found in test set but not in train set ({source}, row {row})"


def numbers(values: np.ndarray, fitted: Fitted, target: Target, source: str) -> np.ndarray:
    """Labels from numeric columns, shape (rows, label columns), in the form described at `Target`.

    Raises WrongRow for a value that cannot be one.
    """
    shifted = values + np.array(spread(fitted.label_offset, fitted.label), np.float64)
    _refuse(~np.isfinite(shifted), shifted, fitted, source, "no finite value")
    if target.kind == "multi_label":
        wrong = (shifted != 0) & (shifted != 1)
        _refuse(wrong, shifted, fitted, source, "{value:g}", "; with several labels per row each must be 0 or 1")
    if target.kind == "soft_labels":
        wrong = (shifted < 0) | (shifted > 1)
        _refuse(wrong, shifted, fitted, source, "{value:g}", "; shares of classes must be between 0 and 1")
    return shifted if target.kind == "regression" else shifted.astype(np.float32)


def _refuse(wrong: np.ndarray, values: np.ndarray, fitted: Fitted, source: str, what: str, why: str = "") -> None:
    if not wrong.any():
        return
    row, column = (int(place) for place in np.argwhere(wrong)[0])
    found = what.format(value=values[row, column])
    name = fitted.label[column]
    raise WrongRow(row, lambda row: f"label column {name} of {source} has {found} in row {row}{why}")
