"""Cleaning goes on until nothing is left, in turns that hold nobody up, and past what fails."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from settings import Settings
from storage.errors import StoreUnavailable
from storage.objects.folder import FolderObjects
from storage.records import Kind, NewNote, Records, State
from workers import cleaning, sweep
from workers.cleaning import STEPS, clean
from workers.parts import Parts

ACCOUNT = 1


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    records = Records.connect(f"sqlite:///{tmp_path / 'records.db'}")
    records.upgrade()
    records.accounts.ensure("ann")
    settings = Settings(home=tmp_path, attempts_kept_s=-1.0, audit_kept_days=-1)
    yield cast(Parts, SimpleNamespace(records=records, objects=FolderObjects(tmp_path / "objects"), settings=settings))
    records.close()


def ended(parts: Parts, count: int) -> None:
    for _ in range(count):
        task, _ = parts.records.tasks.add(ACCOUNT, Kind.PREDICT, "batch.xgboost.cpu", {})
        attempt = parts.records.tasks.claim(task.id, "worker", 20.0)
        assert attempt is not None
        parts.objects.put_bytes(f"{attempt.prefix}/result.json", b"[]")
        parts.records.tasks.end(attempt, State.FINISHED, phases={}, report={})


def left(parts: Parts) -> int:
    return len(list(parts.objects.list("attempts")))


def test_all_ended_tasks_are_cleaned_however_many_there_are(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "_AT_ONCE", 3)
    ended(parts, 10)
    assert clean(parts, grace_s=-1.0) == []
    assert (left(parts), parts.records.tasks.ended_uncleaned(-1.0)) == (0, [])


def test_cleaning_that_takes_too_long_goes_on_later_where_it_was(parts: Parts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cleaning, "_AT_ONCE", 3)
    ended(parts, 7)
    steps, turns = clean(parts, grace_s=-1.0, within_s=0.0), 1
    assert len(steps) == len(cleaning.STEPS) - 1, "each turn does one step, as its time is over then"
    while steps:
        steps, turns = clean(parts, grace_s=-1.0, left=steps, within_s=0.0), turns + 1
    assert left(parts) == 0
    assert turns == len(cleaning.STEPS) + 2, "two more for the tasks, of which three go at once"


def test_store_that_is_away_stops_neither_the_audit_log_nor_the_steps_behind_it(
    parts: Parts, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def away(*given: Any) -> Any:
        raise StoreUnavailable("the store is away")

    ended(parts, 1)
    parts.records.audit.add(NewNote("key.create"))
    dataset, _ = parts.records.datasets.create(ACCOUNT, "flowers")
    upload = parts.records.uploads.add(dataset.id, "a.csv", size_bytes=1, part_bytes=1)
    parts.records.uploads.end(upload.id)
    listing = parts.objects.list

    def some_away(prefix: str = "") -> Any:
        return away() if prefix.startswith("attempts") else listing(prefix)

    monkeypatch.setattr(parts.objects, "list", some_away)
    with caplog.at_level(logging.WARNING):
        assert clean(parts, grace_s=-1.0) == []
    assert [record.message for record in caplog.records] == ["cleaning stopped early: the store is away"]
    assert parts.records.audit.page(limit=2) == []
    assert parts.records.uploads.left(-1.0, 60.0) == []
    monkeypatch.setattr(parts.objects, "list", listing)
    assert (left(parts), len(parts.records.tasks.ended_uncleaned(-1.0))) == (1, 1)


def test_store_that_does_not_even_refuse_is_asked_once_in_a_round(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def hanging(prefix: str = "") -> Any:
        asked.append(prefix)
        raise StoreUnavailable("no answer in time")

    ended(parts, 1)
    monkeypatch.setattr(parts.objects, "list", hanging)
    steps = [cleaning._clean_tasks, cleaning._clean_inputs]
    assert clean(parts, grace_s=-1.0, left=steps, within_s=0.0) == []
    assert asked == ["attempts/1"]


def test_sweep_cleans_once_a_minute_and_goes_on_with_what_is_left(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    answers: list[list[Any]] = [["tasks", "files"], ["files"], [], ["tasks"], []]

    def some(parts: Parts, **given: Any) -> list[Any]:
        asked.append(list(given["left"]))
        return answers[len(asked) - 1]

    monkeypatch.setattr(sweep, "clean", some)
    at = [1000.0]
    monkeypatch.setattr(sweep.time, "monotonic", lambda: at[0])
    made = sweep.Sweep(parts)
    for passed_s in (1.0, 60.0, 2.0, 2.0, 2.0, 60.0, 61.0):
        at[0] += passed_s
        made._clean()
    every = list(STEPS)
    assert asked == [every, ["tasks", "files"], ["files"], every, ["tasks", *every]], "first what there was no time for"
