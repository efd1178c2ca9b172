"""The services that bad input is sent to, and what would work if one thing in it were not bad."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.bad_requests.cases import Json
from tests.e2e.conftest import Answer, Client

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


def parameters(**sections: Json) -> Json:
    """Parameters of a creation, changed in some sections."""
    whole: Json = {"input": {"connector": "csv"}, "mllib": {"nclasses": 2}, "output": {}}
    return {name: {**options, **sections.get(name, {})} for name, options in whole.items()}
