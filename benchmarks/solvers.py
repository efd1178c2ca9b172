"""A step of a solver against torch's optimiser of that name with its defaults: same weights, same gradients, in pairs.

The weights are those of a small network, where what stands around the arithmetic counts most.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import torch

from benchmarks.yard import median
from ml.options.solver import SolverOptions
from ml.solvers import Solver

LAYERS, STEPS, PAIRS = (30, 150, 150, 2), 500, 11
_RATE, _MOMENTUM = 1e-4, 0.9
_BARE: dict[str, Callable[[list[torch.Tensor]], torch.optim.Optimizer]] = {
    "SGD": lambda weights: torch.optim.SGD(weights, _RATE, momentum=_MOMENTUM),
    "ADAM": lambda weights: torch.optim.Adam(weights, _RATE),
    "RADAM": lambda weights: torch.optim.RAdam(weights, _RATE),
}


def _weights() -> list[torch.Tensor]:
    """Weights and biases of the network, each with a gradient."""
    numbers = torch.Generator().manual_seed(1)
    made = []
    for inputs, outputs in pairwise(LAYERS):
        for shape in ((outputs, inputs), (outputs,)):
            each = torch.randn(shape, generator=numbers).requires_grad_()
            each.grad = torch.randn(shape, generator=numbers)
            made.append(each)
    return made


def _solver(name: str, weights: list[torch.Tensor]) -> Solver:
    given = SolverOptions(
        solver_type=name,
        base_lr=_RATE,
        weight_decay=0.0,
        momentum=_MOMENTUM if name == "SGD" else None,
        clip=False,
    )
    return Solver(weights, given.resolved())


def _step_us(step: Callable[[], object]) -> float:
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - began) / STEPS * 1e6


def main() -> None:
    """Print microseconds per step and the middle ratio of the pairs, for some solvers."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name, make in _BARE.items():
            ours, bare = _weights(), _weights()
            sides: dict[str, Callable[[], object]] = {"solver": _solver(name, ours).step, "optimiser": make(bare).step}
            found: dict[str, list[float]] = {side: [] for side in sides}
            for pair in range(PAIRS + 1):
                for side in sides if pair % 2 == 0 else reversed(sides):
                    found[side].append(_step_us(sides[side]))
            for one, other in zip(ours, bare, strict=True):
                if not torch.allclose(one, other, rtol=1e-3, atol=1e-4):
                    raise SystemExit(f"{name}: solver and optimiser went different ways")
            # The first pair makes what they keep.
            ratios = [one / other for one, other in zip(found["solver"][1:], found["optimiser"][1:], strict=True)]
            print(
                f"{name}: torch's default {median(found['optimiser'][1:]):.1f} us, solver "
                f"{median(found['solver'][1:]):.1f} us per step, ratio {median(ratios):.3f} (goal 1)",
                flush=True,
            )
    finally:
        torch.set_num_threads(before)


if __name__ == "__main__":
    main()
