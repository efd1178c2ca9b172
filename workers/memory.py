"""The memory of processes: how much one holds, and whether one was killed for want of it."""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path


def anonymous_bytes(pid: int | str = "self") -> int | None:
    """Memory of a process that no file backs; None when it is gone, or the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    return None


def family_bytes(pid: int) -> int:
    """Anonymous memory of a process and all that descend from it, those in other sessions included."""
    family, found = [pid], 0
    for each in family:
        found += anonymous_bytes(each) or 0
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with suppress(OSError):  # the thread ended
                family += map(int, children.read_text().split())
    return found


def held_bytes(*, thorough: bool = False) -> int | None:
    """Anonymous memory of this process after what is free went back to the system; None when that does not tell.

    thorough : whether garbage is collected before, which takes tens of milliseconds.
    """
    if thorough:
        gc.collect()
    _trim()(0)
    return anonymous_bytes()


@cache
def _trim() -> Callable[[int], int]:
    """What glibc gives free memory back with; with other C libraries nothing."""
    with suppress(OSError, AttributeError):
        found: Callable[[int], int] = ctypes.CDLL(None).malloc_trim
        return found
    return lambda pad: 0


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
