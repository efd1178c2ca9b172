"""A training in a process that was forked from one with its libraries imported: real to kill, cheap to start."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def train(specification: dict[str, Any], events: str) -> None:
    """Run a training as the training child does, and append its events to a file, one JSON object a line."""
    from ml.training import checkpoints, session

    # A training of half a second would see no second checkpoint if they might cost a fiftieth of it only.
    checkpoints.COST_MAX = 0.5

    with Path(events).open("a", encoding="utf-8") as file:

        def emit(event: dict[str, Any]) -> None:
            file.write(json.dumps(event) + "\n")
            file.flush()

        session.run(session.Specification.from_json(specification), emit)
