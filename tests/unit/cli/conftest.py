"""The command line of a server with a home of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from cli import main as command
from storage.records import Records

Run = Callable[..., Result]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    def invoke(*words: str, **environment: str) -> Result:
        return CliRunner().invoke(command.main, list(words), env={"MODELYARD_HOME": str(tmp_path), **environment})

    return invoke


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records.connect(f"sqlite:///{tmp_path / 'records.db'}")
    yield opened
    opened.close()
