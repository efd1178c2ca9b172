"""Which deliveries go now: places are shared between accounts and hosts, and the records are asked now and then."""

from __future__ import annotations

import itertools
import threading
from types import SimpleNamespace
from typing import Any, cast

import pytest

from storage.records import Due
from workers.parts import Parts
from workers.webhooks import courier as module
from workers.webhooks.courier import Courier

NUMBERS = itertools.count(1)


def courier(**more: Any) -> Courier:
    return Courier(cast(Parts, SimpleNamespace(**more)))


def due(account_id: int, host: str, count: int = 1) -> list[Due]:
    return [Due(next(NUMBERS), account_id, host) for _ in range(count)]


def to_hosts(account_id: int, count: int, of_each: int = 1) -> list[Due]:
    """Deliveries to as many hosts."""
    return [each for number in range(count) for each in due(account_id, f"{number}.of-{account_id}.example", of_each)]


def taken(chosen: list[Due]) -> dict[int, int]:
    return {account: sum(each.account_id == account for each in chosen) for account in {e.account_id for e in chosen}}


def test_account_leaves_as_many_places_free_as_it_takes():
    made = courier()
    assert taken(made._choose(to_hosts(1, 100))) == {1: 16}
    assert taken(made._choose(to_hosts(1, 100) + to_hosts(2, 100))) == {2: 8}
    assert taken(made._choose(to_hosts(2, 100) + to_hosts(3, 100))) == {3: 4}
    assert taken(made._choose(to_hosts(4, 1))) == {4: 1}


def test_accounts_that_come_together_take_turns():
    found = taken(courier()._choose(to_hosts(1, 100) + to_hosts(2, 100) + to_hosts(3, 2)))
    assert found[3] == 2
    assert abs(found[1] - found[2]) <= 1
    assert found[1] >= 9


def test_all_ports_of_a_host_share_its_places_and_so_do_accounts():
    made = courier()
    assert taken(made._choose(due(1, "slow.example", 100))) == {1: 4}
    assert taken(made._choose(due(1, "slow.example") + due(2, "slow.example", 100))) == {2: 2}
    assert taken(made._choose(due(3, "slow.example", 100) + due(1, "quick.example"))) == {1: 1, 3: 1}


def test_slow_hosts_of_an_account_leave_room_for_the_slow_ones_of_others_and_for_its_quick_one():
    made = courier()
    slow = to_hosts(1, 50) + to_hosts(2, 50)
    made._slow = {(each.account_id, each.host) for each in slow}
    assert taken(made._choose([each for each in slow if each.account_id == 1])) == {1: 8}
    assert taken(made._choose(slow)) == {2: 4}
    assert taken(made._choose(due(1, "quick.example"))) == {1: 1}


def test_host_that_waits_longest_for_its_turn_comes_first(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "SLOTS", 1)
    made = courier()
    waiting = due(1, "a.example", 2) + due(1, "b.example") + due(2, "c.example")
    order = []
    while len(order) < 4:
        [each] = made._choose([each for each in waiting if each not in order])
        made._under_way.clear()
        order.append(each)
    assert [each.host for each in order] == ["a.example", "c.example", "b.example", "a.example"]
    assert (order[0], order[3]) == (waiting[0], waiting[1])


def test_what_is_under_way_is_not_begun_again():
    made = courier()
    waiting = due(1, "a.example", 2)
    assert made._choose(waiting) == waiting
    assert made._choose(waiting) == []


def test_looks_keep_their_distance_however_much_ends_at_once():
    pauses: list[float] = []
    looks: list[int] = []

    class Clock(threading.Event):
        """Ends the work after five pauses, and takes no time for them."""

        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0.0)
            if len(pauses) == 5:
                self.set()
            return self.is_set()

    def look(of_each: int, after: int) -> tuple[list[Due], int]:
        looks.append(after)
        made._has_room.set()  # as if something had ended
        return [], 7 if len(looks) == 2 else 0

    made = courier(records=SimpleNamespace(deliveries=SimpleNamespace(due=look)))
    made._over = Clock()
    made._run()
    assert pauses == [0.05] * 5
    assert looks == [0, 0, 7, 0, 0]
