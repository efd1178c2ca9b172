"""What other hosts tell of the data of a training before it is accepted, and what they are not asked."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from api import reach
from ml.errors import BadInput
from settings import Settings
from storage import fetch
from tests.integration.host import hosting
from tests.integration.yard import Yard, running_yard
from tests.receiver import Answering, answer, receiving
from tests.services import S3Server


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return dataclasses.replace(settings, fetch_allow=("127.0.0.0/8",), precheck_timeout_s=1.0)


def told(settings: Settings, *entries: str) -> str:
    """What is said of addresses; nothing when they pass."""
    try:
        reach.check(settings, entries)
    except BadInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize("status", ["404 No", "410 Gone"])
def test_host_that_has_no_such_file_is_told_without_credentials(settings: Settings, status: str):
    with receiving(answer(status)) as host:
        said = told(settings, f"http://me:secret@127.0.0.1:{host.port}/a.csv?token=hidden")
    assert f"'http://127.0.0.1:{host.port}/a.csv?…'" in said
    assert f"answered with status {status[:3]}, not with the file" in said
    assert "secret" not in said
    assert "hidden" not in said


@pytest.mark.parametrize(
    "status",
    ["204 Nothing", "401 No", "403 No", "405 No", "408 Slow", "425 Early", "429 Busy", "500 No", "501 No", "520 Odd"],
)
def test_what_may_pass_or_be_said_to_this_machine_alone_is_left_to_the_worker(settings: Settings, status: str):
    with receiving(answer(status)) as host:
        assert told(settings, host.url) == ""
        assert [head.partition(" ")[0] for head in host.heads] == ["HEAD"]


def test_file_without_bytes_is_told_and_one_of_unknown_length_is_not(settings: Settings):
    with receiving(answer("200 OK")) as host:
        assert told(settings, host.url) == f"missing data: {host.url} is empty"
    with receiving(lambda connection: connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")) as host:
        assert told(settings, host.url) == ""


def test_address_that_works_once_is_there_for_the_worker(settings: Settings, tmp_path: Path):
    def once(connection: socket.socket) -> None:
        is_used = any(head.startswith("GET") for head in host.heads[:-1])
        answer("404 Used" if is_used else "200 OK", b"a")(connection)

    with receiving(once) as host:
        assert told(settings, host.url) == told(settings, host.url) == ""
        assert [head.partition(" ")[0] for head in host.heads] == ["HEAD", "HEAD"]
        assert fetch.fetch_file(host.url, tmp_path / "a.csv", allow=settings.fetch_allow, limit_bytes=9, timeout_s=5)
        assert "status 404" in told(settings, host.url)


@pytest.mark.parametrize("to_head", ["404 No", "410 No", "200 OK"])
def test_host_that_knows_no_head_is_asked_as_the_worker_will(settings: Settings, to_head: str):
    def odd(connection: socket.socket) -> None:
        is_head = host.heads[-1].startswith("HEAD")
        answer(to_head if is_head else "200 OK", b"" if is_head else b"a")(connection)

    with receiving(odd) as host:
        assert told(settings, host.url) == ""
        assert [head.partition(" ")[0] for head in host.heads] == ["HEAD", "GET"]


def test_host_that_refuses_may_take_the_connection_of_the_worker(settings: Settings):
    with receiving(answer("200 OK")) as host:
        pass
    assert told(settings, host.url) == ""


def test_name_or_network_that_only_the_workers_may_use_is_left_to_them(settings: Settings):
    alone = dataclasses.replace(settings, fetch_allow=())
    fleet = dataclasses.replace(alone, redis_url="redis://redis.internal")
    with receiving(answer("404 No")) as host:
        assert "MODELYARD_FETCH_ALLOW" in told(alone, host.url)
        assert told(fleet, host.url) == ""
        assert host.heads == []
        assert "status 404" in told(dataclasses.replace(fleet, fetch_allow=settings.fetch_allow), host.url)


def test_host_that_nobody_knows_is_told_where_the_workers_ask_the_same_names(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    def unknown(*_: Any, **__: Any) -> Any:
        raise fetch.socket.gaierror(error, "no")

    monkeypatch.setattr(fetch.socket, "getaddrinfo", unknown)
    error = fetch.socket.EAI_NONAME
    assert "cannot be resolved" in told(settings, "http://none.test/")
    assert told(dataclasses.replace(settings, redis_url="redis://redis.internal"), "http://none.test/") == ""
    error = fetch.socket.EAI_AGAIN
    assert told(settings, "http://none.test/") == ""


SLOW: dict[str, Answering] = {
    "silent": lambda connection: connection.recv(1),
    "no HTTP": lambda connection: connection.sendall(b"hello\r\n\r\n"),
}


@pytest.mark.parametrize("way", SLOW)
def test_silence_costs_the_time_for_all_addresses_together_and_is_no_refusal(settings: Settings, way: str):
    hurried = dataclasses.replace(settings, precheck_timeout_s=0.3)
    with receiving(SLOW[way]) as host:
        began = time.monotonic()
        assert told(hurried, *(f"{host.url}/{number}" for number in range(4))) == ""
        assert time.monotonic() - began < 5, "each of them alone would be silent for 10 seconds"
        assert len(host.heads) <= 4


def test_body_is_not_read(settings: Settings):
    with hosting(**{"large.csv": b"x" * (64 << 20)}) as host:
        began = time.monotonic()
        assert fetch.look(f"{host.url}/large.csv", allow=settings.fetch_allow, timeout_s=20) == 64 << 20
        assert time.monotonic() - began < 10


def test_first_few_addresses_are_asked_once_each_and_behind_redirects(settings: Settings):
    with receiving(answer("404 No")) as gone, receiving(answer("302 Found", b"", f"Location: {gone.url}")) as host:
        assert "answered with status 404" in told(settings, host.url)
    with receiving(answer("200 OK", b"a")) as host:
        assert told(settings, *[host.url] * 3, *(f"{host.url}/{number}" for number in range(9))) == ""
        assert len(host.heads) == 4


def test_nobody_is_asked_when_it_is_turned_off_or_when_many_ask(settings: Settings, monkeypatch: pytest.MonkeyPatch):
    with receiving(answer("404 No")) as host:
        assert told(dataclasses.replace(settings, precheck_timeout_s=0.0), host.url) == ""
        with monkeypatch.context() as patch:
            patch.setattr(reach, "_asking", threading.BoundedSemaphore(1))
            assert reach._asking.acquire()
            assert told(settings, host.url) == ""
            reach._asking.release()
            assert told(settings, host.url) != ""
            assert told(settings, host.url) != "", "whoever was told makes room for others"


# Buckets


@pytest.fixture
def bucket(settings: Settings, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Settings with which a bucket may be read that holds `a.csv` and the empty `none.csv`."""
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=moto_server.endpoint_url)
    client.create_bucket(Bucket="looked-at")
    client.put_object(Bucket="looked-at", Key="a.csv", Body=b"a")
    client.put_object(Bucket="looked-at", Key="none.csv", Body=b"")
    reach._buckets.cache_clear()
    yield dataclasses.replace(
        settings, data_s3_buckets=("looked-at", "never-made"), data_s3_endpoint_url=moto_server.endpoint_url
    )
    reach._buckets.cache_clear()


@pytest.mark.servers
def test_bucket_that_lacks_the_object_is_told(bucket: Settings):
    assert told(bucket, "s3://looked-at/a.csv") == ""
    assert "'s3://looked-at/b.csv': there is no such object" in told(bucket, "s3://looked-at/b.csv")
    assert "there is no such bucket" in told(bucket, "s3://never-made/a.csv")
    assert told(bucket, "s3://looked-at/none.csv") == "missing data: s3://looked-at/none.csv is empty"
    assert "it is a folder" in told(bucket, "s3://looked-at/a/")
    assert "'other' may not be read" in told(bucket, "s3://other/a.csv")
    fleet = dataclasses.replace(bucket, redis_url="redis://redis.internal")
    assert "there is no such object" in told(fleet, "s3://looked-at/b.csv")
    assert "it is a folder" in told(fleet, "s3://looked-at/a/")
    assert told(fleet, "s3://never-made/a.csv") == "", "it may be there where the workers ask"


@pytest.mark.servers
def test_what_only_the_workers_may_read_is_left_to_them(bucket: Settings):
    absent = dataclasses.replace(bucket, data_s3_profile="of-the-workers")
    assert told(absent, "s3://looked-at/b.csv") == ""
    away = dataclasses.replace(bucket, data_s3_endpoint_url="http://127.0.0.1:1")
    assert told(away, "s3://looked-at/b.csv") == ""


# The whole way


@pytest.mark.servers
def test_training_without_data_fails_before_it_waits(settings: Settings, redis_url: str):
    with running_yard(settings, redis_url) as yard, hosting() as host:
        yard.create("iris", "iris")
        address = f"{host.url}/none.csv"
        refused = ask(yard, address, is_async=False, code=400)["status"]
        assert refused["dd_code"] == 1005
        assert f"data cannot be read from '{address}'" in refused["dd_msg"]
        task_id = ask(yard, address, is_async=True, code=201)["head"]["task_id"]
        failure = yard.call("GET", f"/tasks/{task_id}")["failure"]
        assert (failure["phase"], failure["kind"]) == ("accepting", "bad_input")
        assert failure["message"] in refused["dd_msg"]
        assert host.asked == host.looked == [("/none.csv", 404)] * 2
        # The first entry may be a file here, and a wrong one is told before anybody is asked.
        assert "dd_msg" in ask(yard, "iris.csv", address, is_async=False, code=400)["status"]
        (yard.data / "wide.csv").write_text("a,species\n1,x\n1,y,z\n")
        wide = ask(yard, "wide.csv", address, is_async=False, code=400)["status"]["dd_msg"]
        assert "line 3 of wide.csv has 3 cells" in wide
        assert len(host.looked) == 3


def ask(yard: Yard, *data: str, is_async: bool, code: int) -> Any:
    parameters = {"mllib": {"iterations": 5}}
    body = {"service": "iris", "async": is_async, "parameters": parameters, "data": list(data)}
    return yard.call("POST", "/train", body, code=code)
