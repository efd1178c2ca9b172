"""First lines are refused exactly when the training would be: the connector, which reads all lines, is the judge."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ml import svm_labels
from ml.connectors import svm
from ml.connectors.source import FileSource
from ml.errors import BadInput
from ml.file_bytes import FileBytes
from ml.options.svm import SvmOptions
from ml.options.target import Target
from ml.svm_labels import check_first_lines

TWO = Target("classification", classes=2)
NUMBER = Target("regression", targets=1)
ITSELF = Target("autoencoder")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("lines") / "few.svm"


def judged(path: Path, target: Target, offset: int = 0) -> str:
    """What is said of the first lines; nothing when they pass."""
    try:
        with closing(FileBytes(path, "few.svm", "an svm file")) as content:
            check_first_lines(content, "few.svm", offset, target)
    except BadInput as error:
        return str(error)
    return ""


def trained(path: Path, target: Target, offset: int = 0) -> str:
    """What a training on all lines is told; nothing when it works."""
    try:
        svm.read_training([FileSource(path, "few.svm")], SvmOptions(label_offset=(offset,)), target)
    except BadInput as error:
        return str(error)
    return ""


def test_word_of_half_a_million_digits_takes_no_time(path: Path):
    path.write_bytes(b"1" * 500_000 + b"x 1:1\n")  # tried in as many ways as there are digits it would take a day
    assert "a label is a number" in judged(path, TWO)


@pytest.mark.parametrize(
    ("text", "target", "told"),
    [
        ("0 1:1\n1 1:2\n7 1:3\n", TWO, "label 7 in line 3 of few.svm is outside of 0..1"),
        ("# rows\n\n1 1:1\n2 1:2\n", TWO, "label 2 in line 4 of few.svm is outside of 0..1; set parameters"),
        ("-1 1:1\n0 1:2\n", TWO, "label -1 in line 1"),
        ("0 1:1\r\n1:1\r\n", TWO, "line 2 of few.svm has no label: it begins with '1:1'"),
        ("0 1:1\nyes 1:1\n", NUMBER, "line 2 of few.svm has the label 'yes'; a label is a number"),
        ("0 1:1\n0,1 1:1\n", TWO, "use the connector csv for several"),
        ("0 1:1\ninf 1:1\n", NUMBER, "label inf in line 2 of few.svm is no finite number"),
        ("# nothing\n", TWO, "missing data: few.svm is empty"),
    ],
)
def test_first_lines_are_told_what_the_training_would_tell(path: Path, text: str, target: Target, told: str):
    path.write_text(text, newline="")
    assert told in judged(path, target)
    assert judged(path, target) == trained(path, target)


@pytest.mark.parametrize(
    ("text", "target", "offset"),
    [
        ("-1 1:1\n1 1:2\n", TWO, 0),
        ("1 1:1\n2 1:2\n", TWO, -1),
        ("0 qid:1 1:1\n+1 1:2 # last\n", TWO, 0),
        ("0 1:1\n1 1:2\n9 1:3\n", Target("classification", classes=2, ignored=9), 0),
        ("0.5 1:1\n-7e3 1:2\n", NUMBER, 3),
        ("1:1\n1:2\n", ITSELF, 0),
    ],
)
def test_first_lines_that_a_training_works_with_pass(path: Path, text: str, target: Target, offset: int):
    path.write_text(text)
    assert trained(path, target, offset) == ""
    assert judged(path, target, offset) == ""


WORDS = st.sampled_from(["0", "1", "-1", "2", "0.5", "inf", "nan", "x", "1,0", "1:3", "#", "", "\ufeff0"])


@settings(max_examples=150, deadline=None)
@given(
    labels=st.lists(WORDS, max_size=12),
    end=st.sampled_from(["\n", "\r\n", "\r"]),
    target=st.sampled_from([TWO, Target("classification", classes=2, ignored=-1), NUMBER]),
    offset=st.sampled_from([-1, 0, 1]),
    bytes_=st.sampled_from([5, 20, 60, 1000]),
    most=st.integers(1, 14),
)
def test_no_training_that_would_work_is_refused(
    path: Path, labels: list[str], end: str, target: Target, offset: int, bytes_: int, most: int
):
    text = end.join(f"{label} 1:1 2:2" for label in [*labels, *["0", "1", "-1"] * 4]) + end
    path.write_text(text, encoding="utf-8", newline="")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(svm_labels, "_BYTES", bytes_)
        patch.setattr(svm_labels, "_LINES", most)
        told = judged(path, target, offset)
    assert not told or trained(path, target, offset), told
