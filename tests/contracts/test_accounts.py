"""Keys, quotas and the audit log keep their promises on every database they run on."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event

from storage.errors import KeyInUse, KeyNotFound, QueueQuota, StoredQuota
from storage.records import (
    Account,
    Artifact,
    Attempt,
    Dataset,
    Kind,
    NewFile,
    NewNote,
    NewVersion,
    Note,
    Quotas,
    Records,
    Role,
    State,
    Task,
    audit,
)
from storage.records.schema import metadata
from tests.contracts.conftest import asked_of, plans_of

AT_ONCE = 8


@pytest.fixture
def ann(records: Records) -> Account:
    return records.accounts.ensure("ann")


def add(records: Records, account: Account, kind: Kind = Kind.TRAIN, repository: str = "", **options: Any) -> Task:
    """A task; its own repository if one is named."""
    number = (
        None if not repository else records.repositories.ensure(account.id, f"objects:{account.id}/{repository}").id
    )
    return records.tasks.add(account.id, kind, "train.cpu", {}, repository_id=number, **options)[0]


def finish(records: Records, attempt: Attempt, size: int = 0, **report: Any) -> None:
    version = None
    if size:
        version = NewVersion(f"{attempt.prefix}/model", {}, [Artifact("a", f"{attempt.prefix}/a", size, "d")])
    records.tasks.end(attempt, State.FINISHED, phases={}, report=report, version=version)


def claimed(records: Records, *tasks: Task) -> list[int]:
    """Which of the tasks can be claimed."""
    return [task.id for task in tasks if records.tasks.claim(task.id, "worker", 30.0) is not None]


def startable(records: Records) -> list[int]:
    return [task.id for waiting in records.tasks.waiting(0.0) for task in waiting.oldest]


def at_once(url: str, work: Callable[[Records, int], Any]) -> list[Any]:
    """What comes of the same work done by several processes at one moment; errors too."""
    barrier = threading.Barrier(AT_ONCE)

    def one(number: int) -> Any:
        mine = Records.connect(url)
        try:
            barrier.wait(30)
            return work(mine, number)
        except Exception as error:
            return error
        finally:
            mine.close()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


# Keys


def test_key_has_the_role_it_was_made_with_and_trains_when_none_was_named(records: Records) -> None:
    for role in Role:
        key, secret = records.keys.create("ann", role=role)
        caller = records.keys.account_of(secret)
        assert caller is not None
        assert (caller.name, caller.role, caller.key_id, key.role) == ("ann", role, key.id, role)
    assert records.keys.create("ann")[0].role is Role.TRAIN


def test_roles_are_ordered_and_unknown_names_are_told() -> None:
    assert [str(role) for role in sorted(Role)] == ["read", "predict", "train", "admin"]
    assert Role.named("predict") is Role.PREDICT
    with pytest.raises(ValueError, match="use one of read, predict, train, admin"):
        Role.named("root")


def test_keys_of_an_account_are_paged_newest_first_and_no_other_account_sees_them(records: Records) -> None:
    made = [records.keys.create("ann")[0].id for _ in range(3)]
    other = records.keys.create("bob")[0]
    ann = records.accounts.ensure("ann").id
    assert [key.id for key in records.keys.page(ann, limit=2)] == made[:0:-1]
    assert [key.id for key in records.keys.page(ann, limit=2, before_id=made[1])] == made[:1]
    with pytest.raises(KeyNotFound):
        records.keys.revoke(other.id, ann)
    assert records.keys.list()[-1].revoked_at is None


def test_key_cannot_end_itself(records: Records, ann: Account) -> None:
    key, _ = records.keys.create("ann", role=Role.ADMIN)
    with pytest.raises(KeyInUse, match="another key"):
        records.keys.revoke(key.id, ann.id, NewNote("", key_id=key.id))
    assert records.keys.any_active()


def test_of_keys_that_end_each_other_at_one_moment_one_is_left(url: str, records: Records, ann: Account) -> None:
    made = [records.keys.create("ann", role=Role.ADMIN)[0].id for _ in range(AT_ONCE)]
    at_once(
        url,
        lambda mine, number: mine.keys.revoke(made[(number + 1) % AT_ONCE], ann.id, NewNote("", key_id=made[number])),
    )
    assert any(key.revoked_at is None for key in records.keys.list())


def test_key_that_was_revoked_makes_no_other(records: Records) -> None:
    key, _ = records.keys.create("ann", role=Role.ADMIN)
    records.keys.revoke(key.id)
    with pytest.raises(KeyNotFound):
        records.keys.create("ann", by=NewNote("", key_id=key.id))


def test_secret_is_looked_up_by_its_digest_and_never_compared(records: Records) -> None:
    """What reaches the database is the SHA-256 alone: however long a comparison takes, it tells nothing of a secret."""
    _, secret = records.keys.create("ann")
    asked: list[Any] = []

    @event.listens_for(records.database.engine, "before_cursor_execute")
    def _note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        asked.append((statement, parameters))

    assert records.keys.account_of(secret) is not None
    [(statement, parameters)] = [each for each in asked if "keys" in each[0]]
    given = list(parameters.values()) if isinstance(parameters, dict) else list(parameters)
    assert all(secret not in str(each) for each in (statement, *given))
    assert [len(each) for each in given] == [64]


def test_wrong_keys_take_as_long_whether_they_begin_as_a_right_one_does(records: Records) -> None:
    """Medians of interleaved pairs; the bound is far above what a database takes for one row more or less."""
    _, secret = records.keys.create("ann")
    near, far = secret[:-1] + ("A" if secret[-1] != "A" else "B"), "0" * len(secret)
    took: dict[str, list[float]] = {near: [], far: []}
    for _ in range(60):
        for given, times in took.items():
            began = time.perf_counter()
            assert records.keys.account_of(given) is None
            times.append(time.perf_counter() - began)
    medians = sorted(statistics.median(times) for times in took.values())
    assert medians[1] < 3 * medians[0] + 1e-3


# The audit log


def test_changes_of_keys_and_quotas_are_noted_with_them(records: Records, ann: Account) -> None:
    key, secret = records.keys.create("ann", role=Role.READ)
    records.quotas.set(ann, {"trainings": 2, "queued_tasks": None})
    records.keys.revoke(key.id)
    notes = records.audit.page(limit=10)
    assert [(note.action, note.kind, note.name, note.account, note.role) for note in notes] == [
        ("key.revoke", "key", "1", "ann", "operator"),
        ("quota.set", "account", "queued_tasks=default, trainings=2", "ann", "operator"),
        ("key.create", "key", "1 (read)", "ann", "operator"),
    ]
    assert secret not in repr(notes)
    assert abs(notes[0].at - time.time()) < 60


def test_refused_change_of_a_key_is_not_noted_as_done(records: Records, ann: Account) -> None:
    with pytest.raises(KeyNotFound):
        records.keys.revoke(7, ann.id)
    assert records.audit.page(limit=10) == []


def test_audit_log_is_paged_and_filtered(records: Records, ann: Account) -> None:
    records.audit.add(
        *(NewNote(action, account_id=ann.id) for action in ("key.create", "key.revoke", "keyhole", "task.start")),
        NewNote("refused.key_needed", outcome="refused", count=7, address="::1"),
    )

    def actions(**filters: Any) -> list[str]:
        return [note.action for note in records.audit.page(limit=10, **filters)]

    assert actions(account_id=ann.id) == ["task.start", "keyhole", "key.revoke", "key.create"]
    assert actions(action="key.") == ["key.revoke", "key.create"]
    assert actions(action="keyhole") == ["keyhole"]
    assert actions(action="k_y.") == []
    assert actions(since=time.time() + 60) == []
    newest = records.audit.page(limit=1)[0]
    assert newest == Note(newest.id, newest.at, None, None, "", "refused.key_needed", "", "", "refused", 7, "", "::1")
    assert actions(before_id=newest.id, account_id=ann.id)[0] == "task.start"


def test_names_in_the_audit_log_are_cut_and_hold_no_nul(records: Records) -> None:
    records.audit.add(NewNote("service.create", name="a\0b" + "x" * 1000))
    [note] = records.audit.page(limit=2)
    assert note.name.startswith("abx")
    assert len(note.name) == 300


def test_old_lines_are_swept(records: Records) -> None:
    records.audit.add(NewNote("key.create"), NewNote("key.revoke"))
    assert not records.audit.sweep(3600.0)
    assert len(records.audit.page(limit=10)) == 2
    assert not records.audit.sweep(-1.0)
    assert records.audit.page(limit=10) == []


def test_many_old_lines_are_swept_in_pieces(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "_AT_ONCE", 2)
    records.audit.add(*(NewNote("key.create") for _ in range(3)))
    assert records.audit.sweep(-1.0)
    assert len(records.audit.page(limit=10)) == 1
    assert not records.audit.sweep(-1.0)
    assert records.audit.page(limit=10) == []


# Quotas


def test_own_quotas_go_before_the_defaults_and_back(url: str, records: Records, ann: Account) -> None:
    others = Records.connect(url, {"trainings": 3, "stored_bytes": 100})
    try:
        assert others.quotas.of(ann.id) == Quotas(3, 0, 100, 0)
        assert others.quotas.set(ann, {"trainings": 0, "requests_per_minute": 60}) == Quotas(0, 0, 100, 60)
        caller = others.keys.account_of(others.keys.create("ann")[1])
        assert caller is not None
        assert caller.quotas == Quotas(0, 0, 100, 60)
        assert others.quotas.set(ann, {"trainings": None}) == Quotas(3, 0, 100, 60)
        assert [(account.name, held) for account, held in others.quotas.all()] == [("ann", Quotas(3, 0, 100, 60))]
        assert records.quotas.of(ann.id) == Quotas(0, 0, 0, 60)
    finally:
        others.close()


def test_trainings_over_the_quota_wait_and_those_of_others_do_not(records: Records, ann: Account) -> None:
    records.quotas.set(ann, {"trainings": 2})
    mine = [add(records, ann) for _ in range(4)]
    other = add(records, records.accounts.ensure("bob"))
    prediction = add(records, ann, Kind.PREDICT)
    assert startable(records) == [mine[0].id, mine[1].id, other.id, prediction.id]
    assert [waiting.startable for waiting in records.tasks.waiting(0.0)] == [4]
    assert sum(each.startable for each in records.tasks.open_tasks()) == 4
    records.tasks.mark_sent([task.id for task in mine])
    assert claimed(records, *mine, other, prediction) == [mine[0].id, mine[1].id, other.id, prediction.id]
    assert startable(records) == []
    assert records.tasks.next_of_account(ann.id) is None
    assert records.tasks.get(mine[2].id).sent_at is None, "its message is used up"
    records.tasks.request_cancel(mine[0].id)
    assert startable(records) == [], "it still runs"
    attempt = Attempt(records.tasks.get(mine[1].id), {}, 1, "worker")
    finish(records, attempt)
    waiting = records.tasks.next_of_account(ann.id)
    assert waiting is not None
    assert startable(records) == [waiting.id] == [mine[2].id]
    assert claimed(records, mine[3], mine[2]) == [mine[3].id], "whoever is first may run; the other waits"


def test_training_that_waits_for_a_worker_which_is_not_there_holds_up_no_other_one(
    records: Records, ann: Account
) -> None:
    records.quotas.set(ann, {"trainings": 1})
    running = add(records, ann)
    elsewhere = records.tasks.add(ann.id, Kind.TRAIN, "train.gpu", {})[0]
    behind = add(records, ann)
    records.tasks.mark_sent([running.id, elsewhere.id, behind.id])
    assert claimed(records, running, behind) == [running.id]
    finish(records, Attempt(records.tasks.get(running.id), {}, 1, "worker"))
    found = records.tasks.next_of_account(ann.id)
    assert found is not None
    assert found.id == behind.id
    assert sorted(startable(records)) == [elsewhere.id, behind.id]
    assert claimed(records, behind, elsewhere) == [behind.id]


def test_quota_of_trainings_counts_those_that_could_start_not_those_behind_them_in_a_repository(
    records: Records, ann: Account
) -> None:
    records.quotas.set(ann, {"trainings": 2})
    first, behind, free = (add(records, ann, repository=name) for name in ("one", "one", "two"))
    assert startable(records) == [first.id, free.id]
    assert claimed(records, behind, first, free) == [first.id, free.id]


def test_training_whose_lease_ran_out_is_taken_over_within_the_quota(records: Records, ann: Account) -> None:
    records.quotas.set(ann, {"trainings": 1})
    task = add(records, ann)
    assert records.tasks.claim(task.id, "gone", 0.0) is not None
    time.sleep(0.02)
    assert records.tasks.claim(task.id, "worker", 30.0) is not None


def test_of_many_trainings_claimed_at_one_moment_as_many_run_as_may(url: str, records: Records, ann: Account) -> None:
    records.quotas.set(ann, {"trainings": 3})
    made = [add(records, ann) for _ in range(AT_ONCE)]
    found = at_once(url, lambda mine, number: mine.tasks.claim(made[number].id, f"worker-{number}", 30.0))
    assert sum(each is not None for each in found) == 3, found


def test_tasks_over_the_quota_of_waiting_ones_are_refused_but_not_clearing(records: Records, ann: Account) -> None:
    records.quotas.set(ann, {"queued_tasks": 2})
    first = add(records, ann, idempotency_key="k", request_digest="d")
    add(records, ann, Kind.PREDICT)
    for kind in (Kind.TRAIN, Kind.PREDICT, Kind.IMPORT, Kind.UPLOAD, Kind.DESCRIBE):
        with pytest.raises(QueueQuota, match="its quota allows, 2;"):
            add(records, ann, kind)
    assert add(records, ann, idempotency_key="k", request_digest="d").id == first.id
    add(records, ann, Kind.CLEAR)
    add(records, records.accounts.ensure("bob"))
    assert claimed(records, first)
    add(records, ann)


def test_of_many_tasks_accepted_at_one_moment_as_many_wait_as_may(url: str, records: Records, ann: Account) -> None:
    records.quotas.set(ann, {"queued_tasks": 5})
    found = at_once(url, lambda mine, number: add(mine, ann))
    assert sum(isinstance(each, Task) for each in found) == 5, found
    assert {type(each) for each in found} == {Task, QueueQuota}


def dataset(records: Records, account: Account) -> Dataset:
    return records.datasets.create(account.id, "flowers")[0]


def new(path: str, size: int) -> NewFile:
    return NewFile(path, f"datasets/{path}/{size}/{threading.get_ident()}/{time.perf_counter_ns()}", size, "d")


def put(records: Records, into: Dataset, *files: NewFile) -> None:
    records.datasets.commit(into.id, records.datasets.stage(into.id, files))


def test_bytes_of_data_sets_uploads_versions_and_results_are_counted_until_they_leave(
    records: Records, ann: Account
) -> None:
    def used() -> int:
        return records.quotas.use(ann.id).stored_bytes

    flowers = dataset(records, ann)
    put(records, flowers, new("a.csv", 100), new("b.csv", 20))
    assert used() == 120
    put(records, flowers, new("a.csv", 50))
    assert used() == 70
    upload = records.uploads.add(flowers.id, "c.csv", size_bytes=1000, part_bytes=1000)
    assert used() == 1070
    records.uploads.end(upload.id)
    training, prediction = add(records, ann, repository="iris"), add(records, ann, Kind.PREDICT)
    for task, size, report in ((training, 300, {}), (prediction, 0, {"result": {"size_bytes": 4000}})):
        attempt = records.tasks.claim(task.id, "worker", 30.0)
        assert attempt is not None
        finish(records, attempt, size, **report)
    assert used() == 70 + 300 + 4000
    records.tasks.mark_cleaned(prediction.id)
    assert used() == 370
    records.datasets.delete(flowers.id)
    assert used() == 300
    assert records.quotas.use(records.accounts.ensure("bob").id).stored_bytes == 0


def test_files_uploads_and_tasks_that_would_be_too_much_are_refused(records: Records, ann: Account) -> None:
    flowers = dataset(records, ann)
    records.quotas.set(ann, {"stored_bytes": 100})
    put(records, flowers, new("a.csv", 80))
    with pytest.raises(StoredQuota, match="keeps 80 bytes, and 21 more were to come; its quota is 100"):
        records.datasets.stage(flowers.id, [new("b.csv", 21)])
    with pytest.raises(StoredQuota):
        records.uploads.add(flowers.id, "b.csv", size_bytes=21, part_bytes=21)
    put(records, flowers, new("a.csv", 100))  # in place of the other one
    put(records, flowers, new("b.csv", 0))
    for kind in (Kind.TRAIN, Kind.PREDICT, Kind.IMPORT):
        with pytest.raises(StoredQuota, match="delete data sets"):
            add(records, ann, kind)
    add(records, ann, Kind.DESCRIBE)
    records.datasets.remove_file(flowers.id, "a.csv")
    add(records, ann)


def test_upload_is_counted_once_when_it_is_completed(records: Records, ann: Account) -> None:
    flowers = dataset(records, ann)
    records.quotas.set(ann, {"stored_bytes": 100})
    upload = records.uploads.add(flowers.id, "a.csv", size_bytes=90, part_bytes=90)
    staged = records.datasets.stage(flowers.id, [new("a.csv", 90)], upload.id)
    records.datasets.commit(flowers.id, staged, upload.id)
    assert records.quotas.use(ann.id).stored_bytes == 90
    archive = records.uploads.add(flowers.id, "", size_bytes=5, part_bytes=5, unpack=True)
    with pytest.raises(StoredQuota):
        records.datasets.stage(flowers.id, [new("b.csv", 6), new("c.csv", 6)], archive.id)


def test_files_on_their_way_are_counted_until_they_are_dropped(records: Records, ann: Account) -> None:
    flowers = dataset(records, ann)
    records.quotas.set(ann, {"stored_bytes": 100})
    staged = records.datasets.stage(flowers.id, [new("a.csv", 60)])
    assert records.quotas.use(ann.id).stored_bytes == 60
    for refused in (
        lambda: records.datasets.stage(flowers.id, [new("b.csv", 41)]),
        lambda: records.uploads.add(flowers.id, "b.csv", size_bytes=41, part_bytes=41),
    ):
        with pytest.raises(StoredQuota, match="keeps 60 bytes, and 41 more"):
            refused()
    assert records.datasets.give_up(staged)
    assert records.quotas.use(ann.id).stored_bytes == 60, "the content may be there"
    records.datasets.forget_files(staged)
    assert records.quotas.use(ann.id).stored_bytes == 0
    put(records, flowers, new("b.csv", 100))


def test_contents_that_take_the_place_of_one_file_do_not_pile_up(records: Records, ann: Account) -> None:
    flowers = dataset(records, ann)
    put(records, flowers, new("a.csv", 90))
    records.quotas.set(ann, {"stored_bytes": 50})
    records.datasets.stage(flowers.id, [new("a.csv", 80)])  # less than before, though still too much
    with pytest.raises(StoredQuota):
        records.datasets.stage(flowers.id, [new("a.csv", 80)])


def test_upload_that_is_being_stored_is_counted_once_however_often_it_is_tried(records: Records, ann: Account) -> None:
    flowers = dataset(records, ann)
    records.quotas.set(ann, {"stored_bytes": 100})
    upload = records.uploads.add(flowers.id, "a.csv", size_bytes=90, part_bytes=90)
    lost = records.datasets.stage(flowers.id, [new("a.csv", 90)], upload.id)
    assert records.quotas.use(ann.id).stored_bytes == 90
    assert records.datasets.left_files({}, -1.0, 60.0) == [], "it may still come in"
    records.datasets.commit(flowers.id, records.datasets.stage(flowers.id, [new("a.csv", 90)], upload.id), upload.id)
    assert [number for number, _ in records.datasets.left_files({}, -1.0, 60.0)] == lost
    records.datasets.forget_files(lost)
    assert records.quotas.use(ann.id).stored_bytes == 90


def test_of_many_files_staged_at_one_moment_no_more_are_stored_than_fit(
    url: str, records: Records, ann: Account
) -> None:
    flowers = dataset(records, ann)
    records.quotas.set(ann, {"stored_bytes": 35})
    found = at_once(url, lambda mine, number: mine.datasets.stage(flowers.id, [new(f"{number}.csv", 10)]))
    assert sum(isinstance(each, list) for each in found) == 3, found
    assert {type(each) for each in found} == {list, StoredQuota}


def test_of_many_files_added_at_one_moment_only_those_come_in_that_fit(
    url: str, records: Records, ann: Account
) -> None:
    flowers = dataset(records, ann)
    records.quotas.set(ann, {"stored_bytes": 35})
    at_once(url, lambda mine, number: put(mine, flowers, new(f"{number}.csv", 10)))
    assert records.quotas.use(ann.id).stored_bytes == 30


def test_nobody_waits_while_what_an_account_stores_is_added_up_for_a_new_task(records: Records, ann: Account) -> None:
    records.quotas.set(ann, {"stored_bytes": 9, "queued_tasks": 9})
    asked: list[tuple[bool, str]] = []

    @event.listens_for(records.database.engine, "before_cursor_execute")
    def _note(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        asked.append((connection.get_execution_options().get("modelyard_write", False), statement))

    add(records, ann)
    sums = [writes for writes, statement in asked if "sum(" in statement]
    assert sums
    assert not any(sums)
    assert any(writes and "count(" in statement for writes, statement in asked), "that one guards what it counts"


def test_no_check_of_a_quota_reads_a_whole_table(on_sqlite: Records) -> None:
    records, ann = on_sqlite, on_sqlite.accounts.ensure("ann")
    records.quotas.set(ann, {"trainings": 1, "queued_tasks": 9, "stored_bytes": 9})
    task = add(records, ann)
    with asked_of(records, "") as asked:
        add(records, ann)
        claimed(records, task)
        records.tasks.waiting(0.0)
        records.tasks.next_of_account(ann.id)
        records.quotas.use(ann.id)
    tables = tuple(f"SCAN {name}" for name in metadata.tables)
    checks = [each for each in asked if ("tasks" in each[0] or "sum(" in each[0]) and not each[0].startswith("INSERT")]
    for statement, plan in plans_of(records, checks):
        whole = [line for line in plan if line.startswith(tables)]
        # These hold what is not over, or on its way, which is little.
        few = ("ix_tasks_open", "uq_tasks_running", "ix_dataset_files_staged")
        assert all(any(name in each for name in few) for each in whole), f"{whole} in {statement}"
