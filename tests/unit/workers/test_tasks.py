"""Celery's functions: who gets a thread of the control worker."""

from __future__ import annotations

import os
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
from celery.exceptions import Ignore

from cli.services import worker_argv
from ml.options.catalog import engines
from workers import tasks
from workers.app import STOP_MARKER
from workers.queue import batch_queue


def test_imports_and_clearings_leave_a_thread_to_the_sweep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of four threads; what is left lying is sent again by the sweep, which so is never waited for."""
    go_on, began = threading.Event(), threading.Semaphore(0)
    worked: list[int] = []

    def work(task_id: int, *given: object) -> None:
        worked.append(task_id)
        began.release()
        assert go_on.wait(10)

    monkeypatch.setattr(tasks, "run_task", work)
    monkeypatch.setattr(tasks, "_parts", lambda: None)
    threads = [threading.Thread(target=tasks.import_, args=(number,)) for number in (1, 2)]
    threads.append(threading.Thread(target=tasks.clear, args=(3,)))
    for thread in threads:
        thread.start()
    for _ in threads:
        assert began.acquire(timeout=10)
    tasks.import_(4)
    tasks.clear(5)
    assert sorted(worked) == [1, 2, 3]
    go_on.set()
    for thread in threads:
        thread.join()
    tasks.import_(4)
    tasks.clear(5)
    assert sorted(worked) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    ("queues", "linger_s", "turn_s"),
    [
        ("predict.xgboost.cpu", 30.0, None),
        ("train.cpu,predict.xgboost.cpu,control", 30.0, None),
        ("predict.xgboost.cpu,predict.torch.cpu", 0.0, 1.0),
    ],
)
def test_worker_of_one_lane_lingers_and_one_of_several_takes_turns(
    monkeypatch: pytest.MonkeyPatch, queues: str, linger_s: float, turn_s: float | None
) -> None:
    made: list[dict[str, object]] = []
    monkeypatch.setenv(tasks.QUEUES_VARIABLE, queues)
    monkeypatch.setattr(tasks, "_parts", lambda: None)
    monkeypatch.setattr(tasks, "Predictor", lambda parts: None)
    monkeypatch.setattr(tasks, "Draining", lambda *given, **more: made.append(more))
    tasks._draining.__wrapped__()
    assert made == [{"linger_s": linger_s, "turn_s": turn_s}]


class Drained:
    """A drain of a worker that is worn, or not."""

    def __init__(self, is_worn: bool) -> None:
        self.is_worn = is_worn
        self.lanes: list[str] = []

    def __call__(self, lane: str, wake: str) -> None:
        self.lanes.append(lane)


def test_process_ends_after_a_drain_that_wore_it(monkeypatch: pytest.MonkeyPatch) -> None:
    worn, fresh = Drained(is_worn=True), Drained(is_worn=False)
    monkeypatch.setattr(tasks, "_tell_figures", lambda: None)
    monkeypatch.setattr(tasks, "_draining", lambda: fresh)
    tasks.drain("predict.xgboost.cpu", "wake-1")
    monkeypatch.setattr(tasks, "_draining", lambda: worn)
    with pytest.raises(SystemExit):
        tasks.drain("predict.xgboost.cpu", "wake-2")
    assert fresh.lanes == worn.lanes == ["predict.xgboost.cpu"]


def test_end_of_a_worn_process_is_nothing_that_celery_reports() -> None:
    assert isinstance(pickle.loads(pickle.dumps(tasks.Replaced())), Ignore)


@pytest.mark.parametrize("is_pool", [False, True])
def test_worker_stops_when_it_is_told_or_its_main_process_is_gone_but_not_without_who_started_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, is_pool: bool
) -> None:
    """A worker of threads is its own main process; one of processes has a pool below that."""
    marker = tmp_path / str(os.getppid() if is_pool else os.getpid())
    monkeypatch.setenv(STOP_MARKER, str(marker))
    assert not tasks._is_stopping()
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert tasks._is_stopping() is is_pool
    monkeypatch.undo()
    monkeypatch.setenv(STOP_MARKER, str(marker))
    marker.touch()
    assert tasks._is_stopping()


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[list[int], threading.Semaphore, threading.Event]]:
    """Prediction tasks by their lane, as numbers of hundreds; those of lane 1 wait for a worker until they are let go.

    Gives those that were begun, what counts them, and what lets go.
    """
    begun: list[int] = []
    count, let_go = threading.Semaphore(0), threading.Event()

    def work(task_id: int, *given: object) -> None:
        begun.append(task_id)
        count.release()
        assert task_id >= 200 or let_go.wait(10)

    def spec(task_id: int) -> dict[str, str]:
        return {"way": "ask", "lane": f"predict.lane{task_id // 100}.cpu"}

    monkeypatch.setattr(tasks, "run_task", work)
    monkeypatch.setattr(tasks, "_ASKING", {})
    monkeypatch.setattr(tasks, "_is_stopping", lambda: False)
    monkeypatch.setattr(tasks, "_prediction", lambda: SimpleNamespace(ask=None))
    records = SimpleNamespace(tasks=SimpleNamespace(spec=spec))
    monkeypatch.setattr(tasks, "_parts", lambda: SimpleNamespace(records=records))
    yield begun, count, let_go
    let_go.set()


def test_prediction_tasks_whose_workers_are_not_there_hold_up_none_of_another_engine(
    held: tuple[list[int], threading.Semaphore, threading.Event],
) -> None:
    begun, count, let_go = held
    waiting = [threading.Thread(target=tasks.predict, args=(number,)) for number in (101, 102)]
    for thread in waiting:
        thread.start()
    for _ in waiting:
        assert count.acquire(timeout=10)
    tasks.predict(103)
    tasks.predict(201)
    assert (sorted(begun[:2]), begun[2:]) == ([101, 102], [201]), "the third one is left lying"
    assert [number for number in (101, 102, 103, 201) if tasks._is_lying(number)] == [103]
    let_go.set()
    for thread in waiting:
        thread.join()
    assert begun[3:] == [103]


def test_whatever_a_control_worker_does_leaves_a_thread_to_the_sweep() -> None:
    turns = (tasks._COMPUTING, tasks._UPLOADS, tasks._DESCRIBING)
    beside = tasks._IMPORTS._value + tasks._CLEARINGS._value
    asking = 2 * len(engines()) * tasks._ASKING_EACH  # on CPUs and GPUs
    argv = worker_argv("control", ["control", *(batch_queue(engine, "cpu") for engine in engines())])
    threads = int(argv[argv.index("-c") + 1])
    assert sum(each._free for each in turns) + beside + asking < threads
