"""Requests per second and latency of Modelyard's predictions beside LitServe, MLServer, BentoML and Ray Serve.

The same XGBoost model (30 features, 100 trees of depth 6) for all, one row per request, batching on, one thread per
prediction. In each round the servers are started one after another; each runs alone while it is loaded by wrk. Their
order turns round from one round to the next. Answers are compared with the bare library's before and after the load.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

from benchmarks import wrk
from benchmarks.peers.contenders import CONTENDERS, Running, running
from benchmarks.peers.figures import CONNECTIONS, Found, judged, table
from benchmarks.peers.installing import NEEDS, NotThere, python_of
from benchmarks.peers.model import Model, train

_WARM_S = 2.0


def main() -> None:
    """Print a table of all servers and the three ratios that are judged."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers", description=__doc__)
    parser.add_argument("servers", nargs="*", metavar="server", help=f"any of {', '.join(CONTENDERS)}; default: all")
    parser.add_argument("--rounds", type=int, default=3, help="rounds, of which medians are taken (default 3)")
    parser.add_argument("--seconds", type=int, default=6, help="seconds per server, round and connections (default 6)")
    given = parser.parse_args()
    if unknown := set(given.servers) - CONTENDERS.keys():
        parser.error(f"unknown: {', '.join(sorted(unknown))}; there are {', '.join(CONTENDERS)}")
    if given.rounds < 1 or given.seconds < 1:
        parser.error("--rounds and --seconds must be at least 1")
    if missing := wrk.missing():
        raise SystemExit(missing)
    names = given.servers or list(CONTENDERS)
    found, lost = _measured(names, given.rounds, given.seconds)
    print(
        f"\n{psutil.cpu_count()} cores, shared by server and wrk; {given.rounds} rounds of {given.seconds} s, medians"
    )
    print("\n".join(table(found)))
    for name, why in lost.items():
        print(f"{name}: NOT MEASURED: {why}")
    print("\n".join(judged(found)))


def _measured(names: Sequence[str], rounds: int, seconds: int) -> tuple[dict[str, Found], dict[str, str]]:
    """Figures by server, and why there are none, or none of some rounds."""
    found: dict[str, Found] = {}
    lost: dict[str, str] = {}
    for name in [name for name in names if name in NEEDS]:
        try:
            python_of(name)
        except NotThere as error:
            lost[name] = str(error)
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        model = train(Path(folder))
        for number in range(rounds):
            for name in names if number % 2 == 0 else reversed(names):
                if name in lost:
                    continue
                try:
                    with running(name, model) as server:
                        for connections, load in _loads(server, model, seconds):
                            found.setdefault(name, {}).setdefault(connections, []).append(load)
                            print(
                                f"round {number + 1}, {name}, {connections} connections: {load.rate:.0f}/s, p50 "
                                f"{load.p50_ms:.2f} ms, p99 {load.p99_ms:.2f} ms, {load.errors} errors",
                                flush=True,
                            )
                except (NotThere, wrk.Unreadable, OSError) as error:
                    found.pop(name, None)
                    lost[name] = f"round {number + 1}: {error}"
                    print(f"{name}: {lost[name]}", flush=True)
    return found, lost


def _loads(server: Running, model: Model, seconds: int) -> Iterator[tuple[int, wrk.Load]]:
    body = server.asked(model.rows[0])
    wrk.post(server.url, body, server.sent, connections=max(CONNECTIONS), seconds=_WARM_S)
    for connections in CONNECTIONS:
        yield connections, wrk.post(server.url, body, server.sent, connections=connections, seconds=seconds)
    server.check(model)


if __name__ == "__main__":
    main()
