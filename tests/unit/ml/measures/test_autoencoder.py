"""How far a reconstruction is from the features, held in any way."""

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sklearn import metrics

from ml.measures import autoencoder

MADE = np.array([[3.0, 4.0], [0.5, 1.0]], dtype=np.float32)
FEATURES = np.zeros((2, 2), dtype=np.float32)


def test_distance_worked_by_hand_without_values_of_single_features():
    made = autoencoder(("eucll", "eucll-1", "l1", "acc"), MADE, FEATURES)
    assert made == pytest.approx({"eucll": (5 + 1.25**0.5) / 2 / 2, "eucll_no_1": (5 + 1) / 2 / 2})


def test_distance_agrees_with_scikit_learn():
    made, features = np.random.default_rng(0).normal(size=(2, 30, 7))
    lengths = metrics.pairwise.paired_euclidean_distances(made, features)
    assert autoencoder(("eucll",), made, features)["eucll"] == pytest.approx(lengths.mean() / 7)


def test_sparse_features_and_pieces_of_any_size_measure_the_same():
    random = np.random.default_rng(1)
    made = random.random((10, 4), dtype=np.float32)
    features = np.where(random.random((10, 4)) < 0.5, 0, random.random((10, 4))).astype(np.float32)
    names = ("eucll", "eucll-0.2")
    whole = autoencoder(names, made, features)
    assert autoencoder(names, made, csr_matrix(features)) == pytest.approx(whole)
    pieces = [features[:3], csr_matrix(features[3:4]), features[4:4], features[4:]]
    assert autoencoder(names, made, iter(pieces)) == pytest.approx(whole)


def test_pieces_that_are_missing_are_an_error():
    with pytest.raises(ValueError, match="2 samples were made again, but 1 are there"):
        autoencoder(("eucll",), MADE, [FEATURES[:1]])


def test_no_samples_have_no_measures():
    assert autoencoder(("eucll",), MADE[:0], FEATURES[:0]) == {}
