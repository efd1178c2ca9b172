"""Each race and each death of the durable lane, one at a time and always the same way."""

from __future__ import annotations

import dataclasses
import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any, TypeVar

import pytest

from settings import Settings
from storage.errors import StoreUnavailable
from storage.records import Ended, Kind, Service, State, Task
from tests.services import RedisServer
from workers.child import Standby
from workers.cleaning import clean
from workers.lifecycle import run_task
from workers.parts import Parts
from workers.scratch import Scratch
from workers.supervisor import Checkpoints
from workers.sweep import Sweep
from workers.training import Training

pytestmark = pytest.mark.servers
Taken = TypeVar("Taken")
TOY = (str(Path(__file__).with_name("toy_child.py")),)


@pytest.fixture
def parts(settings: Settings, own_redis: RedisServer) -> Iterator[Parts]:
    quick = dataclasses.replace(
        settings,
        redis_url=own_redis.url,
        lease_s=5.0,
        renew_s=0.2,
        sweep_s=0.1,
        cancel_grace_s=0.5,
        kill_grace_s=0.5,
        shutdown_s=2.0,
        checkpoint_s=0.0,
    )
    made = Parts.make(quick)
    made.records.upgrade()
    yield made
    made.live.close()
    made.records.close()


@pytest.fixture
def service(parts: Parts) -> Service:
    account = parts.records.accounts.ensure("local")
    return parts.records.services.add(
        account.id,
        "toy",
        mllib="xgboost",
        mltype="classification",
        type="supervised",
        description="",
        repository_id=parts.records.repositories.ensure(account.id, "objects:1/toy").id,
        parameters={},
    )


def add(parts: Parts, service: Service, **script: Any) -> Task:
    """Accept a training of the toy process."""
    task, _ = parts.records.tasks.add(
        service.account_id,
        Kind.TRAIN,
        "train.cpu",
        {
            "mllib": "xgboost",
            "connector": "csv",
            "device": "cpu",
            "data": ["a,b"],
            "parameters": {"input": {}, "mllib": {"iterations": 5, **script}, "output": {}},
        },
        service_id=service.id,
        repository_id=service.repository_id,
        is_job=True,
    )
    return task


class Worker:
    """A worker process in miniature: one slot, in a thread that lives as long as its training process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.stopping = threading.Event()
        self.child_pid: int | None = None
        self.ended: Ended | None = None
        self.error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def start(self, task: Task) -> Worker:
        self._thread = threading.Thread(target=self._run, args=(task,))
        self._thread.start()
        return self

    def _run(self, task: Task) -> None:
        scratch = Scratch(self.parts.settings.scratch)
        standby = Standby(scratch.folder, 1, ("xgboost",), TOY)
        standby.prepare()
        child = standby._children["xgboost"]
        self.child_pid = child.pid
        try:
            self.ended = run_task(task.id, self.parts, Training(self.parts, scratch, standby, self.stopping.is_set))
        except BaseException as error:
            self.error = error
        finally:
            standby.close()
            scratch.close()

    def join(self) -> Ended | None:
        assert self._thread is not None
        self._thread.join(90)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error
        return self.ended


def work(parts: Parts, task: Task) -> Ended | None:
    return Worker(parts).start(task).join()


def until(condition: Callable[[], object], timeout_s: float = 60.0) -> None:
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "it did not come about"
        time.sleep(0.02)


def is_at(parts: Parts, task: Task, iteration: int) -> Callable[[], bool]:
    def reached() -> bool:
        told = parts.live.progress.get_many([task.id]).get(task.id, {})
        return int(told.get("iteration", -1)) >= iteration

    return reached


def lapsed(parts: Parts, take: Callable[[], Taken]) -> Taken:
    """What takes tasks over when leases ran out, as if their workers had been stopped for too long."""
    taken: list[Taken] = []

    def is_taken() -> bool:
        # Again when the worker renewed its lease between the two.
        with parts.records.database.write() as connection:
            connection.exec_driver_sql("UPDATE tasks SET lease_until = 0")
        taken.append(take())
        return bool(taken[-1])

    until(is_taken)
    return taken[-1]


def state(parts: Parts, task: Task) -> State:
    return parts.records.tasks.get(task.id).state


def outcomes(parts: Parts, task: Task) -> list[str | None]:
    return [row.outcome for row in parts.records.tasks.attempts(task.id)]


def published(parts: Parts, service: Service) -> str:
    version = parts.records.versions.newest(service.repository_id)
    return parts.objects.get_bytes(version.artifacts[0].key).decode()


def test_training_ends_finished_with_its_version_and_leaves_no_scratch(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    ended = work(parts, task)
    assert ended == Ended(State.FINISHED, 1)
    assert published(parts, service) == f"train-{task.id} 4"
    report = parts.records.tasks.report(task.id)
    assert report is not None
    assert report["iteration"] == 4
    phases = parts.records.tasks.attempts(task.id)[0].phases
    assert {"claiming", "preparing", "reading", "training", "saving", "publishing"} <= set(phases)
    assert list(parts.settings.scratch.iterdir()) == []
    history = parts.live.progress.history(task.id, 1)
    assert [point["iteration"] for point in history] == [0, 1, 2, 3, 4]


def test_message_that_comes_twice_does_nothing(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    assert work(parts, task) is not None
    assert work(parts, task) is None
    assert parts.records.versions.count(service.repository_id) == 1
    assert len(outcomes(parts, task)) == 1


def test_message_that_comes_while_another_worker_trains_does_nothing(
    parts: Parts, service: Service, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    task = add(parts, service, hold_at=2, gate=str(gate))
    first = Worker(parts).start(task)
    until(is_at(parts, task, 1))
    assert work(parts, task) is None
    gate.touch()
    assert first.join() == Ended(State.FINISHED, 1)
    assert outcomes(parts, task) == ["finished"]


def test_training_over_the_quota_of_its_account_waits_and_is_sent_when_another_ends(
    parts: Parts, service: Service, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    account = parts.records.accounts.ensure("local")
    parts.records.quotas.set(account, {"trainings": 1})
    other = parts.records.repositories.ensure(account.id, "objects:1/other")
    first = add(parts, service, hold_at=2, gate=str(gate))
    second = add(parts, dataclasses.replace(service, repository_id=other.id))
    running = Worker(parts).start(first)
    until(is_at(parts, first, 1))
    parts.records.tasks.mark_sent([second.id])
    assert work(parts, second) is None, "its message comes to a free worker"
    assert Sweep(parts)().sent == 0, "it could not start"
    assert parts.live.waiting_messages("train.cpu") == 0
    gate.touch()
    assert running.join() == Ended(State.FINISHED, 1)
    assert parts.live.waiting_messages("train.cpu") == 1
    assert work(parts, second) == Ended(State.FINISHED, 1)


def test_message_that_never_came_is_sent_by_the_sweep(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    swept = Sweep(parts)()
    assert swept.sent == 1
    assert parts.live.waiting_messages("train.cpu") == 1
    assert parts.records.tasks.get(task.id).sent_at is not None
    time.sleep(0.3)
    assert Sweep(parts)().sent == 0, "a message that waits is not sent again"


def test_message_lost_with_redis_is_sent_again(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    assert parts.queue.send_task(task)
    parts.live.server.redis.flushall()
    time.sleep(0.3)
    assert Sweep(parts)().sent == 1


def test_redis_down_at_accept_is_told_fast_and_cured_by_the_sweep(
    parts: Parts, service: Service, own_redis: RedisServer
) -> None:
    task = add(parts, service)
    own_redis.stop()
    began = time.monotonic()
    assert not parts.queue.send_task(task)
    assert time.monotonic() - began < 10
    assert state(parts, task) is State.QUEUED
    own_redis.start()
    assert Sweep(parts)().sent == 1


def test_hung_redis_at_accept_is_told_in_about_a_second(parts: Parts, service: Service, own_redis: RedisServer) -> None:
    task = add(parts, service)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert not parts.queue.send_task(task)
        assert time.monotonic() - began < 10
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)


def test_training_goes_on_without_redis(parts: Parts, service: Service, own_redis: RedisServer) -> None:
    task = add(parts, service, iterations=20, pause_s=0.1)
    worker = Worker(parts).start(task)
    until(is_at(parts, task, 1))
    own_redis.stop()
    ended = worker.join()
    own_redis.start()
    assert ended == Ended(State.FINISHED, 1)


def test_history_lost_with_redis_is_written_again(parts: Parts, service: Service, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    task = add(parts, service, iterations=20, pause_s=0.1, hold_at=6, gate=str(gate))
    worker = Worker(parts).start(task)
    until(is_at(parts, task, 5))
    parts.live.server.redis.flushall()
    gate.touch()
    worker.join()
    assert [point["iteration"] for point in parts.live.progress.history(task.id, 1)] == list(range(20))


def test_owner_that_was_taken_over_ends_its_child_and_writes_nothing(parts: Parts, service: Service) -> None:
    task = add(parts, service, iterations=100, pause_s=0.1)
    first = Worker(parts).start(task)
    until(is_at(parts, task, 1))
    lapsed(parts, lambda: parts.records.tasks.claim(task.id, "other", 30))
    assert first.join() is None
    assert first.child_pid is not None
    until(lambda: not os.path.exists(f"/proc/{first.child_pid}"))
    now = parts.records.tasks.get(task.id)
    assert (now.state, now.attempt) == (State.RUNNING, 2)
    assert outcomes(parts, task) == ["lost", None]


def test_publication_after_a_takeover_is_refused(parts: Parts, service: Service) -> None:
    task = add(parts, service, slow_save_s=1.5)
    first = Worker(parts).start(task)
    until(lambda: parts.live.progress.get_many([task.id]).get(task.id, {}).get("phase") == "saving")
    taken = lapsed(parts, lambda: parts.records.tasks.take_back_silent(9, {}))
    assert [each.state for each in taken] == [State.QUEUED]
    assert first.join() is None
    assert parts.records.versions.count(service.repository_id) == 0
    assert work(parts, task) == Ended(State.FINISHED, 1)
    assert parts.records.versions.newest(service.repository_id).attempt == 2


@pytest.mark.parametrize("name", ["SIGKILL", "SIGTERM", "SIGSEGV"])
def test_child_killed_by_a_signal_is_retried_from_its_checkpoint(parts: Parts, service: Service, name: str) -> None:
    task = add(parts, service, iterations=8, checkpoint_every=2, die_at=5, signal=name, pause_s=0.05)
    assert work(parts, task) == Ended(State.QUEUED)
    (died,) = parts.records.tasks.attempts(task.id)
    assert died.outcome == "killed"
    assert died.failure is not None
    assert (died.failure["kind"], died.failure["signal"], died.failure["phase"]) == ("killed", name, "training")
    assert died.failure["log"] == [f"log line of train-{task.id}-a1"]
    assert died.failure["peak_bytes"] > 2**20
    assert parts.live.waiting_messages("train.cpu") == 1, "another worker was told at once"
    assert work(parts, task) == Ended(State.FINISHED, 1)
    assert parts.records.tasks.attempts(task.id)[1].resumed_iteration == 3
    assert published(parts, service) == f"train-{task.id} 7"
    assert [point["iteration"] for point in parts.live.progress.history(task.id, 2)] == list(range(8))


def test_only_the_newest_checkpoint_is_kept(parts: Parts, service: Service) -> None:
    task = add(parts, service, iterations=8, checkpoint_every=1, pause_s=0.1)
    assert work(parts, task) == Ended(State.FINISHED, 1)
    held = {listed.key.split("/")[4] for listed in parts.objects.list(f"attempts/{task.id}/1/checkpoints")}
    assert held == {"000000007"}


def clean_all(parts: Parts) -> None:
    time.sleep(0.02)
    clean(dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, attempts_kept_s=0.0)), grace_s=0.0)


def test_cleaning_keeps_what_was_published_and_nothing_else_of_ended_tasks(parts: Parts, service: Service) -> None:
    first = add(parts, service, checkpoint_every=1)
    work(parts, first)
    open_task = add(parts, service, die_at=4, checkpoint_every=1, pause_s=0.1)
    work(parts, open_task)
    clean_all(parts)
    version = parts.records.versions.newest(service.repository_id)
    kept = {listed.key for listed in parts.objects.list(f"attempts/{first.id}")}
    assert kept == {version.artifacts[0].key, f"{version.prefix}/manifest.json"}
    assert list(parts.objects.list(f"attempts/{open_task.id}/1/checkpoints")), "its next attempt needs them"


def test_files_of_removed_versions_are_cleaned(parts: Parts, service: Service) -> None:
    tasks = [add(parts, service) for _ in range(3)]
    for task in tasks:
        work(parts, task)
    kept_two = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, versions_kept=2))
    clean_all(kept_two)
    time.sleep(0.02)
    clean_all(kept_two)
    assert list(parts.objects.list(f"attempts/{tasks[0].id}")) == []
    assert len(list(parts.objects.list(f"attempts/{tasks[2].id}"))) >= 2


def test_inputs_that_no_task_needs_are_cleaned_by_age(parts: Parts, service: Service) -> None:
    old, young, needed = (f"inputs/{born}-x{number}.json" for number, born in enumerate((1, int(time.time()), 2)))
    for key in (old, young, needed):
        parts.objects.put_bytes(key, b"[]")
    parts.records.tasks.add(service.account_id, Kind.TRAIN, "train.cpu", {"data_key": needed})
    clean_all(parts)
    assert {listed.key for listed in parts.objects.list("inputs")} == {young, needed}


def test_child_that_dies_without_progress_is_given_up_after_three_tries(parts: Parts, service: Service) -> None:
    task = add(parts, service, die_at=2)
    assert [work(parts, task) for _ in range(2)] == [Ended(State.QUEUED)] * 2
    assert work(parts, task) == Ended(State.FAILED)
    failure = parts.records.tasks.get(task.id).failure
    assert failure is not None
    assert failure["signal"] == "SIGKILL"
    assert "3 deaths without progress" in failure["message"]
    assert failure["advice"]


def test_progress_resets_the_count_of_deaths(parts: Parts, service: Service) -> None:
    task = add(parts, service, iterations=40, checkpoint_every=1, die_at=3, die_again=True)
    for _ in range(2):
        assert work(parts, task) == Ended(State.QUEUED)
    now = parts.records.tasks.get(task.id)
    assert now.checkpoint is not None
    assert now.deaths <= 2


def test_child_that_exits_without_a_word_counts_as_killed(parts: Parts, service: Service) -> None:
    task = add(parts, service, exit_at=1)
    assert work(parts, task) == Ended(State.QUEUED)
    failure = parts.records.tasks.attempts(task.id)[0].failure
    assert failure is not None
    assert (failure["exit_code"], failure["signal"]) == (7, None)


def test_error_in_the_training_fails_at_once(parts: Parts, service: Service) -> None:
    task = add(parts, service, fail_at="reading")
    assert work(parts, task) == Ended(State.FAILED)
    failure = parts.records.tasks.get(task.id).failure
    assert failure is not None
    assert (failure["kind"], failure["phase"]) == ("bad_input", "reading")


def test_proven_want_of_memory_fails_after_one_retry(
    parts: Parts, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts = iter(range(100))
    monkeypatch.setattr("workers.supervisor.memory_kills", lambda: next(counts))
    task = add(parts, service, die_at=2)
    assert work(parts, task) == Ended(State.QUEUED)
    assert work(parts, task) == Ended(State.FAILED)
    failure = parts.records.tasks.get(task.id).failure
    assert failure is not None
    assert failure["kind"] == "out_of_memory"
    assert "memory" in failure["message"]


def test_cancel_while_queued_never_starts(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    parts.records.tasks.request_cancel(task.id)
    assert work(parts, task) is None
    assert state(parts, task) is State.CANCELLED


def test_cancel_while_training_stops_at_the_next_iteration_and_keeps_the_first_model(
    parts: Parts, service: Service
) -> None:
    task = add(parts, service, iterations=1000, pause_s=0.05)
    worker = Worker(parts).start(task)
    until(is_at(parts, task, 2))
    began = time.monotonic()
    parts.records.tasks.request_cancel(task.id)
    parts.live.progress.hint_cancel(task.id)
    assert worker.join() == Ended(State.CANCELLED, 1)
    assert time.monotonic() - began < 10


def test_cancel_reaches_the_worker_without_redis(parts: Parts, service: Service, own_redis: RedisServer) -> None:
    task = add(parts, service, iterations=1000, pause_s=0.05)
    worker = Worker(parts).start(task)
    until(is_at(parts, task, 2))
    own_redis.stop()
    parts.records.tasks.request_cancel(task.id)
    ended = worker.join()
    own_redis.start()
    assert ended is not None
    assert ended.state is State.CANCELLED


@pytest.mark.parametrize("script", [{"deaf": True}, {"deaf": True, "deaf_to_term": True}], ids=["TERM", "KILL"])
def test_training_that_does_not_listen_is_ended_by_signals(
    parts: Parts, service: Service, script: dict[str, bool]
) -> None:
    task = add(parts, service, iterations=1000, pause_s=0.05, **script)
    worker = Worker(parts).start(task)
    until(is_at(parts, task, 2))
    parts.records.tasks.request_cancel(task.id)
    assert worker.join() == Ended(State.CANCELLED)
    assert worker.child_pid is not None
    assert not os.path.exists(f"/proc/{worker.child_pid}")


def test_cancel_before_the_first_iteration_ends_cancelled_without_a_failure(parts: Parts, service: Service) -> None:
    task = add(parts, service, slow_read_s=1.5)
    worker = Worker(parts).start(task)
    until(lambda: parts.live.progress.get_many([task.id]).get(task.id, {}).get("phase") == "reading")
    parts.records.tasks.request_cancel(task.id)
    parts.live.progress.hint_cancel(task.id)
    assert worker.join() == Ended(State.CANCELLED)
    ended = parts.records.tasks.get(task.id)
    assert ended.state is State.CANCELLED
    assert ended.failure is None
    assert outcomes(parts, task) == ["cancelled"]


def test_cancel_while_saving_ends_cancelled(parts: Parts, service: Service) -> None:
    task = add(parts, service, slow_save_s=0.4)
    worker = Worker(parts).start(task)
    until(lambda: parts.live.progress.get_many([task.id]).get(task.id, {}).get("phase") == "saving")
    parts.records.tasks.request_cancel(task.id)
    ended = worker.join()
    assert ended is not None
    assert ended.state is State.CANCELLED


def test_cancel_between_two_attempts_ends_cancelled(parts: Parts, service: Service) -> None:
    task = add(parts, service, die_at=2)
    assert work(parts, task) == Ended(State.QUEUED)
    assert parts.records.tasks.request_cancel(task.id).state is State.CANCELLED
    assert work(parts, task) is None


def test_cancel_of_a_task_whose_worker_vanished_is_done_by_the_sweep(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    assert parts.records.tasks.claim(task.id, "gone", 0.0) is not None
    parts.records.tasks.request_cancel(task.id)
    time.sleep(0.05)
    assert Sweep(parts)().taken_back == 1
    assert state(parts, task) is State.CANCELLED


def test_worker_that_shuts_down_hands_its_training_on(parts: Parts, service: Service) -> None:
    task = add(parts, service, iterations=40, pause_s=0.05)
    worker = Worker(parts).start(task)
    until(is_at(parts, task, 3))
    worker.stopping.set()
    assert worker.join() == Ended(State.QUEUED)
    now = parts.records.tasks.get(task.id)
    assert now.checkpoint is not None
    assert (now.tries, now.deaths) == (0, 0)
    assert work(parts, task) == Ended(State.FINISHED, 1)
    resumed = parts.records.tasks.attempts(task.id)[1].resumed_iteration
    assert resumed is not None
    assert resumed >= 3


def test_sweep_takes_back_what_a_vanished_worker_held_and_another_goes_on(parts: Parts, service: Service) -> None:
    task = add(parts, service)
    assert parts.records.tasks.claim(task.id, "gone", 0.0) is not None
    time.sleep(0.3)
    swept = Sweep(parts)()
    assert (swept.taken_back, swept.sent) == (1, 1)
    assert work(parts, task) == Ended(State.FINISHED, 1)
    assert outcomes(parts, task) == ["lost", "finished"]


def test_next_training_of_the_repository_is_sent_when_one_ends(parts: Parts, service: Service) -> None:
    first, second = add(parts, service), add(parts, service)
    assert work(parts, second) is None
    assert work(parts, first) == Ended(State.FINISHED, 1)
    assert parts.live.waiting_messages("train.cpu") == 1
    assert work(parts, second) == Ended(State.FINISHED, 2)


def test_store_that_does_not_answer_is_no_fault_of_the_task(
    parts: Parts, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.patience.PATIENCE_S", 0.0)

    def fail(*_: object) -> None:
        raise StoreUnavailable("the store is away")

    task = add(parts, service)
    with monkeypatch.context() as broken:
        broken.setattr("workers.training.upload_folder", fail)
        for _ in range(4):
            assert work(parts, task) == Ended(State.QUEUED)
    assert parts.records.tasks.get(task.id).deaths == 0
    assert work(parts, task) == Ended(State.FINISHED, 1)


@pytest.mark.parametrize("step", ["child_work.entries", "training.read_manifest", "training.upload_folder"])
def test_short_absence_of_the_store_costs_no_attempt(
    parts: Parts, service: Service, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    module, name = step.split(".")
    answers: Callable[..., Any] = getattr(import_module(f"workers.{module}"), name)
    refusals = iter(range(3))

    def away_at_first(*given: Any) -> Any:
        if next(refusals, None) is not None:
            raise StoreUnavailable("the store is away")
        return answers(*given)

    task = add(parts, service, iterations=8, checkpoint_every=2, die_at=5, pause_s=0.05)
    assert work(parts, task) == Ended(State.QUEUED)
    monkeypatch.setattr(f"workers.{step}", away_at_first)
    assert work(parts, task) == Ended(State.FINISHED, 1)
    assert next(refusals, None) is None


def test_cancel_while_the_store_is_away_does_not_wait_for_it(
    parts: Parts, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr("workers.child_work.entries", fail)
    task = add(parts, service)
    worker = Worker(parts).start(task)
    until(lambda: state(parts, task) is State.RUNNING)
    parts.records.tasks.request_cancel(task.id)
    assert worker.join() == Ended(State.CANCELLED)


def test_training_whose_checkpoint_is_gone_starts_afresh(parts: Parts, service: Service) -> None:
    task = add(parts, service, iterations=8, checkpoint_every=2, die_at=5, pause_s=0.05)
    assert work(parts, task) == Ended(State.QUEUED)
    parts.objects.delete_prefix(f"attempts/{task.id}/1")
    assert work(parts, task) == Ended(State.QUEUED), "it meets the same death again, because it begins again"
    assert work(parts, task) == Ended(State.FINISHED, 1)


def test_checkpoint_that_cannot_be_stored_does_not_stop_the_training(
    parts: Parts, service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise StoreUnavailable("the store is away")

    monkeypatch.setattr("workers.supervisor.upload_folder", fail)
    assert work(parts, add(parts, service, checkpoint_every=1)) == Ended(State.FINISHED, 1)


def test_checkpoint_that_vanishes_is_only_not_stored(parts: Parts, service: Service, tmp_path: Path) -> None:
    task = add(parts, service)
    attempt = parts.records.tasks.claim(task.id, "worker", 30)
    assert attempt is not None
    checkpoints = Checkpoints(attempt, parts.objects, parts.records)
    checkpoints.add({"iteration": 3, "folder": str(tmp_path / "gone")})
    checkpoints.finish()
    checkpoints.close()
    assert checkpoints.recorded == 0
    assert parts.records.tasks.get(task.id).checkpoint is None


def test_scratch_folder_that_was_deleted_before_it_was_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lock = fcntl.flock
    calls = []

    def delete_first(descriptor: int, operation: int) -> None:
        if not calls:
            for folder in tmp_path.iterdir():
                shutil.rmtree(folder)
        calls.append(operation)
        lock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", delete_first)
    scratch = Scratch(tmp_path)
    assert len(calls) == 2
    assert scratch.attempt("train-1-a1").is_dir()
    scratch.close()


def test_scratch_folders_of_vanished_processes_are_deleted(tmp_path: Path) -> None:
    left = tmp_path / "left"
    left.mkdir()
    (left / "lock").touch()
    (left / "train-1-a1").mkdir()
    held = Scratch(tmp_path)
    assert not left.exists()
    other = Scratch(tmp_path)
    assert held.folder.exists()
    held.close()
    other.close()
    assert list(tmp_path.iterdir()) == []
