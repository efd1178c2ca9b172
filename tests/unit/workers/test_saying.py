"""What tasks say: plain lines that lead nowhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers import saying
from workers.saying import line


def test_line_holds_no_credentials_and_no_place_of_this_machine(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(saying, "_hidden", set())
    saying.hide(Path("/srv/yard/scratch"), Path("/srv/yard/cache"))
    said = line(
        "ERROR", "no /srv/yard/scratch/train-1-a1/tables/x.bin,\nbut https://ann:pw@host/a?sig=b and /data/iris.csv"
    )
    assert said["message"] == "no …, but https://***@host/a?*** and /data/iris.csv"
    assert said["level"] == "error"


def test_line_is_short_and_its_level_one_of_a_few():
    said = line("CRITICAL", "x" * 5000)
    assert len(said["message"]) == 1000
    assert said["message"].endswith("…")
    assert [line(level, "m")["level"] for level in ("CRITICAL", "Level 25", "warning")] == ["error", "info", "warning"]
