"""Measures of models that say a share between 0 and 1 for each class ("multi-label regression")."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ml.measures import asked
from ml.measures.regression import distances

#: Smallest share whose logarithm is taken, as in DeepDetect.
SMALLEST = 1e-5
DELTAS = (0.05, 0.1, 0.2, 0.5)
#: Rows whose distance correlations are computed together: enough to amortise calls, few enough for the cache.
_BLOCK_ROWS = 2048


def soft_labels(
    names: Sequence[str],
    shares: np.ndarray,
    truth: np.ndarray,
    *,
    logits: np.ndarray | None = None,
) -> dict[str, Any]:
    """The measures asked for by name, as a JSON object; `acc` stands for kl, js, was, ks, dc, r2 and deltas.

    shares, truth : float arrays, shape (samples, classes), in [0, 1]; a truth below 0 is unknown and does not count.
    logits : as at `ml.measures.classification`.

    All pairs of a sample and a class count alike, but for `distance_correlation`, which is a mean over samples. Each
    measure has a twin of the pairs whose truth is above a threshold: `<name>_no_0` leaves out the true zeros, which
    would drown all else where most classes are absent; `kl-0.1` gives `kl_divergence_no_0.1` in its place.
    Left out: what no pair is left for; r2 and distance_correlation when the truth is constant.
    """
    made: dict[str, Any] = {}
    true, found = truth.astype(np.float64), shares.astype(np.float64)
    for threshold, wanted in _wanted(names).items():
        # A truth of 0.1 in single precision is a little more than 0.1, and yet not above that threshold.
        counted = truth >= 0 if threshold is None else truth > truth.dtype.type(threshold)
        if not counted.any():
            continue
        for measure in wanted:
            for key, value in MEASURES[measure](true, found, counted).items():
                made[key if threshold is None else asked.without(key, threshold)] = value
    made |= _eucll(names, true, found)
    if "raw" in names and len(true):
        made["raw"] = {"truths": true.tolist(), "estimations": found.tolist(), "confidences": []}
        if logits is not None:
            made["raw"]["all_logits"] = [{"logits": row} for row in logits.astype(np.float64).tolist()]
    return made


def kl_divergence(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Mean of t log(t / p), natural logarithm; shares below SMALLEST are raised to it.

    A row of shares need not add up to 1, so this may fall below 0 (not under -1/e).
    Source: Kullback & Leibler 1951, "On information and sufficiency".
    """
    true, found = _raised(truth[counted]), _raised(shares[counted])
    return {"kl_divergence": float(np.mean(true * np.log(true / found)))}


def js_divergence(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Mean of half of t log(t / m) + p log(p / m), where m is the mean of t and p; 0 when all are equal.

    Source: Lin 1991, "Divergence measures based on the Shannon entropy".
    """
    true, found = _raised(truth[counted]), _raised(shares[counted])
    middle = (true + found) / 2
    return {"js_divergence": float(np.mean(true * np.log(true / middle) + found * np.log(found / middle)) / 2)}


def wasserstein(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Root of the mean squared difference, which is what DeepDetect calls by this name."""
    return {"wasserstein": float(np.sqrt(np.mean((truth[counted] - shares[counted]) ** 2)))}


def kolmogorov_smirnov(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Greatest difference, which is what DeepDetect calls by this name."""
    return {"kolmogorov_smirnov": float(np.abs(truth[counted] - shares[counted]).max())}


def r2(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Coefficient of determination over all pairs together; left out when their truth is constant."""
    true, found = truth[counted], shares[counted]
    spread = float(((true - true.mean()) ** 2).sum())
    if true.min() == true.max() or spread == 0:
        return {}
    return {"r2": 1 - float(((true - found) ** 2).sum()) / spread}


def deltas(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """For each of DELTAS the share of pairs that are nearer to the truth than that."""
    away = np.abs(truth[counted] - shares[counted])
    return {f"delta_score_{delta:g}": float(np.mean(away < delta)) for delta in DELTAS}


def distance_correlation(truth: np.ndarray, shares: np.ndarray, counted: np.ndarray) -> dict[str, float]:
    """Distance correlation between the classes of a sample and of its truth, mean over the samples.

    Samples whose truth is the same for all counted classes have none and are left out; one whose shares alone are the
    same for all of them counts 0. Time grows with the square of the number of classes, not of samples.
    Source: Székely, Rizzo & Bakirov 2007, "Measuring and testing dependence by correlation of distances", sections
    2.1 to 2.3.
    """
    classes = counted.shape[1]
    if classes < 2:
        return {}
    total, defined = 0.0, 0
    for start in range(0, len(truth), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        # (classes, rows): every operation below then runs along contiguous rows.
        values, is_defined = _correlations(*(np.ascontiguousarray(each[rows].T) for each in (truth, shares, counted)))
        total += float(values[is_defined].sum())
        defined += int(np.count_nonzero(is_defined))
    return {"distance_correlation": total / defined} if defined else {}


def _correlations(true: np.ndarray, found: np.ndarray, counted: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distance correlation of each column of two arrays, shape (classes, rows), and where it is defined.

    The double-centred distance matrices are never made: with a, b the distances, a_i, b_i their sums over a row and
    A, B over everything, the squared covariance times n^2 is sum(a b) - 2/n sum(a_i b_i) + A B / n^2.
    """
    classes, rows = true.shape
    products = np.zeros((3, rows))  # sums over pairs of a b, a a, b b
    sums = np.zeros((2, classes, rows))  # a_i, b_i
    for gap in range(1, classes):
        pair = counted[gap:] & counted[:-gap]
        a = np.abs(true[gap:] - true[:-gap]) * pair
        b = np.abs(found[gap:] - found[:-gap]) * pair
        for position, (one, other) in enumerate(((a, b), (a, a), (b, b))):
            products[position] += np.einsum("ij,ij->j", one, other)
        for position, each in enumerate((a, b)):
            sums[position, gap:] += each
            sums[position, :-gap] += each
    size = np.maximum(np.count_nonzero(counted, axis=0), 1)
    whole = sums.sum(axis=1)
    covariance, of_true, of_found = (
        2 * products[position]
        - 2 / size * np.einsum("ij,ij->j", sums[one], sums[other])
        + whole[one] * whole[other] / size**2
        for position, (one, other) in enumerate(((0, 1), (0, 0), (1, 1)))
    )
    is_defined = products[1] > 0
    varies = is_defined & (products[2] > 0) & (of_true > 0) & (of_found > 0)
    ratio = np.zeros(rows)
    np.divide(covariance, np.sqrt(np.where(varies, of_true * of_found, 1)), out=ratio, where=varies)
    return np.sqrt(np.clip(ratio, 0, 1)), is_defined


#: Each takes truth and shares, shape (samples, classes), and which pairs count, of which there is at least one.
MEASURES: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]] = {
    "kl": kl_divergence,
    "js": js_divergence,
    "was": wasserstein,
    "ks": kolmogorov_smirnov,
    "dc": distance_correlation,
    "r2": r2,
    "deltas": deltas,
}


def _wanted(names: Sequence[str]) -> dict[float | None, list[str]]:
    """Which of MEASURES to compute at each threshold; None is the plain one."""
    everything = asked.thresholds("acc", names)
    wanted: dict[float | None, list[str]] = {}
    for measure in MEASURES:
        own = asked.thresholds(measure, names)
        if own is not None or everything is not None:
            for threshold in (None, *(sorted({*(own or ()), *(everything or ())}) or [0.0])):
                wanted.setdefault(threshold, []).append(measure)
    return wanted


def _eucll(names: Sequence[str], truth: np.ndarray, shares: np.ndarray) -> dict[str, float]:
    given = asked.thresholds("eucll", names)
    if given is None or len(truth) == 0:
        return {}
    return distances(np.where(truth >= 0, np.abs(truth - shares), 0), given)


def _raised(shares: np.ndarray) -> np.ndarray:
    return np.maximum(shares, SMALLEST)
