"""Deliveries: events on their way to webhooks. Written with the end of a task, sent until a receiver takes them.

Who sends holds a delivery by its attempt: claiming one raises that number and makes it due again when the lease is
over, and every later write names the number. So one whose sender died is simply due once more.
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    and_,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    or_,
    select,
    text,
    update,
)

from storage.errors import DeliveryNotFound, TooManyDeliveries, WebhookInactive, WebhookNotFound
from storage.records.database import Database
from storage.records.paging import newest
from storage.records.rows import Delivering, Delivery, DeliveryAttempt, Parcel, Receipt, State
from storage.records.schema import ago, now, services, webhooks
from storage.records.schema import webhook_attempts as attempts
from storage.records.schema import webhook_deliveries as deliveries

EVENTS = {
    State.FINISHED: "task.finished",
    State.FAILED: "task.failed",
    State.CANCELLED: "task.cancelled",
}
"""What is told of the ends of tasks."""

PING = "ping"
"""The event of a test."""

WAITING_MOST = 10_000
"""Most deliveries of an account that wait, for one webhook no more than are left; ends of tasks beyond are noted, and
not sent."""

ASKED_MOST = 200
"""Most tests and replays that wait for one webhook."""

_COLUMNS = (
    deliveries.c.id,
    deliveries.c.webhook_id,
    deliveries.c.event_id,
    deliveries.c.event,
    deliveries.c.task_id,
    deliveries.c.replay_of,
    deliveries.c.state,
    deliveries.c.attempt,
    deliveries.c.failures,
    deliveries.c.due_at,
    deliveries.c.event_at,
    deliveries.c.created_at,
    deliveries.c.ended_at,
)
# Written out: with a bound value SQLite does not see that the partial index over waiting ones holds all that is asked.
_IS_WAITING = text("webhook_deliveries.state = 'waiting'")
_IS_ASKED = or_(deliveries.c.event == PING, deliveries.c.replay_of.is_not(None))
_WEBHOOKS_AT_ONCE = 200
_AT_ONCE = 500
_BEYOND = "not tried: too many deliveries of the account waited already"


@dataclass(frozen=True)
class Due:
    """A delivery that may be sent now, whose it is, and the host that it goes to."""

    id: int
    account_id: int
    host: str


@dataclass(frozen=True)
class WaitingDeliveries:
    """Deliveries that wait. oldest_s : seconds since the oldest of their events."""

    count: int
    oldest_s: float


def note_end(connection: Connection, task_id: int, account_id: int, service_id: int | None, state: State) -> None:
    """Have the webhooks that want it told of the end of a task, in the transaction that writes the end."""
    found = connection.execute(
        select(webhooks.c.id, webhooks.c.events, webhooks.c.services).where(
            webhooks.c.account_id == account_id, webhooks.c.is_active, webhooks.c.deleted_at.is_(None)
        )
    ).all()
    wanting = [row for row in found if EVENTS[state] in row.events]
    if any(row.services for row in wanting):
        name = connection.execute(select(services.c.name).where(services.c.id == service_id)).scalar_one_or_none()
        wanting = [row for row in wanting if not row.services or name in row.services]
    if not wanting:
        return
    event_id = _new_event_id()
    waiting = _waiting(connection, [row.id for row in found])
    taken: list[dict[str, Any]] = []
    beyond: list[dict[str, Any]] = []
    for row in wanting:
        new = {"webhook_id": row.id, "event_id": event_id, "event": EVENTS[state], "task_id": task_id}
        if _has_room(waiting, row.id):
            waiting[row.id] += 1
            taken.append(new)
        else:
            beyond.append(new)
    if taken:
        connection.execute(insert(deliveries).values(state=Delivering.WAITING), taken)
    if beyond:
        _note_beyond(connection, beyond)


def _waiting(connection: Connection, webhook_ids: Sequence[int]) -> Counter[int]:
    """How many deliveries wait for each of the webhooks of an account, counted up to as many as may.

    Who asks at the same moment is told the same, so that a few more may wait in the end.
    """
    is_theirs = deliveries.c.webhook_id.in_(webhook_ids)
    some = select(deliveries.c.webhook_id).where(_IS_WAITING, is_theirs).limit(WAITING_MOST).subquery()
    counted = select(some.c.webhook_id, func.count().label("waiting")).group_by(some.c.webhook_id)
    return Counter({row.webhook_id: row.waiting for row in connection.execute(counted)})


def _has_room(waiting: Counter[int], webhook_id: int) -> bool:
    """Whether one more may wait for a webhook: one that takes nothing must leave some room for the others."""
    return waiting[webhook_id] < WAITING_MOST - waiting.total()


def _note_beyond(connection: Connection, new: list[dict[str, Any]]) -> None:
    """Write deliveries for which there is no room as failed, and why; they can be asked for again."""
    ended = {"state": Delivering.FAILED, "ended_at": now()}
    numbers = connection.execute(insert(deliveries).values(**ended).returning(deliveries.c.id), new).scalars()
    connection.execute(
        insert(attempts).values(number=0, owner="", began_at=now(), ended_at=now(), error=_BEYOND),
        [{"delivery_id": number} for number in numbers],
    )


def give_up_waiting(connection: Connection, webhook_id: int) -> None:
    """End what waits for a webhook that is not active any more."""
    connection.execute(
        update(deliveries)
        .where(deliveries.c.webhook_id == webhook_id, deliveries.c.state == Delivering.WAITING)
        .values(state=Delivering.FAILED, ended_at=now())
    )


class Deliveries:
    """What is, and was, sent to webhooks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # For those who own the webhooks

    def page(
        self,
        webhook_id: int,
        *,
        limit: int,
        before_id: int | None = None,
        state: Delivering | None = None,
    ) -> list[Delivery]:
        """Deliveries to a webhook, newest first."""
        wanted = select(*_COLUMNS).where(deliveries.c.webhook_id == webhook_id)
        if state is not None:
            wanted = wanted.where(deliveries.c.state == state)
        with self._database.read() as connection:
            rows = connection.execute(newest(wanted, deliveries.c.id, limit=limit, before_id=before_id)).all()
        return [_delivery(row) for row in rows]

    def get(self, webhook_id: int, delivery_id: int) -> Delivery:
        """A delivery to a webhook; raises DeliveryNotFound."""
        with self._database.read() as connection:
            row = connection.execute(
                select(*_COLUMNS).where(deliveries.c.id == delivery_id, deliveries.c.webhook_id == webhook_id)
            ).one_or_none()
        if row is None:
            raise DeliveryNotFound(delivery_id)
        return _delivery(row)

    def attempts(self, delivery_id: int) -> list[DeliveryAttempt]:
        """How each try went, first one first."""
        with self._database.read() as connection:
            rows = connection.execute(
                select(
                    attempts.c.number,
                    attempts.c.owner,
                    attempts.c.began_at,
                    attempts.c.ended_at,
                    attempts.c.status,
                    attempts.c.error,
                    attempts.c.answer,
                )
                .where(attempts.c.delivery_id == delivery_id)
                .order_by(attempts.c.number)
            ).all()
        return [DeliveryAttempt(**row._mapping) for row in rows]

    def test(self, webhook_id: int) -> Delivery:
        """Have a ping sent. Raises WebhookInactive, WebhookNotFound, TooManyDeliveries."""
        return self._add(webhook_id, {"event_id": _new_event_id(), "event": PING, "event_at": now()})

    def replay(self, delivery: Delivery) -> Delivery:
        """Have the event of a delivery sent once more, under the same id.

        Raises WebhookInactive, WebhookNotFound, TooManyDeliveries.
        """
        same = {name: getattr(delivery, name) for name in ("event_id", "event", "task_id", "event_at")}
        return self._add(delivery.webhook_id, {**same, "replay_of": delivery.id})

    def _add(self, webhook_id: int, values: dict[str, Any]) -> Delivery:
        with self._database.write() as connection:
            webhook = connection.execute(
                # Not a SELECT: the row stays locked, so that nothing is added for a webhook that is being ended.
                update(webhooks)
                .where(webhooks.c.id == webhook_id, webhooks.c.deleted_at.is_(None))
                .values(is_active=webhooks.c.is_active)
                .returning(webhooks.c.is_active, webhooks.c.account_id)
            ).one_or_none()
            if webhook is None:
                raise WebhookNotFound(webhook_id)
            if not webhook.is_active:
                raise WebhookInactive(f"webhook {webhook_id} is not active; set active to true first")
            _check_room(connection, webhook_id, webhook.account_id)
            row = connection.execute(
                insert(deliveries)
                .values(webhook_id=webhook_id, state=Delivering.WAITING, **values)
                .returning(*_COLUMNS)
            ).one()
        return _delivery(row)

    # For those who send

    def due(self, of_each: int, after: int = 0) -> tuple[list[Due], int]:
        """What may be sent now, of each webhook the `of_each` that are due longest; in the order of their numbers.

        One call looks at 200 webhooks, those after the number `after`. Returns what `after` is for the next one, 0
        when there are no more of them.
        """
        # An index leads from each webhook with something to the next, and to what is due there first, so that it does
        # not matter how much waits behind.
        some = select(_next_webhook(after), literal(1).label("nth")).cte("some", recursive=True)
        some = some.union_all(
            select(_next_webhook(some.c.id), some.c.nth + 1).where(
                some.c.id.is_not(None), some.c.nth < _WEBHOOKS_AT_ONCE
            )
        )
        first = [_due_of(some.c.id).offset(nth).scalar_subquery() for nth in range(of_each)]
        wanted = (
            select(some.c.id, some.c.nth, webhooks.c.account_id, webhooks.c.place, *first)
            .outerjoin(webhooks, and_(webhooks.c.id == some.c.id, webhooks.c.is_active))
            .where(some.c.id.is_not(None))
            .order_by(some.c.nth)
        )
        with self._database.read() as connection:
            rows = connection.execute(wanted).all()
        found = [
            Due(number, account_id, place.rpartition(":")[0])
            for _, _, account_id, place, *numbers in rows
            if place is not None
            for number in numbers
            if number is not None
        ]
        more = rows[-1].id if len(rows) == _WEBHOOKS_AT_ONCE else 0
        return sorted(found, key=lambda each: each.id), more

    def claim(self, delivery_id: int, owner: str, lease_s: float) -> Parcel | None:
        """Become the one that sends a delivery; None when another was faster, or nothing is to be sent any more.

        lease_s : seconds after which another may send it, unless an end was recorded.
        """
        is_old_good = and_(webhooks.c.old_secret_until > now(), webhooks.c.old_secret.is_not(None))
        with self._database.write() as connection:
            row = connection.execute(
                update(deliveries)
                .where(
                    deliveries.c.id == delivery_id,
                    deliveries.c.state == Delivering.WAITING,
                    deliveries.c.due_at <= now(),
                )
                .values(attempt=deliveries.c.attempt + 1, due_at=now() + lease_s)
                .returning(*_COLUMNS)
            ).one_or_none()
            if row is None:
                return None
            webhook = connection.execute(
                select(
                    webhooks.c.account_id,
                    webhooks.c.url,
                    webhooks.c.secret,
                    case((is_old_good, webhooks.c.old_secret), else_=None).label("old_secret"),
                ).where(webhooks.c.id == row.webhook_id, webhooks.c.is_active)
            ).one_or_none()
            if webhook is None:
                return None  # ended just now
            connection.execute(
                insert(attempts).values(delivery_id=delivery_id, number=row.attempt, owner=owner, began_at=now())
            )
        keys = tuple(each for each in (webhook.secret, webhook.old_secret) if each)
        return Parcel(_delivery(row), webhook.account_id, webhook.url, keys)

    def record(
        self, parcel: Parcel, receipt: Receipt, *, again_in_s: float | None, ends_webhook: str | None, give_up_s: float
    ) -> bool:
        """Write how an attempt went. False when another has taken the delivery over, or its webhook was ended.

        again_in_s : of one that failed, when to try again; None for never.
        ends_webhook : why nothing more shall be sent to the webhook; None when that is not so.
        give_up_s : for how long a webhook may do nothing but fail; then nothing more is sent to it either.
        """
        delivery = parcel.delivery
        is_held = and_(
            deliveries.c.id == delivery.id,
            deliveries.c.attempt == delivery.attempt,
            deliveries.c.state == Delivering.WAITING,
        )
        with self._database.write() as connection:
            # The webhook first, as all do who write both: else two could wait for each other.
            is_given_up = _note_health(connection, delivery.webhook_id, is_held, receipt.error is None, give_up_s)
            changed = connection.execute(
                update(deliveries).where(is_held).values(_after(receipt.error is None, again_in_s))
            ).rowcount
            connection.execute(
                update(attempts)
                .where(attempts.c.delivery_id == delivery.id, attempts.c.number == delivery.attempt)
                .values(ended_at=now(), status=receipt.status, error=receipt.error, answer=receipt.answer)
            )
            if changed and is_given_up and ends_webhook is None:
                ends_webhook = f"every attempt failed for {give_up_s / 3600:g} hours"
            if changed and ends_webhook is not None:
                # What an address said that the webhook does not lead to any more says nothing of the new one.
                ended = connection.execute(
                    update(webhooks)
                    .where(webhooks.c.id == delivery.webhook_id, webhooks.c.is_active, webhooks.c.url == parcel.url)
                    .values(is_active=False, inactive_because=ends_webhook, changed_at=now())
                ).rowcount
                if ended:
                    give_up_waiting(connection, delivery.webhook_id)
        return bool(changed)

    # For the sweep and Prometheus

    def waiting(self) -> WaitingDeliveries:
        """How many wait, and for how long."""
        # Both stand in the index over waiting ones, so that no row but that of the oldest is read.
        waiting = select(func.count().label("count"), func.min(deliveries.c.id).label("first")).where(_IS_WAITING).cte()
        with self._database.read() as connection:
            count, oldest_s = connection.execute(
                select(waiting.c.count, now() - deliveries.c.created_at).outerjoin_from(
                    waiting, deliveries, deliveries.c.id == waiting.c.first
                )
            ).one()
        return WaitingDeliveries(count, max(0.0, oldest_s or 0.0))

    def forget(self, older_than_s: float) -> int:
        """Drop deliveries that ended long ago or that nobody sends any more, some at a time; returns how many."""
        # A task may end in the very moment in which a webhook is switched off: what it left is never due.
        is_stray = and_(
            _IS_WAITING,
            deliveries.c.due_at < ago(older_than_s),
            deliveries.c.webhook_id.in_(select(webhooks.c.id).where(~webhooks.c.is_active)),
        )
        is_old = or_(deliveries.c.ended_at < ago(older_than_s), is_stray)
        with self._database.write() as connection:
            some = list(connection.execute(select(deliveries.c.id).where(is_old).limit(_AT_ONCE)).scalars())
            connection.execute(delete(attempts).where(attempts.c.delivery_id.in_(some)))
            connection.execute(delete(deliveries).where(deliveries.c.id.in_(some)))
        return len(some)


def _check_room(connection: Connection, webhook_id: int, account_id: int) -> None:
    """Raises TooManyDeliveries when a test or a replay must not wait for a webhook as well."""
    asked = select(func.count()).where(_IS_WAITING, deliveries.c.webhook_id == webhook_id, _IS_ASKED)
    if connection.execute(asked).scalar_one() >= ASKED_MOST:
        raise TooManyDeliveries(f"{ASKED_MOST} tests and replays wait for webhook {webhook_id} already")
    of_account = select(webhooks.c.id).where(webhooks.c.account_id == account_id, webhooks.c.is_active)
    waiting = _waiting(connection, connection.execute(of_account).scalars().all())
    if not _has_room(waiting, webhook_id):
        raise TooManyDeliveries(
            f"{waiting[webhook_id]} deliveries wait for webhook {webhook_id} already, {waiting.total()} in all; an"
            f" account may have {WAITING_MOST}, and a webhook no more of them than it leaves free"
        )


def _next_webhook(after: ColumnElement[int] | int) -> ColumnElement[int]:
    """The first webhook after a number for which something waits; NULL when there is none."""
    found = select(deliveries.c.webhook_id).where(_IS_WAITING, deliveries.c.webhook_id > after)
    return found.order_by(deliveries.c.webhook_id).limit(1).scalar_subquery().label("id")


def _due_of(webhook_id: ColumnElement[int]) -> Select[tuple[int]]:
    """The delivery to a webhook that is due longest."""
    found = select(deliveries.c.id).where(
        _IS_WAITING, deliveries.c.webhook_id == webhook_id, deliveries.c.due_at <= ago(0.0)
    )
    return found.order_by(deliveries.c.due_at, deliveries.c.id).limit(1)


def _new_event_id() -> str:
    return f"msg_{secrets.token_hex(16)}"


def _delivery(row: Any) -> Delivery:
    values = dict(row._mapping)
    return Delivery(**{**values, "state": Delivering(values["state"])})


def _after(is_good: bool, again_in_s: float | None) -> dict[str, Any]:
    """What an attempt makes of its delivery."""
    if is_good:
        return {"state": Delivering.DELIVERED, "ended_at": now()}
    failed = {"failures": deliveries.c.failures + 1}
    if again_in_s is None:
        return {**failed, "state": Delivering.FAILED, "ended_at": now()}
    return {**failed, "due_at": now() + again_in_s}


def _note_health(
    connection: Connection, webhook_id: int, is_held: ColumnElement[bool], is_good: bool, give_up_s: float
) -> bool:
    """Note since when a webhook fails, or that it does not; returns whether it has failed for `give_up_s`."""
    changing = update(webhooks).where(webhooks.c.id == webhook_id, exists(select(deliveries.c.id).where(is_held)))
    if is_good:
        connection.execute(changing.where(webhooks.c.failing_since.is_not(None)).values(failing_since=None))
        return False
    found = connection.execute(
        changing.values(failing_since=func.coalesce(webhooks.c.failing_since, now())).returning(
            webhooks.c.failing_since < now() - give_up_s
        )
    ).scalar_one_or_none()
    return bool(found)
