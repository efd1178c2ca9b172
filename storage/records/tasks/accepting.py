"""How tasks come into being."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import IdempotencyConflict, ServiceNotFound
from storage.records.deliveries import note_end
from storage.records.rows import Json, Kind, NewTask, State, Task
from storage.records.schema import now, services, tasks
from storage.records.tasks.table import COLUMNS, Part, task_of


class Accepting(Part):
    """Tasks that clients send."""

    def add(
        self,
        account_id: int,
        kind: Kind,
        queue: str,
        spec: Json,
        *,
        service_id: int | None = None,
        repository_id: int | None = None,
        is_job: bool = False,
        warnings: Sequence[Json] = (),
        idempotency_key: str | None = None,
        request_digest: str | None = None,
        failure: Json | None = None,
    ) -> tuple[Task, bool]:
        """Accept a task; it is durable when this returns.

        is_job : number it within its service (1, 2, 3…), in the same transaction.
        failure : the task is refused already; it is recorded as failed and never sent.
        Returns the task and True; or the earlier task and False when `idempotency_key` came before
        with the same `request_digest`.
        Raises IdempotencyConflict when it came with another one, ServiceNotFound when the service went away,
        QueueQuota, StoredQuota when the account may have no further task.
        """
        if idempotency_key is not None:
            earlier = self._by_idempotency_key(account_id, idempotency_key, request_digest)
            if earlier is not None:
                return earlier, False
        if failure is None:
            self._quotas.check_room(account_id, kind)
        try:
            with self._database.write() as connection:
                if failure is None:
                    self._quotas.check_new_task(connection, account_id, kind)
                job = None
                if is_job:
                    job = connection.execute(
                        update(services)
                        .where(services.c.id == service_id, services.c.deleted_at.is_(None))
                        .values(job_counter=services.c.job_counter + 1)
                        .returning(services.c.job_counter)
                    ).scalar_one_or_none()
                    if job is None:
                        raise ServiceNotFound(str(service_id))
                row = connection.execute(
                    insert(tasks)
                    .values(
                        account_id=account_id,
                        kind=kind,
                        queue=queue,
                        state=State.QUEUED if failure is None else State.FAILED,
                        service_id=service_id,
                        repository_id=repository_id,
                        job=job,
                        spec=spec,
                        warnings=list(warnings),
                        idempotency_key=idempotency_key,
                        request_digest=request_digest,
                        failure=failure,
                        finished_at=None if failure is None else now(),
                    )
                    .returning(*COLUMNS)
                ).one()
                if failure is not None:
                    note_end(connection, row.id, account_id, service_id, State.FAILED)
        except IntegrityError:
            if idempotency_key is not None:
                earlier = self._by_idempotency_key(account_id, idempotency_key, request_digest)
                if earlier is not None:
                    return earlier, False
            raise
        return task_of(row), True

    def _by_idempotency_key(self, account_id: int, key: str, digest: str | None) -> Task | None:
        with self._database.read() as connection:
            row = connection.execute(
                select(*COLUMNS, tasks.c.request_digest).where(
                    tasks.c.account_id == account_id, tasks.c.idempotency_key == key
                )
            ).one_or_none()
        if row is None:
            return None
        values = dict(row._mapping)
        if values.pop("request_digest") != digest:
            raise IdempotencyConflict(key)
        return Task(**{**values, "kind": Kind(values["kind"]), "state": State(values["state"])})


def accept(connection: Connection, account_id: int, new: NewTask) -> Task:
    """A task that another one leaves behind, in the transaction of its end."""
    row = connection.execute(
        insert(tasks)
        .values(
            account_id=account_id,
            kind=new.kind,
            queue=new.queue,
            state=State.QUEUED,
            service_id=new.service_id,
            repository_id=new.repository_id,
            spec=new.spec,
            warnings=[],
        )
        .returning(*COLUMNS)
    ).one()
    return task_of(row)
