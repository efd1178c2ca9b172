"""What our own optimisers share: every weight counts its own steps, and those with the same count move together."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class CountedOptimizer(torch.optim.Optimizer):
    """An optimiser whose formula needs the number of the step.

    Weights that get their first gradient late start counting then, as with torch's own optimisers.
    """

    def begin(self, group: dict[str, Any], weight: Tensor) -> dict[str, Tensor]:
        """What is kept for a weight, before its first step."""
        raise NotImplementedError

    def move(self, group: dict[str, Any], number: int, weights: list[Tensor], gradients: list[Tensor]) -> None:
        """Do the step of that number, counted from 1, of some weights of a group; `self.state` has what is kept."""
        raise NotImplementedError

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        """Move every weight that has a gradient; there is no use for a closure."""
        for group in self.param_groups:
            together: dict[int, tuple[list[Tensor], list[Tensor]]] = defaultdict(lambda: ([], []))
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state.update(self.begin(group, weight), step=0)
                state["step"] += 1
                weights, gradients = together[state["step"]]
                weights.append(weight)
                gradients.append(weight.grad)
            for number, (weights, gradients) in together.items():
                self.move(group, number, weights, gradients)

    def kept(self, weights: list[Tensor], name: str) -> list[Tensor]:
        """One of the tensors kept for each weight."""
        return [self.state[weight][name] for weight in weights]
