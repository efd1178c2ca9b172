"""First rows are refused exactly when the training would be: the connector, which reads all rows, is the judge."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import csv_first_rows
from ml.connectors import csv
from ml.connectors.source import FileSource
from ml.csv_first_rows import check_first_rows
from ml.csv_head import CsvHead
from ml.errors import BadInput
from ml.file_bytes import FileBytes
from ml.options.csv import CsvOptions
from ml.options.target import Target

CLASSES = Target("classification", classes=2)
MANY = Target("multi_label", classes=2)
SHARES = Target("soft_labels", classes=2)
NUMBER = Target("regression", targets=1)
NUMBERS = Target("regression", targets=2)
ITSELF = Target("autoencoder")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rows") / "few.csv"


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first rows are the first 40 bytes."""
    monkeypatch.setattr(csv_first_rows, "_BYTES", 40)


def judged(path: Path, options: CsvOptions, target: Target) -> str:
    """What is said of the first rows; nothing when they pass."""
    with closing(FileBytes(path, "few.csv", "a CSV file")) as content:
        try:
            head = CsvHead(content, "few.csv", options.separator[0], options.quote[:1])
            check_first_rows(head, head.header(), options, target)
        except BadInput as error:
            return str(error)
    return ""


def trained(path: Path, options: CsvOptions, target: Target) -> str:
    """What a training on all rows is told; nothing when it works."""
    try:
        csv.read_training([FileSource(path, "few.csv")], options, target)
    except BadInput as error:
        return str(error)
    return ""


def one(label: str = "l", **more: object) -> CsvOptions:
    return CsvOptions(label=(label,), **more)  # type: ignore[arg-type]


TWO = CsvOptions(label=("l", "m"))

REFUSED = [
    ("a,l\n1,0\n2,1\n3,2\n", one(), CLASSES, "label 2 of column l in few.csv is outside of 0..1, first in row 3"),
    ("a,l\n1,1\n2,2\n", one(), CLASSES, "set parameters.input.label_offset to -1?"),
    ("a,l\n1,0\n2,1\n", one(label_offset=(-1,)), CLASSES, "label 0 of column l in few.csv (with label_offset -1)"),
    ("a,l\n1,0\n2,0.5\n", one(), CLASSES, "is this a regression?"),
    ("a,l\n1,0\n2,inf\n", one(), CLASSES, "label inf of column l in few.csv is outside of 0..1"),
    ("a,l\n1,x\n2,y\n3,z\n", one(), CLASSES, "holds 3 classes (x, y, z), but parameters.mllib.nclasses is 2"),
    ("a,l\n1,0\n2,\n", one(), CLASSES, "label column l of few.csv has no value in row 2"),
    ("a,l\n1,0\n2,NA\n", one(), CLASSES, "label column l of few.csv has no value in row 2"),
    ("a;l\n1;0\n2;'7'\n", one(separator=";", quote="'"), CLASSES, "label 7 of column l"),
    ("a,l\n1,0\n2,9\n", one(scale=True, categoricals=("a",)), CLASSES, "label 9 of column l"),
    ("a,l\n1,0\n\n2,1,5\n", one(), CLASSES, "line 4 of few.csv has 3 cells; the header line has 2"),
    ('a,l\n"1\n",0\n2\n', one(), CLASSES, "line 4 of few.csv has 1 cells; the header line has 2"),
    ("a,l\n1,0\n2,\xff\n", one(), CLASSES, "few.csv is not UTF-8 text: line 3 cannot be read"),
    ("a,l\n \n\n", one(), CLASSES, "few.csv has a header line but no rows"),
    ("a,l\n1,0\n\0,1\n", one(), CLASSES, "it holds NUL bytes"),
    ("a,l,m\n1,0,1\n2,0,2\n", TWO, MANY, "has 2 in row 2; with several labels per row each must be 0 or 1"),
    ("a,l,m\n1,0,1\n2,0,-0.5\n", TWO, SHARES, "has -0.5 in row 2; shares of classes must be between 0 and 1"),
    ("a,l\n1,0\n2,x\n", one(), NUMBER, "column l is not a number, use categoricals or ignore parameters instead"),
    ("a,l\n1,0\n2,NA\n", one(), NUMBER, "label column l of few.csv has no finite value in row 2"),
    ("a,l,m\n1,0,3\n2,1,1e999\n", TWO, NUMBERS, "label column m of few.csv has no finite value in row 2"),
    ("a,l\n1,0\n2,1,5\n", CsvOptions(), ITSELF, "line 3 of few.csv has 3 cells"),
]


@pytest.mark.parametrize(("text", "options", "target", "told"), REFUSED)
def test_first_rows_are_told_what_the_training_would_tell(
    path: Path, text: str, options: CsvOptions, target: Target, told: str
):
    path.write_bytes(text.encode("latin-1"))
    assert told in judged(path, options, target)
    assert judged(path, options, target) == trained(path, options, target)


PASSED = [
    ("a,l\n1,1\n2,2\n", one(label_offset=(-1,)), CLASSES),
    ("a,l\n1,x\n2,y\n", one(label_offset=(-1,)), CLASSES),
    ("a,l\n1,0\n2,1.0\n3,1\n4, 1\n5,+1\n", one(), CLASSES),
    ("a,l\n1,0\n2,1\n3,255\n", one(), Target("classification", classes=2, ignored=255)),
    ("a,l\n1,x\n2,y\n3,-1\n", one(), Target("classification", classes=2, ignored=-1)),
    ("a,l\n1,0\n2,7.5\n", one(), NUMBER),
    ("a,l,m\n1,3,2\n2,4,2\n", CsvOptions(label=("l", "m"), label_offset=(-3, -2)), MANY),
    ("a,l,m\n1,0.5,1e-3\n", TWO, SHARES),
    ("a,l\n1,x\n2,\n", one(), ITSELF),
    ("a,l,m\n1,x,y\n2,,\n", CsvOptions(label=("l", "m"), label_offset=(-1, -2)), ITSELF),
    ("a,l,\n1,0,\n2,1,\n", one(), CLASSES),
    ('a,l\r\n"1",0\r\n\r\n2,"1"', one(), CLASSES),
    ("a,l\r1,0\r2,1\r", one(), CLASSES),
]


@pytest.mark.parametrize(("text", "options", "target"), PASSED)
def test_first_rows_that_a_training_works_with_pass(path: Path, text: str, options: CsvOptions, target: Target):
    path.write_text(text, newline="")
    assert trained(path, options, target) == ""
    assert judged(path, options, target) == ""


def test_number_that_is_no_class_may_be_the_name_of_one(path: Path, short: None):
    rows = "".join(f"{row},7\n" for row in range(20))
    path.write_text(f"a,l\n{rows}1,cat\n")
    assert trained(path, one(), CLASSES) == ""
    assert judged(path, one(), CLASSES) == ""
    path.write_text(f"a,l\n{rows}1,8\n")
    assert judged(path, one(), CLASSES) == "", "the training tells"


def test_more_labels_than_classes_are_told_without_the_rest(path: Path, short: None):
    path.write_text("a,l\n" + "1,7\n1,8\n1,9\n" * 4 + "1,cat\n")
    assert "holds 4 classes" in trained(path, one(), CLASSES)
    assert "is outside of 0..1" in judged(path, one(), CLASSES)
    path.write_text("a,l\n1,0\n1,1\n1,1.0\n" + "1,0\n" * 20)
    assert judged(path, one(), CLASSES) == ""


def test_row_that_is_cut_is_not_judged(path: Path, short: None):
    for text in ("a,l\n" + "1,0\n" * 9 + "1234,1\n", 'a,l\n"' + "1,0\n" * 20 + '",0\n' + "1,0\n2,1\n"):
        path.write_text(text)
        assert judged(path, one(categoricals=("a",)), CLASSES) == ""


def test_no_more_than_the_beginning_is_read(path: Path):
    path.write_text("a,l\n" + "1,0\n" * 500_000)
    with closing(FileBytes(path, "few.csv", "a CSV file")) as content:
        read: list[int] = []
        ask = content.read
        content.read = lambda position, count: read.append(count) or ask(position, count)  # type: ignore
        head = CsvHead(content, "few.csv", ",", '"')
        check_first_rows(head, head.header(), one(), CLASSES)
    assert sum(read) < 2**20


CELLS = st.sampled_from(
    [
        "0",
        "1",
        " 1",
        "2",
        "-1",
        "1.0",
        "0.5",
        "x",
        "y y",
        "z",
        "",
        " ",
        "NA",
        "nan",
        "inf",
        "nan(1)",
        "1_0",
        '"',
        '"1"',
        "é",
    ]
)


@settings(max_examples=150, deadline=None)
@given(
    rows=st.lists(st.tuples(CELLS, CELLS) | st.tuples(CELLS), max_size=14),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    target=st.sampled_from([CLASSES, Target("classification", classes=3, ignored=-1), MANY, SHARES, NUMBER, NUMBERS]),
    offset=st.sampled_from([-1, 0, 1]),
    bytes_=st.sampled_from([5, 20, 60, 1000]),
    most=st.integers(1, 14),
)
def test_no_training_that_would_work_is_refused(
    path: Path, rows: list[tuple[str, ...]], end: str, target: Target, offset: int, bytes_: int, most: int
):
    options = CsvOptions(label=("l", "m")[: target.labels], label_offset=(offset,), categoricals=("a",))
    if target.labels == 1:
        options = one(label_offset=(offset,), ignore=("m",), categoricals=("a",))
    text = end.join(["a,l,m", *(",".join(("w", *cells)) for cells in rows), *["w,0,0", "w,1,1"] * 5]) + end
    path.write_text(text, newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(csv_first_rows, "_BYTES", bytes_)
        patch.setattr(csv_first_rows, "_ROWS", most)
        told = judged(path, options, target)
    assert not told or trained(path, options, target), told
