"""What wrk prints, and what is judged of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import wrk
from benchmarks.peers.figures import judged

PRINTED = """Running 6s test @ http://127.0.0.1:8080/predict
  Latency Distribution
     50%  950.00us
     75%    1.20ms
     90%    2.00ms
     99%    1.50s
  1200 requests in 6.00s, 1.00MB read
  Socket errors: connect 1, read 2, write 0, timeout 3
  Non-2xx or 3xx responses: 7
Requests/sec:    200.50
"""


def test_figures_of_wrk_are_read_with_their_units_and_all_errors():
    assert wrk.parse(PRINTED) == wrk.Load(200.5, pytest.approx(0.95), 1500.0, 13)


def test_output_without_figures_is_refused():
    with pytest.raises(wrk.Unreadable, match="unable to connect"):
        wrk.parse("unable to connect to 127.0.0.1:1")


def test_ratios_are_of_medians_and_to_the_best_peer():
    def load(rate: float, p50: float) -> list[wrk.Load]:
        return [wrk.Load(rate, p50, 9.0, 0), wrk.Load(1.0, 99.0, 9.0, 0), wrk.Load(1e6, 0.001, 9.0, 0)]

    found = {
        "modelyard": {1: load(100, 1.0), 8: load(300, 1.0), 64: load(600, 1.0)},
        "one": {1: load(100, 2.0), 8: load(200, 1.0), 64: load(100, 1.0)},
        "two": {1: load(100, 4.0), 8: load(100, 1.0), 64: load(300, 1.0)},
    }
    eight, many, single = judged(found)
    assert "one 200: 1.50" in eight
    assert "two 300: 2.00" in many
    assert "one 2.00 ms: 0.50" in single


def test_makefile_has_the_command():
    makefile = Path(wrk.__file__).resolve().parent.parent / "Makefile"
    assert "\nbench-peers: " in makefile.read_text(encoding="utf-8")
