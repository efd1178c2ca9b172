"""Queues are named by what they compute on, and every kind of task has a message."""

from __future__ import annotations

from storage.records import Kind
from workers.queue import TASK_NAMES, NoAnswer, predict_queue, train_queue


def test_queues_say_kind_engine_and_device() -> None:
    assert train_queue("cpu") == "train.cpu"
    assert predict_queue("xgboost", "gpu") == "predict.xgboost.gpu"


def test_every_kind_of_task_can_be_sent() -> None:
    assert set(TASK_NAMES) == {str(kind) for kind in Kind}


def test_missing_answer_says_which_lane_and_how_long_or_why() -> None:
    lane = "predict.xgboost.cpu"
    assert str(NoAnswer(lane, 2.5)) == f"no worker of {lane} answered within 2.5 s; try again later"
    assert str(NoAnswer(lane, 2.5, "it died")) == f"no worker of {lane} answered: it died; try again later"
