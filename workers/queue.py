"""Sending work by name. All that the API knows of the workers; it imports nothing that computes."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property, partial
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from storage.errors import LiveUnavailable
from storage.live import LOST, Live, Replies, Request, Sent, Spread
from storage.live.lane import WAKE_UP_S
from storage.records import Records, Task
from workers.asked import Answer, Asked
from workers.outbox import Outbox, Posted

TASK_NAMES = {
    "train": "modelyard.train",
    "clear": "modelyard.clear",
    "import": "modelyard.import",
    "predict": "modelyard.predict",
    "upload": "modelyard.upload",
    "describe": "modelyard.describe",
}
MESSAGE_VERSION = 1
"""Goes up when a message says something that a worker of before must not overlook; see `workers.messages`."""

VERSION_HEADER = "modelyard_version"

DRAIN = "modelyard.drain"
SWEEP = "modelyard.sweep"
CONTROL_QUEUE = "control"

_PUBLISH_S = 1.0
# After how long a caller asks after its request, first and at most; how long an answer may be on its way; and how old
# the number of workers may be.
_FIRST_NUDGE_S, _LAST_NUDGE_S, _ON_ITS_WAY_S, _WORKERS_S = 0.1, 1.0, 0.2, 5.0
_log = logging.getLogger(__name__)


def train_queue(device: str) -> str:
    """The queue of trainings on a kind of device."""
    return f"train.{device}"


def predict_queue(engine: str, device: str) -> str:
    """The queue of predictions with an engine on a kind of device."""
    return f"predict.{engine}.{device}"


def batch_queue(engine: str, device: str) -> str:
    """The queue of prediction tasks with an engine on a kind of device."""
    return f"batch.{engine}.{device}"


class NoAnswer(Exception):
    """No worker answered a prediction in time.

    is_lost : whether workers died of it, so that nobody computes it any more.
    """

    kind = "no_answer"

    def __init__(self, lane: str, waited_s: float, why: str = "", *, is_lost: bool = False) -> None:
        reason = f": {why}" if why else f" within {waited_s:g} s"
        super().__init__(f"no worker of {lane} answered{reason}; try again later")
        self.is_lost = is_lost


class Overloaded(Exception):
    """More predictions wait than workers can be expected to answer."""

    kind = "overloaded"


class AnswerTooLarge(Exception):
    """An answer has more bytes than one may that goes through Redis and stands in the memory of all that it passes."""

    kind = "answer_too_large"

    def __init__(self, size: int, most: int) -> None:
        super().__init__(
            f"the answer has {size} bytes, and one that is waited for may have {most} (MODELYARD_ANSWER_LIMIT_BYTES); "
            "send fewer rows at once, ask for less of each, or send the request with async, as a task"
        )


class Changed(Exception):
    """Services or versions changed since it was made up what to ask."""


class CallerGone(Exception):
    """Whoever asked has hung up."""

    kind = "caller_gone"


def sender(broker_url: str) -> Celery:
    """A Celery client that only sends, and gives up after a second: a message is a hint, the row is the truth."""
    app = Celery("modelyard", broker=broker_url, set_as_current=False)
    app.conf.update(
        task_ignore_result=True,
        broker_pool_limit=8,
        broker_pool_acquire_timeout=_PUBLISH_S,
        broker_connection_timeout=_PUBLISH_S,
        broker_connection_retry=False,
        task_publish_retry=False,
        broker_transport_options={
            "socket_timeout": _PUBLISH_S,
            "socket_connect_timeout": _PUBLISH_S,
            "socket_keepalive": True,
            "health_check_interval": 10,
        },
    )
    return app


class Queue:
    """The way from the API, and from the sweep, to the workers."""

    def __init__(self, broker_url: str, records: Records, live: Live) -> None:
        self._app = sender(broker_url)
        self._records = records
        self._live = live
        self._spreads: dict[str, tuple[float, Spread]] = {}
        self._outboxes: dict[str, Outbox] = {}

    @cached_property
    def _replies(self) -> Replies:
        return self._live.lane.replies()

    def close(self) -> None:
        """Expect no more answers, from the return of this call on; before `Live.close`."""
        replies = vars(self).pop("_replies", None)  # where a cached property lies once it was asked for
        if replies is not None:
            replies.close()

    def send_task(self, task: Task) -> bool:
        """Tell the workers that a task waits; only its number travels.

        Returns False when Redis did not take it within about a second; the sweep sends it again then.
        """
        return self.send_tasks([task]) == 1

    def send_tasks(self, tasks: list[Task]) -> int:
        """Send several; returns how many were sent before Redis failed, if it did."""
        sent = []
        for task in tasks:
            if task.kind not in TASK_NAMES:
                continue  # a later version of this program accepted it, and will send it
            if not self._send(TASK_NAMES[task.kind], [task.id], task.queue, task.message_id):
                break
            sent.append(task.id)
        if sent:
            self._records.tasks.mark_sent(sent)
        return len(sent)

    def send_sweep(self, expires_s: float) -> bool:
        """Ask for a sweep, unless nobody takes the message within `expires_s`."""
        return self._send(SWEEP, [], CONTROL_QUEUE, f"sweep-{time.time():.1f}", expires=expires_s)

    def wake(self, lane: str, wake: str) -> bool:
        """Wake a worker of a lane, unless nobody takes the message before the wake-up counts as lost."""
        return self._send(DRAIN, [lane, wake], lane, wake, expires=WAKE_UP_S)

    def predict(
        self,
        asked: Asked,
        lane: str,
        batch: str,
        timeout_s: float,
        mark: str | None = None,
        is_connected: Callable[[], bool] = lambda: True,
        request_id: str = "",
    ) -> Answer:
        """Have a worker answer a prediction.

        batch : name of the list of what may be computed together, "<model>:<digest>".
        mark : of changes, at which it was made up what is asked; None not to look at it.
        is_connected : whether the caller is still there; asked when the answer takes longer than usual.
        request_id : its number; a new one when it is empty.
        Raises NoAnswer after `timeout_s`, Overloaded, CallerGone, Changed, LiveUnavailable when Redis is down.
        """
        request_id = request_id or uuid.uuid4().hex
        deadline = time.monotonic() + timeout_s
        request = Request(request_id, batch, self._replies.name, timeout_s, asked.joined(), mark)
        waiter = self._replies.expect(request_id)
        try:
            self._outbox(lane).send(request, waiter)
            sends, step_s = 1, _FIRST_NUDGE_S
            while True:
                answer = waiter.wait(min(step_s, deadline - time.monotonic()))
                if answer is not None:
                    break
                if time.monotonic() >= deadline:
                    raise NoAnswer(lane, timeout_s)
                if not is_connected():
                    raise CallerGone
                step_s = min(step_s * 2, _LAST_NUDGE_S)
                if not waiter.is_sent:
                    continue  # another thread is about to
                sent, wake = self._live.lane.nudge(lane, request_id, self._spread(lane))
                if sent is Sent.WAKE:
                    self.wake(lane, wake)
                elif sent is Sent.REFUSED:
                    # Answered just now; or Redis lost it: then it is asked once more.
                    answer = waiter.wait(_ON_ITS_WAY_S)
                    if answer is not None:
                        break
                    if sends == 2:
                        raise LiveUnavailable("Redis lost the request twice; try again later")
                    sends += 1
                    waiter.is_sent = False
                    left = replace(request, patience_s=deadline - time.monotonic(), mark=None)
                    self._outbox(lane).send(left, waiter)
        except (NoAnswer, CallerGone, LiveUnavailable):
            with suppress(LiveUnavailable):
                self._live.lane.withdraw(lane, request_id)
            raise
        finally:
            waiter.close()
        if answer == LOST:
            raise NoAnswer(lane, timeout_s, "two workers died of it or beside it", is_lost=True)
        return Answer.split(answer)

    def _outbox(self, lane: str) -> Outbox:
        found = self._outboxes.get(lane)
        if found is None:
            found = self._outboxes.setdefault(lane, Outbox(partial(self._append, lane)))
        return found

    def _append(self, lane: str, posted: Sequence[Posted]) -> None:
        """Append requests, and tell those who wait for the ones that cannot be answered."""
        spread = self._spread(lane)
        sent = self._live.lane.append(lane, [each.request for each in posted], spread)
        for each, became in zip(posted, sent, strict=True):
            each.waiter.is_sent = True
            if became is Sent.REFUSED:
                text = f"too many predictions wait for the workers of {lane}; try again in a second"
                each.waiter.fail(Overloaded(text))
            elif became is Sent.WAKE and not self.wake(lane, each.request.wake):
                each.waiter.fail(LiveUnavailable("Redis does not take messages now; try again later"))
            elif became is Sent.CHANGED:
                each.waiter.fail(Changed())

    def _spread(self, lane: str) -> Spread:
        """How many workers serve a lane, looked up every few seconds."""
        return self.kept_spread(lane) or self.look_up_spread(lane)

    def kept_spread(self, lane: str) -> Spread | None:
        """What `look_up_spread` found lately; None when that is too long ago."""
        kept = self._spreads.get(lane)
        return None if kept is None or time.monotonic() - kept[0] > _WORKERS_S else kept[1]

    def look_up_spread(self, lane: str) -> Spread:
        """How many workers serve a lane. Raises LiveUnavailable."""
        beats = self._live.heartbeats.all()
        found = Spread(workers=max(1, sum(lane in beat.queues for beat in beats)))
        self._spreads[lane] = time.monotonic(), found
        return found

    def _send(self, name: str, args: list[Any], queue: str, message_id: str, **options: Any) -> bool:
        try:
            headers = {VERSION_HEADER: MESSAGE_VERSION}
            self._app.send_task(name, args=args, queue=queue, task_id=message_id, headers=headers, **options)
        except (KombuError, OperationalError, RedisError, OSError) as error:
            _log.warning("message %s was not sent: %s", message_id, error)
            return False
        return True
