"""What a training that was made elsewhere left to go on from: the curves of its metrics.json and its best model."""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Mapping
from typing import Any

from ml.measures import Best
from ml.training.checkpoints import Progress
from ml.training.history import History, Steps

_STEPS = ("train_loss_hist", "learning_rate_hist", "elapsed_time_ms_hist")


def progress_from(metrics: Any, best_model: str | None, done: int) -> Progress | None:
    """The progress of a training that left no training.json, so that a resumed one continues its curves.

    metrics : the value of metrics.json, an answer of GET /train. best_model : the text of best_model.txt.
    done : iterations that the model has behind it.
    Returns None where there is no history; series that are none are left out.
    """
    body = metrics.get("body") if isinstance(metrics, Mapping) else None
    given = body.get("measure_hist") if isinstance(body, Mapping) else None
    if not isinstance(body, Mapping) or not isinstance(given, Mapping):
        return None
    series = {
        str(name): found for name, values in given.items() if (found := _numbers(values)) and name[-5:] == "_hist"
    }
    steps = {name: [value for value in series.pop(name, []) if value is not None] for name in _STEPS}
    steps = {name: values for name, values in steps.items() if values}
    history = _history(series)
    if not history and not steps:
        return None
    sampling = body.get("measure_sampling")
    stride = sampling.get("train_loss_sampling", 1) if isinstance(sampling, Mapping) else 1
    if type(stride) is not int or stride < 1:
        stride = 1
    points = max((len(values) for values in steps.values()), default=0)
    return Progress(
        done=done,
        seed=secrets.randbits(31),
        history=history,
        steps=Steps(steps, stride, points * stride),
        best=_best(best_model or ""),
    )


def _history(series: dict[str, list[float | None]]) -> History:
    """The series with a value per test; those that are not as long as the others belong to something else."""
    axis = series.pop("iteration_hist", None)
    if axis is None:
        lengths = [len(values) for values in series.values()]
        axis = [float(position) for position in range(max(set(lengths), key=lengths.count))] if lengths else []
    alike = {name: values for name, values in series.items() if len(values) == len(axis)}
    whole = [None if value is None else int(value) for value in axis]
    return History({"iteration_hist": [*whole], **alike} if alike else None)


def _numbers(values: Any) -> list[float | None] | None:
    if not isinstance(values, list) or not values:
        return None
    if not all(each is None or (isinstance(each, int | float) and not isinstance(each, bool)) for each in values):
        return None
    return [None if each is None or not math.isfinite(each) else each for each in values]


def _best(text: str) -> Best | None:
    """What best_model.txt says: `iteration:<number>`, then `<measure>:<value>`."""
    found = re.match(r"iteration:\s*(\d{1,15})\s*\n([\w.-]+):\s*([-+.\deE]+)\s*$", text, re.MULTILINE)
    try:
        return None if found is None else Best(found[2], float(found[3]), int(found[1]))
    except ValueError:
        return None
