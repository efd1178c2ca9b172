"""Options of the output: `parameters.output` of services, trainings and predictions."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from marshmallow import ValidationError

from ml.errors import BadParameter
from ml.options.loading import Choice, Flag, Group, Range, Real, Several, Text, Warning, Whole, load, option

#: How the values of a prediction that has `vals` are written: as 0.0 and 1.0, as booleans, or as one text of digits.
Binary = Literal["numbers", "booleans", "text"]

# A type and its parameters in printable ASCII: no line break could begin a header of its own.
_CONTENT_TYPE = re.compile(r"(?:content-type[ \t]*:)?[ \t]*([!-.0-~]+/[!-~]+(?:[ \t]*;[ -~]*)?)", re.IGNORECASE)


class _Method(Text):
    """An HTTP method, in any case; loads in capitals."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).upper()


class _ContentType(Text):
    """A whole header line, or its value alone; loads as the line."""

    allowed = "one header line of printable characters, as in 'Content-Type: application/json'"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        found = _CONTENT_TYPE.fullmatch(super()._deserialize(value, attr, data, **kwargs).strip(" "))
        if found is None:
            raise ValidationError(self.allowed)
        return f"Content-Type: {found[1]}"


@dataclass(frozen=True)
class NetworkOptions:
    """Where the answer to a prediction is sent."""

    url: str = option(
        Text(),
        "Address, http:// or https://, that gets the answer; what it answers, status and body, is what the client "
        "gets. It must be public, or named by MODELYARD_FETCH_ALLOW.",
        default="",
    )
    http_method: str = option(
        _Method(validate=Choice("POST", "PUT", "PATCH", "GET", "DELETE")),
        "Method of the request that carries the answer.",
        default="POST",
    )
    content_type: str = option(
        _ContentType(),
        "Header line that says what the answer is, for one that a template makes into something else than JSON.",
        default="Content-Type: application/json",
    )

    @property
    def headers(self) -> dict[str, str]:
        """The header as a dictionary."""
        name, _, value = self.content_type.partition(": ")
        return {name: value}


@dataclass(frozen=True)
class OutputOptions:
    """What is computed from predictions and how it is reported."""

    measure: tuple[str, ...] = option(
        Several(Text()),
        "Measures of the test sets, e.g. acc, f1, mcll, auc for classes, eucll, l1 for numbers; one that does not "
        "apply is named in a warning with those that do. Given with a prediction, the data must have labels and the "
        "measures are the answer.",
        default=(),
    )
    measure_hist: bool = option(
        Flag(), "Whether the answer of a blocking training carries the measures of every test.", default=False
    )
    max_hist_points: int = option(
        Whole(validate=Range(1, 10**9)),
        "Most points of each measure history in an answer.",
        default=10000,
        unit="points",
    )
    target_repository: str = option(
        Text(),
        "Folder inside a data root that gets a copy of the best model, and of the files that belong to it, when a "
        "training has ended well.",
        default="",
    )
    best: int | None = option(
        Whole(validate=Range(-1, 10**9)),
        "How many classes a prediction holds, most probable first; -1 for all, 0 for none. Default: 1, with torch all.",
    )
    confidence_threshold: float = option(
        Real(validate=Range(0.0, 1.0)), "Smallest probability of a class in a prediction.", default=0.0
    )
    template: str = option(
        Text(),
        "Mustache template that is given the whole answer to a prediction, `status`, `head` and `body`, and makes "
        "what is answered instead; not used for errors and measures.",
        default="",
    )
    network: NetworkOptions | None = option(  # noqa: RUF009  # None, not an object that all would share
        Group(NetworkOptions), "Sends the answer to a prediction to another host, whose answer the client gets."
    )
    binarized: bool = option(
        Flag(), "Whether each of the values `vals` of a prediction is 1.0 where it is above 0, else 0.0.", default=False
    )
    bool_binarized: bool = option(
        Flag(),
        "Whether each of the values `vals` of a prediction is true where it is above 0, else false.",
        default=False,
    )
    string_binarized: bool = option(
        Flag(),
        "Whether the values `vals` of a prediction are one text, 1 for each that is above 0 and 0 for each other.",
        default=False,
    )
    format: str = option(
        Text(validate=Choice("auto", "json", "jsonl", "parquet")),
        "What the result of a prediction with `async` is kept as: json is the answer of a prediction as it is, jsonl "
        "one prediction per line, parquet a table; auto takes json up to 64 KiB, jsonl above.",
        default="auto",
    )
    timings: bool = option(
        Flag(),
        "Whether the head of the answer to a prediction has `timings`: milliseconds it was `queued`, and that `load` "
        "of the model, `input`, `compute` and `output` took.",
        default=False,
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

    @property
    def binary(self) -> Binary | None:
        """How `vals` are written when only their signs are wanted; None for the values themselves."""
        if self.binarized:
            return "numbers"
        if self.bool_binarized:
            return "booleans"
        return "text" if self.string_binarized else None


_IMAGES = "it comes later, with models of images"
_SIMILARITY = "it comes later, with similarity search"

#: Known names of the output that have no effect yet, with the reason.
ELSEWHERE = {
    **dict.fromkeys(
        (
            "bbox",
            "best_bbox",
            "rois",
            "ctc",
            "blank_label",
            "confidences",
            "mask",
            "logits",
            "logits_blob",
            "test_predictions",
        ),
        _IMAGES,
    ),
    **dict.fromkeys(
        (
            "index",
            "build_index",
            "search",
            "search_nn",
            "multibox_rois",
            "index_type",
            "index_gpu",
            "index_gpuid",
            "train_samples",
            "ondisk",
            "nprobe",
        ),
        _SIMILARITY,
    ),
}


def of_parameters(parameters: Mapping[str, Any]) -> OutputOptions:
    """The options of the output in parameters that were found to be right before."""
    given = parameters.get("output")
    return load(
        OutputOptions, given, path="parameters.output", section="output", owner="the output", elsewhere=ELSEWHERE
    ).value


def check(options: OutputOptions) -> list[Warning]:
    """Refuse combinations that cannot work. Raises BadParameter (section "output")."""
    forms = [name for name in ("binarized", "bool_binarized", "string_binarized") if getattr(options, name)]
    if len(forms) > 1:
        raise BadParameter(
            name=f"parameters.output.{forms[1]}",
            section="output",
            message=f"parameters.output.{' and '.join(forms)} say different things; set one of them only",
        )
    return []
