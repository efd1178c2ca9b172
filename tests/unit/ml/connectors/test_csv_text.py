"""The parsing of CSV text piece by piece: where it is cut must never matter."""

import contextlib
import csv
import gc
import io
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ml import csv_cells, csv_head
from ml.connectors import csv_text
from ml.connectors.csv import read_prediction, read_training
from ml.connectors.source import FileSource, LinesSource
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.target import Target

ONE = Target("regression", targets=1)


@contextlib.contextmanager
def pieces_of(size):
    """Pieces of so many bytes."""
    before = csv_text.PIECE_BYTES, csv_text._PIECE_BYTES_A_COLUMN, csv_text._STEP_BYTES, csv_head._HEAD_BYTES
    csv_text.PIECE_BYTES, csv_text._PIECE_BYTES_A_COLUMN = size, 1
    csv_text._STEP_BYTES, csv_head._HEAD_BYTES = max(1, size // 2), max(4, size)
    try:
        yield
    finally:
        csv_text.PIECE_BYTES, csv_text._PIECE_BYTES_A_COLUMN, csv_text._STEP_BYTES, csv_head._HEAD_BYTES = before


@contextlib.contextmanager
def written(content):
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "data.csv"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        yield FileSource(path, "data.csv")


def outcome(content, size, threads=1, **options):
    """What is read of a file, or that it is refused."""
    wanted = CsvOptions(**{"label": ("y",), **options})
    with written(content) as source, pieces_of(size):
        try:
            data = read_training([source], wanted, ONE, threads=threads)
        except BadInput as error:
            return "refused", str(error)
    return data.fitted.inputs, data.train.features.tobytes(), data.train.labels.tolist(), data.fitted.categories


# Tables that the standard library wrote

NUMBERS = st.one_of(
    st.sampled_from(["", "NA", "1", "-2.5", "1e-3", "nan", "+7", " 3 ", "   ", ".5", "007"]),
    st.floats(-1e30, 1e30).map(repr),
    st.integers(-(10**12), 10**12).map(str),
)
WORDS = st.text(alphabet="ab,;\" '\n\ré€", min_size=1, max_size=6)


@st.composite
def tables(draw):
    rows = draw(st.integers(1, 12))
    return [
        (draw(NUMBERS), draw(WORDS), draw(st.floats(-1e6, 1e6)), draw(st.sampled_from(["x", "y", "", "z z"])))
        for _ in range(rows)
    ]


def number(cell):
    return float("nan") if cell.strip() in csv_cells.MISSING else np.float32(float(cell))


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    tables(),
    st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    st.sampled_from(["\n", "\r\n", "\r"]),
    st.sampled_from([1, 3, 17, 64, 10_000]),
    st.sampled_from([1, 2]),
    st.sampled_from([",", ";", "\t"]),
)
def test_a_table_is_read_as_it_was_written_wherever_it_is_cut(rows, quoting, ending, size, threads, separator):
    text = io.StringIO(newline="")
    writer = csv.writer(text, quoting=quoting, lineterminator=ending, delimiter=separator)
    writer.writerow(["a", "note", "y", "c"])
    if quoting == csv.QUOTE_MINIMAL:  # the writer forgets that other line ends than its own need quotes
        rows = [(row[0], row[1].replace("\r", "-").replace("\n", "-"), *row[2:]) for row in rows]
    writer.writerows(rows)
    options = CsvOptions(label=("y",), ignore=("note",), categoricals=("c",), separator=separator)
    with written(text.getvalue()) as source, pieces_of(size):
        words = list(dict.fromkeys(row[3] for row in rows if row[3]))
        data = read_training([source], options, ONE, threads=threads)
    assert data.fitted.categories == {"c": {word: place for place, word in enumerate(words)}}
    expected = [
        [number(row[0]), *([float("nan")] * len(words) if not row[3] else [float(row[3] == word) for word in words])]
        for row in rows
    ]
    np.testing.assert_array_equal(data.train.features, np.array(expected, np.float32))
    assert data.train.labels[:, 0].tolist() == [row[2] for row in rows]


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet='19.,"\n\r x', max_size=40), st.sampled_from([1, 2, 5, 13]), st.sampled_from([1, 2]))
@example('1,"2\n3,4\n', 2, 1)
@example('1,5" pipe\n3,4\n"5",6\n', 5, 1)
@example('"1"\r\n,2\r\n', 1, 2)
@example("1,2\r\r\n3,4\n", 2, 1)
def test_any_text_is_read_or_refused_alike_wherever_it_is_cut(rows, size, threads):
    content = "a,y\n" + rows
    whole, cut = outcome(content, 10_000), outcome(content, size, threads)
    assert (whole[0] == "refused") == (cut[0] == "refused"), (whole, cut)
    if whole[0] != "refused":
        assert whole == cut


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=120), st.sampled_from([1, 4, 32]), st.sampled_from([",", ";", "\t", " "]))
def test_no_bytes_whatever_give_another_error_than_bad_input(content, size, separator):
    outcome(content, size, separator=separator)
    outcome(b"a" + separator.encode() + b"y\n" + content, size, separator=separator)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=6), st.booleans())
def test_no_lines_to_predict_on_give_another_error_than_bad_input(lines, labelled):
    fitted = read_training(
        [LinesSource(("a,c,y", "1,p,2", "2,q,3"))], CsvOptions(label=("y",), categoricals=("c",)), ONE
    ).fitted
    with contextlib.suppress(BadInput):
        table, _ = read_prediction([LinesSource(tuple(lines))], fitted, ONE, labelled=labelled)
        assert table.features.shape == (len(table.uris), 3)


# The place of an error

LONG = "a,y\n" + "".join(f"{row},{row}\n" for row in range(500))


@pytest.mark.parametrize("size", [8, 100, 10_000])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("x1,5\n", "line 502 of data.csv has 'x1'"),
        ("1\n", "line 502 of data.csv has 1 cells; the header line has 2"),
        ("1e99,5\n", "column a of data.csv has the value 1e+99 in row 501; it is too large"),
        ("-inf,5\n", "column a of data.csv has the value -inf in row 501; it is too large"),
        ("1,\n", "label column y of data.csv has no finite value in row 501"),
        ('"1\n,2",5\n', "line 503 of data.csv has '1\\n,2'"),
        ('"a""b",5\n', "line 502 of data.csv has 'a\"b'"),
        ("\0,1\n", "data.csv is not a text file: it holds NUL bytes"),
        (b"\xe9,1\n", "line 502 cannot be read; save it as UTF-8"),
    ],
)
def test_an_error_names_line_column_and_value_in_every_piece(size, threads, wrong, text):
    after = "".join(f"{row},{row}\n" for row in range(40))
    content = LONG.encode() + (wrong if isinstance(wrong, bytes) else wrong.encode()) + after.encode()
    kind, message = outcome(content, size, threads)
    assert kind == "refused"
    assert text in message


def test_lines_are_counted_from_the_top_of_the_file_whatever_stands_there():
    assert "line 7 of" in outcome("\n \r\n\na,y\n\n1,2\nx,3\n", 4)[1]
    assert "line 3 of" in outcome("a,y\r1,2\rx,3\r", 3)[1]
    assert "line 5 of" in outcome('"a","y"\n"1","2"\n\n"3","4"\n"x","3"\n', 3)[1]


def test_a_file_of_blanks_however_long_is_empty():
    for blanks in (" \n" * 50, "\n" * 99, "\t \r\n"):
        assert outcome(blanks, 8) == ("refused", "missing data: data.csv is empty")
    assert outcome("\n" * 99 + "a,y\n1,2\n", 8)[2] == [[2.0]]


def test_quotes_that_stand_amid_a_cell_are_read_by_the_standard_library_and_the_rest_goes_on():
    rows = [f'{row},"w{row}"' for row in range(30)]
    rows[10] = '10,5" pipe'
    rows[20] = '20, "x"'
    content = "y,c\n" + "\n".join(rows)
    for size in (6, 50, 10_000):
        options = CsvOptions(label=("y",), categoricals=("c",))
        with written(content) as source, pieces_of(size):
            data = read_training([source], options, ONE, threads=2)
        words = [f"w{row}" for row in range(30)]
        words[10], words[20] = '5" pipe', '"x"'
        assert list(data.fitted.categories["c"]) == words
        assert data.train.labels[:, 0].tolist() == list(range(30))


def test_an_open_quote_in_a_long_file_is_refused_within_bounds():
    content = 'y,c\n1,"x\n' + "2,z\n" * 3_000_000
    with (
        written(content) as source,
        pytest.raises(BadInput, match=r"line \d+ of data.csv cannot be read: field larger"),
    ):
        read_training([source], CsvOptions(label=("y",), categoricals=("c",)), ONE)


def test_a_long_header_line_is_read_and_one_beyond_the_limit_refused():
    names = ",".join(f"column_{position:06d}" for position in range(20_000))
    data = read_training([LinesSource((f"{names},y", "1," * 20_000 + "2"))], CsvOptions(label=("y",)), ONE)
    assert len(data.fitted.features) == 20_000
    with pytest.raises(BadInput, match="line 1 of in-memory data is longer than 8 MiB"):
        read_training([LinesSource(("x" * 9_000_000,))], CsvOptions(label=("y",)), ONE)


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(monkeypatch):
    whole = os.pread

    def shortened(descriptor, count, position):
        return whole(descriptor, max(0, min(count, 1000 - position)), position)

    monkeypatch.setattr(os, "pread", shortened)
    for size in (300, 100_000):
        assert "became shorter while it was read" in outcome(LONG, size)[1]


def test_no_thread_and_no_file_stays_open_after_an_error():
    gc.collect()  # what other tests left
    files, running = set(os.listdir("/proc/self/fd")), set(threading.enumerate())
    for threads in (1, 2):
        assert outcome(LONG + "x,1\n" + LONG[4:], 64, threads)[0] == "refused"
    assert set(os.listdir("/proc/self/fd")) <= files
    assert set(threading.enumerate()) <= running
