"""What the records name in the object store, and how they go on after both were restored from copies."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Connection, Table, select, text, update

from storage.records.database import Database
from storage.records.rows import Kind, State
from storage.records.schema import (
    artifacts,
    dataset_files,
    dataset_parts,
    dataset_uploads,
    now,
    reports,
    repositories,
    tasks,
    versions,
)

_PAGE = 1000
_IS_OPEN = tasks.c.state.in_((State.QUEUED, State.RUNNING))


@dataclass(frozen=True)
class Named:
    """An artifact that must be there. what : whose it is, in words; size, sha256 : None when no record tells them."""

    what: str
    key: str
    size: int | None = None
    sha256: str | None = None


class Inventory:
    """Looks over all accounts; for operators, never for requests."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def named(self) -> Iterator[Named]:
        """Every artifact that something which can still be asked for consists of. Recovery checkpoints are not among
        them: without one a training begins anew, with the same result.
        """
        yield from self._of_versions()
        yield from self._of_datasets()
        yield from self._of_uploads()
        yield from self._of_tasks()

    def _of_versions(self) -> Iterator[Named]:
        wanted = (
            select(
                artifacts.c.key, artifacts.c.size_bytes, artifacts.c.sha256, repositories.c.location, versions.c.number
            )
            .join(versions, versions.c.id == artifacts.c.version_id)
            .join(repositories, repositories.c.id == versions.c.repository_id)
            .where(versions.c.removed_at.is_(None))
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(wanted):
                what = f"version {row.number} of repository {row.location}"
                yield Named(what, row.key, row.size_bytes, row.sha256)

    def _of_datasets(self) -> Iterator[Named]:
        files = dataset_files.c
        wanted = select(files.dataset_id, files.path, files.key, files.size_bytes, files.sha256).where(
            files.added.is_not(None), files.removed.is_(None)
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(wanted):
                yield Named(f"{row.path} of data set {row.dataset_id}", row.key, row.size_bytes, row.sha256)

    def _of_uploads(self) -> Iterator[Named]:
        parts = dataset_parts.c
        wanted = (
            select(parts.upload_id, parts.number, parts.size_bytes, parts.sha256)
            .join(dataset_uploads, dataset_uploads.c.id == parts.upload_id)
            .where(dataset_uploads.c.ended_at.is_(None))
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(wanted):
                key = f"uploads/{row.upload_id}/{row.number}-{row.sha256}"
                yield Named(f"part {row.number} of upload {row.upload_id}", key, row.size_bytes, row.sha256)

    def _of_tasks(self) -> Iterator[Named]:
        inputs = select(tasks.c.id, tasks.c.spec["data_key"].as_string().label("key")).where(_IS_OPEN)
        # Never the whole report: small results stand in it.
        results = (
            select(
                tasks.c.id,
                reports.c.report[("result", "key")].as_string().label("key"),
                # As a text: PostgreSQL's plain integer ends at 2 GiB.
                reports.c.report[("result", "size_bytes")].as_string().label("size_bytes"),
                reports.c.report[("result", "sha256")].as_string().label("sha256"),
            )
            .join(reports, reports.c.task_id == tasks.c.id)
            .where(tasks.c.kind == Kind.PREDICT, tasks.c.cleaned_at.is_(None))
        )
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(inputs):
                if row.key is not None:
                    yield Named(f"data of task {row.id}", row.key)
        with self._database.read() as connection:
            for row in connection.execution_options(yield_per=_PAGE).execute(results):
                if row.key is not None:
                    yield Named(f"result of task {row.id}", row.key, int(row.size_bytes), row.sha256)

    # After a restore

    def go_on(self, attempts: Mapping[int, int], uploads_max: int) -> int:
        """Fit the records to an object store that knows of more than they do; returns how many tasks were running.

        attempts : for each task that the store has files of, the highest number of an attempt.
        uploads_max : the highest number of an upload that the store has parts of, 0 when there is none.

        Numbers go on above these, so that no file of a time that the records do not know is in the way of a new one.
        Leases are over at once; the folders of repositories are written anew.
        """
        with self._database.write() as connection:
            _raise_counter(connection, tasks, max(attempts, default=0), self._database.is_sqlite)
            _raise_counter(connection, dataset_uploads, uploads_max, self._database.is_sqlite)
            open_tasks = connection.execute(select(tasks.c.id, tasks.c.attempt).where(_IS_OPEN)).all()
            for row in open_tasks:
                if attempts.get(row.id, 0) > row.attempt:
                    connection.execute(update(tasks).where(tasks.c.id == row.id).values(attempt=attempts[row.id]))
            connection.execute(
                update(repositories)
                .where(repositories.c.location.like("/%"))
                .values(exported_version=0, export_until=None)
            )
            return connection.execute(
                update(tasks).where(_IS_OPEN, tasks.c.state == State.RUNNING).values(lease_until=now() - 1.0)
            ).rowcount


def _raise_counter(connection: Connection, table: Table, least: int, is_sqlite: bool) -> None:
    """Have the next row of a table get a number above `least`."""
    if not least:
        return
    if not is_sqlite:
        connection.execute(
            text(
                "SELECT setval(sequence, greatest(CAST(:least AS bigint), nextval(sequence))) "
                "FROM CAST(pg_get_serial_sequence(:name, 'id') AS regclass) AS sequence"
            ),
            {"least": least, "name": table.name},
        )
        return
    wanted = {"least": least, "name": table.name}
    raised = text("UPDATE sqlite_sequence SET seq = max(seq, :least) WHERE name = :name")
    if not connection.execute(raised, wanted).rowcount:  # the table never had a row
        connection.execute(text("INSERT INTO sqlite_sequence (name, seq) VALUES (:name, :least)"), wanted)
