"""Deliveries to webhooks are written with the end of a task, and held by one sender at a time, on every database."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text

from storage.errors import (
    DeliveryNotFound,
    Superseded,
    TooManyDeliveries,
    TooManyWebhooks,
    WebhookInactive,
    WebhookNotFound,
)
from storage.records import (
    Attempt,
    Delivering,
    Delivery,
    Due,
    Kind,
    NewVersion,
    NewWebhook,
    Parcel,
    Receipt,
    Records,
    Service,
    State,
    Task,
    Webhook,
)
from storage.records import deliveries as deliveries_module
from storage.records.webhooks import WEBHOOKS_MOST
from tests.contracts.conftest import make_service

LEASE_S = 30.0
EVENTS = ["task.finished", "task.failed", "task.cancelled"]
GOOD, BAD = Receipt(200, None, "ok"), Receipt(500, "it answered with status 500", "no")
LOST = {"kind": "worker_lost", "message": "gone"}


def add(records: Records, account: str = "local", place: str = "a.example:443", **changes: Any) -> Webhook:
    new = {"url": f"https://{place}/", "place": place, "description": "", "events": EVENTS, "services": []}
    owner = records.accounts.ensure(account)
    return records.webhooks.add(owner.id, NewWebhook(**{**new, "is_active": True, **changes}), "whsec_one")


def accept(records: Records, service: Service | None = None, **more: Any) -> Task:
    account = records.accounts.ensure("local")
    of_service = {} if service is None else {"service_id": service.id, "repository_id": service.repository_id}
    return records.tasks.add(account.id, Kind.TRAIN, "train.cpu", {}, **of_service, **more)[0]


def begin(records: Records, service: Service | None = None, lease_s: float = LEASE_S) -> Attempt:
    attempt = records.tasks.claim(accept(records, service).id, "worker", lease_s)
    assert attempt is not None
    return attempt


def finish(records: Records, service: Service | None = None, state: State = State.FINISHED) -> Task:
    attempt = begin(records, service)
    records.tasks.end(attempt, state, phases={})
    return attempt.task


def to(records: Records, webhook: Webhook) -> list[Delivery]:
    """Deliveries, oldest first."""
    return records.deliveries.page(webhook.id, limit=100)[::-1]


def take(records: Records, delivery_id: int, lease_s: float = LEASE_S) -> Parcel:
    parcel = records.deliveries.claim(delivery_id, "sender", lease_s)
    assert parcel is not None
    return parcel


def record(records: Records, parcel: Parcel, receipt: Receipt, again_in_s: float | None = 60.0, **more: Any) -> bool:
    options = {"ends_webhook": None, "give_up_s": 3600.0, **more}
    return records.deliveries.record(parcel, receipt, again_in_s=again_in_s, **options)


# With the end of a task


def cancel_queued(records: Records, service: Service) -> Task:
    task = accept(records, service)
    records.tasks.request_cancel(task.id)
    records.tasks.request_cancel(task.id)
    return task


def cancel_running(records: Records, service: Service) -> Task:
    attempt = begin(records, service)
    records.tasks.request_cancel(attempt.task.id)
    records.tasks.end(attempt, State.FINISHED, phases={})
    return attempt.task


def cancel_paused(records: Records, service: Service) -> Task:
    attempt = begin(records, service)
    records.tasks.request_cancel(attempt.task.id)
    records.tasks.requeue(attempt, "paused", phases={})
    return attempt.task


def lose(records: Records, service: Service) -> Task:
    task = begin(records, service, lease_s=0.0).task
    time.sleep(0.02)
    records.tasks.take_back_silent(1, LOST)
    return task


def refuse(records: Records, service: Service) -> Task:
    return accept(records, service, failure={"kind": "bad_input"})


ENDS: dict[str, tuple[Callable[[Records, Service], Task], str]] = {
    "finished": (finish, "task.finished"),
    "failed": (lambda records, service: finish(records, service, State.FAILED), "task.failed"),
    "cancelled while it waited": (cancel_queued, "task.cancelled"),
    "cancelled while it ran": (cancel_running, "task.cancelled"),
    "cancelled while its worker stopped": (cancel_paused, "task.cancelled"),
    "given up by the sweep": (lose, "task.failed"),
    "refused at once": (refuse, "task.failed"),
}


@pytest.mark.parametrize("end", ENDS)
def test_every_end_of_a_task_is_told_once_with_the_end_itself(records: Records, end: str):
    webhook, make = add(records), ENDS[end][0]
    task = make(records, make_service(records))
    [delivery] = to(records, webhook)
    assert (delivery.task_id, delivery.event, delivery.state) == (task.id, ENDS[end][1], Delivering.WAITING)
    assert delivery.event_id.startswith("msg_")
    assert "." not in delivery.event_id, "what is signed is divided by points"
    assert delivery.event_at == pytest.approx(records.tasks.get(task.id).finished_at, abs=5)


def test_task_that_goes_on_is_not_told_of(records: Records):
    webhook, service = add(records), make_service(records)
    records.tasks.requeue(begin(records, service), "paused", phases={})
    begin(records, service=None, lease_s=0.0)
    time.sleep(0.02)
    assert [task.state for task in records.tasks.take_back_silent(3, LOST)] == [State.QUEUED]
    assert to(records, webhook) == []


def test_end_that_is_not_written_is_not_told_of(records: Records):
    webhook = add(records)
    attempt = begin(records, lease_s=0.0)
    time.sleep(0.02)
    records.tasks.claim(attempt.task.id, "another", LEASE_S)
    with pytest.raises(Superseded):
        records.tasks.end(attempt, State.FINISHED, phases={})
    assert to(records, webhook) == []


def test_model_that_was_found_is_told_of_as_well(records: Records):
    webhook, service = add(records), make_service(records)
    attempt = begin(records, service)
    records.tasks.adopt(attempt, {}, NewVersion("p", {}, []), {})
    [delivery] = to(records, webhook)
    assert delivery.task_id != attempt.task.id


def test_only_webhooks_that_want_an_end_are_told_of_it(records: Records):
    service, other = make_service(records), make_service(records, "wine")
    every, failures, foreign = add(records), add(records, events=["task.failed"]), add(records, "ann")
    of_iris, off, gone = add(records, services=["iris"]), add(records, is_active=False), add(records)
    records.webhooks.delete(gone.account_id, gone.id)
    first, second, third = finish(records, service), finish(records, other), finish(records)
    assert [each.task_id for each in to(records, every)] == [first.id, second.id, third.id]
    assert [each.task_id for each in to(records, of_iris)] == [first.id]
    assert [to(records, each) for each in (failures, foreign, off)] == [[], [], []]
    ids = {each.event_id for each in (*to(records, every), *to(records, of_iris))}
    assert len(ids) == 3, "an event has one id, whoever gets it"


# The sender


def test_of_many_senders_one_gets_a_delivery(records: Records):
    webhook = add(records)
    finish(records)
    [delivery] = to(records, webhook)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: records.deliveries.claim(delivery.id, "sender", LEASE_S), range(8)))
    [parcel] = [each for each in found if each is not None]
    assert (parcel.url, parcel.secrets, parcel.delivery.attempt) == (webhook.url, ("whsec_one",), 1)
    assert "whsec_one" not in repr(parcel)
    assert due(records) == []


def test_delivery_of_a_sender_that_died_is_due_again_and_it_may_write_no_more(records: Records):
    webhook = add(records)
    finish(records)
    [delivery] = to(records, webhook)
    dead = take(records, delivery.id, lease_s=0.0)
    time.sleep(0.02)
    [again] = due(records)
    assert (again.id, again.account_id, again.host) == (delivery.id, webhook.account_id, "a.example")
    parcel = take(records, again.id)
    assert not record(records, dead, BAD)
    assert records.webhooks.get(webhook.account_id, webhook.id).failing_since is None
    assert record(records, parcel, GOOD)
    [ended] = to(records, webhook)
    assert (ended.state, ended.attempt, ended.failures) == (Delivering.DELIVERED, 2, 0)
    assert ended.ended_at is not None
    assert not record(records, parcel, BAD), "an end is final"
    assert [each.number for each in records.deliveries.attempts(delivery.id)] == [1, 2]


def test_attempt_that_failed_is_made_again_later_until_no_more_is_wanted(records: Records):
    webhook = add(records)
    finish(records)
    [delivery] = to(records, webhook)
    assert record(records, take(records, delivery.id), BAD, 3600.0)
    [waiting] = to(records, webhook)
    assert (waiting.state, waiting.failures) == (Delivering.WAITING, 1)
    assert waiting.due_at == pytest.approx(records.clock_s() + 3600, abs=30)
    assert due(records) == []
    assert records.deliveries.claim(delivery.id, "sender", LEASE_S) is None
    make_due(records)
    assert record(records, take(records, delivery.id), BAD, None)
    [ended] = to(records, webhook)
    assert (ended.state, ended.failures) == (Delivering.FAILED, 2)
    [first, last] = records.deliveries.attempts(delivery.id)
    assert (first.status, first.error, first.answer) == (500, BAD.error, "no")
    assert last.ended_at is not None


def make_due(records: Records) -> None:
    """As if all delays had passed."""
    with records.database.write() as connection:
        connection.execute(text("UPDATE webhook_deliveries SET due_at = 0 WHERE state = 'waiting'"))


def due(records: Records, of_each: int = 4) -> list[Due]:
    return records.deliveries.due(of_each)[0]


def test_webhooks_with_much_to_get_do_not_hide_the_others(records: Records):
    first, second = add(records), add(records, "ann", place="b.example:443")
    for _ in range(5):
        finish(records)
    records.deliveries.test(second.id)
    found = due(records, 2)
    assert [(each.account_id, each.host) for each in found] == [
        (first.account_id, "a.example"),
        (first.account_id, "a.example"),
        (second.account_id, "b.example"),
    ]
    assert [each.id for each in found[:2]] == [each.id for each in to(records, first)][:2], "the longest due"


def test_what_is_tried_later_hides_nothing_that_is_due(records: Records):
    webhook = add(records)
    finish(records), finish(records), finish(records)
    first, second, third = to(records, webhook)
    record(records, take(records, first.id), BAD)
    assert [each.id for each in due(records, 1)] == [second.id]
    assert [each.id for each in due(records)] == [second.id, third.id]


def test_looks_lead_through_all_webhooks_in_turn(records: Records, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deliveries_module, "_WEBHOOKS_AT_ONCE", 2)
    made = [add(records, place=f"{name}.example:443") for name in "abcde"]
    sent = [records.deliveries.test(each.id).id for each in made]
    with records.database.write() as connection:  # as if something had ended while it was switched off
        connection.execute(text(f"UPDATE webhooks SET is_active = false WHERE id = {made[1].id}"))
    found, after = records.deliveries.due(4)
    assert [each.id for each in found] == [sent[0]]
    assert after == made[1].id
    found, after = records.deliveries.due(4, after)
    assert [each.id for each in found] == [sent[2], sent[3]]
    found, after = records.deliveries.due(4, after)
    assert [each.id for each in found] == [sent[4]]
    assert after == 0


def test_ends_beyond_what_may_wait_are_noted_with_the_reason_and_can_be_sent_later(
    records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deliveries_module, "WAITING_MOST", 4)
    webhook, other, foreign = add(records), add(records), add(records, "ann")
    finish(records), finish(records)
    assert [each.state for each in to(records, webhook)] == [Delivering.WAITING] * 2
    [kept, beyond] = to(records, other)
    assert (kept.state, beyond.state, beyond.attempt) == (Delivering.WAITING, Delivering.FAILED, 0)
    assert beyond.ended_at is not None
    [reason] = records.deliveries.attempts(beyond.id)
    assert (reason.number, reason.owner, reason.status) == (0, "", None)
    assert reason.error == "not tried: too many deliveries of the account waited already"
    for call in (lambda: records.deliveries.test(webhook.id), lambda: records.deliveries.replay(beyond)):
        with pytest.raises(TooManyDeliveries, match=r"already, 3 in all; an account may have 4"):
            call()
    records.deliveries.test(foreign.id)
    record(records, take(records, kept.id), GOOD)
    assert records.deliveries.replay(beyond).event_id == beyond.event_id


def test_tests_and_replays_of_a_webhook_that_wait_are_bounded(records: Records, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(deliveries_module, "ASKED_MOST", 2)
    webhook, other = add(records), add(records)
    finish(records)
    [delivery] = to(records, webhook)
    records.deliveries.replay(delivery)
    asked = records.deliveries.test(webhook.id)
    for call in (lambda: records.deliveries.test(webhook.id), lambda: records.deliveries.replay(delivery)):
        with pytest.raises(TooManyDeliveries, match="2 tests and replays wait for webhook"):
            call()
    records.deliveries.test(other.id)
    record(records, take(records, asked.id), GOOD)
    records.deliveries.test(webhook.id)


def test_webhook_that_is_gone_for_good_gets_nothing_more(records: Records):
    webhook = add(records)
    finish(records), finish(records)
    first, _ = to(records, webhook)
    assert record(records, take(records, first.id), BAD, ends_webhook="410")
    found = records.webhooks.get(webhook.account_id, webhook.id)
    assert (found.is_active, found.inactive_because) == (False, "410")
    assert [each.state for each in to(records, webhook)] == [Delivering.FAILED] * 2
    assert due(records) == []
    finish(records)
    assert len(to(records, webhook)) == 2
    with pytest.raises(WebhookInactive):
        records.deliveries.test(webhook.id)
    again = records.webhooks.change(webhook.account_id, webhook.id, {"is_active": True})
    assert (again.is_active, again.inactive_because, again.failing_since) == (True, None, None)


def test_end_that_an_old_address_tells_does_not_end_what_leads_to_a_new_one(records: Records):
    webhook = add(records)
    finish(records), finish(records)
    first, second = to(records, webhook)
    parcel = take(records, first.id)
    records.webhooks.change(webhook.account_id, webhook.id, {"url": "https://b.example/ends"})
    assert record(records, parcel, BAD, ends_webhook="410")
    assert records.webhooks.get(webhook.account_id, webhook.id).is_active
    assert [each.state for each in to(records, webhook)] == [Delivering.WAITING] * 2
    assert record(records, take(records, second.id), BAD, ends_webhook="410")
    assert not records.webhooks.get(webhook.account_id, webhook.id).is_active


def test_webhook_that_does_nothing_but_fail_is_switched_off_and_one_success_saves_it(records: Records):
    webhook = add(records)
    finish(records), finish(records), finish(records)
    first, second, third = to(records, webhook)
    record(records, take(records, first.id), BAD)
    assert records.webhooks.get(webhook.account_id, webhook.id).failing_since is not None
    record(records, take(records, second.id), GOOD)
    assert records.webhooks.get(webhook.account_id, webhook.id).failing_since is None
    record(records, take(records, third.id), BAD)
    make_due(records)
    time.sleep(0.02)
    record(records, take(records, first.id), BAD, give_up_s=0.01)
    found = records.webhooks.get(webhook.account_id, webhook.id)
    assert not found.is_active
    assert "every attempt failed" in str(found.inactive_because)


# Those who own them


def test_replay_is_a_delivery_of_its_own_with_the_event_of_the_other(records: Records):
    webhook = add(records)
    finish(records)
    [delivery] = to(records, webhook)
    record(records, take(records, delivery.id), GOOD)
    again = records.deliveries.replay(delivery)
    assert again.id != delivery.id
    assert (again.event_id, again.task_id, again.event_at) == (delivery.event_id, delivery.task_id, delivery.event_at)
    assert (again.replay_of, again.state, again.attempt) == (delivery.id, Delivering.WAITING, 0)


def test_old_secret_signs_beside_the_new_one_for_a_time(records: Records):
    webhook = add(records)
    for _ in range(2):
        finish(records)
    first, second = to(records, webhook)
    changed = records.webhooks.rotate(webhook.account_id, webhook.id, "whsec_two", 3600.0)
    assert changed.old_secret_until == pytest.approx(records.clock_s() + 3600, abs=30)
    assert take(records, first.id).secrets == ("whsec_two", "whsec_one")
    records.webhooks.rotate(webhook.account_id, webhook.id, "whsec_three", -1.0)
    assert take(records, second.id).secrets == ("whsec_three",)


def test_webhook_that_is_deleted_leaves_no_secret_behind(records: Records):
    webhook = add(records)
    finish(records)
    records.webhooks.rotate(webhook.account_id, webhook.id, "whsec_two", 3600.0)
    records.webhooks.delete(webhook.account_id, webhook.id)
    with records.database.read() as connection:
        left = connection.execute(text("SELECT url, secret, old_secret FROM webhooks")).one()
    assert tuple(left) == ("", "", None)
    assert due(records) == []
    for call in (
        lambda: records.webhooks.get(webhook.account_id, webhook.id),
        lambda: records.webhooks.delete(webhook.account_id, webhook.id),
        lambda: records.webhooks.change(webhook.account_id, webhook.id, {"is_active": True}),
        lambda: records.webhooks.rotate(webhook.account_id, webhook.id, "s", 1.0),
        lambda: records.deliveries.test(webhook.id),
    ):
        with pytest.raises(WebhookNotFound):
            call()


def test_accounts_see_their_own_only_and_have_a_bounded_number(records: Records):
    mine, foreign = add(records), add(records, "ann")
    with pytest.raises(WebhookNotFound):
        records.webhooks.get(mine.account_id, foreign.id)
    assert [each.id for each in records.webhooks.page(mine.account_id, limit=10)] == [mine.id]
    delivery = records.deliveries.test(foreign.id)
    with pytest.raises(DeliveryNotFound):
        records.deliveries.get(mine.id, delivery.id)
    for _ in range(WEBHOOKS_MOST - 1):
        add(records)
    with pytest.raises(TooManyWebhooks):
        add(records)
    records.webhooks.delete(mine.account_id, mine.id)
    add(records)


def test_old_deliveries_are_forgotten_and_waiting_ones_are_not(records: Records):
    webhook, off = add(records), add(records)
    finish(records)
    [sent], [stray] = to(records, webhook), to(records, off)
    record(records, take(records, sent.id), GOOD)
    finish(records)
    # As if a task had ended in the moment in which it was switched off.
    with records.database.write() as connection:
        connection.execute(text(f"UPDATE webhooks SET is_active = false WHERE id = {off.id}"))
    assert records.deliveries.waiting().count == 3
    time.sleep(0.02)
    assert records.deliveries.forget(3600.0) == 0
    assert records.deliveries.forget(0.0) == 3
    assert records.deliveries.forget(0.0) == 0
    assert [each.state for each in to(records, webhook)] == [Delivering.WAITING]
    assert to(records, off) == []
    assert records.deliveries.attempts(sent.id) == []
    assert stray.state is Delivering.WAITING
    assert 0 < records.deliveries.waiting().oldest_s < 60
    records.webhooks.delete(webhook.account_id, webhook.id)
    assert (records.deliveries.waiting().count, records.deliveries.waiting().oldest_s) == (0, 0.0)


def queue_up(records: Records, webhook: Webhook, count: int) -> None:
    """Let that many pings wait for a webhook, half of them for later."""
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :count)"
    with records.database.write() as connection:
        connection.execute(
            text(
                "INSERT INTO webhook_deliveries (webhook_id, event_id, event, state, attempt, failures, due_at,"
                f" event_at, created_at) {numbers} SELECT :webhook, 'msg_x', 'ping', 'waiting', 0, 0,"
                " CASE WHEN i % 2 = 0 THEN i ELSE 1e12 END, 0, 0 FROM n"
            ),
            {"webhook": webhook.id, "count": count},
        )


def statements_of(records: Records, ask: Callable[[], object]) -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []

    def note(_c: Any, _k: Any, statement: str, parameters: Any, _x: Any, _m: bool) -> None:
        if "webhook_deliveries" in statement:
            found.append((statement, parameters))

    event.listen(records.database.engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(records.database.engine, "before_cursor_execute", note)
    return found


def rows_read(records: Records, ask: Callable[[], object]) -> float:
    """How much a question reads: SQLite's steps of its programs, PostgreSQL's rows from indexes and tables."""
    asked = statements_of(records, ask)
    with records.database.engine.connect() as connection:
        if not records.database.is_sqlite:
            plans = [
                connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
                for statement, parameters in asked
            ]
            return sum(_rows_of(plan[0]["Plan"]) for plan in plans)
        steps = [0]

        def count() -> int:
            steps[0] += 1
            return 0

        driver = connection.connection.driver_connection
        assert driver is not None
        driver.set_progress_handler(count, 1)
        try:
            for statement, parameters in asked:
                connection.exec_driver_sql(statement, parameters).all()
        finally:
            driver.set_progress_handler(None, 0)
        return steps[0]


def _rows_of(plan: Any) -> float:
    removed = plan.get("Rows Removed by Filter", 0) + plan.get("Rows Removed by Join Filter", 0)
    own = (plan["Actual Rows"] + removed) * plan["Actual Loops"]
    return float(own + sum(_rows_of(each) for each in plan.get("Plans", ())))


def test_look_reads_as_much_with_a_hundred_waiting_as_with_a_hundred_thousand(records: Records):
    webhooks = [add(records, account, place=f"{account}.example:443") for account in ("local", "ann", "bob")]
    for webhook in webhooks:
        queue_up(records, webhook, 40)
    with records.database.write() as connection:
        connection.execute(text("ANALYZE"))
    assert len(due(records)) == 12
    few = rows_read(records, lambda: due(records))
    for webhook in webhooks:
        queue_up(records, webhook, 34_000)
    with records.database.write() as connection:
        connection.execute(text("ANALYZE"))
    assert len(due(records)) == 12
    many = rows_read(records, lambda: due(records))
    assert 0 < many < few * 1.5, f"{few} with few, {many} with many"


def test_what_may_still_wait_is_counted_by_an_index_and_no_further_than_the_bound(
    records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(deliveries_module, "WAITING_MOST", 500)
    mine, foreign = add(records), add(records, "ann")
    queue_up(records, mine, 500), queue_up(records, foreign, 10_000)

    def refused() -> None:
        with records.database.read() as connection:
            assert deliveries_module._waiting(connection, [mine.id]) == {mine.id: 500}

    with records.database.write() as connection:
        connection.execute(text("ANALYZE"))
    few = rows_read(records, refused)
    queue_up(records, mine, 10_000)
    with records.database.write() as connection:
        connection.execute(text("ANALYZE"))
    assert rows_read(records, refused) < few * 1.5


def test_figures_tell_how_many_wait_and_how_long_the_oldest_does(records: Records):
    webhook = add(records)
    queue_up(records, webhook, 3)
    first = min(each.id for each in to(records, webhook))
    with records.database.write() as connection:
        connection.execute(
            text("UPDATE webhook_deliveries SET created_at = CASE WHEN id = :id THEN :old ELSE :new END"),
            {"id": first, "old": time.time() - 100, "new": time.time() - 50},
        )
    found = records.deliveries.waiting()
    assert (found.count, 99 <= found.oldest_s < 160) == (3, True)


def test_figures_of_what_waits_read_waiting_deliveries_only(tmp_path: Path):
    records = Records.connect(f"sqlite:///{tmp_path / 'records.db'}")
    records.upgrade()
    [(statement, parameters)] = statements_of(records, records.deliveries.waiting)
    with records.database.engine.connect() as connection:
        rows = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        steps = connection.exec_driver_sql(f"EXPLAIN {statement}", parameters).all()
    plans = [row.detail for row in rows if "webhook_deliveries" in row.detail]
    assert plans
    counting, oldest = plans
    assert " INDEX ix_webhook_deliveries_" in counting, plans
    assert " INTEGER PRIMARY KEY (rowid=?)" in oldest, plans
    # No row is looked into but that of the oldest.
    assert [step.opcode for step in steps].count("Column") == 1
    records.close()
