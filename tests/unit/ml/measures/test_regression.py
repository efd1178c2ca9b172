"""Measures of regressions: worked by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from ml.measures import regression

ALL = ("eucll", "l1", "percent", "gini")


def test_measures_of_one_target_worked_by_hand():
    made = regression(ALL[:3], np.array([[1.0], [4.0], [2.0]]), np.array([[2.0], [4.0], [-1.0]]))
    assert made == pytest.approx(
        {"eucll": (1 + 0 + 3) / 3, "l1": (1 + 0 + 3) / 3, "percent": (50 + 0 + 300) / 3},
    )


def test_measures_of_two_targets_worked_by_hand():
    made = regression(
        ("eucll", "l1", "percent"), np.array([[3.0, 0.0], [1.0, 1.0]]), np.array([[0.0, 4.0], [1.0, 2.0]])
    )
    assert made == pytest.approx(
        {
            # Distances 5 and 1, each divided by the two dimensions.
            "eucll": (5 / 2 + 1 / 2) / 2,
            "eucll_0": 1.5,
            "eucll_1": 2.5,
            "l1": (3 + 4 + 0 + 1) / 4,
            "l1_0": 1.5,
            "l1_1": 2.5,
            # The true zero does not count: 100 and 50 percent of the second target, none of the first.
            "percent": (100 + 0 + 50) / 3,
            "percent_0": 0,
            "percent_1": 75,
        }
    )


def test_a_threshold_makes_smaller_differences_none():
    predicted, truth = np.array([[3.0, 4.0], [1.0, 0.5]]), np.zeros((2, 2))
    made = regression(("eucll-1", "eucll-3.5"), predicted, truth)
    assert made["eucll"] == pytest.approx((5 + 1.25**0.5) / 2 / 2)
    assert made["eucll_no_1"] == pytest.approx((5 + 1) / 2 / 2)  # a difference of just 1 counts
    assert made["eucll_no_3.5"] == pytest.approx(4 / 2 / 2)
    assert set(made) == {"eucll", "eucll_0", "eucll_1", "eucll_no_1", "eucll_no_3.5"}


@pytest.mark.parametrize("name", ["eucll-", "eucll--1", "eucll-nan", "eucll-1e999", "eucll-x", "eucll_1", "meucll"])
def test_what_is_no_threshold_is_no_measure(name):
    assert regression((name,), np.array([[1.0]]), np.array([[0.0]])) == {}


def test_gini_worked_by_hand():
    # Ranked by prediction the truth is 3, 1, 2: shares 1/2, 4/6, 1 against 1/3, 2/3, 1; ranked rightly 1/2, 5/6, 1.
    made = regression(("gini",), np.array([[9.0], [1.0], [5.0]]), np.array([[3.0], [2.0], [1.0]]))
    assert made["gini"] == pytest.approx((3 / 6 - 1 / 3 + 4 / 6 - 2 / 3) / (3 / 6 - 1 / 3 + 5 / 6 - 2 / 3))


def test_gini_is_that_of_deepdetect():
    made = regression(("gini",), np.array([[0.86], [0.26], [0.52], [0.32]]), np.array([[1.0], [1.0], [0.0], [1.0]]))
    assert made["gini"] == pytest.approx(-1 / 3)


def test_gini_of_two_values_agrees_with_the_area_under_the_curve():
    random = np.random.default_rng(0)
    truth = random.integers(0, 2, 200)
    scores = random.integers(0, 20, 200) + 3 * truth  # with many ties
    made = regression(("gini",), scores[:, None].astype(float), truth[:, None].astype(float))
    assert made["gini"] == pytest.approx(2 * metrics.roc_auc_score(truth, scores) - 1)


def test_gini_is_one_for_the_right_order_and_minus_one_for_its_contrary_whatever_the_sign_of_the_truth():
    for shift in (0, -10, -3):  # the last one has a sum of 0
        truth = np.array([[1.0], [2.0], [6.0]]) + shift
        assert regression(("gini",), truth * 5, truth)["gini"] == pytest.approx(1)
        assert regression(("gini",), -truth, truth)["gini"] == pytest.approx(-1)
        assert regression(("gini",), truth * 0, truth)["gini"] == pytest.approx(0)


def test_raw_lists_every_sample_in_order():
    one = regression(("raw",), np.array([[1.0], [2.0]]), np.array([[3.0], [4.0]]))
    assert one == {"raw": {"truths": [3, 4], "estimations": [1, 2], "confidences": []}}
    two = regression(("raw",), np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]))
    assert two == {"raw": {"truths": [[3, 4]], "estimations": [[1, 2]], "confidences": []}}


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
        lengths = metrics.pairwise.paired_euclidean_distances(predicted, truth)
        assert made["eucll"] == pytest.approx(lengths.mean() / targets)
        each = metrics.mean_absolute_error(truth, predicted, multioutput="raw_values")
        for target in range(targets):
            assert made[f"eucll_{target}"] == made[f"l1_{target}"] == pytest.approx(each[target])
        shares = metrics.mean_absolute_percentage_error(truth, predicted, multioutput="raw_values")
        assert [made[f"percent_{target}"] for target in range(targets)] == pytest.approx(100 * shares)


def test_undefined_measures_are_left_out():
    assert regression((*ALL, "raw"), np.empty((0, 1)), np.empty((0, 1))) == {}
    assert regression(("gini",), np.array([[1.0], [2.0]]), np.array([[0.1], [0.1]])) == {}
    assert regression(("gini",), np.ones((2, 2)), np.array([[1.0, 2.0], [3.0, 4.0]])) == {}
    assert regression(("percent",), np.array([[1.0]]), np.array([[0.0]])) == {}
    # A target whose truth is 0 throughout has no percentage of its own.
    made = regression(("percent",), np.array([[1.0, 3.0]]), np.array([[0.0, 2.0]]))
    assert made == {"percent": 50, "percent_1": 50}
