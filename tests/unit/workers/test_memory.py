"""Memory of processes, and the kernel's count of kills for want of it where the control group is mounted."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from workers.memory import family_bytes, memory_kills


def cgroup(tmp_path: Path, line: str) -> Path:
    file = tmp_path / "cgroup"
    file.write_text(line)
    return file


def test_count_is_read_from_the_group_of_this_process(tmp_path: Path) -> None:
    group = tmp_path / "mount" / "yard" / "worker"
    group.mkdir(parents=True)
    (group / "memory.events").write_text("low 0\nhigh 0\nmax 12\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert memory_kills(cgroup(tmp_path, "0::/yard/worker\n"), tmp_path / "mount") == 2


def test_inside_a_container_the_group_is_mounted_at_the_top(tmp_path: Path) -> None:
    mount = tmp_path / "mount"
    mount.mkdir()
    (mount / "memory.events").write_text("oom_kill 1\n")
    assert memory_kills(cgroup(tmp_path, "0::/docker/abc\n"), mount) == 1


def test_machine_that_does_not_tell_gives_nothing(tmp_path: Path) -> None:
    assert memory_kills(tmp_path / "absent", tmp_path) is None
    assert memory_kills(cgroup(tmp_path, "5:memory:/a\n"), tmp_path) is None
    assert memory_kills(cgroup(tmp_path, "0::/a\n"), tmp_path / "nowhere") is None


def test_memory_of_a_family_is_that_of_the_process_and_of_its_child() -> None:
    program = "import sys; held = bytearray(b'x') * (64 << 20); print(len(held), flush=True); sys.stdin.read()"
    alone = family_bytes(os.getpid())
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == b"67108864\n"
    assert family_bytes(os.getpid()) - alone > 60 << 20
    child.communicate()
    assert family_bytes(child.pid) == 0
