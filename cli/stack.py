"""One supervisor for all services of a machine: started in order, restarted when they end, ended together."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO

from cli import guard
from cli.remote.tables import counted
from settings import Settings

LOG_LIMIT_BYTES = 10 * 2**20
LOGS_KEPT = 3
_ROTATE_S = 10.0
_TICK_S = 0.05
_FAILURES_MAX = 4
_SETTLED_S = 0.5


class StackError(Exception):
    """The stack cannot start or go on; the text says what is wrong and what to do."""


@dataclass(frozen=True)
class Service:
    """A program that runs as long as the stack does.

    stage : a lower stage starts first, is waited for where it has `not_ready`, and is stopped last.
    not_ready : asked again and again after the start; says what is still missing, or None; never takes long.
    stop_s : seconds between TERM and KILL.
    port : address that must be free before anything starts, with the variable that changes it.
    noise : pattern of lines that say nothing of why it ended, when its last words are told.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stage: int = 0
    stop_s: float = 10.0
    not_ready: Callable[[], str | None] | None = None
    port: tuple[str, int, str] | None = None
    noise: str | None = None


@dataclass(frozen=True)
class Step:
    """A program that must end well before the services of its stage and all later ones start."""

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    stage: int = 0
    limit_s: float = 60.0


@dataclass(frozen=True)
class Backoff:
    """Seconds before a service that ended is started again: doubled each time, from `first_s` to `most_s`.

    A service that lived for `healthy_s` begins at `first_s` again.
    """

    first_s: float = 0.5
    most_s: float = 10.0
    healthy_s: float = 60.0

    def delay_s(self, failures: int) -> float:
        """The wait after the given number of failures in a row, which is at least 1."""
        return min(self.most_s, self.first_s * 2.0 ** min(failures - 1, 30))


class _Watched:
    """A service and what has become of it."""

    def __init__(self, service: Service, log: Path) -> None:
        self.service = service
        self.log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.failures = 0
        self.began = 0.0
        self.log_began = 0
        self.starts_at = 0.0

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None


class Stack:
    """Runs services until it is stopped. Use it from one thread, or as a context manager.

    Without `services` it runs what `modelyard up` runs. `report` gets one line for each change.

    Every process carries MODELYARD_STACK=<mark>. A helper process outlives a supervisor that is killed and
    ends all that carries the mark; should both be killed, the next start in the same home does it.
    """

    def __init__(
        self,
        settings: Settings,
        services: Sequence[Service] | None = None,
        steps: Sequence[Step] | None = None,
        *,
        backoff: Backoff | None = None,
        report: Callable[[str], None] = lambda line: None,
    ) -> None:
        if services is None:
            from cli import services as known

            services = known.services_of(settings)
            steps = known.steps_of(settings) if steps is None else steps
        names = [service.name for service in services]
        if len(set(names)) != len(names):
            raise ValueError(f"two services have the same name: {names}")
        self.settings = settings
        self.services: tuple[Service, ...] = tuple(services)
        self.steps: tuple[Step, ...] = tuple(steps or ())
        self.mark = uuid.uuid4().hex
        self.logs = settings.home / "logs"
        self._backoff = backoff or Backoff()
        self._report = report
        self._watched = {service.name: _Watched(service, self.log_of(service.name)) for service in services}
        self._rotates_at = 0.0
        self._stop = threading.Event()
        self._hurry = threading.Event()
        self._up = threading.Event()
        self._problem: str | None = None
        self._thread: threading.Thread | None = None
        self._lock_file: IO[str] | None = None
        self._reaper: subprocess.Popen[bytes] | None = None

    # What callers use

    def start(self) -> None:
        """Start everything in order; returns when all services have been started, not when they are ready.

        Raises StackError, with nothing left running, when something is missing or in use, or a step fails.
        """
        if self._thread is not None:
            raise StackError("this stack was started before; make another one")
        self._prepare()
        self._thread = threading.Thread(target=self._supervise, name="stack")
        self._thread.start()
        try:
            self._up.wait()
        except BaseException:
            self.stop()
            raise
        if self._stop.is_set():
            self.stop()
            raise StackError(self._problem or "stopped while it was starting")

    def ask_stop(self) -> None:
        """Begin to stop, without waiting; a second call kills what is left. Safe in a signal handler."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    def stop(self) -> None:
        """Stop everything, last stage first, and return when no process of the stack is left."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def beside(self, step: Step) -> subprocess.Popen[bytes]:
        """Start a program that ends by itself, once everything runs; the caller waits for it.

        It ends with the stack at the latest. Its log begins anew.
        """
        log = self.log_of(step.name)
        log.unlink(missing_ok=True)
        return self._spawn(step.argv, step.env, log)

    @property
    def is_stopping(self) -> bool:
        """Whether somebody asked it to stop."""
        return self._stop.is_set()

    def not_ready(self) -> dict[str, str]:
        """What is still missing, by service; empty when every service runs and answers.

        A service that cannot be asked counts once it has lived for half a second.
        """
        missing = {}
        for name, watched in self._watched.items():
            if not watched.is_alive:
                missing[name] = "does not run" + self._last_words(watched)
            elif watched.service.not_ready is not None:
                if reason := watched.service.not_ready():
                    missing[name] = reason
            elif time.monotonic() - watched.began < _SETTLED_S:
                missing[name] = "has just started"
        return missing

    def wait_ready(self, timeout_s: float = 60.0) -> None:
        """Wait until every service runs and answers.

        Raises StackError when a service keeps ending, the stack was stopped, or `timeout_s` passes.
        """
        deadline = time.monotonic() + timeout_s
        while missing := self.not_ready():
            if self.is_stopping:
                raise StackError("stopped before it was ready")
            for watched in self._watched.values():
                if watched.failures >= _FAILURES_MAX:
                    raise StackError(self._hopeless(watched))
            if time.monotonic() > deadline:
                told = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
                raise StackError(f"not ready after {timeout_s:g} s: {told}. Logs: {self.logs}")
            self._stop.wait(0.1)

    def pid_of(self, name: str) -> int | None:
        """The process of a service, or None while it does not run. Its number is also that of its session."""
        process = self._watched[name].process
        return process.pid if process is not None and process.poll() is None else None

    def log_of(self, name: str) -> Path:
        """Where a service or step writes its output."""
        return self.logs / f"{name}.log"

    def __enter__(self) -> Stack:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    # Before the start

    def _prepare(self) -> None:
        if not sys.platform.startswith("linux"):
            raise StackError(
                "the one-machine stack needs Linux; elsewhere run it in a container: see docker-compose.yml"
            )
        home = self.settings.home
        try:
            home.mkdir(parents=True, exist_ok=True, mode=0o700)
            self.logs.mkdir(exist_ok=True)
            redis = self.settings.redis_socket.parent
            redis.mkdir(exist_ok=True, mode=0o700)
            redis.chmod(0o700)  # whoever may open the socket may command the workers
        except OSError as error:
            raise StackError(
                f"MODELYARD_HOME={home} cannot be written ({error.strerror}); name another folder"
            ) from None
        self._lock()
        try:
            self._check_ports()
        except StackError:
            self._unlock()
            raise

    def _lock(self) -> None:
        file = _lock_path(self.settings.home).open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            holder = _pid_in(file.read())
            file.close()
            raise StackError(
                f"a stack already runs on {self.settings.home}{f' (process {holder})' if holder else ''}; "
                "stop it, or set MODELYARD_HOME and the ports to run a second one"
            ) from None
        file.seek(0)
        for mark in _marks_in(file.read()):
            if killed := guard.kill_marked(mark):
                self._say(f"ended {counted(len(killed), 'process', 'processes')} that an earlier run had left behind")
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "mark": self.mark}))
        file.flush()
        self._lock_file = file

    def _unlock(self) -> None:
        if self._lock_file is not None:
            self._lock_file.truncate(0)
            self._lock_file.close()
            self._lock_file = None

    def _check_ports(self) -> None:
        for service in self.services:
            if service.port is None:
                continue
            host, port, variable = service.port
            try:
                _try_port(host, port)
            except OSError as error:
                raise StackError(
                    f"{service.name} cannot listen on {host}:{port} ({error.strerror}); "
                    f"free that port, or set {variable} to another one"
                ) from None

    # The supervising thread. All processes are started here: the kernel ends them when this thread does.

    def _supervise(self) -> None:
        try:
            self._start_reaper()
            if self._start_stages():
                self._up.set()
                while not self._stop.wait(_TICK_S):
                    self._look_after()
        except OSError as error:
            self._problem = f"the supervisor failed: {error}"
        finally:
            self._stop.set()
            self._stop_all()
            self._unlock()
            self._up.set()

    def _start_reaper(self) -> None:
        self._reaper = subprocess.Popen(
            [sys.executable, "-I", "-S", os.path.abspath(guard.__file__), "reap", self.mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
            close_fds=True,
        )

    def _start_stages(self) -> bool:
        """Start stage after stage; False when it was told to stop or a step failed."""
        stages = sorted({service.stage for service in self.services} | {step.stage for step in self.steps})
        for stage in stages:
            for step in self.steps:
                if step.stage == stage and not self._run_step(step):
                    return False
            group = [watched for watched in self._watched.values() if watched.service.stage == stage]
            for watched in group:
                self._launch(watched)
            if stage != stages[-1] and not self._wait_for(group):
                return False
        return True

    def _wait_for(self, group: Sequence[_Watched]) -> bool:
        waiting = [watched for watched in group if watched.service.not_ready is not None]
        while waiting:
            if self._stop.wait(_TICK_S):
                return False
            self._look_after()
            for watched in waiting:
                if watched.failures >= _FAILURES_MAX:
                    self._problem = self._hopeless(watched)
                    return False
            waiting = [
                watched
                for watched in waiting
                if not watched.is_alive or (watched.service.not_ready and watched.service.not_ready())
            ]
        return True

    def _run_step(self, step: Step) -> bool:
        log = self.log_of(step.name)
        rotate(log)
        log_began = log.stat().st_size if log.exists() else 0
        process = self._spawn(step.argv, step.env, log)
        deadline = time.monotonic() + step.limit_s
        while process.poll() is None and not self._stop.wait(_TICK_S) and time.monotonic() < deadline:
            pass
        code = process.poll()
        if code is None:
            guard.kill_session(process.pid)
            process.wait()
        if self._stop.is_set():
            return False
        if code != 0:
            end = f"did not end within {step.limit_s:g} s" if code is None else f"failed ({_ending(code)})"
            self._problem = f"{step.name} {end}: {_tail(log, 5, log_began) or 'it wrote nothing'}"
            return False
        self._say(f"{step.name}: done")
        return True

    def _launch(self, watched: _Watched) -> None:
        watched.began = time.monotonic()
        try:
            rotate(watched.log)
            watched.log_began = watched.log.stat().st_size if watched.log.exists() else 0
            watched.process = self._spawn(watched.service.argv, watched.service.env, watched.log)
        except OSError as error:  # no memory, no process number or no room for the log: that may pass
            self._put_off(watched, f"could not start ({error.strerror})")
        else:
            self._say(f"{watched.service.name}: started (process {watched.process.pid})")

    def _put_off(self, watched: _Watched, what: str) -> None:
        watched.failures += 1
        delay_s = self._backoff.delay_s(watched.failures)
        watched.starts_at = time.monotonic() + delay_s
        self._say(f"{watched.service.name}: {what}, starts again in {delay_s:g} s{self._last_words(watched)}")

    def _spawn(self, argv: Sequence[str], env: Mapping[str, str], log: Path) -> subprocess.Popen[bytes]:
        with log.open("ab") as output:
            return subprocess.Popen(
                guard.guarded(argv),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**_inherited(), **env, guard.MARK: self.mark},
                cwd=self.logs,  # programs look for modules and settings where they start: here are none
                start_new_session=True,  # Ctrl-C reaches the supervisor only, which stops all in order
            )

    def _look_after(self) -> None:
        if self._reaper is not None and self._reaper.poll() is not None:
            self._release_reaper()
            self._start_reaper()
        rotates = time.monotonic() >= self._rotates_at
        if rotates:
            self._rotates_at = time.monotonic() + _ROTATE_S
        for watched in self._watched.values():
            process = watched.process
            if process is None:
                if watched.starts_at and time.monotonic() >= watched.starts_at:
                    self._launch(watched)
                continue
            code = process.poll()
            if code is None:
                if rotates:
                    rotate(watched.log)
                if watched.failures and time.monotonic() - watched.began > self._backoff.healthy_s:
                    watched.failures = 0
                continue
            # Its children would hold the port, or go on with work that the next one takes over.
            guard.kill_session(process.pid)
            if time.monotonic() - watched.began > self._backoff.healthy_s:
                watched.failures = 0
            watched.process = None
            self._put_off(watched, f"ended ({_ending(code)})")

    # The end

    def _stop_all(self) -> None:
        for stage in sorted({service.stage for service in self.services}, reverse=True):
            self._stop_group(
                [
                    (watched, watched.process)
                    for watched in self._watched.values()
                    if watched.service.stage == stage and watched.process is not None
                ]
            )
        if self._reaper is not None:
            if killed := guard.kill_marked(self.mark):
                self._say(f"killed {counted(len(killed), 'process', 'processes')} that had outlived a service")
            self._release_reaper()

    def _release_reaper(self) -> None:
        if self._reaper is not None and self._reaper.stdin is not None:
            self._reaper.stdin.close()
            self._reaper.wait()

    def _stop_group(self, group: Sequence[tuple[_Watched, subprocess.Popen[bytes]]]) -> None:
        for _, process in group:
            # To the main process alone: a worker's children are its own to stop.
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        waiting = list(group)
        while waiting:
            left = []
            for watched, process in waiting:
                code = process.poll()
                late = time.monotonic() - began > watched.service.stop_s or self._hurry.is_set()
                if code is None and not late:
                    left.append((watched, process))
                    continue
                guard.kill_session(process.pid)
                process.wait()
                self._say(f"{watched.service.name}: {'stopped' if code is not None else 'killed'}")
            waiting = left
            if waiting:
                self._hurry.wait(_TICK_S)

    def _hopeless(self, watched: _Watched) -> str:
        return f"{watched.service.name} keeps ending{self._last_words(watched)}; all of it: {watched.log}"

    def _last_words(self, watched: _Watched) -> str:
        words = _tail(watched.log, 1, watched.log_began, watched.service.noise)
        return f"; it last wrote: {words[:300]}" if words else ""

    def _say(self, line: str) -> None:
        # Whoever listens may be gone, as in `modelyard up | head`; the services matter more.
        with contextlib.suppress(OSError, ValueError):
            self._report(line)


def is_held(home: Path) -> bool:
    """Whether a stack runs on that folder."""
    try:
        with _lock_path(home).open("r+") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _lock_path(home: Path) -> Path:
    return home / "stack.lock"


def rotate(log: Path, limit_bytes: int = LOG_LIMIT_BYTES, kept: int = LOGS_KEPT) -> None:
    """Put a log that has grown beyond the limit aside, as name.log.1, and drop the oldest of those.

    The service may go on writing: it appends to the same file, which is copied and emptied. What it writes between the
    two is lost.
    """
    try:
        if log.stat().st_size <= limit_bytes:
            return
    except FileNotFoundError:
        return
    for number in range(kept, 1, -1):
        older = log.with_name(f"{log.name}.{number - 1}")
        if older.exists():
            older.replace(log.with_name(f"{log.name}.{number}"))
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


def _inherited() -> dict[str, str]:
    """Our environment without settings: those of a service are given to it in full."""
    return {name: value for name, value in os.environ.items() if not name.startswith("MODELYARD_")}


def _try_port(host: str, port: int) -> None:
    """Raises OSError when nobody could listen there."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as tried:
        tried.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tried.bind(address)
        tried.listen(1)


def _ending(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def _tail(log: Path, lines: int, began: int, noise: str | None = None) -> str:
    """The last lines from position `began` of a log that say anything, joined by spaces."""
    try:
        with log.open("rb") as file:
            file.seek(max(began, log.stat().st_size - 8192))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    said = [_in_words(line.strip()) for line in text.splitlines() if line.strip()]
    if noise is not None:
        said = [line for line in said if not re.search(noise, line)] or said
    return " ".join(said[-lines:])


def _in_words(line: str) -> str:
    """A line of a log as text has it, when it is one of JSON."""
    for value in _stored(line):
        if {"time", "level", "logger", "message"} <= value.keys():
            trace = str(value.get("exception", "")).strip().splitlines()
            last = f": {trace[-1]}" if trace else ""
            return f"{value['time']} {value['level']} {value['logger']} {value['message']}{last}"
    return line


def _stored(text: str) -> Iterator[dict[str, object]]:
    with contextlib.suppress(ValueError):
        value = json.loads(text)
        if isinstance(value, dict):
            yield value


def _pid_in(text: str) -> int | None:
    for value in _stored(text):
        if isinstance(value.get("pid"), int):
            return int(str(value["pid"]))
    return None


def _marks_in(text: str) -> Iterator[str]:
    for value in _stored(text):
        if isinstance(value.get("mark"), str):
            yield str(value["mark"])
