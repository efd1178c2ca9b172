"""Options of the libraries `torch` and `caffe`: `parameters.mllib` of services, trainings and predictions.

Both names stand for one engine. They differ in defaults, in how a regression is measured, and in the files of a model.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from ml.errors import BadParameter
from ml.options import net, solver
from ml.options.loading import Choice, Flag, Group, Range, Real, Several, Text, Warning, Whole, option
from ml.options.net import NetOptions
from ml.options.solver import Defaults, ResolvedOptions, SolverOptions, defaults_of
from ml.options.target import Target

#: Networks that can be asked for by name; each is built by a module of `ml/templates/`.
TEMPLATES = ("lregression", "mlp")
ACTIVATIONS = ("relu", "prelu", "elu", "sigmoid", "tanh", "swish")
#: Hidden layers of `mlp` when the request names none.
LAYERS_DEFAULT = (50,)
#: Rows of a batch when the request does not say.
BATCH_SIZE = {"torch": 1, "caffe": 32}


class _Lower(Text):
    """A text that is the same in capitals and small letters; loads in small ones."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).lower()


class _Upper(Text):
    """A text that is the same in capitals and small letters; loads in capitals."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).upper()


@dataclass(frozen=True)
class TorchOptions:
    """Which network is trained, for what, and how."""

    library: ClassVar[str] = "torch"

    # ---- what is learned
    nclasses: int = option(
        Whole(validate=Range(0, 10**6)), "Number of classes; needed for classification.", default=0, unit="classes"
    )
    ntargets: int = option(
        Whole(validate=Range(0, 10**6)),
        "Number of values to predict; needed for regression.",
        default=0,
        unit="targets",
    )
    regression: bool = option(
        Flag(),
        "Whether numbers are predicted rather than classes; with `multi_label`, a share between 0 and 1 per class.",
        default=False,
    )
    multi_label: bool = option(
        Flag(), "Whether each class is there or not, independently of the others.", default=False
    )
    autoencoder: bool = option(
        Flag(), "Whether the network learns to give back its own input; rows need no label then.", default=False
    )
    class_weights: tuple[float, ...] = option(
        Several(Real(), validate=Range(0.0)),
        "How much each class counts in the loss, one weight per class. Default: 1 for all.",
        default=(),
    )
    ignore_label: int | None = option(
        Whole(validate=Range(-(2**31), 2**31 - 1)),
        "Label of a classification whose rows count neither in the loss nor in measures.",
    )
    loss: str = option(
        _Upper(validate=Choice("L1", "L2")),
        "Distance that a regression or an autoencoder makes small: absolute or squared. Default: L1 for a regression "
        "with torch, otherwise L2.",
        default="",
    )

    # ---- the network
    template: str = option(
        _Lower(),
        "Network that is built, one of " + ", ".join(TEMPLATES) + "; where it is left out, the one of the model in the "
        "repository.",
        default="",
    )
    layers: tuple[int, ...] = option(
        Several(Whole(), validate=Range(1, 10**6)),
        "Units of each hidden layer of mlp. Default: one layer of 50.",
        default=(),
        unit="units",
    )
    activation: str = option(
        _Lower(validate=Choice(*ACTIVATIONS)),
        "What follows each hidden layer of mlp, in capitals or not. Default: relu.",
        default="",
    )
    dropout: tuple[float, ...] = option(
        Several(Real(), validate=Range(0.0, 1.0)),
        "Share of the units of a hidden layer of mlp, below 1, that each training step leaves out: one for all layers "
        "or one for each.",
        default=(0.0,),
    )
    bn: bool = option(Flag(), "Whether the hidden layers of mlp are normalised over each batch.", default=False)

    # ---- what it starts from
    resume_here: bool = option(
        Flag(),
        "Whether to go on with the training in the repository up to `solver.iterations` in all, rather than to start "
        "anew; the same as `solver.resume`.",
        default=False,
        key="resume",
    )
    finetuning: bool = option(
        Flag(),
        "Whether to start from weights in the repository, or those of `model.weights`, wherever their shapes fit the "
        "network; layers that do not fit, such as the last one for other classes, start anew.",
        default=False,
    )
    freeze_traced: bool = option(
        Flag(), "Whether `finetuning` trains the last layer only and leaves the others as they are.", default=False
    )

    # ---- how it is computed
    solver: SolverOptions = option(  # noqa: RUF009  # a field, made anew each time
        Group(SolverOptions, elsewhere=solver.ELSEWHERE),
        "How weights follow from gradients, and for how long.",
        factory=SolverOptions,
    )
    net: NetOptions = option(  # noqa: RUF009  # a field, made anew each time
        Group(NetOptions, elsewhere=net.ELSEWHERE), "How the data go through the network.", factory=NetOptions
    )
    mixed_precision: str = option(
        _Lower(validate=Choice("fp16", "bf16")),
        "Type of most numbers in training, where the weights stay single: fp16 on a GPU, with a loss that is scaled, "
        "or bf16. Default: none, all is single.",
        default="",
    )
    datatype: str = option(
        _Lower(validate=Choice("fp16", "fp32", "fp64")),
        "Type of the numbers that predictions are computed with. Default: that of the training or fp32.",
        default="",
    )
    gpu: bool = option(Flag(), "Whether a GPU is used.", default=False)
    gpuid: tuple[int, ...] = option(
        Several(Whole(), validate=Range(-1, 2**31 - 1)),
        "Which of the worker's GPUs is used: the first that is named; -1 for any.",
        default=(0,),
    )
    db: bool = option(Flag(), "The same as `db` of the input.", default=False)

    # ---- predictions
    scaling_temperature: float | None = option(
        Real(validate=Range(0.0, above=True)),
        "What the outputs of the last layer are divided by before they become probabilities that add up to 1. "
        "Default: that of the training or 1.",
    )
    extract_layer: str = option(
        Text(),
        "Layer whose values are the prediction: ip0, ip1, … for the hidden layers and the last one, which is also "
        "called last or final.",
        default="",
    )

    @property
    def resume(self) -> bool:
        """Whether to go on with the training in the repository, wherever the request says so."""
        return self.resume_here or self.solver.resume

    @property
    def wants_previous(self) -> bool:
        """Whether the training needs the files that the repository holds: always, as it starts from weights there."""
        return True

    @property
    def is_regression(self) -> bool:
        """Whether numbers are predicted, by flag or because only targets are counted."""
        return self.regression or (self.ntargets > 0 and self.nclasses == 0 and not self.multi_label)

    @property
    def target(self) -> Target:
        """What the labels are."""
        if self.autoencoder:
            return Target("autoencoder")
        if self.multi_label:
            return Target("soft_labels" if self.regression else "multi_label", classes=self.nclasses or self.ntargets)
        if self.is_regression:
            return Target("regression", targets=self.ntargets)
        return Target("classification", classes=self.nclasses, ignored=self.ignore_label)

    @property
    def distance(self) -> str:
        """What a regression or an autoencoder makes small: "L1", "L2" or "euclidean".

        L1 and L2 are means over rows and targets; euclidean, which is L2 with caffe, is half the squared distance of a
        row, and its mean over rows, so that learning rates known from there do here what they do there.
        """
        wanted = self.loss or ("L1" if self.library == "torch" and not self.autoencoder else "L2")
        return "euclidean" if wanted == "L2" and self.library == "caffe" and not self.autoencoder else wanted

    @property
    def hidden(self) -> tuple[int, ...]:
        """Units of each hidden layer."""
        return () if self.template == "lregression" else self.layers or LAYERS_DEFAULT

    @property
    def dropouts(self) -> tuple[float, ...]:
        """Dropout of each hidden layer."""
        return self.dropout * len(self.hidden) if len(self.dropout) == 1 else self.dropout[: len(self.hidden)]

    @property
    def batch_size(self) -> int:
        """Rows of a batch in training."""
        return self.net.batch_size or BATCH_SIZE[self.library]

    @property
    def defaults(self) -> Defaults:
        """What holds for solver options that are left out."""
        return defaults_of(self.library, self.template)

    @property
    def solving(self) -> ResolvedOptions:
        """The solver options with nothing left open."""
        return self.solver.resolved(self.defaults)

    @property
    def iterations(self) -> int:
        """Number of iterations."""
        return self.solving.iterations

    @property
    def test_interval(self) -> int:
        """Iterations between two tests."""
        return self.solving.test_interval

    @property
    def test_initialization(self) -> bool:
        """Whether to test before the first iteration."""
        return self.solver.test_initialization


@dataclass(frozen=True)
class CaffeOptions(TorchOptions):
    """The same with the defaults of caffe."""

    library: ClassVar[str] = "caffe"


_IMAGES = "it comes later, with models of images"
_DETECTION = "it comes later, with detection"
_SERIES = "it comes later, with time series"
_TEXTS = "it comes later, with models of texts"

#: Known names of DeepDetect's `mllib` that have no effect here, with the reason.
ELSEWHERE = {
    "seed": "parameters.input.seed decides about every random draw, those of networks too",
    "engine": "torch itself chooses how convolutions are computed",
    "retain_graph": "the graph of each batch is used once, so that there is nothing to retain it for",
    "concurrent_predict": "a process predicts for one request at a time; more workers predict for more at once",
    "dataloader_threads": "it comes later, with images; rows of tables are gathered in microseconds",
    "forward_method": "it comes later, with traced models",
    "jit_compiler_params": "it comes later, with traced models",
    "template_params": "it comes later, with templates that have parameters of their own",
    **dict.fromkeys(
        (
            "crop_size",
            "test_crop_samples",
            "rotate",
            "mirror",
            "cutout",
            "noise",
            "distort",
            "geometry",
            "segmentation",
            "vit_flavor",
            "visformer_flavor",
            "realformer",
        ),
        _IMAGES,
    ),
    **dict.fromkeys(
        (
            "ssd_expand_prob",
            "ssd_max_expand_ratio",
            "ssd_mining_type",
            "ssd_neg_pos_ratio",
            "ssd_neg_overlap",
            "ssd_keep_top_k",
            "ssd_overlap_threshold",
        ),
        _DETECTION,
    ),
    **dict.fromkeys(
        (
            "timesteps",
            "offset",
            "forecast_timesteps",
            "backcast_timesteps",
            "stackdef",
            "backcast_loss_coef",
            "residual",
        ),
        _SERIES,
    ),
    **dict.fromkeys(("self_supervised", "embedding_size"), _TEXTS),
    **dict.fromkeys(("ctc",), "it comes later, with the recognition of text in images"),
    **dict.fromkeys(
        ("objective", "booster", "booster_params", "eval_metric", "base_score", "num_feature", "save_period"),
        "it is an option of boosted trees",
    ),
}


def check(options: TorchOptions) -> list[Warning]:
    """Refuse combinations that cannot work, whatever the data, and name options without effect.

    Raises BadParameter (section "mllib").
    """
    for name, message in _faults(options):
        raise BadParameter(name=f"parameters.mllib.{name}", section="mllib", message=message)
    warnings = [
        Warning(f"parameters.mllib.{name}", f"parameters.mllib.{name} was ignored: {reason}")
        for name, reason in _unused(options)
    ]
    return warnings + solver.check(options.solver, defaults=options.defaults)


def check_training(options: TorchOptions, input: Any) -> None:
    """Refuse what cannot work in a training, although its service may be made so, as the training tells the rest.

    Raises BadParameter (section "mllib").
    """
    if options.bn and options.hidden and options.batch_size == 1:
        raise BadParameter(
            name="parameters.mllib.bn",
            section="mllib",
            message="parameters.mllib.bn needs parameters.mllib.net.batch_size of at least 2: one row has no variance",
        )


def _faults(options: TorchOptions) -> Iterator[tuple[str, str]]:
    """Options that cannot work: name and message."""
    target = options.target
    if options.autoencoder and options.multi_label:
        yield "autoencoder", "parameters.mllib.autoencoder and multi_label are both true; an autoencoder has no labels"
    if target.kind == "regression" and options.ntargets == 0:
        yield "ntargets", "number of regression targets is unknown (ntargets == 0); set parameters.mllib.ntargets"
    if target.kind in ("classification", "multi_label", "soft_labels") and target.classes == 0:
        yield "nclasses", "number of classes is unknown (nclasses == 0); set parameters.mllib.nclasses"
    if target.kind == "classification" and target.classes == 1:
        yield "nclasses", "parameters.mllib.nclasses is 1; it must be at least 2 to tell classes apart"
    if options.template and options.template not in TEMPLATES:
        # The first words are those of DeepDetect, by which its clients know the error.
        yield (
            "template",
            f"invalid {options.library} model template {options.template[:80]}; it must be one of "
            + ", ".join(TEMPLATES),
        )
    weights = options.class_weights
    if weights and target.classes and len(weights) != target.classes:
        yield (
            "class_weights",
            f"parameters.mllib.class_weights has {len(weights)} weights for {target.classes} classes; give one for "
            "each class",
        )
    if weights and not any(weights):
        yield "class_weights", "parameters.mllib.class_weights are all 0, so that nothing could be learned"
    if 1.0 in options.dropout:
        yield "dropout", "parameters.mllib.dropout is 1, which would leave out everything; it must be below 1"
    if len(options.dropout) not in (1, len(options.hidden)) and options.template == "mlp":
        yield (
            "dropout",
            f"parameters.mllib.dropout has {len(options.dropout)} values for {len(options.hidden)} hidden layers; give "
            "one for all or one for each",
        )


def _unused(options: TorchOptions) -> Iterator[tuple[str, str]]:
    """Options that were given and that nothing uses: name and reason."""
    kind = options.target.kind
    if options.template == "lregression":
        for name in ("layers", "activation", "dropout", "bn"):
            if any(getattr(options, name)) if name == "dropout" else getattr(options, name):
                yield name, "the template lregression has no hidden layers"
    if not options.template:
        for name in ("layers", "dropout", "bn"):
            if any(getattr(options, name)) if name == "dropout" else getattr(options, name):
                yield name, "no template is named, so the network is that of the model in the repository"
    if kind == "autoencoder" and options.nclasses:
        yield "nclasses", "an autoencoder tells no classes apart"
    if kind == "regression" and options.nclasses:
        yield "nclasses", "a regression predicts ntargets numbers"
    if (kind == "autoencoder" or (kind != "regression" and options.nclasses)) and options.ntargets:
        yield (
            "ntargets",
            "an autoencoder predicts its input" if kind == "autoencoder" else "nclasses says what is learned",
        )
    if kind in ("regression", "autoencoder") and options.class_weights:
        yield "class_weights", "there are no classes"
    if kind != "classification" and options.ignore_label is not None:
        yield "ignore_label", "it is for rows that have one class"
    if kind not in ("regression", "autoencoder") and options.loss:
        yield "loss", "the loss of classes is the cross-entropy"
    if kind != "classification" and options.scaling_temperature is not None:
        yield "scaling_temperature", "it is for probabilities that add up to 1"
    if options.finetuning and options.resume and not options.freeze_traced:
        yield "finetuning", "resume goes on with the training in the repository, from its own weights"
    if options.freeze_traced and not options.finetuning:
        yield "freeze_traced", "it is part of finetuning, which is off"
    if len(options.gpuid) > 1:
        yield "gpuid", f"one GPU is used, the first that is named ({options.gpuid[0]})"
    if options.library == "torch" and options.solver.snapshot_prefix:
        yield "solver.snapshot_prefix", "the files of torch are named checkpoint-<iteration> and solver-<iteration>"
