"""The audit log: who did what, and who was refused. Lines are added and swept, never changed."""

from __future__ import annotations

from dataclasses import asdict

from sqlalchemy import Connection, delete, insert, select

from storage.records.database import Database
from storage.records.rows import NewNote, Note
from storage.records.schema import accounts, ago, audit

OPERATOR = NewNote("", role="operator")
"""Who works on the machine itself, with the `modelyard` command."""

_AT_ONCE = 5000
_NAME_MOST = 300


def add_note(connection: Connection, note: NewNote) -> None:
    """Add a line within the transaction of what it tells."""
    values = asdict(note)
    # Names come from clients, and what was refused has not been looked at.
    values["name"] = note.name.replace("\0", "")[:_NAME_MOST]
    connection.execute(insert(audit).values(**values))


class Audit:
    """The lines of all accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, *notes: NewNote) -> None:
        """Add lines about what is done already."""
        with self._database.write() as connection:
            for note in notes:
                add_note(connection, note)

    def page(
        self,
        *,
        account_id: int | None = None,
        limit: int,
        before_id: int | None = None,
        action: str | None = None,
        since: float | None = None,
    ) -> list[Note]:
        """At most `limit` lines, newest first; of all accounts when none is named.

        action : only this one; with a full stop at its end, such as `key.`, all that begin so.
        since : seconds since the epoch.
        """
        wanted = select(
            audit.c.id,
            audit.c.at,
            accounts.c.name.label("account"),
            audit.c.key_id,
            audit.c.role,
            audit.c.action,
            audit.c.kind,
            audit.c.name,
            audit.c.outcome,
            audit.c["count"],
            audit.c.trace,
            audit.c.address,
        ).outerjoin(accounts, audit.c.account_id == accounts.c.id)
        if account_id is not None:
            wanted = wanted.where(audit.c.account_id == account_id)
        if before_id is not None:
            wanted = wanted.where(audit.c.id < before_id)
        if action is not None:
            is_named = audit.c.action == action
            begins_so = audit.c.action.startswith(action, autoescape=True)
            wanted = wanted.where(begins_so if action.endswith(".") else is_named)
        if since is not None:
            wanted = wanted.where(audit.c.at >= since)
        with self._database.read() as connection:
            rows = connection.execute(wanted.order_by(audit.c.id.desc()).limit(limit)).all()
        return [Note(**row._mapping) for row in rows]

    def sweep(self, older_than_s: float) -> bool:
        """Drop some thousands of old lines; returns whether there may be more."""
        with self._database.write() as connection:
            old = select(audit.c.id).where(audit.c.at < ago(older_than_s)).limit(_AT_ONCE)
            return connection.execute(delete(audit).where(audit.c.id.in_(old))).rowcount == _AT_ONCE
