"""Measures: numbers computed from predictions and truth, as pure functions of arrays."""

from ml.measures.classification import classification
from ml.measures.regression import regression
from ml.measures.report import Best, flat, improved, unknown

__all__ = ["Best", "classification", "flat", "improved", "regression", "unknown"]
