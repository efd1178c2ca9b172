"""MADGRAD: momentum and per-weight step sizes by dual averaging."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from ml.solvers.counted import CountedOptimizer


class Madgrad(CountedOptimizer):
    """With w = lr sqrt(k + 1) in the k-th step from 0: s = s + w g and v = v + w g^2, each weight x is drawn towards
    z = x0 - s / (cbrt(v) + eps), where it began as x0: x = momentum x + (1 - momentum) z.

    weight_decay : added to the gradients as an L2 penalty.

    Source: Defazio and Jelassi 2021, "Adaptivity without Compromise: A Momentumized, Adaptive, Dual Averaged Gradient
    Method for Stochastic Optimization", algorithm 1; its c is 1 - momentum.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float,
        *,
        momentum: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "eps": eps, "weight_decay": weight_decay})

    def begin(self, group: dict[str, Any], weight: Tensor) -> dict[str, Tensor]:
        """Where the weight starts, and sums of zero."""
        return {
            "start": weight.detach().clone(),
            "sum": torch.zeros_like(weight),
            "squares": torch.zeros_like(weight),
        }

    def move(self, group: dict[str, Any], number: int, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """The formula of the class."""
        sums, squares = self.kept(weights, "sum"), self.kept(weights, "squares")
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        share = group["lr"] * math.sqrt(number)
        torch._foreach_add_(sums, gradients, alpha=share)
        torch._foreach_addcmul_(squares, gradients, gradients, value=share)
        divisors = torch._foreach_pow(squares, 1.0 / 3.0)
        torch._foreach_add_(divisors, group["eps"])
        goals = torch._foreach_addcdiv(self.kept(weights, "start"), sums, divisors, value=-1.0)
        torch._foreach_lerp_(weights, goals, 1.0 - group["momentum"])
