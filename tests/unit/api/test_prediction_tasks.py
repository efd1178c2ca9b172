"""Predictions with `async`: what is accepted, what is refused, and how results are answered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from api.bulk import ASKED_ROWS
from storage.errors import StoreUnavailable
from storage.objects.base import Objects
from storage.records import Records, State
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeQueue

Json = dict[str, Any]


@pytest.fixture
def trained(yard: Yard) -> Yard:
    yard.create()
    yard.finish(yard.train())
    return yard


def ask(client: FlaskClient, **changes: Any) -> Any:
    return client.post("/predict", json={"service": "Iris", "async": True, "data": ["1,2"], **changes})


def spec_of(records: Records, answer: Any) -> Json:
    return records.tasks.spec(answer.json["head"]["task_id"])


def end(records: Records, task_id: int, result: Json | None = None, state: State = State.FINISHED) -> None:
    """A worker's part."""
    attempt = records.tasks.claim(task_id, "worker", 20.0)
    assert attempt is not None
    report = None if result is None else {"rows": 1, "timings": {}, "warnings": [], "result": result}
    failure = {"kind": "bad_input", "message": "row 3 is empty"} if state is State.FAILED else None
    records.tasks.end(attempt, state, phases={}, report=report, failure=failure)


def test_few_lines_are_asked_of_a_worker_that_predicts(trained: Yard, client: FlaskClient, queue: FakeQueue):
    answer = ask(client)
    assert answer.status_code == 201
    task_id = answer.json["head"]["task_id"]
    assert answer.json["head"] == {
        "method": "/predict",
        "service": "iris",
        "task_id": task_id,
        "status": "queued",
    }
    assert queue.sent[-1] == task_id
    assert queue.asked == []
    task = client.get(f"/tasks/{task_id}").json
    assert (task["kind"], task["queue"], task["service"]) == ("predict", "batch.xgboost.cpu", "iris")
    spec = spec_of(trained.records, answer)
    assert (spec["way"], spec["lane"], spec["data"]) == ("ask", "predict.xgboost.cpu", ["1,2"])
    assert spec["head"]["version_id"] == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"data": ["1,2"] * (ASKED_ROWS + 1)},
        {"data": ["1," + "2" * 2**21]},
        {"parameters": {"output": {"format": "parquet"}}},
    ],
    ids=["many lines", "long lines", "a table"],
)
def test_more_is_computed_by_a_process_of_its_own(trained: Yard, client: FlaskClient, changes: Json):
    assert spec_of(trained.records, ask(client, **changes))["way"] == "compute"


def test_files_are_computed_by_a_process_of_their_own(trained: Yard, client: FlaskClient, data: Path):
    assert spec_of(trained.records, ask(client, data=[str(data / "train.csv")]))["way"] == "compute"


def test_bulky_lines_lie_in_the_object_store(trained: Yard, client: FlaskClient, objects: Objects):
    spec = spec_of(trained.records, ask(client, data=["1,2"] * 30_000))
    assert "data" not in spec
    assert objects.exists(spec["data_key"])


def test_a_task_is_accepted_while_messages_cannot_be_sent(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.send_task = lambda task: False  # type: ignore[method-assign]
    assert ask(client).status_code == 201


def test_the_task_waits_for_no_training_and_is_no_job(trained: Yard, client: FlaskClient):
    trained.train()
    answer = ask(client)
    attempt = trained.records.tasks.claim(answer.json["head"]["task_id"], "worker", 20.0)
    assert attempt is not None
    assert attempt.task.job is None


@pytest.mark.parametrize("value", ["yes", [1]])
def test_async_must_be_a_boolean(trained: Yard, client: FlaskClient, value: Any):
    answer = ask(client, **{"async": value})
    assert answer.status_code == 400
    assert "async" in answer.json["status"]["dd_msg"]


def test_async_false_answers_at_once(trained: Yard, client: FlaskClient):
    answer = ask(client, **{"async": False})
    assert answer.status_code == 200
    assert "warnings" not in answer.json["head"]


def test_a_service_without_model_is_refused_at_once(yard: Yard, client: FlaskClient):
    yard.create()
    assert ask(client).json["status"]["dd_code"] == 1006


@pytest.mark.parametrize("form", ["jsonl", "parquet"])
def test_forms_of_tasks_are_refused_without_one(trained: Yard, client: FlaskClient, form: str):
    for _ in range(2):  # also when the parameters were seen before
        answer = client.post(
            "/predict", json={"service": "iris", "data": ["1,2"], "parameters": {"output": {"format": form}}}
        )
        assert answer.status_code == 400
        assert "send async true as well" in answer.json["status"]["dd_msg"]


def test_a_form_of_the_service_is_for_its_tasks(yard: Yard, client: FlaskClient):
    parameters = {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {"format": "parquet"}}
    yard.create(parameters=parameters)
    yard.finish(yard.train())
    assert ask(client, **{"async": False}).status_code == 200
    assert spec_of(yard.records, ask(client))["form"] == "parquet"


def test_a_result_stands_in_the_answer_of_predict(trained: Yard, client: FlaskClient):
    task_id = ask(client, odd=1).json["head"]["task_id"]
    assert client.get(f"/tasks/{task_id}/result").status_code == 409
    content = '[{"uri":"1","vals":[1.0]}]'
    result = {"name": "predictions", "form": "json", "size_bytes": len(content), "content": content}
    end(trained.records, task_id, result)
    answer = client.get(f"/tasks/{task_id}/result").json
    assert answer["body"] == {"predictions": [{"uri": "1", "vals": [1.0]}]}
    assert [each["parameter"] for each in answer["head"]["warnings"]] == ["odd"]
    assert client.get(f"/tasks/{task_id}/report").json["result"] == {"form": "json", "size_bytes": len(content)}


def test_a_stored_result_is_downloaded_as_it_is(trained: Yard, client: FlaskClient, objects: Objects):
    task_id = ask(client).json["head"]["task_id"]
    content = b'{"uri":"1"}\n' * 50_000
    stored = objects.put_bytes(f"attempts/{task_id}/1/result.jsonl", content)
    result = {"name": "predictions", "form": "jsonl", "size_bytes": stored.size, "key": stored.key}
    end(trained.records, task_id, {**result, "sha256": stored.sha256})
    answer = client.get(f"/tasks/{task_id}/result", headers={"Accept-Encoding": "gzip"})
    assert answer.data == content
    assert answer.headers["Content-Disposition"] == f'attachment; filename="task-{task_id}.jsonl"'
    objects.delete([stored.key])
    answer = client.get(f"/tasks/{task_id}/result")
    assert (answer.status_code, answer.json["error"]["kind"]) == (404, "result_not_found")
    assert "MODELYARD_ATTEMPTS_KEPT_S" in answer.json["error"]["message"]


def inline(content: bytes) -> Json:
    return {"name": "predictions", "form": "json", "size_bytes": len(content), "content": content.decode()}


@pytest.mark.parametrize("is_stored", [False, True], ids=["small", "stored"])
def test_a_result_is_deleted_and_is_not_counted_any_more(
    trained: Yard, client: FlaskClient, objects: Objects, is_stored: bool
):
    task_id = ask(client).json["head"]["task_id"]
    used = trained.records.quotas.use(1).stored_bytes
    content = b'[{"uri":"1","vals":[1.0]}]'
    result = inline(content)
    if is_stored:
        stored = objects.put_bytes(f"attempts/{task_id}/1/result.json", content)
        del result["content"]
        result |= {"key": stored.key, "sha256": stored.sha256}
    end(trained.records, task_id, result)
    assert trained.records.quotas.use(1).stored_bytes == used + len(content)
    report = client.get(f"/tasks/{task_id}/report").json
    for _ in range(2):
        answer = client.delete(f"/tasks/{task_id}/result")
        assert (answer.status_code, answer.json["state"], answer.json["result"]) == (200, "finished", None)
    assert list(objects.list("attempts")) == []
    assert trained.records.quotas.use(1).stored_bytes == used
    gone = client.get(f"/tasks/{task_id}/result")
    assert (gone.status_code, gone.json["error"]["kind"]) == (404, "result_not_found")
    assert gone.json["error"]["message"] == f"the result of task {task_id} was deleted"
    assert [each["path"] for each in client.get(f"/tasks/{task_id}/files").json["files"]] == ["report.json"]
    assert client.get(f"/tasks/{task_id}/report").json == report
    assert [each.key for each in trained.records.inventory.named() if each.key.startswith("attempts/2")] == []


def test_a_result_that_the_store_does_not_delete_is_still_there_and_counted(
    trained: Yard, client: FlaskClient, objects: Objects, monkeypatch: pytest.MonkeyPatch
):
    task_id = ask(client).json["head"]["task_id"]
    stored = objects.put_bytes(f"attempts/{task_id}/1/result.json", b"[]")
    result = {"name": "predictions", "form": "json", "size_bytes": stored.size, "key": stored.key}
    end(trained.records, task_id, {**result, "sha256": stored.sha256})
    used = trained.records.quotas.use(1).stored_bytes

    def refuse(keys: Any) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(objects, "delete", refuse)
        refused = client.delete(f"/tasks/{task_id}/result")
    assert (refused.status_code, refused.json["error"]["kind"]) == (503, "store_unavailable")
    assert trained.records.quotas.use(1).stored_bytes == used
    assert client.get(f"/tasks/{task_id}/result").status_code == 200
    assert client.delete(f"/tasks/{task_id}/result").json["result"] is None


def test_cancel_that_comes_too_late_leaves_result_and_versions(trained: Yard, client: FlaskClient):
    before = client.get("/tasks/1").json
    assert client.delete("/tasks/1").json == before
    assert trained.records.versions.newest(1).number == 1
    task_id = ask(client).json["head"]["task_id"]
    end(trained.records, task_id, inline(b"[]"))
    assert client.delete(f"/tasks/{task_id}").json["result"] == f"/tasks/{task_id}/result"
    assert client.get(f"/tasks/{task_id}/result").status_code == 200


def test_what_has_no_result_has_none_to_delete(trained: Yard, client: FlaskClient):
    def refused(task_id: int) -> tuple[int, str]:
        answer = client.delete(f"/tasks/{task_id}/result")
        return answer.status_code, answer.json["error"]["kind"]

    assert refused(1) == (404, "result_not_found")
    task_id = ask(client).json["head"]["task_id"]
    assert refused(task_id) == (409, "result_pending")
    end(trained.records, task_id, state=State.FAILED)
    assert refused(task_id) == (404, "result_not_found")
    assert refused(99) == (404, "task_not_found")


def test_a_failed_task_says_why_it_has_no_result(trained: Yard, client: FlaskClient):
    task_id = ask(client).json["head"]["task_id"]
    end(trained.records, task_id, state=State.FAILED)
    answer = client.get(f"/tasks/{task_id}/result")
    assert answer.status_code == 404
    assert answer.json["error"]["message"] == f"task {task_id} failed and has no result: row 3 is empty"


WITH_DEFAULTS = {
    "template": "{{#body.predictions}}{{uri}}{{/body.predictions}}",
    "network": {"url": "https://hook.example/here"},
}


@pytest.mark.parametrize("name", WITH_DEFAULTS)
def test_what_a_service_does_with_answers_by_default_is_left_out_of_tasks(yard: Yard, client: FlaskClient, name: str):
    parameters = {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {name: WITH_DEFAULTS[name]}}
    yard.create(parameters=parameters)
    yard.finish(yard.train())
    path = f"parameters.output.{name}"
    for output in ({}, {name: None}):
        answer = ask(client, parameters={"output": output})
        assert answer.status_code == 201, answer.text
        [warning] = answer.json["head"]["warnings"]
        assert warning["parameter"] == path
        assert warning["message"].startswith(f"{path}, a default of the service, was ignored")
    refused = ask(client, parameters={"output": {name: WITH_DEFAULTS[name]}})
    assert refused.status_code == 400
    assert f"{path} is not for tasks" in refused.json["status"]["dd_msg"]
