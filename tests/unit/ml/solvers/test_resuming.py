"""A training that goes on from a saved state gives the weights of one that was never interrupted, bit for bit."""

import copy
import io
from functools import cache

import pytest
import torch

from ml.errors import BadParameter, ModelUnusable
from ml.options.solver import CAFFE_DEFAULTS, POLICIES, SOLVERS, SolverOptions
from ml.solvers import Solver

ITERATIONS, STOP = 8, 4
#: Flags beside those that a solver has of itself, each alone and all at once.
FLAGS = {
    "as it is": {},
    "momentum": {"momentum": 0.7},
    "penalty": {"weight_decay": 0.01},
    "decoupled decay": {"weight_decay": 0.01, "decoupled_wd": True, "decoupled_wd_periods": 2},
    "rectified": {"rectified": True, "beta2": 0.8},
    "adabelief": {"adabelief": True},
    "centralization": {"gradient_centralization": True},
    "lookahead": {"lookahead": True, "lookahead_steps": 3},
    "clip": {"clip": True, "clip_value": 0.05, "clip_norm": 0.1},
    "dropout": {"lr_dropout": 0.6},
    "none": {"rectified": False, "adabelief": False, "lookahead": False, "clip": False, "momentum": 0.5},
}
FLAGS["all"] = {
    **{name: value for flags in FLAGS.values() for name, value in flags.items()},
    "rectified": True,
    "adabelief": True,
    "lookahead": True,
    "clip": True,
}


def resolved(**given):
    """Options for which the numbers of every policy change between the start and the end."""
    policy = {"stepsize": 3, "stepvalue": (3, 6), "gamma": 0.7, "ncycles": 2, "min_lr": 1e-4, "warmup_iter": 2}
    options = {"iterations": ITERATIONS, "base_lr": 0.05, **policy, **given}
    return SolverOptions(**options).resolved(CAFFE_DEFAULTS)


SOURCE = torch.Generator().manual_seed(1)
#: Features and truth of every iteration, and the network that all trainings begin with.
DATA = [(torch.randn(8, 6, generator=SOURCE), torch.randn(8, 2, generator=SOURCE)) for _ in range(ITERATIONS)]
NETWORK = torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
with torch.no_grad():
    for each in NETWORK.parameters():
        each.copy_(0.5 * torch.randn(each.shape, generator=SOURCE))


class Training:
    """A small network, and the solver that trains it."""

    def __init__(self, options, seed=0):
        self.network = copy.deepcopy(NETWORK)
        self.solver = Solver(self.network.parameters(), options, seed=seed)

    def go(self, start, stop):
        """Train from an iteration to before another."""
        for data, truth in DATA[start:stop]:
            self.solver.zero_grad()
            (self.network(data) - truth).square().mean().backward()
            self.solver.step()
        return self

    def bytes(self):
        """The weights, as they stand in memory."""
        return [parameter.detach().numpy().tobytes() for parameter in self.network.parameters()]

    def saved(self):
        """The file that the training would leave."""
        file = io.BytesIO()
        torch.save({"network": self.network.state_dict(), "solver": self.solver.state_dict()}, file)
        return file.getvalue()

    def load(self, saved):
        """Go on from such a file."""
        state = torch.load(io.BytesIO(saved), weights_only=True)
        self.network.load_state_dict(state["network"])
        self.solver.load_state_dict(state["solver"])
        return self


@cache
def uninterrupted(options):
    """The weights after the whole training."""
    return Training(options).go(0, ITERATIONS).bytes()


def interrupted(options, stop=STOP):
    """The weights after the whole training in two parts; what is not saved is different in the second."""
    saved = Training(options).go(0, stop).saved()
    training = Training(options, seed=9).load(saved)
    assert training.solver.iteration == stop
    return training.go(stop, ITERATIONS).bytes()


# Policies and stops are walked inside the tests: a test for each would take longer than the training in it.


@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("flags", FLAGS)
def test_a_resumed_training_is_the_uninterrupted_one(solver, flags):
    for policy in POLICIES if flags in ("as it is", "all") else ["sgdr"]:
        options = resolved(solver_type=solver, lr_policy=policy, **FLAGS[flags])
        assert interrupted(options) == uninterrupted(options), policy


@pytest.mark.parametrize("solver", SOLVERS)
def test_a_training_can_be_resumed_from_early_and_late_iterations(solver):
    options = resolved(solver_type=solver, lr_policy="multistep", **FLAGS["all"])
    for stop in (0, 1, 2, ITERATIONS - 1, ITERATIONS):
        assert interrupted(options, stop) == uninterrupted(options), stop


def test_the_flags_are_no_empty_ones():
    # Otherwise the tests above would compare the same training again and again.
    plain = uninterrupted(resolved(lr_policy="sgdr", solver_type="ADAM"))
    without_effect = {"as it is", "momentum", "none", "penalty"}
    for name, flags in FLAGS.items():
        if name not in without_effect:
            assert uninterrupted(resolved(lr_policy="sgdr", solver_type="ADAM", **flags)) != plain


def test_the_rate_told_after_loading_is_that_of_the_last_step():
    options = resolved(lr_policy="exp")
    before = Training(options).go(0, STOP)
    assert Training(options).load(before.saved()).solver.learning_rate == before.solver.learning_rate


def test_options_that_changed_are_heeded_when_resuming():
    saved = Training(resolved(lr_policy="fixed", momentum=0.5)).go(0, STOP).saved()
    training = Training(resolved(lr_policy="fixed", momentum=0.5, base_lr=0.5, lookahead=True, lr_dropout=0.5))
    training.load(saved).go(STOP, STOP + 1)
    assert training.solver.learning_rate == 0.5
    other = Training(resolved(lr_policy="fixed", momentum=0.5)).load(saved).go(STOP, STOP + 1)
    assert other.solver.learning_rate == 0.05
    assert training.bytes() != other.bytes()


@pytest.mark.parametrize(("before", "after"), [("ADAM", "ADAMW"), ("SGD", "NESTEROV"), ("RADAM", "ADAM")])
def test_a_solver_of_the_same_kind_can_go_on(before, after):
    saved = Training(resolved(solver_type=before)).go(0, STOP).saved()
    Training(resolved(solver_type=after)).load(saved).go(STOP, ITERATIONS)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"solver_type": "ADAM"}, {"solver_type": "SGD"}),
        ({"solver_type": "ADAM"}, {"solver_type": "AMSGRAD"}),
        ({"solver_type": "ADAM"}, {"solver_type": "ADAM", "adabelief": True}),
        ({"solver_type": "RMSPROP"}, {"solver_type": "RMSPROP", "momentum": 0.5}),
        ({"solver_type": "RANGER"}, {"solver_type": "RANGER_PLUS"}),
    ],
)
def test_the_state_of_another_solver_is_refused(before, after):
    saved = Training(resolved(**before)).go(0, STOP).saved()
    with pytest.raises(BadParameter, match="start anew without resume") as caught:
        Training(resolved(**after)).load(saved)
    assert caught.value.name == "parameters.mllib.solver.solver_type"


def test_the_state_of_another_network_is_refused():
    state = Training(resolved()).go(0, STOP).solver.state_dict()
    with pytest.raises(ModelUnusable, match="another network"):
        Solver([torch.zeros(3, requires_grad=True)], resolved()).load_state_dict(state)


@pytest.mark.parametrize("state", [{}, {"kind": "SGD"}, [], None, "SGD"])
def test_what_is_no_state_is_refused(state):
    with pytest.raises(ModelUnusable, match="cannot be read"):
        Training(resolved()).solver.load_state_dict(state)


def test_a_state_says_nothing_of_options():
    state = Training(resolved(solver_type="RANGER_PLUS", lr_dropout=0.5)).go(0, STOP).solver.state_dict()
    assert set(state) == {"kind", "iteration", "moves", "shapes", "optimizer", "slow", "generator"}
    assert set(state["optimizer"][0]) == {"step", "average", "spread"}
