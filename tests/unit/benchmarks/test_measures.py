"""That the benchmark of measures computes the same on both sides, and says so when it does not."""

from __future__ import annotations

from benchmarks import measures


def test_both_sides_compute_the_same_ten_numbers():
    probabilities, truth = measures.made_up(2_000)
    found = measures.ours(probabilities, truth)
    assert measures.differing(found, measures.bare(probabilities, truth)) == []


def test_a_number_that_differs_is_named():
    probabilities, truth = measures.made_up(2_000)
    found = measures.bare(probabilities, truth)
    wrong = {
        **found,
        "f1": found["f1"] + 1e-3,
        "cmfull": [{**found["cmfull"][0], "0": [0.0] * 10}, *found["cmfull"][1:]],
    }
    assert measures.differing(found, wrong) == ["f1", "cmfull"]
