"""What follows when the process of an attempt was killed."""

from __future__ import annotations

from storage.records import Attempt, State
from workers.lifecycle import Work
from workers.parts import Parts
from workers.supervisor import Outcome


def after_death(parts: Parts, attempt: Attempt, outcome: Outcome) -> Work:
    """Retry, a training from its checkpoint, within limits that a new checkpoint resets."""
    failure = outcome.failure or {}
    deaths = 1 if outcome.progressed else attempt.task.deaths + 1
    if failure.get("kind") == "out_of_memory":
        earlier = parts.records.tasks.attempts(attempt.task.id)
        is_last = any((row.failure or {}).get("kind") == "out_of_memory" for row in earlier)
    else:
        is_last = deaths >= parts.settings.deaths_max
    if is_last:
        if failure.get("kind") == "killed":
            failure["message"] += f"; it was given up after {deaths} deaths without progress"
        return Work(State.FAILED, failure=failure, phases=outcome.phases)
    return Work(State.QUEUED, "killed", failure=failure, phases=outcome.phases)
