"""The packages that each role imports: there, in the right version, and importable. And whether a GPU can be used."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

import settings as settings_module
from cli.doctor.findings import Found, fail, ok, warn
from cli.doctor.machine import gpu_devices
from settings import Settings

IMPORT_S = 60.0
"""How long the libraries of one extra may take to be imported; a big one takes seconds, on a busy machine many."""

# Builds for a GPU of what is named for the CPU; both are imported by the same name.
_SAME = {"xgboost-cpu": "xgboost", "tensorflow-cpu": "tensorflow"}
_IMPORT = "import importlib, sys\nfor name in sys.argv[1:]: importlib.import_module(name)"
_GPU = """
import json, sys
import torch
found = torch.cuda.is_available()
print(json.dumps([torch.cuda.get_device_name(n) for n in range(torch.cuda.device_count())] if found else []))
"""


def extras_of(role: str, settings: Settings) -> list[str]:
    """The extras whose packages a role needs with these settings; "" is what every role needs."""
    wanted = [""]
    if role in {"api", "up"}:
        wanted.append("api")
    if role in {"worker", "up"}:
        wanted += ["worker", *_engines()]
    if role != "client" and settings.objects_url.startswith("s3://"):
        wanted.append("s3")
    if role != "client" and settings.database_url.startswith(("postgres://", "postgresql")):
        wanted.append("postgres")
    if role == "up" and settings.flower_port:
        wanted.append("flower")
    return wanted


def _engines() -> list[str]:
    """The extras of the engines that are installed here."""
    from ml.options.catalog import libraries

    found = {each.extra: each.engine for each in libraries().values()}
    return [extra for extra, engine in found.items() if importlib.util.find_spec(engine) is not None]


def extra(name: str) -> Found:
    """The packages of one extra."""
    try:
        wanted = list(_requirements(name))
    except metadata.PackageNotFoundError:
        yield warn("Modelyard itself is not installed", "run: pip install -c constraints.txt .")
        return
    cure = f"run: pip install -c constraints.txt 'modelyard[{name}]'" if name else "run: pip install modelyard"
    told, tested = [], _tested()
    for requirement in wanted:
        distribution = _installed(requirement.name)
        if distribution is None:
            yield fail(f"{requirement.name} is not installed", cure)
            return
        version = distribution.version
        if not requirement.specifier.contains(version, prereleases=True):
            yield fail(f"{requirement.name} {version} is none of {requirement.specifier}", cure)
            return
        pin = tested.get(requirement.name.lower())
        # A build tag, as in 2.13.0+cpu, is no other version.
        if pin is not None and version.partition("+")[0] != pin:
            yield warn(f"{requirement.name} {version} was not tested, {pin} was", cure)
        told.append(f"{requirement.name} {version}")
    try:
        problem = _import_problem([module for requirement in wanted for module in _modules(requirement.name)])
    except subprocess.TimeoutExpired:
        # It may hang, and it may be slow: a busy machine takes long for the big ones.
        busy = "see what else keeps this machine busy and ask again; then reinstall them, or the driver of the GPU"
        yield warn(f"{', '.join(told)}: not imported within {IMPORT_S:g} s", busy)
        return
    yield fail(f"cannot be imported: {problem}", cure) if problem else ok(", ".join(told))


def no_engine() -> Found:
    """Told instead of the engines where none is installed."""
    yield fail("no engine that trains is installed", "run: pip install 'modelyard[xgboost]', or [torch], or both")


def embedded_redis() -> Found:
    """The program that `modelyard up` starts where no Redis is named."""
    from cli.services import redis_server
    from cli.stack import StackError

    try:
        yield ok(f"modelyard up starts {redis_server()}")
    except StackError as error:
        problem, _, advice = str(error).partition("; ")
        yield fail(problem, advice)


def _requirements(name: str) -> Iterator[Requirement]:
    for line in metadata.requires("modelyard") or ():
        requirement = Requirement(line)
        if requirement.name.lower() == "modelyard":
            continue
        if requirement.marker is None:
            is_wanted = name == ""
        else:
            is_wanted = name != "" and requirement.marker.evaluate({"extra": name})
            is_wanted = is_wanted and "extra" in str(requirement.marker)
        if is_wanted:
            yield requirement


def _installed(name: str) -> metadata.Distribution | None:
    for each in (name, _SAME.get(name.lower(), name)):
        try:
            return metadata.distribution(each)
        except metadata.PackageNotFoundError:
            continue
    return None


def _tested() -> dict[str, str]:
    """The versions that were tested together, where this runs from a folder that holds them."""
    try:
        lines = (Path(settings_module.__file__).resolve().parent / "constraints.txt").read_text().splitlines()
    except OSError:
        return {}
    return {found[1].lower(): found[2] for line in lines if (found := re.match(r"([\w.-]+)==(\S+)", line))}


def _modules(name: str) -> list[str]:
    """What a package is imported by; nothing for one that brings no module, such as a server."""
    distribution = _installed(name)
    listed = (distribution.read_text("top_level.txt") or "").split() if distribution is not None else []
    names = [*listed, name.replace("-", "_").lower(), _SAME.get(name.lower(), "")]
    found = [each for each in names if each and not each.startswith("_") and importlib.util.find_spec(each)]
    return found[:1]


def _import_problem(modules: list[str]) -> str | None:
    """Imports in a process of its own, which may crash; raises TimeoutExpired when it hangs."""
    ended = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _IMPORT, *modules],
        capture_output=True,
        text=True,
        errors="replace",
        timeout=IMPORT_S,
        stdin=subprocess.DEVNULL,
    )
    if ended.returncode == 0:
        return None
    return (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]


def gpu() -> Found:
    """Whether a GPU that is there can be used."""
    devices = gpu_devices()
    if not devices:
        yield ok("no NVIDIA GPU is seen, so the CPU is used")
        return
    if importlib.util.find_spec("torch") is None:
        yield warn(f"{len(devices)} GPU, but no torch to use it", "run: pip install 'modelyard[torch]'")
        return
    try:
        ended = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", _GPU],
            capture_output=True,
            text=True,
            timeout=IMPORT_S,
            stdin=subprocess.DEVNULL,
        )
        names = json.loads(ended.stdout or "[]")
    except (subprocess.TimeoutExpired, ValueError):
        names = []
    if names:
        yield ok(f"{', '.join(names)}, usable by torch")
    else:
        yield warn(
            f"{len(devices)} GPU, which torch cannot use",
            "install PyTorch's build for CUDA, and a driver that is new enough for it (nvidia-smi tells)",
        )
