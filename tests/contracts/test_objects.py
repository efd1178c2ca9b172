"""What every object store must do, on a folder, on moto (as AWS answers) and on rclone (checks signatures)."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import botocore.exceptions
import pytest
import urllib3

from storage.errors import (
    ArtifactExists,
    ArtifactNotFound,
    BadArtifactKey,
    ChecksumMismatch,
    StorageFull,
    StoreUnavailable,
)
from storage.landing import is_partial_name
from storage.objects import Listed, Objects, Stored, connect
from storage.objects.folder import FolderObjects
from storage.objects.manifest import (
    Manifest,
    ManifestFile,
    download_folder,
    read_manifest,
    upload_files,
    upload_folder,
)
from storage.objects.s3 import S3Objects, S3Options
from tests.putting import put
from tests.services import S3Server

ROOT = Path(__file__).parents[2]
PART = 5 * 2**20  # the smallest part that S3 takes
HELLO = hashlib.sha256(b"hello").hexdigest()
numbers = iter(range(1, 10**6))
clients: dict[str, Any] = {}


@dataclass
class Store:
    """A store under test, and a way past it to what the server really holds."""

    kind: str
    objects: Objects
    overwrite: Callable[[str, bytes], None]

    @property
    def s3(self) -> S3Objects:
        assert isinstance(self.objects, S3Objects)
        return self.objects


def s3_options(server: S3Server) -> S3Options:
    return S3Options(
        endpoint_url=server.endpoint_url,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
        part_bytes=PART,
        page_keys=7,
    )


def s3_objects(server: S3Server, prefix: str = "") -> S3Objects:
    """A store in a new bucket. Its client is shared by the tests: making one takes longer than most tests."""
    objects = S3Objects(f"bucket-{next(numbers)}", prefix, s3_options(server))
    objects._clients = clients.setdefault(server.endpoint_url, {})
    objects._client().create_bucket(Bucket=objects.bucket)
    return objects


@pytest.fixture(params=["folder", "moto", "rclone"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "folder":
        root = tmp_path / "objects"
        return Store("folder", connect(f"file://{root}"), lambda key, data: _overwrite(root / key, data))
    server: S3Server = request.getfixturevalue(f"{request.param}_server")
    objects = s3_objects(server, "some/prefix")
    client = objects._client()

    def overwrite(key: str, data: bytes) -> None:
        place = {"Bucket": objects.bucket, "Key": f"some/prefix/{key}"}
        client.put_object(**place, Body=data, Metadata=client.head_object(**place)["Metadata"])

    return Store(request.param, objects, overwrite)


def _overwrite(path: Path, data: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(data)


@pytest.fixture
def folder(tmp_path: Path) -> FolderObjects:
    return FolderObjects(tmp_path / "objects")


@pytest.fixture
def s3(moto_server: S3Server) -> S3Objects:
    return s3_objects(moto_server)


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def keys(objects: Objects, prefix: str = "") -> set[str]:
    return {item.key for item in objects.list(prefix)}


# Putting and getting


def test_bytes_come_back_as_they_were_put(store: Store) -> None:
    assert store.objects.put_bytes("a/b.txt", b"hello") == Stored("a/b.txt", 5, HELLO)
    assert store.objects.get_bytes("a/b.txt") == b"hello"
    assert store.objects.get_bytes("a/b.txt", sha256=HELLO) == b"hello"


def test_files_come_back_as_they_were_put(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(noise(300_000))
    stored = store.objects.put_file("a/b", source)
    assert stored == Stored("a/b", 300_000, hashlib.sha256(noise(300_000)).hexdigest())
    assert store.objects.get_file("a/b", target, stored.sha256) == stored
    assert target.read_bytes() == source.read_bytes()


def test_a_file_of_several_parts_comes_back_as_it_was_put(store: Store, tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(noise(2 * PART + 1234))
    stored = store.objects.put_file("big", source)
    assert stored.sha256 == hashlib.sha256(noise(2 * PART + 1234)).hexdigest()
    assert store.objects.get_file("big", target, stored.sha256) == stored
    assert target.read_bytes() == source.read_bytes()
    assert store.objects.put_file("big", source) == stored
    with pytest.raises(ArtifactExists):
        store.objects.put_bytes("big", b"other")


def test_link_takes_a_content_from_anybody(store: Store) -> None:
    link = store.objects.upload_link("uploads/1/1", 60, 5)
    if store.kind == "folder":
        assert link is None
        return
    assert link is not None
    assert parse_qs(urlsplit(link).query)["X-Amz-SignedHeaders"] == ["content-length;host"]
    for content in (b"hello", b"HELLO"):
        assert put(link, content) == 200
        assert store.objects.get_bytes("uploads/1/1") == content
    if store.kind == "rclone":  # the one that checks signatures
        for wrong in (b"hello again", b"hell", b""):
            assert put(link, wrong) == 403
        assert put(link.replace("uploads/1/1", "uploads/1/2"), b"hello") == 403
    assert [(each.key, each.size) for each in store.objects.list("uploads/1")] == [("uploads/1/1", 5)]


def test_nothing_is_a_content_too(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    stored = store.objects.put_file("empty", tmp_path / "empty")
    assert stored.size == 0
    assert store.objects.get_bytes("empty") == b""
    assert store.objects.exists("empty")
    store.objects.get_file("empty", tmp_path / "target", stored.sha256)
    assert (tmp_path / "target").read_bytes() == b""


def test_getting_replaces_a_file_but_follows_no_link(store: Store, tmp_path: Path) -> None:
    store.objects.put_bytes("a", b"hello")
    victim, target = tmp_path / "victim", tmp_path / "target"
    victim.write_bytes(b"mine")
    target.symlink_to(victim)
    store.objects.get_file("a", target)
    assert target.read_bytes() == b"hello"
    assert not target.is_symlink()
    assert victim.read_bytes() == b"mine"


@pytest.mark.parametrize("key", ["données/modèle 1.bin", "a+b/c&d=e?f#g%20h", "x/" + "n" * 200, "p/'quoted' (1).txt"])
def test_unusual_but_safe_keys_work(store: Store, key: str) -> None:
    store.objects.put_bytes(key, b"hello")
    assert store.objects.get_bytes(key) == b"hello"
    assert list(store.objects.list()) == [Listed(key, 5)]
    store.objects.delete([key])
    assert not store.objects.exists(key)


UNSAFE = ["", "/etc/passwd", "../x", "a/../../x", "a//b", "a/", "/", ".", "a/./b", "a\\b", "a\0b", "a\nb", ".partial/x"]
UNSAFE += ["x" * 256, "x/" * 500 + "x", "a/\ud800"]


@pytest.mark.parametrize("key", UNSAFE)
def test_unsafe_keys_are_refused_everywhere(store: Store, tmp_path: Path, key: str) -> None:
    (tmp_path / "source").write_bytes(b"hello")
    uses: list[Callable[[], object]] = [
        lambda: store.objects.put_bytes(key, b"hello"),
        lambda: store.objects.put_file(key, tmp_path / "source"),
        lambda: store.objects.get_bytes(key),
        lambda: store.objects.get_file(key, tmp_path / "target"),
        lambda: store.objects.exists(key),
        lambda: store.objects.delete([key]),
        lambda: store.objects.delete_prefix(key),
    ]
    if key:
        uses.append(lambda: list(store.objects.list(key)))
    for use in uses:
        with pytest.raises(BadArtifactKey):
            use()
    assert keys(store.objects) == set()


# Written once


def test_putting_the_same_again_is_harmless(store: Store, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"hello")
    first = store.objects.put_bytes("a", b"hello")
    assert store.objects.put_bytes("a", b"hello") == first
    assert store.objects.put_file("a", tmp_path / "source") == first


@pytest.mark.parametrize("other", [b"HELLO", b"", b"hello, world"])
def test_other_content_under_the_same_key_is_refused(store: Store, other: bytes) -> None:
    store.objects.put_bytes("a", b"hello")
    with pytest.raises(ArtifactExists, match="'a'"):
        store.objects.put_bytes("a", other)
    assert store.objects.get_bytes("a") == b"hello"


@pytest.mark.parametrize("size", [100, PART + 1])
def test_of_concurrent_writers_one_wins_and_its_content_stays_whole(store: Store, tmp_path: Path, size: int) -> None:
    contents = [noise(size, seed) for seed in range(4)]
    for number, content in enumerate(contents):
        (tmp_path / str(number)).write_bytes(content)
    start = threading.Barrier(4)

    def put(number: int) -> bytes | None:
        start.wait()
        try:
            try:
                store.objects.put_file("contested", tmp_path / str(number))
            except StoreUnavailable:
                if store.kind != "rclone":  # which now and then has an error 500 for those who lose a race
                    raise
                store.objects.put_file("contested", tmp_path / str(number))
        except ArtifactExists:
            return None
        return contents[number]

    with ThreadPoolExecutor(4) as pool:
        won = [content for content in pool.map(put, range(4)) if content is not None]
    kept = store.objects.get_bytes("contested")
    assert kept in won
    if store.kind == "folder":  # moto looks and writes in two steps, rclone does not look at all
        assert won == [kept]


@pytest.mark.parametrize("size", [100, PART + 1])
def test_an_error_of_the_server_that_hides_a_lost_race_is_told_as_one(
    s3: S3Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "source").write_bytes(noise(size))
    client = s3._client()

    def failing(held: bytes | None) -> Callable[..., Any]:
        def fail(**place: Any) -> Any:
            if held is not None:
                monkeypatch.undo()
                client.put_object(Bucket=place["Bucket"], Key=place["Key"], Body=held)
            answer = {"Error": {"Code": "InternalError"}, "ResponseMetadata": {"HTTPStatusCode": 500}}
            raise botocore.exceptions.ClientError(answer, "PutObject")

        return fail

    name = "put_object" if size == 100 else "complete_multipart_upload"
    for key, held, expected in (
        ("other", b"other", ArtifactExists),
        ("nothing", None, StoreUnavailable),
    ):
        monkeypatch.setattr(client, name, failing(held))
        with pytest.raises(expected):
            s3.put_file(key, tmp_path / "source")
        monkeypatch.undo()
    # Our own content: the writing had happened before the answer failed.
    monkeypatch.setattr(client, name, failing(noise(size)))
    assert s3.put_file("own", tmp_path / "source").size == size


@pytest.mark.parametrize("size", [100, PART + 1])
def test_a_key_that_is_taken_between_look_and_write_is_noticed(
    s3: S3Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    (tmp_path / "source").write_bytes(noise(size))
    real = s3._head
    looks: list[str] = []

    def taken_after_the_look(key: str) -> dict[str, Any] | None:
        looks.append(key)
        if len(looks) > 1:
            return real(key)
        s3._client().put_object(Bucket=s3.bucket, Key=key, Body=first)
        return None

    monkeypatch.setattr(s3, "_head", taken_after_the_look)
    first = b"other"
    with pytest.raises(ArtifactExists):
        s3.put_file("a", tmp_path / "source")
    assert s3.get_bytes("a") == first
    # An answer to our own writing that got lost looks the same.
    first, looks = noise(size), []
    assert s3.put_file("b", tmp_path / "source").size == size
    assert s3._client().list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


def test_concurrent_writers_of_the_same_content_all_succeed(store: Store) -> None:
    start = threading.Barrier(4)

    def put(_: int) -> Stored:
        start.wait()
        return store.objects.put_bytes("same", b"hello")

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(put, range(4))) == {Stored("same", 5, HELLO)}
    assert store.objects.get_bytes("same") == b"hello"


# Listing and deleting


def test_a_prefix_is_a_folder_and_not_the_beginning_of_a_name(store: Store) -> None:
    for key in ["tasks/1/a", "tasks/1/b/c", "tasks/10/a", "other"]:
        store.objects.put_bytes(key, b"hello")
    assert keys(store.objects) == {"tasks/1/a", "tasks/1/b/c", "tasks/10/a", "other"}
    assert set(store.objects.list("tasks/1")) == {Listed("tasks/1/a", 5), Listed("tasks/1/b/c", 5)}
    assert keys(store.objects, "tasks/2") == set()
    assert store.objects.delete_prefix("tasks/1") == 2
    assert keys(store.objects) == {"tasks/10/a", "other"}
    assert store.objects.delete_prefix("tasks/1") == 0


def test_more_keys_than_one_page_are_listed_and_deleted(store: Store) -> None:
    wanted = {f"many/{number % 3}/{number:04}" for number in range(24)}
    for key in wanted:
        store.objects.put_bytes(key, b"")
    assert keys(store.objects, "many") == wanted
    store.objects.delete(sorted(wanted)[:9])
    assert keys(store.objects, "many") == set(sorted(wanted)[9:])
    assert store.objects.delete_prefix("many") == 15
    assert keys(store.objects) == set()


def test_deleting_what_is_not_there_is_no_error(store: Store) -> None:
    store.objects.put_bytes("a/b", b"hello")
    store.objects.delete(["a/b", "a/b/c", "nothing", "a"])
    store.objects.delete(["a/b"])
    store.objects.delete([])
    assert not store.objects.exists("a/b")
    assert keys(store.objects) == set()


def test_a_deleted_key_may_be_written_again(store: Store) -> None:
    store.objects.put_bytes("a/b", b"hello")
    store.objects.delete(["a/b"])
    store.objects.put_bytes("a/b", b"other")
    assert store.objects.get_bytes("a/b") == b"other"


# Errors


def test_only_a_missing_key_is_not_found(store: Store, tmp_path: Path) -> None:
    store.objects.put_bytes("a/b", b"hello")
    for key in ["nothing", "a", "a/b/c"]:
        with pytest.raises(ArtifactNotFound) as caught:
            store.objects.get_bytes(key)
        assert caught.value.key == key
        with pytest.raises(ArtifactNotFound):
            store.objects.get_file(key, tmp_path / "target")
        assert not store.objects.exists(key)
    assert list(tmp_path.glob("target*")) == []


def test_content_that_is_not_that_of_the_record_is_never_delivered(store: Store, tmp_path: Path) -> None:
    store.objects.put_bytes("a", b"hello")
    wrong = hashlib.sha256(b"wrong").hexdigest()
    (tmp_path / "target").write_bytes(b"before")
    with pytest.raises(ChecksumMismatch, match=wrong):
        store.objects.get_file("a", tmp_path / "target", wrong)
    with pytest.raises(ChecksumMismatch, match=wrong):
        store.objects.get_bytes("a", sha256=wrong)
    with pytest.raises(ChecksumMismatch, match=wrong):
        store.objects.read_through("a", wrong)
    assert store.objects.read_through("a") == store.objects.put_bytes("a", b"hello")
    assert (tmp_path / "target").read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir() if is_partial_name(path.name)] == []


def test_content_that_changed_in_the_store_is_noticed(store: Store, tmp_path: Path) -> None:
    stored = store.objects.put_bytes("a", b"hello")
    store.overwrite("a", b"hellO")
    with pytest.raises(ChecksumMismatch):
        store.objects.get_file("a", tmp_path / "target", stored.sha256)
    if store.kind != "folder":  # the servers keep our digest beside the content
        with pytest.raises(ChecksumMismatch, match="was stored with"):
            store.objects.get_bytes("a")


def test_more_bytes_than_expected_are_not_read(store: Store) -> None:
    store.objects.put_bytes("a", b"hello")
    assert store.objects.get_bytes("a", limit_bytes=5) == b"hello"
    with pytest.raises(ChecksumMismatch, match="5 bytes"):
        store.objects.get_bytes("a", limit_bytes=4)


def test_a_missing_local_file_is_the_callers_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.objects.put_file("a", tmp_path / "nothing")
    assert keys(store.objects) == set()


def test_a_local_folder_that_cannot_be_written_is_named(store: Store, tmp_path: Path) -> None:
    store.objects.put_bytes("a", b"hello")
    with pytest.raises(StoreUnavailable, match="nowhere"):
        store.objects.get_file("a", tmp_path / "nowhere" / "target")


def test_a_full_local_disk_is_named_as_such(store: Store, tmp_path: Path, full_disk: None) -> None:
    if store.kind != "folder":  # its own disk is full as well
        store.objects.put_bytes("a", b"hello")
        with pytest.raises(StorageFull, match="No space left"):
            store.objects.get_file("a", tmp_path / "target")
    else:
        with pytest.raises(StorageFull, match="No space left"):
            store.objects.put_bytes("a", b"hello")
        with pytest.raises(StorageFull, match="No space left"):
            store.objects.check()
        assert not store.objects.exists("a")
    assert not (tmp_path / "target").exists()


def everything(objects: Objects, tmp_path: Path) -> list[Callable[[], object]]:
    (tmp_path / "source").write_bytes(b"hello")
    return [
        lambda: objects.put_bytes("a", b"hello"),
        lambda: objects.put_file("a", tmp_path / "source"),
        lambda: objects.get_bytes("a"),
        lambda: objects.get_file("a", tmp_path / "target"),
        lambda: objects.exists("a"),
        lambda: list(objects.list()),
        lambda: objects.delete(["a"]),
        lambda: objects.delete_prefix("a"),
        lambda: objects.clean(0),
        lambda: objects.check(),
    ]


def test_a_store_that_vanished_is_unavailable_and_not_empty(store: Store, tmp_path: Path) -> None:
    store.objects.check()
    if isinstance(store.objects, FolderObjects):
        store.objects.root.rename(tmp_path / "unmounted")
    else:
        store.s3._client().delete_bucket(Bucket=store.s3.bucket)
    for number, use in enumerate(everything(store.objects, tmp_path)):
        if store.kind == "rclone" and number == 8:
            continue  # it lists no uploads of a bucket that does not exist, which is right enough
        with pytest.raises(StoreUnavailable):
            use()


def test_a_server_that_is_down_is_unavailable_within_seconds(tmp_path: Path, moto_server: S3Server) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
        objects = S3Objects("bucket", options=replace(s3_options(moto_server), endpoint_url=address))
        for use in everything(objects, tmp_path):
            start = time.monotonic()
            with pytest.raises(StoreUnavailable, match="Could not connect"):
                use()
            assert time.monotonic() - start < 30


def test_a_server_that_never_answers_is_unavailable_within_the_timeouts(tmp_path: Path, moto_server: S3Server) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        options = replace(
            s3_options(moto_server),
            endpoint_url=f"http://127.0.0.1:{silent.getsockname()[1]}",
            read_timeout_s=0.2,
            attempts=1,
        )
        objects = S3Objects("bucket", options=options)
        for use in everything(objects, tmp_path):
            start = time.monotonic()
            with pytest.raises(StoreUnavailable, match="timeout"):
                use()
            assert time.monotonic() - start < 15
        # Asking for the health of the store is hasty by itself.
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            S3Objects("bucket", options=replace(options, read_timeout_s=60)).check()
        assert time.monotonic() - start < 15


def test_wrong_credentials_are_not_a_missing_key(rclone_server: S3Server, tmp_path: Path) -> None:
    right = s3_objects(rclone_server)
    options = replace(s3_options(rclone_server), secret_access_key="not-the-secret")
    for use in everything(S3Objects(right.bucket, options=options), tmp_path):
        with pytest.raises(StoreUnavailable):
            use()


@pytest.fixture
def cut_server() -> Iterator[tuple[str, list[int]]]:
    """An S3 server whose answers end too early, as many times as the list has numbers (of bytes sent)."""
    cuts: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = noise(100_000)
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: cuts.pop(0)] if cuts else body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", cuts
        finally:
            server.shutdown()
            thread.join()


def test_an_answer_that_is_cut_off_is_asked_for_again(
    cut_server: tuple[str, list[int]], moto_server: S3Server, tmp_path: Path
) -> None:
    address, cuts = cut_server
    objects = S3Objects("bucket", options=replace(s3_options(moto_server), endpoint_url=address))
    cuts += [50_000, 0]
    objects.get_file("a", tmp_path / "target", hashlib.sha256(noise(100_000)).hexdigest())
    assert (tmp_path / "target").read_bytes() == noise(100_000)
    cuts += [99_999] * 3
    with pytest.raises(StoreUnavailable, match="'a'"):
        objects.get_file("a", tmp_path / "other")
    assert not (tmp_path / "other").exists()


# Interrupted writers


def test_a_writer_killed_half_way_leaves_nothing_to_see(folder: FolderObjects, tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    program = (
        "import sys; from pathlib import Path; from storage.objects import connect\n"
        "connect(sys.argv[1]).put_file('a/b', Path(sys.argv[2]))"
    )
    command = [sys.executable, "-c", program, f"file://{folder.root}", str(pipe)]
    with subprocess.Popen(command, cwd=ROOT) as writer, pipe.open("wb", buffering=0) as feed:
        feed.write(noise(3 * 2**20))  # returns when all but the last bytes were read
        assert writer.poll() is None
        writer.send_signal(signal.SIGKILL)
        writer.wait()
    assert keys(folder) == set()
    assert not folder.exists("a/b")
    assert folder.clean(older_than_s=3600) == 0
    assert folder.clean(older_than_s=0) == 1
    assert folder.clean(older_than_s=0) == 0
    folder.put_bytes("a/b", b"hello")


def test_an_upload_left_by_a_killed_writer_is_invisible_and_cleaned(s3: S3Objects) -> None:
    client = s3._client()
    place = {"Bucket": s3.bucket, "Key": "a/b"}
    upload = client.create_multipart_upload(**place)["UploadId"]
    client.upload_part(**place, UploadId=upload, PartNumber=1, Body=noise(PART))
    assert keys(s3) == set()
    assert not s3.exists("a/b")
    assert s3.clean(older_than_s=100 * 365 * 86400) == 0  # moto says that every upload began in 2010
    assert s3.clean(older_than_s=0) == 1
    assert client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


def test_a_bucket_that_never_had_an_upload_in_parts_is_clean(rclone_server: S3Server) -> None:
    assert s3_objects(rclone_server).clean(older_than_s=0) == 0


def test_uploads_that_another_worker_cleans_at_the_same_time_stop_no_cleaning(
    s3: S3Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = s3._client()
    for key in ("a", "b"):
        client.create_multipart_upload(Bucket=s3.bucket, Key=key)
    real = client.abort_multipart_upload

    def abort(**named: Any) -> None:
        real(**named)
        if named["Key"] == "a":
            real(**named)  # as the slower of two would

    monkeypatch.setattr(client, "abort_multipart_upload", abort)
    assert s3.clean(older_than_s=0) == 1
    assert client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


def test_an_upload_that_fails_half_way_is_taken_back(
    s3: S3Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "source").write_bytes(noise(3 * PART))
    client = s3._client()
    real = client.upload_part

    def upload_part(**named: Any) -> Any:
        if named["PartNumber"] == 2:
            return client.head_bucket(Bucket="no-such-bucket")
        return real(**named)

    monkeypatch.setattr(client, "upload_part", upload_part)
    with pytest.raises(StoreUnavailable):
        s3.put_file("a", tmp_path / "source")
    assert keys(s3) == set()
    assert client.list_multipart_uploads(Bucket=s3.bucket).get("Uploads", []) == []


def test_a_file_that_changes_while_it_is_stored_is_refused(
    s3: S3Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "source"
    source.write_bytes(noise(3 * PART))
    client = s3._client()
    real = client.create_multipart_upload

    def change_and_create(**named: Any) -> Any:
        source.write_bytes(noise(3 * PART, seed=2))
        return real(**named)

    monkeypatch.setattr(client, "create_multipart_upload", change_and_create)
    with pytest.raises(ChecksumMismatch, match="changed"):
        s3.put_file("a", source)
    assert keys(s3) == set()


# Folders of files with a manifest


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (folder / "0100.model").write_bytes(noise(10_000))
    (folder / "corresp.txt").write_text("0 setosa\n")
    (folder / "sub" / "vocab.dat").write_bytes(b"")
    return folder


def test_a_folder_comes_back_with_all_its_files(store: Store, model: Path, tmp_path: Path) -> None:
    manifest = upload_folder(store.objects, "attempts/1", model)
    assert [file.name for file in manifest.files] == ["0100.model", "corresp.txt", "sub/vocab.dat"]
    assert manifest.size == 10_000 + 9
    assert read_manifest(store.objects, "attempts/1") == manifest
    assert upload_folder(store.objects, "attempts/1", model) == manifest
    download_folder(store.objects, manifest, tmp_path / "copy")
    for file in manifest.files:
        assert (tmp_path / "copy" / file.name).read_bytes() == (model / file.name).read_bytes()


def test_the_manifest_comes_last_and_without_it_the_folder_is_not_found(
    store: Store, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[set[str]] = []
    real = store.objects.put_bytes

    def put_bytes(key: str, data: bytes) -> Stored:
        if key.endswith("manifest.json"):
            seen.append(keys(store.objects))
            raise StoreUnavailable("killed here")
        return real(key, data)

    monkeypatch.setattr(store.objects, "put_bytes", put_bytes)
    with pytest.raises(StoreUnavailable, match="killed here"):
        upload_folder(store.objects, "attempts/1", model)
    assert seen == [{f"attempts/1/files/{name}" for name in ["0100.model", "corresp.txt", "sub/vocab.dat"]}]
    with pytest.raises(ArtifactNotFound):
        read_manifest(store.objects, "attempts/1")


def test_a_downloaded_folder_is_verified(store: Store, model: Path, tmp_path: Path) -> None:
    manifest = upload_folder(store.objects, "attempts/1", model)
    store.overwrite("attempts/1/files/corresp.txt", b"0 sEtosa\n")
    with pytest.raises(ChecksumMismatch, match=r"corresp\.txt"):
        download_folder(store.objects, manifest, tmp_path / "copy")
    assert not (tmp_path / "copy" / "corresp.txt").exists()


def test_a_stored_folder_holds_no_links(folder: FolderObjects, model: Path) -> None:
    (model / "link").symlink_to("/etc/hostname")
    with pytest.raises(BadArtifactKey, match="link"):
        upload_folder(folder, "attempts/1", model)
    (model / "link").unlink()
    os.mkfifo(model / "pipe")
    with pytest.raises(BadArtifactKey, match="pipe"):
        upload_folder(folder, "attempts/1", model)


def test_single_files_can_be_stored_under_names_of_choice(folder: FolderObjects, model: Path) -> None:
    manifest = upload_files(folder, "imported", {"a/weights.model": model / "0100.model"})
    assert [file.name for file in manifest.files] == ["a/weights.model"]
    assert folder.get_bytes("imported/files/a/weights.model") == noise(10_000)


GOOD = {"name": "a", "key": "p/files/a", "size": 1, "sha256": HELLO}
BAD: list[object] = [
    None,
    [],
    {},
    {"files": [], "complete": False},
    {"files": [], "complete": 1},
    {"complete": True},
    {"files": [{}], "complete": True},
    {"files": [GOOD, GOOD], "complete": True},
]
BAD += [
    {"files": [{**GOOD, **wrong}], "complete": True}
    for wrong in (
        {"name": "../a"},
        {"name": "/etc/passwd"},
        {"name": 1},
        {"key": "../a"},
        {"size": -1},
        {"size": "1"},
        {"sha256": "../../x"},
        {"sha256": HELLO[:-1]},
    )
]


@pytest.mark.parametrize("given", BAD)
def test_a_damaged_manifest_is_refused(given: object) -> None:
    with pytest.raises(ChecksumMismatch):
        Manifest.from_json(given)


def test_a_manifest_survives_the_way_through_json() -> None:
    manifest = Manifest((ManifestFile("a", "p/files/a", 1, HELLO),))
    assert Manifest.from_json(manifest.to_json()) == manifest


def test_a_manifest_that_is_no_json_is_refused(folder: FolderObjects) -> None:
    folder.put_bytes("p/manifest.json", b"{")
    with pytest.raises(ChecksumMismatch, match="damaged"):
        read_manifest(folder, "p")


# The folder's own promises


def test_a_key_cannot_be_both_a_file_and_a_folder(folder: FolderObjects) -> None:
    folder.put_bytes("a/b", b"hello")
    with pytest.raises(BadArtifactKey, match="folder of other keys"):
        folder.put_bytes("a", b"hello")
    with pytest.raises(BadArtifactKey, match="below a key"):
        folder.put_bytes("a/b/c", b"hello")


def test_without_hard_links_keys_are_still_written_once(folder: FolderObjects, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    folder.put_bytes("a/b", b"hello")
    folder.put_bytes("a/b", b"hello")
    with pytest.raises(ArtifactExists):
        folder.put_bytes("a/b", b"other")
    assert folder.get_bytes("a/b") == b"hello"
    assert folder.clean(0) == 0


def test_writers_survive_folders_that_vanish_under_them(folder: FolderObjects) -> None:
    stop = threading.Event()

    def come_and_go() -> None:
        while not stop.is_set():
            folder.put_bytes("shared/other", b"x")
            folder.delete(["shared/other"])

    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(come_and_go)
        try:
            for number in range(50):
                folder.put_bytes(f"shared/{number}", b"hello")
                folder.delete([f"shared/{number}"])
        finally:
            stop.set()
        running.result()
    assert keys(folder) == set()


def test_foreign_things_in_the_folder_are_not_listed(folder: FolderObjects) -> None:
    folder.put_bytes("a", b"hello")
    (folder.root / "link").symlink_to("/etc")
    assert keys(folder) == {"a"}


# Connecting


@pytest.mark.parametrize(
    ("url", "endpoint"),
    [
        ("file://relative/folder", None),
        ("file://", None),
        ("/srv/objects", None),
        ("ftp://host/x", None),
        ("s3://", None),
        ("s3:///prefix", None),
        ("s3://bucket", "localhost:9000"),
        ("s3://bucket", "ftp://localhost"),
        ("s3://bucket", "http://"),
    ],
)
def test_an_address_that_cannot_be_understood_is_refused(url: str, endpoint: str | None) -> None:
    with pytest.raises(ValueError, match="://"):
        connect(url, endpoint)


def test_addresses_lead_to_buckets_with_prefix(moto_server: S3Server) -> None:
    whole = s3_objects(moto_server)
    below = connect(
        f"s3://{whole.bucket}/deep/prefix/",
        moto_server.endpoint_url,
        access_key_id=moto_server.access_key_id,
        secret_access_key=moto_server.secret_access_key,
    )
    below.put_bytes("a", b"hello")
    assert keys(whole) == {"deep/prefix/a"}
    assert keys(below) == {"a"}


def test_a_prefix_must_be_a_safe_key() -> None:
    with pytest.raises(BadArtifactKey):
        connect("s3://bucket/../other")


def test_a_folder_that_cannot_be_created_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreUnavailable, match="file"):
        connect(f"file://{tmp_path}/file/objects")


def test_a_client_is_not_shared_with_a_forked_process(s3: S3Objects) -> None:
    mine = s3._client()
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover
        os.write(writer, b"other" if s3._client() is not mine else b"same")
        os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader, "rb") as answer:
        assert answer.read() == b"other"


def test_content_is_read_from_any_place_on(store: Store):
    data = random.Random(3).randbytes(300_000)
    store.objects.put_bytes("a/b", data)
    for start in (0, 1, 299_999, 300_000, 400_000):
        content = store.objects.open("a/b", start)
        found = b""
        while piece := content.read(70_000):
            found += piece
        content.close()
        assert found == data[start:]


def test_empty_content_is_read_as_such(store: Store):
    store.objects.put_bytes("a/empty", b"")
    content = store.objects.open("a/empty")
    assert content.read(10) == b""
    content.close()


def test_content_that_is_not_there_cannot_be_opened(store: Store):
    with pytest.raises(ArtifactNotFound):
        store.objects.open("a/nothing")
    with pytest.raises(ArtifactNotFound):
        store.objects.open("a/nothing", 5)
    with pytest.raises(BadArtifactKey):
        store.objects.open("../nothing")


def test_s3_goes_on_where_a_connection_broke(store: Store, monkeypatch: pytest.MonkeyPatch):
    if store.kind == "folder":
        pytest.skip("files do not break")
    data = random.Random(4).randbytes(200_000)
    store.objects.put_bytes("a/c", data)
    ask, asked = store.s3._body, []

    def breaking(key: str, start: int) -> Any:
        body, end = ask(key, start)
        asked.append(start)
        return (_Breaking(body, 50_000), end) if len(asked) < 3 else (body, end)

    monkeypatch.setattr(store.s3, "_body", breaking)
    content = store.objects.open("a/c")
    found = b""
    while piece := content.read(30_000):
        found += piece
    assert found == data
    assert asked == [0, 50_000, 100_000]


class _Breaking:
    """A body whose connection breaks after some bytes."""

    def __init__(self, body: Any, left: int) -> None:
        self._body, self._left = body, left

    def read(self, amount: int) -> bytes:
        if not self._left:
            raise botocore.exceptions.ReadTimeoutError(endpoint_url="http://localhost")
        data: bytes = self._body.read(min(amount, self._left))
        self._left -= len(data)
        return data

    def close(self) -> None:
        self._body.close()


def test_download_link_gives_the_content_to_anybody(store: Store):
    store.objects.put_bytes("a/d", b"hello")
    link = store.objects.download_link("a/d", 60, 'attachment; filename="d.txt"', "text/plain")
    if store.kind == "folder":
        assert link is None
        return
    assert link is not None
    answer = urllib3.PoolManager().request("GET", link)
    assert (answer.status, answer.data) == (200, b"hello")
    if store.kind == "moto":  # rclone does not know what is asked of its headers
        assert answer.headers["Content-Disposition"] == 'attachment; filename="d.txt"'
