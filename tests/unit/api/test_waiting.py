"""Calls that wait leave threads to the others, and accounts leave room to each other."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from api.refusals import Busy
from api.waiting import Room, thread_slots

ANN, BOB, EVE = 1, 2, 3
MIB = 1 << 20


@pytest.mark.parametrize("threads", [2, 3, 7, 8, 16, 128, 1024])
def test_calls_that_wait_never_hold_all_threads(threads: int) -> None:
    waits, slots = thread_slots(threads)
    held = 0
    with ExitStack() as stack:
        for account in range(2 * threads):
            for each in (slots, waits):
                try:
                    stack.enter_context(each.held(account))
                    held += 1
                except Busy:
                    continue
        assert held == waits.count < threads
    for account in range(waits.count):  # all of them were given back
        stack.enter_context(waits.held(account))
    stack.close()


def most_of(threads: int, *, long: bool) -> int:
    """How many calls of one account wait when it sends as many as it can."""
    waits, slots = thread_slots(threads)
    with ExitStack() as stack:
        for held in range(threads):
            try:
                stack.enter_context((slots if long else waits).held(ANN))
            except Busy:
                with pytest.raises(Busy, match=f"{held} calls of this account wait"):
                    (slots if long else waits).held(ANN).__enter__()
                with waits.held(BOB), slots.held(EVE):
                    return held
    raise AssertionError("nothing was refused")


def test_one_account_leaves_threads_to_the_others() -> None:
    assert most_of(128, long=False) == 96
    assert most_of(128, long=True) == 32


def test_calls_that_wait_long_leave_slots_for_those_that_do_not() -> None:
    waits, slots = thread_slots(128)
    with ExitStack() as stack:
        for account in range(slots.count):
            stack.enter_context(slots.held(account))
        with pytest.raises(Busy, match="64 calls wait for trainings or for other hosts already"), slots.held(1000):
            pass
        for account in range(48):
            stack.enter_context(waits.held(account))
        with pytest.raises(Busy, match="112 calls wait already"), waits.held(1000):
            pass


def test_room_is_bounded_by_requests() -> None:
    room = Room(8, 100 * MIB)
    assert [room.take(ANN, 1) for _ in range(5)] == [True] * 4 + [False]
    assert [room.take(BOB, 1) for _ in range(4)] == [True] * 4
    assert not room.take(EVE, 1)
    room.give_back(ANN, 1)
    assert not room.take(BOB, 1)
    assert room.take(EVE, 1)


def test_room_is_bounded_by_bytes() -> None:
    room = Room(1000, 8 * MIB)
    assert [room.take(ANN, MIB) for _ in range(5)] == [True] * 4 + [False]
    assert room.take(BOB, 3 * MIB)
    assert not room.take(EVE, 2 * MIB)
    assert room.take(EVE, MIB)
    for _ in range(4):
        room.give_back(ANN, MIB)
    assert room.take(ANN, 4 * MIB)
