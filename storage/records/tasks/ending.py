"""How attempts end, with what they publish in the same transaction."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection, case, insert, literal, select, update

from storage.errors import Superseded
from storage.records.deliveries import note_end
from storage.records.rows import MOVES, Attempt, Json, Kind, NewTask, NewVersion, State, Task
from storage.records.schema import artifacts, attempts, now, reports, repositories, tasks, versions
from storage.records.tasks.accepting import accept
from storage.records.tasks.table import Part, held_by, tell_end


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: the state that was really written, the version it published, and the task it left."""

    state: State
    version: int | None = None
    following: Task | None = None


class Ending(Part):
    """Tasks that workers give out of their hands."""

    def requeue(self, attempt: Attempt, outcome: str, *, phases: Json, failure: Json | None = None) -> Ended:
        """Hand the task back, so that another attempt goes on from the last checkpoint. Raises Superseded.

        outcome : why, for the attempt's row: "paused", which does not count as a try; "stranded", which does; or
            "killed", which counts as a death as well.
        A task whose cancelling was asked for meanwhile ends cancelled instead.
        """
        with self._database.write() as connection:
            is_pause = outcome == "paused"
            wanted = case((tasks.c.cancel_requested_at.is_(None), State.QUEUED), else_=State.CANCELLED)
            row = connection.execute(
                update(tasks)
                .where(held_by(attempt))
                .values(
                    state=wanted,
                    tries=case((tasks.c.tries > 0, tasks.c.tries - 1), else_=0) if is_pause else tasks.c.tries,
                    deaths=tasks.c.deaths + int(outcome == "killed"),
                    finished_at=case((tasks.c.cancel_requested_at.is_(None), None), else_=now()),
                    lease_owner=None,
                    lease_until=None,
                    sent_at=None,
                )
                .returning(tasks.c.state)
            ).one_or_none()
            if row is None:
                raise Superseded(f"{attempt.name} was taken over")
            self._close(connection, attempt, outcome, phases, failure)
            if row.state == State.CANCELLED:
                tell_end(connection, attempt.task, State.CANCELLED)
        return Ended(State(row.state))

    def end(
        self,
        attempt: Attempt,
        state: State,
        *,
        phases: Json,
        report: Json | None = None,
        version: NewVersion | None = None,
        failure: Json | None = None,
        following: NewTask | None = None,
    ) -> Ended:
        """Write the final state, the report and the version in one transaction. Raises Superseded.

        A task whose cancelling was asked for ends cancelled, whatever `state` says. A finished task always publishes
        its version, a cancelled one only when its repository has none yet. A cancelled prediction has no result.
        following : accepted in the same transaction when the task ends finished.
        """
        result_bytes = ((report or {}).get("result") or {}).get("size_bytes")
        with self._database.write() as connection:
            row = connection.execute(
                update(tasks)
                .where(held_by(attempt), tasks.c.state.in_(_sources(state)))
                .values(
                    state=case((tasks.c.cancel_requested_at.is_(None), state), else_=State.CANCELLED),
                    finished_at=now(),
                    lease_owner=None,
                    lease_until=None,
                    failure=failure,
                    result_bytes=case(
                        (tasks.c.cancel_requested_at.is_(None), literal(result_bytes, tasks.c.result_bytes.type)),
                        else_=None,
                    ),
                )
                .returning(tasks.c.state, tasks.c.repository_id)
            ).one_or_none()
            if row is None:
                raise Superseded(f"{attempt.name} was taken over")
            written = State(row.state)
            self._close(connection, attempt, str(written), phases, failure)
            if report is not None:
                if written is State.CANCELLED:
                    report = {name: value for name, value in report.items() if name != "result"}
                connection.execute(insert(reports).values(task_id=attempt.task.id, report=report))
            number = None
            if version is not None and (
                written is State.FINISHED
                or (written is State.CANCELLED and not self._has_version(connection, row.repository_id))
            ):
                number = self._publish(connection, attempt.task.id, attempt.number, row.repository_id, version)
            left = None
            if following is not None and written is State.FINISHED:
                left = accept(connection, attempt.task.account_id, following)
            tell_end(connection, attempt.task, written)
        return Ended(written, number, left)

    def adopt(self, attempt: Attempt, spec: Json, version: NewVersion, report: Json) -> int:
        """Publish files that a running attempt found in its repository, as an import that is over already.

        Returns the number of the version. Raises Superseded.
        """
        with self._database.write() as connection:
            repository_id = connection.execute(
                # Not a SELECT: the row stays locked until all of this is written.
                update(tasks).where(held_by(attempt)).values(lease_owner=attempt.owner).returning(tasks.c.repository_id)
            ).scalar_one_or_none()
            if repository_id is None:
                raise Superseded(f"{attempt.name} was taken over")
            task_id: int = connection.execute(
                insert(tasks)
                .values(
                    account_id=attempt.task.account_id,
                    kind=Kind.IMPORT,
                    queue=attempt.task.queue,
                    state=State.FINISHED,
                    service_id=attempt.task.service_id,
                    repository_id=repository_id,
                    spec=spec,
                    warnings=[],
                    attempt=1,
                    started_at=now(),
                    finished_at=now(),
                )
                .returning(tasks.c.id)
            ).scalar_one()
            connection.execute(
                insert(attempts).values(
                    task_id=task_id,
                    number=1,
                    owner=attempt.owner,
                    started_at=now(),
                    ended_at=now(),
                    outcome=str(State.FINISHED),
                    phases={},
                )
            )
            connection.execute(insert(reports).values(task_id=task_id, report=report))
            note_end(connection, task_id, attempt.task.account_id, attempt.task.service_id, State.FINISHED)
            return self._publish(connection, task_id, 1, repository_id, version)

    @staticmethod
    def _close(connection: Connection, attempt: Attempt, outcome: str, phases: Json, failure: Json | None) -> None:
        connection.execute(
            update(attempts)
            .where(attempts.c.task_id == attempt.task.id, attempts.c.number == attempt.number)
            .values(ended_at=now(), outcome=outcome, phases=phases, failure=failure)
        )

    @staticmethod
    def _has_version(connection: Connection, repository_id: int) -> bool:
        return (
            connection.execute(
                select(versions.c.id)
                .where(versions.c.repository_id == repository_id, versions.c.removed_at.is_(None))
                .limit(1)
            ).first()
            is not None
        )

    @staticmethod
    def _publish(connection: Connection, task_id: int, attempt: int, repository_id: int, version: NewVersion) -> int:
        number: int = connection.execute(
            update(repositories)
            .where(repositories.c.id == repository_id)
            .values(version_counter=repositories.c.version_counter + 1)
            .returning(repositories.c.version_counter)
        ).scalar_one()
        version_id = connection.execute(
            insert(versions)
            .values(
                repository_id=repository_id,
                number=number,
                task_id=task_id,
                attempt=attempt,
                prefix=version.prefix,
                description=version.description,
                size_bytes=sum(each.size_bytes for each in version.artifacts),
            )
            .returning(versions.c.id)
        ).scalar_one()
        if version.artifacts:
            connection.execute(
                insert(artifacts),
                [
                    {
                        "version_id": version_id,
                        "name": each.name,
                        "key": each.key,
                        "size_bytes": each.size_bytes,
                        "sha256": each.sha256,
                    }
                    for each in version.artifacts
                ],
            )
        return number


def _sources(to: State) -> list[State]:
    return [state for state, moves in MOVES.items() if to in moves]
