"""Runs every test that hypothesis feeds, again and again on other inputs, until the time is over or one fails.

`python -m tests.fuzz --seconds 600 [PATH …]`. The tests themselves are those of `make unit`, where each gets the same
few inputs every time; the profile `fuzz` in `tests/conftest.py` gives each round new ones, and keeps those that failed.
"""

from __future__ import annotations

import argparse
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the time came to its end first; else the exit code of the round that failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Feeds every parser for a while.")
    parser.add_argument("--seconds", type=float, default=300.0, help="no round begins after so long (300)")
    parser.add_argument("paths", nargs="*", default=["tests/unit"], help="files or folders of tests (tests/unit)")
    asked = parser.parse_args(arguments)
    ends = time.monotonic() + asked.seconds
    rounds = 0
    while time.monotonic() < ends:
        rounds += 1
        seed = secrets.randbits(32)
        print(f"round {rounds}, seed {seed}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", "-x", "-m", "hypothesis", f"--hypothesis-seed={seed}"]
        environment = {**os.environ, "HYPOTHESIS_PROFILE": "fuzz"}
        done = subprocess.run([*command, *asked.paths], env=environment, check=False)
        if done.returncode != 0:
            return done.returncode
    print(f"{rounds} rounds found nothing", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
