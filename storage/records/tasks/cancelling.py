"""What clients take back: tasks, and what came of them."""

from __future__ import annotations

from sqlalchemy import case, func, update

from storage.records.rows import State, Task
from storage.records.schema import now, tasks
from storage.records.tasks.reading import Reading
from storage.records.tasks.table import COLUMNS, task_of, tell_end

_OPEN = (State.QUEUED, State.RUNNING)


class Cancelling(Reading):
    """Tasks that nobody wants any more."""

    def request_cancel(self, task_id: int) -> Task:
        """Ask for the end of a task: a queued one is cancelled here, a running one by its worker.

        Asking again, or after the end, changes nothing. Returns the task as it is then.
        """
        with self._database.write() as connection:
            row = connection.execute(
                update(tasks)
                .where(tasks.c.id == task_id, tasks.c.state.in_(_OPEN))
                .values(
                    cancel_requested_at=func.coalesce(tasks.c.cancel_requested_at, now()),
                    state=case((tasks.c.state == State.QUEUED, State.CANCELLED), else_=tasks.c.state),
                    finished_at=case((tasks.c.state == State.QUEUED, now()), else_=None),
                )
                .returning(*COLUMNS)
            ).one_or_none()
            if row is not None and row.state == State.CANCELLED:
                tell_end(connection, task_of(row), State.CANCELLED)
        return self.get(task_id)

    def forget(self, task_id: int) -> None:
        """Make a job read as not found under its service."""
        with self._database.write() as connection:
            connection.execute(
                update(tasks).where(tasks.c.id == task_id, tasks.c.forgotten_at.is_(None)).values(forgotten_at=now())
            )
