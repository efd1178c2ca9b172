"""Ten measures of 100,000 rows and ten classes against scikit-learn's: same arrays, in alternating pairs."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from sklearn import metrics

from benchmarks.yard import median
from ml.measures import compute
from ml.options.target import Target

ROWS, CLASSES, PAIRS = 100_000, 10, 11
#: Of f1full come f1, precision, recall and accp.
ASKED = ("acc", "acc-2", "acc-5", "f1full", "cmdiag", "cmfull", "mcll")
TEN = ("acc", "acc-2", "acc-5", "f1", "precision", "recall", "accp", "cmdiag", "cmfull", "mcll")
Json = dict[str, Any]


def made_up(rows: int = ROWS) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities, float32 array of shape (rows, CLASSES), and true classes, int32 array of shape (rows,)."""
    numbers = np.random.default_rng(1)
    truth = numbers.integers(0, CLASSES, rows, dtype=np.int32)
    scores = numbers.normal(size=(rows, CLASSES))
    scores[np.arange(rows), truth] += 1.5
    shares = np.exp(scores)
    return (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32), truth


def ours(probabilities: np.ndarray, truth: np.ndarray) -> Json:
    """What a test computes."""
    return compute(Target("classification", classes=CLASSES), ASKED, probabilities, truth)


def bare(probabilities: np.ndarray, truth: np.ndarray) -> Json:
    """The same of scikit-learn, each of its functions called once."""
    labels = np.arange(CLASSES)
    guessed = probabilities.argmax(axis=1)
    accuracy = metrics.accuracy_score(truth, guessed)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, guessed, average="macro")
    shares = metrics.confusion_matrix(truth, guessed, labels=labels, normalize="true")
    return {
        "acc": accuracy,
        "acc-2": metrics.top_k_accuracy_score(truth, probabilities, k=2, labels=labels),
        "acc-5": metrics.top_k_accuracy_score(truth, probabilities, k=5, labels=labels),
        "f1": f1,
        "precision": precision,
        "recall": recall,
        "accp": accuracy,
        "cmdiag": np.diag(shares).tolist(),
        "cmfull": [{str(label): row} for label, row in enumerate(shares.tolist())],
        "mcll": metrics.log_loss(truth, probabilities, labels=labels),
    }


def differing(one: Json, other: Json) -> list[str]:
    """Which of the ten are not the same number, or numbers, within a millionth."""
    return [name for name in TEN if not np.allclose(_numbers(one[name]), _numbers(other[name]), rtol=0, atol=1e-6)]


def _numbers(value: Any) -> list[float]:
    if isinstance(value, dict):
        return [number for each in value.values() for number in _numbers(each)]
    if isinstance(value, list):
        return [number for each in value for number in _numbers(each)]
    return [float(value)]


def _ms(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return (time.perf_counter() - began) * 1000


def main() -> None:
    """Print milliseconds and the middle ratio of the pairs."""
    probabilities, truth = made_up()
    if wrong := differing(ours(probabilities, truth), bare(probabilities, truth)):
        raise SystemExit(f"not what scikit-learn says: {', '.join(wrong)}")
    sides = {"ours": ours, "bare": bare}
    found: dict[str, list[float]] = {side: [] for side in sides}
    for pair in range(PAIRS):
        for side in sides if pair % 2 == 0 else reversed(sides):
            found[side].append(_ms(lambda work=sides[side]: work(probabilities, truth)))  # type: ignore[misc]
    ratios = [one / other for one, other in zip(found["ours"], found["bare"], strict=True)]
    print(
        f"{len(TEN)} measures of {ROWS:,} rows x {CLASSES} classes: {median(found['ours']):.1f} ms, scikit-learn "
        f"{median(found['bare']):.1f} ms, ratio {median(ratios):.3f} (goal 1)"
    )


if __name__ == "__main__":
    main()
