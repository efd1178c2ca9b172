"""Histories, several test sets, and the choice of the best test."""

import numpy as np
import pytest

from ml.measures import Best, compute, flat, improved, several
from ml.options.target import Target


def test_values_per_class_become_one_series_each():
    measures = {"acc": 0.5, "cmdiag": [0.1, 0.9], "labels": ["a", "b"], "cmfull": [{"a": [1]}], "f1s": [1, 2]}
    assert flat(measures) == {"acc": 0.5, "cmdiag_a": 0.1, "cmdiag_b": 0.9}


def test_what_is_no_number_has_no_history():
    measures = {"acc": 0.5, "raw": {"truths": []}, "test_id": 1, "test_name": "b.csv", "cmdiag": [], "is_last": True}
    assert flat(measures) == {"acc": 0.5}


def test_values_per_class_without_names_are_called_by_their_index():
    assert flat({"clacc": [0.25, 0.5]}) == {"clacc_0": 0.25, "clacc_1": 0.5}


def test_one_test_set_is_the_mean_of_itself():
    one = {"acc": 0.5, "cmdiag": [0.1, 0.9], "labels": ["a", "b"], "cmfull": [{"a": [1, 0]}, {"b": [0, 1]}]}
    assert several([{**one, "raw": {"truths": ["a"]}}]) == one
    assert several([]) == {}


def test_several_test_sets_have_their_mean_and_each_its_own_numbers():
    labels = ["a", "b"]
    made = several(
        [
            {"acc": 0.5, "cmdiag": [0.0, 1.0], "labels": labels, "cmfull": [{"a": [0, 1]}, {"b": [0, 1]}]},
            {"acc": 1.0, "cmdiag": [1.0, 1.0], "labels": labels, "cmfull": [{"a": [1, 0]}, {"b": [0, 1]}]},
        ]
    )
    assert made == {
        "acc": 0.75,
        "cmdiag": [0.5, 1.0],
        "labels": labels,
        "cmfull": [{"a": [0.5, 0.5]}, {"b": [0, 1]}],
        "acc_test0": 0.5,
        "cmdiag_a_test0": 0.0,
        "cmdiag_b_test0": 1.0,
        "acc_test1": 1.0,
        "cmdiag_a_test1": 1.0,
        "cmdiag_b_test1": 1.0,
    }
    assert set(flat(made)) == {
        f"{name}{suffix}" for name in ("acc", "cmdiag_a", "cmdiag_b") for suffix in ("", "_test0", "_test1")
    }


def test_a_measure_that_one_set_lacks_is_the_mean_of_the_others():
    assert several([{"acc": 0.5}, {"acc": 1.0, "auc": 0.75}, {}]) == {
        "acc": 0.75,
        "auc": 0.75,
        "acc_test0": 0.5,
        "acc_test1": 1.0,
        "auc_test1": 0.75,
    }


def test_arrays_of_other_lengths_and_words_have_no_mean():
    made = several([{"cmdiag": [1.0], "labels": ["a"]}, {"cmdiag": [1.0, 0.5], "labels": ["a", "b"]}])
    assert made == {"cmdiag_a_test0": 1.0, "cmdiag_a_test1": 1.0, "cmdiag_b_test1": 0.5}
    assert several([{"cmfull": [{"a": [1]}]}, {"cmfull": [{"b": [1]}]}]) == {}
    assert several([{"labels": ["a", "b"]}, {"labels": ["a", "c"]}]) == {}


def test_mean_over_sets_is_the_mean_of_what_each_set_gives():
    random = np.random.default_rng(0)
    target = Target("classification", classes=3)
    sets = [
        compute(target, ("acc", "f1", "cmdiag"), random.dirichlet(np.ones(3), 20), random.integers(0, 3, 20))
        for _ in range(3)
    ]
    made = several(sets)
    assert made["f1"] == pytest.approx(np.mean([each["f1"] for each in sets]))
    assert made["cmdiag"] == pytest.approx(np.mean([each["cmdiag"] for each in sets], axis=0))
    assert [made[f"f1_test{position}"] for position in range(3)] == [each["f1"] for each in sets]


def test_the_best_test_is_judged_by_the_first_measure_of_the_list_that_is_there():
    best = improved(None, {"acc": 0.9, "f1": 0.5}, 1)
    assert best == Best("f1", 0.5, 1)
    assert improved(best, {"acc": 0.99, "f1": 0.4}, 2) == best
    assert improved(best, {"acc": 0.1, "f1": 0.6}, 3) == Best("f1", 0.6, 3)
    order = ["map", "meaniou", "mlacc", "delta_score_0.1", "bacc", "f1", "net_meas", "acc", "L1_mean_error", "eucll"]
    for position, name in enumerate(order):
        assert improved(None, dict.fromkeys(order[position:], 0.5), 1) == Best(name, 0.5, 1)


@pytest.mark.parametrize("name", ["eucll", "L1_mean_error"])
def test_errors_are_better_when_lower_and_ties_keep_the_earlier_test(name):
    best = improved(None, {name: 3.0}, 1)
    assert improved(best, {name: 2.0}, 2) == Best(name, 2.0, 2)
    assert improved(best, {name: 3.0}, 2) == best
    assert improved(best, {name: 4.0}, 2) == best


def test_each_of_several_test_sets_has_its_best_and_so_has_their_mean():
    tests = [[{"f1": 0.5}, {"f1": 0.9}], [{"f1": 0.7}, {"f1": 0.8}], [{"f1": 0.6}, {"f1": 0.85}]]
    mean, each = None, [None, None]
    for iteration, sets in enumerate(tests):
        mean = improved(mean, several(sets), iteration)
        each = [improved(best, measures, iteration) for best, measures in zip(each, sets, strict=True)]
    assert (mean.iteration, mean.value) == (1, 0.75)
    assert each == [Best("f1", 0.7, 1), Best("f1", 0.9, 0)]


def test_nothing_comparable_changes_nothing():
    assert improved(None, {"mcll": 1.0}, 1) is None
    assert improved(None, {"acc": float("nan")}, 1) is None
    best = Best("f1", 0.5, 1)
    assert improved(best, {}, 2) == best
