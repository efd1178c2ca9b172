"""Which optimiser does what the options ask for: torch's own wherever it has one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ml.options.solver import ADAPTIVE, AMSGRAD, ResolvedOptions
from ml.solvers.adabelief import AdaBelief
from ml.solvers.madgrad import Madgrad


def make(parameters: list[Tensor], options: ResolvedOptions) -> tuple[torch.optim.Optimizer, str]:
    """The optimiser of the options, and the name of the kind of state that it keeps.

    Optimisers of one kind can go on from each other's state. Where weight decay is decoupled, the groups of those that
    see to it have an entry "decoupled_weight_decay"; the others leave it to the caller.
    """
    rate, decay = options.base_lr, options.weight_decay
    if options.solver_type in ADAPTIVE:
        return _adaptive(parameters, options)
    if options.decoupled_wd:
        decay = 0.0
    match options.solver_type:
        case "ADAGRAD":
            return torch.optim.Adagrad(
                parameters, rate, eps=options.delta, weight_decay=decay, **_way(parameters, fused_on=("cpu",))
            ), "ADAGRAD"
        case "RMSPROP":
            return torch.optim.RMSprop(
                parameters,
                rate,
                alpha=options.rms_decay,
                eps=options.delta,
                weight_decay=decay,
                momentum=options.momentum,
                **_way(parameters),
            ), "RMSPROP" if options.momentum == 0.0 else "RMSPROP with momentum"
        case "ADADELTA":
            return torch.optim.Adadelta(
                parameters, rate, rho=options.momentum, eps=options.delta, weight_decay=decay, **_way(parameters)
            ), "ADADELTA"
        case "MADGRAD":
            return Madgrad(
                parameters, rate, momentum=options.momentum, eps=options.delta, weight_decay=decay
            ), "MADGRAD"
        case _:
            return _descent(parameters, options, decay), "SGD"


def _descent(parameters: list[Tensor], options: ResolvedOptions, decay: float) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(
        parameters,
        options.base_lr,
        momentum=options.momentum,
        weight_decay=decay,
        nesterov=options.solver_type == "NESTEROV",
        **_way(parameters, fused_on=("cpu", "cuda")),
    )
    if options.momentum > 0.0:
        # The fused one cannot take some weights with a buffer and some without, as there are when a part of the
        # network gets its first gradient late. Starting from zero gives the same numbers.
        for parameter in parameters:
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _adaptive(parameters: list[Tensor], options: ResolvedOptions) -> tuple[torch.optim.Optimizer, str]:
    """Adam and its kin."""
    amsgrad = options.solver_type in AMSGRAD
    common: dict[str, Any] = {
        "lr": options.base_lr,
        "betas": (options.beta1, options.beta2),
        "eps": options.delta,
        "weight_decay": options.weight_decay,
        "decoupled_weight_decay": options.decoupled_wd,
    }
    kind = " with amsgrad" if amsgrad else ""
    if options.adabelief:
        return AdaBelief(parameters, **common, rectified=options.rectified, amsgrad=amsgrad), f"ADABELIEF{kind}"
    if options.rectified:
        return torch.optim.RAdam(parameters, **common, **_way(parameters)), "ADAM"
    return torch.optim.Adam(
        parameters, **common, amsgrad=amsgrad, **_way(parameters, fused_on=("cpu", "cuda"))
    ), f"ADAM{kind}"


def _way(parameters: list[Tensor], fused_on: tuple[str, ...] = ()) -> dict[str, Any]:
    """How torch goes about a step: in one kernel for all weights, or in one per operation, or weight by weight.

    All of them work number by number, without sums whose order could vary, so that the same machine gives the same
    weights again.
    """
    devices = {parameter.device.type for parameter in parameters}
    if fused_on and devices <= set(fused_on) and all(parameter.is_floating_point() for parameter in parameters):
        return {"fused": True}
    return {"foreach": devices <= {"cpu", "cuda"}}
