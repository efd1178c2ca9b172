"""A file into the table that backends train on, against a parser alone: same file, threads and process, in alternating
pairs. For CSV the parser is pyarrow's, for svm scikit-learn's.

The parser of CSV gives one array of 64-bit numbers per column; the table is one of 32-bit numbers, checked for what
cannot be trained on, with its labels. That of svm gives what the table is, a sparse array of
32-bit numbers and labels; it knows no threads.
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
from sklearn.datasets import load_svmlight_file

from benchmarks.yard import median
from ml.connectors import csv, svm
from ml.connectors.source import FileSource
from ml.options.csv import CsvOptions
from ml.options.svm import SvmOptions
from ml.options.target import Target

ROWS, COLUMNS, PAIRS = 200_000, 50, 11
SVM_ROWS, SVM_IDS, SVM_VALUES = 30_000, 2_000, 40
_TARGET = Target("classification", classes=2)


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


def write_svm(path: Path) -> None:
    """Rows of SVM_VALUES out of SVM_IDS features, numbers of five decimals, and a label of two classes."""
    numbers = np.random.default_rng(1)
    with path.open("w", encoding="ascii") as file:
        for _ in range(SVM_ROWS):
            ids = np.sort(numbers.choice(SVM_IDS, SVM_VALUES, replace=False)) + 1
            values = numbers.normal(size=SVM_VALUES)
            words = (f"{one}:{value:.5f}" for one, value in zip(ids.tolist(), values.tolist(), strict=True))
            file.write(f"{int(values[:6].sum() > 0)} {' '.join(words)}\n")


def _seconds(work: Callable[[], object]) -> float:
    gc.collect()
    began = time.perf_counter()
    made = work()
    took = time.perf_counter() - began
    del made
    return took


def _rounds(sides: dict[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Seconds of each side in each round, their order turned round every time."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for pair in range(PAIRS + 1):
        for name in sides if pair % 2 == 0 else reversed(sides):
            found[name].append(_seconds(sides[name]))
    # The first round of each fills caches.
    return {name: values[1:] for name, values in found.items()}


def _tell(threads: int, name: str, found: dict[str, list[float]], megabytes: float, parser: str, goal: str) -> None:
    ratios = [one / other for one, other in zip(found[name], found[parser], strict=True)]
    print(
        f"{threads} thread{'s' if threads > 1 else ''}: {parser} {median(found[parser]):.3f} s "
        f"({megabytes / median(found[parser]):.0f} MB/s), {name} {median(found[name]):.3f} s, "
        f"ratio {median(ratios):.3f}{goal}",
        flush=True,
    )


def _csv(folder: Path) -> None:
    path = folder / "data.csv"
    write_data(path)
    megabytes = path.stat().st_size / 1e6
    for threads in sorted({1, psutil.cpu_count(logical=False) or 1, psutil.cpu_count() or 1}):
        pa.set_cpu_count(threads)
        reading = pacsv.ReadOptions(use_threads=threads > 1)

        def table(db: bool, threads: int = threads) -> object:
            options = CsvOptions(label=("target",), db=db)
            return csv.read_training([FileSource(path, path.name)], options, _TARGET, threads=threads, scratch=folder)

        found = _rounds(
            {
                "parser": lambda reading=reading: pacsv.read_csv(path, read_options=reading),  # type: ignore[misc]
                "table": lambda table=table: table(False),  # type: ignore[misc]
                "table on disk": lambda table=table: table(True),  # type: ignore[misc]
            }
        )
        _tell(threads, "table", found, megabytes, "parser", " (goal 1.2)")
        _tell(threads, "table on disk", found, megabytes, "parser", "")


def _svm(folder: Path) -> None:
    path = folder / "data.svm"
    write_svm(path)
    pa.set_cpu_count(1)
    found = _rounds(
        {
            "scikit-learn": lambda: load_svmlight_file(str(path), dtype=np.float32),
            "svm table": lambda: svm.read_training([FileSource(path, path.name)], SvmOptions(), _TARGET, threads=1),
        }
    )
    _tell(1, "svm table", found, path.stat().st_size / 1e6, "scikit-learn", " (goal 1)")


def main() -> None:
    """Print, for CSV with one thread and with one per core, seconds and the middle ratio of the pairs."""
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        _csv(folder)
        _svm(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
