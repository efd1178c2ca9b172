"""When a series is flat."""

from __future__ import annotations

import pytest

from benchmarks.soak import SHARE, trend


def test_warm_up_is_left_out():
    found = trend([float(each) for each in range(10)], [0.0, 50.0] + [100.0] * 8)
    assert (found.first, found.last, found.rise, found.per_hour) == (100.0, 100.0, 0.0, 0.0)


def test_slope_is_of_the_line_and_not_of_a_spike():
    values = [100.0 + each for each in range(100)]
    values[60] = 5_000.0
    found = trend([float(each) for each in range(100)], values)
    assert found.per_hour == pytest.approx(3600.0, rel=0.01)
    assert found.rise == pytest.approx(79.0, rel=0.01)
    assert not found.is_flat(2.0)


def test_a_small_series_may_grow_by_what_is_allowed_and_a_large_one_by_its_share():
    times = [float(each) for each in range(100)]
    small = trend(times, [10.0 + each / 50 for each in range(100)])  # 1.58 more, 15 %
    assert small.is_flat(2.0)
    assert not small.is_flat(1.0)
    large = trend(times, [1000.0 + each / 4 for each in range(100)])  # 20 more, below 3 %
    assert 19 < large.rise < SHARE * large.first
    assert large.is_flat(1.0)


def test_what_shrinks_is_flat():
    assert trend([0.0, 1.0, 2.0, 3.0], [9.0, 8.0, 7.0, 1.0]).is_flat(0.0)


def test_too_few_samples_are_refused():
    with pytest.raises(ValueError, match="run for longer"):
        trend([0.0], [1.0])
