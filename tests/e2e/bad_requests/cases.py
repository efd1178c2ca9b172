"""The register of bad input: what is sent, by the name of its row in `docs/errors.md`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.conftest import Answer, Client

Json = dict[str, Any]


@dataclass
class Cases:
    """What is sent, by name. Trainings are bodies of POST /train; the others answer themselves."""

    trainings: dict[str, Callable[[Client], Json]] = field(default_factory=dict)
    requests: dict[str, Callable[[Client], Answer]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of all cases."""
        return [*self.requests, *self.trainings]


CASES = Cases()


def request(make: Callable[[Client], Answer]) -> Callable[[Client], Answer]:
    """Register a case that sends its request itself."""
    CASES.requests[_new_name(make)] = make
    return make


def train(make: Callable[[Client], Json]) -> Callable[[Client], Json]:
    """Register a case that changes a training which would work otherwise."""
    CASES.trainings[_new_name(make)] = make
    return make


def _new_name(make: Callable[..., Any]) -> str:
    name = str(make.__name__).replace("_", "-")
    assert name not in CASES.names, f"two cases are called {name}"
    return name
