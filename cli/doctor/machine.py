"""This machine: Python, files, memory, handles, ports, GPU."""

from __future__ import annotations

import glob
import os
import platform
import resource
import shutil
import sys
import tempfile
from pathlib import Path

from cli.doctor.findings import Found, fail, ok, warn
from ml.isolation import is_possible
from settings import Settings

_GIB = 2**30
_DISK_FEW, _DISK_NONE = 5 * _GIB, _GIB // 2
_MEMORY_FEW, _MEMORY_NONE = _GIB, _GIB // 4
# The API holds 4096 predictions at once, each on a connection of its own.
_FILES_FEW, _FILES_NONE = 4096, 1024
_OLDEST_PYTHON = (3, 11)


def python() -> Found:
    """Python and the system."""
    here = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
    if sys.version_info < _OLDEST_PYTHON:
        yield fail(here, "install Python 3.11 or later, and Modelyard into an environment of that")
    elif platform.system() != "Linux":
        yield warn(here, "run servers and workers on Linux; other systems can only send requests")
    else:
        yield ok(here)


def home(settings: Settings) -> Found:
    """MODELYARD_HOME: rights and space, and the length of the embedded server's socket."""
    from cli.services import socket_fits

    folder = settings.home
    if not folder.is_dir():
        above = next(each for each in folder.parents if each.exists())
        if os.access(above, os.W_OK | os.X_OK):
            yield warn(f"{folder} is not there yet", "start a part (modelyard up), which makes it")
        else:
            yield fail(f"{folder} is not there, and cannot be made in {above}", "name another one in MODELYARD_HOME")
    else:
        yield from _writable(folder)
        yield from _space(folder)
    if settings.redis_url is None and not socket_fits(settings):
        yield fail(f"the socket {settings.redis_socket} has a longer path than the system allows", "shorten the path")


def _writable(folder: Path) -> Found:
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"doctor")
    except OSError as error:
        cure = f"give it to the user {os.geteuid()} who runs Modelyard (chown), or name another one in MODELYARD_HOME"
        yield fail(f"{folder} cannot be written: {error.strerror}", cure)
        return
    if folder.stat().st_mode & 0o007:
        text = f"anybody on this machine gets into {folder}, where records, models and data lie"
        yield warn(text, f"run: chmod o= {folder}")
    else:
        yield ok(f"{folder} can be written")


def _space(folder: Path) -> Found:
    free = shutil.disk_usage(folder).free
    text = f"{_size(free)} of disk are free below {folder}"
    cure = "free some, or lower MODELYARD_CACHE_LIMIT_BYTES and MODELYARD_ATTEMPTS_KEPT_S"
    yield fail(text, cure) if free < _DISK_NONE else warn(text, cure) if free < _DISK_FEW else ok(text)


def data_roots(settings: Settings) -> Found:
    """The folders that requests may use."""
    for root in settings.data_roots:
        if not root.is_dir():
            if root != settings.home / "data":
                yield fail(f"{root} is no folder", "create it, or name another one in MODELYARD_DATA_ROOTS")
            elif settings.redis_url is None:
                yield warn(f"{root} is no folder", "modelyard up makes it")
            else:  # a part of a fleet, which need not share any folder
                yield ok(f"{root} is not there, so requests read no files of this machine")
        elif not os.access(root, os.R_OK | os.X_OK):
            yield fail(f"{root} cannot be read", f"give the user {os.geteuid()} the right to")
        elif not os.access(root, os.W_OK):
            yield warn(f"{root} cannot be written", "keep repositories elsewhere, or give the right to write")
        else:
            yield ok(f"{root} can be read and written")


def memory() -> Found:
    """What is free, of the machine and of the control group."""
    free = min([_machine_memory(), *_group_memory()])
    text = f"{_size(free)} of memory are free"
    cure = "stop something, or start fewer workers: a training holds its table in memory"
    yield fail(text, cure) if free < _MEMORY_NONE else warn(text, cure) if free < _MEMORY_FEW else ok(text)


def _machine_memory() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "MemAvailable":
            return int(value.split()[0]) * 1024
    raise ValueError("/proc/meminfo tells no MemAvailable")


def _group_memory() -> list[int]:
    """What a container may still take; nothing where it has no limit."""
    try:
        most = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        cached = dict(line.split() for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines())
        # Pages of files that nobody uses are given back when memory is short.
        return [] if most == "max" else [max(0, int(most) - used + int(cached.get("inactive_file", 0)))]
    except (OSError, ValueError):
        return []


def open_files() -> Found:
    """How many files and connections a process may open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    text = f"a process may open {'any number of' if soft == resource.RLIM_INFINITY else soft} files and connections"
    cure = f"raise it before starting: ulimit -n {_FILES_FEW} (LimitNOFILE under systemd, nofile in limits.conf)"
    is_many = soft == resource.RLIM_INFINITY or soft >= _FILES_FEW
    yield ok(text) if is_many else fail(text, cure) if soft < _FILES_NONE else warn(text, cure)


def isolation(settings: Settings) -> Found:
    """Whether the kernel lets processes that look into models, archives and tables of others leave the network."""
    cure = "allow user namespaces (sysctl, AppArmor or seccomp of the container), or "
    if is_possible():
        yield ok("what looks into files from elsewhere does so without a network")
    elif settings.isolation == "required":
        text = "what looks into files from elsewhere cannot leave the network, so these are refused"
        yield fail(text, f"{cure}set MODELYARD_ISOLATION=where_possible and take files of people you trust")
    else:
        yield warn(
            "what looks into files from elsewhere cannot leave the network", f"{cure}take files of people you trust"
        )


def gpu_devices() -> list[str]:
    """The NVIDIA GPUs that the kernel shows."""
    return sorted(glob.glob("/dev/nvidia[0-9]*"))


def _size(count: float) -> str:
    return f"{count / _GIB:.1f} GiB"
