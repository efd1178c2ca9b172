"""Learning rates and decay factors as functions of the iteration, counted from 0, and of nothing else.

So a training that is resumed needs to remember the number of its iteration only.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable

from ml.options.solver import ResolvedOptions


class Restarts:
    """Periods that follow each other, each `growth` times as long as the one before; growth is at least 1."""

    def __init__(self, first: float, growth: float) -> None:
        self.first, self.growth = first, growth
        # The period asked for last: iterations come in order, so that the next one is found in a step or none.
        self._number, self._start, self._length = 0, 0.0, first

    @classmethod
    def filling(cls, iterations: int, periods: int, growth: float) -> Restarts:
        """So many periods that together are as long as the training.

        For a growth of 2 the first one has iterations / (2^periods - 1).
        """
        return cls(iterations / sum(growth**number for number in range(periods)), growth)

    def position(self, iteration: int) -> tuple[int, float]:
        """Number of the period that holds an iteration, from 0, and how much of it is over, from 0 to below 1."""
        if iteration < self._start:
            self._number, self._start, self._length = 0, 0.0, self.first
        while iteration >= self._start + self._length:
            self._number += 1
            self._start += self._length
            self._length *= self.growth
        return self._number, (iteration - self._start) / self._length


def _cosine(share: float) -> float:
    """Half a cosine: 1 at the start of a period, 0 at its end."""
    return 0.5 * (1.0 + math.cos(math.pi * share))


def learning_rate(options: ResolvedOptions) -> Callable[[int], float]:
    """The learning rate of each iteration; with `b` for base_lr and `i` for the iteration it is

    fixed: b; step: b gamma^floor(i / stepsize); multistep: b gamma^(number of stepvalues <= i); exp: b gamma^i;
    inv: b (1 + gamma i)^-power; poly: b (1 - i / iterations)^power; sigmoid: b / (1 + exp(-gamma (i - stepsize))),
    which falls for a gamma below 0;
    sgdr: min_lr + (h - min_lr) (1 + cos(pi t)) / 2, where t is the share of the period that is over and h, the highest
    rate of the n-th period, is b lr_mult^n or min_lr, whichever is larger. Periods grow by p_mult; the first one has
    `period` iterations, or else as many as let the last of `ncycles` periods end with the training.

    During the first warmup_iter iterations it is warmup_lr + (b - warmup_lr) i / warmup_iter instead; the policy goes
    on from there as if it had counted all the time.

    Source: the comment on learning rate policies in Caffe's caffe.proto, whose iterations count from 0 as well;
    Loshchilov and Hutter 2017, "SGDR: Stochastic Gradient Descent with Warm Restarts", equation 5.
    """
    policy = _policy(options)
    if options.warmup_iter == 0:
        return policy
    start, rise, length = options.warmup_lr, options.base_lr - options.warmup_lr, options.warmup_iter

    def warmed_up(iteration: int) -> float:
        return start + rise * iteration / length if iteration < length else policy(iteration)

    return warmed_up


def _policy(options: ResolvedOptions) -> Callable[[int], float]:
    base, gamma, power = options.base_lr, options.gamma, options.power
    stepsize, stepvalue, iterations = options.stepsize, options.stepvalue, options.iterations
    match options.lr_policy:
        case "fixed":
            return lambda _: base
        case "step":
            return lambda i: base * gamma ** (i // stepsize)
        case "multistep":
            return lambda i: base * gamma ** bisect_right(stepvalue, i)
        case "exp":
            return lambda i: base * gamma**i
        case "inv":
            return lambda i: base * (1.0 + gamma * i) ** -power
        case "poly":
            return lambda i: base * max(0.0, 1.0 - i / iterations) ** power
        case "sigmoid":
            return lambda i: base * _sigmoid(gamma * (i - stepsize))
        case "sgdr":
            return _warm_restarts(options)
    raise ValueError(f"there is no learning rate policy {options.lr_policy!r}")  # the options let none through


def _sigmoid(x: float) -> float:
    """1 / (1 + exp(-x)); the exponent is never above zero, or it would overflow."""
    if x >= 0.0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x))


def _warm_restarts(options: ResolvedOptions) -> Callable[[int], float]:
    if options.period > 0:
        restarts = Restarts(options.period, options.p_mult)
    else:
        restarts = Restarts.filling(options.iterations, options.ncycles, options.p_mult)
    base, lowest, factor = options.base_lr, options.min_lr, options.lr_mult

    def rate(iteration: int) -> float:
        number, share = restarts.position(iteration)
        return lowest + (max(lowest, base * factor**number) - lowest) * _cosine(share)

    return rate


def decay_factor(options: ResolvedOptions) -> Callable[[int], float] | None:
    """What the decoupled weight decay of each iteration is multiplied with; None when it is 1 in all of them.

    It is (1 + cos(pi t)) / 2, where t is the share of the period that is over. There are decoupled_wd_periods of them,
    which grow by decoupled_wd_mult, and the last one ends with the training.

    Source: Loshchilov and Hutter 2019, "Decoupled Weight Decay Regularization", equation 15. There the factor scales
    the step as well; here the step is left to the learning rate's own policy, sgdr with the same periods if wanted.
    """
    if not options.decoupled_wd or options.decoupled_wd_periods == 0:
        return None
    restarts = Restarts.filling(options.iterations, options.decoupled_wd_periods, options.decoupled_wd_mult)
    return lambda iteration: _cosine(restarts.position(iteration)[1])
