"""What is known of the columns of CSV data, and how their cells become features.

Cells: a float array of some rows, one column per feature, with the position of the word where the feature is
categorical. `Scaling` and `Fitted.expanded` make features of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ml.class_labels import spread
from ml.csv_head import feature_columns
from ml.errors import BadInput, ModelUnusable
from ml.options.csv import CsvOptions
from ml.options.loading import Warning
from ml.repository_files import read_text

BOUNDS_FILE = "bounds.dat"

#: Names of the two bounds of each way to scale, in options, answers and bounds.dat.
BOUNDS = {"minmax": ("min_vals", "max_vals"), "znorm": ("mean_vals", "variance_vals")}


@dataclass
class Fitted:
    """What a training learned about the columns and a prediction needs again; JSON both ways.

    columns : all columns of the training file, in order.
    features : columns that are features, before words become 0/1 columns.
    categories : position of every word of every categorical column.
    words : class names of text labels in order of appearance; None for numeric labels.
    low, high : bounds (or mean and variance) of `bounded` columns, for `scale`; empty without.
    unnamed : number of inputs of a model whose columns nobody named, 0 for all others. Its `columns` and `features`
        are called f0, f1 and so on until data is read: a header line without these tells the names, or else the rows
        have nothing but features.
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
    unnamed: int = 0

    @property
    def bounded(self) -> list[str]:
        """The columns that bounds speak of: all that have a name and are not ignored, in file order."""
        return [name for name in self.columns if name and name not in self.ignore]

    @property
    def inputs(self) -> list[str]:
        """Names of the columns of the feature array, words already one column each."""
        if self.unnamed:
            return _placeholders(self.unnamed)
        names = []
        for name in self.features:
            names += [f"{name}={word}" for word in self.categories[name]] if name in self.categories else [name]
        return names

    @property
    def width(self) -> int:
        """Number of columns of the feature array."""
        if self.unnamed:
            return self.unnamed
        words = [len(self.categories[name]) for name in self.features if name in self.categories]
        return len(self.features) - len(words) + sum(words)

    def as_json(self) -> dict[str, Any]:
        """The fields as a JSON object."""
        return {name: getattr(self, name) for name in Fitted.__dataclass_fields__}

    def write_files(self, folder: Path) -> None:
        """Write bounds.dat, when features are scaled."""
        if self.scale_type:
            (folder / BOUNDS_FILE).write_text(bounds_text(self), encoding="utf-8")

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Fitted:
        """The object that `as_json` came from. Raises TypeError for anything else."""
        try:
            made = cls(**given)
            if not made._is_sound():
                raise TypeError("these are no columns of a training")
        except (AttributeError, ValueError) as error:
            raise TypeError("these are no columns of a training") from error
        return made

    def _is_sound(self) -> bool:
        texts = [*self.columns, *self.features, *self.label, *self.ignore, self.id, self.separator, self.quote]
        texts += [word for words in self.categories.values() for word in words] + (self.words or [])
        numbers = [*self.label_offset, *self.low, *self.high]
        return (
            all(isinstance(text, str) for text in texts)
            and all(isinstance(number, int | float) and math.isfinite(number) for number in numbers)
            and len(self.separator) == 1
            and len(self.quote) <= 1
            and all(sorted(words.values()) == list(range(len(words))) for words in self.categories.values())
            and set(self.features) <= set(self.columns)
            and len(self.label_offset) in (1, len(self.label))
            and self.scale_type in ("", *BOUNDS)
            and type(self.unnamed) is int
            and len(self.low) == len(self.high)
            and (not self.scale_type or self.unnamed > 0 or len(self.low) == len(self.bounded))
        )

    def expanded(self, cells: np.ndarray) -> np.ndarray:
        """Features, float32, of cells whose numbers are scaled: words become 0/1 columns in place."""
        if not self.categories:
            with np.errstate(over="ignore"):
                return cells.astype(np.float32, copy=False)
        made = np.zeros((len(cells), self.width), np.float32)
        rows = np.arange(len(cells))
        at = 0
        for position, name in enumerate(self.features):
            column = cells[:, position]
            if name not in self.categories:
                with np.errstate(over="ignore"):
                    made[:, at] = column
                at += 1
                continue
            words = len(self.categories[name])
            known = ~np.isnan(column)
            made[rows[known], at + column[known].astype(np.int64)] = 1.0
            made[~known, at : at + words] = np.nan
            at += words
        return made


class Scaling:
    """Scales cells by the bounds of a training; a column without extent is left as it is, and so are words.

    names : the features whose cells are scaled, in order.
    """

    def __init__(self, fitted: Fitted, names: Sequence[str]) -> None:
        self._is_needed = bool(fitted.scale_type)
        self._low, self._extent = np.zeros(len(names)), np.ones(len(names))
        if not self._is_needed:
            return
        bounds = dict(zip(fitted.bounded, zip(fitted.low, fitted.high, strict=True), strict=True))
        for position, name in enumerate(names):
            low, high = bounds[name]
            extent = high - low if fitted.scale_type == "minmax" else math.sqrt(max(0.0, high))
            if extent != 0 and name not in fitted.categories:
                self._low[position], self._extent[position] = low, extent

    def __call__(self, cells: np.ndarray) -> np.ndarray:
        """Scaled cells, shape (rows, names), float64."""
        return (cells - self._low) / self._extent if self._is_needed else cells


class Spread:
    """Bounds of columns, gathered piece by piece: minimum and maximum, or mean and population variance.

    Missing values do not count; a column without any other has the bounds 0 and 0. The result depends on how the
    rows are cut into pieces by no more than rounding, and is the same bit for bit for the same pieces.
    Source of the sums: Chan, Golub and LeVeque 1979, "Updating formulae and a pairwise algorithm for computing sample
    variances".
    """

    def __init__(self, scale_type: str, columns: int) -> None:
        self._is_range = scale_type == "minmax"
        self._low = np.full(columns, np.nan)
        self._high = np.full(columns, np.nan)
        self._count = np.zeros(columns)
        self._mean = np.zeros(columns)
        self._squares = np.zeros(columns)

    def of(self, values: np.ndarray) -> tuple[np.ndarray, ...]:
        """What `add` needs of a piece, shape (rows, columns); may be called in another thread."""
        extent = np.fmin.reduce(values, axis=0), np.fmax.reduce(values, axis=0)
        if self._is_range:
            return extent
        missing = np.isnan(values)
        with np.errstate(over="ignore", invalid="ignore"):
            if not missing.any():
                mean = values.mean(axis=0)
                return *extent, np.full(values.shape[1], float(len(values))), mean, ((values - mean) ** 2).sum(axis=0)
            count = (~missing).sum(axis=0).astype(np.float64)
            mean = np.where(missing, 0.0, values).sum(axis=0) / np.maximum(count, 1)
            return *extent, count, mean, (np.where(missing, 0.0, values - mean) ** 2).sum(axis=0)

    def add(self, piece: tuple[np.ndarray, ...]) -> None:
        """Count a piece in, as `of` gave it."""
        self._low = np.fmin(self._low, piece[0])
        self._high = np.fmax(self._high, piece[1])
        if self._is_range:
            return
        count, mean, squares = piece[2:]
        total = self._count + count
        with np.errstate(over="ignore", invalid="ignore"):
            share = count / np.maximum(total, 1)
            apart = mean - self._mean
            self._squares = self._squares + squares + apart**2 * self._count * share
            self._mean = self._mean + apart * share
        self._count = total

    def bounds(self) -> tuple[list[float], list[float]]:
        """The two bounds of every column."""
        if self._is_range:
            return np.nan_to_num(self._low, nan=0.0).tolist(), np.nan_to_num(self._high, nan=0.0).tolist()
        # The mean of equal values may be another one in its last digit, which would pass for a variance.
        is_constant = self._low == self._high
        mean = np.where(is_constant, self._low, self._mean)
        return mean.tolist(), np.where(is_constant, 0.0, self._squares / np.maximum(self._count, 1)).tolist()


def bounds_text(fitted: Fitted) -> str:
    """bounds.dat: the bounds of all columns that are not ignored, and which of them are labels or the id."""
    names = fitted.bounded
    one, other = BOUNDS[fitted.scale_type]
    lines: dict[str, Sequence[int | float]] = {"ncols": [len(names)], "nlabels": [len(fitted.label)]}
    if fitted.label:
        lines["label_pos"] = [names.index(name) for name in fitted.label]
    if fitted.id in names:
        lines["id_pos"] = [names.index(fitted.id)]
    lines |= {one: fitted.low, other: fitted.high}
    return "".join(f"{key}: " + " : ".join(map(repr, values)) + "\n" for key, values in lines.items())


@dataclass
class Bounds:
    """The content of bounds.dat: places of labels and id among the columns, and the bounds of all of them."""

    scale_type: str
    label_places: list[int]
    id_place: int | None
    low: list[float]
    high: list[float]


def read_bounds(folder: Path) -> Bounds | None:
    """What bounds.dat says; None when there is none. Raises ModelUnusable."""
    try:
        lines = read_text(folder, BOUNDS_FILE).splitlines()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise ModelUnusable(f"{BOUNDS_FILE} cannot be read") from None
    found: dict[str, list[str]] = {}
    for line in lines:
        key, _, values = line.partition(":")
        if key.strip():
            found[key.strip()] = [value.strip() for value in values.split(":") if value.strip()]
    kinds = [kind for kind, names in BOUNDS.items() if all(name in found for name in names)]
    try:
        one, other = BOUNDS[kinds[0]]
        columns = int(found["ncols"][0])
        labels = [int(place) for place in found.get("label_pos", ())]
        id_places = [int(place) for place in found.get("id_pos", ())]
        low, high = ([float(value) for value in found[name]] for name in (one, other))
        places = labels + id_places
        is_sound = (
            len(low) == len(high) == columns
            and len(labels) == int(found["nlabels"][0])
            and len(id_places) <= 1
            and len(set(places)) == len(places)
            and all(0 <= place < columns for place in places)
            and all(map(math.isfinite, low + high))
        )
    except (IndexError, KeyError, ValueError):
        is_sound = False
    if not is_sound:
        raise ModelUnusable(
            f"{BOUNDS_FILE} is broken: it must have the lines ncols, nlabels, label_pos, and min_vals and max_vals or "
            "mean_vals and variance_vals, with as many numbers, separated by colons, as they announce"
        )
    return Bounds(kinds[0], labels, id_places[0] if id_places else None, low, high)


def columns_by_hand(inputs: Sequence[str], options: CsvOptions, folder: Path) -> Fitted:
    """What can be said of the columns of a model that somebody put into a folder.

    inputs : names of its features; f0, f1 and so on are taken for no names.
    Bounds come from the options, else from bounds.dat in the folder. Raises ModelUnusable.
    """
    has_names = list(inputs) != _placeholders(len(inputs))
    mapping = {name: dict(sorted(words.items(), key=lambda item: item[1]))
               for name, words in options.categoricals_mapping.items()}  # fmt: skip
    words = sum(map(len, mapping.values())) - len(mapping)
    features = _folded(inputs, mapping) if has_names else _placeholders(len(inputs) - words)
    made = Fitted(
        columns=list(features),
        features=features,
        label=list(options.label),
        id=options.id,
        ignore=list(options.ignore),
        label_offset=spread(options.label_offset, options.label),
        separator=options.separator[0],
        quote=options.quote[:1],
        categories=mapping,
        unnamed=0 if has_names else len(inputs),
    )
    one, other = BOUNDS[options.scale_type]
    if options.scale and getattr(options, one):
        made.scale_type = options.scale_type
        made.low, made.high = list(getattr(options, one)), list(getattr(options, other))
        if has_names and len(made.low) != len(features):
            raise ModelUnusable(
                f"parameters.input.{one} has {len(made.low)} values; the model has {len(features)} feature columns. "
                f"Give one for each, or put {BOUNDS_FILE} of the training into the repository"
            )
        return made
    bounds = read_bounds(folder)
    if bounds is None:
        if options.scale:
            raise ModelUnusable(
                f"parameters.input.scale is true, but neither {BOUNDS_FILE} in the repository nor "
                f"parameters.input.{one} and {other} tell by what"
            )
        return made
    made.scale_type, made.low, made.high = bounds.scale_type, bounds.low, bounds.high
    apart = sorted([*bounds.label_places, *([] if bounds.id_place is None else [bounds.id_place])])
    if len(bounds.low) - len(apart) != len(features):
        raise ModelUnusable(
            f"{BOUNDS_FILE} speaks of {len(bounds.low)} columns, {len(apart)} of them label or id; the model has "
            f"{len(features)} feature columns (a line id_pos tells which column is the id)"
        )
    if not has_names:
        # Labels and id may be missing where predictions are made: only the features' bounds are kept.
        kept = [place for place in range(len(bounds.low)) if place not in apart]
        made.low, made.high = [bounds.low[place] for place in kept], [bounds.high[place] for place in kept]
        return made
    labels = made.label if len(made.label) == len(bounds.label_places) else None
    left = iter(features)
    made.columns = []
    for place in range(len(bounds.low)):
        if place == bounds.id_place:
            made.columns.append(options.id or "id of the training data")
        elif place in bounds.label_places:
            position = bounds.label_places.index(place)
            made.columns.append(labels[position] if labels else f"label {position} of the training data")
        else:
            made.columns.append(next(left))
    return made


def _placeholders(count: int) -> list[str]:
    """What xgboost and others call features without names."""
    return [f"f{position}" for position in range(count)]


def _folded(inputs: Sequence[str], mapping: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Columns of the features called `inputs`: those of a categorical column follow each other, in order."""
    columns: list[str] = []
    position = 0
    starts = {f"{name}={word}": name for name, words in mapping.items() for word in list(words)[:1]}
    while position < len(inputs):
        name = starts.get(inputs[position])
        if name is None:
            columns.append(inputs[position])
            position += 1
            continue
        expected = [f"{name}={word}" for word in mapping[name]]
        if list(inputs[position : position + len(expected)]) != expected:
            raise ModelUnusable(f"the words of parameters.input.categoricals_mapping for {name} are not the model's")
        columns.append(name)
        position += len(expected)
    missing = [name for name in mapping if name not in columns]
    if missing:
        raise ModelUnusable(f"parameters.input.categoricals_mapping names {missing[0]}, which the model does not know")
    return columns


def with_names(fitted: Fitted, columns: Sequence[str], source: str) -> Fitted:
    """`fitted` of a model without names, for data that has these columns. Raises BadInput.

    Features are the columns f0, f1 and so on, where they are all there, else all that are neither label nor id nor
    ignored, in their order.
    """
    apart = {*fitted.label, fitted.id, *fitted.ignore}
    features = [name for name in columns if name and name not in apart]
    if not fitted.categories and set(fitted.features) <= set(features):
        features = fitted.features
    absent = [name for name in fitted.categories if name not in features]
    if absent:
        raise BadInput(f"cannot find column {absent[0]} of parameters.input.categoricals_mapping in {source}")
    made = Fitted(**{**fitted.as_json(), "columns": list(columns), "features": features, "unnamed": 0})
    if made.width != fitted.unnamed:
        raise BadInput(
            f"{source} has {made.width} feature columns; the model was trained with {fitted.unnamed}. Name label and "
            "id, or use parameters.input.ignore for the others"
        )
    if made.scale_type and len(made.low) != len(made.bounded):
        if len(made.low) != len(features):
            raise BadInput(
                f"the bounds have {len(made.low)} values; {source} has {len(features)} feature columns, and "
                f"{len(made.bounded)} that are not ignored"
            )
        bounds = dict(zip(features, zip(made.low, made.high, strict=True), strict=True))
        made.low, made.high = ([bounds.get(name, (0.0, 0.0))[side] for name in made.bounded] for side in (0, 1))
    return made


def fit_columns(columns: Sequence[str], source: str, hint: str, options: CsvOptions) -> Fitted:
    """The columns of a training file by what the options say of them. Raises BadInput."""
    features = feature_columns(columns, source, hint, options)
    mapped = options.categoricals_mapping
    return Fitted(
        columns=list(columns),
        features=features,
        label=list(options.label),
        id=options.id,
        ignore=list(options.ignore),
        label_offset=spread(options.label_offset, options.label),
        separator=options.separator[0],
        quote=options.quote[:1],
        categories={
            name: dict(sorted(mapped.get(name, {}).items(), key=lambda item: item[1]))
            for name in columns
            if name in options.categoricals or name in mapped
        },
        scale_type=options.scale_type if options.scale else "",
    )


def given_bounds(fitted: Fitted, options: CsvOptions) -> bool:
    """Set the bounds that the options give for scaling; whether there are any. Raises BadInput."""
    if not fitted.scale_type:
        return False
    one, other = BOUNDS[fitted.scale_type]
    if not getattr(options, one):
        return False
    fitted.low, fitted.high = list(getattr(options, one)), list(getattr(options, other))
    if len(fitted.low) != len(fitted.bounded):
        raise BadInput(
            f"the bounds have {len(fitted.low)} values; {len(fitted.bounded)} columns of the training data are not "
            "ignored"
        )
    return True


def unused_bounds(options: CsvOptions) -> list[Warning]:
    """What to say of bounds that are given for another way to scale, or without scaling."""
    warnings = []
    for kind, (one, _) in BOUNDS.items():
        name = f"parameters.input.{one}"
        if getattr(options, one) and not options.scale:
            warnings.append(Warning(name, f"{name} needs scale and was ignored"))
        elif getattr(options, one) and kind != options.scale_type:
            warnings.append(Warning(name, f"{name} was ignored: scale_type is {options.scale_type}"))
    return warnings


def report(fitted: Fitted) -> dict[str, Any]:
    """What the answer of a training tells for later predictions."""
    made: dict[str, Any] = {"connector": "csv"}
    if fitted.scale_type:
        one, other = BOUNDS[fitted.scale_type]
        made |= {one: fitted.low, other: fitted.high}
    if fitted.categories:
        made["categoricals_mapping"] = fitted.categories
    return made
