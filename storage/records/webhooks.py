"""Webhooks: the addresses of an account that are told of the ends of its tasks."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, and_, func, insert, select, update

from storage.errors import TooManyWebhooks, WebhookNotFound
from storage.records.database import Database
from storage.records.deliveries import give_up_waiting
from storage.records.paging import newest
from storage.records.rows import NewWebhook, Webhook
from storage.records.schema import now, webhooks

WEBHOOKS_MOST = 100
"""Most webhooks that an account may have."""

SWITCHED_OFF = "it was switched off"

_COLUMNS = (
    webhooks.c.id,
    webhooks.c.account_id,
    webhooks.c.url,
    webhooks.c.place,
    webhooks.c.description,
    webhooks.c.events,
    webhooks.c.services,
    webhooks.c.is_active,
    webhooks.c.inactive_because,
    webhooks.c.failing_since,
    webhooks.c.old_secret_until,
    webhooks.c.created_at,
    webhooks.c.changed_at,
)


class Webhooks:
    """The webhooks of all accounts. Rows are never dropped: deliveries name them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, account_id: int, new: NewWebhook, secret: str) -> Webhook:
        """A new webhook. Raises TooManyWebhooks."""
        with self._database.write() as connection:
            count = connection.execute(
                select(func.count()).where(webhooks.c.account_id == account_id, webhooks.c.deleted_at.is_(None))
            ).scalar_one()
            if count >= WEBHOOKS_MOST:
                raise TooManyWebhooks(f"the account has {count} webhooks, and at most {WEBHOOKS_MOST} are possible")
            row = connection.execute(
                insert(webhooks)
                .values(
                    account_id=account_id,
                    secret=secret,
                    inactive_because=None if new.is_active else SWITCHED_OFF,
                    **vars(new),
                )
                .returning(*_COLUMNS)
            ).one()
        return Webhook(**row._mapping)

    def get(self, account_id: int, webhook_id: int) -> Webhook:
        """The webhook of that number; raises WebhookNotFound."""
        with self._database.read() as connection:
            row = connection.execute(select(*_COLUMNS).where(_is(account_id, webhook_id))).one_or_none()
        if row is None:
            raise WebhookNotFound(webhook_id)
        return Webhook(**row._mapping)

    def page(self, account_id: int, *, limit: int, before_id: int | None = None) -> list[Webhook]:
        """Webhooks of an account, newest first."""
        wanted = select(*_COLUMNS).where(webhooks.c.account_id == account_id, webhooks.c.deleted_at.is_(None))
        with self._database.read() as connection:
            rows = connection.execute(newest(wanted, webhooks.c.id, limit=limit, before_id=before_id)).all()
        return [Webhook(**row._mapping) for row in rows]

    def change(self, account_id: int, webhook_id: int, changes: dict[str, Any]) -> Webhook:
        """Set members of `NewWebhook`. Raises WebhookNotFound.

        One that is switched off gives up what waits for it; one that is switched on, or leads elsewhere, begins anew.
        """
        values = dict(changes)
        if "is_active" in changes:
            values["inactive_because"] = None if changes["is_active"] else SWITCHED_OFF
        if changes.get("is_active") or "url" in changes:
            values["failing_since"] = None
        with self._database.write() as connection:
            row = connection.execute(
                update(webhooks)
                .where(_is(account_id, webhook_id))
                .values(changed_at=now(), **values)
                .returning(*_COLUMNS)
            ).one_or_none()
            if row is None:
                raise WebhookNotFound(webhook_id)
            if not row.is_active:
                give_up_waiting(connection, webhook_id)
        return Webhook(**row._mapping)

    def rotate(self, account_id: int, webhook_id: int, secret: str, both_for_s: float) -> Webhook:
        """Sign with `secret` from now on, and for `both_for_s` with the one before as well. Raises WebhookNotFound."""
        with self._database.write() as connection:
            row = connection.execute(
                update(webhooks)
                .where(_is(account_id, webhook_id))
                .values(
                    secret=secret,
                    old_secret=webhooks.c.secret,
                    old_secret_until=now() + both_for_s,
                    changed_at=now(),
                )
                .returning(*_COLUMNS)
            ).one_or_none()
        if row is None:
            raise WebhookNotFound(webhook_id)
        return Webhook(**row._mapping)

    def delete(self, account_id: int, webhook_id: int) -> None:
        """Forget a webhook, its secrets and what waits for it. Raises WebhookNotFound."""
        with self._database.write() as connection:
            changed = connection.execute(
                update(webhooks)
                .where(_is(account_id, webhook_id))
                .values(deleted_at=now(), is_active=False, url="", secret="", old_secret=None)
            ).rowcount
            if not changed:
                raise WebhookNotFound(webhook_id)
            give_up_waiting(connection, webhook_id)


def _is(account_id: int, webhook_id: int) -> ColumnElement[bool]:
    return and_(webhooks.c.id == webhook_id, webhooks.c.account_id == account_id, webhooks.c.deleted_at.is_(None))
