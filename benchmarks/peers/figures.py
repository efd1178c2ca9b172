"""The table of all servers, and Modelyard beside the best of its peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

from benchmarks.wrk import Load

CONNECTIONS = (1, 8, 64)
OURS = "modelyard"
#: Requests per second of ours / the best peer's, by connections.
GOALS = {8: 1.3, 64: 1.6}

Found = dict[int, list[Load]]


def middle(loads: Sequence[Load]) -> Load:
    """Medians over the rounds; errors are added up."""
    return Load(
        median(load.rate for load in loads),
        median(load.p50_ms for load in loads),
        median(load.p99_ms for load in loads),
        sum(load.errors for load in loads),
    )


def table(found: Mapping[str, Found]) -> list[str]:
    """One line per server and number of connections."""
    lines = [f"{'server':<10} {'connections':>11} {'requests/s':>10} {'p50 ms':>8} {'p99 ms':>8} {'errors':>7}"]
    for connections in CONNECTIONS:
        for name, loads in found.items():
            load = middle(loads[connections])
            lines.append(
                f"{name:<10} {connections:>11} {load.rate:>10.0f} {load.p50_ms:>8.2f} {load.p99_ms:>8.2f} "
                f"{load.errors:>7}"
            )
    return lines


def judged(found: Mapping[str, Found]) -> list[str]:
    """Ours against the best peer: rates at 8 and 64 connections, the middle latency at one."""
    peers = [name for name in found if name != OURS]
    if OURS not in found or not peers:
        return ["no ratio: it takes Modelyard and at least one peer"]
    lines = []
    for connections, goal in GOALS.items():
        ours = middle(found[OURS][connections]).rate
        best = max(peers, key=lambda name: middle(found[name][connections]).rate)
        its = middle(found[best][connections]).rate
        lines.append(
            f"requests/s at {connections} connections, Modelyard {ours:.0f} / {best} {its:.0f}: {ours / its:.2f} "
            f"(goal at least {goal})"
        )
    ours = middle(found[OURS][1]).p50_ms
    best = min(peers, key=lambda name: middle(found[name][1]).p50_ms)
    its = middle(found[best][1]).p50_ms
    lines.append(
        f"p50 at 1 connection, Modelyard {ours:.2f} ms / {best} {its:.2f} ms: {ours / its:.2f} (goal at most 1)"
    )
    return lines
