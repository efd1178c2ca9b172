"""CSV: files or in-memory lines become tables of numbers, in memory or on disk.

Missing values: an empty cell, NA, N/A, #N/A, NaN, nan, null or NULL in a feature column is a missing value (NaN),
which trees route by what they learned. A missing label is an error.

The text is read once, piece by piece (`csv_text.py`). What a training must learn of its columns before it can make
features of them, i.e. bounds and words, is gathered on the way; the cells are kept until then, in the array that will
hold the features, or with `db` in a file.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from ml.class_labels import spread
from ml.connectors import csv_labels
from ml.connectors.columnar import ColumnarTable, ColumnarWriter
from ml.connectors.csv_columns import (
    BOUNDS,
    Fitted,
    Scaling,
    Spread,
    columns_by_hand,
    fit_columns,
    given_bounds,
    report,
    unused_bounds,
    with_names,
)
from ml.connectors.csv_labels import Classes
from ml.connectors.csv_plain import PlainRows
from ml.connectors.csv_text import CsvText, WrongRow
from ml.connectors.source import LinesSource, Source
from ml.connectors.splitting import chosen_rows, class_counts, train_rows
from ml.csv_cells import MISSING, as_number
from ml.csv_head import listed
from ml.errors import BadInput
from ml.options.csv import CATEGORIES_MOST, CsvOptions
from ml.options.loading import Warning, shown
from ml.options.target import Target
from ml.tables import DenseTable, Table, TrainingData

__all__ = ["Fitted", "fitted", "fitted_by_hand", "read_prediction", "read_training", "resolve"]

#: Bytes of features that are made of cells at a time.
_STEP_BYTES = 2**22


def read_training(
    sources: Sequence[Source], options: CsvOptions, target: Target, *, threads: int = 1, scratch: Path | None = None
) -> TrainingData:
    """Read the training set (first source) and the test sets (the others, else the share `test_split`).

    `options.seed` is used as it is, so a caller that wants a new order each time puts a fresh seed there.
    scratch : existing folder for the tables, needed with `options.db`; otherwise they are in memory.
    Raises BadInput for everything that is wrong with the data, naming file, column, line or row, and value.
    """
    if not sources:
        raise BadInput("missing data: data must name a training file or hold CSV lines")
    if options.db and scratch is None:
        raise ValueError("a table on disk needs a folder")
    folder = scratch if options.db else None
    warnings = unused_bounds(options)
    with CsvText(sources[0], options.separator[0], options.quote[:1]) as text:
        fitted = fit_columns(text.header(), text.name, text.separator_hint(), options)
        learning = _Learning(fitted, options, target, text)
        cells = _store(folder, "cells", len(fitted.features), learning.dtype)
        for piece in learning.pieces(threads):
            cells.append(piece.cells, piece.labels)
            cells.expect(text.share)
    classes = learning.finish(warnings)
    tests = [
        _read_test(source, fitted, target, threads, None if folder is None else folder / f"test_{position}", warnings)
        for position, source in enumerate(sources[1:])
    ]
    if options.test_split > 0 and tests:
        text_ = "parameters.input.test_split was ignored: a test set was given"
        warnings.append(Warning("parameters.input.test_split", text_))
    rows, name = len(cells), PurePath(sources[0].name).name
    split = 0.0 if tests else options.test_split
    kept = train_rows(rows, split, sources[0].name)
    generator = np.random.default_rng(options.seed if options.seed >= 0 else None) if options.shuffle else None
    train, test = cells.finished(_Completion(fitted, learning.is_pending, classes), name, kept, generator)
    if test is not None:
        tests = [test]
    if target.kind == "classification" and np.count_nonzero(class_counts(train, target)) < 2:
        where = sources[0].name if kept == rows else f"the part of {sources[0].name} that is trained on"
        raise BadInput(f"label column {fitted.label[0]} holds one class only in {where}; nothing can be told apart")
    return TrainingData(train, tests, fitted, report(fitted), warnings)


def read_prediction(
    sources: Sequence[Source], fitted: Fitted, target: Target, *, labelled: bool, threads: int = 1
) -> tuple[DenseTable, list[Warning]]:
    """Read rows to predict on, in the column order of the training; with labels when `labelled`.

    A file has a header line. In-memory lines have one when their first line names training columns; otherwise their
    cells are taken by position. Raises BadInput.
    """
    if not sources:
        raise BadInput("missing data: data must name a CSV file or hold CSV lines")
    labelled = labelled and target.kind != "autoencoder"  # which is measured by its features
    if labelled and len(fitted.label) != target.labels:
        raise BadInput(
            f"parameters.input.label names {len(fitted.label)} columns, the model was trained with {target.labels}"
            if fitted.label
            else "missing label column parameter: measures need the true labels, name them in parameters.input.label"
        )
    tables: list[DenseTable] = []
    warnings: list[Warning] = list(fitted.remarks) if isinstance(fitted, _Asked) else []
    if len(sources) == 1 and isinstance(sources[0], LinesSource) and not labelled:
        plain = _plain_rows(fitted).read(sources[0].encoded, sources[0].name)
        if plain is not None:
            return plain, warnings
    for source in sources:
        with CsvText(source, fitted.separator, fitted.quote) as text:
            names, has_header = _prediction_columns(text, fitted, labelled)
            known = with_names(fitted, names, text.name) if fitted.unnamed else fitted
            _check_columns(text, names, known, labelled, warnings if has_header and not fitted.unnamed else None)
            reading = _Known(known, target, text, labelled=labelled, with_ids=bool(known.id) and known.id in names)
            store = _InMemory(known.width, np.dtype(np.float32))
            uris: list[str] = []
            for piece in reading.pieces(names, threads, skip_header=has_header):
                for block in _completed(piece.cells, known):
                    store.append(block, None)
                store.append(None, piece.labels)
                uris += piece.uris
                store.expect(text.share)
        before = sum(len(table) for table in tables)
        if not reading.with_ids:
            uris = [str(row) for row in range(before + 1, before + len(store) + 1)]
        tables.append(DenseTable(store.features.array(), store.label_array(), uris, text.name))
    return _joined(tables), warnings


def fitted(given: Mapping[str, Any]) -> Fitted:
    """The object that `Fitted.as_json` came from. Raises TypeError for anything else."""
    return Fitted.from_json(given)


def fitted_by_hand(inputs: Sequence[str], options: CsvOptions, folder: Path) -> Fitted:
    """What can be said of a model that somebody put into a folder: its inputs are columns, the rest is options.

    Bounds that the options do not give are read from bounds.dat in the folder. Raises ModelUnusable.
    """
    return columns_by_hand(inputs, options, folder)


@dataclass
class _Asked(Fitted):
    """What is known of the columns, with what there is to say about the options of a prediction."""

    remarks: list[Warning] = field(default_factory=list)


def resolve(fitted: Fitted, options: CsvOptions, given: Collection[str]) -> Fitted:
    """`fitted` with what a prediction request says otherwise; names not in `given` follow the training.

    Raises BadInput for what a model cannot be asked any more.
    """
    given = set(given)
    if not given:
        return fitted
    changed: dict[str, Any] = {}
    if "separator" in given:
        changed["separator"] = options.separator[0]
    if "quote" in given:
        changed["quote"] = options.quote[:1]
    for option, names in (("id", [options.id]), ("ignore", options.ignore), ("label", options.label)):
        lost = [name for name in names if name in fitted.features] if option in given else []
        if lost:
            raise BadInput(f"parameters.input.{option} names {lost[0]!r}, a feature that the model was trained with")
    if "id" in given:
        changed["id"] = options.id
    if "ignore" in given:
        # Columns of the training keep their place among the bounds, whatever is ignored now.
        changed["ignore"] = [*fitted.ignore, *(n for n in options.ignore if n not in fitted.ignore + fitted.columns)]
    if "label" in given and options.label:
        changed["label"] = list(options.label)
    if "label_offset" in given or "label" in changed:
        offsets = options.label_offset if "label_offset" in given else fitted.label_offset
        changed["label_offset"] = spread(offsets, changed.get("label", fitted.label))
    _check_categories(fitted, options, given)
    changed |= _scaling(fitted, options, given)
    remarks = []
    result = _Asked(**{**fitted.as_json(), **changed})
    for kind, (one, other) in BOUNDS.items():
        if kind != result.scale_type and one in given and getattr(options, one):
            why = (
                f"the model was trained with scale_type {result.scale_type}" if result.scale_type else "it needs scale"
            )
            remarks.append(
                Warning(f"parameters.input.{one}", f"parameters.input.{one} and {other} were ignored: {why}")
            )
    result.remarks = remarks
    return result


def _check_categories(fitted: Fitted, options: CsvOptions, given: Collection[str]) -> None:
    """Refuse categories other than those of the training."""
    if "categoricals_mapping" in given:
        for name, words in options.categoricals_mapping.items():
            if fitted.categories.get(name) != words:
                raise BadInput(f"parameters.input.categoricals_mapping differs from the training for column {name!r}")
    if "categoricals" in given:
        for name in options.categoricals:
            if name not in fitted.categories:
                raise BadInput(
                    f"parameters.input.categoricals names {name!r}, which was not categorical when the model was "
                    "trained"
                )


def _scaling(fitted: Fitted, options: CsvOptions, given: Collection[str]) -> dict[str, Any]:
    """How a prediction request has features scaled, as fields of `Fitted`."""
    kind = fitted.scale_type
    if "scale" in given:
        # A model that was trained with scaling is asked with the same, unless the request wants another.
        kind = "" if not options.scale else options.scale_type if "scale_type" in given or not kind else kind
    if not kind:
        return {"scale_type": ""}
    one, other = BOUNDS[kind]
    low, high = (fitted.low, fitted.high) if kind == fitted.scale_type else ([], [])
    if one in given and getattr(options, one):
        low, high = list(getattr(options, one)), list(getattr(options, other))
    if not low:
        raise BadInput(f"predict: failed acquiring scaling {one} or {other}")
    if len(low) != len(fitted.bounded) and not fitted.unnamed:
        raise BadInput(
            f"parameters.input.{one} has {len(low)} values; the training data has {len(fitted.bounded)} "
            "columns that are not ignored"
        )
    return {"scale_type": kind, "low": low, "high": high}


# From the rows of a piece to its cells


@dataclass
class _Rows:
    """What was made of the rows of a piece.

    cells : float array, one column per feature. codes : position of the label of each row in `words`.
    labels : as described at `Target`, where they are known already.
    found : codes and words of categorical columns that are still to be learned, by position of the column.
    """

    cells: np.ndarray
    labels: np.ndarray | None = None
    codes: np.ndarray | None = None
    words: list[str] = field(default_factory=list)
    found: dict[int, tuple[np.ndarray, list[str]]] = field(default_factory=dict)
    spreads: tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...] | None] | None = None
    uris: list[str] = field(default_factory=list)


class _Columns:
    """Turns record batches into cells; used in several threads."""

    def __init__(self, fitted: Fitted, target: Target, text: CsvText, labels: Sequence[str], *, with_ids: bool) -> None:
        self._fitted = fitted
        self._target = target
        self._text = text
        self._labels = list(labels)
        self.with_ids = with_ids
        self._numeric = [name for name in fitted.features if name not in fitted.categories]
        self._places = [place for place, name in enumerate(fitted.features) if name not in fitted.categories]
        self._wordy = [(place, name) for place, name in enumerate(fitted.features) if name in fitted.categories]

    @property
    def kinds(self) -> dict[str, pa.DataType]:
        """Type of every column that is read."""
        kind = pa.string() if self._target.kind == "classification" else pa.float64()
        kinds = {name: pa.float64() for name in self._numeric} | {name: pa.string() for _, name in self._wordy}
        kinds |= dict.fromkeys(self._labels, kind)
        if self.with_ids:
            kinds[self._fitted.id] = pa.string()
        return kinds

    def _numbers(self, batch: pa.RecordBatch) -> np.ndarray:
        """The numeric features, shape (rows, numeric features), float64, NaN where a value is missing."""
        values = _floats(batch, self._numeric)
        infinite = np.isinf(values)
        if infinite.any():
            raise self._too_large(values, infinite)
        return values

    def _too_large(self, values: np.ndarray, wrong: np.ndarray) -> WrongRow:
        row, column = (int(place) for place in np.argwhere(wrong)[0])
        name, value = self._numeric[column], float(values[row, column])
        source = self._text.name
        return WrongRow(
            row, lambda row: f"column {name} of {source} has the value {value:g} in row {row}; it is too large"
        )

    @cached_property
    def _scaling(self) -> Scaling:
        return Scaling(self._fitted, self._numeric)

    def _scaled(self, values: np.ndarray) -> np.ndarray:
        """Numeric features scaled, float32. Raises WrongRow for what does not fit."""
        with np.errstate(over="ignore"):
            made = self._scaling(values).astype(np.float32)
        infinite = np.isinf(made)
        if infinite.any():
            raise self._too_large(values, infinite)
        return made

    def _arranged(self, values: np.ndarray, wordy: Sequence[np.ndarray]) -> np.ndarray:
        """Cells of all features, of those of the numeric and those of the categorical ones."""
        if not self._wordy:
            return values
        cells = np.empty((len(values), len(self._fitted.features)), values.dtype)
        cells[:, self._places] = values
        for (place, _), column in zip(self._wordy, wordy, strict=True):
            cells[:, place] = column
        return cells


class _Learning(_Columns):
    """Reads training data, and learns of it on the way what `fitted` lacks: words, classes, bounds."""

    def __init__(self, fitted: Fitted, options: CsvOptions, target: Target, text: CsvText) -> None:
        labels = [] if target.kind == "autoencoder" else fitted.label
        super().__init__(fitted, target, text, labels, with_ids=False)
        self.is_pending = bool(fitted.scale_type) and not given_bounds(fitted, options)
        self._new = [place for place, name in self._wordy if name not in options.categoricals_mapping]
        self._spread = Spread(fitted.scale_type, len(self._numeric)) if self.is_pending else None
        self._label_spread = Spread(fitted.scale_type, len(labels)) if self.is_pending and labels else None
        self._classes: Classes | None = None
        if target.kind == "classification":
            self._classes = Classes(fitted.label[0], spread(fitted.label_offset, fitted.label)[0], target, text.name)
        self._counts = np.zeros(0, np.int64)

    @property
    def dtype(self) -> np.dtype:
        """Type of the cells: what is still to be scaled keeps all its digits."""
        return np.dtype(np.float64 if self.is_pending else np.float32)

    def pieces(self, threads: int) -> Iterator[_Rows]:
        """The rows of all pieces, words and classes numbered alike in all of them."""
        columns, kinds = self._fitted.columns, self.kinds
        for piece in self._text.pieces(columns, kinds, self._work, threads=threads, skip_header=True):
            for place, (codes, words) in piece.found.items():
                piece.cells[:, place] = self._learned(place, words)[codes]
            if self._classes is not None:
                assert piece.codes is not None
                piece.labels = self._classes.add(piece.codes, piece.words)
                counts = np.bincount(piece.labels, minlength=len(self._counts))
                counts[: len(self._counts)] += self._counts
                self._counts = counts
            if self._spread is not None and piece.spreads is not None:
                self._spread.add(piece.spreads[0])
                if self._label_spread is not None and piece.spreads[1] is not None:
                    self._label_spread.add(piece.spreads[1])
            yield piece

    def _work(self, batch: pa.RecordBatch) -> _Rows:
        values = self._numbers(batch)
        piece = _Rows(values)
        if self._classes is not None:
            piece.codes, piece.words = csv_labels.encoded(batch.column(self._labels[0]))
        elif self._labels:
            wanted = _floats(batch, self._labels)
            piece.labels = csv_labels.numbers(wanted, self._fitted, self._target, self._text.name)
        if self._spread is not None:
            of_labels = None
            if self._label_spread is not None and piece.labels is not None:
                of_labels = self._label_spread.of(piece.labels.astype(np.float64))
            piece.spreads = (self._spread.of(values), of_labels)
        else:
            values = self._scaled(values)
        wordy = []
        for place, name in self._wordy:
            codes, words = csv_labels.encoded(batch.column(name))
            if place in self._new:
                piece.found[place] = (codes, words)
                wordy.append(codes)
            else:
                wordy.append(_positions(codes, words, name, self._fitted.categories[name]))
        piece.cells = self._arranged(values, wordy)
        return piece

    def _learned(self, place: int, words: Sequence[str]) -> np.ndarray:
        """Positions of some words of a categorical column, new ones at the end; NaN for a missing one."""
        name = self._fitted.features[place]
        known = self._fitted.categories[name]
        made = [math.nan if word in MISSING else known.setdefault(word, len(known)) for word in words]
        if len(known) > CATEGORIES_MOST:
            raise BadInput(
                f"column {name} of {self._text.name} holds more than {CATEGORIES_MOST} different words; is it an id? "
                "Use the id or ignore parameter"
            )
        return np.array(made, np.float64)

    def finish(self, warnings: list[Warning]) -> np.ndarray | None:
        """Complete `fitted`; returns the label of every class number in the pieces, if there are classes.

        Raises BadInput.
        """
        labels = None
        if self._classes is not None:
            labels, self._fitted.words = self._classes.finish(warnings)
        if self._fitted.width == 0:
            raise BadInput(f"{self._text.name} has no feature column with a value in it")
        if self._spread is not None:
            self._fit_bounds(labels)
        return labels

    def _fit_bounds(self, classes: np.ndarray | None) -> None:
        fitted, source = self._fitted, self._text.name
        assert self._spread is not None
        found = dict(zip(self._numeric, zip(*self._spread.bounds(), strict=True), strict=True))
        is_range = fitted.scale_type == "minmax"
        for name, (low, high) in found.items():
            if not math.isfinite(high - low if is_range else low + high):
                raise BadInput(f"the values of column {name} of {source} lie too far apart to be scaled")
            if (low == high if is_range else high == 0) and abs(low) > float(np.finfo(np.float32).max):
                raise BadInput(f"column {name} of {source} has the value {low:g} in every row; it is too large")
        if classes is not None:
            spread_ = Spread(fitted.scale_type, 1)
            counts_too = (
                np.full(len(classes), True) if self._target.ignored is None else classes != self._target.ignored
            )
            counts, used = self._counts[counts_too], classes[counts_too]
            # As many rows as there are classes, each counted as often as it is there.
            spread_.add(_weighted(used.astype(np.float64), counts, is_range))
            ((one,), (other,)) = spread_.bounds()
            found[fitted.label[0]] = (one, other)
        elif self._label_spread is not None:
            found |= zip(self._labels, zip(*self._label_spread.bounds(), strict=True), strict=True)
        # Ids and words are never scaled, nor are the labels of an autoencoder looked at; their place is kept.
        bounds = [found.get(name, (0.0, 0.0)) for name in fitted.bounded]
        fitted.low, fitted.high = [low for low, _ in bounds], [high for _, high in bounds]


def _weighted(values: np.ndarray, counts: np.ndarray, is_range: bool) -> tuple[np.ndarray, ...]:
    """What `Spread.add` takes, of one column in which each value stands so many times."""
    if len(values) == 0:
        return (np.full(1, np.nan),) * 2 + (np.zeros(1),) * (0 if is_range else 3)
    extent = values.min(keepdims=True), values.max(keepdims=True)
    if is_range:
        return extent
    mean = float(np.average(values, weights=counts))
    squares = ((values - mean) ** 2 * counts).sum()
    return (*extent, np.array([counts.sum()], np.float64), np.array([mean]), np.array([squares]))


class _Known(_Columns):
    """Reads data of whose columns everything is known: test sets, and rows to predict on."""

    def __init__(self, fitted: Fitted, target: Target, text: CsvText, *, labelled: bool, with_ids: bool) -> None:
        super().__init__(fitted, target, text, fitted.label if labelled else [], with_ids=with_ids)

    def pieces(self, names: Sequence[str], threads: int, *, skip_header: bool) -> Iterator[_Rows]:
        """The rows of all pieces; their numbers are scaled already."""
        return self._text.pieces(names, self.kinds, self._work, threads=threads, skip_header=skip_header)

    def _work(self, batch: pa.RecordBatch) -> _Rows:
        fitted, source = self._fitted, self._text.name
        values = self._scaled(self._numbers(batch))
        wordy = [
            _positions(*csv_labels.encoded(batch.column(name)), name, fitted.categories[name])
            for _, name in self._wordy
        ]
        piece = _Rows(self._arranged(values, wordy))
        if self._labels and self._target.kind == "classification":
            codes, words = csv_labels.encoded(batch.column(self._labels[0]))
            piece.labels = csv_labels.known_classes(codes, words, self._labels[0], fitted, self._target, source)
        elif self._labels:
            wanted = _floats(batch, self._labels)
            piece.labels = csv_labels.numbers(wanted, fitted, self._target, source)
        if self.with_ids:
            piece.uris = batch.column(fitted.id).to_pylist()
        return piece


def _floats(batch: pa.RecordBatch, names: Sequence[str]) -> np.ndarray:
    """Float columns as one array, shape (rows, columns), NaN where a value is missing."""
    if not names:
        return np.empty((batch.num_rows, 0), np.float64)
    made: np.ndarray = batch.select(list(names)).to_tensor(null_to_nan=True).to_numpy()
    return made


def _positions(codes: np.ndarray, words: Sequence[str], name: str, known: Mapping[str, int]) -> np.ndarray:
    """Position of the word of every row; NaN for a missing one. Raises WrongRow for an unknown one."""
    made = []
    for code, word in enumerate(words):
        position = known.get(word)
        if position is None and word not in MISSING:
            text = f"unknown category {shown(word)[1:-1]} for variable {name}"
            raise WrongRow(int(np.argmax(codes == code)), partial("{} (row {})".format, text))
        made.append(math.nan if position is None else position)
    return np.array(made, np.float64)[codes]


# From the cells of all pieces to tables


@dataclass(frozen=True)
class _Completion:
    """What is still to be done to cells and labels when everything is known.

    is_pending : whether numbers must be scaled. classes : label of every class number, None when labels are final.
    """

    fitted: Fitted
    is_pending: bool
    classes: np.ndarray | None

    @property
    def changes_features(self) -> bool:
        """Whether features are other than cells."""
        return self.is_pending or bool(self.fitted.categories)

    def features(self, cells: np.ndarray) -> np.ndarray:
        """Features, float32, of some rows."""
        return self.fitted.expanded(self._scaling(cells) if self.is_pending else cells)

    @cached_property
    def _scaling(self) -> Scaling:
        return Scaling(self.fitted, self.fitted.features)

    def labels(self, labels: np.ndarray) -> np.ndarray:
        """Labels of some rows."""
        return labels if self.classes is None else self.classes[labels]

    def step(self) -> int:
        """Rows to complete at a time."""
        return max(1, _STEP_BYTES // (4 * self.fitted.width))


def _completed(cells: np.ndarray, fitted: Fitted) -> Iterator[np.ndarray]:
    """Features of cells whose numbers are scaled, some rows at a time."""
    completion = _Completion(fitted, False, None)
    step = completion.step()
    for first in range(0, len(cells), step):
        yield completion.features(cells[first : first + step])


def _store(folder: Path | None, name: str, width: int, dtype: np.dtype) -> _InMemory | _OnDisk:
    return _InMemory(width, dtype) if folder is None else _OnDisk(folder / name, width, dtype)


class _Growing:
    """An array that rows are added to; a large one is moved by the system, not copied."""

    def __init__(self, dtype: np.dtype, shape: tuple[int, ...]) -> None:
        self._made = np.empty((0, *shape), dtype)
        self.rows = 0

    def append(self, rows: np.ndarray) -> None:
        """Add rows."""
        if self.rows + len(rows) > len(self._made):
            self.reserve(max(self.rows + len(rows), self.rows * 3 // 2))
        self._made[self.rows : self.rows + len(rows)] = rows
        self.rows += len(rows)

    def reserve(self, rows: int) -> None:
        """Make room for so many rows in all."""
        if rows <= len(self._made):
            return
        if 2 * self.rows > rows:
            self._made.resize((rows, *self._made.shape[1:]), refcheck=False)
            return
        # Unlike the above this writes no zeros: what is not used costs no memory.
        made = np.empty((rows, *self._made.shape[1:]), self._made.dtype)
        made[: self.rows] = self._made[: self.rows]
        self._made = made

    def array(self) -> np.ndarray:
        """The rows; no more can be added."""
        self._made.resize((self.rows, *self._made.shape[1:]), refcheck=False)
        return self._made


class _InMemory:
    """Cells and labels in memory, which become tables there."""

    def __init__(self, width: int, dtype: np.dtype) -> None:
        self.features = _Growing(dtype, (width,))
        self.labels: _Growing | None = None
        self._is_sized = False

    def __len__(self) -> int:
        return self.features.rows

    def append(self, cells: np.ndarray | None, labels: np.ndarray | None) -> None:
        """Add rows."""
        if cells is not None:
            self.features.append(cells)
        if labels is not None:
            if self.labels is None:
                self.labels = _Growing(labels.dtype, labels.shape[1:])
            self.labels.append(labels)

    def expect(self, share: float) -> None:
        """Make room for all rows, once, when this share of them is there."""
        if not self._is_sized:
            self._is_sized = True
            # The rest may have longer lines: then this is too much, and asking for it may fail though it is not needed.
            with contextlib.suppress(MemoryError):
                self.features.reserve(int(self.features.rows / share * 1.02))

    def label_array(self) -> np.ndarray | None:
        """The labels; no more can be added."""
        return None if self.labels is None else self.labels.array()

    def finished(
        self, completion: _Completion, name: str, kept: int, generator: np.random.Generator | None
    ) -> tuple[DenseTable, DenseTable | None]:
        """The table, and the rows from `kept` on as a test set; in random order before that, with a generator."""
        features = self._completed(completion)
        labels = self.label_array()
        if labels is not None:
            labels = completion.labels(labels)
        if generator is not None:
            order = generator.permutation(len(features))
            # Some columns at a time, so that there is never a second array of the same size.
            for first in range(0, features.shape[1], 16):
                features[:, first : first + 16] = features[order, first : first + 16]
            labels = None if labels is None else labels[order]
        if kept == len(features):
            return DenseTable(features, labels, None, name), None
        train, test = (labels, labels) if labels is None else (labels[:kept], labels[kept:])
        return DenseTable(features[:kept], train, None, name), DenseTable(features[kept:], test, None, "split")

    def _completed(self, completion: _Completion) -> np.ndarray:
        cells = self.features.array()
        if not completion.changes_features:
            return cells
        rows, width, step = len(cells), completion.fitted.width, completion.step()
        if width == cells.shape[1] and cells.dtype == np.float64 and not completion.fitted.categories:
            # In the same memory, as a row of features ends before its cells begin; the other half is given back.
            made = cells.reshape(-1).view(np.float32)[: rows * width].reshape(rows, width)
            for first in range(0, rows, step):
                made[first : first + step] = completion.features(cells[first : first + step])
            del made
            cells.resize(((rows * width + 1) // 2,), refcheck=False)
            return cells.view(np.float32)[: rows * width].reshape(rows, width)
        made = np.empty((rows, width), np.float32)
        for first in range(0, rows, step):
            made[first : first + step] = completion.features(cells[first : first + step])
        return made


class _OnDisk:
    """Cells and labels in a file, which become tables on disk."""

    def __init__(self, folder: Path, width: int, dtype: np.dtype) -> None:
        self._folder = folder
        self._writer = ColumnarWriter(folder, width, dtype)
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, cells: np.ndarray, labels: np.ndarray | None) -> None:
        """Add rows."""
        self._writer.append(cells, labels)
        self._rows += len(cells)

    def expect(self, share: float) -> None:
        """Nothing: a file needs no room beforehand."""

    def finished(
        self, completion: _Completion, name: str, kept: int, generator: np.random.Generator | None
    ) -> tuple[ColumnarTable, ColumnarTable | None]:
        """The table, and the rows from `kept` on as a test set; in random order before that, with a generator.

        The same rows are in the test set as in memory; their order, and that of the others, is as random as
        `columnar.py` says.
        """
        cells = self._writer.finish(name)
        if generator is None and not completion.changes_features:
            if completion.classes is not None:
                cells.relabel(completion.labels)
            return _parts(cells, name, kept)
        chosen = None
        if generator is not None and kept < len(cells):
            chosen = chosen_rows(generator, len(cells), kept, self._folder)
        width, folder = completion.fitted.width, self._folder.parent
        train = ColumnarWriter(folder / "train", width)
        test = None if chosen is None else ColumnarWriter(folder / "split", width)
        step = completion.step()
        for numbers, rows, labels in cells.numbered(generator):
            for first in range(0, len(rows), step):
                features = completion.features(rows[first : first + step])
                wanted = None if labels is None else completion.labels(labels[first : first + step])
                if test is None or chosen is None:
                    train.append(features, wanted)
                    continue
                is_test = chosen[numbers[first : first + step]]
                test.append(features[is_test], None if wanted is None else wanted[is_test])
                train.append(features[~is_test], None if wanted is None else wanted[~is_test])
        cells.remove()
        whole = train.finish(name)
        return (whole, test.finish("split")) if test is not None else _parts(whole, name, kept)


def _parts(table: ColumnarTable, name: str, kept: int) -> tuple[ColumnarTable, ColumnarTable | None]:
    if kept == len(table):
        return table, None
    return table.part(0, kept, name), table.part(kept, len(table), "split")


def _read_test(
    source: Source, fitted: Fitted, target: Target, threads: int, folder: Path | None, warnings: list[Warning]
) -> Table:
    with CsvText(source, fitted.separator, fitted.quote) as text:
        names = text.header()
        has_labels = target.kind != "autoencoder"
        for name in fitted.label if has_labels else ():
            if name not in names:
                raise BadInput(f"cannot find label column {name} in {text.name}{text.missing_hint(name, names)}")
        _check_columns(text, names, fitted, False, warnings)
        reading = _Known(fitted, target, text, labelled=has_labels, with_ids=False)
        if folder is None:
            memory = _InMemory(fitted.width, np.dtype(np.float32))
        else:
            writer = ColumnarWriter(folder, fitted.width)
        for piece in reading.pieces(names, threads, skip_header=True):
            done = 0
            for block in _completed(piece.cells, fitted):
                labels = None if piece.labels is None else piece.labels[done : done + len(block)]
                done += len(block)
                if folder is None:
                    memory.append(block, labels)
                else:
                    writer.append(block, labels)
            if folder is None:
                memory.expect(text.share)
    name = PurePath(text.name).name
    if folder is not None:
        return writer.finish(name)
    return DenseTable(memory.features.array(), memory.label_array(), None, name)


def _plain_rows(fitted: Fitted) -> PlainRows:
    """What reads plain rows of these columns; made once."""
    kept: PlainRows | None = fitted.__dict__.get("plain_rows")
    if kept is None:
        kept = fitted.__dict__["plain_rows"] = PlainRows(fitted, _placed(fitted))
    return kept


def _check_columns(
    text: CsvText, names: Sequence[str], fitted: Fitted, labelled: bool, warnings: list[Warning] | None
) -> None:
    there, source = set(names), text.name
    for name in fitted.features:
        if name not in there:
            known = {*fitted.columns, *fitted.features}
            hint = text.missing_hint(name, [each for each in names if each not in known])
            raise BadInput(f"cannot find column {name} in {source}; the model was trained with it{hint}")
    if labelled:
        for name in fitted.label:
            if name not in there:
                hint = text.missing_hint(name, names)
                raise BadInput(f"cannot find label column {name} in {source}; measures need the true labels{hint}")
    known = {*fitted.columns, *fitted.label, *fitted.ignore, fitted.id}
    extra = [name for name in names if name and name not in known]
    if extra and warnings is not None:
        warnings.append(
            Warning("data", f"columns of {source} that the training data has not were ignored: {listed(extra)}")
        )


def _prediction_columns(text: CsvText, fitted: Fitted, labelled: bool) -> tuple[list[str], bool]:
    """Names of the columns of data to predict on, and whether the first line holds them."""
    first = text.first
    places = _placed(fitted)
    if text.is_file or _is_header(first, fitted, places):
        if fitted.id and fitted.id not in first:
            raise BadInput(f"cannot find id column {fitted.id} in {text.name}{text.missing_hint(fitted.id, first)}")
        return text.header(), True
    for names in places:
        if len(names) == len(first) and (not labelled or all(name in names for name in fitted.label)):
            return list(names), False
    if labelled and any(len(names) == len(first) for names in places):
        raise BadInput(f"the rows of {text.name} have no label; measures need the true labels")
    hint = text.separator_hint()
    if len(first) == 1 and not hint:
        hint = f"; each text of data is a whole row, with {fitted.separator!r} between its cells"
    raise BadInput(
        f"the first line of {text.name} has {len(first)} cells; the model was trained with "
        f"{len(fitted.features)} features: {listed(fitted.features)}{hint}"
    )


def _placed(fitted: Fitted) -> list[list[str]]:
    """The columns that rows without a header may have, the likeliest first."""
    if fitted.unnamed:
        return [fitted.features]
    columns = [name for name in fitted.columns if name]
    apart = {*fitted.label, *fitted.ignore}
    return [
        fitted.columns,
        columns,
        [name for name in columns if name not in fitted.label],
        [name for name in columns if name not in fitted.ignore],
        [name for name in columns if name not in apart],
        [name for name in columns if name != fitted.id and name not in fitted.ignore],
        fitted.features,
    ]


def _is_header(first: Sequence[str], fitted: Fitted, places: Sequence[Sequence[str]]) -> bool:
    """Whether a line names columns. Numbers do only where they are the names of all columns, in order."""
    if not first:
        return False
    if fitted.unnamed:
        named = {*fitted.label, fitted.id, *fitted.ignore, *fitted.categories}
        is_named = any(cell in named and as_number(cell) is None for cell in first if cell)
        return is_named or set(fitted.features) <= set(first)
    if all(as_number(cell) is not None for cell in first):
        return any(list(first) == list(names) for names in places)
    return set(first) <= set(fitted.columns) or set(fitted.features) <= set(first)


def _joined(tables: list[DenseTable]) -> DenseTable:
    if len(tables) == 1:
        return tables[0]
    labels = [table.labels for table in tables if table.labels is not None]
    return DenseTable(
        np.concatenate([table.features for table in tables]),
        np.concatenate(labels) if labels else None,
        [uri for table in tables for uri in table.uris or ()],
        tables[0].name,
    )
