"""The doctor, with each fault made for real: it names it, says what to do, and ends in time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import redis
from click.testing import CliRunner
from sqlalchemy import text

from cli import main as command
from cli.doctor import fleet, libraries
from cli.doctor.findings import Found
from settings import Settings
from storage.live import Heartbeat, Live
from storage.records import Kind, Records
from tests.services import RedisServer, S3Server, free_port, running_postgres

pytestmark = pytest.mark.servers

Finding = dict[str, str]
Ask = Callable[..., list[Finding]]


@pytest.fixture
def ask(tmp_path: Path, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ask]:
    """Asks the doctor of an installation whose stores are in order, and that has no API; changes come as variables."""
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    (home / "objects").mkdir()
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # That libraries can be imported is looked at elsewhere: it takes seconds each time.
    monkeypatch.setattr(libraries, "_import_problem", lambda modules: None)
    environment = {
        "MODELYARD_HOME": str(home),
        "MODELYARD_PORT": str(free_port()),
        "MODELYARD_FLOWER_PORT": "0",
        "MODELYARD_REDIS_URL": own_redis.url,
        "MODELYARD_URL": None,
        "MODELYARD_KEY": None,
    }

    def doctor(**changed: str) -> list[Finding]:
        result = CliRunner().invoke(command.main, ["doctor", "--role", "api", "--json"], env={**environment, **changed})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        answer: dict[str, Any] = json.loads(result.stdout)
        findings: list[Finding] = answer["findings"]
        wrong = [each for each in findings if each["status"] == "fail"]
        assert result.exit_code == (1 if wrong else 0)
        assert answer["healthy"] is not bool(wrong)
        assert all(each["cure"] for each in findings if each["status"] != "ok")
        return findings

    records = Records.connect(f"sqlite:///{home / 'records.db'}")
    records.upgrade()
    records.close()
    return doctor


@pytest.fixture
def records(ask: Ask, tmp_path: Path) -> Iterator[Records]:
    opened = Records.connect(f"sqlite:///{tmp_path / 'home' / 'records.db'}")
    yield opened
    opened.close()


def of(findings: list[Finding], check: str, status: str) -> str:
    """What a check found that has this status, with its cures."""
    return "\n".join(
        f"{each['text']} | {each['cure']}" for each in findings if (each["check"], each["status"]) == (check, status)
    )


def told_by(found: Found) -> list[Finding]:
    return [{"check": "", "status": status, "text": text, "cure": cure} for status, text, cure in found]


def test_stores_in_order_are_told_so_and_nothing_is_left_behind(ask: Ask, tmp_path: Path):
    findings = ask()
    for check in ("redis", "records", "objects", "clocks", "strangers", "ports"):
        assert of(findings, check, "fail") == "", findings
    assert "noeviction" in of(findings, "redis", "ok")
    assert "up to date" in of(findings, "records", "ok")
    assert "writes, reads and deletes" in of(findings, "objects", "ok")
    assert "start it (modelyard up" in of(findings, "api", "fail")
    assert [path for path in (tmp_path / "home" / "objects").rglob("*") if path.is_file()] == []


def test_redis_that_is_down_is_told_and_so_is_what_cannot_be_known_without_it(ask: Ask, own_redis: RedisServer):
    own_redis.kill()
    findings = ask()
    assert "correct MODELYARD_REDIS_URL" in of(findings, "redis", "fail")
    assert "mend Redis first" in of(findings, "workers", "fail")
    assert "mend Redis first" in of(findings, "clocks", "fail")
    assert "up to date" in of(findings, "records", "ok")


def test_redis_that_evicts_or_asks_for_a_password_is_told(ask: Ask, own_redis: RedisServer):
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "maxmemory-policy noeviction" in of(ask(), "redis", "fail")
        client.config_set("maxmemory-policy", "noeviction")
        client.config_set("requirepass", "my-secret")
    without = ask()
    assert "put user and password into MODELYARD_REDIS_URL" in of(without, "redis", "fail")
    wrong = ask(MODELYARD_REDIS_URL=f"unix://:not-my-secret@{own_redis.socket}")
    assert "put user and password into MODELYARD_REDIS_URL" in of(wrong, "redis", "fail")
    assert "not-my-secret" not in json.dumps(wrong)
    right = ask(MODELYARD_REDIS_URL=f"unix://:my-secret@{own_redis.socket}")
    assert of(right, "redis", "fail") == ""
    assert "my-secret" not in json.dumps(right)


def test_tables_of_another_form_and_no_tables_are_told(ask: Ask, records: Records, tmp_path: Path):
    with records.database.write() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0001'"))
    assert "have form 0001" in of(ask(), "records", "fail")
    assert "run: modelyard db upgrade" in of(ask(), "records", "fail")
    none = tmp_path / "none.db"
    assert "modelyard db upgrade" in of(ask(MODELYARD_DATABASE_URL=f"sqlite:///{none}"), "records", "fail")
    assert not none.exists()


def test_postgres_is_looked_at_too_and_one_that_is_down_is_told(ask: Ask, postgres_url: str):
    empty = ask(MODELYARD_DATABASE_URL=postgres_url)
    assert "no tables yet" in of(empty, "records", "fail")
    assert "mend the records first" in of(empty, "queues", "fail")
    opened = Records.connect(postgres_url)
    opened.upgrade()
    opened.close()
    findings = ask(MODELYARD_DATABASE_URL=postgres_url)
    assert "up to date" in of(findings, "records", "ok")
    assert of(findings, "clocks", "fail") == ""
    assert "psycopg" in of(findings, "postgres", "ok")
    down = f"postgresql+psycopg://me:my-secret@127.0.0.1:{free_port()}/none"
    findings = ask(MODELYARD_DATABASE_URL=down)
    assert "start the database" in of(findings, "records", "fail")
    assert "my-secret" not in json.dumps(findings)


def test_bucket_is_written_read_and_emptied_and_a_missing_one_is_told(
    ask: Ask, moto_server: S3Server, monkeypatch: pytest.MonkeyPatch
):
    for name, value in moto_server.environment().items():
        monkeypatch.setenv(name, value)
    place = {"MODELYARD_OBJECTS_URL": "s3://doctored/all", "MODELYARD_S3_ENDPOINT_URL": moto_server.endpoint_url}
    assert "| create the bucket" in of(ask(**place), "objects", "fail")
    client = boto3.client("s3", endpoint_url=moto_server.endpoint_url)
    try:
        client.create_bucket(Bucket="doctored")
        assert "writes, reads and deletes" in of(ask(**place), "objects", "ok")
        assert "Contents" not in client.list_objects_v2(Bucket="doctored")
        client.delete_bucket(Bucket="doctored")
    finally:
        client.close()
    place["MODELYARD_S3_ENDPOINT_URL"] = f"http://127.0.0.1:{free_port()}"
    assert "MODELYARD_S3_ENDPOINT_URL" in of(ask(**place), "objects", "fail")


def test_key_that_the_store_does_not_take_is_told(ask: Ask, rclone_server: S3Server, monkeypatch: pytest.MonkeyPatch):
    place = {"MODELYARD_OBJECTS_URL": "s3://doctored/all", "MODELYARD_S3_ENDPOINT_URL": rclone_server.endpoint_url}
    for wrong in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        for name, value in {**rclone_server.environment(), wrong: "not-this-one"}.items():
            monkeypatch.setenv(name, value)
        findings = ask(**place)
        assert "| correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in of(findings, "objects", "fail")
        assert rclone_server.secret_access_key not in json.dumps(findings)


def test_password_that_postgresql_does_not_take_is_told(ask: Ask):
    with running_postgres(port=free_port(), password="right") as server:
        url = server.url("postgres")
        assert "run: modelyard db upgrade" in of(ask(MODELYARD_DATABASE_URL=url), "records", "fail")
        for wrong in (url.replace(":right@", ":my-guess@"), url.replace("/postgres", "/none")):
            findings = ask(MODELYARD_DATABASE_URL=wrong)
            assert "| correct user, password and database" in of(findings, "records", "fail")
            assert "my-guess" not in json.dumps(findings)


def test_queues_without_workers_are_told(own_redis: RedisServer, records: Records, tmp_path: Path):
    live = Live(own_redis.url)
    live.heartbeats.beat(Heartbeat("train1@here", ("train.cpu",)))
    live.heartbeats.beat(Heartbeat("control@here", ("control", "batch.xgboost.cpu"), has_namesake=True))
    live.heartbeats.note_sweep()
    live.close()
    account = records.accounts.ensure("local")
    records.tasks.add(account.id, Kind.TRAIN, "train.cpu", {})
    records.tasks.add(account.id, Kind.PREDICT, "batch.torch.cpu", {})
    settings = Settings(home=tmp_path / "home", redis_url=own_redis.url)
    # These two alone: signs of life are too short to outlast the other checks on a busy machine.
    workers, queues = told_by(fleet.workers(settings)), told_by(fleet.queues(settings))
    assert "no worker of a predict queue is alive" in of(workers, "", "fail")
    assert "no worker of a train queue" not in of(workers, "", "fail")
    assert "train.cpu: train1@here" in of(workers, "", "ok")
    assert "several workers are named control@here, and" in of(workers, "", "warn")
    assert "train1@here" not in of(workers, "", "warn")
    assert "the last sweep ended" in of(workers, "", "ok")
    told = of(queues, "", "fail")
    assert told.startswith("no worker serves batch.torch.cpu, and work waits in it (1 task)")
    assert told.endswith("run: modelyard worker --queues batch.torch.cpu")


def test_task_whose_worker_fell_silent_is_told_with_its_number(ask: Ask, records: Records):
    account = records.accounts.ensure("local")
    task, _ = records.tasks.add(account.id, Kind.TRAIN, "train.cpu", {})
    assert records.tasks.claim(task.id, "gone@here", -60.0) is not None
    assert f"1 running task fell silent and was not taken back ({task.id})" in of(ask(), "queues", "fail")


def test_home_that_cannot_be_written_is_told(ask: Ask, tmp_path: Path):
    # /proc cannot be written, not even by root.
    assert "MODELYARD_HOME" in of(ask(MODELYARD_HOME="/proc"), "home", "fail")
    if os.geteuid() != 0:
        (tmp_path / "home").chmod(0o500)
        assert "cannot be written" in of(ask(), "home", "fail")
        (tmp_path / "home").chmod(0o700)


def test_door_that_would_be_open_to_strangers_is_told(ask: Ask, records: Records):
    assert "modelyard keys create" in of(ask(MODELYARD_HOST="0.0.0.0"), "strangers", "fail")
    records.keys.create("local")
    assert "asks them for a key" in of(ask(MODELYARD_HOST="0.0.0.0"), "strangers", "ok")


def test_port_that_something_else_holds_is_told(ask: Ask):
    with socket.create_server(("127.0.0.1", 0)) as held:
        port = held.getsockname()[1]
        findings = ask(MODELYARD_PORT=str(port), MODELYARD_URL=f"http://127.0.0.1:{free_port()}")
    assert f"port {port} of 127.0.0.1 is in use" in of(findings, "ports", "warn")
    assert "set MODELYARD_PORT" in of(findings, "ports", "warn")


def test_servers_that_accept_and_never_answer_do_not_hold_the_doctor_up(ask: Ask):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        began = time.monotonic()
        findings = ask(
            MODELYARD_REDIS_URL=f"redis://127.0.0.1:{port}/0",
            MODELYARD_DATABASE_URL=f"postgresql+psycopg://127.0.0.1:{port}/none",
            MODELYARD_URL=f"http://127.0.0.1:{port}",
        )
        took_s = time.monotonic() - began
    assert took_s < 60
    for check in ("redis", "records", "api", "workers", "queues"):
        assert of(findings, check, "fail") != "", check
