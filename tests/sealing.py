"""A kernel that keeps processes in the network, as the default profile of a container does."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

import pytest

# A filter of system calls is inherited by all that a process starts, and nobody can take it off again.
_SEAL = """
import ctypes, os, platform, struct, sys
unshare = {"x86_64": 272}.get(platform.machine(), 97)
steps = [(0x20, 0, 0, 0), (0x15, 0, 1, unshare), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
class Program(ctypes.Structure):
    _fields_ = [("count", ctypes.c_ushort), ("steps", ctypes.c_void_p)]
system = ctypes.CDLL(None, use_errno=True)
program = Program(len(steps), ctypes.addressof(code))
if system.prctl(38, 1, 0, 0, 0) or system.prctl(22, 2, ctypes.byref(program), 0, 0):
    sys.exit("the system call cannot be forbidden")
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


@pytest.fixture
def sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python programs that the test starts cannot leave the network."""
    program, seal = tmp_path / "sealed-python", tmp_path / "seal.py"
    seal.write_text(_SEAL)
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S {shlex.quote(str(seal))} "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
