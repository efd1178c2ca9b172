"""Services through /services and /info."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from storage.errors import ServiceNotFound
from storage.records import Kind, Records, State
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive, FakeQueue


def test_created_service_is_described_as_posted(yard: Yard, client: FlaskClient):
    answer = client.put("/services/IRIS", json=yard.service_body())
    assert answer.status_code == 201
    assert answer.json == {"status": {"code": 201, "msg": "Created"}}
    answer = client.get("/services/Iris")
    assert answer.status_code == 200
    assert "head" not in answer.json
    body = answer.json["body"]
    assert {name: body[name] for name in body if name not in ("service_stats", "model_stats", "stats")} == {
        "name": "iris",
        "description": "iris",
        "mllib": "xgboost",
        "mltype": "classification",
        "type": "supervised",
        "predict": False,
        "training": False,
        "repository": str(yard.data / "model"),
        "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {}},
        "jobs": [],
    }
    assert body["stats"] == body["model_stats"]
    kept = json.loads((yard.data / "model" / "config.json").read_text())
    assert kept == yard.service_body()


def test_post_creates_like_put_whatever_the_content_type(yard: Yard, client: FlaskClient):
    data = json.dumps(yard.service_body())
    answer = client.post("/services/iris", data=data, content_type="application/x-www-form-urlencoded")
    assert answer.status_code == 201


def test_regression_service_says_so(yard: Yard, client: FlaskClient):
    parameters = {"input": {"connector": "csv"}, "mllib": {"ntargets": 1, "regression": True}}
    yard.create("cars", parameters=parameters)
    assert client.get("/services/cars").json["body"]["mltype"] == "regression"


def test_existing_name_is_told_before_the_json_is_read(yard: Yard, client: FlaskClient):
    yard.create()
    answer = client.put("/services/IRIS", data="no json")
    assert answer.status_code == 409
    assert answer.json["status"]["dd_code"] == 1014
    assert answer.json["status"]["dd_msg"] == "Service already exists"


@pytest.mark.parametrize(
    ("changes", "http", "dd_code", "text"),
    [
        ({"mllib": None}, 400, 400, "mllib is missing"),
        ({"mllib": 3}, 400, 400, "mllib is 3"),
        ({"parameters": {"input": {}}}, 400, 400, "parameters.input.connector is missing"),
        ({"parameters": {"input": {"connector": 1}}}, 400, 400, "parameters.input.connector is 1"),
        ({"model": {}}, 400, 1006, "model.repository is missing"),
        ({"model": {"repository": "{data}/none"}}, 400, 1006, "is not writable or does not exist."),
        ({"model": {"repository": "{data}/none"}, "mllib": "nolib"}, 400, 1006, "is not writable or does not exist."),
        ({"model": {"repository": "/etc"}}, 400, 1006, "destination model directory /etc is not writable"),
        ({"model": {"repository": "{data}/../..", "create_repository": True}}, 400, 1006, "is not writable"),
        ({"model": {"repository": "../x", "create_repository": True}}, 400, 1006, "is not writable"),
        ({"model": {"repository": "{data}/train.csv"}}, 400, 1006, "file exists with same name as repository"),
        ({"mllib": ""}, 404, 1000, "Unknown Library"),
        ({"mllib": "nolib"}, 404, 1000, "Unknown Library"),
        ({"type": "magic"}, 400, 1006, "'magic'"),
        ({"parameters": {"input": {"connector": "image"}}}, 404, 1004, "Input Connector Not Found"),
        ({"parameters": {"input": {"connector": "csv", "separator": 1}}}, 400, 1005, "separator"),
        ({"parameters": {"input": {"connector": "csv"}}}, 400, 1006, "nclasses == 0"),
    ],
)
def test_failed_creation_says_why_and_leaves_no_service(
    yard: Yard, client: FlaskClient, records: Records, changes: dict, http: int, dd_code: int, text: str
):
    body = json.loads(json.dumps(yard.service_body(**changes)).replace("{data}", str(yard.data)))
    answer = client.put("/services/iris", json=body)
    status = answer.json["status"]
    assert (answer.status_code, status["code"], status["dd_code"]) == (http, http, dd_code)
    assert text in status["dd_msg"]
    assert set(answer.json) == {"status"}
    with pytest.raises(ServiceNotFound):
        records.services.find(records.accounts.ensure("local").id, "iris")


def test_refused_creation_makes_no_folder(yard: Yard, client: FlaskClient):
    assert client.put("/services/iris", json=yard.service_body(mllib="nolib")).status_code == 404
    assert not (yard.data / "model").exists()


def test_repository_in_the_object_store_needs_no_folder(yard: Yard, client: FlaskClient, records: Records):
    yard.create(model={"repository": "models/iris"})
    assert client.get("/services/iris").json["body"]["repository"] == "models/iris"
    account = records.accounts.ensure("local").id
    service = records.services.find(account, "iris")
    assert records.repositories.get(service.repository_id).location == f"objects:{account}/models/iris"


def test_unknown_options_are_warned_of(yard: Yard, client: FlaskClient):
    body = yard.service_body()
    body["parameters"]["mllib"]["nclases"] = 3
    answer = client.put("/services/iris", json=body)
    assert answer.status_code == 201
    assert "did you mean 'nclasses'?" in answer.json["head"]["warnings"][0]["message"]
    assert client.get("/services/iris").json["body"]["parameters"]["mllib"]["nclases"] == 3


def test_jobs_are_open_ones_only_and_running_first(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    yard.create()
    yard.finish(yard.train())
    second, third = yard.train(), yard.train()
    records.tasks.claim(second, "worker", 20.0)
    live.progress.told[second] = {"attempt": 1, "measure": {"acc": 0.5}}
    body = client.get("/services/iris").json["body"]
    assert (body["predict"], body["training"], body["width"], body["height"]) == (True, True, -1, -1)
    assert [(job["job"], job["status"], job["task_id"], job["measure"]) for job in body["jobs"]] == [
        (2, "running", second, {"acc": 0.5}),
        (3, "running", third, {}),
    ]
    assert "jobs" not in client.get("/services/iris?status=false").json["body"]


def test_labels_come_on_request(yard: Yard, client: FlaskClient):
    yard.create()
    assert client.get("/services/iris?labels=true").json["body"]["labels"] == []
    yard.finish(yard.train())
    assert client.get("/services/iris?labels=1").json["body"]["labels"] == ["setosa", "versicolor", "virginica"]
    assert "labels" not in client.get("/services/iris").json["body"]


def test_flags_of_the_query_must_be_booleans(yard: Yard, client: FlaskClient):
    yard.create()
    for path, name in (("/services/iris?labels=yes", "labels"), ("/info?status=2", "status")):
        answer = client.get(path)
        assert answer.status_code == 400
        assert answer.json["status"]["dd_code"] == 400
        assert answer.json["status"]["dd_msg"] == f"{name} must be a boolean value"


def test_info_lists_services(yard: Yard, client: FlaskClient, live: FakeLive):
    assert client.get("/info").json["head"]["services"] == []
    yard.create()
    yard.create("other", model={"repository": "other"})
    yard.train()
    answer = client.get("/info?status=true").json
    assert answer["status"] == {"code": 200, "msg": "OK"}
    head = answer["head"]
    assert {"method", "build-type", "version", "branch", "commit", "compile_flags", "deps_version"} < set(head)
    assert [(each["name"], each["training"], len(each["jobs"])) for each in head["services"]] == [
        ("iris", True, 1),
        ("other", False, 0),
    ]
    assert "jobs" not in client.get("/info").json["head"]["services"][0]


def test_info_answers_without_redis_and_asks_it_once(yard: Yard, client: FlaskClient, live: FakeLive):
    for number in range(5):
        yard.create(f"s{number}", model={"repository": f"r{number}"})
    live.is_down, live.reads = True, 0
    services = client.get("/info").json["head"]["services"]
    assert live.reads == 1
    assert services[4]["service_stats"]["predict_count"] == 0
    assert services[4]["service_stats"]["avg_predict_duration_ms"] == -1


def test_unknown_service_is_1002_on_get_and_plain_404_on_delete(client: FlaskClient):
    answer = client.get("/services/nobody")
    assert answer.status_code == 404
    assert answer.json["status"]["dd_code"] == 1002
    assert answer.json["status"]["dd_msg"] == "Service Not Found"
    answer = client.delete("/services/nobody")
    assert answer.status_code == 404
    assert set(answer.json["status"]) == {"code", "msg", "message"}
    assert (answer.json["status"]["code"], answer.json["status"]["msg"]) == (404, "NotFound")


def test_name_that_is_empty_or_unprintable_is_refused(yard: Yard, client: FlaskClient):
    assert client.put("/services/", json=yard.service_body()).status_code == 404
    assert client.put("/services", json=yard.service_body()).status_code == 404
    for name in ("a%00b", "x" * 256):
        assert client.put(f"/services/{name}", json=yard.service_body()).status_code == 400


# A model that lies in the folder already


def _put_model(yard: Yard) -> None:
    (yard.data / "model").mkdir()
    (yard.data / "model" / "0100.model").write_bytes(b"a model")


def test_model_in_the_folder_is_imported_at_creation(
    yard: Yard, client: FlaskClient, records: Records, queue: FakeQueue
):
    _put_model(yard)
    queue.on_send = lambda task: yard.finish(task.id)
    answer = client.put("/services/iris", json=yard.service_body())
    assert answer.status_code == 201
    task = records.tasks.get(answer.json["head"]["task_id"])
    assert (task.kind, task.queue) == (Kind.IMPORT, "control")
    assert "warnings" not in answer.json["head"]
    assert client.get("/services/iris").json["body"]["predict"] is True
    again = client.put("/services/twin", json=yard.service_body())
    assert again.json == {"status": {"code": 201, "msg": "Created"}}


def test_model_that_cannot_be_imported_is_warned_of(yard: Yard, client: FlaskClient, queue: FakeQueue):
    _put_model(yard)
    failure = {"kind": "model_unusable", "message": "0100.model is no xgboost model"}
    queue.on_send = lambda task: yard.finish(task.id, State.FAILED, failure)
    answer = client.put("/services/iris", json=yard.service_body())
    assert answer.status_code == 201
    assert "0100.model is no xgboost model" in answer.json["head"]["warnings"][0]["message"]
    assert client.get("/services/iris").json["body"]["predict"] is False


def test_creation_does_not_wait_for_an_import_that_nobody_heard_of(yard: Yard, client: FlaskClient, live: FakeLive):
    _put_model(yard)
    live.is_down = True
    answer = client.put("/services/iris", json=yard.service_body())
    assert answer.status_code == 201
    assert "still being taken over" in answer.json["head"]["warnings"][0]["message"]


# Deleting


def test_deleted_service_is_gone_and_its_files_stay(yard: Yard, client: FlaskClient):
    yard.create()
    answer = client.delete("/services/Iris")
    assert answer.status_code == 200
    assert answer.json == {"status": {"code": 200, "msg": "OK"}}
    assert client.get("/services/iris").status_code == 404
    assert (yard.data / "model" / "config.json").exists()
    yard.create()


def test_delete_ends_the_jobs_first(yard: Yard, client: FlaskClient, records: Records):
    yard.create()
    tasks = [yard.train(), yard.train()]
    assert client.delete("/services/iris?clear=nonsense").status_code == 200
    assert [records.tasks.get(task_id).state for task_id in tasks] == [State.CANCELLED, State.CANCELLED]


def test_delete_keeps_the_service_when_a_job_does_not_end_in_time(
    yard: Yard, client: FlaskClient, records: Records, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.services.END_WAIT_S", 0.0)
    yard.create()
    records.tasks.claim(yard.train(), "worker", 20.0)
    answer = client.delete("/services/iris")
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "5"
    assert client.get("/services/iris").status_code == 200


@pytest.mark.parametrize("mode", ["lib", "index", "full", "dir"])
def test_clear_is_a_task_that_the_call_awaits(
    yard: Yard, client: FlaskClient, records: Records, queue: FakeQueue, mode: str
):
    yard.create()
    queue.on_send = lambda task: yard.finish(task.id)
    answer = client.delete(f"/services/iris?clear={mode}")
    assert answer.status_code == 200
    task = records.tasks.get(answer.json["head"]["task_id"])
    assert (task.kind, task.queue, task.state) == (Kind.CLEAR, "control", State.FINISHED)
    spec = records.tasks.spec(task.id)
    assert spec == {
        "service": "iris",
        "mode": mode,
        "mllib": "xgboost",
        "repository_id": task.repository_id,
        "db": False,
    }
    assert client.get("/services/iris").status_code == 404


def test_clear_that_fails_keeps_the_service_and_says_why(yard: Yard, client: FlaskClient, queue: FakeQueue):
    yard.create()
    failure = {"kind": "repository_unusable", "message": "x.model cannot be removed: Permission denied"}
    queue.on_send = lambda task: yard.finish(task.id, State.FAILED, failure)
    answer = client.delete("/services/iris?clear=full")
    assert answer.status_code == 400
    assert answer.json["status"]["dd_code"] == 1006
    assert "Permission denied" in answer.json["status"]["dd_msg"]
    assert client.get("/services/iris").status_code == 200


def test_clear_that_nobody_can_do_now_is_not_done_later(
    yard: Yard, client: FlaskClient, records: Records, live: FakeLive, monkeypatch: pytest.MonkeyPatch
):
    yard.create()
    live.is_down = True
    assert client.delete("/services/iris?clear=full").status_code == 503
    live.is_down = False
    monkeypatch.setattr("api.services.END_WAIT_S", 0.0)
    answer = client.delete("/services/iris?clear=full")
    assert answer.status_code == 503
    assert "no control worker runs" in answer.json["status"]["message"]
    tasks = records.tasks.page(records.accounts.ensure("local").id, limit=10)
    assert [task.state for task in tasks] == [State.CANCELLED, State.CANCELLED]
    assert client.get("/services/iris").status_code == 200


def test_whole_data_root_is_never_cleared(yard: Yard, client: FlaskClient, data: Path):
    yard.create(model={"repository": str(data)})
    for mode in ("full", "dir"):
        answer = client.delete(f"/services/iris?clear={mode}")
        assert answer.status_code == 400
        assert "a whole data root" in answer.json["status"]["dd_msg"]
    assert client.delete("/services/iris").status_code == 200


# The list


def test_services_are_listed_page_by_page_newest_first(yard: Yard, client: FlaskClient):
    for name in ("c", "a", "b"):
        yard.create(name, model={"repository": name})
    first = client.get("/services?limit=2").json["body"]
    assert [each["name"] for each in first["services"]] == ["b", "a"]
    assert "jobs" not in first["services"][0]
    yard.create("d", model={"repository": "d"})
    client.delete("/services/a")
    second = client.get(f"/services?limit=2&cursor={first['next_cursor']}").json["body"]
    assert ([each["name"] for each in second["services"]], second["next_cursor"]) == (["c"], None)


def test_services_are_filtered(yard: Yard, client: FlaskClient):
    yard.create()
    torch = yard.service_body(mllib="torch", model={"repository": "net"})
    torch["parameters"]["mllib"]["template"] = "mlp"
    assert client.put("/services/net", json=torch).status_code == 201

    def names(query: str) -> list[str]:
        return [each["name"] for each in client.get(f"/services?{query}").json["body"]["services"]]

    assert names("mllib=torch&status=true") == ["net"]
    assert names("since=2020-01-01&until=2999-01-01") == ["net", "iris"]
    assert names("since=2999-01-01") == []


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("limit=none", "limit is 'none'"),
        ("cursor=first", "cursor cannot be read"),
        ("mllib=none", "use one of"),
        ("since=soon", "in ISO 8601"),
        ("status=maybe", "must be a boolean value"),
        ("label=a", "unknown"),
    ],
)
def test_bad_query_of_the_list_is_refused(client: FlaskClient, query: str, text: str):
    answer = client.get(f"/services?{query}")
    assert answer.status_code == 400
    assert answer.json["status"]["dd_code"] == 400
    assert text in answer.json["status"]["dd_msg"]
