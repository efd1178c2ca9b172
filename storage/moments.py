"""Times as the API tells them."""

from __future__ import annotations

from datetime import UTC, datetime


def moment(at: float | None) -> str | None:
    """ISO 8601 in UTC with milliseconds, as in 2026-01-31T09:30:00.250Z; `at` is in seconds since the epoch."""
    if at is None:
        return None
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
