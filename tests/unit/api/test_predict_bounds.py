"""Bulky bodies and long parameters hold up nobody else."""

from __future__ import annotations

import hashlib
import json
from contextlib import ExitStack

import orjson
import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.accepting import repeatable
from storage.objects.base import Objects
from tests.unit.api.conftest import Json, Yard
from tests.unit.api.fakes import FakeQueue, predicted

LINES = ["größe, 1", '"a", "b"', "1,2"] * 100_000


@pytest.fixture
def trained(yard: Yard) -> Yard:
    yard.create()
    yard.finish(yard.train())
    return yard


def test_parameters_of_more_than_a_mebibyte_are_refused(trained: Yard, client: FlaskClient, queue: FakeQueue):
    for more in ({}, {"async": True}):
        body = {"service": "iris", "data": ["1,2"], "parameters": {"note": "x" * 2**20}, **more}
        answer = client.post("/predict", json=body)
        assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 400)
        assert "they may have 1048576" in answer.json["status"]["dd_msg"]
    assert (queue.asked, queue.sent) == ([], [1])
    body["parameters"] = {"note": "x" * 1_000_000}
    assert client.post("/predict", json=body).status_code == 201


def test_parameters_of_a_service_count_with_those_of_the_request(yard: Yard, client: FlaskClient):
    mine = {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {}, "note": "x" * 600_000}
    yard.create(parameters=mine)
    yard.finish(yard.train())
    asked: Json = {"service": "iris", "data": ["1,2"]}
    assert client.post("/predict", json=asked).status_code == 200
    refused = client.post("/predict", json={**asked, "parameters": {"other": "x" * 600_000}})
    assert refused.status_code == 400
    assert "parameters, with those of the service, have 12" in refused.json["status"]["dd_msg"]


def test_bulky_data_are_stored_as_workers_hand_them_on(
    trained: Yard, client: FlaskClient, queue: FakeQueue, objects: Objects
):
    seen: list[bytes] = []

    def reply(request: Json):
        seen.append(objects.get_bytes(request["data_key"]))
        return predicted([])

    queue.reply = reply
    assert client.post("/predict", json={"service": "iris", "data": LINES}).status_code == 200
    assert seen == [orjson.dumps(LINES)]


@pytest.mark.parametrize(
    "data", [LINES, [], ["1,2"], LINES[:1000], LINES[:1001], None, "text", [[1], {"b": 1, "a": 2}]]
)
def test_digest_of_a_repeatable_request_is_that_of_its_canonical_json(data: object):
    body: Json = {"service": "iris", "data": data, "parameters": {"z": float("nan"), "a": ["ü", 1, None]}, "zz": {}}
    told = json.dumps(["POST", "/train", body], sort_keys=True, separators=(",", ":")).encode()
    found = repeatable("once", "POST", "/train", body)
    assert found is not None
    assert found.digest == hashlib.sha256(told).hexdigest()


def test_prediction_for_which_no_thread_may_wait_stores_nothing(
    trained: Yard, app: Flask, client: FlaskClient, queue: FakeQueue, objects: Objects
):
    waits = app.extensions["modelyard"].waits
    with ExitStack() as stack:
        for account in range(1000, 1000 + waits.count):
            stack.enter_context(waits.held(account))
        answer = client.post("/predict", json={"service": "iris", "data": LINES})
        assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
        assert (queue.asked, list(objects.list("inputs"))) == ([], [])
    assert client.post("/predict", json={"service": "iris", "data": LINES}).status_code == 200
