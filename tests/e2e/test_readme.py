"""Every command of README.md, and of the first network, works as it stands there."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import settings as settings_module
from cli.stack import Stack
from settings import Settings

ROOT = Path(settings_module.__file__).parent


def blocks(page: str, heading: str) -> list[str]:
    """The shell blocks below a heading, without the one that starts the stack."""
    section = (ROOT / page).read_text().split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
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


@dataclass(frozen=True)
class Newcomer:
    """Types what a page says into a shell in the folder of the project."""

    port: int
    home: Path

    def type(self, script: str) -> str:
        """What a script prints; it must end well."""
        ended = subprocess.run(
            ["sh", "-eu", "-c", script.replace("127.0.0.1:8080", f"127.0.0.1:{self.port}")],
            cwd=ROOT,
            env={
                # Where `modelyard` lies, and the port, are the only things that differ from the page.
                "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
                "PYTHONPATH": str(ROOT),
                "PYTHONWARNINGS": "ignore",
                "HOME": str(self.home),
                "MODELYARD_PORT": str(self.port),
                "MODELYARD_FLOWER_PORT": "0",
                "no_proxy": "*",
            },
            capture_output=True,
            text=True,
            timeout=90,
        )
        assert ended.returncode == 0, f"{script}\n{ended.stdout}{ended.stderr}"
        return ended.stdout

    def answers(self, scripts: list[str]) -> list[dict[str, Any]]:
        """What curl prints, one answer after the other."""
        decoder, found = json.JSONDecoder(), []
        for script in scripts:
            rest = self.type(script).strip()
            while rest:
                answer, end = decoder.raw_decode(rest)
                found.append(answer)
                rest = rest[end:].strip()
        return found


@pytest.mark.servers
@pytest.mark.timeout(480)
@pytest.mark.skipif(shutil.which("curl") is None, reason="the tour is told with curl")
def test_what_a_newcomer_reads_works_command_by_command(stack: Stack, tmp_path: Path):
    newcomer = Newcomer(stack.settings.port, tmp_path)
    answers = newcomer.answers(blocks("README.md", "A tour"))
    assert len(answers) == 11
    created, trained, polled, task, predicted, asked, listed, result, long, cancelled, deleted = answers
    assert created["status"]["code"] == trained["status"]["code"] == long["status"]["code"] == 201
    assert trained["head"]["job"] == 1
    assert polled["head"]["status"] == "finished"
    assert polled["body"]["measure"]["acc"] >= 0.9
    assert task["state"] == "finished"
    assert [row["classes"][0]["cat"] for row in predicted["body"]["predictions"]] == ["0", "2"]
    assert [len(row["classes"]) for row in predicted["body"]["predictions"]] == [3, 3]
    assert [each["task_id"] for each in listed["tasks"]] == [asked["head"]["task_id"]]
    assert "body" in result or result["error"]["kind"] == "result_pending", result
    assert cancelled["head"]["status"] == "terminated"
    assert deleted["status"]["code"] == 200

    made, accepted, ended = newcomer.answers(blocks("docs/networks.md", "A network in three requests"))
    assert made["status"]["code"] == accepted["status"]["code"] == 201
    assert ended["head"]["status"] == "finished", ended
    assert ended["body"]["measure"]["acc"] > 0.9

    [commands] = blocks("README.md", "The command line")
    said = "".join(map(newcomer.type, commands.replace("\\\n", "").splitlines()))
    assert "service iris is created" in said
    assert "task 7 is finished" in said
    assert "measure" in said
    assert "0 wrong" in said.splitlines()[-1]

    [keys] = blocks("README.md", "Keys")
    secret, *listed = "".join(map(newcomer.type, keys.splitlines())).splitlines()
    assert len(secret) == 43
    assert "ada" in listed[1]
    assert "revoked" in listed[-1]
