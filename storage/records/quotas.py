"""What accounts may use, and what they do use. The checks are made within the transactions that they guard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace

from sqlalchemy import Connection, Row, Select, Subquery, and_, exists, func, insert, or_, select, text, update
from sqlalchemy.sql.elements import ColumnElement

from storage.errors import QueueQuota, StoredQuota
from storage.records.audit import OPERATOR, add_note
from storage.records.database import Database
from storage.records.rows import Account, Kind, Quotas, State
from storage.records.schema import (
    accounts,
    dataset_files,
    dataset_uploads,
    datasets,
    quotas,
    repositories,
    tasks,
    versions,
)

NAMES = tuple(each.name for each in fields(Quotas))

COUNTED = frozenset({Kind.TRAIN, Kind.PREDICT, Kind.IMPORT, Kind.UPLOAD, Kind.DESCRIBE})
"""Tasks that wait at the cost of their account. Clearing is free: who is over a limit must be able to delete."""

_KEEPING = frozenset({Kind.TRAIN, Kind.PREDICT, Kind.IMPORT})
"""Tasks that leave something behind, of a size that nobody knows before."""

# Written out: with bound values SQLite does not see that the partial indexes over open tasks hold all that is asked.
_IS_OPEN = text("tasks.state IN ('queued', 'running')")
QUOTA_COLUMNS = tuple(quotas.c[name] for name in NAMES)


@dataclass(frozen=True)
class Use:
    """What an account uses now of what its quotas limit, but for requests, which the records do not count."""

    trainings: int
    queued_tasks: int
    stored_bytes: int


class QuotaRecords:
    """Quotas in the records, over the defaults of the installation.

    defaults : members of `Quotas`, 0 for no limit.
    """

    def __init__(self, database: Database, defaults: Mapping[str, int] | None = None) -> None:
        self._database = database
        self.defaults = Quotas(**dict.fromkeys(NAMES, 0) | dict(defaults or {}))

    def of(self, account_id: int) -> Quotas:
        """The quotas in force for an account, without None."""
        with self._database.read() as connection:
            return self.within(connection, account_id)

    def within(self, connection: Connection, account_id: int) -> Quotas:
        """As `of`, in a transaction."""
        row = connection.execute(select(*QUOTA_COLUMNS).where(quotas.c.account_id == account_id)).one_or_none()
        return self.effective(row)

    def effective(self, row: Row[tuple[int | None, ...]] | None) -> Quotas:
        """The quotas in force where the records hold `row`, whose columns are named as the quotas."""
        own = {} if row is None else {name: getattr(row, name) for name in NAMES}
        return Quotas(**asdict(self.defaults) | {name: value for name, value in own.items() if value is not None})

    def set(self, account: Account, changes: Mapping[str, int | None]) -> Quotas:
        """Change some quotas of an account, None back to the default, and note it; returns those in force then.

        Only the machine itself may: an account that could raise its own quotas would have none.

        changes : by the names of `Quotas`.
        """
        told = ", ".join(f"{name}={'default' if value is None else value}" for name, value in sorted(changes.items()))
        with self._database.write() as connection:
            lock_account(connection, account.id)
            if not connection.execute(
                update(quotas).where(quotas.c.account_id == account.id).values(**changes)
            ).rowcount:
                connection.execute(insert(quotas).values(account_id=account.id, **changes))
            add_note(
                connection, replace(OPERATOR, action="quota.set", kind="account", account_id=account.id, name=told)
            )
            return self.within(connection, account.id)

    def all(self) -> list[tuple[Account, Quotas]]:
        """Every account with the quotas in force for it, by name."""
        wanted = select(accounts.c.id, accounts.c.name, *QUOTA_COLUMNS).outerjoin(
            quotas, quotas.c.account_id == accounts.c.id
        )
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(accounts.c.name)).all()
        return [(Account(row.id, row.name), self.effective(row)) for row in rows]

    def use(self, account_id: int) -> Use:
        """What an account uses."""
        with self._database.read() as connection:
            return Use(
                connection.execute(_training(account_id)).scalar_one(),
                connection.execute(_queued(account_id)).scalar_one(),
                stored_bytes(connection, account_id),
            )

    # Checks. PostgreSQL shows a transaction nothing of those beside it, so whoever counts locks the account first.

    def check_room(self, account_id: int, kind: Kind) -> None:
        """Raises StoredQuota when an account that keeps all it may is to have one more task that leaves something.

        Made before the task is written: the sum over all that is stored takes a while, and guards nothing that the
        task itself adds.
        """
        if kind not in _KEEPING:
            return
        with self._database.read() as connection:
            most = self.within(connection, account_id).stored_bytes
            used = stored_bytes(connection, account_id) if most else 0
        if most and used >= most:
            raise _too_much(used, most)

    def check_new_task(self, connection: Connection, account_id: int, kind: Kind) -> None:
        """Raises QueueQuota when an account may have no further task of that kind."""
        if kind not in COUNTED:
            return
        most = self.within(connection, account_id).queued_tasks
        if not most:
            return
        lock_account(connection, account_id)
        if connection.execute(_queued(account_id)).scalar_one() >= most:
            raise QueueQuota(
                f"as many tasks of this account wait as its quota allows, {most}; "
                "send this one again when some of them have begun"
            )

    def check_training(self, connection: Connection, task_id: int) -> bool:
        """Whether a task may run beside the trainings of its account that run."""
        row = connection.execute(select(tasks.c.account_id, tasks.c.kind).where(tasks.c.id == task_id)).one_or_none()
        if row is None or row.kind != Kind.TRAIN:
            return True
        most = self.within(connection, row.account_id).trainings
        if not most:
            return True
        lock_account(connection, row.account_id)
        running: int = connection.execute(_training(row.account_id, but=task_id)).scalar_one()
        return running < most

    def check_bytes(
        self, connection: Connection, dataset_id: int, more_bytes: int, *, of_upload: int | None = None
    ) -> None:
        """Raises StoredQuota when a data set may not grow by so many bytes.

        of_upload : the upload that they are of, which was counted when it began, as were earlier tries to complete it.
        """
        account_id = connection.execute(select(datasets.c.account_id).where(datasets.c.id == dataset_id)).scalar_one()
        most = self.within(connection, account_id).stored_bytes
        if not most:
            return
        lock_account(connection, account_id)
        coming = _sum(connection, _staged(account_id, of_upload))
        used = coming + _kept_bytes(connection, account_id, of_upload)
        # What takes less room than before comes in over the quota as well, but only one at a time: the content that it
        # takes the place of is still there until then.
        if used + more_bytes > most and (more_bytes > 0 or coming):
            raise _too_much(used, most, more_bytes)

    def allowed(self, candidates: Subquery) -> Select[int]:
        """Numbers of those queued tasks that the quota of running trainings lets start now.

        candidates : tasks with the columns `id`, `account_id`, `kind`, and `place`, which counts those of the same
        account and kind from 1, oldest first.
        """
        running = (
            select(tasks.c.account_id, func.count().label("trainings"))
            .where(_IS_OPEN, tasks.c.state == State.RUNNING, tasks.c.kind == Kind.TRAIN)
            .group_by(tasks.c.account_id)
            .subquery()
        )
        most = func.coalesce(quotas.c.trainings, self.defaults.trainings)
        taken = func.coalesce(running.c.trainings, 0)
        is_free: ColumnElement[bool] = or_(
            candidates.c.kind != Kind.TRAIN, most == 0, candidates.c.place + taken <= most
        )
        return (
            select(candidates.c.id)
            .outerjoin(quotas, quotas.c.account_id == candidates.c.account_id)
            .outerjoin(running, running.c.account_id == candidates.c.account_id)
            .where(is_free)
        )


def stored_bytes(connection: Connection, account_id: int) -> int:
    """What an account keeps in the object store: data sets, also files on their way into them, uploads that go on,
    versions, results of predictions.
    """
    return _sum(connection, _staged(account_id)) + _kept_bytes(connection, account_id)


def _staged(account_id: int, but_upload: int | None = None) -> Select[int]:
    wanted = [datasets.c.account_id == account_id, datasets.c.deleted_at.is_(None), dataset_files.c.added.is_(None)]
    if but_upload is not None:
        wanted.append(dataset_files.c.upload_id.is_distinct_from(but_upload))
    return (
        select(func.sum(dataset_files.c.size_bytes))
        .join(datasets, dataset_files.c.dataset_id == datasets.c.id)
        .where(*wanted)
    )


def _kept_bytes(connection: Connection, account_id: int, but_upload: int | None = None) -> int:
    """As `stored_bytes`, without files on their way."""
    # While the file, or the members, of an upload are being stored, these count in its place.
    is_being_stored = exists(
        select(dataset_files.c.id).where(
            dataset_files.c.dataset_id == dataset_uploads.c.dataset_id,
            dataset_files.c.upload_id == dataset_uploads.c.id,
            dataset_files.c.added.is_(None),
        )
    )
    # Said of both though the one follows from the other: so the index over data sets that are there is of use.
    is_own = and_(datasets.c.account_id == account_id, datasets.c.deleted_at.is_(None))
    ongoing = [is_own, dataset_uploads.c.ended_at.is_(None), ~is_being_stored]
    if but_upload is not None:
        ongoing.append(dataset_uploads.c.id != but_upload)
    sums = (
        select(func.sum(dataset_files.c.size_bytes))
        .join(datasets, dataset_files.c.dataset_id == datasets.c.id)
        .where(is_own, dataset_files.c.added.is_not(None), dataset_files.c.removed.is_(None)),
        select(func.sum(dataset_uploads.c.size_bytes))
        .join(datasets, dataset_uploads.c.dataset_id == datasets.c.id)
        .where(*ongoing),
        select(func.sum(versions.c.size_bytes))
        .join(repositories, versions.c.repository_id == repositories.c.id)
        .where(repositories.c.account_id == account_id, versions.c.removed_at.is_(None)),
        select(func.sum(tasks.c.result_bytes)).where(
            tasks.c.account_id == account_id, tasks.c.result_bytes.is_not(None), tasks.c.cleaned_at.is_(None)
        ),
    )
    return sum(_sum(connection, each) for each in sums)


def _sum(connection: Connection, wanted: Select[int]) -> int:
    # PostgreSQL adds whole numbers up to a decimal one, and nothing to NULL.
    return int(connection.execute(wanted).scalar_one() or 0)


def _training(account_id: int, but: int = 0) -> Select[int]:
    return select(func.count()).where(
        tasks.c.account_id == account_id,
        tasks.c.state == State.RUNNING,
        tasks.c.kind == Kind.TRAIN,
        tasks.c.id != but,
    )


def _queued(account_id: int) -> Select[int]:
    return select(func.count()).where(
        and_(tasks.c.account_id == account_id, tasks.c.state == State.QUEUED), tasks.c.kind.in_(sorted(COUNTED))
    )


def lock_account(connection: Connection, account_id: int) -> None:
    """Have others who count for the same account wait. SQLite lets one write at a time anyway.

    Not so strong that rows which refer to the account could not be written meanwhile.
    """
    connection.execute(select(accounts.c.id).where(accounts.c.id == account_id).with_for_update(key_share=True))


def _too_much(used: int, most: int, more: int = 0) -> StoredQuota:
    adding = f", and {more} more were to come" if more else ""
    return StoredQuota(
        f"this account keeps {used} bytes{adding}; its quota is {most}: delete data sets, results of predictions "
        "(DELETE /tasks/NUMBER/result), or services with clear=full, or have the quota raised"
    )
