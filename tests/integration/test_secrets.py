"""A stack whose every secret is marked: wherever people or programs may look afterwards, no mark is found."""

from __future__ import annotations

import base64
import dataclasses
import http.client
import json
import os
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from cli.services import services_of, steps_of
from cli.stack import Stack
from settings import Settings
from storage.objects.s3 import S3Objects, S3Options
from storage.records import Records
from tests.integration.fronted import ROW, Line, create, put_iris, until
from tests.integration.host import Host, hosting
from tests.services import PostgresServer, free_port, running_moto, running_redis, short_folder

pytestmark = [pytest.mark.servers, pytest.mark.timeout(300)]

Json = dict[str, Any]
PLACES = (
    "redis",
    "database",
    "flower",
    "s3",
    "session",
    "user",
    "query",
    "init",
    "network",
    "wrongkey",
    "bearer",
    "parameter",
    "signature",
)
MARKS = {place: f"mArK{place}9z" for place in PLACES}
UNREDACTED = """
import logs.redaction
logs.redaction.redacted = lambda text: text
logs.redaction.redacted_value = lambda value, depth=0: value
"""


@dataclasses.dataclass
class Marked:
    """A running stack, and everything that it showed."""

    stack: Stack
    data: Path
    host: Host
    key: str
    shown: dict[str, str] = dataclasses.field(default_factory=dict)

    def ask(self, method: str, path: str, body: Json | None = None, *headers: str) -> int:
        """The status of an answer, which is kept."""
        with closing(Line(self.stack.settings.port)) as line:
            given = headers or (f"X-API-KEY: {self.key}",)
            answer = line.ask(method, path, None if body is None else json.dumps(body).encode(), *given)
        self.shown[f"answer {len(self.shown)} to {method} {path}"] = f"{answer.headers} {answer.content!r}"
        return answer.code

    def json(self, path: str) -> Any:
        with closing(Line(self.stack.settings.port)) as line:
            return line.ask("GET", path, None, f"X-API-KEY: {self.key}").json

    def found(self, *, only_in: str = "") -> dict[str, set[str]]:
        """The marks that were seen, each with where."""
        marks = {**MARKS, "key": self.key}
        return {
            name: places
            for name, mark in marks.items()
            if (places := {where for where, text in self.shown.items() if mark in text and where.startswith(only_in)})
        }


@contextmanager
def marked(postgres: PostgresServer, tmp_path: Path, *, unredacted: bool = False) -> Iterator[Marked]:
    """The stack with a marked secret in every setting that takes one; half of its parts log JSON, half text."""
    (tmp_path / "data").mkdir()
    data = (tmp_path / "data").resolve()
    put_iris(data)
    (tmp_path / "sitecustomize.py").write_text(UNREDACTED if unredacted else "")
    iris = (data / "iris.csv").read_bytes()
    with (
        running_redis() as server,
        running_moto() as s3,
        postgres.database() as database,
        hosting(**{"iris.csv": iris}) as host,
        short_folder() as home,
    ):
        with redis.Redis.from_url(server.url) as client:
            client.config_set("requirepass", MARKS["redis"])
        options = S3Options(s3.endpoint_url, "us-east-1", "id", MARKS["s3"])
        S3Objects("marked", "yard", options)._client().create_bucket(Bucket="marked")
        settings = Settings(
            home=home,
            port=free_port(),
            flower_port=free_port(),
            flower_login=f"ann:{MARKS['flower']}",
            redis_url=server.url.replace("unix://", f"unix://:{MARKS['redis']}@"),
            database_url=database.replace("postgres@", f"postgres:{MARKS['database']}@"),
            objects_url="s3://marked/yard",
            s3_endpoint_url=s3.endpoint_url,
            data_roots=(data,),
            fetch_allow=("127.0.0.1",),
            threads=1,
            api_threads=8,
        )
        secrets = {
            **s3.environment(),
            "AWS_SECRET_ACCESS_KEY": MARKS["s3"],
            "AWS_SESSION_TOKEN": MARKS["session"],
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        services = []
        for number, each in enumerate(services_of(settings)):
            paths = os.pathsep.join([str(tmp_path), each.env.get("PYTHONPATH", "")])
            form = "json" if number % 2 or each.name == "api" else "text"
            env = {**each.env, **secrets, "PYTHONPATH": paths, "MODELYARD_LOG_FORMAT": form}
            services.append(dataclasses.replace(each, env=env))
        steps = [dataclasses.replace(each, env={**each.env, **secrets}) for each in steps_of(settings)]
        with Stack(settings, services, steps) as stack:
            stack.wait_ready(100)
            records = Records.connect(settings.database_url)
            made = Marked(stack, data, host, records.keys.create("ann")[1])
            records.close()
            with closing(Line(settings.port)) as line:
                until(lambda: line.ask("GET", "/info").code == 401)
                create(line, "iris", data, f"X-API-KEY: {made.key}")
            yield made
            look(made, server.url)
        for log in sorted(stack.logs.iterdir()):
            made.shown[f"log {log.name}"] = log.read_text(errors="replace")


def look(marked: Marked, redis_url: str) -> None:
    """Everything that can be looked at while the stack runs."""
    paths = ["/info?status=true", "/services/iris?labels=true", "/tasks", "/metrics", "/readyz", "/datasets"]
    for task in marked.json("/tasks")["tasks"]:
        number = task["task_id"]
        paths += [f"/tasks/{number}{part}" for part in ("", "/report", "/logs")]
        marked.shown[f"events of task {number}"] = stream(marked, f"/tasks/{number}/events")
    for path in paths:
        marked.ask("GET", path)
    with redis.Redis.from_url(redis_url, password=MARKS["redis"]) as client:
        for name in client.scan_iter():
            marked.shown[f"redis {name!r}"] = repr(name) + repr(client.dump(name))
    for path in ("/", "/workers", "/tasks", "/broker", "/api/tasks", "/api/workers", "/metrics"):
        marked.shown[f"flower {path}"] = of_flower(marked.stack.settings, path)
    for worker in json.loads(marked.shown["flower /api/workers"]):
        marked.shown[f"flower {worker}"] = of_flower(marked.stack.settings, f"/worker/{worker}")


def stream(marked: Marked, path: str) -> str:
    """An event stream of an ended task, whole."""
    connection = http.client.HTTPConnection("127.0.0.1", marked.stack.settings.port, timeout=30)
    with closing(connection):
        connection.request("GET", path, headers={"X-API-KEY": marked.key})
        return connection.getresponse().read().decode()


def of_flower(settings: Settings, path: str) -> str:
    connection = http.client.HTTPConnection("127.0.0.1", settings.flower_port, timeout=30)
    with closing(connection):
        login = base64.b64encode(settings.flower_login.encode()).decode()
        connection.request("GET", path, headers={"Authorization": f"Basic {login}"})
        answer = connection.getresponse()
        assert answer.status == 200, path
        return answer.read().decode()


def train(marked: Marked, address: str) -> int:
    parameters: Json = {"input": {"test_split": 0.3}, "mllib": {"iterations": 5}, "output": {"measure": ["acc"]}}
    body = {"service": "iris", "async": True, "parameters": parameters, "data": [address]}
    return marked.ask("POST", "/train", body)


def ask_everything(marked: Marked) -> None:
    """Good and failing requests of every kind that can carry a secret."""
    host = marked.host.url.removeprefix("http://")
    query = f"token={MARKS['query']}&X-Amz-Signature={MARKS['signature']}"
    assert train(marked, f"http://ann:{MARKS['user']}@{host}/iris.csv?{query}") == 201
    for failing in (f"ann:{MARKS['user']}@{host}/missing.csv", f"ann:{MARKS['user']}@10.0.0.1/iris.csv"):
        train(marked, f"http://{failing}?{query}")
    train(marked, f"gopher://ann:{MARKS['user']}@{host}/x?{query}")
    until(lambda: all(each["state"] in ("finished", "failed") for each in marked.json("/tasks")["tasks"]), 60)
    assert {each["state"] for each in marked.json("/tasks")["tasks"]} >= {"finished"}
    network = {"url": f"http://ann:{MARKS['network']}@{host}/sink?{query}", "http_method": "POST"}
    for data, output in (
        ([ROW], {}),
        ([ROW], {"network": network, "template": "{}"}),
        ([f"http://ann:{MARKS['user']}@{host}/missing.csv?{query}"], {}),
        ([f"http://ann:{MARKS['user']}@{host}/iris.csv?{query}"], {}),
        ([f"http://ann:{MARKS['user']}@[::1/x?{query}"], {}),
    ):
        marked.ask("POST", "/predict", {"service": "iris", "parameters": {"output": output}, "data": data})
    bulk = [f"http://ann:{MARKS['user']}@{host}/iris.csv?{query}"]
    marked.ask("POST", "/predict", {"service": "iris", "async": True, "parameters": {}, "data": bulk})
    marked.ask(
        "PUT",
        "/services/made",
        {
            "mllib": "xgboost",
            "description": "made",
            "model": {
                "repository": str(marked.data / "made"),
                "create_repository": True,
                "init": f"http://ann:{MARKS['init']}@{host}/model.tar.gz?{query}",
            },
            "parameters": {"input": {"connector": "csv"}, "mllib": {"nclasses": 3}},
        },
    )
    marked.ask("GET", "/services/made")
    until(lambda: all(each["state"] in ("finished", "failed") for each in marked.json("/tasks")["tasks"]), 60)
    assert marked.ask("GET", "/info", None, f"X-API-KEY: {MARKS['wrongkey']}") == 401
    assert marked.ask("GET", "/info", None, f"Authorization: Bearer {MARKS['bearer']}") == 401
    assert marked.ask("GET", f"/tasks?api_key={MARKS['parameter']}") == 400
    assert marked.ask("GET", f"/info?token={MARKS['parameter']}") in (200, 400)


def test_no_secret_is_shown_anywhere(postgres_server: PostgresServer, tmp_path: Path):
    with marked(postgres_server, tmp_path) as made:
        ask_everything(made)
    assert {where.split(" ")[0] for where in made.shown} == {"answer", "events", "redis", "flower", "log"}
    logs = {where: text for where, text in made.shown.items() if where.startswith("log ")}
    assert "begins" in logs["log train1.log"]
    assert made.found() == {}
    # The parts that write JSON wrote nothing else.
    for line in logs["log api.log"].splitlines():
        assert {"time", "level", "logger", "message", "role", "pid"} <= json.loads(line).keys()


def test_secrets_would_be_found_if_nothing_took_them_out(postgres_server: PostgresServer, tmp_path: Path):
    with marked(postgres_server, tmp_path, unredacted=True) as made:
        made.ask("GET", f"/tasks?api_key={MARKS['parameter']}")
    assert made.found(only_in="log ") == {"parameter": {"log api.log"}}
