"""The training child as a process: its protocol, its commands, and that it never outlives its supervisor."""

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

ROWS = ["a,b,c,y"] + [f"{i % 7},{i % 5},{i % 11},{int(i % 7 > 3) if i % 9 else i % 2}" for i in range(300)]
ROOT = Path(__file__).resolve().parents[2]


def environment():
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(ROOT)}


class Child:
    """A training child and the events it has told."""

    def __init__(self, *arguments, warm=True):
        command = [sys.executable, "-m", "ml.training.run", "--parent", str(os.getpid()), *arguments]
        if warm:
            command += ["--warm", "xgboost"]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            cwd=ROOT,
            start_new_session=True,
        )

    def send(self, message):
        line = message if isinstance(message, bytes) else json.dumps(message).encode()
        self.process.stdin.write(line + b"\n")
        self.process.stdin.flush()

    def next(self, kind=None):
        """The next event, or the next of a kind; None at the end."""
        for line in self.process.stdout:
            event = json.loads(line)
            if kind is None or event["event"] == kind:
                return event
        return None

    def rest(self):
        """Every event until the child closes its output."""
        return [json.loads(line) for line in self.process.stdout]

    def code(self):
        return self.process.wait(timeout=30)

    def close(self):
        self.process.kill()
        self.process.wait(timeout=30)
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


@pytest.fixture
def child():
    children = []

    def start(*arguments, **more):
        children.append(Child(*arguments, **more))
        return children[-1]

    yield start
    for each in children:
        each.close()


def specification(scratch, iterations=20, mllib=None, **changes):
    return {
        "task": "train-1-a1",
        "backend": "xgboost",
        "connector": "csv",
        "parameters": {
            "input": {"label": "y", "test_split": 0.25, "shuffle": True, "seed": 4},
            "mllib": {"nclasses": 2, "iterations": iterations, "test_interval": 5, **(mllib or {})},
            "output": {"measure": ["acc", "f1", "mcll"]},
        },
        "data": [{"lines": ROWS}],
        "scratch": str(scratch),
        "resume": None,
        "threads": 1,
        "device": "cpu",
        "checkpoint_s": 10.0,
        **changes,
    }


def digest(end):
    folder = Path(end["model_folder"])
    return hashlib.sha256((folder / end["description"]["file"]).read_bytes()).hexdigest()


def gone(pid, within_s=10.0):
    """Whether a process ends in time; a zombie has ended."""
    until = time.monotonic() + within_s
    while time.monotonic() < until:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def test_a_training_runs_from_specification_to_files(child, tmp_path):
    running = child()
    assert running.next() == {"event": "ready"}
    running.send(specification(tmp_path))
    events = running.rest()
    assert running.code() == 0
    end = events[-1]
    assert (end["event"], end["iteration"]) == ("finished", 19)
    assert [event["phase"] for event in events if event["event"] == "phase"] == ["reading", "training", "saving"]
    assert [event["iteration"] for event in events if event["event"] == "measures"] == [5, 10, 15, 19]
    assert (Path(end["model_folder"]) / "0020.model").exists()


def libraries(running):
    """The files that a child has mapped into its memory."""
    return {Path(each.path).name for each in psutil.Process(running.process.pid).memory_maps()}


def test_a_standby_child_starts_a_training_at_once(child, tmp_path):
    cold, running = child(warm=False), child()
    assert cold.next() == running.next() == {"event": "ready"}
    assert "libxgboost.so" not in libraries(cold)
    assert "libxgboost.so" in libraries(running), "before its specification comes"
    began = time.monotonic()
    running.send(specification(tmp_path))
    assert running.next("progress")["iteration"] == 0
    assert time.monotonic() - began < 10


def test_a_child_without_standby_imports_what_it_needs(child, tmp_path):
    running = child(warm=False)
    running.send(specification(tmp_path))
    assert running.rest()[-1]["event"] == "finished"
    assert running.code() == 0


def test_cancel_stops_at_the_next_iteration_and_saves_the_model(child, tmp_path):
    running = child()
    running.send(specification(tmp_path, iterations=1_000_000))
    running.next("progress")
    running.send({"command": "cancel"})
    end = running.rest()[-1]
    assert end["event"] == "cancelled"
    assert 0 <= end["iteration"] < 1_000_000
    assert end["description"]["file"] == "1000000.model"
    assert (Path(end["model_folder"]) / "1000000.model").exists()
    assert running.code() == 0


def test_cancel_before_the_specification_ends_without_a_model(child, tmp_path):
    running = child()
    running.next("ready")
    running.process.stdin.write(
        json.dumps(specification(tmp_path)).encode() + b"\n" + json.dumps({"command": "cancel"}).encode() + b"\n"
    )
    running.process.stdin.flush()
    assert running.rest()[-1]["event"] == "cancelled"
    assert running.code() == 0


@pytest.mark.parametrize("mllib", [{}, {"booster_params": {"subsample": 0.6, "colsample": 0.6}}])
def test_paused_and_resumed_in_another_process_equals_uninterrupted(child, tmp_path, mllib):
    wanted = {"iterations": 800, "mllib": mllib}
    whole = child()
    whole.send(specification(tmp_path / "whole", **wanted))
    end = whole.rest()[-1]
    first = child()
    first.send(specification(tmp_path / "first", **wanted))
    first.next("measures")
    first.send({"command": "pause"})
    paused = first.next("paused")
    assert first.code() == 0
    assert 0 < paused["iteration"] < 799
    second = child()
    second.send(specification(tmp_path / "second", resume=paused["folder"], **wanted))
    events = second.rest()
    assert next(event for event in events if event["event"] == "history")["hist"]["iteration_hist"][0] == 5
    assert digest(events[-1]) == digest(end)
    assert events[-1]["report"]["measure_hist"] == end["report"]["measure_hist"]


def test_killed_and_resumed_from_its_last_checkpoint_equals_uninterrupted(child, tmp_path):
    mllib = {"booster_params": {"subsample": 0.7}}
    whole = child()
    whole.send(specification(tmp_path / "whole", iterations=1500, mllib=mllib))
    end = whole.rest()[-1]
    killed = child()
    killed.send(specification(tmp_path / "killed", iterations=1500, mllib=mllib, checkpoint_s=0.0))
    checkpoint = killed.next("checkpoint")
    killed.process.kill()
    assert killed.code() == -signal.SIGKILL
    second = child()
    second.send(specification(tmp_path / "second", iterations=1500, mllib=mllib, resume=checkpoint["folder"]))
    events = second.rest()
    assert digest(events[-1]) == digest(end)
    assert events[-1]["report"]["measure_hist"] == end["report"]["measure_hist"]


def test_the_end_of_stdin_ends_the_child(child, tmp_path):
    running = child()
    running.send(specification(tmp_path, iterations=1_000_000))
    running.next("progress")
    running.process.stdin.close()
    assert running.code() == 1


def test_the_end_of_stdin_ends_a_child_that_waits(child):
    running = child()
    running.next("ready")
    running.process.stdin.close()
    assert running.code() == 1


def test_term_ends_the_child_although_its_parent_ignored_it(tmp_path):
    # As children of a Celery pool process do, the child inherits ignored signals; it must take them back.
    script = textwrap.dedent(
        """
        import os, signal, subprocess, sys
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        child = subprocess.Popen(
            [sys.executable, "-m", "ml.training.run", "--parent", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        child.stdout.readline()
        child.terminate()
        print(child.wait(timeout=20))
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment(), cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.stdout.strip() == str(-signal.SIGTERM), done.stderr


def test_a_killed_parent_takes_the_child_with_it(tmp_path):
    script = textwrap.dedent(
        """
        import os, subprocess, sys, time
        child = subprocess.Popen(
            [sys.executable, "-m", "ml.training.run", "--parent", str(os.getpid())],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True)
        child.stdout.readline()
        print(child.pid, flush=True)
        time.sleep(60)
        """
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", script], env=environment(), cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        pid = int(parent.stdout.readline())
        # Its stdin is kept open by us through the parent's descriptor only, so this is the parent-death signal or EOF.
        parent.kill()
        assert gone(pid)
    finally:
        parent.kill()
        parent.communicate()


def test_a_child_whose_parent_is_another_ends_at_once():
    done = subprocess.run(
        [sys.executable, "-m", "ml.training.run", "--parent", "1"],
        env=environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert done.stdout == b""


def test_what_libraries_print_does_not_corrupt_the_events(tmp_path):
    script = textwrap.dedent(
        """
        import ctypes, os, sys
        from ml.training import run
        emit = run.own_stdout()
        print("from python")
        sys.stdout.flush()
        ctypes.CDLL(None).puts(b"from C")
        ctypes.CDLL(None).fflush(None)
        os.write(1, b"from the descriptor\\n")
        emit({"event": "ready"})
        """
    )
    done = subprocess.run([sys.executable, "-c", script], env=environment(), cwd=ROOT, capture_output=True, timeout=60)
    assert json.loads(done.stdout) == {"event": "ready"}
    for text in (b"from python", b"from C", b"from the descriptor"):
        assert text in done.stderr


@pytest.mark.parametrize(
    ("changes", "kind", "section", "text"),
    [
        ({"data": [{"path": "/absent.csv", "name": "absent.csv"}]}, "bad_input", "input", "does not exist"),
        ({"backend": "zzz"}, "unknown_library", None, "zzz"),
        ({"connector": "image"}, "unknown_connector", None, "image"),
        ({"parameters": {"input": {"label": "y"}, "mllib": {"nclasses": 2}}}, "bad_parameter", "mllib", "iterations"),
        ({"mllib": {"eval_metric": "zzz"}}, "bad_parameter", "mllib", "zzz"),
    ],
)
def test_a_request_that_cannot_be_ends_with_an_error_event(child, tmp_path, changes, kind, section, text):
    running = child()
    running.send(specification(tmp_path, **changes))
    event = running.rest()[-1]
    assert (event["event"], event["kind"], event["section"]) == ("error", kind, section)
    assert event["class"] == "".join(word.title() for word in kind.split("_"))
    assert text in event["message"]
    assert event["phase"] in ("reading", "training")
    assert running.code() == 3


@pytest.mark.parametrize("line", [b"no json", b"{}", b"[]", b'{"task": 1}'])
def test_what_is_no_specification_is_an_unexpected_error_with_its_trace_in_the_log(child, line):
    running = child(warm=False)
    running.send(line)
    event = running.rest()[-1]
    assert (event["event"], event["kind"]) == ("error", "internal")
    assert event["message"].startswith("unexpected error in training: ")
    assert event["phase"] == "starting"
    assert running.code() == 4
    assert b"Traceback" in running.process.stderr.read()


def test_an_unreadable_command_is_logged_and_ignored(child, tmp_path):
    running = child()
    running.send(specification(tmp_path, iterations=1_000_000))
    running.next("progress")
    running.send(b"gibberish")
    running.send({"command": "cancel"})
    assert running.rest()[-1]["event"] == "cancelled"
    assert b"unreadable command" in running.process.stderr.read()


@pytest.mark.skipif(not Path("/proc/self/oom_score_adj").exists(), reason="Linux only")
def test_the_child_offers_itself_to_the_oom_killer(child):
    running = child(warm=False)
    running.next("ready")
    assert Path(f"/proc/{running.process.pid}/oom_score_adj").read_text().strip() == "1000"
