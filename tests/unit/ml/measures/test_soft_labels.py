"""Measures of shares: worked by hand, against SciPy and scikit-learn, and what DeepDetect itself gives."""

import math

import numpy as np
import pytest
from scipy.spatial.distance import pdist, squareform
from scipy.special import rel_entr
from sklearn import metrics

from ml.measures import soft_labels

HAND = np.array([[0.25, 0.5], [0.5, 0.0]])
TRUTH = np.array([[0.5, 0.5], [0.125, 0.0]])

# Two equal samples with the values that DeepDetect's own tests find for them.
SHARES_OF_DEEPDETECT = np.array([[0.0, 0.5, 0.1, 0.9]] * 2)
TRUTH_OF_DEEPDETECT = np.array([[0.1, 0.6, 0.0, 0.9]] * 2)
FOUND_BY_DEEPDETECT = {
    "kl_divergence": 0.257584,
    "js_divergence": 0.0178739,
    "wasserstein": 0.0866025,
    "kolmogorov_smirnov": 0.1,
    "distance_correlation": 0.98754,
    "r2": 0.94444,
    "delta_score_0.05": 0.25,
    "delta_score_0.1": 0.5,  # of the three differences of 0.1 the one of 0.6 and 0.5 is rounded down
    "delta_score_0.2": 1,
    "delta_score_0.5": 1,
}


def test_measures_are_those_of_deepdetect():
    made = soft_labels(("acc",), SHARES_OF_DEEPDETECT, TRUTH_OF_DEEPDETECT)
    assert {name: made[name] for name in FOUND_BY_DEEPDETECT} == pytest.approx(FOUND_BY_DEEPDETECT, abs=1e-4)


def test_measures_worked_by_hand():
    made = soft_labels(("acc",), HAND, TRUTH)
    # Truth, share: 1/2, 1/4; 1/2, 1/2; 1/8, 1/2; 0, 0. Differences 1/4, 0, 3/8, 0.
    assert made["kl_divergence"] == pytest.approx((math.log(2) / 2 + math.log(1 / 4) / 8) / 4)
    first = math.log(4 / 3) / 2 + math.log(2 / 3) / 4
    third = math.log(2 / 5) / 8 + math.log(8 / 5) / 2
    assert made["js_divergence"] == pytest.approx((first + third) / 2 / 4)
    assert made["wasserstein"] == pytest.approx(math.sqrt((1 / 16 + 9 / 64) / 4))
    assert made["kolmogorov_smirnov"] == 3 / 8
    mean = 9 / 32
    spread = 2 * (1 / 2 - mean) ** 2 + (1 / 8 - mean) ** 2 + mean**2
    assert made["r2"] == pytest.approx(1 - (1 / 16 + 9 / 64) / spread)
    assert [made[f"delta_score_{delta}"] for delta in (0.05, 0.1, 0.2, 0.5)] == [0.5, 0.5, 0.5, 1]
    # The first truth is the same for both classes; in the second sample both differ, as any two pairs of numbers do.
    assert made["distance_correlation"] == pytest.approx(1)


def test_twins_leave_out_the_true_zeros():
    made = soft_labels(("acc",), HAND, TRUTH)
    alone = soft_labels(("acc",), HAND, np.where(TRUTH == 0, -1, TRUTH))
    twins = {name.removesuffix("_no_0"): value for name, value in made.items() if name.endswith("_no_0")}
    assert twins["kolmogorov_smirnov"] == 3 / 8
    assert twins["wasserstein"] == pytest.approx(math.sqrt((1 / 16 + 9 / 64) / 3))
    assert twins == {name: value for name, value in alone.items() if not name.endswith("_no_0")}


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("kl", ["kl_divergence"]),
        ("js", ["js_divergence"]),
        ("was", ["wasserstein"]),
        ("ks", ["kolmogorov_smirnov"]),
        ("dc", ["distance_correlation"]),
        ("r2", ["r2"]),
        ("deltas", ["delta_score_0.05", "delta_score_0.1", "delta_score_0.2", "delta_score_0.5"]),
    ],
)
def test_each_measure_has_its_keys_and_a_twin_by_its_threshold(name, keys):
    def made(*names):
        return set(soft_labels(names, SHARES_OF_DEEPDETECT, TRUTH_OF_DEEPDETECT))

    assert made(name) == {*keys, *(f"{key}_no_0" for key in keys)}
    assert made(f"{name}-0.05") == {*keys, *(f"{key}_no_0.05" for key in keys)}
    assert made(name, f"{name}-.05", f"{name}-0.10") == {
        *keys,
        *(f"{key}_no_0.05" for key in keys),
        *(f"{key}_no_0.1" for key in keys),
    }


def test_acc_with_a_threshold_gives_it_to_all():
    made = soft_labels(("acc-0.2",), HAND, TRUTH)
    assert made["kolmogorov_smirnov_no_0.2"] == 1 / 4
    assert not any(name.endswith("_no_0") for name in made)


def test_a_truth_equal_to_the_threshold_is_left_out_in_single_precision_too():
    truth = np.array([[0.1, 0.4]], dtype=np.float32)
    made = soft_labels(("ks-0.1",), np.array([[0.9, 0.5]], dtype=np.float32), truth)
    assert made["kolmogorov_smirnov_no_0.1"] == pytest.approx(0.1, abs=1e-6)


def test_unknown_labels_do_not_count():
    made = soft_labels(("ks", "was", "eucll"), np.array([[0.5, 0.9]]), np.array([[0.25, -1.0]]))
    assert (made["kolmogorov_smirnov"], made["wasserstein"], made["eucll"]) == (0.25, 0.25, 0.125)


def test_distance_is_a_measure_too():
    # Rows differ by (1/4, 0) and (3/8, 0), each of two dimensions.
    made = soft_labels(("eucll-0.3",), HAND, TRUTH)
    assert made == pytest.approx({"eucll": (1 / 8 + 3 / 16) / 2, "eucll_no_0.3": 3 / 16 / 2})


def test_raw_lists_every_sample_in_order():
    assert soft_labels(("raw",), HAND, TRUTH, logits=HAND) == {
        "raw": {
            "truths": TRUTH.tolist(),
            "estimations": HAND.tolist(),
            "confidences": [],
            "all_logits": [{"logits": row} for row in HAND.tolist()],
        }
    }


def test_measures_of_a_constant_truth_are_left_out_where_they_are_undefined():
    made = soft_labels(("r2", "dc", "ks"), np.array([[0.1, 0.2], [0.3, 0.4]]), np.full((2, 2), 0.3))
    assert set(made) == {"kolmogorov_smirnov", "kolmogorov_smirnov_no_0"}
    assert set(soft_labels(("ks",), HAND, np.zeros((2, 2)))) == {"kolmogorov_smirnov"}
    assert soft_labels(("acc", "raw", "eucll"), np.empty((0, 2)), np.empty((0, 2))) == {}


def test_shares_without_any_difference_have_no_distance_correlation_with_a_truth_that_has():
    assert soft_labels(("dc",), np.full((1, 3), 0.5), np.array([[0.1, 0.2, 0.6]]))["distance_correlation"] == 0


def test_a_single_class_has_no_distance_correlation():
    assert soft_labels(("dc",), np.array([[0.5], [0.2]]), np.array([[0.1], [0.2]])) == {}


@pytest.mark.parametrize("seed", range(5))
def test_divergences_agree_with_scipy_and_scikit_learn(seed):
    random = np.random.default_rng(seed)
    truth, shares = random.random((2, 40, 3)) * 0.9 + 0.05
    made = soft_labels(("acc-0.4",), shares, truth)
    middle = (truth + shares) / 2
    above = truth > 0.4
    assert made["kl_divergence"] == pytest.approx(rel_entr(truth, shares).mean())
    assert made["kl_divergence_no_0.4"] == pytest.approx(rel_entr(truth, shares)[above].mean())
    assert made["js_divergence"] == pytest.approx((rel_entr(truth, middle) + rel_entr(shares, middle)).mean() / 2)
    assert made["wasserstein"] == pytest.approx(metrics.root_mean_squared_error(truth.ravel(), shares.ravel()))
    assert made["kolmogorov_smirnov"] == pytest.approx(metrics.max_error(truth.ravel(), shares.ravel()))
    assert made["r2"] == pytest.approx(metrics.r2_score(truth.ravel(), shares.ravel()))
    assert made["r2_no_0.4"] == pytest.approx(metrics.r2_score(truth[above], shares[above]))


def by_definition(one, other):
    """Distance correlation of two vectors from their double-centred distance matrices."""

    def centred(values):
        distances = squareform(pdist(values[:, None]))
        across = distances.mean(axis=0)
        return distances - across - across[:, None] + distances.mean()

    a, b = centred(one), centred(other)
    return math.sqrt((a * b).mean() / math.sqrt((a * a).mean() * (b * b).mean()))


@pytest.mark.parametrize("classes", [2, 3, 9])
def test_distance_correlation_agrees_with_its_definition(classes):
    random = np.random.default_rng(classes)
    truth, shares = random.random((2, 30, classes))
    made = soft_labels(("dc",), shares, truth)
    expected = np.mean([by_definition(*rows) for rows in zip(truth, shares, strict=True)])
    assert made["distance_correlation"] == pytest.approx(expected)


def test_distance_correlation_above_a_threshold_is_that_of_the_classes_above_it():
    random = np.random.default_rng(1)
    truth, shares = random.random((2, 5000, 6))  # more than one block of rows
    made = soft_labels(("dc-0.3",), shares, truth)
    pairs = [(row[row > 0.3], other[row > 0.3]) for row, other in zip(truth, shares, strict=True)]
    expected = np.mean([by_definition(*pair) for pair in pairs if len(pair[0]) > 1])
    assert made["distance_correlation_no_0.3"] == pytest.approx(expected)
