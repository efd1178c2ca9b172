"""Names of measures: which ones are known for which target, and what is said of the others."""

import numpy as np
import pytest

from ml.measures import compute, unknown
from ml.options.target import Target

TARGETS = {
    "classification": Target("classification", classes=3),
    "multi_label": Target("multi_label", classes=3),
    "soft_labels": Target("soft_labels", classes=3),
    "regression": Target("regression", targets=1),
    "autoencoder": Target("autoencoder"),
}


@pytest.mark.parametrize(
    ("kind", "known", "others"),
    [
        ("classification", ("acc", "acc-5", "meanacc", "f1", "f1full", "cmdiag", "cmfull", "mcll", "raw"), ("eucll",)),
        ("multi_label", ("acc", "raw"), ("f1", "acc-2", "auc", "kl")),
        (
            "soft_labels",
            ("acc", "acc-0.1", "kl", "js-0", "was", "ks-1e-3", "dc", "r2", "deltas-.5", "eucll", "eucll-1", "raw"),
            ("f1", "kl-x", "kl_divergence", "kl--1", "raw-1"),
        ),
        ("regression", ("eucll", "eucll-0.5", "l1", "percent", "gini", "raw"), ("acc", "l1-0.5", "eucll-inf", "auc")),
        ("autoencoder", ("eucll", "eucll-0.5"), ("acc", "l1", "raw")),
    ],
)
def test_every_kind_of_target_has_its_own_measures(kind, known, others):
    assert unknown(known, TARGETS[kind]) == {}
    made = unknown((*known, *others), TARGETS[kind])
    assert set(made) == set(others)
    for name in others:
        assert repr(name) in made[name]
        assert f"use one of {known[0]}" in made[name]


def test_what_only_two_classes_have_is_named_for_more():
    names = ("auc", "mcc", "gini", "acc")
    assert unknown(names, Target("classification", classes=2)) == {}
    made = unknown(names, TARGETS["classification"])
    assert set(made) == {"auc", "mcc", "gini"}
    assert "two classes" in made["auc"]


def test_gini_of_several_targets_is_named():
    made = unknown(("gini", "l1"), Target("regression", targets=2))
    assert set(made) == {"gini"}
    assert "one target" in made["gini"]


def test_confusion_without_f1_is_no_mistake():
    assert unknown(("cmdiag", "cmfull"), TARGETS["classification"]) == {}


@pytest.mark.parametrize("name", ["acc-" + "9" * 5000, "eucll-" + "9" * 5000, "kl-1e" + "9" * 5000, "acc-\u0663"])
@pytest.mark.parametrize("kind", TARGETS)
def test_no_name_is_too_strange_to_be_refused_or_taken(kind, name):
    refused = unknown((name,), TARGETS[kind])
    truth = np.zeros(2, np.int32) if kind == "classification" else np.zeros((2, 3))
    assert bool(compute(TARGETS[kind], (name,), np.zeros((2, 3)), truth)) == (name not in refused)
