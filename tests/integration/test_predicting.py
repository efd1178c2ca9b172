"""The predictor of a worker process with real models, records and objects, and Redis between it and the caller."""

from __future__ import annotations

import dataclasses
import json
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import xgboost

from ml.connectors.source import LinesSource
from ml.training.session import Specification, run
from settings import Settings
from storage.objects.manifest import upload_folder
from storage.records import Kind, NewVersion, Service, State, Version
from workers.parts import Parts
from workers.predicting import Predictor
from workers.queue import NoAnswer
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


def asked(parts: Parts, predictor: Predictor, request: Json) -> Json:
    """The answer that the caller of a request finds."""
    parts.live.exchange.ask("r", request, 30.0)
    predictor.answer("r")
    answer = parts.live.exchange.wait("r", 1.0)
    assert answer is not None
    return answer


def table(answer: Json) -> np.ndarray:
    assert "predictions" in answer, answer
    found = np.empty((len(answer["predictions"]), 3))
    for row, each in enumerate(answer["predictions"]):
        for one in each["classes"]:
            found[row, int(one["cat"])] = one["prob"]
    return found


def empty_the_store(parts: Parts) -> None:
    """Nothing can be loaded from now on, neither from the store nor from the local cache."""
    parts.objects.delete_prefix("attempts")
    shutil.rmtree(parts.settings.cache / "entries")
    (parts.settings.cache / "entries").mkdir()


def is_loaded(parts: Parts, predictor: Predictor, version: Version) -> bool:
    """Whether a predictor answers for a version when the store is empty."""
    answer = asked(parts, predictor, question(version))
    assert ("predictions" in answer) or answer["error"]["kind"] == "artifact_not_found", answer
    return "predictions" in answer


# Models


def test_predictions_are_those_of_the_published_model(parts: Parts, service: Service, long: Made):
    answer = asked(parts, Predictor(parts), question(publish(parts, service, long)))
    np.testing.assert_allclose(table(answer), long.probabilities(), atol=1e-6)
    assert [each["uri"] for each in answer["predictions"]] == ["1", "2", "3"]


def test_model_is_loaded_once_and_stays_warm(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    first = asked(parts, predictor, question(version))
    empty_the_store(parts)
    again = asked(parts, predictor, question(version))
    assert again["predictions"] == first["predictions"]
    assert again["timings"]["load_ms"] < first["timings"]["load_ms"]
    assert not is_loaded(parts, Predictor(parts), version), "another process has nothing to load from"


def test_new_version_takes_over_and_the_old_one_still_answers(parts: Parts, service: Service, short: Made, long: Made):
    predictor = Predictor(parts)
    old = publish(parts, service, short)
    before = table(asked(parts, predictor, question(old)))
    new = publish(parts, service, long)
    assert new.number == old.number + 1
    after = table(asked(parts, predictor, question(new)))
    np.testing.assert_allclose(before, short.probabilities(), atol=1e-6)
    np.testing.assert_allclose(after, long.probabilities(), atol=1e-6)
    assert np.abs(after - before).max() > 0.1
    # A request that was on its way when the new version came.
    np.testing.assert_array_equal(table(asked(parts, predictor, question(old))), before)


def test_models_that_fit_stay(parts: Parts, service: Service, short: Made):
    versions = [publish(parts, service, short) for _ in range(3)]
    predictor = Predictor(parts)
    for version in versions:
        asked(parts, predictor, question(version))
    empty_the_store(parts)
    assert [is_loaded(parts, predictor, version) for version in versions] == [True, True, True]


def test_model_longest_unused_is_given_up_when_they_are_too_large_together(parts: Parts, service: Service, short: Made):
    versions = [publish(parts, service, short) for _ in range(3)]
    size = _size_of(parts, versions[0])
    two = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, models_limit_bytes=2 * size))
    predictor = Predictor(two)
    for position in (0, 1, 0, 2):  # the second is the one that nobody asked for lately
        asked(two, predictor, question(versions[position]))
    empty_the_store(parts)
    assert [is_loaded(two, predictor, version) for version in versions] == [True, False, True]


def test_model_larger_than_the_limit_is_served_alone(parts: Parts, service: Service, short: Made, long: Made):
    none = dataclasses.replace(parts, settings=dataclasses.replace(parts.settings, models_limit_bytes=1))
    predictor = Predictor(none)
    first, second = publish(parts, service, short), publish(parts, service, long)
    for version in (first, second):
        np.testing.assert_allclose(table(asked(none, predictor, question(version))).sum(axis=1), 1.0, atol=1e-6)
    empty_the_store(parts)
    assert [is_loaded(none, predictor, version) for version in (first, second)] == [False, True]


def _size_of(parts: Parts, version: Version) -> int:
    return Predictor(parts)._model(version.id, "cpu").bytes


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
    first, *others = (asked(parts, predictor, request)["predictions"] for request in requests)
    assert others == [first, first]


def test_measures_are_the_answer_when_asked_for(parts: Parts, service: Service, long: Made):
    answer = asked(parts, Predictor(parts), question(publish(parts, service, long), LABELLED, measure=["acc", "mcll"]))
    chosen = long.probabilities()[np.arange(3), np.arange(3)]
    assert answer["measure"] == {
        "acc": pytest.approx(float((long.probabilities().argmax(axis=1) == np.arange(3)).mean())),
        "mcll": pytest.approx(float(-np.log(chosen).mean()), rel=1e-6),
    }
    assert "predictions" not in answer


def test_what_had_no_effect_is_told(parts: Parts, service: Service, long: Made):
    request = question(publish(parts, service, long), LABELLED, measure=["acc", "auc"])
    [warning] = asked(parts, Predictor(parts), request)["warnings"]
    assert warning["parameter"] == "parameters.output.measure"
    assert "'auc'" in warning["message"]


def test_timings_tell_the_parts_of_the_work(parts: Parts, service: Service, long: Made):
    timings = asked(parts, Predictor(parts), question(publish(parts, service, long)))["timings"]
    assert set(timings) == {"load_ms", "input_ms", "compute_ms", "output_ms"}
    assert all(value > 0 for value in timings.values())


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
        error = asked(parts, predictor, request)["error"]
        assert error["kind"] == kind, error
        assert error["message"]
    assert asked(parts, predictor, cases["bad_input"])["error"]["section"] == "input"
    assert asked(parts, predictor, cases["bad_parameter"])["error"]["section"] == "output"
    # None of them does harm to what comes next.
    assert len(asked(parts, predictor, question(version))["predictions"]) == 3


def test_unexpected_error_is_told_without_its_details(
    parts: Parts, service: Service, long: Made, caplog: pytest.LogCaptureFixture
):
    version = publish(parts, service, long, labels=3)
    error = asked(parts, Predictor(parts), question(version))["error"]
    assert error["kind"] == "internal"
    assert "Traceback" not in error["message"]
    assert "the worker's log" in error["message"]
    assert "failed unexpectedly" in caplog.text


def test_files_that_are_gone_are_no_fault_of_the_client(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    parts.objects.delete_prefix("attempts")
    error = asked(parts, Predictor(parts), question(version))["error"]
    assert error["kind"] == "artifact_not_found"


def test_model_that_could_not_be_loaded_is_tried_again(parts: Parts, service: Service, long: Made):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    parts.objects.delete_prefix("attempts")
    assert "error" in asked(parts, predictor, question(version))
    upload_folder(parts.objects, version.prefix, long.folder)
    assert "predictions" in asked(parts, predictor, question(version))


# Callers


def nothing_is_left(parts: Parts) -> bool:
    return list(parts.live.server.redis.scan_iter()) == []


def gone(parts: Parts, request: Json) -> None:
    parts.live.exchange.ask("r", request, 30.0)
    parts.live.exchange.withdraw("r")


def late(parts: Parts, request: Json) -> None:
    parts.live.exchange.ask("r", request, 0.001)
    while not nothing_is_left(parts):
        threading.Event().wait(0.005)


@pytest.mark.parametrize("leave", [gone, late], ids=["gone", "late"])
def test_nothing_is_computed_for_a_caller_that_left(
    parts: Parts, service: Service, long: Made, leave: Callable[[Parts, Json], None]
):
    version = publish(parts, service, long)
    predictor = Predictor(parts)
    leave(parts, question(version))
    predictor.answer("r")
    assert nothing_is_left(parts)
    empty_the_store(parts)
    assert not is_loaded(parts, predictor, version), "the model was not even loaded"


def test_message_that_comes_twice_is_answered_once(parts: Parts, service: Service, long: Made):
    predictor = Predictor(parts)
    parts.live.exchange.ask("r", question(publish(parts, service, long)), 30.0)
    predictor.answer("r")
    predictor.answer("r")
    assert parts.live.server.redis.llen("reply:r") == 1


def test_queue_brings_each_caller_its_own_answer(parts: Parts, service: Service, short: Made):
    version = publish(parts, service, short)
    over = threading.Event()

    def work() -> None:
        predictor = Predictor(parts)
        while not over.is_set():
            for key in list(parts.live.server.redis.scan_iter("request:*")):
                predictor.answer(str(key).removeprefix("request:"))
            over.wait(0.01)

    def predict(rows: int) -> int:
        request = question(version, ["a,b", *["1,2"] * rows])
        return len(parts.queue.predict(request, "predict.xgboost.cpu", 30.0)["predictions"])

    with ThreadPoolExecutor(5) as pool:
        worker = pool.submit(work)
        try:
            assert list(pool.map(predict, range(1, 13))) == list(range(1, 13))
        finally:
            over.set()
        worker.result(20)


def test_caller_that_nobody_answers_takes_its_request_back(parts: Parts, service: Service, short: Made):
    request = question(publish(parts, service, short))
    with pytest.raises(NoAnswer, match=r"predict\.xgboost\.cpu"):
        parts.queue.predict(request, "predict.xgboost.cpu", 0.2)
    assert list(parts.live.server.redis.scan_iter("request:*")) == []
