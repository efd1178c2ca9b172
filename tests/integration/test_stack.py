"""The supervisor with small services: what it restarts, what it refuses, and that nothing is left."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cli import guard
from cli.stack import Backoff, Service, Stack, StackError, Step, is_held
from settings import Settings

QUICK = Backoff(first_s=0.05, most_s=0.4, healthy_s=60.0)
SLEEP = ("sleep", "600")

# A service that has a child in its session, and one in a session of its own that cannot be asked to end.
FAMILY = textwrap.dedent(
    """
    import signal, subprocess, sys, time
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    subprocess.Popen([sys.executable, "-c", stubborn])
    subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    print("family complete", flush=True)
    time.sleep(600)
    """
)


def wait_until(claim: Callable[[], bool], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not claim():
        assert time.monotonic() < deadline, "it did not become true in time"
        time.sleep(0.02)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def lines() -> list[str]:
    return []


@pytest.fixture
def run(home: Settings, lines: list[str]) -> Iterator[Callable[..., Stack]]:
    """Starts a stack of the given services; whatever it left behind fails the test."""
    started: list[Stack] = []

    def start(*services: Service, steps: tuple[Step, ...] = (), backoff: Backoff = QUICK) -> Stack:
        stack = Stack(home, services, steps, backoff=backoff, report=lines.append)
        started.append(stack)
        stack.start()
        return stack

    yield start
    for stack in started:
        stack.stop()
        assert guard.marked(stack.mark) == []


def family() -> Service:
    return Service("family", (sys.executable, "-c", FAMILY), stop_s=0.5)


def test_service_that_ends_is_started_again(run: Callable[..., Stack], lines: list[str]):
    stack = run(Service("one", SLEEP))
    first = stack.pid_of("one")
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: stack.pid_of("one") not in (None, first))
    assert any("signal SIGKILL" in line and "starts again in 0.05 s" in line for line in lines)


def test_service_that_keeps_ending_waits_longer_each_time_and_its_last_words_are_told(
    run: Callable[..., Stack], lines: list[str]
):
    stack = run(Service("broken", ("sh", "-c", "echo the disk is gone; exit 7")))
    with pytest.raises(StackError, match="keeps ending; it last wrote: the disk is gone"):
        stack.wait_ready(20)
    waits = [line.split("starts again in ")[1].split(";")[0] for line in lines if "starts again" in line]
    assert waits[:4] == ["0.05 s", "0.1 s", "0.2 s", "0.4 s"]
    assert any("exit code 7" in line for line in lines)


def test_last_words_are_those_of_the_newest_start_without_noise(run: Callable[..., Stack], tmp_path: Path):
    sign = tmp_path / "sign"
    script = f"if test -e {sign}; then echo no key; else touch {sign}; echo first; fi; echo '[INFO] bye'; exit 1"
    stack = run(Service("web", ("sh", "-c", script), noise=r"^\[INFO\]"))
    with pytest.raises(StackError, match="it last wrote: no key;"):
        stack.wait_ready(20)


def test_healthy_time_forgives_earlier_failures(run: Callable[..., Stack], lines: list[str]):
    run(Service("short", ("sleep", "0.3")), backoff=Backoff(first_s=0.05, most_s=9.0, healthy_s=0.1))
    wait_until(lambda: sum("starts again" in line for line in lines) >= 3)
    assert {line.split("starts again in ")[1] for line in lines if "starts again" in line} == {"0.05 s"}


def test_children_that_outlive_their_service_end_before_it_starts_again(run: Callable[..., Stack]):
    stack = run(family())
    log = stack.log_of("family")
    wait_until(lambda: "family complete" in log.read_text())
    first = stack.pid_of("family")
    assert first is not None
    assert len(guard.session_members(first)) == 2
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: stack.pid_of("family") not in (None, first))
    assert guard.session_members(first) == []


def test_nothing_is_left_after_stop_not_even_in_sessions_of_their_own(run: Callable[..., Stack]):
    stack = run(family())
    wait_until(lambda: "family complete" in stack.log_of("family").read_text())
    assert len(guard.marked(stack.mark)) == 3
    stack.stop()
    assert guard.marked(stack.mark) == []


def test_service_that_ignores_term_is_killed_after_its_time(run: Callable[..., Stack], lines: list[str]):
    stack = run(Service("deaf", ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"), stop_s=0.3))
    wait_until(lambda: "ready" in stack.log_of("deaf").read_text())
    began = time.monotonic()
    stack.stop()
    assert time.monotonic() - began < 10
    assert "deaf: killed" in lines


def test_last_stage_is_stopped_first(run: Callable[..., Stack], lines: list[str]):
    run(Service("base", SLEEP, stage=0), Service("top", SLEEP, stage=2), Service("middle", SLEEP, stage=1)).stop()
    assert [line for line in lines if line.endswith("stopped")] == [
        "top: stopped",
        "middle: stopped",
        "base: stopped",
    ]


def test_next_stage_waits_until_the_one_before_is_ready(run: Callable[..., Stack], tmp_path: Path):
    sign = tmp_path / "sign"
    slow = Service(
        "slow",
        ("sh", "-c", f"sleep 0.3; touch {sign}; sleep 600"),
        not_ready=lambda: None if sign.exists() else "no sign yet",
    )
    needs = Service("needs", ("sh", "-c", f"test -e {sign} && echo found it; sleep 600"), stage=1)
    stack = run(slow, needs)
    wait_until(lambda: "found it" in stack.log_of("needs").read_text())


def test_failed_step_stops_the_start_and_its_reason_is_told(home: Settings):
    stack = Stack(
        home,
        [Service("base", SLEEP), Service("later", SLEEP, stage=1)],
        [Step("prepare", ("sh", "-c", "echo no room for the records; exit 2"), stage=1)],
    )
    with pytest.raises(StackError, match=r"prepare failed \(exit code 2\): no room for the records"):
        stack.start()
    assert guard.marked(stack.mark) == []
    assert not stack.log_of("later").exists()


def test_step_that_hangs_is_ended_and_told(home: Settings):
    stack = Stack(home, [], [Step("prepare", SLEEP, limit_s=0.3)])
    with pytest.raises(StackError, match=r"did not end within 0.3 s"):
        stack.start()
    assert guard.marked(stack.mark) == []


def test_missing_program_is_told(run: Callable[..., Stack]):
    stack = run(Service("ghost", ("no-such-program-here",)))
    with pytest.raises(StackError, match="no-such-program-here cannot be started: No such file"):
        stack.wait_ready(20)


def test_port_in_use_is_told_before_anything_starts(home: Settings, lines: list[str]):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        stack = Stack(home, [Service("web", SLEEP, port=("127.0.0.1", port, "MODELYARD_PORT"))], report=lines.append)
        with pytest.raises(StackError, match=f"web cannot listen on 127.0.0.1:{port}.*MODELYARD_PORT"):
            stack.start()
    assert lines == []
    # The refused start has let go of the folder.
    with Stack(home, [Service("web", SLEEP)]):
        pass


def test_second_start_on_the_same_folder_is_refused(run: Callable[..., Stack], home: Settings):
    assert not is_held(home.home)
    stack = run(Service("one", SLEEP))
    assert is_held(home.home)
    with pytest.raises(StackError, match=rf"already runs on .*process {os.getpid()}.*MODELYARD_HOME"):
        Stack(home, [Service("two", SLEEP)]).start()
    stack.stop()
    assert not is_held(home.home)


def test_folder_can_be_used_again_after_stop(home: Settings):
    for _ in range(2):
        with Stack(home, [Service("one", SLEEP)]) as stack:
            stack.wait_ready(20)


def test_home_that_cannot_be_written_is_told(tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StackError, match="MODELYARD_HOME"):
        Stack(Settings(home=tmp_path / "file" / "home"), []).start()


def test_redis_folder_is_closed_to_others(run: Callable[..., Stack], home: Settings):
    run()
    assert home.redis_socket.parent.stat().st_mode & 0o777 == 0o700


def test_services_do_not_inherit_settings_that_were_not_given_to_them(home: Settings, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MODELYARD_REDIS_URL", "redis://elsewhere")
    stack = Stack(home, [Service("shell", ("sh", "-c", "env; sleep 600"), {"MODELYARD_PORT": "99"})])
    with stack:
        wait_until(lambda: "MODELYARD_PORT=99" in stack.log_of("shell").read_text())
    assert "elsewhere" not in stack.log_of("shell").read_text()


# A supervisor in a process of its own, to be killed

SUPERVISOR = textwrap.dedent(
    """
    import signal, sys, time
    from pathlib import Path
    from cli.stack import Service, Stack
    from settings import Settings
    family = Service("family", (sys.executable, "-c", sys.argv[2]), stop_s=1)
    stack = Stack(Settings(home=Path(sys.argv[1])), [family])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stack.ask_stop())
    stack.start()
    print(stack.mark, flush=True)
    while not stack.is_stopping:
        time.sleep(0.05)
    stack.stop()
    """
)


@contextlib.contextmanager
def supervisor(home: Settings) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A supervisor process and its mark, once its family is complete."""
    argv = [sys.executable, "-c", SUPERVISOR, str(home.home), FAMILY]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stdout is not None
        mark = process.stdout.readline().strip()
        try:
            wait_until(lambda: len(guard.marked(mark)) == 3)
            yield process, mark
        finally:
            process.kill()
            process.wait()
            guard.kill_marked(mark)


def test_killed_supervisor_leaves_nothing(home: Settings):
    with supervisor(home) as (process, mark):
        process.kill()
        wait_until(lambda: guard.marked(mark) == [])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_asked_supervisor_stops_everything_and_ends_well(home: Settings, number: signal.Signals):
    with supervisor(home) as (process, mark):
        process.send_signal(number)
        assert process.wait(20) == 0
        assert guard.marked(mark) == []


def test_next_start_ends_what_a_killed_supervisor_and_helper_left(home: Settings, lines: list[str]):
    with supervisor(home) as (process, mark):
        strays = guard.marked(mark)
        # The helper carries no mark; it is the one process of the supervisor that waits for its end.
        children = Path(f"/proc/{process.pid}/task").glob("*/children")
        helpers = [int(pid) for file in children for pid in file.read_text().split() if int(pid) not in strays]
        for pid in helpers:
            os.kill(pid, signal.SIGSTOP)
        process.kill()
        process.wait()
        for pid in helpers:
            os.kill(pid, signal.SIGKILL)
        assert guard.marked(mark) != []
        with Stack(home, [Service("one", SLEEP)], report=lines.append):
            assert guard.marked(mark) == []
    assert any("an earlier run had left behind" in line for line in lines)


def test_helper_that_dies_is_replaced(run: Callable[..., Stack]):
    stack = run(Service("one", SLEEP))
    reaper = stack._reaper
    assert reaper is not None
    reaper.kill()
    wait_until(lambda: stack._reaper is not reaper)


def test_second_request_to_stop_does_not_wait_any_longer(run: Callable[..., Stack]):
    stack = run(Service("deaf", ("sh", "-c", "trap '' TERM; echo ready; while :; do sleep 0.1; done"), stop_s=90))
    wait_until(lambda: "ready" in stack.log_of("deaf").read_text())
    began = time.monotonic()
    stack.ask_stop()
    stack.ask_stop()
    stack.stop()
    assert time.monotonic() - began < 10


def test_listener_that_is_gone_stops_nothing(home: Settings):
    def gone(line: str) -> None:
        raise BrokenPipeError

    with Stack(home, [Service("one", SLEEP)], backoff=QUICK, report=gone) as stack:
        first = stack.pid_of("one")
        assert first is not None
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: stack.pid_of("one") not in (None, first))
    assert guard.marked(stack.mark) == []
