"""Options of the solver: what is refused, what is warned about, and what stands where nothing was given."""

import subprocess
import sys
from dataclasses import dataclass, fields, replace

import pytest

from ml.errors import BadParameter
from ml.options.loading import Group, load, option
from ml.options.solver import (
    CAFFE_DEFAULTS,
    CAFFE_LREGRESSION_DEFAULTS,
    ELSEWHERE,
    SOLVERS,
    TORCH_DEFAULTS,
    ResolvedOptions,
    SolverOptions,
    check,
    defaults_of,
)

PATH = "parameters.mllib.solver"
#: What each policy cannot do without.
NEEDS = {
    "fixed": {},
    "step": {"stepsize": 10},
    "multistep": {"stepvalue": [10, 20]},
    "exp": {"gamma": 0.9},
    "inv": {},
    "poly": {},
    "sigmoid": {"gamma": -0.1, "stepsize": 10},
    "sgdr": {},
}


def read(given):
    return load(SolverOptions, given, path=PATH, section="mllib", owner="torch", elsewhere=ELSEWHERE)


def warned(given, defaults=TORCH_DEFAULTS):
    """Names of the options that `check` warns about."""
    return [each.parameter.removeprefix(PATH + ".") for each in check(read(given).value, defaults=defaults)]


def refused(given, defaults=TORCH_DEFAULTS):
    """The error that loading or checking raises."""
    with pytest.raises(BadParameter) as caught:
        check(read(given).value, defaults=defaults)
    assert caught.value.section == "mllib"
    return caught.value


def test_options_of_the_solver_import_no_library():
    code = "import sys, ml.options.solver; print([m for m in ('torch', 'numpy', 'scipy') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_nothing_given_is_the_plain_descent_of_torch():
    final = SolverOptions().resolved()
    assert (final.solver_type, final.base_lr, final.momentum, final.weight_decay) == ("SGD", 0.0001, 0.0, 0.0)
    assert (final.iterations, final.test_interval, final.snapshot, final.lr_policy) == (1, 1, 0, "fixed")
    assert check(SolverOptions()) == []


def test_nothing_given_to_caffe_is_what_the_solver_file_of_the_template_says():
    mlp = SolverOptions().resolved(defaults_of("caffe", "mlp"))
    assert (mlp.solver_type, mlp.base_lr, mlp.momentum, mlp.weight_decay, mlp.lr_policy) == (
        "SGD",
        0.1,
        0.9,
        0,
        "fixed",
    )
    assert (mlp.iterations, mlp.test_interval, mlp.snapshot) == (400_000, 100, 400_000)
    linear = SolverOptions().resolved(defaults_of("caffe", "lregression"))
    assert (linear.weight_decay, linear.lr_policy, linear.gamma, linear.power) == (0.0005, "inv", 0.0001, 0.75)
    assert defaults_of("torch", "lregression") == TORCH_DEFAULTS
    assert defaults_of("caffe2") == CAFFE_DEFAULTS
    assert check(SolverOptions(), defaults=CAFFE_LREGRESSION_DEFAULTS) == []


@pytest.mark.parametrize("defaults", [TORCH_DEFAULTS, CAFFE_DEFAULTS, CAFFE_LREGRESSION_DEFAULTS])
@pytest.mark.parametrize("solver", SOLVERS)
@pytest.mark.parametrize("policy", NEEDS)
def test_every_solver_with_every_policy_is_resolved_without_gaps_and_without_warnings(solver, policy, defaults):
    given = {"solver_type": solver, "lr_policy": policy, "iterations": 100, **NEEDS[policy]}
    options = read(given).value
    assert check(options, defaults=defaults) == []
    final = options.resolved(defaults)
    assert isinstance(final, ResolvedOptions)
    assert [each.name for each in fields(final) if getattr(final, each.name) is None] == []
    assert final.resolved(CAFFE_DEFAULTS) == final


@pytest.mark.parametrize(
    ("solver", "expected"),
    [
        ("SGD", (False, False, False, False, False)),
        ("ADAM", (False, False, False, False, False)),
        ("RADAM", (True, False, False, False, False)),
        ("RANGER", (True, True, True, False, False)),
        ("RANGER_PLUS", (True, True, True, True, True)),
    ],
)
def test_a_ranger_is_what_its_parts_are(solver, expected):
    final = SolverOptions(solver_type=solver).resolved()
    parts = (final.rectified, final.lookahead, final.clip, final.adabelief, final.gradient_centralization)
    assert parts == expected
    names = ("rectified", "lookahead", "clip", "adabelief", "gradient_centralization")
    for name in names:
        assert getattr(SolverOptions(solver_type=solver, **{name: False}).resolved(), name) is False


def test_names_are_the_same_in_capitals_and_small_letters():
    given = {"solver_type": "Ranger_Plus", "lr_policy": "SGDR"}
    final = read(given).value.resolved()
    assert (final.solver_type, final.lr_policy) == ("RANGER_PLUS", "sgdr")
    assert warned(given) == []


def test_an_unknown_solver_is_replaced_by_sgd_with_a_warning():
    options = read({"solver_type": "ADAMM", "iterations": 5}).value
    assert options.resolved().solver_type == "SGD"
    (warning,) = check(options)
    assert warning.parameter == f"{PATH}.solver_type"
    assert "unknown" in warning.message
    assert "SGD is used" in warning.message
    assert "did you mean ADAM?" in warning.message


def test_an_unknown_policy_is_refused():
    error = refused({"lr_policy": "cosine"})
    assert error.name == f"{PATH}.lr_policy"
    assert "one of fixed, step, multistep, exp, inv, poly, sigmoid, sgdr" in error.message


@pytest.mark.parametrize(
    ("given", "name", "words"),
    [
        ({"lr_policy": "step", "iterations": 9}, "stepsize", "missing; lr_policy step needs it"),
        ({"lr_policy": "sigmoid", "gamma": 1, "iterations": 9}, "stepsize", "missing"),
        ({"lr_policy": "sigmoid", "stepsize": 4, "iterations": 9}, "gamma", "missing; lr_policy sigmoid needs it"),
        ({"lr_policy": "exp", "iterations": 9}, "gamma", "missing; lr_policy exp needs it"),
        ({"lr_policy": "exp", "gamma": 0, "iterations": 9}, "gamma", "above 0"),
        ({"lr_policy": "step", "stepsize": 2, "gamma": -0.5, "iterations": 9}, "gamma", "above 0"),
        ({"lr_policy": "exp", "gamma": 2, "iterations": 1000}, "gamma", "multiplied by it 999 times"),
        ({"lr_policy": "step", "gamma": 10, "stepsize": 1, "iterations": 100}, "gamma", "multiplied by it 99 times"),
        ({"lr_policy": "inv", "gamma": -0.1, "iterations": 9}, "gamma", "at least 0"),
        ({"lr_policy": "multistep", "iterations": 9}, "stepvalue", "missing; lr_policy multistep needs it"),
        ({"lr_policy": "multistep", "stepvalue": [], "iterations": 9}, "stepvalue", "missing"),
        ({"lr_policy": "multistep", "stepvalue": [5, 3]}, "stepvalue", "[5, 3]; the iterations must be in ascending"),
        ({"lr_policy": "multistep", "stepvalue": [3, 3]}, "stepvalue", "ascending"),
        ({"lr_policy": "multistep", "stepvalue": [0, 3]}, "stepvalue", "at least 1"),
        ({"lr_policy": "multistep", "stepvalue": [1.5]}, "stepvalue", "a whole number or a list of them"),
        ({"lr_policy": "sgdr", "period": 5, "ncycles": 3}, "period", "ncycles is 3"),
        ({"lr_policy": "sgdr", "min_lr": 0.2, "base_lr": 0.1}, "min_lr", "at most base_lr, which is 0.1"),
        ({"warmup_iter": 10, "iterations": 9}, "warmup_iter", "10; it must be at most iterations, which is 9"),
        ({"warmup_iter": 1.5}, "warmup_iter", "a whole number"),
        ({"warmup_lr": -0.1}, "warmup_lr", "at least 0"),
        ({"solver_type": "NESTEROV", "momentum": 0}, "momentum", "NESTEROV needs one above 0"),
        ({"momentum": 1}, "momentum", "below 1"),
        ({"momentum": 1.5}, "momentum", "at most 1"),
        ({"solver_type": "ADAM", "beta1": 1}, "beta1", "below 1"),
        ({"solver_type": "ADAM", "beta2": 1.0}, "beta2", "below 1"),
        ({"solver_type": "RMSPROP", "rms_decay": 1.0}, "rms_decay", "below 1"),
        ({"solver_type": "ADAM", "delta": 0}, "delta", "above 0"),
        ({"weight_decay": -1e-4}, "weight_decay", "at least 0"),
        ({"weight_decay": float("nan")}, "weight_decay", "a number"),
        ({"base_lr": 0}, "base_lr", "above 0"),
        ({"base_lr": float("inf")}, "base_lr", "a number"),
        ({"base_lr": "0.1"}, "base_lr", "a number"),
        ({"iterations": 0}, "iterations", "at least 1"),
        ({"iterations": True}, "iterations", "a whole number"),
        ({"iter_size": 0}, "iter_size", "at least 1"),
        ({"test_interval": 0}, "test_interval", "at least 1"),
        ({"snapshot": -1}, "snapshot", "at least 0"),
        ({"snapshot_prefix": "../model"}, "snapshot_prefix", "letters, digits"),
        ({"snapshot_prefix": ".hidden"}, "snapshot_prefix", "begin with no dot"),
        ({"snapshot_prefix": "a" * 101}, "snapshot_prefix", "at most 100"),
        ({"snapshot_prefix": "model\n"}, "snapshot_prefix", "letters, digits"),
        ({"lookahead_steps": 0}, "lookahead_steps", "at least 1"),
        ({"lookahead_alpha": 0}, "lookahead_alpha", "above 0 and at most 1"),
        ({"clip": True, "clip_value": 0, "clip_norm": 0}, "clip", "clip_value or clip_norm must be above 0"),
        ({"clip_norm": -1}, "clip_norm", "at least 0"),
        ({"lr_dropout": 1.5}, "lr_dropout", "at most 1"),
        ({"decoupled_wd_mult": 0.5}, "decoupled_wd_mult", "at least 1"),
        ({"decoupled_wd_periods": -1}, "decoupled_wd_periods", "at least 0"),
        ({"p_mult": 0.5}, "p_mult", "at least 1"),
        ({"lr_mult": 2}, "lr_mult", "at most 1"),
        ({"rectified": "yes"}, "rectified", "true or false"),
        ({"solver_type": 3}, "solver_type", "a text"),
        ({"rand_skip": -1}, "rand_skip", "at least 0"),
        ({"resume": "no"}, "resume", "true or false"),
    ],
)
def test_what_cannot_work_is_refused_with_the_reason(given, name, words):
    error = refused(given)
    assert error.name == f"{PATH}.{name}"
    assert words in error.message


def test_a_refusal_depends_on_the_defaults_of_the_library():
    given = {"lr_policy": "sgdr", "min_lr": 0.01}
    assert refused(given).name == f"{PATH}.min_lr"
    assert warned(given, CAFFE_DEFAULTS) == []
    assert warned({"warmup_iter": 1000}, CAFFE_DEFAULTS) == []


def test_a_learning_rate_that_grows_within_bounds_is_let_through():
    assert warned({"lr_policy": "exp", "gamma": 1.1, "iterations": 100}) == []


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ({"solver_type": "SGD", "rectified": True, "adabelief": True}, {"rectified", "adabelief"}),
        ({"solver_type": "AMSGRAD", "rectified": True}, {"rectified"}),
        ({"solver_type": "AMSGRADW", "rectified": True, "adabelief": True}, {"rectified"}),
        ({"solver_type": "ADAM", "rectified": True, "adabelief": True}, set()),
        ({"solver_type": "SGD", "beta1": 0.8, "beta2": 0.9, "rms_decay": 0.9}, {"beta1", "beta2", "rms_decay"}),
        ({"solver_type": "SGD", "delta": 1e-4}, {"delta"}),
        ({"solver_type": "ADAGRAD", "momentum": 0.5}, {"momentum"}),
        ({"solver_type": "ADAM", "momentum": 0.5}, set()),
        ({"solver_type": "ADAM", "momentum": 0.5, "beta1": 0.8}, {"momentum"}),
        ({"solver_type": "ADAM", "momentum": 0.8, "beta1": 0.8}, set()),
        ({"clip_value": 1.0, "clip_norm": 2.0}, {"clip_value", "clip_norm"}),
        ({"clip": True, "clip_value": 1.0, "clip_norm": 2.0}, set()),
        ({"solver_type": "RANGER", "clip_value": 1.0}, set()),
        ({"solver_type": "RANGER", "clip": False, "clip_value": 1.0}, {"clip_value"}),
        ({"lookahead_steps": 3, "lookahead_alpha": 0.8}, {"lookahead_steps", "lookahead_alpha"}),
        ({"lookahead": True, "lookahead_steps": 3}, set()),
        ({"solver_type": "ADAM", "decoupled_wd_periods": 3}, {"decoupled_wd_periods"}),
        ({"solver_type": "ADAM", "decoupled_wd_periods": 3, "decoupled_wd": True}, set()),
        ({"solver_type": "ADAMW", "decoupled_wd_periods": 3, "decoupled_wd_mult": 3}, set()),
        ({"solver_type": "MADGRAD", "decoupled_wd": True}, {"decoupled_wd"}),
        ({"solver_type": "ADAMW", "decoupled_wd_mult": 3}, {"decoupled_wd_mult"}),
        ({"solver_type": "SGD", "decoupled_wd_mult": 3}, {"decoupled_wd_mult"}),
        ({"gamma": 0.5, "power": 2, "stepsize": 3, "stepvalue": [4]}, {"gamma", "power", "stepsize", "stepvalue"}),
        (
            {"period": 5, "ncycles": 2, "min_lr": 1e-5, "lr_mult": 0.5, "p_mult": 1},
            {"period", "ncycles", "min_lr", "lr_mult", "p_mult"},
        ),
        ({"lr_policy": "poly", "power": 2, "gamma": 0.5}, {"gamma"}),
        ({"warmup_lr": 1e-5}, {"warmup_lr"}),
        ({"warmup_lr": 1e-5, "warmup_iter": 3}, set()),
        ({"lr_dropout": 0}, {"lr_dropout"}),
    ],
)
def test_what_the_solver_does_not_use_is_named(given, names):
    assert set(warned({"iterations": 10, **given})) == names


def test_defaults_that_clients_send_along_are_passed_over_in_silence():
    given = {
        "solver_type": "SGD",
        "rectified": False,
        "lookahead": False,
        "lookahead_steps": 6,
        "lookahead_alpha": 0.5,
        "adabelief": False,
        "beta1": 0.9,
        "beta2": 0.999,
        "clip": False,
        "clip_value": 5.0,
        "clip_norm": 100.0,
        "stepvalue": [],
        "period": -1,
        "ncycles": 1,
        "decoupled_wd_periods": 4,
        "decoupled_wd_mult": 2.0,
        "lr_dropout": 1.0,
        "momentum": None,
    }
    assert warned(given, CAFFE_DEFAULTS) == []


def test_momentum_is_the_first_decay_of_adam_as_it_is_in_caffe():
    assert SolverOptions(solver_type="ADAM", momentum=0.5).resolved(CAFFE_DEFAULTS).beta1 == 0.5
    assert SolverOptions(solver_type="ADAM").resolved(replace(CAFFE_DEFAULTS, momentum=0.5)).beta1 == 0.9
    assert SolverOptions(solver_type="ADAM", momentum=0.5, beta1=0.8).resolved().beta1 == 0.8
    assert read({"solver_type": "ADAM", "momentum2": 0.99}).value.resolved().beta2 == 0.99


def test_the_momentum_of_the_template_stays_with_plain_descent():
    momenta = {name: SolverOptions(solver_type=name).resolved(CAFFE_DEFAULTS).momentum for name in SOLVERS}
    assert momenta["SGD"] == momenta["SGDW"] == momenta["NESTEROV"] == 0.9
    assert momenta["RMSPROP"] == 0.0
    assert SolverOptions(solver_type="NESTEROV").resolved(TORCH_DEFAULTS).momentum == 0.9


def test_decoupled_decay_is_constant_with_torch_and_in_four_periods_with_caffe():
    for name in ("SGDW", "ADAMW", "AMSGRADW"):
        assert SolverOptions(solver_type=name).resolved().decoupled_wd is True
        assert SolverOptions(solver_type=name).resolved().decoupled_wd_periods == 0
        assert SolverOptions(solver_type=name).resolved(CAFFE_DEFAULTS).decoupled_wd_periods == 4
    assert SolverOptions(solver_type="ADAM").resolved().decoupled_wd is False
    assert SolverOptions(solver_type="ADAM", decoupled_wd=True).resolved().decoupled_wd is True


@dataclass(frozen=True)
class Library:
    solver: SolverOptions = option(Group(SolverOptions, ELSEWHERE), "The solver.", factory=SolverOptions)  # noqa: RUF009


def test_known_names_without_effect_are_warned_about_with_the_reason():
    given = {"solver": {"sam": True, "sam_rho": 0.05, "swa": True, "adamp": False, "iteratons": 3}}
    warnings = load(Library, given, path="parameters.mllib", section="mllib", owner="torch").warnings
    texts = {each.parameter.removeprefix(PATH + "."): each.message for each in warnings}
    assert set(texts) == {"sam", "sam_rho", "swa", "iteratons"}
    assert "needs two" in texts["sam"]
    assert "did you mean 'iterations'" in texts["iteratons"]
