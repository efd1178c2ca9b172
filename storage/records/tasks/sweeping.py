"""What the sweep looks for: attempts whose worker fell silent, and what ended tasks left behind."""

from __future__ import annotations

from sqlalchemy import and_, case, literal, or_, select, update

from storage.records.rows import Json, State, Task
from storage.records.schema import ago, attempts, now, reports, tasks
from storage.records.tasks.table import COLUMNS, IS_OPEN, Part, task_of, tell_end


class Sweeping(Part):
    """Tasks that are to be taken back, or cleaned up after."""

    def take_back_silent(self, tries_max: int, failure: Json) -> list[Task]:
        """End or hand back every running task whose lease ran out; each is returned as it is then.

        One that shall be cancelled is cancelled; one that made no progress in `tries_max` tries fails with `failure`;
        any other is queued again.
        """
        given_up = tasks.c.tries >= tries_max
        final = or_(tasks.c.cancel_requested_at.is_not(None), given_up)
        with self._database.write() as connection:
            rows = connection.execute(
                update(tasks)
                .where(IS_OPEN, tasks.c.state == State.RUNNING, tasks.c.lease_until < now())
                .values(
                    state=case(
                        (tasks.c.cancel_requested_at.is_not(None), State.CANCELLED),
                        (given_up, State.FAILED),
                        else_=State.QUEUED,
                    ),
                    failure=case(
                        (
                            and_(tasks.c.cancel_requested_at.is_(None), given_up),
                            literal(failure, tasks.c.failure.type),
                        ),
                        else_=tasks.c.failure,
                    ),
                    finished_at=case((final, now()), else_=None),
                    lease_owner=None,
                    lease_until=None,
                    sent_at=None,
                )
                .returning(*COLUMNS)
            ).all()
            taken = [task_of(row) for row in rows]
            for task in taken:
                connection.execute(
                    update(attempts)
                    .where(attempts.c.task_id == task.id, attempts.c.ended_at.is_(None))
                    .values(ended_at=now(), outcome="lost")
                )
                if task.state.is_final:
                    tell_end(connection, task, task.state)
        return taken

    def silent(self, for_s: float) -> list[Task]:
        """Running tasks whose lease ran out more than `for_s` ago and was not taken back, oldest first; 100 at most."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*COLUMNS)
                .where(IS_OPEN, tasks.c.state == State.RUNNING, tasks.c.lease_until < ago(for_s))
                .order_by(tasks.c.lease_until)
                .limit(100)
            ).all()
        return [task_of(row) for row in rows]

    def ended_uncleaned(self, older_than_s: float, limit: int = 100) -> list[Task]:
        """Tasks that ended more than `older_than_s` ago and whose files nobody cleaned yet."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*COLUMNS)
                .where(
                    tasks.c.cleaned_at.is_(None),
                    tasks.c.finished_at.is_not(None),
                    tasks.c.finished_at < ago(older_than_s),
                )
                .order_by(tasks.c.finished_at)
                .limit(limit)
            ).all()
        return [task_of(row) for row in rows]

    def open_data_keys(self) -> set[str]:
        """The keys of stored inputs that tasks which are not over still need."""
        with self._database.read() as connection:
            rows = connection.execute(select(tasks.c.spec["data_key"].as_string()).where(IS_OPEN)).scalars()
            return {key for key in rows if key is not None}

    def open_pins(self) -> dict[int, int]:
        """Of each data set that tasks which are not over still need: the oldest state (`revision`) of it they do."""
        with self._database.read() as connection:
            found = connection.execute(select(tasks.c.spec["datasets"]).where(IS_OPEN)).scalars().all()
        oldest: dict[int, int] = {}
        for pins in found:
            for dataset_id, revision in (pins or {}).values():
                oldest[dataset_id] = min(revision, oldest.get(dataset_id, revision))
        return oldest

    def mark_cleaned(self, task_id: int) -> None:
        """Note that the files of an ended task are gone."""
        with self._database.write() as connection:
            connection.execute(update(tasks).where(tasks.c.id == task_id).values(cleaned_at=now()))

    def forget_result(self, task_id: int) -> bool:
        """Drop the result of an ended prediction, which is not counted as stored from then on; False without one.

        Its report still tells what it was.
        """
        with self._database.write() as connection:
            report = connection.execute(
                select(reports.c.report).where(reports.c.task_id == task_id).with_for_update()
            ).scalar_one_or_none()
            result = (report or {}).get("result", {})
            if report is None or not result.keys() & {"content", "key"}:
                return False
            left = {name: value for name, value in result.items() if name not in ("content", "key")}
            connection.execute(
                update(reports).where(reports.c.task_id == task_id).values(report={**report, "result": left})
            )
            connection.execute(update(tasks).where(tasks.c.id == task_id).values(result_bytes=None))
        return True
