"""Memory of processes, and the kernel's count of kills for want of it where the control group is mounted."""

from __future__ import annotations

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


# Says that it runs, begins a child, of a session of its own, that holds 64 MiB, and ends after it.
PARENT = """
import subprocess, sys
print("alone", flush=True)
sys.stdin.readline()
held = "import sys; held = bytearray(b'x') * (64 << 20); print('both', flush=True); sys.stdin.read()"
subprocess.run([sys.executable, "-c", held], start_new_session=True)
"""


def test_memory_of_a_family_is_that_of_the_process_and_of_its_child() -> None:
    # Not of this process, whose other children, servers of other tests, come and go meanwhile.
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin is not None
    assert parent.stdout is not None
    with parent:
        assert parent.stdout.readline() == "alone\n"
        alone = family_bytes(parent.pid)
        assert alone > 0
        parent.stdin.write("\n")
        parent.stdin.flush()
        assert parent.stdout.readline() == "both\n"
        assert family_bytes(parent.pid) - alone > 60 << 20
        parent.communicate()
    assert family_bytes(parent.pid) == 0
