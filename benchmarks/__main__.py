"""Runs every benchmark, or those named on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial

from benchmarks import (
    costs,
    hotpath,
    listing,
    measures,
    memory,
    mlp,
    predictions,
    reading,
    requests,
    soak,
    solvers,
    start,
    training,
)

ALL: dict[str, Callable[[], None]] = {
    "training": training.main,
    "mlp": mlp.main,
    "reading": reading.main,
    "measures": measures.main,
    "solvers": solvers.main,
    "costs": costs.main,
    "memory": memory.main,
    "start": start.main,
    "requests": requests.main,
    "listing": listing.main,
    "predictions": predictions.main,
    "hotpath": hotpath.main,
    "soak": soak.main,
}


def main() -> None:
    """Print the figures, one block each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help=f"any of {', '.join(ALL)}; default: all")
    parser.add_argument("--minutes", type=float, default=soak.MINUTES, help="of the soak (default %(default)g)")
    given = parser.parse_args()
    if not 0.5 <= given.minutes < float("inf"):
        parser.error("--minutes must be at least 0.5")
    commands: dict[str, Callable[[], None]] = {**ALL, "soak": partial(soak.main, given.minutes)}
    for name in given.names or ALL:
        print(f"== {name}", flush=True)
        commands[name]()


if __name__ == "__main__":
    main()
