"""Measures of regressions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def regression(names: Sequence[str], predicted: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The measures asked for by name, as a JSON object.

    predicted, truth : float arrays, shape (samples, targets).
    With several targets each measure has a value per target beside the whole: eucll_0, eucll_1, …
    """
    made: dict[str, float] = {}
    if len(truth) == 0:
        return made
    predicted = predicted.astype(np.float64)
    away = np.abs(predicted - truth)
    if "eucll" in names:
        made["eucll"] = float((np.sqrt((away**2).sum(axis=1)) / truth.shape[1]).mean())
        made |= _each("eucll", away)
    if "l1" in names:
        made["l1"] = float(away.mean())
        made |= _each("l1", away)
    if "percent" in names:
        share = 100 * away / np.maximum(np.abs(truth), np.finfo(np.float64).eps)
        made["percent"] = float(share.mean())
        made |= _each("percent", share)
    if "gini" in names and truth.shape[1] == 1:
        best = gini(truth[:, 0], truth[:, 0])
        if best > 0:
            made["gini"] = gini(predicted[:, 0], truth[:, 0]) / best
    return made


def gini(scores: np.ndarray, truth: np.ndarray) -> float:
    """Gini coefficient of `truth` taken in falling order of `scores`; equal scores share their place."""
    order = np.argsort(-scores, kind="stable")
    ranked, values = scores[order], truth[order].astype(np.float64)
    starts = np.flatnonzero(np.r_[True, ranked[1:] != ranked[:-1]])
    sizes = np.diff(np.r_[starts, len(values)])
    values = np.repeat(np.add.reduceat(values, starts) / sizes, sizes)
    total = values.sum()
    if total == 0:
        return 0.0
    shares = np.cumsum(values) / total
    return float((shares - np.arange(1, len(values) + 1) / len(values)).sum() / len(values))


def _each(name: str, errors: np.ndarray) -> dict[str, float]:
    if errors.shape[1] == 1:
        return {}
    return {f"{name}_{target}": float(value) for target, value in enumerate(errors.mean(axis=0))}
