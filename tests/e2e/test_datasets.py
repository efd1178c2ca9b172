"""Data sets on a whole installation: uploaded in pieces, over a restart, trained on and predicted with."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from cli.stack import Stack
from settings import Settings
from tests.e2e.conftest import Client
from tests.services import free_port, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.slow, pytest.mark.timeout(400)]

EXAMPLES = Path(__file__).parents[2] / "examples" / "data"
LIMIT_BYTES = 32 * 1024


@contextmanager
def running(home: Path, data: Path) -> Iterator[Client]:
    settings = Settings(
        home=home, port=free_port(), flower_port=0, data_roots=(data,), threads=1, request_limit_bytes=LIMIT_BYTES
    )
    with Stack(settings) as stack:
        stack.wait_ready(100)
        yield Client(settings.port, data)


def send(client: Client, path: str, content: bytes) -> None:
    body = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="%b"\r\n\r\n%b\r\n--limit--\r\n'
    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    answer = client.send("POST", "/datasets/tumours/files", body % (path.encode(), content), headers)
    assert answer.code == 201, answer.json


def test_upload_survives_a_restart_and_is_trained_on_and_predicted_with(tmp_path: Path) -> None:
    header, *rows = (EXAMPLES / "breast_cancer.csv").read_text().splitlines()
    content = "\n".join([header, *(row for number, row in enumerate(rows) if number % 4)]).encode()
    held_out = [row for number, row in enumerate(rows) if number % 4 == 0]
    with short_folder() as home:
        with running(home, tmp_path) as client:
            assert client.call("PUT", "/datasets/tumours").code == 201
            body = {"path": "train.csv", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            begun = client.call("POST", "/datasets/tumours/uploads", body)
            assert begun.code == 201, begun.json
            address = begun.headers["location"]
            size = begun.json["part_bytes"]
            pieces = [content[start : start + size] for start in range(0, len(content), size)]
            assert begun.json["part_count"] == len(pieces) > 2

            def put(client: Client, number: int) -> int:
                digest = {"X-Content-SHA256": hashlib.sha256(pieces[number - 1]).hexdigest()}
                return client.send("PUT", f"{address}/parts/{number}", pieces[number - 1], digest).code

            assert [put(client, number) for number in (1, 3)] == [200, 200]
            send(client, "test.csv", "\n".join([header, *held_out]).encode())

        with running(home, tmp_path) as client:
            missing = client.call("GET", address).json["missing"]
            assert missing == [number for number in range(1, len(pieces) + 1) if number not in (1, 3)]
            assert {put(client, number) for number in missing} == {200}
            done = client.call("POST", f"{address}/complete")
            assert (done.code, done.json["sha256"]) == (200, body["sha256"])

            label = header.rpartition(",")[2]
            service = {
                "mllib": "xgboost",
                "model": {"repository": "tumours"},
                "parameters": {
                    "input": {"connector": "csv", "label": label},
                    "mllib": {"nclasses": 2, "objective": "binary:logistic"},
                },
            }
            assert client.call("PUT", "/services/tumours", service).code == 201
            training = {
                "service": "tumours",
                "async": False,
                "parameters": {"mllib": {"iterations": 40}, "output": {"measure": ["acc"]}},
                "data": ["dataset://tumours/train.csv", "dataset://tumours/test.csv"],
            }
            answer = client.call("POST", "/train", training)
            assert answer.code == 201, answer.json
            told = answer.json["body"]["measure"]["acc"]
            truth = [row.rpartition(",")[2] for row in held_out]
            question = {"service": "tumours", "data": ["dataset://tumours/test.csv"]}
            for _ in range(3):  # the second and third might be answered by the quick way, which reads no files
                found = client.call("POST", "/predict", question)
                assert found.code == 200, found.json
                cats = [each["classes"][0]["cat"] for each in found.json["body"]["predictions"]]
                accuracy = sum(left == right for left, right in zip(cats, truth, strict=True)) / len(truth)
                assert accuracy == pytest.approx(told, abs=1e-3)
                assert accuracy > 0.93
            assert client.call("DELETE", "/datasets/tumours").code == 200
            gone = client.call("POST", "/predict", question)
            assert (gone.code, gone.json["status"]["dd_code"]) == (400, 1005)
