"""Measures of classifiers that choose one class of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ml.measures import asked

#: Keeps means over absent classes defined, as DeepDetect does.
EPSILON = 1e-8
#: Smallest probability whose logarithm is taken.
SMALLEST = 1e-15


def classification(
    names: Sequence[str],
    probabilities: np.ndarray,
    truth: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    logits: np.ndarray | None = None,
) -> dict[str, Any]:
    """The measures asked for by name, as a JSON object.

    probabilities : finite float array, shape (samples, classes).
    truth : int array, shape (samples,), class indices.
    labels : names of the classes, from the first one on; those without a name are called by their index.
    logits : float array, shape (samples, classes), what the probabilities were made of; goes into `raw`.

    DeepDetect gives `cmdiag` and `cmfull` only together with `f1`; here they stand alone as well. Among equal
    probabilities the class of lower index is the guess. Left out: everything when there are no samples, auc and gini
    when only one class occurs, and auc, gini and mcc of other than two classes.
    """
    made: dict[str, Any] = {}
    if len(truth) == 0:
        return made
    classes = probabilities.shape[1]
    called = class_names(labels, classes)
    guessed = probabilities.argmax(axis=1)
    tops = asked.accuracies(names)
    if 1 in tops:
        made["acc"] = float(np.mean(guessed == truth))
    if tops and tops[-1] > 1:
        places = ranks(probabilities, truth)
        made |= {f"acc-{k}": top_k(places, k, classes) for k in tops if k > 1}
    if {"f1", "f1full", "cmdiag", "cmfull", "mcc"} & set(names):
        made |= _of_counts(names, confusion(guessed, truth, classes), called)
    if "mcll" in names:
        made["mcll"] = log_loss(probabilities, truth)
    if classes == 2 and {"auc", "gini"} & set(names) and truth.min() != truth.max():
        area = auc(probabilities[:, 1], truth)
        made |= {name: value for name, value in (("auc", area), ("gini", 2 * area - 1)) if name in names}
    if "raw" in names:
        words = np.array(called, dtype=object)
        made["raw"] = {
            "truths": words[truth].tolist(),
            "estimations": words[guessed].tolist(),
            "confidences": probabilities.max(axis=1).astype(np.float64).tolist(),
        }
        if logits is not None:
            made["raw"]["all_logits"] = [{"logits": row} for row in logits.astype(np.float64).tolist()]
    return made


def class_names(labels: Sequence[str] | None, classes: int) -> list[str]:
    """A name for every class: the given one, else its index."""
    given = list(labels or ())[:classes]
    return given + [str(each) for each in range(len(given), classes)]


def confusion(guessed: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Counts, shape (classes, classes): row is the true class, column the guessed one."""
    return np.bincount(truth.astype(np.int64) * classes + guessed, minlength=classes * classes).reshape(
        classes, classes
    )


def ranks(probabilities: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """How many classes come before the true one of each sample: the more probable, and equals of lower index."""
    chosen = np.take_along_axis(probabilities, truth[:, None], axis=1)
    equal_before = (probabilities == chosen) & (np.arange(probabilities.shape[1]) < truth[:, None])
    return np.count_nonzero((probabilities > chosen) | equal_before, axis=1)


def top_k(places: np.ndarray, k: int, classes: int) -> float:
    """Share of samples whose true class is among the k most probable; 0 when k exceeds the number of classes."""
    return float(np.mean(places < k)) if k <= classes else 0.0


def f1(counts: np.ndarray, *, full: bool = False) -> dict[str, Any]:
    """f1, precision and recall as plain means over all classes (absent ones count 0), and accp, the accuracy.

    counts : confusion counts, rows true. With `full` also the values of every class.
    """
    hits = np.diag(counts).astype(np.float64)
    precisions = hits / (counts.sum(axis=0) + EPSILON)
    recalls = hits / (counts.sum(axis=1) + EPSILON)
    f1s = 2 * precisions * recalls / (precisions + recalls + EPSILON)
    made: dict[str, Any] = {
        "f1": float(f1s.mean()),
        "precision": float(precisions.mean()),
        "recall": float(recalls.mean()),
        "accp": float(hits.sum() / counts.sum()),
    }
    if full:
        made |= {"precisions": precisions.tolist(), "recalls": recalls.tolist(), "f1s": f1s.tolist()}
    return made


def log_loss(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Mean of -log p(true class), natural logarithm."""
    chosen = probabilities[np.arange(len(truth)), truth].astype(np.float64)
    return float(-np.log(np.clip(chosen, SMALLEST, 1.0)).mean())


def auc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Area under the ROC curve; both classes must occur in `truth` (0 or 1).

    Source: Mann & Whitney 1947: the share of pairs (one of each class) that the scores order rightly, ties half.
    """
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(counts) - (counts - 1) / 2  # of each distinct score, from 1
    positives = int(np.count_nonzero(truth == 1))
    negatives = len(truth) - positives
    total = mean_ranks[places][truth == 1].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def matthews(counts: np.ndarray) -> float:
    """Matthews correlation of a 2 x 2 confusion; 0 when a row or a column is empty.

    Source: Matthews 1975, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme".
    """
    (tn, fp), (fn, tp) = counts.astype(np.float64)
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return float((tp * tn - fp * fn) / np.sqrt(below)) if below > 0 else 0.0


def _of_counts(names: Sequence[str], counts: np.ndarray, called: list[str]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    if {"f1", "f1full"} & set(names):
        made |= f1(counts, full="f1full" in names)
    if {"f1full", "cmdiag"} & set(names):
        made["labels"] = called
    if "cmdiag" in names:
        made["cmdiag"] = np.diag(shares).tolist()
    if "cmfull" in names:
        made["cmfull"] = [{name: row} for name, row in zip(called, shares.tolist(), strict=True)]
    if "mcc" in names and len(counts) == 2:
        made["mcc"] = matthews(counts)
    return made
