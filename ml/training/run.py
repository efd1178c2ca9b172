"""The training child: `python -m ml.training.run [--warm LIBRARY …] [--parent PID] [--isolated]`.

It reads a specification (one JSON line) and then commands from stdin, and writes events (one JSON line each) to what
stdout was at the start. What is logged becomes an event as well; everything else that prints goes to stderr, which is
a log.

A child must never outlive its supervisor: the kernel kills it when its parent dies, and the end of stdin ends it.
Exit codes: 0 after "finished", "cancelled" or "paused"; 3 after an "error" that the request caused; 4 after one that
nobody expected; 1 when stdin ended; 2 for a wrong start.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import logging
import os
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any

from ml import isolation

PR_SET_PDEATHSIG = 1
EXIT_STDIN_ENDED = 1
EXIT_WRONG_START = 2
EXIT_REFUSED = 3
EXIT_UNEXPECTED = 4

_log = logging.getLogger("ml.process")  # by name: this module is __main__ where it runs


def reset_signals() -> None:
    """Give every signal its default action: children of a pool process inherit ignored TERM and INT."""
    for number in signal.valid_signals():
        if number in (signal.SIGKILL, signal.SIGSTOP):
            continue
        with contextlib.suppress(OSError, ValueError):  # numbers that the C library keeps for itself
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def follow_parent(parent: int | None) -> bool:
    """Die with the parent process; False when `parent` is no longer it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The parent may have died before the line above; then nobody would send the signal.
    return parent is None or os.getppid() == parent


def offer_to_oom_killer() -> None:
    """Let the kernel take this process first when memory runs out, so that the supervisor survives to tell."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:
        pass  # no such file on this system: only the choice of the victim is lost


class Events:
    """Writes events to a file descriptor, whole lines only, from any thread.

    phase : the last phase that was told.
    """

    def __init__(self, descriptor: int) -> None:
        self.phase = "starting"
        self._file = os.fdopen(descriptor, "wb")
        self._lock = threading.Lock()

    def __call__(self, event: dict[str, Any]) -> None:
        from ml.training.session import encoded

        self.phase = event.get("phase", self.phase)
        line = encoded(event)
        with self._lock:
            self._file.write(line)
            self._file.flush()


class Commands:
    """Reads stdin in a thread: the specification first, then "cancel" or "pause". Its end ends this process."""

    def __init__(self, descriptor: int) -> None:
        self._file = os.fdopen(descriptor, "rb")
        self.specification: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._stop: Any = None
        threading.Thread(target=self._read, name="commands", daemon=True).start()

    def stop(self) -> Any:
        """The command to stop that came last, if any; a cancel is never taken back by a pause."""
        return self._stop

    def _read(self) -> None:
        self.specification.put(self._file.readline())
        for line in self._file:
            try:
                command = json.loads(line)["command"]
            except (ValueError, KeyError, TypeError):
                print(f"unreadable command {line[:200]!r}", file=sys.stderr, flush=True)
                continue
            if command in ("cancel", "pause") and self._stop != "cancel":
                self._stop = command
        # The supervisor is gone: nobody can use what this process still does.
        os._exit(EXIT_STDIN_ENDED)


def own_stdout() -> Events:
    """Keep stdout for events and send whatever libraries print there to stderr."""
    events = os.dup(1)
    os.dup2(2, 1)
    return Events(events)


Work = Callable[[dict[str, Any], Events, Callable[[], Any]], None]
"""What is done with a specification: it tells its events and asks which command to stop came."""


def main(arguments: Sequence[str] | None = None, work: Work | None = None, what: str = "training") -> int:
    """Run one training, or other work that is called `what`; returns the exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--warm", action="append", default=[], help="library to import before the specification comes")
    parser.add_argument("--parent", type=int, help="process id that must be the parent")
    parser.add_argument("--isolated", action="store_true", help="look into files from elsewhere without a network only")
    asked = parser.parse_args(arguments)
    reset_signals()
    if not follow_parent(asked.parent):
        return EXIT_WRONG_START
    offer_to_oom_killer()
    isolation.require(asked.isolated)
    emit = own_stdout()
    commands = Commands(os.dup(0))
    return serve(emit, commands, asked.warm, work or _train, what)


def _train(specification: dict[str, Any], emit: Events, stop: Callable[[], Any]) -> None:
    from ml.training import session

    session.run(session.Specification.from_json(specification), emit, stop)


def serve(emit: Events, commands: Commands, warm: Sequence[str], work: Work = _train, what: str = "training") -> int:
    """Import, say "ready", wait for the specification, and train or do what else is wanted."""
    from ml import registry
    from ml.errors import MlError
    from ml.telling import listen

    listen(emit)
    try:
        for name in warm:
            registry.find(name).warm()
        emit({"event": "ready"})
        line = commands.specification.get()
        if not line:
            return EXIT_STDIN_ENDED
        work(json.loads(line), emit, commands.stop)
    except MlError as error:
        emit(_error(error, emit.phase, error.kind, str(error)))
        return EXIT_REFUSED
    except MemoryError as error:
        emit(_error(error, emit.phase, "out_of_memory", f"the {what} needs more memory than the machine gives"))
        return EXIT_REFUSED
    except Exception as error:  # the top of this process
        traceback.print_exc()
        _log.exception("unexpected error in %s", what)
        message = f"unexpected error in {what}: {type(error).__name__}: {error}"
        emit(_error(error, emit.phase, "internal", message))
        return EXIT_UNEXPECTED
    return 0


def _error(error: Exception, phase: str, kind: str, message: str) -> dict[str, Any]:
    """The event of a failure: `section` and `parameter` are the part of the request at fault, if it was that."""
    return {
        "event": "error",
        "kind": kind,
        "class": type(error).__name__,
        "section": getattr(error, "section", None),
        "parameter": getattr(error, "name", None) if kind == "bad_parameter" else None,
        "phase": phase,
        "message": message,
    }


def leave(code: int) -> None:
    """End this process: libraries with threads may hang or crash while the interpreter takes itself apart."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    leave(main())
