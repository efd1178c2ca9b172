"""`db`: the same tables as in memory, in files, and memory that does not grow with the rows."""

import contextlib
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml.connectors import columnar, csv_text
from ml.connectors.columnar import ColumnarTable
from ml.connectors.csv import read_prediction, read_training
from ml.connectors.source import LinesSource
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.target import Target
from ml.tables import DenseTable

ROOT = Path(__file__).resolve().parents[4]
TARGETS = {
    "classification": Target("classification", classes=3, ignored=9),
    "regression": Target("regression", targets=2),
    "multi_label": Target("multi_label", classes=2),
    "soft_labels": Target("soft_labels", classes=2),
    "autoencoder": Target("autoencoder"),
}


@contextlib.contextmanager
def small(size):
    """Pieces of so many bytes, and batches of few rows, so that small tables have many of both."""
    before = csv_text.PIECE_BYTES, csv_text._PIECE_BYTES_A_COLUMN, columnar.BATCH_BYTES
    csv_text.PIECE_BYTES, csv_text._PIECE_BYTES_A_COLUMN, columnar.BATCH_BYTES = size, 1, 1000
    try:
        yield
    finally:
        csv_text.PIECE_BYTES, csv_text._PIECE_BYTES_A_COLUMN, columnar.BATCH_BYTES = before


def all_rows(table):
    """Features and labels of a table in the order it has."""
    if isinstance(table, DenseTable):
        return table.features, table.labels
    features = np.concatenate([chunk.features for chunk in table.chunks()])
    return features, None if table.labels is None else np.asarray(table.labels)


def keyed(table):
    """The rows, sorted, as bytes: features and labels of each."""
    features, labels = all_rows(table)
    if labels is None:
        labels = np.zeros(len(features), np.int32)
    return sorted(one.tobytes() + other.tobytes() for one, other in zip(features, labels, strict=True))


CELLS = st.one_of(st.sampled_from(["", "NA", "0.1", "7", "-0.0"]), st.floats(-1e35, 1e35).map(repr))


@st.composite
def texts(draw, kind):
    labels = {
        "classification": st.sampled_from(["0", "1", "2", "9", "1.0"]),
        "regression": st.floats(-1e9, 1e9).map(repr),
        "multi_label": st.sampled_from(["0", "1"]),
        "soft_labels": st.floats(0, 1).map(repr),
        "autoencoder": st.sampled_from(["u", "v"]),
    }[kind]
    words = st.sampled_from(["red", "blue", "", "gr een"])
    count = draw(st.integers(4, 60))
    rows = [f"{draw(CELLS)},{draw(words)},{draw(labels)},{draw(CELLS)},{draw(labels)},id{row}" for row in range(count)]
    return LinesSource(("a,c,y,b,z,k", *rows))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(sorted(TARGETS)))
def test_a_table_is_the_same_on_disk_as_in_memory(data, kind):
    source = data.draw(texts(kind))
    options = {
        "label": ("y",) if kind == "classification" else ("y", "z"),
        "ignore": ("z",) if kind == "classification" else (),
        "id": "k",
        "categoricals": ("c",),
        "scale": data.draw(st.booleans()),
        "scale_type": data.draw(st.sampled_from(["minmax", "znorm"])),
        "shuffle": data.draw(st.booleans()),
        "seed": data.draw(st.integers(0, 5)),
        "test_split": data.draw(st.sampled_from([0.0, 0.25, 0.5])),
    }
    tests = [source] if data.draw(st.booleans()) else []
    size, threads = data.draw(st.sampled_from([10, 100, 100_000])), data.draw(st.sampled_from([1, 2]))
    made = []
    with tempfile.TemporaryDirectory() as folder:
        for db in (False, True):
            try:
                with small(size):
                    made.append(
                        read_training(
                            [source, *tests],
                            CsvOptions(**options, db=db),
                            TARGETS[kind],
                            threads=threads,
                            scratch=Path(folder),
                        )
                    )
            except BadInput as error:
                made.append(str(error))
        memory, disk = made
        if isinstance(memory, str):
            assert disk == memory
            return
        assert disk.fitted == memory.fitted
        assert (disk.report, disk.warnings) == (memory.report, memory.warnings)
        assert len(disk.tests) == len(memory.tests)
        for one, other in zip([memory.train, *memory.tests], [disk.train, *disk.tests], strict=True):
            assert isinstance(other, ColumnarTable)
            assert (len(one), one.width, one.name) == (len(other), other.width, other.name)
            for have, wanted in zip(all_rows(other), all_rows(one), strict=True):
                assert (have is None) == (wanted is None)
                if have is not None and wanted is not None:
                    assert (have.dtype, have.shape) == (wanted.dtype, wanted.shape)
            assert keyed(one) == keyed(other)
            if not options["shuffle"]:
                np.testing.assert_array_equal(all_rows(one)[0], all_rows(other)[0])


def lines(rows, label=lambda row: row % 2):
    return LinesSource(("a,y", *(f"{row},{label(row)}" for row in range(rows))))


TWO = Target("classification", classes=2)


def on_disk(source, folder, target=TWO, **options):
    return read_training([source], CsvOptions(label=("y",), db=True, **options), target, scratch=folder)


def test_shuffled_rows_on_disk_are_in_random_order_by_seed(tmp_path):
    with small(1000):
        for part in ("one", "same", "other"):
            (tmp_path / part).mkdir()
        one, same, other = (
            on_disk(lines(3000), tmp_path / part, shuffle=True, seed=seed, test_split=0.2)
            for part, seed in (("one", 1), ("same", 1), ("other", 2))
        )
        first, again, different = (all_rows(data.train)[0][:, 0] for data in (one, same, other))
    assert len(first) == 2400
    np.testing.assert_array_equal(first, again)
    assert first.tolist() != different.tolist()
    assert first.tolist() != sorted(first.tolist())
    # The test rows come from everywhere: their mean is that of all within six standard errors.
    tested = all_rows(one.tests[0])[0][:, 0]
    assert abs(tested.mean() - 1499.5) < 6 * np.arange(3000).std() / 600**0.5


def test_labels_on_disk_are_mapped(tmp_path):
    data = on_disk(lines(500), tmp_path)
    assert isinstance(data.train.labels, np.memmap)
    split = on_disk(lines(500), tmp_path, test_split=0.5)
    assert isinstance(split.tests[0].labels, np.memmap)


def test_only_the_files_of_tables_are_left(tmp_path):
    on_disk(lines(500), tmp_path, scale=True, shuffle=True, seed=1, test_split=0.5)
    assert sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()) == [
        "split/features.arrow",
        "split/labels.npy",
        "train/features.arrow",
        "train/labels.npy",
    ]


@pytest.mark.parametrize("options", [{}, {"scale": True}, {"shuffle": True, "seed": 1}])
def test_one_class_only_is_refused_on_disk_too(tmp_path, options):
    with pytest.raises(BadInput, match="holds one class only"):
        on_disk(lines(50, lambda row: 1), tmp_path, **options)


def test_a_prediction_is_made_in_memory(tmp_path):
    fitted = on_disk(lines(50), tmp_path).fitted
    table, _ = read_prediction([LinesSource(("3", "4"))], fitted, TWO, labelled=False)
    assert isinstance(table, DenseTable)


_SCRIPT = """
import sys, threading, time
from pathlib import Path
import numpy as np
from ml.connectors import columnar, csv_text
from ml.connectors.csv import read_training
from ml.connectors.source import FileSource
from ml.options.csv import CsvOptions
from ml.options.target import Target

def anonymous():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))

class Watch(threading.Thread):
    peak, stopped = 0, False
    def run(self):
        while not self.stopped:
            self.peak = max(self.peak, anonymous())
            time.sleep(0.002)

# So small that both tables have many of them.
columnar.BATCH_BYTES = csv_text.PIECE_BYTES = 2**18
path, folder = Path(sys.argv[1]), Path(sys.argv[2])
watch = Watch()
watch.start()
options = CsvOptions(label=("y",), db=True, scale=True, shuffle=True, seed=1, test_split=0.2, categoricals=("c",))
target = Target("classification", classes=2)
data = read_training([FileSource(path, "x"), FileSource(path, "x")], options, target, threads=2, scratch=folder)
for chunk in data.train.chunks(np.random.default_rng(0)):
    chunk.features.sum()
watch.stopped = True
watch.join()
print(watch.peak)
"""


def test_memory_does_not_grow_with_the_rows(tmp_path):
    peaks = []
    numbers = np.random.default_rng(0)
    block = "".join(
        ",".join(f"{value:.5f}" for value in numbers.normal(size=20)) + f",{'xyz'[row % 3]},{row % 2}\n"
        for row in range(2000)
    )
    for count in (20, 100):
        path = tmp_path / f"{count}.csv"
        with path.open("w") as file:
            file.write(",".join(f"x{column}" for column in range(20)) + ",c,y\n")
            for _ in range(count):
                file.write(block)
        folder = tmp_path / str(count)
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", _SCRIPT, str(path), str(folder)],
            capture_output=True, text=True, check=True, cwd=ROOT, timeout=100,
        )  # fmt: skip
        peaks.append(int(done.stdout))
    # In memory the 160,000 rows more would be 15 MB more, and 30 MB while they are not scaled yet.
    assert peaks[1] - peaks[0] < 6_000, peaks
