"""Trainings through /train: started, polled, ended, refused."""

from __future__ import annotations

import io
import json
import os
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient

from storage.live.series import sampled
from storage.objects.base import Objects
from storage.records import Records, State
from tests.unit.api.conftest import REPORT, Yard
from tests.unit.api.fakes import FakeLive, FakeQueue


@pytest.fixture(autouse=True)
def _service(yard: Yard) -> None:
    yard.create()


def test_asynchronous_training_is_a_durable_task_that_was_sent(
    yard: Yard, client: FlaskClient, records: Records, queue: FakeQueue
):
    answer = client.post("/train", json=yard.train_body())
    assert answer.status_code == 201
    task_id = answer.json["head"]["task_id"]
    assert answer.json == {
        "status": {"code": 201, "msg": "Created"},
        "head": {"method": "/train", "job": 1, "status": "running", "task_id": task_id},
    }
    task = records.tasks.get(task_id)
    assert (task.state, task.queue, task.job) == (State.QUEUED, "train.cpu", 1)
    assert queue.sent == [task_id]
    spec = records.tasks.spec(task_id)
    assert spec == {
        "service": "iris",
        "mllib": "xgboost",
        "connector": "csv",
        "device": "cpu",
        "parameters": {
            "input": {"connector": "csv", "label": "target"},
            "mllib": {"nclasses": 3, "iterations": 5},
            "output": {"measure": ["acc"]},
        },
        "request": yard.train_body(),
        "data": [str(yard.data / "train.csv")],
    }
    assert json.loads((yard.data / "model" / "model.json").read_text()) == yard.train_body()


def test_absent_async_means_asynchronous(yard: Yard, client: FlaskClient):
    body = yard.train_body()
    del body["async"]
    assert client.post("/train", json=body).json["head"]["status"] == "running"


def test_training_is_accepted_while_redis_is_down(yard: Yard, live: FakeLive, queue: FakeQueue, records: Records):
    live.is_down = True
    task_id = yard.train()
    assert queue.sent == []
    assert records.tasks.get(task_id).state is State.QUEUED
    answer = yard.client.get("/train?service=iris&job=1").json
    assert answer["head"]["status"] == "running"
    assert answer["body"]["measure"] == {}


def test_second_training_of_a_repository_waits_and_is_not_sent(yard: Yard, queue: FakeQueue):
    first, second = yard.train(), yard.train()
    assert queue.sent == [first]
    assert yard.client.get("/train?service=iris&job=2").json["head"]["status"] == "running"
    assert second == first + 1


def test_running_job_tells_measures_and_histories(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.told[task_id] = {
        "attempt": 1,
        "phase": "training",
        "percent": 40.0,
        "measure": {"iteration": 1.0, "acc": 0.5, "train_loss": float("nan")},
    }
    live.progress.points[task_id, 1] = [{"iteration": 0, "acc": 0.4}, {"iteration": 1, "acc": float("inf")}]
    live.progress.of_steps[task_id, 1] = {"series": {"train_loss_hist": [3.0, 2.0, 1.0]}, "stride": 5}
    answer = client.get("/train?service=iris&job=1&timeout=0&parameters.output.max_hist_points=2")
    assert b"NaN" not in answer.data
    assert b"Infinity" not in answer.data
    assert answer.json["head"] == {
        "method": "/train",
        "job": 1,
        "status": "running",
        "time": answer.json["head"]["time"],
        "task_id": task_id,
    }
    assert answer.json["body"] == {
        "measure": {"iteration": 1.0, "acc": 0.5},
        "measure_hist": {"iteration_hist": [0, 1], "acc_hist": [0.4, None], "train_loss_hist": [3.0, 1.0]},
        "measure_sampling": {"train_loss_sampling": 10},
        "model": {"repository": str(yard.data / "model")},
        "mltype": "classification",
        "sname": "iris",
        "description": "iris",
    }


def test_progress_of_an_earlier_attempt_is_not_shown(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    task_id = yard.train()
    records.tasks.claim(task_id, "worker", 20.0)
    live.progress.told[task_id] = {"attempt": 7, "percent": 99.0, "measure": {"acc": 1.0}}
    assert client.get("/train?service=iris&job=1").json["body"]["measure"] == {}


def test_finished_job_stays_readable(yard: Yard, client: FlaskClient):
    yard.finish(yard.train())
    for _ in range(2):
        answer = client.get("/train?service=iris&job=1").json
        assert answer["head"]["status"] == "finished"
        assert answer["body"]["measure"] == REPORT["measure"]
        assert answer["body"]["measures"] == REPORT["measures"]
        assert answer["body"]["measure_hist"] == REPORT["measure_hist"]
        assert answer["body"]["measure_sampling"] == {}
        assert answer["body"]["parameters"] == {"input": {"connector": "csv"}}


def test_histories_are_cut_to_every_kth_point():
    hist = {"acc_hist": [0, 1, 2, 3, 4], "f1_hist": [0, 1]}
    assert sampled(hist, 2) == ({"acc_hist": [0, 3], "f1_hist": [0, 1]}, {"acc_sampling": 3})
    assert sampled(hist, 5) == (hist, {})


def test_max_hist_points_of_the_query_is_obeyed(yard: Yard, client: FlaskClient):
    yard.finish(yard.train())
    answer = client.get(
        "/train?service=iris&job=1&parameters.output.max_hist_points=2&parameters.output.measure_hist=True"
    )
    assert answer.json["body"]["measure_hist"]["acc_hist"] == [0.5, 0.72]
    assert answer.json["body"]["measure_sampling"]["acc_sampling"] == 3


def test_failed_job_answers_200_with_the_error(yard: Yard, client: FlaskClient):
    failure = {
        "kind": "bad_input",
        "message": "cannot find label column target",
        "section": "input",
        "phase": "reading",
    }
    yard.finish(yard.train(), State.FAILED, failure)
    answer = client.get("/train?service=iris&job=1")
    assert answer.status_code == 200
    assert answer.json["status"] == {"code": 200, "msg": "OK"}
    assert answer.json["head"]["status"] == "error"
    assert "time" not in answer.json["head"]
    assert answer.json["body"] == {
        "Error": {
            "code": 400,
            "msg": "BadRequest",
            "dd_code": 1005,
            "dd_msg": "Service Input Error: cannot find label column target",
        }
    }


@pytest.mark.parametrize(
    ("changes", "dd_code", "text"),
    [
        ({"data": []}, 1005, "missing data"),
        ({"data": "train.csv"}, 1005, "missing data"),
        ({"data": [1, 2]}, 1005, "missing data"),
        ({"parameters": {"mllib": {"iterations": 5}}}, 1005, "missing label column parameter"),
        ({"parameters": {"input": {"label": "target"}, "mllib": {"iterations": "many"}}}, 1006, "iterations"),
        ({"parameters": {"input": {"label": "target", "connector": "image"}}}, 1004, "Input Connector Not Found"),
        ({"parameters": []}, 400, "parameters"),
        ({"parameters": {"input": 3}}, 1005, "parameters.input is 3"),
        ({"parameters": {"input": {"label": "target", "connector": 3}}}, 1005, "connector is 3"),
        ({"data": ["/etc/passwd"]}, 1005, "outside of the data roots"),
        ({"data": ["{data}/../../etc/passwd"]}, 1005, "outside of the data roots"),
    ],
)
def test_fault_in_an_asynchronous_request_becomes_the_error_of_its_job(
    yard: Yard, client: FlaskClient, queue: FakeQueue, changes: dict, dd_code: int, text: str
):
    body = json.loads(json.dumps(yard.train_body(**changes)).replace("{data}", str(yard.data)))
    answer = client.post("/train", json=body)
    assert answer.status_code == 201
    assert answer.json["head"]["status"] == "running"
    assert queue.sent == []
    polled = client.get("/train?service=iris&job=1").json
    assert polled["head"]["status"] == "error"
    assert polled["body"]["Error"]["dd_code"] == dd_code
    assert text in polled["body"]["Error"]["dd_msg"]
    blocked = client.post("/train", json={**body, "async": False})
    assert blocked.status_code == polled["body"]["Error"]["code"]
    assert blocked.json["status"] == polled["body"]["Error"]


@pytest.mark.parametrize(
    ("content", "more", "text"),
    [
        (None, {}, "data file {path} does not exist"),
        (b"", {}, "missing data: {path} is empty"),
        (b"\n \n", {}, "missing data: {path} is empty"),
        (b"a,b,target\n", {}, "{path} has a header line but no rows"),
        (b"a,b\n1,2\n", {}, "cannot find label column target in {path}; its columns are a, b"),
        (b"a;target\n1;2\n", {}, "set parameters.input.separator to ';'?"),
        (b"a,a,target\n1,2,3\n", {}, "column a stands twice"),
        (b"a,target\n1,2\n", {"id": "number"}, "cannot find id column number"),
        (b"a,target\n1,2\n", {"ignore": ["b"]}, "cannot find column b of parameters.input.ignore"),
        (b"a,target\n1,2\n", {"ignore": ["a"]}, "has no feature column"),
        (b"a,\0\n1,2\n", {}, "is not a text file"),
    ],
)
@pytest.mark.parametrize("place", ["root", "data set"])
def test_data_that_no_training_can_be_made_of_is_told_before_it_waits(
    yard: Yard, client: FlaskClient, queue: FakeQueue, content: bytes | None, more: dict, text: str, place: str
):
    path = str(yard.data / "few.csv")
    if place == "data set":
        if content is None:
            pytest.skip("a data set tells itself what it does not hold")
        client.put("/datasets/flowers")
        form = {"file": (io.BytesIO(content), "few.csv")}
        assert client.post("/datasets/flowers/files", data=form).status_code == 201
        path = "dataset://flowers/few.csv"
    elif content is not None:
        Path(path).write_bytes(content)
    body = yard.train_body(data=[path])
    body["parameters"]["input"] |= more
    refused = client.post("/train", json={**body, "async": False})
    assert refused.status_code == 400
    assert refused.json["status"]["dd_code"] == 1005
    assert text.format(path=path) in refused.json["status"]["dd_msg"]
    task_id = client.post("/train", json=body).json["head"]["task_id"]
    assert client.get(f"/tasks/{task_id}").json["failure"]["phase"] == "accepting"
    assert queue.sent == []


def test_test_file_is_looked_at_as_well(yard: Yard, client: FlaskClient):
    good = str(yard.data / "train.csv")
    refused = client.post(
        "/train", json=yard.train_body(data=[good, str(yard.data / "no.csv"), "/"], **{"async": False})
    )
    assert refused.status_code == 400
    (yard.data / "only.csv").write_text("other\n1\n")  # its columns are for the worker to compare
    assert yard.train(data=[good, str(yard.data / "only.csv")]) > 0


def test_what_cannot_be_looked_at_here_is_left_to_the_worker(yard: Yard, client: FlaskClient):
    yard.train(data=["a,target", "1,2"])
    hidden = yard.data / "hidden.csv"
    hidden.write_text("b\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.prechecks.os.access", lambda *_: False)
        yard.train(data=[str(hidden)])
    closed = yard.data / "closed"
    closed.mkdir()

    def lstat(path: Path) -> os.stat_result:
        if path.parent == closed:
            raise PermissionError(path)
        return os.lstat(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("api.prechecks.Path.lstat", lstat)
        patch.setattr("api.prechecks.FileBytes", None)
        yard.train(data=[str(closed / "train.csv")])
    long = yard.data / "long.csv"
    long.write_text(",".join(f"column{number}" for number in range(200_000)) + "\n1\n")  # its header is too long
    yard.train(data=[str(long)])
    blank = yard.data / "blank.csv"
    blank.write_text(" " * 3_000_000)
    yard.train(data=[str(blank)])
    states = {task["state"] for task in client.get("/tasks").json["tasks"]}
    assert states == {"queued"}


def test_link_that_leads_out_of_the_data_roots_is_refused(yard: Yard, client: FlaskClient, tmp_path: Path):
    (tmp_path / "secret.csv").write_text("a\n1\n")
    (yard.data / "link.csv").symlink_to(tmp_path / "secret.csv")
    answer = client.post("/train", json=yard.train_body(data=[str(yard.data / "link.csv")], **{"async": False}))
    assert answer.status_code == 400
    assert "outside of the data roots" in answer.json["status"]["dd_msg"]


def test_blocking_training_answers_at_its_end(yard: Yard, client: FlaskClient, queue: FakeQueue):
    queue.on_send = lambda task: yard.finish(task.id)
    body = yard.train_body(**{"async": False})
    answer = client.post("/train", json=body)
    assert answer.status_code == 201
    assert answer.json["head"] == {"method": "/train", "time": 0.0, "task_id": 1}
    assert answer.json["body"]["measure"] == REPORT["measure"]
    assert answer.json["body"]["model"] == {"repository": str(yard.data / "model")}
    assert answer.json["body"]["parameters"] == REPORT["parameters"]
    assert "measure_hist" not in answer.json["body"]
    body["parameters"]["output"]["measure_hist"] = True
    assert client.post("/train", json=body).json["body"]["measure_hist"] == REPORT["measure_hist"]


def test_what_a_service_says_of_histories_holds_for_its_trainings(yard: Yard, client: FlaskClient, queue: FakeQueue):
    queue.on_send = lambda task: yard.finish(task.id)
    output = {"measure_hist": True, "max_hist_points": 2}
    service = yard.service_body(model={"repository": "other"})
    service["parameters"] = {**service["parameters"], "output": output}
    assert client.put("/services/other", json=service).status_code == 201
    body = {**yard.train_body(**{"async": False}), "service": "other"}
    body["parameters"] = {**body["parameters"], "output": {}}
    answer = client.post("/train", json=body)
    assert answer.json["body"]["measure_hist"]["acc_hist"] == [0.5, 0.72]
    poll = "/train?service=other&job=1"
    assert client.get(poll).json["body"]["measure_hist"]["acc_hist"] == [0.5, 0.72]
    more = client.get(f"{poll}&parameters.output.max_hist_points=5").json["body"]
    assert more["measure_hist"] == REPORT["measure_hist"]
    body["parameters"]["output"] = {"max_hist_points": 3, "measure_hist": False}
    assert "measure_hist" not in client.post("/train", json=body).json["body"]
    assert client.get("/train?service=other&job=2").json["body"]["measure_hist"]["acc_hist"] == [0.5, 0.7, 0.75]


def test_blocking_training_that_fails_answers_with_its_error(yard: Yard, client: FlaskClient, queue: FakeQueue):
    failure = {
        "kind": "killed",
        "message": "the training process ended by SIGKILL",
        "section": None,
        "phase": "training",
    }
    queue.on_send = lambda task: yard.finish(task.id, State.FAILED, failure)
    answer = client.post("/train", json=yard.train_body(**{"async": False}))
    assert answer.status_code == 500
    assert answer.json["status"] == {
        "code": 500,
        "msg": "InternalError",
        "dd_code": 1007,
        "dd_msg": "the training process ended by SIGKILL",
    }
    assert answer.json["head"]["task_id"] == 1


def test_deleted_job_reads_404_and_its_task_tells_its_end(yard: Yard, client: FlaskClient, records: Records):
    task_id = yard.train()
    answer = client.delete("/train?service=IRIS&job=1")
    assert answer.status_code == 200
    assert answer.json["head"]["status"] == "terminated"
    assert answer.json["head"]["task_id"] == task_id
    gone = client.get("/train?service=iris&job=1")
    assert gone.status_code == 404
    assert gone.json == {
        "status": {
            "code": 404,
            "msg": "NotFound",
            "dd_code": 1003,
            "dd_msg": "Job Not Found",
            "message": "job 1 does not exist",
        },
        "head": {"method": "/train", "job": 1},
    }
    assert records.tasks.get(task_id).state is State.CANCELLED


def test_deleting_a_waiting_job_lets_the_next_one_start(yard: Yard, client: FlaskClient, queue: FakeQueue):
    first, second = yard.train(), yard.train()
    client.delete("/train?service=iris&job=1")
    assert queue.sent == [first, second]


def test_deleting_an_ended_job_keeps_it(yard: Yard, client: FlaskClient):
    task_id = yard.train()
    yard.finish(task_id)
    answer = client.delete("/train?service=iris&job=1")
    assert answer.status_code == 200
    assert answer.json["head"] == {"method": "/train", "job": 1, "task_id": task_id}
    assert client.get("/train?service=iris&job=1").json["head"]["status"] == "finished"


def test_running_job_is_hinted_and_waited_for(
    yard: Yard, client: FlaskClient, records: Records, live: FakeLive, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("api.services.END_WAIT_S", 0.0)
    task_id = yard.train()
    attempt = records.tasks.claim(task_id, "worker", 20.0)
    assert attempt is not None
    answer = client.delete("/train?service=iris&job=1")
    assert answer.json["head"]["status"] == "cancelling"
    assert live.progress.hinted == [task_id]
    records.tasks.end(attempt, State.CANCELLED, phases={})
    assert client.get("/train?service=iris&job=1").json["head"]["status"] == "terminated"


@pytest.mark.parametrize("query", ["service=iris", "service=iris&job=9", "service=iris&job=abc", "service=iris&job=-1"])
@pytest.mark.parametrize("verb", ["GET", "DELETE"])
def test_unknown_job_is_1003(client: FlaskClient, query: str, verb: str):
    answer = client.open(f"/train?{query}", method=verb)
    assert answer.status_code == 404
    assert answer.json["status"]["dd_code"] == 1003
    assert answer.json["head"]["method"] == "/train"


def test_unknown_service_is_1002_and_a_missing_one_400(yard: Yard, client: FlaskClient):
    for answer in (
        client.post("/train", json=yard.train_body(service="nobody")),
        client.get("/train?service=nobody&job=1"),
        client.delete("/train?service=nobody&job=1"),
    ):
        assert answer.status_code == 404
        assert answer.json["status"]["dd_code"] == 1002
    for answer in (
        client.post("/train", json={"data": ["x"]}),
        client.post("/train", json={"service": 3}),
        client.get("/train?job=1"),
    ):
        assert answer.status_code == 400
        assert "dd_code" not in answer.json["status"]
        assert "service is" in answer.json["status"]["message"]


def test_numeric_service_name_works_in_query_strings(yard: Yard, client: FlaskClient):
    yard.create("42", model={"repository": "numbers", "create_repository": True})
    assert client.post("/train", json=yard.train_body(service="42")).status_code == 201
    assert client.get("/train?service=42&job=1").json["head"]["status"] == "running"


@pytest.mark.parametrize("query", ["timeout=soon", "parameters.output.max_hist_points=0", "timeout=true"])
def test_bad_query_is_400(yard: Yard, client: FlaskClient, query: str):
    yard.train()
    answer = client.get(f"/train?service=iris&job=1&{query}")
    assert answer.status_code == 400
    assert answer.json["status"]["dd_code"] == 400


def test_repeated_request_gives_the_same_task(yard: Yard, client: FlaskClient, records: Records, queue: FakeQueue):
    headers = {"Idempotency-Key": "once"}
    first = client.post("/train", json=yard.train_body(), headers=headers)
    again = client.post("/train", json=yard.train_body(), headers=headers)
    assert again.status_code == first.status_code == 201
    assert again.json == first.json
    assert queue.sent == [1]
    other = client.post("/train", json=yard.train_body(data=["other.csv"]), headers=headers)
    assert other.status_code == 409
    assert "Idempotency-Key 'once'" in other.json["status"]["message"]
    assert json.loads((yard.data / "model" / "model.json").read_text()) == yard.train_body()
    bad = client.post("/train", json=yard.train_body(), headers={"Idempotency-Key": "x" * 256})
    assert bad.status_code == 400


def test_bulky_data_goes_to_the_object_store(yard: Yard, client: FlaskClient, records: Records, objects: Objects):
    lines = ["a,b,target"] + [f"{number},{number},{number % 3}" for number in range(20_000)]
    task_id = yard.train(data=lines)
    spec = records.tasks.spec(task_id)
    assert "data" not in spec
    assert "data" not in spec["request"]
    assert json.loads(objects.get_bytes(spec["data_key"])) == lines
    assert records.tasks.open_data_keys() == {spec["data_key"]}


def test_repeated_bulky_request_leaves_no_second_copy(yard: Yard, client: FlaskClient, objects: Objects):
    body = yard.train_body(data=["a,b,target"] + ["1.0,2.0,0"] * 10_000)
    for _ in range(2):
        assert client.post("/train", json=body, headers={"Idempotency-Key": "once"}).status_code == 201
    assert len(list(objects.list("inputs"))) == 1


def test_unknown_parameters_come_back_as_warnings(yard: Yard, client: FlaskClient):
    body = yard.train_body(asynk=True)
    body["parameters"]["mllib"]["iteratons"] = 3
    answer = client.post("/train", json=body)
    told = {each["parameter"]: each["message"] for each in answer.json["head"]["warnings"]}
    assert "did you mean 'async'?" in told["asynk"]
    assert "did you mean 'iterations'?" in told["parameters.mllib.iteratons"]
    polled = client.get("/train?service=iris&job=1").json
    assert polled["head"]["warnings"] == answer.json["head"]["warnings"]


def test_gpu_without_a_gpu_worker_uses_the_cpu_and_warns(yard: Yard, client: FlaskClient, records: Records):
    body = yard.train_body()
    body["parameters"]["mllib"]["gpu"] = True
    answer = client.post("/train", json=body)
    assert [each["parameter"] for each in answer.json["head"]["warnings"]] == ["parameters.mllib.gpu"]
    assert records.tasks.get(answer.json["head"]["task_id"]).queue == "train.cpu"


def test_gpu_with_a_gpu_worker_uses_its_queue(yard: Yard, client: FlaskClient, records: Records, live: FakeLive):
    from storage.live import Heartbeat

    live.heartbeats.beats.append(Heartbeat("gpu@there", ("train.gpu",), ("cuda",)))
    body = yard.train_body()
    body["parameters"]["mllib"]["gpu"] = True
    answer = client.post("/train", json=body)
    assert "warnings" not in answer.json["head"]
    task_id = answer.json["head"]["task_id"]
    assert records.tasks.get(task_id).queue == "train.gpu"
    assert records.tasks.spec(task_id)["device"] == "cuda"


def test_repository_that_vanished_is_the_error_of_the_job(yard: Yard, client: FlaskClient):
    for each in (yard.data / "model").iterdir():
        each.unlink()
    (yard.data / "model").rmdir()
    yard.train()
    error = client.get("/train?service=iris&job=1").json["body"]["Error"]
    assert error["dd_code"] == 1006
    assert "is not writable or does not exist" in error["dd_msg"]


def test_call_that_would_wait_is_refused_when_too_many_wait(yard: Yard, client: FlaskClient, app):
    yard.train()
    slots = app.extensions["modelyard"].slots
    with ExitStack() as stack:
        for number in range(slots.count):
            stack.enter_context(slots.held(1000 + number))
        for answer in (
            client.get("/train?service=iris&job=1&timeout=5"),
            client.delete("/train?service=iris&job=1"),
            client.post("/train", json=yard.train_body(**{"async": False})),
        ):
            assert answer.status_code == 503
            assert answer.headers["Retry-After"] == "1"
        assert client.get("/train?service=iris&job=1&timeout=0").status_code == 200


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"parametres": {}}, "parametres is unknown to /train and was ignored; did you mean 'parameters'?"),
        ({"mllib": {"iterations": 5}}, "mllib was ignored: it belongs into parameters"),
        ({"parameters": {"input": {"label": "target"}, "mllib": {"iteration": 5}}}, "did you mean 'iterations'?"),
    ],
)
def test_what_is_missing_may_stand_there_under_another_name(
    yard: Yard, client: FlaskClient, changes: dict[str, Any], told: str
):
    body = {**yard.train_body(parameters={"input": {"label": "target"}}), **changes, "async": False}
    refused = client.post("/train", json=body).json["status"]["dd_msg"]
    assert "parameters.mllib.iterations is missing; give the number of rounds to train; " in refused
    assert told in refused


def test_data_that_is_no_array_of_texts_is_told_how_to_be_written(yard: Yard, client: FlaskClient):
    for data, told in (
        ("train.csv", 'must be an array of texts, with at least one, as in ["train.csv"]'),
        ([[1.5, 2]], 'each a whole row as in "5.1,3.5"; [1.5, 2] is none'),
    ):
        refused = client.post("/train", json=yard.train_body(data=data, **{"async": False}))
        assert (refused.status_code, refused.json["status"]["dd_code"]) == (400, 1005)
        assert told in refused.json["status"]["dd_msg"]


def test_name_of_a_missing_file_is_told_as_its_path_is(yard: Yard, client: FlaskClient):
    for name in ("none.csv", "./none.csv", "folder/none.csv"):
        refused = client.post("/train", json=yard.train_body(data=[name], **{"async": False}))
        assert (refused.status_code, refused.json["status"]["dd_code"]) == (400, 1005)
        assert f"data file {name} does not exist in the data roots ({yard.data})" in refused.json["status"]["dd_msg"]
    client.put("/datasets/bare")
    refused = client.post("/train", json=yard.train_body(data=["dataset://bare"], **{"async": False}))
    assert "'dataset://bare' holds no file; upload one" in refused.json["status"]["dd_msg"]
