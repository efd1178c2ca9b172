"""What is stored of data sets that clients send: no more than they hold, whatever is refused."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable
from typing import Any

import pytest
from flask.testing import FlaskClient

from storage.errors import StoreUnavailable
from storage.objects.base import Objects
from storage.records import NewFile, Records


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def stored(objects: Objects) -> list[bytes]:
    return sorted(objects.get_bytes(each.key) for each in objects.list())


def used(client: FlaskClient) -> int:
    found: int = client.get("/account").json["quotas"]["stored_bytes"]["used"]
    return found


@pytest.fixture
def beside(objects: Objects, monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Have something done after the next content is stored and before anything else."""

    def meanwhile(does: Callable[[], Any]) -> None:
        put = objects.put_file

        def put_file(*given: Any) -> Any:
            monkeypatch.setattr(objects, "put_file", put)
            made = put(*given)
            does()
            return made

        monkeypatch.setattr(objects, "put_file", put_file)

    return meanwhile


def test_form_that_is_refused_when_it_is_stored_leaves_nothing(
    client: FlaskClient, records: Records, objects: Objects, beside: Callable[[Callable[[], Any]], None]
) -> None:
    client.put("/datasets/flowers")

    def add_other() -> None:
        [staged] = records.datasets.stage(1, [NewFile("a", "datasets/1/other", 0, sha256(b""))])
        records.datasets.commit(1, [staged])

    beside(add_other)
    refused = client.post("/datasets/flowers/files", data={"file": (io.BytesIO(b"x\n1\n"), "a/b.csv")})
    assert (refused.status_code, refused.json["error"]["kind"]) == (409, "dataset_conflict")
    assert stored(objects) == []
    assert used(client) == 0


def begin(client: FlaskClient, **more: Any) -> str:
    client.put("/datasets/flowers")
    made = client.post("/datasets/flowers/uploads", json={"path": "a.csv", "bytes": 3, **more})
    return f"/datasets/flowers/uploads/{made.json['upload_id']}"


def put_part(client: FlaskClient, upload: str, content: bytes) -> int:
    return client.put(f"{upload}/parts/1", data=content, headers={"X-Content-SHA256": sha256(content)}).status_code


def test_part_that_comes_again_takes_the_place_of_what_is_stored(client: FlaskClient, objects: Objects) -> None:
    upload = begin(client)
    for content in (b"abc", b"abc", b"abd"):
        assert put_part(client, upload, content) == 200
        assert stored(objects) == [content]


def test_part_that_comes_too_late_is_not_kept(
    client: FlaskClient, records: Records, objects: Objects, beside: Callable[[Callable[[], Any]], None]
) -> None:
    upload = begin(client)

    def clean() -> None:
        records.uploads.end(1)
        records.uploads.note_cleaned([1])

    beside(clean)
    assert put_part(client, upload, b"abc") == 404
    assert stored(objects) == []


def test_part_that_comes_again_too_late_spoils_no_completion(
    client: FlaskClient, records: Records, objects: Objects, beside: Callable[[Callable[[], Any]], None]
) -> None:
    upload = begin(client)
    assert put_part(client, upload, b"abc") == 200
    beside(lambda: records.uploads.end(1))
    assert put_part(client, upload, b"abc") == 404
    assert stored(objects) == [b"abc"]


def test_archive_that_cannot_be_stored_does_not_count(
    client: FlaskClient, objects: Objects, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*given: Any) -> Any:
        raise StoreUnavailable("away")

    client.put("/datasets/flowers")
    monkeypatch.setattr(objects, "put_file", fail)
    form = {"file": (io.BytesIO(b"abc"), "a.zip")}
    assert client.post("/datasets/flowers/files?unpack=true", data=form).status_code == 503
    assert used(client) == 0
