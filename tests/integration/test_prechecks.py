"""What other hosts tell of the data of a training before it is accepted, and what they are not asked."""

from __future__ import annotations

import dataclasses
import gzip
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from api import reach
from api.prechecks import BYTES_MOST, check_beginning
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.svm import SvmOptions
from ml.options.target import Target
from settings import Settings
from storage import fetch
from storage.buckets import Buckets
from storage.fetch import Seen
from storage.remote_address import Place, shown
from tests.integration.host import hosting
from tests.integration.yard import Yard, running_yard
from tests.receiver import Answering, answer, receiving
from tests.services import S3Server


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return dataclasses.replace(settings, fetch_allow=("127.0.0.0/8",), precheck_timeout_s=30.0)


def told(settings: Settings, *entries: str) -> str:
    """What is said of addresses; nothing when they pass."""
    try:
        reach.check(settings, entries, BYTES_MOST, lambda *_: None)
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
        assert fetch.look(f"{host.url}/large.csv", 9, allow=settings.fetch_allow, timeout_s=20) == Seen(64 << 20)
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


# How the files of other hosts begin

GOOD = b"a,label\n1,0\n2,1\n"
CSV = CsvOptions(label=("label",))
CLASSES = Target("classification", classes=2)


def judged(settings: Settings, *entries: str, options: CsvOptions | SvmOptions = CSV) -> str:
    """What is said of addresses and the beginnings of their files; nothing when they pass."""

    def judge(entry: str, beginning: bytes, size: int) -> None:
        check_beginning(beginning, size, shown(entry), options, CLASSES if entry == entries[0] else None)

    try:
        reach.check(settings, entries, BYTES_MOST, judge)
    except BadInput as error:
        return str(error)
    return ""


WRONG = [
    (b"a,b\n1,0\n", CSV, "cannot find label column label in "),
    (b"a,label\n", CSV, " has a header line but no rows"),
    (b"a,label\n1,0\n2,7\n", CSV, "label 7 of column label in "),
    (b"a,label\n1,0\n2\n", CSV, " has 1 cells; the header line has 2"),
    (gzip.compress(GOOD, mtime=0), CSV, " is packed with gzip; unpack it first"),
    (b"0 1:1\n7 1:2\n", SvmOptions(), "label 7 in line 2 of "),
    (b"yes 1:1\n", SvmOptions(), " has the label 'yes'; a label is a number"),
]


@pytest.mark.parametrize(("content", "options", "said"), WRONG)
def test_beginning_that_a_host_offers_is_told_as_that_of_a_file_here(
    settings: Settings, content: bytes, options: CsvOptions | SvmOptions, said: str
):
    with hosting(**{"a.csv": content}) as host:
        assert judged(settings, f"{host.url}/a.csv", options=options) == ""
        assert host.asked == [], "what may work once only is not asked for where no part of it is offered"
        host.gives_parts = True
        address = f"http://me:secret@127.0.0.1:{host.port}/a.csv?token=hidden"
        refused = judged(settings, address, options=options)
        assert said in refused
        assert f"{host.url}/a.csv?…" in refused
        assert "secret" not in refused
        assert "hidden" not in refused
        assert host.asked == [("/a.csv?token=hidden", 206)]


def test_beginning_of_a_good_file_passes_and_no_more_of_it_is_read(settings: Settings):
    rows = b"".join(b"%d,%d\n" % (row, row % 2) for row in range(300_000))
    with hosting(**{"a.csv": GOOD, "large.csv": GOOD + rows, "test.csv": b"a,b\n1,0\n", "none.csv": b"a\n"}) as host:
        host.gives_parts = True
        assert judged(settings, f"{host.url}/a.csv", f"{host.url}/large.csv", f"{host.url}/test.csv") == ""
        assert [status for _, status in host.asked] == [206] * 3
        assert "none.csv has a header line but no rows" in judged(settings, f"{host.url}/a.csv", f"{host.url}/none.csv")
        seen = fetch.look(f"{host.url}/large.csv", 1000, allow=settings.fetch_allow, timeout_s=20)
    assert seen == Seen(len(GOOD + rows), (GOOD + rows)[:1000])


def test_beginning_is_asked_for_behind_the_redirects_which_may_work_once(settings: Settings):
    with hosting(**{"a.csv": b"a,b\n1,0\n"}) as host:
        host.gives_parts = True
        with receiving(answer("302 Found", b"", f"Location: {host.url}/a.csv")) as leading:
            assert f"cannot find label column label in {leading.url}" in judged(settings, leading.url)
        assert [head.partition(" ")[0] for head in leading.heads] == ["HEAD"]


NO_LABEL = b"a,b\n1,0\n"
PARTS = "Accept-Ranges: bytes"
PACKED = "Content-Encoding: gzip"
ODD: dict[str, tuple[Answering, Answering]] = {
    "offers none": (answer("200 OK", NO_LABEL, "Accept-Ranges: none"), answer("500 Never")),
    "packs": (answer("200 OK", NO_LABEL, PARTS, PACKED), answer("500 Never")),
    "gives all": (answer("200 OK", NO_LABEL, PARTS), answer("200 OK", NO_LABEL, PARTS)),
    "has none": (answer("200 OK", NO_LABEL, PARTS), answer("416 No", b"", "Content-Range: bytes */8")),
    "gone": (answer("200 OK", NO_LABEL, PARTS), answer("404 No")),
    "leads elsewhere": (answer("200 OK", NO_LABEL, PARTS), answer("302 Found", b"", "Location: http://127.0.0.1:1/")),
    "in trouble": (answer("200 OK", NO_LABEL, PARTS), answer("503 Later")),
}


def part(told: str, content: bytes = NO_LABEL, *headers: str) -> tuple[Answering, Answering]:
    """A host that offers parts, and gives one with that Content-Range."""
    given = answer("206 Part", content, *([f"Content-Range: {told}"] if told else []), *headers)
    return answer("200 OK", NO_LABEL, PARTS), given


ODD |= {
    "another part": part("bytes 1-7/8", NO_LABEL[1:]),
    "less": part("bytes 0-3/8", NO_LABEL[:4]),
    "less than it says": part("bytes 0-7/8", NO_LABEL[:4]),
    "more than it says": part("bytes 0-7/8", NO_LABEL * 2),
    "of another file": part("bytes 0-3/4", NO_LABEL[:4]),
    "of unknown length": part("bytes 0-7/*"),
    "of no place": part(""),
    "of a nonsense": part("bytes 0-x/8"),
    "part that is packed": part("bytes 0-7/8", NO_LABEL, PACKED),
}


@pytest.mark.parametrize("way", ODD)
def test_beginning_that_is_not_what_was_asked_for_refuses_nothing(settings: Settings, way: str):
    to_head, to_get = ODD[way]

    def odd(connection: socket.socket) -> None:
        (to_head if host.heads[-1].startswith("HEAD") else to_get)(connection)

    with receiving(odd) as host:
        assert judged(settings, host.url) == ""
    asked = [] if way in ("offers none", "packs") else ["GET"]
    assert [head.partition(" ")[0] for head in host.heads] == ["HEAD", *asked]
    if asked:
        assert f"Range: bytes=0-{BYTES_MOST - 1}" in host.heads[-1]


def test_beginning_that_does_not_come_costs_the_time_for_all_and_is_no_refusal(settings: Settings):
    def stuck(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nAccept-Ranges: bytes\r\nContent-Length: 8\r\n\r\n")
        if host.heads[-1].startswith("GET"):
            connection.recv(1)

    hurried = dataclasses.replace(settings, precheck_timeout_s=0.5)
    with receiving(stuck) as host:
        began = time.monotonic()
        assert judged(hurried, host.url, f"{host.url}/other") == ""
        assert time.monotonic() - began < 8, "either of them would be silent for 10 seconds"


def test_name_that_leads_elsewhere_after_the_first_question_is_not_followed(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
):
    addresses, resolve = ["127.0.0.2", "127.0.0.1"], socket.getaddrinfo

    def moving(name: str, *rest: Any, **more: Any) -> Any:
        return resolve(addresses.pop(0) if name == "moves.test" else name, *rest, **more)

    alone = dataclasses.replace(settings, fetch_allow=("127.0.0.2/32",))
    with receiving(answer("200 OK", NO_LABEL, PARTS), host="127.0.0.2") as host:
        with monkeypatch.context() as patch:
            patch.setattr(fetch.socket, "getaddrinfo", moving)
            assert judged(alone, f"http://moves.test:{host.port}/a.csv") == ""
        assert addresses == []
        assert [head.partition(" ")[0] for head in host.heads] == ["HEAD"]


def test_part_that_is_as_asked_for_is_judged(settings: Settings):
    to_head, to_get = part("bytes 0-7/8")

    def right(connection: socket.socket) -> None:
        (to_head if host.heads[-1].startswith("HEAD") else to_get)(connection)

    with receiving(right) as host:
        assert "cannot find label column label" in judged(settings, host.url)


# Buckets


@pytest.fixture
def client(moto_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A client of the S3 server, whose credentials stand in the environment."""
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    return boto3.client("s3", endpoint_url=moto_server.endpoint_url)


@pytest.fixture
def bucket(settings: Settings, moto_server: S3Server, client: Any) -> Iterator[Settings]:
    """Settings with which a bucket may be read that holds `a.csv` and the empty `none.csv`."""
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


@pytest.mark.servers
def test_beginning_of_an_object_is_told_as_that_of_a_file_here(bucket: Settings, client: Any):
    for content, options, said in WRONG:
        client.put_object(Bucket="looked-at", Key="wrong.csv", Body=content)
        refused = judged(bucket, "s3://looked-at/wrong.csv", options=options)
        assert said in refused
        assert "s3://looked-at/wrong.csv" in refused


@pytest.mark.servers
def test_beginning_of_a_good_object_passes_and_no_more_of_it_is_read(bucket: Settings, client: Any):
    client.put_object(Bucket="looked-at", Key="good.csv", Body=GOOD)
    client.put_object(Bucket="looked-at", Key="large.csv", Body=GOOD + b"3,0\n" * 500_000)
    client.put_object(Bucket="looked-at", Key="packed.csv", Body=gzip.compress(GOOD), ContentEncoding="gzip")
    for name in ("good.csv", "large.csv", "packed.csv"):
        assert judged(bucket, f"s3://looked-at/{name}") == ""
    buckets = Buckets(bucket.data_endpoint_url, None, hurry_s=20)
    assert buckets.look(Place("looked-at", "large.csv"), 10, 20.0) == Seen(len(GOOD) + 2_000_000, GOOD[:10])
    assert buckets.look(Place("looked-at", "large.csv"), 10, 0.0) == Seen(len(GOOD) + 2_000_000), "time is over"
    assert buckets.look(Place("looked-at", "good.csv"), len(GOOD), 20.0) == Seen(len(GOOD), GOOD)
    assert buckets.look(Place("looked-at", "packed.csv"), 10, 20.0).beginning is None


def test_s3_server_that_gives_no_parts_or_does_not_say_which_is_understood(monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "any")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    for status, told, seen in (
        ("200 OK", (), Seen(len(GOOD), GOOD[:4])),
        ("206 Part", (f"Content-Range: bytes 0-15/{len(GOOD)}",), Seen(len(GOOD), GOOD[:4])),
        ("206 Part", (), Seen()),
        ("206 Part", ("Content-Range: bytes 1-4/99",), Seen()),
    ):
        with receiving(answer(status, GOOD, *told)) as host:
            assert Buckets(host.url, None, hurry_s=20).look(Place("any", "a.csv"), 4, 20.0) == seen
            assert "bytes=0-3" in host.heads[0]


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
        host.gives_parts = True
        host.files["/test.csv"] = b"a,b\n"
        headless = ask(yard, "iris.csv", f"{host.url}/test.csv", is_async=False, code=400)["status"]
        assert headless["dd_code"] == 1005
        assert f"{host.url}/test.csv has a header line but no rows" in headless["dd_msg"]
        host.files["/train.csv"] = b"a,b\n1,0\n"
        task_id = ask(yard, f"{host.url}/train.csv", is_async=True, code=201)["head"]["task_id"]
        failure = yard.call("GET", f"/tasks/{task_id}")["failure"]
        assert (failure["phase"], failure["kind"]) == ("accepting", "bad_input")
        assert f"cannot find label column species in {host.url}/train.csv" in failure["message"]
        host.looked.clear()
        # The first entry may be a file here, and a wrong one is told before anybody is asked.
        assert "dd_msg" in ask(yard, "iris.csv", address, is_async=False, code=400)["status"]
        (yard.data / "wide.csv").write_text("a,species\n1,x\n1,y,z\n")
        wide = ask(yard, "wide.csv", address, is_async=False, code=400)["status"]["dd_msg"]
        assert "line 3 of wide.csv has 3 cells" in wide
        assert host.looked == [("/none.csv", 404)]


def ask(yard: Yard, *data: str, is_async: bool, code: int) -> Any:
    parameters = {"mllib": {"iterations": 5}}
    body = {"service": "iris", "async": is_async, "parameters": parameters, "data": list(data)}
    return yard.call("POST", "/train", body, code=code)
