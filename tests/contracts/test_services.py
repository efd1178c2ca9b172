"""The servers of `tests/services.py` start, are separate from test to test, and end with the tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psycopg
import pytest
import redis

from tests import services

ROOT = Path(__file__).parents[2]


def _is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"


@pytest.mark.parametrize("turn", [1, 2])
def test_redis_is_empty_in_every_test(redis_url: str, turn: int) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("left", turn)


def test_an_own_redis_comes_back_empty_at_the_same_address(
    own_redis: services.RedisServer,
) -> None:
    with redis.Redis.from_url(own_redis.url) as client:
        client.set("left", 1)
    first = own_redis.pid
    own_redis.restart()
    assert own_redis.pid != first
    assert not _is_running(first)
    with redis.Redis.from_url(own_redis.url) as client:
        assert client.dbsize() == 0


@pytest.mark.parametrize("turn", [1, 2])
def test_every_test_has_an_empty_database(postgres_url: str, turn: int) -> None:
    with psycopg.connect(postgres_url.replace("+psycopg", "")) as connection:
        connection.execute("CREATE TABLE left_behind (turn int)")
        count = connection.execute("SELECT count(*) FROM left_behind").fetchone()
    assert count == (0,)


@pytest.mark.parametrize("name", ["redis", "moto", "rclone", "postgres"])
def test_servers_end_when_the_tests_are_killed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (
        "import time\n"
        "from tests import services\n"
        f"with services.running_{name}() as server:\n"
        "    print(getattr(server, 'server', server).pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with services.short_folder() as folder:
        folder.chmod(0o711)  # PostgreSQL may run as another user
        parent = subprocess.Popen(
            [sys.executable, "-c", program],
            cwd=ROOT,
            env={**os.environ, "TMPDIR": str(folder)},
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert parent.stdout is not None
        with parent, parent.stdout as output:
            pid = int(output.readline())
            assert _is_running(pid)
            os.kill(parent.pid, signal.SIGKILL)
            parent.wait()
        deadline = time.monotonic() + 60
        while _is_running(pid):
            assert time.monotonic() < deadline, f"{name} outlived the tests"
            time.sleep(0.02)
        left = list(folder.glob("my-*"))
        assert len(left) == 1
        monkeypatch.setattr(tempfile, "tempdir", str(folder))
        with services.short_folder():  # the next tests clear up
            assert not left[0].exists()


def test_a_stopped_server_leaves_no_folder() -> None:
    with services.running_redis() as server:
        folder = server.folder
        assert folder.exists()
    assert not folder.exists()
    assert not _is_running(server.pid)


def test_a_server_that_does_not_start_is_an_error_with_its_log(tmp_path: Path) -> None:
    server = services.Server([sys.executable, "-c", "print('no such option')"], tmp_path / "log")
    with pytest.raises(services.ServiceMissing, match="no such option"):
        server.wait_until(lambda: False)
