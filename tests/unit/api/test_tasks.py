"""Tasks through /tasks."""

from __future__ import annotations

import re

import pytest
from flask.testing import FlaskClient
from sqlalchemy import event

from api.schemas.task import OneTaskSchema, TaskSchema
from storage.live import LogLine
from storage.records import Kind, Records, State
from tests.unit.api.conftest import REPORT, Yard
from tests.unit.api.fakes import FakeLive


@pytest.fixture(autouse=True)
def _service(yard: Yard) -> None:
    yard.create()


def test_queued_task_tells_its_place(yard: Yard, client: FlaskClient):
    yard.train()
    task_id = yard.train()
    task = client.get(f"/tasks/{task_id}").json
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", task.pop("created_at"))
    assert task == {
        "task_id": task_id,
        "kind": "train",
        "state": "queued",
        "service": "iris",
        "job": 2,
        "percent": 0.0,
        "progress": None,
        "queue": "train.cpu",
        "queue_position": 1,
        "estimate": {"seconds_to_start": None, "seconds_to_end": None, "rests_on": None},
        "attempt": 0,
        "attempts": [],
        "cancel_requested": False,
        "phases": {},
        "started_at": None,
        "finished_at": None,
        "warnings": [],
        "failure": None,
        "measure": None,
        "report": None,
        "result": None,
        "version": None,
    }


def test_running_task_tells_its_progress(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    progress = {"attempt": 1, "phase": "training", "percent": 40.0, "iteration": 1, "measure": {"acc": 0.5}}
    live.progress.told[task_id] = progress
    task = client.get(f"/tasks/{task_id}").json
    assert (task["state"], task["percent"], task["progress"]) == ("running", 40.0, progress)
    assert (task["measure"], task["queue_position"], task["attempt"]) == ({"acc": 0.5}, None, 1)
    assert list(task["phases"]) == ["queued"]
    assert task["attempts"][0]["worker"] == "worker"
    assert task["attempts"][0]["outcome"] is None
    live.is_down = True
    task = client.get(f"/tasks/{task_id}").json
    assert (task["state"], task["percent"], task["progress"]) == ("running", None, None)


def test_finished_task_tells_phases_version_and_report(yard: Yard, client: FlaskClient):
    task_id = yard.train()
    yard.finish(task_id)
    task = client.get(f"/tasks/{task_id}").json
    assert (task["state"], task["percent"], task["version"]) == ("finished", 100.0, 1)
    assert task["measure"] == REPORT["measure"]
    assert list(task["phases"]) == ["queued", "claiming", "reading", "training", "saving", "publishing"]
    assert task["phases"]["training"] == 1.5
    assert task["attempts"][0]["outcome"] == "finished"
    assert client.get(task["report"]).json == REPORT


def test_failed_task_tells_its_failure(yard: Yard, client: FlaskClient):
    task_id = yard.train()
    failure = {"kind": "killed", "message": "the training process ended by SIGKILL", "phase": "training", "log": ["x"]}
    yard.finish(task_id, State.FAILED, failure)
    task = client.get(f"/tasks/{task_id}").json
    assert (task["state"], task["failure"], task["report"]) == ("failed", failure, None)
    answer = client.get(f"/tasks/{task_id}/report")
    assert answer.status_code == 404
    assert answer.json["error"]["kind"] == "report_not_found"


def test_deleted_job_can_still_be_asked_for(yard: Yard, client: FlaskClient):
    task_id = yard.train()
    client.delete("/train?service=iris&job=1")
    client.delete("/services/iris")
    task = client.get(f"/tasks/{task_id}").json
    assert (task["state"], task["service"], task["job"]) == ("cancelled", "iris", 1)


def test_many_tasks_take_one_query_and_one_read_of_redis(
    yard: Yard, client: FlaskClient, records: Records, live: FakeLive
):
    ids = [yard.train() for _ in range(4)]
    records.tasks.claim(ids[0], "worker", 20.0)
    live.progress.told[ids[0]] = {"attempt": 1, "percent": 25.0}
    client.get(f"/tasks?ids={ids[0]}")  # the name of the service and the account are known from now on
    statements: list[str] = []
    engine = records.database.engine
    event.listen(engine, "before_cursor_execute", lambda c, cursor, text, *rest: statements.append(text))
    live.reads = 0
    answer = client.get(f"/tasks?ids={ids[3]},{ids[0]},999,{ids[0]}").json
    assert [(task["task_id"], task["percent"]) for task in answer["tasks"]] == [(ids[0], 25.0), (ids[3], 0.0)]
    assert answer["missing"] == [999]
    assert len([text for text in statements if text.startswith("SELECT")]) == 1
    assert live.reads == 1


def test_thousand_ids_are_taken_and_one_more_is_not(client: FlaskClient):
    answer = client.get("/tasks?ids=" + ",".join(map(str, range(1, 1001))))
    assert answer.status_code == 200
    assert len(answer.json["missing"]) == 1000
    answer = client.get("/tasks?ids=" + ",".join(map(str, range(1, 1002))))
    assert answer.status_code == 400
    assert answer.json["error"]["kind"] == "bad_query"


def test_list_is_read_page_by_page(yard: Yard, client: FlaskClient):
    ids = [yard.train() for _ in range(5)]
    seen: list[int] = []
    query = "limit=2"
    while True:
        page = client.get(f"/tasks?{query}").json
        seen += [task["task_id"] for task in page["tasks"]]
        if page["next_cursor"] is None:
            break
        query = f"limit=2&cursor={page['next_cursor']}"
    assert seen == ids[::-1]


def test_list_is_filtered(yard: Yard, client: FlaskClient):
    yard.create("other", model={"repository": "other"})
    first = yard.train()
    second = yard.train(service="other")
    yard.finish(first)

    def ids(query: str) -> list[int]:
        return [task["task_id"] for task in client.get(f"/tasks?{query}").json["tasks"]]

    assert ids("") == [second, first]
    assert ids("state=finished") == [first]
    assert ids("state=queued&kind=train") == [second]
    assert ids("kind=clear") == []
    assert ids("service=OTHER") == [second]


def test_list_stays_the_same_while_tasks_come_and_go(yard: Yard, client: FlaskClient):
    ids = [yard.train() for _ in range(5)]
    first = client.get("/tasks?limit=2&service=iris").json
    yard.train()
    client.delete(f"/tasks/{ids[2]}")
    second = client.get(f"/tasks?limit=9&service=iris&cursor={first['next_cursor']}").json
    assert [task["task_id"] for task in first["tasks"]] == [ids[4], ids[3]]
    assert [task["task_id"] for task in second["tasks"]] == [ids[2], ids[1], ids[0]]


def test_list_is_filtered_by_time(yard: Yard, client: FlaskClient):
    first, second = yard.train(), yard.train()
    moments = {task["task_id"]: task["created_at"] for task in client.get("/tasks").json["tasks"]}
    assert sorted(moments) == [first, second]

    def ids(**which: str) -> list[int]:
        return [task["task_id"] for task in client.get("/tasks", query_string=which).json["tasks"]]

    assert ids(since="2020-01-01") == ids(until="2999-12-31T23:59:59+01:00") == [second, first]
    assert ids(since="2999-01-01T00:00:00Z") == ids(until="2020-01-01T00:00:00") == []
    page = client.get("/tasks?limit=1&since=2020-01-01").json
    assert ids(since="2020-01-01", cursor=page["next_cursor"]) == [first]
    # Nobody escaped the plus.
    assert client.get("/tasks?since=2020-01-01T00:00:00+01:00").status_code == 200


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("ids=1,x", "ids holds 'x'"),
        ("ids=", "ids holds ''"),
        ("ids=1&limit=3", "ids stands alone"),
        ("limit=0", "limit is '0'"),
        ("limit=1001", "from 1 to 1000"),
        ("state=done", "use one of queued, running"),
        ("kind=dance", "use one of train"),
        ("stat=queued", "did you mean 'state'?"),
        ("cursor=%FF", "cursor cannot be read"),
        ("cursor=bnVsbA", "cursor cannot be read"),
        ("cursor=eyJiZWZvcmUiOiAzfQ", "cursor cannot be read"),
        ("cursor=eyJiZWZvcmUiOiAzLCAiYXQiOiBOYU59", "cursor cannot be read"),
        ("since=yesterday", "since is 'yesterday'"),
        ("until=", "until is ''"),
        ("until=99999-01-01", "in ISO 8601"),
        ("service=", "service is empty"),
    ],
)
def test_bad_query_is_refused(client: FlaskClient, query: str, text: str):
    answer = client.get(f"/tasks?{query}")
    assert answer.status_code == 400
    assert answer.json["error"]["kind"] == "bad_query"
    assert text in answer.json["error"]["message"]


def test_unknown_things_are_404_in_the_native_form(client: FlaskClient):
    for path, kind in (
        ("/tasks/99", "task_not_found"),
        ("/tasks/none", "task_not_found"),
        ("/tasks/1" + "0" * 30, "task_not_found"),
        ("/tasks?service=nobody", "service_not_found"),
        ("/nowhere", "route_not_found"),
    ):
        answer = client.get(path)
        assert answer.status_code == 404, path
        assert answer.json["error"]["kind"] == kind
        assert answer.json["error"]["message"]


def test_cancel_answers_202_and_200_when_it_is_over(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    waiting, running = yard.train(service="iris"), None
    records.tasks.claim(waiting, "worker", 20.0)
    answer = client.delete(f"/tasks/{waiting}")
    assert answer.status_code == 202
    assert (answer.json["state"], answer.json["cancel_requested"]) == ("running", True)
    assert live.progress.hinted == [waiting]
    running = yard.train()
    answer = client.delete(f"/tasks/{running}")
    assert (answer.status_code, answer.json["state"]) == (202, "cancelled")
    answer = client.delete(f"/tasks/{running}")
    assert (answer.status_code, answer.json["state"]) == (200, "cancelled")
    assert client.delete("/tasks/99").status_code == 404


def test_cancel_works_without_redis(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.is_down = True
    assert client.delete(f"/tasks/{task_id}").status_code == 202
    assert records.tasks.get(task_id).cancel_requested_at is not None


def test_verb_that_is_not_offered_is_405(client: FlaskClient):
    answer = client.post("/tasks")
    assert answer.status_code == 405
    assert answer.headers["Allow"] == "GET, HEAD"
    assert answer.json["error"]["kind"] == "verb_not_allowed"


def test_tasks_in_lists_are_what_the_schemas_say(yard: Yard, client: FlaskClient, records: Records):
    waiting, begun = yard.train(), yard.train()
    client.delete(f"/tasks/{waiting}")
    records.tasks.claim(begun, "worker", 20.0)
    for task in client.get("/tasks").json["tasks"]:
        assert set(task) == set(TaskSchema().fields)
        one = client.get(f"/tasks/{task['task_id']}").json
        assert set(one) == set(OneTaskSchema().fields)
        assert {name: one[name] for name in task} == task
    assert all(field.metadata["description"] for field in OneTaskSchema().fields.values())


# Log lines


def said(*numbers: int) -> list[LogLine]:
    return [LogLine(number, 1, 1_700_000_000.25, "info", f"line {number}", 0) for number in numbers]


def test_lines_of_a_task_are_polled_and_dropped_ones_counted(yard: Yard, client: FlaskClient, live: FakeLive):
    task_id = yard.train()
    assert client.get(f"/tasks/{task_id}/logs").json == {"logs": [], "dropped": 0, "after": 0}
    live.logs.lines[task_id] = said(4, 5, 7)
    first = client.get(f"/tasks/{task_id}/logs?limit=2").json
    assert first["logs"][0] == {
        "number": 4,
        "attempt": 1,
        "time": "2023-11-14T22:13:20.250Z",
        "level": "info",
        "message": "line 4",
    }
    assert (len(first["logs"]), first["dropped"], first["after"]) == (2, 3, 5)
    rest = client.get(f"/tasks/{task_id}/logs?after={first['after']}").json
    assert ([each["number"] for each in rest["logs"]], rest["dropped"], rest["after"]) == ([7], 1, 7)
    assert client.get(f"/tasks/{task_id}/logs?after=7").json == {"logs": [], "dropped": 0, "after": 7}


def test_polling_goes_on_when_redis_lost_the_lines(yard: Yard, client: FlaskClient, live: FakeLive):
    task_id = yard.train()
    assert client.get(f"/tasks/{task_id}/logs?after=400").json == {"logs": [], "dropped": 0, "after": 0}
    live.logs.lines[task_id] = said(1, 2)
    found = client.get(f"/tasks/{task_id}/logs?after=400").json
    assert ([each["number"] for each in found["logs"]], found["dropped"], found["after"]) == ([1, 2], 0, 2)


def test_lines_are_told_to_the_owner_of_the_task_only(client: FlaskClient, records: Records, live: FakeLive):
    task, _ = records.tasks.add(records.accounts.ensure("eve").id, Kind.CLEAR, "control", {})
    live.logs.lines[task.id] = said(1)
    answer = client.get(f"/tasks/{task.id}/logs")
    assert (answer.status_code, "line 1" in answer.text) == (404, False)


def test_lines_are_not_told_while_redis_is_away(yard: Yard, client: FlaskClient, live: FakeLive):
    task_id = yard.train()
    live.is_down = True
    answer = client.get(f"/tasks/{task_id}/logs")
    assert (answer.status_code, answer.json["error"]["kind"]) == (503, "live_unavailable")


def test_errors_repeat_no_credentials(yard: Yard, client: FlaskClient):
    answer = client.get("/tasks?cursor=x&https://ann:hush@host/=1")
    assert (answer.status_code, "hush" in answer.text) == (400, False)
