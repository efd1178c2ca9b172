"""Data of other hosts: fetched once into the cache, asked after again, held for as long as they are read."""

from __future__ import annotations

import dataclasses
import gzip
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import boto3
import pytest

from ml.errors import BadInput
from settings import Settings
from storage.buckets import Buckets
from storage.errors import FetchAbandoned
from storage.objects.cache import Cache
from tests.integration.host import Host, hosting, wait_until
from tests.receiver import answer, receiving
from tests.services import S3Server
from workers.fetching import fetching

TABLE = b"a,b,label\n" + b"".join(b"%d,%d,%d\n" % (row, row % 7, row % 2) for row in range(50))


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return dataclasses.replace(settings, fetch_allow=("127.0.0.0/8",), fetch_timeout_s=20.0)


@pytest.fixture
def cache(settings: Settings) -> Cache:
    return Cache(settings.cache, settings.cache_limit_bytes)


@pytest.fixture
def host() -> Iterator[Host]:
    with hosting(**{"a.csv": TABLE, "b.csv": b"b"}) as made:
        yield made


def contents(
    settings: Settings,
    cache: Cache,
    *entries: str,
    with_folders: bool = False,
    is_wanted: Callable[[], bool] = lambda: True,
    **more: Any,
) -> dict[str, bytes]:
    """What the entries name, fetched, by the names that messages use."""
    with fetching(settings, cache, is_wanted=is_wanted, **more) as fetch:
        found = fetch(entries, with_folders)
        return {each["name"]: Path(each["path"]).read_bytes() for named in found for each in named}


def uses(settings: Settings) -> list[str]:
    return [each.name for each in (settings.cache / "uses").iterdir()]


# Once


def test_same_file_is_sent_once_and_asked_after_each_time(settings: Settings, cache: Cache, host: Host):
    for _ in range(3):
        assert contents(settings, cache, f"{host.url}/a.csv") == {f"{host.url}/a.csv": TABLE}
    assert host.asked == [("/a.csv", 200), ("/a.csv", 304), ("/a.csv", 304)]


def test_changed_file_is_fetched_anew(settings: Settings, cache: Cache, host: Host):
    contents(settings, cache, f"{host.url}/a.csv")
    host.files["/a.csv"] = b"changed"
    assert contents(settings, cache, f"{host.url}/a.csv") == {f"{host.url}/a.csv": b"changed"}


def test_evicted_or_damaged_file_is_fetched_anew(settings: Settings, cache: Cache, host: Host):
    contents(settings, cache, f"{host.url}/a.csv")
    cache.trim(cache.limit_bytes)
    assert contents(settings, cache, f"{host.url}/a.csv") == {f"{host.url}/a.csv": TABLE}
    [entry] = (settings.cache / "entries").iterdir()
    entry.chmod(0o644)
    entry.write_bytes(b"x" * len(TABLE))
    assert contents(settings, cache, f"{host.url}/a.csv") == {f"{host.url}/a.csv": TABLE}
    assert host.sent == 3


def test_host_that_says_nothing_to_know_a_file_by_sends_it_each_time(settings: Settings, cache: Cache, host: Host):
    host.has_etags = False
    for content in (b"one", b"two"):
        host.files["/a.csv"] = content
        assert contents(settings, cache, f"{host.url}/a.csv") == {f"{host.url}/a.csv": content}
    assert host.sent == 2


@pytest.mark.parametrize(("age_s", "is_asked"), [(1, False), (60, True)])
def test_time_of_change_is_trusted_once_it_is_past(settings: Settings, cache: Cache, age_s: int, is_asked: bool):
    now = 1_700_000_000
    headers = (f"Last-Modified: {formatdate(now - age_s, usegmt=True)}", f"Date: {formatdate(now, usegmt=True)}")
    with receiving(answer("200 OK", b"x", *headers)) as server:
        contents(settings, cache, server.url)
        contents(settings, cache, server.url)
    assert ("If-Modified-Since" in server.heads[1]) is is_asked


def test_one_time_of_two_files_is_no_reason_to_take_one_for_the_other(settings: Settings, cache: Cache):
    """A release that moves on behind a redirect: its files often have one time, and hosts compare nothing else."""
    with hosting(new=b"new") as other, hosting(old=b"old") as first:
        target = f"{first.url}/old"

        def moved(connection: socket.socket) -> None:
            connection.sendall(f"HTTP/1.1 302 Found\r\nLocation: {target}\r\nContent-Length: 0\r\n\r\n".encode())

        with receiving(moved) as latest:
            assert list(contents(settings, cache, latest.url).values()) == [b"old"]
            assert list(contents(settings, cache, latest.url).values()) == [b"old"]
            target = f"{other.url}/new"
            assert list(contents(settings, cache, latest.url).values()) == [b"new"]
    assert [status for _, status in first.asked] == [200, 304]
    assert not any("If-None-Match" in head for head in latest.heads)


def test_threads_and_processes_that_want_the_same_have_it_sent_once(settings: Settings, cache: Cache, host: Host):
    host.gate.clear()
    url = f"{host.url}/a.csv"
    program = (
        "import os, sys; from settings import Settings; from storage.objects.cache import Cache;"
        "from tests.integration.test_remote import contents;"
        "settings = Settings.from_env(os.environ); cache = Cache(settings.cache, settings.cache_limit_bytes);"
        "print('ready', flush=True); sys.stdout.buffer.write(contents(settings, cache, sys.argv[1])[sys.argv[1]])"
    )
    others = [
        subprocess.Popen([sys.executable, "-c", program, url], env={**os.environ, **settings.to_env()}, stdout=-1)
        for _ in range(2)
    ]
    with ThreadPoolExecutor(3) as pool:
        here = [pool.submit(contents, settings, cache, url) for _ in range(3)]
        for other in others:
            assert other.stdout is not None
            assert other.stdout.readline() == b"ready\n"
        host.gate.set()
        assert all(each.result() == {url: TABLE} for each in here)
    for other in others:
        assert other.communicate(timeout=60)[0] == TABLE
    assert host.sent == 1


def test_fetched_file_stays_while_it_is_read_and_no_longer(settings: Settings, cache: Cache, host: Host):
    small = Cache(settings.cache, 2**20)
    with fetching(settings, small, is_wanted=lambda: True) as fetch:
        [[found]] = fetch([f"{host.url}/a.csv"], False)
        small.trim(2**20)
        assert Path(found["path"]).read_bytes() == TABLE
        assert len(uses(settings)) == 2, "a room and its lock"
    assert not Path(found["path"]).exists()
    assert uses(settings) == []


def test_work_that_fetches_nothing_holds_nothing(settings: Settings, cache: Cache):
    with fetching(settings, cache, is_wanted=lambda: True):
        assert uses(settings) == []


# What comes


def test_content_packed_on_the_way_is_unpacked_and_a_packed_file_is_not(settings: Settings, cache: Cache):
    packed = gzip.compress(TABLE[:100]) + gzip.compress(TABLE[100:])
    with receiving(answer("200 OK", packed, "Content-Encoding: gzip")) as server:
        assert contents(settings, cache, server.url) == {server.url: TABLE}
    with receiving(answer("200 OK", packed, "Content-Type: application/gzip")) as server:
        assert contents(settings, cache, server.url) == {server.url: packed}


@pytest.mark.parametrize(
    ("body", "coding", "text"),
    [
        (b"x", "br", "only gzip is unpacked"),
        (b"x", "gzip, gzip", "only gzip is unpacked"),
        (b"no gzip", "gzip", "sent something else"),
        (gzip.compress(TABLE)[:-9], "gzip", "ends too early"),
        (gzip.compress(TABLE)[:-2], "gzip", "ends too early"),
        (b"", "gzip", "ends too early"),
    ],
)
def test_content_that_cannot_be_unpacked_is_refused(
    settings: Settings, cache: Cache, body: bytes, coding: str, text: str
):
    packed = answer("200 OK", body, f"Content-Encoding: {coding}")
    with receiving(packed) as server, pytest.raises(BadInput, match=text):
        contents(settings, cache, server.url)
    assert list((settings.cache / "entries").iterdir()) == []


def test_all_that_one_call_fetches_counts_together(settings: Settings, cache: Cache, host: Host):
    few = dataclasses.replace(settings, fetch_limit_bytes=1024)
    host.files |= {"/one": b"1" * 700, "/two": b"2" * 700}
    assert contents(few, cache, f"{host.url}/one") == {f"{host.url}/one": b"1" * 700}
    with pytest.raises(BadInput, match=r"larger than|more than 1024 bytes"):
        contents(few, cache, f"{host.url}/one", f"{host.url}/two")
    host.files["/one"] = b"1" * 1025
    with pytest.raises(BadInput, match="larger than 1024 bytes"):
        contents(few, cache, f"{host.url}/one")


def test_limit_that_became_smaller_holds_for_what_is_kept(settings: Settings, cache: Cache, host: Host):
    host.files["/one"] = b"1" * 2000
    contents(settings, cache, f"{host.url}/one")
    with pytest.raises(BadInput, match="larger than 1024 bytes"):
        contents(dataclasses.replace(settings, fetch_limit_bytes=1024), cache, f"{host.url}/one")


# Failures


def test_what_may_pass_is_tried_again(settings: Settings, cache: Cache, host: Host):
    host.failures = 2
    assert contents(settings, cache, f"{host.url}/b.csv") == {f"{host.url}/b.csv": b"b"}
    assert [status for _, status in host.asked] == [503, 503, 200]
    host.failures = 3
    with pytest.raises(BadInput, match="status 503"):
        contents(settings, cache, f"{host.url}/a.csv")


def test_what_will_not_pass_is_tried_once(settings: Settings, cache: Cache, host: Host):
    with pytest.raises(BadInput, match="status 404"):
        contents(settings, cache, f"{host.url}/none.csv")
    assert host.asked == [("/none.csv", 404)]


def test_credentials_are_sent_and_neither_told_nor_kept(settings: Settings, cache: Cache):
    with receiving(answer("200 OK", b"x")) as server:
        url = f"http://me:secret@127.0.0.1:{server.port}/a?token=hidden"
        assert contents(settings, cache, url) == {f"{server.url}/a?…": b"x"}
    assert "authorization: Basic bWU6c2VjcmV0" in server.heads[0]
    assert "/a?token=hidden" in server.heads[0]
    with pytest.raises(BadInput) as failure:
        contents(settings, cache, url)
    assert "refuses the connection" in str(failure.value)
    kept = b"".join(each.read_bytes() for each in settings.cache.rglob("*") if each.is_file())
    for secret in ("secret", "hidden", "bWU6c2VjcmV0"):
        assert secret not in str(failure.value)
        assert secret.encode() not in kept


def test_fetch_that_nobody_wants_any_more_ends_at_once(settings: Settings, cache: Cache, host: Host):
    host.gate.clear()
    is_wanted = threading.Event()
    is_wanted.set()
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(contents, settings, cache, f"{host.url}/a.csv", is_wanted=is_wanted.is_set)
        other = pool.submit(contents, settings, cache, f"{host.url}/a.csv", is_wanted=is_wanted.is_set)
        wait_until(lambda: len(uses(settings)) == 4)
        is_wanted.clear()
        for each in (one, other):
            with pytest.raises(FetchAbandoned):
                each.result(timeout=10)
    assert uses(settings) == []


def test_one_that_fails_ends_the_others(settings: Settings, cache: Cache, host: Host):
    over = threading.Event()
    with receiving(lambda connection: over.wait(20)) as slow:
        began = time.monotonic()
        with pytest.raises(BadInput, match="status 404"):
            contents(settings, cache, slow.url, f"{host.url}/none.csv")
        assert time.monotonic() - began < 10
        over.set()


# S3


@pytest.fixture(params=["moto", "rclone"])
def s3(request: pytest.FixtureRequest, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> S3:
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    for name, value in server.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=server.endpoint_url)
    bucket = f"data-{time.monotonic_ns()}"
    client.create_bucket(Bucket=bucket)
    chosen = dataclasses.replace(settings, data_s3_buckets=(bucket,), data_s3_endpoint_url=server.endpoint_url)
    return S3(client, bucket, chosen)


@dataclasses.dataclass
class S3:
    """A bucket that may be read."""

    client: Any
    bucket: str
    settings: Settings

    def put(self, **files: bytes) -> None:
        for key, content in files.items():
            self.client.put_object(Bucket=self.bucket, Key=key, Body=content)

    def address(self, key: str) -> str:
        return f"s3://{self.bucket}/{key}"


@pytest.mark.servers
def test_object_is_sent_once_and_again_when_it_changed(s3: S3, cache: Cache, monkeypatch: pytest.MonkeyPatch):
    fetched: list[Any] = []
    fetch = Buckets.fetch

    def noted(self: Buckets, *about: Any) -> Any:
        fetched.append(fetch(self, *about))
        return fetched[-1]

    monkeypatch.setattr(Buckets, "fetch", noted)
    s3.put(**{"a/b c.csv": TABLE})
    address = s3.address("a/b c.csv")
    for content in (TABLE, TABLE, b"other"):
        if content == b"other":
            s3.put(**{"a/b c.csv": content})
        assert contents(s3.settings, cache, address) == {address: content}
    assert [each is None for each in fetched] == [False, True, False]


@pytest.mark.servers
def test_prefix_is_a_folder_where_folders_may_be_named(s3: S3, cache: Cache):
    s3.put(**{"in/b.csv": b"b", "in/a.csv": b"a", "in/.hidden": b"h", "in/deep/c.csv": b"c", "in.csv": b"i"})
    files = {s3.address("in/a.csv"): b"a", s3.address("in/b.csv"): b"b"}
    for address in (s3.address("in/"), s3.address("in")):
        assert contents(s3.settings, cache, address, with_folders=True) == files
    assert contents(s3.settings, cache, f"s3://{s3.bucket}", with_folders=True) == {s3.address("in.csv"): b"i"}
    with pytest.raises(BadInput, match="it is a folder"):
        contents(s3.settings, cache, s3.address("in/"))
    with pytest.raises(BadInput, match="no such object, nor a folder"):
        contents(s3.settings, cache, s3.address("out/"), with_folders=True)


@pytest.mark.servers
def test_object_that_is_not_there_or_too_large_is_refused(s3: S3, cache: Cache):
    s3.put(large=b"x" * 2000)
    with pytest.raises(BadInput, match="there is no such object"):
        contents(s3.settings, cache, s3.address("none"))
    with pytest.raises(BadInput, match="larger than 1024 bytes"):
        contents(dataclasses.replace(s3.settings, fetch_limit_bytes=1024), cache, s3.address("large"))
    gone = dataclasses.replace(s3.settings, data_s3_buckets=("never-made",))
    with pytest.raises(BadInput, match=r"no such bucket|no such object"):
        contents(gone, cache, "s3://never-made/a")


@pytest.mark.servers
def test_credentials_of_a_profile_are_used(s3: S3, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    s3.put(a=b"a")
    files = tmp_path / "credentials"
    secrets = boto3.session.Session().get_credentials()
    files.write_text(
        f"[data]\naws_access_key_id = {secrets.access_key}\naws_secret_access_key = {secrets.secret_key}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(files))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    chosen = dataclasses.replace(s3.settings, data_s3_profile="data")
    assert contents(chosen, cache, s3.address("a")) == {s3.address("a"): b"a"}
    with pytest.raises(BadInput, match="no credentials"):
        contents(dataclasses.replace(chosen, data_s3_profile="missing"), cache, s3.address("a"))


def test_server_of_s3_that_does_not_answer_is_told(settings: Settings, cache: Cache, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "x")
    chosen = dataclasses.replace(settings, data_s3_buckets=("b",), data_s3_endpoint_url="http://127.0.0.1:1")
    with pytest.raises(BadInput, match="does not answer"):
        contents(chosen, cache, "s3://b/a")
