"""Options of the output: `parameters.output` of services, trainings and predictions."""

from __future__ import annotations

from dataclasses import dataclass

from ml.options.loading import Flag, Range, Real, Several, Text, Whole, option


@dataclass(frozen=True)
class OutputOptions:
    """What is computed from predictions and how it is reported."""

    measure: tuple[str, ...] = option(
        Several(Text()),
        "Measures of the test sets: acc, acc-k, f1, f1full, cmdiag, cmfull, mcll, auc, mcc, gini, eucll, l1, percent. "
        "Given with a prediction, the data must have labels and the measures are the answer.",
        default=(),
    )
    measure_hist: bool = option(
        Flag(), "Whether the answer of a blocking training carries the measures of every test.", default=False
    )
    max_hist_points: int = option(
        Whole(validate=Range(1)),
        "Most points of each measure history in an answer.",
        default=10000,
        unit="points",
    )
    best: int | None = option(
        Whole(validate=Range(-1)),
        "How many classes a prediction holds, most probable first; -1 for all. Default: 1 with xgboost.",
    )
    confidence_threshold: float = option(
        Real(validate=Range(0.0, 1.0)), "Smallest probability of a class in a prediction.", default=0.0
    )
    regression: bool = option(
        Flag(),
        "Accepted for compatibility: a service knows itself whether it does regression.",
        default=False,
    )
    store_config: bool = option(
        Flag(),
        "Accepted for compatibility: the creation request is always kept in the repository.",
        default=False,
    )


#: Known names of the output that have no effect here yet, with the reason.
ELSEWHERE = dict.fromkeys(
    (
        "template",
        "network",
        "index",
        "build_index",
        "search",
        "search_nn",
        "multibox_rois",
        "binarized",
        "bool_binarized",
        "string_binarized",
        "bbox",
        "best_bbox",
        "rois",
        "ctc",
        "blank_label",
        "mask",
        "logits",
        "logits_blob",
        "target_repository",
        "test_predictions",
    ),
    "this server does not offer it for this library",
)
