"""Waiting for the end of a task without holding every thread of the process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from api.ending import Ending
from api.refusals import Busy
from storage.records import Records, Task

_FIRST_LOOK_S = 0.01
_LONGEST_LOOK_S = 0.25


class SharedSlots:
    """What may go on at one time in this process, of which no account has more than its share.

    More is refused rather than queued.
    """

    def __init__(
        self,
        count: int,
        words: str,
        words_of_account: str,
        *,
        of_account: int | None = None,
        within: SharedSlots | None = None,
    ) -> None:
        """words : what a caller who is refused is told; "{}" stands for the count, in the others for the share.

        of_account : the share of one account; None for half. within : slots of which each of these takes one as well.
        """
        self.count = count
        self.of_account = half_of(count) if of_account is None else of_account
        self._words, self._words_of_account = words, words_of_account
        self._within = within
        self._taken: Counter[int] = Counter()
        self._lock = threading.Lock()

    @contextmanager
    def held(self, account_id: int) -> Iterator[None]:
        """Hold a slot for as long as the block takes. Raises Busy when all are held, or the account's share is."""
        with nullcontext() if self._within is None else self._within.held(account_id):
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


def thread_slots(threads: int) -> tuple[SharedSlots, SharedSlots]:
    """Which of so many threads may be held by calls that wait: for whatever it is, and for what may take long.

    An eighth is left to those that do not wait, and to tell the others that they must come again; of the rest one
    account leaves some to the others.
    """
    waits = SharedSlots(
        threads - max(1, threads // 8),
        "{} calls wait already; try again in a second",
        "{} calls of this account wait already; try again in a second",
        of_account=max(1, threads * 3 // 4),
    )
    slots = SharedSlots(
        half_of(threads),
        "{} calls wait for trainings or for other hosts already; poll, or try again later",
        "{} calls of this account wait for trainings or for other hosts already; poll, or try again later",
        within=waits,
    )
    return waits, slots


class Room:
    """Room for requests and their bytes, of which no account takes more than half. For one thread alone."""

    def __init__(self, count: int, size_bytes: int) -> None:
        self._most, self._most_bytes = count, size_bytes
        self._all = (0, 0)
        self._of: dict[int, tuple[int, int]] = {}

    def take(self, account_id: int, size_bytes: int) -> bool:
        """Take room for a request; False when there is none left, or none of the account's half."""
        all_of, all_bytes = self._all
        count, held_bytes = self._of.get(account_id, (0, 0))
        if all_of >= self._most or all_bytes + size_bytes > self._most_bytes:
            return False
        if 2 * count >= self._most or 2 * (held_bytes + size_bytes) > self._most_bytes:
            return False
        self._all = all_of + 1, all_bytes + size_bytes
        self._of[account_id] = count + 1, held_bytes + size_bytes
        return True

    def give_back(self, account_id: int, size_bytes: int) -> None:
        """Give back what `take` took for a request."""
        all_of, all_bytes = self._all
        self._all = all_of - 1, all_bytes - size_bytes
        count, held_bytes = self._of.pop(account_id)
        if count > 1:
            self._of[account_id] = count - 1, held_bytes - size_bytes


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
