"""svm: lines of `label id:value id:value …` become sparse tables, in memory or on disk.

Features are the ids that the training file holds, in increasing order, whether they count from 0 or 1 or are far
apart: the id says which one, not where. Ids that are not among them are left out later.

What a row does not name is 0 for networks; for trees it is a missing value, as xgboost has it with sparse data. A value
`nan` is a missing one too.

Labels are numbers. Those of a classification are 0, 1 and so on, or -1 and 1, which then are the names of the classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
from scipy.sparse import csr_matrix

from ml.class_labels import class_of
from ml.connectors.csr_file import CsrFile, CsrWriter
from ml.connectors.source import Source
from ml.connectors.splitting import chosen_rows, class_counts, train_rows
from ml.connectors.svm_ids import Columns, Gathering, packed, unpacked
from ml.connectors.svm_text import Rows, SvmText
from ml.errors import BadInput, ModelUnusable
from ml.options.loading import Warning
from ml.options.svm import SvmOptions
from ml.options.target import Target
from ml.repository_files import read_text
from ml.svm_labels import may_be_signed, no_finite, outside
from ml.tables import SparseTable, Table, TrainingData

__all__ = ["Fitted", "fitted", "fitted_by_hand", "read_prediction", "read_training", "resolve"]

VOCABULARY_FILE = "vocab.dat"
_CORRESPONDENCE_FILE = "corresp.txt"

#: Names of the classes -1 and 1.
_SIGNS = ["-1", "1"]
#: Different labels that are collected before it is looked whether they can be classes at all.
_LABELS_MOST = 100_000
#: Ids that a warning names.
_NAMED_MOST = 5


@dataclass
class Fitted:
    """What a training learned about the features and a prediction needs again; JSON both ways.

    ids : int64 array, increasing: the features, in the order of the columns.
    label_offset : what was added to labels. is_signed : whether the labels -1 and 1 are the classes 0 and 1.
    """

    ids: np.ndarray
    label_offset: int = 0
    is_signed: bool = False
    _columns: Columns | None = field(default=None, repr=False, compare=False)

    @property
    def inputs(self) -> list[str]:
        """The ids as texts."""
        return list(map(str, self.ids.tolist()))

    @property
    def words(self) -> list[str] | None:
        """Class names, where they are not the numbers of the classes."""
        return list(_SIGNS) if self.is_signed else None

    @property
    def width(self) -> int:
        """Number of features."""
        return len(self.ids)

    @property
    def columns(self) -> Columns:
        """Finds the columns of ids."""
        if self._columns is None:
            self._columns = Columns(self.ids)
        return self._columns

    def as_json(self) -> dict[str, Any]:
        """All of it as a JSON object."""
        return {"ids": packed(self.ids), "label_offset": self.label_offset, "is_signed": self.is_signed}

    def write_files(self, folder: Path) -> None:
        """Write vocab.dat: one id per line."""
        (folder / VOCABULARY_FILE).write_text("".join(f"{each}\n" for each in self.ids.tolist()), encoding="ascii")

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Fitted:
        """The object that `as_json` came from. Raises TypeError for anything else."""
        try:
            ids, offset, is_signed = given["ids"], given["label_offset"], given["is_signed"]
        except KeyError as error:
            raise TypeError("these are no features of a training") from error
        if type(offset) is not int or type(is_signed) is not bool or not isinstance(ids, Mapping):
            raise TypeError("these are no features of a training")
        return cls(unpacked(ids), offset, is_signed)


def read_training(
    sources: Sequence[Source], options: SvmOptions, target: Target, *, threads: int = 1, scratch: Path | None = None
) -> TrainingData:
    """Read the training set (first source) and the test sets (the others, else the share `test_split`).

    `options.seed` is used as it is, so a caller that wants a new order each time puts a fresh seed there.
    scratch : existing folder for the tables, needed with `options.db`; otherwise they are in memory.
    Raises BadInput for everything that is wrong with the data, naming file, line and word.
    """
    if not sources:
        raise BadInput("missing data: data must name a training file or hold lines of label id:value …")
    if options.db and scratch is None:
        raise ValueError("a table on disk needs a folder")
    folder = scratch if options.db else None
    warnings: list[Warning] = []
    labelled = target.kind != "autoencoder"
    with SvmText(sources[0]) as text:
        gathering = Gathering(text.name)
        labels = _Labels(target, options.label_offset[0], text) if labelled else None
        store = _store(folder, "rows")
        for rows in text.pieces(labelled=labelled, threads=threads):
            gathering.add(rows.ids)
            if labels is not None:
                labels.add(rows)
            store.append(rows)
        fitted = Fitted(gathering.finish(), options.label_offset[0])
        if fitted.width == 0:
            raise BadInput(f"{text.name} has no features: no row has a word of the form id:value")
        if labels is not None:
            fitted.is_signed = labels.finish()
    tests = [
        _read_test(source, fitted, target, threads, None if folder is None else folder / f"test_{position}", warnings)
        for position, source in enumerate(sources[1:])
    ]
    if options.test_split > 0 and tests:
        told = "parameters.input.test_split was ignored: a test set was given"
        warnings.append(Warning("parameters.input.test_split", told))
    name = PurePath(sources[0].name).name
    kept = train_rows(len(store), 0.0 if tests else options.test_split, sources[0].name)
    generator = np.random.default_rng(options.seed if options.seed >= 0 else None) if options.shuffle else None
    train, test = store.finished(fitted, _final_labels(fitted, target), name, kept, generator)
    if test is not None:
        tests = [test]
    if target.kind == "classification" and np.count_nonzero(class_counts(train, target)) < 2:
        where = sources[0].name if kept == len(store) else f"the part of {sources[0].name} that is trained on"
        raise BadInput(f"{where} holds labels of one class only; nothing can be told apart")
    pa.default_memory_pool().release_unused()  # of which the training may have need
    return TrainingData(train, tests, fitted, {"connector": "svm"}, warnings)


def read_prediction(
    sources: Sequence[Source], fitted: Fitted, target: Target, *, labelled: bool, threads: int = 1
) -> tuple[SparseTable, list[Warning]]:
    """Read rows to predict on, with the features of the training; with labels, which they must have then, when
    `labelled`.

    Rows are called by their number, from 0. Raises BadInput.
    """
    if not sources:
        raise BadInput("missing data: data must name an svm file or hold lines of id:value …")
    labelled = labelled and target.kind != "autoencoder"  # which is measured by its features
    warnings: list[Warning] = []
    known = _InMemory()
    for source in sources:
        _read_known(source, fitted, target, threads, labelled, known, warnings)
    table, _ = known.finished(fitted, _final_labels(fitted, target), sources[0].name, len(known), None)
    table.uris = [str(row) for row in range(len(table))]
    return table, warnings


def fitted(given: Mapping[str, Any]) -> Fitted:
    """The object that `Fitted.as_json` came from. Raises TypeError for anything else."""
    return Fitted.from_json(given)


def fitted_by_hand(inputs: Sequence[str], options: SvmOptions, folder: Path) -> Fitted:
    """What can be said of a model that somebody put into a folder: which feature each of its inputs is.

    vocab.dat in the folder names them, when there is one and it has as many ids as the model has inputs. Otherwise the
    model was made by a server, or by a library alone, for which the id is the column. Raises ModelUnusable.
    """
    ids = _vocabulary(folder)
    if ids is None or len(ids) != len(inputs):
        if ids is not None and int(ids[-1]) >= len(inputs):
            raise ModelUnusable(
                f"{VOCABULARY_FILE} has {len(ids)} feature ids up to {ids[-1]}; the model has {len(inputs)} inputs"
            )
        ids = np.arange(len(inputs), dtype=np.int64)
    try:
        names = read_text(folder, _CORRESPONDENCE_FILE).splitlines()
    except (OSError, UnicodeDecodeError):
        names = []
    is_signed = [line.split() for line in names if line.strip()] == [[str(i), name] for i, name in enumerate(_SIGNS)]
    return Fitted(ids, options.label_offset[0], is_signed)


def _vocabulary(folder: Path) -> np.ndarray | None:
    """The ids of vocab.dat, increasing; None when there is none. Raises ModelUnusable."""
    try:
        words = read_text(folder, VOCABULARY_FILE).split()
        ids = np.unique(np.array([int(word) for word in words if word.isdecimal() and len(word) < 20], np.int64))
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError, OverflowError):
        raise ModelUnusable(f"{VOCABULARY_FILE} cannot be read") from None
    if len(ids) != len(words) or len(ids) == 0:
        raise ModelUnusable(f"{VOCABULARY_FILE} is broken: it must have one feature id, a whole number, per line")
    return ids


def resolve(fitted: Fitted, options: SvmOptions, given: Collection[str]) -> Fitted:
    """`fitted` with what a prediction request says otherwise; names not in `given` follow the training."""
    if "label_offset" not in given or options.label_offset[0] == fitted.label_offset:
        return fitted
    return replace(fitted, label_offset=options.label_offset[0])


# Labels


class _Labels:
    """The labels of training data, gathered piece by piece, and what is wrong with them."""

    def __init__(self, target: Target, offset: int, text: SvmText) -> None:
        self._target = target
        self._offset = offset
        self._text = text
        self._seen: dict[float, tuple[int, int]] = {}
        self._most = max(_LABELS_MOST, 4 * target.classes)

    def add(self, rows: Rows) -> None:
        """Count a piece in. Raises BadInput."""
        assert rows.labels is not None
        _check_finite(rows, self._text)
        if self._target.kind != "classification":
            return
        found, first = np.unique(rows.labels, return_index=True)
        for label, row in zip(found.tolist(), first.tolist(), strict=True):
            self._seen.setdefault(label, (rows.position, row))
        if len(self._seen) > self._most:
            self.finish()  # says what is wrong with so many

    def finish(self) -> bool:
        """Whether the labels are -1 and 1 rather than numbers of classes. Raises BadInput."""
        target, offset = self._target, self._offset
        if target.kind != "classification":
            return False
        if -1.0 in self._seen and target.ignored != -1 and may_be_signed(self._seen, offset, target):
            return True
        for label, (position, row) in self._seen.items():
            if class_of(label, offset, target) is None:
                line = self._text.line_of(position, row)
                raise outside(label, line, self._seen, offset, target, self._text.name)
        return False


def _check_finite(rows: Rows, text: SvmText) -> None:
    assert rows.labels is not None
    wrong = ~np.isfinite(rows.labels)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise no_finite(float(rows.labels[row]), text.line_of(rows.position, row), text.name)


def _check_known(rows: Rows, fitted: Fitted, target: Target, text: SvmText) -> None:
    """Refuse labels of data that the model was not trained on, for classes that it does not know."""
    assert rows.labels is not None
    _check_finite(rows, text)
    if target.kind != "classification":
        return
    found, first = np.unique(rows.labels, return_index=True)
    for label, row in zip(found.tolist(), first.tolist(), strict=True):
        if _class_of(label, fitted, target) is None:
            line = text.line_of(rows.position, row)
            raise BadInput(f"label {label:g} found in test set but not in train set ({text.name}, line {line})")


def _class_of(label: float, fitted: Fitted, target: Target) -> int | None:
    """The class of a label that was read; None when it is none."""
    if not fitted.is_signed:
        return class_of(label, fitted.label_offset, target)
    if label == target.ignored:
        return target.ignored
    return {-1.0: 0, 1.0: 1}.get(label)


def _final_labels(fitted: Fitted, target: Target) -> Callable[[np.ndarray], np.ndarray]:
    """From labels as they are read, which were checked, to labels as described at `Target`."""

    def of_regression(read: np.ndarray) -> np.ndarray:
        return (read + fitted.label_offset).reshape(-1, 1)

    def of_classes(read: np.ndarray) -> np.ndarray:
        found, places = np.unique(read, return_inverse=True)
        return np.array([_class_of(label, fitted, target) for label in found.tolist()], np.int32)[places]

    return of_classes if target.kind == "classification" else of_regression


# Rows of which the features are known


@dataclass
class _Unknown:
    """What was left out because the training data has no such feature."""

    values: int = 0
    ids: set[int] = field(default_factory=set)
    has_more: bool = False

    def add(self, ids: np.ndarray) -> None:
        self.values += len(ids)
        found = np.unique(ids)
        self.has_more |= len(found) > _NAMED_MOST or len(self.ids.union(found[:_NAMED_MOST].tolist())) > _NAMED_MOST
        self.ids = set(sorted(self.ids.union(found[:_NAMED_MOST].tolist()))[:_NAMED_MOST])

    def warning(self, source: str) -> Warning:
        values, were = ("1 value", "was") if self.values == 1 else (f"{self.values} values", "were")
        ids = ", ".join(map(str, sorted(self.ids))) + (" and others" if self.has_more else "")
        return Warning("data", f"{values} of {source} {were} ignored: the training data has no feature {ids}")


def _read_known(
    source: Source,
    fitted: Fitted,
    target: Target,
    threads: int,
    labelled: bool,
    store: _InMemory | _OnDisk,
    warnings: list[Warning],
) -> None:
    """Add the rows of a source to a store, but for the features that the training data has not."""
    unknown = _Unknown()
    with SvmText(source) as text:
        for rows in text.pieces(labelled=labelled, threads=threads):
            if labelled:
                _check_known(rows, fitted, target, text)
            is_unknown = fitted.columns.of(rows.ids) < 0
            if is_unknown.any():
                unknown.add(rows.ids[is_unknown])
                before = np.concatenate([[0], np.cumsum(~is_unknown)])
                rows.starts = before[rows.starts]
                rows.ids, rows.values = rows.ids[~is_unknown], rows.values[~is_unknown]
            store.append(rows)
        if unknown.values:
            warnings.append(unknown.warning(text.name))


def _read_test(
    source: Source, fitted: Fitted, target: Target, threads: int, folder: Path | None, warnings: list[Warning]
) -> Table:
    store = _store(folder, "rows")
    _read_known(source, fitted, target, threads, target.kind != "autoencoder", store, warnings)
    table, _ = store.finished(fitted, _final_labels(fitted, target), PurePath(source.name).name, len(store), None)
    return table


# From rows to tables


def _store(folder: Path | None, name: str) -> _InMemory | _OnDisk:
    return _InMemory() if folder is None else _OnDisk(folder / name)


_NO_ROWS = Rows(0, None, np.zeros(1, np.int64), np.zeros(0, np.int64), np.zeros(0, np.float32))


class _InMemory:
    """Rows in memory, which become tables there."""

    def __init__(self) -> None:
        self._pieces: list[Rows] = []
        self._rows = 0

    def __len__(self) -> int:
        return self._rows

    def append(self, rows: Rows) -> None:
        """Add rows."""
        if len(rows.ids) == 0 or int(rows.ids.max()) < 2**31:
            rows.ids = rows.ids.astype(np.int32)  # half of the memory
        self._pieces.append(rows)
        self._rows += len(rows)

    def finished(
        self,
        fitted: Fitted,
        label: Callable[[np.ndarray], np.ndarray],
        name: str,
        kept: int,
        generator: np.random.Generator | None,
    ) -> tuple[SparseTable, SparseTable | None]:
        """The table, and the rows from `kept` on as a test set; in random order before that, with a generator."""
        count = sum(len(rows.ids) for rows in self._pieces)
        values, columns = np.empty(count, np.float32), np.empty(count, np.int32)
        starts = np.zeros(self._rows + 1, np.int32 if count < 2**31 else np.int64)
        labels = [label(rows.labels) for rows in self._pieces if rows.labels is not None]
        at = row = 0
        for place, rows in enumerate(self._pieces):
            stop = at + len(rows.ids)
            values[at:stop], columns[at:stop] = rows.values, fitted.columns.of(rows.ids)
            starts[row + 1 : row + 1 + len(rows)] = rows.starts[1:] + at
            at, row = stop, row + len(rows)
            self._pieces[place] = _NO_ROWS  # gives its memory back
        features = csr_matrix((values, columns, starts), shape=(row, fitted.width))
        joined = np.concatenate(labels) if labels else None
        if generator is not None:
            order = generator.permutation(row)
            features = features[order]
            joined = None if joined is None else joined[order]
        if kept == row:
            return SparseTable(features, joined, None, name), None
        train, test = (None, None) if joined is None else (joined[:kept], joined[kept:])
        return SparseTable(features[:kept], train, None, name), SparseTable(features[kept:], test, None, "split")


class _OnDisk:
    """Rows in files, which become tables on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer = CsrWriter(folder)
        self._highest = 0

    def __len__(self) -> int:
        return self._writer.rows

    def append(self, rows: Rows) -> None:
        """Add rows."""
        if len(rows.ids):
            self._highest = max(self._highest, int(rows.ids.max()))
        self._writer.append_values(rows.values, rows.ids, rows.starts, rows.labels)

    def finished(
        self,
        fitted: Fitted,
        label: Callable[[np.ndarray], np.ndarray],
        name: str,
        kept: int,
        generator: np.random.Generator | None,
    ) -> tuple[CsrFile, CsrFile | None]:
        """The table, and the rows from `kept` on as a test set; in random order before that, with a generator.

        The same rows are in the test set as in memory; their order, and that of the others, is as random as
        `csr_file.py` says.
        """
        read = self._writer.finish(name, self._highest + 1)
        chosen = None
        if generator is not None and kept < len(read):
            chosen = chosen_rows(generator, len(read), kept, self._folder)
        train = CsrWriter(self._folder / "train")
        test = None if chosen is None else CsrWriter(self._folder / "split")
        for numbers, features, labels in self._completed(read, fitted, label, generator):
            if test is None or chosen is None:
                train.append(features, labels)
                continue
            is_test = chosen[numbers]
            test.append(features[is_test], None if labels is None else labels[is_test])
            train.append(features[~is_test], None if labels is None else labels[~is_test])
        read.remove()
        whole = train.finish(name, fitted.width)
        if test is not None:
            return whole, test.finish("split", fitted.width)
        if kept == len(whole):
            return whole, None
        return whole.part(0, kept, name), whole.part(kept, len(whole), "split")

    @staticmethod
    def _completed(
        read: CsrFile, fitted: Fitted, label: Callable[[np.ndarray], np.ndarray], generator: np.random.Generator | None
    ) -> Iterator[tuple[np.ndarray, csr_matrix, np.ndarray | None]]:
        """Numbers, features and labels of all rows, columns and labels as backends take them."""
        for numbers, rows, labels in read.numbered(generator):
            columns = fitted.columns.of(rows.indices)
            features = csr_matrix((rows.data, columns, rows.indptr), shape=(len(numbers), fitted.width))
            yield numbers, features, None if labels is None else label(labels)
