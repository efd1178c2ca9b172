"""Runs schemathesis over all that the OpenAPI document of a server describes.

    python -m tests.described.run --examples 300

It starts a stack of its own, with Redis, workers and a key in force, and ends with 1 when an answer was not as the
document says.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import urllib3

import settings as settings_module
from cli.stack import Stack
from settings import Settings
from storage.records import Records
from tests.services import free_port, short_folder

ROOT = Path(settings_module.__file__).resolve().parent


@dataclass(frozen=True)
class Server:
    """Where a server listens, and a key of it."""

    url: str
    key: str
    settings: Settings


@contextmanager
def serving() -> Iterator[Server]:
    """A stack that may be sent anything: what a request can cost is bounded by its settings."""
    with short_folder() as home:
        settings = Settings(
            home=home,
            port=free_port(),
            flower_port=0,
            threads=1,
            request_limit_bytes=2**20,
            archive_limit_bytes=2**20,
            dataset_file_limit_bytes=2**24,
            fetch_timeout_s=1.0,
            push_timeout_s=1.0,
            predict_timeout_s=20.0,
        )
        settings.data_roots[0].mkdir(parents=True)
        shutil.copy(ROOT / "examples" / "data" / "iris.csv", settings.data_roots[0])
        with Stack(settings) as stack:
            stack.wait_ready(100)
            _, secret = Records.connect(settings.database_url).keys.create("described")
            server = Server(f"http://127.0.0.1:{settings.port}", secret, settings)
            _fill(server)
            yield server


def _fill(server: Server) -> None:
    """Make what `schemathesis.toml` names: a service with a model, a data set, and a task of each kind."""
    iris = (ROOT / "examples" / "data" / "iris.csv").read_bytes()
    form, kind = urllib3.encode_multipart_formdata({"file": ("iris.csv", iris)})
    connector = {"connector": "csv", "label": "species"}
    service = {"mllib": "xgboost", "model": {"repository": "kept"}, "parameters": {"input": connector}}
    service["parameters"] |= {"mllib": {"nclasses": 3}}
    training = {"service": "kept", "async": False, "data": ["iris.csv"], "parameters": {"mllib": {"iterations": 5}}}
    for method, path, body, content_type in (
        ("PUT", "/services/kept", json.dumps(service), "application/json"),
        ("POST", "/train", json.dumps(training), "application/json"),
        ("POST", "/predict", json.dumps({"service": "kept", "async": True, "data": ["iris.csv"]}), "application/json"),
        ("PUT", "/datasets/kept-files", None, None),
        ("POST", "/datasets/kept-files/files", form, kind),
    ):
        headers = {"X-API-KEY": server.key} | ({"Content-Type": content_type} if content_type else {})
        answer = urllib3.request(method, server.url + path, body=body, headers=headers, timeout=60, retries=False)
        assert answer.status in (200, 201), answer.data


def ask(server: Server, *words: str) -> subprocess.CompletedProcess[str]:
    """Run schemathesis with some more words on its command line; what it said."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "schemathesis.cli", "--config-file", str(Path(__file__).with_name("schemathesis.toml"))),
            *("run", f"{server.url}/openapi.json", "--no-color", *words),
        ],
        cwd=ROOT,
        env={**os.environ, "MODELYARD_KEY": server.key, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--examples", type=int, default=300)
    known, words = parser.parse_known_args(arguments)
    with serving() as server:
        told = ask(server, "--max-examples", str(known.examples), *words)
        print(told.stdout)
        for log in server.settings.home.joinpath("logs").glob("*.log"):
            shutil.copy(log, "/tmp/w/schemalogs/")
        return told.returncode


if __name__ == "__main__":
    sys.exit(main())
