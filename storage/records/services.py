"""Services and the repositories their versions belong to."""

from __future__ import annotations

from typing import Any

from sqlalchemy import insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import RepositoryUnusable, ServiceExists, ServiceNotFound
from storage.records.database import Database
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
                    )
                    .returning(*_COLUMNS)
                ).one()
        except IntegrityError:
            raise ServiceExists(name) from None
        return Service(**row._mapping)

    def find(self, account_id: int, name: str) -> Service:
        """The service of that name; raises ServiceNotFound."""
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


class Repositories:
    """Where versions belong. A location has one owner."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure(self, account_id: int, location: str) -> Repository:
        """The repository at `location`, made when there is none.

        Raises RepositoryUnusable when it belongs to another account.
        """
        row = self._row(location)
        if row is None:
            try:
                with self._database.write() as connection:
                    connection.execute(insert(repositories).values(account_id=account_id, location=location))
            except IntegrityError:
                pass  # another process was faster
            row = self._row(location)
        if row is None or row.account_id != account_id:
            raise RepositoryUnusable(f"destination model directory {location} is not writable or does not exist.")
        return row

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

    def lock_export(self, repository_id: int, lease_s: float) -> bool:
        """Take the right to write the folder for `lease_s` seconds; False when another has it."""
        with self._database.write() as connection:
            return bool(
                connection.execute(
                    update(repositories)
                    .where(
                        repositories.c.id == repository_id,
                        or_(repositories.c.export_until.is_(None), repositories.c.export_until < now()),
                    )
                    .values(export_until=now() + lease_s)
                ).rowcount
            )

    def unlock_export(self, repository_id: int, exported_version: int | None) -> None:
        """Give the right back, with the number of the version that lies there now (None: it did not come to that)."""
        values: dict[str, Any] = {"export_until": None}
        if exported_version is not None:
            values["exported_version"] = exported_version
        with self._database.write() as connection:
            connection.execute(update(repositories).where(repositories.c.id == repository_id).values(**values))


_REPOSITORIES = select(
    repositories.c.id,
    repositories.c.account_id,
    repositories.c.location,
    repositories.c.version_counter,
    repositories.c.exported_version,
)


def _repository(row: Any) -> Repository:
    return Repository(**row._mapping)
