"""Celery's functions: who gets a thread of the control worker."""

from __future__ import annotations

import threading

import pytest

from workers import tasks


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
