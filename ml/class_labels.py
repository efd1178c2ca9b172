"""What the labels of a table may be: classes by number or by word, and numbers.

Imports nothing heavy: the API judges the first rows of files with it before a training is accepted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

from ml.csv_cells import MISSING, as_number
from ml.csv_head import listed
from ml.errors import BadInput
from ml.options.loading import Warning
from ml.options.target import Kind, Target


class ClassWords:
    """The class labels of training data, as they are met: numbers when all are numbers, else words.

    name : of their column. offset : added to numbers. source : how messages call the data.
    """

    def __init__(self, name: str, offset: int, target: Target, source: str) -> None:
        self.positions: dict[str, int] = {}
        self._rows: list[int] = []
        self._name = name
        self._offset = offset
        self._target = target
        self._source = source

    def add(self, word: str, row: int) -> None:
        """Count in a word, without blanks around it, that was not met before; `row`, from 1, is its first.

        Raises BadInput for an empty one.
        """
        if not word:
            raise self._missing(row)
        self.positions[word] = len(self.positions)
        self._rows.append(row)

    @property
    def are_too_many(self) -> bool:
        """Whether there are more words than classes. They may be the same numbers in several spellings."""
        return len(self.positions) > self._target.classes and len(self._names()) > self._target.classes

    def finish(self, warnings: list[Warning]) -> tuple[list[int], list[str] | None]:
        """The label of every word, in the order they were met, and the class names when they are no numbers.

        Raises BadInput.
        """
        words = list(self.positions)
        numbers = [as_number(word) for word in words]
        known = [number for number in numbers if number is not None and not math.isnan(number)]
        if len(known) == len(words):
            return self._numbered(known), None
        others = [word for word, number in zip(words, numbers, strict=True) if number is None or math.isnan(number)]
        if known and all(word in MISSING for word in others):
            raise self._missing(self._rows[self.positions[others[0]]])
        return self._named(warnings)

    def _missing(self, row: int) -> BadInput:
        return BadInput(f"label column {self._name} of {self._source} has no value in row {row}")

    def _names(self) -> list[str]:
        """The words, without the label that does not count."""
        outside = outside_of(self._target)
        return [word for word in self.positions if outside is None or as_number(word) != outside]

    def _named(self, warnings: list[Warning]) -> tuple[list[int], list[str]]:
        target, names = self._target, self._names()
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
        labels = {name: position for position, name in enumerate(names)}
        outside = outside_of(target)
        if outside is not None:
            labels |= {word: outside for word in self.positions if word not in labels}
        return [labels[word] for word in self.positions], names

    def _numbered(self, numbers: Sequence[float]) -> list[int]:
        made = []
        for number, row in zip(numbers, self._rows, strict=True):
            label = class_of(number, self._offset, self._target)
            if label is None:
                raise self._outside(number, numbers, row)
            made.append(label)
        return made

    def _outside(self, number: float, numbers: Sequence[float], row: int) -> BadInput:
        where = of_no_class(number, numbers, self._offset, self._target, f", first in row {row}")
        return BadInput(f"label {number:g} of column {self._name} in {self._source}{where}")


def outside_of(target: Target) -> int | None:
    """The label that does not count, when it is not the number of a class: rows may have it besides the classes."""
    if target.ignored is None or 0 <= target.ignored < target.classes:
        return None
    return target.ignored


def of_no_class(number: float, labels: Collection[float], offset: int, target: Target, place: str = "") -> str:
    """What is wrong with a label, one of `labels`, that no class has, and what may help; goes on after its place."""
    classes, shifted = target.classes, number + offset
    lowest, highest = min(labels), max(labels)
    hint = ""
    if lowest > 0 and highest - lowest < classes and lowest.is_integer():
        hint = f"; set parameters.input.label_offset to {-int(lowest)}?"
    elif shifted.is_integer() and shifted >= classes:
        hint = f"; is parameters.mllib.nclasses, {classes}, too small?"
    elif not shifted.is_integer():
        hint = "; is this a regression?"
    after = f" (with label_offset {offset})" if offset else ""
    return f"{after} is outside of 0..{classes - 1}{place}{hint}"


def class_of(number: float, offset: int, target: Target) -> int | None:
    """The label for a number in the data; None when it is neither a class nor the label that does not count.

    The latter may be written as it is or as it would be before the offset is added.
    """
    outside = outside_of(target)
    shifted = number + offset
    if outside is not None and outside in (number, shifted):
        return outside
    return int(shifted) if shifted.is_integer() and 0 <= shifted < target.classes else None


def fault_of(value: float, kind: Kind, row: int) -> str | None:
    """What a label column has in a row, in the words of a message, when this can be no label of a kind with numbers.

    value : with the offset. row : from 1.
    """
    if not math.isfinite(value):
        return f"no finite value in row {row}"
    if kind == "multi_label" and value not in (0.0, 1.0):
        return f"{value:g} in row {row}; with several labels per row each must be 0 or 1"
    if kind == "soft_labels" and not 0.0 <= value <= 1.0:
        return f"{value:g} in row {row}; shares of classes must be between 0 and 1"
    return None


def spread(offsets: Sequence[int], labels: Sequence[str]) -> list[int]:
    """One offset per label column. Raises BadInput when there are several, but not as many."""
    if len(offsets) == 1:
        return list(offsets) * len(labels)
    if len(offsets) != len(labels):
        raise BadInput(
            f"parameters.input.label_offset has {len(offsets)} values for {len(labels)} label columns; "
            "give one for all or one for each"
        )
    return list(offsets)
