"""Every solver and every flag against torch's own optimisers, or against the formula of its paper in numpy."""

import math

import numpy as np
import pytest
import torch

from ml.options.solver import CAFFE_DEFAULTS, SOLVERS, TORCH_DEFAULTS, SolverOptions
from ml.solvers import Solver

STEPS = 14
SHAPES = ((4, 3), (3,), (2, 3, 2, 2))


def draw(seed, scale=1.0):
    """Double-precision numbers in the shapes of the weights."""
    source = np.random.default_rng(seed)
    return [scale * source.standard_normal(shape) for shape in SHAPES]


def weights():
    """The weights that all tests begin with."""
    return [torch.tensor(values, requires_grad=True) for values in draw(0)]


#: Gradients of each step; the later ones are small, so that averages of different length differ.
GRADIENTS = [draw(1 + number, scale=1.0 / (1 + number)) for number in range(STEPS)]


def driven(stepper, parameters, gradients=GRADIENTS):
    """The weights after all steps, as arrays."""
    for each in gradients:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = torch.tensor(gradient, dtype=parameter.dtype)
        stepper.step()
    return [parameter.detach().numpy().copy() for parameter in parameters]


def solved(gradients=GRADIENTS, defaults=TORCH_DEFAULTS, seed=0, **options):
    """The weights after all steps of a solver."""
    given = {"iterations": STEPS, "base_lr": 0.05, **options}
    parameters = weights()
    return driven(Solver(parameters, SolverOptions(**given).resolved(defaults), seed=seed), parameters, gradients)


def same(found, expected, rel=1e-11):
    """Whether two lists of arrays agree to the last digits."""
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=rel, atol=1e-13)
    return True


def worked(rule, gradients=GRADIENTS):
    """The weights after all steps of a rule that takes (weight, gradient, number, memory) to the new weight."""
    values, memories = draw(0), [{} for _ in SHAPES]
    for number, each in enumerate(gradients, start=1):
        values = [
            rule(value, gradient, number, memory)
            for value, gradient, memory in zip(values, each, memories, strict=True)
        ]
    return values


# ---- solvers that torch has

TORCH = {
    "SGD": (torch.optim.SGD, {}, {}),
    "SGD with momentum": (torch.optim.SGD, {"momentum": 0.8}, {"momentum": 0.8}),
    "SGD with penalty": (torch.optim.SGD, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "NESTEROV": (torch.optim.SGD, {}, {"momentum": 0.9, "nesterov": True}),
    "NESTEROV with momentum": (torch.optim.SGD, {"momentum": 0.5}, {"momentum": 0.5, "nesterov": True}),
    "ADAGRAD": (torch.optim.Adagrad, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "ADAGRAD with delta": (torch.optim.Adagrad, {"delta": 0.1}, {"eps": 0.1}),
    "RMSPROP": (torch.optim.RMSprop, {}, {}),
    "RMSPROP with all": (
        torch.optim.RMSprop,
        {"rms_decay": 0.9, "momentum": 0.5, "delta": 0.01, "weight_decay": 0.1},
        {"alpha": 0.9, "momentum": 0.5, "eps": 0.01, "weight_decay": 0.1},
    ),
    "ADADELTA": (torch.optim.Adadelta, {}, {}),
    "ADADELTA with all": (
        torch.optim.Adadelta,
        {"momentum": 0.95, "delta": 1e-4, "weight_decay": 0.1},
        {"rho": 0.95, "eps": 1e-4, "weight_decay": 0.1},
    ),
    "ADAM": (torch.optim.Adam, {}, {}),
    "ADAM with all": (
        torch.optim.Adam,
        {"beta1": 0.8, "beta2": 0.9, "delta": 0.01, "weight_decay": 0.1},
        {"betas": (0.8, 0.9), "eps": 0.01, "weight_decay": 0.1},
    ),
    "ADAM decoupled": (torch.optim.AdamW, {"weight_decay": 0.1, "decoupled_wd": True}, {"weight_decay": 0.1}),
    "ADAM rectified": (torch.optim.RAdam, {"rectified": True, "beta2": 0.8}, {"betas": (0.9, 0.8)}),
    "AMSGRAD": (torch.optim.Adam, {"beta2": 0.7}, {"betas": (0.9, 0.7), "amsgrad": True}),
    "ADAMW": (torch.optim.AdamW, {"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "ADAMW without decay": (torch.optim.Adam, {}, {}),
    "AMSGRADW": (
        torch.optim.AdamW,
        {"beta2": 0.7, "weight_decay": 0.1},
        {"betas": (0.9, 0.7), "weight_decay": 0.1, "amsgrad": True},
    ),
    "RADAM": (torch.optim.RAdam, {"beta2": 0.8, "weight_decay": 0.1}, {"betas": (0.9, 0.8), "weight_decay": 0.1}),
    "RADAM not rectified": (torch.optim.Adam, {"rectified": False}, {}),
    "RADAM decoupled": (
        torch.optim.RAdam,
        {"weight_decay": 0.1, "decoupled_wd": True},
        {"weight_decay": 0.1, "decoupled_weight_decay": True},
    ),
    "RANGER without its parts": (torch.optim.Adam, {"rectified": False, "lookahead": False, "clip": False}, {}),
    "RANGER rectified only": (torch.optim.RAdam, {"lookahead": False, "clip": False}, {}),
    "UNKNOWN": (torch.optim.SGD, {}, {}),
}


@pytest.mark.parametrize("name", TORCH)
def test_a_solver_that_torch_has_moves_weights_as_torch_does(name):
    made, options, arguments = TORCH[name]
    parameters = weights()
    expected = driven(made(parameters, lr=0.05, foreach=False, **arguments), parameters)
    assert same(solved(solver_type=name.split()[0], **options), expected)


# ---- solvers and flags from their papers


def radam_factor(beta2, number):
    """Liu et al. 2020, algorithm 2: the rectification term, or None."""
    rho_inf = 2 / (1 - beta2) - 1
    rho = rho_inf - 2 * number * beta2**number / (1 - beta2**number)
    if rho <= 5:
        return None
    return math.sqrt(((rho - 4) * (rho - 2) * rho_inf) / ((rho_inf - 4) * (rho_inf - 2) * rho))


def belief(beta1=0.9, beta2=0.999, eps=1e-8, lr=0.05, rectified=False, amsgrad=False, penalty=0.0, decay=0.0):
    """Zhuang et al. 2020, algorithm 2, with the options of Adam."""

    def rule(x, g, t, memory):
        x = x - lr * decay * x
        g = g + penalty * x
        m = memory["m"] = beta1 * memory.get("m", 0.0) + (1 - beta1) * g
        s = memory["s"] = beta2 * memory.get("s", 0.0) + (1 - beta2) * (g - m) ** 2 + eps
        if amsgrad:
            s = memory["top"] = np.maximum(memory.get("top", 0.0), s)
        m_hat, s_hat = m / (1 - beta1**t), s / (1 - beta2**t)
        factor = radam_factor(beta2, t) if rectified else 1.0
        return x - lr * m_hat if factor is None else x - lr * factor * m_hat / (np.sqrt(s_hat) + eps)

    return rule


def test_adabelief_is_that_of_its_paper():
    assert same(solved(solver_type="ADAM", adabelief=True), worked(belief()))
    # With eps as large as this its place in the formula shows.
    found = solved(solver_type="ADAM", adabelief=True, beta1=0.7, beta2=0.9, delta=0.01)
    assert same(found, worked(belief(beta1=0.7, beta2=0.9, eps=0.01)))


def test_adabelief_goes_with_the_other_flags_of_adam():
    assert same(solved(solver_type="AMSGRAD", adabelief=True, beta2=0.5), worked(belief(beta2=0.5, amsgrad=True)))
    assert same(solved(solver_type="RADAM", adabelief=True, beta2=0.8), worked(belief(beta2=0.8, rectified=True)))
    assert same(solved(solver_type="ADAM", adabelief=True, weight_decay=0.1), worked(belief(penalty=0.1)))
    assert same(solved(solver_type="ADAMW", adabelief=True, weight_decay=0.1), worked(belief(decay=0.1)))


def test_the_rectification_waits_for_the_variance():
    # rho is 3.99 after 4 steps and 4.97 after 5 for beta2 = 0.999, and above 5 from the sixth on.
    found = solved(GRADIENTS[:5], solver_type="RADAM", adabelief=True)

    def momentum(x, g, t, memory):
        memory["m"] = 0.9 * memory.get("m", 0.0) + 0.1 * g
        return x - 0.05 * memory["m"] / (1 - 0.9**t)

    assert same(found, worked(momentum, GRADIENTS[:5]))
    assert not np.allclose(
        solved(GRADIENTS[:6], solver_type="RADAM", adabelief=True)[0], worked(momentum, GRADIENTS[:6])[0]
    )


def test_madgrad_is_that_of_its_paper():
    def rule(momentum, eps, penalty, lr=0.05):
        def step(x, g, number, memory):
            g = g + penalty * x
            start = memory.setdefault("x0", x)
            share = lr * math.sqrt(number)  # the paper counts k from 0 and takes k + 1
            s = memory["s"] = memory.get("s", 0.0) + share * g
            v = memory["v"] = memory.get("v", 0.0) + share * g * g
            z = start - s / (np.cbrt(v) + eps)
            return momentum * x + (1 - momentum) * z

        return step

    assert same(solved(solver_type="MADGRAD"), worked(rule(0.9, 1e-6, 0.0)))
    found = solved(solver_type="MADGRAD", momentum=0.5, delta=0.01, weight_decay=0.1)
    assert same(found, worked(rule(0.5, 0.01, 0.1)))
    assert same(solved(solver_type="MADGRAD", momentum=0.0), worked(rule(0.0, 1e-6, 0.0)))


def test_madgrad_stays_where_there_is_no_gradient():
    assert same(solved([[np.zeros(shape) for shape in SHAPES]] * 3, solver_type="MADGRAD"), draw(0))


def sgdw(momentum, decay, lr=0.05, factor=lambda number: 1.0):
    """Loshchilov and Hutter 2019, algorithm 1, with the decay scaled by the learning rate as in torch."""

    def rule(x, g, number, memory):
        memory["m"] = momentum * memory.get("m", 0.0) + g
        return x - lr * memory["m"] - lr * decay * factor(number) * x

    return rule


def test_sgdw_shrinks_the_weights_and_leaves_the_gradients_alone():
    assert same(solved(solver_type="SGDW", momentum=0.8, weight_decay=0.1), worked(sgdw(0.8, 0.1)))
    assert same(solved(solver_type="SGD", decoupled_wd=True, weight_decay=0.1), worked(sgdw(0.0, 0.1)))
    assert not np.allclose(solved(solver_type="SGD", momentum=0.8, weight_decay=0.1)[0], worked(sgdw(0.8, 0.1))[0])


@pytest.mark.parametrize("solver", ["ADAGRAD", "RMSPROP", "ADADELTA", "NESTEROV", "SGD"])
def test_decay_can_be_decoupled_for_other_solvers(solver):
    # With no gradient at all, these solvers stay where they are: what is left is the decay.
    still = [[np.zeros(shape) for shape in SHAPES]] * 3
    found = solved(still, solver_type=solver, decoupled_wd=True, weight_decay=0.1)
    assert same(found, [(1 - 0.05 * 0.1) ** 3 * start for start in draw(0)])


def test_decoupled_decay_follows_its_periods():
    # 14 iterations in 3 periods: 2, 4 and 8 of them.
    shares = [0, 1 / 2, 0, 1 / 4, 2 / 4, 3 / 4, *(number / 8 for number in range(8))]

    def factor(number):
        return 0.5 * (1 + math.cos(math.pi * shares[number - 1]))

    periods = {"decoupled_wd_periods": 3, "weight_decay": 0.1}
    assert same(solved(solver_type="SGDW", **periods), worked(sgdw(0.0, 0.1, factor=factor)))
    parameters = weights()
    adamw = torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1)
    for number in range(1, STEPS + 1):
        adamw.param_groups[0]["weight_decay"] = 0.1 * factor(number)
        expected = driven(adamw, parameters, GRADIENTS[number - 1 : number])
    assert same(solved(solver_type="ADAMW", **periods), expected)
    assert same(solved(solver_type="ADAMW", weight_decay=0.1, defaults=TORCH_DEFAULTS), worked_adamw())


def worked_adamw():
    """AdamW of torch, with a decay that stays."""
    parameters = weights()
    return driven(torch.optim.AdamW(parameters, lr=0.05, weight_decay=0.1), parameters)


def looking_ahead(made, steps, alpha):
    """Zhang et al. 2019, algorithm 1, around an optimiser of torch."""
    parameters = weights()
    optimizer = made(parameters)
    slow = [parameter.detach().clone() for parameter in parameters]
    for number in range(1, STEPS + 1):
        driven(optimizer, parameters, GRADIENTS[number - 1 : number])
        if number % steps == 0:
            for parameter, mine in zip(parameters, slow, strict=True):
                mine += alpha * (parameter.detach() - mine)
                parameter.data.copy_(mine)
    return [parameter.detach().numpy() for parameter in parameters]


@pytest.mark.parametrize(("steps", "alpha"), [(6, 0.5), (4, 0.8), (1, 0.3)])
def test_lookahead_pulls_the_weights_back_to_the_slow_ones(steps, alpha):
    options = {"lookahead": True, "lookahead_steps": steps, "lookahead_alpha": alpha}
    expected = looking_ahead(lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9), steps, alpha)
    assert same(solved(solver_type="SGD", momentum=0.9, **options), expected)


def test_ranger_is_radam_with_lookahead_and_clipping():
    expected = looking_ahead(lambda p: torch.optim.RAdam(p, lr=0.05, betas=(0.9, 0.8)), 6, 0.5)
    # No gradient of these reaches a limit.
    assert same(solved(solver_type="RANGER", beta2=0.8), expected)
    assert not np.allclose(solved(solver_type="RANGER", beta2=0.8, clip_value=0.1)[0], expected[0])


def test_ranger_plus_adds_adabelief_and_centralized_gradients():
    central = [[each - mean_of_outputs(each) for each in step] for step in GRADIENTS]
    values, memories, slow = draw(0), [{} for _ in SHAPES], draw(0)
    rule = belief(beta2=0.8, rectified=True)
    for number, each in enumerate(central, start=1):
        values = [rule(x, g, number, memory) for x, g, memory in zip(values, each, memories, strict=True)]
        if number % 6 == 0:
            slow = [mine + 0.5 * (x - mine) for mine, x in zip(slow, values, strict=True)]
            values = slow
    assert same(solved(solver_type="RANGER_PLUS", beta2=0.8), values)


def mean_of_outputs(gradient):
    """Yong et al. 2020, equation 1: the mean over all but the first dimension; nothing for a bias."""
    if gradient.ndim < 2:
        return 0.0
    return gradient.reshape(len(gradient), -1).mean(1).reshape(-1, *[1] * (gradient.ndim - 1))


def test_gradients_are_centralized_per_output_and_biases_left_alone():
    expected = worked(lambda x, g, number, memory: x - 0.05 * (g - mean_of_outputs(g)))
    assert same(solved(gradient_centralization=True), expected)


@pytest.mark.parametrize(("value", "norm"), [(0.3, 1.0), (0.5, 100.0), (0.0, 0.7), (0.2, 0.0)])
def test_gradients_are_clipped_by_value_and_then_by_norm_as_torch_does(value, norm):
    parameters = weights()
    optimizer = torch.optim.SGD(parameters, lr=0.05)
    for each in GRADIENTS:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = torch.tensor(gradient)
        if value:
            torch.nn.utils.clip_grad_value_(parameters, value)
        if norm:
            torch.nn.utils.clip_grad_norm_(parameters, norm)
        optimizer.step()
    found = solved(clip=True, clip_value=value, clip_norm=norm)
    assert same(found, [parameter.detach().numpy() for parameter in parameters])
    assert not np.allclose(found[0], solved()[0])


def test_gradients_are_centralized_after_they_were_clipped():
    gradient = np.array([[9.0, 1.0, 2.0]] * 4)
    parameter = torch.zeros(4, 3, dtype=torch.float64, requires_grad=True)
    options = SolverOptions(base_lr=1.0, clip=True, clip_value=3.0, clip_norm=0.0, gradient_centralization=True)
    driven(Solver([parameter], options.resolved()), [parameter], [[gradient]])
    assert parameter.tolist() == [[-1.0, 1.0, 0.0]] * 4


def test_learning_rate_dropout_leaves_out_whole_updates():
    start = weights()
    full = [value.numpy() for value in map(torch.tensor, solved(GRADIENTS[:1], solver_type="ADAM"))]
    found = solved(GRADIENTS[:1], solver_type="ADAM", lr_dropout=0.5)
    kept = 0
    for one, moved, before in zip(found, full, start, strict=True):
        is_moved = one == moved
        assert np.all(is_moved | (one == before.detach().numpy()))
        kept += is_moved.sum()
    assert 0 < kept < sum(each.size for each in found)


def test_learning_rate_dropout_keeps_the_asked_share_and_all_of_the_gradients():
    wide = [torch.zeros(200, 100, requires_grad=True)]
    options = SolverOptions(base_lr=1.0, momentum=0.5, lr_dropout=0.3, iterations=9).resolved()
    solver = Solver(wide, options, seed=3)
    driven(solver, wide, [[np.ones((200, 100))]])
    # 20,000 draws: four standard deviations are 0.013.
    assert (wide[0] == -1.0).float().mean().item() == pytest.approx(0.3, abs=0.013)
    before = wide[0].detach().clone()
    driven(solver, wide, [[np.zeros((200, 100))]])
    # The momentum of those left out before goes on: 0.5 for all.
    assert set((wide[0].detach() - before).unique().tolist()) == {-0.5, 0.0}


def test_learning_rate_dropout_of_zero_learns_nothing():
    assert same(solved(lr_dropout=0.0, weight_decay=0.1, solver_type="SGDW"), draw(0), rel=0)


def test_draws_of_learning_rate_dropout_are_its_own():
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = solved(lr_dropout=0.5, seed=7)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert same(solved(lr_dropout=0.5, seed=7), first, rel=0)
    assert not np.allclose(solved(lr_dropout=0.5, seed=8)[0], first[0])


# ---- the learning rate


def test_each_step_uses_the_rate_of_its_iteration():
    rates = [0.05, 0.05, 0.025, 0.025, 0.0125]
    values = draw(0)
    for rate, each in zip(rates, GRADIENTS[:5], strict=True):
        values = [x - rate * g for x, g in zip(values, each, strict=True)]
    assert same(solved(GRADIENTS[:5], lr_policy="step", stepsize=2, gamma=0.5), values)


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_follows_the_learning_rate(solver):
    # From the third step on the rate is as good as zero, so that only what drags on by momentum moves.
    options = {"solver_type": solver, "lr_policy": "multistep", "stepvalue": (2,), "gamma": 1e-30}
    if solver == "MADGRAD":  # its goal stays, and the weights go on towards it
        options["momentum"] = 0.0
    options["lookahead"] = False
    assert same(solved(GRADIENTS, **options), solved(GRADIENTS[:2], **options), rel=1e-9)


def test_the_learning_rate_told_is_that_of_the_last_step():
    parameters = weights()
    options = SolverOptions(base_lr=1.0, lr_policy="exp", gamma=0.5, iterations=9).resolved()
    solver = Solver(parameters, options)
    told = [solver.learning_rate]
    for number in range(3):
        driven(solver, parameters, GRADIENTS[number : number + 1])
        told.append(solver.learning_rate)
    assert told == [1.0, 1.0, 0.5, 0.25]
    assert solver.iteration == 3


# ---- weights without a gradient


@pytest.mark.parametrize("solver", SOLVERS)
def test_weights_that_get_their_first_gradient_late_start_then(solver):
    # Nothing that depends on the number of the iteration; the momentum is that of caffe.
    options = SolverOptions(
        solver_type=solver, base_lr=0.05, weight_decay=0.01, decoupled_wd_periods=0, lookahead=False, iterations=9
    ).resolved(CAFFE_DEFAULTS)
    early, late, alone = (torch.ones(3, dtype=torch.float64, requires_grad=True) for _ in range(3))
    both, one = Solver([early, late], options), Solver([alone], options)
    for number in range(6):
        early.grad = torch.full((3,), 0.5, dtype=torch.float64)
        if number >= 3:
            late.grad = torch.tensor([0.1, -2.0, 1.0], dtype=torch.float64)
            alone.grad = late.grad.clone()
            one.step()
        both.step()
        assert torch.equal(late, alone)
        both.zero_grad()
    assert not torch.equal(late, torch.ones(3, dtype=torch.float64))


def test_frozen_weights_are_left_alone():
    frozen, free = torch.ones(3), torch.ones(3, requires_grad=True)
    solver = Solver([frozen, free], SolverOptions(solver_type="SGDW", weight_decay=0.5, base_lr=0.1).resolved())
    free.grad = torch.ones(3)
    solver.step()
    assert frozen.tolist() == [1.0, 1.0, 1.0]
    assert len(solver.state_dict()["shapes"]) == 1
    solver.zero_grad()
    assert free.grad is None


def test_a_network_without_weights_to_train_is_refused():
    with pytest.raises(ValueError, match="empty parameter list"):
        Solver([torch.ones(3)], SolverOptions().resolved())


# ---- mixed precision


def scaled(options, gradients, scale=1024.0):
    """Weights, solver and scaler after steps whose gradients come scaled, as from a scaled loss."""
    parameters = [torch.tensor(values, dtype=torch.float32, requires_grad=True) for values in draw(0)]
    solver = Solver(parameters, options)
    scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    for each in gradients:
        scaler.scale(torch.zeros(()))
        factor = scaler.get_scale()
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = torch.tensor(gradient * factor, dtype=torch.float32)
        solver.step(scaler)
    return parameters, solver, scaler


@pytest.mark.parametrize("solver", SOLVERS)
def test_scaled_gradients_are_unscaled_before_they_are_clipped(solver):
    options = SolverOptions(solver_type=solver, base_lr=0.05, clip=True, clip_value=0.5, iterations=9).resolved()
    found, _, _ = scaled(options, GRADIENTS)
    parameters = [torch.tensor(values, dtype=torch.float32, requires_grad=True) for values in draw(0)]
    expected = driven(Solver(parameters, options), parameters)
    # The scale is a power of two: nothing is rounded on the way.
    assert all(np.array_equal(one.detach().numpy(), other) for one, other in zip(found, expected, strict=True))


def test_a_step_that_the_scaler_leaves_out_moves_nothing_and_counts_as_an_iteration():
    options = SolverOptions(
        solver_type="RANGER_PLUS", base_lr=0.05, lookahead_steps=2, lr_dropout=0.9, decoupled_wd=True, weight_decay=0.1,
        lr_policy="poly", iterations=9,
    ).resolved()  # fmt: skip
    broken = [np.full(shape, np.inf) for shape in SHAPES]
    found, solver, scaler = scaled(options, [GRADIENTS[0], broken, GRADIENTS[1]])
    assert scaler.get_scale() == 512.0
    assert solver.iteration == 3
    assert solver.learning_rate == pytest.approx(0.05 * 7 / 9)
    assert all(torch.isfinite(each).all() for each in found)
    once, once_solver, _ = scaled(options, [GRADIENTS[0], broken])
    only, only_solver, _ = scaled(options, [GRADIENTS[0]])
    assert all(torch.equal(one, other) for one, other in zip(once, only, strict=True))
    first, second = once_solver.state_dict(), only_solver.state_dict()
    assert first["moves"] == second["moves"] == 1
    assert torch.equal(first["generator"], second["generator"])


def test_a_scaler_that_is_switched_off_changes_nothing():
    parameters = weights()
    solver = Solver(parameters, SolverOptions(base_lr=0.05, iterations=STEPS).resolved())
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for each in GRADIENTS:
        for parameter, gradient in zip(parameters, each, strict=True):
            parameter.grad = torch.tensor(gradient)
        solver.step(scaler)
    assert same([parameter.detach().numpy() for parameter in parameters], solved(), rel=0)


# ---- it learns


#: Learning rates at which each solver is at home.
RATES = {"ADADELTA": 5.0, "ADAGRAD": 0.5, "MADGRAD": 0.05, "RMSPROP": 0.02, "RANGER": 0.3, "RANGER_PLUS": 0.3}


@pytest.mark.parametrize("solver", SOLVERS)
def test_every_solver_finds_the_least_squares(solver):
    source = np.random.default_rng(4)
    features, truth = source.standard_normal((60, 5)), source.standard_normal((5, 2))
    targets = features @ truth + 0.1 * source.standard_normal((60, 2))
    best = np.linalg.lstsq(features, targets, rcond=None)[0]
    least = float(((features @ best - targets) ** 2).mean())
    x, y = torch.tensor(features), torch.tensor(targets)
    weight = torch.zeros(5, 2, dtype=torch.float64, requires_grad=True)
    # The mean of a centralized gradient over the inputs is zero, which keeps the mean of the weights where it is.
    options = SolverOptions(
        solver_type=solver, base_lr=RATES.get(solver, 0.1), lr_policy="poly", iterations=300,
        gradient_centralization=False,
    ).resolved()  # fmt: skip
    stepper = Solver([weight], options)
    for _ in range(300):
        stepper.zero_grad()
        ((x @ weight - y) ** 2).mean().backward()
        stepper.step()
    assert float(((features @ weight.detach().numpy() - targets) ** 2).mean()) < 1.01 * least
