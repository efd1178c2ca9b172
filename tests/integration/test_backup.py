"""Backup and restore: of PostgreSQL and S3 with the programs that the documentation names, and what is refused."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from click.testing import CliRunner

import settings as settings_module
from cli import main as command
from settings import Settings
from storage.live import Heartbeat, Live
from storage.records import Kind, Records, State
from tests.integration.yard import EXAMPLES, Yard, running_yard
from tests.services import PostgresServer, S3Server, _program

pytestmark = pytest.mark.servers

PAGE = (Path(settings_module.__file__).parent / "docs" / "operations.md").read_text(encoding="utf-8")


def steps() -> tuple[list[list[str]], list[list[str]]]:
    """The commands for PostgreSQL and S3 on the page: those that copy, and those that restore."""
    section = PAGE.split("\n## Backup\n", 1)[1].split("\n## ", 1)[0]
    copying, restoring = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    return ([shlex.split(line) for line in text.splitlines()] for text in (copying, restoring))  # type: ignore[return-value]


def modelyard(settings: Settings, *words: str, code: int = 0) -> str:
    """What a command prints that runs with these settings."""
    done = CliRunner().invoke(command.main, list(words), env=settings.to_env())
    assert done.exit_code == code, (done.output, done.exception)
    return done.output


@pytest.fixture
def two_times(postgres_server: PostgresServer) -> Iterator[tuple[str, str]]:
    """The database of the old time, and an empty one."""
    with postgres_server.database() as old, postgres_server.database() as new:
        yield old, new


@pytest.fixture(params=["moto_server", "rclone_server"])
def s3(request: pytest.FixtureRequest) -> S3Server:
    found: S3Server = request.getfixturevalue(request.param)
    return found


def test_copies_of_postgresql_and_s3_go_on_where_the_old_time_ended(
    postgres_server: PostgresServer,
    two_times: tuple[str, str],
    s3: S3Server,
    redis_url: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    for name, value in s3.environment().items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=s3.endpoint_url)
    for bucket in ("fleet-old", "fleet-new"):
        client.create_bucket(Bucket=bucket)
    of_old, of_new = (
        dataclasses.replace(
            settings,
            database_url=database,
            objects_url=f"s3://{bucket}/yard",
            s3_endpoint_url=s3.endpoint_url,
            redis_url=redis_url,
        )
        for database, bucket in zip(two_times, ("fleet-old", "fleet-new"), strict=True)
    )

    def run(step: list[str], database: str, bucket: str) -> None:
        """A step of the page, with the servers of this test."""
        connection = database.replace("postgresql+psycopg", "postgresql")
        words = [re.sub(r"postgresql://\S+/modelyard", connection, word) for word in step]
        words = [
            word.replace("fleet:modelyard", f"fleet:{bucket}").replace("records.dump", str(tmp_path / "dump"))
            for word in words
        ]
        words = [word.replace("backup:modelyard-monday", str(tmp_path / "monday")) for word in words]
        program = _program("rclone", "") if words[0] == "rclone" else postgres_server.programs / words[0]
        remote = {
            "RCLONE_CONFIG": str(tmp_path / "rclone.conf"),
            "RCLONE_CONFIG_FLEET_TYPE": "s3",
            "RCLONE_CONFIG_FLEET_PROVIDER": "Other",
            "RCLONE_CONFIG_FLEET_ENDPOINT": s3.endpoint_url,
            "RCLONE_CONFIG_FLEET_ENV_AUTH": "true",
            **s3.environment(),
        }
        done = subprocess.run([str(program), *words[1:]], env=remote, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr

    (tmp_path / "rclone.conf").touch()
    copying, restoring = steps()
    assert [step[0] for step in copying] == ["rclone", "pg_dump", "rclone"]
    with running_yard(of_old, redis_url) as old:
        old.create("iris", "iris")
        assert old.train("iris", 20)["head"]["status"] == "finished"
        right = old.prediction("iris")
        run(copying[0], of_old.database_url, "fleet-old")
        old.is_idle = True
        waiting = start(old, "iris")
        run(copying[1], of_old.database_url, "fleet-old")
        # What the copy of the records does not know, and that of the bucket does: its numbers come again.
        old.is_idle = False
        old.create("later", "later")
        assert old.train("later", 20)["head"]["status"] == "finished"
        lost = max(task.id for task in old.tasks(Kind.TRAIN))
        assert lost > waiting
        old.parts.live.progress.put(lost, {"attempt": 1, "percent": 50.0})
        run(copying[2], of_old.database_url, "fleet-old")

    for step in restoring:
        if step[0] == "modelyard":
            told = modelyard(of_new, *step[1:])
        else:
            run(step, of_new.database_url, "fleet-new")
    assert " 0 of them missing or damaged" in told
    with running_yard(of_new, redis_url) as new:
        assert new.parts.live.progress.get_many([lost]) == {}
        assert new.prediction("iris") == right
        new.send_task(new.parts.records.tasks.get(waiting))
        assert new.parts.records.tasks.get(waiting).state is State.FINISHED
        assert new.call("GET", "/services/later", code=404)
        new.create("later", "later")
        new.train("later", 25)
        newest = new.tasks(Kind.TRAIN)[-1]
        assert newest.id > lost
        assert newest.state is State.FINISHED, newest.failure
    assert " 0 of them missing or damaged" in modelyard(of_new, "verify", "--contents")


def start(yard: Yard, service: str) -> int:
    body: Any = {
        "service": service,
        "async": True,
        "parameters": {"mllib": {"iterations": 5}},
        "data": [str(yard.data / "iris.csv")],
    }
    return int(yard.call("POST", "/train", body, code=201)["head"]["task_id"])


def test_settling_waits_until_all_workers_are_gone(settings: Settings, redis_url: str):
    here = dataclasses.replace(settings, redis_url=redis_url)
    with contextlib.closing(Live(redis_url)) as live:
        live.heartbeats.beat(Heartbeat("train@one", ("train.cpu",)))
        assert "still alive: train@one" in modelyard(here, "db", "settle", code=1)
        live.heartbeats.end("train@one")
        for number in range(2500):
            live.server.redis.set(f"progress:{number}", "{}")
        assert "settled; 0 tasks" in modelyard(here, "db", "settle")
        assert live.server.redis.dbsize() == 0


def test_what_is_missing_or_damaged_is_named(settings: Settings, redis_url: str):
    with running_yard(settings, redis_url) as yard:
        yard.create("iris", "iris")
        yard.train("iris", 5)
        version = yard.versions("iris")[0]
        store = yard.parts.settings.home / "objects"
        first, *_, last = sorted(version.artifacts, key=lambda each: each.name)
        assert "0 of them missing or damaged" in modelyard(settings, "verify", "--contents")
        content = (store / first.key).read_bytes()
        (store / first.key).chmod(0o644)
        (store / first.key).write_bytes(bytes(len(content)))
        assert "0 of them missing or damaged" in modelyard(settings, "verify"), "its size is right"
        told = modelyard(settings, "verify", "--contents", code=1)
        assert re.search(rf"version 1 of repository \S+iris: {re.escape(first.key)} .*SHA-256", told), told
        (store / first.key).write_bytes(b"")
        (store / last.key).unlink()
        told = modelyard(settings, "verify", code=1)
        assert "has 0 bytes" in told
        assert f"{last.key} is missing" in told
        assert "2 of them missing or damaged" in told


def test_restore_that_was_interrupted_is_begun_again(settings: Settings, tmp_path: Path, redis_url: str):
    copy, fresh = tmp_path / "copy", dataclasses.replace(settings, home=tmp_path / "fresh")
    fresh = dataclasses.replace(fresh, database_url="", objects_url="", data_roots=(fresh.home / "data",))
    with running_yard(settings, redis_url) as yard:
        yard.create("iris", "iris")
        yard.train("iris", 5)
        [version] = yard.versions("iris")
    copy.mkdir(mode=0o755)
    modelyard(settings, "backup", str(copy))
    assert copy.stat().st_mode & 0o777 == 0o700
    key = version.artifacts[0].key
    part = fresh.home / "objects" / key
    part.parent.mkdir(parents=True)
    part.write_bytes((copy / "objects" / key).read_bytes())
    (fresh.home / "data.restored").mkdir()
    modelyard(fresh, "restore", str(copy))
    assert "0 of them missing or damaged" in modelyard(fresh, "verify", "--contents")
    other = dataclasses.replace(fresh, home=tmp_path / "other", database_url="", objects_url="", data_roots=())
    modelyard(other, "restore", str(copy))
    assert other.home.stat().st_mode & 0o777 == 0o700


def test_backup_that_may_only_be_read_is_restored_and_left_as_it_is(settings: Settings, tmp_path: Path, redis_url: str):
    copy, fresh = tmp_path / "copy", dataclasses.replace(settings, home=tmp_path / "fresh")
    fresh = dataclasses.replace(fresh, database_url="", objects_url="", data_roots=(fresh.home / "data",))
    with running_yard(settings, redis_url) as yard:
        yard.create("iris", "iris")
        yard.train("iris", 5)
        count = sum(1 for _ in yard.parts.objects.list())
    modelyard(settings, "backup", str(copy))
    everything = [copy, *copy.rglob("*")]
    for path in everything:
        path.chmod(0o555 if path.is_dir() else 0o444)
    # Who runs this may be root, whom no mode stops: a folder's time tells what was made in it.
    before = [(path, path.stat().st_mode, path.stat().st_mtime_ns) for path in everything]
    try:
        assert f"{count} objects" in modelyard(fresh, "restore", str(copy))
        assert [(path, path.stat().st_mode, path.stat().st_mtime_ns) for path in [copy, *copy.rglob("*")]] == before
    finally:
        for path in everything:
            path.chmod(0o755)
    assert "0 of them missing or damaged" in modelyard(fresh, "verify", "--contents")


def test_backup_of_a_newer_version_is_refused(settings: Settings, tmp_path: Path):
    copy = tmp_path / "copy"
    with contextlib.closing(Records.connect(settings.database_url)) as records:
        records.upgrade()
    modelyard(settings, "backup", str(copy))
    about = json.loads((copy / "backup.json").read_text())
    (copy / "backup.json").write_text(json.dumps({**about, "records": "9999"}))
    fresh = dataclasses.replace(settings, home=tmp_path / "fresh", database_url="", objects_url="", data_roots=())
    assert "newer version" in modelyard(fresh, "restore", str(copy), code=1)


@pytest.mark.parametrize("left", ["nothing", "the records", "what says that it is complete"])
def test_folder_without_a_complete_backup_is_refused(settings: Settings, tmp_path: Path, left: str):
    copy = tmp_path / "copy"
    with contextlib.closing(Records.connect(settings.database_url)) as records:
        records.upgrade()
    modelyard(settings, "backup", str(copy))
    if left != "what says that it is complete":
        (copy / "backup.json").unlink()
    if left != "the records":
        (copy / "records.db").unlink()
    fresh = dataclasses.replace(settings, home=tmp_path / "fresh", database_url="", objects_url="", data_roots=())
    assert "no complete backup" in modelyard(fresh, "restore", str(copy), code=1)
    assert not (tmp_path / "fresh" / "records.db").exists()


def test_place_that_is_not_empty_is_refused_and_left_as_it_was(settings: Settings, tmp_path: Path):
    copy = tmp_path / "copy"
    assert "there is nothing to copy" in modelyard(settings, "backup", str(copy), code=1)
    with contextlib.closing(Records.connect(settings.database_url)) as records:
        records.upgrade()
    (settings.home / "data").mkdir()
    here = dataclasses.replace(settings, data_roots=(settings.home / "data",))
    (settings.home / "data" / "rows.csv").write_bytes((EXAMPLES / "iris.csv").read_bytes())
    modelyard(here, "backup", str(copy))
    assert "records.db is there already" in modelyard(here, "restore", str(copy), code=1)
    for place, said in (("objects", "the object store is not empty"), ("data", "data is not empty")):
        fresh = dataclasses.replace(settings, home=tmp_path / place, database_url="", objects_url="", data_roots=())
        (fresh.home / place).mkdir(parents=True)
        (fresh.home / place / "mine.txt").write_text("mine")
        assert said in modelyard(fresh, "restore", str(copy), code=1)
        assert (fresh.home / place / "mine.txt").read_text() == "mine"
        assert not (fresh.home / "records.db").exists()
    server = dataclasses.replace(settings, database_url="postgresql://nobody@127.0.0.1:1/none")
    assert "database server" in modelyard(server, "backup", str(tmp_path / "other"), code=1)
    assert "database server" in modelyard(server, "restore", str(copy), code=1)
