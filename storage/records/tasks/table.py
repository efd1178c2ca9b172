"""The rows of tasks, and what is asked of them in more than one place."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, exists, func, literal, select, text

from storage.records.database import Database
from storage.records.deliveries import note_end
from storage.records.quotas import QuotaRecords
from storage.records.rows import SPEC_VERSION, Attempt, Kind, State, Task
from storage.records.schema import tasks

COLUMNS = (
    tasks.c.id,
    tasks.c.account_id,
    tasks.c.kind,
    tasks.c.queue,
    tasks.c.state,
    tasks.c.service_id,
    tasks.c.repository_id,
    tasks.c.job,
    tasks.c.warnings,
    tasks.c.attempt,
    tasks.c.tries,
    tasks.c.deaths,
    tasks.c.lease_owner,
    tasks.c.lease_until,
    tasks.c.sent_at,
    tasks.c.cancel_requested_at,
    tasks.c.created_at,
    tasks.c.started_at,
    tasks.c.finished_at,
    tasks.c.checkpoint,
    tasks.c.failure,
    tasks.c.forgotten_at,
)

# Written out: with bound values SQLite does not see that the partial indexes over open tasks hold all that is asked.
IS_OPEN = text("tasks.state IN ('queued', 'running')")

_earlier = tasks.alias("earlier")
IS_FIRST_OF_REPOSITORY = ~exists(
    select(literal(1)).where(
        tasks.c.repository_id.is_not(None),
        _earlier.c.repository_id == tasks.c.repository_id,
        _earlier.c.id < tasks.c.id,
        text("earlier.state IN ('queued', 'running')"),
    )
)

IS_KNOWN = tasks.c.kind.in_([str(kind) for kind in Kind])

# A specification says what it needs where a worker of before would do something else than what was asked.
IS_UNDERSTOOD = and_(IS_KNOWN, func.coalesce(tasks.c.spec["needs"].as_integer(), 1) <= SPEC_VERSION)


class Part:
    """Base of what makes up `storage.records.tasks.Tasks`."""

    def __init__(self, database: Database, quotas: QuotaRecords) -> None:
        self._database = database
        self._quotas = quotas


def task_of(row: Any) -> Task:
    """What a row of `COLUMNS` tells."""
    values = dict(row._mapping)
    values["kind"] = Kind(values["kind"])
    values["state"] = State(values["state"])
    return Task(**values)


def tell_end(connection: Connection, task: Task, state: State) -> None:
    """Have webhooks told of the end of a task, which the same transaction writes."""
    note_end(connection, task.id, task.account_id, task.service_id, state)


def held_by(attempt: Attempt) -> ColumnElement[bool]:
    """The fence."""
    return and_(tasks.c.id == attempt.task.id, tasks.c.attempt == attempt.number, tasks.c.state == State.RUNNING)
