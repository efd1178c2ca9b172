"""Asking the workers for a prediction, again and again while its data are on their way from another host."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable

from api.parts import Parts
from api.predicting import Question
from workers.asked import DATA_COMING, Answer, Asked
from workers.queue import CallerGone, NoAnswer

_FIRST_S, _LAST_S = 0.02, 0.25


def answer_to(
    parts: Parts, question: Question, asked: Asked, mark: str | None, is_connected: Callable[[], bool]
) -> Answer:
    """The answer to a prediction.

    mark : of changes, at which the question was made up; None not to look at it. is_connected : whether the caller is
    still there.
    Raises NoAnswer, also when this process ends first, Overloaded, CallerGone, Changed, LiveUnavailable.
    """

    def goes_on() -> bool:
        if parts.ending.is_due:
            raise NoAnswer(question.lane, timeout_s, "this server ends")
        return is_connected()

    # A worker knows by the number which data it fetched for whom.
    request_id, timeout_s, step_s = uuid.uuid4().hex, parts.settings.predict_timeout_s, _FIRST_S
    deadline = time.monotonic() + timeout_s
    left_s = timeout_s
    while True:
        answer = parts.queue.predict(asked, question.lane, question.batch, left_s, mark, goes_on, request_id=request_id)
        if answer.error is None or answer.error["kind"] != DATA_COMING:
            return answer
        if not goes_on():
            raise CallerGone
        left_s = deadline - time.monotonic() - step_s
        if left_s <= 0:
            raise NoAnswer(question.lane, timeout_s, f"its data did not come within {timeout_s:g} s")
        time.sleep(step_s)
        step_s, mark = min(step_s * 2, _LAST_S), None
