"""The beginning of a remote file refuses no training that the connector, which reads the whole, would work with."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api import prechecks
from ml import csv_first_rows, svm_labels
from ml.connectors import csv, svm
from ml.connectors.source import FileSource
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.svm import SvmOptions
from ml.options.target import Target

CLASSES = Target("classification", classes=2)
NUMBER = Target("regression", targets=1)
CSV = CsvOptions(label=("l",), categoricals=("a",))


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("beginnings") / "few"


def judged(content: bytes, options: CsvOptions | SvmOptions, target: Target) -> str:
    """What is said of a file of which the first bytes have come; nothing when it passes."""
    try:
        prechecks.check_beginning(content[: prechecks.BYTES_MOST], len(content), "few", options, target)
    except BadInput as error:
        return str(error)
    return ""


def trained(path: Path, content: bytes, options: CsvOptions | SvmOptions, target: Target) -> str:
    """What a training on all of it is told; nothing when it works."""
    path.write_bytes(content)
    try:
        if isinstance(options, CsvOptions):
            csv.read_training([FileSource(path, "few")], options, target)
        else:
            svm.read_training([FileSource(path, "few")], options, target)
    except BadInput as error:
        return str(error)
    return ""


@pytest.mark.parametrize(
    ("content", "options"),
    [
        (b"a,b\n1,0\n", CSV),
        (b"a,l\n", CSV),
        (b"a,l\n\n \n", CSV),
        (b"\n\n", CSV),
        (b"a,l\nx,0\ny,7\n", CSV),
        (b"a,l\nx,0\ny\n", CSV),
        (b"a;l\nx;0\n", CSV),
        (b"PK\x03\x04", CSV),
        (b"0 1:1\n7 1:1\n", SvmOptions()),
        (b"1:1\n", SvmOptions()),
        (b"# none\n", SvmOptions()),
    ],
)
def test_whole_file_that_came_is_told_in_the_words_of_the_training(
    path: Path, content: bytes, options: CsvOptions | SvmOptions
):
    told = trained(path, content, options, CLASSES)
    assert told
    assert judged(content, options, CLASSES) == told


def test_what_only_the_end_of_the_file_tells_is_left_to_the_worker(monkeypatch: pytest.MonkeyPatch):
    content = b"a,l\n" + b"x,0\n" * 100 + b"x\n"
    assert "has 1 cells" in judged(content, CSV, CLASSES)
    monkeypatch.setattr(prechecks, "BYTES_MOST", 300)
    assert judged(content, CSV, CLASSES) == ""
    assert judged(b'"' + b"a" * 300 + b'",l\nx,0\n', CSV, CLASSES) == "", "a header that goes on"
    assert judged(b"x 1:1\n" * 100, SvmOptions(), CLASSES) == ""


CELLS = st.sampled_from([b"0", b"1", b" 1", b"2", b"-1", b"0.5", b"x", b"", b"NA", b"inf", b'"', b'"1"', b"\xff"])
HEADS = st.sampled_from([b"a,l", b"\xef\xbb\xbfa,l", b"a;l", b"l,a", b"a,b", b"\n a,l", b'"a",l', b'"a\n",l', b"a,l,"])
MOST = st.sampled_from([1, 3, 4, 5, 20, 60, 1000])
FEW = st.sampled_from([4, 20, 1000])


@settings(max_examples=100, deadline=None)
@given(
    head=HEADS,
    rows=st.lists(st.tuples(CELLS, CELLS) | st.tuples(CELLS), max_size=12),
    end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    target=st.sampled_from([CLASSES, NUMBER]),
    most=MOST,
    few=FEW,
)
def test_no_csv_that_would_work_is_refused(
    path: Path, head: bytes, rows: list[tuple[bytes, ...]], end: bytes, target: Target, most: int, few: int
):
    content = end.join([head, *map(b",".join, rows), *[b"w,0", b"w,1"] * 5]) + end
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prechecks, "BYTES_MOST", most)
        patch.setattr(csv_first_rows, "_BYTES", few)
        told = judged(content, CSV, target)
    assert not told or trained(path, content, CSV, target), told


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.sampled_from([b"0", b"1", b"-1", b"2", b"inf", b"x", b"1:3", b"#", b""]), max_size=12),
    target=st.sampled_from([CLASSES, NUMBER]),
    most=MOST,
    few=FEW,
)
def test_no_svm_that_would_work_is_refused(path: Path, labels: list[bytes], target: Target, most: int, few: int):
    content = b"\n".join(label + b" 1:1 2:2" for label in [*labels, *[b"0", b"1"] * 4])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prechecks, "BYTES_MOST", most)
        patch.setattr(svm_labels, "_BYTES", few)
        told = judged(content, SvmOptions(), target)
    assert not told or trained(path, content, SvmOptions(), target), told
