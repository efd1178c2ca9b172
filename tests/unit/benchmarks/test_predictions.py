"""What the benchmark of predictions asks, and how large it makes its network."""

from __future__ import annotations

import numpy as np

from benchmarks import predictions


def test_lines_have_four_decimals():
    assert predictions.written(np.array([[1.0, -0.25], [0.12346, 3.0]])) == ["1.0000,-0.2500", "0.1235,3.0000"]


def test_depth_goes_with_the_time():
    assert predictions.depth_for(10.0, 100, 5.0) == 200
    assert predictions.depth_for(10.0, 100, 1e9) == 1
