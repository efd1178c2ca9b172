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
