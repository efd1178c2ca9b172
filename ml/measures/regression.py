"""Measures of models that say numbers: regressions and autoencoders."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ml.measures import asked


def regression(names: Sequence[str], predicted: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The measures asked for by name, as a JSON object.

    predicted, truth : float arrays, shape (samples, targets), in the units of the data.

    eucll, l1 and percent have, beside the whole, a value per target when there are several: eucll_0, eucll_1, …
    `percent` leaves out true zeros, of which nothing can be a percentage. `raw` holds one number per sample, or an
    array when there are several targets, and no confidences. Left out: everything when there are no samples, percent
    when all that is true is 0, gini of several targets or of a constant truth.
    """
    made: dict[str, Any] = {}
    if truth.size == 0:
        return made
    predicted, truth = predicted.astype(np.float64), truth.astype(np.float64)
    away = np.abs(predicted - truth)
    thresholds = asked.thresholds("eucll", names)
    if thresholds is not None:
        made |= distances(away, thresholds)
        made |= _each("eucll", away.mean(axis=0))
    if "l1" in names:
        made["l1"] = float(away.mean())
        made |= _each("l1", away.mean(axis=0))
    if "percent" in names:
        made |= percent(away, truth)
    if "gini" in names and truth.shape[1] == 1 and truth.min() != truth.max():
        made["gini"] = gini(predicted[:, 0], truth[:, 0])
    if "raw" in names:
        numbers = (each[:, 0] if truth.shape[1] == 1 else each for each in (truth, predicted))
        made["raw"] = dict(zip(("truths", "estimations"), (each.tolist() for each in numbers), strict=True))
        made["raw"]["confidences"] = []
    return made


def autoencoder(names: Sequence[str], made_again: np.ndarray, truth: Any) -> dict[str, float]:
    """How far what an autoencoder makes of features is from them: `eucll`, as a JSON object.

    made_again : finite float array, shape (samples, features).
    truth : the features, an array of that shape or a SciPy sparse matrix; or an iterable of such pieces, in the order
        of the samples, for tables that memory does not hold at once.
    """
    thresholds = asked.thresholds("eucll", names)
    if thresholds is None or made_again.size == 0:
        return {}
    totals: dict[str, float] = {}
    start = 0
    for piece in _pieces(truth):
        dense = piece.toarray() if hasattr(piece, "toarray") else np.asarray(piece)
        away = np.abs(made_again[start : start + len(dense)].astype(np.float64) - dense)
        start += len(dense)
        for name, value in distances(away, thresholds).items() if len(dense) else ():
            totals[name] = totals.get(name, 0.0) + value * len(dense)
    if start != len(made_again):
        raise ValueError(f"{len(made_again)} samples were made again, but {start} are there")
    return {name: value / start for name, value in totals.items()}


def distances(away: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
    """eucll: Euclidean length of each row of absolute differences, divided by its dimension, mean over the rows.

    For each threshold a twin `eucll_no_<t>` in which smaller differences count as none.
    """
    made = {"eucll": _length(away)}
    return made | {asked.without("eucll", each): _length(np.where(away < each, 0, away)) for each in thresholds}


def percent(away: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Mean of 100 |p - t| / |t| over all numbers whose truth is not 0, and of each target."""
    counted = truth != 0
    shares = np.zeros_like(away)
    np.divide(100 * away, np.abs(truth), out=shares, where=counted)
    sizes, sums = np.count_nonzero(counted, axis=0), shares.sum(axis=0)
    if not sizes.any():
        return {}
    made = {"percent": float(sums.sum() / sizes.sum())}
    if len(sizes) > 1:
        made |= {f"percent_{target}": float(sums[target] / sizes[target]) for target in np.flatnonzero(sizes)}
    return made


def gini(scores: np.ndarray, truth: np.ndarray) -> float:
    """Normalised Gini coefficient: how well scores order the truth, 1 for its own order, -1 for the contrary.

    scores, truth : float arrays, shape (samples,); the truth is not constant. Equal scores share their place.
    The plain coefficient is the area between the cumulated truth, in falling order of the scores, and the line that
    constant truth would give; the normalised one is its ratio to that of the order of the truth itself.
    """
    centred = truth - truth.mean()
    best = _area(centred, centred)
    return float(np.clip(_area(scores, centred) / best, -1, 1)) if best > 0 else 0.0


def _area(scores: np.ndarray, centred: np.ndarray) -> float:
    """Sum of the cumulated values, taken in falling order of the scores, equal scores with their mean value."""
    _, places, sizes = np.unique(-scores, return_inverse=True, return_counts=True)
    means = np.bincount(places, weights=centred) / sizes
    return float(np.cumsum(np.repeat(means, sizes)).sum())


def _length(away: np.ndarray) -> float:
    return float(np.sqrt(np.einsum("ij,ij->i", away, away)).mean() / away.shape[1])


def _each(name: str, means: np.ndarray) -> dict[str, float]:
    return {f"{name}_{target}": float(value) for target, value in enumerate(means)} if len(means) > 1 else {}


def _pieces(truth: Any) -> Iterable[Any]:
    return (truth,) if hasattr(truth, "shape") else truth
