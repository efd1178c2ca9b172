"""Published versions of repositories. Predictions use versions only."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import Any

from sqlalchemy import func, select, update

from storage.errors import VersionNotFound
from storage.records.database import Database
from storage.records.rows import Artifact, Kind, ModelSize, Version
from storage.records.schema import ago, artifacts, now, repositories, tasks, versions
from storage.records.tasks.table import IS_OPEN

_COLUMNS = (
    versions.c.id,
    versions.c.repository_id,
    versions.c.number,
    versions.c.task_id,
    versions.c.attempt,
    versions.c.prefix,
    versions.c.description,
    versions.c.size_bytes,
    versions.c.created_at,
    versions.c.pinned_at,
)


class Versions:
    """What trainings published. A version is written by `Tasks.end` and never changed."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def newest(self, repository_id: int) -> Version:
        """The newest version with its artifacts; raises VersionNotFound."""
        found = self.newest_or_none(repository_id)
        if found is None:
            raise VersionNotFound("no training of this repository has published a version yet")
        return found

    def newest_or_none(self, repository_id: int) -> Version | None:
        """The newest version with its artifacts; None while there is none."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS)
                .where(versions.c.repository_id == repository_id, versions.c.removed_at.is_(None))
                .order_by(versions.c.number.desc())
                .limit(1)
            ).one_or_none()
        return None if row is None else self._with_artifacts(row)

    def numbered(self, repository_id: int, number: int) -> Version:
        """The version of a repository with that number, with its artifacts; raises VersionNotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(
                    versions.c.repository_id == repository_id,
                    versions.c.number == number,
                    versions.c.removed_at.is_(None),
                )
            ).one_or_none()
        if row is None:
            raise VersionNotFound(f"version {number} does not exist")
        return self._with_artifacts(row)

    def get(self, version_id: int) -> Version:
        """The version of that id, removed or not, with its artifacts; raises VersionNotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(versions.c.id == version_id)).one_or_none()
        if row is None:
            raise VersionNotFound(f"version {version_id} does not exist")
        return self._with_artifacts(row)

    def all_of(self, repository_id: int) -> list[Version]:
        """The versions of a repository, newest first, without their artifacts."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS)
                .where(versions.c.repository_id == repository_id, versions.c.removed_at.is_(None))
                .order_by(versions.c.number.desc())
            ).all()
        return [Version(**row._mapping) for row in rows]

    def of_task(self, task_id: int) -> Version | None:
        """The version a task published, if it did."""
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(versions.c.task_id == task_id)).one_or_none()
        return None if row is None else self._with_artifacts(row)

    def stored_under(self, repository_id: int, prefix: str) -> list[Version]:
        """The versions of a repository, removed or not, whose files lie below a prefix of the object store."""
        below = prefix.rstrip("/") + "/"
        with self._database.read() as connection:
            rows = connection.execute(
                select(*_COLUMNS).where(
                    versions.c.repository_id == repository_id,
                    func.substr(versions.c.prefix, 1, len(below)) == below,
                )
            ).all()
        return [self._with_artifacts(row) for row in rows]

    def sizes(self, repository_ids: Collection[int]) -> dict[int, ModelSize]:
        """How large the newest version of each of the repositories is, of those that hold one."""
        newest = (
            select(versions.c.repository_id, func.max(versions.c.number).label("number"))
            .where(versions.c.repository_id.in_(sorted(set(repository_ids))), versions.c.removed_at.is_(None))
            .group_by(versions.c.repository_id)
            .subquery()
        )
        # Descriptions can be long: the database takes the two numbers out of them. As texts, because somebody may have
        # written anything into the description of a model that was put into a folder by hand.
        params, frozen = (versions.c.description[name].as_string() for name in ("params", "frozen_params"))
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    versions.c.repository_id,
                    versions.c.size_bytes,
                    params.label("params"),
                    frozen.label("frozen_params"),
                ).join(
                    newest,
                    (versions.c.repository_id == newest.c.repository_id) & (versions.c.number == newest.c.number),
                )
            ).all()
        return {
            row.repository_id: ModelSize(row.size_bytes, _count(row.params), _count(row.frozen_params)) for row in rows
        }

    def _with_artifacts(self, row: Any) -> Version:
        with self._database.read() as connection:
            files = connection.execute(
                select(artifacts.c.name, artifacts.c.key, artifacts.c.size_bytes, artifacts.c.sha256)
                .where(artifacts.c.version_id == row.id)
                .order_by(artifacts.c.name)
            ).all()
        return replace(Version(**row._mapping), artifacts=[Artifact(**each._mapping) for each in files])

    def remove_all(self, repository_id: int) -> int:
        """Take every version of a repository out of use; its files are cleaned later. Returns how many."""
        with self._database.write() as connection:
            return connection.execute(
                update(versions)
                .where(versions.c.repository_id == repository_id, versions.c.removed_at.is_(None))
                .values(removed_at=now())
            ).rowcount

    def remove_old(self, kept: int) -> int:
        """Take versions out of use that are neither pinned nor among the newest `kept` of their repository, and that
        no open prediction task is to be answered with.
        """
        wanted = tasks.c.spec[("head", "version_id")].as_integer()
        asked = select(wanted).where(IS_OPEN, tasks.c.kind == Kind.PREDICT, wanted.is_not(None))
        with self._database.write() as connection:
            return connection.execute(
                update(versions)
                .where(
                    versions.c.removed_at.is_(None),
                    versions.c.pinned_at.is_(None),
                    versions.c.id.not_in(asked),
                    versions.c.number
                    <= select(repositories.c.version_counter - kept)
                    .where(repositories.c.id == versions.c.repository_id)
                    .scalar_subquery(),
                )
                .values(removed_at=now())
            ).rowcount

    def removed_prefixes(self, older_than_s: float, limit: int = 100) -> list[tuple[int, str]]:
        """Id and prefix of versions whose files still lie there although they were removed `older_than_s` ago."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(versions.c.id, versions.c.prefix)
                .where(
                    versions.c.removed_at < ago(older_than_s),
                    versions.c.id.in_(select(artifacts.c.version_id)),
                )
                .limit(limit)
            ).all()
        return [(row.id, row.prefix) for row in rows]

    def forget_artifacts(self, version_id: int) -> None:
        """Drop the artifact rows of a removed version, when its files are gone."""
        with self._database.write() as connection:
            connection.execute(artifacts.delete().where(artifacts.c.version_id == version_id))

    def pin(self, repository_id: int, number: int, pinned: bool) -> None:
        """Keep a version whatever its age, or no longer; raises VersionNotFound."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(versions)
                .where(
                    versions.c.repository_id == repository_id,
                    versions.c.number == number,
                    versions.c.removed_at.is_(None),
                )
                .values(pinned_at=now() if pinned else None)
            ).rowcount
        if not changed:
            raise VersionNotFound(f"version {number} does not exist")

    def count(self, repository_id: int) -> int:
        """How many versions a repository holds."""
        with self._database.read() as connection:
            return connection.execute(
                select(func.count()).where(versions.c.repository_id == repository_id, versions.c.removed_at.is_(None))
            ).scalar_one()


def _count(text: Any) -> int:
    """A number of weights; 0 for anything else."""
    return int(text) if isinstance(text, str | int) and re.fullmatch("[0-9]{1,18}", str(text)) else 0
