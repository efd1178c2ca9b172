"""Uploads in parts: what was said of a file before it came, and which of its parts are there."""

from __future__ import annotations

from collections.abc import Collection

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from storage.errors import DatasetNotFound, UploadNotFound
from storage.records.database import Database
from storage.records.quotas import QuotaRecords
from storage.records.rows import Part, State, Upload
from storage.records.schema import ago, datasets, now, tasks
from storage.records.schema import dataset_parts as parts
from storage.records.schema import dataset_uploads as uploads

LINK_S = 24 * 3600
"""For how long a link is good that a part of an upload can be sent to without us."""

_LINK_GRACE_S = 3600.0  # what was begun in time may take longer, and clocks differ
_AGAIN_S = 600.0

_COLUMNS = (
    uploads.c.id,
    uploads.c.dataset_id,
    uploads.c.path,
    uploads.c.size_bytes,
    uploads.c.sha256,
    uploads.c.part_bytes,
    uploads.c.unpack,
    uploads.c.is_direct,
    uploads.c.is_whole,
    uploads.c.task_id,
    uploads.c.created_at,
    uploads.c.ended_at,
)
_PART = (parts.c.number, parts.c.size_bytes, parts.c.sha256)
# Links are told anew whenever an upload is asked for, so its last one may be as young as its end.
_CANNOT_GROW = or_(~uploads.c.is_direct, uploads.c.ended_at < ago(LINK_S + _LINK_GRACE_S))


class Uploads:
    """Files on their way into data sets."""

    def __init__(self, database: Database, quotas: QuotaRecords) -> None:
        self._database = database
        self._quotas = quotas

    def add(
        self,
        dataset_id: int,
        path: str,
        *,
        size_bytes: int,
        part_bytes: int,
        sha256: str | None = None,
        unpack: bool = False,
        is_direct: bool = False,
        is_whole: bool = False,
    ) -> Upload:
        """Begin an upload. Raises StoredQuota when there would be no room for the whole of it, DatasetNotFound."""
        with self._database.write() as connection:
            # For share: whoever deletes the data set ends its uploads, and would not see this one.
            dataset = connection.execute(
                select(datasets.c.name, datasets.c.deleted_at)
                .where(datasets.c.id == dataset_id)
                .with_for_update(read=True)
            ).one()
            if dataset.deleted_at is not None:
                raise DatasetNotFound(dataset.name)
            self._quotas.check_bytes(connection, dataset_id, size_bytes)
            row = connection.execute(
                insert(uploads)
                .values(
                    dataset_id=dataset_id,
                    path=path,
                    size_bytes=size_bytes,
                    sha256=sha256,
                    part_bytes=part_bytes,
                    unpack=unpack,
                    is_direct=is_direct,
                    is_whole=is_whole,
                )
                .returning(*_COLUMNS)
            ).one()
        return Upload(**row._mapping)

    def find(self, dataset_id: int, upload_id: int) -> Upload:
        """An upload of a data set that is not over; raises UploadNotFound."""
        upload = self.get(upload_id)
        if upload.dataset_id != dataset_id or upload.ended_at is not None:
            raise UploadNotFound(upload_id)
        return upload

    def get(self, upload_id: int) -> Upload:
        """The upload of that number, over or not; raises UploadNotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(uploads.c.id == upload_id)).one_or_none()
        if row is None:
            raise UploadNotFound(upload_id)
        return Upload(**row._mapping)

    def parts(self, upload_id: int) -> list[Part]:
        """The parts that are there, by number."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_PART).where(parts.c.upload_id == upload_id).order_by(parts.c.number)
            ).all()
        return [Part(**row._mapping) for row in rows]

    def note_part(self, upload_id: int, part: Part) -> Part | None:
        """Note that a part is stored; of one that comes again the last content counts, and the one before is returned.

        Raises UploadNotFound.
        """
        with self._database.write() as connection:
            # Touched first: whoever ends the upload at this moment waits, or was faster.
            is_open = connection.execute(
                update(uploads)
                .where(uploads.c.id == upload_id, uploads.c.ended_at.is_(None), uploads.c.task_id.is_(None))
                .values(part_bytes=uploads.c.part_bytes)
            ).rowcount
            if not is_open:
                raise UploadNotFound(upload_id)
            replaced = connection.execute(
                delete(parts).where(parts.c.upload_id == upload_id, parts.c.number == part.number).returning(*_PART)
            ).one_or_none()
            connection.execute(
                insert(parts).values(
                    upload_id=upload_id, number=part.number, size_bytes=part.size_bytes, sha256=part.sha256
                )
            )
        return None if replaced is None else Part(**replaced._mapping)

    def complete_by(self, upload_id: int, task_id: int | None, instead_of: int | None) -> bool:
        """Have a task complete an upload, in place of another; False when somebody else was faster, or it is over."""
        with self._database.write() as connection:
            return bool(
                connection.execute(
                    update(uploads)
                    .where(
                        uploads.c.id == upload_id,
                        uploads.c.ended_at.is_(None),
                        uploads.c.task_id.is_not_distinct_from(instead_of),
                    )
                    .values(task_id=task_id)
                ).rowcount
            )

    def end(self, upload_id: int) -> bool:
        """End an upload; False when it was over. Its parts are cleaned."""
        with self._database.write() as connection:
            return end_upload(connection, upload_id)

    def end_whole(self, begun_older_than_s: float) -> int:
        """End uploads that came in one request and whose task failed, was cancelled, or was not made for so long.

        Returns how many: nobody else could end them, and they would count as stored for days.
        """
        is_over = tasks.c.state.in_((State.FAILED, State.CANCELLED))
        nobody_goes_on = or_(
            uploads.c.task_id.in_(select(tasks.c.id).where(tasks.c.id == uploads.c.task_id, is_over)),
            and_(uploads.c.task_id.is_(None), uploads.c.created_at < ago(begun_older_than_s)),
        )
        with self._database.write() as connection:
            return connection.execute(
                update(uploads)
                .where(uploads.c.is_whole, uploads.c.ended_at.is_(None), nobody_goes_on)
                .values(ended_at=now())
            ).rowcount

    def left(self, ended_older_than_s: float, begun_older_than_s: float, limit: int = 100) -> list[Upload]:
        """Uploads that are over, or that nobody went on with for so long, and whose parts are to be deleted.

        Those whose links may still write come again every ten minutes.
        """
        is_due = or_(uploads.c.cleaned_at.is_(None), uploads.c.cleaned_at < ago(_AGAIN_S), _CANNOT_GROW)
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(
                    or_(uploads.c.ended_at < ago(ended_older_than_s), uploads.c.created_at < ago(begun_older_than_s)),
                    is_due,
                )
                .order_by(uploads.c.cleaned_at.is_not(None), uploads.c.cleaned_at, uploads.c.id)
                .limit(limit)
            ).all()
        return [Upload(**row._mapping) for row in rows]

    def note_cleaned(self, upload_ids: Collection[int]) -> None:
        """Note that the parts of ended uploads are gone; those that no part can come to any more are forgotten."""
        numbers = list(upload_ids)
        with self._database.write() as connection:
            connection.execute(delete(parts).where(parts.c.upload_id.in_(numbers)))
            connection.execute(delete(uploads).where(uploads.c.id.in_(numbers), _CANNOT_GROW))
            connection.execute(update(uploads).where(uploads.c.id.in_(numbers)).values(cleaned_at=now()))


def end_upload(connection: Connection, upload_id: int) -> bool:
    """End an upload within a transaction; False when it was over."""
    ended = update(uploads).where(uploads.c.id == upload_id, uploads.c.ended_at.is_(None)).values(ended_at=now())
    return bool(connection.execute(ended).rowcount)
