"""What measures and recovery checkpoints cost a training: with all of them against without, in alternating pairs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.yard import median
from settings import Settings

ROWS, COLUMNS, PAIRS = 60_000, 30, 3
MEASURES = ["acc", "acc-2", "f1full", "cmdiag", "cmfull", "mcll", "auc", "gini", "mcc"]
Json = dict[str, Any]

_RUN = """
import json, sys
from ml.training import session
session.run(session.Specification.from_json(json.load(sys.stdin)), lambda event: print(json.dumps(event)))
"""

TRAININGS: dict[str, tuple[str, Json]] = {
    "xgboost": ("xgboost", {"nclasses": 2, "iterations": 800, "test_interval": 10}),
    "mlp": (
        "torch",
        {
            "nclasses": 2,
            "template": "mlp",
            "layers": [150, 150],
            "solver": {"iterations": 20_000, "test_interval": 500, "solver_type": "ADAM", "base_lr": 0.001},
            "net": {"batch_size": 128, "test_batch_size": 1024},
        },
    ),
}


def write_data(path: Path) -> None:
    """Two noisy classes of 30 columns."""
    numbers = np.random.default_rng(1)
    inputs = numbers.normal(size=(ROWS, COLUMNS))
    target = inputs[:, :6].sum(axis=1) + numbers.normal(size=ROWS) > 0
    names = [*(f"x{column}" for column in range(COLUMNS)), "target"]
    np.savetxt(path, np.column_stack([inputs, target]), delimiter=",", header=",".join(names), comments="")


def train(data: Path, library: str, mllib: Json, *, measures: list[str], checkpoint_s: float) -> tuple[float, int]:
    """Seconds of training, tests included, and how many checkpoints were written."""
    # One thread: with two, on a machine of two cores, what else runs there decides about both sides.
    threads = 1
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        specification = {
            "task": "bench",
            "backend": library,
            "connector": "csv",
            "parameters": {
                "input": {"label": "target", "test_split": 0.2, "seed": 1},
                "mllib": mllib,
                "output": {"measure": measures},
            },
            "data": [{"path": str(data), "name": data.name}],
            "scratch": scratch,
            "resume": None,
            "threads": threads,
            "device": "cpu",
            "checkpoint_s": checkpoint_s,
        }
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-c", _RUN]
        done = subprocess.run(
            command, input=json.dumps(specification), check=True, capture_output=True, text=True, env=environment
        )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    return events[-1]["seconds"]["training"], sum(event["event"] == "checkpoint" for event in events)


def main() -> None:
    """Print the ratio of each pair."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        data = Path(folder) / "bench.csv"
        write_data(data)
        for name, (library, mllib) in TRAININGS.items():
            ratios = []
            for pair in range(PAIRS):
                seconds: dict[str, float] = {}
                checkpoints = 0
                for side in ("bare", "full") if pair % 2 == 0 else ("full", "bare"):
                    if side == "bare":
                        seconds[side], _ = train(data, library, mllib, measures=[], checkpoint_s=1e9)
                    else:
                        every_s = Settings().checkpoint_s
                        seconds[side], checkpoints = train(
                            data, library, mllib, measures=MEASURES, checkpoint_s=every_s
                        )
                ratios.append(seconds["full"] / seconds["bare"])
                print(
                    f"{name}, pair {pair + 1}: without {seconds['bare']:.2f} s, with {len(MEASURES)} measures and "
                    f"{checkpoints} checkpoints {seconds['full']:.2f} s, ratio {ratios[-1]:.3f}",
                    flush=True,
                )
            print(f"{name}: with measures and checkpoints / without: {median(ratios):.3f} (goal 1.02)")


if __name__ == "__main__":
    main()
