"""Predictions past the Python package of XGBoost are those of the package, to the bit."""

from __future__ import annotations

import numpy as np
import pytest

xgboost = pytest.importorskip("xgboost")

from ml.backends.xgboost_dense import DensePredictor  # noqa: E402  # after the skip


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "binary:logistic"},
        {"objective": "multi:softprob", "num_class": 3},
        {"objective": "reg:squarederror"},
        {"objective": "reg:squarederror", "targets": 2},
        {"objective": "multi:softmax", "num_class": 3},
        {"objective": "count:poisson", "num_parallel_tree": 3},
    ],
    ids=str,
)
@pytest.mark.parametrize("rows", [1, 2, 500, 3000])
def test_outputs_are_those_of_the_package(options: dict[str, object], rows: int):
    options = dict(options)
    source = np.random.default_rng(7)
    features = source.normal(size=(300, 5)).astype(np.float32)
    features[source.random(features.shape) < 0.1] = np.nan
    targets = options.pop("targets", 1)
    classes = options.get("num_class", 2)
    labels = source.integers(0, classes, size=(300, targets)).squeeze()
    booster = xgboost.train({**options, "nthread": 1}, xgboost.DMatrix(features, labels), 7)
    asked = source.normal(size=(rows, 5)).astype(np.float32)
    asked[source.random(asked.shape) < 0.1] = np.nan
    expected = booster.inplace_predict(asked)
    found = DensePredictor(booster)(asked)
    assert found.shape == expected.shape
    np.testing.assert_array_equal(found, expected)
    # Other layouts and types are the same rows.
    np.testing.assert_array_equal(DensePredictor(booster)(np.asfortranarray(asked.astype(np.float64))), expected)


def test_outputs_are_not_changed_by_the_next_call():
    features = np.arange(20, dtype=np.float32).reshape(10, 2)
    booster = xgboost.train({"nthread": 1, "min_child_weight": 0}, xgboost.DMatrix(features, np.arange(10)), 20)
    predict = DensePredictor(booster)
    first = predict(features[:1])
    kept = first.copy()
    predict(features[9:])
    np.testing.assert_array_equal(first, kept)


def test_rows_of_another_width_are_refused_by_the_library():
    features = np.zeros((4, 3), np.float32)
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(features, np.arange(4)), 1)
    with pytest.raises(xgboost.core.XGBoostError):
        DensePredictor(booster)(np.zeros((1, 5), np.float32))


def test_rows_of_one_call_are_not_seen_by_the_next():
    source = np.random.default_rng(8)
    features = source.normal(size=(200, 4)).astype(np.float32)
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(features, features @ [1, 2, 3, 4]), 5)
    predict = DensePredictor(booster)
    for rows in (1, 200, 3, 1, 64):
        asked = source.normal(size=(rows, 4)).astype(np.float32)
        expected = booster.inplace_predict(asked.copy())
        np.testing.assert_array_equal(predict(asked), expected)
    with pytest.raises(xgboost.core.XGBoostError):
        predict(np.zeros((1, 3), np.float32))
    np.testing.assert_array_equal(predict(asked), expected)
