"""Options of the input connector `svm`: `parameters.input` of services, trainings and predictions."""

from __future__ import annotations

from dataclasses import dataclass

from ml.errors import BadParameter
from ml.options.loading import Flag, Range, Real, Several, Text, Warning, Whole, option
from ml.options.target import Target


@dataclass(frozen=True)
class SvmOptions:
    """How lines of `label id:value id:value …` become a sparse table of numbers."""

    connector: str = option(Text(), "Name of the input connector.", default="svm")
    label_offset: tuple[int, ...] = option(
        Several(Whole(), validate=Range(-(2**31), 2**31 - 1)),
        "Added to every label; -1 suits classes counted from 1.",
        default=(0,),
    )
    test_split: float = option(
        Real(validate=Range(0.0, 1.0)),
        "Share of the rows, at the end and after shuffling, that is kept for testing when no test file is given.",
        default=0.0,
    )
    shuffle: bool = option(Flag(), "Whether the rows are put in random order before they are split.", default=False)
    seed: int = option(
        Whole(validate=Range(-1, 2**63 - 1)),
        "Seed of the shuffling; -1 takes a new one each time.",
        default=-1,
    )
    db: bool = option(
        Flag(),
        "Whether training and test tables are kept on disk instead of in memory, which then does not grow with the "
        "data; without effect on predictions.",
        default=False,
    )
    autoencoder: bool = option(
        Flag(),
        "Whether rows are learned without labels; says the same as `mllib.autoencoder`, which is needed as well.",
        default=False,
    )


#: Known names of this connector that have no effect here, with the reason.
ELSEWHERE = {
    **dict.fromkeys(("label", "id", "ignore"), "rows of svm have no named columns: the label is their first word"),
    **dict.fromkeys(("separator", "quote"), "words of svm are separated by blanks"),
    **dict.fromkeys(
        ("scale", "scale_type", "min_vals", "max_vals", "mean_vals", "variance_vals"),
        "values of svm are taken as they are",
    ),
    **dict.fromkeys(("categoricals", "categoricals_mapping"), "values of svm are numbers, never words"),
}


def check(options: SvmOptions) -> list[Warning]:
    """Refuse combinations that cannot work, whatever the data. Raises BadParameter (section "input")."""

    def refuse(name: str, message: str) -> None:
        raise BadParameter(name=f"parameters.input.{name}", section="input", message=message)

    if options.test_split == 1.0:
        refuse(
            "test_split",
            "parameters.input.test_split is 1; it must be below 1 so that rows are left to train on",
        )
    if len(options.label_offset) != 1:
        refuse(
            "label_offset",
            f"parameters.input.label_offset has {len(options.label_offset)} values; rows of svm have one label, "
            "so give one",
        )
    return []


def check_target(options: SvmOptions, target: Target) -> None:
    """Refuse what one number per row cannot be the label of. Raises BadParameter."""

    def refuse(section: str, name: str, message: str) -> None:
        raise BadParameter(name=f"parameters.{section}.{name}", section=section, message=message)

    if options.autoencoder and target.kind != "autoencoder":
        refuse(
            "input",
            "autoencoder",
            "parameters.input.autoencoder is true, but parameters.mllib.autoencoder is not; set both or none",
        )
    if target.kind in ("multi_label", "soft_labels"):
        refuse(
            "mllib",
            "multi_label",
            "rows of svm have one label, so parameters.mllib.multi_label cannot be true; use the connector csv",
        )
    if target.kind == "regression" and target.targets != 1:
        refuse(
            "mllib",
            "ntargets",
            f"rows of svm have one label, but parameters.mllib.ntargets is {target.targets}; use the connector csv",
        )
