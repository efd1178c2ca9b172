"""Queues are named by what they compute on, and every kind of task has a message."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any, cast

import pytest

from storage.records import Kind, State, Task
from workers.queue import (
    MESSAGE_VERSION,
    TASK_NAMES,
    VERSION_HEADER,
    NoAnswer,
    Queue,
    predict_queue,
    train_queue,
)


def test_queues_say_kind_engine_and_device() -> None:
    assert train_queue("cpu") == "train.cpu"
    assert predict_queue("xgboost", "gpu") == "predict.xgboost.gpu"


def test_every_kind_of_task_can_be_sent() -> None:
    assert set(TASK_NAMES) == {str(kind) for kind in Kind}


def test_missing_answer_says_which_lane_and_how_long_or_why() -> None:
    lane = "predict.xgboost.cpu"
    assert str(NoAnswer(lane, 2.5)) == f"no worker of {lane} answered within 2.5 s; try again later"
    assert str(NoAnswer(lane, 2.5, "it died")) == f"no worker of {lane} answered: it died; try again later"


class Sending:
    """What would go to Redis."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sent: list[tuple[str, list[Any], dict[str, Any]]] = []
        self.records = SimpleNamespace(tasks=SimpleNamespace(mark_sent=lambda ids: self.marked.extend(ids)))
        self.marked: list[int] = []
        self.queue = Queue("redis://nowhere", cast(Any, self.records), cast(Any, None))
        monkeypatch.setattr(self.queue._app, "send_task", self._send)

    def _send(self, name: str, args: list[Any], **options: Any) -> None:
        self.sent.append((name, args, options))


def task_of(kind: str, number: int) -> Task:
    made = dataclasses.fields(Task)
    known = {"id": number, "kind": Kind(kind), "queue": "control", "attempt": 0, "state": State.QUEUED}
    return Task(**{each.name: known.get(each.name) for each in made})


def test_message_holds_the_number_of_its_task_and_the_version_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Sending(monkeypatch)
    assert sending.queue.send_task(task_of("train", 17))
    [(name, args, options)] = sending.sent
    assert (name, args) == ("modelyard.train", [17])
    assert options == {"queue": "control", "task_id": "train-17-a1", "headers": {VERSION_HEADER: MESSAGE_VERSION}}


def test_task_of_a_kind_of_a_later_version_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    sending = Sending(monkeypatch)
    assert sending.queue.send_tasks([task_of("dream", 1), task_of("clear", 2)]) == 1
    assert sending.marked == [2]
