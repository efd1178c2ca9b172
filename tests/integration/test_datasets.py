"""Data sets from both sides: what users upload, and what trainings and predictions read of it."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from sklearn.datasets import load_breast_cancer
from sqlalchemy import text

from api import datasets
from settings import Settings
from storage.errors import RecordsUnavailable, StoreUnavailable, UploadNotFound
from storage.objects import connect
from storage.records import Kind, State
from tests.integration.fronted import until
from tests.integration.yard import EXAMPLES, Yard, running_yard
from tests.putting import put
from tests.services import S3Server
from workers.cleaning import clean
from workers.lease import LeaseKeeper
from workers.sweep import Sweep
from workers.uploading import RATIO_FLOOR_BYTES

Json = dict[str, Any]

pytestmark = pytest.mark.servers


@pytest.fixture
def yard(settings: Settings, redis_url: str) -> Iterator[Yard]:
    # No part is larger than a request may be, so small files have several.
    quick = dataclasses.replace(settings, request_limit_bytes=128 * 1024, lease_s=2.0, renew_s=0.5, sweep_s=0.1)
    with running_yard(quick, redis_url) as made:
        yield made


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def send(yard: Yard, name: str, files: dict[str, bytes], *, query: str = "", code: int = 201, key: str = "") -> Json:
    """Send a form with files."""
    form = {f"file{number}": (io.BytesIO(files[path]), path) for number, path in enumerate(files)}
    headers = {"X-API-KEY": key} if key else {}
    answer = yard.client.post(f"/datasets/{name}/files{query}", data=form, headers=headers)
    assert answer.status_code == code, answer.text
    found: Json = answer.json
    return found


def put_part(yard: Yard, address: str, number: int, content: bytes, digest: str | None = None) -> Any:
    headers = {"X-Content-SHA256": sha256(content) if digest is None else digest}
    return yard.client.put(f"{address}/parts/{number}", data=content, headers=headers)


def begin(yard: Yard, name: str, content: bytes, **more: Any) -> tuple[str, Json]:
    body = {"path": "big.csv", "bytes": len(content), **more}
    made = yard.call("POST", f"/datasets/{name}/uploads", body, code=201)
    return f"/datasets/{name}/uploads/{made['upload_id']}", made


def pieces(content: bytes, part_bytes: int) -> list[bytes]:
    return [content[start : start + part_bytes] for start in range(0, len(content), part_bytes)]


def paths(yard: Yard, name: str) -> list[str]:
    return [each["path"] for each in yard.call("GET", f"/datasets/{name}")["files"]]


def tumours(yard: Yard, name: str = "tumours") -> tuple[str, str, list[str]]:
    """A data set of breast cancer, split by its own order: header and rows of the test file come back."""
    header, *rows = (EXAMPLES / "breast_cancer.csv").read_text().splitlines()
    train = "\n".join([header, *(row for number, row in enumerate(rows) if number % 4)]) + "\n"
    held_out = [row for number, row in enumerate(rows) if number % 4 == 0]
    test = "\n".join([header, *held_out]) + "\n"
    yard.call("PUT", f"/datasets/{name}", code=201)
    send(yard, name, {"train.csv": train.encode(), "test/part.csv": test.encode()})
    return header, test, held_out


def label_of(header: str) -> str:
    return header.split(",")[-1]


def test_training_and_predictions_read_a_data_set_by_name(yard: Yard):
    header, _, held_out = tumours(yard)
    label = label_of(header)
    options = {
        "input": {"connector": "csv", "label": label},
        "mllib": {"nclasses": 2, "objective": "binary:logistic"},
        "output": {},
    }
    yard.create("tumours", yard.data / "model", parameters=options)
    asked = {
        "service": "tumours",
        "async": False,
        "parameters": {
            "input": {"seed": 1},
            "mllib": {"iterations": 40},
            "output": {"measure": ["acc"]},
        },
        "data": ["dataset://tumours/train.csv", "dataset://Tumours/test/part.csv"],
    }
    answer = yard.call("POST", "/train", asked, code=201)
    assert answer["body"]["measure"]["acc"] > 0.93

    # The accuracy that was told is the one that the predictions have on the very rows.
    truth = [row.rpartition(",")[2] for row in held_out]
    assert len(truth) == -(-load_breast_cancer().target.size // 4)
    ways = {}
    for way in ("dataset://tumours/test/part.csv", "dataset://tumours/test", "dataset://tumours/test/"):
        told = yard.call("POST", "/predict", {"service": "tumours", "parameters": {}, "data": [way]})
        ways[way] = [each["classes"][0]["cat"] for each in told["body"]["predictions"]]

    first, *others = ways.values()
    assert all(each == first for each in others)
    accuracy = sum(left == right for left, right in zip(first, truth, strict=True)) / len(truth)
    assert accuracy == pytest.approx(answer["body"]["measure"]["acc"], abs=1e-3)

    task = yard.call("POST", "/predict", {"service": "tumours", "async": True, "data": [*ways][:1]}, code=201)
    result = yard.call("GET", f"/tasks/{task['head']['task_id']}/result")
    assert [each["classes"][0]["cat"] for each in result["body"]["predictions"]] == first


def test_queued_training_reads_what_was_there_when_it_was_accepted(yard: Yard):
    yard.call("PUT", "/datasets/flowers", code=201)
    iris = (yard.data / "iris.csv").read_bytes()
    send(yard, "flowers", {"iris.csv": iris})
    yard.create("flowers", yard.data / "model")
    yard.is_idle = True
    asked = {"service": "flowers", "parameters": {"mllib": {"iterations": 5}}, "data": ["dataset://flowers"]}
    changed, deleted = (yard.call("POST", "/train", asked, code=201)["head"]["task_id"] for _ in range(2))
    send(yard, "flowers", {"iris.csv": b"nothing,useful\n1,2\n"})
    yard.is_idle = False
    clean(yard.parts, grace_s=0.0)
    yard.send_task(yard.parts.records.tasks.get(changed))
    assert yard.call("GET", f"/tasks/{changed}")["state"] == "finished"

    yard.call("DELETE", "/datasets/flowers")
    clean(yard.parts, grace_s=0.0)
    yard.send_task(yard.parts.records.tasks.get(deleted))
    assert yard.call("GET", f"/tasks/{deleted}")["state"] == "finished"

    # Nobody needs it any more.
    clean(yard.parts, grace_s=0.0)
    assert list(yard.parts.objects.list("datasets")) == []
    refused = yard.call("POST", "/train", {**asked, "async": False}, code=400)
    assert "data set 'flowers' does not exist" in refused["status"]["dd_msg"]


def test_data_set_is_created_once_and_listed_page_by_page(yard: Yard):
    first = yard.call("PUT", "/datasets/One", code=201)
    assert (first["name"], first["state"], first["bytes"]) == ("one", "empty", 0)
    assert yard.call("PUT", "/datasets/one", code=200) == first
    for name in ("two", "three"):
        yard.call("PUT", f"/datasets/{name}", code=201)
    send(yard, "two", {"a/b.csv": b"x\n1\n", "a/c.csv": b"x\n2\n", "d.csv": b""})
    page = yard.call("GET", "/datasets?limit=2")
    assert [each["name"] for each in page["datasets"]] == ["three", "two"]
    page = yard.call("GET", f"/datasets?limit=2&cursor={page['next_cursor']}")
    assert ([each["name"] for each in page["datasets"]], page["next_cursor"]) == (["one"], None)
    two = yard.call("GET", "/datasets/two?limit=2")
    assert (two["state"], two["file_count"], two["bytes"]) == ("ready", 3, 8)
    assert two["files"] == [
        {"path": "a/b.csv", "bytes": 4, "sha256": sha256(b"x\n1\n"), "facts": None},
        {"path": "a/c.csv", "bytes": 4, "sha256": sha256(b"x\n2\n"), "facts": None},
    ]
    rest = yard.call("GET", f"/datasets/two?limit=2&cursor={two['next_cursor']}")
    assert ([each["path"] for each in rest["files"]], rest["next_cursor"]) == (["d.csv"], None)
    yard.call("DELETE", "/datasets/two/files/a/b.csv")
    assert paths(yard, "two") == ["a/c.csv", "d.csv"]
    yard.call("DELETE", "/datasets/two")
    yard.call("GET", "/datasets/two", code=404)
    yard.call("PUT", "/datasets/two", code=201)
    assert paths(yard, "two") == []


def test_accounts_do_not_see_each_others_data_sets(yard: Yard):
    keys = {name: yard.parts.records.keys.create(name)[1] for name in ("ann", "bob")}
    yard.call("PUT", "/datasets/iris", key=keys["ann"], code=201)
    send(yard, "iris", {"iris.csv": (yard.data / "iris.csv").read_bytes()}, key=keys["ann"])
    body = {"path": "more.csv", "bytes": 3}
    number = yard.call("POST", "/datasets/iris/uploads", body, key=keys["ann"], code=201)["upload_id"]
    assert yard.call("GET", "/datasets", key=keys["bob"])["datasets"] == []
    for verb, path in (
        ("GET", "/datasets/iris"),
        ("DELETE", "/datasets/iris"),
        ("DELETE", "/datasets/iris/files/iris.csv"),
        ("POST", "/datasets/iris/uploads"),
        ("GET", f"/datasets/iris/uploads/{number}"),
    ):
        yard.call(verb, path, body if verb == "POST" else None, key=keys["bob"], code=404)
    send(yard, "iris", {"x.csv": b"x\n1\n"}, key=keys["bob"], code=404)
    # Nor by way of a data set of the same name, or through a training.
    yard.call("PUT", "/datasets/iris", key=keys["bob"], code=201)
    for verb, path in (
        ("GET", f"/datasets/iris/uploads/{number}"),
        ("DELETE", f"/datasets/iris/uploads/{number}"),
        ("POST", f"/datasets/iris/uploads/{number}/complete"),
    ):
        yard.call(verb, path, key=keys["bob"], code=404)
    yard.call("PUT", "/services/spy", yard.body("spy"), key=keys["bob"], code=201)
    asked = {"service": "spy", "async": False, "parameters": {"mllib": {"iterations": 3}}, "data": ["dataset://iris"]}
    refused = yard.call("POST", "/train", asked, key=keys["bob"], code=400)
    assert "holds no file" in refused["status"]["dd_msg"]
    assert yard.call("GET", "/datasets/iris", key=keys["ann"])["file_count"] == 1


def test_upload_goes_on_after_the_api_was_started_anew(yard: Yard):
    content = bytes(range(256)) * 1100  # three parts
    yard.call("PUT", "/datasets/big", code=201)
    address, made = begin(yard, "big", content, sha256=sha256(content))
    parts = pieces(content, made["part_bytes"])
    assert (made["part_count"], made["missing"], made["links"]) == (len(parts), [1, 2, 3], None)
    assert put_part(yard, address, 3, parts[2]).json == {"part": 3, "bytes": len(parts[2]), "sha256": sha256(parts[2])}
    assert put_part(yard, address, 1, parts[0]).status_code == 200

    with running_yard(dataclasses.replace(yard.parts.settings), yard.parts.settings.live_url) as anew:
        assert anew.call("GET", address)["missing"] == [2]
        assert anew.call("POST", f"{address}/complete", code=400)["error"]["kind"] == "upload_refused"
        assert put_part(anew, address, 2, parts[1]).status_code == 200
        assert put_part(anew, address, 2, parts[1]).status_code == 200  # the answer was lost
        told = anew.call("POST", f"{address}/complete")
        assert (told["state"], told["bytes"], told["sha256"]) == ("finished", len(content), sha256(content))
        assert anew.call("POST", f"{address}/complete") == told  # that answer as well
    [file] = yard.call("GET", "/datasets/big")["files"]
    assert file == {"path": "big.csv", "bytes": len(content), "sha256": sha256(content), "facts": None}
    yard.call("GET", address, code=404)
    clean(yard.parts, grace_s=0.0)
    assert list(yard.parts.objects.list("uploads")) == []
    [kept] = yard.parts.records.datasets.files(1, limit=10)
    assert yard.parts.objects.get_bytes(kept.key) == content


def test_wrong_parts_are_refused_and_can_be_sent_again(yard: Yard):
    content = b"y" * 140_000
    yard.call("PUT", "/datasets/big", code=201)
    address, made = begin(yard, "big", content, sha256=sha256(content))
    first, last = pieces(content, made["part_bytes"])
    for answer, kind in (
        (put_part(yard, address, 1, first, sha256(b"else")), "checksum_wrong"),
        (put_part(yard, address, 1, first, "no digest"), "bad_header"),
        (put_part(yard, address, 2, first), "bad_body"),
        (put_part(yard, address, 3, last), "bad_body"),
        (put_part(yard, address, 0, last), "bad_body"),
        (put_part(yard, f"{address}9", 1, first), "upload_not_found"),
    ):
        assert answer.json["error"]["kind"] == kind
    wrong = b"z" + first[1:]
    assert put_part(yard, address, 1, wrong).status_code == 200
    assert put_part(yard, address, 2, last).status_code == 200
    refused = yard.call("POST", f"{address}/complete", code=400)
    assert "the SHA-256 of the whole is" in refused["error"]["message"]
    assert paths(yard, "big") == []
    assert put_part(yard, address, 1, first).status_code == 200
    assert yard.call("POST", f"{address}/complete")["sha256"] == sha256(content)


def test_upload_that_is_being_completed_is_left_alone(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(datasets, "WAIT_S", 0.0)
    yard.call("PUT", "/datasets/big", code=201)
    address, _ = begin(yard, "big", b"abc")
    put_part(yard, address, 1, b"abc")
    task_id = left_lying(yard, address)
    assert put_part(yard, address, 1, b"abd").json["error"]["kind"] == "upload_completing"
    assert yard.call("DELETE", address, code=409)["error"]["kind"] == "upload_completing"
    # A worker that dies between the two leaves a whole file behind, and the next one finds that out.
    end = yard.parts.records.tasks.end

    def die(*given: Any, **more: Any) -> Any:
        raise SystemExit

    monkeypatch.setattr(yard.parts.records.tasks, "end", die)
    with pytest.raises(SystemExit):
        yard.send_task(yard.parts.records.tasks.get(task_id))
    monkeypatch.setattr(yard.parts.records.tasks, "end", end)
    assert paths(yard, "big") == ["big.csv"]
    until(lambda: Sweep(yard.parts)().taken_back == 1)
    told = yard.call("POST", f"{address}/complete")
    assert (told["state"], told["file_count"], told["sha256"]) == ("finished", 1, sha256(b"abc"))
    assert yard.call("GET", "/datasets/big")["revision"] == 1


def test_upload_can_be_completed_again_whatever_its_first_completion_left(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    yard.call("PUT", "/datasets/big", code=201)
    address, _ = begin(yard, "big", b"abc")
    put_part(yard, address, 1, b"abc")

    def fail(*given: Any) -> Any:
        raise StoreUnavailable("away")

    with monkeypatch.context() as away:
        away.setattr(yard.parts.objects, "put_file", fail)
        away.setattr(yard.parts.objects, "delete", fail)
        yard.parts = dataclasses.replace(yard.parts, settings=dataclasses.replace(yard.parts.settings, lost_max=1))
        task = yard.call("POST", f"{address}/complete", code=503)
    assert paths(yard, "big") == [], task
    assert yard.call("POST", f"{address}/complete")["state"] == "finished"
    assert paths(yard, "big") == ["big.csv"]


@pytest.mark.parametrize("error", [RecordsUnavailable("the answer was lost"), UploadNotFound(1)], ids=["lost", "taken"])
def test_upload_whose_commit_was_not_answered_is_whole(yard: Yard, monkeypatch: pytest.MonkeyPatch, error: Exception):
    yard.call("PUT", "/datasets/big", code=201)
    address, _ = begin(yard, "big", b"abc")
    put_part(yard, address, 1, b"abc")
    commit = yard.parts.records.datasets.commit

    def commit_and_lose(*given: Any) -> int:
        commit(*given)
        raise error

    monkeypatch.setattr(yard.parts.records.datasets, "commit", commit_and_lose)
    told = yard.call("POST", f"{address}/complete")
    assert (told["state"], told["sha256"]) == ("finished", sha256(b"abc"))
    assert (yard.call("GET", "/datasets/big")["revision"], paths(yard, "big")) == (1, ["big.csv"])
    [kept] = yard.parts.records.datasets.files(1, limit=10)
    assert yard.parts.objects.get_bytes(kept.key) == b"abc"


def left_lying(yard: Yard, address: str) -> int:
    """The task that completes an upload, with nobody to do it."""
    yard.is_idle = True
    told = yard.call("POST", f"{address}/complete", code=202)
    yard.is_idle = False
    number: int = told["task_id"]
    return number


def test_upload_that_was_given_up_is_gone(yard: Yard):
    yard.call("PUT", "/datasets/big", code=201)
    address, _ = begin(yard, "big", b"abc")
    put_part(yard, address, 1, b"abc")
    yard.call("DELETE", address)
    yard.call("GET", address, code=404)
    assert put_part(yard, address, 1, b"abc").status_code == 404
    yard.call("POST", f"{address}/complete", code=404)
    clean(yard.parts, grace_s=0.0)
    assert list(yard.parts.objects.list()) == []


# What is in them


def test_tables_are_described(yard: Yard):
    cancer = load_breast_cancer()
    yard.call("PUT", "/datasets/mixed", code=201)
    table = (EXAMPLES / "breast_cancer.csv").read_bytes()
    lines = b"1 1:0.5 7:2 # a remark\n\n-1 3:1\n1 2:4\n"
    quoted = 'name;class\n"a;b";x\nc;y\n\nd;x\n'.encode("utf-8-sig")
    send(yard, "mixed", {"a.svm": lines, "quoted.csv": quoted, "b.txt": b"x", "c.csv": b""})
    address, made = begin(yard, "mixed", table, path="cancer.csv")
    for number, part in enumerate(pieces(table, made["part_bytes"]), 1):
        assert put_part(yard, address, number, part).status_code == 200
    yard.call("POST", f"{address}/complete")

    assert yard.call("POST", "/datasets/mixed/describe")["file_count"] == 4
    facts = {each["path"]: each["facts"] for each in yard.call("GET", "/datasets/mixed")["files"]}
    assert facts["b.txt"] is None
    assert facts["a.svm"] == {"kind": "svm", "rows": 3, "columns": 7, "classes": {"-1": 1, "1": 2}}
    assert facts["c.csv"] == {"kind": "csv", "rows": 0, "columns": 0, "separator": ",", "about": []}
    assert facts["quoted.csv"] == {
        "kind": "csv",
        "rows": 3,
        "columns": 2,
        "separator": ";",
        "about": [
            {"name": "name", "values": {"a;b": 1, "c": 1, "d": 1}},
            {"name": "class", "values": {"x": 2, "y": 1}},
        ],
    }
    found = facts["cancer.csv"]
    assert (found["rows"], found["columns"]) == (len(cancer.target), cancer.data.shape[1] + 1)
    assert found["about"][-1]["values"] == {str(each): int((cancer.target == each).sum()) for each in (0, 1)}
    assert found["about"][0]["values"] is None  # a measure has too many values to be a class

    # What is known is not looked at again, and a file that takes the place of another is a new one.
    assert yard.call("POST", "/datasets/mixed/describe")["file_count"] == 0
    send(yard, "mixed", {"a.svm": b"5 1:1\n"})
    assert yard.call("POST", "/datasets/mixed/describe")["file_count"] == 1


# Archives


def zipped(members: dict[str, bytes], **more: Any) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return made.getvalue()


def packed(members: dict[str, bytes | tarfile.TarInfo]) -> bytes:
    made = io.BytesIO()
    with tarfile.open(fileobj=made, mode="w:gz") as archive:
        for name, content in members.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return made.getvalue()


@pytest.mark.parametrize("pack", [zipped, packed])
def test_archive_is_unpacked_with_its_folders(yard: Yard, pack: Any):
    yard.call("PUT", "/datasets/pets", code=201)
    send(yard, "pets", {"train/old.csv": b"x\n"})
    members = {"cats/a.csv": b"x\n1\n", "dogs/deep/b.csv": b"x\n2\n", ".DS_Store": b"no", "__MACOSX/c": b"no"}
    told = send(yard, "pets", {"any.bin": pack(members)}, query="?unpack=true&folder=train", code=200)
    assert (told["file_count"], told["bytes"]) == (2, 8)
    assert paths(yard, "pets") == ["train/cats/a.csv", "train/dogs/deep/b.csv", "train/old.csv"]

    content = pack(members)
    address, _ = begin(yard, "pets", content, path="", unpack=True)
    assert put_part(yard, address, 1, content).status_code == 200
    assert yard.call("POST", f"{address}/complete")["file_count"] == 2
    assert paths(yard, "pets")[:2] == ["cats/a.csv", "dogs/deep/b.csv"]


def link(name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


def linked_zip() -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        member = zipfile.ZipInfo("passwords")
        member.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(member, "/etc/passwd")
    return made.getvalue()


HOSTILE = {
    "climbs out": zipped({"ok.csv": b"x", "../../evil.csv": b"x"}),
    "begins at the root": packed({"/etc/evil": b"x"}),
    "has a drive": zipped({"C:\\evil.csv": b"x"}),
    "has backslashes": zipped({"..\\evil.csv": b"x"}),
    "links": packed({"passwords": link("passwords", "/etc/passwd")}),
    "links hard": packed({"passwords": link("passwords", "/etc/passwd", tarfile.LNKTYPE)}),
    "links in a zip": linked_zip(),
    "writes through a link": packed({"out": link("out", "/tmp"), "out/evil.csv": b"x"}),
    "has a device": packed({"null": link("null", "", tarfile.CHRTYPE)}),
    "is no archive": b"label,x\n1,2\n",
    "is cut off": packed({"a.csv": bytes(range(256)) * 40})[:-20],
    "is a file and a folder": packed({"a": b"x", "a/b": b"x"}),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_archive_is_refused_whole(yard: Yard, case: str):
    yard.call("PUT", "/datasets/pets", code=201)
    refused = send(yard, "pets", {"a.zip": HOSTILE[case]}, query="?unpack=true", code=400)
    assert refused["error"]["kind"] == "upload_refused"
    assert "cannot be unpacked" in refused["error"]["message"]
    assert paths(yard, "pets") == []
    clean(yard.parts, grace_s=0.0)
    assert list(yard.parts.objects.list()) == []


@pytest.mark.parametrize("trouble", ["archive", "store", "cancel", "cancel while it waits"])
def test_archive_that_fails_when_nobody_waits_any_more_counts_no_longer(
    yard: Yard, monkeypatch: pytest.MonkeyPatch, trouble: str
):
    monkeypatch.setattr(datasets, "WAIT_S", 0.0)
    yard.call("PUT", "/datasets/pets", code=201)
    yard.is_idle = True
    content = b"no archive" if trouble == "archive" else zipped({"a.csv": b"x\n1\n"})
    task_id = send(yard, "pets", {"a.zip": content}, query="?unpack=true", code=202)["task_id"]
    yard.is_idle = False
    records = yard.parts.records
    account = records.accounts.ensure("local")
    assert records.quotas.use(account.id).stored_bytes == len(content)

    counted = []

    def fail(*given: Any) -> Any:
        counted.append(records.quotas.use(account.id).stored_bytes)
        raise StoreUnavailable("away")

    if trouble == "store":
        monkeypatch.setattr(yard.parts.objects, "get_bytes", fail)
    if trouble == "cancel":
        monkeypatch.setattr(LeaseKeeper, "is_cancel_requested", True)
    if trouble == "cancel while it waits":
        yard.call("DELETE", f"/tasks/{task_id}", code=202)
        clean(yard.parts)
    yard.send_task(records.tasks.get(task_id))
    assert records.tasks.get(task_id).state is (State.CANCELLED if "cancel" in trouble else State.FAILED)
    assert counted == ([len(content)] * yard.parts.settings.lost_max if trouble == "store" else [])
    assert records.quotas.use(account.id).stored_bytes == 0


def test_bombs_are_refused(yard: Yard):
    yard.call("PUT", "/datasets/bomb", code=201)
    zeros = bytes(2**20)
    made = io.BytesIO()
    with gzip.GzipFile(fileobj=made, mode="w") as stream, tarfile.open(fileobj=stream, mode="w|") as archive:
        member = tarfile.TarInfo("zeros")
        member.size = RATIO_FLOOR_BYTES + 2**20
        archive.addfile(member, _Repeated(zeros, member.size))
    # Packed once more, as a file it would fit into the limits.
    content = made.getvalue()
    assert len(content) * 200 < RATIO_FLOOR_BYTES + 2**20
    address, told = begin(yard, "bomb", content, path="", unpack=True)
    for number, part in enumerate(pieces(content, told["part_bytes"]), 1):
        assert put_part(yard, address, number, part).status_code == 200
    refused = yard.call("POST", f"{address}/complete", code=400)
    assert "its content is larger than" in refused["error"]["message"]


class _Repeated(io.RawIOBase):
    """So many bytes, again and again the same."""

    def __init__(self, piece: bytes, size: int) -> None:
        self._piece, self._left = piece, size

    def read(self, size: int = -1) -> bytes:
        given = self._piece[: min(size, self._left)] if size >= 0 else self._piece[: self._left]
        self._left -= len(given)
        return given


def test_archive_of_too_many_members_is_refused(yard: Yard, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("workers.archives.MEMBERS_MAX", 3)
    yard.call("PUT", "/datasets/bomb", code=201)
    members = {f"{number}.csv": b"x" for number in range(4)}
    refused = send(yard, "bomb", {"a.zip": zipped(members)}, query="?unpack=true", code=400)
    assert "more than 3 members" in refused["error"]["message"]


# S3


@pytest.mark.parametrize("server", ["moto_server", "rclone_server"])
def test_parts_are_sent_to_s3_without_the_api(
    server: str, request: pytest.FixtureRequest, settings: Settings, redis_url: str, monkeypatch: pytest.MonkeyPatch
):
    s3: S3Server = request.getfixturevalue(server)
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    bucket = "datasets-of-tests"
    boto3.client("s3", endpoint_url=s3.endpoint_url).create_bucket(Bucket=bucket)
    over = dataclasses.replace(
        settings,
        request_limit_bytes=64 * 1024,
        objects_url=f"s3://{bucket}/yard",
        s3_endpoint_url=s3.endpoint_url,
    )
    with running_yard(over, redis_url) as yard:
        content = bytes(range(256)) * 300
        yard.call("PUT", "/datasets/big", code=201)
        body = {"path": "big.csv", "bytes": len(content), "links": True}
        assert "needs sha256" in yard.call("POST", "/datasets/big/uploads", body, code=400)["error"]["message"]
        address, told = begin(yard, "big", content, links=True, sha256=sha256(content))
        parts = pieces(content, told["part_bytes"])
        assert len(told["links"]) == len(parts) == 2
        assert put(told["links"][0], parts[0]) == 200
        assert put(told["links"][1], parts[1][:-1] + b"?") == 200
        assert yard.call("GET", address)["missing"] == []
        assert "the SHA-256 of the whole" in yard.call("POST", f"{address}/complete", code=400)["error"]["message"]
        assert put(told["links"][1], parts[1]) == 200
        assert yard.call("POST", f"{address}/complete")["sha256"] == sha256(content)
        assert paths(yard, "big") == ["big.csv"]
        elsewhere = connect(over.objects_url, endpoint_url=s3.endpoint_url)
        [kept] = yard.parts.records.datasets.files(1, limit=10)
        assert elsewhere.get_bytes(kept.key, sha256=kept.sha256) == content
        # A link is still good after the end, and what it brings is found again and again.
        for age_s in (0.0, 3600.0):
            assert put(told["links"][0], parts[0]) == 200
            with yard.parts.records.database.write() as connection:
                connection.execute(text(f"UPDATE dataset_uploads SET cleaned_at = cleaned_at - {age_s}"))
            clean(yard.parts, grace_s=0.0)
            assert list(elsewhere.list("uploads")) == []


def test_store_that_is_a_folder_gives_no_links(yard: Yard):
    yard.call("PUT", "/datasets/big", code=201)
    body = {"path": "a.csv", "bytes": 3, "links": True, "sha256": sha256(b"abc")}
    assert "store gives none" in yard.call("POST", "/datasets/big/uploads", body, code=400)["error"]["message"]


def test_upload_tasks_are_listed_as_any_other(yard: Yard):
    yard.call("PUT", "/datasets/pets", code=201)
    send(yard, "pets", {"a.zip": zipped({"a.csv": b"x\n1\n"})}, query="?unpack=true", code=200)
    [task] = yard.tasks(Kind.UPLOAD)
    assert task.state is State.FINISHED
    assert [each["kind"] for each in yard.call("GET", "/tasks?kind=upload")["tasks"]] == ["upload"]
    assert json.loads(json.dumps(yard.call("GET", f"/tasks/{task.id}/report")))["file_count"] == 1
