"""Predictions of a whole table, in pieces: progress after each, and the answers in a file rather than in memory."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ml.bulk import files
from ml.connectors.source import Source
from ml.errors import BadInput
from ml.options.loading import Warning
from ml.options.requests import PredictionOptions
from ml.serving import Model, Question
from ml.tables import DenseTable, SparseTable

PIECE_ROWS = 4096
"""Rows of a piece, at least: as many as go through a network together."""

Stop = Literal["cancel", "pause"]


@dataclass
class Told:
    """What came of all pieces.

    rows : how many were predicted. measure : the measures, when these were asked for instead of predictions.
    seconds : as in `ml.serving.Prediction`. stopped : the command that ended it before the last piece.
    """

    rows: int = 0
    measure: dict[str, Any] | None = None
    warnings: list[Warning] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    stopped: Stop | None = None


def predict(
    model: Model,
    data: Sequence[Source],
    options: PredictionOptions,
    path: Path,
    form: str,
    on_piece: Callable[[int, int], None],
    should_stop: Callable[[], Stop | None],
) -> Told:
    """Predict on every row of `data` as `Model.predict` does, and write the predictions to `path`.

    form : "json", "jsonl" or "parquet". on_piece : told the rows done and all of them.
    Measures need the outputs of all rows at once; nothing is written then. Raises BadInput, MissingExtra, OSError.
    """
    told = Told()
    question = model.read(data, options)
    table = question.table
    assert isinstance(table, DenseTable | SparseTable)
    labelled = bool(options.output.measure)
    # A missing library is told before anything is computed.
    writer = None if labelled else files.writer(path, form)
    outputs: list[np.ndarray] = []
    seconds = {"input": question.seconds["input"], "compute": 0.0, "output": 0.0}
    total, step = len(table), _step(model, options)
    for start in range(0, max(1, total), step):
        told.stopped = should_stop()
        if told.stopped is not None:
            break
        stop = min(start + step, total)
        piece = _piece(question, start, stop)
        made = _computed(model, question, piece, start, stop)
        seconds["compute"] += piece.seconds["compute"]
        if writer is None:
            outputs.append(made)
        else:
            answer = model.answer(piece, made)
            began = time.perf_counter()
            predictions = answer.predictions
            if stop < total and predictions and "vals" in predictions[-1]:
                predictions[-1].pop("last", None)  # marks the last prediction of all
            writer.write(predictions)
            seconds["output"] += answer.seconds["output"] + time.perf_counter() - began
            told.warnings = _joined(told.warnings, answer.warnings)
        told.rows = stop
        on_piece(stop, total)
    if writer is not None:
        writer.close()
    elif told.stopped is None:
        answer = model.answer(question, np.concatenate(outputs))
        told.measure, told.warnings = answer.measure, answer.warnings
        seconds["output"] = answer.seconds["output"]
    told.seconds = seconds
    return told


def _step(model: Model, options: PredictionOptions) -> int:
    """Rows of a piece: so many that the rows which a network takes together are the same as without pieces."""
    together = model.rows_together(options)
    return together * -(-PIECE_ROWS // together)


def _piece(question: Question, start: int, stop: int) -> Question:
    """Some rows of a question."""
    table = question.table
    assert isinstance(table, DenseTable | SparseTable)
    part = dataclasses.replace(
        table,
        features=table.features[start:stop],
        labels=None if table.labels is None else table.labels[start:stop],
        uris=None if table.uris is None else table.uris[start:stop],
    )
    return dataclasses.replace(question, table=part, seconds=dict(question.seconds))


def _computed(model: Model, question: Question, piece: Question, start: int, stop: int) -> np.ndarray:
    try:
        return model.compute([piece])[0]
    except BadInput:
        if start == 0:
            raise
    # The row at fault is told by its number among all of them.
    [outputs] = model.compute([_piece(question, 0, stop)])
    return outputs[start:]


def _joined(warnings: list[Warning], more: Sequence[Warning]) -> list[Warning]:
    return warnings + [each for each in more if each not in warnings]
