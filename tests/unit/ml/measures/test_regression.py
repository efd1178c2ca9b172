"""Measures of regressions: worked by hand, against scikit-learn, and laws."""

import math

import numpy as np
import pytest
from sklearn import metrics

from ml.measures import regression

ALL = ("eucll", "l1", "percent", "gini")


def test_measures_of_one_target_worked_by_hand():
    made = regression(ALL, np.array([[1.0], [4.0], [2.0]]), np.array([[2.0], [4.0], [-1.0]]))
    assert made["eucll"] == pytest.approx((1 + 0 + 3) / 3)
    assert made["l1"] == pytest.approx((1 + 0 + 3) / 3)
    assert made["percent"] == pytest.approx((50 + 0 + 300) / 3)


def test_measures_of_two_targets_worked_by_hand():
    made = regression(("eucll", "l1"), np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 4.0], [1.0, 3.0]]))
    # Distances 5 and 2, each divided by the two dimensions.
    assert made["eucll"] == pytest.approx((5 / 2 + 2 / 2) / 2)
    assert (made["eucll_0"], made["eucll_1"]) == (1.5, 3.0)
    assert made["l1"] == pytest.approx((3 + 4 + 0 + 2) / 4)
    assert (made["l1_0"], made["l1_1"]) == (1.5, 3.0)


def test_gini_worked_by_hand():
    # Ranked by prediction the truth is 3, 1, 2: shares 1/2, 4/6, 1 against 1/3, 2/3, 1; ranked rightly 1/2, 5/6, 1.
    made = regression(("gini",), np.array([[9.0], [1.0], [5.0]]), np.array([[3.0], [2.0], [1.0]]))
    assert made["gini"] == pytest.approx((3 / 6 - 1 / 3 + 4 / 6 - 2 / 3) / (3 / 6 - 1 / 3 + 5 / 6 - 2 / 3))


@pytest.mark.parametrize("targets", [1, 3])
def test_measures_agree_with_scikit_learn(targets):
    random = np.random.default_rng(targets)
    truth, predicted = random.normal(size=(2, 50, targets))
    made = regression(("l1", "eucll", "percent"), predicted, truth)
    assert made["l1"] == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    assert made["percent"] == pytest.approx(100 * metrics.mean_absolute_percentage_error(truth, predicted))
    if targets == 1:
        assert made["eucll"] == pytest.approx(metrics.mean_absolute_error(truth, predicted))
    else:
        assert made["eucll_2"] == pytest.approx(metrics.mean_absolute_error(truth[:, 2], predicted[:, 2]))


def test_the_order_of_samples_does_not_matter():
    random = np.random.default_rng(0)
    truth, predicted = random.integers(-3, 9, size=(2, 40, 1)).astype(float)
    order = random.permutation(40)
    assert regression(ALL, predicted, truth) == pytest.approx(regression(ALL, predicted[order], truth[order]))


def test_a_perfect_prediction_gives_the_best_value():
    truth = np.array([[1.0], [5.0], [2.0]])
    assert regression(ALL, truth, truth) == {"eucll": 0, "l1": 0, "percent": 0, "gini": 1}


def test_undefined_measures_are_left_out_and_a_true_zero_keeps_percent_finite():
    assert regression(ALL, np.empty((0, 1)), np.empty((0, 1))) == {}
    made = regression(ALL, np.array([[1.0]]), np.array([[0.0]]))
    assert "gini" not in made
    assert math.isfinite(made["percent"])
