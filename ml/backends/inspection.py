"""Looks at a model file from elsewhere in a process of its own, before the library may touch it in this one.

A broken file can end the process that reads it (xgboost 3.2 aborts on an empty one), or take all memory. The
inspecting process has limits on time and memory, none of our environment, no way to gain rights and, where the kernel
allows it, no network: `python -m ml.backends.inspection BACKEND FILE [isolated]` prints the facts as JSON. With
`isolated` the file is refused where the kernel does not allow it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ml import isolation
from ml.errors import MissingExtra, MlError, ModelUnusable, NotIsolated

#: Seconds of processor time, and of patience, for one file.
CPU_LIMIT_S = 60
WAIT_LIMIT_S = 120.0
#: Address space for the libraries, and for each byte of the file.
MEMORY_FLOOR_BYTES = 8 * 2**30
MEMORY_PER_BYTE = 20
#: What it may say of the file: names of inputs, mostly.
ANSWER_LIMIT_BYTES = 64 * 2**20

_PR_SET_PDEATHSIG = 1
_PR_SET_NO_NEW_PRIVS = 38
_REFUSED = 3


def inspect(backend: str, path: Path) -> dict[str, Any]:
    """The facts that the backend's `facts` finds in a model file.

    Raises ModelUnusable, also when the library crashes, hangs or runs out of memory over the file; MissingExtra;
    NotIsolated where isolation is required and cannot be had.
    """
    environment = {"PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "ml.backends.inspection", backend, str(path)]
    command += ["isolated"] if isolation.is_required() else []
    with tempfile.TemporaryFile() as answers:
        try:
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=answers,
                stderr=subprocess.DEVNULL,
                timeout=WAIT_LIMIT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ModelUnusable(f"model file {path.name} could not be read within {WAIT_LIMIT_S:g} s") from None
        answers.seek(0)
        told = answers.read(ANSWER_LIMIT_BYTES)  # whoever took that process over may have written more
    try:
        answer = json.loads(told)
    except (ValueError, RecursionError):
        raise ModelUnusable(f"model file {path.name} is broken: reading it ended the reading process") from None
    if done.returncode == _REFUSED:
        if answer["kind"] == MissingExtra.kind:
            raise MissingExtra(backend, answer["extra"])
        if answer["kind"] == NotIsolated.kind:
            raise NotIsolated
        raise ModelUnusable(answer["message"])
    return dict(answer)


def confine(size: int) -> bool:
    """Give up what reading a file of `size` bytes does not need; False when that leaves the network within reach."""
    memory = MEMORY_FLOOR_BYTES + MEMORY_PER_BYTE * size
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_LIMIT_S, CPU_LIMIT_S))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (ANSWER_LIMIT_BYTES, ANSWER_LIMIT_BYTES))
    if sys.platform == "linux":
        system = ctypes.CDLL(None, use_errno=True)
        system.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        system.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    return isolation.leave_network()


def main(arguments: Sequence[str]) -> int:
    """Print the facts of one file, or the error, and nothing else."""
    from ml import registry

    name, path = arguments[0], Path(arguments[1])
    answers = os.dup(1)
    os.dup2(2, 1)  # what libraries print is no answer
    size = 0
    with contextlib.suppress(OSError):  # a file that is away is told by its library
        size = path.stat().st_size
    code = 0
    try:
        if not confine(size) and "isolated" in arguments[2:]:
            raise NotIsolated
        answer = registry.find(name).facts(path)
    except MlError as error:
        code = _REFUSED
        answer = {"kind": error.kind, "message": str(error), "extra": getattr(error, "extra", None)}
    told = json.dumps(answer).encode()
    if len(told) > ANSWER_LIMIT_BYTES:
        code, text = _REFUSED, f"model file {path.name} has names of inputs of more than {ANSWER_LIMIT_BYTES} bytes"
        told = json.dumps({"kind": ModelUnusable.kind, "message": text}).encode()
    with open(answers, "wb") as file:
        file.write(told)
    return code


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
