"""Published models: described, loaded, and asked for predictions in the shapes of the DeepDetect API."""

from __future__ import annotations

import hashlib
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ml import measures as measuring
from ml import registry
from ml.backends.base import Engine, target_of
from ml.connectors.base import Fitted
from ml.connectors.source import Source
from ml.errors import ModelUnusable
from ml.options.loading import Warning
from ml.options.output import OutputOptions
from ml.options.requests import SECTIONS, PredictionOptions, ServiceOptions
from ml.repository_files import read_text
from ml.tables import DenseTable, SparseTable, Table, Target
from ml.training.loop import compute

#: File of our own that keeps a description beside its model, so that a copied folder still knows everything.
DESCRIPTION_FILE = "modelyard.json"
CORRESPONDENCE_FILE = "corresp.txt"
#: Most rows of a question that is computed together with others: with more there is nothing to gain.
JOINED_ROWS = 4096
_RESOLVED = 256
_POSITION = re.compile(r"[0-9]{1,15}")


@dataclass
class Prediction:
    """The answer: predictions, one per row and in the order of the data, or the measures of labelled data.

    seconds : what reading the data (`input`), the model (`compute`) and shaping the answer (`output`) took.
    """

    predictions: list[dict[str, Any]] = field(default_factory=list)
    measure: dict[str, Any] | None = None
    warnings: list[Warning] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass
class Question:
    """Rows that were read, and what is asked about them.

    layer : whose values are wanted instead of predictions; empty for predictions.
    seconds : what its parts took so far, as in `Prediction`.
    """

    table: Table
    options: PredictionOptions
    layer: str
    warnings: list[Warning]
    seconds: dict[str, float]

    @property
    def can_join(self) -> bool:
        """Whether it may be computed together with others: its rows are in memory, and few."""
        return isinstance(self.table, DenseTable | SparseTable) and len(self.table) <= JOINED_ROWS


class Model:
    """A model in memory, with what it knows about its inputs and classes.

    bytes : roughly what it occupies.
    """

    def __init__(self, engine: Engine, description: dict[str, Any], threads: int) -> None:
        self._engine = engine
        self._description = description
        self._connector = registry.connector(description["connector"])
        self._fitted = _fitted(description)
        self._threads = threads
        self._info = registry.find(description["backend"]).INFO
        self._kept: dict[int, tuple[PredictionOptions, Fitted]] = {}
        self.target = target_of(description)
        self.bytes = engine.bytes

    def predict(self, data: Sequence[Source], options: PredictionOptions) -> Prediction:
        """Predict on every row of `data`; with `output.measure` the rows have labels and the measures are the answer.

        Raises BadInput.
        """
        question = self.read(data, options)
        return self.answer(question, self.compute([question])[0])

    def read(self, data: Sequence[Source], options: PredictionOptions) -> Question:
        """The rows of `data` as the model takes them. Raises BadInput."""
        began = time.perf_counter()
        fitted = self._resolved(options)
        labelled = bool(options.output.measure)
        table, warnings = self._connector.read_prediction(
            data, fitted, self.target, labelled=labelled, threads=self._threads
        )
        layer = "" if labelled else getattr(options.mllib, "extract_layer", "")
        return Question(table, options, layer, warnings, {"input": time.perf_counter() - began})

    def rows_together(self, options: PredictionOptions) -> int:
        """How many rows go through the model at once; for each other number, outputs may differ in their last bits."""
        return self._engine.rows_together(options.mllib)

    def _resolved(self, options: PredictionOptions) -> Fitted:
        """What is known of the inputs, with what the options say otherwise; kept for options that come again."""
        kept = self._kept.get(id(options))
        if kept is None or kept[0] is not options:
            if len(self._kept) >= _RESOLVED:
                self._kept.clear()
            kept = options, self._connector.resolve(self._fitted, options.input, options.given_input)
            self._kept[id(options)] = kept
        return kept[1]

    def compute(self, questions: Sequence[Question]) -> list[np.ndarray]:
        """Outputs, or what a layer gives, for each question, computed together where there are several.

        All must have the same options of the library. Raises BadInput, which may be about any of them.
        """
        began = time.perf_counter()
        options, layer = questions[0].options.mllib, questions[0].layer
        engine = self._engine

        def of(features: Any) -> np.ndarray:
            return engine.extract(features, layer, options) if layer else engine.predict(features, options)

        if len(questions) == 1:
            made = [np.concatenate([of(chunk.features) for chunk in questions[0].table.chunks()])]
        else:
            outputs = of(_stacked([chunk.features for each in questions for chunk in each.table.chunks()]))
            ends = np.cumsum([len(each.table) for each in questions])
            made = np.split(outputs, ends[:-1])
        seconds = time.perf_counter() - began
        for each in questions:
            each.seconds["compute"] = seconds
        return made

    def answer(self, question: Question, outputs: np.ndarray) -> Prediction:
        """The answer to a question with the outputs of `compute`. Raises BadInput."""
        began = time.perf_counter()
        options, table = question.options, question.table
        wanted = options.output
        labelled = bool(wanted.measure)
        is_values = bool(question.layer) or options.type == "unsupervised"
        if labelled:
            made = self._measured(outputs, table, wanted)
        elif is_values:
            assert table.uris is not None
            made = Prediction(features(outputs, table.uris, wanted))
        else:
            made = self._shaped(outputs, table, wanted)
        made.warnings = (
            question.warnings + made.warnings + self._without_effect(wanted, has_values=not labelled and is_values)
        )
        made.seconds = {**question.seconds, "output": time.perf_counter() - began}
        return made

    def _without_effect(self, wanted: OutputOptions, *, has_values: bool) -> list[Warning]:
        """Options of the output that say nothing about this answer."""
        made = []
        if not has_values:
            for name in ("binarized", "bool_binarized", "string_binarized"):
                if getattr(wanted, name):
                    path = f"parameters.output.{name}"
                    text = f"{path} was ignored: there are no values; they come from unsupervised services and layers"
                    made.append(Warning(path, text))
        if wanted.regression and self.target.kind != "regression":
            path = "parameters.output.regression"
            made.append(Warning(path, f"{path} was ignored: the model was trained for {self.target.kind}"))
        return made

    def _measured(self, outputs: np.ndarray, table: Table, wanted: OutputOptions) -> Prediction:
        refused = measuring.unknown(wanted.measure, self.target)
        names = self._description["labels"] if self._info.keeps_best else None
        return Prediction(
            measure=compute(self.target, wanted.measure, outputs, table, names),
            warnings=[Warning("parameters.output.measure", text) for text in refused.values()],
        )

    def _shaped(self, outputs: np.ndarray, table: Table, wanted: OutputOptions) -> Prediction:
        assert table.uris is not None
        if self.target.kind == "autoencoder":
            return Prediction(losses(outputs, table))
        if self.target.kind == "regression":
            return Prediction(vectors(outputs, table.uris))
        best = self._info.best if wanted.best is None else wanted.best
        names = self._description["labels"]
        return Prediction(classes(outputs, table.uris, names, best=best, threshold=wanted.confidence_threshold))


def _stacked(parts: Sequence[Any]) -> Any:
    """Rows of several feature arrays of one kind, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    from scipy.sparse import vstack

    return vstack(parts, format="csr")


def _fitted(description: dict[str, Any]) -> Fitted:
    try:
        return registry.connector(description["connector"]).fitted(description["fitted"])
    except (KeyError, TypeError):
        raise ModelUnusable("the description of the model does not say what data it was trained on") from None


def losses(outputs: np.ndarray, table: Table) -> list[dict[str, Any]]:
    """Predictions of an autoencoder: the mean squared difference of each row and what was made of it."""
    assert table.uris is not None
    truth = np.concatenate([chunk.take(slice(None))[0] for chunk in table.chunks()])
    values = ((outputs.astype(np.float64) - truth) ** 2).mean(axis=1)
    return [
        {"uri": uri, "losses": [{"loss": value, "last": True}]}
        for uri, value in zip(table.uris, values.tolist(), strict=True)
    ]


def classes(
    probabilities: np.ndarray, uris: Sequence[str], names: Sequence[str] | None, *, best: int, threshold: float
) -> list[dict[str, Any]]:
    """Class predictions, most probable first.

    best : how many classes to keep, -1 for all. threshold : smallest probability kept, itself included.
    """
    count = probabilities.shape[1]
    labels = [str(each) for each in range(count)]
    for position, name in enumerate(names or ()):
        labels[position] = name
    keep = count if best < 0 else min(best, count)
    if keep == 1:  # most predictions: one expression a row
        first = probabilities.argmax(axis=1)
        highest = probabilities[np.arange(len(first)), first].astype(np.float64)
        return [
            {"uri": uri, "classes": [{"prob": share, "cat": labels[place], "last": True}] if share >= threshold else []}
            for uri, place, share in zip(uris, first.tolist(), highest.tolist(), strict=True)
        ]
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :keep]
    values = np.take_along_axis(probabilities, order, axis=1).astype(np.float64)
    made = []
    for uri, places, shares in zip(uris, order.tolist(), values.tolist(), strict=True):
        kept: list[dict[str, Any]] = [
            {"prob": share, "cat": labels[place]}
            for place, share in zip(places, shares, strict=True)
            if share >= threshold
        ]
        if kept:
            kept[-1]["last"] = True
        made.append({"uri": uri, "classes": kept})
    return made


def vectors(values: np.ndarray, uris: Sequence[str]) -> list[dict[str, Any]]:
    """Regression predictions: one element per target, `cat` its index, sorted by value from the highest."""
    order = np.argsort(-values, axis=1, kind="stable")
    sorted_values = np.take_along_axis(values, order, axis=1).astype(np.float64)
    made = []
    for uri, places, numbers in zip(uris, order.tolist(), sorted_values.tolist(), strict=True):
        vector: list[dict[str, Any]] = [
            {"cat": str(place), "val": number} for place, number in zip(places, numbers, strict=True)
        ]
        vector[-1]["last"] = True
        made.append({"uri": uri, "vector": vector})
    return made


def features(outputs: np.ndarray, uris: Sequence[str], wanted: OutputOptions) -> list[dict[str, Any]]:
    """Predictions that are values rather than classes: numbers, or whether each is above 0 in the form asked for.

    The last prediction of the answer is marked, as in DeepDetect.
    """
    flat = outputs.reshape(len(outputs), -1)
    rows: list[Any]
    match wanted.binary:
        case "text":
            rows = ["".join(row) for row in np.where(flat > 0, "1", "0").tolist()]
        case "booleans":
            rows = (flat > 0).tolist()
        case "numbers":
            rows = (flat > 0).astype(np.float64).tolist()
        case None:
            rows = flat.astype(np.float64).tolist()
    made: list[dict[str, Any]] = [{"uri": uri, "vals": row} for uri, row in zip(uris, rows, strict=True)]
    if made:
        made[-1]["last"] = True
    return made


def load(folder: Path, description: dict[str, Any], *, device: str = "cpu", threads: int = 1) -> Model:
    """The model in `folder` as `description` (of a training, or of `describe_folder`) says.

    Raises ModelUnusable, MissingExtra, UnknownLibrary.
    """
    backend = registry.find(description["backend"])
    return Model(backend.load(folder, description, device=device, threads=threads), description, threads)


def describe_folder(folder: Path, options: ServiceOptions) -> dict[str, Any]:
    """The description of the newest model in a folder, for `load`.

    A folder that a training wrote says everything itself. For a model file put there by hand, objective and sizes are
    read from the file, class names from corresp.txt, and the service's own input parameters name the columns.
    Raises ModelUnusable when there is no model or it does not fit the service.
    """
    backend = registry.find(options.library)
    facts = backend.describe(folder, options)
    kept = _kept_description(folder, facts, options)
    if kept is not None:
        return kept
    target = Target.from_json(facts["target"])
    fitted = registry.connector(options.connector).fitted_by_hand(facts["inputs"], options.input, folder)
    return {
        "backend": options.library,
        "connector": options.connector,
        "mltype": target.mltype,
        "labels": read_labels(folder, target.classes),
        "fitted": fitted.as_json(),
        "parameters": options.parameters,
        **facts,
    }


def _kept_description(folder: Path, facts: dict[str, Any], options: ServiceOptions) -> dict[str, Any] | None:
    """What a training wrote beside this very model; None when it wrote nothing, or about another model.

    The facts of the model file win over what is written about them: anybody may have changed the text.
    """
    try:
        kept = json.loads(read_text(folder, DESCRIPTION_FILE))
        if kept["digest"] != facts["digest"] or kept["backend"] != options.library:
            return None
        fitted = registry.connector(options.connector).fitted(kept["fitted"])
        labels = kept["labels"]
        classes = Target.from_json(facts["target"]).classes
        fits = len(fitted.inputs) == len(facts["inputs"]) and (
            labels is None or (len(labels) <= classes and all(isinstance(name, str) for name in labels))
        )
        # Backends read the parameters when they load the model.
        fits = fits and all(isinstance(kept["parameters"].get(name) or {}, dict) for name in SECTIONS)
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None
    return {**kept, **facts} if fits and kept.get("connector") == options.connector else None


def read_labels(folder: Path, count: int) -> list[str] | None:
    """Class names of corresp.txt, lines of `<index> <name>`; None when there are none. Raises ModelUnusable."""
    try:
        # Not splitlines(): a name may hold one of the many other characters at which it ends a line.
        lines = [line for line in read_text(folder, CORRESPONDENCE_FILE).split("\n") if line.strip()]
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        raise ModelUnusable(f"{CORRESPONDENCE_FILE} cannot be read") from None
    if not lines or count == 0:
        return None
    names = [str(each) for each in range(count)]
    for line in lines:
        position, _, name = line.strip().partition(" ")
        if _POSITION.fullmatch(position) is None or int(position) >= count:
            raise ModelUnusable(f"{CORRESPONDENCE_FILE} has the line {line[:80]!r}; lines are '<index> <name>'")
        names[int(position)] = name or position
    return names


def write_repository_files(folder: Path, description: dict[str, Any]) -> None:
    """Write what stands beside a model in its repository: corresp.txt, model.fmap, and our description.

    Sets `description["digest"]` to the digest of the model file.
    """
    labels = description["labels"] or []
    # A quoted cell may hold a line break, at which the reader of this file would see another class.
    names = (name.replace("\r", " ").replace("\n", " ") for name in labels)
    text = "".join(f"{position} {name}\n" for position, name in enumerate(names))
    (folder / CORRESPONDENCE_FILE).write_text(text, encoding="utf-8")
    inputs = _fitted(description).inputs
    lines = (f"{position} {'_'.join(name.split()) or '_'} q\n" for position, name in enumerate(inputs))
    (folder / "model.fmap").write_text("".join(lines), encoding="utf-8")
    description["digest"] = hashlib.sha256((folder / description["file"]).read_bytes()).hexdigest()
    (folder / DESCRIPTION_FILE).write_text(json.dumps(description), encoding="utf-8")
