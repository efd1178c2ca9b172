"""From the POST to the first iteration: with a training process waiting, and without one."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import psutil

from benchmarks.yard import Client, median, running_stack
from cli.stack import Stack

REPEATS = 7
_DATA = Path(__file__).resolve().parent.parent / "examples" / "data" / "iris.csv"


def _first_iteration_s(client: Client, name: str, data: Path) -> float:
    began = time.perf_counter()
    task_id = client.train(name, data, {"iterations": 20_000})
    while (client.call("GET", f"/tasks/{task_id}").get("progress") or {}).get("iteration") is None:
        time.sleep(0.002)
    took = time.perf_counter() - began
    client.call("DELETE", f"/tasks/{task_id}")
    while client.call("GET", f"/tasks/{task_id}")["state"] not in ("cancelled", "finished"):
        time.sleep(0.01)
    return took


def _waiting_processes(stack: Stack) -> list[psutil.Process]:
    pid = stack.pid_of("train1")
    return [
        process
        for process in psutil.Process(pid).children(recursive=True)
        if "ml.training.run" in " ".join(process.cmdline())
    ]


def _is_warm(stack: Stack) -> bool:
    waiting = _waiting_processes(stack)
    return bool(waiting) and time.time() - waiting[0].create_time() > 4


def main() -> None:
    """Print the median of some trainings of each kind."""
    with running_stack() as (stack, settings, client):
        data = settings.data_roots[0] / "iris.csv"
        data.write_bytes(_DATA.read_bytes())
        client.create("start", "species", {"nclasses": 3})
        found: dict[str, list[float]] = {"warm": [], "cold": []}
        for kind in ["warm", "cold"] * REPEATS:
            while not _is_warm(stack):
                time.sleep(0.1)
            if kind == "cold":
                for process in _waiting_processes(stack):
                    os.kill(process.pid, signal.SIGKILL)
            found[kind].append(_first_iteration_s(client, "start", data))
        for kind, values in found.items():
            goal = " (goal 0.5 s)" if kind == "warm" else ""
            print(f"POST to first iteration, {kind}: median {median(values):.3f} s, worst {max(values):.3f} s{goal}")


if __name__ == "__main__":
    main()
