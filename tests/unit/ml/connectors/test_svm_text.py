"""Lines of svm: read as scikit-learn reads them, however they are written, and refused with the line that is wrong."""

import contextlib
import io
import os
import string

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.datasets import dump_svmlight_file, load_svmlight_file

from ml.connectors import svm_text
from ml.connectors.pieces import SourceBytes
from ml.connectors.source import FileSource, LinesSource
from ml.connectors.svm_text import SvmText
from ml.errors import BadInput


def source(tmp_path, data):
    path = tmp_path / "data.svm"
    path.write_bytes(data if isinstance(data, bytes) else data.encode())
    return FileSource(path, "data.svm")


def rows_of(given, *, labelled=True, threads=1):
    """All rows as lists: label, ids, values."""
    made = []
    with SvmText(given) as text:
        for rows in text.pieces(labelled=labelled, threads=threads):
            for row in range(len(rows)):
                part = slice(rows.starts[row], rows.starts[row + 1])
                label = None if rows.labels is None else rows.labels[row]
                made.append((label, rows.ids[part].tolist(), rows.values[part].tolist()))
    return made


def lines(*given):
    return LinesSource(given)


def only_slowly(monkeypatch):
    monkeypatch.setattr(svm_text, "_parsed", lambda *_: None)


@pytest.fixture(params=["at once", "word by word"])
def _way(request, monkeypatch):
    if request.param == "word by word":
        only_slowly(monkeypatch)


ways = pytest.mark.usefixtures("_way")


@ways
@pytest.mark.parametrize("zero_based", [True, False])
@pytest.mark.parametrize("piece_bytes", [2**22, 300])
def test_a_file_is_read_as_scikit_learn_reads_it(tmp_path, monkeypatch, zero_based, piece_bytes):
    monkeypatch.setattr(svm_text, "PIECE_BYTES", piece_bytes)
    random = np.random.default_rng(0)
    dense = random.normal(size=(60, 12)) * 10.0 ** random.integers(-6, 7, size=(60, 12))
    dense[random.uniform(size=dense.shape) < 0.6] = 0
    labels = random.normal(size=60)
    written = io.BytesIO()
    dump_svmlight_file(dense, labels, written, zero_based=zero_based, comment="made by scikit-learn\nsecond line")
    expected, truth = load_svmlight_file(io.BytesIO(written.getvalue()), zero_based=True, dtype=np.float32)
    found = rows_of(source(tmp_path, written.getvalue()), threads=2)
    assert [label for label, _, _ in found] == load_svmlight_file(io.BytesIO(written.getvalue()))[1].tolist()
    assert truth == pytest.approx(labels, rel=1e-12)
    for row, (_, ids, values) in enumerate(found):
        assert ids == expected[row].indices.tolist()
        assert values == expected[row].data.tolist()


@ways
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 1:0.5 3:2\n0 2:1\n", [(1, [1, 3], [0.5, 2]), (0, [2], [1])]),
        ("1 1:0.5 3:2\n0 2:1", [(1, [1, 3], [0.5, 2]), (0, [2], [1])]),
        ("1 1:0.5\r\n0 2:1\r\n", [(1, [1], [0.5]), (0, [2], [1])]),
        ("1 1:0.5\r0 2:1\r", [(1, [1], [0.5]), (0, [2], [1])]),
        ("\ufeff1 1:0.5\n", [(1, [1], [0.5])]),
        ("\n\n1 1:0.5\n\n   \n\t\n0 2:1\n\n", [(1, [1], [0.5]), (0, [2], [1])]),
        ("  1\t1:0.5   3:2 \n\t0 2:1\t\n", [(1, [1, 3], [0.5, 2]), (0, [2], [1])]),
        ("1\n0 2:1\n-1\n", [(1, [], []), (0, [2], [1]), (-1, [], [])]),
        ("# head\n1 1:0.5 # x (1) 3:4\n#\n0 2:1#end\n", [(1, [1], [0.5]), (0, [2], [1])]),
        ("1 qid:7 1:0.5\n0 qid:8\n", [(1, [1], [0.5]), (0, [], [])]),
        ("+1 1:+0.5\n-1 2:-1\n", [(1, [1], [0.5]), (-1, [2], [-1])]),
        ("1e1 1:.5 2:5. 3:1E-3 4:-1e+2\n", [(10, [1, 2, 3, 4], [0.5, 5, np.float32(1e-3), -100])]),
        ("1.5 007:1 08:2\n", [(1.5, [7, 8], [1, 2])]),
        ("1 0:1 1:0\n", [(1, [0, 1], [1, 0])]),
        (f"1 5:1 {2**40}:2 {2**63 - 2}:3\n", [(1, [5, 2**40, 2**63 - 2], [1, 2, 3])]),
        ("1\x0b1:2\x0c2:3\n", [(1, [1, 2], [2, 3])]),
        ("1 1:1e-60\n", [(1, [1], [0])]),
    ],
)
def test_what_people_write_is_understood(tmp_path, text, expected):
    assert rows_of(source(tmp_path, text)) == expected
    in_memory = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert rows_of(lines(*in_memory)) == expected


@ways
def test_a_missing_value_is_kept_as_one():
    ((_, ids, values),) = rows_of(lines("1 1:nan 2:NaN 4:2"))
    assert ids == [1, 2, 4]
    assert np.isnan(values[:2]).all()
    assert values[2] == 2


@ways
@pytest.mark.parametrize(
    "text",
    [
        ("1:0.5 3:2", "2:1"),
        ("1 1:0.5 3:2", "0 2:1"),
        ("1 1:0.5 3:2", "2:1"),
        ("1:0.5 3:2", "", "# nothing", "0 2:1"),
        ("qid:3 1:0.5 3:2", "2:1"),
    ],
)
def test_labels_may_be_there_or_not_when_they_are_not_asked_for(text):
    assert rows_of(lines(*text), labelled=False) == [(None, [1, 3], [0.5, 2]), (None, [2], [1])]


WRONG = {
    "no label": ("3:2 4:1", "has no label: it begins with '3:2'"),
    "a word as label": ("good 1:1", "has the label 'good'; a label is a number"),
    "several labels": ("1,3 1:1", "has the label '1,3': a row has one label; use the connector csv for several"),
    "a number alone": ("1 5", "has the word '5', which is no feature of the form id:value"),
    "no id": ("1 :5", "has the word ':5', which is no feature"),
    "no value": ("1 5:", "has the word '5:', which is no feature"),
    "two colons": ("1 5:1:2", "has the word '5:1:2', which is no feature"),
    "a blank behind the colon": ("1 5: 1", "has the word '5:', which is no feature"),
    "a word as id": ("1 age:3", "has the word 'age:3', which is no feature"),
    "a word as value": ("1 5:red", "has the word '5:red', which is no feature"),
    "hexadecimal id": ("1 0x10:3", "has the word '0x10:3', which is no feature"),
    "hexadecimal value": ("1 16:0x3", "has the word '16:0x3', which is no feature"),
    "an id that is no whole number": ("1 1.0:3", "has the word '1.0:3', which is no feature"),
    "signed id": ("1 +1:3", "has the word '+1:3', which is no feature"),
    "underscores": ("1 1_0:3", "has the word '1_0:3', which is no feature"),
    "underscores in the value": ("1 10:1_0", "has the word '10:1_0', which is no feature"),
    "several signs": ("1 1:+-3", "has the word '1:+-3', which is no feature"),
    "nan with text": ("1 1:nan(7)", "has the word '1:nan(7)', which is no feature"),
    "quotes": ('1 "1:3"', "has the word '\"1:3\"', which is no feature"),
    "other digits": ("1 \u0661:3", "has the word '\u0661:3', which is no feature"),
    "no UTF-8": (b"1 \xff1:3", "has the word '\ufffd1:3', which is no feature"),
    "negative id": ("1 -1:3", "has the feature id '-1'; ids are whole numbers from 0"),
    "id beyond all": (f"1 {2**63 - 1}:3", f"has the feature id '{2**63 - 1}'; ids are whole numbers"),
    "id without end": ("1 " + "9" * 5000 + ":3", "has the feature id '999"),
    "twice": ("1 3:1 3:2", "has feature 3 twice; the ids of a row must increase"),
    "out of order": ("1 3:1 2:2", "has feature 2 after feature 3; the ids of a row must increase"),
    "infinite": ("1 3:inf", "has the value 'inf' for feature 3; it is too large"),
    "beyond float32": ("1 3:1e39", "has the value '1e39' for feature 3; it is too large"),
    "qid without number": ("1 qid:x 3:1", "has the word 'qid:x', which is no feature"),
    "qid elsewhere": ("1 3:1 qid:2", "has the word 'qid:2', which is no feature"),
}


@ways
@pytest.mark.parametrize(("line", "text"), WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("piece_bytes", [2**22, 20])
def test_a_line_that_is_wrong_is_named(tmp_path, monkeypatch, line, text, piece_bytes):
    monkeypatch.setattr(svm_text, "PIECE_BYTES", piece_bytes)
    data = b"1 1:2 7:1\n\n0 2:1 3:4\n" + (line if isinstance(line, bytes) else line.encode()) + b"\n1 1:1\n"
    with pytest.raises(BadInput) as caught:
        rows_of(source(tmp_path, data))
    assert f"line 4 of data.svm {text}" in str(caught.value)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "missing data: data.svm is empty"),
        (b"\n \n\t\r\n# only comments\n", "missing data: data.svm is empty"),
        ("1 1:2".encode("utf-16"), "data.svm is UTF-16 text"),
        (b"1 1:2\n\0\0\n", "data.svm is not a text file: it holds NUL bytes"),
    ],
)
def test_what_is_no_text_of_rows_is_refused(tmp_path, data, text):
    with pytest.raises(BadInput, match=text):
        rows_of(source(tmp_path, data))


def test_a_line_without_end_is_refused_before_memory_is_full(tmp_path, monkeypatch):
    monkeypatch.setattr(svm_text, "PIECE_BYTES", 100)
    monkeypatch.setattr(svm_text, "LINE_LIMIT_BYTES", 10_000)
    monkeypatch.setattr(svm_text, "_STEP_BYTES", 500)
    row = " ".join(f"{each}:1" for each in range(900))
    assert len(rows_of(source(tmp_path, f"1 {row}\n0 {row}\n"))) == 2
    long = " ".join(f"{each}:1" for each in range(3000))
    with pytest.raises(BadInput, match=r"line 2 of data\.svm, or a line soon behind it, is longer than"):
        rows_of(source(tmp_path, f"1 1:1{' ' * 100}\n1 {long}\n"))


def test_a_source_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput, match=r"is a directory, requires an svm file"):
        SvmText(FileSource(tmp_path, "folder"))
    with pytest.raises(BadInput, match=r"data file gone\.svm does not exist"):
        SvmText(FileSource(tmp_path / "gone.svm", "gone.svm"))
    with pytest.raises(BadInput, match=r"/dev/null is no regular file, requires an svm file"):
        SvmText(FileSource(tmp_path / "/dev/null", "/dev/null"))
    with pytest.raises(BadInput, match=r"characters that are no Unicode text"):
        SvmText(lines("1 1:\ud800"))


def test_bytes_are_read_by_offset(tmp_path):
    path = tmp_path / "some"
    path.write_bytes(bytes(range(100)))
    for origin in (FileSource(path, "some"), LinesSource((bytes(range(100)).decode(),))):
        data = SourceBytes(origin, "a file")
        assert data.size == 100
        assert data.read(10, 5) == bytes(range(10, 15))
        assert data.read(98, 5) == bytes([98, 99])
        assert data.read(200, 5) == b""
        data.close()


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path):
    path = tmp_path / "train.svm"
    path.write_text("1 1:2\n" * 1000)
    data = SourceBytes(FileSource(path, "train.svm"), "an svm file")
    os.truncate(path, 100)
    with pytest.raises(BadInput, match=r"train\.svm became shorter while it was read"):
        data.read(50, 200)
    data.close()


def test_a_row_is_found_again(tmp_path, monkeypatch):
    monkeypatch.setattr(svm_text, "PIECE_BYTES", 30)
    text = "".join(f"# comment {row}\n\n{row} 1:{row}\n" for row in range(20))
    with SvmText(source(tmp_path, text)) as opened:
        found = [
            (int(label), opened.line_of(rows.position, row))
            for rows in opened.pieces(labelled=True, threads=1)
            for row, label in enumerate(rows.labels)
        ]
    assert found == [(row, 3 * row + 3) for row in range(20)]


tables = st.lists(
    st.tuples(
        st.floats(allow_nan=False, allow_infinity=False, width=32),
        st.dictionaries(
            st.integers(0, 2**62) | st.integers(0, 20),
            st.floats(allow_nan=False, allow_infinity=False, width=32),
            max_size=6,
        ),
    ),
    min_size=1,
    max_size=12,
)


@settings(max_examples=150, deadline=None)
@given(tables, st.sampled_from([" ", "  ", "\t"]), st.sampled_from(["\n", "\r\n", "\n\n", " \n", " # c\n"]))
def test_rows_come_back_as_they_were_written(table, blank, end):
    text = "".join(
        blank.join([repr(label), *(f"{each}:{row[each]!r}" for each in sorted(row))]) + end for label, row in table
    )
    expected = [(label, sorted(row), [row[each] for each in sorted(row)]) for label, row in table]
    assert rows_of(lines(*text.split("\n"))) == expected
    unlabelled = [(None, ids, values) for _, ids, values in expected]
    assert rows_of(lines(*text.split("\n")), labelled=False) == unlabelled


likely = st.text(st.sampled_from("0123456789:. +-\t\n\r#eqidnaxf()_,\"'\x0b") | st.sampled_from("٣é\0"), max_size=60)
seldom = st.binary(max_size=40).map(lambda data: data.decode("latin-1")) | st.text(string.printable, max_size=40)


@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(likely | seldom, st.booleans())
def test_any_text_is_read_alike_in_both_ways_or_refused(text, labelled):
    def outcome():
        try:
            return repr(rows_of(lines(*text.split("\n")), labelled=labelled))
        except BadInput as error:
            return str(error)

    at_once = outcome()
    with pytest.MonkeyPatch.context() as patch:
        only_slowly(patch)
        assert outcome() == at_once


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=80))
def test_no_bytes_do_more_than_be_refused(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("fuzz") / "data.svm"
    path.write_bytes(data)
    with contextlib.suppress(BadInput):
        rows_of(FileSource(path, "data.svm"))
