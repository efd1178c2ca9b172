"""Requests of /train and /predict. The parameters themselves are read by `ml.options`."""

from __future__ import annotations

from dataclasses import dataclass

from ml.options.loading import Flag, Json, Text, option


@dataclass(frozen=True)
class TrainRequest:
    """The top level of POST /train."""

    service: str = option(
        Text(required=True), "Name of the service to train; upper and lower case are the same.", default=""
    )
    is_async: bool = option(
        Flag(), "Whether to answer at once with a job to poll, rather than at the end.", default=True, key="async"
    )
    parameters: object = option(
        Json(), "`input`, `mllib` and `output`; each option given here counts instead of the service's."
    )
    data: object = option(
        Json(),
        "Training set first, then the test sets: paths in a data root, dataset://NAME/PATH, or the lines of one table.",
    )


@dataclass(frozen=True)
class PredictRequest:
    """The top level of POST /predict."""

    service: str = option(
        Text(required=True), "Name of the service to ask; upper and lower case are the same.", default=""
    )
    parameters: object = option(
        Json(), "`input`, `mllib` and `output`; each option given here counts instead of the service's."
    )
    data: object = option(
        Json(required=True),
        "A path in a data root, dataset://NAME/PATH, an address of another host, or the lines of a table.",
    )
    is_async: bool = option(
        Flag(),
        "Whether to answer at once with a task to poll, whose result is kept, rather than with the predictions.",
        default=False,
        key="async",
    )
