"""The model that every server serves, and one row to ask them about."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost
from sklearn.datasets import load_breast_cancer

TREES, DEPTH = 100, 6
ROWS = (0, 19, 37, 60, 81, 568)
DATA = Path(__file__).resolve().parent.parent.parent / "examples" / "data" / "breast_cancer.csv"


@dataclass(frozen=True)
class Model:
    """A trained model, rows to ask about, and what the bare library says of them.

    rows : float32 array, shape (rows, 30). truth : float array, shape (rows,), probability of the second class.
    """

    path: Path
    rows: np.ndarray
    truth: np.ndarray


def parameters() -> dict[str, Any]:
    """How it is trained, in words of the library."""
    return {"objective": "binary:logistic", "max_depth": DEPTH, "tree_method": "hist", "seed": 1}


def train(folder: Path) -> Model:
    """Train it with the bare library and write it into `folder`."""
    data = load_breast_cancer()
    inputs = data.data.astype(np.float32)
    matrix = xgboost.DMatrix(inputs, data.target, feature_names=None)
    booster = xgboost.train({**parameters(), "nthread": 1}, matrix, TREES)
    path = folder / "model.json"
    booster.save_model(path)
    rows = inputs[list(ROWS)]
    return Model(path, rows, booster.inplace_predict(rows))
