"""Queues as those who wait in them see them: what comes first, what runs, and how long such tasks take."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import and_, case, func, literal, select, text

from storage.records.database import Database
from storage.records.rows import Kind, State, Task
from storage.records.schema import tasks

_AMONG = 20_000  # tasks of all queues: old ones say little, and are not worth a long read
_MOST = 1000
_IS_OPEN = text("tasks.state IN ('queued', 'running')")


@dataclass(frozen=True)
class Before:
    """Queued tasks of one service that come before another task; `is_same` when in the same repository."""

    service_id: int | None
    kind: Kind
    is_same: bool
    count: int


@dataclass(frozen=True)
class Running:
    """A task that runs. Times are seconds since the epoch."""

    id: int
    service_id: int | None
    repository_id: int | None
    kind: Kind
    attempt: int
    started_at: float


@dataclass(frozen=True)
class Took:
    """Seconds that a task took from its first attempt to its end, all of them included."""

    service_id: int | None
    kind: Kind
    seconds: float


class Queues:
    """Reads about whole queues; each is one query."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def before(self, task: Task) -> list[Before]:
        """The queued tasks of its queue that are older than a task, by service."""
        is_same = case((tasks.c.repository_id == task.repository_id, literal(1)), else_=literal(0)).label("is_same")
        with self._database.read() as connection:
            rows = connection.execute(
                select(tasks.c.service_id, tasks.c.kind, is_same, func.count().label("how_many"))
                .where(_IS_OPEN, tasks.c.queue == task.queue, tasks.c.state == State.QUEUED, tasks.c.id < task.id)
                .group_by(tasks.c.service_id, tasks.c.kind, text("is_same"))
            ).all()
        return [Before(row.service_id, Kind(row.kind), bool(row.is_same), row.how_many) for row in rows]

    def running(self, queue: str) -> list[Running]:
        """The tasks of a queue that run now."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    tasks.c.id,
                    tasks.c.service_id,
                    tasks.c.repository_id,
                    tasks.c.kind,
                    tasks.c.attempt,
                    tasks.c.started_at,
                )
                .where(_IS_OPEN, tasks.c.queue == queue, tasks.c.state == State.RUNNING)
                .order_by(tasks.c.id)
            ).all()
        return [Running(**{**row._mapping, "kind": Kind(row.kind)}) for row in rows]

    def took(self, queue: str) -> list[Took]:
        """What the newest finished tasks of a queue took, newest first: at most 1000 of the last 20,000 of all."""
        newest = select(func.max(tasks.c.id)).scalar_subquery()
        with self._database.read() as connection:
            rows = connection.execute(
                select(tasks.c.service_id, tasks.c.kind, tasks.c.finished_at - tasks.c.started_at)
                .where(
                    and_(tasks.c.id > newest - _AMONG, tasks.c.queue == queue),
                    tasks.c.state == State.FINISHED,
                    tasks.c.started_at.is_not(None),
                )
                .order_by(tasks.c.id.desc())
                .limit(_MOST)
            ).all()
        return [Took(service_id, Kind(kind), max(0.0, seconds)) for service_id, kind, seconds in rows]
