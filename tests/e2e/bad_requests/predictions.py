"""Bad input of /predict."""

from __future__ import annotations

import time
from typing import Any

from tests.e2e.bad_requests.cases import request
from tests.e2e.bad_requests.stage import NET_TRAINED, SERVICE, SVM_TRAINED, TRAINED, service_body, training_body
from tests.e2e.conftest import ALLOWED, ANSWER_BYTES, Answer, Client


def ask(client: Client, service: str = TRAINED, **changes: Any) -> Answer:
    """A prediction that works, changed."""
    return client.call("POST", "/predict", {"service": service, "data": ["1,2"], **changes})


@request
def predict_service_missing(client: Client) -> Answer:
    return client.call("POST", "/predict", {"data": ["1,2"]})


@request
def predict_service_unknown(client: Client) -> Answer:
    return ask(client, "nobody")


@request
def predict_without_model(client: Client) -> Answer:
    return ask(client, SERVICE)


@request
def predict_during_first_training(client: Client) -> Answer:
    body = service_body(client, model={"repository": "bad-input-first"})
    assert client.call("PUT", "/services/bad-input-first", body).code == 201
    started = {**training_body(client, mllib={"iterations": 1_000_000}), "service": "bad-input-first"}
    assert client.call("POST", "/train", started).code == 201
    try:
        return ask(client, "bad-input-first")
    finally:
        assert client.call("DELETE", "/services/bad-input-first").code == 200


@request
def predict_data_missing(client: Client) -> Answer:
    return ask(client, data=[])


@request
def predict_data_private(client: Client) -> Answer:
    return ask(client, data=[f"http://127.0.0.1:{client.port}/healthz"])


@request
def predict_data_host_refuses(client: Client) -> Answer:
    return ask(client, data=[f"http://{ALLOWED}:1/rows.csv"])


@request
def predict_data_bucket_off(client: Client) -> Answer:
    return ask(client, data=["s3://bucket/rows.csv"])


@request
def predict_parameters_too_long(client: Client) -> Answer:
    return ask(client, parameters={"note": "x" * 2**20})


@request
def predict_async_no_boolean(client: Client) -> Answer:
    return ask(client, **{"async": "yes"})


@request
def predict_async_without_model(client: Client) -> Answer:
    return ask(client, SERVICE, **{"async": True})


@request
def predict_async_data_missing(client: Client) -> Answer:
    return ask(client, **{"async": True, "data": []})


@request
def predict_async_path_outside(client: Client) -> Answer:
    return ask(client, **{"async": True, "data": ["/etc/passwd"]})


@request
def predict_async_template(client: Client) -> Answer:
    return ask(client, **{"async": True, "parameters": {"output": {"template": "{{head.method}}"}}})


@request
def predict_async_network(client: Client) -> Answer:
    network = {"url": f"http://{ALLOWED}:9/"}
    return ask(client, **{"async": True, "parameters": {"output": {"network": network}}})


@request
def predict_async_measure_as_table(client: Client) -> Answer:
    return ask(client, **{"async": True, "parameters": {"output": {"measure": ["acc"], "format": "parquet"}}})


@request
def predict_format_without_task(client: Client) -> Answer:
    return ask(client, parameters={"output": {"format": "jsonl"}})


@request
def predict_format_unknown(client: Client) -> Answer:
    return ask(client, parameters={"output": {"format": "xml"}})


@request
def result_of_no_prediction(client: Client) -> Answer:
    [task] = client.call("GET", "/tasks?kind=train&limit=1").json["tasks"]
    return client.call("GET", f"/tasks/{task['task_id']}/result")


@request
def result_of_failed_task(client: Client) -> Answer:
    missing = str(client.data / "no-such-file.csv")
    task_id = ask(client, **{"async": True, "data": [missing]}).json["head"]["task_id"]
    deadline = time.monotonic() + 120
    while client.call("GET", f"/tasks/{task_id}").json["state"] != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    return client.call("GET", f"/tasks/{task_id}/result")


@request
def result_deleted(client: Client) -> Answer:
    task_id = ask(client, **{"async": True}).json["head"]["task_id"]
    deadline = time.monotonic() + 120
    while client.call("GET", f"/tasks/{task_id}").json["state"] != "finished":
        assert time.monotonic() < deadline
        time.sleep(0.1)
    client.call("DELETE", f"/tasks/{task_id}/result")
    return client.call("GET", f"/tasks/{task_id}/result")


@request
def result_of_unknown_task(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999/result")


@request
def predict_option_of_wrong_type(client: Client) -> Answer:
    return ask(client, parameters={"output": {"best": "all"}})


@request
def predict_file_missing(client: Client) -> Answer:
    return ask(client, data=[str(client.data / "no-such-file.csv")])


@request
def predict_file_missing_by_name(client: Client) -> Answer:
    return ask(client, data=["no-such-file.csv"])


@request
def predict_path_outside(client: Client) -> Answer:
    return ask(client, data=["/etc/passwd"])


@request
def predict_file_is_a_folder(client: Client) -> Answer:
    (client.data / "folder").mkdir(exist_ok=True)
    return ask(client, data=[str(client.data / "folder")])


@request
def predict_wrong_number_of_columns(client: Client) -> Answer:
    return ask(client, data=["1,2,3,4,5"])


@request
def predict_text_in_numeric_column(client: Client) -> Answer:
    return ask(client, data=["1,two"])


@request
def predict_measure_without_labels(client: Client) -> Answer:
    return ask(client, parameters={"output": {"measure": ["acc"]}})


@request
def predict_nan(client: Client) -> Answer:
    return ask(client, NET_TRAINED, data=["nan,2,x"])


@request
def predict_infinity(client: Client) -> Answer:
    return ask(client, NET_TRAINED, data=["inf,2,x"])


@request
def predict_infinity_xgboost(client: Client) -> Answer:
    return ask(client, data=["inf,2"])


@request
def predict_nan_svm(client: Client) -> Answer:
    return ask(client, SVM_TRAINED, data=["1:nan 2:1"])


@request
def predict_infinity_svm(client: Client) -> Answer:
    return ask(client, SVM_TRAINED, data=["1:inf 2:1"])


@request
def predict_svm_word_broken(client: Client) -> Answer:
    return ask(client, SVM_TRAINED, data=["1=3"])


@request
def predict_category_unseen(client: Client) -> Answer:
    return ask(client, NET_TRAINED, data=["1,2,never"])


@request
def predict_mapping_differs(client: Client) -> Answer:
    given = {"categoricals_mapping": {"c": {"x": 0, "y": 1, "other": 2}}}
    return ask(client, NET_TRAINED, data=["1,2,x"], parameters={"input": given})


@request
def predict_bounds_of_wrong_length(client: Client) -> Answer:
    given = {"scale": True, "min_vals": [0], "max_vals": [1]}
    return ask(client, NET_TRAINED, data=["1,2,x"], parameters={"input": given})


@request
def predict_layer_unknown(client: Client) -> Answer:
    given = {"mllib": {"extract_layer": "fc9"}}
    return ask(client, NET_TRAINED, data=["1,2,x"], parameters=given)


@request
def predict_answer_too_large(client: Client) -> Answer:
    return ask(client, data=["1,2"] * (ANSWER_BYTES // 50))
