"""The fleet of docs/fleet.md on real servers: what passes from machine to machine, and what it outlives.

One fleet for each S3 server; the tests run on it one after the other, and each leaves it whole. moto takes any key and
forgets everything when it ends, so what is about keys, and what the store has no part in, is asked of rclone alone.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import xgboost

from tests.hand_fleet import ROOT, SECRETS, Fleet, block, commands, running_fleet, until
from tests.services import free_port, running_moto, running_rclone

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(300)]

Json = dict[str, Any]
ROWS, ROUNDS, INTERVAL = 10_000, 400, 50
BOOSTER = {"max_depth": 4, "eta": 0.2}
NAMES = [*(f"x{column}" for column in range(8)), "kind"]


@pytest.fixture(scope="module", params=["rclone", "moto"])
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    with {"rclone": running_rclone, "moto": running_moto}[request.param]() as store, running_fleet(store) as running:
        yield running


def table() -> tuple[np.ndarray, np.ndarray, bytes]:
    """Inputs, shape (ROWS, 8), one of three kinds for each, and the file of both."""
    numbers = np.random.default_rng(17)
    inputs = numbers.normal(size=(ROWS, 8)).round(3)
    value = inputs[:, :4].sum(axis=1) + inputs[:, 4] * inputs[:, 5] + numbers.normal(size=ROWS)
    kinds = np.digitize(value, [-1.0, 1.0])
    rows = zip(inputs.tolist(), kinds.tolist(), strict=True)
    lines = [",".join(NAMES), *(",".join([*map(str, row), str(kind)]) for row, kind in rows)]
    return inputs, kinds, ("\n".join(lines) + "\n").encode()


INPUTS, KINDS, CSV = table()


def create(fleet: Fleet, name: str, mllib: str, **options: Any) -> None:
    section: Json = {"connector": "csv", "label": "kind", **({"scale": True} if mllib == "torch" else {})}
    parameters = {"input": section, "mllib": {"nclasses": 3, **options}, "output": {}}
    body = {"mllib": mllib, "description": "", "model": {"repository": name}, "parameters": parameters}
    fleet.call("PUT", f"/services/{name}", body)


def train(fleet: Fleet, name: str, **options: Any) -> int:
    parameters = {"input": {"test_split": 0.2}, "mllib": options, "output": {"measure": ["acc", "mcll"]}}
    body = {"service": name, "async": True, "parameters": parameters, "data": ["dataset://table/table.csv"]}
    return int(fleet.call("POST", "/train", body)["head"]["task_id"])


def boost(fleet: Fleet, name: str, rounds: int) -> int:
    return train(fleet, name, iterations=rounds, test_interval=INTERVAL, booster_params=BOOSTER)


def predicted(fleet: Fleet, name: str, rows: np.ndarray) -> np.ndarray:
    lines = [",".join(NAMES[:8]), *(",".join(map(str, row)) for row in rows.tolist())]
    request = {"service": name, "parameters": {"output": {"best": -1}}, "data": lines}
    return probabilities(fleet.call("POST", "/predict", request)["body"]["predictions"])


def probabilities(predictions: list[Json]) -> np.ndarray:
    found = np.empty((len(predictions), 3))
    for row, each in enumerate(predictions):
        for one in each["classes"]:
            found[row, int(one["cat"])] = one["prob"]
    return found


def direct(rounds: int) -> xgboost.Booster:
    """xgboost itself, on the rows that `test_split` leaves to train on."""
    rows = ROWS * 4 // 5
    wanted = {**BOOSTER, "objective": "multi:softprob", "num_class": 3, "nthread": 1, "seed": 0}
    return xgboost.train(wanted, xgboost.DMatrix(INPUTS[:rows].astype(np.float32), label=KINDS[:rows]), rounds)


def test_newcomer_gets_from_the_page_to_a_model(fleet: Fleet):
    newcomer = fleet.machine("newcomer")
    first, *rest = block("The first model", "sh").replace("examples/", f"{ROOT}/examples/").splitlines()
    assert "MODELYARD_URL" in first
    # A client knows the address and its key, and nothing of the servers.
    url = f"http://127.0.0.1:{fleet.port}"
    newcomer.environment = {
        name: value for name, value in newcomer.environment.items() if not name.startswith(("MODELYARD_", "AWS_"))
    } | {"MODELYARD_URL": url, "MODELYARD_KEY": fleet.key}
    done = newcomer.run("\n".join(rest))
    assert done.returncode == 0, done.stdout + done.stderr
    told = done.stdout.splitlines()
    assert "iris.csv is uploaded" in done.stdout
    assert "version 1" in done.stdout
    assert [line.split()[:2] for line in told[-2:]] == [["1", "0"], ["2", "2"]]
    # Without the key, or with another one, nobody comes in.
    for key in ("", "my-guess"):
        status, _ = fleet.ask("GET", "/services", **{"X-API-KEY": key})
        assert status == 401


@pytest.mark.parametrize("fleet", ["rclone"], indirect=True)
def test_doctor_finds_the_machines_well_and_tells_no_secret(fleet: Fleet):
    [command] = commands("Is it well?")
    as_api = command.replace("--role worker", "--role api")
    asked = [fleet.machines["two"].run(command), fleet.machines["api"].run(as_api, MODELYARD_KEY=fleet.key)]
    for done in asked:
        assert done.returncode == 0, done.stdout
        assert "fail" not in {line.split(" ")[0] for line in done.stdout.splitlines()}
        assert not any(secret in done.stdout + done.stderr for secret in secrets_of(fleet))


def secrets_of(fleet: Fleet) -> list[str]:
    return [*SECRETS.values(), fleet.place.store.secret_access_key, fleet.key]


def test_files_come_in_parts_straight_into_the_store(fleet: Fleet):
    fleet.call("PUT", "/datasets/table")
    sha256 = hashlib.sha256(CSV).hexdigest()
    asked = {"path": "table.csv", "bytes": len(CSV), "sha256": sha256, "links": True}
    upload = fleet.call("POST", "/datasets/table/uploads", asked)
    for number, link in enumerate(upload["links"], 1):
        content = CSV[(number - 1) * upload["part_bytes"] : number * upload["part_bytes"]]
        assert put(link, content) == 200
    ended = fleet.call("POST", f"/datasets/table/uploads/{upload['upload_id']}/complete")
    assert ended["sha256"] == sha256
    # Through the API, in parts of which the second is sent again after a wrong one.
    large = CSV * (2**24 // len(CSV) + 1)
    sha256 = hashlib.sha256(large).hexdigest()
    asked = {"path": "large.csv", "bytes": len(large), "sha256": sha256}
    upload = fleet.call("POST", "/datasets/table/uploads", asked)
    assert upload["part_count"] == 2
    where = f"/datasets/table/uploads/{upload['upload_id']}"
    for number in upload["missing"]:
        content = large[(number - 1) * upload["part_bytes"] : number * upload["part_bytes"]]
        told = {"X-Content-SHA256": hashlib.sha256(content).hexdigest()}
        if number == 2:
            status, _ = fleet.ask("PUT", f"{where}/parts/2", content[:-1] + b"?", **told)
            assert status == 400
            assert 2 in fleet.call("GET", where)["missing"]
        fleet.call("PUT", f"{where}/parts/{number}", content, **told)
    assert fleet.call("POST", f"{where}/complete")["sha256"] == sha256


def put(url: str, content: bytes) -> int:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    try:
        connection.request("PUT", f"{parts.path}?{parts.query}", content)
        return connection.getresponse().status
    finally:
        connection.close()


def test_training_goes_on_where_another_machine_died(fleet: Fleet):
    create(fleet, "moves", "xgboost")
    task_id = boost(fleet, "moves", ROUNDS)
    until(lambda: fleet.records.tasks.get(task_id).checkpoint)
    one = fleet.machines["one"]
    one.hold()  # so that the training does not end while its files are listed
    used = one.opened()
    one.crash()
    three = fleet.machine("three")
    three.start(commands("Workers")[0].replace("-one", "-three"))
    told = fleet.ended(task_id)
    assert (told["state"], told["version"]) == ("finished", 1), told
    assert [each["outcome"] for each in told["attempts"]] == ["lost", "finished"]
    assert told["attempts"][1]["resumed_iteration"] > 0
    assert fleet.machine_of(told["attempts"][1]["worker"]) == "three"
    # A machine saw its own disk only, and the second one has been told everything by the servers.
    opened = {"one": used, **{name: machine.opened() for name, machine in fleet.machines.items()}}
    for name, paths in opened.items():
        own = fleet.machines[name].folder
        foreign = [path for path in paths if path.startswith(f"{own.parent}/") and not f"{path}/".startswith(f"{own}/")]
        assert not foreign, (name, foreign)
    assert any(path.startswith(str(one.home)) for path in used), "the look into /proc found nothing"
    # Histories and predictions are those of xgboost, called once and never killed; another machine predicts.
    booster, rows = direct(ROUNDS), ROWS * 4 // 5
    rest = xgboost.DMatrix(INPUTS[rows:].astype(np.float32))
    hist = fleet.call("GET", "/train?service=moves&job=1")["body"]["measure_hist"]
    assert hist["iteration_hist"] == [*range(INTERVAL, ROUNDS - 1, INTERVAL), ROUNDS - 1]
    guessed = [booster.predict(rest, iteration_range=(0, int(at) + 1)).argmax(axis=1) for at in hist["iteration_hist"]]
    np.testing.assert_allclose(hist["acc_hist"], [(each == KINDS[rows:]).mean() for each in guessed], atol=1e-6)
    right = booster.predict(xgboost.DMatrix(INPUTS[-50:].astype(np.float32)))
    np.testing.assert_allclose(predicted(fleet, "moves", INPUTS[-50:]), right, atol=1e-6)


def test_network_is_trained_on_one_machine_and_served_by_another(fleet: Fleet):
    create(fleet, "network", "torch", template="mlp", layers=[16])
    solver = {"solver_type": "ADAM", "base_lr": 0.01, "iterations": 300, "test_interval": 100}
    told = fleet.ended(train(fleet, "network", solver=solver, net={"batch_size": 64}, seed=1))
    assert told["state"] == "finished", told
    assert fleet.machine_of(told["attempts"][-1]["worker"]) == "three"
    found = predicted(fleet, "network", INPUTS[-200:])
    np.testing.assert_allclose(found.sum(axis=1), 1.0, atol=1e-5)
    assert (found.argmax(axis=1) == KINDS[-200:]).mean() > 0.5
    assert list((fleet.machines["two"].home / "cache" / "entries").iterdir()), "it came from the object store"


@pytest.mark.parametrize("fleet", ["rclone"], indirect=True)
def test_large_results_of_tasks_lie_in_the_store(fleet: Fleet):
    for service, form in (("moves", "jsonl"), ("network", "json")):
        parameters = {"output": {"best": -1, "format": form}}
        body = {"service": service, "async": True, "parameters": parameters, "data": ["dataset://table/table.csv"]}
        task_id = int(fleet.call("POST", "/predict", body)["head"]["task_id"])
        assert fleet.ended(task_id)["state"] == "finished"
        report = fleet.records.tasks.report(task_id)
        assert report is not None
        assert report["result"]["key"].startswith(f"attempts/{task_id}/"), "the result is not small"
        content = result_of(fleet, task_id)
        rows = (
            [json.loads(line) for line in content.splitlines()]
            if form == "jsonl"
            else json.loads(content)["body"]["predictions"]
        )
        assert len(rows) == ROWS
        at_once = predicted(fleet, service, INPUTS[:20])
        np.testing.assert_allclose(probabilities(rows[:20]), at_once, atol=1e-6)


def result_of(fleet: Fleet, task_id: int) -> bytes:
    connection = http.client.HTTPConnection("127.0.0.1", fleet.port, timeout=60)
    try:
        connection.request("GET", f"/tasks/{task_id}/result", headers={"X-API-KEY": fleet.key})
        answer = connection.getresponse()
        assert answer.status == 200
        return answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize("fleet", ["rclone"], indirect=True)
def test_model_is_published_from_one_repository_into_another(fleet: Fleet):
    body = {
        "mllib": "xgboost",
        "description": "",
        "model": {"repository": "copied"},
        "parameters": {
            "input": {"connector": "csv"},
            "mllib": {"from_repository": "moves", "nclasses": 3},
            "output": {},
        },
    }
    fleet.call("PUT", "/services/copy", body)
    np.testing.assert_allclose(predicted(fleet, "copy", INPUTS[:20]), predicted(fleet, "moves", INPUTS[:20]), atol=1e-6)
    fleet.call("DELETE", "/services/copy?clear=full", {"clear": "full"})
    status, _ = fleet.ask("GET", "/services/copy")
    assert status == 404
    predicted(fleet, "moves", INPUTS[:2])  # what it was copied from is not touched


@pytest.mark.parametrize("fleet", ["rclone"], indirect=True)
@pytest.mark.parametrize(("part", "wrong"), [("redis", "MODELYARD_REDIS_URL"), ("objects", "AWS_SECRET_ACCESS_KEY")])
def test_wrong_password_is_named_by_readiness_and_doctor(fleet: Fleet, part: str, wrong: str):
    port = free_port()
    lost = fleet.machine(f"lost-{part}", MODELYARD_PORT=str(port))
    secret = SECRETS["REDIS-SECRET"] if part == "redis" else fleet.place.store.secret_access_key
    lost.environment[wrong] = lost.environment[wrong].replace(secret, "not-this-one")
    lost.start("modelyard api")
    missing = until(lambda: fleet.missing(port))
    assert set(missing) == {part}, missing
    doctor = lost.run("modelyard doctor --role api")
    assert doctor.returncode == 1
    lines = doctor.stdout.splitlines()
    [at] = [place for place, line in enumerate(lines) if line.startswith(f"fail  {part}:")]
    assert wrong.partition("_")[0] in lines[at + 1], lines[at : at + 2]
    assert "not-this-one" not in doctor.stdout
    lost.stop("api")


def test_nothing_is_lost_when_the_servers_fail_one_after_the_other(fleet: Fleet):
    """PostgreSQL is killed under load, the store goes away, Redis comes back empty; meanwhile a training runs."""
    place, accepted = fleet.place, []
    create(fleet, "outlives", "xgboost")
    first = boost(fleet, "outlives", 1500)
    until(lambda: fleet.records.tasks.get(first).checkpoint)
    over = threading.Event()
    load = threading.Thread(target=_submit, args=(fleet, over, accepted))
    load.start()
    try:
        until(lambda: accepted)
        place.postgres.kill()
        until(lambda: "records" in (fleet.missing() or {}))
        place.postgres.start()
        fleet.wait_ready()

        os.kill(place.store.server.pid, signal.SIGSTOP)
        try:
            until(lambda: "objects" in (fleet.missing() or {}))
        finally:
            os.kill(place.store.server.pid, signal.SIGCONT)
        if "rclone" in place.store.server.command[0]:
            place.store.kill()
            until(lambda: "objects" in (fleet.missing() or {}))
            place.store.start()
        fleet.wait_ready()

        place.redis.kill()
        until(lambda: "redis" in (fleet.missing() or {}))
        # So many lines go through the object store.
        body = {**_training("outlives", 20), "data": CSV.decode().splitlines()}
        second = fleet.call("POST", "/train", body)["head"]["task_id"]
        assert "data_key" in fleet.records.tasks.spec(second)
        place.redis.start()
        fleet.wait_ready()
    finally:
        over.set()
        load.join()
    told = [fleet.ended(task_id, 150) for task_id in (first, second, *accepted)]
    assert {each["state"] for each in told} == {"finished"}, told
    assert (told[0]["version"], told[1]["version"]) == (1, 2)
    right = direct(20).predict(xgboost.DMatrix(INPUTS[:10].astype(np.float32)))
    np.testing.assert_allclose(predicted(fleet, "outlives", INPUTS[:10]), right, atol=1e-6)


def _training(service: str, rounds: int) -> Json:
    options = {"iterations": rounds, "test_interval": INTERVAL, "booster_params": BOOSTER}
    parameters = {"input": {"test_split": 0.2}, "mllib": options, "output": {"measure": ["acc"]}}
    return {"service": service, "async": True, "parameters": parameters, "data": ["dataset://table/table.csv"]}


def _submit(fleet: Fleet, over: threading.Event, accepted: list[int]) -> None:
    """Predictions as tasks, one after the other; what is answered with 201 was promised."""
    row = ",".join(map(str, INPUTS[0].tolist()))
    body = {"service": "moves", "async": True, "parameters": {"output": {}}, "data": [",".join(NAMES[:8]), row]}
    while not over.wait(0.1):
        try:
            status, answer = fleet.ask("POST", "/predict", body)
        except (OSError, http.client.HTTPException):
            continue
        if status == 201:
            accepted.append(int(answer["head"]["task_id"]))
