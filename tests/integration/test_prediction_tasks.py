"""Predictions as tasks, through the API and the real workers' code on real stores."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet
import pytest
import xgboost
from sklearn.metrics import accuracy_score

from settings import Settings
from storage.records import State
from tests.integration.yard import Json, Yard, running_yard
from workers import bulk
from workers.lifecycle import run_task

pytestmark = pytest.mark.servers

ROWS = 20_000


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    with running_yard(dataclasses.replace(settings, sweep_s=0.1), redis_url) as made:
        yield made


@pytest.fixture
def iris(yard: Yard) -> Yard:
    """A yard with a trained service and a file of many flowers."""
    yard.create("iris", "iris")
    yard.train("iris", 10)
    numbers = np.random.default_rng(5).uniform(0.1, 7.9, (ROWS, 4)).round(2)
    header = (yard.data / "iris.csv").read_text().split("\n", 1)[0].rpartition(",")[0]
    lines = [header, *(",".join(map(str, row)) for row in numbers.tolist())]
    (yard.data / "many.csv").write_text("\n".join(lines) + "\n")
    return yard


def ask(yard: Yard, data: list[str], *, service: str = "iris", code: int = 201, **output: Any) -> Json:
    asked = {"service": service, "async": True, "parameters": {"output": output}, "data": data}
    return yard.call("POST", "/predict", asked, code=code)


def at_once(yard: Yard, data: list[str], *, service: str = "iris", **output: Any) -> Json:
    body = {"service": service, "parameters": {"output": output}, "data": data}
    found: Json = yard.call("POST", "/predict", body)["body"]
    return found


def task_of(yard: Yard, answer: Json) -> Json:
    return yard.call("GET", f"/tasks/{answer['head']['task_id']}")


def result(yard: Yard, answer: Json) -> Any:
    return yard.client.get(f"/tasks/{answer['head']['task_id']}/result")


def lines(content: bytes) -> list[Json]:
    return [json.loads(line) for line in content.splitlines()]


def test_one_row_becomes_a_task_with_the_answer_of_a_prediction(iris: Yard):
    answer = iris.client.post("/predict", json={"service": "iris", "async": True, "data": ["5.1,3.5,1.4,0.2"]})
    assert answer.status_code == 201
    head = answer.json["head"]
    assert answer.headers["Location"] == f"/tasks/{head['task_id']}"
    assert (head["method"], head["service"], head["status"]) == ("/predict", "iris", "queued")
    task = iris.call("GET", f"/tasks/{head['task_id']}")
    assert (task["kind"], task["state"], task["percent"]) == ("predict", "finished", 100.0)
    assert task["result"] == f"/tasks/{head['task_id']}/result"
    told = iris.call("GET", task["result"])
    assert told["status"] == {"code": 200, "msg": "OK"}
    assert told["head"]["task_id"] == head["task_id"]
    assert told["body"] == at_once(iris, ["5.1,3.5,1.4,0.2"])


def test_tasks_count_among_the_predictions_of_their_service(iris: Yard):
    ask(iris, ["5.1,3.5,1.4,0.2", "6,3,5,2"])
    ask(iris, [str(iris.data / "many.csv")])
    ask(iris, ["no,number,at,all"])
    counted = iris.call("GET", "/services/iris")["body"]["service_stats"]
    assert [counted[name] for name in ("predict_count", "predict_success", "predict_failure")] == [3, 2, 1]
    assert counted["inference_count"] == 2 + ROWS
    assert counted["total_predict_duration_ms"] > 0


def test_a_large_file_is_predicted_as_at_once_and_as_by_xgboost_itself(iris: Yard):
    path = str(iris.data / "many.csv")
    answer = ask(iris, [path], best=-1)
    found = result(iris, answer)
    assert found.mimetype == "application/x-ndjson"
    rows = lines(found.data)
    assert rows == at_once(iris, [path], best=-1)["predictions"]
    version = iris.versions("iris")[-1]
    model = next(each for each in version.artifacts if each.name == version.description["file"])
    booster = xgboost.Booster(model_file=bytearray(iris.parts.objects.get_bytes(model.key)))
    numbers = np.loadtxt(path, delimiter=",", skiprows=1, dtype=np.float32)
    expected = booster.predict(xgboost.DMatrix(numbers), validate_features=False)
    labels = version.description["labels"]
    assert [row["uri"] for row in rows] == [str(number) for number in range(1, ROWS + 1)]
    shares = [{each["cat"]: each["prob"] for each in row["classes"]} for row in rows]
    assert [[share[name] for name in labels] for share in shares] == expected.astype(float).tolist()


def test_a_folder_is_the_files_in_it_by_name(iris: Yard):
    folder = iris.data / "folder"
    folder.mkdir()
    header, *rows = (iris.data / "many.csv").read_text().splitlines()
    (folder / "b.csv").write_text("\n".join([header, *rows[50:90]]))
    (folder / "a.csv").write_text("\n".join([header, *rows[:50]]))
    (folder / ".left").write_text("no table")
    found = result(iris, ask(iris, [str(folder)])).json["body"]
    assert found == at_once(iris, [str(folder / "a.csv"), str(folder / "b.csv")])
    assert found == at_once(iris, [header, *rows[:90]])


def test_parquet_holds_the_best_class_and_all_that_were_kept(iris: Yard):
    path = str(iris.data / "many.csv")
    found = result(iris, ask(iris, [path], best=2, format="parquet"))
    table = pyarrow.parquet.read_table(io.BytesIO(found.data)).to_pylist()
    expected = at_once(iris, [path], best=2)["predictions"]
    assert len(table) == ROWS
    for row, one in zip(table, expected, strict=True):
        kept = [{"cat": each["cat"], "prob": each["prob"]} for each in one["classes"]]
        assert row == {"uri": one["uri"], **kept[0], "classes": kept}


def test_a_large_result_may_be_one_json(iris: Yard):
    path = str(iris.data / "many.csv")
    found = result(iris, ask(iris, [path], format="json", timings=True))
    assert found.mimetype == "application/json"
    assert int(found.headers["Content-Length"]) == len(found.data)
    assert found.json["body"] == at_once(iris, [path])
    assert set(found.json["head"]["timings"]) == {"queued", "load", "input", "compute", "output"}


def test_few_lines_may_be_json_lines_or_parquet(iris: Yard):
    given = ["5.1,3.5,1.4,0.2", "6.7,3.0,5.2,2.3"]
    expected = at_once(iris, given)["predictions"]
    assert lines(result(iris, ask(iris, given, format="jsonl")).data) == expected
    table = pyarrow.parquet.read_table(io.BytesIO(result(iris, ask(iris, given, format="parquet")).data))
    assert table.column("cat").to_pylist() == [each["classes"][0]["cat"] for each in expected]


def test_measures_are_those_of_all_rows(iris: Yard):
    header, *rows = (iris.data / "iris.csv").read_text().splitlines()
    (iris.data / "labelled.csv").write_text("\n".join([header, *(rows * 40)]))
    answer = ask(iris, [str(iris.data / "labelled.csv")], measure=["acc"])
    measure = result(iris, answer).json["body"]["measure"]
    assert measure == at_once(iris, [str(iris.data / "labelled.csv")], measure=["acc"])["measure"]
    said = at_once(iris, [row.rpartition(",")[0] for row in rows])["predictions"]
    words = [row.rpartition(",")[2] for row in rows]
    assert measure["acc"] == pytest.approx(accuracy_score(words, [each["classes"][0]["cat"] for each in said]))
    assert task_of(iris, answer)["measure"] == measure


@pytest.mark.timeout(300)
def test_a_network_predicts_the_same_in_pieces(iris: Yard):
    iris.call("PUT", "/services/net", iris.network("net"), code=201)
    iris.learn("net", 30)
    path = str(iris.data / "many.csv")
    rows = lines(result(iris, ask(iris, [path], service="net")).data)
    assert rows == at_once(iris, [path], service="net")["predictions"]
    layer = {"service": "net", "data": [path], "parameters": {"mllib": {"extract_layer": "fc8"}}}
    layers = iris.client.post("/predict", json={**layer, "data": ["1,2,3,4"]})
    name = next(word for word in layers.json["status"]["dd_msg"].replace(",", " ").split()[::-1])
    layer["parameters"]["mllib"]["extract_layer"] = name
    answer = iris.call("POST", "/predict", {**layer, "async": True}, code=201)
    assert lines(result(iris, answer).data) == iris.call("POST", "/predict", layer)["body"]["predictions"]
    # The row at fault is counted from the first of all.
    with Path(path).open("a") as file:
        file.write("1,nan,3,4\n")
    answer = ask(iris, [path], service="net")
    sent = iris.client.post("/predict", json={"service": "net", "data": [path]}).json
    assert f"row {ROWS + 1}" in task_of(iris, answer)["failure"]["message"]
    assert task_of(iris, answer)["failure"]["message"] in sent["status"]["dd_msg"]


def test_a_bad_row_far_down_fails_the_task_and_is_told_as_at_once(iris: Yard):
    path = iris.data / "many.csv"
    path.write_text(path.read_text() + "1,2,x,4\n")
    answer = ask(iris, [str(path)])
    task = task_of(iris, answer)
    sent = iris.client.post("/predict", json={"service": "iris", "data": [str(path)]})
    assert task["state"] == "failed"
    assert task["failure"]["message"] in sent.json["status"]["dd_msg"]
    told = result(iris, answer)
    assert told.status_code == 404
    assert task["failure"]["message"] in told.json["error"]["message"]


def test_a_result_that_is_not_there_yet_is_a_conflict(iris: Yard):
    iris.is_idle = True
    answer = ask(iris, ["1,2,3,4"])
    told = result(iris, answer)
    assert (told.status_code, told.json["error"]["kind"]) == (409, "result_pending")
    iris.call("DELETE", f"/tasks/{answer['head']['task_id']}", code=202)
    told = result(iris, answer)
    assert (told.status_code, told.json["error"]["kind"]) == (404, "result_not_found")


def test_the_version_that_was_newest_when_the_task_was_accepted_answers(iris: Yard):
    expected = at_once(iris, ["5.9,3.0,4.2,1.5"])
    iris.is_idle = True
    answer = ask(iris, ["5.9,3.0,4.2,1.5"], format="jsonl")
    iris.is_idle = False
    iris.train("iris", 1)
    iris.app.extensions["modelyard"].services._kept.clear()  # this yard's queue tells no changes
    assert at_once(iris, ["5.9,3.0,4.2,1.5"]) != expected
    iris.send_task(iris.parts.records.tasks.get(answer["head"]["task_id"]))
    assert lines(result(iris, answer).data) == expected["predictions"]


def test_tasks_of_a_service_that_is_deleted_are_cancelled(iris: Yard):
    iris.is_idle = True
    answer = ask(iris, ["1,2,3,4"])
    iris.is_idle = False
    iris.call("DELETE", "/services/iris")
    assert task_of(iris, answer)["state"] == "cancelled"


def test_an_idempotency_key_makes_one_task(iris: Yard):
    asked = {"service": "iris", "async": True, "data": ["1,2,3,4"]}
    headers = {"Idempotency-Key": "once"}
    made = {iris.client.post("/predict", json=asked, headers=headers).json["head"]["task_id"] for _ in range(3)}
    assert len(made) == 1


class Slow:
    """Holds the child at its first piece until it is let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.gate = folder / "gate"
        program = folder / "slow.py"
        program.write_text(
            "import pathlib, time\n"
            "from ml.bulk import predictions, run\n"
            "from ml.training.run import leave, main\n"
            "computed = predictions._computed\n"
            "def slow(model, question, piece, start, stop):\n"
            f"    while start and not pathlib.Path({str(self.gate)!r}).exists():\n"
            "        time.sleep(0.01)\n"
            "        if time_is_up(): break\n"
            "    return computed(model, question, piece, start, stop)\n"
            "began = time.monotonic()\n"
            "def time_is_up(): return time.monotonic() - began > WAIT\n"
            "predictions._computed = slow\n"
            "leave(main(work=run.work, what='prediction'))\n".replace("WAIT", "60")
        )
        self.children: list[int] = []
        made = bulk.Child

        def child(*given: Any, **more: Any) -> Any:
            one = made(*given[:-1], (str(program),), **more)
            self.children.append(one.pid)
            return one

        monkeypatch.setattr(bulk, "Child", child)
        monkeypatch.setenv("PYTHONPATH", os.getcwd())

    def let_go(self) -> None:
        self.gate.touch()


def until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 40
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def percent(yard: Yard, task_id: int) -> float:
    return float(yard.call("GET", f"/tasks/{task_id}")["percent"] or 0.0)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Slow:
    return Slow(monkeypatch, tmp_path)


def begun(yard: Yard, slow: Slow) -> tuple[int, threading.Thread, list[Any]]:
    """A large task under way, one piece of it done."""
    yard.is_idle = True
    task_id = ask(yard, [str(yard.data / "many.csv")])["head"]["task_id"]
    ended: list[Any] = []
    thread = threading.Thread(
        target=lambda: ended.append(run_task(task_id, yard.parts, yard._asking.compute)), daemon=True
    )
    thread.start()
    until(lambda: percent(yard, task_id) > 0)
    return task_id, thread, ended


def test_a_killed_process_is_followed_by_another_with_the_right_result(iris: Yard, slow: Slow):
    task_id, thread, ended = begun(iris, slow)
    assert percent(iris, task_id) == pytest.approx(100 * 4096 / ROWS, abs=0.01)
    os.kill(slow.children[0], signal.SIGKILL)
    thread.join(30)
    assert ended[0].state is State.QUEUED
    slow.let_go()
    run_task(task_id, iris.parts, iris._asking.compute)
    task = iris.call("GET", f"/tasks/{task_id}")
    assert (task["state"], task["attempt"]) == ("finished", 2)
    assert [each["outcome"] for each in task["attempts"]] == ["killed", "finished"]
    found = lines(iris.client.get(f"/tasks/{task_id}/result").data)
    assert found == at_once(iris, [str(iris.data / "many.csv")])["predictions"]


def test_a_cancel_in_the_middle_ends_it_and_leaves_no_result(iris: Yard, slow: Slow):
    task_id, thread, ended = begun(iris, slow)
    iris.call("DELETE", f"/tasks/{task_id}", code=202)
    until(lambda: iris.call("GET", f"/tasks/{task_id}")["cancel_requested"])
    time.sleep(0.5)
    slow.let_go()
    thread.join(30)
    assert ended[0].state is State.CANCELLED
    assert iris.client.get(f"/tasks/{task_id}/result").status_code == 404
    assert not list(iris.parts.objects.list(f"attempts/{task_id}"))


def test_an_attempt_that_was_taken_over_leaves_no_trace_in_the_result(iris: Yard, slow: Slow):
    task_id, thread, ended = begun(iris, slow)
    records = iris.parts.records

    def is_taken() -> bool:
        # Again when the lease was renewed between the two.
        with records.database.write() as connection:
            connection.exec_driver_sql(f"UPDATE tasks SET lease_until = 0 WHERE id = {task_id}")
        return records.tasks.claim(task_id, "elsewhere", 60.0) is not None

    until(is_taken)
    slow.let_go()
    thread.join(40)
    assert ended == [None]
    assert records.tasks.report(task_id) is None
    assert records.tasks.get(task_id).lease_owner == "elsewhere"


def test_measures_of_lines_tell_how_many_rows_they_are_of_as_those_of_a_file_do(iris: Yard):
    header, *rows = (iris.data / "iris.csv").read_text().splitlines()
    few = ask(iris, [header, *rows], measure=["acc"])
    (iris.data / "labelled.csv").write_text("\n".join([header, *rows]) + "\n")
    many = ask(iris, [str(iris.data / "labelled.csv")], measure=["acc"])
    for answer in (few, many):
        report = iris.call("GET", f"/tasks/{answer['head']['task_id']}/report")
        assert report["rows"] == len(rows) == 150
    assert iris.call("GET", "/services/iris")["body"]["service_stats"]["inference_count"] == 300


def test_lines_whose_answer_is_too_large_for_the_lane_are_computed_by_a_process(iris: Yard):
    given = ["5.1,3.5,1.4,0.2", "6.7,3.0,5.2,2.3"] * 50
    expected = at_once(iris, given, best=-1)
    iris._predictor._answer_bytes = 1000
    told = iris.client.post("/predict", json={"service": "iris", "parameters": {}, "data": given})
    assert (told.status_code, told.json["status"]["code"]) == (413, 413)
    answer = ask(iris, given, best=-1)
    task = task_of(iris, answer)
    assert (task["state"], task["attempt"]) == ("finished", 1)
    assert result(iris, answer).json["body"] == expected
