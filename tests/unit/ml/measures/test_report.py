"""Histories and the choice of the best test."""

from ml.measures import Best, flat, improved


def test_values_per_class_become_one_series_each():
    measures = {"acc": 0.5, "cmdiag": [0.1, 0.9], "labels": ["a", "b"], "cmfull": [{"a": [1]}], "f1s": [1, 2]}
    assert flat(measures) == {"acc": 0.5, "cmdiag_a": 0.1, "cmdiag_b": 0.9}


def test_the_best_test_is_judged_by_f1_before_accuracy():
    best = improved(None, {"acc": 0.9, "f1": 0.5}, 1)
    assert best == Best("f1", 0.5, 1)
    assert improved(best, {"acc": 0.99, "f1": 0.4}, 2) == best
    assert improved(best, {"acc": 0.1, "f1": 0.6}, 3) == Best("f1", 0.6, 3)


def test_errors_are_better_when_lower_and_ties_keep_the_earlier_test():
    best = improved(None, {"eucll": 3.0}, 1)
    assert improved(best, {"eucll": 2.0}, 2) == Best("eucll", 2.0, 2)
    assert improved(best, {"eucll": 3.0}, 2) == best


def test_nothing_comparable_changes_nothing():
    assert improved(None, {"mcll": 1.0}, 1) is None
    assert improved(None, {"acc": float("nan")}, 1) is None
