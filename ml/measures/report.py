"""How measures are named, flattened for histories, and compared."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

CLASSIFICATION = ("acc", "f1", "f1full", "cmdiag", "cmfull", "mcll", "auc", "mcc", "gini")
REGRESSION = ("eucll", "l1", "percent", "gini")
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
LOWER = frozenset({"eucll", "delta_score_0.1", "L1_mean_error"})
#: Values that describe others and have no history.
_WITHOUT_HISTORY = frozenset({"labels", "cmfull", "test_id", "test_name", "precisions", "recalls", "f1s"})


def unknown(names: Sequence[str], *, is_regression: bool, classes: int) -> dict[str, str]:
    """Measures asked for that will not be computed, each with the reason."""
    known = REGRESSION if is_regression else CLASSIFICATION
    made = {}
    for name in names:
        if name in ("auc", "mcc", "gini") and not is_regression and classes != 2:
            made[name] = f"measure {name!r} is defined for two classes only and was ignored"
        elif name in ("cmdiag", "cmfull") and not {"f1", "f1full"} & set(names):
            continue  # computed all the same: asking for f1 as well is only needed elsewhere
        elif name not in known and not (not is_regression and re.search(r"^acc-\d+$|acc", name)):
            made[name] = f"measure {name!r} is unknown here and was ignored; use one of {', '.join(known)}"
    return made


def flat(measures: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a test that make up histories: scalars as they are, per-class values as `cmdiag_<label>`."""
    made: dict[str, float] = {}
    for name, value in measures.items():
        if name in _WITHOUT_HISTORY:
            continue
        if isinstance(value, list):
            labels = measures.get("labels", [str(each) for each in range(len(value))])
            made |= {f"{name}_{label}": each for label, each in zip(labels, value, strict=True)}
        else:
            made[name] = value
    return made


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
