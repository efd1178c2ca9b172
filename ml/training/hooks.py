"""What the training loop tells, to whoever listens."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol

Stop = Literal["cancel", "pause"]


class Hooks(Protocol):
    """Called by the loop; every method must return fast."""

    def should_stop(self) -> Stop | None:
        """Asked before every iteration: whether to leave, and why."""

    def on_step(self, done: int) -> None:
        """`done` iterations are behind us."""

    def on_measures(self, iteration: int, measures: dict[str, Any]) -> None:
        """The test after iteration number `iteration` (from 0) gave these measures."""

    def on_checkpoint(self, iteration: int, folder: Path, seconds: float) -> None:
        """A complete recovery checkpoint lies in `folder`; writing it took so long."""
