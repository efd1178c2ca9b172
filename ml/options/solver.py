"""Options of the solver of neural networks: `parameters.mllib.solver` of a training."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any

from ml.errors import BadParameter
from ml.options.loading import Choice, Flag, Range, Real, Several, Text, Warning, Whole, option

SOLVERS = (
    "SGD",
    "NESTEROV",
    "SGDW",
    "ADAGRAD",
    "RMSPROP",
    "ADADELTA",
    "ADAM",
    "AMSGRAD",
    "ADAMW",
    "AMSGRADW",
    "RADAM",
    "RANGER",
    "RANGER_PLUS",
    "MADGRAD",
)
POLICIES = ("fixed", "step", "multistep", "exp", "inv", "poly", "sigmoid", "sgdr")

#: Solvers that keep running averages of the gradients and of their squares.
ADAPTIVE = frozenset({"ADAM", "AMSGRAD", "ADAMW", "AMSGRADW", "RADAM", "RANGER", "RANGER_PLUS"})
AMSGRAD = frozenset({"AMSGRAD", "AMSGRADW"})
RANGERS = frozenset({"RANGER", "RANGER_PLUS"})
#: Solvers whose weight decay shrinks the weights themselves and leaves the gradients alone.
DECOUPLED = frozenset({"SGDW", "ADAMW", "AMSGRADW"})

#: Known names of DeepDetect's solvers that have no meaning here, with the reason.
ELSEWHERE = {
    "adamp": "no solver projects its steps; lookahead and gradient_centralization are what comes nearest",
    "sam": "every step takes one gradient only, and sharpness-aware minimisation needs two",
    "sam_rho": "every step takes one gradient only, and sharpness-aware minimisation needs two",
    "swa": "the weights of a training are not averaged; lookahead is what comes nearest",
}


class _Upper(Text):
    """A text that is the same in capitals and small letters; loads in capitals."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).upper()


class _Lower(Text):
    """A text that is the same in capitals and small letters; loads in small ones."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **kwargs: Any) -> str:
        return super()._deserialize(value, attr, data, **kwargs).lower()


@dataclass(frozen=True)
class Defaults:
    """What holds for options that a request leaves out, where that depends on the library and the template."""

    iterations: int = 1
    test_interval: int = 1
    snapshot: int = 0
    base_lr: float = 0.0001
    lr_policy: str = "fixed"
    momentum: float = 0.0
    weight_decay: float = 0.0
    decoupled_wd_periods: int = 0


TORCH_DEFAULTS = Defaults()
#: Those of the template `mlp`, whose own solver file they stand for.
CAFFE_DEFAULTS = Defaults(
    iterations=400_000,
    test_interval=100,
    snapshot=400_000,
    base_lr=0.1,
    momentum=0.9,
    decoupled_wd_periods=4,
)
CAFFE_LREGRESSION_DEFAULTS = replace(CAFFE_DEFAULTS, lr_policy="inv", weight_decay=0.0005)


def defaults_of(library: str, template: str = "") -> Defaults:
    """The defaults of a library ("torch", "caffe", "caffe2") and, with caffe, of a template."""
    if library == "torch":
        return TORCH_DEFAULTS
    return CAFFE_LREGRESSION_DEFAULTS if template == "lregression" else CAFFE_DEFAULTS


#: Defaults that depend on another option; a policy that is absent needs the option, or does not use it.
_GAMMA = {"step": 0.1, "multistep": 0.1, "inv": 0.0001}
_POWER = {"inv": 0.75, "poly": 1.0}
_MOMENTUM = {"NESTEROV": 0.9, "MADGRAD": 0.9, "ADADELTA": 0.9, "RMSPROP": 0.0}
_DELTA = {"ADAGRAD": 1e-10, "ADADELTA": 1e-6, "MADGRAD": 1e-6}
_RMS_DECAY = 0.99
_BETA1, _BETA2 = 0.9, 0.999


@dataclass(frozen=True)
class SolverOptions:
    """How weights follow from gradients, for how long, and what is kept and tested on the way.

    None stands for a default that depends on the library, on the template or on other options, see `resolved`.
    """

    # ---- how long, and what happens meanwhile
    iterations: int | None = option(
        Whole(validate=Range(1, 10**9)),
        "Number of steps of the solver. Default: 1 with torch, 400000 with caffe.",
        unit="iterations",
    )
    iter_size: int = option(
        Whole(validate=Range(1, 10**6)),
        "Batches whose mean gradient makes one step.",
        default=1,
        unit="batches",
    )
    test_interval: int | None = option(
        Whole(validate=Range(1, 10**9)),
        "Iterations between two tests; the last iteration is always tested. Default: 1 with torch, 100 with caffe.",
        unit="iterations",
    )
    test_initialization: bool = option(Flag(), "Whether to test before the first iteration.", default=False)
    snapshot: int | None = option(
        Whole(validate=Range(0, 10**9)),
        "Iterations between two models kept in the repository besides the best and the last; 0 keeps no others. "
        "Default: 0 with torch, 400000 with caffe.",
        unit="iterations",
    )
    snapshot_prefix: str = option(
        Text(),
        "What the names of the model files begin with: letters, digits, dots, hyphens and underscores. "
        "Default: the library's own.",
        default="",
    )
    resume: bool = option(
        Flag(),
        "Whether to go on with the training in the repository up to `iterations` in all, rather than to start anew.",
        default=False,
    )
    rand_skip: int = option(
        Whole(validate=Range(0, 2**31 - 1)),
        "When resuming, a random number of samples up to this one is passed over first.",
        default=0,
        unit="samples",
    )

    # ---- the solver
    solver_type: str = option(
        _Upper(),
        "How weights follow from gradients, in capitals or not: one of " + ", ".join(SOLVERS) + ".",
        default="SGD",
    )
    momentum: float | None = option(
        Real(validate=Range(0.0, 1.0)),
        "Share of the last step that goes into the next, below 1; of its averages for ADADELTA, `beta1` for ADAM and "
        "its kin. Default: for SGD and SGDW 0 with torch and 0.9 with caffe, 0 for RMSPROP, otherwise 0.9.",
    )
    beta1: float | None = option(
        Real(validate=Range(0.0, 1.0)),
        "Decay of the average of gradients of ADAM and its kin, below 1. Default: 0.9.",
    )
    beta2: float | None = option(
        Real(validate=Range(0.0, 1.0)),
        "Decay of the average of squared gradients of ADAM and its kin, below 1. Default: 0.999.",
        other_keys=("momentum2",),
    )
    rms_decay: float | None = option(
        Real(validate=Range(0.0, 1.0)),
        "Decay of the average of squared gradients of RMSPROP, below 1. Default: 0.99.",
    )
    delta: float | None = option(
        Real(validate=Range(0.0, above=True)),
        "Added to denominators to keep them from zero. "
        "Default: 1e-10 for ADAGRAD, 1e-06 for ADADELTA and MADGRAD, otherwise 1e-08.",
    )
    weight_decay: float | None = option(
        Real(validate=Range(0.0)),
        "Weight of the L2 penalty. Default: 0; 0.0005 for lregression with caffe.",
    )
    decoupled_wd: bool = option(
        Flag(),
        "Whether `weight_decay` shrinks the weights rather than being added to the gradients; "
        "always so for SGDW, ADAMW and AMSGRADW.",
        default=False,
    )
    decoupled_wd_periods: int | None = option(
        Whole(validate=Range(0, 64)),
        "Number of periods in each of which the decoupled weight decay falls to zero along a cosine; "
        "0 keeps it constant. Default: 0 with torch, 4 with caffe.",
        unit="periods",
    )
    decoupled_wd_mult: float = option(
        Real(validate=Range(1.0, 1000.0)),
        "By how much each period of the decoupled weight decay is longer than the one before.",
        default=2.0,
    )
    rectified: bool | None = option(
        Flag(),
        "Whether ADAM and its kin wait with the adaptive step until its variance is known. "
        "Default: true for RADAM, RANGER and RANGER_PLUS.",
    )
    adabelief: bool | None = option(
        Flag(),
        "Whether ADAM and its kin divide by how much a gradient differs from its average. "
        "Default: true for RANGER_PLUS.",
    )
    gradient_centralization: bool | None = option(
        Flag(),
        "Whether the gradient of every output of a layer has its mean taken away. Default: true for RANGER_PLUS.",
    )
    lookahead: bool | None = option(
        Flag(),
        "Whether slow weights follow those of the solver, which go back to them now and then. "
        "Default: true for RANGER and RANGER_PLUS.",
    )
    lookahead_steps: int = option(
        Whole(validate=Range(1, 10**9)),
        "Steps of the solver between two of the slow weights.",
        default=6,
        unit="iterations",
    )
    lookahead_alpha: float = option(
        Real(validate=Range(0.0, 1.0, above=True)),
        "Share of the way to the solver's weights that the slow ones go.",
        default=0.5,
    )
    clip: bool | None = option(Flag(), "Whether gradients are clipped. Default: true for RANGER and RANGER_PLUS.")
    clip_value: float = option(
        Real(validate=Range(0.0)),
        "Largest absolute value of one number of a gradient; 0 for no limit.",
        default=5.0,
    )
    clip_norm: float = option(
        Real(validate=Range(0.0)),
        "Largest L2 norm of all gradients together, after `clip_value`; 0 for no limit.",
        default=100.0,
    )
    lr_dropout: float = option(
        Real(validate=Range(0.0, 1.0)),
        "Probability with which each weight takes part in a step; 1 for always.",
        default=1.0,
    )

    # ---- the learning rate
    base_lr: float | None = option(
        Real(validate=Range(0.0, above=True)),
        "Learning rate that the policy starts from. Default: 0.0001 with torch, 0.1 with caffe.",
    )
    lr_policy: str | None = option(
        _Lower(validate=Choice(*POLICIES)),
        "How the learning rate changes with the iterations. Default: fixed; inv for lregression with caffe.",
    )
    warmup_iter: int = option(
        Whole(validate=Range(0, 10**9)),
        "First iterations, in which the learning rate goes from `warmup_lr` to `base_lr` in a straight line.",
        default=0,
        unit="iterations",
    )
    warmup_lr: float | None = option(
        Real(validate=Range(0.0)), "Learning rate of the first iteration when there is a warm-up. Default: 0."
    )
    gamma: float | None = option(
        Real(),
        "Factor of step, multistep and exp, slope of inv and sigmoid. Default: 0.1 for step and multistep, 0.0001 "
        "for inv; needed for exp and sigmoid.",
    )
    power: float | None = option(
        Real(validate=Range(0.0)), "Exponent of inv and poly. Default: 0.75 for inv, 1 for poly."
    )
    stepsize: int | None = option(
        Whole(validate=Range(1, 10**9)),
        "Iterations between two changes of step; the middle of sigmoid. Needed for both.",
        unit="iterations",
    )
    stepvalue: tuple[int, ...] = option(
        Several(Whole(), validate=Range(1, 10**9)),
        "Iterations at which multistep changes the learning rate, in ascending order. Needed for it.",
        default=(),
        unit="iterations",
    )
    period: int = option(
        Whole(validate=Range(-1, 10**9)),
        "Length of the first period of sgdr; -1 or 0 leaves it to `ncycles`.",
        default=-1,
        unit="iterations",
    )
    ncycles: int = option(
        Whole(validate=Range(1, 64)),
        "Number of periods of sgdr, the last of which ends with the training.",
        default=1,
        unit="periods",
    )
    min_lr: float = option(Real(validate=Range(0.0)), "Learning rate at the end of each period of sgdr.", default=0.0)
    lr_mult: float = option(
        Real(validate=Range(0.0, 1.0, above=True)),
        "Factor from the highest learning rate of one period of sgdr to that of the next.",
        default=1.0,
    )
    p_mult: float = option(
        Real(validate=Range(1.0, 1000.0)),
        "By how much each period of sgdr is longer than the one before.",
        default=2.0,
    )

    @property
    def solver(self) -> str:
        """The solver that is used: the one asked for, in capitals, or SGD when there is none of that name."""
        name = self.solver_type.upper()
        return name if name in SOLVERS else "SGD"

    def resolved(self, defaults: Defaults = TORCH_DEFAULTS) -> ResolvedOptions:
        """The same options with nothing left open: each one tells what the solver really does.

        Flags that the solver cannot heed are false. Options that it does not use have a harmless value.
        """
        solver = self.solver
        policy = defaults.lr_policy if self.lr_policy is None else self.lr_policy.lower()
        momentum = _first(self.momentum, _MOMENTUM.get(solver, defaults.momentum))
        values: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(self)}
        values.update(
            solver_type=solver,
            lr_policy=policy,
            iterations=_first(self.iterations, defaults.iterations),
            test_interval=_first(self.test_interval, defaults.test_interval),
            snapshot=_first(self.snapshot, defaults.snapshot),
            base_lr=_first(self.base_lr, defaults.base_lr),
            weight_decay=_first(self.weight_decay, defaults.weight_decay),
            momentum=momentum,
            # Caffe has no other name for it: there, `momentum` is the first of the two decays of ADAM.
            beta1=_first(self.beta1, self.momentum, _BETA1),
            beta2=_first(self.beta2, _BETA2),
            rms_decay=_first(self.rms_decay, _RMS_DECAY),
            delta=_first(self.delta, _DELTA.get(solver, 1e-8)),
            decoupled_wd=solver in DECOUPLED or (self.decoupled_wd and solver in _USERS["decoupled_wd"]),
            decoupled_wd_periods=_first(self.decoupled_wd_periods, defaults.decoupled_wd_periods),
            rectified=solver in _USERS["rectified"] and _first(self.rectified, solver in RANGERS or solver == "RADAM"),
            adabelief=solver in _USERS["adabelief"] and _first(self.adabelief, solver == "RANGER_PLUS"),
            gradient_centralization=_first(self.gradient_centralization, solver == "RANGER_PLUS"),
            lookahead=_first(self.lookahead, solver in RANGERS),
            clip=_first(self.clip, solver in RANGERS),
            warmup_lr=_first(self.warmup_lr, 0.0),
            gamma=_first(self.gamma, _GAMMA.get(policy, 1.0)),
            power=_first(self.power, _POWER.get(policy, 1.0)),
            stepsize=_first(self.stepsize, 1),
        )
        return ResolvedOptions(**values)


@dataclass(frozen=True)
class ResolvedOptions(SolverOptions):
    """Solver options in which no value is None any more; made by `SolverOptions.resolved`."""

    if TYPE_CHECKING:  # only the types are narrower: names, order and descriptions of the options stay the same
        iterations: int = 0
        test_interval: int = 0
        snapshot: int = 0
        momentum: float = 0.0
        beta1: float = 0.0
        beta2: float = 0.0
        rms_decay: float = 0.0
        delta: float = 0.0
        weight_decay: float = 0.0
        decoupled_wd_periods: int = 0
        rectified: bool = False
        adabelief: bool = False
        gradient_centralization: bool = False
        lookahead: bool = False
        clip: bool = False
        base_lr: float = 0.0
        lr_policy: str = ""
        warmup_lr: float = 0.0
        gamma: float = 0.0
        power: float = 0.0
        stepsize: int = 0


def _first(*values: Any) -> Any:
    """The first value that is not None."""
    return next(value for value in values if value is not None)


#: Which solvers use an option; options of the solver that are not here serve all of them.
_USERS: Mapping[str, frozenset[str]] = {
    "momentum": frozenset(SOLVERS) - {"ADAGRAD"},
    "beta1": ADAPTIVE,
    "beta2": ADAPTIVE,
    "rms_decay": frozenset({"RMSPROP"}),
    "delta": frozenset(SOLVERS) - {"SGD", "NESTEROV", "SGDW"},
    # The rectification is worked out for the average of squares, not for the largest one so far.
    "rectified": ADAPTIVE - AMSGRAD,
    "adabelief": ADAPTIVE,
    # It always draws the weights back towards where they began, so that shrunken ones would not stay so.
    "decoupled_wd": frozenset(SOLVERS) - {"MADGRAD"},
}
#: Which policies use an option.
_POLICY_USERS: Mapping[str, frozenset[str]] = {
    "gamma": frozenset({"step", "multistep", "exp", "inv", "sigmoid"}),
    "power": frozenset({"inv", "poly"}),
    "stepsize": frozenset({"step", "sigmoid"}),
    "stepvalue": frozenset({"multistep"}),
    "period": frozenset({"sgdr"}),
    "ncycles": frozenset({"sgdr"}),
    "min_lr": frozenset({"sgdr"}),
    "lr_mult": frozenset({"sgdr"}),
    "p_mult": frozenset({"sgdr"}),
}
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")
#: The largest number that single-precision weights can hold.
_LARGEST = 3.4e38


def check(
    options: SolverOptions, path: str = "parameters.mllib.solver", defaults: Defaults = TORCH_DEFAULTS
) -> list[Warning]:
    """Refuse combinations that cannot work, and name options without effect.

    path : where the options stand in the request.
    Raises BadParameter (section "mllib").
    """
    final = options.resolved(defaults)
    # Only the first fault is looked for: the later ones may be computed from the value that is at fault.
    for name, value, must in chain(_faults(options, final), _policy_faults(options, final)):
        what = "missing" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
        raise BadParameter(name=f"{path}.{name}", section="mllib", message=f"{path}.{name} is {what}; {must}")
    warnings = [
        Warning(f"{path}.{name}", f"{path}.{name} was ignored: {reason}")
        for name, reason in _unused(options, final, defaults)
    ]
    if options.solver_type.upper() not in SOLVERS:
        near = get_close_matches(options.solver_type.upper(), SOLVERS, n=1)
        hint = f"; did you mean {near[0]}?" if near else "; known are " + ", ".join(SOLVERS)
        name = f"{path}.solver_type"
        warnings.append(Warning(name, f"{name} is {options.solver_type[:80]!r}, which is unknown; SGD is used{hint}"))
    if options.lr_dropout == 0.0:
        name = f"{path}.lr_dropout"
        warnings.append(Warning(name, f"{name} is 0, so that no weight ever changes; 1 turns it off"))
    return warnings


def _faults(options: SolverOptions, final: ResolvedOptions) -> Iterator[tuple[str, Any, str]]:
    """Options that no solver can work with: name, value, and what it must be."""
    for name in ("momentum", "beta1", "beta2", "rms_decay"):
        if getattr(options, name) == 1.0:
            yield name, 1.0, "it must be below 1, or nothing would ever be forgotten"
    if final.solver_type == "NESTEROV" and final.momentum == 0.0:
        yield "momentum", 0.0, "NESTEROV needs one above 0; without momentum, use SGD"
    if final.clip and final.clip_value == 0.0 and final.clip_norm == 0.0:
        yield "clip", "true", "so clip_value or clip_norm must be above 0"
    if options.snapshot_prefix and not _PREFIX.fullmatch(options.snapshot_prefix):
        yield (
            "snapshot_prefix",
            repr(options.snapshot_prefix[:80]),
            "it must be at most 100 letters, digits, dots, hyphens and underscores, and begin with no dot or hyphen",
        )


def _policy_faults(options: SolverOptions, final: ResolvedOptions) -> Iterator[tuple[str, Any, str]]:
    """Options that leave the learning rate open, or make it something else than a finite number above zero."""
    policy, gamma = final.lr_policy, final.gamma
    if options.warmup_iter > final.iterations:
        yield "warmup_iter", options.warmup_iter, f"it must be at most iterations, which is {final.iterations}"
    for name, needing in (
        ("stepsize", ("step", "sigmoid")),
        ("gamma", ("exp", "sigmoid")),
    ):
        if policy in needing and getattr(options, name) is None:
            yield name, None, f"lr_policy {policy} needs it"
    if policy == "multistep":
        if not options.stepvalue:
            yield "stepvalue", None, "lr_policy multistep needs it"
        if any(before >= after for before, after in pairwise(options.stepvalue)):
            yield "stepvalue", list(options.stepvalue), "the iterations must be in ascending order"
    if policy in ("step", "multistep", "exp"):
        if gamma <= 0.0:
            yield "gamma", gamma, f"it must be above 0 for lr_policy {policy}"
        changes = {
            "step": (final.iterations - 1) // final.stepsize,
            "multistep": sum(value < final.iterations for value in final.stepvalue),
            "exp": final.iterations - 1,
        }[policy]
        if math.log(final.base_lr) + changes * math.log(gamma) > math.log(_LARGEST):
            yield "gamma", gamma, f"it must be smaller, as the learning rate is multiplied by it {changes} times"
    if policy == "inv" and gamma < 0.0:
        yield "gamma", gamma, "it must be at least 0 for lr_policy inv"
    if policy == "sgdr":
        if options.period > 0 and options.ncycles > 1:
            yield "period", options.period, f"but ncycles is {options.ncycles}; give one of the two"
        if options.min_lr > final.base_lr:
            yield "min_lr", options.min_lr, f"it must be at most base_lr, which is {final.base_lr:g}"


def _unused(options: SolverOptions, final: ResolvedOptions, defaults: Defaults) -> Iterator[tuple[str, str]]:
    """Options that were set to something else than their default and that nothing uses: name and reason."""
    plain = SolverOptions()
    for name, reason in _reasons(options, final):
        value, default = getattr(options, name), getattr(plain, name)
        # What says "none", "off" or "not given" asks for nothing.
        if value and value != getattr(replace(options, **{name: default}).resolved(defaults), name):
            yield name, reason


def _reasons(options: SolverOptions, final: ResolvedOptions) -> Iterator[tuple[str, str]]:
    """Every option that nothing uses, with the reason."""
    solver, policy = final.solver_type, final.lr_policy
    for name, users in _USERS.items():
        if solver not in users:
            yield name, f"{solver} does not use it"
    for name, users in _POLICY_USERS.items():
        if policy not in users:
            yield name, f"lr_policy {policy} does not use it"
    if solver in ADAPTIVE and options.beta1 is not None and options.momentum != options.beta1:
        yield "momentum", f"it is another name for beta1 with {solver}, which is given too"
    for used, names, reason in (
        (final.lookahead, ("lookahead_steps", "lookahead_alpha"), "lookahead is off"),
        (final.clip, ("clip_value", "clip_norm"), "clip is off"),
        (options.warmup_iter, ("warmup_lr",), "warmup_iter is 0"),
        (
            final.decoupled_wd,
            ("decoupled_wd_periods", "decoupled_wd_mult"),
            f"the weight decay of {solver} is part of the gradients",
        ),
        (not final.decoupled_wd or final.decoupled_wd_periods, ("decoupled_wd_mult",), "decoupled_wd_periods is 0"),
    ):
        if not used:
            for name in names:
                yield name, reason
