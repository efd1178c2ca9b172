"""Was a process killed for want of memory? The kernel counts such kills per control group."""

from __future__ import annotations

from pathlib import Path


def _events_file(proc_cgroup: Path, mount: Path) -> Path | None:
    """The `memory.events` of the version 2 control group this process is in."""
    try:
        lines = proc_cgroup.read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        number, _, path = line.split(":", 2)
        if number == "0":
            found = mount / path.lstrip("/") / "memory.events"
            # Inside a container the path is that of the host; there the group is mounted at the top.
            return found if found.exists() else mount / "memory.events"
    return None


def memory_kills(proc_cgroup: Path = Path("/proc/self/cgroup"), mount: Path = Path("/sys/fs/cgroup")) -> int | None:
    """How many processes of our control group the kernel killed for want of memory; None when it does not tell."""
    events = _events_file(proc_cgroup, mount)
    if events is None:
        return None
    try:
        for line in events.read_text().splitlines():
            name, _, count = line.partition(" ")
            if name == "oom_kill":
                return int(count)
    except (OSError, ValueError):
        return None
    return None
