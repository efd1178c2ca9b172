"""Nothing is left behind: how a process of the stack is tied to its supervisor, and how strays are found.

Also a program of its own, which needs the standard library only and so starts in some hundredths of a second:

    guard.py run PARENT COMMAND…    becomes COMMAND, which the kernel kills when PARENT ends
    guard.py reap MARK              waits for the end of its standard input, then kills all that carries MARK

Linux only: it reads /proc and sets the parent-death signal.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence

MARK = "MODELYARD_STACK"
"""The environment variable that every process of a stack carries, its descendants included."""

_PR_SET_PDEATHSIG = 1
_REAP_S = 10.0


def _processes() -> Iterator[int]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            yield int(name)


def _carries(pid: int, entry: bytes) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return entry in file.read().split(b"\0")
    except OSError:  # it ended meanwhile, or belongs to another user
        return False


def marked(mark: str) -> list[int]:
    """Processes that were started with MODELYARD_STACK=mark, in sessions of their own or not; never this one.

    Processes that have ended but were not reaped yet have no environment any more and are not listed.
    """
    entry = f"{MARK}={mark}".encode()
    return [pid for pid in _processes() if pid != os.getpid() and _carries(pid, entry)]


def session_members(session: int) -> list[int]:
    """Living processes of a session."""
    found = []
    for pid in _processes():
        try:
            with open(f"/proc/{pid}/stat", "rb") as file:
                # The name, in parentheses, may hold anything; then: state, parent, group, session, …
                state, _, _, its_session = file.read().rpartition(b")")[2].split()[:4]
        except (OSError, ValueError):
            continue
        if int(its_session) == session and state not in {b"Z", b"X"}:
            found.append(pid)
    return found


def kill_session(session: int) -> None:
    """KILL every process of a session; processes in sessions of their own are not touched."""
    for pid in session_members(session):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)


def kill_marked(mark: str, timeout_s: float = _REAP_S) -> list[int]:
    """KILL every process that carries the mark, until none is left; returns those that were killed.

    Gives up after `timeout_s`, as a process that hangs in the kernel cannot be ended.
    """
    entry = f"{MARK}={mark}".encode()
    killed: list[int] = []
    deadline = time.monotonic() + timeout_s
    calm = 0
    while calm < 2 and time.monotonic() < deadline:
        found = marked(mark)
        # Seen twice, as a process may have been starting another one while /proc was read.
        calm = 0 if found else calm + 1
        for pid in found:
            if _kill_if_carrying(pid, entry) and pid not in killed:
                killed.append(pid)
        time.sleep(0.02)
    return killed


def _kill_if_carrying(pid: int, entry: bytes) -> bool:
    """The handle is taken first and the mark read again: the number may belong to another process by now."""
    try:
        handle = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if not _carries(pid, entry):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False
    finally:
        os.close(handle)


def guarded(command: Sequence[str]) -> list[str]:
    """`command`, tied to this process: for a Popen by the thread that lives as long as the command may.

    The kernel watches the thread that starts a process, not the process that the thread belongs to.
    """
    return [sys.executable, "-I", "-S", os.path.abspath(__file__), "run", str(os.getpid()), *command]


def _run(parent: int, command: Sequence[str]) -> int:
    """Becomes `command`. Returns only when that fails."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        print("the parent-death signal cannot be set", file=sys.stderr)
        return 126
    if os.getppid() != parent:  # it ended before the kernel was told to watch it
        return 126
    # A supervisor under nohup, or with signals blocked, must not hand that on: TERM has to stop a service.
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    try:
        os.execvp(command[0], list(command))
    except OSError as error:
        print(f"{command[0]} cannot be started: {error.strerror}", file=sys.stderr)
    return 127


def _reap(mark: str) -> int:
    """The supervisor holds the other end of standard input, and the kernel closes that however it ends."""
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    while os.read(0, 4096):
        pass
    kill_marked(mark)
    return 0


def main(arguments: Sequence[str]) -> int:
    """Entry of the program."""
    match arguments:
        case ["run", parent, *command] if command:
            return _run(int(parent), command)
        case ["reap", mark]:
            return _reap(mark)
    print("use: guard.py run PARENT COMMAND… | guard.py reap MARK", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
