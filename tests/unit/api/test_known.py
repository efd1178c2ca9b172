"""What is known of services: believed for a second, read again when something changed."""

from __future__ import annotations

import pytest
from flask.testing import FlaskClient

from api import known as module
from api.known import Known, KnownServices
from storage.errors import LiveUnavailable, ServiceNotFound
from storage.records import Records
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive, FakeQueue, predicted


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def services(records: Records, live: FakeLive, yard: Yard) -> KnownServices:
    yard.create()
    return KnownServices(records, live)  # type: ignore[arg-type]


@pytest.fixture
def account_id(records: Records) -> int:
    return records.accounts.ensure("local").id


def find(services: KnownServices, account_id: int, stale: Known | None = None) -> Known:
    return services.find(account_id, "iris", stale=stale)


def test_service_is_believed_for_a_second(services: KnownServices, account_id: int, clock: Clock, live: FakeLive):
    first = find(services, account_id)
    asked = live.reads
    clock.now += 0.99
    assert find(services, account_id) is first
    assert live.reads == asked, "Redis was not asked either"
    clock.now += 0.02
    assert find(services, account_id) is not first


def test_version_is_seen_after_a_second_at_the_latest(
    services: KnownServices, account_id: int, clock: Clock, yard: Yard
):
    assert find(services, account_id).version is None
    yard.finish(yard.train())
    assert find(services, account_id).version is None, "nobody told of it"
    clock.now += 1.0
    version = find(services, account_id).version
    assert version is not None
    assert version.number == 1


def test_what_is_stale_is_read_again_at_once(services: KnownServices, account_id: int, clock: Clock, live: FakeLive):
    first = find(services, account_id)
    live.changes.note()
    second = find(services, account_id, stale=first)
    assert second.mark == live.changes.mark
    assert find(services, account_id, stale=first) is second, "another caller read it in between"
    assert find(services, account_id) is second


def test_mark_is_older_than_what_was_read_with_it(
    services: KnownServices, account_id: int, live: FakeLive, records: Records, monkeypatch: pytest.MonkeyPatch
):
    """A change while the records are read must make the next request read again."""
    newest = records.versions.newest_or_none

    def changing(repository_id: int):
        live.changes.note()
        return newest(repository_id)

    monkeypatch.setattr(records.versions, "newest_or_none", changing)
    assert find(services, account_id).mark != live.changes.mark


def test_questions_are_kept_until_service_or_version_change(
    services: KnownServices, account_id: int, clock: Clock, yard: Yard
):
    first = find(services, account_id)
    first.questions[b"{}"] = "made"
    clock.now += 2
    assert find(services, account_id).questions == {b"{}": "made"}
    yard.finish(yard.train())
    clock.now += 2
    assert find(services, account_id).questions == {}


def test_service_that_was_deleted_is_not_found(services: KnownServices, account_id: int, clock: Clock, yard: Yard):
    first = find(services, account_id)
    assert yard.client.delete("/services/iris").status_code == 200
    with pytest.raises(ServiceNotFound):
        find(services, account_id, stale=first)
    clock.now += 2
    with pytest.raises(ServiceNotFound):
        find(services, account_id)


def test_accounts_share_nothing(services: KnownServices, account_id: int, records: Records):
    find(services, account_id)
    with pytest.raises(ServiceNotFound):
        services.find(records.accounts.ensure("other").id, "iris")


def test_nothing_is_believed_without_a_mark(services: KnownServices, account_id: int, live: FakeLive):
    live.is_down = True
    with pytest.raises(LiveUnavailable):
        find(services, account_id)


def test_only_so_many_are_kept(
    services: KnownServices, account_id: int, clock: Clock, yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    yard.create("other")
    monkeypatch.setattr(module, "_KEPT", 1)
    first = find(services, account_id)
    services.find(account_id, "other")
    assert find(services, account_id) is not first


# Through the API


@pytest.fixture
def trained(yard: Yard) -> Yard:
    yard.create()
    yard.finish(yard.train())
    return yard


def ask(client: FlaskClient):
    return client.post("/predict", json={"service": "iris", "data": ["1,2"]})


def test_new_version_answers_from_the_moment_that_it_is_told(
    trained: Yard, client: FlaskClient, queue: FakeQueue, live: FakeLive, clock: Clock
):
    assert ask(client).status_code == 200
    trained.finish(trained.train())
    live.changes.note()
    assert ask(client).status_code == 200
    # The second one was asked with what was known, refused for the mark, and asked again.
    assert [request["version_id"] for request, _ in queue.asked] == [1, 1, 2]


def test_deleted_service_does_not_answer_any_more(trained: Yard, client: FlaskClient, queue: FakeQueue, clock: Clock):
    assert ask(client).status_code == 200
    assert client.delete("/services/iris").status_code == 200
    answer = ask(client)
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (404, 1002)


def test_changes_that_never_end_do_not_keep_a_request_from_its_answer(
    trained: Yard, client: FlaskClient, queue: FakeQueue, live: FakeLive, monkeypatch: pytest.MonkeyPatch
):
    current = live.changes.current

    def changing() -> str:
        mark = current()
        live.changes.note()
        return mark

    monkeypatch.setattr(live.changes, "current", changing)
    queue.reply = lambda request: predicted([])
    assert ask(client).status_code == 200
    assert len(queue.asked) == 3


def test_answered_requests_need_no_records(
    trained: Yard, client: FlaskClient, records: Records, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    assert ask(client).status_code == 200
    monkeypatch.setattr(records.services, "find", lambda *given: pytest.fail("read again"))
    monkeypatch.setattr(records.versions, "newest_or_none", lambda *given: pytest.fail("read again"))
    assert ask(client).status_code == 200
