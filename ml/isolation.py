"""Leaving the network: what a process does before it looks into a file from elsewhere, where the kernel lets it.

As a program it ends with 0 when it could: so that the process that asks can stay where it is.
"""

from __future__ import annotations

import ctypes
import subprocess
import sys

_CLONE_NEWUSER = 0x10000000
_CLONE_NEWNET = 0x40000000
_required = False


def leave_network() -> bool:
    """Give this process a network of its own, in which there is nothing. False when the kernel forbids it."""
    if sys.platform != "linux":
        return False
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    # The first needs no rights but user namespaces, the second rights alone.
    return bool(unshare(_CLONE_NEWUSER | _CLONE_NEWNET) == 0 or unshare(_CLONE_NEWNET) == 0)


def is_possible() -> bool:
    """Whether a process of this one's kind could leave the network. Tried in another one."""
    done = subprocess.run([sys.executable, "-I", "-S", __file__], capture_output=True, env={}, check=False)
    return done.returncode == 0


def require(is_required: bool) -> None:
    """From now on files from elsewhere are, or are not, refused by this process where the network cannot be left."""
    global _required
    _required = is_required


def is_required() -> bool:
    """Whether files from elsewhere are refused where the network cannot be left."""
    return _required


if __name__ == "__main__":
    sys.exit(0 if leave_network() else 1)
