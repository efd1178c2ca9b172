"""Bad input of /train: its calls, and the options of a training."""

from __future__ import annotations

from tests.e2e.bad_requests.cases import Json, request, train
from tests.e2e.bad_requests.stage import SERVICE, training_body
from tests.e2e.conftest import Answer, Client

# Calls of /train


@request
def train_service_missing(client: Client) -> Answer:
    return client.call("POST", "/train", {"data": ["x"]})


@request
def train_service_no_text(client: Client) -> Answer:
    return client.call("POST", "/train", {**training_body(client), "service": 3})


@request
def train_service_unknown(client: Client) -> Answer:
    return client.call("POST", "/train", {**training_body(client), "service": "nobody"})


@request
def async_no_boolean(client: Client) -> Answer:
    return client.call("POST", "/train", {**training_body(client), "async": "yes"})


@request
def idempotency_key_used(client: Client) -> Answer:
    headers = {"Idempotency-Key": "bad-input"}
    body = {**training_body(client), "parameters": None}
    assert client.call("POST", "/train", body, headers).code == 201
    return client.call("POST", "/train", {**body, "data": ["other"]}, headers)


@request
def idempotency_key_too_long(client: Client) -> Answer:
    return client.call("POST", "/train", training_body(client), {"Idempotency-Key": "k" * 300})


@request
def job_missing(client: Client) -> Answer:
    return client.call("GET", f"/train?service={SERVICE}")


@request
def job_unknown(client: Client) -> Answer:
    return client.call("GET", f"/train?service={SERVICE}&job=9999")


@request
def job_to_delete_unknown(client: Client) -> Answer:
    return client.call("DELETE", f"/train?service={SERVICE}&job=9999")


@request
def poll_service_unknown(client: Client) -> Answer:
    return client.call("GET", "/train?service=nobody&job=1")


@request
def timeout_no_number(client: Client) -> Answer:
    return client.call("GET", f"/train?service={SERVICE}&job=1&timeout=soon")


@request
def hist_points_out_of_range(client: Client) -> Answer:
    return client.call("GET", f"/train?service={SERVICE}&job=1&parameters.output.max_hist_points=0")


# Options of trainings


@train
def label_missing(client: Client) -> Json:
    return training_body(client, input={"label": None})


@train
def label_of_wrong_type(client: Client) -> Json:
    return training_body(client, input={"label": 3})


@train
def iterations_missing(client: Client) -> Json:
    return training_body(client, mllib={"iterations": None})


@train
def iterations_out_of_range(client: Client) -> Json:
    return training_body(client, mllib={"iterations": 0})


@train
def separator_too_wide(client: Client) -> Json:
    return training_body(client, input={"separator": "→"})


@train
def train_connector_unknown(client: Client) -> Json:
    return training_body(client, input={"connector": "image"})


@train
def train_parameters_no_object(client: Client) -> Json:
    return {**training_body(client), "parameters": "default"}
