"""Accounts and their keys. Of a key only its SHA-256 is kept: 32 random bytes need no slower hash."""

from __future__ import annotations

import hashlib
import secrets

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import KeyNotFound
from storage.records.database import Database
from storage.records.rows import Account, Key
from storage.records.schema import accounts, keys, now

LOCAL = "local"
"""The account that acts on a machine without keys."""


def digest(secret: str) -> str:
    """What is kept of a key."""
    return hashlib.sha256(secret.encode()).hexdigest()


class Accounts:
    """Who may own things."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def ensure(self, name: str) -> Account:
        """The account of that name, made when there is none."""
        with self._database.read() as connection:
            row = connection.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
        if row is None:
            try:
                with self._database.write() as connection:
                    connection.execute(insert(accounts).values(name=name))
            except IntegrityError:
                pass  # another process was faster
            with self._database.read() as connection:
                row = connection.execute(select(accounts).where(accounts.c.name == name)).one()
        return Account(row.id, row.name)

    def name(self, account_id: int) -> str:
        """The name of an account; it never changes."""
        with self._database.read() as connection:
            found: str = connection.execute(select(accounts.c.name).where(accounts.c.id == account_id)).scalar_one()
        return found


class Keys:
    """Credentials: created once, shown once, revoked for good."""

    def __init__(self, database: Database, owners: Accounts) -> None:
        self._database = database
        self._owners = owners

    def create(self, account: str, label: str = "") -> tuple[Key, str]:
        """A new key of `account` and its secret, which cannot be read again."""
        owner = self._owners.ensure(account)
        secret = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            number = connection.execute(
                insert(keys).values(account_id=owner.id, label=label, digest=digest(secret)).returning(keys.c.id)
            ).scalar_one()
        return self._find(number), secret

    def account_of(self, secret: str) -> Account | None:
        """The account a secret belongs to, or None when it is unknown or revoked."""
        with self._database.read() as connection:
            row = connection.execute(
                select(accounts.c.id, accounts.c.name)
                .join(keys, keys.c.account_id == accounts.c.id)
                .where(keys.c.digest == digest(secret), keys.c.revoked_at.is_(None))
            ).one_or_none()
        return None if row is None else Account(row.id, row.name)

    def any_active(self) -> bool:
        """Whether any key is in force."""
        with self._database.read() as connection:
            return connection.execute(select(keys.c.id).where(keys.c.revoked_at.is_(None)).limit(1)).first() is not None

    def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(_KEYS.order_by(keys.c.id)).all()
        return [Key(**row._mapping) for row in rows]

    def revoke(self, key_id: int) -> Key:
        """End a key. Raises KeyNotFound when there is none in force under that number."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None)).values(revoked_at=now())
            ).rowcount
        if not changed:
            raise KeyNotFound(f"no key {key_id} is in force; `modelyard keys list` shows them")
        return self._find(key_id)

    def _find(self, key_id: int) -> Key:
        with self._database.read() as connection:
            return Key(**connection.execute(_KEYS.where(keys.c.id == key_id)).one()._mapping)


_KEYS = select(
    keys.c.id,
    keys.c.account_id,
    accounts.c.name.label("account"),
    keys.c.label,
    keys.c.created_at,
    keys.c.revoked_at,
).join(accounts, keys.c.account_id == accounts.c.id)
