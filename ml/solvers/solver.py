"""One step after the other: the gradients made ready, the learning rate of the iteration, the optimiser, lookahead."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, cast

import torch
from torch import Tensor

from ml.errors import BadParameter, ModelUnusable
from ml.options.solver import ResolvedOptions
from ml.solvers import optimizers, schedules


class Solver:
    """Moves weights against their gradients, as the options say.

    A step clips the gradients, by value and then by their total norm, centralizes them, moves the weights with the
    learning rate of the iteration, leaves out those that learning rate dropout drew, and lets the slow weights of
    lookahead follow.

    Sources: Zhang et al. 2019, "Lookahead Optimizer: k steps forward, 1 step back", algorithm 1; Yong et al. 2020,
    "Gradient Centralization: A New Optimization Technique for Deep Neural Networks", equation 1; Lin et al. 2019,
    "Dropout for SGD: Learning Rate Dropout", algorithm 1; Loshchilov and Hutter 2019, "Decoupled Weight Decay
    Regularization", algorithms 1 and 2, where the decay is scaled by the learning rate here, as in torch.optim.AdamW.

    iteration : number of calls of `step` so far.
    """

    def __init__(self, parameters: Iterable[Tensor], options: ResolvedOptions, seed: int = 0) -> None:
        """A solver of the parameters that want a gradient.

        parameters : of the network, on the device that it is trained on.
        seed : of the draws of learning rate dropout, which has a generator of its own.
        Raises ValueError when no parameter wants a gradient.
        """
        self.iteration = 0
        self._options = options
        self._parameters = [parameter for parameter in parameters if parameter.requires_grad]
        self._optimizer, self._kind = optimizers.make(self._parameters, options)
        self._rate_of = schedules.learning_rate(options)
        self._decay_factor_of = schedules.decay_factor(options)
        self._rate = self._rate_of(0)
        self._set("lr", self._rate)
        #: Steps that really moved the weights: those that a scaler left out do not count for lookahead.
        self._moves = 0
        self._slow: list[Tensor] | None = None
        self._generator: torch.Generator | None = None
        if options.lr_dropout < 1.0:
            self._generator = torch.Generator(self._parameters[0].device).manual_seed(seed)
        #: Share of themselves that weights lose in a step, per unit of learning rate, where the optimiser leaves
        #: that to the solver.
        self._shrinkage = 0.0
        self._sees_to_decay = "decoupled_weight_decay" in self._optimizer.param_groups[0]
        if options.decoupled_wd and not self._sees_to_decay:
            self._shrinkage = options.weight_decay
        plain = not (
            options.clip
            or options.gradient_centralization
            or options.lookahead
            or self._generator is not None
            or self._shrinkage
        )
        self._move: Callable[[], object] = self._optimizer.step if plain else self._move_with_care

    @property
    def learning_rate(self) -> float:
        """The learning rate of the last step; before the first step, that of the first."""
        return self._rate

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def step(self, scaler: torch.amp.GradScaler | None = None) -> None:
        """Move the weights against the gradients they have, and go on to the next iteration.

        scaler : the one that scaled the loss, of mixed precision; the gradients are unscaled before anything is done
            with them, a step with gradients that are not finite moves nothing, and the scale is updated. Its own state
            is the caller's to keep.
        """
        rate = self._rate_of(self.iteration)
        if rate != self._rate:
            self._rate = rate
            self._set("lr", rate)
        if self._decay_factor_of is not None:
            decay = self._options.weight_decay * self._decay_factor_of(self.iteration)
            if self._sees_to_decay:
                self._set("weight_decay", decay)
            else:
                self._shrinkage = decay
        if scaler is None:
            self._move()
        else:
            target = cast(torch.optim.Optimizer, _Target(self._optimizer, self._move))
            scaler.unscale_(target)
            scaler.step(target)
            scaler.update()
        self.iteration += 1

    def _set(self, name: str, value: float) -> None:
        for group in self._optimizer.param_groups:
            group[name] = value

    @torch.no_grad()
    def _move_with_care(self) -> None:
        """A step with all that the options add to the optimiser's own."""
        options = self._options
        if options.lookahead and self._slow is None:
            # Not before the first step: until then, weights may be loaded into the network.
            self._slow = [parameter.detach().clone() for parameter in self._parameters]
        used = [parameter for parameter in self._parameters if parameter.grad is not None]
        if options.clip and options.clip_value > 0.0:
            torch.nn.utils.clip_grad_value_(used, options.clip_value)
        if options.clip and options.clip_norm > 0.0:
            torch.nn.utils.clip_grad_norm_(used, options.clip_norm)
        if options.gradient_centralization:
            for parameter in used:
                gradient = parameter.grad
                if gradient is not None and gradient.dim() > 1:  # (outputs, inputs, ...)
                    gradient -= gradient.mean(dim=tuple(range(1, gradient.dim())), keepdim=True)
        before = [parameter.detach().clone() for parameter in used] if self._generator is not None else []
        if self._shrinkage:
            torch._foreach_mul_(used, 1.0 - self._rate * self._shrinkage)
        self._optimizer.step()
        for parameter, old in zip(used, before, strict=False):
            draw = torch.rand(parameter.shape, generator=self._generator, device=self._parameters[0].device)
            parameter.copy_(torch.where(draw.to(parameter.device) < options.lr_dropout, parameter, old))
        self._moves += 1
        if self._slow is not None and self._moves % options.lookahead_steps == 0:
            torch._foreach_lerp_(self._slow, self._parameters, options.lookahead_alpha)
            torch._foreach_copy_(self._parameters, self._slow)

    def state_dict(self) -> dict[str, Any]:
        """All that a solver made with the same options needs to go on, bit for bit.

        Plain containers, numbers and tensors, for torch.save; the tensors are those in use, not copies. Options are no
        part of it: a solver goes on with its own.
        """
        return {
            "kind": self._kind,
            "iteration": self.iteration,
            "moves": self._moves,
            "shapes": [list(parameter.shape) for parameter in self._parameters],
            "optimizer": self._optimizer.state_dict()["state"],
            "slow": self._slow,
            "generator": None if self._generator is None else self._generator.get_state(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, as it came back from torch.load.

        Lookahead that was off begins at the weights of the next step, learning rate dropout that was off with the seed.
        Raises BadParameter when it is of a solver that keeps something else, ModelUnusable when it is of another
        network or no such state.
        """
        try:
            kind, iteration, moves, shapes = state["kind"], state["iteration"], state["moves"], state["shapes"]
            optimizer, slow, generator = state["optimizer"], state["slow"], state["generator"]
        except (KeyError, TypeError):
            raise ModelUnusable("the state of the solver cannot be read; start anew without resume") from None
        if kind != self._kind:
            name = "parameters.mllib.solver.solver_type"
            raise BadParameter(
                name=name,
                section="mllib",
                message=f"{name} and its options ask for {self._kind}, but the training to go on with used {kind}; "
                "give the same ones, or start anew without resume",
            )
        if shapes != [list(parameter.shape) for parameter in self._parameters]:
            raise ModelUnusable("the state of the solver is of another network; start anew without resume")
        # The groups hold what the options say, which is to be heeded even where it changed.
        self._optimizer.load_state_dict(
            {"state": optimizer, "param_groups": self._optimizer.state_dict()["param_groups"]}
        )
        self.iteration, self._moves = iteration, moves
        self._rate = self._rate_of(max(0, iteration - 1))
        self._set("lr", self._rate)
        self._slow = None
        if slow is not None and self._options.lookahead:
            self._slow = [
                mine.to(device=parameter.device, dtype=parameter.dtype, copy=True)
                for mine, parameter in zip(slow, self._parameters, strict=True)
            ]
        if generator is not None and self._generator is not None:
            self._generator.set_state(generator.cpu())


class _Target:
    """What a scaler takes for an optimiser, so that a step it leaves out is left out whole."""

    def __init__(self, optimizer: torch.optim.Optimizer, step: Callable[[], object]) -> None:
        self.param_groups, self.step = optimizer.param_groups, step
