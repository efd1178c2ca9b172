"""Anonymous memory of trainings with `db`: ten times the rows in the same memory, for trees and for networks."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.yard import Client, running_stack
from workers.memory import anonymous_bytes

COLUMNS, FEW, MANY = 50, 100_000, 1_000_000
_BLOCK = 20_000
Json = dict[str, Any]

LIBRARIES: dict[str, tuple[str, Json]] = {
    "xgboost": ("xgboost", {"nclasses": 2, "iterations": 20, "booster_params": {"tree_method": "hist"}}),
    "mlp": (
        "torch",
        {
            "nclasses": 2,
            "template": "mlp",
            "layers": [64],
            "solver": {"iterations": 3_000, "test_interval": 3_000, "solver_type": "ADAM", "base_lr": 0.001},
            "net": {"batch_size": 512, "test_batch_size": 4096},
        },
    ),
}


def write_data(path: Path, rows: int) -> None:
    """Two noisy classes, written block by block."""
    numbers = np.random.default_rng(1)
    names = [*(f"x{column}" for column in range(COLUMNS)), "target"]
    with path.open("w") as file:
        file.write(",".join(names) + "\n")
        for _ in range(rows // _BLOCK):
            inputs = numbers.normal(size=(_BLOCK, COLUMNS))
            target = inputs[:, :6].sum(axis=1) + numbers.normal(size=_BLOCK) > 0
            np.savetxt(file, np.column_stack([inputs, target]), fmt=["%.4f"] * COLUMNS + ["%d"], delimiter=",")


class Watch:
    """The most anonymous memory that any training process below a worker held, in bytes."""

    def __init__(self, worker: int) -> None:
        self._worker = psutil.Process(worker)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self.most = 0

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._stop.wait(0.05):
            for process in self._worker.children(recursive=True):
                self.most = max(self.most, anonymous_bytes(process.pid) or 0)


def _job(client: Client, worker: int, name: str, library: str, mllib: Json, data: Path) -> tuple[int, float, float]:
    client.call(
        "PUT",
        f"/services/{name}",
        {
            "mllib": library,
            "description": "benchmark",
            "model": {"repository": name},
            "parameters": {
                "input": {
                    "connector": "csv",
                    "label": "target",
                    "db": True,
                    "shuffle": True,
                    "test_split": 0.1,
                    "seed": 1,
                },
                "mllib": mllib,
                "output": {"measure": ["acc", "auc"]},
            },
        },
    )
    began = time.monotonic()
    with Watch(worker) as watch:
        client.wait(client.train(name, data, {}))
    took = time.monotonic() - began
    report = client.call("GET", f"/train?service={name}&job=1")
    return watch.most, took, float(report["body"]["measure"]["auc"])


def main() -> None:
    """Print the most memory of each training, and the ratio of many rows to few."""
    with running_stack() as (stack, settings, client):
        files = {}
        for rows in (FEW, MANY):
            files[rows] = settings.data_roots[0] / f"rows-{rows}.csv"
            write_data(files[rows], rows)
        for name, (library, mllib) in LIBRARIES.items():
            found = {}
            for rows, path in files.items():
                found[rows], took, auc = _job(client, stack.pid_of("train1"), f"{name}-{rows}", library, mllib, path)
                print(
                    f"{name}: {rows:,} x {COLUMNS} ({path.stat().st_size / 2**20:.0f} MiB of CSV) in {took:.1f} s, "
                    f"AUC {auc:.3f}, at most {found[rows] / 2**20:.0f} MiB of anonymous memory",
                    flush=True,
                )
            print(f"{name}: memory of {MANY:,} rows / {FEW:,} rows: {found[MANY] / found[FEW]:.3f} (goal 1.1)")


if __name__ == "__main__":
    main()
