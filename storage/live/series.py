"""Histories of measures as answers hold them: one array by measure, thinned out where it is long."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Series = dict[str, list[Any]]

POINTS = 10_000
"""Most points of a history in an answer, unless the request says otherwise."""

STEP_SERIES = frozenset({"train_loss_hist", "learning_rate_hist", "elapsed_time_ms_hist"})
"""Histories with a point per iteration; the others have one per test."""


def as_series(points: Sequence[Mapping[str, Any]], steps: Mapping[str, Any]) -> tuple[Series, int]:
    """What a training told so far, and how many iterations lie between two points of `STEP_SERIES`.

    points : one per test, as `Progress.history` gives them. steps : what `Progress.steps` gives.
    """
    hist: Series = {}
    for point in points:
        for name, value in point.items():
            hist.setdefault(f"{name}_hist", []).append(value)
    return {**(steps.get("series") or {}), **hist}, int(steps.get("stride") or 1)


def sampled(hist: Mapping[str, list[Any]], points: int, stride: int = 1) -> tuple[Series, dict[str, int]]:
    """Histories of at most `points` points, every k-th one of longer ones, and each such k as `<measure>_sampling`.

    stride : iterations between two points of `STEP_SERIES`, thinned out before already.
    """
    cut: Series = {}
    steps: dict[str, int] = {}
    for name, values in hist.items():
        step = max(1, -(-len(values) // points))
        cut[name] = values[::step] if step > 1 else values
        total = step * (stride if name in STEP_SERIES else 1)
        if total > 1:
            steps[f"{name.removesuffix('_hist')}_sampling"] = total
    return cut, steps
