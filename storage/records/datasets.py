"""Data sets: files that users uploaded, kept by number of state, so that tasks read what was there when they came."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    and_,
    cast,
    delete,
    exists,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from storage.errors import (
    DatasetConflict,
    DatasetFileNotFound,
    DatasetFull,
    DatasetNotFound,
    StoreUnavailable,
    UploadNotFound,
)
from storage.records.database import Database
from storage.records.paging import newest
from storage.records.quotas import QuotaRecords
from storage.records.rows import Dataset, DatasetFile, Json, NewFile
from storage.records.schema import ago, datasets, now
from storage.records.schema import dataset_files as files
from storage.records.schema import dataset_uploads as uploads
from storage.records.uploads import end_upload

FILES_MOST = 10_000
"""Most files that one data set may hold."""

_IS_HERE = and_(files.c.added.is_not(None), files.c.removed.is_(None))
_OF_IT = and_(files.c.dataset_id == datasets.c.id, _IS_HERE)
_COLUMNS = (
    datasets.c.id,
    datasets.c.account_id,
    datasets.c.name,
    datasets.c.revision,
    datasets.c.created_at,
    datasets.c.changed_at,
    select(func.count()).where(_OF_IT).scalar_subquery().label("file_count"),
    # PostgreSQL adds whole numbers up to a decimal one, which is no JSON.
    select(cast(func.coalesce(func.sum(files.c.size_bytes), 0), BigInteger))
    .where(_OF_IT)
    .scalar_subquery()
    .label("size_bytes"),
)
_FILE = (files.c.id, files.c.path, files.c.key, files.c.size_bytes, files.c.sha256, files.c.facts)
_AT_ONCE = 500

_GIVEN_UP_S = 300.0
"""When files that were given up are cleaned: a slow store may write what it was sent a while after nobody waits."""

# Long before the cleaning takes it for lost, which looks first and deletes then.
_MAY_COME_IN = and_(files.c.removed_at.is_(None), files.c.created_at > ago(20 * 3600.0))

T = TypeVar("T")


class Datasets:
    """The data sets of all accounts. What leaves one keeps its row until no task needs it any more."""

    def __init__(self, database: Database, quotas: QuotaRecords) -> None:
        self._database = database
        self._quotas = quotas

    def create(self, account_id: int, name: str) -> tuple[Dataset, bool]:
        """The data set of that name, and whether it was made just now."""
        try:
            with self._database.write() as connection:
                connection.execute(insert(datasets).values(account_id=account_id, name=name))
        except IntegrityError:
            return self.find(account_id, name), False
        return self.find(account_id, name), True

    def find(self, account_id: int, name: str) -> Dataset:
        """The data set of that name; raises DatasetNotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(
                    datasets.c.account_id == account_id, datasets.c.name == name, datasets.c.deleted_at.is_(None)
                )
            ).one_or_none()
        if row is None:
            raise DatasetNotFound(name)
        return Dataset(**row._mapping)

    def page(self, account_id: int, *, limit: int, before_id: int | None = None) -> list[Dataset]:
        """Data sets of an account, newest first."""
        wanted = select(*_COLUMNS).where(datasets.c.account_id == account_id, datasets.c.deleted_at.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(newest(wanted, datasets.c.id, limit=limit, before_id=before_id)).all()
        return [Dataset(**row._mapping) for row in rows]

    def delete(self, dataset_id: int) -> None:
        """Forget a data set and end its uploads; its files are cleaned when no task needs them. Harmless if repeated.

        Raises DatasetNotFound when another call was faster.
        """
        with self._database.write() as connection:
            revision = _change(connection, dataset_id)
            connection.execute(update(datasets).where(datasets.c.id == dataset_id).values(deleted_at=now()))
            _take_out(connection, revision, files.c.dataset_id == dataset_id)
            connection.execute(
                update(uploads)
                .where(uploads.c.dataset_id == dataset_id, uploads.c.ended_at.is_(None))
                .values(ended_at=now())
            )

    # Files

    def files(self, dataset_id: int, *, limit: int, after: str | None = None) -> list[DatasetFile]:
        """Files that a data set holds now, by path; `after` : the last path of the page before."""
        wanted = [files.c.dataset_id == dataset_id, _IS_HERE]
        if after is not None:
            wanted.append(files.c.path > after)
        with self._database.read() as connection:
            rows = connection.execute(select(*_FILE).where(*wanted).order_by(files.c.path).limit(limit)).all()
        return [DatasetFile(**row._mapping) for row in rows]

    def files_at(self, dataset_id: int, revision: int, path: str = "", limit: int | None = None) -> list[DatasetFile]:
        """The file at `path`, or those below that folder, by path, as they were in a state; the empty path is all."""
        wanted: list[ColumnElement[bool]] = [
            files.c.dataset_id == dataset_id,
            files.c.added <= revision,
            or_(files.c.removed.is_(None), files.c.removed > revision),
        ]
        if path:
            below = f"{path}/"
            wanted.append(or_(files.c.path == path, func.substr(files.c.path, 1, len(below)) == below))
        with self._database.read() as connection:
            rows = connection.execute(select(*_FILE).where(*wanted).order_by(files.c.path).limit(limit)).all()
        return [DatasetFile(**row._mapping) for row in rows]

    def stored_under(self, dataset_id: int, prefix: str) -> list[DatasetFile]:
        """The files that came into a data set with a content below that prefix of the object store."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_FILE).where(
                    files.c.dataset_id == dataset_id,
                    files.c.added.is_not(None),
                    func.substr(files.c.key, 1, len(prefix) + 1) == f"{prefix}/",
                )
            ).all()
        return [DatasetFile(**row._mapping) for row in rows]

    def stage(self, dataset_id: int, new: Sequence[NewFile], upload_id: int | None = None) -> list[int]:
        """Note files before they are stored; `commit` takes the numbers, `storage.staging` drops what it does not.

        They count as stored from now on: `commit` finds the room that there is for them here.

        upload_id : the upload that they come from.
        Raises StoredQuota when there would be no room for them, DatasetConflict, DatasetFull.
        """
        if not new:
            return []
        rows = [
            {
                "dataset_id": dataset_id,
                "path": each.path,
                "key": each.key,
                "size_bytes": each.size_bytes,
                "sha256": each.sha256,
                "upload_id": upload_id,
            }
            for each in new
        ]
        wanted = [each.path for each in new]
        with self._database.write() as connection:
            _check_paths(_held(connection, dataset_id).union(wanted))
            more = sum(each.size_bytes for each in new) - _size_at(connection, dataset_id, wanted)
            self._quotas.check_bytes(connection, dataset_id, more, of_upload=upload_id)
            return list(connection.execute(insert(files).returning(files.c.id), rows).scalars())

    def give_up(self, staged: Sequence[int]) -> bool:
        """Have staged files cleaned in some minutes; False when they became part of a data set."""
        with self._database.write() as connection:
            for some in _pieces(staged):
                # A commit whose answer was lost may still be under way: this waits for it, and finds nothing then.
                connection.execute(
                    update(files).where(files.c.id.in_(some), files.c.added.is_(None)).values(removed_at=now())
                )
            return not any(
                connection.execute(select(exists().where(files.c.id.in_(some), files.c.added.is_not(None)))).scalar()
                for some in _pieces(staged)
            )

    def commit(self, dataset_id: int, staged: Sequence[int], upload_id: int | None = None) -> int:
        """Make stored files part of a data set, all at once; those of the same paths leave it. Returns its new state.

        upload_id : the upload that they come from, which is over then.
        Raises DatasetNotFound, or UploadNotFound, when it was ended meanwhile, DatasetConflict, DatasetFull;
        StoreUnavailable when it took so long that they were cleaned, or soon will be.
        """
        with self._database.write() as connection:
            revision = _change(connection, dataset_id)
            if upload_id is not None and not end_upload(connection, upload_id):
                raise UploadNotFound(upload_id)
            before, wanted = _held(connection, dataset_id), set[str]()
            for some in _pieces(staged):
                # For update: whoever gives them up at this moment waits, or was faster.
                found = select(files.c.path).where(files.c.id.in_(some), _MAY_COME_IN).with_for_update()
                wanted.update(connection.execute(found).scalars())
            if len(wanted) < len(staged):
                raise StoreUnavailable("the files took so long to store that they are cleaned away; send them again")
            _check_paths(before | wanted)
            for paths in _pieces(sorted(before & wanted)):
                _take_out(connection, revision, files.c.dataset_id == dataset_id, files.c.path.in_(paths))
            for some in _pieces(staged):
                connection.execute(update(files).where(files.c.id.in_(some)).values(added=revision))
        return revision

    def remove_file(self, dataset_id: int, path: str) -> int:
        """Take the file at `path` out of a data set; returns its new state. Raises DatasetFileNotFound."""
        with self._database.write() as connection:
            revision = _change(connection, dataset_id)
            if not _take_out(connection, revision, files.c.dataset_id == dataset_id, files.c.path == path):
                raise DatasetFileNotFound(f"the data set holds no file {path!r}")
        return revision

    def describe(self, file_id: int, facts: Json) -> None:
        """Keep what a worker found in a file."""
        with self._database.write() as connection:
            connection.execute(update(files).where(files.c.id == file_id).values(facts=facts))

    # Cleaning

    def left_files(
        self, pins: dict[int, int], older_than_s: float, staged_older_than_s: float, limit: int = 1000
    ) -> list[tuple[int, str]]:
        """Number and key of files that left their data sets long ago and that no task needs, or that never came in.

        pins : the oldest state of each data set that tasks need.
        staged_older_than_s : for those that may still come in, as they are of no upload, or of one that is not over,
        and were not given up.
        """
        needed = [and_(files.c.dataset_id == each, files.c.removed > revision) for each, revision in pins.items()]
        is_over = and_(
            files.c.upload_id.is_not(None),
            ~exists(select(uploads.c.id).where(uploads.c.id == files.c.upload_id, uploads.c.ended_at.is_(None))),
        )
        with self._database.read() as connection:
            rows = connection.execute(
                select(files.c.id, files.c.key)
                .where(
                    or_(
                        and_(files.c.removed_at < ago(older_than_s), *(~each for each in needed)),
                        and_(files.c.added.is_(None), files.c.removed_at < ago(_GIVEN_UP_S)),
                        and_(files.c.added.is_(None), files.c.created_at < ago(staged_older_than_s)),
                        and_(files.c.added.is_(None), files.c.created_at < ago(older_than_s), is_over),
                    )
                )
                .limit(limit)
            ).all()
        return [(row.id, row.key) for row in rows]

    def forget_files(self, file_ids: Collection[int]) -> None:
        """Drop the rows of files whose content is gone."""
        with self._database.write() as connection:
            for some in _pieces(list(file_ids)):
                connection.execute(delete(files).where(files.c.id.in_(some)))


def _held(connection: Connection, dataset_id: int) -> set[str]:
    """The paths of the files that a data set holds now."""
    return set(connection.execute(select(files.c.path).where(files.c.dataset_id == dataset_id, _IS_HERE)).scalars())


def _size_at(connection: Connection, dataset_id: int, paths: Sequence[str]) -> int:
    """What the files at these paths take."""
    sizes = (
        select(func.sum(files.c.size_bytes)).where(files.c.dataset_id == dataset_id, _IS_HERE, files.c.path.in_(some))
        for some in _pieces(paths)
    )
    return sum(int(connection.execute(each).scalar_one() or 0) for each in sizes)


def _change(connection: Connection, dataset_id: int) -> int:
    """The number of the state that a change makes; others who change the data set wait until it is written."""
    revision: int | None = connection.execute(
        update(datasets)
        .where(datasets.c.id == dataset_id, datasets.c.deleted_at.is_(None))
        .values(revision=datasets.c.revision + 1, changed_at=now())
        .returning(datasets.c.revision)
    ).scalar_one_or_none()
    if revision is None:
        name = connection.execute(select(datasets.c.name).where(datasets.c.id == dataset_id)).scalar_one_or_none()
        raise DatasetNotFound(str(name))
    return revision


def _take_out(connection: Connection, revision: int, *which: ColumnElement[bool]) -> int:
    return connection.execute(update(files).where(*which, _IS_HERE).values(removed=revision, removed_at=now())).rowcount


def _check_paths(paths: set[str]) -> None:
    """Raises DatasetFull, and DatasetConflict when a path is that of a file and of a folder as well."""
    if len(paths) > FILES_MOST:
        raise DatasetFull(f"the data set would hold {len(paths)} files, and at most {FILES_MOST} are possible")
    for path in paths:
        for parent in PurePosixPath(path).parents:
            if str(parent) in paths:
                raise DatasetConflict(f"{path!r} cannot lie in the data set, as {str(parent)!r} is a file there")


def _pieces(items: Sequence[T]) -> list[Sequence[T]]:
    """Databases take only so many values in one statement."""
    return [items[start : start + _AT_ONCE] for start in range(0, len(items), _AT_ONCE)]
