"""What clients may write in `parameters.output.measure`."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ml.options.target import Kind, Target

#: Shares between 0 and 1 are compared by these; each takes a threshold, e.g. `kl-0.1`.
SOFT = ("kl", "js", "was", "ks", "dc", "r2", "deltas")
#: What is told to a client who asked for something else.
CHOICE: dict[Kind, str] = {
    "classification": "acc, acc-<k>, f1, f1full, cmdiag, cmfull, mcll, auc, mcc, gini, raw",
    "multi_label": "acc, raw",
    "soft_labels": f"acc, {', '.join(SOFT)}, eucll, raw (and each but raw with a threshold, e.g. kl-0.1)",
    "regression": "eucll, eucll-<threshold>, l1, percent, gini, raw",
    "autoencoder": "eucll, eucll-<threshold>",
}
_PLAIN: dict[Kind, frozenset[str]] = {
    "classification": frozenset({"f1", "f1full", "cmdiag", "cmfull", "mcll", "auc", "mcc", "gini", "raw"}),
    "multi_label": frozenset({"acc", "raw"}),
    "soft_labels": frozenset({"raw"}),
    "regression": frozenset({"l1", "percent", "gini", "raw"}),
    "autoencoder": frozenset(),
}
_THRESHOLDED: dict[Kind, tuple[str, ...]] = {
    "soft_labels": ("acc", *SOFT, "eucll"),
    "regression": ("eucll",),
    "autoencoder": ("eucll",),
}
#: Defined for two classes only.
BINARY = frozenset({"auc", "mcc", "gini"})

# Python refuses to make a number of thousands of digits.
_TOP = re.compile(r"acc-([0-9]{1,100})")
_NUMBER = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")


def unknown(names: Sequence[str], target: Target) -> dict[str, str]:
    """Measures asked for that will not be computed for such a target, each with the reason."""
    made = {}
    for name in names:
        if not _is_known(name, target.kind):
            made[name] = f"measure {name!r} is unknown here and was ignored; use one of {CHOICE[target.kind]}"
        elif name in BINARY and target.kind == "classification" and target.classes != 2:
            made[name] = f"measure {name!r} is defined for two classes only and was ignored"
        elif name == "gini" and target.kind == "regression" and target.targets != 1:
            made[name] = f"measure {name!r} is defined for one target only and was ignored"
    return made


def accuracies(names: Sequence[str]) -> list[int]:
    """The k of every accuracy of a classification: 1 for any name with "acc" in it, that of `acc-k` beyond 1."""
    found = set()
    for name in names:
        top = _TOP.fullmatch(name)
        if top and int(top[1]) > 1:
            found.add(int(top[1]))
        elif "acc" in name:
            found.add(1)
    return sorted(found)


def thresholds(measure: str, names: Sequence[str]) -> list[float] | None:
    """The t of every `<measure>-t` asked for, none below 0; None when not even the plain measure was asked for."""
    prefix = f"{measure}-"
    given = [_threshold(name.removeprefix(prefix)) for name in names if name.startswith(prefix)]
    found = sorted({each for each in given if each is not None})
    return found if found or measure in names else None


def without(measure: str, threshold: float) -> str:
    """Key of a measure that leaves out what a threshold says."""
    return f"{measure}_no_{threshold:.12g}"


def _is_known(name: str, kind: Kind) -> bool:
    if name in _PLAIN[kind] or (kind == "classification" and "acc" in name):
        return True
    return any(thresholds(measure, (name,)) is not None for measure in _THRESHOLDED.get(kind, ()))


def _threshold(text: str) -> float | None:
    value = float(text) if _NUMBER.fullmatch(text) else math.inf
    return value if math.isfinite(value) else None
