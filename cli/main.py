"""The `modelyard` command. Everything heavy is imported inside the command that needs it."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cli.accounts import audit, quotas
from cli.backup.command import backup, restore, settle, verify
from cli.doctor.command import doctor
from cli.environment import make_home
from cli.environment import open_records as _records
from cli.environment import settings_here as _settings
from cli.remote.datasets import datasets
from cli.remote.predict import predict
from cli.remote.services import services
from cli.remote.tasks import tasks
from cli.remote.train import train
from cli.remote.webhooks import webhooks
from logs.lines import ROLE
from settings import Settings

if TYPE_CHECKING:
    from cli.stack import Stack

_TOLD_AFTER_S = 30.0


def _become(argv: list[str], environment: Mapping[str, str]) -> None:
    """Turn this process into the service, so that signals and the exit code are its own."""
    sys.stdout.flush()
    sys.stderr.flush()
    os.execve(argv[0], argv, {**os.environ, **environment})


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="modelyard", prog_name="modelyard")
def main() -> None:
    """Modelyard, a machine-learning server whose work is done by a fleet.

    Settings come from the environment: MODELYARD_HOME, MODELYARD_HOST, MODELYARD_PORT, … The commands services,
    datasets, train, predict, tasks and webhooks speak with a server, here or elsewhere: MODELYARD_URL, MODELYARD_KEY.
    """


@main.command()
@click.option(
    "--service-start-list",
    "start_list",
    metavar="FILE",
    type=click.Path(path_type=Path),
    help="Services to create and predictions to make when all is ready, one a line: service_create;NAME;JSON or "
    "service_predict;JSON. Default: MODELYARD_SERVICE_START_LIST.",
)
@click.option(
    "--service-start-list-no-exit-on-failure",
    "goes_on",
    is_flag=True,
    help="Go on, with the next line and with everything else, when a line of that list fails.",
)
def up(start_list: Path | None, goes_on: bool) -> None:
    """Run everything on this machine, in the foreground, until Ctrl-C or TERM."""
    from cli.stack import Stack, StackError
    from cli.start_list import BadList, read_list

    settings = _settings()
    path = start_list or settings.service_start_list
    try:
        if path is not None:
            read_list(path)  # a slip of the pen is told before anything starts
        say = _saying(settings)
        stack = Stack(settings, report=say)
        with _stopped_by_signals(stack, say):
            stack.start()
            try:
                _stay(stack, settings, path, goes_on, say)
            finally:
                stack.stop()
    except (StackError, BadList) as error:
        raise click.ClickException(str(error)) from None
    say("stopped; nothing is left running")


def _saying(settings: Settings) -> Callable[[str], None]:
    """How this command tells what happens: lines for people, or lines of a log where the settings want JSON."""
    if settings.log_format != "json":
        return _say
    from logs.setting_up import set_up

    set_up(role="up")
    return logging.getLogger("cli.up").info


def _say(line: str) -> None:
    click.echo(f"{datetime.now():%H:%M:%S} {line}")


@contextmanager
def _stopped_by_signals(stack: Stack, say: Callable[[str], None]) -> Iterator[None]:
    def stop(number: int, frame: object) -> None:
        if not stack.is_stopping and say is _say:
            os.write(2, b"\nstopping; once more kills what is left\n")
        stack.ask_stop()

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stay(stack: Stack, settings: Settings, start_list: Path | None, goes_on: bool, say: Callable[[str], None]) -> None:
    """Until the stack is told to stop: say when it is ready, or what is missing when that takes long.

    Raises StackError when a line of the start list fails, unless `goes_on`.
    """
    from cli.ready import ready_table

    began = time.monotonic()
    is_ready = was_told = False
    starting: Iterator[None] = iter(())
    while not stack.is_stopping:
        if not is_ready:
            missing = stack.not_ready()
            is_ready = not missing
            if is_ready:
                click.echo(ready_table(settings)) if say is _say else say(ready_table(settings))
                if start_list is not None:
                    starting = _do_list(stack, settings, start_list, goes_on, say)
            elif not was_told and time.monotonic() - began > _TOLD_AFTER_S:
                was_told = True
                for name, reason in missing.items():
                    say(f"{name}: still not ready: {reason}")
        next(starting, None)
        time.sleep(0.2)


def _do_list(stack: Stack, settings: Settings, path: Path, goes_on: bool, say: Callable[[str], None]) -> Iterator[None]:
    """Have the start list done, and tell what comes of it; goes on with each `next`. Raises StackError."""
    from cli.services import start_list
    from cli.stack import StackError

    step = start_list(settings, path.absolute(), goes_on=goes_on)
    process = stack.beside(step)
    told, last = "", f"see {stack.log_of(step.name)}"
    with stack.log_of(step.name).open("r", encoding="utf-8", errors="replace") as news:
        while True:
            code = process.poll()
            told += news.read()
            *lines, told = told.split("\n")
            for line in lines:
                last = line
                say(line)
            if code is not None:
                break
            yield
    if code == 0:
        say(f"all of {path} is done")
    elif not goes_on and not stack.is_stopping:
        raise StackError(f"{path} could not be done, so the server stops: {last}")


@main.command()
def api() -> None:
    """Run the API alone. Redis, the records and the artifacts are where the settings say."""
    from api.access import OpenDoor, check_bind
    from cli.services import api_argv
    from cli.stack import StackError
    from storage.errors import StorageError

    settings = _settings()
    try:
        with _records(settings) as records:
            records.check()
            check_bind(settings, records)
        argv = api_argv(settings)
    except (OpenDoor, StackError, StorageError) as error:
        raise click.ClickException(str(error)) from None
    make_home(settings)
    _become(argv, {**settings.to_env(), ROLE: "api"})


@main.command()
@click.option(
    "--queues",
    required=True,
    metavar="NAMES",
    help="Queues to serve, separated by commas, all of one kind: train.cpu, predict.xgboost.cpu or control.",
)
@click.option("--name", metavar="NAME", help="Name of this worker, unique on the machine. Default: from the queues.")
@click.option(
    "--once-within",
    "once_s",
    metavar="SECONDS",
    type=click.FloatRange(min=1),
    help="End after one task, or when none came for so long. For train and batch queues, where something starts a "
    "worker for each task and must never stop one that works.",
)
def worker(queues: str, name: str | None, once_s: float | None) -> None:
    """Run one Celery worker."""
    from cli.services import BadQueues, worker_argv, worker_environment

    settings = _settings()
    wanted = [queue.strip() for queue in queues.split(",") if queue.strip()]
    try:
        argv = worker_argv(name or "-".join(wanted).replace(".", "-"), wanted)
        environment = worker_environment(settings, wanted, once_s)
    except BadQueues as error:
        raise click.BadParameter(str(error), param_hint="--queues") from None
    _check_records(settings)
    _check_redis(settings)
    make_home(settings)
    _become(argv, environment)


def _check_records(settings: Settings) -> None:
    """End the command where the records let nobody in, or are of a form that this program cannot use. A worker can
    wait for others that are away, or not made yet.
    """
    from storage.errors import RecordsForm, RecordsRefused, RecordsUnavailable
    from storage.records import Records

    records = None
    try:
        records = Records.connect(settings.database_url)
        records.check()
    except (RecordsForm, RecordsRefused) as error:
        raise click.ClickException(str(error)) from None
    except RecordsUnavailable:
        pass
    finally:
        if records is not None:
            records.close()


def _check_redis(settings: Settings) -> None:
    """End the command where Redis lets nobody in, which Celery would ask again for ever. One that is away is waited
    for.
    """
    from storage.errors import LiveRefused, LiveUnavailable
    from storage.live import Live

    if settings.redis_url is None:  # the embedded one wants no password
        return
    live = Live(settings.redis_url)
    try:
        live.check()
    except LiveRefused as error:
        raise click.ClickException(str(error)) from None
    except LiveUnavailable:
        pass
    finally:
        live.close()


@main.command()
@click.argument("name")
def seen(name: str) -> None:
    """Succeed when worker NAME of this machine gave a sign of life lately; busy ones count. For health checks."""
    from storage.errors import StorageError
    from storage.live import Live

    live = Live(_settings().live_url)
    try:
        alive = [beat.worker for beat in live.heartbeats.all()]
    except StorageError as error:
        raise click.ClickException(str(error)) from None
    finally:
        live.close()
    wanted = f"{name}@{socket.gethostname()}"
    if wanted not in alive:
        raise click.ClickException(f"{wanted} gave no sign of life; seen: {', '.join(alive) or 'no worker'}")


@main.command()
@click.option(
    "--address",
    default="127.0.0.1",
    show_default=True,
    help="Where to listen. Logins travel in the clear: beyond this machine put TLS in front.",
)
def flower(address: str) -> None:
    """Run Flower alone, read-only, for those who know MODELYARD_FLOWER_LOGIN."""
    from cli.services import flower_argv, flower_environment
    from cli.stack import StackError

    settings = _settings()
    if not settings.flower_port:
        raise click.ClickException("MODELYARD_FLOWER_PORT=0 leaves Flower out; set it to a port")
    try:
        environment = flower_environment(settings)
    except StackError as error:
        raise click.ClickException(str(error)) from None
    _become(flower_argv(settings, address), environment)


@main.group()
def db() -> None:
    """The database that holds the records."""


@db.command()
def upgrade() -> None:
    """Bring the tables to the form that this version needs. Safe to repeat, and while others read."""
    with _records(_settings()) as records:
        records.upgrade()
    click.echo("the records are up to date")


@main.group()
def keys() -> None:
    """Keys that clients send as X-API-KEY, as a Bearer token, or as the password of HTTP Basic."""


@keys.command()
@click.option("--account", default="local", show_default=True, help="Who owns what this key creates.")
@click.option(
    "--role",
    default="train",
    show_default=True,
    type=click.Choice(["read", "predict", "train", "admin"]),
    help="What the key is good for; each may do what those before it may. admin manages the keys of its account.",
)
@click.option("--label", default="", help="A word to tell keys apart, such as the client's name.")
def create(account: str, role: str, label: str) -> None:
    """Create a key and print it; it cannot be shown again."""
    from storage.records import Role

    with _records(_settings()) as records:
        records.upgrade()
        key, secret = records.keys.create(account, label, Role.named(role))
    told = f"key {key.id} of account {key.account}, role {key.role}"
    click.echo(f"{told}; keep it, as it cannot be shown again:", err=True)
    click.echo(secret)


@keys.command("list")
def list_keys() -> None:
    """List all keys, also revoked ones; never the secrets."""
    with _records(_settings()) as records:
        records.upgrade()
        rows = records.keys.list()
    if not rows:
        click.echo("no keys; create one with: modelyard keys create --account NAME")
        return
    _table(
        [
            ("id", "account", "role", "label", "created", "revoked"),
            *(
                (str(row.id), row.account, str(row.role), row.label, _day(row.created_at), _day(row.revoked_at))
                for row in rows
            ),
        ]
    )


@keys.command()
@click.argument("key_id", metavar="ID", type=int)
def revoke(key_id: int) -> None:
    """End the key with this number, as `keys list` shows it."""
    with _records(_settings()) as records:
        records.upgrade()
        records.keys.revoke(key_id)
    click.echo(f"key {key_id} is revoked")


@main.group()
def versions() -> None:
    """Published versions of repositories; the newest ones and pinned ones are kept."""


_ACCOUNT = click.option("--account", default="local", show_default=True, help="Who owns the repository.")


@versions.command("list")
@click.argument("repository")
@_ACCOUNT
def list_versions(repository: str, account: str) -> None:
    """List the versions of REPOSITORY, named as in `model.repository`."""
    with _records(_settings()) as records:
        rows = records.versions.all_of(records.repositories.named(account, repository).id)
    _table(
        [
            ("version", "task", "created", "bytes", "pinned"),
            *((str(v.number), str(v.task_id), _day(v.created_at), str(v.size_bytes), _day(v.pinned_at)) for v in rows),
        ]
    )


@versions.command()
@click.argument("repository")
@click.argument("number", type=int)
@_ACCOUNT
def pin(repository: str, number: int, account: str) -> None:
    """Keep version NUMBER of REPOSITORY whatever its age."""
    _pin(repository, number, account, True)


@versions.command()
@click.argument("repository")
@click.argument("number", type=int)
@_ACCOUNT
def unpin(repository: str, number: int, account: str) -> None:
    """Let version NUMBER of REPOSITORY go when it is old."""
    _pin(repository, number, account, False)


def _pin(repository: str, number: int, account: str, is_pinned: bool) -> None:
    with _records(_settings()) as records:
        records.versions.pin(records.repositories.named(account, repository).id, number, is_pinned)
    click.echo(f"version {number} of {repository} is {'pinned' if is_pinned else 'no longer pinned'}")


def _day(when: Any) -> str:
    return "" if when is None else f"{datetime.fromtimestamp(when, UTC):%Y-%m-%d %H:%M} UTC"


def _table(rows: Sequence[tuple[str, ...]]) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


for _command in (audit, quotas, backup, restore, verify, doctor, services, datasets, train, predict, tasks, webhooks):
    main.add_command(_command)
db.add_command(settle)


if __name__ == "__main__":
    main()
