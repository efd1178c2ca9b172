"""Plain rows are read without the parser, and nobody can tell: both ways agree on all that the short one accepts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml.connectors.csv import Fitted, fitted_by_hand, read_prediction, read_training, resolve
from ml.connectors.csv_plain import BYTES_MOST, PlainRows
from ml.connectors.source import LinesSource
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.loading import Warning
from ml.options.target import Target
from ml.tables import DenseTable

TWO = Target("classification", classes=2)
Seen = tuple[DenseTable, list[Warning]]


def fitted_on(*lines: str, label: str = "y", **options: object) -> Fitted:
    return read_training([LinesSource(lines)], CsvOptions(label=(label,), **options), TWO).fitted  # type: ignore[arg-type]


def by_parser(fitted: Fitted, lines: tuple[str, ...], *, labelled: bool = False) -> Seen:
    """What is read when no row is plain. Raises BadInput."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainRows, "read", lambda *given: None)
        return read_prediction([LinesSource(lines)], fitted, TWO, labelled=labelled)


def plainly(fitted: Fitted, lines: tuple[str, ...]) -> Seen | None:
    """What is read without the parser; None when the rows are not plain."""
    found: list[DenseTable | None] = []
    read = PlainRows.read

    def kept(rows: PlainRows, *given: object) -> DenseTable | None:
        found.append(read(rows, *given))  # type: ignore[arg-type]
        return found[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PlainRows, "read", kept)
        try:
            seen = read_prediction([LinesSource(lines)], fitted, TWO, labelled=False)
        except BadInput:
            assert found == [None]
            return None
    assert len(found) == 1
    return None if found[0] is None else seen


def assert_alike(one: Seen, other: Seen) -> None:
    (table, warnings), (expected, remarks) = one, other
    assert table.features.dtype == expected.features.dtype
    assert table.features.shape == expected.features.shape
    assert table.features.tobytes() == expected.features.tobytes(), (table.features, expected.features)
    assert table.uris == expected.uris
    assert (table.name, table.labels) == (expected.name, expected.labels)
    assert warnings == remarks


def is_plain(fitted: Fitted, *lines: str) -> bool:
    """Whether rows are read without the parser; as the parser would, then."""
    seen = plainly(fitted, lines)
    if seen is not None:
        assert_alike(seen, by_parser(fitted, lines))
    return seen is not None


def by_hand(*inputs: str, **options: object) -> Fitted:
    """The columns of a model file that somebody put into a folder, with nothing beside it."""
    return fitted_by_hand(inputs, CsvOptions(label=("y",), **options), Path("/nowhere"))  # type: ignore[arg-type]


ROWS = ("1,2,0", "3,5,1", "-4,2.5,0")
FITTED = {
    "label last": fitted_on("a,b,y", *ROWS),
    "label first": fitted_on("y,a,b", "0,1,2", "1,3,5"),
    "label between": fitted_on("a,y,b", "1,0,2", "3,1,5"),
    "scaled": fitted_on("a,b,y", *ROWS, scale=True),
    "scaled by variance": fitted_on("a,b,y", *ROWS, scale=True, scale_type="znorm"),
    "without extent": fitted_on("a,b,y", "1,7,0", "3,7,1", scale=True),
    "ignoring": fitted_on("a,x,b,y", "1,9,2,0", "3,8,5,1", ignore=("x",)),
    "of one": fitted_on("a,y", "1,0", "2,1"),
    "numbers as names": fitted_on("1,2,0", "5,6,0", "7,8,1", label="0"),
    "letters of numbers as names": fitted_on("e,-,y", *ROWS),
    "nameless last": fitted_on("a,b,y,", "1,2,0,", "3,5,1,"),
    "with an id": fitted_on("a,b,y", *ROWS, id="a"),
    "by semicolons": fitted_on("a;b;y", "1;2;0", "3;5;1", separator=";"),
    "by blanks": fitted_on("a b y", "1 2 0", "3 5 1", separator=" "),
    "by tabs": fitted_on("a\tb\ty", "1\t2\t0", "3\t5\t1", separator="\t"),
    "by dots": fitted_on("a.b.y", "1.2.0", "3.5.1", separator="."),
    "by minus": fitted_on("a-b-y", "1-2-0", "3-5-1", separator="-"),
    "by es": fitted_on("aebey", "1e2e0", "3e5e1", separator="e"),
    "quoted by sevens": fitted_on("a,b,y", *ROWS, quote="7"),
    "quoted by minus": fitted_on("a,b,y", "1,2,0", "3,5,1", quote="-"),
    "by hand": by_hand("a", "b"),
    "by hand and scaled": by_hand("a", "b", scale=True, min_vals=(0.0, 1.0), max_vals=(4.0, 1.0)),
    "of nobody's names": by_hand("f0", "f1"),
    "of nobody's names and scaled": by_hand("f0", "f1", scale=True, min_vals=(0.0, 1.0), max_vals=(4.0, 1.0)),
    "of nobody's names and ignoring": by_hand("f0", "f1", ignore=("f0",)),
    "of nobody's names by tabs": by_hand("f0", "f1", separator="\t"),
    "without quotes": fitted_on("a,b,y", *ROWS, quote=""),
}
NUMBERS = st.one_of(
    st.floats().map(repr),
    st.floats(width=32).map(repr),
    st.integers(-(10**25), 10**25).map(str),
    st.from_regex(r"[+-]?[0-9]{0,20}\.?[0-9]{0,25}([eE][+-]?[0-9]{1,4})?", fullmatch=True),
    st.sampled_from(["3.4028235e38", "3.4028236e38", "1e39", "1e308", "1e309", "1e-46", "5e-324", "-0", "0.1", "007"]),
)
ODD = st.one_of(
    st.sampled_from(["", " ", "-", "+", ".", "e", "e5", "1e", "1e+", "--1", "+-1", "1-2", "1_0", "nan", "NA", "inf"]),
    st.sampled_from([" 1", "1 ", '"1"', "'1'", "0x1", "1f", "\u0661", "a", "b", "y", "x", "1\n2", "1\r", "1;2", "1,2"]),
    st.text('0123456789+-.eE ,;"a', max_size=6),
)


@st.composite
def tables(draw: st.DrawFn, cells: st.SearchStrategy[str]) -> tuple[str, tuple[str, ...]]:
    name = draw(st.sampled_from(sorted(FITTED)))
    fitted = FITTED[name]
    width = draw(st.sampled_from([len(fitted.features), len(fitted.columns), 1, 2, 3, 4]))
    rows = draw(st.lists(st.lists(cells, min_size=width, max_size=width), max_size=4))
    lines = [fitted.separator.join(row) for row in rows]
    header = draw(st.sampled_from([None, None, fitted.columns, fitted.features, fitted.features[::-1]]))
    if header is not None:
        lines.insert(0, fitted.separator.join(header))
    return name, tuple(lines)


@given(tables(NUMBERS))
def test_numbers_are_those_of_the_parser(table: tuple[str, tuple[str, ...]]):
    name, lines = table
    is_plain(FITTED[name], *lines)


@given(tables(st.one_of(NUMBERS, ODD)))
def test_what_the_parser_reads_otherwise_or_refuses_is_left_to_it(table: tuple[str, tuple[str, ...]]):
    name, lines = table
    is_plain(FITTED[name], *lines)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("label last", "1,2"),
        ("label last", "1,2,0"),
        ("label last", "-1.5,2e-3"),
        ("label first", "0,1,2"),
        ("label between", "1,0,2"),
        ("scaled", "2,3"),
        ("scaled by variance", "2,3"),
        ("without extent", "2,3"),
        ("ignoring", "1,9,2"),
        ("ignoring", "1,2"),
        ("of one", "1"),
        ("numbers as names", "1,2.5"),
        ("by semicolons", "1;2"),
        ("by blanks", "1 2"),
        ("by tabs", "1\t2"),
        ("without quotes", "1,2"),
        ("by hand", "1,2"),
        ("by hand and scaled", "1,2"),
        ("of nobody's names", "1,2"),
        ("of nobody's names and scaled", "1,2"),
        ("of nobody's names by tabs", "1\t2"),
    ],
)
def test_rows_of_numbers_are_plain(name: str, line: str):
    assert is_plain(FITTED[name], line, line)


@pytest.mark.parametrize(
    ("name", "lines"),
    [
        ("label last", ("a,b", "1,2")),
        ("label last", ("1,2", "1,2,0")),
        ("label last", ("1,2", "")),
        ("label last", ("", "1,2")),
        ("label last", ("1,",)),
        ("label last", ("1,NA",)),
        ("label last", ('1,"2"',)),
        ("label last", ("1, 2",)),
        ("label last", ("1,1e39",)),
        ("label last", ("1,1e999",)),
        ("label last", ("1,nan",)),
        ("label last", ("1,2,3,4",)),
        ("label last", ("1,2,0,", "3,4")),
        ("label last", ("1,2", "3", "4,5,6")),
        ("label last", (".5,5.",)),
        ("label last", ("-0,2",)),
        ("label last", ("1,-0",)),
        ("label last", ("[1],[2]",)),
        ("by semicolons", ("1;2", "3,4;5")),
        ("numbers as names", ("1,2,0", "5,6,0")),
        ("numbers as names", ("1,2", "5,6")),
        ("with an id", ("1,2,0",)),
        ("of nobody's names", ("f0,f1", "1,2")),
        ("of nobody's names", ("1,2,3",)),
        ("of nobody's names and ignoring", ("1,2",)),
        ("by dots", ("1.2",)),
        ("by minus", ("1-2",)),
        ("by es", ("1e2",)),
        ("quoted by sevens", ("717,2",)),
        ("quoted by minus", ("-1-,2",)),
    ],
)
def test_headers_gaps_words_and_wild_numbers_are_not_plain(name: str, lines: tuple[str, ...]):
    assert not is_plain(FITTED[name], *lines)


def test_words_are_not_plain_even_where_they_look_like_numbers():
    fitted = fitted_on("a,b,y", "1,u,0", "2,v,1", categoricals=("b",))
    assert not is_plain(fitted, "1,u")
    assert not is_plain(fitted, "1,2")


def test_many_rows_are_plain_and_none_is_missing_data():
    fitted = FITTED["label last"]
    assert is_plain(fitted, *[f"{row},{-row / 7}" for row in range(5_000)])
    assert not is_plain(fitted)


def test_rows_of_many_megabytes_are_left_to_the_parser():
    line = "1.000000000000000,2.000000000000000"
    assert not is_plain(FITTED["label last"], *[line] * (BYTES_MOST // len(line)))


def test_bounds_and_separators_of_a_request_count():
    fitted = fitted_on("a,b,y", *ROWS, scale=True)
    options = CsvOptions(scale=True, min_vals=(0.0, 0.0, 0.0), max_vals=(10.0, 100.0, 1.0), separator=";")
    asked = resolve(fitted, options, {"scale", "min_vals", "max_vals", "separator"})
    assert is_plain(fitted, "1,2")
    assert is_plain(asked, "1;2")
    seen = plainly(asked, ("5;50",))
    assert seen is not None
    np.testing.assert_array_equal(seen[0].features, [[0.5, 0.5]])
    assert not is_plain(asked, "1,2")


def test_rows_with_labels_to_measure_by_are_left_to_the_parser(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(PlainRows, "read", lambda *given: pytest.fail("labels would be lost"))
    table, _ = read_prediction([LinesSource(("1,2,0",))], FITTED["label last"], TWO, labelled=True)
    assert table.labels is not None
    assert table.labels.tolist() == [0]
