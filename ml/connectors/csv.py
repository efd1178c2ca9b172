"""CSV: files or in-memory lines become tables of numbers.

pyarrow parses; where it refuses, the same bytes are read once more with the standard library, slowly, only to find
the column, the line and the value for the message.

Missing values: an empty cell, NA, N/A, #N/A, NaN, nan, null or NULL in a feature column is a missing value (NaN),
which trees route by what they learned. A missing label is an error.
"""

from __future__ import annotations

import csv
import io
import math
import stat
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from ml.connectors.source import FileSource, LinesSource, Source
from ml.errors import BadInput
from ml.options.csv import LINE_LIMIT_BYTES, CsvOptions
from ml.options.loading import Warning, shown
from ml.options.target import Target
from ml.tables import DenseTable, TrainingData

MISSING = ("", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL")
SEPARATORS = (",", ";", "\t", "|", ":", " ")


@dataclass
class Fitted:
    """What a training learned about the columns and a prediction needs again; JSON both ways.

    columns : all columns of the training file, in order.
    features : columns that are features, before words become 0/1 columns.
    categories : position of every word of every categorical column.
    words : class names of text labels in order of appearance; None for numeric labels.
    low, high : bounds (or mean and variance) of `bounded` columns, for `scale`; empty without.
    """

    columns: list[str]
    features: list[str]
    label: list[str]
    id: str
    ignore: list[str]
    label_offset: list[int]
    separator: str
    quote: str
    categories: dict[str, dict[str, int]] = field(default_factory=dict)
    words: list[str] | None = None
    scale_type: str = ""
    low: list[float] = field(default_factory=list)
    high: list[float] = field(default_factory=list)

    @property
    def bounded(self) -> list[str]:
        """The columns that bounds speak of: all that are not ignored, in file order."""
        return [name for name in self.columns if name not in self.ignore]

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of the feature array, words already one column each."""
        names = []
        for name in self.features:
            names += [f"{name}={word}" for word in self.categories[name]] if name in self.categories else [name]
        return names

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return dict(self.__dict__)

    def write_files(self, folder: Path) -> None:
        """Write what a repository holds of the columns besides our own description."""

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Fitted:
        """The object that `as_json` came from. Raises TypeError for anything else."""
        made = cls(**given)
        texts = [*made.columns, *made.features, *made.label, *made.ignore, made.id, made.separator, made.quote]
        texts += [word for words in made.categories.values() for word in words] + (made.words or [])
        numbers = [*made.label_offset, *made.low, *made.high]
        if (
            not all(isinstance(text, str) for text in texts)
            or not all(isinstance(number, int | float) for number in numbers)
            or len(made.separator) != 1
            or len(made.quote) > 1
            or any(sorted(words.values()) != list(range(len(words))) for words in made.categories.values())
        ):
            raise TypeError("these are no columns of a training")
        return made


def read_training(
    sources: Sequence[Source], options: CsvOptions, target: Target, *, threads: int = 1, scratch: Path | None = None
) -> TrainingData:
    """Read the training set (first source) and the test sets (the others, else the share `test_split`).

    `options.seed` is used as it is, so a caller that wants a new order each time puts a fresh seed there.
    Raises BadInput for everything that is wrong with the data, naming file, column, line and value.
    """
    if not sources:
        raise BadInput("missing data: data must name a training file or hold CSV lines")
    warnings: list[Warning] = []
    first = _Text(sources[0], options.separator[0], options.quote[:1])
    fitted = _fit_columns(first, options)
    columns = first.read(fitted.columns, _kinds(fitted, target), threads=threads, skip_header=True)
    if options.categoricals or options.categoricals_mapping:
        fitted.categories = _fit_categories(columns, options, fitted)
    if target.kind == "classification":
        labels, fitted.words = _fit_classes(columns[fitted.label[0]], fitted, target, warnings, first.name)
    else:
        labels = _numbers(columns, fitted, first.name)
    if options.scale:
        _fit_bounds(columns, labels, options, fitted)
    elif options.min_vals or options.mean_vals:
        given = "min_vals" if options.min_vals else "mean_vals"
        warnings.append(Warning(f"parameters.input.{given}", f"parameters.input.{given} needs scale and was ignored"))
    whole = DenseTable(_features(columns, fitted, first.name), labels, None, PurePath(first.name).name)
    tests = [_read_test(source, fitted, options, target, threads, warnings) for source in sources[1:]]
    train = _shuffled(whole, options)
    if options.test_split > 0:
        if tests:
            text = "parameters.input.test_split was ignored: a test set was given"
            warnings.append(Warning("parameters.input.test_split", text))
        else:
            train, test = _split(train, options.test_split, first.name)
            tests = [test]
    if target.kind == "classification" and np.count_nonzero(np.bincount(_labels(train))) < 2:
        where = first.name if len(train) == len(whole) else f"the part of {first.name} that is trained on"
        raise BadInput(f"label column {fitted.label[0]} holds one class only in {where}; nothing can be told apart")
    return TrainingData(train, tests, fitted, _report(fitted), warnings)


def read_prediction(
    sources: Sequence[Source], fitted: Fitted, target: Target, *, labelled: bool, threads: int = 1
) -> tuple[DenseTable, list[Warning]]:
    """Read rows to predict on, in the column order of the training; with labels when `labelled`.

    A file has a header line. In-memory lines have one when their first line names training columns; otherwise their
    cells are taken by position. Raises BadInput.
    """
    if not sources:
        raise BadInput("missing data: data must name a CSV file or hold CSV lines")
    tables: list[DenseTable] = []
    warnings: list[Warning] = []
    for source in sources:
        text = _Text(source, fitted.separator, fitted.quote)
        names, has_header = _prediction_columns(text, fitted, labelled)
        _check_columns(names, fitted, text.name, labelled, warnings if has_header else None)
        wanted = _kinds(fitted, target, labelled=labelled)
        columns = text.read(
            names, {k: v for k, v in wanted.items() if k in names}, threads=threads, skip_header=has_header
        )
        labels = None
        if labelled:
            labels = _known_labels(columns, fitted, target, text.name)
        rows = len(next(iter(columns.values())))
        uris = _uris(columns, fitted, rows, sum(len(table) for table in tables))
        tables.append(DenseTable(_features(columns, fitted, text.name), labels, uris, text.name))
    return _joined(tables), warnings


def fitted(given: Mapping[str, Any]) -> Fitted:
    """The object that `Fitted.as_json` came from. Raises TypeError for anything else."""
    return Fitted.from_json(given)


def fitted_by_hand(inputs: Sequence[str], options: CsvOptions, folder: Path) -> Fitted:
    """What can be said of a model that somebody put into a folder: its inputs are columns, the rest is options."""
    return Fitted(
        columns=list(inputs),
        features=list(inputs),
        label=list(options.label),
        id=options.id,
        ignore=list(options.ignore),
        label_offset=list(options.label_offset) * max(1, len(options.label)),
        separator=options.separator[0],
        quote=options.quote[:1],
    )


def resolve(fitted: Fitted, options: CsvOptions, given: Collection[str]) -> Fitted:
    """`fitted` with what a prediction request says otherwise; names not in `given` follow the training."""
    given = set(given)
    changed: dict[str, Any] = {}
    if "separator" in given:
        changed["separator"] = options.separator[0]
    if "quote" in given:
        changed["quote"] = options.quote[:1]
    if "id" in given:
        changed["id"] = options.id
    if "ignore" in given:
        changed["ignore"] = [
            *fitted.ignore,
            *(n for n in options.ignore if n not in fitted.features + fitted.ignore),
        ]
        lost = [name for name in options.ignore if name in fitted.features]
        if lost:
            raise BadInput(f"parameters.input.ignore names {lost[0]!r}, a feature that the model was trained with")
    if "label" in given and options.label:
        changed["label"] = list(options.label)
    if "label_offset" in given:
        changed["label_offset"] = list(options.label_offset)
    if "categoricals_mapping" in given and options.categoricals_mapping:
        for name, words in options.categoricals_mapping.items():
            if fitted.categories.get(name) != words:
                raise BadInput(f"parameters.input.categoricals_mapping differs from the training for column {name!r}")
    if "scale" in given and options.scale and not fitted.scale_type:
        changed["scale_type"] = options.scale_type
    if "scale" in given and not options.scale:
        changed["scale_type"] = ""
    result = replace(fitted, **changed)
    if result.scale_type:
        low, high = ("min_vals", "max_vals") if result.scale_type == "minmax" else ("mean_vals", "variance_vals")
        if low in given and getattr(options, low):
            result = replace(result, low=list(getattr(options, low)), high=list(getattr(options, high)))
        if not result.low:
            raise BadInput(f"predict: failed acquiring scaling {low} or {high}")
        if len(result.low) != len(result.bounded):
            raise BadInput(
                f"parameters.input.{low} has {len(result.low)} values; the training data has {len(result.bounded)} "
                "columns that are not ignored"
            )
    return result


class _Text:
    """The bytes of a source, checked, with its header."""

    def __init__(self, source: Source, separator: str, quote: str) -> None:
        self.name = source.name
        self.separator = separator
        self.quote = quote
        self.is_file = isinstance(source, FileSource)
        data = _file_bytes(source) if isinstance(source, FileSource) else _line_bytes(source)
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise BadInput(f"{self.name} is UTF-16 text; save it as UTF-8")
        data = data.removeprefix(b"\xef\xbb\xbf")
        if b"\0" in data:
            raise BadInput(f"{self.name} is not a text file: it holds NUL bytes")
        self.skipped = len(data) - len(data.lstrip(b"\r\n"))
        data = data.lstrip(b"\r\n")
        if not data.strip():
            raise BadInput(f"missing data: {self.name} is empty")
        self.data = data
        self._check_lines()
        self.first = self._first_line()

    def _check_lines(self) -> None:
        """Refuse lines beyond the limit, looking only at one line end per limit."""
        position, size = 0, len(self.data)
        while size - position > LINE_LIMIT_BYTES:
            end = max(
                self.data.rfind(b"\n", position, position + LINE_LIMIT_BYTES),
                self.data.rfind(b"\r", position, position + LINE_LIMIT_BYTES),
            )
            if end < 0:
                line = self.data.count(b"\n", 0, position) + 1
                raise BadInput(
                    f"line {line} of {self.name} is longer than {LINE_LIMIT_BYTES // 2**20} MiB; "
                    "is this a CSV file with one row per line?"
                )
            position = end + 1

    def _first_line(self) -> list[str]:
        text = self.data[:LINE_LIMIT_BYTES].decode("utf-8", errors="replace")
        cells: list[str] = next(self._reader(io.StringIO(text, newline="")), [])
        return [cell.strip() for cell in cells]

    def _reader(self, lines: Iterable[str]) -> Any:
        csv.field_size_limit(LINE_LIMIT_BYTES + 1)
        if self.quote:
            return csv.reader(lines, delimiter=self.separator, quotechar=self.quote, doublequote=True)
        return csv.reader(lines, delimiter=self.separator, quoting=csv.QUOTE_NONE)

    def header(self) -> list[str]:
        """The names in the first line. Raises BadInput for empty or repeated ones."""
        if any("\ufffd" in name for name in self.first):
            raise BadInput(f"{self.name} is not UTF-8 text: its header line cannot be read; save it as UTF-8")
        seen: set[str] = set()
        for position, name in enumerate(self.first, start=1):
            if name in seen:
                raise BadInput(f"column {name} stands twice in the header line of {self.name}; names must differ")
            if not name and position < len(self.first):
                raise BadInput(f"column {position} of {self.name} has no name in the header line")
            seen.add(name)
        return list(self.first)

    def separator_hint(self) -> str:
        """What to say when a single column was found: which separator would give more."""
        if len(self.first) > 1:
            return ""
        line = self.first[0] if self.first else ""
        best = max((s for s in SEPARATORS if s != self.separator), key=line.count)
        if line.count(best) == 0:
            return ""
        return (
            f"; only one column was found with separator {self.separator!r} in {shown(line)}: "
            f"set parameters.input.separator to {best!r}?"
        )

    def read(
        self, names: Sequence[str], kinds: Mapping[str, pa.DataType], *, threads: int, skip_header: bool
    ) -> dict[str, pa.ChunkedArray]:
        """The columns in `kinds`, each of its type, of the rows below the header. Raises BadInput."""
        has_quotes = bool(self.quote) and self.quote.encode() in self.data
        try:
            table = pacsv.read_csv(
                pa.BufferReader(self.data),
                read_options=pacsv.ReadOptions(
                    use_threads=threads > 1,
                    block_size=LINE_LIMIT_BYTES,
                    column_names=list(names),
                    skip_rows_after_names=int(skip_header),
                ),
                parse_options=pacsv.ParseOptions(
                    delimiter=self.separator, quote_char=self.quote or False, newlines_in_values=has_quotes
                ),
                convert_options=pacsv.ConvertOptions(
                    include_columns=list(kinds),
                    column_types=dict(kinds),
                    null_values=list(MISSING),
                    strings_can_be_null=False,
                ),
            )
        except (pa.ArrowInvalid, pa.ArrowKeyError, UnicodeDecodeError):
            table = self._read_slowly(names, kinds, skip_header)
        if table.num_rows == 0:
            raise BadInput(f"missing data: {self.name} has a header line but no rows")
        return {name: table.column(name) for name in kinds}

    def _read_slowly(self, names: Sequence[str], kinds: Mapping[str, pa.DataType], skip_header: bool) -> pa.Table:
        """Read with the standard library what pyarrow refused.

        Raises the BadInput that says where the data is wrong; what only pyarrow finds wrong, such as blanks for a
        missing number, is read.
        """
        wanted = [(i, name, pa.types.is_floating(kinds[name])) for i, name in enumerate(names) if name in kinds]
        columns: dict[str, list[Any]] = {name: [] for _, name, _ in wanted}
        reader = self._reader(io.TextIOWrapper(io.BytesIO(self.data), encoding="utf-8", errors="replace", newline=""))
        try:
            for number, cells in enumerate(reader):
                if not cells or (skip_header and number == 0):
                    continue
                line = reader.line_num + self.skipped
                if len(cells) != len(names):
                    raise BadInput(
                        f"line {line} of {self.name} has {len(cells)} cells; "
                        f"{'the header line' if skip_header else 'the first line'} has {len(names)}"
                        + self.separator_hint()
                    )
                for i, name, is_number in wanted:
                    if "\ufffd" in cells[i]:
                        raise BadInput(f"{self.name} is not UTF-8 text: line {line} cannot be read; save it as UTF-8")
                    columns[name].append(self._number(cells[i], name, line) if is_number else cells[i])
        except csv.Error as error:
            raise BadInput(f"line {reader.line_num + self.skipped} of {self.name} cannot be read: {error}") from None
        return pa.table({name: pa.chunked_array([pa.array(columns[name], kinds[name])]) for name in columns})

    def _number(self, cell: str, name: str, line: int) -> float | None:
        cell = cell.strip()
        if cell in MISSING:
            return None
        try:
            if "_" not in cell:  # Python would read 1_000, other readers of the same file would not
                return float(cell)
        except ValueError:
            pass
        raise BadInput(
            f"column {name} is not a number, use categoricals or ignore parameters instead: "
            f"line {line} of {self.name} has {shown(cell)}"
        )


def _file_bytes(source: FileSource) -> bytes:
    try:
        status = source.path.stat()
        if stat.S_ISDIR(status.st_mode):
            raise BadInput(f"{source.name} is a directory, requires a CSV file")
        if not stat.S_ISREG(status.st_mode):
            raise BadInput(f"{source.name} is no regular file, requires a CSV file")
        return source.path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        raise BadInput(f"data file {source.name} does not exist") from None
    except PermissionError:
        raise BadInput(f"data file {source.name} cannot be read: permission denied") from None
    except OSError as error:
        raise BadInput(f"data file {source.name} cannot be read: {error.strerror}") from None


def _line_bytes(source: LinesSource) -> bytes:
    try:
        return "\n".join(source.lines).encode()
    except UnicodeEncodeError:
        raise BadInput("in-memory data holds characters that are no Unicode text") from None


def _fit_columns(text: _Text, options: CsvOptions) -> Fitted:
    columns = text.header()
    for name in options.label:
        if name not in columns:
            raise BadInput(
                f"cannot find label column {name} in {text.name}"
                + (text.separator_hint() or "; its columns are " + _listed(columns))
            )
    if options.id and options.id not in columns:
        raise BadInput(f"cannot find id column {options.id} in {text.name}; its columns are {_listed(columns)}")
    for option in ("ignore", "categoricals"):
        for name in getattr(options, option):
            if name not in columns:
                raise BadInput(
                    f"cannot find column {name} of parameters.input.{option} in {text.name}; "
                    f"its columns are {_listed(columns)}"
                )
    for name in options.categoricals_mapping:
        if name not in columns:
            raise BadInput(f"cannot find column {name} of parameters.input.categoricals_mapping in {text.name}")
    apart = {*options.label, options.id, *options.ignore}
    for name in (*options.categoricals, *options.categoricals_mapping):
        if name in apart:
            raise BadInput(f"column {name} is categorical and at the same time label, id or ignored")
    # A trailing separator makes a last column without a name: no feature.
    features = [name for name in columns if name and name not in apart]
    if not features:
        hint = text.separator_hint() or "; all are label, id or ignored"
        raise BadInput(f"{text.name} has no feature column{hint}")
    offsets = list(options.label_offset)
    return Fitted(
        columns=columns,
        features=features,
        label=list(options.label),
        id=options.id,
        ignore=list(options.ignore),
        label_offset=offsets * len(options.label) if len(offsets) == 1 else offsets,
        separator=options.separator[0],
        quote=options.quote[:1],
        categories={name: {} for name in columns if name in (*options.categoricals, *options.categoricals_mapping)},
    )


def _kinds(fitted: Fitted, target: Target, *, labelled: bool = True) -> dict[str, pa.DataType]:
    """Type of every column that is read."""
    kinds = {
        name: pa.string() if name in fitted.categories else pa.float64()
        for name in fitted.columns
        if name in fitted.features
    }
    if labelled:
        kinds.update({name: pa.string() if target.kind == "classification" else pa.float64() for name in fitted.label})
    if fitted.id:
        kinds[fitted.id] = pa.string()
    return kinds


def _fit_categories(
    columns: Mapping[str, pa.ChunkedArray], options: CsvOptions, fitted: Fitted
) -> dict[str, dict[str, int]]:
    found = {}
    for name in fitted.categories:
        given = options.categoricals_mapping.get(name)
        if given is not None:
            if sorted(given.values()) != list(range(len(given))):
                raise BadInput(
                    f"parameters.input.categoricals_mapping must number the words of column {name} from 0 without gaps"
                )
            found[name] = dict(sorted(given.items(), key=lambda item: item[1]))
            continue
        words = [word for word in pc.unique(columns[name]).to_pylist() if word not in MISSING]
        found[name] = {word: position for position, word in enumerate(words)}
    return found


def _encoded(column: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Position of every cell among the different words, and these, in order of appearance."""
    coded = pc.dictionary_encode(column.combine_chunks())
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    return np.from_dlpack(coded.indices).astype(np.int64), coded.dictionary.to_pylist()


def _as_numbers(words: Sequence[str]) -> list[float] | None:
    """The words as numbers, or None when one is none."""
    try:
        numbers = [float(word) for word in words]
    except ValueError:
        return None
    return None if any("_" in word for word in words) or not all(map(math.isfinite, numbers)) else numbers


def _fit_classes(
    column: pa.ChunkedArray, fitted: Fitted, target: Target, warnings: list[Warning], source: str
) -> tuple[np.ndarray, list[str] | None]:
    """Class index of every row, and the class names when the labels are words."""
    codes, words = _encoded(column)
    _no_missing_label(codes, words, fitted.label[0], source)
    name, offset = fitted.label[0], fitted.label_offset[0]
    numbers = _as_numbers(words)
    if numbers is None:
        names = list(dict.fromkeys(word.strip() for word in words))
        if len(names) > target.classes:
            raise BadInput(
                f"label column {name} of {source} holds {len(names)} classes ({_listed(names)}), "
                f"but parameters.mllib.nclasses is {target.classes}"
            )
        if len(names) < target.classes:
            text = f"label column {name} holds {len(names)} classes, parameters.mllib.nclasses is {target.classes}"
            warnings.append(Warning("parameters.mllib.nclasses", text))
        if offset:
            text = "parameters.input.label_offset was ignored: the labels are words, numbered from 0"
            warnings.append(Warning("parameters.input.label_offset", text))
        positions = {word: position for position, word in enumerate(names)}
        return np.array([positions[word.strip()] for word in words], np.int32)[codes], names
    return _class_numbers(codes, numbers, name, offset, target, source), None


def _class_numbers(
    codes: np.ndarray, numbers: list[float], name: str, offset: int, target: Target, source: str
) -> np.ndarray:
    shifted = [number + offset for number in numbers]
    for number, label in zip(numbers, shifted, strict=True):
        if not label.is_integer() or not 0 <= label < target.classes:
            lowest, highest = min(numbers), max(numbers)
            hint = ""
            if lowest > 0 and highest - lowest < target.classes and lowest.is_integer():
                hint = f"; set parameters.input.label_offset to {-int(lowest)}?"
            elif label.is_integer() and label >= target.classes:
                hint = f"; is parameters.mllib.nclasses, {target.classes}, too small?"
            elif not label.is_integer():
                hint = "; is this a regression?"
            after = f" (with label_offset {offset})" if offset else ""
            raise BadInput(
                f"label {number:g} of column {name} in {source}{after} is outside of 0..{target.classes - 1}{hint}"
            )
    return np.array(shifted, np.float64).astype(np.int32)[codes]


def _no_missing_label(codes: np.ndarray, words: Sequence[str], name: str, source: str) -> None:
    for position, word in enumerate(words):
        if not word.strip():
            row = int(np.argmax(codes == position)) + 1
            raise BadInput(f"label column {name} of {source} has no value in row {row}")


def _numbers(columns: Mapping[str, pa.ChunkedArray], fitted: Fitted, source: str) -> np.ndarray:
    """The targets of a regression, shape (rows, targets)."""
    made = []
    for name, offset in zip(fitted.label, fitted.label_offset, strict=True):
        values = _floats(columns[name]) + offset
        wrong = ~np.isfinite(values)
        if wrong.any():
            row = int(np.argmax(wrong)) + 1
            raise BadInput(f"label column {name} of {source} has no finite value in row {row}")
        made.append(values)
    return np.stack(made, axis=1)


def _floats(column: pa.ChunkedArray) -> np.ndarray:
    """A float column as an array, NaN where a value is missing.

    Not by `to_numpy`, which imports pandas (a second, and 60 MB) wherever that is installed.
    """
    filled = pc.fill_null(column, math.nan) if column.null_count else column
    return np.concatenate([np.from_dlpack(chunk) for chunk in filled.chunks])


def _known_labels(columns: Mapping[str, pa.ChunkedArray], fitted: Fitted, target: Target, source: str) -> np.ndarray:
    """Labels of data that the model was not trained on. Raises BadInput for a class it does not know."""
    if target.kind != "classification":
        return _numbers(columns, fitted, source)
    name = fitted.label[0]
    codes, words = _encoded(columns[name])
    _no_missing_label(codes, words, name, source)
    if fitted.words is not None:
        positions = {word: position for position, word in enumerate(fitted.words)}
        for word in words:
            if word.strip() not in positions:
                raise BadInput(f"label {word.strip()} found in test set but not in train set ({source})")
        return np.array([positions[word.strip()] for word in words], np.int32)[codes]
    offset = fitted.label_offset[0]
    for word in words:
        numbers = _as_numbers([word])
        if numbers is None or not 0 <= numbers[0] + offset < target.classes or not numbers[0].is_integer():
            raise BadInput(f"label {word.strip()} found in test set but not in train set ({source})")
    return _class_numbers(codes, [float(word) for word in words], name, offset, target, source)


def _fit_bounds(
    columns: Mapping[str, pa.ChunkedArray], labels: np.ndarray, options: CsvOptions, fitted: Fitted
) -> None:
    fitted.scale_type = options.scale_type
    given = (
        (options.min_vals, options.max_vals)
        if options.scale_type == "minmax"
        else (options.mean_vals, options.variance_vals)
    )
    names = fitted.bounded
    if given[0]:
        if len(given[0]) != len(names):
            raise BadInput(
                f"the bounds have {len(given[0])} values; {len(names)} columns of the training data are not ignored"
            )
        fitted.low, fitted.high = list(given[0]), list(given[1])
        return
    for name in names:
        if name in fitted.label:
            values = (labels if labels.ndim == 1 else labels[:, fitted.label.index(name)]).astype(np.float64)
        elif name in columns and pa.types.is_floating(columns[name].type):
            values = _floats(columns[name])
        else:
            values = np.zeros(1)  # ids and words are never scaled; the place is kept
        values = values[np.isfinite(values)]
        if len(values) == 0:
            values = np.zeros(1)
        if options.scale_type == "minmax":
            low, high = values.min(), values.max()
        else:
            low, high = values.mean(), values.var()
        fitted.low.append(float(low))
        fitted.high.append(float(high))


def _features(columns: Mapping[str, pa.ChunkedArray], fitted: Fitted, source: str) -> np.ndarray:
    """The feature array in the order of `fitted.inputs`, scaled and with words as 0/1 columns."""
    rows = len(columns[fitted.features[0]])
    made = np.empty((rows, len(fitted.inputs)), np.float32)
    bounds = dict(zip(fitted.bounded, zip(fitted.low, fitted.high, strict=True), strict=False))
    position = 0
    for name in fitted.features:
        if name in fitted.categories:
            words = fitted.categories[name]
            made[:, position : position + len(words)] = _one_hot(columns[name], name, words)
            position += len(words)
            continue
        values = _floats(columns[name])
        if fitted.scale_type and name in bounds:
            low, high = bounds[name]
            if fitted.scale_type == "minmax" and high != low:
                values = (values - low) / (high - low)
            elif fitted.scale_type == "znorm" and high > 0:
                values = (values - low) / math.sqrt(high)
        with np.errstate(over="ignore"):
            made[:, position] = values
        wrong = np.isinf(made[:, position])
        if wrong.any():
            row = int(np.argmax(wrong))
            raise BadInput(f"column {name} of {source} has the value {values[row]:g} in row {row + 1}; it is too large")
        position += 1
    return made


def _one_hot(column: pa.ChunkedArray, name: str, words: Mapping[str, int]) -> np.ndarray:
    codes, found = _encoded(column)
    rows = np.zeros((len(found), len(words)), np.float32)
    for code, word in enumerate(found):
        if word in words:
            rows[code, words[word]] = 1.0
        elif word in MISSING:
            rows[code] = np.nan
        else:
            raise BadInput(f"unknown category {word} for variable {name}")
    return rows[codes]


def _read_test(
    source: Source, fitted: Fitted, options: CsvOptions, target: Target, threads: int, warnings: list[Warning]
) -> DenseTable:
    text = _Text(source, fitted.separator, fitted.quote)
    names = text.header()
    for name in fitted.label:
        if name not in names:
            raise BadInput(f"cannot find label column {name} in {text.name}" + text.separator_hint())
    _check_columns(names, fitted, text.name, True, warnings)
    kinds = _kinds(fitted, target)
    if fitted.id and fitted.id not in names:
        del kinds[fitted.id]
    columns = text.read(names, kinds, threads=threads, skip_header=True)
    labels = _known_labels(columns, fitted, target, text.name)
    return DenseTable(_features(columns, fitted, text.name), labels, None, PurePath(text.name).name)


def _check_columns(
    names: Sequence[str], fitted: Fitted, source: str, labelled: bool, warnings: list[Warning] | None
) -> None:
    for name in fitted.features:
        if name not in names:
            raise BadInput(f"cannot find column {name} in {source}; the model was trained with it")
    if labelled:
        for name in fitted.label:
            if name not in names:
                raise BadInput(f"cannot find label column {name} in {source}; measures need the true labels")
    extra = [name for name in names if name and name not in fitted.columns and name != fitted.id]
    if extra and warnings is not None:
        warnings.append(
            Warning("data", f"columns of {source} that the training data has not were ignored: {_listed(extra)}")
        )


def _prediction_columns(text: _Text, fitted: Fitted, labelled: bool) -> tuple[list[str], bool]:
    """Names of the columns of data to predict on, and whether the first line holds them."""
    first = text.first
    names_known = bool(first) and all(cell in fitted.columns for cell in first)
    if text.is_file or names_known or set(fitted.features) <= set(first):
        if fitted.id and fitted.id not in first:
            raise BadInput(f"cannot find id column {fitted.id} in {text.name}" + text.separator_hint())
        return text.header(), True
    apart = {*fitted.label, *fitted.ignore}
    for names in (
        fitted.columns,
        [name for name in fitted.columns if name not in fitted.label],
        [name for name in fitted.columns if name not in fitted.ignore],
        [name for name in fitted.columns if name not in apart],
        [name for name in fitted.columns if name != fitted.id and name not in fitted.ignore],
        fitted.features,
    ):
        if len(names) == len(first) and (not labelled or all(name in names for name in fitted.label)):
            return list(names), False
    raise BadInput(
        f"the first line of {text.name} has {len(first)} cells; the model was trained with "
        f"{len(fitted.features)} features: {_listed(fitted.features)}" + text.separator_hint()
    )


def _uris(columns: Mapping[str, pa.ChunkedArray], fitted: Fitted, rows: int, before: int) -> list[str]:
    if fitted.id and fitted.id in columns:
        return columns[fitted.id].to_pylist()
    return [str(row) for row in range(before + 1, before + rows + 1)]


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


def _labels(table: DenseTable) -> np.ndarray:
    """The labels of a table that was read with them."""
    assert table.labels is not None
    return table.labels


def _shuffled(table: DenseTable, options: CsvOptions) -> DenseTable:
    if not options.shuffle:
        return table
    order = np.random.default_rng(options.seed).permutation(len(table))
    return DenseTable(table.features[order], _labels(table)[order], None, table.name)


def _split(table: DenseTable, share: float, source: str) -> tuple[DenseTable, DenseTable]:
    """Train and test part: floor(n * (1 - share)) rows to train on, the others to test on."""
    # The small term keeps 10 * (1 - 0.9) from becoming 0.9999…
    rows = math.floor(len(table) * (1 - share) + 1e-9)
    if rows == 0 or rows == len(table):
        part = "train" if rows == 0 else "test"
        raise BadInput(
            f"parameters.input.test_split {share:g} leaves none of the {len(table)} rows of {source} to {part} on"
        )
    labels = _labels(table)
    return (
        DenseTable(table.features[:rows], labels[:rows], None, table.name),
        DenseTable(table.features[rows:], labels[rows:], None, "split"),
    )


def _report(fitted: Fitted) -> dict[str, Any]:
    """What the answer of a training tells for later predictions."""
    report: dict[str, Any] = {"connector": "csv"}
    if fitted.scale_type == "minmax":
        report |= {"min_vals": fitted.low, "max_vals": fitted.high}
    elif fitted.scale_type == "znorm":
        report |= {"mean_vals": fitted.low, "variance_vals": fitted.high}
    if fitted.categories:
        report["categoricals_mapping"] = fitted.categories
    return report


def _listed(names: Sequence[str], most: int = 10) -> str:
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text} and {len(names) - most} more"
