"""A training process of its own: started ahead of time, spoken to in JSON lines, always reaped.

It leads a session of its own, so that a signal to the worker's group does not reach it, and it ends by itself when its
parent dies or closes its standard input.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from ml import isolation

_log = logging.getLogger(__name__)
_TAIL_LINES = 20
_TAIL_BYTES = 16 * 1024

PROGRAM = ("-m", "ml.training.run")

Event = dict[str, Any]


class Child:
    """One training process, from its start to its end."""

    def __init__(self, log: Path, threads: int, warm: Sequence[str] = (), program: Sequence[str] = PROGRAM) -> None:
        """Start the process; it imports the libraries named by `warm` and waits for its specification.

        log : file that gets its standard error.
        threads : how many threads its numeric libraries may start.
        program : what Python runs; it speaks the protocol of `ml.training.run`.
        """
        self.log = log
        self._buffer = b""
        self._at_end = False
        self.exit_status: int | None = None
        self.peak_bytes: int | None = None
        arguments = [sys.executable, *program, "--parent", str(os.getpid())]
        arguments += ["--isolated"] if isolation.is_required() else []
        for library in warm:
            arguments += ["--warm", library]
        environment = {
            **os.environ,
            "OMP_NUM_THREADS": str(threads),
            # Waiting threads that spin make training many times slower on shared cores.
            "OMP_WAIT_POLICY": "PASSIVE",
            "PYTHONUNBUFFERED": "1",
        }
        with log.open("ab") as errors:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                env=environment,
            )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._stdin: BinaryIO = self._process.stdin  # type: ignore[assignment]
        self._stdout: BinaryIO = self._process.stdout  # type: ignore[assignment]
        os.set_blocking(self._stdout.fileno(), False)

    @property
    def pid(self) -> int:
        """Its process id, which is also the id of its session."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet. Reaps it when it has."""
        if self.exit_status is not None:
            return False
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            pid, status, usage = self.pid, 255 << 8, None
        if pid == 0:
            return True
        self.exit_status = os.waitstatus_to_exitcode(status)
        self._process.returncode = self.exit_status
        if usage is not None:
            self.peak_bytes = usage.ru_maxrss * 1024
        return False

    @property
    def signal_name(self) -> str | None:
        """The signal that ended it, if one did."""
        if self.exit_status is None or self.exit_status >= 0:
            return None
        try:
            return signal.Signals(-self.exit_status).name
        except ValueError:
            return f"signal {-self.exit_status}"

    def tell(self, message: dict[str, Any]) -> bool:
        """Send one line; False when it does not listen any more."""
        try:
            self._stdin.write(json.dumps(message).encode() + b"\n")
            self._stdin.flush()
        except (BrokenPipeError, ValueError):
            return False
        return True

    def events(self, timeout_s: float) -> list[Event]:
        """The events that came, waiting at most `timeout_s` seconds for the first."""
        if self._at_end:
            time.sleep(timeout_s)
            return []
        ready, _, _ = select.select([self._stdout], [], [], timeout_s)
        if ready:
            while True:
                try:
                    read = os.read(self._stdout.fileno(), 1 << 20)
                except BlockingIOError:
                    break
                if not read:
                    self._at_end = True
                    break
                self._buffer += read
        *lines, self._buffer = self._buffer.split(b"\n")
        found = []
        for line in lines:
            try:
                event = json.loads(line)
            except ValueError:
                # Only a killed process leaves half a line; its end is judged by its exit status.
                _log.error("training process %s wrote no event: %r", self.pid, line[:200])
                continue
            found.append(event)
        return found

    @property
    def is_silent(self) -> bool:
        """Whether it has ended and everything it wrote was read."""
        return not self.is_running and self._at_end

    def signal(self, number: int) -> None:
        """Send a signal to it and to everything in its session."""
        if self.is_running:
            with suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def end(self) -> None:
        """Kill it if it still runs, reap it, and close its pipes."""
        self.signal(signal.SIGKILL)
        while self.is_running:
            time.sleep(0.01)
        for pipe in (self._stdin, self._stdout):
            with suppress(BrokenPipeError):
                pipe.close()

    def log_tail(self) -> list[str]:
        """The last lines of its log."""
        try:
            with self.log.open("rb") as file:
                file.seek(0, os.SEEK_END)
                file.seek(max(0, file.tell() - _TAIL_BYTES))
                text = file.read().decode(errors="replace")
        except OSError:
            return []
        return text.splitlines()[-_TAIL_LINES:]


class Standby:
    """Processes that wait with a library imported each, so that a training starts at once.

    The next one starts when a training ends, not beside it: it would take cores and memory from it.
    """

    def __init__(self, folder: Path, threads: int, warm: Sequence[str], program: Sequence[str] = PROGRAM) -> None:
        """warm : the libraries to keep a process waiting for; a training with another one gets a fresh process."""
        self._folder = folder
        self._program = program
        self._threads = threads
        self._warm = warm
        self._count = 0
        self._children: dict[str, Child] = {}

    def prepare(self) -> None:
        """Start the waiting processes that are not there."""
        for library in self._warm:
            child = self._children.get(library)
            if child is None or not child.is_running:
                self._give_up(library)
                self._children[library] = self._start((library,))

    def take(self, library: str) -> Child:
        """The process that waits for a library, or a fresh one when there is none. It is the caller's to end."""
        child = self._children.pop(library, None)
        if child is not None and child.is_running:
            return child
        if child is not None:
            _end(child)
        return self._start((library,) if library in self._warm else ())

    def close(self) -> None:
        """End the waiting processes."""
        for library in list(self._children):
            self._give_up(library)

    def _start(self, warm: Sequence[str]) -> Child:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._count += 1
        log = self._folder / f"standby-{os.getpid()}-{self._count}.log"
        return Child(log, self._threads, warm, self._program)

    def _give_up(self, library: str) -> None:
        child = self._children.pop(library, None)
        if child is not None:
            _end(child)


def _end(child: Child) -> None:
    child.end()
    child.log.unlink(missing_ok=True)
