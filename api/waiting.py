"""Waiting for the end of a task without holding every thread of the process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from api.ending import Ending
from api.refusals import Busy
from storage.records import Records, Task

_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.25


class Slots:
    """How many calls of this process may wait at one time; the others are refused rather than queued."""

    def __init__(self, count: int, words: str) -> None:
        """words : what a caller who is refused is told; "{}" stands for the count."""
        self.count = count
        self._words = words
        self._free = threading.BoundedSemaphore(count)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold a thread for as long as the block takes. Raises Busy when too many do."""
        if not self._free.acquire(blocking=False):
            raise Busy(self._words.format(self.count))
        try:
            yield
        finally:
            self._free.release()


class SharedSlots:
    """Slots of one process of which no account holds more than half."""

    def __init__(self, count: int, words: str, words_of_account: str) -> None:
        """words : what a caller who is refused is told; "{}" stands for the count, in the others for its half."""
        self.count = count
        self.of_account = half_of(count)
        self._words, self._words_of_account = words, words_of_account
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def held(self, account_id: int) -> Iterator[None]:
        """Hold a slot for as long as the block takes. Raises Busy when all are held, or the account's share is."""
        with self._lock:
            if self._taken.total() >= self.count:
                raise Busy(self._words.format(self.count))
            if self._taken[account_id] >= self.of_account:
                raise Busy(self._words_of_account.format(self.of_account))
            self._taken[account_id] += 1
        try:
            yield
        finally:
            with self._lock:
                self._taken[account_id] -= 1
                if not self._taken[account_id]:
                    del self._taken[account_id]


def half_of(count: int) -> int:
    """The share of one account."""
    return max(1, count // 2)


def wait_for_end(records: Records, task_id: int, timeout_s: float, ending: Ending) -> Task:
    """The task as it is when it is over, after `timeout_s` seconds, or when this process cannot wait any more.

    The records are asked at growing intervals: the live state may be lost, they may not.
    """
    deadline = time.monotonic() + timeout_s
    look_s = _FIRST_LOOK_S
    while True:
        task = records.tasks.get(task_id)
        left_s = deadline - time.monotonic()
        if task.state.is_final or left_s <= 0 or ending.is_due:
            return task
        time.sleep(min(look_s, left_s))
        look_s = min(look_s * 1.5, _LONGEST_LOOK_S)
