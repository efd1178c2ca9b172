"""How a process of the API ends: calls under way are answered, or told to come again."""

from __future__ import annotations

import time

ENDING_S = 12.0
"""Seconds that calls under way have after TERM; what runs the API waits longer (`cli/services.py`, deploy/)."""


class Ending:
    """Whether this process is about to end, so that calls that wait here must be answered now. For every thread."""

    def __init__(self) -> None:
        self._due_at = float("inf")

    def begin(self) -> None:
        """The process was told to end: those that wait have `ENDING_S` seconds left."""
        self._due_at = min(self._due_at, time.monotonic() + ENDING_S)

    @property
    def is_due(self) -> bool:
        """Whether that time has passed."""
        return time.monotonic() >= self._due_at
