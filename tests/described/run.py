"""Runs schemathesis over all that the OpenAPI document of a server describes.

    python -m tests.described.run --examples 300

It starts a stack of its own, with Redis, workers and a key in force, and ends with 1 when an answer was not as the
document says. Further words are handed on to `st run`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import urllib3

import settings as settings_module
from cli.stack import Stack
from settings import Settings
from storage.records import Records
from tests.services import free_port, short_folder

ROOT = Path(settings_module.__file__).resolve().parent
_IRIS = ROOT / "examples" / "data" / "iris.csv"
_CONFIG = Path(__file__).with_name("schemathesis.toml")


@contextmanager
def serving() -> Iterator[tuple[str, str]]:
    """Address and key of a stack that may be asked anything: its settings bound what a request can cost."""
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
        shutil.copy(_IRIS, settings.data_roots[0])
        with Stack(settings) as stack:
            stack.wait_ready(100)
            url = f"http://127.0.0.1:{settings.port}"
            _, key = Records.connect(settings.database_url).keys.create("described")
            _fill(url, key)
            yield url, key


def _fill(url: str, key: str) -> None:
    """Make what `schemathesis.toml` names: a service with a model, a data set, and a task of two kinds."""

    def send(method: str, path: str, body: Any, kind: str = "application/json") -> None:
        headers = {"X-API-KEY": key, "Content-Type": kind}
        answer = urllib3.request(method, url + path, body=body, headers=headers, timeout=60, retries=False)
        assert answer.status in (200, 201), answer.data

    parameters = {"input": {"connector": "csv", "label": "species"}, "mllib": {"nclasses": 3, "iterations": 5}}
    service = {"mllib": "xgboost", "model": {"repository": "kept"}, "parameters": parameters}
    form, kind = urllib3.encode_multipart_formdata({"file": (_IRIS.name, _IRIS.read_bytes())})
    send("PUT", "/services/kept", json.dumps(service))
    send("POST", "/train", json.dumps({"service": "kept", "async": False, "data": [_IRIS.name]}))
    send("POST", "/predict", json.dumps({"service": "kept", "async": True, "data": [_IRIS.name]}))
    send("PUT", "/datasets/kept-files", None)
    send("POST", "/datasets/kept-files/files", form, kind)


def ask(url: str, key: str, *words: str) -> tuple[int, str]:
    """Run schemathesis with some more words on its command line; its exit code and what it said."""
    with tempfile.NamedTemporaryFile(suffix=".json") as whole:
        # From a file: it does not ask for the address that it has the document from.
        whole.write(urllib3.request("GET", f"{url}/openapi.json", timeout=60).data)
        whole.flush()
        st = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(_CONFIG)]
        done = subprocess.run(
            [*st, "run", whole.name, "--url", url, "--no-color", *words],
            cwd=ROOT,
            env={**os.environ, "MODELYARD_KEY": key, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    return done.returncode, done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it once; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=300, help="requests made up for each operation")
    known, words = parser.parse_known_args(arguments)
    with serving() as (url, key):
        code, said = ask(url, key, "--max-examples", str(known.examples), *words)
    print(said)
    return code


if __name__ == "__main__":
    sys.exit(main())
