"""A CSV file into the table that backends train on, against pyarrow's parser alone: same file, threads and process,
in alternating pairs.

The parser alone gives one array of 64-bit numbers per column; the table is one of 32-bit numbers, checked for what
cannot be trained on, with its labels.
"""

from __future__ import annotations

import gc
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.csv as pacsv

from benchmarks.yard import median
from ml.connectors.csv import read_training
from ml.connectors.source import FileSource
from ml.options.csv import CsvOptions
from ml.options.target import Target

ROWS, COLUMNS, PAIRS = 200_000, 50, 11


def write_data(path: Path) -> None:
    """Numbers of five decimals, and a label of two classes."""
    numbers = np.random.default_rng(1)
    names = [*(f"x{column}" for column in range(COLUMNS)), "target"]
    path.write_text(",".join(names) + "\n", encoding="utf-8")
    with path.open("ab") as file:
        for _ in range(0, ROWS, 20_000):
            inputs = numbers.normal(size=(20_000, COLUMNS)).round(5)
            columns = [*inputs.T, (inputs[:, :6].sum(axis=1) > 0).astype(np.int64)]
            pacsv.write_csv(
                pa.table(dict(zip(names, columns, strict=True))), file, pacsv.WriteOptions(include_header=False)
            )


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    made = work()
    took = time.perf_counter() - began
    del made
    return took


def main() -> None:
    """Print, for one thread and for one per core, seconds and the middle ratio of the pairs."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        path = folder / "data.csv"
        write_data(path)
        megabytes = path.stat().st_size / 1e6
        target = Target("classification", classes=2)
        for threads in sorted({1, psutil.cpu_count(logical=False) or 1, psutil.cpu_count() or 1}):
            pa.set_cpu_count(threads)
            reading = pacsv.ReadOptions(use_threads=threads > 1)

            def table(db: bool, threads: int = threads) -> object:
                options = CsvOptions(label=("target",), db=db)
                return read_training([FileSource(path, path.name)], options, target, threads=threads, scratch=folder)

            sides: dict[str, Callable[[], object]] = {
                "parser": lambda reading=reading: pacsv.read_csv(path, read_options=reading),  # type: ignore[misc]
                "table": lambda table=table: table(False),  # type: ignore[misc]
                "table on disk": lambda table=table: table(True),  # type: ignore[misc]
            }
            found: dict[str, list[float]] = {name: [] for name in sides}
            for pair in range(PAIRS + 1):
                for name in sides if pair % 2 == 0 else reversed(sides):
                    found[name].append(_seconds(sides[name]))
            # The first round of each fills caches.
            best = {name: values[1:] for name, values in found.items()}
            for name in ("table", "table on disk"):
                ratios = [one / other for one, other in zip(best[name], best["parser"], strict=True)]
                print(
                    f"{threads} thread{'s' if threads > 1 else ''}: parser {median(best['parser']):.3f} s "
                    f"({megabytes / median(best['parser']):.0f} MB/s), {name} {median(best[name]):.3f} s, "
                    f"ratio {median(ratios):.3f}" + (" (goal 1.2)" if name == "table" else ""),
                    flush=True,
                )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
