"""A network trained through a job against a plain PyTorch loop: same file, batches, solver and threads, in pairs.

The second figure is what the engine adds to an iteration, seen on a network so small that there is little else.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.training import COLUMNS, write_data
from benchmarks.yard import Client, median, running_stack

ITERATIONS, BATCH, LAYERS, PAIRS = 40_000, 128, [150, 150], 3
SMALL_ITERATIONS, SMALL_PAIRS = 20_000, 5
Json = dict[str, Any]

_BARE = """
import json, sys, time
import numpy as np, pyarrow.csv, torch
path, iterations, batch, layers, threads, target = sys.argv[1], *map(json.loads, sys.argv[2:6]), sys.argv[6]
torch.set_num_threads(threads)
began = time.perf_counter()
table = pyarrow.csv.read_csv(path)
inputs = np.column_stack([table[name].to_numpy() for name in table.column_names[:-1]]).astype(np.float32)
inputs, labels = torch.from_numpy(inputs), torch.from_numpy(table["target"].to_numpy()).long()
read = time.perf_counter()
sizes, parts = [inputs.shape[1], *layers], []
for before, after in zip(sizes, sizes[1:]):
    parts += [torch.nn.Linear(before, after), torch.nn.ReLU()]
network = torch.nn.Sequential(*parts, torch.nn.Linear(sizes[-1], 2))
optimizer = torch.optim.Adam(network.parameters(), 0.001, fused=True)
order, place, losses = torch.randperm(len(inputs)), 0, []
for _ in range(iterations):
    if place + batch > len(inputs):
        order, place = torch.randperm(len(inputs)), 0
    rows = order[place : place + batch]
    place += batch
    loss = torch.nn.functional.cross_entropy(network(inputs[rows]), labels[rows])
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    losses.append(loss.item())
trained = time.perf_counter()
torch.save(network.state_dict(), target)
saved = time.perf_counter()
print(json.dumps({"reading": read - began, "training": trained - read, "saving": saved - trained}))
"""

_OURS = """
import json, sys
from ml.training import session
session.run(session.Specification.from_json(json.load(sys.stdin)), lambda event: print(json.dumps(event)))
"""


def _mllib(iterations: int, layers: list[int]) -> Json:
    return {
        "nclasses": 2,
        "template": "mlp" if layers else "lregression",
        **({"layers": layers} if layers else {}),
        "net": {"batch_size": BATCH},
        "solver": {
            "iterations": iterations,
            "test_interval": iterations,
            "solver_type": "ADAM",
            "base_lr": 0.001,
        },
    }


def _environment(threads: int) -> dict[str, str]:
    return {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "OMP_NUM_THREADS": str(threads)}


def _bare(data: Path, iterations: int, layers: list[int], threads: int) -> dict[str, float]:
    numbers = [json.dumps(each) for each in (iterations, BATCH, layers, threads)]
    command = [sys.executable, "-c", _BARE, str(data), *numbers, str(data.with_suffix(".pt"))]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=_environment(threads))
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _job(client: Client, name: str, data: Path) -> tuple[dict[str, float], float]:
    client.call(
        "PUT",
        f"/services/{name}",
        {
            "mllib": "torch",
            "description": "benchmark",
            "model": {"repository": name},
            "parameters": {
                "input": {"connector": "csv", "label": "target", "shuffle": True},
                "mllib": _mllib(ITERATIONS, LAYERS),
                "output": {},
            },
        },
    )
    phases = client.wait(client.train(name, data, {}))["phases"]
    parts = ("reading", "training", "saving")
    around = sum(value for phase, value in phases.items() if phase not in parts)
    return {phase: phases[phase] for phase in parts}, around


def _in_process(data: Path, threads: int) -> float:
    """Seconds of training of the small network, without a job around it."""
    with tempfile.TemporaryDirectory(prefix="bench-") as scratch:
        specification = {
            "task": "bench",
            "backend": "torch",
            "connector": "csv",
            "parameters": {
                "input": {"label": "target", "shuffle": True, "seed": 1},
                "mllib": _mllib(SMALL_ITERATIONS, []),
                "output": {},
            },
            "data": [{"path": str(data), "name": data.name}],
            "scratch": scratch,
            "resume": None,
            "threads": threads,
            "device": "cpu",
            "checkpoint_s": 1e9,
        }
        command = [sys.executable, "-c", _OURS]
        given = json.dumps(specification)
        done = subprocess.run(
            command, input=given, check=True, capture_output=True, text=True, env=_environment(threads)
        )
    last = [line for line in done.stdout.splitlines() if line.startswith("{")][-1]
    return float(json.loads(last)["seconds"]["training"])


def main() -> None:
    """Print seconds by phase and the ratio of each pair, then microseconds per iteration of the small network."""
    # One thread: with two, on a machine of two cores, what else runs there decides about both sides.
    with running_stack(threads=1) as (_, settings, client):
        data = settings.data_roots[0] / "bench.csv"
        write_data(data)
        ratios = []
        for pair in range(PAIRS):
            bare: dict[str, float] = {}
            job: dict[str, float] = {}
            around = 0.0
            for side in ("bare", "job") if pair % 2 == 0 else ("job", "bare"):
                if side == "bare":
                    bare = _bare(data, ITERATIONS, LAYERS, settings.threads)
                else:
                    job, around = _job(client, f"bench-{pair}", data)
            ratios.append(sum(job.values()) / sum(bare.values()))
            print(
                f"pair {pair + 1}: bare {sum(bare.values()):.2f} s, job {sum(job.values()):.2f} s "
                f"(+ {around:.2f} s around it), ratio {ratios[-1]:.3f}; "
                + ", ".join(f"{phase} {bare[phase]:.2f}/{job[phase]:.2f}" for phase in bare),
                flush=True,
            )
        print(
            f"mlp of {COLUMNS} inputs and {LAYERS} units, through a job / plain PyTorch: "
            f"{median(ratios):.3f} (goal 1.05)"
        )
        added = []
        for pair in range(SMALL_PAIRS):
            seconds = {}
            for side in ("bare", "ours") if pair % 2 == 0 else ("ours", "bare"):
                if side == "bare":
                    seconds[side] = _bare(data, SMALL_ITERATIONS, [], 1)["training"]
                else:
                    seconds[side] = _in_process(data, 1)
            added.append((seconds["ours"] - seconds["bare"]) / SMALL_ITERATIONS * 1e6)
        print(f"added to an iteration of one affine layer: {median(added):.0f} us (of {SMALL_PAIRS} pairs)")


if __name__ == "__main__":
    main()
