"""How measures of a test are joined over test sets, made into histories, and compared."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

#: What a model is judged by: the first of these that is there; lower is better for those in LOWER.
JUDGES = (
    "map",
    "meaniou",
    "mlacc",
    "delta_score_0.1",
    "bacc",
    "f1",
    "net_meas",
    "acc",
    "L1_mean_error",
    "eucll",
)
#: Not delta_score_0.1, which DeepDetect takes for an error: it is the share of guesses that are right within 0.1, so
#: the lowest would be the worst model.
LOWER = frozenset({"eucll", "L1_mean_error"})
#: Values that describe others, or tell of one test set only, and so have no history.
_WITHOUT_HISTORY = frozenset({"test_id", "precisions", "recalls", "f1s"})


def flat(measures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a test that make up histories: scalars as they are, per-class values as `cmdiag_<label>`."""
    made: dict[str, float] = {}
    for name, value in measures.items():
        if name in _WITHOUT_HISTORY:
            continue
        if _is_number(value):
            made[name] = value
        elif isinstance(value, list) and value and all(map(_is_number, value)):
            labels = measures.get("labels", [str(each) for each in range(len(value))])
            made |= {f"{name}_{label}": each for label, each in zip(labels, value, strict=True)}
    return made


def several(sets: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The measures of a test on several sets as one: under the plain name the mean over the sets that have it.

    Arrays (cmdiag, cmfull, …) are averaged number by number where their lengths agree and are left out elsewhere.
    When there is more than one set, the numbers of each follow as `<measure>_test0`, `<measure>_test1`, …, per-class
    values as `cmdiag_<label>_test0`. `raw` lists samples, not measures, and belongs to its own set only.
    """
    made: dict[str, Any] = {}
    for name in dict.fromkeys(name for measures in sets for name in measures):
        if name not in ("raw", "test_id", "test_name"):
            value = _mean([measures[name] for measures in sets if name in measures])
            if value is not None:
                made[name] = value
    if len(sets) > 1:
        for position, measures in enumerate(sets):
            made |= {f"{name}_test{position}": value for name, value in flat(measures).items()}
    return made


def _mean(values: Sequence[Any]) -> Any:
    """The mean of numbers, or of arrays and objects of numbers; None where they differ in shape or in words."""
    first = values[0]
    if all(map(_is_number, values)):
        return math.fsum(values) / len(values) if len(values) > 1 else first
    if all(isinstance(each, list) and len(each) == len(first) for each in values):
        means: Any = [_mean(each) for each in zip(*values, strict=True)]
        return None if None in means else means
    if all(isinstance(each, Mapping) and each.keys() == first.keys() for each in values):
        means = {key: _mean([each[key] for each in values]) for key in first}
        return None if None in means.values() else means
    return first if all(each == first for each in values) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Best:
    """The best test so far: by which measure, its value, and at which iteration."""

    name: str
    value: float
    iteration: int


def improved(before: Best | None, measures: Mapping[str, Any], iteration: int) -> Best | None:
    """The best of `before` and a new test; None as long as nothing comparable was measured."""
    name = next((each for each in JUDGES if each in measures), None)
    if name is None or not math.isfinite(measures[name]):
        return before
    value = float(measures[name])
    if before is None or before.name != name:
        return Best(name, value, iteration)
    better = value < before.value if name in LOWER else value > before.value
    return Best(name, value, iteration) if better else before
