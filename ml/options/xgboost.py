"""Options of the library `xgboost`: `parameters.mllib` of services, trainings and predictions."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

from marshmallow import ValidationError

from ml.errors import BadParameter
from ml.options.loading import Choice, Flag, Group, Range, Real, Several, Table, Text, Warning, Whole, option
from ml.options.target import Target

#: Objectives of classification and of regression; the old name of squared error is kept for its users.
CLASSIFICATION = ("multi:softprob", "binary:logistic", "binary:hinge")
REGRESSION = (
    "reg:linear",
    "reg:squarederror",
    "reg:logistic",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:quantileerror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
)
SOFTMAX = "multi:softmax"
#: The objectives for several labels per row: each there or not, or a share of it.
MULTI_LABEL, SOFT_LABELS = "binary:logistic", "reg:logistic"
#: Smallest and largest size of a number above 0 that xgboost reads; it refuses all else in the middle of a training.
SINGLE_LEAST, SINGLE_MOST = 2.0**-126, 3.4e38


class Single(Real):
    """A number that single precision holds in full, which is what xgboost keeps its parameters in."""

    allowed = "a number of single precision"

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> float:
        number = super()._deserialize(value, attr, data, **kwargs)
        if number and not SINGLE_LEAST <= abs(number) <= SINGLE_MOST:
            raise ValidationError(self.allowed)
        return number


@dataclass(frozen=True)
class BoosterOptions:
    """`booster_params`: how each tree, or the linear model, is grown, and what some objectives need to know."""

    eta: float = option(
        Single(validate=Range(0.0, 1.0)),
        "Learning rate: each new tree counts for this share.",
        default=0.3,
        other_keys=("learning_rate",),
    )
    gamma: float = option(
        Single(validate=Range(0.0)),
        "Least loss reduction that a split must bring.",
        default=0.0,
        other_keys=("min_split_loss",),
    )
    max_depth: int = option(Whole(validate=Range(0, 64)), "Deepest tree; 0 for no limit.", default=6, unit="levels")
    min_child_weight: float = option(
        Single(validate=Range(0.0)), "Least sum of instance weights (hessians) in a leaf.", default=1.0
    )
    max_delta_step: float = option(
        Single(validate=Range(0.0)), "Largest step of a leaf's value; 0 for no limit.", default=0.0
    )
    subsample: float = option(
        Single(validate=Range(0.0, 1.0, above=True)), "Share of the rows drawn for each tree.", default=1.0
    )
    sampling_method: str = option(
        Text(validate=Choice("uniform", "gradient_based")),
        "Whether rows are drawn alike, or those with large gradients rather; the latter only by hist.",
        default="uniform",
    )
    colsample_bytree: float = option(
        Single(validate=Range(0.0, 1.0, above=True)),
        "Share of the columns drawn for each tree.",
        default=1.0,
        other_keys=("colsample",),
    )
    colsample_bylevel: float = option(
        Single(validate=Range(0.0, 1.0, above=True)),
        "Share of a tree's columns drawn for each level.",
        default=1.0,
    )
    colsample_bynode: float = option(
        Single(validate=Range(0.0, 1.0, above=True)),
        "Share of a level's columns drawn for each split.",
        default=1.0,
    )
    lambda_: float | None = option(
        Single(validate=Range(0.0)),
        "Weight of the L2 penalty. Default: 1 for trees, 0 for gblinear.",
        key="lambda",
        other_keys=("reg_lambda",),
    )
    alpha: float = option(
        Single(validate=Range(0.0)), "Weight of the L1 penalty.", default=0.0, other_keys=("reg_alpha",)
    )
    lambda_bias: float = option(
        Single(validate=Range(0.0, 0.0)),
        "L2 penalty of the bias of gblinear, which xgboost gave up: only 0 is accepted.",
        default=0.0,
    )
    tree_method: str = option(
        Text(validate=Choice("auto", "exact", "approx", "hist")), "How splits are searched.", default="auto"
    )
    scale_pos_weight: float = option(
        Single(validate=Range(0.0, above=True)),
        "Weight of the positive class against the negative one, for the logistic objectives.",
        default=1.0,
    )
    max_bin: int = option(
        Whole(validate=Range(2, 65536)), "Most bins per feature of hist and approx.", default=256, unit="bins"
    )
    max_leaves: int = option(Whole(validate=Range(0, 2**31 - 1)), "Most leaves of a tree; 0 for no limit.", default=0)
    grow_policy: str = option(
        Text(validate=Choice("depthwise", "lossguide")),
        "Which node is split next by hist and approx.",
        default="depthwise",
    )
    num_parallel_tree: int = option(
        Whole(validate=Range(1, 10000)), "Trees grown in each iteration, as in a random forest.", default=1
    )
    multi_strategy: str = option(
        Text(validate=Choice("one_output_per_tree", "multi_output_tree")),
        "Whether each class or target gets trees of its own, or all share one, which only hist grows.",
        default="one_output_per_tree",
    )
    monotone_constraints: dict[str, int] = option(  # noqa: RUF009  # a field, made anew each time
        Table(Whole(), validate=Range(-1, 1)),
        "Features by name that may only raise the output (1) or only lower it (-1).",
        factory=dict,
    )
    interaction_constraints: tuple[tuple[str, ...], ...] = option(
        Several(Several(Text())),
        "Lists of the names of features; a branch may split by features of one list only.",
        default=(),
    )
    sample_type: str = option(
        Text(validate=Choice("uniform", "weighted")), "How dart picks the trees it drops.", default="uniform"
    )
    normalize_type: str = option(
        Text(validate=Choice("tree", "forest")),
        "How dart weighs new trees against dropped ones.",
        default="tree",
    )
    rate_drop: float = option(Single(validate=Range(0.0, 1.0)), "Share of the trees that dart drops.", default=0.0)
    one_drop: bool = option(Flag(), "Whether dart always drops at least one tree.", default=False)
    skip_drop: float = option(
        Single(validate=Range(0.0, 1.0)), "Probability that dart drops nothing in an iteration.", default=0.0
    )
    feature_selector: str = option(
        Text(validate=Choice("cyclic", "greedy", "thrifty")),
        "In which order gblinear updates its weights; random orders are not offered: they cannot be resumed.",
        default="cyclic",
    )
    top_k: int = option(
        Whole(validate=Range(0, 2**31 - 1)), "How many features greedy and thrifty look at; 0 for all.", default=0
    )
    tweedie_variance_power: float = option(
        Single(validate=Range(1.0, 1.999)),
        "How the variance grows with the mean, for reg:tweedie: from 1, as in a Poisson distribution, to almost 2, as "
        "in a gamma distribution.",
        default=1.5,
    )
    huber_slope: float = option(
        Single(validate=Range(0.0, above=True)),
        "Error from which on reg:pseudohubererror is linear rather than square.",
        default=1.0,
    )
    quantile_alpha: float = option(
        Single(validate=Range(0.0, 1.0)), "Which quantile reg:quantileerror predicts.", default=0.5
    )


@dataclass(frozen=True)
class XGBoostOptions:
    """What is learned and for how long."""

    nclasses: int = option(
        Whole(validate=Range(0, 10**6)), "Number of classes; needed for classification.", default=0, unit="classes"
    )
    ntargets: int = option(
        Whole(validate=Range(0, 10**6)),
        "Number of values to predict; needed for regression.",
        default=0,
        unit="targets",
    )
    regression: bool = option(Flag(), "Whether numbers are predicted rather than classes.", default=False)
    multi_label: bool = option(
        Flag(),
        "Whether each class has a label column of its own: 0 or 1, or with `regression` a share between them.",
        default=False,
    )
    class_weights: tuple[float, ...] = option(
        Several(Single(), validate=Range(0.0)),
        "How much a row of each class counts in training, one number per class. Default: 1 for all.",
        default=(),
    )
    ignore_label: int | None = option(
        Whole(validate=Range(-(2**31), 2**31 - 1)),
        "Label of rows that count neither in training nor in measures. Default: none.",
    )
    objective: str = option(
        Text(validate=Choice(*CLASSIFICATION, SOFTMAX, *REGRESSION)),
        "What is minimised. Default: multi:softprob for classification, reg:squarederror for regression, "
        "binary:logistic or reg:logistic for several labels per row.",
        default="",
    )
    booster: str = option(
        Text(validate=Choice("gbtree", "gblinear", "dart")),
        "Kind of model that is boosted.",
        default="gbtree",
    )
    iterations: int = option(
        Whole(validate=Range(1, 10**7)),
        "Number of boosting rounds; needed to train.",
        default=0,
        unit="rounds",
    )
    test_interval: int = option(
        Whole(validate=Range(1, 10**9)),
        "Rounds between two tests; the last round is always tested.",
        default=1,
        unit="rounds",
    )
    resume: bool = option(
        Flag(),
        "Whether to go on with the model in the repository, up to `iterations` rounds in all, and not to start anew.",
        default=False,
    )
    seed: int = option(Whole(validate=Range(0, 2**31 - 1)), "Seed of row and column sampling.", default=0)
    save_period: int = option(
        Whole(validate=Range(0, 10**9)),
        "Rounds between two models kept in the repository besides the last; 0 keeps the last only.",
        default=0,
        unit="rounds",
    )
    base_score: tuple[float, ...] = option(
        Several(Single()),
        "Prediction before the first round, one number or one for each class or target. Default: estimated from the "
        "labels by xgboost.",
        default=(),
    )
    eval_metric: tuple[str, ...] = option(
        Several(Text()),
        "xgboost's own metrics, computed on the test set besides the measures asked.",
        default=(),
    )
    num_feature: int = option(
        Whole(validate=Range(0, 2**31 - 1)),
        "Number of features, to check the data against; 0 takes it from the data.",
        default=0,
        unit="features",
    )
    db: bool = option(Flag(), "The same as `db` of the input.", default=False)
    gpu: bool = option(Flag(), "Whether a GPU is used.", default=False)
    gpuid: tuple[int, ...] = option(
        Several(Whole(), validate=Range(-1, 2**31 - 1)), "Which of the worker's GPUs is used; -1 for any.", default=(0,)
    )
    booster_params: BoosterOptions = option(  # noqa: RUF009  # a field, made anew each time
        Group(BoosterOptions), "How each tree is grown.", factory=BoosterOptions
    )

    @property
    def is_regression(self) -> bool:
        """Whether numbers are predicted, by flag, by objective, or because only targets are counted."""
        return self.regression or self.objective in REGRESSION or (self.ntargets > 0 and self.nclasses == 0)

    @property
    def target(self) -> Target:
        """What the labels are."""
        if self.multi_label:
            is_soft = self.regression or self.objective in REGRESSION
            return Target("soft_labels" if is_soft else "multi_label", classes=self.nclasses or self.ntargets)
        if self.is_regression:
            return Target("regression", targets=self.ntargets)
        return Target("classification", classes=self.nclasses, ignored=self.ignore_label)

    @property
    def wants_previous(self) -> bool:
        """Whether the training needs the files that the repository holds."""
        return self.resume

    @property
    def test_initialization(self) -> bool:
        """Whether to test before the first round: never, as there is no model yet."""
        return False

    @property
    def effective_objective(self) -> str:
        """The objective in the words of xgboost 3."""
        if not self.objective:
            return {
                "regression": "reg:squarederror",
                "multi_label": MULTI_LABEL,
                "soft_labels": SOFT_LABELS,
            }.get(self.target.kind, "multi:softprob")
        return "reg:squarederror" if self.objective == "reg:linear" else self.objective


#: Known names of DeepDetect's `mllib` that have no meaning for xgboost, with the reason.
ELSEWHERE = {
    **dict.fromkeys(
        (
            key
            for each in fields(BoosterOptions)
            for key in (each.metadata["key"] or each.name, *each.metadata["other_keys"])
        ),
        "it belongs into parameters.mllib.booster_params",
    ),
    **dict.fromkeys(
        (
            "template",
            "template_params",
            "net",
            "solver",
            "layers",
            "activation",
            "dropout",
            "bn",
            "finetuning",
            "freeze_traced",
            "engine",
            "loss",
            "scaling_temperature",
            "extract_layer",
            "datatype",
            "dataloader_threads",
            "concurrent_predict",
        ),
        "it is an option of neural networks",
    ),
    "autoencoder": "xgboost trains no autoencoders",
}


#: Options that only some boosters know; elsewhere they come back as warnings.
_TREES = frozenset(
    {
        "gamma",
        "max_depth",
        "min_child_weight",
        "max_delta_step",
        "subsample",
        "sampling_method",
        "colsample_bytree",
        "colsample_bylevel",
        "colsample_bynode",
        "tree_method",
        "max_bin",
        "max_leaves",
        "grow_policy",
        "num_parallel_tree",
        "multi_strategy",
        "monotone_constraints",
        "interaction_constraints",
    }
)
_DART = frozenset({"sample_type", "normalize_type", "rate_drop", "one_drop", "skip_drop"})
_LINEAR = frozenset({"feature_selector", "top_k"})
USED = {
    "gbtree": frozenset(each.name for each in fields(BoosterOptions)) - _DART - _LINEAR - {"lambda_bias"},
    "dart": frozenset(each.name for each in fields(BoosterOptions)) - _LINEAR - {"lambda_bias"},
    "gblinear": frozenset(each.name for each in fields(BoosterOptions)) - _TREES - _DART,
}


#: Options that exact does not know, and those of dart that say how trees are dropped when some are.
_NOT_EXACT = frozenset({"max_bin", "max_leaves", "grow_policy"})
_DROPPING = frozenset({"sample_type", "normalize_type", "skip_drop"})
#: Options that only some objectives know.
_OBJECTIVES = {
    "scale_pos_weight": ("binary:logistic", "reg:logistic"),
    "tweedie_variance_power": ("reg:tweedie",),
    "huber_slope": ("reg:pseudohubererror",),
    "quantile_alpha": ("reg:quantileerror",),
}


def check(options: XGBoostOptions) -> list[Warning]:
    """Refuse combinations that cannot work, whatever the data, and name options without effect.

    Raises BadParameter (section "mllib").
    """
    _check_target(options)
    _check_booster(options)
    warnings = []

    def warn(name: str, why: str) -> None:
        warnings.append(Warning(f"parameters.mllib.{name}", f"parameters.mllib.{name} was ignored: {why}"))

    if options.target.kind != "classification":
        for name, is_given in (
            ("class_weights", bool(options.class_weights)),
            ("ignore_label", options.ignore_label is not None),
        ):
            if is_given:
                warn(name, "it needs rows of one class each")
    if options.multi_label and options.nclasses and options.ntargets:
        warn("ntargets", "nclasses says what is learned")
    for each, why in _ignored(options).items():
        warn(f"booster_params.{_key(each)}", why)
    return warnings


def _given(wanted: BoosterOptions) -> list[str]:
    """Fields of `booster_params` that are not at their default."""
    defaults = BoosterOptions()
    return [each.name for each in fields(wanted) if getattr(wanted, each.name) != getattr(defaults, each.name)]


def _ignored(options: XGBoostOptions) -> dict[str, str]:
    """Fields of `booster_params` that are not at their default and have no effect, with the reason."""
    wanted, booster, objective = options.booster_params, options.booster, options.effective_objective
    found = {}
    for each in _given(wanted):
        if each not in USED[booster]:
            found[each] = f"the booster {booster} does not know it"
        elif objective not in _OBJECTIVES.get(each, (objective,)):
            found[each] = f"the objective {objective} does not know it"
        elif each in _NOT_EXACT and wanted.tree_method == "exact":
            found[each] = "the tree_method exact does not know it"
        elif each in _DROPPING and wanted.rate_drop == 0 and not wanted.one_drop:
            found[each] = "dart drops no tree without rate_drop or one_drop"
        elif each == "sampling_method" and wanted.subsample == 1:
            found[each] = "all rows are taken, as subsample is 1"
        elif each == "top_k" and wanted.feature_selector == "cyclic":
            found[each] = "the feature_selector cyclic looks at all features"
    return found


def used(options: XGBoostOptions) -> list[str]:
    """Fields of `booster_params` that xgboost is told: those with effect that are not at their default, and those
    that the objective has no default for."""
    ignored = _ignored(options)
    needed = ["quantile_alpha"] if options.effective_objective == "reg:quantileerror" else []
    given = [each for each in _given(options.booster_params) if each not in ignored]
    return given + [each for each in needed if each not in given]


def _key(field: str) -> str:
    """What a field of `booster_params` is called in JSON."""
    found: str | None = BoosterOptions.__dataclass_fields__[field].metadata["key"]
    return found or field


def _refuse(name: str, message: str) -> None:
    raise BadParameter(name=f"parameters.mllib.{name}", section="mllib", message=message)


def _check_target(options: XGBoostOptions) -> None:
    """Refuse what cannot be learned."""
    objective, classes = options.objective, options.target.classes
    if objective == SOFTMAX:
        _refuse("objective", "use multi:softprob objective instead of multi:softmax")
    if options.is_regression and not options.multi_label:
        if options.ntargets == 0:
            _refuse(
                "ntargets", "number of regression targets is unknown (ntargets == 0); set parameters.mllib.ntargets"
            )
        if objective in CLASSIFICATION:
            _refuse("objective", f"parameters.mllib.objective is {objective!r}, which is no regression")
        if objective == "reg:quantileerror" and options.ntargets > 1:
            _refuse(
                "objective", f"reg:quantileerror predicts one target; parameters.mllib.ntargets is {options.ntargets}"
            )
    else:
        if classes == 0:
            _refuse("nclasses", "number of classes is unknown (nclasses == 0); set parameters.mllib.nclasses")
        if classes == 1:
            _refuse("nclasses", "parameters.mllib.nclasses is 1; it must be at least 2 to tell classes apart")
    kind = options.target.kind
    if kind == "classification":
        if objective.startswith("binary:") and classes != 2:
            _refuse("nclasses", f"parameters.mllib.nclasses is {classes}; {objective} needs 2")
        if options.class_weights and len(options.class_weights) != classes:
            _refuse(
                "class_weights",
                f"parameters.mllib.class_weights has {len(options.class_weights)} numbers; "
                f"parameters.mllib.nclasses is {classes}",
            )
        if options.class_weights and not any(options.class_weights):
            _refuse("class_weights", "parameters.mllib.class_weights is 0 for every class; nothing would be learned")
    wanted = {"multi_label": MULTI_LABEL, "soft_labels": SOFT_LABELS}.get(kind)
    if wanted is not None and options.effective_objective != wanted:
        with_regression = " with regression" if kind == "soft_labels" else ""
        _refuse(
            "objective",
            f"parameters.mllib.objective is {objective!r}; multi_label{with_regression} needs {wanted!r}",
        )
    outputs = options.ntargets if kind == "regression" else 1 if objective.startswith("binary:") else classes
    if kind == "multi_label":
        outputs = classes
    if len(options.base_score) > 1 and len(options.base_score) != outputs:
        _refuse(
            "base_score",
            f"parameters.mllib.base_score has {len(options.base_score)} numbers; give one, or one for each of the "
            f"{outputs} {'targets' if kind == 'regression' else 'classes'}",
        )


def _check_booster(options: XGBoostOptions) -> None:
    """Refuse ways to grow trees that exclude each other."""
    wanted = options.booster_params
    if options.booster == "gblinear":
        return
    if wanted.colsample_bynode < 1 and wanted.tree_method == "exact":
        path = "booster_params.colsample_bynode"
        _refuse(path, f"parameters.mllib.{path} needs the tree_method hist or approx, not exact")
    if wanted.max_depth == 0 and wanted.tree_method == "exact":
        path = "booster_params.max_depth"
        _refuse(path, f"parameters.mllib.{path} 0, no limit, needs the tree_method hist or approx, not exact")
    for name in ("sampling_method", "multi_strategy"):
        value = getattr(wanted, name)
        if value not in ("gradient_based", "multi_output_tree"):
            continue
        path = f"booster_params.{name}"
        if wanted.tree_method not in ("auto", "hist"):
            _refuse(path, f"parameters.mllib.{path} {value!r} needs the tree_method hist, not {wanted.tree_method}")
        if name == "multi_strategy" and options.booster != "gbtree":
            _refuse(path, f"parameters.mllib.{path} {value!r} needs the booster gbtree, not {options.booster}")


def check_input(options: XGBoostOptions, input: Any) -> None:
    """Refuse ways to train that cannot read their tables from disk. Raises BadParameter (section "mllib")."""
    if not input.db:
        return
    if options.booster == "gblinear":
        _refuse("booster", "the booster gblinear needs its table in memory; train without parameters.input.db")
    method = options.booster_params.tree_method
    if method not in ("auto", "hist"):
        path = "booster_params.tree_method"
        _refuse(
            path,
            f"parameters.mllib.{path} is {method!r}, which needs its table in memory; use 'hist', or train without "
            "parameters.input.db",
        )
