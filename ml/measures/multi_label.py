"""Measures of classifiers that say of each class whether it is there."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ml.measures.classification import class_names

#: Probability from which on a class is said to be there.
THRESHOLD = 0.5


def multi_label(
    names: Sequence[str],
    probabilities: np.ndarray,
    truth: np.ndarray,
    *,
    labels: Sequence[str] | None = None,
    logits: np.ndarray | None = None,
) -> dict[str, Any]:
    """The measures asked for by name, as a JSON object; `acc` gives five of them, and none called acc.

    probabilities : finite float array, shape (samples, classes), each class by itself.
    truth : float array, shape (samples, classes): 1 where a class is there, 0 where it is not, below 0 where nobody
        knows, which does not count.
    labels, logits : as at `ml.measures.classification`.

    All pairs of a sample and a class are counted together (micro average). precision = tp / (tp + fp), sensitivity =
    tp / (tp + fn), specificity = tn / (tn + fp), f1 = 2 tp / (2 tp + fp + fn); harmmean is the harmonic mean of
    sensitivity and specificity. A ratio of nothing to nothing is 0. In `raw`, truths and estimations are arrays of
    class names, and confidences the probabilities of all classes.
    """
    made: dict[str, Any] = {}
    if truth.size == 0:
        return made
    guessed = probabilities >= THRESHOLD
    if "acc" in names:
        made |= _rates(guessed, truth)
    if "raw" in names:
        called = class_names(labels, truth.shape[1])
        made["raw"] = {
            "truths": _chosen(truth >= THRESHOLD, called),
            "estimations": _chosen(guessed, called),
            "confidences": probabilities.astype(np.float64).tolist(),
        }
        if logits is not None:
            made["raw"]["all_logits"] = [{"logits": row} for row in logits.astype(np.float64).tolist()]
    return made


def _rates(guessed: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    is_there, is_absent = truth >= THRESHOLD, (truth >= 0) & (truth < THRESHOLD)
    tp = int(np.count_nonzero(guessed & is_there))
    fp = int(np.count_nonzero(guessed & is_absent))
    fn = int(np.count_nonzero(is_there)) - tp
    tn = int(np.count_nonzero(is_absent)) - fp
    sensitivity, specificity = _ratio(tp, tp + fn), _ratio(tn, tn + fp)
    return {
        "f1": _ratio(2 * tp, 2 * tp + fp + fn),
        "precision": _ratio(tp, tp + fp),
        "sensitivity": sensitivity,
        "specificity": specificity,
        "harmmean": _ratio(2 * sensitivity * specificity, sensitivity + specificity),
    }


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0


def _chosen(flags: np.ndarray, called: list[str]) -> list[list[str]]:
    rows, columns = np.nonzero(flags)
    words = np.array(called, dtype=object)[columns].tolist()
    bounds = np.searchsorted(rows, np.arange(len(flags) + 1)).tolist()
    return [words[start:end] for start, end in pairwise(bounds)]
