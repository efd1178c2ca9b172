"""What holds for every measure of every kind of target."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.measures import compute, flat, several, unknown
from ml.options.target import KINDS, Target

NAMES = {
    "classification": (
        "acc",
        "acc-2",
        "acc-9",
        "f1",
        "f1full",
        "cmdiag",
        "cmfull",
        "mcll",
        "auc",
        "mcc",
        "gini",
        "raw",
    ),
    "multi_label": ("acc", "raw"),
    "soft_labels": ("acc", "kl-0.2", "js", "was", "ks", "dc-0.5", "r2", "deltas", "eucll-0.1", "raw"),
    "regression": ("eucll", "eucll-0.5", "l1", "percent", "gini", "raw"),
    "autoencoder": ("eucll", "eucll-0.5"),
}
SOFT_KEYS = (
    r"(kl_divergence|js_divergence|wasserstein|kolmogorov_smirnov|distance_correlation|r2|"
    r"delta_score_0\.(05|1|2|5))(_no_\d[\d.]*)?"
)
KEYS = {
    "classification": r"acc(-\d+)?|f1s?|precisions?|recalls?|accp|labels|cmdiag|cmfull|mcll|auc|mcc|gini|raw",
    "multi_label": r"f1|precision|sensitivity|specificity|harmmean|raw",
    "soft_labels": rf"{SOFT_KEYS}|eucll(_no_\d[\d.]*)?|raw",
    "regression": r"(eucll|l1|percent)(_\d+)?|eucll_no_\d[\d.]*|gini|raw",
    "autoencoder": r"eucll(_no_\d[\d.]*)?",
}
#: Smallest and greatest value; a share may be rounded by the EPSILON of the means over classes.
RANGES = {
    r"acc.*|f1s?|precisions?|recalls?|cmdiag|sensitivity|specificity|harmmean|auc|delta_score.*": (0, 1),
    r"mcc|gini": (-1, 1),
    r"mcll|eucll.*|l1.*|percent.*": (0, math.inf),
    r"wasserstein.*|kolmogorov.*|distance_correlation.*": (0, 1),
    r"js_divergence.*": (0, math.log(2)),
    r"kl_divergence.*": (-1 / math.e, math.inf),
    r"r2.*": (-math.inf, 1),
}
#: The value of a perfect prediction.
OPTIMA = {
    r"acc(-2)?|f1s?|precisions?|recalls?|accp|cmdiag|auc|mcc|gini|r2.*|distance_correlation.*|delta_score.*": 1,
    r"sensitivity|specificity|harmmean": 1,
    r"mcll|eucll.*|l1.*|percent.*|kl_.*|js_.*|wasserstein.*|kolmogorov.*": 0,
}


def target_of(kind, size):
    if kind == "regression":
        return Target(kind, targets=size)
    return Target(kind) if kind == "autoencoder" else Target(kind, classes=size)


def truth_of(random, kind, count, size):
    """Any truth, now and then the same for all samples."""
    is_constant = random.random() < 0.1
    rows = 1 if is_constant else count
    made = {
        "classification": lambda: random.integers(0, size, rows).astype(np.int32),
        "multi_label": lambda: random.integers(0, 2, (rows, size)).astype(np.float32),
        "soft_labels": lambda: (random.random((rows, size)) * random.integers(0, 2, (rows, size))).astype(np.float32),
        "regression": lambda: random.integers(-3, 4, (rows, size)) * 10.0 ** random.integers(-3, 4),
        "autoencoder": lambda: random.normal(size=(rows, size)).astype(np.float32),
    }[kind]()
    return np.repeat(made, count, axis=0) if is_constant else made


def outputs_of(random, kind, count, size):
    """Any outputs, often with ties."""
    if kind == "classification":
        made = random.dirichlet(np.ones(size), count) if random.random() < 0.5 else np.full((count, size), 1 / size)
    elif kind in ("multi_label", "soft_labels"):
        made = random.integers(0, 5, (count, size)) / 4
    else:
        made = random.integers(-5, 6, (count, size)) * 10.0 ** random.integers(-3, 4)
    return made.astype(np.float32)


def perfect(kind, truth, size):
    return np.eye(size, dtype=np.float32)[truth] if kind == "classification" else truth.astype(np.float32)


@st.composite
def cases(draw):
    kind = draw(st.sampled_from(KINDS))
    count, size = draw(st.integers(1, 20)), draw(st.integers(1 if kind in ("regression", "autoencoder") else 2, 4))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    return target_of(kind, size), outputs_of(random, kind, count, size), truth_of(random, kind, count, size), random


def numbers(measures):
    """Every number as (key, value), those of arrays one by one."""
    for name, value in measures.items():
        if isinstance(value, float):
            yield name, value
        elif name not in ("labels", "raw", "cmfull"):
            yield from ((name, each) for each in value)


def bound(table, key):
    [found] = [value for pattern, value in table.items() if re.fullmatch(pattern, key)]
    return found


LAWS = settings(max_examples=150, deadline=None)


@LAWS
@given(cases())
def test_the_order_of_samples_does_not_matter(case):
    target, outputs, truth, random = case
    names = [name for name in NAMES[target.kind] if name != "raw"]
    order = random.permutation(len(outputs))
    one, other = compute(target, names, outputs, truth), compute(target, names, outputs[order], truth[order])
    assert one.keys() == other.keys()
    for (key, value), (_, again) in zip(numbers(one), numbers(other), strict=True):
        assert again == pytest.approx(value, rel=1e-9, abs=1e-9), key


@LAWS
@given(cases())
def test_every_value_is_finite_json_in_its_range_under_a_documented_key(case):
    target, outputs, truth, _ = case
    made = compute(target, NAMES[target.kind], outputs, truth)
    assert made
    assert json.loads(json.dumps(made, allow_nan=False)) == made
    for key in made:
        assert re.fullmatch(KEYS[target.kind], key)
    for key, value in numbers(made):
        low, high = bound(RANGES, key)
        assert low - 1e-9 <= value <= high + 1e-9, key


@LAWS
@given(cases())
def test_a_perfect_prediction_gives_the_best_value_and_no_other_is_better(case):
    target, outputs, truth, _ = case
    size = outputs.shape[1]
    best = compute(target, NAMES[target.kind], perfect(target.kind, truth, size), truth)
    other = compute(target, NAMES[target.kind], outputs, truth)
    # Means over classes count absent ones as 0, and what is there of none has no rate.
    is_whole = {
        "classification": lambda: len(np.unique(truth)) == size,
        "multi_label": lambda: len(np.unique(truth)) == 2,
    }.get(target.kind, lambda: True)()
    for key, value in numbers(best):
        if key == "acc-9":
            assert value == 0  # more than there are classes
        elif is_whole or key in ("acc", "acc-2", "accp", "mcll"):
            assert value == pytest.approx(bound(OPTIMA, key), abs=1e-5), key
    for key, value in numbers(other):
        # 0 is not the least that kl can be, and acc-9 is always 0.
        if isinstance(best.get(key), float) and not key.startswith(("kl_", "acc-9")):
            sign = -1 if bound(OPTIMA, key) == 0 else 1
            assert sign * value <= sign * best[key] + 1e-5, key


@LAWS
@given(cases())
def test_keys_and_histories_depend_on_the_truth_only(case):
    target, outputs, truth, random = case
    names = NAMES[target.kind]
    others = outputs_of(random, target.kind, *outputs.shape)
    one, other = compute(target, names, outputs, truth), compute(target, names, others, truth)
    assert one.keys() == other.keys()
    assert flat(one).keys() == flat(other).keys()
    assert flat(several([one, one])).keys() == flat(several([other, other])).keys()
    assert {type(value) for value in flat(one).values()} <= {float}


@LAWS
@given(cases())
def test_a_measure_is_the_same_alone_and_with_others(case):
    target, outputs, truth, _ = case
    together = compute(target, NAMES[target.kind], outputs, truth)
    for name in NAMES[target.kind]:
        alone = compute(target, (name,), outputs, truth)
        assert alone.keys() <= together.keys() | {f"{key}_no_0" for key in together}
        assert all(together[key] == value for key, value in alone.items() if key in together)


@LAWS
@given(cases())
def test_the_mean_over_equal_sets_is_that_of_one(case):
    target, outputs, truth, _ = case
    one = compute(target, NAMES[target.kind], outputs, truth)
    both = several([one, one, one])
    for name, value in one.items():
        if isinstance(value, float):
            assert both[name] == pytest.approx(value)
            assert both[f"{name}_test2"] == value
        elif name != "raw":
            assert len(both[name]) == len(value)


@pytest.mark.parametrize("kind", KINDS)
def test_names_that_are_not_called_unknown_give_something_and_the_others_nothing(kind):
    random = np.random.default_rng(0)
    target = target_of(kind, 1 if kind == "regression" else 2)
    size = 1 if kind == "regression" else 2
    outputs, truth = outputs_of(random, kind, 50, size), truth_of(random, kind, 50, size)
    every = {name for names in NAMES.values() for name in names} | {
        "",
        "acc-",
        "loss",
        "map",
        "ACC",
        "kl-0,1",
        "eucll-",
    }
    refused = unknown(sorted(every), target)
    for name in every:
        assert bool(compute(target, (name,), outputs, truth)) == (name not in refused), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_outputs_that_are_no_numbers_have_no_measures(kind, bad):
    random = np.random.default_rng(0)
    outputs, truth = outputs_of(random, kind, 6, 3), truth_of(random, kind, 6, 3)
    outputs[2, 1] = bad
    assert compute(target_of(kind, 3), NAMES[kind], outputs, truth) == {}


@pytest.mark.parametrize("kind", KINDS)
def test_no_samples_and_no_names_give_nothing(kind):
    random = np.random.default_rng(0)
    outputs, truth = outputs_of(random, kind, 6, 3), truth_of(random, kind, 6, 3)
    assert compute(target_of(kind, 3), NAMES[kind], outputs[:0], truth[:0]) == {}
    assert compute(target_of(kind, 3), (), outputs, truth) == {}


@pytest.mark.parametrize("kind", ["regression", "autoencoder"])
def test_what_overflows_is_left_out(kind):
    made = compute(target_of(kind, 1), ("eucll", "l1"), np.array([[1e200]]), np.array([[1.0]]))
    assert made == ({"l1": 1e200} if kind == "regression" else {})


def test_logits_that_are_no_numbers_are_left_out():
    made = compute(
        Target("classification", classes=2),
        ("raw",),
        np.array([[0.25, 0.75]]),
        np.array([1]),
        labels=["no", "yes"],
        logits=np.array([[math.nan, 1.0]]),
    )
    assert made == {"raw": {"truths": ["yes"], "estimations": ["yes"], "confidences": [0.75]}}
