"""Runs every benchmark, or those named on the command line."""

from __future__ import annotations

import argparse

from benchmarks import costs, listing, memory, mlp, reading, requests, start, training

ALL = {
    "training": training.main,
    "mlp": mlp.main,
    "reading": reading.main,
    "costs": costs.main,
    "memory": memory.main,
    "start": start.main,
    "requests": requests.main,
    "listing": listing.main,
}


def main() -> None:
    """Print the figures, one block each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*ALL, []], help=f"any of {', '.join(ALL)}; default: all")
    for name in parser.parse_args().names or ALL:
        print(f"== {name}", flush=True)
        ALL[name]()


if __name__ == "__main__":
    main()
