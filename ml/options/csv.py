"""Options of the input connector `csv`: `parameters.input` of services, trainings and predictions."""

from __future__ import annotations

from dataclasses import dataclass

from ml.errors import BadParameter
from ml.options.loading import Choice, Flag, Range, Real, Several, Table, Text, Warning, Whole, option
from ml.options.target import Target


@dataclass(frozen=True)
class CsvOptions:
    """How a CSV file or CSV lines become a table of numbers."""

    connector: str = option(Text(), "Name of the input connector.", default="csv")
    label: tuple[str, ...] = option(
        Several(Text()),
        "Name of the column to predict, or several: the targets of a regression, or one column per class where rows "
        "have several classes; needed to train, but for an autoencoder, which leaves these columns out.",
        default=(),
    )
    label_offset: tuple[int, ...] = option(
        Several(Whole(), validate=Range(-(2**31), 2**31 - 1)),
        "Added to every numeric label, one for all or one per label column; -1 suits classes counted from 1.",
        default=(0,),
    )
    ignore: tuple[str, ...] = option(
        Several(Text()), "Names of columns that are left out before anything else happens.", default=()
    )
    id: str = option(
        Text(),
        "Name of the column that identifies a row; it is no feature and becomes the `uri` of predictions.",
        default="",
    )
    separator: str = option(Text(), "The character between two cells; only the first one given counts.", default=",")
    quote: str = option(
        Text(),
        "The character around cells that contain the separator; empty when there is none.",
        default='"',
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
    scale: bool = option(
        Flag(),
        "Whether features are rescaled by bounds found in the training file, see `scale_type`.",
        default=False,
    )
    scale_type: str = option(
        Text(validate=Choice("minmax", "znorm")),
        "How features are rescaled: to [0, 1] by minimum and maximum, or to mean 0 and variance 1.",
        default="minmax",
    )
    min_vals: tuple[float, ...] = option(
        Several(Real()),
        "Minimum of every column that is not ignored, in file order and with label and id; used instead of found ones.",
        default=(),
    )
    max_vals: tuple[float, ...] = option(
        Several(Real()), "Maximum of every column that is not ignored, like `min_vals`.", default=()
    )
    mean_vals: tuple[float, ...] = option(
        Several(Real()), "Mean of every column that is not ignored, like `min_vals`, for `znorm`.", default=()
    )
    variance_vals: tuple[float, ...] = option(
        Several(Real(validate=Range(0.0))),
        "Variance of every column that is not ignored, like `min_vals`, for `znorm`.",
        default=(),
    )
    categoricals: tuple[str, ...] = option(
        Several(Text()),
        "Names of columns that hold words; each becomes one 0/1 column per word, words in order of appearance.",
        default=(),
    )
    categoricals_mapping: dict[str, dict[str, int]] = option(  # noqa: RUF009  # a field, made anew each time
        Table(Table(Whole(validate=Range(0)))),
        "Position of every word of every categorical column, as a training returns it; used instead of a new one.",
        factory=dict,
    )


#: Known names of this connector that have no effect here, with the reason.
ELSEWHERE: dict[str, str] = {}

#: Longest line of a CSV file, in bytes; a longer one is refused as no table.
LINE_LIMIT_BYTES = 8 * 2**20
#: Most different words of a categorical column; each of them becomes a column.
CATEGORIES_MOST = 2**16


def check(options: CsvOptions) -> list[Warning]:
    """Refuse combinations that cannot work, whatever the data, and name options without effect.

    Raises BadParameter (section "input").
    """

    def refuse(name: str, message: str) -> None:
        raise BadParameter(name=f"parameters.input.{name}", section="input", message=message)

    if not options.separator:
        refuse("separator", "parameters.input.separator is empty; it must be a character such as ',' or ';'")
    if len(options.separator[0].encode()) != 1 or options.separator[0] in "\r\n\0":
        refuse(
            "separator",
            f"parameters.input.separator is {options.separator!r}; it must be one ASCII character",
        )
    if options.quote and (len(options.quote[0].encode()) != 1 or options.quote[0] in "\r\n\0"):
        refuse("quote", f"parameters.input.quote is {options.quote!r}; it must be one ASCII character or empty")
    if options.quote and options.quote[0] == options.separator[0]:
        refuse("quote", f"parameters.input.quote and separator are both {options.quote[0]!r}; they must differ")
    if options.test_split == 1.0:
        refuse(
            "test_split",
            "parameters.input.test_split is 1; it must be below 1 so that rows are left to train on",
        )
    if len(set(options.label)) != len(options.label):
        refuse("label", "parameters.input.label names the same column twice")
    if len(options.label_offset) not in (1, len(options.label)) and options.label:
        refuse(
            "label_offset",
            f"parameters.input.label_offset has {len(options.label_offset)} values for {len(options.label)} label "
            "columns; give one for all or one for each",
        )
    for name in options.label:
        if name in options.ignore:
            refuse("ignore", f"column {name!r} is in both parameters.input.ignore and parameters.input.label")
    if options.id and options.id in options.label:
        refuse("id", f"column {options.id!r} is both parameters.input.id and parameters.input.label")
    if options.id and options.id in options.ignore:
        refuse("id", f"column {options.id!r} is both parameters.input.id and in parameters.input.ignore")
    for option_name in ("categoricals", "categoricals_mapping"):
        for name in getattr(options, option_name):
            if name in (*options.label, options.id, *options.ignore):
                refuse(
                    option_name,
                    f"column {name!r} of parameters.input.{option_name} is categorical and at the same time label, id "
                    "or ignored",
                )
    for name, words in options.categoricals_mapping.items():
        if not words or sorted(words.values()) != list(range(len(words))):
            refuse(
                "categoricals_mapping",
                f"parameters.input.categoricals_mapping must number the words of column {name} from 0 without gaps",
            )
        if len(words) > CATEGORIES_MOST:
            refuse(
                "categoricals_mapping",
                f"parameters.input.categoricals_mapping has {len(words)} words for column {name}; at most "
                f"{CATEGORIES_MOST} are allowed",
            )
    for one, other in (("min_vals", "max_vals"), ("mean_vals", "variance_vals")):
        if len(getattr(options, one)) != len(getattr(options, other)):
            refuse(
                one,
                f"parameters.input.{one} and {other} must have one value each per column, so equally many",
            )
    for position, (low, high) in enumerate(zip(options.min_vals, options.max_vals, strict=True)):
        if low > high:
            refuse(
                "min_vals",
                f"value {position + 1} of parameters.input.min_vals, {low:g}, is above its maximum, {high:g}",
            )
    warnings = []
    for name in ("separator", "quote"):
        value = getattr(options, name)
        if len(value) > 1:
            path = f"parameters.input.{name}"
            warnings.append(Warning(path, f"{path} is {value!r}; only its first character is used"))
    return warnings


def check_target(options: CsvOptions, target: Target) -> None:
    """Refuse label columns that do not fit what is to be learned. Raises BadParameter (section "input")."""

    def refuse(message: str) -> None:
        raise BadParameter(name="parameters.input.label", section="input", message=message)

    if options.autoencoder and target.kind != "autoencoder":
        raise BadParameter(
            name="parameters.input.autoencoder",
            section="input",
            message="parameters.input.autoencoder is true, but parameters.mllib.autoencoder is not; set both or none",
        )
    if target.kind == "autoencoder":
        return
    if not options.label:
        refuse("missing label column parameter: parameters.input.label must name the column to predict")
    labels = len(options.label)
    if labels != target.labels:
        counted = {
            "classification": "a classification has one label column",
            "regression": f"parameters.mllib.ntargets is {target.targets}",
        }
        wanted = counted.get(target.kind, f"parameters.mllib.nclasses is {target.classes}")
        refuse(f"parameters.input.label names {labels} columns, but {wanted}")
