"""Trainings and prediction tasks on data of other hosts, through the API and the real workers' code."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest

from settings import Settings
from storage.records import Kind, State
from tests.integration.host import Host, hosting, wait_until
from tests.integration.yard import Json, Yard, running_yard
from tests.services import S3Server
from workers.lifecycle import run_task

pytestmark = pytest.mark.servers


@pytest.fixture
def yard(settings: Settings, redis_url: str, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    allowed = dataclasses.replace(
        settings,
        fetch_allow=("127.0.0.0/8",),
        data_s3_buckets=("flowers",),
        data_s3_endpoint_url=moto_server.endpoint_url,
        precheck_timeout_s=0.0,  # the workers tell what is wrong
    )
    with running_yard(allowed, redis_url) as made:
        made.create("iris", "iris")
        yield made


@pytest.fixture
def host(yard: Yard) -> Iterator[Host]:
    flowers = (yard.data / "iris.csv").read_bytes()
    with hosting(**{"iris.csv": flowers}) as made:
        yield made


def held(yard: Yard) -> list[Path]:
    return list((yard.parts.settings.cache / "uses").iterdir())


def numbers(report: Json) -> Json:
    """What a training came to, without what depends on the clock."""
    return {name: report["body"]["measure"][name] for name in ("acc", "f1", "iteration")}


def test_training_on_a_table_of_another_host_is_the_one_on_the_file(yard: Yard, host: Host):
    local = yard.train("iris", 10)
    remote = yard.train("iris", 10, data=[f"{host.url}/iris.csv"])
    again = yard.train("iris", 10, data=[f"{host.url}/iris.csv"])
    assert remote["head"]["status"] == "finished", remote
    assert numbers(remote) == numbers(local) == numbers(again)
    assert host.asked == [("/iris.csv", 200), ("/iris.csv", 304)]
    assert held(yard) == []


def test_training_may_take_its_tables_from_several_places(yard: Yard, host: Host):
    client = boto3.client("s3", endpoint_url=yard.parts.settings.data_s3_endpoint_url)
    client.create_bucket(Bucket="flowers")
    client.put_object(Bucket="flowers", Key="test/iris.csv", Body=(yard.data / "iris.csv").read_bytes())
    local = yard.train("iris", 10, data=["iris.csv", "iris.csv"])
    remote = yard.train("iris", 10, data=["iris.csv", "s3://flowers/test/iris.csv"])
    assert remote["head"]["status"] == "finished", remote
    assert numbers(remote) == numbers(local)
    failure = yard.train("iris", 10, data=["s3://flowers/test/"])["body"]["Error"]
    assert (failure["code"], failure["dd_code"]) == (400, 1005)
    assert "it is a folder" in failure["dd_msg"]


def test_host_that_refuses_fails_the_training_by_name(yard: Yard, host: Host):
    failed = yard.train("iris", 10, data=[f"http://me:secret@127.0.0.1:{host.port}/none.csv?token=hidden"])
    error = failed["body"]["Error"]
    assert (error["code"], error["dd_code"]) == (400, 1005)
    told = f"data cannot be read from 'http://127.0.0.1:{host.port}/none.csv?…': 127.0.0.1:{host.port} answered with"
    assert told in error["dd_msg"]
    [task] = yard.tasks(Kind.TRAIN)
    assert "secret" not in str(yard.call("GET", f"/tasks/{task.id}"))
    assert "hidden" not in str(yard.call("GET", f"/tasks/{task.id}"))


def test_training_that_is_cancelled_or_stopped_waits_for_no_host(
    yard: Yard, host: Host, monkeypatch: pytest.MonkeyPatch
):
    for cancels, state in ((True, State.CANCELLED), (False, State.QUEUED)):
        host.gate.clear()
        yard.is_idle = True
        parameters = {"mllib": {"iterations": 10}}
        asked = {"service": "iris", "parameters": parameters, "data": [f"{host.url}/iris.csv"]}
        task_id = yard.call("POST", "/train", asked, code=201)["head"]["task_id"]
        yard.is_idle = False
        stops = threading.Event()
        monkeypatch.setattr(yard._training, "_is_stopping", stops.is_set)
        with ThreadPoolExecutor(1) as pool:
            ended = pool.submit(run_task, task_id, yard.parts, yard._training)
            wait_until(lambda: held(yard) != [])
            if cancels:
                yard.call("DELETE", f"/tasks/{task_id}", code=202)
            else:
                yard.is_idle = True
                stops.set()
            result = ended.result(timeout=20)
            assert result is not None
            assert result.state is state
        host.gate.set()
    assert held(yard) == []


def test_prediction_task_on_a_folder_of_a_bucket_answers_as_one_on_its_files(yard: Yard, host: Host):
    yard.train("iris", 10)
    client = boto3.client("s3", endpoint_url=yard.parts.settings.data_s3_endpoint_url)
    client.create_bucket(Bucket="flowers")
    rows = [row.rpartition(",")[0] for row in (yard.data / "iris.csv").read_text().splitlines()]
    (yard.data / "some").mkdir()
    for name, some in (("a.csv", rows[:60]), ("b.csv", [rows[0], *rows[60:]])):
        content = "\n".join(some) + "\n"
        (yard.data / "some" / name).write_text(content)
        client.put_object(Bucket="flowers", Key=f"some/{name}", Body=content.encode())
    results = []
    for place in (str(yard.data / "some"), "s3://flowers/some/"):
        task = yard.call("POST", "/predict", {"service": "iris", "async": True, "data": [place]}, code=201)
        number = task["head"]["task_id"]
        assert yard.call("GET", f"/tasks/{number}")["state"] == "finished"
        results.append(yard.call("GET", f"/tasks/{number}/result")["body"]["predictions"])
    assert results[0] == results[1]
    assert len(results[0]) == 150
    assert held(yard) == []


def test_prediction_at_once_fetches_and_answers(yard: Yard, host: Host):
    yard.train("iris", 10)
    rows = [row.rpartition(",")[0] for row in (yard.data / "iris.csv").read_text().splitlines()]
    host.files["/rows.csv"] = "\n".join(rows).encode()
    of_lines = yard.call("POST", "/predict", {"service": "iris", "data": rows})["body"]
    assert yard.call("POST", "/predict", {"service": "iris", "data": [f"{host.url}/rows.csv"]})["body"] == of_lines
