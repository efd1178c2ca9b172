"""The predictor of a worker process with real models, records and objects, and Redis between it and the caller."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
import xgboost

from ml import serving
from ml.connectors.source import LinesSource
from ml.training.session import Specification, run
from settings import Settings
from storage.errors import LiveUnavailable
from storage.live import Drain, Taken
from storage.objects.manifest import upload_folder
from storage.records import Kind, NewFile, NewVersion, Service, State, Version
from tests.integration.host import hosting, wait_until
from workers import beside, predicting
from workers.asked import DATA_COMING, Answer, Asked
from workers.beside import Errands
from workers.draining import Draining
from workers.parts import Parts
from workers.predicting import Predictor
from workers.queue import CallerGone, Changed, NoAnswer
from workers.version_files import artifacts_of

pytestmark = pytest.mark.servers

Json = dict[str, Any]
ROWS = ["a,b", "0.5,2", "1.5,-1", "3,0.25"]
LABELLED = ["a,b,kind", "0.5,2,0", "1.5,-1,1", "3,0.25,2"]


@dataclass(frozen=True)
class Made:
    """The files of a training and what it said of them."""

    folder: Path
    description: Json

    def probabilities(self) -> np.ndarray:
        """What xgboost itself predicts for ROWS, shape (rows, classes)."""
        booster = xgboost.Booster(model_file=bytearray((self.folder / self.description["file"]).read_bytes()))
        rows = np.array([[float(cell) for cell in row.split(",")] for row in ROWS[1:]], np.float32)
        return booster.predict(xgboost.DMatrix(rows), validate_features=False)


def make(scratch: Path, iterations: int) -> Made:
    numbers = np.random.default_rng(3)
    inputs = numbers.normal(1.5, 1.5, (60, 2)).round(3)
    kinds = np.digitize(inputs[:, 0], [1.0, 2.0])
    lines = ["a,b,kind", *(f"{a},{b},{kind}" for (a, b), kind in zip(inputs.tolist(), kinds.tolist(), strict=True))]
    events: list[Json] = []
    run(
        Specification(
            task="train-1-a1",
            backend="xgboost",
            connector="csv",
            parameters={
                "input": {"connector": "csv", "label": "kind"},
                "mllib": {"nclasses": 3, "iterations": iterations},
                "output": {},
            },
            data=(LinesSource(tuple(lines)),),
            scratch=scratch,
            resume=None,
            threads=1,
            device="cpu",
            checkpoint_s=3600.0,
        ),
        events.append,
    )
    return Made(scratch / "model", events[-1]["description"])


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("short"), 2)


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return make(tmp_path_factory.mktemp("long"), 12)


@pytest.fixture
def parts(settings: Settings, redis_url: str) -> Iterator[Parts]:
    made = Parts.make(dataclasses.replace(settings, redis_url=redis_url))
    made.records.upgrade()
    yield made
    made.queue.close()
    made.live.close()
    made.records.close()


@pytest.fixture
def service(parts: Parts) -> Service:
    account = parts.records.accounts.ensure("local")
    return parts.records.services.add(
        account.id,
        "kinds",
        mllib="xgboost",
        mltype="classification",
        type="supervised",
        description="",
        repository_id=parts.records.repositories.ensure(account.id, "objects:1/kinds").id,
        parameters={},
    )


def publish(parts: Parts, service: Service, made: Made, **changes: Any) -> Version:
    """A training that ended with this model; `changes` are made to its description."""
    task, _ = parts.records.tasks.add(
        service.account_id,
        Kind.TRAIN,
        "train.cpu",
        {},
        service_id=service.id,
        repository_id=service.repository_id,
        is_job=True,
    )
    attempt = parts.records.tasks.claim(task.id, "test", 60.0)
    assert attempt is not None
    prefix = f"{attempt.prefix}/model"
    manifest = upload_folder(parts.objects, prefix, made.folder)
    version = NewVersion(prefix, {**made.description, **changes}, artifacts_of(manifest))
    parts.records.tasks.end(attempt, State.FINISHED, phases={}, version=version)
    return parts.records.versions.newest(service.repository_id)


def question(version: Version, data: list[str] | None = None, **output: Any) -> Json:
    """A request as the API makes it."""
    return {
        "repository_id": version.repository_id,
        "version_id": version.id,
        "mllib": "xgboost",
        "type": "supervised",
        "connector": "csv",
        "parameters": {
            "input": {"connector": "csv", "label": "kind"},
            "mllib": {"nclasses": 3},
            "output": {"best": -1, **output},
        },
        "data": ROWS if data is None else data,
        "device": "cpu",
    }


def as_asked(request: Json) -> Asked:
    head = orjson.dumps({name: value for name, value in request.items() if name != "data"})
    return Asked(head, orjson.dumps(request["data"]) if "data" in request else b"")


def ask_all(predictor: Predictor, requests: Sequence[Json]) -> list[Answer]:
    """The answers to one batch, in the order of its requests."""
    batch = [Taken(b"r%d" % number, 1.5, as_asked(each).joined()) for number, each in enumerate(requests)]
    answers = predictor.answer(batch)
    assert [request_id for request_id, _ in answers] == [each.id for each in batch]
    return [Answer.split(answer) for _, answer in answers]


def ask(predictor: Predictor, request: Json) -> Answer:
    [answer] = ask_all(predictor, [request])
    return answer


def predictions(answer: Answer) -> list[Json]:
    assert (answer.name, answer.error) == ("predictions", None)
    found: list[Json] = orjson.loads(answer.content)
    assert len(found) == answer.count
    return found


def error_of(answer: Answer) -> Json:
    assert answer.error is not None
    assert (answer.name, answer.content, answer.count) == ("", b"", 0)
    return answer.error


def table(answer: Answer) -> np.ndarray:
    found = np.empty((answer.count, 3))
    for row, each in enumerate(predictions(answer)):
        for one in each["classes"]:
            found[row, int(one["cat"])] = one["prob"]
    return found


def empty_the_store(parts: Parts) -> None:
    """Nothing can be loaded from now on, neither from the store nor from the local cache."""
    parts.objects.delete_prefix("attempts")
    shutil.rmtree(parts.settings.cache / "entries")
    (parts.settings.cache / "entries").mkdir()


def is_loaded(predictor: Predictor, version: Version) -> bool:
    """Whether a predictor answers for a version when the store is empty."""
    answer = ask(predictor, question(version))
    assert answer.error is None or answer.error["kind"] == "artifact_not_found", answer
    return answer.error is None


# Models


def test_predictions_are_those_of_the_published_model(parts: Parts, service: Service, long: Made):
    answer = ask(Predictor(parts), question(publish(parts, service, long)))
    np.testing.assert_allclose(table(answer), long.probabilities(), atol=1e-6)
    assert [each["uri"] for each in predictions(answer)] == ["1", "2", "3"]


def test_model_is_loaded_once_and_stays_warm(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    first = ask(predictor, question(version))
    empty_the_store(parts)
    again = ask(predictor, question(version))
    assert predictions(again) == predictions(first)
    assert again.timings["load"] < first.timings["load"]
    assert not is_loaded(Predictor(parts), version), "another process has nothing to load from"


def test_new_version_takes_over_and_the_old_one_still_answers(parts: Parts, service: Service, short: Made, long: Made):
    predictor = Predictor(parts)
    old = publish(parts, service, short)
    before = table(ask(predictor, question(old)))
    new = publish(parts, service, long)
    assert new.number == old.number + 1
    after = table(ask(predictor, question(new)))
    np.testing.assert_allclose(before, short.probabilities(), atol=1e-6)
    np.testing.assert_allclose(after, long.probabilities(), atol=1e-6)
    assert np.abs(after - before).max() > 0.1
    # A request that was on its way when the new version came.
    np.testing.assert_array_equal(table(ask(predictor, question(old))), before)


def test_models_that_fit_stay(parts: Parts, service: Service, short: Made):
    versions = [publish(parts, service, short) for _ in range(3)]
    predictor = Predictor(parts)
    for version in versions:
        ask(predictor, question(version))
    empty_the_store(parts)
    assert [is_loaded(predictor, version) for version in versions] == [True, True, True]


def test_model_longest_unused_is_given_up_when_they_are_too_large_together(
    parts: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    load = serving.load

    def load_heavy(*given: Any, **more: Any) -> serving.Model:
        model = load(*given, **more)
        model.bytes = 40 * 2**20
        return model

    monkeypatch.setattr(serving, "load", load_heavy)
    versions = [publish(parts, service, short) for _ in range(3)]
    two = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, models_limit_bytes=100 * 2**20))
    predictor = Predictor(two)
    for position in (0, 1, 0, 2):  # the second is the one that nobody asked for lately
        ask(predictor, question(versions[position]))
    empty_the_store(parts)
    assert [is_loaded(predictor, version) for version in versions] == [True, False, True]


def test_model_larger_than_the_limit_is_served_alone(parts: Parts, service: Service, short: Made, long: Made):
    none = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, models_limit_bytes=1))
    predictor = Predictor(none)
    first, second = publish(parts, service, short), publish(parts, service, long)
    for version in (first, second):
        np.testing.assert_allclose(table(ask(predictor, question(version))).sum(axis=1), 1.0, atol=1e-6)
    empty_the_store(parts)
    assert [is_loaded(predictor, version) for version in (first, second)] == [False, True]


# Data


def test_lines_files_and_stored_inputs_are_answered_alike(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    file = parts.settings.data_roots[0] / "rows.csv"
    file.write_text("\n".join(ROWS) + "\n")
    parts.objects.put_bytes("inputs/1-x.json", json.dumps(ROWS).encode())
    stored = question(version)
    del stored["data"]
    requests = [question(version), question(version, [str(file)]), {**stored, "data_key": "inputs/1-x.json"}]
    first, *others = (predictions(ask(predictor, request)) for request in requests)
    assert others == [first, first]


def test_measures_are_the_answer_when_asked_for(parts: Parts, service: Service, long: Made):
    answer = ask(Predictor(parts), question(publish(parts, service, long), LABELLED, measure=["acc", "mcll"]))
    chosen = long.probabilities()[np.arange(3), np.arange(3)]
    assert answer.name == "measure"
    assert orjson.loads(answer.content) == {
        "acc": pytest.approx(float((long.probabilities().argmax(axis=1) == np.arange(3)).mean())),
        "mcll": pytest.approx(float(-np.log(chosen).mean()), rel=1e-6),
    }


def test_what_had_no_effect_is_told(parts: Parts, service: Service, long: Made):
    request = question(publish(parts, service, long), LABELLED, measure=["acc", "auc"])
    [warning] = ask(Predictor(parts), request).warnings
    assert warning["parameter"] == "parameters.output.measure"
    assert "'auc'" in warning["message"]


def test_timings_tell_the_parts_of_the_work(parts: Parts, service: Service, long: Made):
    timings = ask(Predictor(parts), question(publish(parts, service, long))).timings
    assert set(timings) == {"queued", "load", "input", "compute", "output"}
    assert all(value > 0 for value in timings.values())
    assert timings["queued"] == 1.5


# Errors


def test_errors_become_answers_with_their_kind(parts: Parts, service: Service, long: Made, tmp_path: Path):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    outside = tmp_path / "outside.csv"
    outside.write_text("a,b\n1,2\n")
    unknown = question(version)
    unknown["parameters"]["output"]["best"] = "many"
    cases: dict[str, Json] = {
        "bad_input": question(version, ["a,b", "1,word"]),
        "outside_data_roots": question(version, [str(outside)]),
        "version_not_found": {**question(version), "version_id": version.id + 99},
        "unknown_library": {**question(version), "mllib": "abacus"},
        "bad_parameter": unknown,
    }
    for kind, request in cases.items():
        error = error_of(ask(predictor, request))
        assert error["kind"] == kind, error
        assert error["message"]
    assert error_of(ask(predictor, cases["bad_input"]))["section"] == "input"
    assert error_of(ask(predictor, cases["bad_parameter"]))["section"] == "output"
    # None of them does harm to what comes next.
    assert len(predictions(ask(predictor, question(version)))) == 3


def test_unexpected_error_is_told_without_its_details(
    parts: Parts, service: Service, long: Made, caplog: pytest.LogCaptureFixture
):
    version = publish(parts, service, long, labels=3)
    error = error_of(ask(Predictor(parts), question(version)))
    assert error["kind"] == "internal"
    assert "Traceback" not in error["message"]
    assert "the worker's log" in error["message"]
    assert "failed unexpectedly" in caplog.text


def test_files_that_are_gone_are_no_fault_of_the_client(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    parts.objects.delete_prefix("attempts")
    error = error_of(ask(Predictor(parts), question(version)))
    assert error["kind"] == "artifact_not_found"


def test_model_that_could_not_be_loaded_is_tried_again(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    parts.objects.delete_prefix("attempts")
    error_of(ask(predictor, question(version)))
    upload_folder(parts.objects, version.prefix, long.folder)
    assert ask(predictor, question(version)).count == 3


# Batches


BATCH = (
    ["0.5,2"],
    ["a,b", "1.5,-1", "3,0.25"],
    ["b,a", "-1,1.5"],
    ["2,2"] * 40,
    ["2.25,0.125,1"],
    ['"0.5",2'],
)


def alone(parts: Parts, requests: Sequence[Json]) -> list[Answer]:
    """Answers of predictors that get one request at a time."""
    predictor = Predictor(parts)
    return [ask(predictor, each) for each in requests]


def same(answers: Sequence[Answer], others: Sequence[Answer]) -> bool:
    """Whether answers say the same but for how long and in what company they were made."""
    return [dataclasses.replace(each, timings={}, together=1) for each in answers] == [
        dataclasses.replace(each, timings={}, together=1) for each in others
    ]


def test_requests_of_a_batch_are_answered_as_each_alone(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    requests = [question(version, lines) for lines in BATCH]
    answers = ask_all(Predictor(parts), requests)
    assert [each.together for each in answers] == [len(requests)] * len(requests)
    assert same(answers, alone(parts, requests))
    assert [each["uri"] for each in predictions(answers[3])] == [str(row) for row in range(1, 41)]


def test_what_a_request_wants_of_its_answer_is_its_own(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    requests = [
        question(version, best=1),
        question(version),
        question(version, best=2),
        question(version, confidence_threshold=0.5),
        question(version, best=1),
    ]
    answers = ask_all(Predictor(parts), requests)
    assert {each.together for each in answers} == {5}
    assert [len(predictions(each)[0]["classes"]) for each in answers[:3]] == [1, 3, 2]
    assert same(answers, alone(parts, requests))


def test_lines_files_and_stored_inputs_go_together(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    file = parts.settings.data_roots[0] / "rows.csv"
    file.write_text("\n".join(ROWS) + "\n")
    parts.objects.put_bytes("inputs/1-x.json", json.dumps(ROWS).encode())
    stored = {**question(version), "data_key": "inputs/1-x.json"}
    del stored["data"]
    requests = [question(version), question(version, [str(file)]), question(version, [str(file)] * 2), stored]
    answers = ask_all(Predictor(parts), requests)
    assert {each.together for each in answers} == {4}
    assert [each.count for each in answers] == [3, 3, 6, 3]
    assert same(answers, alone(parts, requests))


def test_measures_of_a_batch_are_each_about_its_own_rows(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    requests = [
        question(version, LABELLED, measure=["acc"]),
        question(version, LABELLED[:2], measure=["acc", "mcll"]),
        question(version, ["a,b,kind", "0.5,2,2"], measure=["acc"]),
    ]
    assert same(ask_all(Predictor(parts), requests), alone(parts, requests))


def test_request_that_is_wrong_fails_alone(parts: Parts, service: Service, long: Made, tmp_path: Path):
    version = publish(parts, service, long)
    good = question(version)
    wrong: dict[str, Json] = {
        "bad_input": question(version, ["a,b", "1,word"]),
        "outside_data_roots": question(version, [str(tmp_path / "outside.csv")]),
        "version_not_found": {**good, "version_id": version.id + 99},
        "unknown_library": {**good, "mllib": "abacus"},
        "artifact_not_found": {**{name: good[name] for name in good if name != "data"}, "data_key": "inputs/none.json"},
    }
    requests = [good]
    for each in wrong.values():
        requests += [each, good]
    answers = ask_all(Predictor(parts), requests)
    assert [error_of(each)["kind"] for each in answers[1::2]] == list(wrong)
    [expected] = alone(parts, [good])
    assert same(answers[::2], [expected] * len(answers[::2]))
    assert {each.together for each in answers[::2]} == {len(wrong) + 1}


def test_request_that_nobody_can_read_fails_alone(
    parts: Parts, service: Service, long: Made, caplog: pytest.LogCaptureFixture
):
    good = as_asked(question(publish(parts, service, long))).joined()
    odd = [b"", b"{", b"\n", b"[]\n[]", good + b"]"]
    batch = [Taken(b"r%d" % number, 0.0, each) for number, each in enumerate([good, *odd, good])]
    first, *others, last = (Answer.split(answer) for _, answer in Predictor(parts).answer(batch))
    assert [error_of(each)["kind"] for each in others] == ["internal"] * len(odd)
    assert "prediction r1 failed unexpectedly" in caplog.text
    assert same([last], [first])
    assert first.count == 3


def test_batch_that_cannot_be_computed_together_is_computed_one_by_one(
    parts: Parts, service: Service, long: Made, monkeypatch: pytest.MonkeyPatch
):
    version = publish(parts, service, long)
    requests = [question(version, ["0.5,2"]), question(version, ["9,9"]), question(version, ["1.5,-1"])]
    expected = alone(parts, requests)
    compute = serving.Model.compute

    def refuse_nine(model: serving.Model, questions: Sequence[serving.Question]) -> list[np.ndarray]:
        for each in questions:
            if any((chunk.features == 9).any() for chunk in each.table.chunks()):
                raise RuntimeError("nine is too much")
        return compute(model, questions)

    monkeypatch.setattr(serving.Model, "compute", refuse_nine)
    first, second, third = ask_all(Predictor(parts), requests)
    assert same([first, third], [expected[0], expected[2]])
    assert error_of(second) == {
        "kind": "internal",
        "message": "unexpected error; the worker's log has it",
        "section": None,
    }


def test_unexpected_error_about_an_answer_spoils_only_that(
    parts: Parts, service: Service, long: Made, monkeypatch: pytest.MonkeyPatch
):
    version = publish(parts, service, long)
    requests = [question(version), question(version, best=2), question(version, best=1)]
    expected = alone(parts, requests)
    shape = serving.Model.answer

    def refuse_two(model: serving.Model, asked: serving.Question, outputs: np.ndarray) -> serving.Prediction:
        if asked.options.output.best == 2:
            raise RuntimeError("two is too few")
        return shape(model, asked, outputs)

    monkeypatch.setattr(serving.Model, "answer", refuse_two)
    first, second, third = ask_all(Predictor(parts), requests)
    assert error_of(second)["kind"] == "internal"
    assert same([first, third], [expected[0], expected[2]])


def test_options_are_read_once_for_all_requests_with_them(
    parts: Parts, service: Service, long: Made, monkeypatch: pytest.MonkeyPatch
):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    first = ask(predictor, question(version))
    monkeypatch.setattr("workers.predicting.load_prediction", lambda *given, **more: pytest.fail("read again"))
    assert same([ask(predictor, question(version))], [first])


# Callers


LANE = "predict.xgboost.cpu"


def batch_of(version: Version) -> str:
    return f"{version.id}.cpu:x"


def nothing_is_left(parts: Parts) -> bool:
    return list(parts.live.server.redis.scan_iter("*:request:*")) == []


@contextlib.contextmanager
def working(parts: Parts) -> Iterator[None]:
    """A worker that serves the lane meanwhile."""
    over = threading.Event()
    drain = Draining(parts, Predictor(parts), over.is_set)
    with ThreadPoolExecutor(1) as pool:
        work = pool.submit(drain, LANE, "")
        try:
            yield
        finally:
            over.set()
        work.result(20)


def test_queue_brings_each_caller_its_own_answer(parts: Parts, service: Service, short: Made):
    version = publish(parts, service, short)

    def predict(rows: int) -> int:
        request = as_asked(question(version, ["a,b", *["1,2"] * rows]))
        return len(predictions(parts.queue.predict(request, LANE, batch_of(version), 30.0)))

    with working(parts), ThreadPoolExecutor(5) as pool:
        assert list(pool.map(predict, range(1, 13))) == list(range(1, 13))
    assert nothing_is_left(parts)


def test_request_that_another_thread_sends_late_is_not_taken_for_lost(
    parts: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    version = publish(parts, service, short)
    append, is_sending = parts.live.lane.append, threading.Event()

    def late(*given: Any) -> Any:
        if not is_sending.is_set():
            is_sending.set()
            time.sleep(1)  # longer than it takes to ask after a request twice
        return append(*given)

    def predict() -> int:
        return len(predictions(parts.queue.predict(as_asked(question(version)), LANE, batch_of(version), 30.0)))

    monkeypatch.setattr(parts.live.lane, "append", late)
    with working(parts), ThreadPoolExecutor(2) as pool:
        first = pool.submit(predict)
        assert is_sending.wait(10)
        second = pool.submit(predict)
        assert (first.result(20), second.result(20)) == (3, 3)


def test_caller_that_nobody_answers_takes_its_request_back(parts: Parts, service: Service, short: Made):
    version = publish(parts, service, short)
    with pytest.raises(NoAnswer, match=r"predict\.xgboost\.cpu"):
        parts.queue.predict(as_asked(question(version)), LANE, batch_of(version), 0.2)
    assert nothing_is_left(parts)


def test_nothing_is_computed_for_a_caller_that_left(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    with pytest.raises(CallerGone):
        parts.queue.predict(as_asked(question(version)), LANE, batch_of(version), 30.0, is_connected=lambda: False)
    drain = parts.live.lane.drain(LANE, "test", lease_s=30.0)
    assert drain.turn(most=8) is None
    drain.close()


def test_what_was_asked_before_a_change_is_not_answered(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    before = parts.live.changes.current()
    parts.live.changes.note()
    with working(parts):
        with pytest.raises(Changed):
            parts.queue.predict(as_asked(question(version)), LANE, batch_of(version), 30.0, before)
        mark = parts.live.changes.current()
        answer = parts.queue.predict(as_asked(question(version)), LANE, batch_of(version), 30.0, mark)
    assert answer.count == 3


def test_worker_goes_on_when_redis_cannot_be_told_of_a_model_that_was_given_up(
    parts: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    none = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, models_limit_bytes=1))
    versions = [publish(parts, service, short) for _ in range(2)]

    def silent(drain: Drain, model: str) -> None:
        raise LiveUnavailable("Redis does not answer")

    monkeypatch.setattr(Drain, "forget", silent)
    with working(none):
        for version in versions:
            answer = none.queue.predict(as_asked(question(version)), LANE, batch_of(version), 30.0)
            assert answer.count == 3


# Data of other hosts


@pytest.fixture
def fetches(parts: Parts) -> Parts:
    return dataclasses.replace(
        parts, settings=dataclasses.replace(parts.settings, fetch_allow=("127.0.0.0/8",), predict_timeout_s=10.0)
    )


def ask_until(predictor: Predictor, request: Json, number: bytes) -> Answer:
    """As the API does: the same question under the same number until its data are there."""
    until = time.monotonic() + 20
    while time.monotonic() < until:
        [(_, told)] = predictor.answer([Taken(number, 1.5, as_asked(request).joined())])
        answer = Answer.split(told)
        if answer.error is None or answer.error["kind"] != DATA_COMING:
            return answer
        time.sleep(0.02)
    raise AssertionError("the data never came")


def test_rows_of_another_host_are_predicted_and_sent_once(fetches: Parts, service: Service, short: Made):
    predictor, version = Predictor(fetches), publish(fetches, service, short)
    with hosting(rows="\n".join(ROWS).encode()) as host:
        request = question(version, [f"{host.url}/rows"])
        for number in (b"one", b"two"):
            assert predictions(ask_until(predictor, request, number)) == predictions(ask(predictor, question(version)))
        assert host.asked == [("/rows", 200), ("/rows", 304)]
    wait_until(lambda: not list((fetches.settings.cache / "uses").iterdir()))


def test_host_that_is_slow_holds_up_nobody_else(fetches: Parts, service: Service, short: Made):
    predictor, version = Predictor(fetches), publish(fetches, service, short)
    ask(predictor, question(version))
    with hosting(rows="\n".join(ROWS).encode()) as host:
        host.gate.clear()
        remote, plain = question(version, [f"{host.url}/rows"]), question(version)
        began = time.monotonic()
        first, *others = ask_all(predictor, [remote, plain, question(version, [f"{host.url}/none"]), plain])
        assert time.monotonic() - began < 8
        assert first.error is not None
        assert (first.error["kind"], others[1].error) == (DATA_COMING, first.error)
        assert predictions(others[0]) == predictions(others[2])
        host.gate.set()
        assert predictions(ask_until(predictor, remote, b"r0")) == predictions(others[0])
        failure = ask_until(predictor, question(version, [f"{host.url}/none"]), b"r2").error
    assert failure is not None
    assert (failure["kind"], failure["section"]) == ("bad_input", "input")
    assert "status 404" in failure["message"]


def test_host_is_given_up_before_the_caller_gives_up(fetches: Parts, service: Service, short: Made):
    hasty = dataclasses.replace(fetches, settings=dataclasses.replace(fetches.settings, predict_timeout_s=1.0))
    predictor, version = Predictor(hasty), publish(fetches, service, short)
    with hosting() as host:
        host.gate.clear()
        began = time.monotonic()
        failure = ask_until(predictor, question(version, [f"{host.url}/rows"]), b"1").error
        assert time.monotonic() - began < 8
    assert failure is not None
    assert "did not answer in full within" in failure["message"]


def test_what_nobody_asks_for_any_more_is_not_fetched_on(
    fetches: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(beside, "_PATIENCE_S", 2.0)
    predictor, version = Predictor(fetches), publish(fetches, service, short)
    with hosting(rows=b"x") as host:
        host.gate.clear()
        ask(predictor, question(version, [f"{host.url}/rows"]))
        wait_until(lambda: list((fetches.settings.cache / "uses").iterdir()) != [])
        wait_until(lambda: not list((fetches.settings.cache / "uses").iterdir()))


def test_worker_waits_for_a_bounded_number_of_hosts(
    fetches: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(beside, "_AT_ONCE", 2)
    predictor, version = Predictor(fetches), publish(fetches, service, short)
    with hosting() as host:
        host.gate.clear()
        answers = ask_all(predictor, [question(version, [f"{host.url}/{name}"]) for name in "abc"])
    assert [each.error and each.error["kind"] for each in answers] == [DATA_COMING, DATA_COMING, "overloaded"]


def test_data_that_come_while_others_are_computed_wait_for_the_next_question(
    fetches: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    predictor, version = Predictor(fetches), publish(fetches, service, short)
    end = Errands.end

    def late(self: Errands, number: bytes) -> None:
        wait_until(self._errands[number, "hosts"].done.is_set)
        end(self, number)

    monkeypatch.setattr(Errands, "end", late)
    with hosting(rows="\n".join(ROWS).encode()) as host:
        request = question(version, [f"{host.url}/rows"])
        first, second = ask(predictor, request), ask(predictor, request)
        assert first.error is not None
        assert first.error["kind"] == DATA_COMING
        assert len(predictions(second)) == 3
        assert host.sent == 1


def test_large_file_of_a_data_set_is_fetched_beside_other_requests(
    fetches: Parts, service: Service, short: Made, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(predicting, "_LARGE_BYTES", 10)
    records, objects = fetches.records, fetches.objects
    dataset, _ = records.datasets.create(service.account_id, "flowers")
    stored = objects.put_bytes(f"datasets/{dataset.id}/rows", "\n".join(ROWS).encode())
    new = [NewFile("rows.csv", stored.key, stored.size, stored.sha256)]
    revision = records.datasets.commit(dataset.id, records.datasets.stage(dataset.id, new))
    predictor, version = Predictor(fetches), publish(fetches, service, short)
    gate, get_file = threading.Event(), type(objects).get_file

    def slow(self: Any, key: str, *arguments: Any) -> Any:
        if key == stored.key:
            assert gate.wait(20)
        return get_file(self, key, *arguments)

    monkeypatch.setattr(type(objects), "get_file", slow)
    pins = {"flowers": [dataset.id, revision]}
    named = {**question(version, ["dataset://flowers/rows.csv"]), "datasets": pins}
    first, others = ask_all(predictor, [named, question(version, ROWS)])
    assert first.error is not None
    assert first.error["kind"] == DATA_COMING
    gate.set()
    assert [each["classes"] for each in predictions(ask_until(predictor, named, b"r0"))] == [
        each["classes"] for each in predictions(others)
    ]
    wait_until(lambda: not list((fetches.settings.cache / "uses").iterdir()))


# Answers that are too large


def test_answer_that_is_too_large_is_refused_and_the_others_of_its_batch_come(
    parts: Parts, service: Service, short: Made
):
    version = publish(parts, service, short)
    narrow = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, answer_limit_bytes=2000))
    few, many = question(version), question(version, ["a,b", *["1,2"] * 100])
    first, too_large, last = ask_all(Predictor(narrow), [few, many, few])
    assert predictions(first) == predictions(last) == predictions(ask(Predictor(parts), few))
    size = len(predictions(ask(Predictor(parts), many)))
    assert size == 100
    error = error_of(too_large)
    assert (error["kind"], error["section"]) == ("answer_too_large", None)
    assert "one that is waited for may have 2000 (MODELYARD_ANSWER_LIMIT_BYTES)" in error["message"]


def test_large_answers_of_one_batch_all_come(parts: Parts, service: Service, short: Made):
    version = publish(parts, service, short)
    request = as_asked(question(version, ["a,b", *["1,2"] * 40_000]))

    def predict(_: int) -> int:
        return len(predictions(parts.queue.predict(request, LANE, batch_of(version), 60.0)))

    with ThreadPoolExecutor(4) as pool:
        asking = [pool.submit(predict, number) for number in range(4)]
        wait_until(lambda: parts.live.lane.depth(LANE).waiting == 4)
        with working(parts):
            assert [each.result(60) for each in asking] == [40_000] * 4
    assert nothing_is_left(parts)
