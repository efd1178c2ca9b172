"""The work of a worker process that predicts: it drains the lane of its engine until nobody asks any more."""

from __future__ import annotations

import logging
import os
import socket
import time
import uuid
from collections.abc import Callable, Sequence
from functools import partial

from storage.errors import LiveUnavailable
from storage.live import Batch, Drain
from workers.figures import PredictionFigures
from workers.gathering import Gathering
from workers.parts import Parts
from workers.predicting import Predictor

LEASE_S = 2.0
"""How long after its death what a drain had taken waits again."""

MOST = 256
"""Most requests that are computed at once."""

PORTION_BYTES = 8 << 20
"""Of more answers than that, some are given before the others: what travels together is held whole by all it passes."""

_REST_S = 0.25
_PATIENCE_S = 10.0
_log = logging.getLogger(__name__)


class Draining:
    """Takes batches of a lane, computes them, and lingers for more.

    linger_s : how long it waits for more before it ends; while it waits, a request needs no message to wake a worker.
    turn_s : how long it works before it lets another lane of this worker have its turn; None when there is none.
    figures : what it counts, by lane.
    """

    def __init__(
        self,
        parts: Parts,
        predictor: Predictor,
        is_stopping: Callable[[], bool],
        *,
        linger_s: float = 30.0,
        turn_s: float | None = None,
    ) -> None:
        self._parts = parts
        self._predictor = predictor
        self._is_stopping = is_stopping
        self._linger_s, self._turn_s = linger_s, turn_s
        self._gathering = Gathering()
        self.figures = PredictionFigures()

    @property
    def is_worn(self) -> bool:
        """Whether this process should make way for another, which `Predictor.is_worn` says."""
        return self._predictor.is_worn

    def __call__(self, lane: str, wake: str) -> None:
        """Drain the lane, having been woken by the wake-up `wake`."""
        name = f"{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
        drain = self._parts.live.lane.drain(lane, name, lease_s=LEASE_S)
        self._predictor.forget = partial(_forget, drain)
        self._predictor.figures = self.figures.of(lane)
        try:
            self._work(drain, wake)
        finally:
            drain.close()

    def _work(self, drain: Drain, wake: str) -> None:
        answers: Sequence[tuple[bytes, bytes]] = ()
        batch: Batch | None = None
        began = asked_at = heard_at = time.monotonic()
        while True:
            now = time.monotonic()
            must_go = self._is_stopping() or self.is_worn or (self._turn_s is not None and now - began > self._turn_s)
            try:
                while batch is not None and (count := _portion(answers)) < len(answers):
                    drain.give(batch.name, answers[:count])
                    answers, heard_at = answers[count:], time.monotonic()
                # Whoever has not had the first turn was woken for something.
                if must_go or (not wake and now - asked_at > self._linger_s):
                    left = drain.leave(answers, at_once=must_go)
                    answers = ()
                    if left.wake:
                        self._parts.queue.wake(drain.lane, left.wake)
                    if left.has_gone:
                        return
                if batch is not None and answers and self._gathering.patience_s(batch.name):
                    self._gather(drain, batch, answers)
                    answers = ()
                batch = drain.turn(answers, most=MOST, wake=wake, wait_s=_REST_S)
                answers, wake, heard_at = (), "", now
                if batch is None:
                    continue
            except LiveUnavailable as error:
                # What was taken is lost with Redis, or waits again when its lease ends: answers are kept for a while.
                if now - heard_at > _PATIENCE_S:
                    _log.warning("the drain %s ends: %s", drain.name, error)
                    return
                time.sleep(0.1)
                continue
            self._predictor.figures.note_batch(batch)
            answers = self._predictor.answer(batch.requests)
            asked_at = heard_at = time.monotonic()
            self._gathering.note(batch.name, self._predictor.rows, self._predictor.computed_s)

    def _gather(self, drain: Drain, batch: Batch, answers: Sequence[tuple[bytes, bytes]]) -> None:
        """Give the last answers of a batch and wait for those who come back with more."""
        waiting = drain.give(batch.name, answers)
        if waiting is not None:
            self._gathering.wait(batch.name, len(batch.requests), waiting, lambda: drain.give(batch.name))


def _portion(answers: Sequence[tuple[bytes, bytes]]) -> int:
    """How many of the first answers travel together, one at least: of those that are large, few."""
    size = 0
    for count, (_, answer) in enumerate(answers):
        size += len(answer)
        if count and size > PORTION_BYTES:
            return count
    return len(answers)


def _forget(drain: Drain, model: str) -> None:
    """Say that a model was given up; unsaid, requests for it come here first for a while, and load it again."""
    try:
        drain.forget(model)
    except LiveUnavailable as error:
        _log.info("that model %s was given up was not told: %s", model, error)
