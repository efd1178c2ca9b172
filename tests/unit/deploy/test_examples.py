"""The example data is what its page says."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from sklearn import datasets

import settings

DATA = Path(settings.__file__).parent / "examples" / "data"


@pytest.mark.parametrize(
    ("name", "original"),
    [
        ("iris", datasets.load_iris()),
        ("wine", datasets.load_wine()),
        ("breast_cancer", datasets.load_breast_cancer()),
        ("diabetes", datasets.load_diabetes(scaled=False)),
    ],
)
def test_file_holds_the_numbers_of_the_original(name: str, original):
    with (DATA / f"{name}.csv").open(newline="") as file:
        header, *rows = csv.reader(file)
    assert len(header) == len(set(header)) == original.data.shape[1] + 1
    values = np.array(rows, dtype=float)
    np.testing.assert_allclose(values[:, :-1], original.data, rtol=1e-9)
    np.testing.assert_array_equal(values[:, -1], original.target)
    assert name in (DATA / "README.md").read_text()
