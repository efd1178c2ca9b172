"""Downloads: files, parts of files and archives of services, tasks and data sets."""

from __future__ import annotations

import hashlib
import io
import tarfile
import zipfile
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from api.refusals import FileGone
from storage.errors import ChecksumMismatch
from storage.objects.base import Objects
from storage.records import Artifact, NewFile, NewVersion, Records, State
from tests.unit.api.conftest import REPORT, Yard

Json = dict[str, Any]

MODEL = bytes(range(256)) * 5000
FILES = {"0005.model": MODEL, "modelyard.json": b"{}", "best_model.txt": b"iteration:5\n"}


class Reading(FlaskClient):
    """A client that reads answers to their ends, as servers send them."""

    def open(self, *args: Any, buffered: bool = True, **more: Any) -> Any:
        return super().open(*args, buffered=buffered, **more)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    app.test_client_class = Reading
    return app.test_client()


def publish(yard: Yard, objects: Objects, files: dict[str, bytes] = FILES) -> int:
    """A worker's part of a training: stored files and a version of them. Returns the number of the task."""
    task_id = yard.train()
    attempt = yard.records.tasks.claim(task_id, "worker", 20.0)
    assert attempt is not None
    artifacts = []
    for name, content in files.items():
        stored = objects.put_bytes(f"{attempt.prefix}/model/files/{name}", content)
        artifacts.append(Artifact(name, stored.key, stored.size, stored.sha256))
    version = NewVersion(f"{attempt.prefix}/model", {"file": "0005.model", "mltype": "classification"}, artifacts)
    yard.records.tasks.end(attempt, State.FINISHED, phases={}, report=dict(REPORT), version=version)
    return task_id


@pytest.fixture
def task_id(yard: Yard, objects: Objects) -> int:
    """A training of service `iris` that published a version."""
    yard.create()
    return publish(yard, objects)


def key_of(records: Records, task_id: int, name: str = "0005.model") -> str:
    version = records.versions.of_task(task_id)
    assert version is not None
    return next(each.key for each in version.artifacts if each.name == name)


def members_of_tar(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        found = {}
        for each in archive.getmembers():
            file = archive.extractfile(each)
            assert file is not None
            found[each.name] = file.read()
        return found


@pytest.mark.usefixtures("task_id")
def test_list_tells_what_can_be_downloaded(client: FlaskClient):
    answer = client.get("/services/Iris/files")
    assert answer.status_code == 200
    assert answer.json["body"] == {
        "version": 1,
        "files": [
            {
                "path": name,
                "bytes": len(FILES[name]),
                "sha256": hashlib.sha256(FILES[name]).hexdigest(),
                "media_type": media_type,
            }
            for name, media_type in (
                ("0005.model", "application/octet-stream"),
                ("best_model.txt", "text/plain"),
                ("modelyard.json", "application/json"),
            )
        ],
    }


@pytest.mark.usefixtures("task_id")
def test_file_is_sent_whole_as_an_attachment(client: FlaskClient):
    answer = client.get("/services/iris/files/0005.model")
    assert (answer.status_code, answer.data) == (200, MODEL)
    assert answer.content_length == len(MODEL)
    assert answer.get_etag() == (hashlib.sha256(MODEL).hexdigest(), False)
    assert answer.headers["Content-Disposition"] == "attachment; filename=0005.model"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.mimetype == "application/octet-stream"


@pytest.mark.usefixtures("task_id")
@pytest.mark.parametrize(
    ("wanted", "start", "stop"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=100-199", 100, 200),
        ("bytes=1279999-", 1279999, 1280000),
        ("bytes=-10", 1279990, 1280000),
        ("bytes=5-99999999", 5, 1280000),
    ],
)
def test_part_of_a_file_is_sent(client: FlaskClient, wanted: str, start: int, stop: int):
    answer = client.get("/services/iris/files/0005.model", headers={"Range": wanted})
    assert (answer.status_code, answer.data) == (206, MODEL[start:stop])
    assert answer.headers["Content-Range"] == f"bytes {start}-{stop - 1}/{len(MODEL)}"


@pytest.mark.usefixtures("task_id")
@pytest.mark.parametrize("wanted", ["bytes=0-1,5-6", "lines=0-1", "bytes=9-1", "nonsense"])
def test_range_that_cannot_be_kept_to_is_ignored(client: FlaskClient, wanted: str):
    answer = client.get("/services/iris/files/0005.model", headers={"Range": wanted})
    assert (answer.status_code, answer.data) == (200, MODEL)


@pytest.mark.usefixtures("task_id")
def test_range_behind_the_end_is_refused(client: FlaskClient):
    answer = client.get("/services/iris/files/0005.model", headers={"Range": "bytes=1280000-"})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == "bytes */1280000"


@pytest.mark.usefixtures("task_id")
def test_conditions_are_kept(client: FlaskClient):
    path, tag = "/services/iris/files/0005.model", f'"{hashlib.sha256(MODEL).hexdigest()}"'
    unchanged = client.get(path, headers={"If-None-Match": tag})
    assert (unchanged.status_code, unchanged.data) == (304, b"")
    assert client.get(path, headers={"If-None-Match": '"other"'}).status_code == 200
    assert client.get(path, headers={"If-Match": tag}).status_code == 200
    assert client.get(path, headers={"If-Match": '"other"'}).status_code == 412
    part = {"Range": "bytes=0-9"}
    assert client.get(path, headers={**part, "If-Range": tag}).data == MODEL[:10]
    assert client.get(path, headers={**part, "If-Range": '"other"'}).data == MODEL
    assert client.get(path, headers={**part, "If-Range": "Sat, 21 Nov 2026 10:00:00 GMT"}).data == MODEL


@pytest.mark.usefixtures("task_id")
def test_head_tells_the_size_and_opens_nothing_for_long(client: FlaskClient):
    answer = client.head("/services/iris/files/0005.model")
    assert (answer.status_code, answer.content_length, answer.data) == (200, len(MODEL), b"")


@pytest.mark.usefixtures("task_id")
@pytest.mark.parametrize("form", ["tar.gz", "tar", "zip"])
def test_archive_holds_the_files_and_is_the_same_each_time(client: FlaskClient, form: str):
    answer = client.get("/services/iris/archive", query_string={"format": form})
    assert answer.status_code == 200
    assert answer.headers["Content-Disposition"] == f"attachment; filename=iris-1.{form}"
    if form == "zip":
        with zipfile.ZipFile(io.BytesIO(answer.data)) as archive:
            assert archive.testzip() is None
            found = {name: archive.read(name) for name in archive.namelist()}
    else:
        found = members_of_tar(answer.data)
    assert found == FILES
    assert list(found)[-1] == "0005.model"  # the newest: readers of folders take it
    assert client.get("/services/iris/archive", query_string={"format": form}).data == answer.data
    again = client.get(
        "/services/iris/archive", query_string={"format": form}, headers={"If-None-Match": answer.headers["ETag"]}
    )
    assert again.status_code == 304
    if form == "tar":
        assert answer.content_length == len(answer.data)


def test_older_version_is_sent_by_its_number(yard: Yard, client: FlaskClient, objects: Objects, task_id: int):
    publish(yard, objects, {"0005.model": b"newer"})
    assert client.get("/services/iris/files/0005.model").data == b"newer"
    assert client.get("/services/iris/files/0005.model?version=1").data == MODEL
    assert client.get("/services/iris/files?version=2").json["body"]["version"] == 2
    assert client.get("/services/iris/files?version=3").status_code == 404
    assert client.get("/services/iris/files?version=zero").status_code == 400


def test_service_without_a_model_has_no_files(yard: Yard, client: FlaskClient):
    yard.create()
    answer = client.get("/services/iris/files")
    assert answer.status_code == 404
    assert "no training of this repository" in answer.json["status"]["message"]


@pytest.mark.parametrize("path", ["files/none.model", "files/../config.json", "files/%2e%2e/x", "files//etc/passwd"])
@pytest.mark.usefixtures("task_id")
def test_file_that_is_not_among_them_is_not_found(client: FlaskClient, path: str):
    assert client.get(f"/services/iris/{path}").status_code in (404, 308)


def test_file_that_was_cleaned_is_gone(client: FlaskClient, objects: Objects, records: Records, task_id: int):
    objects.delete([key_of(records, task_id, "best_model.txt")])
    assert client.get("/services/iris/files/best_model.txt").status_code == 404
    assert client.get("/services/iris/archive").status_code == 404


def test_file_that_is_cleaned_while_it_is_sent_ends_early(
    client: FlaskClient, objects: Objects, records: Records, task_id: int
):
    answer = client.get("/services/iris/archive?format=tar", buffered=False)
    pieces = iter(answer.response)
    next(pieces)
    objects.delete([key_of(records, task_id)])
    with pytest.raises(FileGone):
        list(pieces)
    answer.close()


def test_last_piece_of_a_damaged_file_is_not_sent(
    client: FlaskClient, objects: Objects, records: Records, settings: Any, task_id: int
):
    stored = settings.home / "objects" / key_of(records, task_id)
    stored.write_bytes(MODEL[:-1] + b"x")
    answer = client.get("/services/iris/files/0005.model", buffered=False)
    received: list[bytes] = []
    with pytest.raises(ChecksumMismatch):
        received.extend(answer.response)
    assert sum(map(len, received)) < len(MODEL)
    answer.close()


def test_no_more_downloads_than_may_be_go_on_at_one_time_and_half_of_them_of_one_account(
    client: FlaskClient, app: Any, task_id: int
):
    transfers = app.extensions["modelyard"].transfers
    open_ones = [client.get("/services/iris/archive", buffered=False) for _ in range(32)]
    refused = client.get("/services/iris/files/0005.model")
    assert refused.status_code == 503
    assert "32 downloads of this account go on already" in refused.text
    open_ones.pop().close()
    with ExitStack() as others:
        for number in range(32):
            others.enter_context(transfers.held(100 + number // 16))
        assert client.get("/services/iris/files/0005.model").status_code == 200
        others.enter_context(transfers.held(102))
        refused = client.get("/services/iris/files/0005.model")
        assert refused.status_code == 503
        assert "64 downloads go on already" in refused.text
    assert client.get("/services/iris/files/0005.model").status_code == 200
    for each in open_ones:
        each.close()


def test_task_has_its_report_and_its_model(client: FlaskClient, task_id: int):
    told = client.get(f"/tasks/{task_id}/files").json
    paths = [each["path"] for each in told["files"]]
    assert sorted(paths) == ["model/0005.model", "model/best_model.txt", "model/modelyard.json", "report.json"]
    assert client.get(f"/tasks/{task_id}/files/report.json").json == client.get(f"/tasks/{task_id}/report").json
    assert client.get(f"/tasks/{task_id}/files/model/0005.model").data == MODEL
    found = members_of_tar(client.get(f"/tasks/{task_id}/archive").data)
    assert sorted(found) == sorted(paths)
    assert found["model/0005.model"] == MODEL


@pytest.mark.parametrize("is_stored", [False, True])
def test_result_of_a_prediction_task_is_a_file(
    yard: Yard, client: FlaskClient, records: Records, objects: Objects, task_id: int, is_stored: bool
):
    asked = client.post("/predict", json={"service": "iris", "async": True, "data": ["1,2"]})
    number = asked.json["head"]["task_id"]
    attempt = records.tasks.claim(number, "worker", 20.0)
    assert attempt is not None
    content = b'{"row":1}\n' * 1000
    result: Json = {"form": "jsonl", "size_bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if is_stored:
        result["key"] = objects.put_bytes(f"{attempt.prefix}/result", content).key
    else:
        result["content"] = content.decode()
    report = {"rows": 1000, "timings": {}, "warnings": [], "result": result}
    records.tasks.end(attempt, State.FINISHED, phases={}, report=report)
    answer = client.get(f"/tasks/{number}/files/result.jsonl", headers={"Range": "bytes=10-19"})
    assert (answer.status_code, answer.data, answer.mimetype) == (206, b'{"row":1}\n', "application/x-ndjson")
    assert members_of_tar(client.get(f"/tasks/{number}/archive?format=tar").data)["result.jsonl"] == content


def test_task_that_is_not_over_has_no_files(yard: Yard, client: FlaskClient):
    yard.create()
    number = yard.train()
    assert client.get(f"/tasks/{number}/files").json == {"task_id": number, "files": []}
    assert client.get(f"/tasks/{number}/files/report.json").status_code == 404


def test_data_set_is_sent_by_file_and_whole(client: FlaskClient, records: Records, objects: Objects):
    assert client.put("/datasets/flowers").status_code == 201
    [dataset] = records.datasets.page(1, limit=1)
    files = {"train.csv": b"a,b\n1,2\n", "täst/ü.csv": b"a,b\n3,4\n", "empty.csv": b""}
    new = []
    for place, (path, content) in enumerate(files.items()):
        stored = objects.put_bytes(f"datasets/{dataset.id}/{place}", content)
        new.append(NewFile(path, stored.key, stored.size, stored.sha256))
    records.datasets.commit(dataset.id, records.datasets.stage(dataset.id, new))
    answer = client.get("/datasets/flowers/files/täst/ü.csv")
    assert (answer.status_code, answer.data, answer.mimetype) == (200, files["täst/ü.csv"], "text/csv")
    assert "filename*=UTF-8''%C3%BC.csv" in answer.headers["Content-Disposition"]
    assert client.get("/datasets/flowers/files/empty.csv").data == b""
    assert client.get("/datasets/flowers/files/täst").status_code == 404
    assert members_of_tar(client.get("/datasets/flowers/archive").data) == files
    with zipfile.ZipFile(io.BytesIO(client.get("/datasets/flowers/archive?format=zip").data)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    assert client.get("/datasets/flowers/archive?format=rar").status_code == 400


def test_empty_data_set_is_an_empty_archive(client: FlaskClient):
    client.put("/datasets/flowers")
    assert members_of_tar(client.get("/datasets/flowers/archive").data) == {}
