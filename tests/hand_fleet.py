"""A fleet that is started as docs/fleet.md tells an operator to: its SQL, redis.conf, environment and commands."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
import psutil

import settings as settings_module
from storage.records import Records
from tests.services import PostgresServer, RedisServer, S3Server, Server, free_port, running_postgres, short_folder

ROOT = Path(settings_module.__file__).parent
PAGE = (ROOT / "docs" / "fleet.md").read_text(encoding="utf-8")
SECRETS = {
    name: f"{name.lower()}-3fd1c09a7b5e"
    for name in ("DB-SECRET", "REDIS-ADMIN-SECRET", "REDIS-SECRET", "S3-ID", "S3-SECRET", "FLOWER-SECRET")
}
# So that a test need not wait as long as an operator may.
QUICK = {
    "MODELYARD_LEASE_S": "4",
    "MODELYARD_RENEW_S": "1",
    "MODELYARD_SWEEP_S": "0.5",
    "MODELYARD_CHECKPOINT_S": "0.2",
    "MODELYARD_THREADS": "1",
}
Json = dict[str, Any]


def until(claim: Callable[[], Any], timeout_s: float = 60.0) -> Any:
    """What `claim` gives once it is true."""
    deadline = time.monotonic() + timeout_s
    while not (found := claim()):
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)
    return found


def block(heading: str, language: str) -> str:
    """The blocks of that language below a heading of the page, one after the other."""
    section = PAGE.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return "".join(re.findall(rf"^```{language}\n(.*?)^```$", section, re.MULTILINE | re.DOTALL))


def commands(heading: str) -> list[str]:
    """The commands of a fleet's machine below a heading."""
    return block(heading, "bash").replace("\\\n", " ").splitlines()


def _told(text: str, changes: Mapping[str, str]) -> str:
    """A text of the page with other words for some."""
    for word, real in changes.items():
        text = text.replace(word, real)
    return text


@dataclass
class Place:
    """Where the servers of this fleet are, in place of the addresses and the secrets of the page."""

    postgres: PostgresServer
    redis: RedisServer
    store: S3Server
    changes: Mapping[str, str]

    def environment(self) -> dict[str, str]:
        """What /etc/modelyard/fleet.env sets."""
        lines = _told(block("Every machine", "ini"), self.changes).splitlines()
        return dict(line.split("=", 1) for line in lines)


@dataclass
class Machine:
    """A folder that is the whole disk of a machine, and what runs there."""

    name: str
    folder: Path
    environment: dict[str, str]
    services: dict[str, Server] = field(default_factory=dict)
    argv: dict[str, list[str]] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        return self.folder / "modelyard"

    def run(self, command: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a command, or a block of them, to its end."""
        return subprocess.run(
            ["sh", "-eu", "-c", command],
            cwd=self.folder,
            env={**self.environment, **more},
            capture_output=True,
            text=True,
            timeout=90,
        )

    def start(self, command: str, **more: str) -> Server:
        """Start a part, which is known by the name that its command gives it, or by its first word."""
        words = shlex.split(command)
        while "=" in words[0]:
            name, _, value = words.pop(0).partition("=")
            more[name] = value
        name = words[words.index("--name") + 1] if "--name" in words else words[1]
        variables = [f"{key}={value}" for key, value in {**self.environment, **more}.items()]
        # Nothing of the environment of the tests gets through.
        argv = ["/usr/bin/env", "-i", f"--chdir={self.folder}", *variables, *words]
        server = Server(argv, self.folder / f"{name}.log", death=signal.SIGTERM)
        self.services[name] = server
        self.argv[name] = argv
        return server

    def tend(self) -> None:
        """Start again what ended by itself, as a manager of processes does."""
        for name, server in self.services.items():
            if server.has_ended:
                self.services[name] = Server(self.argv[name], self.folder / f"{name}.log", death=signal.SIGTERM)

    def stop(self, name: str) -> None:
        """Stop a part as its manager would."""
        self.services.pop(name).stop(within_s=50.0)

    def hold(self) -> None:
        """All that runs there stands still."""
        self._to_each(psutil.Process.suspend)

    def crash(self) -> None:
        """All that runs there is gone at once, as with its power."""
        self.hold()  # so that none lives to see another one die
        self._to_each(psutil.Process.kill)
        for server in self.services.values():
            server.kill()
        self.services.clear()

    def _to_each(self, deed: Callable[[psutil.Process], None]) -> None:
        for process in self.processes():
            with contextlib.suppress(psutil.Error):
                deed(process)

    def processes(self) -> list[psutil.Process]:
        """Everything that runs with the home of this machine."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get("MODELYARD_HOME") == str(self.home):
                    found.append(process)
        return found

    def opened(self) -> set[str]:
        """The paths of all files that its processes hold open or mapped, and of the folders that they stand in."""
        found = set()
        for process in self.processes():
            base = Path("/proc", str(process.pid))
            with contextlib.suppress(OSError):
                found.add(os.readlink(base / "cwd"))
                found |= set(re.findall(r"(?m) (/.*)$", (base / "maps").read_text()))
                for each in (base / "fd").iterdir():
                    with contextlib.suppress(OSError):
                        found.add(os.readlink(each))
        return found


@dataclass
class Fleet:
    """The machines, what they share, and a client with a key."""

    place: Place
    machines: dict[str, Machine]
    port: int
    key: str
    records: Records

    def ask(
        self, method: str, path: str, body: Any = None, *, port: int | None = None, **headers: str
    ) -> tuple[int, Json]:
        """Status and JSON of an answer. body : a JSON value, or bytes as they are."""
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        connection = http.client.HTTPConnection("127.0.0.1", port or self.port, timeout=90)
        try:
            connection.request(method, path, content, {"X-API-KEY": self.key, **headers})
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            connection.close()

    def call(self, method: str, path: str, body: Any = None, **headers: str) -> Json:
        """The JSON of an answer that must be a success."""
        status, answer = self.ask(method, path, body, **headers)
        assert status < 300, answer
        return answer

    def missing(self, port: int | None = None) -> Json | None:
        """What /readyz misses, nothing when all is well; None when nobody answers."""
        try:
            status, answer = self.ask("GET", "/readyz", port=port)
        except (OSError, http.client.HTTPException):
            return None
        assert (status == 200) is answer["ready"] is not bool(answer["missing"])
        missing: Json = answer["missing"]
        return missing

    def wait_ready(self, timeout_s: float = 100.0) -> None:
        """Wait until /readyz misses nothing, starting again what ended."""
        deadline = time.monotonic() + timeout_s
        while (missing := self.missing()) != {}:
            assert time.monotonic() < deadline, missing
            for machine in self.machines.values():
                machine.tend()
            time.sleep(0.1)

    def ended(self, task_id: int, timeout_s: float = 120.0) -> Json:
        """A task as it ended."""

        def final() -> Json | None:
            told = self.call("GET", f"/tasks/{task_id}")
            return told if told["state"] in ("finished", "failed", "cancelled") else None

        found: Json = until(final, timeout_s)
        return found

    def machine_of(self, worker: str) -> str:
        """Which machine the process of an attempt (`host:pid`) is on."""
        pid = int(worker.rpartition(":")[2])
        [name] = [name for name, machine in self.machines.items() if pid in {each.pid for each in machine.processes()}]
        return name

    def machine(self, name: str, **more: str) -> Machine:
        """A new machine with an empty disk and the environment of the page."""
        folder = Path(self.machines["api"].folder.parent, name)
        made = _machine(folder, name, self.place, more)
        self.machines[name] = made
        return made


def _machine(folder: Path, name: str, place: Place, more: Mapping[str, str]) -> Machine:
    for each in ("home", "tmp", "bin"):
        (folder / each).mkdir(parents=True)
    program = folder / "bin" / "modelyard"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -W ignore -m cli.main "$@"\n')
    program.chmod(0o755)
    environment = {
        "PATH": f"{program.parent}:/usr/bin:/bin",
        "PYTHONPATH": str(ROOT),
        "HOME": str(folder / "home"),
        "TMPDIR": str(folder / "tmp"),
        **place.environment(),
        **QUICK,
        "MODELYARD_HOME": str(folder / "modelyard"),
        **more,
    }
    return Machine(name, folder, environment)


@contextlib.contextmanager
def running_place(store: S3Server) -> Iterator[Place]:
    """The three servers of the page, made as it says, with passwords, over TCP."""
    redis_port, postgres_port = free_port(), free_port()
    changes = {
        **SECRETS,
        "S3-ID": store.access_key_id,
        "S3-SECRET": store.secret_access_key,
        "db.internal:5432": f"127.0.0.1:{postgres_port}",
        "redis.internal:6379": f"127.0.0.1:{redis_port}",
        "http://s3.internal:9000": store.endpoint_url,
        "bind 0.0.0.0": "bind 127.0.0.1",
        "port 6379": f"port {redis_port}",
    }
    with contextlib.ExitStack() as servers:
        folder = servers.enter_context(short_folder())
        postgres = servers.enter_context(running_postgres(port=postgres_port, password="admin", is_durable=True))
        postgres.run(*filter(str.strip, _told(block("PostgreSQL", "sql"), changes).split(";")))
        administrator = f"redis://:{SECRETS['REDIS-ADMIN-SECRET']}@127.0.0.1:{redis_port}/0"
        redis = RedisServer(folder, _told(block("Redis", ""), changes), administrator)
        servers.callback(redis.stop)
        place = Place(postgres, redis, store, changes)
        client = boto3.client(
            "s3",
            endpoint_url=store.endpoint_url,
            region_name="us-east-1",
            aws_access_key_id=store.access_key_id,
            aws_secret_access_key=store.secret_access_key,
        )
        [bucket] = re.findall(r"create-bucket --bucket (\S+)", block("S3", "sh"))
        client.create_bucket(Bucket=bucket)
        yield place


@contextlib.contextmanager
def running_fleet(store: S3Server) -> Iterator[Fleet]:
    """API and control on machines of their own, a machine `one` that trains, and a machine `two` that predicts."""
    with contextlib.ExitStack() as opened:
        place = opened.enter_context(running_place(store))
        folder = opened.enter_context(short_folder())
        port = free_port()
        api = _machine(
            folder / "api", "api", place, {"MODELYARD_PORT": str(port), "MODELYARD_FLOWER_PORT": str(free_port())}
        )
        upgrade, create, serve = commands("The API")
        upgraded = api.run(upgrade)
        assert upgraded.returncode == 0, upgraded.stderr
        created = api.run(create)
        assert created.returncode == 0, created.stderr
        records = Records.connect(place.environment()["MODELYARD_DATABASE_URL"])
        opened.callback(records.close)
        fleet = Fleet(place, {"api": api}, port, created.stdout.strip(), records)
        opened.callback(_end, fleet)
        api.start(serve)
        [control] = commands("Control")
        fleet.machine("control").start(control)
        train, *predict = commands("Workers")
        fleet.machine("one").start(train)
        two = fleet.machine("two")
        for command in predict:
            two.start(command.replace("-one", "-two"))
        fleet.wait_ready()
        yield fleet


def _end(fleet: Fleet) -> None:
    """Stop everything; nothing may be left running."""
    with ThreadPoolExecutor() as together:
        for machine in fleet.machines.values():
            for name in list(machine.services):
                together.submit(machine.stop, name)
    left = [process for machine in fleet.machines.values() for process in machine.processes()]
    _, alive = psutil.wait_procs(left, timeout=20)
    for process in alive:
        process.kill()
    assert not alive, [each.cmdline() for each in alive if each.is_running()]
