"""What is known of tasks."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import and_, case, func, select

from storage.errors import JobNotFound, TaskNotFound
from storage.records.paging import newest, newest_by_time, within
from storage.records.rows import AttemptRow, Json, Kind, State, Task
from storage.records.schema import attempts, reports, tasks
from storage.records.tasks.table import COLUMNS, IS_OPEN, Part, task_of


class Reading(Part):
    """Tasks by number, by service, and page by page."""

    def get(self, task_id: int, account_id: int | None = None) -> Task:
        """The task of that number, of that account if one is named; raises TaskNotFound."""
        found = self.get_many([task_id], account_id)
        if not found:
            raise TaskNotFound(task_id)
        return found[0]

    def get_many(self, task_ids: Collection[int], account_id: int | None = None) -> list[Task]:
        """Those of the tasks that exist, by number."""
        wanted = select(*COLUMNS).where(tasks.c.id.in_(sorted(set(task_ids)))).order_by(tasks.c.id)
        if account_id is not None:
            wanted = wanted.where(tasks.c.account_id == account_id)
        with self._database.read() as connection:
            return [task_of(row) for row in connection.execute(wanted)]

    def job(self, service_id: int, job: int) -> Task:
        """The training task with that number in a service; raises JobNotFound, also when it was forgotten."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*COLUMNS).where(
                    tasks.c.service_id == service_id, tasks.c.job == job, tasks.c.forgotten_at.is_(None)
                )
            ).one_or_none()
        if row is None:
            raise JobNotFound(job)
        return task_of(row)

    def open_jobs(self, service_ids: Collection[int]) -> list[Task]:
        """The trainings of these services that are not over, running ones first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*COLUMNS)
                .where(
                    tasks.c.service_id.in_(sorted(service_ids)),
                    tasks.c.job.is_not(None),
                    IS_OPEN,
                )
                .order_by(case((tasks.c.state == State.RUNNING, 0), else_=1), tasks.c.id)
            ).all()
        return [task_of(row) for row in rows]

    def open_predictions(self, service_id: int) -> list[Task]:
        """The prediction tasks of a service that are not over."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*COLUMNS)
                .where(tasks.c.service_id == service_id, tasks.c.kind == Kind.PREDICT, IS_OPEN)
                .order_by(tasks.c.id)
            ).all()
        return [task_of(row) for row in rows]

    def page(
        self,
        account_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        before_at: float = 0.0,
        state: State | None = None,
        kind: Kind | None = None,
        service_id: int | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Task]:
        """At most `limit` tasks of an account, newest first.

        before_id, before_at : number of the last task of the page before, and when it was created.
        since, until : when the tasks were created, in seconds since 1970, the second one not included.
        """
        wanted = select(*COLUMNS).where(tasks.c.account_id == account_id, *within(tasks.c.created_at, since, until))
        if state is not None:
            wanted = wanted.where(tasks.c.state == state)
        if kind is not None:
            wanted = wanted.where(tasks.c.kind == kind)
        if service_id is not None:
            wanted = wanted.where(tasks.c.service_id == service_id)
        if since is None and until is None:
            wanted = newest(wanted, tasks.c.id, limit=limit, before_id=before_id)
        else:
            before = None if before_id is None else (before_at, before_id)
            wanted = newest_by_time(wanted, tasks.c.created_at, tasks.c.id, limit=limit, before=before)
        with self._database.read() as connection:
            return [task_of(row) for row in connection.execute(wanted)]

    def spec(self, task_id: int) -> Json:
        """The whole specification."""
        with self._database.read() as connection:
            found: Json = connection.execute(select(tasks.c.spec).where(tasks.c.id == task_id)).scalar_one()
        return found

    def report(self, task_id: int) -> Json | None:
        """What the task found: final measures, histories, warnings. None before its end."""
        with self._database.read() as connection:
            found: Json | None = connection.execute(
                select(reports.c.report).where(reports.c.task_id == task_id)
            ).scalar_one_or_none()
        return found

    def report_in_brief(self, task_id: int) -> Json | None:
        """Warnings and final measures of a report, null where it has none; the histories and results stay where they
        are. None before its end.
        """
        wanted = [reports.c.report[name].label(name) for name in ("warnings", "measure")]
        with self._database.read() as connection:
            row = connection.execute(select(*wanted).where(reports.c.task_id == task_id)).one_or_none()
        return None if row is None else dict(row._mapping)

    def attempts(self, task_id: int) -> list[AttemptRow]:
        """How each try went, first one first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    attempts.c.number,
                    attempts.c.owner,
                    attempts.c.started_at,
                    attempts.c.ended_at,
                    attempts.c.outcome,
                    attempts.c.resumed_iteration,
                    attempts.c.phases,
                    attempts.c.failure,
                )
                .where(attempts.c.task_id == task_id)
                .order_by(attempts.c.number)
            ).all()
        return [AttemptRow(**row._mapping) for row in rows]

    def phases(self, task_ids: Collection[int]) -> dict[int, Json]:
        """Seconds by phase of the newest attempt of each task."""
        newest = (
            select(attempts.c.task_id, func.max(attempts.c.number).label("number"))
            .where(attempts.c.task_id.in_(sorted(set(task_ids))))
            .group_by(attempts.c.task_id)
            .subquery()
        )
        with self._database.read() as connection:
            rows = connection.execute(
                select(attempts.c.task_id, attempts.c.phases).join(
                    newest,
                    and_(attempts.c.task_id == newest.c.task_id, attempts.c.number == newest.c.number),
                )
            ).all()
        return {row.task_id: row.phases for row in rows}
