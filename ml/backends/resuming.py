"""What a training that goes on with a model of the repository must have in common with the one that made it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ml import registry
from ml.backends.base import Previous
from ml.connectors.base import Fitted
from ml.errors import BadParameter, MlError
from ml.tables import TrainingData

#: What says how numbers are scaled, with the connectors that scale.
_SCALING = ("scale_type", "low", "high")


def refusal(why: str) -> BadParameter:
    """The error for a model that cannot be gone on with."""
    return BadParameter(
        name="parameters.mllib.resume",
        section="mllib",
        message=f"parameters.mllib.resume is true, but {why}; train without resume to start anew",
    )


def check_same_data(previous: Previous, connector: str, data: TrainingData) -> None:
    """Refuse data whose features or classes mean something else to the model than before.

    A model of which nothing is known, as somebody put it there, is not refused here. Raises BadParameter.
    """
    description = previous.description or {}
    before = _fitted(description)
    if before is None:
        return
    if description["connector"] != connector:
        raise refusal(f"the model in the repository was trained with the input connector {description['connector']}")
    inputs, now = before.inputs, data.fitted.inputs
    # A model from elsewhere may know how many features it has and not what they are called: xgboost calls them so.
    is_nameless = inputs == [f"f{place}" for place in range(len(inputs))]
    if len(inputs) != len(now):
        raise refusal(f"the model in the repository has {len(inputs)} features, the data has {len(now)}")
    if inputs != now and not is_nameless:
        place = next(i for i, names in enumerate(zip(inputs, now, strict=True)) if names[0] != names[1])
        raise refusal(
            f"the model in the repository was trained with other features: feature {place + 1} was "
            f"{inputs[place]!r} and is {now[place]!r} in the data"
        )
    words = before.words or description.get("labels")  # those of corresp.txt, where somebody put it there
    if words != data.fitted.words and not (is_nameless and words is None):
        raise refusal(
            f"the model in the repository was trained with other classes: they were {_named(words)} and are "
            f"{_named(data.fitted.words)} in the data"
        )
    if any(getattr(before, name, None) != getattr(data.fitted, name, None) for name in _SCALING):
        raise refusal(
            "the features are scaled otherwise than those that the model in the repository was trained with; give "
            "parameters.input.min_vals and max_vals, or mean_vals and variance_vals, as that training answered them"
        )


def _fitted(description: dict[str, Any]) -> Fitted | None:
    try:
        return registry.connector(description["connector"]).fitted(description["fitted"])
    except (KeyError, TypeError, MlError):
        return None


def _named(words: Sequence[str] | None, most: int = 5) -> str:
    if words is None:
        return "numbers"
    text = ", ".join(words[:most])
    return text if len(words) <= most else f"{text} and {len(words) - most} more"
