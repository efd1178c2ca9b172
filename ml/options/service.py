"""Options of a service: the top level of its creation request and its `model` object."""

from __future__ import annotations

from dataclasses import dataclass

from ml.options.loading import Flag, Json, Text, option


@dataclass(frozen=True)
class ModelOptions:
    """Where the model of a service lives."""

    repository: str = option(
        Text(),
        "Folder inside a data root, or name of a place in the object store, that holds the model.",
        default="",
    )
    create_repository: bool = option(Flag(), "Whether a missing repository is created.", default=False)


#: Known names of the model object that have no effect here, with the reason.
MODEL_ELSEWHERE = {
    "templates": "xgboost has no network templates",
    "weights": "xgboost models are read from the repository",
    "init": "models are not installed from archives yet",
    "index_preload": "similarity search is not offered for this library",
}


@dataclass(frozen=True)
class ServiceHead:
    """The top level of a creation request."""

    mllib: str = option(Text(), "Name of the machine-learning library.", default="")
    description: str = option(Text(), "Free text shown in lists.", default="")
    type: str = option(Text(), "Kind of learning: supervised or unsupervised.", default="supervised")
    model: object = option(Json(), "Where the model lives.")
    parameters: object = option(Json(), "Defaults of `input`, `mllib` and `output` for every call.")
