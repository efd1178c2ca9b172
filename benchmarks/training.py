"""A training through a job against bare xgboost: same file, same parameters, same threads, in alternating pairs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.yard import Client, median, running_stack

ROWS, COLUMNS, ROUNDS, PAIRS = 60_000, 30, 2_000, 3
_BARE = """
import json, sys, time
import numpy as np, pyarrow.csv, xgboost as xgb
path, rounds, threads, target = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
began = time.perf_counter()
table = pyarrow.csv.read_csv(path)
inputs = np.column_stack([table[name].to_numpy() for name in table.column_names[:-1]]).astype(np.float32)
data = xgb.DMatrix(inputs, label=table["target"].to_numpy(), nthread=threads)
read = time.perf_counter()
parameters = {"objective": "multi:softprob", "num_class": 2, "nthread": threads, "seed": 0}
booster = xgb.train(parameters, data, rounds)
trained = time.perf_counter()
booster.save_model(target)
saved = time.perf_counter()
print(json.dumps({"reading": read - began, "training": trained - read, "saving": saved - trained}))
"""


def write_data(path: Path) -> None:
    """Two noisy classes of 30 columns."""
    numbers = np.random.default_rng(1)
    inputs = numbers.normal(size=(ROWS, COLUMNS))
    target = inputs[:, :6].sum(axis=1) + inputs[:, 6] * inputs[:, 7] + numbers.normal(size=ROWS) > 0
    np.savetxt(
        path,
        np.column_stack([inputs, target]),
        fmt=["%.5f"] * COLUMNS + ["%d"],
        delimiter=",",
        header=",".join([*(f"x{column}" for column in range(COLUMNS)), "target"]),
        comments="",
    )


def _bare(data: Path, threads: int, environment: dict[str, str]) -> dict[str, float]:
    command = [sys.executable, "-c", _BARE, str(data), str(ROUNDS), str(threads), str(data.with_suffix(".ubj"))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _job(client: Client, data: Path) -> tuple[dict[str, float], float]:
    task = client.wait(client.train("bench", data, {"nclasses": 2, "iterations": ROUNDS}))
    phases = task["phases"]
    around = sum(value for name, value in phases.items() if name not in ("reading", "training", "saving"))
    return {name: phases[name] for name in ("reading", "training", "saving")}, around


def main() -> None:
    """Print seconds by phase and the ratio of each pair."""
    import os

    with running_stack() as (_, settings, client):
        data = settings.data_roots[0] / "bench.csv"
        write_data(data)
        client.create("bench", "target", {"nclasses": 2})
        environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(settings.threads)}
        ratios = []
        for pair in range(PAIRS):
            bare: dict[str, float] = {}
            job: dict[str, float] = {}
            around = 0.0
            for side in ("bare", "job") if pair % 2 == 0 else ("job", "bare"):
                if side == "bare":
                    bare = _bare(data, settings.threads, environment)
                else:
                    job, around = _job(client, data)
            ratios.append(sum(job.values()) / sum(bare.values()))
            print(
                f"pair {pair + 1}: bare {sum(bare.values()):.2f} s, job {sum(job.values()):.2f} s "
                f"(+ {around:.2f} s around it), ratio {ratios[-1]:.3f}; "
                + ", ".join(f"{name} {bare[name]:.2f}/{job[name]:.2f}" for name in bare),
                flush=True,
            )
        print(f"training through a job / bare xgboost: {median(ratios):.3f} (goal 1.05)")


if __name__ == "__main__":
    main()
