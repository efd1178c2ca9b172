"""What the supervisor decides, without processes."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.ready import ready_table
from cli.stack import Backoff, Service, Stack, rotate
from settings import Settings


def test_backoff_doubles_up_to_its_bound():
    backoff = Backoff(first_s=0.5, most_s=30.0)
    assert [backoff.delay_s(failures) for failures in (1, 2, 3, 7, 1000)] == [0.5, 1.0, 2.0, 30.0, 30.0]


def test_two_services_of_one_name_are_refused(tmp_path: Path):
    twice = [Service("a", ("true",)), Service("a", ("true",))]
    with pytest.raises(ValueError, match="same name"):
        Stack(Settings(home=tmp_path), twice)


def test_small_log_is_kept_as_it_is(tmp_path: Path):
    log = tmp_path / "api.log"
    log.write_text("few words")
    rotate(log, limit_bytes=100)
    assert [path.name for path in tmp_path.iterdir()] == ["api.log"]


def test_large_log_is_put_aside_and_the_oldest_goes(tmp_path: Path):
    log = tmp_path / "api.log"
    for number in range(5):
        log.write_text(str(number) * 10)
        rotate(log, limit_bytes=5, kept=3)
    assert {path.name: path.read_text()[:1] for path in tmp_path.iterdir()} == {
        "api.log": "",
        "api.log.1": "4",
        "api.log.2": "3",
        "api.log.3": "2",
    }


def test_rotation_of_a_log_that_is_not_there_does_nothing(tmp_path: Path):
    rotate(tmp_path / "api.log")
    assert list(tmp_path.iterdir()) == []


def test_ready_table_says_where_everything_is_and_hides_passwords(tmp_path: Path):
    settings = Settings(
        home=tmp_path,
        port=8123,
        flower_port=5123,
        redis_url="redis://:hidden@cache:6379/0",
        database_url="postgresql+psycopg://yard:hidden@db/yard",
    )
    table = ready_table(settings)
    assert "http://127.0.0.1:8123" in table
    assert "http://127.0.0.1:5123" in table
    assert str(tmp_path / "objects") in table
    assert "yard:…@db/yard" in table
    assert "hidden" not in table
