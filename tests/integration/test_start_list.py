"""The list of services that a server begins with, done by the real API and workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cli.start_list import Line, LineFailed, Starting
from settings import Settings
from storage.records import State, Task
from tests.integration.yard import Yard, running_yard

pytestmark = pytest.mark.servers


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    with running_yard(settings, redis_url) as made:
        yield made


def create(name: str, body: dict[str, Any]) -> Line:
    return Line(1, "service_create", name, body)


def test_services_are_created_and_predict_whatever_keys_there_are(yard: Yard) -> None:
    yard.create("before", yard.data / "model")
    yard.train("before", 5)
    yard.call("DELETE", "/services/before")
    yard.parts.records.keys.create("somebody", "")
    starting = Starting(yard.app)
    line = create("Iris", yard.body(yard.data / "model"))
    assert list(starting.do(line)) == ["service_create Iris: created"]
    asked = {"service": "iris", "data": ["5.1,3.5,1.4,0.2"]}
    assert list(starting.do(Line(2, "service_predict", "iris", asked))) == ["service_predict iris: answered"]


def test_service_of_the_same_definition_is_no_failure_and_another_one_is(yard: Yard) -> None:
    starting = Starting(yard.app)
    body = yard.body("flowers")
    assert list(starting.do(create("iris", body))) == ["service_create iris: created"]
    assert list(starting.do(create("IRIS", json.loads(json.dumps(body))))) == ["service_create IRIS: exists already"]
    other = yard.body("elsewhere", description="roses", parameters={"input": {"connector": "csv"}})
    with pytest.raises(LineFailed, match=r"another definition \(description, model.repository, parameters\)"):
        list(starting.do(create("iris", other)))
    with pytest.raises(LineFailed, match="library 'none' is unknown"):
        list(starting.do(create("iris", {**body, "mllib": "none"})))


def test_refusals_and_warnings_are_told(yard: Yard) -> None:
    starting = Starting(yard.app)
    told = list(starting.do(create("iris", yard.body("flowers", colour="red"))))
    assert told == ["service_create iris: colour is unknown to services and was ignored", told[-1]]
    with pytest.raises(LineFailed, match=r"400: .*nclasses"):
        list(starting.do(create("twin", yard.body("flowers", parameters={"mllib": {}}))))
    with pytest.raises(LineFailed, match=r"400: .*has no model yet"):
        list(starting.do(Line(2, "service_predict", "iris", {"service": "iris", "data": ["1,2,3,4"]})))


def test_next_line_waits_for_a_model_that_is_still_being_taken_over(
    yard: Yard, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.services.IMPORT_WAIT_S", 0.0)
    monkeypatch.setattr("cli.start_list._LOOK_S", 0.01)
    monkeypatch.setattr("time.sleep", lambda seconds: work())
    (yard.data / "model").mkdir()
    (yard.data / "model" / "0001.model").write_bytes(b"no model")
    waiting: list[Task] = []
    yard.before = waiting.append
    yard.is_idle = True

    def work() -> None:
        """What a worker does while the list waits."""
        yard.is_idle = False
        for task in yard.parts.records.tasks.page(1, limit=10, state=State.QUEUED):
            yard.send_task(task)

    starting = Starting(yard.app)
    with pytest.raises(LineFailed, match=r"its model was not taken over: .*0001\.model"):
        list(starting.do(create("iris", yard.body(yard.data / "model"))))
    assert len(waiting) == 1
