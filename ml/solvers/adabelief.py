"""AdaBelief: Adam that trusts a gradient the more, the nearer it is to its running average."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ml.solvers.counted import CountedOptimizer


class AdaBelief(CountedOptimizer):
    """m = beta1 m + (1 - beta1) g and s = beta2 s + (1 - beta2) (g - m)^2 + eps; with their biases taken out,
    a weight moves by -lr m / (sqrt(s) + eps).

    rectified : as RAdam does, the step is multiplied with the rectification term where the variance of s is tractable
        (rho above 5), and is -lr m where it is not.
    amsgrad : the largest s so far takes the place of s.
    weight_decay : added to the gradients as an L2 penalty; with `decoupled_weight_decay` the weights shrink by
        lr * weight_decay of themselves instead.
    Raises ValueError for `rectified` with `amsgrad`, which nobody has worked out.

    Source: Zhuang et al. 2020, "AdaBelief Optimizer: Adapting Stepsizes by the Belief in Observed Gradients",
    algorithm 2; Liu et al. 2020, "On the Variance of the Adaptive Learning Rate and Beyond", algorithm 2.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        decoupled_weight_decay: bool = False,
        rectified: bool = False,
        amsgrad: bool = False,
    ) -> None:
        if rectified and amsgrad:
            raise ValueError("the rectification is worked out for the average of squares, not for the largest so far")
        super().__init__(
            params,
            {
                "lr": lr,
                "betas": betas,
                "eps": eps,
                "weight_decay": weight_decay,
                "decoupled_weight_decay": decoupled_weight_decay,
                "rectified": rectified,
                "amsgrad": amsgrad,
            },
        )

    def begin(self, group: dict[str, Any], weight: Tensor) -> dict[str, Tensor]:
        """Averages that start from zero."""
        names = ("average", "spread", "largest") if group["amsgrad"] else ("average", "spread")
        return {name: torch.zeros_like(weight) for name in names}

    def move(self, group: dict[str, Any], number: int, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """The formula of the class."""
        beta1, beta2 = group["betas"]
        rate, eps, decay = group["lr"], group["eps"], group["weight_decay"]
        averages, spreads = self.kept(weights, "average"), self.kept(weights, "spread")

        if decay and group["decoupled_weight_decay"]:
            torch._foreach_mul_(weights, 1.0 - rate * decay)
        elif decay:
            gradients = list(torch._foreach_add(gradients, weights, alpha=decay))

        torch._foreach_lerp_(averages, gradients, 1.0 - beta1)
        surprises = torch._foreach_sub(gradients, averages)
        torch._foreach_mul_(spreads, beta2)
        torch._foreach_addcmul_(spreads, surprises, surprises, value=1.0 - beta2)
        torch._foreach_add_(spreads, eps)

        size = rate / (1.0 - beta1**number)
        if group["rectified"]:
            factor = rectification(beta2, number)
            if factor is None:
                torch._foreach_add_(weights, averages, alpha=-size)
                return
            size *= factor
        if group["amsgrad"]:
            largest = self.kept(weights, "largest")
            torch._foreach_maximum_(largest, spreads)
            spreads = largest
        divisors = torch._foreach_sqrt(spreads)
        torch._foreach_div_(divisors, math.sqrt(1.0 - beta2**number))
        torch._foreach_add_(divisors, eps)
        torch._foreach_addcdiv_(weights, averages, divisors, value=-size)


def rectification(beta2: float, step: int) -> float | None:
    """What the adaptive step is multiplied with, or None while the variance of the squares is not tractable.

    step : counted from 1. Source: Liu et al. 2020, as above, algorithm 2, with the limit 5 of its authors' program.
    """
    longest = 2.0 / (1.0 - beta2) - 1.0
    power = beta2**step
    length = longest - 2.0 * step * power / (1.0 - power)
    if length <= 5.0:
        return None
    return math.sqrt((length - 4.0) * (length - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * length))
