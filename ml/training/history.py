"""What a training has told so far, as series: one value per test, and one per iteration."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class History:
    """Series named `<measure>_hist`, one value per test; `iteration_hist` is their x axis."""

    def __init__(self, series: Mapping[str, list[float | None]] | None = None) -> None:
        self._series: dict[str, list[float | None]] = {name: list(values) for name, values in (series or {}).items()}

    def add(self, iteration: int, values: Mapping[str, float | None]) -> None:
        """Append a test; a measure that is undefined in it gets a null, so that all series stay equally long."""
        tests = len(self._series.get("iteration_hist", ()))
        for name, value in {"iteration": iteration, **values}.items():
            self._series.setdefault(f"{name}_hist", [None] * tests).append(value)
        for series in self._series.values():
            if len(series) == tests:
                series.append(None)

    def as_json(self) -> dict[str, list[float | None]]:
        """All series by name."""
        return {name: list(values) for name, values in self._series.items()}

    def __len__(self) -> int:
        return len(self._series.get("iteration_hist", ()))


class Steps:
    """Series with a value per iteration, e.g. train_loss, in bounded memory.

    Every `stride`-th iteration is kept, the first one always; when there are too many, every other one is dropped.
    """

    #: Most points of a series; twice as many as an answer holds unless it asks for more.
    POINTS_MAX = 20_000

    def __init__(self, series: Mapping[str, Sequence[float]] | None = None, stride: int = 1, count: int = 0) -> None:
        self._series: dict[str, list[float]] = {name: list(values) for name, values in (series or {}).items()}
        self.stride = stride
        self.count = count
        """Iterations seen, kept or not."""

    def add(self, values: Mapping[str, float]) -> None:
        """Append an iteration; all iterations bring the same names."""
        if self.count % self.stride == 0:
            for name, value in values.items():
                self._series.setdefault(name, []).append(value)
            if any(len(series) >= self.POINTS_MAX for series in self._series.values()):
                self._series = {name: series[::2] for name, series in self._series.items()}
                self.stride *= 2
        self.count += 1

    def as_json(self) -> dict[str, Any]:
        """The object that `from_json` takes."""
        series = {name: list(values) for name, values in self._series.items()}
        return {"series": series, "stride": self.stride, "count": self.count}

    @classmethod
    def from_json(cls, given: Mapping[str, Any]) -> Steps:
        """The steps that `as_json` came from. Raises TypeError for anything else."""
        return cls(**given)

    def sampled(self, points: int) -> dict[str, Any]:
        """At most `points` values of each series, as `series` by name, and the `stride` between two in iterations."""
        longest = max((len(values) for values in self._series.values()), default=0)
        step = max(1, -(-longest // points))
        return {
            "series": {f"{name}_hist": values[::step] for name, values in self._series.items()},
            "stride": self.stride * step,
        }
