"""The lane of predictions on a real Redis: who is woken, who gets what, and what becomes of it when somebody dies."""

from __future__ import annotations

import itertools
import queue
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import pytest

from storage.errors import LiveUnavailable
from storage.live import LOST, Batch, Drain, Live, Replies, Request, Sent, Spread, Waiter
from storage.live import lane as lane_module
from storage.live.lane import replies_in
from tests.services import RedisServer

pytestmark = pytest.mark.servers

LANE = "predict.toy.cpu"
REPLIES = "replies:test"
LEASE_S = 0.5
"""Of drains that die in a test: soon over."""


class MakeDrain(Protocol):
    def __call__(self, name: str, *, lease_s: float = 30.0, patience_s: float = 1.0) -> Drain: ...


@pytest.fixture
def make_drain(live: Live) -> Iterator[MakeDrain]:
    """Makes drains; all are silent when the test ends."""
    made: list[Drain] = []

    def make(name: str, *, lease_s: float = 30.0, patience_s: float = 1.0) -> Drain:
        made.append(live.lane.drain(LANE, name, lease_s=lease_s, patience_s=patience_s))
        return made[-1]

    yield make
    for drain in made:
        drain.close()


@pytest.fixture
def replies(live: Live) -> Iterator[Replies]:
    made = live.lane.replies()
    yield made
    made.close()


def append(
    live: Live,
    request_id: str,
    batch: str = "1.cpu:x",
    asked: bytes = b"?",
    *,
    to: str = REPLIES,
    patience_s: float = 30.0,
    spread: Spread = Spread(),  # noqa: B008  # it is frozen
) -> tuple[Sent, str]:
    wanted = Request(request_id, batch, to, patience_s, asked)
    (sent,) = live.lane.append(LANE, [wanted], spread)
    return sent, wanted.wake


def ids(batch: Batch | None) -> list[str]:
    return [] if batch is None else [each.id.decode() for each in batch.requests]


def told(live: Live, name: str = REPLIES) -> list[tuple[str, str]]:
    """The replies that nobody has read yet; they are read by this."""
    found = []
    while (each := live.server.redis.lpop(name)) is not None:
        found += [(name.decode(), answer.decode()) for name, answer in replies_in(str(each).encode())]
    return found


def is_rung(drain: Drain) -> bool:
    """Whether something was given to an idle drain, which its next turn finds."""
    return bool(drain._lane._redis.exists(f"lane:{LANE}:bell:{drain.name}"))


def die(*drains: Drain) -> None:
    """Have drains fall silent for so long that they count as dead."""
    for drain in drains:
        drain.close()
        drain._keeper.join()  # it may be renewing just now
    time.sleep(LEASE_S + 0.05)


def keys(live: Live) -> dict[str, float]:
    """Seconds that each key has left, by what follows the lane's name."""
    redis = live.server.redis
    return {name.removeprefix(f"lane:{LANE}:"): redis.pttl(name) / 1000 for name in redis.scan_iter()}


# Requests and answers


def test_requests_are_taken_oldest_first_and_answered_by_their_ids(live: Live, make_drain: MakeDrain):
    for number in range(4):
        append(live, f"r{number}", asked=b"of %d\nand \x00\xff" % number)
    drain = make_drain("a")
    batch = drain.turn(most=3)
    assert batch is not None
    assert (batch.name, batch.left) == ("1.cpu:x", 1)
    assert [(each.id, each.asked) for each in batch.requests] == [
        (b"r%d" % number, b"of %d\nand \x00\xff" % number) for number in range(3)
    ]
    answers = [(each.id, b"answer of " + each.id) for each in reversed(batch.requests)]
    batch = drain.turn(answers, most=3)
    assert (ids(batch), batch and batch.left) == (["r3"], 0)
    assert told(live) == [(name, f"answer of {name}") for name in ("r2", "r1", "r0")]
    assert drain.turn([(b"r3", b"with\nlines")], most=3) is None
    assert told(live) == [("r3", "with\nlines")]


def test_answer_goes_to_the_list_of_the_process_that_asked(live: Live, make_drain: MakeDrain):
    append(live, "one", to="replies:one")
    append(live, "two", to="replies:two")
    drain = make_drain("a")
    drain.turn(most=9)
    drain.turn([(b"one", b"1"), (b"two", b"2")], most=9)
    assert (told(live, "replies:one"), told(live, "replies:two")) == ([("one", "1")], [("two", "2")])


def test_batch_holds_requests_of_one_list_only(live: Live, make_drain: MakeDrain):
    for number in range(6):
        append(live, f"r{number}", batch=("1.cpu:x", "1.cpu:y", "2.cpu:x")[number % 3])
    drain = make_drain("a")
    taken = {}
    answers: list[tuple[bytes, bytes]] = []
    while (batch := drain.turn(answers, most=9)) is not None:
        taken[batch.name] = ids(batch)
        answers = [(each.id, b"") for each in batch.requests]
    assert taken == {"1.cpu:x": ["r0", "r3"], "1.cpu:y": ["r1", "r4"], "2.cpu:x": ["r2", "r5"]}


def test_batch_ends_at_its_most_bytes_but_holds_one_request_at_least(live: Live, make_drain: MakeDrain):
    for number, size in enumerate((500, 40, 60, 1)):
        append(live, f"r{number}", asked=b"x" * size)
    drain = make_drain("a")
    answers: list[tuple[bytes, bytes]] = []
    taken = []
    while (batch := drain.turn(answers, most=9, most_bytes=100)) is not None:
        taken.append(ids(batch))
        answers = [(each.id, b"") for each in batch.requests]
    assert taken == [["r0"], ["r1", "r2"], ["r3"]]


def test_batch_of_at_most_none_is_one_of_one(live: Live, make_drain: MakeDrain):
    # A script that takes nothing from a list that is not empty would never end, and Redis with it.
    append(live, "r0")
    append(live, "r1")
    assert ids(make_drain("a").turn(most=0)) == ["r0"]


def test_requests_that_are_appended_together_keep_their_order_and_are_told_one_by_one(
    live: Live, make_drain: MakeDrain
):
    wanted = [Request(f"r{number}", f"{number % 2}.cpu:x", REPLIES, 30.0, b"") for number in range(5)]
    sent = live.lane.append(LANE, wanted, Spread(workers=2, after_s=60.0, waiting=2))
    assert sent == [Sent.WAKE, Sent.WAKE, Sent.WAITS, Sent.WAITS, Sent.REFUSED]
    first = make_drain("first", lease_s=LEASE_S)
    assert ids(first.turn(most=9, wake=wanted[0].wake)) == ["r0", "r2"]
    die(first)
    second = make_drain("second")
    taken = ids(second.turn(most=9)) + ids(second.turn([(b"r0", b"")], most=9))
    assert taken == ["r0", "r2"]


def test_time_that_a_request_waited_is_told(live: Live, make_drain: MakeDrain):
    append(live, "r")
    time.sleep(0.1)
    batch = make_drain("a").turn(most=9)
    assert batch is not None
    assert 100 <= batch.requests[0].waited_ms < 2000


def test_request_whose_caller_is_gone_is_not_handed_out(live: Live, make_drain: MakeDrain):
    append(live, "late", patience_s=0.03)
    append(live, "withdrawn")
    append(live, "stays")
    append(live, "also late", batch="2.cpu:x", patience_s=0.03)
    live.lane.withdraw(LANE, "withdrawn")
    time.sleep(0.06)
    drain = make_drain("a")
    assert ids(drain.turn(most=9)) == ["stays"]
    assert drain.turn([(b"stays", b""), (b"late", b""), (b"never asked", b"")], most=9) is None
    assert told(live) == [("stays", "")]
    assert live.lane.waiting(LANE) == {}


def test_answer_to_a_request_that_was_withdrawn_meanwhile_is_dropped(live: Live, make_drain: MakeDrain):
    append(live, "r")
    drain = make_drain("a")
    drain.turn(most=9)
    live.lane.withdraw(LANE, "r")
    drain.turn([(b"r", b"too late")], most=9)
    assert told(live) == []


def test_waiting_tells_the_length_of_each_list(live: Live, make_drain: MakeDrain):
    assert live.lane.waiting(LANE) == {}
    for number in range(3):
        append(live, f"x{number}")
    append(live, "y", batch="2.cpu:y")
    assert live.lane.waiting(LANE) == {"1.cpu:x": 3, "2.cpu:y": 1}
    make_drain("a").turn(most=2)
    assert live.lane.waiting(LANE) == {"1.cpu:x": 1, "2.cpu:y": 1}
    assert live.lane.waiting("predict.other.cpu") == {}


def test_request_beyond_the_most_that_may_wait_is_refused(live: Live, make_drain: MakeDrain):
    few = Spread(waiting=2)
    assert [append(live, f"r{number}", spread=few)[0] for number in range(3)] == [Sent.WAKE, Sent.WAITS, Sent.REFUSED]
    assert append(live, "other list", batch="2.cpu:x", spread=few)[0] is Sent.WAITS
    assert live.lane.nudge(LANE, "r2", few)[0] is Sent.REFUSED
    make_drain("a").turn(most=1)
    assert append(live, "again", spread=few)[0] is Sent.WAITS


def test_list_that_is_full_of_requests_whose_callers_are_gone_takes_new_ones(live: Live, make_drain: MakeDrain):
    # Nobody is left that would ask after them, and whoever is refused wakes no worker.
    few = Spread(waiting=3)
    for number in range(3):
        append(live, f"gone{number}", patience_s=0.03, spread=few)
    die()
    assert append(live, "r", spread=few)[0] is not Sent.REFUSED
    assert live.lane.waiting(LANE) == {"1.cpu:x": 1}
    assert ids(make_drain("a").turn(most=9)) == ["r"]


def test_request_that_was_made_up_before_a_change_does_not_wait(live: Live, make_drain: MakeDrain):
    def sent(*marks: str | None) -> list[Sent]:
        wanted = [Request(f"r{place}", "1.cpu:x", REPLIES, 5.0, b"", mark) for place, mark in enumerate(marks)]
        return live.lane.append(LANE, wanted, Spread(workers=0))

    assert sent(live.changes.current())[0] is not Sent.CHANGED
    live.changes.note()
    now = live.changes.current()
    became = sent("", now, None, "another")
    assert [each is Sent.CHANGED for each in became] == [True, False, False, True]
    assert ids(make_drain("a").turn(most=9)) == ["r0", "r1", "r2"]
    assert live.server.redis.exists(f"lane:{LANE}:request:r3") == 0


# Wake-ups, bells and how work is spread


def test_worker_is_woken_exactly_when_no_drain_lives(live: Live, make_drain: MakeDrain):
    sent, wake = append(live, "r0")
    assert sent is Sent.WAKE
    assert append(live, "r1")[0] is Sent.WAITS
    assert live.lane.nudge(LANE, "r0", Spread())[0] is Sent.WAITS
    drain = make_drain("a")
    assert ids(drain.turn(most=9, wake=wake)) == ["r0", "r1"]
    assert append(live, "r2")[0] is Sent.WAITS
    drain.turn([(b"r0", b""), (b"r1", b"")], most=9)
    assert drain.turn([(b"r2", b"")], most=9) is None
    assert append(live, "r3")[0] is Sent.WAITS
    drain.turn(most=9)
    drain.turn([(b"r3", b"")], most=9)
    assert drain.leave() == (True, "")
    assert append(live, "r4")[0] is Sent.WAKE


def test_worker_is_woken_again_when_the_wake_up_was_lost(live: Live, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(lane_module, "WAKE_UP_S", LEASE_S)
    sent, first = append(live, "r0")
    assert sent is Sent.WAKE
    assert live.lane.nudge(LANE, "r0", Spread())[0] is Sent.WAITS
    die()
    sent, second = live.lane.nudge(LANE, "r0", Spread())
    assert sent is Sent.WAKE
    assert second != first
    assert live.lane.nudge(LANE, "r0", Spread())[0] is Sent.WAITS
    die()
    assert append(live, "r1")[0] is Sent.WAKE


def test_worker_that_comes_for_a_wake_up_counts_once(live: Live, make_drain: MakeDrain):
    two = Spread(workers=2, after_s=0.0)
    _, wake = append(live, "r0", spread=two)
    make_drain("a").turn(most=9, wake=wake)
    assert append(live, "r1", spread=two)[0] is Sent.WAKE
    assert append(live, "r2", spread=two)[0] is Sent.WAITS


def test_bell_rings_for_an_idle_drain_that_holds_the_model(live: Live, make_drain: MakeDrain):
    first, second = make_drain("first"), make_drain("second")
    for drain, model in ((first, "1.cpu"), (second, "2.cpu")):
        _, wake = append(live, model, batch=f"{model}:x", spread=Spread(workers=2))
        assert ids(drain.turn(most=9, wake=wake)) == [model]
    for drain, model in ((first, "1.cpu"), (second, "2.cpu")):
        assert drain.turn([(model.encode(), b"")], most=9) is None
    for drain, model in ((second, "2.cpu"), (first, "1.cpu")):
        append(live, f"{model} again", batch=f"{model}:other options", spread=Spread(workers=2))
        other = first if drain is second else second
        assert not is_rung(other)
        assert is_rung(drain)
        assert ids(drain.turn(most=9)) == [f"{model} again"]
        assert drain.turn([(f"{model} again".encode(), b"")], most=9) is None


def test_bell_rings_for_the_drain_that_is_idle_longest_when_none_holds_the_model(live: Live, make_drain: MakeDrain):
    first, second = make_drain("b"), make_drain("a")
    assert first.turn(most=9) is None
    assert second.turn(most=9) is None
    append(live, "r", spread=Spread(workers=2))
    assert not is_rung(second)
    assert is_rung(first)


def test_bell_does_not_ring_for_a_drain_that_took_work_by_itself(live: Live, make_drain: MakeDrain):
    spread = Spread(workers=2, after_s=60.0)
    first, second = make_drain("first"), make_drain("second")
    first.turn(most=9)
    second.turn(most=9)
    live.server.redis.zrem(f"lane:{LANE}:idle", "first", "second")  # as if both still worked
    append(live, "r0", spread=spread)
    assert ids(second.turn(most=9)) == ["r0"]
    assert first.turn(most=9) is None
    assert append(live, "r1", spread=Spread(workers=2, after_s=0.0))[0] is Sent.WAITS
    assert not is_rung(second)
    assert is_rung(first)


def test_bell_wakes_a_drain_that_rests_at_once(live: Live, make_drain: MakeDrain):
    drain = make_drain("a")
    drain.turn(most=9)
    with ThreadPoolExecutor(1) as pool:
        resting = pool.submit(drain.turn, most=9, wait_s=0.9)
        time.sleep(0.1)
        append(live, "r")
        assert ids(resting.result(5)) == ["r"]


def test_another_worker_comes_only_when_one_that_holds_the_model_lets_a_request_wait(live: Live, make_drain: MakeDrain):
    spread = Spread(workers=2, after_s=0.5)
    _, wake = append(live, "r0", spread=spread)
    make_drain("a").turn(most=9, wake=wake)
    assert append(live, "r1", spread=spread)[0] is Sent.WAITS
    assert live.lane.nudge(LANE, "r1", spread)[0] is Sent.WAITS
    time.sleep(0.55)
    sent, wake = live.lane.nudge(LANE, "r1", spread)
    assert sent is Sent.WAKE
    # The one that was woken is about to load the model: nobody else is.
    assert append(live, "r2", spread=spread)[0] is Sent.WAITS
    assert ids(make_drain("b").turn(most=9, wake=wake)) == ["r1", "r2"]


def test_idle_drain_without_the_model_is_left_in_peace_while_one_with_it_is_soon_free(
    live: Live, make_drain: MakeDrain
):
    spread = Spread(workers=2, after_s=0.5)
    holder, other = make_drain("holder"), make_drain("other")
    append(live, "r0", spread=spread)
    holder.turn(most=9)
    assert other.turn(most=9) is None
    append(live, "r1", spread=spread)
    assert not is_rung(other)
    time.sleep(0.55)
    assert live.lane.nudge(LANE, "r1", spread)[0] is Sent.WAITS
    assert is_rung(other)
    assert ids(other.turn(most=9)) == ["r1"]


def test_request_for_a_model_that_no_drain_holds_wakes_a_worker_while_there_are_some(live: Live, make_drain: MakeDrain):
    spread = Spread(workers=3, after_s=60.0)
    sent = [append(live, f"r{number}", batch=f"{number}.cpu:x", spread=spread)[0] for number in range(5)]
    assert sent == [Sent.WAKE] * 3 + [Sent.WAITS] * 2


@pytest.mark.parametrize("lost", ["lists", "idle", "drains", "holders:1.cpu"])
def test_request_is_found_again_although_redis_gave_up_a_key(live: Live, make_drain: MakeDrain, lost: str):
    _, wake = append(live, "r0")
    drain = make_drain("a")
    drain.turn(most=9, wake=wake)
    assert drain.turn([(b"r0", b"")], most=9) is None
    append(live, "r1")
    live.server.redis.delete(f"lane:{LANE}:{lost}")
    assert live.lane.nudge(LANE, "r1", Spread())[0] is not Sent.REFUSED
    assert ids(drain.turn(most=9)) == ["r1"]


def test_request_whose_list_redis_gave_up_is_not_known(live: Live, make_drain: MakeDrain):
    append(live, "r", asked=b"once")
    live.server.redis.delete(f"lane:{LANE}:wait:1.cpu:x")
    assert live.lane.nudge(LANE, "r", Spread())[0] is Sent.REFUSED
    append(live, "r", asked=b"twice")
    batch = make_drain("a").turn(most=9)
    assert batch is not None
    assert [each.asked for each in batch.requests] == [b"twice"]


def test_nudge_of_a_request_that_is_computed_wakes_nobody(live: Live, make_drain: MakeDrain):
    spread = Spread(workers=4, after_s=0.0)
    append(live, "r", spread=spread)
    make_drain("a").turn(most=9)
    assert live.lane.nudge(LANE, "r", spread)[0] is Sent.WAITS
    assert live.lane.nudge(LANE, "never asked", spread)[0] is Sent.REFUSED


def test_model_that_is_forgotten_is_not_held(live: Live, make_drain: MakeDrain):
    spread = Spread(workers=2, after_s=60.0)
    drain = make_drain("a")
    _, wake = append(live, "r0", spread=spread)
    drain.turn(most=9, wake=wake)
    assert append(live, "r1", spread=spread)[0] is Sent.WAITS
    drain.forget("1.cpu")
    assert append(live, "r2", spread=spread)[0] is Sent.WAKE


def test_drain_prefers_the_models_it_holds_but_lets_no_other_list_wait_for_long(live: Live, make_drain: MakeDrain):
    drain = make_drain("a", patience_s=0.6)
    append(live, "held0")
    drain.turn(most=9)
    append(live, "other0", batch="2.cpu:x")
    append(live, "held1")
    assert ids(drain.turn([(b"held0", b"")], most=9)) == ["held1"]
    time.sleep(0.65)
    append(live, "held2")
    assert ids(drain.turn([(b"held1", b"")], most=9)) == ["other0"]
    assert ids(drain.turn([(b"other0", b"")], most=9)) == ["held2"]


def test_list_under_load_does_not_starve_another(live: Live, make_drain: MakeDrain):
    drain = make_drain("a", patience_s=0.1)
    append(live, "first")
    drain.turn(most=1)
    append(live, "other", batch="2.cpu:x")
    answers = [(b"first", b"")]
    began = time.monotonic()
    for number in itertools.count():
        append(live, f"more{number}")
        append(live, f"and more{number}")
        batch = drain.turn(answers, most=1)
        assert batch is not None
        answers = [(each.id, b"") for each in batch.requests]
        if ids(batch) == ["other"]:
            break
        assert time.monotonic() - began < 20


# Drains that die


def test_what_a_dead_drain_had_taken_waits_again_once_each_alone(live: Live, make_drain: MakeDrain):
    for number in range(3):
        append(live, f"r{number}")
        time.sleep(0.002)
    first = make_drain("first", lease_s=LEASE_S)
    assert ids(first.turn(most=9)) == ["r0", "r1", "r2"]
    append(live, "new")
    die(first)
    second = make_drain("second")
    answers: list[tuple[bytes, bytes]] = []
    taken = []
    while (batch := second.turn(answers, most=9)) is not None:
        taken.append(ids(batch))
        answers = [(each.id, b"done") for each in batch.requests]
    assert taken == [["r0"], ["r1"], ["r2"], ["new"]]
    assert told(live) == [(name, "done") for name in ("r0", "r1", "r2", "new")]


def test_request_that_waits_again_tells_the_time_since_it_was_appended(live: Live, make_drain: MakeDrain):
    append(live, "r")
    first = make_drain("first", lease_s=LEASE_S)
    first.turn(most=9)
    die(first)
    batch = make_drain("second").turn(most=9)
    assert batch is not None
    assert batch.requests[0].waited_ms >= LEASE_S * 1000


def test_request_that_was_lost_once_ends_a_batch(live: Live, make_drain: MakeDrain):
    # A request that killed a worker must not take others with it, whatever stands before it.
    append(live, "again")
    first = make_drain("first", lease_s=LEASE_S)
    first.turn(most=9)
    die(first)
    append(live, "new")
    second = make_drain("second")
    assert ids(second.turn(most=9)) == ["again"]
    assert ids(second.turn([(b"again", b"")], most=9)) == ["new"]


def test_caller_is_told_when_two_drains_died_of_a_request(live: Live, make_drain: MakeDrain):
    append(live, "r")
    for name in ("first", "second"):
        assert told(live) == []
        drain = make_drain(name, lease_s=LEASE_S)
        assert ids(drain.turn(most=9)) == ["r"]
        die(drain)
    assert make_drain("third").turn(most=9) is None
    assert told(live) == [("r", LOST.decode())]
    assert live.lane.nudge(LANE, "r", Spread())[0] is Sent.REFUSED


def test_caller_that_asks_after_its_request_has_a_worker_woken_for_a_dead_one(live: Live, make_drain: MakeDrain):
    _, wake = append(live, "r")
    drain = make_drain("a", lease_s=LEASE_S)
    drain.turn(most=9, wake=wake)
    assert live.lane.nudge(LANE, "r", Spread())[0] is Sent.WAITS
    die(drain)
    sent, wake = live.lane.nudge(LANE, "r", Spread())
    assert sent is Sent.WAKE
    assert ids(make_drain("b").turn(most=9, wake=wake)) == ["r"]


def test_idle_drain_that_died_is_not_rung(live: Live, make_drain: MakeDrain):
    drain = make_drain("a", lease_s=LEASE_S)
    drain.turn(most=9)
    die(drain)
    assert append(live, "r")[0] is Sent.WAKE
    assert "bell:a" not in keys(live)


def test_drain_that_died_after_its_bell_rang_is_replaced(live: Live, make_drain: MakeDrain):
    drain = make_drain("a", lease_s=LEASE_S)
    drain.turn(most=9)
    assert append(live, "r")[0] is Sent.WAITS
    die(drain)
    assert live.lane.nudge(LANE, "r", Spread())[0] is Sent.WAKE
    assert "bell:a" not in keys(live)


def test_lease_is_renewed_while_a_drain_computes(live: Live, make_drain: MakeDrain):
    append(live, "r")
    drain = make_drain("a", lease_s=1.0)
    drain.turn(most=9)
    time.sleep(1.5)
    assert make_drain("b").turn(most=9) is None
    drain.turn([(b"r", b"done")], most=9)
    assert told(live) == [("r", "done")]


def test_lease_that_is_over_is_not_renewed(live: Live, make_drain: MakeDrain):
    _, wake = append(live, "r")
    drain = make_drain("a", lease_s=0.2)
    drain.turn(most=9, wake=wake)
    live.server.redis.zadd(f"lane:{LANE}:drains", {"a": 1})
    assert ids(make_drain("b").turn(most=9)) == ["r"]
    time.sleep(0.15)
    assert live.server.redis.zrange(f"lane:{LANE}:drains", 0, -1) == ["b"]


@pytest.mark.parametrize("is_taken", [False, True], ids=["while it waits", "while another computes it"])
def test_answer_of_a_drain_that_was_held_back_is_the_one_answer(live: Live, make_drain: MakeDrain, is_taken: bool):
    _, wake = append(live, "r")
    slow = make_drain("slow", lease_s=LEASE_S)
    slow.turn(most=9, wake=wake)
    die(slow)
    assert live.lane.nudge(LANE, "r", Spread())[0] is Sent.WAKE
    other = make_drain("other")
    if is_taken:
        assert ids(other.turn(most=9)) == ["r"]
    assert slow.turn([(b"r", b"of slow")], most=9) is None
    assert other.turn([(b"r", b"of other")] if is_taken else [], most=9) is None
    assert told(live) == [("r", "of slow")]
    die()
    assert make_drain("third").turn(most=9) is None
    assert told(live) == []


def test_answer_that_comes_after_that_of_another_drain_is_dropped(live: Live, make_drain: MakeDrain):
    append(live, "r")
    slow = make_drain("slow", lease_s=LEASE_S)
    slow.turn(most=9)
    die(slow)
    other = make_drain("other")
    other.turn(most=9)
    other.turn([(b"r", b"of other")], most=9)
    slow.turn([(b"r", b"of slow")], most=9)
    assert told(live) == [("r", "of other")]


def test_batch_that_never_reached_its_drain_is_put_back(live: Live, make_drain: MakeDrain):
    append(live, "r0")
    append(live, "r1")
    drain = make_drain("a")
    assert ids(drain.turn(most=9)) == ["r0", "r1"]
    # The same drain asks again: the answer to its turn was lost on the way.
    assert ids(drain.turn(most=9)) == ["r0"]
    assert ids(drain.turn([(b"r0", b"done")], most=9)) == ["r1"]
    drain.turn([(b"r1", b"done")], most=9)
    assert told(live) == [("r0", "done"), ("r1", "done")]


def test_turn_that_is_told_twice_answers_once(live: Live, make_drain: MakeDrain):
    append(live, "r")
    drain = make_drain("a")
    drain.turn(most=9)
    for _ in range(2):
        drain.turn([(b"r", b"done")], most=9)
    assert told(live) == [("r", "done")]


# Leaving


def test_answers_are_given_before_the_next_turn_and_those_who_come_back_are_counted(
    live: Live, make_drain: MakeDrain, replies: Replies
):
    drain = make_drain("one")
    waiter = replies.expect("a")
    append(live, "a", to=replies.name)
    assert ids(drain.turn(most=8)) == ["a"]
    assert drain.give("1.cpu:x", [(b"a", b"A")]) == 0
    assert waiter.wait(5) == b"A"
    append(live, "b")
    append(live, "c")
    assert drain.give("1.cpu:x") == 2
    assert ids(drain.turn([(b"a", b"again")], most=8)) == ["b", "c"]
    # What it gave is answered for good: nothing of it waits again when the drain dies.
    assert live.lane.depth(LANE).in_flight == 2


def test_drain_is_told_when_requests_of_another_list_wait(live: Live, make_drain: MakeDrain):
    drain = make_drain("one")
    append(live, "a")
    drain.turn(most=8)
    append(live, "b", "2.cpu:x")
    assert drain.give("1.cpu:x", [(b"a", b"A")]) is None
    append(live, "c")
    assert drain.give("1.cpu:x") is None


def test_drain_that_is_needed_does_not_leave(live: Live, make_drain: MakeDrain):
    append(live, "r0")
    drain = make_drain("a", lease_s=1.0)
    drain.turn(most=9)
    append(live, "r1")
    assert drain.leave([(b"r0", b"done")]) == (False, "")
    assert told(live) == [("r0", "done")]
    assert ids(drain.turn(most=9)) == ["r1"]
    assert drain.turn([(b"r1", b"done")], most=9) is None
    append(live, "r2")
    assert drain.leave() == (False, "")
    assert ids(drain.turn(most=9)) == ["r2"]
    # It has been renewed all the while, and still is.
    time.sleep(1.3)
    assert append(live, "r3")[0] is Sent.WAITS


def test_drain_that_leaves_gives_its_answers_and_is_gone(live: Live, make_drain: MakeDrain):
    _, wake = append(live, "r")
    drain = make_drain("a")
    drain.turn(most=9, wake=wake)
    assert drain.leave([(b"r", b"done")], at_once=True) == (True, "")
    assert told(live) == [("r", "done")]
    assert append(live, "next")[0] is Sent.WAKE


def test_drain_that_leaves_at_once_has_another_woken_for_what_it_leaves(live: Live, make_drain: MakeDrain):
    _, wake = append(live, "taken")
    drain = make_drain("a")
    drain.turn(most=9, wake=wake)
    append(live, "waits")
    has_gone, wake = drain.leave(at_once=True)
    assert has_gone
    assert wake
    # That wake-up is on its way: no other is wanted.
    assert append(live, "new")[0] is Sent.WAITS
    other = make_drain("b")
    assert ids(other.turn(most=9, wake=wake)) == ["taken"]
    assert ids(other.turn([(b"taken", b"")], most=9)) == ["waits", "new"]


def test_idle_drain_is_rung_for_what_another_leaves(live: Live, make_drain: MakeDrain):
    spread = Spread(workers=2, after_s=60.0)
    drain, idle = make_drain("a"), make_drain("b")
    _, wake = append(live, "r", spread=spread)
    drain.turn(most=9, wake=wake)
    idle.turn(most=9)
    assert drain.leave(at_once=True) == (True, "")
    assert is_rung(idle)
    assert ids(idle.turn(most=9)) == ["r"]


def test_drain_that_has_left_is_not_renewed_back(live: Live, make_drain: MakeDrain):
    drain = make_drain("a", lease_s=0.2)
    drain.turn(most=9)
    assert drain.leave() == (True, "")
    time.sleep(0.1)
    assert keys(live) == {}


# What stays in Redis


def test_every_key_of_the_lane_has_a_lifetime(live: Live, make_drain: MakeDrain):
    busy, idle = make_drain("busy"), make_drain("idle")
    idle.turn(most=9)
    append(live, "rings")
    append(live, "in flight", batch="2.cpu:x")
    busy.turn(most=9)
    append(live, "answered", batch="3.cpu:x")
    busy.turn([(b"rings", b"")], most=9)
    append(live, "waits", batch="4.cpu:x", spread=Spread(workers=9))
    found = keys(live)
    kinds = {"drains", "lists", "bell:idle", "flight:busy", "request:waits", "wait:4.cpu:x", "holders:4.cpu", REPLIES}
    assert kinds <= found.keys()
    assert all(0 < seconds <= 3600 for seconds in found.values()), found
    live.lane.withdraw(LANE, "answered")
    live.lane.withdraw(LANE, "waits")
    assert ids(idle.turn(most=9)) == ["rings"]
    assert idle.turn([(b"rings", b"")], most=9) is None
    assert 0 < keys(live)["idle"] <= 3600


def test_nothing_is_left_after_all_was_answered_but_who_held_the_model(live: Live, make_drain: MakeDrain):
    drain = make_drain("a")
    _, wake = append(live, "r")
    for number in range(19):
        append(live, f"r{number}")
    answers: list[tuple[bytes, bytes]] = []
    while (batch := drain.turn(answers, most=7, wake=wake)) is not None:
        answers = [(each.id, b"") for each in batch.requests]
    assert len(told(live)) == 20
    assert keys(live).keys() == {"drains", "idle", "wants:a", "holders:1.cpu"}
    assert drain.leave() == (True, "")
    # The next request for the model tidies that up, or its lifetime of an hour does: a search would cost each leaving.
    assert keys(live).keys() == {"holders:1.cpu"}


def test_nothing_is_left_of_drains_that_died_and_callers_that_went(live: Live, make_drain: MakeDrain):
    _, wake = append(live, "r", patience_s=0.05)
    append(live, "waits", batch="2.cpu:x", patience_s=0.05)
    drain = make_drain("a", lease_s=LEASE_S)
    drain.turn(most=9, wake=wake)
    die(drain)
    other = make_drain("b")
    assert other.turn(most=9) is None
    assert other.leave() == (True, "")
    assert all(name.startswith("holders:") for name in keys(live))


# Replies


def serve(drain: Drain, is_over: threading.Event) -> None:
    """Answer every request with its own words, until it is over; goes on when Redis is away for a while."""
    answers: list[tuple[bytes, bytes]] = []
    while not is_over.is_set():
        try:
            batch = drain.turn(answers, most=16, wait_s=0.05)
            answers = [(each.id, b"answer to " + each.asked) for each in batch.requests] if batch else []
        except LiveUnavailable:
            time.sleep(0.02)


@pytest.fixture
def served(live: Live, make_drain: MakeDrain) -> Iterator[None]:
    is_over = threading.Event()
    server = threading.Thread(target=serve, args=(make_drain("served"), is_over))
    server.start()
    yield
    is_over.set()
    server.join(10)


@pytest.mark.usefixtures("served")
def test_each_of_many_threads_gets_the_answer_to_what_it_asked(live: Live, replies: Replies):
    def ask(caller: int) -> None:
        for number in range(25):
            name = f"{caller}-{number}"
            waiter = replies.expect(name)
            append(live, name, asked=name.encode(), to=replies.name)
            assert waiter.wait(10) == b"answer to " + name.encode()
            waiter.close()

    with ThreadPoolExecutor(12) as pool:
        for each in [pool.submit(ask, caller) for caller in range(12)]:
            each.result(30)
    assert replies.name not in keys(live)


def test_wait_without_an_answer_lasts_as_long_as_asked(replies: Replies):
    waiter = replies.expect("r")
    for timeout_s in (-1.0, 0.0, 0.2):
        began = time.monotonic()
        assert waiter.wait(timeout_s) is None
        assert max(timeout_s, 0.0) - 0.01 <= time.monotonic() - began < timeout_s + 10


def test_answer_that_came_before_it_was_waited_for_is_there_and_stays(live: Live, replies: Replies):
    waiter = replies.expect("r")
    live.server.redis.rpush(replies.name, "r\t6\nanswer")
    until = time.monotonic() + 5
    while waiter._answer is None:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert waiter.wait(0.0) == waiter.wait(5.0) == b"answer"


def test_second_answer_and_one_that_nobody_waits_for_are_dropped(live: Live, replies: Replies):
    closed, waiter = replies.expect("closed"), replies.expect("r")
    closed.close()
    late = [
        "closed\t8\ntoo late",
        "unknown\t4\nwhat",
        "no end",
        "x\ty\nz",
        "r\t5\nfirstr\t6\nsecond",
        "closed\t4\nagain",
    ]
    live.server.redis.rpush(replies.name, *late)
    assert waiter.wait(5.0) == b"first"
    last = replies.expect("last")
    live.server.redis.rpush(replies.name, "last\t0\n")
    assert last.wait(5.0) == b""
    assert waiter.wait(0.0) == b"first"
    assert closed.wait(0.0) is None


def test_waiter_is_told_at_once_why_there_will_be_no_answer(live: Live, replies: Replies):
    failed, answered = replies.expect("failed"), replies.expect("answered")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(failed.wait, 20.0)
        failed.fail(LiveUnavailable("no message was taken"))
        with pytest.raises(LiveUnavailable, match="no message was taken"):
            waiting.result(5)
    live.server.redis.rpush(replies.name, "failed\t8\ntoo late", "answered\t7\nin time")
    assert answered.wait(5.0) == b"in time"
    answered.fail(LiveUnavailable("too late"))
    assert answered.wait(0.0) == b"in time"
    with pytest.raises(LiveUnavailable):
        failed.wait(0.0)


def test_callers_of_two_processes_do_not_get_each_others_answers(live: Live, make_drain: MakeDrain):
    both = [live.lane.replies(), live.lane.replies()]
    assert both[0].name != both[1].name
    waiters = [each.expect("r") for each in both]
    append(live, "r", to=both[1].name)
    drain = make_drain("a")
    drain.turn(most=9)
    drain.turn([(b"r", b"answer")], most=9)
    assert waiters[1].wait(5.0) == b"answer"
    assert waiters[0].wait(0.1) is None
    for each in both:
        each.close()


def test_reader_of_replies_outlives_an_error_that_nobody_expected_until_it_is_closed(
    live: Live, replies: Replies, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    waiter, hand_out = replies.expect("r"), replies._hand_out

    def fail_once(*_: bytes) -> None:
        monkeypatch.setattr(replies, "_hand_out", hand_out)
        raise ZeroDivisionError

    monkeypatch.setattr(replies, "_hand_out", fail_once)
    live.server.redis.rpush(replies.name, "r\t4\nlost", "r\t6\nanswer")
    assert waiter.wait(5.0) == b"answer"
    assert "reading replies failed unexpectedly" in caplog.text
    assert replies._reader is not None
    replies.close()
    assert not replies._reader.is_alive()


# When Redis goes


def lose_by_restart(server: RedisServer) -> None:
    server.restart()


def lose_by_flushall(server: RedisServer) -> None:
    server.flush()


@pytest.mark.parametrize("lose", [lose_by_restart, lose_by_flushall], ids=["restart", "FLUSHALL"])
@pytest.mark.parametrize("is_taken", [False, True], ids=["waiting", "in flight"])
def test_caller_learns_that_redis_lost_its_request_and_is_answered_when_it_asks_again(
    own_redis: RedisServer, lose: Callable[[RedisServer], None], is_taken: bool
):
    live = Live(own_redis.url)
    replies = live.lane.replies()
    drain = live.lane.drain(LANE, "a", lease_s=5.0)
    waiter = replies.expect("r")
    append(live, "r", asked=b"this", to=replies.name)
    answers = [(b"r", b"lost with Redis")] if is_taken and drain.turn(most=9) else []
    lose(own_redis)
    began = time.monotonic()
    assert waiter.wait(0.1) is None
    assert time.monotonic() - began < 4
    assert live.lane.nudge(LANE, "r", Spread())[0] is Sent.REFUSED
    assert drain.turn(answers, most=9) is None
    assert append(live, "r", asked=b"this", to=replies.name)[0] is Sent.WAITS
    assert is_rung(drain)
    is_over = threading.Event()
    server = threading.Thread(target=serve, args=(drain, is_over))
    server.start()
    assert waiter.wait(10) == b"answer to this"
    is_over.set()
    server.join(10)
    drain.close()
    replies.close()
    live.close()


def test_waiters_are_not_held_longer_by_a_redis_that_is_down(own_redis: RedisServer):
    live = Live(own_redis.url)
    replies = live.lane.replies()
    drain = live.lane.drain(LANE, "a", lease_s=1.0)
    waiter = replies.expect("r")
    assert drain.turn(most=9) is None
    own_redis.stop()
    began = time.monotonic()
    assert waiter.wait(0.3) is None
    assert time.monotonic() - began < 4
    with pytest.raises(LiveUnavailable):
        drain.turn(most=9, wait_s=0.2)
    own_redis.start()
    # The thread that reads the replies and the one that renews the lease live on.
    assert drain.turn(most=9) is None
    live.server.redis.rpush(replies.name, "r\t6\nanswer")
    assert waiter.wait(5.0) == b"answer"
    time.sleep(1.3)
    assert append(live, "next")[0] is Sent.WAITS
    drain.close()
    replies.close()
    live.close()


# All at once


class CountedReplies(Replies):
    """Replies that remember how often each request was answered."""

    def __init__(self, live: Live) -> None:
        super().__init__(live.server)
        self.counts: dict[bytes, int] = {}

    def _hand_out(self, request_id: bytes, answer: bytes) -> None:
        self.counts[request_id] = self.counts.get(request_id, 0) + 1
        super()._hand_out(request_id, answer)


class Mortals:
    """Worker processes as threads: each drains when it is woken, and is killed, or held back, at random.

    What was lost once is spared: a request that is lost twice is answered with LOST, and that is right.
    """

    def __init__(self, live: Live, seed: int) -> None:
        self._live = live
        self._random = random.Random(seed)
        self._lock = threading.Lock()
        self._lost: set[bytes] = set()
        self.wakes: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self.killed = self.held_back = 0

    def work(self) -> None:
        while (wake := self.wakes.get()) is not None:
            drain = self._live.lane.drain(LANE, uuid.uuid4().hex, lease_s=1.0, patience_s=0.1)
            try:
                self._drain(drain, wake)
            finally:
                drain.close()

    def _drain(self, drain: Drain, wake: str) -> None:
        answers: list[tuple[bytes, bytes]] = []
        idle = 0
        while True:
            if idle > 2:
                left = drain.leave(answers, at_once=idle > 4)
                answers = []
                if left.wake:
                    self.wakes.put(left.wake)
                if left.has_gone:
                    return
            batch = drain.turn(answers, most=5, wake=wake, wait_s=0.02)
            answers, wake = [], ""
            if batch is None:
                idle += 1
                continue
            idle = 0
            fate = self._fate(batch)
            if fate == "killed":
                return
            if fate == "held back":
                drain.close()
                time.sleep(1.2)
            answers = [(each.id, batch.name.encode() + b" " + each.asked) for each in batch.requests]
            if fate == "held back":
                drain.leave(answers, at_once=True)
                return

    def _fate(self, batch: Batch) -> str:
        with self._lock:
            taken = {each.id for each in batch.requests}
            if self._random.random() > 0.12 or taken & self._lost:
                return "lives"
            self._lost |= taken
            if self._random.random() < 0.5:
                self.killed += 1
                return "killed"
            self.held_back += 1
            return "held back"


def call(live: Live, waiter: Waiter, name: str, batch: str, to: str, wakes: queue.SimpleQueue[str | None]) -> bytes:
    """Ask as the API does: nudge now and then until there is an answer."""
    spread = Spread(workers=4, after_s=0.01)
    sent, wake = append(live, name, batch=batch, asked=name.encode(), to=to, patience_s=60.0, spread=spread)
    deadline = time.monotonic() + 40.0
    while time.monotonic() < deadline:
        if sent is Sent.WAKE:
            wakes.put(wake)
        answer = waiter.wait(0.05)
        if answer is not None:
            return answer
        sent, wake = live.lane.nudge(LANE, name, spread)
        if sent is Sent.REFUSED:
            answer = waiter.wait(1.0)
            assert answer is not None, f"{name} vanished"
            return answer
    raise AssertionError(f"{name} was not answered")


@pytest.mark.timeout(200)
def test_no_answer_is_wrong_lost_or_double_while_drains_die_at_random(live: Live):
    mortals = Mortals(live, seed=7)
    replies = CountedReplies(live)

    def ask(caller: int) -> None:
        for number in range(30):
            name, batch = f"{caller}-{number}", f"{(caller + number) % 3}.cpu:x"
            waiter = replies.expect(name)
            assert call(live, waiter, name, batch, replies.name, mortals.wakes) == f"{batch} {name}".encode()
            waiter.close()

    with ThreadPoolExecutor(20) as pool:
        workers = [pool.submit(mortals.work) for _ in range(4)]
        callers = [pool.submit(ask, caller) for caller in range(16)]
        try:
            for each in callers:
                each.result(100)
        finally:
            for _ in workers:
                mortals.wakes.put(None)
        for each in workers:
            each.result(20)
    time.sleep(0.1)
    replies.close()
    assert mortals.killed > 3
    assert mortals.held_back > 3
    assert set(replies.counts.values()) == {1}
    assert len(replies.counts) == 16 * 30
    # Nothing waits or is in flight; what dead drains and wake-ups left goes with the next look.
    drain = live.lane.drain(LANE, "last", lease_s=5.0)
    assert drain.turn(most=9) is None
    drain.close()
    assert live.lane.waiting(LANE) == {}
    assert not [name for name in keys(live) if name.startswith(("request:", "wait:", "replies:"))]
