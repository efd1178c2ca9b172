"""Which tasks could start now: those of a repository one after the other, those of an account as its quotas say."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from sqlalchemy import Select, and_, case, func, or_, select, update

from storage.records.rows import Kind, State, Task
from storage.records.schema import now, tasks
from storage.records.tasks.table import COLUMNS, IS_FIRST_OF_REPOSITORY, IS_KNOWN, IS_OPEN, Part, task_of


@dataclass(frozen=True)
class Waiting:
    """A queue as the records see it: how many tasks could start now, and which were sent longest ago."""

    queue: str
    startable: int
    oldest: list[Task]


@dataclass(frozen=True)
class OpenTasks:
    """Tasks of one kind, queue and state that are not over.

    oldest_s : seconds since the oldest of them was accepted. run_out : how many of them run without a valid lease.
    startable : how many could start now: queued, and the first of their repository.
    """

    kind: Kind
    queue: str
    state: State
    count: int
    oldest_s: float
    run_out: int
    startable: int


class Starting(Part):
    """Tasks that wait for workers."""

    def mark_sent(self, task_ids: Collection[int]) -> None:
        """Note that messages were sent."""
        with self._database.write() as connection:
            connection.execute(update(tasks).where(tasks.c.id.in_(sorted(task_ids))).values(sent_at=now()))

    def waiting(self, unsent_for_s: float) -> list[Waiting]:
        """The queues with tasks that could start now, and which of these were not sent for `unsent_for_s`.

        Those of a kind that this program does not know are for a later one to send.
        """
        startable = and_(IS_OPEN, tasks.c.id.in_(self._startable()))
        found = []
        with self._database.read() as connection:
            for queue, count in connection.execute(
                select(tasks.c.queue, func.count()).where(startable).group_by(tasks.c.queue)
            ).all():
                rows = connection.execute(
                    select(*COLUMNS)
                    .where(
                        startable,
                        tasks.c.queue == queue,
                        or_(tasks.c.sent_at.is_(None), tasks.c.sent_at < now() - unsent_for_s),
                    )
                    .order_by(tasks.c.sent_at.is_not(None), tasks.c.sent_at, tasks.c.id)
                    .limit(1000)
                ).all()
                found.append(Waiting(queue, count, [task_of(row) for row in rows]))
        return found

    def open_tasks(self) -> list[OpenTasks]:
        """How many tasks are not over, by kind, queue and state."""
        has_run_out = and_(tasks.c.state == State.RUNNING, tasks.c.lease_until < now())
        is_startable = tasks.c.id.in_(self._startable())
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    tasks.c.kind,
                    tasks.c.queue,
                    tasks.c.state,
                    func.count(),
                    now() - func.min(tasks.c.created_at),
                    func.sum(case((has_run_out, 1), else_=0)),
                    func.sum(case((is_startable, 1), else_=0)),
                )
                .where(IS_OPEN)
                .group_by(tasks.c.kind, tasks.c.queue, tasks.c.state)
            ).all()
        return [
            OpenTasks(Kind(kind), queue, State(state), count, max(0.0, oldest_s), int(run_out), int(startable))
            for kind, queue, state, count, oldest_s, run_out, startable in rows
        ]

    def next_of_account(self, account_id: int) -> Task | None:
        """The oldest training of an account that its quota let wait and lets start now; None for one without."""
        if not self._quotas.of(account_id).trainings:
            return None
        with self._database.read() as connection:
            row = connection.execute(
                select(*COLUMNS)
                .where(
                    IS_OPEN,
                    tasks.c.account_id == account_id,
                    tasks.c.kind == Kind.TRAIN,
                    tasks.c.sent_at.is_(None),
                    tasks.c.id.in_(self._startable()),
                )
                .order_by(tasks.c.id)
                .limit(1)
            ).one_or_none()
        return None if row is None else task_of(row)

    def next_of_repository(self, repository_id: int) -> Task | None:
        """The task that may start now in a repository, if it is still queued."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*COLUMNS).where(tasks.c.repository_id == repository_id, IS_OPEN).order_by(tasks.c.id).limit(1)
            ).one_or_none()
        return task_of(row) if row is not None and row.state == State.QUEUED else None

    def is_startable(self, task: Task) -> bool:
        """Whether no older open task of its repository comes first."""
        if task.repository_id is None:
            return True
        first = self.next_of_repository(task.repository_id)
        return first is not None and first.id == task.id

    def _startable(self) -> Select[int]:
        """Numbers of the tasks that could start now."""
        # By queue as well: one that waits for a worker which is not there must hold up none that could start.
        place = func.row_number().over(
            partition_by=(tasks.c.account_id, tasks.c.kind, tasks.c.queue), order_by=tasks.c.id
        )
        candidates = (
            select(tasks.c.id, tasks.c.account_id, tasks.c.kind, place.label("place"))
            .where(IS_OPEN, tasks.c.state == State.QUEUED, IS_KNOWN, IS_FIRST_OF_REPOSITORY)
            .subquery()
        )
        return self._quotas.allowed(candidates)
