"""Measures of classifiers: worked by hand, against scikit-learn, and laws that hold for all of them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics

from ml.measures import classification, unknown
from ml.options.target import Target

ALL = ("acc", "acc-2", "f1", "f1full", "cmdiag", "cmfull", "mcll", "auc", "mcc", "gini")

# Four samples of three classes; the guesses are 0, 1, 1, 2 and the truth is 0, 1, 2, 2.
HAND = np.array([[0.7, 0.2, 0.1], [0.1, 0.8, 0.1], [0.2, 0.5, 0.3], [0.1, 0.3, 0.6]])
TRUTH = np.array([0, 1, 2, 2])


def test_measures_worked_by_hand():
    made = classification(("acc", "acc-2", "acc-3", "acc-4", "f1full", "cmdiag", "cmfull", "mcll"), HAND, TRUTH)
    assert made["acc"] == 0.75
    assert made["acc-2"] == 1.0  # the third sample has its class second
    assert made["acc-3"] == 1.0
    assert made["acc-4"] == 0.0  # more than there are classes
    assert made["accp"] == 0.75
    # Precision: 1/1, 1/2, 1/1. Recall: 1/1, 1/1, 1/2. f1: 1, 2/3, 2/3.
    assert made["precision"] == pytest.approx((1 + 0.5 + 1) / 3)
    assert made["recall"] == pytest.approx((1 + 1 + 0.5) / 3)
    assert made["f1"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert made["f1s"] == pytest.approx([1, 2 / 3, 2 / 3])
    assert made["precisions"] == pytest.approx([1, 0.5, 1])
    assert made["recalls"] == pytest.approx([1, 1, 0.5])
    assert made["labels"] == ["0", "1", "2"]
    assert made["cmdiag"] == [1, 1, 0.5]
    assert made["cmfull"] == [{"0": [1, 0, 0]}, {"1": [0, 1, 0]}, {"2": [0, 0.5, 0.5]}]
    assert made["mcll"] == pytest.approx(-(math.log(0.7) + math.log(0.8) + math.log(0.3) + math.log(0.6)) / 4)


def test_binary_measures_worked_by_hand():
    # Positives score 0.9 and 0.4, negatives 0.4 and 0.1: of the four pairs 3 are right and one is a tie.
    scores = np.array([0.9, 0.4, 0.4, 0.1])
    truth = np.array([1, 1, 0, 0])
    made = classification(("auc", "gini", "mcc"), np.stack([1 - scores, scores], axis=1), truth)
    assert made["auc"] == 3.5 / 4
    assert made["gini"] == 0.75
    # Guesses 1, 0, 0, 0: tp 1, fn 1, fp 0, tn 2.
    assert made["mcc"] == pytest.approx((1 * 2 - 0 * 1) / math.sqrt(1 * 2 * 2 * 3))


def test_absent_classes_count_as_zero_in_means():
    made = classification(("f1",), np.eye(4)[[0, 1]], np.array([0, 1]))
    assert made["f1"] == pytest.approx(0.5)
    assert made["recall"] == pytest.approx(0.5)


def test_any_name_with_acc_in_it_gives_the_accuracy():
    assert classification(("meanacc",), HAND, TRUTH) == {"acc": 0.75}
    assert classification(("acc-1",), HAND, TRUTH) == {"acc": 0.75}


def test_a_probability_of_zero_keeps_the_log_loss_finite():
    assert classification(("mcll",), np.array([[1.0, 0.0]]), np.array([1]))["mcll"] == pytest.approx(-math.log(1e-15))


def test_undefined_measures_are_left_out():
    assert classification(ALL, np.empty((0, 3)), np.empty(0, int)) == {}
    assert "auc" not in classification(("auc",), HAND, TRUTH)
    assert "auc" not in classification(("auc",), np.array([[0.2, 0.8]]), np.array([1]))


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_measures_agree_with_scikit_learn(classes, seed):
    random = np.random.default_rng(seed)
    truth = np.r_[np.arange(classes), random.integers(0, classes, 200)]
    raw = random.random((len(truth), classes)) + np.eye(classes)[truth] * random.random((len(truth), 1)) + 0.01
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    guessed = probabilities.argmax(axis=1)
    made = classification(ALL, probabilities, truth)
    assert made["acc"] == pytest.approx(metrics.accuracy_score(truth, guessed))
    assert made["f1"] == pytest.approx(metrics.f1_score(truth, guessed, average="macro"), abs=1e-7)
    assert made["precision"] == pytest.approx(metrics.precision_score(truth, guessed, average="macro", zero_division=0))
    assert made["recall"] == pytest.approx(metrics.recall_score(truth, guessed, average="macro"))
    assert made["mcll"] == pytest.approx(metrics.log_loss(truth, probabilities))
    confusion = metrics.confusion_matrix(truth, guessed, normalize="true")
    assert made["cmdiag"] == pytest.approx(np.diag(confusion))
    assert [next(iter(row.values())) for row in made["cmfull"]] == pytest.approx(confusion)
    if classes > 2:
        assert made["acc-2"] == pytest.approx(metrics.top_k_accuracy_score(truth, probabilities, k=2))
    else:
        assert made["auc"] == pytest.approx(metrics.roc_auc_score(truth, probabilities[:, 1]))
        assert made["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, guessed))


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 5), st.integers(1, 30), st.integers(0, 1000))
def test_the_order_of_samples_does_not_matter(classes, count, seed):
    random = np.random.default_rng(seed)
    probabilities = random.dirichlet(np.ones(classes), count)
    truth = random.integers(0, classes, count)
    order = random.permutation(count)
    one, other = classification(ALL, probabilities, truth), classification(ALL, probabilities[order], truth[order])
    assert one.keys() == other.keys()
    for name in one.keys() - {"labels", "cmfull"}:
        assert one[name] == pytest.approx(other[name], abs=1e-12)


@pytest.mark.parametrize("classes", [2, 4])
def test_a_perfect_prediction_gives_the_best_value(classes):
    truth = np.arange(20) % classes
    made = classification(ALL, np.eye(classes)[truth], truth)
    for name in ("acc", "f1", "precision", "recall", "accp"):
        assert made[name] == pytest.approx(1, abs=1e-7)
    assert made["mcll"] == pytest.approx(0)
    assert made["cmdiag"] == [1] * classes
    if classes == 2:
        assert (made["auc"], made["gini"], made["mcc"]) == (1, 1, 1)


def test_every_value_is_plain_json():
    made = classification(ALL, HAND.astype(np.float32), TRUTH)
    assert all(type(value) in (float, list) for value in made.values())


def test_measures_that_will_not_be_computed_are_named():
    assert unknown(ALL, Target("classification", classes=2)) == {}
    assert set(unknown(("auc", "mcc", "acc"), Target("classification", classes=3))) == {"auc", "mcc"}
    assert set(unknown(("acc", "eucll", "zzz"), Target("regression", targets=1))) == {"acc", "zzz"}
