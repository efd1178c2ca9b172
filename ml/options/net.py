"""Options of how networks take their data: `parameters.mllib.net` of trainings and predictions."""

from __future__ import annotations

from dataclasses import dataclass

from ml.options.loading import Range, Whole, option


@dataclass(frozen=True)
class NetOptions:
    """How many rows go through a network together."""

    batch_size: int | None = option(
        Whole(validate=Range(1, 10**6)),
        "Rows of a batch in training; a batch that reaches the end of the data goes on at the beginning. Default: 1 "
        "with torch, 32 with caffe.",
        unit="rows",
    )
    test_batch_size: int | None = option(
        Whole(validate=Range(1, 10**6)),
        "Most rows that go through the network together in tests and predictions, whose results do not depend on it. "
        "Default: as many as suit the machine.",
        unit="rows",
    )


#: Known names of DeepDetect's `net` that have no effect here, with the reason.
ELSEWHERE = {"reg_weight": "it comes later, with detection"}
