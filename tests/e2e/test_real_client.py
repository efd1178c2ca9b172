"""The server as clients of DeepDetect drive it.

DeepDetect's Python client is on no package index, so it cannot be a dependency of the tests. `DD` stands for it: the
same methods, verbs, query strings and bodies, and an exception for every status from 400 on.
"""

from __future__ import annotations

import json
import shutil
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.e2e.conftest import Client

pytestmark = [pytest.mark.servers, pytest.mark.timeout(240)]

Json = dict[str, Any]
EXAMPLES = Path(__file__).parents[2] / "examples" / "data"


class DD:
    """A client like DeepDetect's own.

    content_type : that client says JSON; curl, in all of DeepDetect's examples, says form.
    """

    def __init__(self, host: str, port: int, content_type: str = "application/json") -> None:
        self._address = f"http://{host}:{port}"
        self._content_type = content_type
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def _send(self, verb: str, path: str, body: Json | None = None, params: dict[str, str] | None = None) -> Json:
        url = self._address + path + ("?" + urlencode(params) if params else "")
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": self._content_type}
        with self._opener.open(urllib.request.Request(url, data, headers, method=verb), timeout=100) as answer:
            found: Json = json.load(answer)
            return found

    def info(self) -> Json:
        return self._send("GET", "/info")

    def put_service(
        self, sname: str, model: Json, description: str, mllib: str, inputs: Json, library: Json, output: Json
    ) -> Json:
        body = {
            "description": description,
            "mllib": mllib,
            "type": "supervised",
            "parameters": {"input": inputs, "mllib": library, "output": output},
            "model": model,
        }
        return self._send("PUT", f"/services/{sname}", body)

    def get_service(self, sname: str) -> Json:
        return self._send("GET", f"/services/{sname}")

    def delete_service(self, sname: str, clear: str | None = None) -> Json:
        return self._send("DELETE", f"/services/{sname}" + (f"?clear={clear}" if clear else ""))

    def post_train(
        self, sname: str, data: list[str], inputs: Json, library: Json, output: Json, jasync: bool = True
    ) -> Json:
        parameters = {"input": inputs, "mllib": library, "output": output}
        return self._send("POST", "/train", {"service": sname, "async": jasync, "parameters": parameters, "data": data})

    def get_train(self, sname: str, job: int = 1, timeout: int = 0, measure_hist: bool = False) -> Json:
        params = {"service": sname, "job": str(job), "timeout": str(timeout)}
        if measure_hist:
            params["parameters.output.measure_hist"] = str(measure_hist)
        return self._send("GET", "/train", params=params)

    def delete_train(self, sname: str, job: int = 1) -> Json:
        return self._send("DELETE", "/train", params={"service": sname, "job": str(job)})

    def post_predict(self, sname: str, data: list[str], inputs: Json, library: Json, output: Json) -> Json:
        parameters = {"input": inputs, "mllib": library, "output": output}
        return self._send("POST", "/predict", {"service": sname, "parameters": parameters, "data": data})


@pytest.fixture(params=["application/json", "application/x-www-form-urlencoded"], ids=["json", "form"])
def dd(request: pytest.FixtureRequest, client: Client) -> DD:
    return DD("127.0.0.1", client.port, request.param)


@pytest.fixture
def iris(client: Client) -> str:
    target = client.data / "real-client-iris.csv"
    shutil.copy(EXAMPLES / "iris.csv", target)
    return str(target)


@pytest.fixture
def model(client: Client, tmp_path: Path) -> Json:
    return {"repository": str(client.data / "real-client" / tmp_path.name), "create_repository": True}


INPUT = {"connector": "csv", "label": "species", "separator": ",", "test_split": 0.2, "shuffle": True, "seed": 1}
LIBRARY = {"nclasses": 3, "iterations": 40, "test_interval": 10, "objective": "multi:softprob"}


def refusal(call: Any, *arguments: Any) -> tuple[int, Json]:
    """Status and answer of a call that the client raises for."""
    with pytest.raises(urllib.error.HTTPError) as raised:
        call(*arguments)
    with raised.value as answer:
        return answer.code, json.load(answer)


def test_services_are_created_trained_polled_asked_and_deleted(dd: DD, iris: str, model: Json):
    name = "Real_Client"
    made = dd.put_service(name, model, "flowers", "xgboost", {"connector": "csv", "label": "species"}, LIBRARY, {})
    assert made["status"] == {"code": 201, "msg": "Created"}
    assert "real_client" in [each["name"] for each in dd.info()["head"]["services"]]

    started = dd.post_train(name, [iris], INPUT, LIBRARY, {"measure": ["acc", "mcll", "f1"]})
    assert started["status"]["code"] == 201
    assert started["head"]["job"] == 1
    deadline = time.monotonic() + 90
    while (polled := dd.get_train(name, job=1, timeout=1, measure_hist=True))["head"]["status"] == "running":
        assert time.monotonic() < deadline, polled
    assert polled["head"]["status"] == "finished", polled
    assert polled["body"]["measure"]["acc"] > 0.85
    assert polled["body"]["measure_hist"]["iteration_hist"] == [10, 20, 30, 39]

    told = dd.get_service(name)["body"]
    assert (told["mllib"], told["mltype"], told["jobs"]) == ("xgboost", "classification", [])
    answer = dd.post_predict(name, [iris], {"connector": "csv"}, {}, {"best": 3})
    assert answer["status"]["code"] == 200
    predictions = answer["body"]["predictions"]
    assert len(predictions) == 150
    assert [len(each["classes"]) for each in predictions] == [3] * 150
    assert all(each["classes"][-1]["last"] is True for each in predictions)
    measured = dd.post_predict(name, [iris], {"connector": "csv"}, {}, {"measure": ["acc"]})["body"]["measure"]
    assert measured["acc"] > 0.95, "most of these rows were trained on"

    assert dd.delete_service(name, clear="full")["status"]["code"] == 200
    assert not list(Path(model["repository"]).glob("*.model"))
    assert "real_client" not in [each["name"] for each in dd.info()["head"]["services"]]


def test_training_that_is_waited_for_answers_with_its_measures(client: Client, iris: str, model: Json):
    dd = DD("127.0.0.1", client.port)
    dd.put_service("waits", model, "", "xgboost", {"connector": "csv"}, {"nclasses": 3}, {})
    output = {"measure": ["acc"], "measure_hist": True}
    answer = dd.post_train("waits", [iris], INPUT, LIBRARY, output, jasync=False)
    assert answer["body"]["measure"]["acc"] > 0.85
    assert answer["body"]["measure_hist"]["iteration_hist"] == [10, 20, 30, 39]
    assert dd.delete_service("waits")["status"]["code"] == 200


def test_training_under_way_is_shown_and_stopped(client: Client, iris: str, model: Json):
    dd = DD("127.0.0.1", client.port)
    dd.put_service("stops", model, "", "xgboost", {"connector": "csv"}, {"nclasses": 3}, {})
    dd.post_train("stops", [iris], INPUT, {**LIBRARY, "iterations": 5_000_000}, {"measure": ["acc"]})
    deadline = time.monotonic() + 60
    while "iteration" not in (running := dd.get_train("stops", measure_hist=True))["body"]["measure"]:
        assert running["head"]["status"] == "running", running
        assert time.monotonic() < deadline
        time.sleep(0.1)
    [job] = dd.get_service("stops")["body"]["jobs"]
    assert (job["job"], job["status"]) == (1, "running")
    code, answer = refusal(dd.post_predict, "stops", [iris], {}, {}, {})
    assert (code, answer["status"]["dd_code"]) == (409, 1008)
    stopped = dd.delete_train("stops", job=1)
    assert (stopped["status"]["code"], stopped["head"]["status"]) == (200, "terminated")
    code, answer = refusal(dd.get_train, "stops", 1)
    assert (code, answer["status"]["dd_code"]) == (404, 1003)
    assert dd.delete_service("stops", clear="full")["status"]["code"] == 200


def test_what_clients_do_wrong_raises_with_the_codes_of_deepdetect(dd: DD, iris: str, model: Json):
    arguments = (model, "", "xgboost", {"connector": "csv", "label": "species"}, {"nclasses": 3}, {})
    dd.put_service("wrongs", *arguments)
    cases = {
        (409, 1014): (dd.put_service, "wrongs", *arguments),
        (404, 1002): (dd.get_service, "nobody"),
        (404, 1003): (dd.get_train, "wrongs", 17),
        (404, 1000): (dd.put_service, "other", model, "", "abacus", {"connector": "csv"}, {"nclasses": 3}, {}),
        (404, 1004): (dd.put_service, "other", model, "", "xgboost", {"connector": "smoke"}, {"nclasses": 3}, {}),
        (400, 1006): (dd.put_service, "other", model, "", "xgboost", {"connector": "csv"}, {}, {}),
        (400, 1005): (dd.post_predict, "wrongs", [], {}, {}, {}),
    }
    for expected, (call, *given) in cases.items():
        code, answer = refusal(call, *given)
        assert (code, answer["status"]["dd_code"]) == expected, answer
        assert answer["status"]["code"] == code
        assert answer["status"]["dd_msg"]
    # What is wrong with the data of an accepted job is told by its poll, with 200.
    dd.post_train("wrongs", [iris], {"label": "no such column"}, {"iterations": 5}, {})
    polled = dd.get_train("wrongs", timeout=30)
    assert polled["status"]["code"] == 200
    assert polled["head"]["status"] == "error"
    assert polled["body"]["Error"]["dd_code"] == 1005
    assert dd.delete_service("wrongs", clear="full")["status"]["code"] == 200
