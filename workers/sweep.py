"""The one recovery: what was left behind by anything that died is found here and goes on."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from logs.context import bound
from storage.errors import StorageError
from storage.records import State, Task, Waiting
from workers.cleaning import STEPS, Step, clean
from workers.export import export_newest
from workers.lifecycle import count_ending
from workers.parts import Parts
from workers.saying import say

_CLEAN_S = 60.0
_AGAIN, _LYING = 64, 4
"""Most tasks of a queue that one sweep sends once more: of those that may be lost, and of those that lie here."""

_log = logging.getLogger(__name__)

LOST: dict[str, Any] = {
    "kind": "worker_lost",
    "class": None,
    "message": "the workers that ran this task vanished again and again without progress",
    "section": None,
    "phase": "running",
    "exit_code": None,
    "signal": None,
    "peak_bytes": None,
    "log": [],
    "advice": "look into the workers' logs and the machines' own for what ended them; then send the task again",
}


@dataclass
class Swept:
    """What one sweep did."""

    taken_back: int = 0
    sent: int = 0
    exported: int = 0


class Sweep:
    """Takes back silent leases, sends lost messages again, repairs copies, cleans up. Any number may run at once.

    is_lying : whether this process took the message of a task, which lies here until others are done.
    """

    def __init__(self, parts: Parts, is_lying: Callable[[int], bool] = lambda task_id: False) -> None:
        self._parts = parts
        self._is_lying = is_lying
        self._cleaned_at = time.monotonic()
        self._unclean: list[Step] = []

    def __call__(self) -> Swept:
        """One sweep. Raises RecordsUnavailable or LiveUnavailable when it could not do its main work."""
        swept = Swept()
        self._take_back(swept)
        self._send_again(swept)
        self._export(swept)
        self._parts.live.heartbeats.note_sweep()
        self._clean()
        if swept != Swept():
            _log.info("swept: %s", swept)
        return swept

    def _clean(self) -> None:
        """Clean once a minute, and in the sweeps after that go on with what was too much for one."""
        if time.monotonic() - self._cleaned_at > _CLEAN_S:
            self._cleaned_at = time.monotonic()
            # What there was no time for comes first, or the steps at the end would never come in a backlog.
            self._unclean = clean(self._parts, left=dict.fromkeys([*self._unclean, *STEPS]))
            self._cleaned_at = time.monotonic()
        elif self._unclean:
            self._unclean = clean(self._parts, left=self._unclean)

    def _take_back(self, swept: Swept) -> None:
        settings = self._parts.settings
        for task in self._parts.records.tasks.take_back_silent(settings.lost_max, LOST):
            swept.taken_back += 1
            with bound(task=task.id, attempt=task.attempt):
                _log.warning("task %s was silent, attempt %s: %s now", task.id, task.attempt, task.state)
            then = "another attempt follows" if task.state is State.QUEUED else f"the task is {task.state}"
            say(self._parts.live, task.id, task.attempt, "warning", f"the worker of this attempt fell silent; {then}")
            count_ending(self._parts, task.kind, "lost")
            if task.state is not State.QUEUED and task.repository_id is not None:
                following = self._parts.records.tasks.next_of_repository(task.repository_id)
                if following is not None:
                    swept.sent += self._parts.queue.send_task(following)

    def _send_again(self, swept: Swept) -> None:
        # A message is re-sent only when the records know of more work than Redis holds messages for:
        # otherwise long queues would be doubled at every sweep.
        for waiting in self._parts.records.tasks.waiting(unsent_for_s=2 * self._parts.settings.sweep_s):
            missing = waiting.startable - self._parts.live.waiting_messages(waiting.queue)
            if missing > 0:
                swept.sent += self._parts.queue.send_tasks(self._unheard(waiting)[:missing])

    def _unheard(self, waiting: Waiting) -> list[Task]:
        """Those of the tasks whose messages came to no worker, as far as can be known here: all that were never sent,
        and some of the others.
        """
        new = [task for task in waiting.oldest if task.sent_at is None]
        lost: list[Task] = []
        lying: list[Task] = []
        for task in waiting.oldest[len(new) :]:
            (lying if self._is_lying(task.id) else lost).append(task)
        # What lies in another process is not known here, so all come again at a pace at which it does no harm. A few of
        # those that lie here do too: another process may be free for them, and they must not hide the others for ever.
        return [*new, *lost[:_AGAIN], *lying[:_LYING]]

    def _export(self, swept: Swept) -> None:
        for repository in self._parts.records.repositories.unexported():
            try:
                swept.exported += export_newest(self._parts, repository.id)
            except StorageError as error:
                _log.warning("the folder %s was not written: %s", repository.location, error)
