"""What is said of data that is neither CSV nor svm, or the one for the other."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from ml import csv_head
from ml.connectors import csv, svm
from ml.connectors.source import FileSource, LinesSource, Source
from ml.errors import BadInput
from ml.options.csv import CsvOptions
from ml.options.svm import SvmOptions
from ml.options.target import Target
from ml.other_formats import other_than_csv, refuse_others

TWO = Target("classification", classes=2)
ROWS = "a,b,y\n1,2,0\n3,4,1\n"


def said(*lines: str, **options: object) -> str:
    """Why no training can be made of lines of CSV."""
    return refused(LinesSource(lines), **options)


def refused(source: Source, **options: object) -> str:
    chosen = CsvOptions(**{"label": ("y",), **options})  # type: ignore[arg-type]
    with pytest.raises(BadInput) as error:
        csv.read_training([source], chosen, TWO)
    return str(error.value)


def said_of_svm(source: Source, folder: Path) -> str:
    with pytest.raises(BadInput) as error:
        svm.read_training([source], SvmOptions(), TWO, threads=1, scratch=folder)
    return str(error.value)


def _zipped(content: bytes) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w") as archive:
        archive.writestr("rows.csv", content)
    return held.getvalue()


def _array() -> bytes:
    held = io.BytesIO()
    np.save(held, np.eye(2))
    return held.getvalue()


PACKED = {
    "packed with gzip": gzip.compress(ROWS.encode()),
    "packed with bzip2": bz2.compress(ROWS.encode()),
    "packed with xz": lzma.compress(ROWS.encode()),
    "a zip archive or a spreadsheet": _zipped(ROWS.encode()),
    "an array of numpy": _array(),
}


@pytest.mark.parametrize("what", PACKED)
def test_packed_files_are_named(what: str, tmp_path: Path):
    path = tmp_path / "rows"
    path.write_bytes(PACKED[what])
    source = FileSource(path, "rows.csv.gz")
    assert f"rows.csv.gz is {what}; " in refused(source)
    assert f"rows.csv.gz is {what}; " in said_of_svm(source, tmp_path)


def test_text_is_refused_for_none_of_its_beginnings():
    for text in (ROWS, "PAR1,PAR2\n", "BZh,a\n", "PK,a\n", ""):
        refuse_others("rows", text.encode())


def test_each_format_is_told_from_the_other(tmp_path: Path):
    assert "the connector svm" in said("1 1:0.5 2:3", "0 1:1")
    assert "looks like CSV" in said_of_svm(LinesSource(["a,b,y", "1,2,0"]), tmp_path)
    assert "looks like JSON" in said('[{"a": 1, "y": 0},', '{"a": 2, "y": 1}]')
    assert "looks like JSON" in said("{", '"a": 1}')


@pytest.mark.parametrize("first", ["a", "a b", "1 2", "1:2", "[a", "x {", "1 1:2 b", "", "\x1c"])
def test_what_may_be_csv_is_taken_for_nothing_else(first: str):
    assert other_than_csv([first]) == ""
    assert other_than_csv([]) == ""


@pytest.mark.parametrize("name", ["iris", "iris.cvs", "folder/iris"])
def test_single_word_is_told_to_be_no_file(name: str, tmp_path: Path):
    hint = f"no data root has a file '{name}', so it was taken for a line of data"
    assert hint in said(name)
    assert hint in said_of_svm(LinesSource([name]), tmp_path)
    fitted = csv.read_training([LinesSource(ROWS.splitlines())], CsvOptions(label=("y",)), TWO).fitted
    with pytest.raises(BadInput, match=hint):
        csv.read_prediction([LinesSource([name])], fitted, TWO, labelled=False)
    with pytest.raises(BadInput, match="each text of data is a whole row, with ',' between its cells"):
        csv.read_prediction([LinesSource(["1", "2"])], fitted, TWO, labelled=False)


def test_columns_that_are_not_there_are_told_with_those_that_may_be_meant(tmp_path: Path):
    assert said("a,B,Y", "1,2,0").endswith("its columns are a, B, Y; did you mean 'Y'?")
    assert said("a,species", "1,0", label=("specis",)).endswith("did you mean 'species'?")
    assert said("1,2,0", "3,4,1").endswith("; is the header line missing, which names the columns?")
    assert said("1.5,2,setosa", "3,4,setosa").endswith("; is the header line missing, which names the columns?")
    assert said("0,1,2", "3,4,1", label=("5",)).endswith("its columns are 0, 1, 2"), "columns may be called so"
    fitted = csv.read_training([LinesSource(ROWS.splitlines())], CsvOptions(label=("y",)), TWO).fitted
    for header, hint in (("a;b", "to ';'"), ("A,b", "did you mean 'A'"), ("1,2", "header line missing")):
        path = tmp_path / "rows.csv"
        path.write_text(f"{header}\n1,2\n")
        with pytest.raises(BadInput, match=hint):
            csv.read_prediction([FileSource(path, path.name)], fitted, TWO, labelled=False)


def test_numbers_with_a_comma_and_quotes_that_stay_open_are_told():
    assert said("a;y", "1,5;0", separator=(";",)).endswith("has '1,5'; numbers are written with a point, as in 1.5")
    assert said("a,y", '"1,0', "2,1").endswith('a cell of it holds line ends: is a quote " before it not closed?')


def test_near_names_are_looked_for_among_few_and_short_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    compared: list[list[str]] = []

    def none(word: str, known: Iterable[str], n: int) -> list[str]:
        compared.append([word, *known])
        return []

    monkeypatch.setattr(csv_head.difflib, "get_close_matches", none)
    columns = [f"{number:05}" + "ab" * 500 for number in range(5000)]
    assert csv_head.near("ab" * 500, columns) == ""
    assert len(compared[0]) == 201
    assert max(map(len, compared[0])) == 40
    assert csv_head.near(" LABEL ", [*columns, "label", *columns]) == "; did you mean 'label'?"


def test_name_that_differs_by_case_is_told_before_all_else() -> None:
    assert "did you mean 'Y'" in said("Y", "1", "2")
