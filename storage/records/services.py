"""Services and the repositories their versions belong to."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, insert, or_, select, text, update
from sqlalchemy.exc import IntegrityError

from storage.errors import RepositoryUnusable, ServiceExists, ServiceNotFound
from storage.records.database import Database
from storage.records.paging import newest, within
from storage.records.rows import Json, Repository, Service
from storage.records.schema import accounts, now, repositories, services

_COLUMNS = (
    services.c.id,
    services.c.account_id,
    services.c.name,
    services.c.mllib,
    services.c.mltype,
    services.c.type,
    services.c.description,
    services.c.repository_id,
    services.c.parameters,
    services.c.model,
    services.c.created_at,
)


class Services:
    """Named configurations. A deleted service keeps its row, because its tasks still tell their end."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(
        self,
        account_id: int,
        name: str,
        *,
        mllib: str,
        mltype: str,
        type: str,
        description: str,
        repository_id: int,
        parameters: Json,
        model: Json | None = None,
    ) -> Service:
        """Create a service; raises ServiceExists, also when another call was faster."""
        try:
            with self._database.write() as connection:
                row = connection.execute(
                    insert(services)
                    .values(
                        account_id=account_id,
                        name=name,
                        mllib=mllib,
                        mltype=mltype,
                        type=type,
                        description=description,
                        repository_id=repository_id,
                        parameters=parameters,
                        model=model or {},
                    )
                    .returning(*_COLUMNS)
                ).one()
        except IntegrityError:
            raise ServiceExists(name) from None
        return Service(**row._mapping)

    def configure(self, service_id: int, *, mltype: str, parameters: Json) -> None:
        """Replace the parameters of a service, and what it predicts."""
        with self._database.write() as connection:
            connection.execute(
                update(services).where(services.c.id == service_id).values(mltype=mltype, parameters=parameters)
            )

    def find(self, account_id: int, name: str) -> Service:
        """The service of that name; raises ServiceNotFound."""
        if "\0" in name:  # PostgreSQL does not even compare with one
            raise ServiceNotFound(name)
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(
                    services.c.account_id == account_id,
                    services.c.name == name,
                    services.c.deleted_at.is_(None),
                )
            ).one_or_none()
        if row is None:
            raise ServiceNotFound(name)
        return Service(**row._mapping)

    def get(self, service_id: int) -> Service:
        """The service of that number, deleted or not."""
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(services.c.id == service_id)).one_or_none()
        if row is None:
            raise ServiceNotFound(str(service_id))
        return Service(**row._mapping)

    def all_of(self, account_id: int) -> list[Service]:
        """All services of an account, by name."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(services.c.account_id == account_id, services.c.deleted_at.is_(None))
                .order_by(services.c.name)
            ).all()
        return [Service(**row._mapping) for row in rows]

    def page(
        self,
        account_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        mllib: str | None = None,
        since: float | None = None,
        until: float | None = None,
    ) -> list[Service]:
        """At most `limit` services of an account, newest first, older than `before_id`.

        since, until : when they were created, in seconds since 1970, the second one not included.
        """
        wanted = select(*_COLUMNS).where(
            services.c.account_id == account_id,
            services.c.deleted_at.is_(None),
            *within(services.c.created_at, since, until),
        )
        if mllib is not None:
            wanted = wanted.where(services.c.mllib == mllib)
        with self._database.read() as connection:
            rows = connection.execute(newest(wanted, services.c.id, limit=limit, before_id=before_id)).all()
        return [Service(**row._mapping) for row in rows]

    def delete(self, service_id: int) -> bool:
        """Forget a service; False when another call did before."""
        with self._database.write() as connection:
            return bool(
                connection.execute(
                    update(services)
                    .where(services.c.id == service_id, services.c.deleted_at.is_(None))
                    .values(deleted_at=now())
                ).rowcount
            )

    def users_of(self, repository_id: int) -> list[Service]:
        """The services that share a repository."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS).where(services.c.repository_id == repository_id, services.c.deleted_at.is_(None))
            ).all()
        return [Service(**row._mapping) for row in rows]


_NESTING_LOCK = 7_305_119  # beside that of the migrations


class Repositories:
    """Where versions belong. A location has one owner, and so has all that lies below a folder."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure(self, account_id: int, location: str) -> Repository:
        """The repository at `location`, made when there is none.

        Raises RepositoryUnusable when it belongs to another account, or lies inside or around a folder that does.
        """
        row = self._row(location)
        if row is None:
            try:
                with self._database.write() as connection:
                    if location.startswith("/") and not self._database.is_sqlite:
                        # Two accounts at one moment must not both find the other's folder missing.
                        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _NESTING_LOCK})
                    _refuse_foreign(connection, account_id, location)
                    connection.execute(insert(repositories).values(account_id=account_id, location=location))
            except IntegrityError:
                pass  # another process was faster
            row = self._row(location)
        if row is None or row.account_id != account_id:
            raise _not_free(location)
        return row

    def check_free(self, account_id: int, location: str) -> None:
        """Raises RepositoryUnusable when `ensure` would; nothing is made."""
        with self._database.read() as connection:
            _refuse_foreign(connection, account_id, location)

    def check_readable(self, account_id: int, path: str) -> None:
        """Raises RepositoryUnusable when a path lies in a repository of another account."""
        places = [path, *(str(folder) for folder in PurePosixPath(path).parents)]
        with self._database.read() as connection:
            taken = connection.execute(
                select(repositories.c.id)
                .where(repositories.c.account_id != account_id, repositories.c.location.in_(places))
                .limit(1)
            ).first()
        if taken is not None:
            raise RepositoryUnusable(f"{path} does not exist, or cannot be used by this account")

    def found_at(self, account_id: int, location: str) -> Repository | None:
        """The repository at `location` if the account has one there."""
        row = self._row(location)
        return row if row is not None and row.account_id == account_id else None

    def check_alone(self, repository: Repository) -> None:
        """Raises RepositoryUnusable when a repository of another account lies inside the folder of this one."""
        with self._database.read() as connection:
            found = connection.execute(
                select(repositories.c.id)
                .where(repositories.c.account_id != repository.account_id, _is_inside(repository.location))
                .limit(1)
            ).first()
        if repository.is_folder and found is not None:
            raise RepositoryUnusable(
                f"the repository {repository.location} holds a repository of another account and cannot be emptied; "
                "remove your own files one by one"
            )

    def get(self, repository_id: int) -> Repository:
        """The repository of that number."""
        with self._database.read() as connection:
            return _repository(connection.execute(_REPOSITORIES.where(repositories.c.id == repository_id)).one())

    def named(self, account: str, name: str) -> Repository:
        """The repository that an account calls `name`; raises RepositoryUnusable when there is none."""
        with self._database.read() as connection:
            rows = connection.execute(
                _REPOSITORIES.join(accounts, accounts.c.id == repositories.c.account_id).where(
                    accounts.c.name == account
                )
            ).all()
        for row in rows:
            if _repository(row).name == name:
                return _repository(row)
        raise RepositoryUnusable(f"account {account!r} has no repository {name!r}")

    def _row(self, location: str) -> Repository | None:
        with self._database.read() as connection:
            row = connection.execute(_REPOSITORIES.where(repositories.c.location == location)).one_or_none()
        return None if row is None else _repository(row)

    def unexported(self) -> list[Repository]:
        """Folders in data roots that lag behind the newest version, and that nobody is writing now."""
        with self._database.read() as connection:
            rows = connection.execute(
                _REPOSITORIES.where(
                    repositories.c.location.like("/%"),
                    repositories.c.exported_version < repositories.c.version_counter,
                    or_(repositories.c.export_until.is_(None), repositories.c.export_until < now()),
                )
            ).all()
        return [_repository(row) for row in rows]

    def lock_export(self, repository_id: int, lease_s: float) -> float | None:
        """Take the right to write the folder for `lease_s` seconds; None when another has it.

        Returns what gives the right back.
        """
        with self._database.write() as connection:
            until: float | None = connection.execute(
                update(repositories)
                .where(
                    repositories.c.id == repository_id,
                    or_(repositories.c.export_until.is_(None), repositories.c.export_until < now()),
                )
                .values(export_until=now() + lease_s)
                .returning(repositories.c.export_until)
            ).scalar_one_or_none()
        return until

    def renew_export(self, repository_id: int, until: float, lease_s: float) -> float | None:
        """Keep the right for `lease_s` seconds from now; None when it ran out and is another's by now.

        Returns what gives the right back from now on.
        """
        with self._database.write() as connection:
            renewed: float | None = connection.execute(
                update(repositories)
                .where(repositories.c.id == repository_id, repositories.c.export_until == until)
                .values(export_until=now() + lease_s)
                .returning(repositories.c.export_until)
            ).scalar_one_or_none()
        return renewed

    def note_exported(self, repository_id: int, until: float, version: int) -> None:
        """Note the number of the version that lies in the folder now, if the right to write it is still held."""
        with self._database.write() as connection:
            connection.execute(
                update(repositories)
                .where(repositories.c.id == repository_id, repositories.c.export_until == until)
                .values(exported_version=version)
            )

    def unlock_export(self, repository_id: int, until: float) -> None:
        """Give the right back that `lock_export` gave, unless it ran out and is another's by now."""
        with self._database.write() as connection:
            connection.execute(
                update(repositories)
                .where(repositories.c.id == repository_id, repositories.c.export_until == until)
                .values(export_until=None)
            )


_REPOSITORIES = select(
    repositories.c.id,
    repositories.c.account_id,
    repositories.c.location,
    repositories.c.version_counter,
    repositories.c.exported_version,
)


def _repository(row: Any) -> Repository:
    return Repository(**row._mapping)


def _is_inside(location: str) -> ColumnElement[bool]:
    """Whether a repository lies below a folder. Not LIKE: SQLite's takes capitals for small letters."""
    below = location.rstrip("/") + "/"
    return func.substr(repositories.c.location, 1, len(below)) == below


def _refuse_foreign(connection: Connection, account_id: int, location: str) -> None:
    places = [repositories.c.location == location]
    if location.startswith("/"):
        above = [str(folder) for folder in PurePosixPath(location).parents]
        places += [repositories.c.location.in_(above), _is_inside(location)]
    taken = select(repositories.c.id).where(repositories.c.account_id != account_id, or_(*places)).limit(1)
    if connection.execute(taken).first() is not None:
        raise _not_free(location)


def _not_free(location: str) -> RepositoryUnusable:
    return RepositoryUnusable(
        f"destination model directory {location} is not writable or does not exist. "
        "(This account cannot use it; choose another one.)"
    )
