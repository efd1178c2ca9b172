"""How long a drain waits for the callers that it answered, by what calls were seen to cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from workers.gathering import LEAST_S, Gathering


class Time:
    """A clock that goes on only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 0.0

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def clock(self) -> float:
        return self.now


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def gathering(time: Time) -> Gathering:
    return Gathering(time.sleep, time.clock)


def note_line(gathering: Gathering, fixed_s: float, row_s: float, sizes: tuple[int, ...] = (1, 8)) -> None:
    for rows in sizes:
        gathering.note("a", rows, fixed_s + rows * row_s)


def after(time: Time, came_s: float, waiting: int) -> Callable[[], int]:
    """A count that is `waiting` from `came_s` on, and 0 before."""
    return lambda: waiting if time.now >= came_s else 0


def test_nothing_is_waited_for_before_calls_of_two_sizes_were_seen(gathering: Gathering):
    assert gathering.patience_s("a") == 0
    gathering.note("a", 1, 0.012)
    assert gathering.patience_s("a") == 0


def test_a_quarter_of_what_a_call_costs_beyond_its_rows_is_waited(gathering: Gathering):
    note_line(gathering, 0.012, 0.0001)
    assert gathering.patience_s("a") == pytest.approx(0.003)


def test_nothing_is_waited_where_a_call_costs_what_its_rows_cost(gathering: Gathering):
    note_line(gathering, 0.0, 0.010)
    assert gathering.patience_s("a") == 0


def test_nothing_is_waited_where_calls_are_quick(gathering: Gathering):
    note_line(gathering, LEAST_S * 0.9, 0.0)
    assert gathering.patience_s("a") == 0


def test_no_more_than_ten_milliseconds_are_waited(gathering: Gathering):
    note_line(gathering, 1.0, 0.001)
    assert gathering.patience_s("a") == 0.010


def test_call_that_was_slow_once_is_soon_forgotten(gathering: Gathering):
    gathering.note("a", 1, 0.500)
    for _ in range(10):
        note_line(gathering, 0.0, 0.004)
    assert gathering.patience_s("a") == 0


def test_it_ends_as_soon_as_all_have_come_back(gathering: Gathering, time: Time):
    note_line(gathering, 0.012, 0.0001)
    gathering.wait("a", 5, 3, after(time, 0.001, 8))
    assert 0.001 <= time.now < 0.0015


def test_it_ends_when_the_time_is_over(gathering: Gathering, time: Time):
    note_line(gathering, 0.012, 0.0001)
    gathering.wait("a", 5, 3, after(time, 1.0, 8))
    assert 0.00299 < time.now < 0.0035


def test_one_caller_alone_is_not_waited_for(gathering: Gathering, time: Time):
    note_line(gathering, 0.012, 0.0001)
    gathering.wait("a", 1, 0, after(time, 0.001, 1))
    assert time.now == 0


def test_it_ends_when_another_list_has_requests(gathering: Gathering, time: Time):
    note_line(gathering, 0.012, 0.0001)
    gathering.wait("a", 5, 3, lambda: None)
    assert time.now < 0.0005
    assert gathering.patience_s("a") == pytest.approx(0.003)


def test_less_and_less_is_waited_for_callers_that_do_not_come_back_until_they_do(gathering: Gathering, time: Time):
    note_line(gathering, 0.012, 0.0001)
    seen = []
    for _ in range(8):
        gathering.wait("a", 6, 0, lambda: 1)
        seen.append(gathering.patience_s("a"))
    assert seen[:2] == pytest.approx([0.0015, 0.00075])
    assert seen[-1] == pytest.approx(0.02 * 0.012)
    gathering.wait("a", 6, 0, lambda: 5)
    assert gathering.patience_s("a") == pytest.approx(0.003)


def test_lists_beyond_the_newest_256_are_forgotten(gathering: Gathering):
    def names() -> Iterator[str]:
        yield from (f"list {number}" for number in range(300))

    for name in names():
        gathering.note(name, 1, 0.012)
        gathering.note(name, 8, 0.012)
    assert sum(gathering.patience_s(name) > 0 for name in names()) == 256
