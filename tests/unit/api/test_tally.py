"""Counts of predictions are gathered, told now and then, and lost rather than waited for."""

from __future__ import annotations

import threading

import pytest

from api.tally import Tally
from storage.live import Counts
from tests.unit.api.fakes import FakeLive

ONE = Counts(1, 1, 0, 5, 2.5, 0.5)
BAD = Counts(predict_count=1, predict_failure=1)


class Bell:
    """Stands for the clock of the thread that tells: a second is over when the test says so."""

    def __init__(self) -> None:
        self._rung, self.waits = threading.Semaphore(0), threading.Semaphore(0)

    def sleep(self, seconds: float) -> None:
        self.waits.release()
        self._rung.acquire()  # for ever at the end of a test: the thread ends with the process

    def ring(self) -> None:
        """A second is over; returns when what was counted is told."""
        assert self.waits.acquire(timeout=10)
        self._rung.release()
        assert self.waits.acquire(timeout=10)
        self.waits.release()


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
def tally(live: FakeLive, bell: Bell) -> Tally:
    return Tally(live, bell.sleep)  # type: ignore[arg-type]


def test_counts_are_told_when_a_second_is_over(tally: Tally, live: FakeLive, bell: Bell):
    tally.count(1, ONE)
    tally.count(2, BAD)
    tally.count(1, ONE)
    assert live.statistics.counts == {}
    bell.ring()
    assert live.statistics.counts == {1: Counts(2, 2, 0, 10, 5.0, 1.0), 2: BAD}
    bell.ring()
    assert live.statistics.counts == {1: Counts(2, 2, 0, 10, 5.0, 1.0), 2: BAD}, "told once"


def test_flush_tells_at_once(tally: Tally, live: FakeLive):
    tally.count(1, ONE)
    tally.flush()
    tally.count(1, BAD)
    tally.flush()
    tally.flush()
    assert live.statistics.counts == {1: Counts(2, 1, 1, 5, 2.5, 0.5)}


def test_counts_are_lost_when_redis_is_away_and_telling_goes_on(tally: Tally, live: FakeLive, bell: Bell):
    live.is_down = True
    tally.count(1, ONE)
    bell.ring()
    live.is_down = False
    tally.count(1, BAD)
    bell.ring()
    assert live.statistics.counts == {1: BAD}


def test_nothing_is_lost_between_threads(tally: Tally, live: FakeLive):
    def work() -> None:
        for number in range(200):
            tally.count(1, ONE)
            if number % 50 == 0:
                tally.flush()

    # One thread flushes at a time in a fake; counting is what must be safe.
    add, lock = live.statistics.add, threading.Lock()

    def guarded(service_id: int, counts: Counts) -> None:
        with lock:
            add(service_id, counts)

    live.statistics.add = guarded  # type: ignore[method-assign]
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    tally.flush()
    assert live.statistics.counts[1].predict_count == 800


def test_process_that_never_predicts_has_no_thread_for_it(tally: Tally, bell: Bell):
    tally.flush()
    assert not bell.waits.acquire(blocking=False)
    tally.count(1, ONE)
    assert bell.waits.acquire(timeout=10)


def test_end_tells_what_is_left_and_nothing_later(tally: Tally, live: FakeLive, bell: Bell):
    tally.count(1, ONE)
    tally.stop()
    assert live.statistics.counts == {1: ONE}
    assert tally._teller is not None
    assert bell.waits.acquire(timeout=10)
    tally.count(1, ONE)
    bell._rung.release()
    tally._teller.join(10)
    assert not tally._teller.is_alive()
    assert live.statistics.counts == {1: ONE}
