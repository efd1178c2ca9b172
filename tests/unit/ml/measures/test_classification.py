"""Measures of classifiers: worked by hand, and against scikit-learn."""

import math

import numpy as np
import pytest
from sklearn import metrics

from ml.measures import classification

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


def test_each_measure_brings_its_keys_and_no_others():
    def keys(*names):
        return set(classification(names, HAND, TRUTH))

    assert keys("f1") == {"f1", "precision", "recall", "accp"}
    assert keys("f1full") == {"f1", "precision", "recall", "accp", "precisions", "recalls", "f1s", "labels"}
    assert keys("cmdiag") == {"cmdiag", "labels"}
    assert keys("cmfull") == {"cmfull"}
    assert keys("acc-2") == {"acc-2"}
    assert keys() == keys("nonsense") == set()


def test_classes_are_called_by_their_names_and_those_without_by_their_index():
    made = classification(("f1", "cmdiag", "cmfull"), HAND, TRUTH, labels=["cat", "dog"])
    assert made["labels"] == ["cat", "dog", "2"]
    assert [next(iter(row)) for row in made["cmfull"]] == ["cat", "dog", "2"]
    assert classification(("cmdiag",), HAND, TRUTH, labels=["a", "b", "c", "d"])["labels"] == ["a", "b", "c"]


def test_raw_lists_every_sample_in_order():
    assert classification(("raw",), HAND, TRUTH, labels=["cat", "dog", "owl"]) == {
        "raw": {
            "truths": ["cat", "dog", "owl", "owl"],
            "estimations": ["cat", "dog", "dog", "owl"],
            "confidences": [0.7, 0.8, 0.5, 0.6],
        }
    }


def test_raw_tells_logits_when_there_are_any():
    made = classification(("raw",), HAND[:1], TRUTH[:1], logits=np.array([[2.0, 1.0, -1.0]]))
    assert made["raw"]["all_logits"] == [{"logits": [2.0, 1.0, -1.0]}]


def test_absent_classes_count_as_zero_in_means_and_have_empty_rows():
    made = classification(("f1", "cmdiag", "cmfull"), np.eye(4)[[0, 1]], np.array([0, 1]))
    assert made["f1"] == pytest.approx(0.5)
    assert made["recall"] == pytest.approx(0.5)
    assert made["cmdiag"] == [1, 1, 0, 0]
    assert made["cmfull"][3] == {"3": [0, 0, 0, 0]}


def test_any_name_with_acc_in_it_gives_the_accuracy():
    assert classification(("meanacc",), HAND, TRUTH) == {"acc": 0.75}
    assert classification(("acc-1",), HAND, TRUTH) == {"acc": 0.75}


def test_equal_probabilities_favour_the_class_of_lower_index():
    equal = np.full((3, 3), 1 / 3)
    made = classification(("acc", "acc-2", "acc-3"), equal, np.array([0, 1, 2]))
    assert made == pytest.approx({"acc": 1 / 3, "acc-2": 2 / 3, "acc-3": 1})


def test_a_probability_of_zero_keeps_the_log_loss_finite():
    assert classification(("mcll",), np.array([[1.0, 0.0]]), np.array([1]))["mcll"] == pytest.approx(-math.log(1e-15))


def test_undefined_measures_are_left_out():
    assert classification(ALL, np.empty((0, 3)), np.empty(0, int)) == {}
    assert classification(("auc", "gini", "mcc"), HAND, TRUTH) == {}
    assert classification(("auc", "gini"), np.array([[0.2, 0.8]]), np.array([1])) == {}


def test_matthews_correlation_is_zero_when_only_one_class_is_guessed():
    assert classification(("mcc",), np.array([[0.9, 0.1], [0.8, 0.2]]), np.array([0, 1])) == {"mcc": 0}


@pytest.mark.parametrize("classes", [2, 3, 7])
@pytest.mark.parametrize("seed", range(5))
def test_measures_agree_with_scikit_learn(classes, seed):
    random = np.random.default_rng(seed)
    truth = np.r_[np.arange(classes), random.integers(0, classes, 200)]
    raw = random.random((len(truth), classes)) + np.eye(classes)[truth] * random.random((len(truth), 1)) + 0.01
    probabilities = raw / raw.sum(axis=1, keepdims=True)
    guessed = probabilities.argmax(axis=1)
    made = classification((*ALL, "acc-3"), probabilities, truth)
    assert made["acc"] == made["accp"] == pytest.approx(metrics.accuracy_score(truth, guessed))
    assert made["f1"] == pytest.approx(metrics.f1_score(truth, guessed, average="macro"), abs=1e-7)
    assert made["precision"] == pytest.approx(metrics.precision_score(truth, guessed, average="macro", zero_division=0))
    assert made["recall"] == pytest.approx(metrics.recall_score(truth, guessed, average="macro"))
    assert made["f1s"] == pytest.approx(metrics.f1_score(truth, guessed, average=None), abs=1e-7)
    assert made["mcll"] == pytest.approx(metrics.log_loss(truth, probabilities))
    confusion = metrics.confusion_matrix(truth, guessed, normalize="true")
    assert made["cmdiag"] == pytest.approx(np.diag(confusion))
    assert [next(iter(row.values())) for row in made["cmfull"]] == pytest.approx(confusion)
    if classes > 2:
        assert made["acc-2"] == pytest.approx(metrics.top_k_accuracy_score(truth, probabilities, k=2))
    if classes > 3:
        assert made["acc-3"] == pytest.approx(metrics.top_k_accuracy_score(truth, probabilities, k=3))
    if classes == 2:
        assert made["auc"] == pytest.approx(metrics.roc_auc_score(truth, probabilities[:, 1]))
        assert made["mcc"] == pytest.approx(metrics.matthews_corrcoef(truth, guessed))


@pytest.mark.parametrize("levels", [2, 5])
def test_area_under_the_curve_agrees_with_scikit_learn_when_many_scores_are_equal(levels):
    random = np.random.default_rng(levels)
    truth = random.integers(0, 2, 300)
    scores = random.integers(0, levels, 300) / levels
    made = classification(("auc",), np.stack([1 - scores, scores], axis=1), truth)
    assert made["auc"] == pytest.approx(metrics.roc_auc_score(truth, scores))
