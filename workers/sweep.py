"""The one recovery: what was left behind by anything that died is found here and goes on."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from typing import Any

from logs.context import bound
from storage.errors import StorageError
from storage.records import State
from workers.cleaning import STEPS, Step, clean
from workers.export import export_newest
from workers.lifecycle import count_ending
from workers.parts import Parts
from workers.saying import say

_CLEAN_S = 60.0
_AGAIN = 64
"""Most tasks of a queue that one sweep sends once more."""

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
    """Takes back silent leases, sends lost messages again, repairs copies, cleans up. Any number may run at once."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
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
            # Nor does Redis hold messages of tasks that a control worker took and left lying until others are done.
            # Whether a worker has them, nobody knows: so they come again at a pace at which it does no harm.
            again = [task for task in waiting.oldest if task.sent_at is not None][:_AGAIN]
            wanted = [task for task in waiting.oldest if task.sent_at is None] + again
            if missing > 0 and wanted:
                swept.sent += self._parts.queue.send_tasks(wanted[:missing])

    def _export(self, swept: Swept) -> None:
        for repository in self._parts.records.repositories.unexported():
            try:
                swept.exported += export_newest(self._parts, repository.id)
            except StorageError as error:
                _log.warning("the folder %s was not written: %s", repository.location, error)
