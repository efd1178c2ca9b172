"""Options of the library `xgboost`: `parameters.mllib` of services, trainings and predictions."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ml.errors import BadParameter
from ml.options.loading import Choice, Flag, Group, Range, Real, Several, Text, Warning, Whole, option
from ml.options.target import Target

#: Objectives of classification and of regression; the old name of squared error is kept for its users.
CLASSIFICATION = ("multi:softprob", "binary:logistic")
REGRESSION = (
    "reg:linear",
    "reg:squarederror",
    "reg:logistic",
    "reg:squaredlogerror",
    "reg:pseudohubererror",
    "reg:absoluteerror",
    "reg:gamma",
    "reg:tweedie",
    "count:poisson",
)
SOFTMAX = "multi:softmax"


@dataclass(frozen=True)
class BoosterOptions:
    """`booster_params`: how each tree, or the linear model, is grown."""

    eta: float = option(
        Real(validate=Range(0.0, 1.0)),
        "Learning rate: each new tree counts for this share.",
        default=0.3,
        other_keys=("learning_rate",),
    )
    gamma: float = option(
        Real(validate=Range(0.0)),
        "Least loss reduction that a split must bring.",
        default=0.0,
        other_keys=("min_split_loss",),
    )
    max_depth: int = option(Whole(validate=Range(0, 64)), "Deepest tree; 0 for no limit.", default=6, unit="levels")
    min_child_weight: float = option(
        Real(validate=Range(0.0)), "Least sum of instance weights (hessians) in a leaf.", default=1.0
    )
    max_delta_step: float = option(
        Real(validate=Range(0.0)), "Largest step of a leaf's value; 0 for no limit.", default=0.0
    )
    subsample: float = option(
        Real(validate=Range(0.0, 1.0, above=True)), "Share of the rows drawn for each tree.", default=1.0
    )
    colsample_bytree: float = option(
        Real(validate=Range(0.0, 1.0, above=True)),
        "Share of the columns drawn for each tree.",
        default=1.0,
        other_keys=("colsample",),
    )
    colsample_bylevel: float = option(
        Real(validate=Range(0.0, 1.0, above=True)),
        "Share of a tree's columns drawn for each level.",
        default=1.0,
    )
    colsample_bynode: float = option(
        Real(validate=Range(0.0, 1.0, above=True)),
        "Share of a level's columns drawn for each split.",
        default=1.0,
    )
    lambda_: float | None = option(
        Real(validate=Range(0.0)),
        "Weight of the L2 penalty. Default: 1 for trees, 0 for gblinear.",
        key="lambda",
        other_keys=("reg_lambda",),
    )
    alpha: float = option(
        Real(validate=Range(0.0)), "Weight of the L1 penalty.", default=0.0, other_keys=("reg_alpha",)
    )
    lambda_bias: float = option(
        Real(validate=Range(0.0, 0.0)),
        "L2 penalty of the bias of gblinear, which xgboost gave up: only 0 is accepted.",
        default=0.0,
    )
    tree_method: str = option(
        Text(validate=Choice("auto", "exact", "approx", "hist")), "How splits are searched.", default="auto"
    )
    scale_pos_weight: float = option(
        Real(validate=Range(0.0, above=True)),
        "Weight of the positive class against the negative one.",
        default=1.0,
    )
    max_bin: int = option(
        Whole(validate=Range(2, 65536)), "Most bins per feature of hist and approx.", default=256, unit="bins"
    )
    max_leaves: int = option(Whole(validate=Range(0)), "Most leaves of a tree; 0 for no limit.", default=0)
    grow_policy: str = option(
        Text(validate=Choice("depthwise", "lossguide")),
        "Which node is split next by hist and approx.",
        default="depthwise",
    )
    num_parallel_tree: int = option(
        Whole(validate=Range(1, 10000)), "Trees grown in each iteration, as in a random forest.", default=1
    )
    sample_type: str = option(
        Text(validate=Choice("uniform", "weighted")), "How dart picks the trees it drops.", default="uniform"
    )
    normalize_type: str = option(
        Text(validate=Choice("tree", "forest")),
        "How dart weighs new trees against dropped ones.",
        default="tree",
    )
    rate_drop: float = option(Real(validate=Range(0.0, 1.0)), "Share of the trees that dart drops.", default=0.0)
    one_drop: bool = option(Flag(), "Whether dart always drops at least one tree.", default=False)
    skip_drop: float = option(
        Real(validate=Range(0.0, 1.0)), "Probability that dart drops nothing in an iteration.", default=0.0
    )
    feature_selector: str = option(
        Text(validate=Choice("cyclic", "greedy", "thrifty")),
        "In which order gblinear updates its weights; random orders are not offered: they cannot be resumed.",
        default="cyclic",
    )
    top_k: int = option(Whole(validate=Range(0)), "How many features greedy and thrifty look at; 0 for all.", default=0)


@dataclass(frozen=True)
class XGBoostOptions:
    """What is learned and for how long."""

    nclasses: int = option(
        Whole(validate=Range(0)), "Number of classes; needed for classification.", default=0, unit="classes"
    )
    ntargets: int = option(
        Whole(validate=Range(0)),
        "Number of values to predict; needed for regression.",
        default=0,
        unit="targets",
    )
    regression: bool = option(Flag(), "Whether numbers are predicted rather than classes.", default=False)
    objective: str = option(
        Text(validate=Choice(*CLASSIFICATION, SOFTMAX, *REGRESSION)),
        "What is minimised. Default: multi:softprob for classification, reg:squarederror for regression.",
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
        Whole(validate=Range(1)),
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
        Whole(validate=Range(0)),
        "Rounds between two models kept in the repository besides the last; 0 keeps the last only.",
        default=0,
        unit="rounds",
    )
    base_score: float | None = option(
        Real(), "Prediction before the first round. Default: estimated from the labels by xgboost."
    )
    eval_metric: tuple[str, ...] = option(
        Several(Text()),
        "xgboost's own metrics, computed on the test set besides the measures asked.",
        default=(),
    )
    num_feature: int = option(
        Whole(validate=Range(0)),
        "Number of features, to check the data against; 0 takes it from the data.",
        default=0,
        unit="features",
    )
    gpu: bool = option(Flag(), "Whether a GPU is used.", default=False)
    gpuid: tuple[int, ...] = option(
        Several(Whole(validate=Range(-1))), "Which of the worker's GPUs is used; -1 for any.", default=(0,)
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
        if self.is_regression:
            return Target("regression", targets=self.ntargets)
        return Target("classification", classes=self.nclasses)

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
            return "reg:squarederror" if self.is_regression else "multi:softprob"
        return "reg:squarederror" if self.objective == "reg:linear" else self.objective


#: Known names of DeepDetect's `mllib` that have no meaning for xgboost, with the reason.
ELSEWHERE = dict.fromkeys(
    (
        "template",
        "net",
        "solver",
        "finetuning",
        "db",
        "class_weights",
        "dropout",
        "layers",
        "activation",
    ),
    "it is an option of neural networks",
)


#: Options that only some boosters know; elsewhere they come back as warnings.
_TREES = frozenset(
    {
        "gamma",
        "max_depth",
        "min_child_weight",
        "max_delta_step",
        "subsample",
        "colsample_bytree",
        "colsample_bylevel",
        "colsample_bynode",
        "tree_method",
        "max_bin",
        "max_leaves",
        "grow_policy",
        "num_parallel_tree",
    }
)
_DART = frozenset({"sample_type", "normalize_type", "rate_drop", "one_drop", "skip_drop"})
_LINEAR = frozenset({"feature_selector", "top_k"})
USED = {
    "gbtree": frozenset(each.name for each in fields(BoosterOptions)) - _DART - _LINEAR - {"lambda_bias"},
    "dart": frozenset(each.name for each in fields(BoosterOptions)) - _LINEAR - {"lambda_bias"},
    "gblinear": frozenset(each.name for each in fields(BoosterOptions)) - _TREES - _DART,
}


def check(options: XGBoostOptions) -> list[Warning]:
    """Refuse combinations that cannot work, whatever the data, and name options without effect.

    Raises BadParameter (section "mllib").
    """

    def refuse(name: str, message: str) -> None:
        raise BadParameter(name=f"parameters.mllib.{name}", section="mllib", message=message)

    if options.objective == SOFTMAX:
        refuse("objective", "use multi:softprob objective instead of multi:softmax")
    if options.is_regression:
        if options.ntargets == 0:
            refuse("ntargets", "number of regression targets is unknown (ntargets == 0)")
        if options.objective in CLASSIFICATION:
            refuse("objective", f"parameters.mllib.objective is {options.objective!r}, which is no regression")
    else:
        if options.nclasses == 0:
            refuse("nclasses", "number of classes is unknown (nclasses == 0)")
        if options.nclasses == 1:
            refuse("nclasses", "parameters.mllib.nclasses is 1; it must be at least 2 to tell classes apart")
        if options.objective == "binary:logistic" and options.nclasses != 2:
            refuse("nclasses", f"parameters.mllib.nclasses is {options.nclasses}; binary:logistic needs 2")
    warnings = []
    defaults = BoosterOptions()
    for each in fields(BoosterOptions):
        same = getattr(options.booster_params, each.name) == getattr(defaults, each.name)
        if each.name not in USED[options.booster] and not same:
            name = f"parameters.mllib.booster_params.{each.metadata['key'] or each.name}"
            warnings.append(Warning(name, f"{name} was ignored: the booster {options.booster} does not know it"))
    return warnings
