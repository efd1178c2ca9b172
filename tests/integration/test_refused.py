"""Redis and PostgreSQL that want another password: told at once, with the name of the setting, and not waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from click.testing import CliRunner, Result

from cli import main as command
from tests.services import PostgresServer, RedisServer, free_port, running_postgres

pytestmark = pytest.mark.servers


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    with running_postgres(port=free_port(), password="right") as server:
        yield server


def run(home: Path, monkeypatch: pytest.MonkeyPatch, *words: str, **variables: str) -> Result:
    def become(argv: list[str], environment: object) -> None:
        print("it becomes the worker")

    monkeypatch.setattr(command, "_become", become)
    return CliRunner().invoke(command.main, words, env={"MODELYARD_HOME": str(home), **variables})


WORKER = ("worker", "--queues", "control")


def test_worker_ends_where_redis_wants_another_password(
    own_redis: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    with redis.Redis.from_url(own_redis.url) as client:
        client.config_set("requirepass", "my-secret")
    for url in (own_redis.url, f"unix://:my-guess@{own_redis.socket}", f"unix://me:my-guess@{own_redis.socket}"):
        refused = run(tmp_path, monkeypatch, *WORKER, MODELYARD_REDIS_URL=url)
        assert refused.exit_code == 1
        [line] = refused.output.splitlines()
        assert "MODELYARD_REDIS_URL" in line
        assert "my-guess" not in line
    right = run(tmp_path, monkeypatch, *WORKER, MODELYARD_REDIS_URL=f"unix://:my-secret@{own_redis.socket}")
    assert right.output == "it becomes the worker\n"
    own_redis.kill()
    away = run(tmp_path, monkeypatch, *WORKER, MODELYARD_REDIS_URL=own_redis.url)
    assert away.output == "it becomes the worker\n", "one that is away is waited for"


@pytest.mark.parametrize("words", [WORKER, ("db", "upgrade")])
def test_commands_end_where_postgresql_wants_another_password(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
):
    log = postgres.folder / "postgres.log"
    url = postgres.url("postgres")
    for wrong in (url.replace(":right@", ":my-guess@"), url.replace(":right@", "@")):
        before = log.read_text().count("FATAL")
        refused = run(tmp_path, monkeypatch, *words, MODELYARD_DATABASE_URL=wrong)
        assert refused.exit_code == 1
        [line] = refused.output.splitlines()
        assert "MODELYARD_DATABASE_URL" in line
        assert "my-guess" not in line
        assert log.read_text().count("FATAL") - before <= 1, "it is asked once"
    right = run(tmp_path, monkeypatch, *words, MODELYARD_DATABASE_URL=url)
    assert right.exit_code == 0, right.output
