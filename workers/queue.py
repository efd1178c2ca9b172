"""Sending work by name. All that the API knows of the workers; it imports nothing that computes."""

from __future__ import annotations

import logging
import time
import uuid
from typing import Any

from celery import Celery
from kombu.exceptions import KombuError, OperationalError
from redis.exceptions import RedisError

from storage.errors import LiveUnavailable
from storage.live import Live
from storage.records import Records, Task

TASK_NAMES = {"train": "modelyard.train", "clear": "modelyard.clear", "import": "modelyard.import"}
PREDICT = "modelyard.predict"
SWEEP = "modelyard.sweep"
CONTROL_QUEUE = "control"

_PUBLISH_S = 1.0
_log = logging.getLogger(__name__)


def train_queue(device: str) -> str:
    """The queue of trainings on a kind of device."""
    return f"train.{device}"


def predict_queue(engine: str, device: str) -> str:
    """The queue of predictions with an engine on a kind of device."""
    return f"predict.{engine}.{device}"


class NoAnswer(Exception):
    """No worker answered a prediction in time."""

    def __init__(self, queue: str, waited_s: float) -> None:
        super().__init__(f"no worker of the queue {queue} answered within {waited_s:g} s; try again later")


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

    def send_task(self, task: Task) -> bool:
        """Tell the workers that a task waits; only its number travels.

        Returns False when Redis did not take it within about a second; the sweep sends it again then.
        """
        return self.send_tasks([task]) == 1

    def send_tasks(self, tasks: list[Task]) -> int:
        """Send several; returns how many were sent before Redis failed, if it did."""
        sent = []
        for task in tasks:
            if not self._send(TASK_NAMES[task.kind], [task.id], task.queue, task.message_id):
                break
            sent.append(task.id)
        if sent:
            self._records.tasks.mark_sent(sent)
        return len(sent)

    def send_sweep(self, expires_s: float) -> bool:
        """Ask for a sweep, unless nobody takes the message within `expires_s`."""
        return self._send(SWEEP, [], CONTROL_QUEUE, f"sweep-{time.time():.1f}", expires=expires_s)

    def predict(self, request: dict[str, Any], queue: str, timeout_s: float) -> dict[str, Any]:
        """Have a worker answer a prediction.

        Raises NoAnswer after `timeout_s`, LiveUnavailable when Redis is down.
        """
        request_id = uuid.uuid4().hex
        began = time.monotonic()
        self._live.exchange.ask(request_id, request, timeout_s)
        if not self._send(PREDICT, [request_id], queue, f"predict-{request_id[:12]}", expires=timeout_s):
            raise LiveUnavailable("Redis does not take requests now; try again later")
        answer = self._live.exchange.wait(request_id, timeout_s - (time.monotonic() - began))
        if answer is None:
            self._live.exchange.withdraw(request_id)
            raise NoAnswer(queue, timeout_s)
        return answer

    def _send(self, name: str, args: list[Any], queue: str, message_id: str, **options: Any) -> bool:
        try:
            self._app.send_task(name, args=args, queue=queue, task_id=message_id, **options)
        except (KombuError, OperationalError, RedisError, OSError) as error:
            _log.warning("message %s was not sent: %s", message_id, error)
            return False
        return True
