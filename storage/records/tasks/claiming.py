"""Attempts while they last: who works on a task, until when, and how far it is."""

from __future__ import annotations

from sqlalchemy import and_, func, insert, or_, update
from sqlalchemy.exc import IntegrityError

from storage.errors import Superseded
from storage.records.rows import Attempt, Json, Kind, State, Task
from storage.records.schema import attempts, now, tasks
from storage.records.tasks.table import COLUMNS, IS_FIRST_OF_REPOSITORY, IS_UNDERSTOOD, Part, held_by


class Claiming(Part):
    """Tasks in the hands of workers."""

    def claim(self, task_id: int, owner: str, lease_s: float) -> Attempt | None:
        """Become the one that works on a task, or None when another holds it, it must wait, or it is over.

        Allowed from `queued`, and from `running` when the lease ran out; the attempt number goes up by one.
        Of the tasks of one repository the oldest open one goes first, and only one runs; and of the trainings of an
        account no more run than its quota says. What a later version of this program accepted, and this one does not
        understand, stays queued for a worker that does.
        """
        ran_out = and_(tasks.c.state == State.RUNNING, tasks.c.lease_until < now())
        try:
            with self._database.write() as connection:
                if not self._quotas.check_training(connection, task_id):
                    # Its message is used up: as one that was never sent it goes out again when there is room.
                    connection.execute(
                        update(tasks).where(tasks.c.id == task_id, tasks.c.state == State.QUEUED).values(sent_at=None)
                    )
                    return None
                row = connection.execute(
                    update(tasks)
                    .where(
                        tasks.c.id == task_id,
                        or_(tasks.c.state == State.QUEUED, ran_out),
                        tasks.c.cancel_requested_at.is_(None),
                        IS_FIRST_OF_REPOSITORY,
                        IS_UNDERSTOOD,
                    )
                    .values(
                        state=State.RUNNING,
                        attempt=tasks.c.attempt + 1,
                        tries=tasks.c.tries + 1,
                        lease_owner=owner,
                        lease_until=now() + lease_s,
                        started_at=func.coalesce(tasks.c.started_at, now()),
                    )
                    .returning(*COLUMNS, tasks.c.spec)
                ).one_or_none()
                if row is None:
                    return None
                values = dict(row._mapping)
                spec = values.pop("spec")
                task = Task(**{**values, "kind": Kind(values["kind"]), "state": State(values["state"])})
                connection.execute(
                    update(attempts)
                    .where(attempts.c.task_id == task_id, attempts.c.ended_at.is_(None))
                    .values(ended_at=now(), outcome="lost")
                )
                connection.execute(
                    insert(attempts).values(
                        task_id=task_id,
                        number=task.attempt,
                        owner=owner,
                        started_at=now(),
                        resumed_iteration=None if task.checkpoint is None else task.checkpoint["iteration"],
                        phases={},
                    )
                )
        except IntegrityError:
            return None  # another task of the repository was claimed at the same moment
        return Attempt(task, spec, task.attempt, owner)

    def renew(self, attempt: Attempt, lease_s: float) -> bool:
        """Keep the lease for `lease_s` seconds from now, also one that ran out while nobody took over.

        Returns whether the task shall be cancelled. Raises Superseded.
        """
        with self._database.write() as connection:
            row = connection.execute(
                update(tasks)
                .where(held_by(attempt))
                .values(lease_until=now() + lease_s)
                .returning(tasks.c.cancel_requested_at)
            ).one_or_none()
        if row is None:
            raise Superseded(f"{attempt.name} was taken over")
        return row.cancel_requested_at is not None

    def checkpoint(self, attempt: Attempt, checkpoint: Json) -> None:
        """Record where the next attempt can go on; the count of tries starts again. Raises Superseded.

        checkpoint : at least `iteration` and `prefix`, whose files are complete in the object store.
        """
        with self._database.write() as connection:
            changed = connection.execute(
                update(tasks).where(held_by(attempt)).values(checkpoint=checkpoint, tries=0, deaths=0)
            ).rowcount
        if not changed:
            raise Superseded(f"{attempt.name} was taken over")
