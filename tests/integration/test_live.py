"""The live state on a real Redis: what it keeps, for how long, and what becomes of it when Redis goes."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import redis

from storage.errors import LiveUnavailable
from storage.live import Counts, Heartbeat, Live, Request, Share, Spread
from storage.live.task_logs import KEPT
from tests.services import RedisServer

pytestmark = pytest.mark.servers

LINE = {"time": 1.5, "level": "info", "message": "a line"}
POINTS = [{"iteration": number, "acc": number / 10} for number in range(10)]


@pytest.fixture
def own_live(own_redis: RedisServer) -> Iterator[Live]:
    made = Live(own_redis.url)
    yield made
    made.close()


def lifetimes(live: Live) -> dict[str, int]:
    """Seconds that each key has left; -1 for one that stays for ever."""
    return {name: live.server.redis.ttl(name) for name in live.server.redis.scan_iter()}


def write_everything(live: Live) -> None:
    live.check()
    live.progress.put(1, {"percent": 5.0})
    live.progress.append_history(1, 1, POINTS, 0)
    live.logs.append(1, 1, [LINE])
    live.progress.hint_cancel(1)
    live.heartbeats.beat(Heartbeat("train1@here", ("train.cpu",)))
    live.heartbeats.note_sweep()
    live.statistics.add(1, Counts(predict_count=1, predict_success=1, inference_count=3))
    live.changes.note()
    live.endings.note("train", "finished", 1.5)
    live.allowance.take(1, 5, 100)
    append(live)


def append(live: Live) -> None:
    request = Request("r", "1.cpu:x", "replies:test", 30.0, b"{}")
    live.lane.append("predict.toy.cpu", [request], Spread())


# Lifetimes


def test_every_key_has_a_lifetime(live: Live):
    write_everything(live)
    found = lifetimes(live)
    assert len(found) == 15
    assert all(0 < seconds <= 30 * 86400 for seconds in found.values()), found


def test_history_has_a_lifetime_also_when_its_writer_is_cut_off(live: Live, monkeypatch: pytest.MonkeyPatch):
    def cut_off(*_: object, **__: object) -> None:
        raise redis.ConnectionError("gone")

    with monkeypatch.context() as broken:
        broken.setattr(redis.Redis, "expire", cut_off)
        with pytest.raises(LiveUnavailable):
            live.progress.append_history(1, 1, POINTS[:2], 0)
    assert -1 not in lifetimes(live).values()
    live.progress.append_history(1, 1, POINTS[:3], 2)
    assert live.progress.history(1, 1) == POINTS[:3]


def test_lifetime_of_what_is_written_again_starts_anew(live: Live):
    write_everything(live)
    for name in live.server.redis.scan_iter():
        live.server.redis.expire(name, 1)
    live.progress.put(1, {"percent": 6.0})
    live.progress.append_history(1, 1, POINTS, len(POINTS))
    live.heartbeats.beat(Heartbeat("train1@here", ("train.cpu",)))
    live.statistics.add(1, Counts(predict_count=1, predict_failure=1))
    live.changes.note()
    found = lifetimes(live)
    names = ("progress:1", "history:1:1", "worker:train1@here", "statistics:1", "changes")
    assert all(found[name] > 5 for name in names)


def test_closing_gives_every_connection_back(own_live: Live):
    closed = Live(own_live.server.url)
    drain = closed.lane.drain("predict.toy.cpu", "d", lease_s=60.0)
    write_everything(closed)
    drain.turn(most=1)
    drain.close()
    replies = closed.lane.replies()
    replies.expect("r").wait(0.05)
    replies.close()
    closed.close()
    deadline = time.monotonic() + 5
    while len(own_live.server.redis.client_list()) > 1 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert len(own_live.server.redis.client_list()) == 1


# Progress and histories


def test_progress_is_replaced_and_told_for_those_that_have_some(live: Live):
    assert live.progress.get_many([]) == {}
    live.progress.put(1, {"percent": 5.0})
    live.progress.put(1, {"percent": 50.0, "phase": "training"})
    live.progress.put(3, {"percent": 7.5})
    assert live.progress.get_many([3, 2, 1]) == {1: {"percent": 50.0, "phase": "training"}, 3: {"percent": 7.5}}


def test_history_grows_by_what_is_new(live: Live):
    for told in range(len(POINTS)):
        live.progress.append_history(7, 2, POINTS[: told + 1], told)
        assert live.progress.history(7, 2) == POINTS[: told + 1]
    live.progress.append_history(7, 2, POINTS, len(POINTS))
    assert live.progress.history(7, 2) == POINTS


def test_histories_of_two_attempts_are_apart(live: Live):
    live.progress.append_history(7, 1, POINTS[:4], 0)
    live.progress.append_history(7, 2, POINTS[:2], 0)
    assert (live.progress.history(7, 1), live.progress.history(7, 2)) == (POINTS[:4], POINTS[:2])
    assert live.progress.history(8, 1) == []


def test_history_that_was_told_twice_is_put_right(live: Live):
    # What a retry does whose first try was taken, but never answered.
    live.progress.append_history(7, 1, POINTS[:5], 0)
    live.progress.append_history(7, 1, POINTS[:5], 3)
    assert live.progress.history(7, 1) == POINTS[:5]


def test_history_without_points_leaves_no_key(live: Live):
    live.progress.append_history(7, 1, [], 0)
    assert lifetimes(live) == {}


def test_hint_to_cancel_concerns_one_task(live: Live):
    live.progress.hint_cancel(4)
    assert live.progress.cancel_hinted(4)
    assert not live.progress.cancel_hinted(5)


# Heartbeats


def test_workers_are_told_by_name_with_their_queues(live: Live):
    before = time.time()
    live.heartbeats.beat(Heartbeat("b@host", ("predict.xgboost.cpu", "control")))
    live.heartbeats.beat(Heartbeat("a@host", ("train.cpu",), ("cpu", "cuda")))
    first, second = live.heartbeats.all()
    assert (first.worker, first.queues, first.devices) == ("a@host", ("train.cpu",), ("cpu", "cuda"))
    assert (second.worker, second.queues, second.devices) == ("b@host", ("predict.xgboost.cpu", "control"), ("cpu",))
    assert before <= first.at <= time.time()
    assert live.heartbeats.queues() == {"train.cpu", "predict.xgboost.cpu", "control"}


def test_beat_tells_what_was_said_last_under_its_name(live: Live):
    beat = Heartbeat("a@host", ("train.cpu",), process="one")
    assert live.heartbeats.beat(beat) is None
    last = live.heartbeats.beat(Heartbeat("a@host", ("train.cpu",), process="two", has_namesake=True))
    assert last is not None
    assert (last.worker, last.process, last.has_namesake) == ("a@host", "one", False)
    [now] = live.heartbeats.all()
    assert (now.process, now.has_namesake) == ("two", True)
    # As workers of before beat.
    live.server.redis.set("worker:a@host", '{"worker": "a@host", "queues": [], "devices": ["cpu"], "at": 1.0}')
    last = live.heartbeats.beat(beat)
    assert last is not None
    assert (last.process, last.has_namesake) == ("", False)


def test_worker_that_says_good_bye_or_falls_silent_is_gone(live: Live):
    for name in ("stays", "leaves", "silent"):
        live.heartbeats.beat(Heartbeat(name, ("train.cpu",)))
    live.heartbeats.end("leaves")
    live.server.redis.pexpire("worker:silent", 1)
    time.sleep(0.05)
    assert [beat.worker for beat in live.heartbeats.all()] == ["stays"]


def test_age_of_the_last_sweep_is_known_once_there_was_one(live: Live):
    assert live.heartbeats.sweep_age_s() is None
    live.heartbeats.note_sweep()
    age = live.heartbeats.sweep_age_s()
    assert age is not None
    assert 0 <= age < 5


# Statistics


def test_statistics_add_up_by_service(live: Live):
    live.statistics.add(1, Counts(1, 1, 0, 3, 1.5, 0.25) + Counts(1, 1, 0, 2, 2.25, 0.5))
    live.statistics.add(1, Counts(predict_count=1, predict_failure=1))
    live.statistics.add(1, Counts(total_predict_duration_ms=0.25))
    assert live.statistics.of(1) == {
        "inference_count": 5,
        "predict_count": 3,
        "predict_success": 2,
        "predict_failure": 1,
        "total_predict_duration_ms": 4.0,
        "total_transform_duration_ms": 0.75,
    }
    assert set(live.statistics.of(2).values()) == {0}


def test_statistics_lose_no_call_when_many_count_at_once(live: Live):
    def add(number: int) -> None:
        live.statistics.add(1, Counts(1, number % 2, 1 - number % 2, 1, 0.5))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(200)))
    assert live.statistics.of(1) == {
        "inference_count": 200,
        "predict_count": 200,
        "predict_success": 100,
        "predict_failure": 100,
        "total_predict_duration_ms": 100.0,
        "total_transform_duration_ms": 0.0,
    }


def test_counts_add_up_by_name():
    assert Counts(1, 1, 0, 5, 1.5, 0.5) + Counts(1, 0, 1, 0, 0.25, 0.0) == Counts(2, 1, 1, 5, 1.75, 0.5)
    assert Counts(3) + Counts() == Counts(predict_count=3)


# The mark of changes


def test_mark_is_another_one_after_every_change_and_for_everybody(live: Live):
    other = Live(live.server.url)
    assert live.changes.current() == ""
    marks = [""]
    for _ in range(3):
        live.changes.note()
        marks.append(live.changes.current())
        assert other.changes.current() == live.changes.current() == marks[-1]
    assert len(set(marks)) == 4
    # Lost with Redis, it is none that anybody has seen after a change.
    live.server.redis.flushall()
    assert live.changes.current() == ""
    live.changes.note()
    assert live.changes.current() not in marks
    other.close()


# When Redis goes


def test_flushall_heals_with_the_next_writing(live: Live):
    write_everything(live)
    live.server.redis.flushall()
    assert live.progress.get_many([1]) == {}
    assert live.progress.history(1, 1) == []
    assert not live.progress.cancel_hinted(1)
    assert live.heartbeats.all() == []
    assert live.heartbeats.sweep_age_s() is None
    assert set(live.statistics.of(1).values()) == {0}
    assert live.changes.current() == ""
    assert live.lane.waiting("predict.toy.cpu") == {}
    # A history comes back as a whole, although its writer tells the newest point only.
    live.progress.append_history(1, 1, POINTS, len(POINTS) - 1)
    assert live.progress.history(1, 1) == POINTS
    # Also when there is nothing new to tell.
    live.server.redis.flushall()
    live.progress.append_history(1, 1, POINTS, len(POINTS))
    assert live.progress.history(1, 1) == POINTS
    write_everything(live)
    assert len(live.heartbeats.all()) == 1
    assert live.progress.get_many([1]) == {1: {"percent": 5.0}}
    assert all(seconds > 0 for seconds in lifetimes(live).values())


def test_redis_that_is_started_again_is_used_again(own_live: Live, own_redis: RedisServer):
    write_everything(own_live)
    own_redis.restart()
    # The connection of before is dead; that must not be the next caller's trouble.
    write_everything(own_live)
    assert own_live.progress.get_many([1]) == {1: {"percent": 5.0}}


def every_call(live: Live) -> dict[str, Callable[[], object]]:
    # One each, since a drain is used by one thread.
    drain, waiting, leaving = (live.lane.drain("predict.toy.cpu", name, lease_s=60.0) for name in "dwl")
    for each in (drain, waiting, leaving):
        each.close()
    return {
        "check": live.check,
        "waiting_messages": lambda: live.waiting_messages("train.cpu"),
        "put": lambda: live.progress.put(1, {}),
        "get_many": lambda: live.progress.get_many([1]),
        "append_history": lambda: live.progress.append_history(1, 1, POINTS, 0),
        "history": lambda: live.progress.history(1, 1),
        "hint_cancel": lambda: live.progress.hint_cancel(1),
        "cancel_hinted": lambda: live.progress.cancel_hinted(1),
        "beat": lambda: live.heartbeats.beat(Heartbeat("w", ("train.cpu",))),
        "end": lambda: live.heartbeats.end("w"),
        "all": live.heartbeats.all,
        "note_sweep": live.heartbeats.note_sweep,
        "sweep_age_s": live.heartbeats.sweep_age_s,
        "add": lambda: live.statistics.add(1, Counts(predict_count=1)),
        "of": lambda: live.statistics.of(1),
        "note": live.changes.note,
        "current": live.changes.current,
        "append": lambda: append(live),
        "nudge": lambda: live.lane.nudge("predict.toy.cpu", "r", Spread()),
        "withdraw": lambda: live.lane.withdraw("predict.toy.cpu", "r"),
        "waiting": lambda: live.lane.waiting("predict.toy.cpu"),
        "turn": lambda: drain.turn([(b"r", b"{}")], most=1),
        "turn that waits": lambda: waiting.turn(most=1, wait_s=0.25),
        "forget": lambda: drain.forget("1.cpu"),
        "leave": leaving.leave,
    }


def refusals(live: Live) -> dict[str, float]:
    """Every call at once, and the seconds after which each said that Redis is unavailable."""
    calls = every_call(live)

    def seconds(call: Callable[[], object]) -> float:
        began = time.monotonic()
        with pytest.raises(LiveUnavailable):
            call()
        return time.monotonic() - began

    with ThreadPoolExecutor(len(calls)) as pool:
        return dict(zip(calls, pool.map(seconds, calls.values()), strict=True))


def check_refusals(live: Live, within_s: float) -> None:
    """Every call says in time that Redis is unavailable: in one of three rounds, as a machine may stand still."""
    rounds = []
    for _ in range(3):
        rounds.append(refusals(live))
        if max(rounds[-1].values()) < within_s:
            return
    raise AssertionError(rounds)


def test_redis_that_is_down_is_told_at_once(own_live: Live, own_redis: RedisServer):
    write_everything(own_live)
    own_redis.stop()
    check_refusals(own_live, 1.0)
    own_redis.start()
    write_everything(own_live)


def test_redis_that_hangs_is_told_within_three_seconds(own_live: Live, own_redis: RedisServer):
    write_everything(own_live)
    os.kill(own_redis.pid, signal.SIGSTOP)
    try:
        check_refusals(own_live, 3.0)
    finally:
        os.kill(own_redis.pid, signal.SIGCONT)
    write_everything(own_live)


def test_redis_that_goes_while_a_drain_rests_is_told(own_live: Live, own_redis: RedisServer):
    drain = own_live.lane.drain("predict.toy.cpu", "d", lease_s=60.0)
    with ThreadPoolExecutor(1) as pool:
        resting = pool.submit(drain.turn, most=1, wait_s=0.9)
        time.sleep(0.2)
        began = time.monotonic()
        own_redis.stop()
        with pytest.raises(LiveUnavailable):
            resting.result(20)
        assert time.monotonic() - began < 10
    drain.close()


# What accounts may still send


def test_shares_of_a_minute_add_up_to_the_quota_whoever_takes_them(live: Live, redis_url: str):
    others = [Live(redis_url) for _ in range(4)]
    try:
        with ThreadPoolExecutor(4) as pool:
            shares = [
                share
                for found in pool.map(lambda other: [other.allowance.take(7, 3, 100) for _ in range(20)], others)
                for share in found
            ]
    finally:
        for other in others:
            other.close()
    assert sum(share.given for share in shares) == 100
    assert max(share.given for share in shares) == 3
    assert min(share.rest for share in shares) == 0
    assert all(0 < share.for_s <= 60 for share in shares)
    assert live.allowance.used(7) == 100
    assert live.allowance.take(8, 3, 100).given == 3, "of another account"


def test_quota_that_was_lowered_gives_nothing_and_the_minute_ends(live: Live):
    assert live.allowance.take(9, 50, 100).given == 50
    lowered = live.allowance.take(9, 1, 10)
    assert (lowered.given, lowered.rest) == (0, 0)
    live.server.redis.pexpire("requests:9", 1)
    deadline = time.monotonic() + 10
    while live.allowance.used(9):
        assert time.monotonic() < deadline
    assert live.allowance.take(9, 1, 10) == Share(1, 9, 60.0)


# Log lines


def line(message: str) -> dict[str, object]:
    return {**LINE, "message": message}


def test_lines_of_a_task_are_numbered_through_its_attempts(live: Live):
    live.logs.append(7, 1, [line("a"), line("b")])
    live.progress.append_history(7, 2, POINTS[:3], 0)
    live.logs.append(7, 2, [{**line("c"), "measures": 1}, line("d")])
    live.logs.append(8, 1, [line("of another")])
    lines, newest = live.logs.since(7, 1)
    assert [(each.number, each.attempt, each.message, each.measures) for each in lines] == [
        (2, 1, "b", 0),
        (3, 2, "c", 1),
        (4, 2, "d", 3),
    ]
    assert newest == 4
    assert live.logs.since(7, 4) == ([], 4)
    assert live.logs.since(99, 0) == ([], 0)


def test_only_the_newest_lines_are_kept_and_gaps_show_in_their_numbers(live: Live):
    live.logs.append(7, 1, [line(str(number)) for number in range(KEPT + 20)])
    lines, newest = live.logs.since(7, 0)
    assert (len(lines), lines[0].number, newest) == (KEPT, 21, KEPT + 20)
    live.logs.append(7, 1, [line("after some that were lost")], skipped=5)
    assert live.logs.since(7, newest)[0][0].number == newest + 6


def test_several_writers_at_once_take_no_number_twice(live: Live):
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda each: live.logs.append(7, 1, [line(str(each))]), range(40)))
    lines, _ = live.logs.since(7, 0)
    assert [each.number for each in lines] == list(range(1, 41))
    assert {each.message for each in lines} == set(map(str, range(40)))


def test_lines_live_as_long_as_the_progress_of_their_task(live: Live):
    live.logs.append(7, 1, [line("long ago")])
    live.server.redis.expire("log:7", 5)
    live.progress.put(7, {"percent": 1.0})
    assert live.server.redis.ttl("log:7") > 1000
