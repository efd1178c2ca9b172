"""Measures of classifiers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

#: Keeps means over absent classes defined, as DeepDetect does.
EPSILON = 1e-8
#: Smallest probability whose logarithm is taken.
SMALLEST = 1e-15

_TOP = re.compile(r"acc-(\d+)$")


def classification(names: Sequence[str], probabilities: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The measures asked for by name, as a JSON object.

    probabilities : float array, shape (samples, classes).
    truth : int array, shape (samples,), class indices.
    A measure that is not defined for the data (auc or mcc of other than two classes, no samples) is left out.
    """
    made: dict[str, Any] = {}
    if len(truth) == 0:
        return made
    classes = probabilities.shape[1]
    guessed = probabilities.argmax(axis=1)
    for name in names:
        top = _TOP.match(name)
        if top and int(top[1]) > 1:
            made[name] = top_k(probabilities, truth, int(top[1]))
        elif "acc" in name:
            made["acc"] = float(np.mean(guessed == truth))
    if {"f1", "f1full", "cmdiag", "cmfull"} & set(names):
        counts = confusion(guessed, truth, classes)
        if {"f1", "f1full"} & set(names):
            made |= f1(counts, full="f1full" in names)
        shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
        if {"f1full", "cmdiag"} & set(names):
            made["labels"] = [str(each) for each in range(classes)]
        if "cmdiag" in names:
            made["cmdiag"] = np.diag(shares).tolist()
        if "cmfull" in names:
            made["cmfull"] = [{str(each): shares[each].tolist()} for each in range(classes)]
    if "mcll" in names:
        made["mcll"] = log_loss(probabilities, truth)
    if classes == 2:
        if "auc" in names and len(np.unique(truth)) == 2:
            made["auc"] = auc(probabilities[:, 1], truth)
        if "gini" in names and len(np.unique(truth)) == 2:
            made["gini"] = 2 * auc(probabilities[:, 1], truth) - 1
        if "mcc" in names:
            made["mcc"] = matthews(confusion(guessed, truth, 2))
    return made


def confusion(guessed: np.ndarray, truth: np.ndarray, classes: int) -> np.ndarray:
    """Counts, shape (classes, classes): row is the true class, column the guessed one."""
    return np.bincount(truth.astype(np.int64) * classes + guessed, minlength=classes * classes).reshape(
        classes, classes
    )


def top_k(probabilities: np.ndarray, truth: np.ndarray, k: int) -> float:
    """Share of samples whose true class is among the k most probable; 0 when k exceeds the number of classes.

    Among equal probabilities the class of lower index comes first, as it does for k = 1.
    """
    if k > probabilities.shape[1]:
        return 0.0
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float(np.mean((best == truth[:, None]).any(axis=1)))


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
    ranks = np.cumsum(counts) - (counts - 1) / 2  # mean rank of each distinct score, from 1
    positives = int(np.sum(truth == 1))
    negatives = len(truth) - positives
    total = ranks[places][truth == 1].sum()
    return float((total - positives * (positives + 1) / 2) / (positives * negatives))


def matthews(counts: np.ndarray) -> float:
    """Matthews correlation of a 2 x 2 confusion; 0 when a row or a column is empty.

    Source: Matthews 1975, "Comparison of the predicted and observed secondary structure of T4 phage lysozyme".
    """
    (tn, fp), (fn, tp) = counts.astype(np.float64)
    below = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return float((tp * tn - fp * fn) / np.sqrt(below)) if below > 0 else 0.0
