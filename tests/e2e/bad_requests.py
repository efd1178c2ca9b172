"""Every bad input that `docs/errors.md` lists, as a request. The names are those of the table's first column."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import socket
import tarfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.e2e.conftest import ALLOWED, LIMIT_BYTES, Answer, Client
from tests.receiver import answer, receiving

Json = dict[str, Any]

SERVICE = "bad-input"
"""A service without a model; its trainings all fail."""

TRAINED = "bad-input-trained"
"""A service with a model."""

NET = "bad-input-net"
"""A service of torch without a model; its trainings all fail."""

NET_TRAINED = "bad-input-net-trained"
"""A service of torch with a model: of a, b and the categories of c."""

SVM = "bad-input-svm"
"""A service of torch that reads svm lines, without a model; its trainings all fail."""

SVM_TRAINED = "bad-input-svm-trained"
"""The same with a model."""


@dataclass
class Cases:
    """What is sent, by name. Trainings are bodies of POST /train; the others answer themselves."""

    trainings: dict[str, Callable[[Client], Json]] = field(default_factory=dict)
    requests: dict[str, Callable[[Client], Answer]] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        """Of all cases."""
        return [*self.requests, *self.trainings]


CASES = Cases()


def request(make: Callable[[Client], Answer]) -> Callable[[Client], Answer]:
    """Register a case that sends its request itself."""
    CASES.requests[_name(make)] = make
    return make


def train(make: Callable[[Client], Json]) -> Callable[[Client], Json]:
    """Register a case that changes a training which would work otherwise."""
    CASES.trainings[_name(make)] = make
    return make


def _name(make: Callable[..., Any]) -> str:
    return str(make.__name__).replace("_", "-")


# The stage


NETWORK: Json = {"template": "mlp", "layers": [4], "nclasses": 2}


def service_body(client: Client, **changes: Any) -> Json:
    """A creation that works."""
    return {
        "mllib": "xgboost",
        "model": {"repository": str(client.data / "bad-input"), "create_repository": True},
        "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 2}, "output": {}},
        **changes,
    }


def training_body(client: Client, *data: str | Path, **sections: Json) -> Json:
    """A training that works, on `data` if there is any, with options changed in its sections."""
    parameters: Json = {"input": {"label": "label"}, "mllib": {"iterations": 3}, "output": {}}
    for name, changes in sections.items():
        parameters[name] = {**parameters[name], **changes}
    entries = [str(each) for each in data] or [str(client.data / "good.csv")]
    return {"service": SERVICE, "parameters": parameters, "data": entries}


def net_body(client: Client, *data: str | Path, service: str = NET, **sections: Json) -> Json:
    """A training of a network that works, with options changed in its sections."""
    body = training_body(client, *(data or [client.data / "words.csv"]))
    body["parameters"]["input"] = {"label": "label", "categoricals": ["c"], **sections.get("input", {})}
    mllib = sections.get("mllib", {})
    body["parameters"]["mllib"] = {**mllib, "solver": {"iterations": 3, **mllib.get("solver", {})}}
    return {**body, "service": service}


def svm_body(client: Client, *data: str | Path, service: str = SVM) -> Json:
    """A training on svm lines that works, on `data` if there is any."""
    return {
        "service": service,
        "parameters": {"mllib": {"solver": {"iterations": 3}}},
        "data": [str(each) for each in data] or [str(client.data / "good.svm.csv")],
    }


GOOD = "a,b,label\n" + "".join(f"{row},{row % 7},{row % 2}\n" for row in range(40))

WORDS = "a,b,c,label\n" + "".join(f"{row},{row % 7},{'xyz'[row % 3]},{row % 2}\n" for row in range(40))

LINES = "".join(f"{row % 2} 1:{row} 2:{row % 7}\n" for row in range(40))


def prepare(client: Client) -> None:
    """Services with a model and without one, and tables that can be trained on."""
    (client.data / "good.csv").write_text(GOOD)
    assert client.call("PUT", f"/services/{SERVICE}", service_body(client)).code == 201
    trained = service_body(client, model={"repository": "bad-input-trained"})
    assert client.call("PUT", f"/services/{TRAINED}", trained).code == 201
    body = {**training_body(client), "service": TRAINED, "async": False}
    answer = client.call("POST", "/train", body)
    assert answer.code == 201, answer.json
    file(client, "words", WORDS)
    file(client, "good.svm", LINES)
    for name, connector in ((NET, "csv"), (NET_TRAINED, "csv"), (SVM, "svm"), (SVM_TRAINED, "svm")):
        options = {"input": {"connector": connector}, "mllib": NETWORK}
        made = service_body(client, mllib="torch", model={"repository": name}, parameters=options)
        assert client.call("PUT", f"/services/{name}", made).code == 201
    for body in (net_body(client, service=NET_TRAINED), svm_body(client, service=SVM_TRAINED)):
        answer = client.call("POST", "/train", {**body, "async": False})
        assert answer.code == 201, answer.json


def file(client: Client, name: str, content: str | bytes) -> Path:
    """A file in the data root."""
    path = client.data / f"{name}.csv"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def create(client: Client, **changes: Any) -> Answer:
    """A creation that should fail."""
    return client.call("PUT", "/services/never", service_body(client, **changes))


def create_net(client: Client, **mllib: Any) -> Answer:
    """A creation of a service of torch that should fail."""
    options = {"input": {"connector": "csv"}, "mllib": {**NETWORK, **mllib}, "output": {}}
    return create(client, mllib="torch", model={"repository": NET}, parameters=options)


def parameters(**sections: Json) -> Json:
    """Parameters of a creation, changed in some sections."""
    whole: Json = {"input": {"connector": "csv"}, "mllib": {"nclasses": 2}, "output": {}}
    return {name: {**options, **sections.get(name, {})} for name, options in whole.items()}


def repository(client: Client, path: str, make: bool = False) -> Answer:
    """A creation on a repository that cannot be one."""
    return create(client, model={"repository": path, "create_repository": make})


# Bodies


@request
def body_empty(client: Client) -> Answer:
    return client.send("POST", "/train", b"")


@request
def body_no_json(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "x",}')


@request
def body_not_utf8(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "\xff"}')


@request
def body_too_deep(client: Client) -> Answer:
    return client.send("POST", "/train", b"[" * 50_000)


@request
def body_too_many_brackets(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"data": [' + b"[]," * 100_000 + b"[]]}")


@request
def body_huge_number(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service":' + b"9" * 10_000 + b"}")


@request
def body_with_nul(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "a\\u0000"}')


@request
def body_half_character(client: Client) -> Answer:
    return client.send("POST", "/train", b'{"service": "\\ud800"}')


@request
def body_no_object(client: Client) -> Answer:
    return client.call("POST", "/train", ["service"])


@request
def body_too_large(client: Client) -> Answer:
    return client.send("POST", "/train", b" " * (LIMIT_BYTES + 1))


@request
def body_too_large_unpacked(client: Client) -> Answer:
    packed = gzip.compress(b" " * (LIMIT_BYTES + 1))
    return client.send("POST", "/train", packed, {"Content-Encoding": "gzip"})


@request
def body_not_gzip(client: Client) -> Answer:
    return client.send("POST", "/train", b"{}", {"Content-Encoding": "gzip"})


@request
def body_unknown_encoding(client: Client) -> Answer:
    return client.send("POST", "/train", b"{}", {"Content-Encoding": "br"})


# Addresses


@request
def route_unknown(client: Client) -> Answer:
    return client.call("GET", "/train/1")


@request
def verb_unknown(client: Client) -> Answer:
    return client.call("GET", "/predict")


@request
def native_route_unknown(client: Client) -> Answer:
    return client.call("GET", "/nowhere")


@request
def native_verb_unknown(client: Client) -> Answer:
    return client.call("POST", "/tasks")


# Services


@request
def service_exists(client: Client) -> Answer:
    return client.send("PUT", f"/services/{SERVICE.upper()}", b"not even JSON")


@request
def service_unnamed(client: Client) -> Answer:
    return client.call("PUT", "/services/", service_body(client))


@request
def service_name_too_long(client: Client) -> Answer:
    return client.call("PUT", "/services/" + "n" * 300, service_body(client))


@request
def service_unknown(client: Client) -> Answer:
    return client.call("GET", "/services/nobody")


@request
def service_to_delete_unknown(client: Client) -> Answer:
    return client.call("DELETE", "/services/nobody")


@request
def service_flag_no_boolean(client: Client) -> Answer:
    return client.call("GET", f"/services/{SERVICE}?labels=maybe")


@request
def mllib_missing(client: Client) -> Answer:
    return create(client, mllib=None)


@request
def mllib_no_text(client: Client) -> Answer:
    return create(client, mllib=7)


@request
def mllib_empty(client: Client) -> Answer:
    return create(client, mllib="")


@request
def mllib_unknown(client: Client) -> Answer:
    return create(client, mllib="xgbost")


@request
def connector_missing(client: Client) -> Answer:
    return create(client, parameters={"mllib": {"nclasses": 2}})


@request
def connector_no_text(client: Client) -> Answer:
    return create(client, parameters=parameters(input={"connector": ["csv"]}))


@request
def connector_unknown(client: Client) -> Answer:
    return create(client, parameters=parameters(input={"connector": "cvs"}))


@request
def type_unknown(client: Client) -> Answer:
    return create(client, type="magic")


@request
def parameters_no_object(client: Client) -> Answer:
    return create(client, parameters="csv")


@request
def input_no_object(client: Client) -> Answer:
    return create(client, parameters={"input": "csv"})


@request
def mllib_options_no_object(client: Client) -> Answer:
    return create(client, parameters={"input": {"connector": "csv"}, "mllib": 3})


@request
def input_option_of_wrong_type(client: Client) -> Answer:
    return create(client, parameters=parameters(input={"test_split": "a fifth"}))


@request
def mllib_option_of_wrong_type(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"iterations": "100"}))


@request
def mllib_option_out_of_range(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"booster_params": {"subsample": 1.5}}))


@request
def output_option_of_wrong_type(client: Client) -> Answer:
    return create(client, parameters=parameters(output={"best": "all"}))


@request
def classes_missing(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"nclasses": None}))


@request
def targets_missing(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"nclasses": None, "regression": True}))


@request
def objective_softmax(client: Client) -> Answer:
    return create(client, parameters=parameters(mllib={"objective": "multi:softmax"}))


# Repositories


@request
def repository_unnamed(client: Client) -> Answer:
    return create(client, model={})


@request
def repository_missing(client: Client) -> Answer:
    return repository(client, f"{client.data}/no/such/folder")


@request
def repository_is_a_file(client: Client) -> Answer:
    return repository(client, str(file(client, "a-file", "x")), make=True)


@request
def repository_below_a_file(client: Client) -> Answer:
    return repository(client, f"{file(client, 'a-file', 'x')}/model", make=True)


@request
def repository_that_cannot_be_written(client: Client) -> Answer:
    return repository(client, "/proc")


@request
def repository_that_cannot_be_made(client: Client) -> Answer:
    return repository(client, "/proc/modelyard", make=True)


@request
def repository_outside(client: Client) -> Answer:
    return repository(client, "/etc")


@request
def repository_outside_by_dots(client: Client) -> Answer:
    return repository(client, f"{client.data}/../../etc")


@request
def repository_outside_by_link(client: Client) -> Answer:
    link = client.data / "way-out"
    if not link.is_symlink():
        link.symlink_to("/usr")
    return repository(client, str(link / "share"))


@request
def repository_name_unusable(client: Client) -> Answer:
    return repository(client, "../mine")


@request
def repository_is_a_data_root(client: Client) -> Answer:
    body = service_body(client, model={"repository": str(client.data)})
    assert client.call("PUT", "/services/whole-root", body).code == 201
    try:
        return client.call("DELETE", "/services/whole-root?clear=full")
    finally:
        client.call("DELETE", "/services/whole-root")


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


# Networks and their solvers


@request
def template_unknown(client: Client) -> Answer:
    return create_net(client, template="mpl")


@request
def activation_unknown(client: Client) -> Answer:
    return create_net(client, activation="rellu")


@request
def lr_policy_unknown(client: Client) -> Answer:
    return create_net(client, solver={"lr_policy": "stepp"})


@request
def solver_no_object(client: Client) -> Answer:
    return create_net(client, solver="ADAM")


@request
def solver_option_out_of_range(client: Client) -> Answer:
    return create_net(client, solver={"base_lr": -0.1})


@request
def solver_options_contradict(client: Client) -> Answer:
    return create_net(client, solver={"solver_type": "NESTEROV", "momentum": 0})


@request
def multistep_without_steps(client: Client) -> Answer:
    return create_net(client, solver={"lr_policy": "multistep"})


@request
def batch_size_0(client: Client) -> Answer:
    return create_net(client, net={"batch_size": 0})


@request
def layer_negative(client: Client) -> Answer:
    return create_net(client, layers=[50, -1])


@request
def layer_too_large(client: Client) -> Answer:
    return create_net(client, layers=[10**12])


@request
def dropout_out_of_range(client: Client) -> Answer:
    return create_net(client, dropout=1.5)


@request
def class_weight_not_finite(client: Client) -> Answer:
    return create_net(client, class_weights=[1, math.nan])


@request
def class_weights_negative(client: Client) -> Answer:
    return create_net(client, class_weights=[1, -2])


@request
def class_weights_of_wrong_length(client: Client) -> Answer:
    return create_net(client, class_weights=[1, 2, 3])


@request
def regression_with_classes(client: Client) -> Answer:
    return create_net(client, regression=True)


@train
def autoencoder_of_input_only(client: Client) -> Json:
    return net_body(client, input={"autoencoder": True})


@train
def batch_normalised_rows_alone(client: Client) -> Json:
    return net_body(client, mllib={"bn": True, "net": {"batch_size": 1}})


@train
def resume_without_state(client: Client) -> Json:
    return net_body(client, mllib={"resume": True})


@train
def resume_without_state_xgboost(client: Client) -> Json:
    return training_body(client, mllib={"resume": True})


@train
def state_without_resume(client: Client) -> Json:
    return net_body(client, service=NET_TRAINED)


@train
def finetuning_without_weights(client: Client) -> Json:
    return net_body(client, mllib={"finetuning": True})


@train
def class_weights_at_train(client: Client) -> Json:
    return net_body(client, mllib={"class_weights": [1, 2, 3]})


@train
def training_diverges(client: Client) -> Json:
    solver = {"base_lr": 1e30, "solver_type": "SGD", "iterations": 20}
    # Of the seed: with few other ones all units fall silent at once, and what is left is no number too large.
    return net_body(client, input={"shuffle": True, "seed": 2}, mllib={"solver": solver})


# Where data comes from


@train
def data_missing(client: Client) -> Json:
    return {**training_body(client), "data": None}


@train
def data_no_array(client: Client) -> Json:
    return {**training_body(client), "data": str(client.data / "good.csv")}


@train
def data_no_texts(client: Client) -> Json:
    return {**training_body(client), "data": [1, 2, 3]}


@train
def data_mixed(client: Client) -> Json:
    return training_body(client, client.data / "good.csv", "1,2,0")


@train
def data_of_unknown_scheme(client: Client) -> Json:
    return training_body(client, "ftp://example.org/train.csv")


@train
def data_no_url(client: Client) -> Json:
    return training_body(client, "https:///train.csv")


@train
def data_private(client: Client) -> Json:
    return training_body(client, f"http://127.0.0.1:{client.port}/healthz")


@train
def data_host_refuses(client: Client) -> Json:
    return training_body(client, f"http://me:secret@{ALLOWED}:1/train.csv")


@request
def data_elsewhere_empty(client: Client) -> Answer:
    with receiving(answer("200 OK"), host=ALLOWED) as host:
        return client.call("POST", "/train", {**training_body(client, f"{host.url}/train.csv"), "async": False})


@train
def data_bucket_off(client: Client) -> Json:
    return training_body(client, "s3://bucket/train.csv")


@train
def path_outside(client: Client) -> Json:
    return training_body(client, "/etc/passwd")


@train
def path_outside_by_dots(client: Client) -> Json:
    return training_body(client, f"{client.data}/../../../etc/passwd")


@train
def path_outside_by_link(client: Client) -> Json:
    link = client.data / "out.csv"
    if not link.is_symlink():
        link.symlink_to("/etc/passwd")
    return training_body(client, link)


@train
def path_outside_by_file_url(client: Client) -> Json:
    return training_body(client, "file:///etc/passwd")


@train
def path_too_long(client: Client) -> Json:
    return training_body(client, client.data / ("n" * 300))


@train
def path_in_a_loop(client: Client) -> Json:
    link = client.data / "loop.csv"
    if not link.is_symlink():
        link.symlink_to(link)
    return training_body(client, link)


@train
def file_missing(client: Client) -> Json:
    return training_body(client, client.data / "no-such-file.csv")


@train
def file_missing_by_name(client: Client) -> Json:
    return training_body(client, "no-such-file.csv")


@train
def file_packed(client: Client) -> Json:
    return training_body(client, file(client, "packed", gzip.compress(GOOD.encode())))


@train
def data_of_one_word(client: Client) -> Json:
    return training_body(client, "no-such-file")


@train
def svm_data_of_one_word(client: Client) -> Json:
    return svm_body(client, "no-such-file")


@train
def file_empty(client: Client) -> Json:
    return training_body(client, file(client, "empty", ""))


@train
def file_blank(client: Client) -> Json:
    return training_body(client, file(client, "blank", "\n \n\n"))


@train
def file_header_only(client: Client) -> Json:
    return training_body(client, file(client, "header", "a,b,label\n"))


@train
def file_is_a_folder(client: Client) -> Json:
    (client.data / "folder").mkdir(exist_ok=True)
    return training_body(client, client.data / "folder")


@train
def file_that_cannot_be_read(client: Client) -> Json:
    # A socket in the folder: permissions alone do not stop a server that runs as root.
    path = client.data / "socket.csv"
    if not path.exists():
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(path))
    return training_body(client, path)


@train
def test_file_missing(client: Client) -> Json:
    return training_body(client, client.data / "good.csv", client.data / "no-test.csv")


# What stands in the data


@train
def label_column_missing(client: Client) -> Json:
    return training_body(client, input={"label": "species"})


@train
def id_column_missing(client: Client) -> Json:
    return training_body(client, input={"id": "number"})


@train
def text_in_numeric_column(client: Client) -> Json:
    return training_body(client, file(client, "text", GOOD.replace("\n7,", "\nseven,")))


@train
def wrong_separator(client: Client) -> Json:
    return training_body(client, input={"separator": ";"})


@train
def one_class(client: Client) -> Json:
    return training_body(client, file(client, "one-class", "a,b,label\n" + "1,2,0\n" * 30))


@train
def label_out_of_range(client: Client) -> Json:
    return training_body(client, file(client, "classes", GOOD.replace("39,4,1", "39,4,7")))


@train
def label_infinite(client: Client) -> Json:
    return training_body(client, file(client, "infinite-label", GOOD.replace("39,4,1", "39,4,inf")))


@train
def label_empty(client: Client) -> Json:
    return training_body(client, file(client, "no-label", GOOD.replace("39,4,1", "39,4,")))


@train
def no_features(client: Client) -> Json:
    return training_body(client, file(client, "bare", "label\n0\n1\n0\n1\n"))


@train
def column_twice(client: Client) -> Json:
    return training_body(client, file(client, "twice", GOOD.replace("a,b,label", "a,a,label")))


@train
def line_too_short(client: Client) -> Json:
    return training_body(client, file(client, "short", GOOD + "1\n"))


@train
def line_too_wide(client: Client) -> Json:
    return training_body(client, file(client, "wide", GOOD + "1,2,0,4,5\n"))


@train
def line_of_10_mb(client: Client) -> Json:
    return training_body(client, file(client, "long", "a,b,label\n" + "1" * 10_000_000 + ",2,0\n1,2,1\n"))


@train
def quote_open(client: Client) -> Json:
    return training_body(client, file(client, "quote", GOOD + '"1,2,0\n'))


@train
def file_binary(client: Client) -> Json:
    return training_body(client, file(client, "binary", bytes(range(256)) * 64))


@train
def file_not_utf8(client: Client) -> Json:
    return training_body(client, file(client, "latin", GOOD.replace("a,b", "é,b").encode("latin-1")))


@train
def test_file_with_other_columns(client: Client) -> Json:
    return training_body(client, client.data / "good.csv", file(client, "other", "x,y,label\n1,2,0\n"))


@train
def too_few_rows_for_the_split(client: Client) -> Json:
    return training_body(client, file(client, "few", "a,b,label\n1,2,0\n"), input={"test_split": 0.5})


# What a network cannot be trained on


@train
def nan_in_row(client: Client) -> Json:
    return net_body(client, file(client, "nan", WORDS.replace("39,4,", "nan,4,")))


@train
def infinity_in_row(client: Client) -> Json:
    return net_body(client, file(client, "inf", WORDS.replace("39,4,", "inf,4,")))


@train
def infinity_in_row_xgboost(client: Client) -> Json:
    return training_body(client, file(client, "inf-trees", GOOD.replace("39,4,", "inf,4,")))


@train
def label_beyond_classes_torch(client: Client) -> Json:
    return net_body(client, file(client, "beyond", WORDS + "1,2,x,5\n"))


@train
def several_labels_not_0_or_1(client: Client) -> Json:
    given = {"label": ["a", "b"]}
    return net_body(client, input=given, mllib={"multi_label": True})


@train
def soft_label_out_of_range(client: Client) -> Json:
    return net_body(client, input={"label": ["a", "b"]}, mllib={"multi_label": True, "regression": True, "ntargets": 2})


@train
def test_category_unseen(client: Client) -> Json:
    return net_body(client, client.data / "words.csv", file(client, "unseen", WORDS.replace(",x,", ",q,")))


@train
def test_rows_with_other_columns(client: Client) -> Json:
    return net_body(client, client.data / "words.csv", client.data / "good.csv")


@train
def bounds_of_wrong_length(client: Client) -> Json:
    return net_body(client, input={"scale": True, "min_vals": [0], "max_vals": [1]})


@train
def bounds_half_given(client: Client) -> Json:
    return net_body(client, input={"scale": True, "min_vals": [0, 0, 0, 0]})


@train
def mapping_without_column(client: Client) -> Json:
    return net_body(client, input={"categoricals_mapping": {"nowhere": {"x": 0}}})


@train
def mapping_twice_one_number(client: Client) -> Json:
    return net_body(client, input={"categoricals_mapping": {"c": {"x": 0, "y": 0, "z": 1}}})


@train
def mapping_without_word(client: Client) -> Json:
    return net_body(client, input={"categoricals_mapping": {"c": {"x": 0, "y": 1}}})


@train
def svm_word_broken(client: Client) -> Json:
    return svm_body(client, file(client, "broken.svm", LINES + "1 2=3\n"))


@train
def svm_index_negative(client: Client) -> Json:
    return svm_body(client, file(client, "negative.svm", LINES + "1 -2:3\n"))


@train
def svm_index_twice(client: Client) -> Json:
    return svm_body(client, file(client, "same.svm", LINES + "1 2:3 2:4\n"))


@train
def svm_without_features(client: Client) -> Json:
    return svm_body(client, file(client, "bare.svm", "0\n1\n"))


@train
def svm_label_no_number(client: Client) -> Json:
    return svm_body(client, file(client, "word.svm", LINES + "yes 1:3\n"))


@train
def svm_label_out_of_range(client: Client) -> Json:
    return svm_body(client, file(client, "seven.svm", LINES + "7 1:3\n"))


@train
def svm_nan_in_row(client: Client) -> Json:
    return svm_body(client, file(client, "nan.svm", LINES + "1 1:nan\n"))


# Calls of /predict


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
    deadline = time.monotonic() + 60
    while client.call("GET", f"/tasks/{task_id}").json["state"] != "failed":
        assert time.monotonic() < deadline
        time.sleep(0.1)
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


# Templates and other hosts


def output(client: Client, **given: Any) -> Answer:
    """A prediction with output options."""
    return ask(client, parameters={"output": given})


@request
def template_no_text(client: Client) -> Answer:
    return output(client, template=7)


@request
def template_tag_open(client: Client) -> Answer:
    return output(client, template="a {{head.service")


@request
def template_section_open(client: Client) -> Answer:
    return output(client, template="{{#body}}{{#predictions}}{{/predictions}}")


@request
def template_section_crossed(client: Client) -> Answer:
    return output(client, template="{{#a}}{{#b}}{{/a}}{{/b}}")


@request
def template_with_partial(client: Client) -> Answer:
    return output(client, template="{{> header}}")


@request
def template_too_long(client: Client) -> Answer:
    return output(client, template="x" * 65537)


@request
def template_too_deep(client: Client) -> Answer:
    return output(client, template="{{#a}}" * 33 + "{{/a}}" * 33)


@request
def template_writes_too_much(client: Client) -> Answer:
    template = "{{#body.predictions}}" + "x" * 60_000 + "{{/body.predictions}}"
    return ask(client, data=["1,2"] * 2000, parameters={"output": {"template": template}})


@request
def binarized_twice(client: Client) -> Answer:
    return output(client, binarized=True, bool_binarized=True)


@request
def network_no_object(client: Client) -> Answer:
    return output(client, network="here")


@request
def network_without_url(client: Client) -> Answer:
    return output(client, network={"http_method": "POST"})


@request
def network_url_no_http(client: Client) -> Answer:
    return output(client, network={"url": "file:///etc/passwd"})


@request
def network_method_unknown(client: Client) -> Answer:
    return output(client, network={"url": "http://127.0.0.1/", "http_method": "TRACE"})


@request
def network_second_header(client: Client) -> Answer:
    line = "Content-Type: text/plain\r\nCookie: a=b"
    return output(client, network={"url": "http://127.0.0.1/", "content_type": line})


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
def network_private(client: Client) -> Answer:
    return output(client, network={"url": f"http://127.0.0.1:{client.port}/healthz"})


@request
def network_host_unknown(client: Client) -> Answer:
    return output(client, network={"url": "http://nowhere.invalid/"})


@request
def network_refused(client: Client) -> Answer:
    return output(client, network={"url": f"http://{ALLOWED}:1/"})


@request
def network_silent(client: Client) -> Answer:
    with socket.create_server((ALLOWED, 0)) as silent:
        return output(client, network={"url": f"http://{ALLOWED}:{silent.getsockname()[1]}/"})


@request
def network_no_http(client: Client) -> Answer:
    with receiving(lambda connection: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), host=ALLOWED) as odd:
        return output(client, network={"url": odd.url})


@request
def network_no_tls(client: Client) -> Answer:
    hello = b"SSH-2.0-OpenSSH\r\n"
    with receiving(lambda connection: connection.sendall(hello), host=ALLOWED, listens=False) as odd:
        return output(client, network={"url": odd.url.replace("http:", "https:")})


# Native routes


@request
def task_unknown(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999")


@request
def task_number_no_number(client: Client) -> Answer:
    return client.call("GET", "/tasks/first")


@request
def task_to_cancel_unknown(client: Client) -> Answer:
    return client.call("DELETE", "/tasks/999999")


def failed_task(client: Client) -> int:
    body = training_body(client, client.data / "no-such-file.csv")
    number: int = client.call("POST", "/train", {**body, "data": None}).json["head"]["task_id"]
    return number


@request
def task_without_report(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/report")


@request
def ids_no_numbers(client: Client) -> Answer:
    return client.call("GET", "/tasks?ids=1,two")


@request
def ids_too_many(client: Client) -> Answer:
    return client.call("GET", "/tasks?ids=" + ",".join(map(str, range(1001))))


@request
def query_parameter_unknown(client: Client) -> Answer:
    return client.call("GET", "/tasks?sate=queued")


@request
def state_unknown(client: Client) -> Answer:
    return client.call("GET", "/tasks?state=done")


@request
def limit_out_of_range(client: Client) -> Answer:
    return client.call("GET", "/tasks?limit=100000")


@request
def cursor_unreadable(client: Client) -> Answer:
    return client.call("GET", "/tasks?cursor=next")


@request
def logs_of_unknown_task(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999/logs")


@request
def logs_after_unreadable(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/logs?after=last")


@request
def logs_query_unknown(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/logs?since=3")


@request
def events_of_unknown_task(client: Client) -> Answer:
    return client.call("GET", "/tasks/999999/events")


@request
def events_query_unknown(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/events?since=3")


@request
def last_event_id_unreadable(client: Client) -> Answer:
    return client.call("GET", f"/tasks/{failed_task(client)}/events", headers={"Last-Event-ID": "latest"})


@request
def since_unreadable(client: Client) -> Answer:
    return client.call("GET", "/tasks?since=yesterday")


@request
def tasks_of_unknown_service(client: Client) -> Answer:
    return client.call("GET", "/tasks?service=nobody")


# Accounts


@request
def account_query_unknown(client: Client) -> Answer:
    return client.call("GET", "/account?name=ada")


@request
def keys_without_role(client: Client) -> Answer:
    return client.call("GET", "/keys")


@request
def key_to_make_without_role(client: Client) -> Answer:
    return client.call("POST", "/keys", {"role": "admin"})


@request
def key_to_end_without_role(client: Client) -> Answer:
    return client.call("DELETE", "/keys/999999")


@request
def audit_without_role(client: Client) -> Answer:
    return client.call("GET", "/audit")


# The list of services


@request
def services_of_unknown_library(client: Client) -> Answer:
    return client.call("GET", "/services?mllib=abacus")


@request
def services_cursor_unreadable(client: Client) -> Answer:
    return client.call("GET", "/services?cursor=first")


@request
def services_query_unknown(client: Client) -> Answer:
    return client.call("GET", "/services?sort=name")


# Downloads


def download(client: Client, path: str, **headers: str) -> Answer:
    """Ask for what should not be sent."""
    return client.send("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})


@request
def download_without_model(client: Client) -> Answer:
    return download(client, f"/services/{SERVICE}/files")


@request
def download_unknown_file(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/no.model")


@request
def download_unknown_version(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/archive?version=999")


@request
def download_version_no_number(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files?version=newest")


@request
def download_format_unknown(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/archive?format=rar")


@request
def download_link_no_boolean(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/modelyard.json?link=please")


@request
def download_range_behind_the_end(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/modelyard.json", Range="bytes=99999999-")


@request
def download_of_other_state(client: Client) -> Answer:
    return download(client, f"/services/{TRAINED}/files/modelyard.json", If_Match='"other"')


@request
def download_of_unknown_service(client: Client) -> Answer:
    return download(client, "/services/nobody/archive")


@request
def download_of_unknown_task(client: Client) -> Answer:
    return download(client, "/tasks/999999/files")


@request
def download_of_task_unknown_file(client: Client) -> Answer:
    return download(client, "/tasks/1/files/no.csv")


@request
def download_of_dataset_unknown_file(client: Client) -> Answer:
    return download(client, f"{dataset(client)}/files/no.csv")


@request
def download_of_unknown_dataset(client: Client) -> Answer:
    return download(client, "/datasets/nobody/archive")


# Data sets


DATASET = "bad-input"
"""A data set with the file good.csv; whoever needs it makes it."""


def dataset(client: Client) -> str:
    """The address of the data set."""
    if client.call("PUT", f"/datasets/{DATASET}").code == 201:
        assert form(client, {"good.csv": GOOD.encode()}).code == 201
    return f"/datasets/{DATASET}"


def form(client: Client, files: dict[str, bytes], query: str = "", name: str = DATASET) -> Answer:
    """Send files as a form does."""
    body = b"".join(
        b'--limit\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n'
        % (path.encode(), content)
        for path, content in files.items()
    )
    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    return client.send("POST", f"/datasets/{name}/files{query}", body + b"--limit--\r\n", headers)


def upload(client: Client, **changes: Any) -> str:
    """The address of a new upload of three bytes."""
    body = {"path": "more.csv", "bytes": 3, **changes}
    return f"{dataset(client)}/uploads/{client.call('POST', f'{dataset(client)}/uploads', body).json['upload_id']}"


def refused_upload(client: Client, **changes: Any) -> Answer:
    """An upload that should not begin."""
    return client.call("POST", f"{dataset(client)}/uploads", {"path": "more.csv", "bytes": 3, **changes})


def put_part(client: Client, address: str, content: bytes, digest: str | None = None, part: str = "1") -> Answer:
    """Send a part."""
    found = hashlib.sha256(content).hexdigest() if digest is None else digest
    return client.send("PUT", f"{address}/parts/{part}", content, {"X-Content-SHA256": found})


@request
def dataset_unknown(client: Client) -> Answer:
    return client.call("GET", "/datasets/nobody")


@request
def dataset_to_delete_unknown(client: Client) -> Answer:
    return client.call("DELETE", "/datasets/nobody")


@request
def dataset_name_unusable(client: Client) -> Answer:
    return client.call("PUT", "/datasets/" + "x" * 256)


@request
def dataset_with_a_body(client: Client) -> Answer:
    return client.call("PUT", f"/datasets/{DATASET}", {"description": "flowers"})


@request
def dataset_cursor_unreadable(client: Client) -> Answer:
    return client.call("GET", f"{dataset(client)}?cursor=first")


@request
def dataset_file_unknown(client: Client) -> Answer:
    return client.call("DELETE", f"{dataset(client)}/files/no.csv")


@request
def files_without_a_form(client: Client) -> Answer:
    return client.send("POST", f"{dataset(client)}/files", GOOD.encode(), {"Content-Type": "text/csv"})


@request
def form_packed(client: Client) -> Answer:
    headers = {"Content-Type": "multipart/form-data; boundary=limit", "Content-Encoding": "gzip"}
    return client.send("POST", f"{dataset(client)}/files", gzip.compress(b"--limit--"), headers)


@request
def form_without_files(client: Client) -> Answer:
    dataset(client)
    return form(client, {})


@request
def files_of_unknown_dataset(client: Client) -> Answer:
    return form(client, {"a.csv": b"x"}, name="nobody")


@request
def file_path_climbing(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a/../b.csv": b"x"})


@request
def file_path_hidden(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a/.b.csv": b"x"})


@request
def file_path_twice(client: Client) -> Answer:
    dataset(client)
    return client.send(
        "POST",
        f"/datasets/{DATASET}/files",
        b'--l\r\nContent-Disposition: form-data; name="a"; filename="a"\r\n\r\nx\r\n' * 2 + b"--l--\r\n",
        {"Content-Type": "multipart/form-data; boundary=l"},
    )


@request
def file_below_a_file(client: Client) -> Answer:
    dataset(client)
    return form(client, {"good.csv/a.csv": b"x"})


@request
def files_too_many(client: Client) -> Answer:
    dataset(client)
    return form(client, {str(number): b"" for number in range(10_001)})


@request
def files_too_large(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a.csv": bytes(LIMIT_BYTES)})


@request
def archive_that_is_none(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a.zip": GOOD.encode()}, "?unpack=true")


@request
def archive_climbing(client: Client) -> Answer:
    dataset(client)
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("../evil.csv", "x")
    return form(client, {"a.zip": made.getvalue()}, "?unpack=true")


@request
def archives_together(client: Client) -> Answer:
    dataset(client)
    return form(client, {"a.zip": b"x", "b.zip": b"x"}, "?unpack=true")


@request
def upload_without_bytes(client: Client) -> Answer:
    return refused_upload(client, bytes=None)


@request
def upload_without_path(client: Client) -> Answer:
    return refused_upload(client, path=None)


@request
def upload_option_unknown(client: Client) -> Answer:
    return refused_upload(client, sha="x")


@request
def upload_option_of_wrong_type(client: Client) -> Answer:
    return refused_upload(client, bytes="3")


@request
def upload_digest_that_is_none(client: Client) -> Answer:
    return refused_upload(client, sha256="abc")


@request
def upload_path_outside(client: Client) -> Answer:
    return refused_upload(client, path="/etc/passwd")


@request
def upload_too_large(client: Client) -> Answer:
    return refused_upload(client, bytes=10**15)


@request
def upload_without_links(client: Client) -> Answer:
    return refused_upload(client, links=True, sha256="0" * 64)


@request
def upload_unknown(client: Client) -> Answer:
    return client.call("GET", f"{dataset(client)}/uploads/999999")


@request
def part_without_digest(client: Client) -> Answer:
    return put_part(client, upload(client), b"abc", "")


@request
def part_with_wrong_digest(client: Client) -> Answer:
    return put_part(client, upload(client), b"abc", "0" * 64)


@request
def part_of_wrong_size(client: Client) -> Answer:
    return put_part(client, upload(client), b"abcd")


@request
def part_of_wrong_number(client: Client) -> Answer:
    return put_part(client, upload(client), b"abc", part="2")


@request
def upload_with_missing_parts(client: Client) -> Answer:
    return client.call("POST", f"{upload(client)}/complete")


@request
def upload_with_wrong_digest(client: Client) -> Answer:
    address = upload(client, sha256="0" * 64)
    assert put_part(client, address, b"abc").code == 200
    return client.call("POST", f"{address}/complete")


@train
def data_of_unknown_dataset(client: Client) -> Json:
    return training_body(client, "dataset://nobody/a.csv")


@train
def data_of_unknown_file(client: Client) -> Json:
    return training_body(client, f"{dataset(client).replace('/datasets/', 'dataset://')}/no.csv")


@train
def data_of_climbing_path(client: Client) -> Json:
    return training_body(client, f"{dataset(client).replace('/datasets/', 'dataset://')}/a/../b.csv")


@train
def data_of_several_files(client: Client) -> Json:
    client.call("PUT", "/datasets/bad-input-two")
    form(client, {"a.csv": GOOD.encode(), "b.csv": GOOD.encode()}, name="bad-input-two")
    return training_body(client, "dataset://bad-input-two")


@request
def predict_unknown_dataset(client: Client) -> Answer:
    return ask(client, data=["dataset://nobody"])


# Where models come from


def copy(client: Client, **mllib: Any) -> Answer:
    """A creation that takes its model from another place."""
    model = {"repository": "bad-input-never"}
    try:
        return create(client, model=model, parameters=parameters(mllib=mllib))
    finally:
        client.call("DELETE", "/services/never?clear=full")


def install(client: Client, archive: str, **changes: Any) -> Answer:
    """A creation that installs an archive."""
    model = {"repository": "bad-input-never", "init": archive}
    try:
        return create(client, model=model, **changes)
    finally:
        client.call("DELETE", "/services/never?clear=full")


def packed(client: Client, name: str, members: dict[str, bytes], link: str = "") -> str:
    """A tar archive in the data root, with a symbolic link to `link` if there is one."""
    path = client.data / name
    with tarfile.open(path, "w") as archive:
        for member, content in members.items():
            told = tarfile.TarInfo(member)
            told.size = len(content)
            archive.addfile(told, io.BytesIO(content))
        if link:
            told = tarfile.TarInfo("best.model")
            told.type, told.linkname = tarfile.SYMTYPE, link
            archive.addfile(told)
    return str(path)


@request
def init_missing(client: Client) -> Answer:
    return install(client, str(client.data / "no-such.tar"))


@request
def init_outside(client: Client) -> Answer:
    return install(client, "/etc/passwd")


@request
def init_broken(client: Client) -> Answer:
    return install(client, str(file(client, "broken-archive", b"\x1f\x8b" + b"x" * 100)))


@request
def init_with_link(client: Client) -> Answer:
    return install(client, packed(client, "link.tar", {"config.json": b"{}"}, link="/etc/passwd"))


@request
def init_that_leads_out(client: Client) -> Answer:
    return install(client, packed(client, "out.tar", {"../config.json": b"{}"}))


@request
def init_and_from_repository(client: Client) -> Answer:
    given = parameters(mllib={"from_repository": "bad-input-trained"})
    return install(client, packed(client, "both.tar", {"a": b"x"}), parameters=given)


@request
def from_repository_missing(client: Client) -> Answer:
    return copy(client, from_repository=str(client.data / "no/such/folder"))


@request
def from_repository_empty(client: Client) -> Answer:
    (client.data / "bare").mkdir(exist_ok=True)
    return copy(client, from_repository=str(client.data / "bare"))


@request
def from_repository_is_its_own(client: Client) -> Answer:
    (client.data / "same").mkdir(exist_ok=True)
    given = parameters(mllib={"from_repository": str(client.data / "same")})
    return create(client, model={"repository": str(client.data / "same")}, parameters=given)


@request
def from_repository_outside(client: Client) -> Answer:
    return copy(client, from_repository="/etc")


@request
def from_repository_of_another_library(client: Client) -> Answer:
    return copy(client, from_repository="bad-input-net-trained")


@request
def weights_missing(client: Client) -> Answer:
    return create(client, model={"repository": "bad-input-never", "weights": "no-such.model"})


@request
def weights_foreign(client: Client) -> Answer:
    return create(client, model={"repository": "bad-input-never", "weights": "notes.txt"})


@request
def weights_are_a_state(client: Client) -> Answer:
    given = {"input": {"connector": "csv"}, "mllib": NETWORK}
    model = {"repository": "bad-input-never", "weights": "solver-100.pt"}
    return create(client, mllib="torch", model=model, parameters=given)


@train
def target_repository_is_its_own(client: Client) -> Json:
    return training_body(client, output={"target_repository": str(client.data / "bad-input")})


@request
def repository_of_another_library(client: Client) -> Answer:
    given = {"input": {"connector": "csv"}, "mllib": NETWORK}
    return create(client, mllib="torch", model={"repository": "bad-input-trained"}, parameters=given)


# Webhooks


def hook(client: Client, **more: Any) -> Answer:
    """Make a webhook to which nothing is sent."""
    return client.call("POST", "/webhooks", {"url": "https://receiver.example/", "active": False, **more})


def change(client: Client, what: str = "", **changes: Any) -> Answer:
    """Change a new webhook, or its secret, and delete it."""
    path = f"/webhooks/{hook(client).json['webhook_id']}"
    try:
        return client.call("POST" if what else "PATCH", path + what, changes)
    finally:
        client.call("DELETE", path)


@request
def webhook_unknown(client: Client) -> Answer:
    return client.call("GET", "/webhooks/999")


@request
def webhook_without_url(client: Client) -> Answer:
    return client.call("POST", "/webhooks", {})


@request
def webhook_of_another_scheme(client: Client) -> Answer:
    return hook(client, url="ftp://receiver.example/")


@request
def webhook_with_a_password(client: Client) -> Answer:
    return hook(client, url="https://me:mine@receiver.example/")


@request
def webhook_event_unknown(client: Client) -> Answer:
    return hook(client, events=["task.begun"])


@request
def webhook_events_empty(client: Client) -> Answer:
    return hook(client, events=[])


@request
def webhook_services_unusable(client: Client) -> Answer:
    return hook(client, services=["x" * 256])


@request
def webhook_description_too_long(client: Client) -> Answer:
    return hook(client, description="x" * 1001)


@request
def webhook_secret_short(client: Client) -> Answer:
    return hook(client, secret="whsec_c2hvcnQ=")


@request
def webhook_member_unknown(client: Client) -> Answer:
    return hook(client, evnts=["task.failed"])


@request
def webhook_change_of_wrong_type(client: Client) -> Answer:
    return change(client, active="off")


@request
def webhook_secret_changed_to_a_short_one(client: Client) -> Answer:
    return change(client, "/secret", secret="whsec_c2hvcnQ=")


@request
def webhook_inactive(client: Client) -> Answer:
    return change(client, "/test")


@request
def webhooks_too_many(client: Client) -> Answer:
    made = []
    while (answer := hook(client)).code == 201:
        made.append(answer.json["webhook_id"])
    for each in made:
        client.call("DELETE", f"/webhooks/{each}")
    return answer


@request
def delivery_unknown(client: Client) -> Answer:
    return deliveries(client, "GET", "/999")


@request
def delivery_to_replay_unknown(client: Client) -> Answer:
    return deliveries(client, "POST", "/999/replay")


@request
def deliveries_of_unknown_state(client: Client) -> Answer:
    return deliveries(client, "GET", "?state=sent")


def deliveries(client: Client, verb: str, place: str) -> Answer:
    """Ask for what was sent to a new webhook, and delete it."""
    path = f"/webhooks/{hook(client).json['webhook_id']}"
    try:
        return client.call(verb, f"{path}/deliveries{place}")
    finally:
        client.call("DELETE", path)
