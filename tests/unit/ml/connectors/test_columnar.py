"""Tables on disk: what is written is read, in every order, and never held in memory."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml.connectors import columnar
from ml.connectors.columnar import ColumnarTable, ColumnarWriter
from ml.errors import BadInput

ROOT = Path(__file__).resolve().parents[4]


@pytest.fixture(autouse=True)
def _small_batches(monkeypatch):
    # Blocks of 8 rows and batches of 512 for tables of 4 features.
    monkeypatch.setattr(columnar, "BATCH_BYTES", 64 * 8 * 4 * 4)


def rows_of(count, width=4, dtype=np.float32):
    return np.arange(count * width, dtype=dtype).reshape(count, width)


def written(folder, features, labels=None, *, piece=100):
    writer = ColumnarWriter(folder, features.shape[1], features.dtype)
    for first in range(0, len(features), piece):
        wanted = None if labels is None else labels[first : first + piece]
        writer.append(features[first : first + piece], wanted)
    return writer.finish("data.csv")


def taken(table, generator=None, start=0):
    """Features and labels in the order in which the chunks say to take them."""
    found = []
    for chunk in table.chunks(generator, start):
        order = slice(None) if chunk.order is None else chunk.order
        found.append((chunk.features[order], None if chunk.labels is None else chunk.labels[order]))
    features = np.concatenate([each[0] for each in found]) if found else np.empty((0, table.width), np.float32)
    labels = None if table.labels is None else np.concatenate([each[1] for each in found])
    return features, labels


@pytest.mark.parametrize("piece", [1, 100, 512, 5000])
@pytest.mark.parametrize("count", [1, 8, 511, 512, 513, 1100])
def test_a_table_reads_as_it_was_written(tmp_path, count, piece):
    features, labels = rows_of(count), np.arange(count, dtype=np.int32)
    table = written(tmp_path, features, labels, piece=piece)
    assert (len(table), table.width, table.name, table.uris) == (count, 4, "data.csv", None)
    found, of_rows = taken(table)
    np.testing.assert_array_equal(found, features)
    np.testing.assert_array_equal(of_rows, labels)
    assert found.dtype == np.float32
    assert of_rows.dtype == np.int32


def test_other_readers_know_the_files(tmp_path):
    features, labels = rows_of(600), np.linspace(0, 1, 1200).reshape(600, 2)
    written(tmp_path, features, labels)
    read = pa.ipc.open_file(tmp_path / "features.arrow").read_all()
    np.testing.assert_array_equal(np.array(read["features"].to_pylist(), np.float32), features)
    np.testing.assert_array_equal(np.load(tmp_path / "labels.npy"), labels)


def test_labels_may_be_absent_or_have_several_columns(tmp_path):
    assert written(tmp_path / "a", rows_of(20)).labels is None
    table = written(tmp_path / "b", rows_of(20), rows_of(20, 3, np.float64))
    assert table.labels.shape == (20, 3)
    assert table.labels.dtype == np.float64


def test_labels_and_rows_in_order_are_mapped_files(tmp_path):
    table = written(tmp_path, rows_of(1100), np.arange(1100, dtype=np.int32))
    assert isinstance(table.labels, np.memmap)
    for chunk in table.chunks():
        assert not chunk.features.flags.owndata
        assert np.shares_memory(chunk.features, table._mapped)
        # Some libraries insist on arrays that may be written to; the file stays as it is.
        chunk.features[0, 0] = -1
    assert taken(ColumnarTable(tmp_path, "again"))[0][0, 0] == 0


@pytest.mark.parametrize("count", [1, 7, 8, 300, 512, 2000, 5001])
def test_random_order_takes_every_row_once_with_its_label_and_follows_the_generator(tmp_path, count):
    table = written(tmp_path, rows_of(count), np.arange(count, dtype=np.int32))
    one, labels = taken(table, np.random.default_rng(3))
    again, _ = taken(table, np.random.default_rng(3))
    other, _ = taken(table, np.random.default_rng(4))
    np.testing.assert_array_equal(one, again)
    np.testing.assert_array_equal(one[:, 0], labels * 4)
    assert sorted(labels.tolist()) == list(range(count))
    if count > 8:
        assert one.tolist() != other.tolist()
        assert one.tolist() != rows_of(count).tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3000), st.integers(0, 3000), st.booleans())
def test_start_leaves_out_the_first_rows_of_the_same_order(tmp_path_factory, count, start, is_random):
    table = written(tmp_path_factory.mktemp("table"), rows_of(count), np.arange(count, dtype=np.int32))
    make = (lambda: np.random.default_rng(5)) if is_random else (lambda: None)
    whole, labels = taken(table, make())
    rest, of_rest = taken(table, make(), start) if start < count else (whole[count:], labels[count:])
    np.testing.assert_array_equal(rest, whole[start:])
    np.testing.assert_array_equal(of_rest, labels[start:])
    if start >= count:
        assert list(table.chunks(make(), start)) == []


def test_the_generator_is_drawn_from_alike_however_far_a_pass_goes(tmp_path):
    table = written(tmp_path, rows_of(3000))
    after = []
    for chunks, start in ((1, 0), (9, 0), (1, 2500)):
        generator = np.random.default_rng(1)
        for _, _chunk in zip(range(chunks), table.chunks(generator, start), strict=False):
            pass
        after.append(generator.integers(2**60))
    assert len(set(after)) == 1


def test_left_out_chunks_are_not_read(tmp_path, monkeypatch):
    table = written(tmp_path, rows_of(5000), np.arange(5000, dtype=np.int32))
    made = []
    real = np.empty

    def counted(shape, *given, **more):
        made.append(shape)
        return real(shape, *given, **more)

    monkeypatch.setattr(np, "empty", counted)
    rest = list(table.chunks(np.random.default_rng(1), 4800))
    assert len(rest) == 1
    assert len([shape for shape in made if isinstance(shape, tuple) and shape[-1] == 4]) == 1


def test_rows_move_far_from_their_place(tmp_path):
    count = 20_000
    table = written(tmp_path, rows_of(count), np.arange(count, dtype=np.int32))
    _, labels = taken(table, np.random.default_rng(0))
    # A perfect shuffle has correlation 0 with a standard deviation of 1/sqrt(n), and moves a row n/3 on average.
    assert abs(np.corrcoef(labels, np.arange(count))[0, 1]) < 0.05
    assert abs(np.abs(labels - np.arange(count)).mean() / (count / 3) - 1) < 0.05
    # The rows of a chunk come from all over the table: a table sorted by class gives chunks with all classes.
    chunk = next(iter(table.chunks(np.random.default_rng(0))))
    assert np.bincount(chunk.labels // 2000, minlength=10).min() > 0


def test_a_part_is_a_table_of_its_own(tmp_path):
    table = written(tmp_path, rows_of(1500), np.arange(1500, dtype=np.int32))
    part = table.part(70, 1203, "split")
    assert (len(part), part.name, len(part.labels)) == (1133, "split", 1133)
    features, labels = taken(part)
    np.testing.assert_array_equal(features, rows_of(1500)[70:1203])
    np.testing.assert_array_equal(labels, np.arange(70, 1203))
    shuffled, labels = taken(part, np.random.default_rng(0), 50)
    np.testing.assert_array_equal(shuffled[:, 0], labels * 4)
    assert len(set(labels.tolist())) == 1083
    numbers = np.concatenate([each[0] for each in part.numbered(np.random.default_rng(0))])
    assert sorted(numbers.tolist()) == list(range(1133))


def test_labels_may_be_replaced(tmp_path):
    table = written(tmp_path, rows_of(700), np.arange(700, dtype=np.int32))
    table.relabel(lambda labels: labels * 2.5)
    assert table.labels.tolist() == [2.5 * row for row in range(700)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["features.arrow", "labels.npy"]


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path):
    """A limit on the size of files stands in for a full disk: the same errors come back."""
    script = (
        "import resource, signal, sys, numpy as np\n"
        "from pathlib import Path\n"
        "from ml.connectors.columnar import ColumnarWriter\n"
        "from ml.errors import BadInput\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000_000, 30_000_000))\n"
        "writer = ColumnarWriter(Path(sys.argv[1]), 50)\n"
        "try:\n"
        "    for _ in range(20): writer.append(np.zeros((20_000, 50), np.float32), np.zeros(20_000))\n"
        "except BadInput as error: print(error)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "table")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, timeout=60)
    assert "the disk is full: parameters.input.db keeps the table on disk" in done.stdout
    assert list((tmp_path / "table").iterdir()) == []


def test_labels_that_find_no_space_are_told(tmp_path, monkeypatch):
    table = written(tmp_path, rows_of(700), np.arange(700, dtype=np.int32))

    class Full:
        name = str(tmp_path / "labels.new")

        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def close(self):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "open", lambda self, mode: Full())
    with pytest.raises(BadInput, match="the disk is full"):
        table.relabel(lambda labels: labels)
    assert table.labels[5] == 5


def test_what_cannot_be_written_for_another_reason_says_so(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written: file exists"):
        ColumnarWriter(tmp_path / "file", 3)


def test_very_wide_rows_make_batches_of_few_rows(tmp_path):
    table = written(tmp_path, rows_of(200, 5000), piece=7)
    np.testing.assert_array_equal(taken(table)[0], rows_of(200, 5000))
    found, _ = taken(table, np.random.default_rng(1))
    assert sorted(found[:, 0].tolist()) == rows_of(200, 5000)[:, 0].tolist()
