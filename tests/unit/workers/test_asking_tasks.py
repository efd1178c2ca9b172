"""Prediction tasks of a few lines: what happens to them while nobody can answer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from settings import Settings
from storage.errors import StoreUnavailable
from storage.objects.folder import FolderObjects
from storage.records import Attempt, Kind, Records, State
from workers import bulk, patience
from workers.asked import Answer
from workers.bulk import Prediction
from workers.lease import LeaseKeeper
from workers.lifecycle import Work
from workers.parts import Parts
from workers.queue import NoAnswer
from workers.scratch import Scratch

LANE = "predict.torch.gpu"
SPEC = {"way": "ask", "head": {"version_id": 1}, "lane": LANE, "batch": "1", "form": "jsonl", "data": ["1,2"]}
NO_WORKER = NoAnswer(LANE, 300.0)
LOST = NoAnswer(LANE, 300.0, "two workers died of it", is_lost=True)
ROWS = Answer("predictions", b'[{"uri":"1"}]', 1)


def refusal(kind: str) -> Answer:
    return Answer("", b"", error={"kind": kind, "message": "away", "section": None})


class Told:
    """What tasks said to their owners."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def append(self, task_id: int, attempt: int, lines: list[dict[str, Any]]) -> None:
        self.lines += [line["message"] for line in lines]


class Yard:
    """A prediction worker that answers, or fails, as the test says, and what a task needs beside it."""

    def __init__(self, folder: Path) -> None:
        self.records = Records.connect(f"sqlite:///{folder / 'records.db'}")
        self.records.upgrade()
        self.records.accounts.ensure("ann")
        self.objects = FolderObjects(folder / "objects")
        self.told, self.serving = Told(), set[str]()
        self.answers: list[Answer | Exception] = []
        live = SimpleNamespace(logs=self.told, heartbeats=SimpleNamespace(queues=lambda: self.serving))
        settings = Settings(home=folder)
        parts = SimpleNamespace(
            records=self.records, objects=self.objects, live=live, queue=self, settings=settings, data_roots=None
        )
        self._prediction = Prediction(cast(Parts, parts), cast(Scratch, None), lambda: False)

    def predict(self, *given: Any) -> Answer:
        coming = self.answers.pop(0)
        if isinstance(coming, Exception):
            raise coming
        return coming

    def attempt(self, tries: int = 1, **spec: Any) -> Attempt:
        task, _ = self.records.tasks.add(1, Kind.PREDICT, "batch.torch.cpu", {**SPEC, **spec})
        attempt = self.records.tasks.claim(task.id, "worker", 30.0)
        assert attempt is not None
        return dataclasses.replace(attempt, task=dataclasses.replace(attempt.task, tries=tries))

    def ask(self, attempt: Attempt, *answers: Answer | Exception) -> Work:
        """Have the task asked; all of `answers` are used up."""
        self.answers = list(answers)
        lease = SimpleNamespace(is_lost=False, is_cancel_requested=False, check=lambda: None)
        work = self._prediction.ask(attempt, cast(LeaseKeeper, lease))
        assert self.answers == []
        return work


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    monkeypatch.setattr(bulk, "_AGAIN_S", 0.0)
    monkeypatch.setattr(bulk, "_PASSING_S", 0.0)
    made = Yard(tmp_path)
    yield made
    made.records.close()


def test_task_whose_worker_cannot_come_at_the_model_is_asked_again(yard: Yard):
    away = [refusal(kind) for kind in ("store_unavailable", "records_unavailable", "overloaded")]
    work = yard.ask(yard.attempt(), *away, ROWS)
    assert work.state is State.FINISHED
    assert work.report is not None
    assert work.report["rows"] == 1


def test_model_that_stays_away_is_tried_as_often_as_a_store_that_is_away(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bulk, "_PATIENCE_S", 0.0)
    works = [yard.ask(yard.attempt(tries), refusal("store_unavailable")) for tries in (1, 9, 10)]
    assert [work.state for work in works] == [State.QUEUED, State.QUEUED, State.FAILED]
    assert works[0].outcome == "stranded"
    for work in works:
        assert work.failure is not None
        assert (work.failure["kind"], work.failure["advice"]) == ("store_unavailable", "try again later")


def test_request_that_is_at_fault_fails_at_once(yard: Yard):
    work = yard.ask(yard.attempt(), refusal("bad_input"))
    assert work.state is State.FAILED
    assert work.failure is not None
    assert work.failure["advice"] == "correct the request and send it again"


def test_task_waits_for_a_worker_for_as_long_as_there_is_none(yard: Yard):
    work = yard.ask(yard.attempt(), *[NO_WORKER] * 5, ROWS)
    assert work.state is State.FINISHED
    assert yard.told.lines == [f"no worker of {LANE} is there; this task waits for one"] * 5


@pytest.mark.parametrize(("error", "serving"), [(LOST, set()), (NO_WORKER, {LANE})], ids=["deadly", "slow"])
def test_what_workers_die_of_or_do_not_answer_is_tried_three_times(yard: Yard, error: NoAnswer, serving: set[str]):
    yard.serving = serving
    works = [yard.ask(yard.attempt(tries), error) for tries in (1, 2, 3)]
    assert [work.state for work in works] == [State.QUEUED, State.QUEUED, State.FAILED]
    assert works[0].failure is not None
    assert works[0].failure["kind"] == "no_answer"


def failing_once(do: Callable[..., Any]) -> Callable[..., Any]:
    left = [StoreUnavailable("away")]

    def done(*given: Any, **named: Any) -> Any:
        if left:
            raise left.pop()
        return do(*given, **named)

    return done


def test_task_waits_for_a_store_that_does_not_give_its_lines(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(patience, "wait_exponential", lambda **given: patience_none)
    key = yard.objects.put_bytes("inputs/1-a", b'["1,2"]').key
    monkeypatch.setattr(yard.objects, "get_bytes", failing_once(yard.objects.get_bytes))
    assert yard.ask(yard.attempt(data_key=key), ROWS).state is State.FINISHED


def patience_none(state: object) -> float:
    """No wait between two tries."""
    return 0.0


def test_cancel_while_the_result_is_stored_leaves_neither_file_nor_bytes_that_count(
    yard: Yard, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bulk, "INLINE_BYTES", 1)
    attempt = yard.attempt()
    put = yard.objects.put_bytes

    def late(*given: Any) -> Any:
        yard.records.tasks.request_cancel(attempt.task.id)
        return put(*given)

    monkeypatch.setattr(yard.objects, "put_bytes", late)
    work = yard.ask(attempt, ROWS)
    assert len(list(yard.objects.list("attempts"))) == 1
    ended = yard.records.tasks.end(attempt, work.state, phases={}, report=work.report)
    assert work.after is not None
    work.after(ended)
    assert ended.state is State.CANCELLED
    assert list(yard.objects.list("attempts")) == []
    assert yard.records.quotas.use(1).stored_bytes == 0
