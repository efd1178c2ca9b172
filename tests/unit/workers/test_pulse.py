"""What a worker notices while it tells that it lives."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from storage.live import Heartbeat
from workers.app import Pulse


class Beats(dict[str, Heartbeat]):
    """The signs of life that Redis keeps."""

    def beat(self, heartbeat: Heartbeat) -> Heartbeat | None:
        last = self.get(heartbeat.worker)
        self[heartbeat.worker] = heartbeat
        return last


@pytest.fixture
def beats() -> Beats:
    return Beats()


def pulse(beats: Beats, name: str = "train@here") -> Pulse:
    parts: Any = SimpleNamespace(live=SimpleNamespace(heartbeats=beats))
    return Pulse(name, ("train.cpu",), parts)


def test_worker_that_meets_another_of_its_name_says_so_once(beats: Beats, caplog: pytest.LogCaptureFixture):
    first, second, other = pulse(beats), pulse(beats), pulse(beats, "other@here")
    for _ in range(3):
        for each in (first, second, other):
            each.beat()
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 2, "each of the two"
    assert all("is named train@here too" in line and "--name" in line for line in told)
    assert (beats["train@here"].has_namesake, beats["other@here"].has_namesake) == (True, False)
    for _ in range(2):
        first.beat()
    assert beats["train@here"].has_namesake, "the beat after the last foreign one"
    first.beat()
    assert not beats["train@here"].has_namesake, "the other one is gone"


@pytest.mark.parametrize("process", ["gone", ""], ids=["this version", "one that tells no process"])
def test_worker_that_takes_the_place_of_a_dead_one_is_alone(
    beats: Beats, caplog: pytest.LogCaptureFixture, process: str
):
    beats["train@here"] = Heartbeat("train@here", ("train.cpu",), process=process)
    begun = pulse(beats)
    for _ in range(3):
        begun.beat()
    assert caplog.records == []
    assert not beats["train@here"].has_namesake
    beats["train@here"] = replace(beats["train@here"], process=process)
    begun.beat()
    assert len(caplog.records) == 1
