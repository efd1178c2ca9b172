"""Predictions through /predict, with a worker that answers what the test says."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from settings import Settings
from storage import fetch
from storage.errors import FetchFailed, FetchForbidden, LiveUnavailable
from storage.objects.base import Objects
from tests.unit.api.conftest import Yard
from tests.unit.api.fakes import FakeLive, FakeQueue, measured, predicted, refused
from workers.asked import DATA_COMING
from workers.queue import AnswerTooLarge, CallerGone, Overloaded


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
        "type": "supervised",
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
    queue.reply = lambda request: measured({"acc": 1.0, "mcll": float("nan")})
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
    queue.reply = lambda request: refused(**error)
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
    queue.reply = lambda request: refused("bad_input", "no")
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
        return predicted([])

    queue.reply = reply
    assert ask(client, data=lines).json["body"] == {"predictions": []}
    assert seen == [lines]
    assert list(objects.list("inputs")) == []


def test_only_post_predicts(client: FlaskClient):
    answer = client.get("/predict")
    assert answer.status_code == 404
    assert answer.json["status"]["msg"].startswith("Not Found: ")


# Templates


def shaped(client: FlaskClient, data: list[str] | None = None, **output: Any):
    return ask(client, data=data or ["1,2"], parameters={"output": output})


def test_template_is_given_the_whole_answer_and_makes_what_is_answered(trained: Yard, client: FlaskClient):
    answer = shaped(
        client,
        template="{{status.code}} {{status.msg}} {{head.service}}: {{#body.predictions}}{{uri}}="
        "{{#classes}}{{cat}} {{prob}}{{^last}},{{/last}}{{/classes}};{{/body.predictions}}",
    )
    assert (answer.status_code, answer.text) == (200, "200 OK iris: 1=setosa 0.9;")
    assert answer.headers["Content-Type"] == "application/json"


def test_template_sees_the_warnings(trained: Yard, client: FlaskClient):
    answer = shaped(client, template="{{#head.warnings}}{{parameter}};{{/head.warnings}}", odd=1)
    assert answer.text == "parameters.output.odd;"


def test_template_of_the_service_is_used_and_an_empty_one_of_the_call_takes_it_away(yard: Yard, client: FlaskClient):
    parameters = {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}, "output": {"template": "{{head.method}}"}}
    yard.create(parameters=parameters)
    yard.finish(yard.train())
    assert ask(client).text == "/predict"
    assert shaped(client, template="").json["body"]["predictions"]


def test_bad_template_is_refused_before_anything_is_computed(trained: Yard, client: FlaskClient, queue: FakeQueue):
    answer = shaped(client, template="{{#body}}\n{{/head}}")
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 1006)
    assert "parameters.output.template is no template: line 2 column 1" in answer.json["status"]["dd_msg"]
    answer = shaped(client, template=["{{body}}"])
    assert "parameters.output.template is ['{{body}}']; it must be a text" in answer.json["status"]["dd_msg"]
    assert queue.asked == []


def test_template_that_writes_too_much_is_told_so(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.reply = lambda request: predicted([{"uri": "x" * 10_000_000}])
    answer = shaped(client, template="{{#body.predictions}}" + "{{uri}}" * 7 + "{{/body.predictions}}")
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 1006)
    assert "it writes more than 67108864 characters" in answer.json["status"]["dd_msg"]


def test_errors_and_measures_are_answered_as_they_are(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.reply = lambda request: refused("bad_input", "no")
    assert shaped(client, template="mine").json["status"]["dd_code"] == 1005
    queue.reply = lambda request: measured({"acc": 1.0})
    answer = shaped(client, template="mine", measure=["acc"])
    assert answer.json["body"] == {"measure": {"acc": 1.0}}
    [warning] = answer.json["head"]["warnings"]
    assert warning["parameter"] == "parameters.output.template"


def test_texts_of_clients_cannot_write_tags(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.reply = lambda request: predicted([{"uri": "{{head.service}}", "classes": []}])
    assert shaped(client, template="{{#body.predictions}}{{uri}}{{/body.predictions}}").text == "{{head.service}}"


# Other hosts


@dataclass
class Remote:
    """Another host that answers what the test says, and remembers what it was sent."""

    answer: fetch.Answer | Exception = field(default_factory=lambda: fetch.Answer(200, b"{}", "application/json"))
    sent: list[tuple[str, str, bytes, dict[str, str]]] = field(default_factory=list)
    limits: list[dict[str, Any]] = field(default_factory=list)

    def send(self, url: str, method: str, body: bytes, headers: dict[str, str], **limits: Any) -> fetch.Answer:
        self.sent.append((url, method, body, headers))
        self.limits.append(limits)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Remote:
    made = Remote()
    monkeypatch.setattr(fetch, "send", made.send)
    return made


URL = "https://me:secret@hook.example/in?x=1"


def test_answer_goes_to_the_other_host_and_its_answer_to_the_client(trained: Yard, client: FlaskClient, remote: Remote):
    remote.answer = fetch.Answer(202, b"<b>thanks</b>", "text/html")
    answer = shaped(client, network={"url": URL})
    assert (answer.status_code, answer.data) == (202, b"<b>thanks</b>")
    assert answer.headers["Content-Type"] == "application/json", "what a browser would run is not handed on as such"
    [(url, method, body, headers)] = remote.sent
    assert (url, method, headers) == (URL, "POST", {"Content-Type": "application/json"})
    sent = json.loads(body)
    assert sent["network"] == {"url": URL, "http_method": "POST", "content_type": "Content-Type: application/json"}
    assert sent["status"] == {"code": 200, "msg": "OK"}
    assert sent["head"]["service"] == "iris"
    assert sent["body"]["predictions"][0]["uri"] == "1"


def test_template_makes_what_is_sent(trained: Yard, client: FlaskClient, remote: Remote):
    network = {"url": URL, "http_method": "put", "content_type": "Content-Type: text/csv"}
    shaped(
        client, template="{{#body.predictions}}{{uri}},{{/body.predictions}}{{network.http_method}}", network=network
    )
    assert remote.sent == [(URL, "PUT", b"1,PUT", {"Content-Type": "text/csv"})]


def test_measures_are_sent_too(trained: Yard, client: FlaskClient, queue: FakeQueue, remote: Remote):
    queue.reply = lambda request: measured({"acc": 1.0})
    shaped(client, measure=["acc"], network={"url": URL})
    assert json.loads(remote.sent[0][2])["body"] == {"measure": {"acc": 1.0}}


def test_errors_are_sent_to_the_client_only(trained: Yard, client: FlaskClient, queue: FakeQueue, remote: Remote):
    queue.reply = lambda request: refused("bad_input", "no")
    assert shaped(client, network={"url": URL}).json["status"]["dd_code"] == 1005
    assert remote.sent == []


@pytest.mark.parametrize("status", [204, 304, 302, 401, 404, 500])
def test_status_of_the_other_host_is_the_status(trained: Yard, client: FlaskClient, remote: Remote, status: int):
    remote.answer = fetch.Answer(status, b"" if status in (204, 304) else b"no", "text/plain")
    answer = shaped(client, network={"url": URL})
    assert answer.status_code == status
    assert not {"Location", "Set-Cookie", "WWW-Authenticate"} & set(answer.headers.keys())


@pytest.mark.parametrize("error", [FetchFailed("hook.example:443 is silent"), FetchForbidden("10.0.0.1 is private")])
def test_host_that_cannot_be_reached_is_1009(trained: Yard, client: FlaskClient, remote: Remote, error: FetchFailed):
    remote.answer = error
    answer = shaped(client, network={"url": URL})
    assert answer.status_code == 404
    assert answer.json["status"] == {
        "code": 404,
        "msg": "NotFound",
        "dd_code": 1009,
        "dd_msg": "Output Connector Network Error",
        "message": f"the answer could not be sent: {error}",
    }
    stats = client.get("/services/iris").json["body"]["service_stats"]
    assert stats["predict_success"] == 1, "the prediction itself succeeded"


@pytest.mark.parametrize("network", [{}, {"url": ""}, {"url": None}, {"http_method": "POST"}])
def test_missing_address_is_400_without_a_code(trained: Yard, client: FlaskClient, queue: FakeQueue, network: dict):
    answer = shaped(client, network=network)
    assert answer.status_code == 400
    assert answer.json == {
        "status": {
            "code": 400,
            "msg": "BadRequest",
            "message": "parameters.output.network.url is missing; give the address that the answer is sent to",
        }
    }
    assert queue.asked == []


@pytest.mark.parametrize(
    ("network", "text"),
    [
        ({"url": "ftp://hook.example/"}, "must begin with http:// or https://"),
        ({"url": "hook.example/in"}, "must begin with http:// or https://"),
        ({"url": "http://" + "a" * 9000}, "longer than 8192 characters"),
        ({"url": URL, "http_method": "TRACE"}, "one of POST, PUT, PATCH, GET, DELETE"),
        ({"url": URL, "content_type": "Content-Type: a/b\r\nX-Evil: 1"}, "one header line of printable characters"),
        ("https://hook.example", "must be an object"),
    ],
)
def test_bad_network_is_refused_before_anything_is_computed(
    trained: Yard, client: FlaskClient, queue: FakeQueue, remote: Remote, network: Any, text: str
):
    answer = shaped(client, network=network)
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 1006)
    assert text in answer.json["status"]["dd_msg"]
    assert (queue.asked, remote.sent) == ([], [])


def test_limits_are_those_of_the_settings(
    trained: Yard, app: Flask, client: FlaskClient, remote: Remote, settings: Settings
):
    app.extensions["modelyard"].settings = replace(settings, fetch_allow=("10.0.0.0/8",), push_timeout_s=3.0)
    shaped(client, network={"url": URL})
    assert remote.limits == [{"allow": ("10.0.0.0/8",), "limit_bytes": 64 * 2**20, "timeout_s": 3.0}]


def test_workers_learn_neither_template_nor_address(
    trained: Yard, client: FlaskClient, queue: FakeQueue, remote: Remote
):
    shaped(client, network={"url": URL}, template="x", best=2)
    assert queue.asked[0][0]["parameters"]["output"] == {"best": 2}


def test_calls_that_wait_for_other_hosts_leave_threads_for_the_rest(
    trained: Yard, app: Flask, client: FlaskClient, queue: FakeQueue, remote: Remote, objects: Objects
):
    slots = app.extensions["modelyard"].slots
    held = [slots.held(1000 + number) for number in range(slots.count)]
    for each in held:
        each.__enter__()
    answer = shaped(client, ["1,2"] * 400_000, network={"url": URL})
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert (queue.asked, list(objects.list("inputs"))) == ([], [])
    assert shaped(client).status_code == 200
    for each in held:
        each.__exit__(None, None, None)
    assert shaped(client, network={"url": URL}).status_code == 200


# What workers are told


def test_same_options_of_the_library_may_be_computed_together(trained: Yard, client: FlaskClient, queue: FakeQueue):
    ask(client)
    ask(client, data=["3,4", "5,6"], parameters={"output": {"best": 2}})
    ask(client, parameters={"output": {"measure": ["acc"]}})
    ask(client, parameters={"mllib": {"nclasses": 2}})
    first, second, measured_one, other = queue.batches
    assert first == second
    assert len({first, measured_one, other}) == 3
    assert {batch.partition(":")[0] for batch in queue.batches} == {"1.cpu"}


def test_questions_are_made_once_for_the_same_parameters(
    trained: Yard, client: FlaskClient, queue: FakeQueue, monkeypatch: pytest.MonkeyPatch
):
    wanted = {"output": {"best": 2}, "mllib": {"odd": 1}}
    first = ask(client, parameters=wanted)
    monkeypatch.setattr("api.predicting.load_prediction", lambda *given: pytest.fail("read again"))
    again = ask(client, parameters=wanted, data=["3,4"])
    assert again.json["head"]["warnings"] == first.json["head"]["warnings"]
    assert [request["data"] for request, _ in queue.asked] == [["1,2"], ["3,4"]]
    assert queue.asked[0][0]["parameters"] == queue.asked[1][0]["parameters"]


def test_timings_of_the_worker_are_told_on_request(trained: Yard, client: FlaskClient):
    head = ask(client, parameters={"output": {"timings": True}}).json["head"]
    assert head["timings"] == {"queued": 0.5, "load": 1.0, "input": 2.0, "compute": 3.0, "output": 4.0}


def test_too_many_predictions_are_429(trained: Yard, client: FlaskClient, queue: FakeQueue):
    def refuse(request):
        raise Overloaded("too many predictions wait")

    queue.reply = refuse
    answer = ask(client)
    assert answer.status_code == 429
    assert answer.headers["Retry-After"] == "1"
    stats = client.get("/services/iris").json["body"]["service_stats"]
    assert (stats["predict_count"], stats["predict_failure"]) == (1, 1)


def test_caller_that_hung_up_is_counted_and_its_data_removed(
    trained: Yard, client: FlaskClient, queue: FakeQueue, objects: Objects
):
    def hang_up(request):
        raise CallerGone

    queue.reply = hang_up
    assert ask(client, data=["1,2"] * 400_000).status_code == 499
    assert list(objects.list("inputs")) == []
    assert client.get("/services/iris").json["body"]["service_stats"]["predict_failure"] == 1


def test_predictions_that_wait_leave_threads_for_the_rest(
    trained: Yard, app: Flask, client: FlaskClient, queue: FakeQueue
):
    slots = app.extensions["modelyard"].waits
    held = [slots.held(1000 + number) for number in range(slots.count)]
    for each in held:
        each.__enter__()
    answer = ask(client)
    assert answer.status_code == 503
    assert "Retry-After" in answer.headers
    assert queue.asked == []
    for each in held:
        each.__exit__(None, None, None)
    assert ask(client).status_code == 200


def test_result_goes_through_as_the_worker_wrote_it(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.reply = lambda request: replace(predicted([]), content=b'[{"uri": "1",  "odd":1e0}]')
    assert ask(client).text.endswith('"body":{"predictions":[{"uri": "1",  "odd":1e0}]}}')


# Data of other hosts


def test_question_is_asked_again_under_its_number_while_its_data_are_coming(
    trained: Yard, client: FlaskClient, queue: FakeQueue
):
    answers = [refused(DATA_COMING, ""), refused(DATA_COMING, ""), predicted([{"uri": "1"}], input=3.0)]
    queue.reply = lambda request: answers.pop(0)
    assert ask(client, data=["https://files.example.org/a.csv"]).status_code == 200
    assert len(queue.asked) == 3
    assert len({*queue.numbers}) == 1
    assert queue.numbers[0]
    queue.reply = lambda request: predicted([])
    ask(client)
    assert queue.numbers[3] != queue.numbers[0]


def test_data_that_never_come_are_given_up_in_time(app: Flask, trained: Yard, client: FlaskClient, queue: FakeQueue):
    parts = app.extensions["modelyard"]
    parts.settings = replace(parts.settings, predict_timeout_s=0.1)
    queue.reply = lambda request: refused(DATA_COMING, "")
    answer = ask(client, data=["https://files.example.org/a.csv"])
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert "its data did not come within 0.1 s" in answer.json["status"]["message"]


@pytest.mark.parametrize(
    ("entry", "text"),
    [
        ("s3://bucket/a.csv", "'s3://bucket/a.csv': no bucket may be read here"),
        ("http://me:secret@", "'http://…': 'http://…' is no URL to use"),
        ("https://" + "a" * 9000, "longer than 8192 characters"),
    ],
)
@pytest.mark.parametrize("is_task", [False, True])
def test_address_that_is_none_to_use_is_refused_at_once(
    trained: Yard, client: FlaskClient, queue: FakeQueue, entry: str, text: str, is_task: bool
):
    answer = ask(client, data=[entry], **{"async": is_task})
    assert (answer.status_code, answer.json["status"]["dd_code"]) == (400, 1005)
    assert text in answer.json["status"]["dd_msg"]
    assert "secret" not in answer.text
    assert queue.asked == []


def test_task_with_data_of_another_host_is_computed_by_a_process_of_its_own(trained: Yard, client: FlaskClient):
    answer = ask(client, data=["https://files.example.org/a.csv"], **{"async": True})
    assert trained.records.tasks.spec(answer.json["head"]["task_id"])["way"] == "compute"


def test_prediction_that_met_a_dead_redis_is_counted(trained: Yard, client: FlaskClient, queue: FakeQueue):
    def die(request):
        raise LiveUnavailable("Redis does not answer: it was killed")

    queue.reply = die
    answer = ask(client)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "2")
    assert answer.json["status"]["message"] == "Redis does not answer: it was killed"
    stats = client.get("/services/iris").json["body"]["service_stats"]
    assert (stats["predict_count"], stats["predict_failure"]) == (1, 1)


def test_answer_that_is_too_large_is_413_and_says_what_to_do(trained: Yard, client: FlaskClient, queue: FakeQueue):
    queue.reply = lambda request: refused(AnswerTooLarge.kind, str(AnswerTooLarge(2000, 1000)))
    answer = ask(client)
    assert answer.status_code == 413
    assert answer.json["status"]["message"].startswith(
        "the answer has 2000 bytes, and one that is waited for may have "
    )
    assert "with async" in answer.json["status"]["message"]
