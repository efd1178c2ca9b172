"""The list of services and predictions that a server begins with, one a line, in the form of DeepDetect's.

    service_create;NAME;JSON      creates the service NAME, as PUT /services/NAME would
    service_predict;JSON          predicts, as POST /predict would

Empty lines and lines that begin with # are left out. `python -m cli.start_list FILE [--go-on]` does what the list says,
as the account `local`: whoever may write the list is the operator, so no key is asked for.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from settings import BadSetting, Settings

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient
    from werkzeug.test import TestResponse

    from api.parts import Parts
    from storage.records import Caller

Json = dict[str, Any]

IMPORT_WAIT_S = 3600.0
"""How long the next line waits for a model that is still being fetched or copied."""

_LIST_BYTES = 16 * 2**20
_LOOK_S = 0.2
_FORM = "lines are service_create;NAME;JSON and service_predict;JSON"


class BadList(Exception):
    """The list cannot be read; the text names the line."""


class LineFailed(Exception):
    """What a line asks for was refused; the text says why."""


@dataclass(frozen=True)
class Line:
    """One thing to do. name : of the service; body : of the request; number : of the line, from 1."""

    number: int
    command: Literal["service_create", "service_predict"]
    name: str
    body: Json

    def __str__(self) -> str:
        return f"{self.command} {self.name}".strip()


def read_list(path: Path) -> list[Line]:
    """What the list asks for, in order. Raises BadList."""
    try:
        with path.open("rb") as file:
            data = file.read(_LIST_BYTES + 1)
        text = data.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no UTF-8"
        raise BadList(f"the list {path} cannot be read: {reason}") from None
    if len(data) > _LIST_BYTES:
        raise BadList(f"the list {path} is larger than {_LIST_BYTES} bytes")
    lines = []
    # Not splitlines(): a text in JSON may hold other characters at which that ends a line.
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            lines.append(_parsed(path, number, line.strip()))
    return lines


def _parsed(path: Path, number: int, line: str) -> Line:
    command, _, rest = line.partition(";")
    name = ""
    if command == "service_create":
        name, _, rest = rest.partition(";")
    elif command != "service_predict":
        raise BadList(f"line {number} of {path} begins with {command[:80]!r}; {_FORM}")
    if command == "service_create" and not name.strip():
        raise BadList(f"line {number} of {path} names no service; {_FORM}")
    try:
        body = json.loads(rest)
    except (ValueError, RecursionError) as error:
        raise BadList(f"line {number} of {path} holds no JSON ({error}); {_FORM}") from None
    if not isinstance(body, dict):
        raise BadList(f"line {number} of {path} holds no JSON object; {_FORM}")
    if command == "service_predict":
        name = str(body.get("service", ""))
    return Line(number, cast(Any, command), name.strip(), body)


class Starting:
    """Does what lines ask for, with an API of its own that nobody else can reach."""

    def __init__(self, app: Flask) -> None:
        from storage.records import Caller, Quotas, Role

        self._parts: Parts = app.extensions["modelyard"]
        self._account = self._parts.records.accounts.ensure("local")
        # Quotas are for those who come over HTTP.
        operator = Caller(self._account.id, self._account.name, Role.ADMIN, None, Quotas())
        self._parts.access = cast(Any, _Operator(operator))
        self._client: FlaskClient = app.test_client()

    def do(self, line: Line) -> Iterator[str]:
        """Do one line; yields what there is to say. Raises LineFailed."""
        if line.command == "service_predict":
            self._check(self._client.post("/predict", json=line.body), 200)
            yield f"{line}: answered"
            return
        answer = self._client.put(f"/services/{quote(line.name, safe='')}", json=line.body)
        status = (answer.json or {}).get("status") or {}
        if answer.status_code == 409 and status.get("dd_code") == 1014:
            self._check_same(line)
            yield f"{line}: exists already"
            return
        head = self._check(answer, 201).get("head") or {}
        for warning in head.get("warnings") or ():
            yield f"{line}: {warning['message']}"
        if "task_id" in head:
            self._wait(head["task_id"])
        yield f"{line}: created"

    @staticmethod
    def _check(answer: TestResponse, code: int) -> Json:
        given: Json = answer.json or {}
        if answer.status_code != code:
            status = given.get("status") or {}
            reason = status.get("message") or status.get("dd_msg") or status.get("msg") or answer.text[:200]
            raise LineFailed(f"{answer.status_code}: {reason}")
        return given

    def _check_same(self, line: Line) -> None:
        """Services outlive the server: one of the same definition is what the line asks for."""
        from api import services
        from ml.errors import MlError
        from storage.errors import StorageError

        try:
            differing = services.differing(self._parts, self._account, line.name, line.body)
        except (MlError, StorageError) as error:
            raise LineFailed(str(error)) from None
        if differing:
            raise LineFailed(
                f"the service exists already with another definition ({', '.join(differing)}); delete it first, "
                "or correct the list"
            )

    def _wait(self, task_id: int) -> None:
        """Until the model is there that the service was created with."""
        from storage.records import State

        tasks = self._parts.records.tasks
        deadline = time.monotonic() + IMPORT_WAIT_S
        while not (task := tasks.get(task_id)).state.is_final:
            if time.monotonic() > deadline:
                raise LineFailed(f"its model is still not there after {IMPORT_WAIT_S:g} s: see task {task_id}")
            time.sleep(_LOOK_S)
        if task.state is not State.FINISHED:
            reason = (task.failure or {}).get("message", "the task was cancelled")
            raise LineFailed(f"its model was not taken over: {reason}")


class _Operator:
    """Lets the operator in, whatever keys there are."""

    def __init__(self, account: Caller) -> None:
        self._account = account

    def account_of(self, request: object) -> Caller:
        """The account `local`."""
        return self._account


def main(arguments: Sequence[str]) -> int:
    """Do what the list named by the first argument says: 0, or 1 when a line failed.

    It ends with the first line that fails, unless --go-on follows.
    """
    from api.app import create_app
    from storage.errors import StorageError

    failures = 0
    try:
        lines = read_list(Path(arguments[0]))
        starting = Starting(create_app(Settings.from_env(os.environ)))
        for line in lines:
            try:
                for told in starting.do(line):
                    print(told, flush=True)
            except LineFailed as error:
                print(f"{line} (line {line.number}) failed: {error}", flush=True)
                failures += 1
                if "--go-on" not in arguments:
                    break
    except (BadSetting, BadList, StorageError) as error:
        print(error, flush=True)
        return 1
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
