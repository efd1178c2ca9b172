"""Measures: numbers computed from predictions and truth, as pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ml.measures.asked import unknown
from ml.measures.classification import classification
from ml.measures.multi_label import multi_label
from ml.measures.regression import autoencoder, regression
from ml.measures.report import Best, flat, improved, several
from ml.measures.soft_labels import soft_labels

if TYPE_CHECKING:
    from ml.options.target import Target

__all__ = [
    "Best",
    "autoencoder",
    "classification",
    "compute",
    "flat",
    "improved",
    "multi_label",
    "regression",
    "several",
    "soft_labels",
    "unknown",
]


def compute(
    target: Target,
    names: Sequence[str],
    outputs: np.ndarray,
    truth: Any,
    *,
    labels: Sequence[str] | None = None,
    logits: np.ndarray | None = None,
) -> dict[str, Any]:
    """The measures called `names` (see `unknown`) of what a model said, as a JSON object of finite numbers.

    outputs, truth : as described at `Target`; for an autoencoder truth is the features, as described there.
    labels : names of the classes; without them they are called by their index.
    logits : float array, shape (rows, classes), what probabilities were made of, when the model tells.

    Names that do not apply are ignored, and what is not defined for this truth is left out. Outputs that are not all
    finite numbers (of a training that diverged, say) have no measures at all: a guess that a NaN stands for would be
    an accident of the sorting, and no such model may be taken for the best one.
    """
    if len(outputs) == 0 or not np.isfinite(outputs).all():
        return {}
    if logits is not None and not np.isfinite(logits).all():
        logits = None
    # Differences of finite outputs still overflow when they are squared; what comes of it is left out below.
    with np.errstate(over="ignore", invalid="ignore"):
        match target.kind:
            case "classification":
                made = classification(names, outputs, truth, labels=labels, logits=logits)
            case "multi_label":
                made = multi_label(names, outputs, truth, labels=labels, logits=logits)
            case "soft_labels":
                made = soft_labels(names, outputs, truth, logits=logits)
            case "regression":
                made = regression(names, outputs, truth)
            case "autoencoder":
                made = autoencoder(names, outputs, truth)
    return {name: value for name, value in made.items() if not isinstance(value, float) or math.isfinite(value)}
