"""When tasks start and end, worked out by hand."""

from __future__ import annotations

import time
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.estimates import Durations, Left, Queue, left_s, level, start_s
from storage.live import Heartbeat
from storage.records import Before, Kind, Records, Running, Took
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive

NOTHING = {"seconds_to_start": None, "seconds_to_end": None, "rests_on": None}


def took(*seconds: float, service_id: int = 1, kind: Kind = Kind.TRAIN) -> list[Took]:
    return [Took(service_id, kind, each) for each in seconds]


def running(started_at: float, service_id: int = 1) -> Running:
    return Running(5, service_id, 1, Kind.TRAIN, 1, started_at)


@pytest.mark.parametrize(
    ("left", "workers", "work", "seconds"),
    [
        ([], 1, 0.0, 0.0),
        ([10.0], 1, 0.0, 10.0),
        ([10.0], 1, 25.0, 35.0),
        ([10.0], 2, 0.0, 0.0),
        ([10.0], 2, 6.0, 6.0),
        # 10 on the idle worker, then the rest on both.
        ([10.0], 2, 20.0, 15.0),
        ([10.0, 100.0], 2, 0.0, 10.0),
        ([10.0, 100.0], 2, 30.0, 40.0),
        ([10.0, 20.0, 30.0], 3, 15.0, 22.5),
        ([], 4, 100.0, 25.0),
    ],
)
def test_work_flows_to_the_worker_that_is_free_first(left: list[float], workers: int, work: float, seconds: float):
    assert level(left, workers, work) == pytest.approx(seconds)


def test_own_service_counts_before_others_and_its_newest_before_older_ones():
    durations = Durations.of([*took(*[4.0] * 9, *[6.0] * 11, *[1000.0] * 5), *took(100.0, service_id=2)])
    own = durations.typical(Kind.TRAIN, 1)
    assert own is not None
    assert (own.seconds, own.words) == (6.0, "the median of the last 20 finished tasks of this kind of its service")
    other = durations.typical(Kind.TRAIN, 3)
    assert other is not None
    assert other.seconds == 6.0  # of 26: 9 times 4, 11 times 6, 6 longer ones
    assert durations.typical(Kind.PREDICT, 1) is None


def test_running_task_ends_when_its_training_says_so_or_as_others_did():
    durations = Durations.of(took(30.0, 50.0, 40.0))
    assert left_s(running(100.0), {"remain_s": 7.5}, durations, 110.0)[0] == 7.5
    assert left_s(running(100.0), {"remain_s": None}, durations, 110.0)[0] == 30.0
    assert left_s(running(100.0), None, durations, 140.0)[0] == 0.0
    assert left_s(running(100.0), None, durations, 141.0) == (None, None)
    assert left_s(running(100.0), None, Durations.of([]), 110.0) == (None, None)


def test_queued_task_starts_when_those_before_it_are_done():
    durations = Durations.of([*took(10.0), *took(20.0, service_id=2)])
    before = [Before(1, Kind.TRAIN, False, 2), Before(2, Kind.TRAIN, False, 1)]
    one = Queue(durations, [Left(5.0, 8)], 1)
    assert start_s(one, before, 9) == pytest.approx(45.0)
    assert start_s(one, [], 9) == 5.0
    two = Queue(durations, [Left(5.0, 9)], 2)
    assert start_s(two, [], 8) == 0.0
    # Of its own repository one runs and two wait: they go one by one.
    assert start_s(two, [Before(1, Kind.TRAIN, True, 2)], 9) == 25.0


def test_start_is_unknown_when_anything_before_it_is():
    durations = Durations.of(took(10.0))
    assert start_s(Queue(durations, [], 0), [], 1) is None
    assert start_s(Queue(durations, [Left(None, 2)], 1), [], 1) is None
    assert start_s(Queue(durations, [], 1), [Before(1, Kind.PREDICT, False, 1)], 1) is None


@pytest.fixture(autouse=True)
def _service(yard: Yard) -> None:
    yard.create()


def estimate(client: FlaskClient, task_id: int) -> Any:
    return client.get(f"/tasks/{task_id}").json["estimate"]


def set_times(records: Records, task_id: int, started_at: float, finished_at: float | None) -> None:
    with records.database.engine.connect() as connection:
        connection.exec_driver_sql(
            "UPDATE tasks SET started_at = ?, finished_at = ? WHERE id = ?", (started_at, finished_at, task_id)
        )
        connection.exec_driver_sql("COMMIT")


def test_task_tells_its_estimate(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    earlier = yard.train()
    yard.finish(earlier)
    assert estimate(client, earlier) is None
    set_times(records, earlier, 1000.0, 1060.0)
    runs, waits = yard.train(), yard.train()
    records.tasks.claim(runs, "worker", 20.0)
    set_times(records, runs, time.time() - 15.0, None)
    live.progress.told[runs] = {"attempt": 1, "phase": "training", "remain_s": 12.0}
    said = {"seconds_to_start": 0.0, "seconds_to_end": 12.0}
    assert estimate(client, runs) == {**said, "rests_on": "the time that the training itself says is left"}
    assert estimate(client, waits) == {
        "seconds_to_start": 12.0,
        "seconds_to_end": 72.0,
        "rests_on": "1 task of its queue before it, workers for 1 at a time; "
        "the last finished task of this kind of its service",
    }
    live.progress.told.clear()
    assert estimate(client, runs)["seconds_to_end"] == pytest.approx(45.0, abs=1.0)
    assert "the last finished task" in estimate(client, runs)["rests_on"]
    client.delete(f"/tasks/{runs}")
    assert estimate(client, runs) == NOTHING


def test_nothing_is_told_of_a_queue_that_nobody_serves_or_redis_hides(yard: Yard, client: FlaskClient, live: FakeLive):
    yard.finish(yard.train())
    waits = yard.train()
    live.is_down = True
    assert estimate(client, waits) == NOTHING
    live.is_down = False
    live.heartbeats.beats = [Heartbeat("other@here", ("train.gpu",))]
    assert estimate(client, waits) == NOTHING
