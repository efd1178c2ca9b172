"""Learning rates and decay factors: numbers worked by hand, and torch's own schedulers where there is an equal."""

import math

import pytest
import torch
from torch.optim import lr_scheduler

from ml.options.solver import POLICIES, SolverOptions
from ml.solvers.schedules import Restarts, decay_factor, learning_rate

ITERATIONS = 120


def rates(count=ITERATIONS, **options):
    """The learning rates of the first iterations."""
    rate = learning_rate(SolverOptions(**{"iterations": ITERATIONS, "base_lr": 0.1, **options}).resolved())
    return [rate(iteration) for iteration in range(count)]


def torchs(scheduler, count=ITERATIONS, **arguments):
    """The learning rates that a scheduler of torch sets."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    made = scheduler(optimizer, **arguments)
    found = []
    for _ in range(count):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        made.step()
    return found


def test_fixed_stays_as_it_is():
    assert rates(3, lr_policy="fixed") == [0.1, 0.1, 0.1]


def test_numbers_worked_by_hand():
    step = rates(7, lr_policy="step", stepsize=3, gamma=0.5)
    assert step == pytest.approx([0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.025])
    multistep = rates(6, lr_policy="multistep", stepvalue=(2, 5), gamma=0.1)
    assert multistep == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.001])
    assert rates(3, lr_policy="exp", gamma=0.5) == pytest.approx([0.1, 0.05, 0.025])
    assert rates(4, lr_policy="inv", gamma=1.0, power=2.0) == pytest.approx([0.1, 0.1 / 4, 0.1 / 9, 0.1 / 16])
    assert rates(4, iterations=4, lr_policy="poly", power=2.0) == pytest.approx([0.1, 0.05625, 0.025, 0.00625])
    # At the middle it is the half; one iteration away from it, 1 / (1 + e) = 0.2689414 or the rest to 1.
    rising = rates(4, lr_policy="sigmoid", gamma=1.0, stepsize=2)
    assert rising[1:] == pytest.approx([0.02689414, 0.05, 0.07310586], rel=1e-6)
    falling = rates(4, lr_policy="sigmoid", gamma=-1.0, stepsize=2)
    assert falling[1:] == pytest.approx([0.07310586, 0.05, 0.02689414], rel=1e-6)


def test_defaults_of_the_policies():
    assert rates(11, lr_policy="step", stepsize=10)[10] == pytest.approx(0.01)
    assert rates(11, lr_policy="inv")[10] == pytest.approx(0.1 * 1.001**-0.75)
    assert rates(31, lr_policy="poly")[30] == pytest.approx(0.075)


@pytest.mark.parametrize(
    ("options", "scheduler", "arguments"),
    [
        ({"lr_policy": "step", "stepsize": 7, "gamma": 0.6}, lr_scheduler.StepLR, {"step_size": 7, "gamma": 0.6}),
        (
            {"lr_policy": "multistep", "stepvalue": (5, 50, 90), "gamma": 0.3},
            lr_scheduler.MultiStepLR,
            {"milestones": [5, 50, 90], "gamma": 0.3},
        ),
        ({"lr_policy": "exp", "gamma": 0.97}, lr_scheduler.ExponentialLR, {"gamma": 0.97}),
        ({"lr_policy": "poly", "power": 1.7}, lr_scheduler.PolynomialLR, {"total_iters": ITERATIONS, "power": 1.7}),
        (
            {"lr_policy": "sgdr", "period": 9, "min_lr": 0.002},
            lr_scheduler.CosineAnnealingWarmRestarts,
            {"T_0": 9, "T_mult": 2, "eta_min": 0.002},
        ),
        (
            {"lr_policy": "sgdr", "period": 10, "p_mult": 1.0},
            lr_scheduler.CosineAnnealingWarmRestarts,
            {"T_0": 10, "T_mult": 1},
        ),
        ({"lr_policy": "sgdr"}, lr_scheduler.CosineAnnealingLR, {"T_max": ITERATIONS}),
        (
            {"lr_policy": "fixed", "warmup_iter": 20, "warmup_lr": 0.01},
            lr_scheduler.LinearLR,
            {"start_factor": 0.1, "total_iters": 20},
        ),
    ],
)
def test_a_policy_that_torch_has_too_gives_the_same_rates(options, scheduler, arguments):
    assert rates(**options) == pytest.approx(torchs(scheduler, **arguments), rel=1e-9, abs=1e-15)


def test_periods_of_sgdr_fill_the_training():
    # 3 periods of 70 iterations: 10, 20 and 40.
    found = rates(70, iterations=70, lr_policy="sgdr", ncycles=3)
    assert [found[i] for i in (0, 10, 30)] == pytest.approx([0.1, 0.1, 0.1])
    assert [found[i] for i in (5, 20, 50)] == pytest.approx([0.05, 0.05, 0.05])
    assert found[69] == pytest.approx(0.05 * (1 + math.cos(math.pi * 39 / 40)))
    assert [i for i in range(1, 70) if found[i] > found[i - 1]] == [10, 30]


def test_restarts_of_sgdr_can_start_lower_and_follow_any_growth():
    # Periods of 4, 12 and 36; the highest rates are 0.1, 0.05, and 0.03 instead of 0.025.
    found = rates(52, lr_policy="sgdr", period=4, p_mult=3, lr_mult=0.5, min_lr=0.03)
    assert [found[i] for i in (0, 4, 16)] == pytest.approx([0.1, 0.05, 0.03])
    assert found[2] == pytest.approx(0.03 + 0.07 / 2)
    assert found[10] == pytest.approx(0.03 + 0.02 / 2)
    assert found[16:] == pytest.approx([0.03] * 36)


def test_a_period_of_sgdr_need_be_no_whole_number_of_iterations():
    # 2 periods of 10 iterations in all: 10/3 and 20/3. Iteration 4 is 2/3 of an iteration into the second.
    found = rates(10, iterations=10, lr_policy="sgdr", ncycles=2)
    assert found[3] == pytest.approx(0.05 * (1 + math.cos(math.pi * 0.9)))
    assert found[4] == pytest.approx(0.05 * (1 + math.cos(math.pi * 0.1)))


def test_the_policy_counts_on_during_the_warm_up():
    found = rates(9, lr_policy="step", stepsize=3, gamma=0.5, warmup_iter=4, warmup_lr=0.02)
    assert found == pytest.approx([0.02, 0.04, 0.06, 0.08, 0.05, 0.05, 0.025, 0.025, 0.025])
    assert rates(3, warmup_iter=2) == pytest.approx([0.0, 0.05, 0.1])


@pytest.mark.parametrize("policy", POLICIES)
def test_a_rate_depends_on_its_iteration_alone(policy):
    options = {"stepsize": 13, "stepvalue": (20, 70), "gamma": 0.9, "ncycles": 4, "warmup_iter": 5}
    inorder = rates(lr_policy=policy, **options)
    rate = learning_rate(SolverOptions(iterations=ITERATIONS, base_lr=0.1, lr_policy=policy, **options).resolved())
    order = torch.randperm(ITERATIONS, generator=torch.Generator().manual_seed(1)).tolist()
    assert {i: rate(i) for i in order} == dict(enumerate(inorder))
    assert all(math.isfinite(each) and each >= 0.0 for each in inorder)


def test_rates_far_out_are_zero_and_no_overflow():
    assert rates(1, iterations=1)[0] == 0.1
    rate = learning_rate(SolverOptions(lr_policy="sigmoid", gamma=-5.0, stepsize=10, iterations=10**6).resolved())
    assert rate(10**6) == 0.0
    rate = learning_rate(SolverOptions(lr_policy="exp", gamma=0.5, iterations=10**6).resolved())
    assert rate(10**6) == 0.0
    rate = learning_rate(SolverOptions(lr_policy="poly", iterations=10).resolved())
    assert rate(12) == 0.0


def test_periods_follow_each_other():
    restarts = Restarts(2.0, 3.0)
    found = [restarts.position(iteration) for iteration in range(9)]
    assert found == [
        (0, 0.0), (0, 0.5),
        (1, 0.0), (1, 1 / 6), (1, 2 / 6), (1, 3 / 6), (1, 4 / 6), (1, 5 / 6),
        (2, 0.0),
    ]  # fmt: skip
    assert restarts.position(1) == (0, 0.5)


def test_decoupled_decay_falls_to_zero_in_each_of_its_periods():
    # 4 periods of 150 iterations: 10, 20, 40 and 80.
    options = SolverOptions(solver_type="ADAMW", decoupled_wd_periods=4, iterations=150).resolved()
    factor = decay_factor(options)
    assert [factor(i) for i in (0, 10, 30, 70)] == pytest.approx([1, 1, 1, 1])
    assert [factor(i) for i in (5, 20, 50, 110)] == pytest.approx([0.5, 0.5, 0.5, 0.5])
    assert [factor(i) for i in (8, 149)] == pytest.approx(
        [0.5 * (1 + math.cos(math.pi * 0.8)), 0.5 * (1 + math.cos(math.pi * 79 / 80))]
    )


def test_only_decoupled_decay_has_a_factor():
    assert decay_factor(SolverOptions(solver_type="ADAMW", decoupled_wd_periods=0).resolved()) is None
    assert decay_factor(SolverOptions(solver_type="ADAM", decoupled_wd_periods=4).resolved()) is None
    assert decay_factor(SolverOptions(solver_type="ADAM", decoupled_wd=True, decoupled_wd_periods=4).resolved())
