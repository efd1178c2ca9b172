"""The records keep their promises on every database they run on."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from storage.errors import (
    IdempotencyConflict,
    JobNotFound,
    KeyNotFound,
    RecordsUnavailable,
    RepositoryUnusable,
    ServiceExists,
    ServiceNotFound,
    Superseded,
    TaskNotFound,
    VersionNotFound,
)
from storage.records import (
    Artifact,
    Attempt,
    Before,
    Kind,
    ModelSize,
    NewTask,
    NewVersion,
    Records,
    Role,
    Service,
    State,
    Task,
)
from storage.records.migration import newest
from storage.records.schema import REVISION, metadata
from tests.contracts.conftest import asked_of, make_service, plans_of

LEASE_S = 30.0
LOST = {"kind": "worker_lost", "message": "gone"}


def add_training(records: Records, service: Service, **options: Any) -> Task:
    task, _ = records.tasks.add(
        service.account_id,
        Kind.TRAIN,
        "train.cpu",
        {"data": ["a.csv"]},
        service_id=service.id,
        repository_id=service.repository_id,
        is_job=True,
        **options,
    )
    return task


def claim(records: Records, task: Task, lease_s: float = LEASE_S) -> Attempt:
    attempt = records.tasks.claim(task.id, "worker", lease_s)
    assert attempt is not None
    return attempt


def lose(records: Records, task: Task) -> Attempt:
    """Claim a task and let the lease run out."""
    attempt = claim(records, task, lease_s=0.0)
    time.sleep(0.02)
    return attempt


def version_of(attempt: Attempt) -> NewVersion:
    return NewVersion(
        f"{attempt.prefix}/model",
        {"backend": "xgboost"},
        [Artifact("0001.model", f"{attempt.prefix}/model/0001.model", 7, "d")],
    )


def finish(records: Records, attempt: Attempt) -> int | None:
    return records.tasks.end(
        attempt, State.FINISHED, phases={}, report={"measure": {"acc": 1.0}}, version=version_of(attempt)
    ).version


def test_migrations_give_the_tables_that_the_program_describes(records: Records) -> None:
    assert newest() == REVISION
    with records.database.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    records.check()


def test_several_processes_may_upgrade_at_once(url: str) -> None:
    everybody = [Records.connect(url) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda records: records.upgrade(), everybody))
    everybody[0].check()
    for records in everybody:
        records.close()


def test_records_without_tables_say_what_to_do(url: str) -> None:
    records = Records.connect(url)
    with pytest.raises(RecordsUnavailable, match="modelyard db upgrade"):
        records.check()
    records.close()


def test_times_are_seconds_since_the_epoch(records: Records, service: Service) -> None:
    assert abs(add_training(records, service).created_at - time.time()) < 5


def test_jobs_are_numbered_per_service_without_gaps_under_concurrency(records: Records, service: Service) -> None:
    other = make_service(records, "wine")
    with ThreadPoolExecutor(4) as pool:
        jobs = list(pool.map(lambda _: add_training(records, service).job, range(12)))
    assert sorted(job for job in jobs if job is not None) == list(range(1, 13))
    assert add_training(records, other).job == 1


def test_task_numbers_are_never_given_again(records: Records, service: Service) -> None:
    first, second = add_training(records, service), add_training(records, service)
    assert second.id > first.id


def test_report_in_brief_is_of_its_warnings_and_measures_alone(records: Records, service: Service) -> None:
    measure = {"acc": 0.1 + 0.2, "cmfull": [{"é": {"a b": 1.0}}], "none": None}
    brief = {"warnings": [{"parameter": "a", "message": "b"}], "measure": measure}
    for report, wanted in (
        ({**brief, "measure_hist": {"acc_hist": [1.0]}}, brief),
        ({}, {"warnings": None, "measure": None}),
    ):
        attempt = claim(records, add_training(records, service))
        assert records.tasks.report_in_brief(attempt.task.id) is None
        records.tasks.end(attempt, State.FAILED, phases={}, report=report)
        assert records.tasks.report_in_brief(attempt.task.id) == wanted


def test_second_claim_of_a_task_gets_nothing(records: Records, service: Service) -> None:
    task = add_training(records, service)
    assert claim(records, task).number == 1
    assert records.tasks.claim(task.id, "other", LEASE_S) is None


def test_of_many_claims_at_one_moment_one_wins(url: str, records: Records, service: Service) -> None:
    task = add_training(records, service)
    barrier = threading.Barrier(6)
    claimants = [Records.connect(url) for _ in range(6)]

    def claim_at_once(mine: Records) -> Attempt | None:
        barrier.wait()
        return mine.tasks.claim(task.id, "me", LEASE_S)

    with ThreadPoolExecutor(6) as pool:
        won = [attempt for attempt in pool.map(claim_at_once, claimants) if attempt is not None]
    for mine in claimants:
        mine.close()
    assert len(won) == 1
    assert len(records.tasks.attempts(task.id)) == 1


def test_of_two_tasks_of_a_repository_claimed_at_one_moment_one_runs(
    url: str, records: Records, service: Service
) -> None:
    sharing = make_service(records, "twin", "objects:1/iris")
    for _ in range(5):
        tasks = [add_training(records, service), add_training(records, sharing)]
        barrier = threading.Barrier(2)

        def claim_at_once(task: Task, barrier: threading.Barrier = barrier) -> Attempt | None:
            mine = Records.connect(url)
            barrier.wait()
            try:
                return mine.tasks.claim(task.id, "me", LEASE_S)
            finally:
                mine.close()

        with ThreadPoolExecutor(2) as pool:
            won = [attempt for attempt in pool.map(claim_at_once, tasks) if attempt is not None]
        assert [attempt.task.id for attempt in won] == [tasks[0].id]
        finish(records, won[0])
        finish(records, claim(records, tasks[1]))


def test_later_training_of_a_repository_waits_until_the_earlier_is_final(records: Records, service: Service) -> None:
    first, second = add_training(records, service), add_training(records, service)
    assert not records.tasks.is_startable(second)
    assert records.tasks.claim(second.id, "me", LEASE_S) is None
    attempt = claim(records, first)
    assert records.tasks.claim(second.id, "me", LEASE_S) is None
    finish(records, attempt)
    following = records.tasks.next_of_repository(service.repository_id)
    assert following is not None
    assert following.id == second.id
    assert claim(records, second).number == 1


def test_lease_that_ran_out_is_still_good_while_nobody_took_over(records: Records, service: Service) -> None:
    attempt = lose(records, add_training(records, service))
    assert records.tasks.renew(attempt, LEASE_S) is False
    assert finish(records, attempt) == 1


def test_renewed_lease_is_not_taken_over(records: Records, service: Service) -> None:
    task = add_training(records, service)
    attempt = lose(records, task)
    records.tasks.renew(attempt, LEASE_S)
    assert records.tasks.claim(task.id, "other", LEASE_S) is None
    assert records.tasks.take_back_silent(9, LOST) == []


WRITES: dict[str, Callable[[Records, Attempt], object]] = {
    "renew": lambda records, attempt: records.tasks.renew(attempt, LEASE_S),
    "checkpoint": lambda records, attempt: records.tasks.checkpoint(attempt, {"iteration": 1, "prefix": "p"}),
    "requeue": lambda records, attempt: records.tasks.requeue(attempt, "paused", phases={}),
    "fail": lambda records, attempt: records.tasks.end(attempt, State.FAILED, phases={}, failure=LOST),
    "publish": lambda records, attempt: finish(records, attempt),
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("ending", ["taken over", "taken back", "finished by the next", "cancelled"])
def test_superseded_attempt_cannot_write(records: Records, service: Service, write: str, ending: str) -> None:
    task = add_training(records, service)
    old = lose(records, task)
    if ending == "taken back":
        records.tasks.take_back_silent(9, LOST)
    elif ending == "cancelled":
        records.tasks.request_cancel(task.id)
        records.tasks.take_back_silent(9, LOST)
    else:
        new = claim(records, task)
        assert new.number == 2
        if ending == "finished by the next":
            finish(records, new)
    before = records.tasks.get(task.id)
    with pytest.raises(Superseded):
        WRITES[write](records, old)
    assert records.tasks.get(task.id) == before
    published = records.versions.of_task(task.id)
    assert (published.attempt if published else None) == (2 if ending == "finished by the next" else None)


def test_takeover_closes_the_attempt_before(records: Records, service: Service) -> None:
    task = add_training(records, service)
    lose(records, task)
    claim(records, task)
    assert [(row.number, row.outcome) for row in records.tasks.attempts(task.id)] == [(1, "lost"), (2, None)]


def test_end_is_written_once(records: Records, service: Service) -> None:
    attempt = claim(records, add_training(records, service))
    assert finish(records, attempt) == 1
    with pytest.raises(Superseded):
        finish(records, attempt)
    assert records.versions.count(service.repository_id) == 1


def test_failed_publication_leaves_the_task_running(records: Records, service: Service) -> None:
    attempt = claim(records, add_training(records, service))
    doubled = NewVersion("p", {}, [Artifact("a", "k", 1, "d"), Artifact("a", "k", 1, "d")])
    with pytest.raises(Exception, match=r"(?i)unique"):
        records.tasks.end(attempt, State.FINISHED, phases={}, report={}, version=doubled)
    assert records.tasks.get(attempt.task.id).state is State.RUNNING
    with pytest.raises(VersionNotFound):
        records.versions.newest(service.repository_id)
    assert finish(records, attempt) == 1


def test_final_task_is_neither_claimed_nor_cancelled(records: Records, service: Service) -> None:
    task = add_training(records, service)
    finish(records, claim(records, task))
    assert records.tasks.claim(task.id, "me", LEASE_S) is None
    assert records.tasks.request_cancel(task.id).state is State.FINISHED


def test_cancelling_a_queued_task_ends_it_at_once(records: Records, service: Service) -> None:
    task = records.tasks.request_cancel(add_training(records, service).id)
    assert task.state is State.CANCELLED
    assert task.finished_at is not None
    assert records.tasks.claim(task.id, "me", LEASE_S) is None


def test_cancelling_a_running_task_is_told_with_the_renewal(records: Records, service: Service) -> None:
    attempt = claim(records, add_training(records, service))
    assert records.tasks.request_cancel(attempt.task.id).state is State.RUNNING
    assert records.tasks.renew(attempt, LEASE_S) is True


@pytest.mark.parametrize("end", ["finished", "failed", "paused", "killed", "silent"])
def test_task_whose_cancelling_was_accepted_ends_cancelled_however_it_ends(
    records: Records, service: Service, end: str
) -> None:
    attempt = claim(records, add_training(records, service), lease_s=0.0)
    records.tasks.request_cancel(attempt.task.id)
    if end == "finished":
        finish(records, attempt)
    elif end == "failed":
        records.tasks.end(attempt, State.FAILED, phases={}, failure=LOST)
    elif end == "silent":
        time.sleep(0.02)
        records.tasks.take_back_silent(9, LOST)
    else:
        records.tasks.requeue(attempt, end, phases={})
    task = records.tasks.get(attempt.task.id)
    assert task.state is State.CANCELLED
    assert task.finished_at is not None


def test_cancelled_training_publishes_only_into_a_repository_without_a_version(
    records: Records, service: Service
) -> None:
    for expected in (1, None):
        attempt = claim(records, add_training(records, service))
        records.tasks.request_cancel(attempt.task.id)
        ended = records.tasks.end(attempt, State.CANCELLED, phases={}, report={}, version=version_of(attempt))
        assert ended.version == expected
    assert records.versions.newest(service.repository_id).number == 1


def test_checkpoint_resets_the_count_of_tries(records: Records, service: Service) -> None:
    task = add_training(records, service)
    for deaths in (1, 2):
        records.tasks.requeue(claim(records, task), "killed", phases={}, failure=LOST)
        assert records.tasks.get(task.id).deaths == deaths
    attempt = claim(records, task)
    assert attempt.task.tries == 3
    records.tasks.checkpoint(attempt, {"iteration": 5, "prefix": "p"})
    now = records.tasks.get(task.id)
    assert (now.tries, now.deaths) == (0, 0)
    records.tasks.requeue(attempt, "killed", phases={})
    resumed = claim(records, task)
    assert resumed.task.checkpoint == {"iteration": 5, "prefix": "p"}
    assert records.tasks.attempts(task.id)[-1].resumed_iteration == 5


def test_pause_counts_neither_as_a_try_nor_as_a_death(records: Records, service: Service) -> None:
    task = add_training(records, service)
    for _ in range(5):
        records.tasks.requeue(claim(records, task), "paused", phases={})
    now = records.tasks.get(task.id)
    assert (now.state, now.tries, now.deaths, now.attempt) == (State.QUEUED, 0, 0, 5)


def test_silent_task_is_told_until_it_is_taken_back_and_not_before_it_was_silent_long_enough(
    records: Records, service: Service
) -> None:
    lost = add_training(records, service)
    assert records.tasks.claim(lost.id, "gone", -60.0) is not None
    assert [task.id for task in records.tasks.silent(for_s=30.0)] == [lost.id]
    assert records.tasks.silent(for_s=90.0) == []
    records.tasks.take_back_silent(9, LOST)
    assert records.tasks.silent(for_s=0.0) == []


def test_clock_of_the_database_is_that_of_this_machine(records: Records) -> None:
    # The servers of the tests run here: only the way there and back lies between.
    before = time.time()
    assert before - 0.1 <= records.clock_s() <= time.time() + 0.1


def test_silent_task_is_queued_again_and_given_up_after_its_tries(records: Records, service: Service) -> None:
    task = add_training(records, service)
    for number in (1, 2):
        lose(records, task)
        assert [taken.state for taken in records.tasks.take_back_silent(3, LOST)] == [State.QUEUED], number
    lose(records, task)
    (given_up,) = records.tasks.take_back_silent(3, LOST)
    assert given_up.state is State.FAILED
    assert given_up.failure == LOST
    assert [row.outcome for row in records.tasks.attempts(task.id)] == ["lost"] * 3


def test_waiting_counts_what_could_start_and_names_the_longest_unsent_first(records: Records, service: Service) -> None:
    others = [make_service(records, f"s{number}") for number in range(3)]
    first = add_training(records, service)
    add_training(records, service)  # behind the first
    sent = add_training(records, others[0])
    never = add_training(records, others[1])
    running = add_training(records, others[2])
    claim(records, running)
    records.tasks.mark_sent([first.id])
    time.sleep(0.05)
    records.tasks.mark_sent([sent.id])
    (waiting,) = records.tasks.waiting(unsent_for_s=0.0)
    assert waiting.startable == 3
    assert [task.id for task in waiting.oldest] == [never.id, first.id, sent.id]
    (waiting,) = records.tasks.waiting(unsent_for_s=60.0)
    assert [task.id for task in waiting.oldest] == [never.id]


def test_open_tasks_are_counted_by_kind_queue_and_state(records: Records, service: Service) -> None:
    others = [make_service(records, f"s{number}") for number in range(3)]
    add_training(records, service)
    add_training(records, service)  # behind the first
    add_training(records, others[0])
    claim(records, add_training(records, others[1]))
    lose(records, add_training(records, others[2]))
    over = add_training(records, make_service(records, "s3"))
    finish(records, claim(records, over))
    queued, running = sorted(records.tasks.open_tasks(), key=lambda each: each.state)
    assert (queued.state, queued.kind, queued.queue) == (State.QUEUED, Kind.TRAIN, "train.cpu")
    assert (queued.count, queued.startable, queued.run_out) == (3, 2, 0)
    assert (running.state, running.count, running.startable, running.run_out) == (State.RUNNING, 2, 0, 1)
    assert 0 <= running.oldest_s <= queued.oldest_s < 60


def test_queue_positions_count_those_before(records: Records, service: Service) -> None:
    tasks = [add_training(records, service) for _ in range(3)]
    claim(records, tasks[0])
    now = records.tasks.get_many([task.id for task in tasks])
    other = make_service(records, "other")
    last = add_training(records, other)
    assert records.queues.before(now[1]) == []
    assert records.queues.before(now[2]) == [Before(service.id, Kind.TRAIN, True, 1)]
    assert records.queues.before(last) == [Before(service.id, Kind.TRAIN, False, 2)]
    [running] = records.queues.running("train.cpu")
    assert (running.id, running.service_id, running.attempt) == (tasks[0].id, service.id, 1)
    assert running.started_at == now[0].started_at
    assert records.queues.running("train.gpu") == []


def test_durations_are_those_of_finished_tasks_newest_first(records: Records, service: Service) -> None:
    other = make_service(records, "other")
    for each, state in ((service, State.FINISHED), (other, State.FINISHED), (other, State.FAILED)):
        attempt = claim(records, add_training(records, each))
        records.tasks.end(attempt, state, phases={}, version=NewVersion("p", {}, []) if each is service else None)
    add_training(records, service)
    ended = [records.tasks.get(task_id) for task_id in (2, 1)]
    assert [(each.service_id, each.kind) for each in records.queues.took("train.cpu")] == [
        (other.id, Kind.TRAIN),
        (service.id, Kind.TRAIN),
    ]
    assert [each.seconds for each in records.queues.took("train.cpu")] == [
        pytest.approx((each.finished_at or 0) - (each.started_at or 0), abs=1e-3) for each in ended
    ]
    assert records.queues.took("train.gpu") == []


def test_same_idempotency_key_gives_the_same_task(records: Records, service: Service) -> None:
    task = add_training(records, service, idempotency_key="k", request_digest="d")
    again, is_new = records.tasks.add(
        service.account_id, Kind.TRAIN, "train.cpu", {}, idempotency_key="k", request_digest="d"
    )
    assert (again.id, is_new) == (task.id, False)
    with pytest.raises(IdempotencyConflict):
        records.tasks.add(service.account_id, Kind.TRAIN, "train.cpu", {}, idempotency_key="k", request_digest="e")


def test_idempotency_key_sent_at_one_moment_makes_one_task(records: Records, service: Service) -> None:
    with ThreadPoolExecutor(6) as pool:
        ids = set(
            pool.map(
                lambda _: add_training(records, service, idempotency_key="k", request_digest="d").id,
                range(12),
            )
        )
    assert len(ids) == 1
    assert add_training(records, service).job == 2


def test_refused_task_is_failed_and_never_waits(records: Records, service: Service) -> None:
    task = add_training(records, service, failure=LOST)
    assert (task.state, task.failure) == (State.FAILED, LOST)
    assert records.tasks.waiting(0.0) == []
    assert records.tasks.is_startable(add_training(records, service))


def test_open_jobs_list_running_ones_first(records: Records, service: Service) -> None:
    sharing = make_service(records, "other")
    waiting, running, over = (
        add_training(records, service),
        add_training(records, sharing),
        add_training(records, service),
    )
    records.tasks.request_cancel(over.id)
    claim(records, running)
    assert [task.id for task in records.tasks.open_jobs([service.id, sharing.id])] == [running.id, waiting.id]


def test_forgotten_job_is_not_found_under_its_service_but_keeps_its_task(records: Records, service: Service) -> None:
    task = add_training(records, service)
    records.tasks.forget(task.id)
    with pytest.raises(JobNotFound):
        records.tasks.job(service.id, 1)
    assert records.tasks.get(task.id).id == task.id


def test_pages_go_from_new_to_old_and_filter(records: Records, service: Service) -> None:
    tasks = [add_training(records, service) for _ in range(5)]
    records.tasks.request_cancel(tasks[1].id)
    page = records.tasks.page(service.account_id, limit=2)
    assert [task.id for task in page] == [tasks[4].id, tasks[3].id]
    page = records.tasks.page(service.account_id, limit=2, before_id=page[-1].id, state=State.QUEUED)
    assert [task.id for task in page] == [tasks[2].id, tasks[0].id]
    assert records.tasks.page(service.account_id, limit=9, kind=Kind.CLEAR) == []


def test_accounts_see_their_own_only(records: Records, service: Service) -> None:
    stranger = records.accounts.ensure("stranger")
    task = add_training(records, service)
    with pytest.raises(TaskNotFound):
        records.tasks.get(task.id, stranger.id)
    for name in ("iris", "ir\0is"):
        with pytest.raises(ServiceNotFound):
            records.services.find(stranger.id, name)
    with pytest.raises(RepositoryUnusable):
        records.repositories.ensure(stranger.id, "objects:1/iris")
    assert records.tasks.get_many([task.id], stranger.id) == []


def test_name_of_a_deleted_service_is_free_again(records: Records, service: Service) -> None:
    with pytest.raises(ServiceExists):
        make_service(records)
    assert records.services.delete(service.id)
    assert not records.services.delete(service.id)
    assert make_service(records).id != service.id
    with pytest.raises(ServiceNotFound):
        add_training(records, service)


def test_keys_are_shown_once_and_end_when_revoked(records: Records) -> None:
    assert not records.keys.any_active()
    key, secret = records.keys.create("ann", "laptop")
    owner = records.keys.account_of(secret)
    assert owner is not None
    assert owner.name == "ann"
    assert secret not in repr(records.keys.list())
    records.keys.revoke(key.id)
    assert records.keys.account_of(secret) is None
    assert not records.keys.any_active()
    with pytest.raises(KeyNotFound):
        records.keys.revoke(key.id)


def test_old_versions_leave_but_pinned_and_new_ones_stay(records: Records, service: Service) -> None:
    for _ in range(5):
        finish(records, claim(records, add_training(records, service)))
    records.versions.pin(service.repository_id, 1, True)
    assert records.versions.remove_old(kept=2) == 2
    assert records.versions.count(service.repository_id) == 3
    assert len(records.versions.removed_prefixes(older_than_s=0.0)) == 2
    assert records.versions.newest(service.repository_id).artifacts[0].name == "0001.model"


def test_folder_of_a_repository_is_written_by_one_at_a_time_and_remembers_the_version(
    records: Records,
) -> None:
    service = make_service(records, "folder", "/data/iris")
    assert records.repositories.unexported() == []
    finish(records, claim(records, add_training(records, service)))
    assert [repository.id for repository in records.repositories.unexported()] == [service.repository_id]
    held = records.repositories.lock_export(service.repository_id, 60)
    assert held is not None
    assert records.repositories.lock_export(service.repository_id, 60) is None
    assert records.repositories.unexported() == []
    records.repositories.note_exported(service.repository_id, held, 1)
    records.repositories.unlock_export(service.repository_id, held)
    assert records.repositories.unexported() == []


def test_right_to_write_a_folder_that_ran_out_gives_nothing_back_and_notes_nothing(records: Records) -> None:
    service = make_service(records, "folder", "/data/iris")
    finish(records, claim(records, add_training(records, service)))
    late = records.repositories.lock_export(service.repository_id, 0.0)
    assert late is not None
    time.sleep(0.02)
    held = records.repositories.lock_export(service.repository_id, 60)
    assert held is not None
    records.repositories.note_exported(service.repository_id, late, 1)
    records.repositories.unlock_export(service.repository_id, late)
    assert records.repositories.lock_export(service.repository_id, 60) is None
    assert records.repositories.get(service.repository_id).exported_version == 0
    assert records.repositories.renew_export(service.repository_id, late, 60) is None
    renewed = records.repositories.renew_export(service.repository_id, held, 90)
    assert renewed is not None
    assert renewed > held + 20
    records.repositories.unlock_export(service.repository_id, held)
    assert records.repositories.lock_export(service.repository_id, 60) is None
    records.repositories.unlock_export(service.repository_id, renewed)
    assert records.repositories.lock_export(service.repository_id, 60) is not None


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ("/data/ann", "/data/ann"),
        ("/data/ann", "/data/ann/models/iris"),
        ("/data/ann/models/iris", "/data/ann"),
        ("/data/ann/models/iris", "/"),
    ],
)
def test_folder_inside_or_around_that_of_another_account_is_refused(records: Records, taken: str, wanted: str) -> None:
    ann, bob = records.accounts.ensure("ann"), records.accounts.ensure("bob")
    records.repositories.ensure(ann.id, taken)
    with pytest.raises(RepositoryUnusable, match="is not writable or does not exist"):
        records.repositories.check_free(bob.id, wanted)
    with pytest.raises(RepositoryUnusable, match="is not writable or does not exist"):
        records.repositories.ensure(bob.id, wanted)
    assert records.repositories.found_at(bob.id, wanted) is None
    own = records.repositories.ensure(ann.id, wanted)
    assert records.repositories.found_at(ann.id, wanted) == own


@pytest.mark.parametrize(
    ("taken", "wanted"),
    [
        ("/data/ann", "/data/anna"),
        ("/data/ann", "/data/Ann/iris"),
        ("/data/a_n", "/data/abn/iris"),
        ("/data/a%", "/data/ann"),
        ("objects:1/iris", "objects:2/iris"),
        ("objects:1/iris", "objects:1/iris/more"),
    ],
)
def test_folders_that_only_look_alike_do_not_nest(records: Records, taken: str, wanted: str) -> None:
    records.repositories.ensure(records.accounts.ensure("ann").id, taken)
    assert records.repositories.ensure(records.accounts.ensure("bob").id, wanted).location == wanted


def test_of_two_accounts_that_nest_at_one_moment_one_wins(url: str, records: Records) -> None:
    owners = [records.accounts.ensure(name).id for name in ("ann", "bob")]
    connections = [Records.connect(url) for _ in owners]
    for attempt in range(10):
        places = [f"/data/{attempt}", f"/data/{attempt}/inside"]
        start = threading.Barrier(2)

        def claim_place(at: int, start: threading.Barrier = start, places: list[str] = places) -> bool:
            start.wait()
            try:
                connections[at].repositories.ensure(owners[at], places[at])
            except RepositoryUnusable:
                return False
            return True

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(claim_place, (0, 1))) == [False, True]
    for each in connections:
        each.close()


def test_folder_around_another_accounts_repository_is_not_to_be_emptied(records: Records) -> None:
    ann, bob = records.accounts.ensure("ann"), records.accounts.ensure("bob")
    inner = records.repositories.ensure(bob.id, "/data/ann/inside")
    with records.database.write() as connection:  # as records of an earlier version may hold it
        connection.exec_driver_sql(
            f"INSERT INTO repositories (account_id, location, version_counter, exported_version, created_at) "
            f"VALUES ({ann.id}, '/data/ann', 0, 0, 0)"
        )
    outer = records.repositories.found_at(ann.id, "/data/ann")
    assert outer is not None
    with pytest.raises(RepositoryUnusable, match="repository of another account"):
        records.repositories.check_alone(outer)
    records.repositories.check_alone(inner)


def test_files_in_a_repository_are_not_for_other_accounts(records: Records) -> None:
    ann, bob = records.accounts.ensure("ann"), records.accounts.ensure("bob")
    records.repositories.ensure(ann.id, "/data/ann")
    for path in ("/data/ann", "/data/ann/0001.model", "/data/ann/deeper/0001.model"):
        records.repositories.check_readable(ann.id, path)
        with pytest.raises(RepositoryUnusable, match="cannot be used by this account"):
            records.repositories.check_readable(bob.id, path)
    for path in ("/data", "/data/0001.model", "/data/anna/0001.model"):
        records.repositories.check_readable(bob.id, path)


def test_sizes_of_models_are_those_of_the_newest_versions(records: Records, service: Service) -> None:
    other = make_service(records, "wine")
    ids = [service.repository_id, other.repository_id]
    assert records.versions.sizes(ids) == {}
    assert records.versions.sizes([]) == {}
    finish(records, claim(records, add_training(records, service)))
    assert records.versions.sizes(ids) == {service.repository_id: ModelSize(7, 0, 0)}
    attempt = claim(records, add_training(records, service))
    version = NewVersion("p", {"params": 2**40, "frozen_params": 3}, [Artifact("a", "p/a", 9, "d")])
    records.tasks.end(attempt, State.FINISHED, phases={}, version=version)
    assert records.versions.sizes(ids) == {service.repository_id: ModelSize(9, 2**40, 3)}
    attempt = claim(records, add_training(records, service))
    version = NewVersion("q", {"params": "many", "frozen_params": [1]}, [Artifact("a", "q/a", 9, "d")])
    records.tasks.end(attempt, State.FINISHED, phases={}, version=version)
    assert records.versions.sizes(ids) == {service.repository_id: ModelSize(9, 0, 0)}
    records.versions.remove_all(service.repository_id)
    assert records.versions.sizes(ids) == {}


def test_service_keeps_what_its_creation_said_of_the_model_and_can_be_configured(records: Records) -> None:
    account = records.accounts.ensure("local")
    service = records.services.add(
        account.id,
        "iris",
        mllib="xgboost",
        mltype="classification",
        type="supervised",
        description="",
        repository_id=records.repositories.ensure(account.id, "objects:1/iris").id,
        parameters={},
        model={"weights": "0100.model"},
    )
    assert service.model == {"weights": "0100.model"}
    records.services.configure(service.id, mltype="regression", parameters={"input": {"connector": "csv"}})
    found = records.services.get(service.id)
    assert (found.mltype, found.parameters, found.model) == (
        "regression",
        {"input": {"connector": "csv"}},
        {"weights": "0100.model"},
    )


def test_services_of_the_first_form_get_an_empty_model_and_its_keys_may_train(url: str) -> None:
    records = Records.connect(url)
    records.upgrade()
    service = make_service(records)
    _, secret = records.keys.create("local", role=Role.READ)
    with records.database.write() as connection:
        connection.exec_driver_sql("ALTER TABLE services DROP COLUMN model")
        connection.exec_driver_sql("ALTER TABLE keys DROP COLUMN role")
        for index in (
            *("services_account_id_id", "tasks_results", "tasks_open_account", "tasks_account_id_kind_id"),
            *("tasks_account_id_service_id_id", "tasks_account_id_created_at_id", "repositories_account_id"),
        ):
            connection.exec_driver_sql(f"DROP INDEX ix_{index}")
        connection.exec_driver_sql("ALTER TABLE tasks DROP COLUMN result_bytes")
        for table in (
            *("audit", "quotas", "webhook_attempts", "webhook_deliveries", "webhooks"),
            *("dataset_parts", "dataset_uploads", "dataset_files", "datasets"),
        ):
            connection.exec_driver_sql(f"DROP TABLE {table}")
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0001'")
    with pytest.raises(RecordsUnavailable, match="db upgrade"):
        records.check()
    records.upgrade()
    assert records.services.get(service.id).model == {}
    caller = records.keys.account_of(secret)
    assert caller is not None
    assert caller.role is Role.TRAIN
    records.close()


def test_found_files_become_a_version_of_their_own_while_the_training_runs(records: Records, service: Service) -> None:
    attempt = claim(records, add_training(records, service))
    found = NewVersion(f"{attempt.prefix}/found", {"backend": "xgboost"}, version_of(attempt).artifacts)
    assert records.tasks.adopt(attempt, {"from": "folder"}, found, {"mltype": "classification"}) == 1
    version = records.versions.newest(service.repository_id)
    adopted = records.tasks.get(version.task_id)
    assert (adopted.kind, adopted.state, adopted.service_id) == (Kind.IMPORT, State.FINISHED, service.id)
    assert [row.outcome for row in records.tasks.attempts(adopted.id)] == ["finished"]
    assert records.tasks.report(adopted.id) == {"mltype": "classification"}
    assert finish(records, attempt) == 2
    under = records.versions.stored_under(service.repository_id, f"attempts/{attempt.task.id}")
    assert sorted(each.number for each in under) == [1, 2]
    assert records.versions.stored_under(service.repository_id, f"attempts/{attempt.task.id}0") == []
    with pytest.raises(Superseded):
        records.tasks.adopt(attempt, {}, found, {})


def test_task_that_follows_is_accepted_with_the_end_or_not_at_all(records: Records, service: Service) -> None:
    target = records.repositories.ensure(service.account_id, "objects:1/target")
    following = NewTask(Kind.IMPORT, "control", {"source": {}}, service.id, target.id)

    def end(attempt: Attempt, state: State) -> Task | None:
        return records.tasks.end(attempt, state, phases={}, version=version_of(attempt), following=following).following

    left = end(claim(records, add_training(records, service)), State.FINISHED)
    assert left is not None
    assert (left.state, left.repository_id, left.queue) == (State.QUEUED, target.id, "control")
    assert records.tasks.spec(left.id) == {"source": {}}
    assert end(claim(records, add_training(records, service)), State.FAILED) is None
    cancelled = claim(records, add_training(records, service))
    records.tasks.request_cancel(cancelled.task.id)
    assert end(cancelled, State.FINISHED) is None
    superseded = claim(records, add_training(records, service))
    lose_to_another(records, superseded)
    with pytest.raises(Superseded):
        end(superseded, State.FINISHED)
    assert [task.id for task in records.tasks.page(service.account_id, limit=100, kind=Kind.IMPORT)] == [left.id]


def lose_to_another(records: Records, attempt: Attempt) -> None:
    """As if the lease had run out and another worker had begun."""
    with records.database.write() as connection:
        connection.exec_driver_sql(f"UPDATE tasks SET lease_until = 0 WHERE id = {attempt.task.id}")
    assert records.tasks.claim(attempt.task.id, "another", 60) is not None


def test_ended_tasks_are_cleaned_once_and_open_inputs_are_known(records: Records, service: Service) -> None:
    task, _ = records.tasks.add(service.account_id, Kind.TRAIN, "train.cpu", {"data_key": "inputs/1-a.json"})
    assert records.tasks.open_data_keys() == {"inputs/1-a.json"}
    records.tasks.request_cancel(task.id)
    assert records.tasks.open_data_keys() == set()
    time.sleep(0.02)
    assert [ended.id for ended in records.tasks.ended_uncleaned(0.0)] == [task.id]
    records.tasks.mark_cleaned(task.id)
    assert records.tasks.ended_uncleaned(0.0) == []


def test_unreachable_database_is_named_so(tmp_path: Path) -> None:
    with pytest.raises(RecordsUnavailable):
        Records.connect(f"sqlite:///{tmp_path / 'no' / 'such' / 'folder.db'}").accounts.ensure("local")
    with pytest.raises(RecordsUnavailable):
        Records.connect("nonsense://x")


def test_tasks_are_listed_by_the_time_of_their_creation(records: Records, service: Service) -> None:
    made = [add_training(records, service).id for _ in range(6)]
    with records.database.write() as connection:
        for task_id, at in zip(made, (10.0, 20.0, 20.0, 20.0, 30.0, 25.0), strict=True):
            connection.exec_driver_sql(f"UPDATE tasks SET created_at = {at} WHERE id = {task_id}")

    def page(**which: Any) -> list[Task]:
        return records.tasks.page(service.account_id, limit=2, **which)

    assert page(since=20.0, until=20.0) == []
    order: list[int] = []
    before: dict[str, Any] = {}
    while found := page(since=20.0, until=30.0, **before):
        order += [each.id for each in found]
        before = {"before_id": found[-1].id, "before_at": found[-1].created_at}
        add_training(records, service)  # now, which is no part of it
    assert order == [made[place] for place in (5, 3, 2, 1)]
    assert [each.id for each in page(until=20.0)] == [made[0]]
    assert [each.id for each in page(since=30.0, until=31.0)] == [made[4]]


def test_services_are_listed_newest_first(records: Records) -> None:
    made = [make_service(records, name) for name in ("c", "a", "b")]
    account_id = made[0].account_id
    assert [each.name for each in records.services.page(account_id, limit=2)] == ["b", "a"]
    records.services.delete(made[1].id)
    assert [each.name for each in records.services.page(account_id, limit=2, before_id=made[2].id)] == ["c"]
    assert records.services.page(account_id, limit=9, mllib="torch") == []
    at = made[0].created_at
    assert [each.name for each in records.services.page(account_id, limit=9, since=at, until=at + 3600)] == ["b", "c"]
    assert records.services.page(account_id, limit=9, until=at) == []


def test_no_list_sorts_or_reads_more_than_its_page(on_sqlite: Records) -> None:
    account_id = make_service(on_sqlite).account_id
    bounds: list[dict[str, Any]] = [{}, {"before_id": 7}]
    spans: list[dict[str, Any]] = [{"since": 1.0}, {"until": 2.0}, {"since": 1.0, "until": 2.0}]
    with asked_of(on_sqlite, "LIMIT") as asked:
        for bound in bounds:
            for which in ({}, {"state": State.QUEUED}, {"kind": Kind.TRAIN}, {"service_id": 1}):
                on_sqlite.tasks.page(account_id, limit=10, **bound, **which)
            for span in spans:
                on_sqlite.tasks.page(account_id, limit=10, **bound, **span)
            on_sqlite.services.page(account_id, limit=10, **bound)
            on_sqlite.datasets.page(account_id, limit=10, **bound)
    assert len(asked) == 2 * (4 + 3 + 2)
    for statement, plan in plans_of(on_sqlite, asked):
        assert not [line for line in plan if line.startswith("SCAN")], (plan, statement)
        assert not [line for line in plan if "TEMP B-TREE" in line], (plan, statement)


def test_no_daily_query_reads_the_whole_table_of_tasks(on_sqlite: Records) -> None:
    records, service = on_sqlite, make_service(on_sqlite)
    tasks = [add_training(records, service) for _ in range(3)]
    with asked_of(records, "tasks") as asked:
        attempt = claim(records, tasks[0])
        records.tasks.renew(attempt, LEASE_S)
        records.tasks.checkpoint(attempt, {"iteration": 1, "prefix": "p"})
        records.queues.before(tasks[1])
        records.queues.running("train.cpu")
        records.queues.took("train.cpu")
        records.tasks.waiting(0.0)
        records.tasks.open_tasks()
        records.tasks.is_startable(tasks[1])
        records.tasks.open_jobs([service.id])
        records.tasks.job(service.id, 1)
        records.tasks.page(service.account_id, limit=10)
        records.tasks.page(service.account_id, limit=10, state=State.QUEUED, before_id=7)
        records.tasks.page(service.account_id, limit=10, service_id=service.id)
        records.tasks.take_back_silent(3, LOST)
        records.tasks.ended_uncleaned(0.0)
        records.tasks.open_data_keys()
        records.tasks.open_pins()
        records.tasks.request_cancel(tasks[1].id)
        finish(records, attempt)
        records.versions.of_task(tasks[0].id)
        add_training(records, service, idempotency_key="k", request_digest="d")
    for statement, plan in plans_of(records, asked):
        whole = [
            line
            for line in plan
            if line.startswith(("SCAN tasks", "SCAN earlier"))
            # These hold tasks that are not over, which are few.
            and not any(name in line for name in ("ix_tasks_open", "uq_tasks_running"))
        ]
        assert not whole, f"{whole} in {statement}"
