"""The life of a task. Every change is one conditional update, so that of two processes only one can win.

An attempt's writes say `WHERE id AND attempt AND state = 'running'`: whoever finds no row was taken over.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Double,
    Select,
    and_,
    case,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    tuple_,
    update,
)
from sqlalchemy.exc import IntegrityError

from storage.errors import IdempotencyConflict, JobNotFound, ServiceNotFound, Superseded, TaskNotFound
from storage.records.database import Database
from storage.records.deliveries import note_end
from storage.records.quotas import QuotaRecords
from storage.records.rows import (
    MOVES,
    SPEC_VERSION,
    Attempt,
    AttemptRow,
    Json,
    Kind,
    NewTask,
    NewVersion,
    State,
    Task,
)
from storage.records.schema import ago, artifacts, attempts, now, reports, repositories, services, tasks, versions

_COLUMNS = (
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
_OPEN = (State.QUEUED, State.RUNNING)


@dataclass(frozen=True)
class Ended:
    """How an attempt ended: the state that was really written, the version it published, and the task it left."""

    state: State
    version: int | None = None
    following: Task | None = None


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


def _sources(to: State) -> list[State]:
    return [state for state, moves in MOVES.items() if to in moves]


def _task(row: Any) -> Task:
    values = dict(row._mapping)
    values["kind"] = Kind(values["kind"])
    values["state"] = State(values["state"])
    return Task(**values)


def _accept(connection: Connection, account_id: int, new: NewTask) -> Task:
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
        .returning(*_COLUMNS)
    ).one()
    return _task(row)


def _tell(connection: Connection, task: Task, state: State) -> None:
    """Have webhooks told of the end of a task, which the same transaction writes."""
    note_end(connection, task.id, task.account_id, task.service_id, state)


def _held_by(attempt: Attempt) -> ColumnElement[bool]:
    """The fence."""
    return and_(tasks.c.id == attempt.task.id, tasks.c.attempt == attempt.number, tasks.c.state == State.RUNNING)


# Written out: with bound values SQLite does not see that the partial indexes over open tasks hold all that is asked.
_IS_OPEN = text("tasks.state IN ('queued', 'running')")

_earlier = tasks.alias("earlier")
_IS_FIRST_OF_REPOSITORY = ~exists(
    select(literal(1)).where(
        tasks.c.repository_id.is_not(None),
        _earlier.c.repository_id == tasks.c.repository_id,
        _earlier.c.id < tasks.c.id,
        text("earlier.state IN ('queued', 'running')"),
    )
)


_IS_KNOWN = tasks.c.kind.in_([str(kind) for kind in Kind])
# A specification says what it needs where a worker of before would do something else than what was asked.
_IS_UNDERSTOOD = and_(_IS_KNOWN, func.coalesce(tasks.c.spec["needs"].as_integer(), 1) <= SPEC_VERSION)


class Tasks:
    """Tasks and their attempts."""

    def __init__(self, database: Database, quotas: QuotaRecords) -> None:
        self._database = database
        self._quotas = quotas

    # Accepting and reading

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
                    .returning(*_COLUMNS)
                ).one()
                if failure is not None:
                    note_end(connection, row.id, account_id, service_id, State.FAILED)
        except IntegrityError:
            if idempotency_key is not None:
                earlier = self._by_idempotency_key(account_id, idempotency_key, request_digest)
                if earlier is not None:
                    return earlier, False
            raise
        return _task(row), True

    def _by_idempotency_key(self, account_id: int, key: str, digest: str | None) -> Task | None:
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS, tasks.c.request_digest).where(
                    tasks.c.account_id == account_id, tasks.c.idempotency_key == key
                )
            ).one_or_none()
        if row is None:
            return None
        values = dict(row._mapping)
        if values.pop("request_digest") != digest:
            raise IdempotencyConflict(key)
        return Task(**{**values, "kind": Kind(values["kind"]), "state": State(values["state"])})

    def get(self, task_id: int, account_id: int | None = None) -> Task:
        """The task of that number, of that account if one is named; raises TaskNotFound."""
        found = self.get_many([task_id], account_id)
        if not found:
            raise TaskNotFound(task_id)
        return found[0]

    def get_many(self, task_ids: Collection[int], account_id: int | None = None) -> list[Task]:
        """Those of the tasks that exist, by number."""
        wanted = select(*_COLUMNS).where(tasks.c.id.in_(sorted(set(task_ids)))).order_by(tasks.c.id)
        if account_id is not None:
            wanted = wanted.where(tasks.c.account_id == account_id)
        with self._database.read() as connection:
            return [_task(row) for row in connection.execute(wanted)]

    def job(self, service_id: int, job: int) -> Task:
        """The training task with that number in a service; raises JobNotFound, also when it was forgotten."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(
                    tasks.c.service_id == service_id, tasks.c.job == job, tasks.c.forgotten_at.is_(None)
                )
            ).one_or_none()
        if row is None:
            raise JobNotFound(job)
        return _task(row)

    def open_jobs(self, service_ids: Collection[int]) -> list[Task]:
        """The trainings of these services that are not over, running ones first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(
                    tasks.c.service_id.in_(sorted(service_ids)),
                    tasks.c.job.is_not(None),
                    _IS_OPEN,
                )
                .order_by(case((tasks.c.state == State.RUNNING, 0), else_=1), tasks.c.id)
            ).all()
        return [_task(row) for row in rows]

    def open_predictions(self, service_id: int) -> list[Task]:
        """The prediction tasks of a service that are not over."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(tasks.c.service_id == service_id, tasks.c.kind == Kind.PREDICT, _IS_OPEN)
                .order_by(tasks.c.id)
            ).all()
        return [_task(row) for row in rows]

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
        wanted = select(*_COLUMNS).where(tasks.c.account_id == account_id)
        if since is None and until is None:
            order = [tasks.c.id.desc()]
            if before_id is not None:
                wanted = wanted.where(tasks.c.id < before_id)
        else:
            # By time first, as the index has it: else all that came later, or earlier, would have to be read.
            order = [tasks.c.created_at.desc(), tasks.c.id.desc()]
            if since is not None:
                wanted = wanted.where(tasks.c.created_at >= since)
            if until is not None:
                wanted = wanted.where(tasks.c.created_at < until)
            if before_id is not None:
                place = tuple_(literal(before_at, Double), literal(before_id))
                wanted = wanted.where(tuple_(tasks.c.created_at, tasks.c.id) < place)
        if state is not None:
            wanted = wanted.where(tasks.c.state == state)
        if kind is not None:
            wanted = wanted.where(tasks.c.kind == kind)
        if service_id is not None:
            wanted = wanted.where(tasks.c.service_id == service_id)
        with self._database.read() as connection:
            return [_task(row) for row in connection.execute(wanted.order_by(*order).limit(limit))]

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

    def mark_sent(self, task_ids: Collection[int]) -> None:
        """Note that messages were sent."""
        with self._database.write() as connection:
            connection.execute(update(tasks).where(tasks.c.id.in_(sorted(task_ids))).values(sent_at=now()))

    # The attempt

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
                        _IS_FIRST_OF_REPOSITORY,
                        _IS_UNDERSTOOD,
                    )
                    .values(
                        state=State.RUNNING,
                        attempt=tasks.c.attempt + 1,
                        tries=tasks.c.tries + 1,
                        lease_owner=owner,
                        lease_until=now() + lease_s,
                        started_at=func.coalesce(tasks.c.started_at, now()),
                    )
                    .returning(*_COLUMNS, tasks.c.spec)
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
                .where(_held_by(attempt))
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
                update(tasks).where(_held_by(attempt)).values(checkpoint=checkpoint, tries=0, deaths=0)
            ).rowcount
        if not changed:
            raise Superseded(f"{attempt.name} was taken over")

    def note_phases(self, attempt: Attempt, phases: Json) -> None:
        """Record the seconds each phase took; of use to people only, so no fence."""
        with self._database.write() as connection:
            connection.execute(
                update(attempts)
                .where(attempts.c.task_id == attempt.task.id, attempts.c.number == attempt.number)
                .values(phases=phases)
            )

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
                .where(_held_by(attempt))
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
                _tell(connection, attempt.task, State.CANCELLED)
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
        its version, a cancelled one only when its repository has none yet.
        following : accepted in the same transaction when the task ends finished.
        """
        with self._database.write() as connection:
            row = connection.execute(
                update(tasks)
                .where(_held_by(attempt), tasks.c.state.in_(_sources(state)))
                .values(
                    state=case((tasks.c.cancel_requested_at.is_(None), state), else_=State.CANCELLED),
                    finished_at=now(),
                    lease_owner=None,
                    lease_until=None,
                    failure=failure,
                    result_bytes=((report or {}).get("result") or {}).get("size_bytes"),
                )
                .returning(tasks.c.state, tasks.c.repository_id)
            ).one_or_none()
            if row is None:
                raise Superseded(f"{attempt.name} was taken over")
            written = State(row.state)
            self._close(connection, attempt, str(written), phases, failure)
            if report is not None:
                connection.execute(insert(reports).values(task_id=attempt.task.id, report=report))
            number = None
            if version is not None and (
                written is State.FINISHED
                or (written is State.CANCELLED and not self._has_version(connection, row.repository_id))
            ):
                number = self._publish(connection, attempt.task.id, attempt.number, row.repository_id, version)
            left = None
            if following is not None and written is State.FINISHED:
                left = _accept(connection, attempt.task.account_id, following)
            _tell(connection, attempt.task, written)
        return Ended(written, number, left)

    def adopt(self, attempt: Attempt, spec: Json, version: NewVersion, report: Json) -> int:
        """Publish files that a running attempt found in its repository, as an import that is over already.

        Returns the number of the version. Raises Superseded.
        """
        with self._database.write() as connection:
            repository_id = connection.execute(
                # Not a SELECT: the row stays locked until all of this is written.
                update(tasks)
                .where(_held_by(attempt))
                .values(lease_owner=attempt.owner)
                .returning(tasks.c.repository_id)
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

    # Clients and the sweep

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
                .returning(*_COLUMNS)
            ).one_or_none()
            if row is not None and row.state == State.CANCELLED:
                _tell(connection, _task(row), State.CANCELLED)
        return self.get(task_id)

    def forget(self, task_id: int) -> None:
        """Make a job read as not found under its service."""
        with self._database.write() as connection:
            connection.execute(
                update(tasks).where(tasks.c.id == task_id, tasks.c.forgotten_at.is_(None)).values(forgotten_at=now())
            )

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
                .where(_IS_OPEN, tasks.c.state == State.RUNNING, tasks.c.lease_until < now())
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
                .returning(*_COLUMNS)
            ).all()
            taken = [_task(row) for row in rows]
            for task in taken:
                connection.execute(
                    update(attempts)
                    .where(attempts.c.task_id == task.id, attempts.c.ended_at.is_(None))
                    .values(ended_at=now(), outcome="lost")
                )
                if task.state.is_final:
                    _tell(connection, task, task.state)
        return taken

    def silent(self, for_s: float) -> list[Task]:
        """Running tasks whose lease ran out more than `for_s` ago and was not taken back, oldest first; 100 at most."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(_IS_OPEN, tasks.c.state == State.RUNNING, tasks.c.lease_until < ago(for_s))
                .order_by(tasks.c.lease_until)
                .limit(100)
            ).all()
        return [_task(row) for row in rows]

    def waiting(self, unsent_for_s: float) -> list[Waiting]:
        """The queues with tasks that could start now, and which of these were not sent for `unsent_for_s`.

        Those of a kind that this program does not know are for a later one to send.
        """
        startable = and_(_IS_OPEN, tasks.c.id.in_(self._startable()))
        found = []
        with self._database.read() as connection:
            for queue, count in connection.execute(
                select(tasks.c.queue, func.count()).where(startable).group_by(tasks.c.queue)
            ).all():
                rows = connection.execute(
                    select(*_COLUMNS)
                    .where(
                        startable,
                        tasks.c.queue == queue,
                        or_(tasks.c.sent_at.is_(None), tasks.c.sent_at < now() - unsent_for_s),
                    )
                    .order_by(tasks.c.sent_at.is_not(None), tasks.c.sent_at, tasks.c.id)
                    .limit(1000)
                ).all()
                found.append(Waiting(queue, count, [_task(row) for row in rows]))
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
                .where(_IS_OPEN)
                .group_by(tasks.c.kind, tasks.c.queue, tasks.c.state)
            ).all()
        return [
            OpenTasks(Kind(kind), queue, State(state), count, max(0.0, oldest_s), int(run_out), int(startable))
            for kind, queue, state, count, oldest_s, run_out, startable in rows
        ]

    def _startable(self) -> Select[int]:
        """Numbers of the tasks that could start now."""
        # By queue as well: one that waits for a worker which is not there must hold up none that could start.
        place = func.row_number().over(
            partition_by=(tasks.c.account_id, tasks.c.kind, tasks.c.queue), order_by=tasks.c.id
        )
        candidates = (
            select(tasks.c.id, tasks.c.account_id, tasks.c.kind, place.label("place"))
            .where(_IS_OPEN, tasks.c.state == State.QUEUED, _IS_KNOWN, _IS_FIRST_OF_REPOSITORY)
            .subquery()
        )
        return self._quotas.allowed(candidates)

    def next_of_account(self, account_id: int) -> Task | None:
        """The oldest training of an account that its quota let wait and lets start now; None for one without."""
        if not self._quotas.of(account_id).trainings:
            return None
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS)
                .where(
                    _IS_OPEN,
                    tasks.c.account_id == account_id,
                    tasks.c.kind == Kind.TRAIN,
                    tasks.c.sent_at.is_(None),
                    tasks.c.id.in_(self._startable()),
                )
                .order_by(tasks.c.id)
                .limit(1)
            ).one_or_none()
        return None if row is None else _task(row)

    def next_of_repository(self, repository_id: int) -> Task | None:
        """The task that may start now in a repository, if it is still queued."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(tasks.c.repository_id == repository_id, _IS_OPEN).order_by(tasks.c.id).limit(1)
            ).one_or_none()
        return _task(row) if row is not None and row.state == State.QUEUED else None

    def is_startable(self, task: Task) -> bool:
        """Whether no older open task of its repository comes first."""
        if task.repository_id is None:
            return True
        first = self.next_of_repository(task.repository_id)
        return first is not None and first.id == task.id

    def ended_uncleaned(self, older_than_s: float, limit: int = 100) -> list[Task]:
        """Tasks that ended more than `older_than_s` ago and whose files nobody cleaned yet."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(
                    tasks.c.cleaned_at.is_(None),
                    tasks.c.finished_at.is_not(None),
                    tasks.c.finished_at < ago(older_than_s),
                )
                .order_by(tasks.c.finished_at)
                .limit(limit)
            ).all()
        return [_task(row) for row in rows]

    def open_data_keys(self) -> set[str]:
        """The keys of stored inputs that tasks which are not over still need."""
        with self._database.read() as connection:
            rows = connection.execute(select(tasks.c.spec["data_key"].as_string()).where(_IS_OPEN)).scalars()
            return {key for key in rows if key is not None}

    def open_pins(self) -> dict[int, int]:
        """Of each data set that tasks which are not over still need: the oldest state (`revision`) of it they do."""
        with self._database.read() as connection:
            found = connection.execute(select(tasks.c.spec["datasets"]).where(_IS_OPEN)).scalars().all()
        oldest: dict[int, int] = {}
        for pins in found:
            for dataset_id, revision in (pins or {}).values():
                oldest[dataset_id] = min(revision, oldest.get(dataset_id, revision))
        return oldest

    def mark_cleaned(self, task_id: int) -> None:
        """Note that the files of an ended task are gone."""
        with self._database.write() as connection:
            connection.execute(update(tasks).where(tasks.c.id == task_id).values(cleaned_at=now()))
