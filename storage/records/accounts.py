"""Accounts and their keys. Of a key only its SHA-256 is kept: 32 random bytes need no slower hash."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, insert, select, update
from sqlalchemy.exc import IntegrityError

from storage.errors import KeyInUse, KeyNotFound
from storage.records.audit import OPERATOR, add_note
from storage.records.database import Database
from storage.records.paging import newest
from storage.records.quotas import QUOTA_COLUMNS, QuotaRecords, lock_account
from storage.records.rows import Account, Caller, Key, NewNote, Role
from storage.records.schema import accounts, keys, now, quotas

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

    def __init__(self, database: Database, owners: Accounts, limits: QuotaRecords) -> None:
        self._database = database
        self._owners = owners
        self._limits = limits

    def create(
        self, account: str, label: str = "", role: Role = Role.TRAIN, by: NewNote | None = None
    ) -> tuple[Key, str]:
        """A new key of `account` and its secret, which cannot be read again.

        by : who makes it, for the audit log; nobody for the machine itself. Raises KeyNotFound when that is a key
        which was revoked meanwhile.
        """
        by = by or OPERATOR
        owner = self._owners.ensure(account)
        secret = secrets.token_urlsafe(32)
        with self._database.write() as connection:
            _check_in_force(connection, owner.id, by)
            number = connection.execute(
                insert(keys)
                .values(account_id=owner.id, label=label, role=str(role), digest=digest(secret))
                .returning(keys.c.id)
            ).scalar_one()
            add_note(
                connection, replace(by, action="key.create", kind="key", account_id=owner.id, name=f"{number} ({role})")
            )
        return self._find(number), secret

    def account_of(self, secret: str) -> Caller | None:
        """Who calls with a secret, or None when it is unknown or revoked.

        It is looked up by its SHA-256 in an index: how long that takes tells nothing about secrets that exist.
        """
        with self._database.read() as connection:
            row = connection.execute(
                select(accounts.c.id, accounts.c.name, keys.c.role, keys.c.id.label("key_id"), *QUOTA_COLUMNS)
                .join(keys, keys.c.account_id == accounts.c.id)
                .outerjoin(quotas, quotas.c.account_id == accounts.c.id)
                .where(keys.c.digest == digest(secret), keys.c.revoked_at.is_(None))
            ).one_or_none()
        if row is None:
            return None
        return Caller(row.id, row.name, Role.named(row.role), row.key_id, self._limits.effective(row))

    def any_active(self) -> bool:
        """Whether any key is in force."""
        with self._database.read() as connection:
            return connection.execute(select(keys.c.id).where(keys.c.revoked_at.is_(None)).limit(1)).first() is not None

    def list(self) -> list[Key]:
        """All keys, revoked ones too, oldest first."""
        with self._database.read() as connection:
            rows = connection.execute(_KEYS.order_by(keys.c.id)).all()
        return [_key(row) for row in rows]

    def page(self, account_id: int, *, limit: int, before_id: int | None = None) -> Sequence[Key]:
        """Keys of an account, revoked ones too, newest first."""
        wanted = _KEYS.where(keys.c.account_id == account_id)
        with self._database.read() as connection:
            rows = connection.execute(newest(wanted, keys.c.id, limit=limit, before_id=before_id)).all()
        return [_key(row) for row in rows]

    def revoke(self, key_id: int, account_id: int | None = None, by: NewNote | None = None) -> Key:
        """End a key; of an account if one is named.

        by : who ends it, for the audit log; nobody for the machine itself. A key cannot end itself, so that over HTTP
        one always is left. Raises KeyInUse then, KeyNotFound when there is none in force under that number, or `by` is
        one no longer.
        """
        by = by or OPERATOR
        if key_id == by.key_id:
            raise KeyInUse(
                f"key {key_id} is the one that this call was made with; end it with another key, "
                "or with `modelyard keys revoke` on the server"
            )
        wanted = update(keys).where(keys.c.id == key_id, keys.c.revoked_at.is_(None))
        if account_id is not None:
            wanted = wanted.where(keys.c.account_id == account_id)
        with self._database.write() as connection:
            if account_id is not None:
                _check_in_force(connection, account_id, by)
            owner = connection.execute(
                wanted.values(revoked_at=now()).returning(keys.c.account_id)
            ).scalar_one_or_none()
            if owner is None:
                raise KeyNotFound(f"no key {key_id} is in force; `modelyard keys list`, or GET /keys, shows them")
            add_note(connection, replace(by, action="key.revoke", kind="key", account_id=owner, name=str(key_id)))
        return self._find(key_id)

    def _find(self, key_id: int) -> Key:
        with self._database.read() as connection:
            return _key(connection.execute(_KEYS.where(keys.c.id == key_id)).one())


def _check_in_force(connection: Connection, account_id: int, by: NewNote) -> None:
    """Of two keys that end each other at one moment, one is too late: who changes keys of an account takes turns."""
    if by.key_id is None:
        return
    lock_account(connection, account_id)
    if connection.execute(select(keys.c.id).where(keys.c.id == by.key_id, keys.c.revoked_at.is_(None))).first() is None:
        raise KeyNotFound("the key of this call was revoked meanwhile")


def _key(row: Any) -> Key:
    return Key(**{**row._mapping, "role": Role.named(row.role)})


_KEYS = select(
    keys.c.id,
    keys.c.account_id,
    accounts.c.name.label("account"),
    keys.c.role,
    keys.c.label,
    keys.c.created_at,
    keys.c.revoked_at,
).join(accounts, keys.c.account_id == accounts.c.id)
