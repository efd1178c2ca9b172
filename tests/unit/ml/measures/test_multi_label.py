"""Measures of classifiers of independent classes: worked by hand, and against scikit-learn."""

import numpy as np
import pytest
from sklearn import metrics

from ml.measures import multi_label

# Guesses (from 0.5 on): 1 0 1 / 1 1 0; of the three true positives of the truth two are found.
HAND = np.array([[0.9, 0.2, 0.6], [0.5, 0.8, 0.49]])
TRUTH = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0]])


def test_measures_worked_by_hand():
    # tp 2, fp 2, fn 1, tn 1.
    made = multi_label(("acc",), HAND, TRUTH)
    sensitivity, specificity = 2 / 3, 1 / 3
    assert made == pytest.approx(
        {
            "precision": 2 / 4,
            "sensitivity": sensitivity,
            "specificity": specificity,
            "f1": 4 / 7,
            "harmmean": 2 / (1 / sensitivity + 1 / specificity),
        }
    )


def test_only_acc_and_raw_are_measures_of_independent_classes():
    assert multi_label(("f1", "auc", "accuracy"), HAND, TRUTH) == {}


def test_raw_lists_the_names_of_the_classes_of_every_sample():
    made = multi_label(("raw",), HAND, np.array([[0.0, 0.0, 0.0], [1.0, 0.0, 1.0]]), labels=["a", "b"], logits=HAND * 2)
    assert made["raw"] == {
        "truths": [[], ["a", "2"]],
        "estimations": [["a", "2"], ["a", "b"]],
        "confidences": HAND.tolist(),
        "all_logits": [{"logits": row} for row in (HAND * 2).tolist()],
    }


def test_a_ratio_of_nothing_to_nothing_is_zero():
    absent = multi_label(("acc",), np.array([[0.1, 0.2]]), np.array([[0.0, 0.0]]))
    assert absent == {"f1": 0, "precision": 0, "sensitivity": 0, "specificity": 1, "harmmean": 0}
    present = multi_label(("acc",), np.array([[0.9, 0.8]]), np.array([[1.0, 1.0]]))
    assert present == {"f1": 1, "precision": 1, "sensitivity": 1, "specificity": 0, "harmmean": 0}


def test_unknown_labels_do_not_count():
    made = multi_label(("acc",), HAND, np.array([[1.0, -1.0, -1.0], [1.0, 0.0, -1.0]]))
    # What is left: tp 2, fp 1, fn 0, tn 0.
    assert (made["precision"], made["sensitivity"], made["specificity"]) == pytest.approx((2 / 3, 1, 0))


def test_no_samples_have_no_measures():
    assert multi_label(("acc", "raw"), np.empty((0, 3)), np.empty((0, 3))) == {}


@pytest.mark.parametrize("seed", range(5))
def test_measures_agree_with_scikit_learn_counting_all_classes_together(seed):
    random = np.random.default_rng(seed)
    truth = (random.random((60, 4)) < 0.3).astype(np.float32)
    probabilities = np.clip(0.4 * truth + 0.7 * random.random((60, 4)), 0, 1)
    guessed = probabilities >= 0.5
    made = multi_label(("acc",), probabilities, truth)
    for name, function in (("f1", metrics.f1_score), ("precision", metrics.precision_score)):
        assert made[name] == pytest.approx(function(truth, guessed, average="micro"))
    assert made["sensitivity"] == pytest.approx(metrics.recall_score(truth, guessed, average="micro"))
    assert made["specificity"] == pytest.approx(metrics.recall_score(1 - truth, ~guessed, average="micro"))
