"""Predictions through /predict, with a worker that answers what the test says."""

from __future__ import annotations

import json

import pytest
from flask.testing import FlaskClient

from storage.objects.base import Objects
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive, FakeQueue


@pytest.fixture
def trained(yard: Yard) -> Yard:
    yard.create()
    yard.finish(yard.train())
    return yard


def ask(client: FlaskClient, **changes):
    return client.post("/predict", json={"service": "Iris", "data": ["1,2"], **changes})


def test_newest_version_answers(trained: Yard, client: FlaskClient, queue: FakeQueue):
    answer = ask(client, parameters={"output": {"best": 2}})
    assert answer.status_code == 200
    assert set(answer.json["head"]) == {"method", "time", "service"}
    assert (answer.json["head"]["method"], answer.json["head"]["service"]) == ("/predict", "iris")
    assert answer.json["body"] == {
        "predictions": [{"uri": "1", "classes": [{"prob": 0.9, "cat": "setosa", "last": True}]}]
    }
    [(request, name)] = queue.asked
    assert name == "predict.xgboost.cpu"
    assert request == {
        "repository_id": 1,
        "version_id": 1,
        "mllib": "xgboost",
        "connector": "csv",
        "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {"best": 2}},
        "device": "cpu",
        "data": ["1,2"],
    }


def test_old_version_answers_while_a_training_runs(trained: Yard, client: FlaskClient):
    trained.train()
    assert ask(client).status_code == 200


def test_first_training_is_a_conflict(yard: Yard, client: FlaskClient):
    yard.create()
    yard.train()
    answer = ask(client)
    assert answer.status_code == 409
    assert answer.json["status"]["dd_code"] == 1008
    assert answer.json["status"]["dd_msg"] == "Train / Predict Conflict"


def test_service_without_model_and_training_says_what_to_do(yard: Yard, client: FlaskClient):
    yard.create()
    answer = ask(client)
    assert answer.status_code == 400
    assert answer.json["status"]["dd_code"] == 1006
    assert "train it with POST /train" in answer.json["status"]["dd_msg"]


def test_measures_are_flat_and_come_without_predictions(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.reply = lambda request: {"measure": {"acc": 1.0, "mcll": float("nan")}, "timings": {}}
    answer = ask(client, parameters={"output": {"measure": ["acc"]}})
    assert answer.json["body"] == {"measure": {"acc": 1.0}}
    assert answer.json["head"]["time"] >= 0


@pytest.mark.parametrize(
    ("error", "http", "dd_code", "text"),
    [
        ({"kind": "bad_input", "message": "column a is not a number"}, 400, 1005, "Service Input Error: column a"),
        ({"kind": "bad_parameter", "message": "no", "section": "mllib"}, 400, 1006, "Service Bad Request Error: no"),
        ({"kind": "internal", "message": "unexpected error; the worker's log has it"}, 500, 1007, "unexpected"),
        ({"kind": "never heard of", "message": "odd"}, 500, 1007, "odd"),
    ],
)
def test_error_of_the_worker_is_the_answer(
    trained: Yard, client: FlaskClient, queue: FakeQueue, error: dict, http: int, dd_code: int, text: str
):
    queue.reply = lambda request: {"error": error}
    answer = ask(client)
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (http, dd_code)
    assert text in answer.json["status"]["dd_msg"]


def test_silence_and_a_dead_redis_are_503(trained: Yard, client: FlaskClient, queue: FakeQueue, live: FakeLive):
    queue.reply = None
    answer = ask(client)
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    live.is_down = True
    answer = ask(client)
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers


@pytest.mark.parametrize("given", [None, [], "1,2", [1, 2], {}])
def test_missing_data_is_1005(trained: Yard, client: FlaskClient, given):
    answer = ask(client, data=given)
    assert answer.status_code == 400
    assert answer.json["status"]["dd_code"] == 1005
    assert "missing data" in answer.json["status"]["dd_msg"]


def test_path_outside_of_the_data_roots_is_1005(trained: Yard, client: FlaskClient, queue: FakeQueue):
    answer = ask(client, data=["/etc/passwd"])
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 1005)
    assert queue.asked == []


def test_unknown_service_is_1002_before_anything_else(client: FlaskClient):
    answer = ask(client, service="nobody", data=None)
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (404, 1002)


def test_gpu_on_a_machine_without_one_is_warned_of(trained: Yard, client: FlaskClient):
    answer = ask(client, parameters={"mllib": {"gpu": True}})
    assert answer.status_code == 200
    assert answer.json["head"]["warnings"][0]["parameter"] == "parameters.mllib.gpu"


def test_predictions_are_counted(trained: Yard, client: FlaskClient, queue: FakeQueue):
    ask(client)
    ask(client)
    queue.reply = lambda request: {"error": {"kind": "bad_input", "message": "no"}}
    ask(client)
    stats = client.get("/services/iris").json["body"]["service_stats"]
    assert (stats["predict_count"], stats["predict_success"], stats["predict_failure"]) == (3, 2, 1)
    assert stats["inference_count"] == 2
    assert stats["avg_batch_size"] == 1.0
    assert stats["avg_predict_duration_ms"] == 3.0
    assert stats["avg_transform_duration_ms"] == 6.0
    assert stats["avg_predict_duration"] == 0.003


def test_bulky_data_travels_through_the_object_store_and_is_removed(
    trained: Yard, client: FlaskClient, queue: FakeQueue, objects: Objects
):
    lines = ["1,2"] * 400_000
    seen: list[list[str]] = []

    def reply(request):
        seen.append(json.loads(objects.get_bytes(request["data_key"])))
        return {"predictions": []}

    queue.reply = reply
    assert ask(client, data=lines).json["body"] == {"predictions": []}
    assert seen == [lines]
    assert list(objects.list("inputs")) == []


def test_only_post_predicts(client: FlaskClient):
    answer = client.get("/predict")
    assert answer.status_code == 404
    assert answer.json["status"]["msg"].startswith("Not Found: ")
