"""What a drain does with answers, and when it leaves, with a lane and a predictor that are toys."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from storage.errors import LiveUnavailable
from storage.live import Batch, Taken
from storage.live.lane import Left
from workers import draining
from workers.draining import PORTION_BYTES, Draining
from workers.parts import Parts
from workers.predicting import Predictor

MIB = 2**20
Answers = Sequence[tuple[bytes, bytes]]


class Away:
    """Redis does not answer this time."""


class Lane:
    """A lane with some batches, and a drain that notes what it was told.

    coming : what the turns come to, one after the other; Away for a Redis that answers no turn, nor whoever leaves.
    fails_after : how many gifts of answers go well before one fails, once.
    """

    def __init__(self, *coming: Batch | type[Away] | None, fails_after: int = 99) -> None:
        self.coming = list(coming)
        self.fails_after = fails_after
        self.told: list[tuple[str, list[bytes]]] = []
        self.lane, self.name = "predict.toy.cpu", "drain"

    def turn(self, answers: Answers, **_: Any) -> Batch | None:
        self._fail_if_away()
        following = self.coming.pop(0) if self.coming else None
        self._note("turn", answers)
        return cast("Batch | None", following)

    def give(self, batch: str, answers: Answers = ()) -> int | None:
        if self.fails_after == 0:
            self.fails_after = 99
            raise LiveUnavailable("Redis does not answer")
        self.fails_after -= 1
        self._note("give", answers)
        return None

    def leave(self, answers: Answers, *, at_once: bool) -> Left:
        self._fail_if_away()
        self._note("leave", answers)
        return Left(not self.coming, "")

    def close(self) -> None:
        """It has nothing to give back."""

    def _fail_if_away(self) -> None:
        if self.coming and self.coming[0] is Away:
            self.coming.pop(0)
            raise LiveUnavailable("Redis does not answer")

    def _note(self, what: str, answers: Answers) -> None:
        self.told.append((what, [each for each, _ in answers]))


def batch(*ids: bytes) -> Batch:
    return Batch("1.cpu:x", [Taken(each, 0.0, b"?") for each in ids], 0, "empty")


@pytest.fixture
def drained(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[tuple[str, list[bytes]]]]:
    """Has a lane drained by a worker that leaves when nothing waits; what the drain was told, in order."""
    now = [100.0]

    def monotonic() -> float:
        now[0] += 0.001
        return now[0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(draining, "time", SimpleNamespace(monotonic=monotonic, sleep=sleep))

    def drain(lane: Lane, *, computing_s: float = 0.01, size: int = 10) -> list[tuple[str, list[bytes]]]:
        def answer(taken: Sequence[Taken]) -> list[tuple[bytes, bytes]]:
            now[0] += computing_s
            return [(each.id, b"x" * size) for each in taken]

        predictor = SimpleNamespace(answer=answer, is_worn=False, rows=1, computed_s=0.0, forget=None, figures=None)
        parts = SimpleNamespace(live=SimpleNamespace(lane=SimpleNamespace(drain=lambda *_, **__: lane)))
        made = Draining(cast(Parts, parts), cast(Predictor, predictor), lambda: False, linger_s=0.0)
        made(lane.lane, "wake")
        return lane.told

    return drain


def test_answers_of_a_long_computation_outlive_a_redis_that_is_away_for_a_moment(drained: Callable[..., Any]) -> None:
    told = drained(Lane(batch(b"a"), Away, Away), computing_s=12.0)
    assert [each for each in told if each[1]] == [("leave", [b"a"])]


def test_answers_are_given_up_when_redis_stays_away(drained: Callable[..., Any]) -> None:
    assert drained(Lane(batch(b"a"), *[Away] * 1000)) == [("turn", [])]


def test_drain_does_not_leave_before_its_first_turn(drained: Callable[..., Any]) -> None:
    assert drained(Lane(batch(b"a"))) == [("turn", []), ("leave", [b"a"])]


def test_large_answers_travel_in_portions(drained: Callable[..., Any]) -> None:
    told = drained(Lane(batch(b"a", b"b", b"c", b"d", b"e")), size=3 * MIB)
    assert PORTION_BYTES == 8 * MIB
    assert told == [("turn", []), ("give", [b"a", b"b"]), ("give", [b"c", b"d"]), ("leave", [b"e"])]


def test_answer_larger_than_a_portion_travels_alone(drained: Callable[..., Any]) -> None:
    told = drained(Lane(batch(b"a", b"b", b"c")), size=20 * MIB)
    assert told == [("turn", []), ("give", [b"a"]), ("give", [b"b"]), ("leave", [b"c"])]


def test_portion_that_was_given_is_not_given_again(drained: Callable[..., Any]) -> None:
    told = drained(Lane(batch(b"a", b"b", b"c"), fails_after=1), size=20 * MIB)
    assert told == [("turn", []), ("give", [b"a"]), ("give", [b"b"]), ("leave", [b"c"])]
