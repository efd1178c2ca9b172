"""Celery's functions: who gets a thread of the control worker."""

from __future__ import annotations

import os
import pickle
import threading
from pathlib import Path

import pytest
from celery.exceptions import Ignore

from workers import tasks
from workers.app import STOP_MARKER


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
