"""The parts of the demonstration that need no stack."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from cli.stack import is_held
from deploy import demo


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.mark.parametrize("example", [*demo.EXAMPLES, demo.LONG], ids=lambda example: example.name)
def test_split_keeps_every_fifth_row_from_the_training(tmp_path: Path, example: demo.Example):
    made = demo.split(example, tmp_path)
    header, *rows = read(demo.DATA / example.file)
    train, test, new = read(made.train), read(made.test), read(made.unlabelled)
    assert train[0] == test[0] == header
    assert sorted(train[1:] + test[1:]) == sorted(rows)
    assert len(test) - 1 == len(made.truth) == -(-len(rows) // 5)
    column = header.index(example.label)
    assert [row[:column] + row[column + 1 :] for row in test] == new
    assert [float(row[column]) for row in test[1:]] == made.truth


def test_share_of_right_answers_is_counted():
    assert demo.agreement(demo.EXAMPLES[0], [0.0, 1.0, 2.0, 2.0], [0.0, 1.0, 2.0, 1.0]) == "3 of 4 right"


def test_error_of_a_regression_stands_beside_that_of_guessing_the_mean():
    # Errors 1 and 1; the mean is 15, and off by 5 for both.
    assert demo.agreement(demo.EXAMPLES[2], [10.0, 20.0], [11.0, 19.0]) == "off by 1.0 (the mean: 5.0)"


def test_settings_of_the_environment_win(tmp_path: Path):
    given = {"MODELYARD_HOME": str(tmp_path), "MODELYARD_PORT": "8123", "MODELYARD_FLOWER_PORT": "5123"}
    settings = demo.demo_settings(given, ports=(1, 2))
    assert (settings.home, settings.port, settings.flower_port) == (tmp_path, 8123, 5123)


def test_without_settings_it_empties_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    left = tmp_path / ".modelyard" / "demo" / "records.db"
    left.parent.mkdir(parents=True)
    left.write_text("of an earlier run")
    settings = demo.demo_settings({}, ports=(8124, 5124))
    assert settings.home == tmp_path / ".modelyard" / "demo"
    assert (settings.port, settings.flower_port) == (8124, 5124)
    assert not left.exists()


def test_folder_too_long_for_a_socket_is_replaced_by_a_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path / ("long" * 30))
    monkeypatch.setattr(demo.tempfile, "mkdtemp", lambda prefix: "/short")
    assert demo.demo_settings({}, ports=(1, 2)).home == Path("/short")


def test_folder_in_use_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "ROOT", tmp_path)
    monkeypatch.setattr(demo, "is_held", lambda home: True)
    with pytest.raises(demo.DemoError, match="another demonstration"):
        demo.demo_settings({}, ports=(1, 2))


def test_folder_without_a_lock_is_not_held(tmp_path: Path):
    assert not is_held(tmp_path)
