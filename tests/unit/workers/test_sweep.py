"""What the sweep sends: new tasks at once, those that were sent before at a pace at which it does no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
from sqlalchemy import update

from settings import Settings
from storage.records import Kind, Records, Task, schema
from workers import sweep
from workers.parts import Parts
from workers.sweep import Sweep, Swept

QUEUE = "batch.xgboost.cpu"


class Sending:
    """A queue whose messages a control worker takes at once, to do their tasks later."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self.sent: list[int] = []
        self._round = 0

    def send_tasks(self, tasks: list[Task]) -> int:
        numbers = [task.id for task in tasks]
        self._round += 1
        with self._records.database.write() as connection:
            # Not by the clock, whose steps may be longer than a sweep of this test takes.
            changed = update(schema.tasks).where(schema.tasks.c.id.in_(numbers)).values(sent_at=self._round)
            connection.execute(changed)
        self.sent += numbers
        return len(tasks)


@pytest.fixture
def parts(tmp_path: Path) -> Iterator[Parts]:
    records = Records.connect(f"sqlite:///{tmp_path / 'records.db'}")
    records.upgrade()
    records.accounts.ensure("ann")
    settings = Settings(home=tmp_path)
    live = SimpleNamespace(waiting_messages=lambda queue: 0)
    yield cast(Parts, SimpleNamespace(records=records, settings=settings, live=live, queue=Sending(records)))
    records.close()


def accepted(parts: Parts, count: int) -> list[int]:
    return [parts.records.tasks.add(1, Kind.PREDICT, QUEUE, {})[0].id for _ in range(count)]


def swept(parts: Parts, is_lying: Callable[[int], bool] = lambda task_id: False) -> list[int]:
    """The tasks that one sweep sends."""
    queue = cast(Sending, parts.queue)
    queue.sent = []
    made = Swept()
    Sweep(parts, is_lying)._send_again(made)
    assert made.sent == len(queue.sent)
    return queue.sent


def test_tasks_that_were_sent_come_again_a_few_at_a_time_and_each_in_its_turn(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_AGAIN", 4)
    tasks = accepted(parts, 12)
    assert swept(parts) == tasks, "none of them was sent before"
    again = [swept(parts) for _ in range(6)]
    assert [len(each) for each in again] == [4] * 6
    assert sorted(number for each in again for number in each) == sorted(tasks * 2)
    new = accepted(parts, 3)
    assert swept(parts)[:3] == new


def test_few_of_the_tasks_whose_messages_this_process_took_come_again(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep, "_LYING", 2)
    tasks = accepted(parts, 9)
    assert swept(parts, lambda task_id: True) == tasks, "a new message is sent whatever lies here"
    lying = set(tasks[:6])
    came = [swept(parts, lying.__contains__) for _ in range(3)]
    assert came == [[*tasks[6:], *tasks[at : at + 2]] for at in (0, 2, 4)]
