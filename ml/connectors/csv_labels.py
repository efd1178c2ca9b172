"""Labels of CSV data: classes by number or by word, and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml.class_labels import ClassWords, class_of, fault_of, outside_of, spread
from ml.connectors.csv_columns import Fitted
from ml.connectors.csv_text import WrongRow
from ml.csv_cells import as_number
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
    """The class labels of training data, gathered piece by piece."""

    def __init__(self, name: str, offset: int, target: Target, source: str) -> None:
        self._words = ClassWords(name, offset, target, source)
        self._seen = 0
        self._most = max(_WORDS_MOST, 4 * target.classes)

    def add(self, codes: np.ndarray, words: Sequence[str]) -> np.ndarray:
        """Count a piece in; returns a number per row, int32, that `finish` says the class of. Raises BadInput."""
        positions = self._words.positions
        for code, word in enumerate(words):
            if word not in positions:
                self._words.add(word, self._seen + int(np.argmax(codes == code)) + 1)
        self._seen += len(codes)
        if len(positions) > self._most:
            self.finish([])  # says what is wrong with so many, unless they are one number in many spellings
        return np.array([positions[word] for word in words], np.int32)[codes]

    def finish(self, warnings: list[Warning]) -> tuple[np.ndarray, list[str] | None]:
        """The label of every number that `add` gave, int32, and the class names when the labels are words.

        Raises BadInput.
        """
        labels, names = self._words.finish(warnings)
        return np.array(labels, np.int32), names


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
            if label is None and number is not None and number == outside_of(target):
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
    wrong = ~np.isfinite(shifted)
    if target.kind == "multi_label":
        wrong |= (shifted != 0) & (shifted != 1)
    if target.kind == "soft_labels":
        wrong |= (shifted < 0) | (shifted > 1)
    if wrong.any():
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        value, name = float(shifted[row, column]), fitted.label[column]
        raise WrongRow(row, lambda row: f"label column {name} of {source} has {fault_of(value, target.kind, row)}")
    return shifted if target.kind == "regression" else shifted.astype(np.float32)
