"""Every command of the tour in README.md works as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import settings as settings_module
from cli.stack import Stack
from settings import Settings

ROOT = Path(settings_module.__file__).parent


def tour() -> list[str]:
    """The shell blocks of the tour, without the one that starts the stack."""
    text = (ROOT / "README.md").read_text()
    section = text.split("## A tour", 1)[1].split("\n## ", 1)[0]
    return [block for block in re.findall(r"```sh\n(.*?)```", section, re.DOTALL) if "make up" not in block]


@pytest.fixture
def stack(tmp_path: Path) -> Iterator[Stack]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    # A fresh user's settings, but for the ports: the defaults may be in use.
    settings = Settings(home=tmp_path / ".modelyard", port=port, flower_port=0)
    with Stack(settings) as running:
        running.wait_ready(90)
        yield running


@pytest.mark.servers
@pytest.mark.timeout(240)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is told with curl")
def test_tour_works_command_by_command(stack: Stack, tmp_path: Path):
    answers: list[dict[str, Any]] = []
    for block in tour():
        script = block.replace("127.0.0.1:8080", f"127.0.0.1:{stack.settings.port}")
        ended = subprocess.run(
            ["sh", "-eu", "-c", script],
            cwd=ROOT,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "no_proxy": "*"},
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
        decoder, rest = json.JSONDecoder(), ended.stdout.strip()
        while rest:
            answer, end = decoder.raw_decode(rest)
            answers.append(answer)
            rest = rest[end:].strip()
    assert len(answers) == 10
    created, trained, polled, task, predicted, asked, listed, long, cancelled, deleted = answers
    assert created["status"]["code"] == trained["status"]["code"] == long["status"]["code"] == 201
    assert trained["head"]["job"] == 1
    assert polled["head"]["status"] == "finished"
    assert polled["body"]["measure"]["acc"] >= 0.9
    assert task["state"] == "finished"
    assert [row["classes"][0]["cat"] for row in predicted["body"]["predictions"]] == ["0", "2"]
    assert [len(row["classes"]) for row in predicted["body"]["predictions"]] == [3, 3]
    assert [each["task_id"] for each in listed["tasks"]] == [asked["head"]["task_id"]]
    assert cancelled["head"]["status"] == "terminated"
    assert deleted["status"]["code"] == 200
