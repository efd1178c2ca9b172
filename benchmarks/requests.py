"""Accepted submits and polls per second of one API process, and its memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import psutil

from benchmarks.yard import Client, idle_trainer, running_stack
from cli.stack import Stack

SECONDS, CLIENTS = 5.0, 8
_DATA = Path(__file__).resolve().parent.parent / "examples" / "data" / "iris.csv"


def _rate(port: int, headers: Mapping[str, str], clients: int, call: Callable[[Client], object]) -> float:
    counts = [0] * clients
    until = time.perf_counter() + SECONDS

    def repeat(position: int) -> None:
        client = Client(port, headers)
        while time.perf_counter() < until:
            call(client)
            counts[position] += 1

    threads = [threading.Thread(target=repeat, args=(position,)) for position in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(counts) / SECONDS


def _api_memory_mb(stack: Stack) -> tuple[float, float]:
    """Resident and anonymous memory of the largest API process in MB."""
    parent = psutil.Process(stack.pid_of("api"))
    found = []
    for process in [parent, *parent.children(recursive=True)]:
        status = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        held = {line.split(":")[0]: line.split()[1] for line in status if line.startswith(("VmRSS", "RssAnon"))}
        found.append((int(held["VmRSS"]) / 1024, int(held["RssAnon"]) / 1024))
    return max(found)


def main() -> None:
    """Print rates and memory, the clients sharing the machine with the server."""
    with running_stack(api_workers=1) as (stack, settings, client), idle_trainer(stack):
        data = settings.data_roots[0] / "iris.csv"
        data.write_bytes(_DATA.read_bytes())
        client.create("requests", "species", {"nclasses": 3})
        print(f"API process at rest: {_api_memory_mb(stack)[0]:.0f} MB resident")
        asked, ids = (settings.port, client.headers), list[int]()
        for clients in (1, CLIENTS):
            rate = _rate(*asked, clients, lambda one: ids.append(one.train("requests", data, {"iterations": 5})))
            print(f"accepted submits, {clients} clients: {rate:.0f} per second")
        for clients in (1, CLIENTS):
            rate = _rate(*asked, clients, lambda one: one.call("GET", f"/tasks/{ids[-1]}"))
            print(f"polls of one task, {clients} clients: {rate:.0f} per second")
        many = ",".join(map(str, ids[:1000]))
        rate = _rate(*asked, 1, lambda one: one.call("GET", f"/tasks?ids={many}"))
        print(f"polls of {len(ids[:1000])} tasks at once: {rate:.1f} per second, {1000 / rate:.0f} ms each")
        resident, anonymous = _api_memory_mb(stack)
        print(f"API process after that: {resident:.0f} MB resident, {anonymous:.0f} MB anonymous (goal 120 MB)")


if __name__ == "__main__":
    main()
