"""The values of every test of a training, in order."""

from __future__ import annotations

from collections.abc import Mapping


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
