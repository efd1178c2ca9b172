"""Callers that predict all the time at a steady pace, and judge each answer by its content.

Two services have models of their own, made with bare xgboost, and no two rows have the same answer in either, so that
the answer of another request, or of another model, is recognised.
"""

from __future__ import annotations

import bisect
import collections
import http.client
import json
import random
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import xgboost

CALLERS = 4
PACE_S = 0.1
"""Between two requests of a caller."""

TIMEOUT_S = 10.0
"""MODELYARD_PREDICT_TIMEOUT_S of the server."""

LATE_S = 2.0
WINDOW_S = 2.0
"""Over what a rate is told."""

_FULL = 0.8
# How long after the death of its main process another one of the API may still answer; shorter than it takes to start.
_DYING_S = 0.4
_ROWS, _COLUMNS, _ROUNDS = 300, 8, 40
_NAMES = [f"x{column}" for column in range(_COLUMNS)]
_DOCUMENTED = {429, 503}
Json = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A service, rows as lines of text, and the right probabilities, shape (rows, 3)."""

    service: str
    lines: list[str]
    right: np.ndarray


def write_models(folder: Path) -> dict[str, list[Asked]]:
    """Put the model of each service into a repository in `folder`; what can be asked of each, row by row."""
    numbers = np.random.default_rng(11)
    found = {}
    rows = numbers.normal(size=(_ROWS, _COLUMNS)).round(3)
    for position, name in enumerate(("one", "other")):
        inputs = numbers.normal(size=(2000, _COLUMNS)).round(3)
        value = inputs[:, position] + inputs[:, 2] * inputs[:, 3] + numbers.normal(size=len(inputs))
        kinds = np.digitize(value, [-0.7, 0.7])
        options = {"objective": "multi:softprob", "num_class": 3, "max_depth": 6, "nthread": 1}
        booster = xgboost.train(options, xgboost.DMatrix(inputs, kinds, feature_names=_NAMES), _ROUNDS)
        repository = folder / f"asked-{name}"
        repository.mkdir()
        (repository / f"{_ROUNDS:04}.model").write_bytes(bytes(booster.save_raw("ubj")))
        right = booster.predict(xgboost.DMatrix(rows.astype(np.float32), feature_names=_NAMES))
        found[f"asked-{name}"] = [
            Asked(f"asked-{name}", [",".join(map(str, row))], right[[place]]) for place, row in enumerate(rows.tolist())
        ]
    told = np.concatenate([each.right for all_of_one in found.values() for each in all_of_one])
    near = np.abs(told[:, None] - told[None]).max(axis=2) + np.eye(len(told))
    assert near.min() > 1e-5, "two rows have the same answer"
    return found


class Asking:
    """The callers. `violations` are broken promises, `outcomes` how many requests ended how."""

    def __init__(self, port: int, known: dict[str, list[Asked]], dice: random.Random) -> None:
        self._port = port
        self._known = known
        self._seeds = [dice.random() for _ in range(CALLERS)]
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._ask, args=(seed,), daemon=True) for seed in self._seeds]
        self._good: list[float] = []
        self._killed: list[float] = []
        self._heard: list[float] = []
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.violations: list[str] = []
        self.longest_s = 0.0
        self.rate = 0.0
        """Good answers per second when nothing disturbs them."""

    # What the kill loop uses

    def start(self) -> None:
        """Begin, and learn what an undisturbed rate is."""
        for thread in self._threads:
            thread.start()
        time.sleep(2 * WINDOW_S)
        self.rate = self._rate(time.monotonic())

    def stop(self) -> None:
        """Returns when the last caller has its answer."""
        self._over.set()
        for thread in self._threads:
            if thread.ident is not None:
                thread.join()

    def api_is_killed(self) -> None:
        """To be told right before it happens."""
        with self._lock:
            self._killed.append(time.monotonic())

    def recovery_s(self, since: float) -> float | None:
        """How long after `since` the full rate began; None while it has not."""
        with self._lock:
            good = self._good[bisect.bisect_left(self._good, since) :]
        needed = max(1, int(_FULL * self.rate * WINDOW_S))
        for place, first in enumerate(good[: max(0, len(good) - needed + 1)]):
            if good[place + needed - 1] <= first + WINDOW_S:
                return first - since
        return None

    def _rate(self, now: float) -> float:
        with self._lock:
            return (len(self._good) - bisect.bisect_left(self._good, now - WINDOW_S)) / WINDOW_S

    # A caller

    def _ask(self, seed: float) -> None:
        dice = random.Random(seed)
        connection, opened = None, 0.0
        due = time.monotonic()
        while not self._over.is_set():
            due = max(due + PACE_S, time.monotonic())
            self._over.wait(max(0.0, due - time.monotonic()))
            asked = dice.sample(self._known[dice.choice(sorted(self._known))], dice.randint(1, 3))
            began = time.monotonic()
            if connection is None:
                connection, opened = self._connection(), began
            try:
                connection.request("POST", "/predict", _body(asked), {"Content-Type": "application/json"})
                answer = connection.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                connection = None
                self._broke(began, opened, error)
                continue
            if answer.will_close:
                connection.close()
                connection = None
            self._judge(asked, began, answer, content)
        if connection is not None:
            connection.close()

    def _connection(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self._port, timeout=2 * TIMEOUT_S)

    def _broke(self, began: float, opened: float, error: Exception) -> None:
        """No answer: right only while the API was dead, or on a connection to one that died."""
        ended = time.monotonic()
        with self._lock:
            killed = [at for at in self._killed if at <= ended]
            heard = [at for at in self._heard if killed and at > killed[-1]]
            was_dead = bool(killed) and (not heard or began <= heard[0] or opened <= killed[-1])
            self.outcomes["broken connection"] += 1
            if not was_dead or isinstance(error, TimeoutError):
                self.violations.append(f"no answer after {ended - began:.1f} s: {error!r}")
        self._note_length(ended - began)

    def _judge(self, asked: Sequence[Asked], began: float, answer: http.client.HTTPResponse, content: bytes) -> None:
        ended = time.monotonic()
        wrong = _wrong(asked, answer, content)
        with self._lock:
            dead_since = self._killed[-1] if self._killed else None
            if (
                dead_since is not None
                and began > dead_since + _DYING_S
                and not any(at > dead_since for at in self._heard)
            ):
                self._heard.append(began)
            self.outcomes[str(answer.status)] += 1
            if wrong is not None:
                self.violations.append(wrong)
            elif answer.status == 200:
                bisect.insort(self._good, ended)
        self._note_length(ended - began)

    def _note_length(self, took_s: float) -> None:
        with self._lock:
            self.longest_s = max(self.longest_s, took_s)
            if took_s > TIMEOUT_S + LATE_S:
                self.violations.append(f"a prediction took {took_s:.1f} s")


def lines_of(asked: Sequence[Asked]) -> list[str]:
    """What to send, names of columns first."""
    return [",".join(_NAMES), *(line for each in asked for line in each.lines)]


def is_right(asked: Sequence[Asked], rows: Sequence[Json]) -> bool:
    """Whether predictions are those of these rows. Raises KeyError, IndexError, TypeError, ValueError."""
    right = np.concatenate([each.right for each in asked])
    found = np.full(right.shape, np.nan)
    for row in rows:
        for one in row["classes"]:
            found[int(row["uri"]) - 1, int(one["cat"])] = one["prob"]
    return len(rows) == len(right) and np.allclose(found, right, atol=1e-6)


def _body(asked: Sequence[Asked]) -> str:
    return json.dumps({"service": asked[0].service, "parameters": {"output": {"best": -1}}, "data": lines_of(asked)})


def _wrong(asked: Sequence[Asked], answer: http.client.HTTPResponse, content: bytes) -> str | None:
    """What is wrong with an answer, if anything is."""
    if answer.status in _DOCUMENTED:
        if answer.headers.get("Retry-After") is None:
            return f"{answer.status} without Retry-After: {content[:300]!r}"
        return None
    if answer.status != 200:
        return f"a prediction was answered with {answer.status}: {content[:300]!r}"
    try:
        told: Json = json.loads(content)
        if told["head"]["service"] == asked[0].service and is_right(asked, told["body"]["predictions"]):
            return None
    except (ValueError, KeyError, IndexError, TypeError):
        pass
    return f"wrong answer of {asked[0].service} to {[each.lines for each in asked]}: {content[:600]!r}"
